# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The services and the action: put work for each request into the scheduler, and respond.

Callbacks run in the executor's thread and only queue work. Results return to that thread through
the node's mailbox. requests.py defines the prompts and the responses.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from rclpy.task import Future

from kosmos_ros.errors import CancelledError, KosmosError, NotReadyError, RequestError
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.ros import limits, requests
from kosmos_ros.ros.conversions import observation_message, seconds
from kosmos_ros.ros.feedback import Feedback
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.ros.requests import CheckedRequest
from kosmos_ros.sanitize import format_error, quoted
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings
from kosmos_ros.serving.scheduler import Scheduler
from kosmos_ros.serving.work import Observation, Work

REPEAT_ERROR = 5.0  # s between two log messages about failed requests
BURST = 1000  # requests that may arrive at once; each gets a response or a refusal
RESULT_KEPT = 30  # s; not longer, because each status message lists all kept goals
MAX_GOALS = 1000
"""Largest number of goals that rclpy keeps: those in progress, and ended ones for RESULT_KEPT.

More goals are rejected. Each status message lists all kept goals: 28 kB for 1000 goals.
"""
GOAL_CANCELLED = "the goal was cancelled"

Check = Callable[[Any, CameraSettings], CheckedRequest]

SERVICES: dict[str, tuple[Any, Check]] = {
    "ask": (Ask, requests.ask),
    "ground": (Ground, requests.ground),
    "describe": (Describe, requests.describe),
    "generate": (Generate, requests.generate),
}
"""Name of each service, its type, and the function that checks its requests."""


class Server(Protocol):
    """The members of the node that the services use."""

    @property
    def settings(self) -> NodeSettings: ...

    @property
    def scheduler(self) -> Scheduler: ...

    def defaults(self) -> CameraSettings:
        """Return the parameters of a camera that has no values of its own."""

    def unavailable(self) -> str:
        """Return the reason why requests are refused; empty if they are accepted."""

    def camera_settings(self) -> Mapping[str, CameraSettings]:
        """Return the parameters of each camera by its name."""

    def describe_sources(self, cameras: Sequence[str]) -> str:
        """Return the topics of cameras and their publishers, for a response without an image."""


class Services:
    """`~/ask`, `~/ground`, `~/describe`, `~/generate` and the action `~/generate_stream`."""

    def __init__(self, node: ManagedNode, server: Server) -> None:
        self._node = node
        self._server = server
        self._waiting: set[Work] = set()
        self._goals: dict[bytes, tuple[Work, Feedback]] = {}
        # With the default depth of 10, more requests at once would be lost without a response.
        burst = QoSProfile(depth=BURST)
        # In the default group an async handler blocks every other callback while it waits.
        group = ReentrantCallbackGroup()
        for name, (kind, check) in SERVICES.items():
            node.create_service(
                kind,
                f"~/{name}",
                functools.partial(self._serve, check),
                qos_profile=burst,
                callback_group=group,
            )
        self._action = ActionServer(
            node,
            GenerateAction,
            "~/generate_stream",
            self._stream,
            goal_callback=self._accept,
            cancel_callback=self._cancel,
            callback_group=group,
            goal_service_qos_profile=burst,
            result_service_qos_profile=burst,
            cancel_service_qos_profile=burst,
            feedback_pub_qos_profile=burst,
            result_timeout=RESULT_KEPT,
        )

    def destroy(self) -> None:
        """Destroy the action server. The services are destroyed with their node."""
        self._action.destroy()

    def expire(self) -> None:
        """Refuse requests that have waited too long."""
        for work, had_frame in self._server.scheduler.expired():
            waited = f"within {self._server.settings.request_timeout:g} s"
            if had_frame:
                why = f"the model was not free {waited}; try again later"
            else:
                age = f" not older than {work.max_age:g} s" if work.max_age else ""
                sources = self._server.describe_sources(work.cameras)
                why = f"no image{age} arrived {waited}{sources}; see /diagnostics"
            work.failed(NotReadyError(why))

    def report_queue(self) -> None:
        """Report the place in the queue to each goal whose place has changed."""
        for work, feedback in self._goals.values():
            ahead = self._server.scheduler.ahead(work)
            if ahead is not None:
                feedback.waiting(ahead)

    def refuse_all(self, reason: str) -> None:
        """Refuse every request that has no response yet."""
        for work in list(self._waiting):
            work.failed(CancelledError(reason))

    @property
    def waiting(self) -> int:
        """Number of requests without a response, goals included."""
        return len(self._waiting)

    @property
    def goals(self) -> int:
        """Number of goals without a result."""
        return len(self._goals)

    async def _serve(self, check: Check, request: Any, response: Any) -> Any:
        kind = type(response)
        try:
            requests.check(request)
            checked = check(request, self._settings(request))
            return await self._submit(request, checked, kind)
        except Exception as exc:  # every client gets a response
            return self._refusal(kind, exc)

    async def _stream(self, goal: Any) -> GenerateAction.Result:
        request = goal.request
        try:
            if goal.is_cancel_requested:  # before this callback began
                raise CancelledError(GOAL_CANCELLED)
            requests.check(request)
            checked = requests.goal(request, self._settings(request))
            feedback = Feedback(
                goal.publish_feedback,
                lambda so_far: checked.reply(so_far, self._message).result,
            )
            goal_id = bytes(goal.goal_id.uuid)
            kind = GenerateAction.Result
            result = await self._submit(request, checked, kind, goal_id, feedback)
        except Exception as exc:  # every client gets a result
            result = self._refusal(GenerateAction.Result, exc)
        finally:
            limits.clear(request)  # frees memory; rclpy keeps an ended goal for RESULT_KEPT
        if result.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return result

    def _accept(self, request: GenerateAction.Goal) -> GoalResponse:
        kept = len(self._action._goal_handles)  # rclpy has no public method
        if kept < MAX_GOALS:
            return GoalResponse.ACCEPT
        self._node.get_logger().warning(
            f"a goal of ~/generate_stream is rejected: the node keeps {kept} goals and cannot "
            f"keep more; it forgets each one {RESULT_KEPT} s after its end; try again later",
            throttle_duration_sec=REPEAT_ERROR,
        )
        return GoalResponse.REJECT

    def _cancel(self, goal: Any) -> CancelResponse:
        if waiting := self._goals.get(bytes(goal.goal_id.uuid)):
            work, _ = waiting
            self._server.scheduler.withdraw(work)
            work.failed(CancelledError(GOAL_CANCELLED))
        return CancelResponse.ACCEPT

    async def _submit(
        self,
        request: Any,
        checked: CheckedRequest,
        kind: Any,
        goal: bytes = b"",
        feedback: Feedback | None = None,
    ) -> Any:
        """Queue a checked request and return its response. Raises KosmosError if refused.

        A goal has an id and `feedback`, other requests have neither.
        """
        requests.check_image_bytes(request, self._server.settings.max_image_pixels)
        own_image, stamp = requests.own_image(request), requests.stamp(request)
        cameras = () if own_image else self._cameras(request)
        future: Future = Future()
        work = Work(
            prompts=checked.prompts,
            done=lambda observation: self._answer(
                work, future, checked.reply(observation, self._message)
            ),
            failed=lambda exc: self._answer(work, future, self._refusal(kind, exc)),
            max_new_tokens=request.max_new_tokens or self._settings(request).max_new_tokens,
            begun=feedback.begun if feedback else None,
            progress=feedback.progress if feedback else None,
            image=own_image,
            kept=(cameras[0], stamp) if stamp else None,
            cameras=() if stamp else cameras,
            max_age=seconds(request.max_age),
            asked=time.monotonic(),
            deadline=time.monotonic() + self._server.settings.request_timeout,
        )
        # Before the check below, so that a transition at this moment also refuses this request.
        self._waiting.add(work)
        if feedback:
            self._goals[goal] = work, feedback
        try:
            if reason := self._server.unavailable():
                raise NotReadyError(reason)
            scheduler = self._server.scheduler
            scheduler.queue_size = self._server.settings.queue_size
            scheduler.submit(work)
            if feedback:
                feedback.waiting(scheduler.ahead(work) or 0)
            return await future
        finally:
            self._waiting.discard(work)
            self._goals.pop(goal, None)

    def _answer(self, work: Work, future: Future, response: Any) -> None:
        """Send the response to a request and stop its work. Any thread may call this.

        Only the first response counts.
        """
        work.stopped.set()
        self._node.mailbox.post(future, response)

    def _refusal(self, kind: Any, exc: Exception) -> Any:
        """Return a response with the reason for a refusal. Any thread may call this."""
        reason = format_error(exc)
        if isinstance(exc, CancelledError):
            # The model or the scheduler may stop before the node has refused everything.
            reason = self._server.unavailable() or reason
        if not isinstance(exc, KosmosError):
            self._node.get_logger().error(
                f"a request failed: {reason}", throttle_duration_sec=REPEAT_ERROR
            )
        return kind(success=False, message=reason)

    def _message(
        self, observation: Observation, prompt: Prompt, caption: Caption
    ) -> GroundedCaption:
        now = self._node.get_clock().now().nanoseconds * 1e-9
        model = self._server.settings.model
        return observation_message(observation, prompt, caption, model, now)

    def _cameras(self, request: Any) -> tuple[str, ...]:
        """Return the cameras whose newest frame the request may use. Raises RequestError."""
        names = tuple(self._server.camera_settings())
        if not request.camera:
            if len(names) > 1 and requests.stamp(request):
                raise RequestError(
                    f"camera must be one of {', '.join(names)} for a request with a stamp, "
                    "got ''; set it"
                )
            if len(names) > 1 and getattr(request, "regions", None):
                raise RequestError(
                    f"camera must be one of {', '.join(names)} for a request with regions, "
                    "got ''; set it, or send the image"
                )
            return names
        if request.camera not in names:
            known = (
                f"it must be one of {', '.join(names)}"
                if names[0]
                else "the only camera has no name: leave it empty"
            )
            raise RequestError(f"camera {quoted(request.camera)} is unknown; {known}")
        return (request.camera,)

    def _settings(self, request: Any) -> CameraSettings:
        """Return the parameters of the camera that the request names, or the common ones."""
        if not request.camera:
            return self._server.defaults()
        return self._server.camera_settings()[self._cameras(request)[0]]
