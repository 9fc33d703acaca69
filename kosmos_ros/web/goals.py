# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Send requests to kosmos_node as goals of its action, and pass on the feedback and the results.

Runs in the thread of the client's executor. Knows no browser and no other interface of
kosmos_node.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kosmos_msgs.action import Generate
from rclpy.action import ActionClient
from rclpy.logging import LoggingSeverity, set_logger_level
from rclpy.node import Node
from rclpy.qos import QoSProfile

from kosmos_ros.web import messages
from kosmos_ros.web.looks import Json

GOAL_SILENCE = 180.0  # s without feedback until a request is given up; longer than hard_timeout
DEPTH = 100
"""Responses that may wait. With Fast DDS, each client receives the responses to all clients."""

GONE = (
    "kosmos_node is not running, or its topics do not arrive here; start it, or check its name "
    "and ROS_DOMAIN_ID"
)

FIND_TIMEOUT = 5.0  # s from a request until the action of a node that was found must be found, too

Tell = Callable[..., object]
"""Calls its first argument with the other arguments, later and in the listener's thread."""


@dataclass(eq=False)
class Request:
    """A goal of the action. `tell` receives each message for the page; the last has `done`."""

    tell: Callable[[Json], None]
    handle: Any = None  # once the goal is accepted
    cancelled: bool = False
    begun: bool = False
    over: bool = False
    heard: float = field(default_factory=time.monotonic)


class Goals:
    """The client of the action of the node with the full name `name`."""

    def __init__(self, node: Node, name: str, tell: Tell) -> None:
        self._tell = tell
        self._running: set[Request] = set()
        self._unsent: dict[Request, Generate.Goal] = {}  # of those; the action is not found yet
        self._client = ActionClient(
            node,
            Generate,
            f"{name}/generate_stream",
            goal_service_qos_profile=QoSProfile(depth=DEPTH),
            result_service_qos_profile=QoSProfile(depth=DEPTH),
            cancel_service_qos_profile=QoSProfile(depth=DEPTH),
        )
        # rclpy warns of each response to another client, which Fast DDS also delivers here.
        set_logger_level(f"{node.get_logger().name}.action_client", LoggingSeverity.ERROR)

    def destroy(self) -> None:
        """End all requests and free the action client, which rclpy does not do."""
        self.fail("the server is shutting down")
        self._client.destroy()

    def send(self, request: Request, goal: Generate.Goal) -> None:
        """Send a goal, as soon as the action is found: a node is found by its other topics."""
        self._running.add(request)
        self._unsent[request] = goal
        self._send(request, goal)

    def _send(self, request: Request, goal: Generate.Goal) -> None:
        if request.cancelled:
            self.end(request, "cancelled")
            return
        if not self._client.server_is_ready():
            return
        del self._unsent[request]
        accepted = self._client.send_goal_async(
            goal, lambda feedback: self._on_feedback(request, feedback.feedback)
        )
        accepted.add_done_callback(lambda future: self._on_accepted(request, future.result()))

    def cancel(self, request: Request) -> None:
        """Cancel a request, even before it is accepted."""
        request.cancelled = True
        if request.handle and not request.over:
            request.handle.cancel_goal_async()

    def fail(self, reason: str) -> None:
        """Cancel and end all requests."""
        for request in [*self._running]:
            self.cancel(request)  # the node may still work on it
            self.end(request, reason)

    def watch(self, now: float) -> None:
        """Send what waits, and end requests of a silent node; `now` is the monotonic time."""
        for request, goal in [*self._unsent.items()]:
            self._send(request, goal)
            if request in self._unsent and now - request.heard > FIND_TIMEOUT:
                self.end(request, GONE)
        for request in [*self._running]:
            if now - request.heard > GOAL_SILENCE:
                self.cancel(request)
                self.end(
                    request, f"kosmos_node sent no feedback for {GOAL_SILENCE:g} s; try again"
                )

    def end(self, request: Request, message: str, result: Json | None = None) -> None:
        """Report the end of a request, once. `message` is the reason if there is no result."""
        self._running.discard(request)
        self._unsent.pop(request, None)
        if not request.over:
            request.over = True
            success = result is not None
            self._tell(
                request.tell,
                {"done": True, "success": success, "message": message, "result": result},
            )

    def _on_feedback(self, request: Request, feedback: Generate.Feedback) -> None:
        request.heard = time.monotonic()
        if request.over:
            return
        for message in messages.feedback_json(feedback, request.begun):
            request.begun |= message.get("begun", False)
            self._tell(request.tell, message)

    def _on_accepted(self, request: Request, handle: Any) -> None:
        if not handle.accepted:
            self.end(request, "kosmos_node has too many goals; try again when some have ended")
            return
        request.handle, request.heard = handle, time.monotonic()
        if request.cancelled or request.over:
            handle.cancel_goal_async()
        if not request.over:
            handle.get_result_async().add_done_callback(
                lambda future: self._on_result(request, future.result().result)
            )

    def _on_result(self, request: Request, result: Generate.Result) -> None:
        content = messages.result_json(result.result) if result.success else None
        if content and not (request.begun or request.over):
            # rclpy drops the feedback that is on its way when the result arrives.
            begun = messages.begun_json(result.result.camera, result.result.header.stamp)
            self._tell(request.tell, begun)
        self.end(request, result.message, content)
