# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Results on their way from other threads to futures of the executor's. Knows no topic."""

from __future__ import annotations

from collections import deque
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

LATEST = 0.5  # s, after which a result is handed over even where the wake-up is lost


class Mailbox:
    """Sets futures in the thread of `node`'s executor, and wakes it: a Future alone does not."""

    def __init__(self, node: Node) -> None:
        self._posted: deque[tuple[Future, Any]] = deque()
        self._wake = node.create_guard_condition(self._hand_over)
        # Seen on Kilted, rarely: a transition had ended, and its answer never came.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._late = node.create_timer(LATEST, self._hand_over, clock=steady)

    def post(self, future: Future, result: Any) -> None:
        """From any thread. The first result for a future counts."""
        self._posted.append((future, result))
        self._wake.trigger()

    def _hand_over(self) -> None:
        while self._posted:
            future, result = self._posted.popleft()
            if not future.done():
                future.set_result(result)
