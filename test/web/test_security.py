# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Requests with a wrong host, origin or token are refused with 403; all others are served."""

import asyncio
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from starlette.responses import PlainTextResponse

from kosmos_ros.errors import ConfigError
from kosmos_ros.web.security import HEADERS, Guard, address_of, is_loopback, token_for

TOKEN = "0123456789abcdef"
SOURCE = "environment variable X"


class Seen:
    """The response to a request, and whether the request reached the application."""

    def __init__(self):
        self.status, self.headers, self.reached, self.text = 0, {}, False, ""


def ask(
    host="127.0.0.1:8765",
    path="/",
    query="",
    kind="http",
    method="GET",
    server="127.0.0.1",
    token="",
    hosts=(),
    **headers,
):
    """Send a request through a Guard. `headers` have _ for -; None leaves one out."""
    seen = Seen()

    async def app(scope, receive, send):
        seen.reached = True
        if scope["type"] == "http":
            await PlainTextResponse("page")(scope, receive, send)

    async def send(message):
        if message["type"] == "http.response.start":
            seen.status = message["status"]
            seen.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        elif message["type"] == "http.response.body":
            seen.text += message["body"].decode()
        elif message["type"] == "websocket.close":
            seen.status = 403  # what uvicorn sends before the connection is accepted

    headers = {"host": host, **headers}
    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in headers.items()
        if value is not None
    ]
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": raw,
        "server": (server, 8765),
    }
    asyncio.run(Guard(app, hosts, token, "kosmos_token")(scope, None, send))
    return seen


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("host", "server", "hosts"),
    [
        ("127.0.0.1:8765", "127.0.0.1", ()),
        ("127.0.0.1", "127.0.0.1", ()),
        ("localhost:9000", "127.0.0.1", ()),  # through a tunnel
        ("LOCALHOST", "127.0.0.1", ()),
        ("[::1]:8765", "::1", ()),
        ("192.168.1.7:8765", "192.168.1.7", ()),  # bound to 0.0.0.0
        ("192.168.1.7:8765", "::ffff:192.168.1.7", ()),
        ("robot.local:8765", "192.168.1.7", ("Robot.local",)),
    ],
)
def test_this_machine_under_its_own_names_is_served(kind, host, server, hosts):
    assert ask(host, server=server, hosts=hosts, kind=kind).reached


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1:8765/x",
        "127.0.0.1:x",
        "10.0.0.1:8765",
        "2130706433",
        "[::1",
        "",
        None,
    ],
)
def test_another_host_is_refused(kind, host):
    seen = ask(host, kind=kind)
    assert not seen.reached
    assert seen.status == 403
    if kind == "http":
        assert "allowed_hosts" in seen.text


@given(st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40))
def test_only_known_names_pass_as_hosts(host):
    reached = ask(host).reached
    name = host.lower().rpartition(":")[0] if ":" in host else host.lower()
    assert not reached or name in ("localhost", "127.0.0.1")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("origin", "served"),
    [
        (None, True),  # no browser
        ("http://127.0.0.1:8765", True),
        ("https://127.0.0.1:8765", True),  # behind a proxy
        ("http://127.0.0.1:3000", False),
        ("http://localhost:8765", False),
        ("http://evil.example", False),
        ("http://127.0.0.1:8765.evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_pages_of_other_sites_are_refused(kind, origin, served):
    seen = ask(path="/mcp", method="POST", kind=kind, origin=origin)
    assert seen.reached == served
    assert served or seen.status == 403


@pytest.mark.parametrize(
    ("path", "site", "served"),
    [
        ("/live/front.jpg", "cross-site", False),
        ("/live/front.jpg", "same-site", False),  # another port of this machine
        ("/live/front.jpg", "same-origin", True),
        ("/live/front.jpg", "none", True),  # typed in
        ("/", "cross-site", True),  # a link to the page
    ],
)
def test_pictures_are_not_embedded_elsewhere(path, site, served):
    assert ask(path=path, sec_fetch_site=site).reached == served


@pytest.mark.parametrize(
    ("path", "query", "headers", "served"),
    [
        ("/", "", {}, False),
        ("/", f"token={TOKEN}", {}, True),
        ("/", f"token={TOKEN}x", {}, False),
        ("/", "token=", {}, False),
        ("/", "&".join(["a=1"] * 20), {}, False),
        ("/app.js", f"token={TOKEN}", {}, False),  # the cookie does that
        ("/app.js", "", {"cookie": f"kosmos_token={TOKEN}"}, True),
        ("/app.js", "", {"cookie": f"other=1; kosmos_token={TOKEN}"}, True),
        # A browser sends the cookies of all ports of a machine.
        ("/app.js", "", {"cookie": f'grid={{"a": 1}}; kosmos_token={TOKEN}'}, True),
        ("/app.js", "", {"cookie": f"no name; a[b]=\xe9; kosmos_token={TOKEN}"}, True),
        ("/app.js", "", {"cookie": f"other={TOKEN}"}, False),
        ("/app.js", "", {"cookie": "kosmos_token="}, False),
        ("/app.js", "", {"cookie": "kosmos_token=\xff"}, False),
        ("/mcp", "", {"authorization": f"Bearer {TOKEN}"}, True),
        ("/mcp", "", {"authorization": f"bearer {TOKEN}"}, True),
        ("/mcp", "", {"authorization": f"Basic {TOKEN}"}, False),
        ("/mcp", "", {"authorization": "Bearer"}, False),
    ],
)
def test_a_token_is_needed_where_there_is_one(path, query, headers, served):
    seen = ask(path=path, query=query, token=TOKEN, **headers)
    assert seen.reached == served
    assert seen.status == (200 if served else 403)
    assert TOKEN not in seen.text
    assert not (served and path != "/" and "set-cookie" in seen.headers)


def test_a_websocket_needs_the_cookie():
    assert not ask(path="/ws", kind="websocket", token=TOKEN).reached
    assert not ask(path="/", kind="websocket", token=TOKEN, query=f"token={TOKEN}").reached
    assert ask(path="/ws", kind="websocket", token=TOKEN, cookie=f"kosmos_token={TOKEN}").reached


def test_the_cookie_is_for_this_server_and_not_for_scripts():
    cookie = ask(query=f"token={TOKEN}", token=TOKEN).headers["set-cookie"]
    assert cookie == f"kosmos_token={TOKEN}; HttpOnly; Path=/; SameSite=Strict"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=16, max_size=40))
def test_a_browser_that_opened_the_link_is_served_whatever_the_token(token):
    link = ask(query=f"token={quote(token, safe='')}", token=token)
    cookie = link.headers["set-cookie"].partition("; HttpOnly")[0]
    assert ask(path="/app.js", token=token, cookie=cookie).reached


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "evil.example"])
def test_every_response_has_the_headers(host):
    headers = ask(host).headers
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()
    assert "'unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
    ],
)
def test_other_machines_always_need_a_token(address, local):
    assert is_loopback(address) == local
    made = token_for(address, "", SOURCE)
    assert (made == "") == local
    assert token_for(address, TOKEN, SOURCE) == TOKEN
    if local:
        assert token_for(address, "none", SOURCE) == ""
        return
    assert len(made) >= 32
    assert made != token_for(address, "", SOURCE)
    with pytest.raises(ConfigError, match=f"{SOURCE} must not be none for the address {address}"):
        token_for(address, "none", SOURCE)


@pytest.mark.parametrize("token", ["short", "0123456789abcde", "x" * 257, "é" * 20, "a\n" * 20])
def test_a_token_that_can_be_guessed_or_sent_wrongly_is_refused(token):
    with pytest.raises(
        ConfigError, match=f"{SOURCE} must have 16 to 256 printable ASCII"
    ) as caught:
        token_for("0.0.0.0", token, SOURCE)
    assert token not in str(caught.value)


@pytest.mark.parametrize("address", ["", "robot", "300.1.1.1", "127.0.0.1:80", "http://127.0.0.1"])
def test_an_invalid_address_is_refused(address):
    with pytest.raises(ConfigError, match="parameter address must be an IP address"):
        is_loopback(address)


def test_the_printed_address_can_be_opened():
    assert address_of("127.0.0.1", 8765, "") == "http://127.0.0.1:8765/"
    assert address_of("::1", 80, "a b&c") == "http://[::1]:80/?token=a%20b%26c"
