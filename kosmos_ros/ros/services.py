# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Services and the action: requests in, work for the scheduler out, and answers back.

Callbacks run in the executor's thread and only hand work on; the worker's thread brings results
back by a guard condition.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from kosmos_ros.errors import CancelledError, ConfigError, KosmosError, NotReadyError, RequestError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Box, check_region, region_cells, together
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, TASKS, Prompt
from kosmos_ros.ros.conversions import box_from, said_message, seconds
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.sanitize import format_error, quoted
from kosmos_ros.serving.node_settings import FIELDS, CameraSettings, NodeSettings
from kosmos_ros.serving.scheduler import Request, Scheduler
from kosmos_ros.serving.work import Seen, Task
from kosmos_ros.settings import MAX_ENTRIES, validated

REPEAT_ERROR = 5.0  # s, of what is logged about requests
BURST = 1000  # requests at once that are answered, if only with a refusal
RESULT_KEPT = 120  # s, of a goal that is over; each status of the action names all that are kept

CANCELLED = "the goal was cancelled"

Cells = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Inquiry:
    """A checked request: what to ask, and how to say the answer."""

    prompts: Callable[[Cells], Sequence[Prompt]]  # for the grid indices of `regions`
    reply: Callable[[Seen], Any]  # the response
    regions: Sequence[Box] = ()  # pixels of the picture


class Desk(Protocol):
    """Whom the services work for."""

    settings: NodeSettings
    scheduler: Scheduler

    def defaults(self) -> CameraSettings:
        """Parameters that are no camera's own."""

    def unready(self) -> str:
        """Why nothing can be asked now; empty where it can."""

    def stream_settings(self) -> Mapping[str, CameraSettings]:
        """Those of each camera by its name."""

    def missing(self, cameras: Sequence[str]) -> str:
        """What is known about cameras of which no frame came."""


class Services:
    """`~/ask`, `~/ground`, `~/describe`, `~/generate` and the action `~/generate_stream`."""

    def __init__(self, node: ManagedNode, desk: Desk) -> None:
        self._node = node
        self._desk = desk
        self._waiting: set[Task] = set()
        self._goals: dict[bytes, Request] = {}
        # Of the default depth of 10, more requests at once are lost without an answer.
        burst = QoSProfile(depth=BURST)
        # In the default group an async handler stops every other callback while it waits.
        group = ReentrantCallbackGroup()
        for kind, name, inquire in (
            (Ask, "ask", self._ask),
            (Ground, "ground", self._ground),
            (Describe, "describe", self._describe),
            (Generate, "generate", self._generate),
        ):
            node.create_service(
                kind,
                f"~/{name}",
                functools.partial(self._serve, inquire),
                qos_profile=burst,
                callback_group=group,
            )
        self._action = ActionServer(
            node,
            GenerateAction,
            "~/generate_stream",
            self._stream,
            cancel_callback=self._cancel,
            callback_group=group,
            goal_service_qos_profile=burst,
            result_service_qos_profile=burst,
            cancel_service_qos_profile=burst,
            feedback_pub_qos_profile=burst,
            result_timeout=RESULT_KEPT,
        )

    def destroy(self) -> None:
        """Take the action off the graph; services go with their node."""
        self._action.destroy()

    def expire(self) -> None:
        """Refuse the requests that have waited too long."""
        for request, had_frame in self._desk.scheduler.expired():
            waited = f"within {self._desk.settings.request_timeout:g} s"
            if had_frame:
                why = f"the model was not free {waited}; try again later"
            else:
                age = f" not older than {request.max_age:g} s" if request.max_age else ""
                why = f"no image{age} came {waited}{self._desk.missing(request.cameras)}"
            request.content.failed(NotReadyError(why))

    def refuse_all(self, reason: str) -> None:
        """Refuse whatever waits or is worked at."""
        for task in list(self._waiting):
            task.failed(CancelledError(reason))

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._waiting)

    @property
    def goals(self) -> int:
        """Those of them that are goals of the action."""
        return len(self._goals)

    async def _serve(self, inquire: Callable[[Any], Inquiry], request: Any, response: Any) -> Any:
        try:
            return await self._submit(request, inquire(_bounded(request)), type(response))
        except Exception as exc:  # whoever asks is answered
            return self._refusal(type(response), exc)

    async def _stream(self, goal: Any) -> GenerateAction.Result:
        request = goal.request
        try:
            if goal.is_cancel_requested:  # before it could be withdrawn
                raise CancelledError(CANCELLED)
            inquiry = self._of_goal(_bounded(request))

            def progress(so_far: Seen) -> None:
                message: Any = inquiry.reply(so_far).result
                phrases = [phrase for phrase in message.phrases if phrase.boxes]
                goal.publish_feedback(
                    GenerateAction.Feedback(text=message.caption, phrases=phrases)
                )

            result = await self._submit(
                request,
                inquiry,
                GenerateAction.Result,
                goal=bytes(goal.goal_id.uuid),
                progress=progress,
            )
        except Exception as exc:  # whoever asks is answered
            result = self._refusal(GenerateAction.Result, exc)
        finally:
            request.image = Image()  # rclpy keeps a goal that is over for RESULT_KEPT
        if result.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return result

    def _cancel(self, goal: Any) -> CancelResponse:
        if request := self._goals.get(bytes(goal.goal_id.uuid)):
            self._desk.scheduler.withdraw(request)
            # Whatever else is in its batch: nobody waits for it any more.
            request.content.failed(CancelledError(CANCELLED))
        return CancelResponse.ACCEPT

    async def _submit(
        self,
        request: Any,
        inquiry: Inquiry,
        kind: type,
        goal: bytes = b"",
        progress: Callable[[Seen], None] | None = None,
    ) -> Any:
        """The response to a checked request. Raises KosmosError where it cannot be queued."""
        _check(request, inquiry)
        own = bool(request.image.width or request.image.height or len(request.image.data))
        future: Future = Future()
        task = Task(
            prompts=lambda width, height: inquiry.prompts(
                [region_cells(box, width, height) for box in inquiry.regions]
            ),
            done=lambda seen: self._node.mailbox.post(future, inquiry.reply(seen)),
            failed=lambda exc: self._node.mailbox.post(future, self._refusal(kind, exc)),
            max_new_tokens=request.max_new_tokens or self._settings(request).max_new_tokens,
            image=request.image if own else None,
            # Whoever was refused or has cancelled meanwhile waits for no more of it.
            stopped=future.done,
            progress=progress,
        )
        queued = Request(
            task,
            deadline=time.monotonic() + self._desk.settings.request_timeout,
            cameras=() if own else self._cameras(request),
            max_age=seconds(request.max_age),
        )
        # First of all, so that who makes the node unready meanwhile refuses it.
        self._waiting.add(task)
        if goal:
            self._goals[goal] = queued
        try:
            if reason := self._desk.unready():
                raise NotReadyError(reason)
            self._desk.scheduler.submit(queued)
            return await future
        finally:
            self._waiting.discard(task)
            self._goals.pop(goal, None)

    def _cameras(self, request: Any) -> tuple[str, ...]:
        names = tuple(self._desk.stream_settings())
        if not request.camera:
            if len(names) > 1 and getattr(request, "regions", None):
                raise RequestError(
                    f"regions are of one camera's image: name it ({', '.join(names)}) in camera, "
                    "or send the image"
                )
            return names
        if request.camera not in names:
            known = f"{', '.join(names)} are known" if names[0] else _ONLY
            raise RequestError(f"camera {quoted(request.camera)} is unknown; {known}")
        return (request.camera,)

    def _settings(self, request: Any) -> CameraSettings:
        """Those of the camera that the request names, or else the common ones."""
        if not request.camera:
            return self._desk.defaults()
        return self._desk.stream_settings()[self._cameras(request)[0]]

    # What each request asks ----------------------------------------------------------------

    def _ask(self, request: Ask.Request) -> Inquiry:
        def reply(seen: Seen) -> Ask.Response:
            message = self._message(seen, 0)
            return Ask.Response(success=True, answer=message.caption, result=message)

        return Inquiry(_question_of(request, request.question), reply, _regions(request))

    def _ground(self, request: Ground.Request) -> Inquiry:
        return self._grounding_of(request, Ground.Response)

    def _describe(self, request: Describe.Request) -> Inquiry:
        regions = _regions(request)
        if regions and request.detailed:
            raise RequestError("detailed is for the whole image; regions are described briefly")

        def asked(cells: Cells) -> list[Prompt]:
            if regions:
                return [prompts.region_description(cell, request.grounded) for cell in cells]
            task = "detailed_caption" if request.detailed else "brief_caption"
            return [prompts.caption(task, request.grounded)]

        def reply(seen: Seen) -> Describe.Response:
            results = [self._message(seen, number) for number in range(len(seen.captions))]
            descriptions = [result.caption for result in results]
            return Describe.Response(success=True, descriptions=descriptions, results=results)

        return Inquiry(asked, reply, regions)

    def _generate(self, request: Generate.Request) -> Inquiry:
        prompt = prompts.raw(request.prompt)

        def reply(seen: Seen) -> Generate.Response:
            message = self._message(seen, 0)
            return Generate.Response(success=True, text=message.caption, result=message)

        return Inquiry(lambda _: [prompt], reply)

    def _of_goal(self, goal: GenerateAction.Goal) -> Inquiry:
        def reply(seen: Seen) -> GenerateAction.Result:
            return GenerateAction.Result(success=True, result=self._message(seen, 0))

        task, regions = goal.task, _regions(goal)
        for name in ("text", "phrases", "history", "regions", "region_phrases"):
            if getattr(goal, name) and task not in _OF_TASKS[name]:
                raise RequestError(
                    f"{name} is not for task {quoted(task)}; "
                    f"{' and '.join(_OF_TASKS[name])} can have it"
                )
        if task in CAPTION_TASKS:
            return Inquiry(lambda _: [prompts.caption(task, goal.grounded)], reply)
        if task == "phrase_grounding":
            return self._grounding_of(goal, GenerateAction.Result)
        if task == "question":
            return Inquiry(_question_of(goal, goal.text), reply, regions)
        if task == "prompt":
            prompt = prompts.raw(goal.text)
            return Inquiry(lambda _: [prompt], reply)
        if task == "region_description":
            if len(regions) != 1:
                raise RequestError(f"{len(regions)} regions; one is needed, each in its own goal")
            return Inquiry(
                lambda cells: [prompts.region_description(cells[0], goal.grounded)], reply, regions
            )
        raise RequestError(f"task {quoted(task)} is unknown; one of {', '.join(TASKS)} is needed")

    def _grounding_of(self, request: Any, kind: Any) -> Inquiry:
        """Of Ground and of the action: several phrases."""
        phrases = [prompts.plain_text("phrase", phrase) for phrase in request.phrases]
        if not phrases:
            raise RequestError("phrases is empty; at least one phrase is needed")
        asked = [prompts.phrase_grounding(phrase) for phrase in phrases]
        try:
            score = validated(FIELDS["min_score"], request.min_score)
        except ConfigError as exc:
            raise RequestError(str(exc)) from exc
        score = score or self._settings(request).min_score

        def reply(seen: Seen) -> Any:
            found = dataclasses.replace(
                seen,
                prompts=(prompts.joined(asked),),
                captions=(together(phrases, seen.captions, score),),
            )
            return kind(success=True, result=self._message(found, 0))

        return Inquiry(lambda _: asked, reply)

    def _refusal(self, kind: Any, exc: Exception) -> Any:
        """The response that says why there is none; from any thread."""
        reason = format_error(exc)
        if isinstance(exc, CancelledError):
            # Model and scheduler may stop before whoever made the node unready has said so.
            reason = self._desk.unready() or reason
        if not isinstance(exc, KosmosError):  # a fault of this program's own
            self._node.get_logger().error(
                f"a request failed: {reason}", throttle_duration_sec=REPEAT_ERROR
            )
        return kind(success=False, message=reason)

    def _message(self, seen: Seen, number: int) -> GroundedCaption:
        now = self._node.get_clock().now().nanoseconds * 1e-9
        return said_message(
            seen, seen.prompts[number], seen.captions[number], self._desk.settings.model, now
        )


def _question_of(request: Any, text: str) -> Callable[[Cells], list[Prompt]]:
    return lambda cells: [
        prompts.question(text, cells, request.region_phrases, request.grounded, request.history)
    ]


def _regions(request: Any) -> list[Box]:
    return [box_from(box) for box in request.regions]


def _bounded(request: Any) -> Any:
    """The request, before anything is made of its lists. Raises RequestError for long ones."""
    for name in _LISTS:
        if len(getattr(request, name, ())) > MAX_ENTRIES:
            raise RequestError(
                f"{name} has {len(getattr(request, name))} entries; {MAX_ENTRIES} is the most"
            )
    return request


def _check(request: Any, inquiry: Inquiry) -> None:
    """Raise RequestError for what cannot be asked of any image."""
    if request.max_new_tokens:
        try:
            validated(FIELDS["max_new_tokens"], request.max_new_tokens)
        except ConfigError as exc:
            raise RequestError(str(exc)) from exc
    if seconds(request.max_age) < 0:
        raise RequestError(f"max_age is {seconds(request.max_age):g} s; 0 or more is needed")
    for region in inquiry.regions:
        check_region(region)
    inquiry.prompts([(0, 0)] * len(inquiry.regions))


_LISTS = ("phrases", "regions", "region_phrases", "history")

_ONLY = "the only camera has an empty name"

_OF_TASKS = {
    "text": ("question", "prompt"),
    "phrases": ("phrase_grounding",),
    "history": ("question",),
    "regions": ("question", "region_description"),
    "region_phrases": ("question",),
}
"""Fields of a goal and the tasks that read them."""
