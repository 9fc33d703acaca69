# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check requests of clients, and turn them into prompts and responses.

Each service has one function; GOAL_TASKS has one for each task of the action. A request is checked
once, before it waits for an image. The functions raise RequestError or PromptError. Knows
messages; no queue, no thread and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import ConfigError, RequestError
from kosmos_ros.images.size import check_bytes
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption, check_region, join_captions
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, Prompt, PromptsOf, Template
from kosmos_ros.ros import limits
from kosmos_ros.ros.conversions import box_from, seconds
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving.node_settings import FIELDS, CameraSettings
from kosmos_ros.serving.work import Observation
from kosmos_ros.settings import validated

ToMessage = Callable[[Observation, Prompt, Caption], GroundedCaption]
"""Makes the message of one caption."""


@dataclass(frozen=True, eq=False)
class CheckedRequest:
    """A checked request: its prompts, and the function that makes its response."""

    prompts: PromptsOf  # for an image of (width, height) pixels
    reply: Callable[[Observation, ToMessage], Any]  # returns the response


def check(request: Any) -> None:
    """Check sizes, and the fields that several kinds of requests have. Raises RequestError."""
    limits.check(request)
    own_image(request)
    if request.max_new_tokens:
        _validated("max_new_tokens", request.max_new_tokens)
    if (age := seconds(request.max_age)) < 0:
        raise RequestError(f"max_age is {age:g} s; it must be 0 or more")
    if stamp(request):
        _check_stamped(request)
    for region in getattr(request, "regions", ()):
        check_region(box_from(region))


def check_image_bytes(request: Any, max_pixels: int) -> None:
    """Check the sizes of the image data in a request. Raises ImageSizeError.

    A request may wait for the model, and its image stays in memory meanwhile.
    """
    for name in ("image", "compressed_image"):
        check_bytes(f"{name}.data", len(getattr(request, name).data), max_pixels)


def stamp(request: Any) -> tuple[int, int] | None:
    """Return the stamp (sec, nanosec) of the frame that a request is about; None: any frame."""
    sec, nanosec = int(request.stamp.sec), int(request.stamp.nanosec)
    return (sec, nanosec) if (sec, nanosec) != (0, 0) else None


def _check_stamped(request: Any) -> None:
    """Refuse what contradicts the stamp of a frame. Raises RequestError."""
    if own_image(request):
        raise RequestError(
            "stamp names a frame of a camera, but the request has an image of its own; "
            "leave one of them empty"
        )
    if seconds(request.max_age):
        raise RequestError(
            f"max_age is {seconds(request.max_age):g} s, but stamp names a frame of any age; "
            "leave one of them 0"
        )


def own_image(request: Any) -> Image | CompressedImage | None:
    """Return the image in a request; None: it uses a camera's frame.

    Raises RequestError if there are two. A format or encoding without data is an image, too: the
    decoder refuses it, since a frame of a camera could be a very different image.
    """
    raw, compressed = request.image, request.compressed_image
    has_raw = raw.width or raw.height or raw.encoding or len(raw.data)
    has_compressed = compressed.format or len(compressed.data)
    if has_raw and has_compressed:
        raise RequestError(
            "image and compressed_image must not both be set; leave one of them empty"
        )
    if has_compressed:
        return compressed
    return raw if has_raw else None


def ask(request: Ask.Request, settings: CameraSettings) -> CheckedRequest:
    """Check a request of ~/ask."""

    def reply(observation: Observation, message: ToMessage) -> Ask.Response:
        result = _first(observation, message)
        return Ask.Response(success=True, answer=result.caption, result=result)

    return CheckedRequest(_question(request, request.question), reply)


def ground(request: Ground.Request, settings: CameraSettings) -> CheckedRequest:
    """Check a request of ~/ground."""
    return _grounding(request, settings, Ground.Response)


def describe(request: Describe.Request, settings: CameraSettings) -> CheckedRequest:
    """Check a request of ~/describe."""
    if request.regions and request.detailed:
        raise RequestError(
            "detailed must be false if regions are given; it describes the whole image only"
        )
    if request.regions:
        asked = _in_regions(
            [prompts.region_template(request.grounded)] * len(request.regions),
            [[region] for region in request.regions],
        )
    else:
        task = "detailed_caption" if request.detailed else "brief_caption"
        asked = _plain(prompts.caption(task, request.grounded))

    def reply(observation: Observation, message: ToMessage) -> Describe.Response:
        results = [
            message(observation, prompt, caption)
            for prompt, caption in zip(observation.prompts, observation.captions, strict=True)
        ]
        descriptions = [result.caption for result in results]
        return Describe.Response(success=True, descriptions=descriptions, results=results)

    return CheckedRequest(asked, reply)


def generate(request: Generate.Request, settings: CameraSettings) -> CheckedRequest:
    """Check a request of ~/generate."""

    def reply(observation: Observation, message: ToMessage) -> Generate.Response:
        result = _first(observation, message)
        return Generate.Response(success=True, text=result.caption, result=result)

    return CheckedRequest(_raw(request, request.prompt), reply)


def goal(request: GenerateAction.Goal, settings: CameraSettings) -> CheckedRequest:
    """Check a goal of ~/generate_stream."""
    task = GOAL_TASKS.get(request.task)
    if task is None:
        raise RequestError(
            f"task {quoted(request.task)} is unknown; it must be one of {', '.join(GOAL_TASKS)}"
        )
    for name in dict.fromkeys(name for other in GOAL_TASKS.values() for name in other.fields):
        value = getattr(request, name)
        if value and name not in task.fields:
            unset = "0" if isinstance(value, float) else "empty"
            others = [known for known, other in GOAL_TASKS.items() if name in other.fields]
            raise RequestError(
                f"{name} must be {unset} for task {quoted(request.task)}; "
                f"only {' and '.join(others)} can have it"
            )
    return task.check(request, settings)


@dataclass(frozen=True)
class GoalTask:
    """A task of the action."""

    fields: tuple[str, ...]  # the optional fields of a goal that this task uses
    check: Callable[[GenerateAction.Goal, CameraSettings], CheckedRequest]


def _caption_goal(request: GenerateAction.Goal, settings: CameraSettings) -> CheckedRequest:
    return CheckedRequest(_plain(prompts.caption(request.task, request.grounded)), _result)


def _grounding_goal(request: GenerateAction.Goal, settings: CameraSettings) -> CheckedRequest:
    return _grounding(request, settings, GenerateAction.Result)


def _region_goal(request: GenerateAction.Goal, settings: CameraSettings) -> CheckedRequest:
    if len(request.regions) != 1:
        raise RequestError(
            "regions must have exactly one entry for task region_description, "
            f"got {len(request.regions)}; send one goal for each region"
        )
    template = prompts.region_template(request.grounded)
    return CheckedRequest(_in_regions([template], [request.regions]), _result)


def _question_goal(request: GenerateAction.Goal, settings: CameraSettings) -> CheckedRequest:
    return CheckedRequest(_question(request, request.text), _result)


def _prompt_goal(request: GenerateAction.Goal, settings: CameraSettings) -> CheckedRequest:
    return CheckedRequest(_raw(request, request.text), _result)


GOAL_TASKS = {
    **dict.fromkeys(CAPTION_TASKS, GoalTask((), _caption_goal)),
    "phrase_grounding": GoalTask(("phrases", "min_score"), _grounding_goal),
    "region_description": GoalTask(("regions",), _region_goal),
    "question": GoalTask(("text", "history", "regions", "region_phrases"), _question_goal),
    "prompt": GoalTask(("text", "regions", "stop"), _prompt_goal),
}
"""The tasks of the action."""


def _result(observation: Observation, message: ToMessage) -> GenerateAction.Result:
    return GenerateAction.Result(success=True, result=_first(observation, message))


def _first(observation: Observation, message: ToMessage) -> GroundedCaption:
    return message(observation, observation.prompts[0], observation.captions[0])


def _plain(*asked: Prompt) -> PromptsOf:
    """Return prompts that are the same for every image."""
    return lambda width, height: asked


def _in_regions(templates: Sequence[Template], regions: Sequence[Sequence[Any]]) -> PromptsOf:
    """Return prompts about regions of a request."""
    return prompts.in_regions(templates, [[box_from(region) for region in own] for own in regions])


def _question(request: Any, text: str) -> PromptsOf:
    template = prompts.question_template(
        text, len(request.regions), request.region_phrases, request.grounded, request.history
    )
    return _in_regions([template], [request.regions])


def _raw(request: Any, text: str) -> PromptsOf:
    template = prompts.raw_template(text, len(request.regions), request.stop)
    return _in_regions([template], [request.regions])


def _grounding(request: Any, settings: CameraSettings, kind: Any) -> CheckedRequest:
    """Check a request for the boxes of several phrases, of the service or the action."""
    if not request.phrases:
        raise RequestError("phrases is empty; it must have at least one phrase")
    phrases = [prompts.plain_text("phrase", phrase) for phrase in request.phrases]
    asked = [prompts.phrase_grounding(phrase) for phrase in phrases]
    score = _validated("min_score", request.min_score) or settings.min_score

    def reply(observation: Observation, message: ToMessage) -> Any:
        found = join_captions(phrases, observation.captions, score)
        return kind(success=True, result=message(observation, prompts.joined(asked), found))

    return CheckedRequest(_plain(*asked), reply)


def _validated(name: str, value: Any) -> Any:
    """Check a field by the rules of the parameter `name`, and return its value."""
    try:
        return validated(FIELDS[name], value)
    except ConfigError as exc:
        raise RequestError(str(exc).removeprefix("parameter ")) from exc
