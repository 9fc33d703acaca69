# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A managed node whose transitions take their time. Knows states, and no model.

rclpy runs a transition inside the executor, which stands still meanwhile: loading a model takes
minutes, in which services are to say so. Here each runs in a thread of its own.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future

from kosmos_ros.sanitize import format_traceback, one_line

LATEST = 0.5  # s, after which a result is handed over even where the wake-up is lost
LAST_TRANSITION = 1.0  # s for a transition to end before the node is destroyed


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node; its `on_configure` and so on run outside the executor, one at a time."""

    def __init__(self, name: str, **options: Any) -> None:
        self._transition = threading.Lock()  # first: rclpy destroys a node that it cannot make
        Node.__init__(self, name, **options)
        for transition in ("configure", "activate", "deactivate", "cleanup", "shutdown", "error"):
            callback = getattr(self, f"on_{transition}")
            setattr(self, f"on_{transition}", functools.partial(self._run_transition, callback))
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.mailbox = Mailbox(self)
        self.starting = False  # by itself
        self._service_change_state.callback = self._on_change_state

    def destroy_node(self) -> None:
        """Destroy the state machine, too, which rclpy leaves to the garbage collector.

        It holds the node, whose name would stay on the graph, and its logger's publisher.
        """
        super().destroy_node()
        # rclpy still reads it after the callback of a transition, which may be about to return.
        if self._transition.acquire(timeout=LAST_TRANSITION):
            self.__dict__.pop("_state_machine", None)
            self._transition.release()

    def autostart(self, again: Callable[[], bool]) -> None:
        """Configure and activate, as a manager would; where configure fails, as `again()` says."""

        def start() -> None:
            configured = self._go(self.trigger_configure)
            while not configured and again():
                configured = self._go(self.trigger_configure)
            self.starting = False
            if configured:
                self._go(self.trigger_activate)

        self.starting = True
        threading.Thread(target=start, name="autostart", daemon=True).start()

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        trigger = self._trigger(request.transition)
        if trigger is None:
            response.success = False
            return response
        done: Future = Future()

        def change() -> None:
            self.mailbox.post(done, self._go(trigger))

        threading.Thread(target=change, name="transition", daemon=True).start()
        response.success = await done
        return response

    def _trigger(self, transition: Transition) -> Callable[[], Any] | None:
        label = transition.label or _LABELS.get(transition.id)
        return getattr(self, f"trigger_{label}", None)

    def _run_transition(
        self, callback: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Run it and log what it raises, of which rclpy tells nobody."""
        try:
            return callback(state)
        except Exception as exc:
            if self.context.ok():
                self.get_logger().error(format_traceback(exc))
            return TransitionCallbackReturn.ERROR

    def _go(self, trigger: Callable[[], Any]) -> bool:
        """Whether the transition succeeded; False for one that the state does not allow."""
        with self._transition:
            if "_state_machine" not in self.__dict__:
                return False  # destroyed
            try:
                return bool(trigger() == TransitionCallbackReturn.SUCCESS)
            except RuntimeError as exc:  # RCLError
                if self.context.ok():
                    self.get_logger().warning(one_line(str(exc).partition(", at ")[0]))
                return False
            except Exception as exc:  # who asked for it waits for an answer
                self.get_logger().error(format_traceback(exc))
                return False


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


_LABELS = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_CLEANUP: "cleanup",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "shutdown",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "shutdown",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "shutdown",
}
