# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A node of the soak, which ends at SIGINT and tells what happens in lines of JSON.

Knows nothing of what it plays.
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
    """Spins a node of its own; as soon as it is made, SIGINT ends its process in order."""

    def __init__(self, name: str) -> None:
        self.stopping = False
        signal.signal(signal.SIGINT, self._on_signal)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def until(self, condition: Callable[[], Any], limit: float) -> Any:
        """Spin until `condition()` is true, `limit` seconds at most, and give its value."""
        end = time.monotonic() + limit
        while not (value := condition()) and (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return value

    def pause(self, seconds: float) -> None:
        """Spin for so long, or until it is to end."""
        self.until(lambda: self.stopping, seconds)

    def _on_signal(self, *_: Any) -> None:
        self.stopping = True


def say(**fields: Any) -> None:
    """Tell the soak."""
    print(json.dumps(fields), flush=True)
