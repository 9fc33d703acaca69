# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Serve agents over standard input and output: the command `kosmos mcp`.

Standard output has messages of MCP only. Logs go to standard error.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator

from kosmos_ros.entry import BROKEN_PIPE
from kosmos_ros.ros.process import run
from kosmos_ros.web.agent_server import agent_server
from kosmos_ros.web.broker_node import BrokerNode, check_name

LEFT = (BrokenPipeError, ConnectionResetError)
"""Errors of standard input and output after the agent has ended."""
INPUT_PATIENCE = 1.0  # s from the end of the output's reader until the input must have ended, too


class AgentNode(BrokerNode):
    """A client of the node with the full name `kosmos`, for one agent."""

    def __init__(self, kosmos: str) -> None:
        super().__init__("kosmos_mcp")
        self.connect(kosmos)
        output = os.dup(sys.stdout.fileno())  # `_serve` replaces the first one
        self.start(self._serve())
        threading.Thread(target=self._watch, args=(output,), name="output", daemon=True).start()

    async def _serve(self) -> int:
        try:
            await agent_server(self.broker).run_stdio_async()
        except Exception as exc:
            if all(isinstance(cause, LEFT) for cause in _causes(exc)):
                return BROKEN_PIPE
            raise
        return 0

    def _watch(self, output: int) -> None:
        """End the program if nobody reads its output any more.

        `_serve` ends with its input only. It would wait for a parent that keeps the input open.
        """
        closed = select.poll()
        closed.register(output, 0)  # always reports errors
        closed.poll()
        later = self._loop.call_later
        self._loop.call_soon_threadsafe(later, INPUT_PATIENCE, self._finish_soon, BROKEN_PIPE)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of an exception group, or the error itself if it is none."""
    inner = getattr(error, "exceptions", None)  # Python 3.10 has no exception groups of its own
    if inner is None:
        yield error
    for each in inner or ():
        yield from _causes(each)


def main(kosmos: str) -> int:
    """Serve one agent until it closes standard input. Return the exit code.

    0: the agent closed standard input. 141: it ended during a call, or closed only standard
    output. Raises ConfigError if `kosmos` is not the full name of a node.
    """
    check_name(kosmos, "--node")
    return run(lambda: AgentNode(kosmos), ["kosmos mcp"])
