# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The program web_node: its start, its refusals, its token and its end, without a kosmos_node."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.parse import quote

import pytest
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from rclpy.parameter import Parameter
from web_client import Server
from websockets.exceptions import InvalidStatus

from kosmos_ros.entry import BAD_PARAMETER, BROKEN_PIPE, ENVIRONMENT
from kosmos_ros.errors import ConfigError
from kosmos_ros.web import web_node
from kosmos_ros.web.web_node import TOKEN_VARIABLE, WebNode, _bound

TOKEN = "a token that nobody guesses"


@pytest.fixture(scope="module")
def lonely():
    """Provide a server whose kosmos_node does not run."""
    return Server(node="/nobody")


@pytest.fixture(scope="module")
def guarded():
    """Provide a server that other machines can reach, so that it has a token of its own."""
    return Server(address="0.0.0.0")


def test_a_page_learns_that_there_is_no_node(lonely):
    with lonely.browser() as browser:
        hello, state = browser.receive(), browser.receive()
        assert hello["type"] == "hello"
        assert (hello["node"], hello["cameras"], hello["looks"]) == ("/nobody", [], [])
        assert (state["state"], state["type"]) == ("gone", "state")
        (done,) = browser.answers(browser.ask(camera="", task="brief_caption"))
        assert "kosmos_node is not running" in done["message"]
        assert "kosmos_node is not running" in browser.set("", "max_rate", 1.0)["message"]
    assert lonely.get("/live/_.jpg").status == 404


def test_the_page_is_served_and_is_always_fresh(lonely):
    page = lonely.get("/")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Cache-Control"] == "no-cache"
    assert b"<!doctype html>" in page.data.lower()
    script = lonely.get("/app.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert lonely.get("/app.js", If_None_Match=script.headers["ETag"]).status == 304
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_short_messages_are_sent_at_once(address):
    """Otherwise TCP delays a message until the browser has acknowledged the last one."""
    with _bound(address, 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_connection_of_a_client_that_never_reads_is_closed(monkeypatch):
    monkeypatch.setattr(web_node, "READ_TIMEOUT", 0.5)

    async def test():
        lost = asyncio.Event()

        class Connection(asyncio.Protocol):
            def connection_made(self, transport):
                transport.write(bytes(50_000_000))  # more than the system keeps for a client
                transport.close()

            def connection_lost(self, error):
                lost.set()

        loop = asyncio.get_running_loop()
        server = await loop.create_server(Connection, sock=_bound("127.0.0.1", 0))
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                await asyncio.wait_for(lost.wait(), 30)

    asyncio.run(test())


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_0_while_browsers_are_connected(sign):
    server = Server()
    with server.browser() as browser:
        browser.until("state")
        assert server.program.stop(sign) == 0
    assert "Traceback" not in server.program.output


def test_other_machines_need_the_printed_token(guarded):
    address, _, token = guarded.address.partition("?token=")
    assert "0.0.0.0" not in address  # no browser could open it
    assert len(token) == 32
    for path in ("/", "/?token=wrong", "/live/_.jpg", "/mcp"):
        response = guarded.get(path)
        assert response.status == 403
        assert "token is missing or wrong" in response.data.decode()
    with pytest.raises(InvalidStatus), guarded.browser():
        pass
    response = guarded.get(f"/?token={token}")
    assert response.status == 200
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    assert guarded.get("/app.js", Cookie=cookie).status == 200
    with guarded.browser(Cookie=cookie) as browser:
        assert browser.receive()["type"] == "hello"
    with guarded.browser(Authorization=f"Bearer {token}") as browser:
        assert browser.receive()["type"] == "hello"
    assert guarded.get("/mcp", "POST", Authorization=f"Bearer {token}").status in (400, 406, 415)


def test_the_token_is_printed_once_and_is_not_in_the_log(guarded):
    token = guarded.address.partition("?token=")[2]
    assert guarded.program.output.count(token) == 1
    assert "INFO" not in next(line for line in guarded.program.lines if token in line)


@pytest.mark.parametrize(
    ("environment", "values", "source"),
    [
        ({TOKEN_VARIABLE: TOKEN}, {}, f"environment variable {TOKEN_VARIABLE}"),
        ({}, {"token": TOKEN}, "parameter token"),
    ],
)
def test_a_chosen_token_is_required_and_not_printed(environment, values, source):
    server = Server({**os.environ, **environment}, **values)
    server.program.says(f"add ?token= and the token of the {source} to this address")
    assert TOKEN not in server.program.output
    assert quote(TOKEN) not in server.program.output
    assert server.get(f"/?token={quote(TOKEN)}").status == 200
    assert server.get("/").status == 403
    assert server.get("/", Authorization=f"Bearer {TOKEN}").status == 200


def test_a_name_of_the_machine_must_be_allowed():
    server = Server(allowed_hosts="[robot.local]")
    json = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
    for name in ("robot.local:80", "Robot.Local"):  # the case of letters does not matter
        assert server.get("/", Host=name).status == 200
        response = server.get("/mcp", "POST", Host=name, **json)
        assert response.status == 400, response.data  # the body is empty
    for path, method in (("/", "GET"), ("/mcp", "POST")):
        assert server.get(path, method, Host="other.local:80", **json).status == 403


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"address": "0.0.0.0", "token": "none"}, "parameter token must not be none for the addr"),
        ({"token": "short"}, "parameter token must have 16 to 256 printable ASCII characters"),
        ({"address": "robot"}, "parameter address must be an IP address"),
        ({"address": "192.0.2.1"}, "cannot listen at 192.0.2.1, port 8765"),
        ({"port": 70000}, "parameter port must be 0 to 65535, got 70000"),
        ({"node": "kosmos", "port": 0}, "parameter node must be the full name of a node, such as"),
        ({"node": "/a b", "port": 0}, "parameter node must be the full name of a node"),
    ],
)
def test_a_wrong_parameter_is_refused_with_the_reason(ros, values, message):
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    with pytest.raises(ConfigError, match=re.escape(message)):
        WebNode(parameter_overrides=overrides)


def test_a_wrong_parameter_ends_the_program():
    program = Program("web.web_node", *parameters(address="0.0.0.0", token="none"))
    assert program.ends() == BAD_PARAMETER
    program.says("parameter token must not be none for the address 0.0.0.0")
    assert "Traceback" not in program.output


def test_a_port_that_is_taken_is_named(ros):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"cannot listen at 127.0.0.1, port {port}: Address already in use"
        with pytest.raises(ConfigError, match=message) as refused:
            WebNode(parameter_overrides=[Parameter("port", value=port)])
    assert "(0: a free port)" in str(refused.value)


def test_its_help_names_its_own_page():
    words = [sys.executable, "-m", "kosmos_ros.web.web_node", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(
        "docs/web.md has its parameters, its security and the tools for agents.\n"
    )


MISSING = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {name!r} else find(name, *rest)
from kosmos_ros.entry import {program}
sys.argv = {words!r}
sys.exit({program}())
"""


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "websockets", "mcp"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name):
    code = MISSING.format(name=name, program="web_node", words=["web_node"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == ENVIRONMENT
    command = f"{sys.executable} -m pip install starlette uvicorn websockets mcp"
    assert done.stderr == f"web_node: Python finds no package {name}: run '{command}'\n"


@pytest.mark.parametrize("name", ["mcp", "rclpy"])
def test_kosmos_mcp_names_a_missing_package(name):
    code = MISSING.format(name=name, program="kosmos", words=["kosmos", "mcp"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == ENVIRONMENT
    assert f"kosmos: Python finds no package {name}: " in done.stderr
    assert done.stdout == ""


def test_kosmos_mcp_ends_with_its_input_and_writes_nothing_else():
    command = [sys.executable, "-m", "kosmos_ros.cli", "mcp"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_kosmos_mcp_refuses_an_invalid_name_of_a_node():
    command = [sys.executable, "-m", "kosmos_ros.cli", "mcp", "--node", "my node"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    reason = "--node must be the full name of a node, such as /kosmos, got 'my node'"
    assert done.stderr == f"kosmos: {reason}\n"


@contextlib.contextmanager
def kosmos_mcp(*before):
    """`kosmos mcp` after its first response; `before` are words before the command."""
    command = [*before, sys.executable, "-m", "kosmos_ros.cli", "mcp"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            process.stdin.write(INITIALIZE)
            process.stdin.flush()
            assert '"kosmos_ros"' in process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_kosmos_mcp_ends_on_a_signal():
    with kosmos_mcp("env", "--default-signal=INT") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def test_kosmos_mcp_ends_quietly_if_its_agent_ends_during_a_call():
    with kosmos_mcp() as process:
        process.stdout.close()
        # The end of its input ends the call, and the result cannot be written.
        process.stdin.write(INITIALIZED + WAIT_FOR_EVENT)
        process.stdin.close()
        assert process.wait(60) == BROKEN_PIPE
        assert process.stderr.read() == ""


def test_kosmos_mcp_ends_if_its_agent_closes_the_output_only():
    with kosmos_mcp() as process:
        process.stdout.close()
        assert process.wait(30) == BROKEN_PIPE
        assert process.stderr.read() == ""


INITIALIZED = '{"jsonrpc": "2.0", "method": "notifications/initialized"}\n'
WAIT_FOR_EVENT = (
    '{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "wait_for_event", '
    '"arguments": {"timeout": 60}}}\n'
)
INITIALIZE = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": '
    '"2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}\n'
)
