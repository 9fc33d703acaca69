# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Notice other nodes with the same full name as a node.

Such nodes share topics and services: each request reaches all of them, and a client uses the first
response. ROS itself does not report this. Knows only the names in the ROS graph.
"""

from __future__ import annotations

import math
import time

from rclpy.node import Node

PERIOD = 5.0  # s between two checks
GRACE = 30.0  # s until a node counts: the graph keeps the name of a killed process for 20 s
REPEAT_WARNING = 60.0  # s between two warnings


class Namesakes:
    """Count the other nodes with the full name of `node`, and warn about them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since = math.inf  # s, monotonic; when the first one was seen
        self.count = 0  # other nodes, once they have been seen for GRACE

    def check(self) -> None:
        """Count again. Warn while there are any, and log once that they are gone."""
        node, now, before = self._node, time.monotonic(), self.count
        names = node.get_node_names_and_namespaces()
        others = names.count((node.get_name(), node.get_namespace())) - 1
        self._since = min(self._since, now) if others > 0 else math.inf
        self.count = others if now - self._since >= GRACE else 0
        if self.count:
            node.get_logger().warning(
                f"{self.count} more {'nodes have' if self.count > 1 else 'node has'} the name "
                f"{node.get_fully_qualified_name()}: each request reaches all of them; rename or "
                "end the others (ros2 run ... --ros-args -r __node:=NAME)",
                throttle_duration_sec=REPEAT_WARNING,
            )
        elif before:
            node.get_logger().info(
                f"no other node has the name {node.get_fully_qualified_name()} any more"
            )
