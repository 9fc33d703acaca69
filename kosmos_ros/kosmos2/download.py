# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read from a Hugging Face hub over HTTP, within limits that no server can exceed.

Limits the size, the duration and the redirects of every response, and removes passwords from
addresses in messages. Knows no models and no cache.
"""

from __future__ import annotations

import base64
import functools
import http.client
import io
import math
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import huggingface_hub
from huggingface_hub import constants

from kosmos_ros.errors import ModelLoadError, UnreachableError
from kosmos_ros.sanitize import first_line, one_line, quoted

CONNECT = 10.0  # s to connect, and again for the TLS handshake
PATIENCE = 60.0  # s of waiting; a server must send MIN_BYTES or end its response in this time
MIN_BYTES = 60_000
HEADERS = 1 << 18  # limit of the status lines and headers of one response in bytes
PIECE = 1 << 16  # bytes that are read at a time
REDIRECTS = 10
REDIRECTIONS = (301, 302, 303, 307, 308)
BUSY = (408, 429)  # HTTP: request timeout, too many requests
MAX_MESSAGE = 200  # characters of the hub's own message
FAILURES = (OSError, http.client.HTTPException, ValueError)  # errors of urllib

LOG_IN = "check the name, or log in with 'hf auth login'"
ERROR_MESSAGES = {  # header X-Error-Code: message
    "GatedRepo": "accept the terms of the model at {hub} and log in with 'hf auth login' and an "
    "account that may read it",
    "RevisionNotFound": "{hub} has no such revision of this model",
    "RepoNotFound": "{hub} has no model of this name that you may read; " + LOG_IN,
}


def address() -> str:
    """Return the hub's address without passwords, for messages."""
    return masked(constants.ENDPOINT)


def masked(text: str) -> str:
    """Remove user names, passwords and query strings from the addresses in a text."""
    return re.sub(r"\S+", _masked, text)


def _masked(word: re.Match[str]) -> str:
    # One regular expression for addresses would start at each slash and take quadratic time.
    scheme, slashes, rest = word[0].partition("//")
    rest = re.sub(r"\?[^'\"]*", "", rest.rpartition("@")[2])
    return scheme + slashes + rest


def read(path: str, most: int) -> bytes:
    """Return the body at a path of the hub. It may have at most `most` bytes.

    Raises UnreachableError if the network or the hub fails; ModelLoadError if the hub refuses.
    """
    response, _ = _request(path, {})
    with response:
        body = response.receive(most + 1)
    if len(body) > most:
        raise ModelLoadError(f"{address()}: {path} must have at most {most} bytes, got more")
    if response.length:
        raise UnreachableError(f"{address()}: the response is incomplete")
    return body


def append(
    path: str, file: io.FileIO, size: int, expected: dict[str, str], count: Callable[[int], object]
) -> None:
    """Download the rest of a file of `size` bytes from a path of the hub to the end of `file`.

    Reads the body only if the hub's headers "etag" and "x-repo-commit" have the `expected` values.
    Calls `count` with the number of bytes of each piece that arrives. Raises UnreachableError and
    ModelLoadError as `read` does, and OSError if the disk fails. The pieces that have arrived
    stay in `file`.
    """
    first = file.seek(0, os.SEEK_END)
    response, received = _request(path, {"Range": f"bytes={first}-"} if first else {})
    with response:
        _check_headers(received, expected | {"x-linked-size": str(size)})
        if response.status == HTTPStatus.OK:  # the hub ignores the range and sends all of the file
            file.truncate(0)
            first = file.seek(0)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {first}-"):
            got = quoted(response.headers.get("Content-Range"))
            raise ModelLoadError(f"{address()} must send the bytes from {first}, got {got}")
        left = size - first
        if response.length not in (None, left):
            raise ModelLoadError(f"{address()} must send {left} bytes, got {response.length}")
        while data := response.receive(min(PIECE, left + 1)):
            left -= len(data)
            if left < 0:
                raise ModelLoadError(f"{address()} must send {size} bytes, got more")
            _write(file, data)
            count(len(data))
    if left:
        raise UnreachableError(f"{address()}: the connection ended {left} bytes too early")


def _write(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:  # a disk that is nearly full first writes a part, and raises at the next write
        view = view[file.write(view) :]


def _check_headers(received: dict[str, str], expected: dict[str, str]) -> None:
    """Raise ModelLoadError unless a file's headers have the expected values.

    The size may be missing, because `append` limits the body.
    """
    etag = received.get("x-linked-etag", received.get("etag", ""))
    received = {"x-linked-size": expected["x-linked-size"]} | received
    received["etag"] = etag.removeprefix("W/").strip('"')
    for name, value in expected.items():
        if (got := received.get(name)) != value:
            raise ModelLoadError(
                f"{address()} must answer with the {name} {value}, got {quoted(got)}"
            )


def _request(path: str, headers: dict[str, str]) -> tuple[_Response, dict[str, str]]:
    """Send a GET and follow redirects. Return the last response, and all headers of the hub."""
    if constants.HF_HUB_OFFLINE:
        raise ModelLoadError("HF_HUB_OFFLINE is set and forbids downloads; unset it")
    hub, password = _endpoint()
    url, received = hub + path, dict[str, str]()
    headers = {"User-Agent": "kosmos_ros", "Accept-Encoding": "identity"} | headers
    if authorization := password or _token():
        headers["Authorization"] = authorization
    for _ in range(REDIRECTS + 1):
        response = _open(url, headers)
        if _origin(url) == _origin(hub):
            received |= {name.lower(): str(value) for name, value in response.headers.items()}
        if response.status not in REDIRECTIONS:
            _check_response(response)
            return response, received
        response.close()
        target = _redirected(url, response.headers.get("Location", ""))
        if _origin(target) != _origin(url):
            headers.pop("Authorization", None)  # the token is for the hub alone
        url = target
    raise ModelLoadError(f"{address()} must redirect at most {REDIRECTS} times")


def _endpoint() -> tuple[str, str]:
    """Return the hub's address without its user and password, and these as a header's value."""
    scheme, separator, rest = constants.ENDPOINT.partition("://")
    if not separator:
        raise ModelLoadError("HF_ENDPOINT must begin with http:// or https://")
    netloc, slash, path = rest.partition("/")
    user, _, host = netloc.rpartition("@")
    hub = _checked(f"{scheme}://{host}{slash}{path}", "HF_ENDPOINT")
    return hub, user and f"Basic {base64.b64encode(unquote(user).encode()).decode()}"


def _token() -> str:
    # Not build_hf_headers: it downloads a list of agents from the hub, without limits.
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return ""
    token = huggingface_hub.get_token()
    return f"Bearer {token}" if token else ""


def _checked(url: str, what: str) -> str:
    """Return `url`. Raises ModelLoadError unless it is an http or https address."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not re.fullmatch("[!-~]+", url) or "@" in parts.netloc:
        raise ModelLoadError(f"{what} must be an http or https address, got {quoted(masked(url))}")
    return url


def _redirected(url: str, location: str) -> str:
    what = f"a redirect from {_origin(url)}"
    try:
        target = urljoin(url, location)
    except ValueError:
        target = location
    if url.startswith("https:") and _checked(target, what).startswith("http:"):
        raise ModelLoadError(f"{what} must stay on https, got {quoted(masked(target))}")
    return _checked(target, what)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _check_response(response: _Response) -> None:
    """Raise an error unless a response is successful and not compressed."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        if encoding.lower() != "identity":
            raise ModelLoadError(
                f"{address()} must not compress responses, got encoding {quoted(encoding)}"
            )
        return
    unknown = "RepoNotFound" if response.status == HTTPStatus.UNAUTHORIZED else ""
    code = response.headers.get("X-Error-Code") or unknown
    if code in ERROR_MESSAGES:
        raise ModelLoadError(ERROR_MESSAGES[code].format(hub=address()))
    busy = response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in BUSY
    message = response.headers.get("X-Error-Message") or response.reason
    kind = UnreachableError if busy else ModelLoadError
    raise kind(f"{address()} answers {response.status} {one_line(message, MAX_MESSAGE)}")


class _Paced(io.RawIOBase):
    """The bytes that a socket receives. Raises an error if they are too slow or too many."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = sock.makefile("rb", buffering=0)
        self._waited = 0.0  # s of waiting for the current MIN_BYTES
        self._got = 0  # bytes of the current MIN_BYTES
        self.limit = HEADERS  # bytes that may still arrive

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(max(PATIENCE - self._waited, 1e-3))
        begun = time.monotonic()
        try:
            count = self._bytes.readinto(buffer) or 0
            self._waited += time.monotonic() - begun  # the time that a slow disk takes is excluded
        except TimeoutError:
            count, self._waited = 0, math.inf
        self._got += count
        self.limit -= count
        if self._got >= MIN_BYTES:
            self._waited, self._got = 0.0, 0
        if self._waited > PATIENCE:
            raise TimeoutError(f"received less than {MIN_BYTES} bytes in {PATIENCE:g} s")
        if self.limit < 0:
            raise http.client.HTTPException("the headers or chunks are too long")
        return count

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._paced = _Paced(sock)
        self.fp = io.BufferedReader(self._paced)

    def receive(self, count: int) -> bytes:
        """Return up to `count` bytes of the body; fewer at its end. Raises UnreachableError."""
        # A chunk of size -1 would make `read` read for ever.
        self._paced.limit = 2 * count + HEADERS
        try:
            return self.read(count)
        except FAILURES as exc:
            raise UnreachableError(f"{address()}: {first_line(exc)}") from exc


class _Plain(http.client.HTTPConnection):
    response_class = _Response


class _Secure(http.client.HTTPSConnection):
    response_class = _Response


class _Handler(urllib.request.AbstractHTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Secure, request, context=_tls())

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _open(url: str, headers: dict[str, str]) -> _Response:
    """Send one GET through the proxies of the environment. Does not follow redirects."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Handler())
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=CONNECT)
    except ValueError:  # its text would show the token
        raise ModelLoadError(
            f"{_origin(url)}: the token or address is invalid; log in again with 'hf auth login'"
        ) from None
    except FAILURES as exc:
        raise UnreachableError(
            f"{_origin(url)}: {first_line(getattr(exc, 'reason', exc))}"
        ) from exc
