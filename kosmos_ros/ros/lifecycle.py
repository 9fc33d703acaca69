# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node whose transitions may take long. Knows states; no model.

rclpy runs a transition inside the executor, and no other callback runs meanwhile. Loading a model
takes minutes, during which services must respond that it is loading. Therefore transitions run one
after the other in a separate thread here.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future

from kosmos_ros.ros.parameters import ParameterNode
from kosmos_ros.sanitize import format_traceback, one_line

MAILBOX_PERIOD = 0.5  # s between checks for results whose guard condition did not wake rclpy
LAST_TRANSITION_TIMEOUT = 1.0  # s for a transition to end before the node is destroyed
REPEAT_WARNING = 5.0  # s between two warnings about refused transitions

MAX_WAITING = 8
"""Largest number of requested transitions that wait for the running one. More are refused.

A lifecycle manager requests one at a time. One more shutdown may wait.
"""

LABELS = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_CLEANUP: "cleanup",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "shutdown",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "shutdown",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "shutdown",
}


class ManagedNode(LifecycleNodeMixin, ParameterNode):
    """A lifecycle node that runs `on_configure` and so on outside the executor, one at a time.

    One thread runs the transitions that clients request with `~/change_state`, in order.
    """

    def __init__(self, name: str, **options: Any) -> None:
        # Before Node.__init__, because rclpy calls destroy_node if it cannot make the node.
        self._transition = threading.Lock()
        self._running = ""  # name of the running transition
        self._requested: deque[tuple[str, Future]] = deque()  # waiting transitions
        self._serving = False  # whether a thread runs the requested transitions
        self._queue = threading.Lock()  # protects _requested and _serving
        ParameterNode.__init__(self, name, **options)
        for transition in ("configure", "activate", "deactivate", "cleanup", "shutdown", "error"):
            callback = getattr(self, f"on_{transition}")
            setattr(self, f"on_{transition}", functools.partial(self._run_callback, callback))
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.mailbox = Mailbox(self)
        self.starting = False  # autostart is in progress
        self._service_change_state.callback = self._on_change_state

    def destroy_node(self) -> None:
        """Destroy the node and its state machine, which rclpy leaves to the garbage collector.

        The state machine refers to the node, so its name would stay in the ROS graph, and its
        logger's publisher would stay open.
        """
        super().destroy_node()
        # rclpy still reads the state machine after a transition's callback has returned.
        if self._transition.acquire(timeout=LAST_TRANSITION_TIMEOUT):
            self.__dict__.pop("_state_machine", None)
            self._transition.release()

    def autostart(self, retry: Callable[[], bool]) -> None:
        """Configure and activate in a thread. After a failure, configure again if `retry()`."""

        def start() -> None:
            configured = self._run_transition(self.trigger_configure)
            while not configured and retry():
                configured = self._run_transition(self.trigger_configure)
            self.starting = False
            if configured:
                self._run_transition(self.trigger_activate)

        self.starting = True
        threading.Thread(target=start, name="autostart", daemon=True).start()

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        label = request.transition.label or LABELS.get(request.transition.id, "")
        done = self._enqueue(label) if label in LABELS.values() else None
        response.success = bool(done and await done)
        return response

    def _enqueue(self, label: str) -> Future | None:
        """Append a transition to the queue. Return the future of its result; None if refused."""
        done: Future = Future()
        try:
            with self._queue:
                waiting = len(self._requested)
                if waiting < MAX_WAITING + (label == "shutdown"):
                    self._serve()
                    self._requested.append((label, done))
                    return done
            reason = f"{self._running or 'another one'} is running, and {waiting} others wait"
        except RuntimeError as exc:  # no thread can be started
            reason = one_line(exc)
        self.get_logger().warning(
            f"the transition {label} is refused: {reason}; try again later",
            throttle_duration_sec=REPEAT_WARNING,
        )
        return None

    def _serve(self) -> None:
        """Start the thread that runs the requested transitions, unless it runs."""
        if not self._serving:
            threading.Thread(target=self._run_requested, name="transitions", daemon=True).start()
            self._serving = True

    def _run_requested(self) -> None:
        """Run the requested transitions until none waits."""
        while True:
            with self._queue:
                if not self._requested:
                    self._serving = False
                    return
                label, done = self._requested.popleft()
            success = self._run_transition(getattr(self, f"trigger_{label}"))
            with contextlib.suppress(InvalidHandle):  # the node was destroyed meanwhile
                self.mailbox.post(done, success)

    def _run_callback(
        self, callback: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Run a transition's callback and log its exceptions, which rclpy hides."""
        try:
            return callback(state)
        except Exception as exc:
            if self.context.ok():
                self.get_logger().error(format_traceback(exc))
            return TransitionCallbackReturn.ERROR

    def _run_transition(self, trigger: Callable[[], Any]) -> bool:
        """Run a transition. Return whether it succeeded; False if the state does not allow it."""
        with self._transition:
            if "_state_machine" not in self.__dict__:
                return False  # destroyed
            self._running = trigger.__name__.removeprefix("trigger_")
            try:
                return bool(trigger() == TransitionCallbackReturn.SUCCESS)
            except RuntimeError as exc:  # RCLError
                if self.context.ok():
                    self.get_logger().warning(
                        one_line(str(exc).partition(", at ")[0]),
                        throttle_duration_sec=REPEAT_WARNING,
                    )
                return False
            except Exception as exc:  # the client of change_state waits for a response
                self.get_logger().error(format_traceback(exc))
                return False
            finally:
                self._running = ""


class Mailbox:
    """Set results of futures in the thread of `node`'s executor, and wake the executor.

    rclpy's Future alone does not wake the executor.
    """

    def __init__(self, node: Node) -> None:
        self._posted: deque[tuple[Future, Any]] = deque()
        self._wake = node.create_guard_condition(self._deliver)
        # On Kilted, the response of a transition was sometimes never sent without this timer.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(MAILBOX_PERIOD, self._deliver, clock=steady)

    def post(self, future: Future, result: Any) -> None:
        """Set the future's result soon, unless it already has one. Any thread may call this."""
        self._posted.append((future, result))
        self._wake.trigger()

    def _deliver(self) -> None:
        while self._posted:
            future, result = self._posted.popleft()
            if not future.done():
                future.set_result(result)
