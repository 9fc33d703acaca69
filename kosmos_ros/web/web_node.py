# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""web_node: show a kosmos_node in a browser, and let agents look and ask.

This file has its parameters, the listening socket, and the start and end of the server.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long
    from kosmos_ros.entry import web_node

    sys.exit(web_node())

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Any

import uvicorn

from kosmos_ros.errors import ConfigError
from kosmos_ros.ros.process import run
from kosmos_ros.sanitize import one_line
from kosmos_ros.settings import parameter
from kosmos_ros.web.agent_server import agent_routes, agent_server
from kosmos_ros.web.broker_node import KOSMOS, BrokerNode, check_name
from kosmos_ros.web.security import ANYWHERE, Guard, address_of, token_for
from kosmos_ros.web.server import MAX_MESSAGE, Site

TOKEN_VARIABLE = "KOSMOS_WEB_TOKEN"  # other users and nodes can read a parameter, but not this
MOST_CONNECTIONS = 512  # of browsers and agents; each browser has a few
BACKLOG = 128  # connections that wait to be accepted
READ_TIMEOUT = 30.0  # s for which a client may read nothing; longer than most gaps of a Wi-Fi


@dataclass(frozen=True)
class WebSettings:
    """Parameters of web_node."""

    node: str = parameter(KOSMOS, "Full name of the kosmos_node to show.", read_only=True)
    address: str = parameter(
        "127.0.0.1",
        "IP address at which the server listens. 127.0.0.1: only this machine can reach it. "
        "0.0.0.0: all addresses of this machine.",
        read_only=True,
    )
    port: int = parameter(
        8765,
        "Port at which the server listens. 0: any free port; web_node prints its number.",
        limits=(0, 65535),
        read_only=True,
    )
    token: str = parameter(
        "",
        "Secret that browsers and agents must send, 16 to 256 printable ASCII characters. Better "
        f"set the environment variable {TOKEN_VARIABLE}: other nodes can read parameters. Empty: "
        "web_node generates a token if other machines can reach the address, and otherwise "
        "requires none. none: require no token; allowed only if no other machine can reach the "
        "address.",
        read_only=True,
    )
    allowed_hosts: tuple[str, ...] = parameter(
        (),
        "Further host names under which browsers and agents may use the server, such as "
        "robot.local. The address of this machine and localhost are always allowed. Empty: none.",
        example="[robot.local]",
        read_only=True,
    )


class WebNode(BrokerNode):
    """The client of kosmos_node and its web server. Raises ConfigError for a wrong parameter."""

    def __init__(self, **options: Any) -> None:
        super().__init__("kosmos_web", **options)
        settings = self.declare(WebSettings).values
        source = "parameter token" if settings.token else f"environment variable {TOKEN_VARIABLE}"
        chosen = settings.token or os.environ.get(TOKEN_VARIABLE, "")
        token = token_for(settings.address, chosen, source)
        check_name(settings.node, "parameter node")
        self._socket = _bound(settings.address, settings.port)
        self.connect(settings.node)
        bound, port = self._socket.getsockname()[:2]
        self._agents = agent_server(self.broker)
        site = Site(self.broker).app(*agent_routes(self._agents))
        guard = Guard(site, settings.allowed_hosts, token, cookie=f"kosmos_token_{port}")
        self._server = uvicorn.Server(
            uvicorn.Config(
                guard,
                lifespan="off",
                log_level="error",
                access_log=False,  # it would contain the token
                ws_max_size=4 * MAX_MESSAGE,  # a message just over MAX_MESSAGE gets an error
                ws_per_message_deflate=False,  # costs more than a local network
                limit_concurrency=MOST_CONNECTIONS,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.start(self._serve())
        for text in self.unknown():
            self.get_logger().warning(text)
        host = _own_address(bound) if bound in ANYWHERE else settings.address
        # Print a generated token and do not log it: every node can read the log on /rosout. A
        # chosen one is known already, and the output may be kept in a log, too.
        lines = [f"{settings.node} is shown at {address_of(host, port, '' if chosen else token)}"]
        if token and chosen:
            lines.append(f"add ?token= and the token of the {source} to this address")
        with contextlib.suppress(OSError):  # standard output is closed
            print(*lines, sep="\n", flush=True)

    def end(self) -> None:
        """Let the server end."""
        self._server.should_exit = True

    async def _serve(self) -> int:
        async with self._agents.session_manager.run():
            await self._server.serve(sockets=[self._socket])
        return 0


def _bound(address: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Raises ConfigError."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen at {address}, port {port}: {one_line(exc.strerror or exc)}; set the "
            "parameters address and port (0: a free port)"
        ) from exc
    # Connections inherit this option. asyncio sets it only for sockets that name their protocol.
    # Without it, each short message waits up to 40 ms until the browser acknowledges the last one.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        # Otherwise a client that never reads keeps its connection, and the data that wait for it:
        # asyncio closes a connection only after all data are sent.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1e3 * READ_TIMEOUT))
    return made


def _own_address(anywhere: str) -> str:
    """Return the address under which most other machines reach this one."""
    family, target = (
        (socket.AF_INET6, "2001:db8::1") if ":" in anywhere else (socket.AF_INET, "192.0.2.1")
    )
    # Addresses for documentation. Nothing is sent: the system only chooses the way to them.
    with socket.socket(family, socket.SOCK_DGRAM) as way:
        try:
            way.connect((target, 9))
            return str(way.getsockname()[0])
        except OSError:  # no network
            return "localhost"


def main(args: list[str] | None = None) -> int:
    """Run web_node until SIGINT or SIGTERM."""
    return run(WebNode, args)
