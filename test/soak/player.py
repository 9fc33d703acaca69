# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Base of the soak's processes: a node that ends at SIGINT and prints reports as JSON.

Does not know what the process does.
"""

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


class Player:
    """A node and its executor; SIGINT sets `stopping` from then on."""

    def __init__(self, name: str) -> None:
        self.stopping = False
        signal.signal(signal.SIGINT, self._on_signal)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def until(self, condition: Callable[[], Any], limit: float) -> Any:
        """Spin until `condition()` is true, at most `limit` seconds; return its value."""
        end = time.monotonic() + limit
        while not (value := condition()) and (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return value

    def pause(self, seconds: float) -> None:
        """Spin for this time, or until SIGINT."""
        self.until(lambda: self.stopping, seconds)

    def _on_signal(self, *_: Any) -> None:
        self.stopping = True


def say(**fields: Any) -> None:
    """Report to the soak, which reads standard output."""
    print(json.dumps(fields), flush=True)
