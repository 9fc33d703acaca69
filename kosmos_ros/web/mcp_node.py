# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Serve agents over standard input and output: the command `kosmos mcp`.

Standard output has messages of MCP only. Logs go to standard error.
"""

from __future__ import annotations

from kosmos_ros.ros.process import run
from kosmos_ros.web.agents import agent_server
from kosmos_ros.web.broker_node import BrokerNode


class AgentNode(BrokerNode):
    """A client of the node with the full name `kosmos`, for one agent."""

    def __init__(self, kosmos: str) -> None:
        super().__init__("kosmos_mcp")
        self.connect(kosmos)
        self.start(agent_server(self.broker).run_stdio_async())


def main(kosmos: str) -> int:
    """Serve one agent until it closes standard input. Return the exit code."""
    return run(lambda: AgentNode(kosmos), ["kosmos mcp"])
