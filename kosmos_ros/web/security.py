# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Refuse requests by their address, token, Host and Origin. Set the headers of all responses.

Web pages of other sites run in the same browser. They must not reach the node, not even through a
host name that resolves to this machine (DNS rebinding). Knows ASGI; no route and no ROS.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kosmos_ros.errors import ConfigError
from kosmos_ros.sanitize import quoted

NO_TOKEN = "none"  # value of the parameter `token`: never require one
ANYWHERE = ("0.0.0.0", "::")  # stand for all addresses of this machine
MIN_TOKEN = 16  # characters of a token that the user chooses
TOKEN_BYTES = 24  # of a generated token
MAX_TOKEN = 256  # characters
MOST_FIELDS = 10  # of the address of the page; a request with more has no token
WRONG_TOKEN = (
    "the token is missing or wrong; open the address of the page with ?token=TOKEN at its end, or "
    "send the header Authorization: Bearer TOKEN"
)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OWN_SITES = ("", "none", "same-origin")
"""Values of Sec-Fetch-Site for which more than the page itself is sent. Old browsers send none."""


def is_loopback(address: str) -> bool:
    """Return whether only programs of this machine can reach an address. Raises ConfigError."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError as exc:
        raise ConfigError(
            f"parameter address must be an IP address of this machine or localhost, got "
            f"{quoted(address)}; 0.0.0.0 means all IPv4 addresses"
        ) from exc


def token_for(address: str, token: str, source: str) -> str:
    """Return the token that clients must show; empty: none. Raises ConfigError.

    `token` is the user's: empty, NO_TOKEN, or a text. `source` says where it is set. A server that
    other machines can reach always has a token.
    """
    if is_loopback(address) and token in ("", NO_TOKEN):
        return ""
    if token == NO_TOKEN:
        raise ConfigError(
            f"{source} must not be {NO_TOKEN} for the address {address}, because other "
            "machines can reach it; leave it empty for a generated token"
        )
    if not token:
        return secrets.token_urlsafe(TOKEN_BYTES)
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"{source} must have {MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters, "
            f"got {len(token)} characters; leave it empty for a generated token"
        )
    return token


def address_of(host: str, port: int, token: str) -> str:
    """Return the address of the page, with the token unless it is empty."""
    link = f"?token={quote(token, safe='')}" if token else ""
    return f"http://{_bracketed(host)}:{port}/{link}"


def _bracketed(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


class Guard:
    """Pass permitted requests to `app`, and refuse all others with status 403.

    `hosts` are further names under which this server may be called. `token` is empty if no token
    is required. `cookie` is the name of the cookie that keeps it.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = self._wrong_host(scope, headers) or self._wrong_origin(scope, headers)
        by_link = False
        if not reason and self._token:
            by_link = self._is_link(scope)
            if not by_link and not self._has_token(headers):
                reason = WRONG_TOKEN

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found[name] = value
                if by_link:
                    found.append("Set-Cookie", self._cookie_header())
            await send(message)

        if not reason:
            await self._app(scope, receive, answer)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # 403 so early
        else:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, answer)

    def _wrong_host(self, scope: Scope, headers: Headers) -> str:
        """Return why the Host is wrong; empty: it is right."""
        names = headers.getlist("host")
        host = _hostname(f"http://{names[0]}") if len(names) == 1 else ""
        here = (scope.get("server") or ("",))[0]  # the address at which the request arrived
        if host and (host in self._hosts or _same_address(host, here)):
            return ""
        return (
            f"the host {quoted(host)} is not a name of this server; add it to the parameter "
            "allowed_hosts of web_node"
        )

    def _wrong_origin(self, scope: Scope, headers: Headers) -> str:
        """Return why this request must be from another site's page; empty: it need not be."""
        host = headers["host"].lower()
        if any(
            origin.lower() not in (f"http://{host}", f"https://{host}")
            for origin in headers.getlist("origin")
        ):
            return "a web page of another site must not use this server"
        if scope["path"] != "/" and headers.get("sec-fetch-site", "") not in OWN_SITES:
            return "another site must not use this server"
        return ""

    def _is_link(self, scope: Scope) -> bool:
        """Return whether this request opens the page with the token in its address."""
        if scope["type"] != "http" or scope["path"] != "/":
            return False
        try:
            query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=MOST_FIELDS)
        except ValueError:  # more fields
            return False
        return any(self._is_token(token) for token in query.get("token", ()))

    def _has_token(self, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        # SimpleCookie reads none if another server of this machine has set a strange one.
        return self._is_token(cookie_parser(headers.get("cookie", "")).get(self._cookie, ""))

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token.encode())

    def _cookie_header(self) -> str:
        cookies: SimpleCookie = SimpleCookie({self._cookie: self._token})
        return f"{cookies[self._cookie].OutputString()}; HttpOnly; Path=/; SameSite=Strict"


def _hostname(address: str) -> str:
    """Return the host of an address without its port, in lower case; empty: it has none."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises an error for a port that is no number
        wrong = parts.path or parts.query or parts.fragment or "@" in parts.netloc
        return "" if wrong else (parts.hostname or "")
    except ValueError:  # of a port or of an IPv6 address
        return ""


def _same_address(host: str, other: str) -> bool:
    try:
        one, two = ipaddress.ip_address(host), ipaddress.ip_address(other)
    except ValueError:
        return False
    mapped = getattr(two, "ipv4_mapped", None)  # IPv4 to a socket for both versions
    return one in (two, mapped)
