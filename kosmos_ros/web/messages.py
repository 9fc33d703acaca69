# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Convert messages of kosmos_node to JSON for the page, and requests of the page to messages.

Pure functions: knows no node, no thread and no connection. JSON cannot have NaN or infinity, so
such a number becomes 0.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import Answer, BoundingBox, Event, GroundedCaption, GroundedPhrase
from rcl_interfaces.msg import Parameter, ParameterDescriptor, ParameterType, ParameterValue

from kosmos_ros.errors import RequestError
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving.node_settings import FIELDS, CameraSettings
from kosmos_ros.settings import MAX_ENTRIES
from kosmos_ros.web.looks import ANSWER, CAPTION, PHRASES, Json

STAMP = re.compile(r"(-?[0-9]{1,10})\.([0-9]{9})")
"""A stamp as text: seconds, then exactly nine digits of nanoseconds."""
SECONDS = 2**31  # stamps have 32 bits of seconds with a sign
CAMERA_FIELDS = frozenset(CameraSettings.__dataclass_fields__)  # parameters that cameras have
DIGITS = 3  # decimals of pixels, scores and measurements
NO_NAME = "_"  # in the address of a picture: the camera has no name
KINDS = {Event.APPEARED: "appeared", Event.DISAPPEARED: "disappeared", Event.ANSWERED: "answered"}
LEVELS = {
    DiagnosticStatus.OK: "ok",
    DiagnosticStatus.WARN: "warn",
    DiagnosticStatus.ERROR: "error",
    DiagnosticStatus.STALE: "stale",
}
STATES = {"ready": "ready", "loading": "loading", "failed": "error"}
"""State of the model on ~/model_info: state of the node. With any other it is inactive."""
GOAL_FIELDS = (
    "type", "id", "task", "text", "camera", "phrases", "history", "region_phrases", "regions",
    "grounded", "stamp",
)  # fmt: skip
"""Fields of a request of the page."""
IMAGE_RATE = "image rate (Hz)"  # key of a measurement in a camera's status
CHOICES = "one of "  # start of additional_constraints in a parameter's description


# Results ----------------------------------------------------------------------------------------


def stamp_text(stamp: Time) -> str:
    """Return a stamp as `SEC.NNNNNNNNN`."""
    return f"{stamp.sec}.{stamp.nanosec:09d}"


def stamp_from(text: object) -> Time:
    """Return the stamp of a text `SEC.NNNNNNNNN`. Raises RequestError."""
    match = STAMP.fullmatch(text) if isinstance(text, str) else None
    if match is None or not -SECONDS <= int(match[1]) < SECONDS:
        raise RequestError(
            f"stamp must be seconds, a dot and nine digits of nanoseconds, got {quoted(text)}"
        )
    return Time(sec=int(match[1]), nanosec=int(match[2]))


def milliseconds(message: Any) -> float:
    """Return a Time or Duration in milliseconds."""
    return float(round(message.sec * 1e3 + message.nanosec / 1e6, DIGITS))


def number(value: float) -> float:
    """Return a number that JSON can have, rounded."""
    return round(float(value), DIGITS) if math.isfinite(value) else 0.0


def phrase_json(phrase: GroundedPhrase, shift: int = 0) -> Json:
    """Return a phrase with its boxes; `shift` is added to its place in the text."""
    boxes = [
        [number(side) for side in (box.x_min, box.y_min, box.x_max, box.y_max, box.score)]
        for box in phrase.boxes
    ]
    return {
        "text": phrase.text,
        "start": phrase.start + shift,
        "end": phrase.end + shift,
        "boxes": boxes,
    }


def phrases_json(phrases: Iterable[GroundedPhrase]) -> list[Json]:
    """Return phrases with their boxes."""
    return [phrase_json(phrase) for phrase in phrases]


def caption_json(captions: Sequence[GroundedCaption]) -> Json:
    """Return the captions of one frame as one text with a line for each."""
    lines: list[str] = []
    phrases: list[Json] = []
    shift = 0
    for caption in captions:
        phrases += [phrase_json(phrase, shift) for phrase in caption.phrases]
        lines.append(caption.caption)
        shift += len(caption.caption) + 1  # and the line feed
    return {
        "text": "\n".join(lines),
        "phrases": phrases,
        "score": number(sum(caption.score for caption in captions) / len(captions)),
        "tokens": sum(caption.generated_tokens for caption in captions),
        "truncated": any(caption.truncated for caption in captions),
    }


def answer_json(answer: Answer) -> Json:
    """Return an answer to one of the parameter `questions`."""
    return {
        "question": answer.question,
        "answer": answer.answer,
        "score": number(answer.score),
        "phrases": phrases_json(answer.phrases),
    }


def event_json(event: Event) -> Json:
    """Return an event of a camera."""
    return {
        "camera": event.camera,
        "stamp": stamp_text(event.header.stamp),
        "time": milliseconds(event.header.stamp),
        "kind": KINDS.get(event.kind, "unknown"),
        "subject": event.subject,
        "answer": event.answer,
        "previous": event.previous,
        "phrases": phrases_json(event.phrases),
    }


def look_json(camera: str, stamp: str, parts: Mapping[str, Sequence[Any]], picture: str) -> Json:
    """Return a look: all results of one described frame.

    `parts` are those of looks.Look. `picture` is the name of its picture; empty: none is kept.
    """
    captions: Sequence[GroundedCaption] = parts.get(CAPTION, ())
    grounded: Sequence[GroundedCaption] = parts.get(PHRASES, ())
    first = next(iter((*captions, *grounded)), GroundedCaption())
    return {
        "camera": camera,
        "stamp": stamp,
        "time": milliseconds(stamp_from(stamp)),
        "width": first.image_width,
        "height": first.image_height,
        "picture": picture_address(camera, picture) if picture else None,
        "task": first.task,
        "caption": caption_json(captions) if captions else None,
        "phrases": [phrase for message in grounded for phrase in phrases_json(message.phrases)],
        "answers": list(parts.get(ANSWER, ())),
        "latency": milliseconds(first.latency),
    }


def picture_address(camera: str, name: str) -> str:
    """Return the path of the picture of a described frame."""
    return f"/picture/{quote(camera, safe='') or NO_NAME}/{name}.jpg"


def result_json(result: GroundedCaption) -> Json:
    """Return the result of a request."""
    return {
        **caption_json([result]),
        "camera": result.camera,
        "stamp": stamp_text(result.header.stamp),
        "width": result.image_width,
        "height": result.image_height,
    }


def begun_json(camera: str, stamp: Time) -> Json:
    """Return the message that the model has begun to work on a frame."""
    return {
        "begun": True,
        "camera": camera,
        "stamp": stamp_text(stamp),
        "time": milliseconds(stamp),
    }


def feedback_json(feedback: Generate.Feedback, begun: bool) -> list[Json]:
    """Return the messages for one feedback; `begun`: an earlier feedback named the frame."""
    stamp = feedback.header.stamp
    framed = bool(stamp.sec or stamp.nanosec)
    found: list[Json] = []
    if framed and not begun:
        found.append(begun_json(feedback.camera, stamp))
    if feedback.text:
        found.append({"text": feedback.text, "phrases": phrases_json(feedback.phrases)})
    elif not framed:
        found.append({"waiting": feedback.requests_ahead})
    return found


# Requests ---------------------------------------------------------------------------------------


def goal_from(request: Mapping[str, Any]) -> Generate.Goal:
    """Return the goal of the action for a request of the page. Raises RequestError.

    Checks only names, types and counts. The node checks everything else.
    """
    if strange := [name for name in request if name not in GOAL_FIELDS]:
        fields = ", ".join(GOAL_FIELDS)
        raise RequestError(f"a request has no field {quoted(strange[0])}; its fields are {fields}")
    goal = Generate.Goal(
        task=_text(request, "task"),
        text=_text(request, "text"),
        camera=_text(request, "camera"),
        phrases=_texts(request, "phrases"),
        history=_texts(request, "history"),
        region_phrases=_texts(request, "region_phrases"),
        regions=[region_from(box) for box in _entries(request, "regions")],
    )
    grounded = request.get("grounded", True)
    if not isinstance(grounded, bool):
        raise RequestError(f"grounded must be true or false, got {quoted(grounded)}")
    goal.grounded = grounded
    if request.get("stamp") is not None:
        goal.stamp = stamp_from(request["stamp"])
    return goal


def region_from(box: object) -> BoundingBox:
    """Return a region of `[x_min, y_min, x_max, y_max]` in pixels. Raises RequestError."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise RequestError(f"a region must be a list of four numbers, got {quoted(box)}")
    x_min, y_min, x_max, y_max = map(float, box)
    return BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def _is_number(value: object) -> bool:
    most = sys.float_info.max  # an integer of JSON may be larger
    return type(value) in (int, float) and -most <= value <= most  # type: ignore[operator]


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name) or ""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a text, got {quoted(value)}")
    _check_characters(name, value)
    return value


def transferable(text: str) -> str:
    """Return `text`. Raises ValueError if a ROS message would cut it off or cannot contain it."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not contain null characters or lone surrogates")
    return text


def _check_characters(name: str, text: str) -> None:
    """Raise RequestError for a text that a ROS message would cut off or cannot contain."""
    try:
        transferable(text)
    except ValueError as exc:
        raise RequestError(f"{name} {exc}") from exc


def _entries(request: Mapping[str, Any], name: str) -> list[Any]:
    value = request.get(name) or []
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise RequestError(
            f"{name} must be a list of at most {MAX_ENTRIES} entries, got {quoted(value)}"
        )
    return value


def _texts(request: Mapping[str, Any], name: str) -> list[str]:
    value = _entries(request, name)
    if wrong := [entry for entry in value if not isinstance(entry, str)]:
        raise RequestError(f"{name} must be a list of texts, got {quoted(wrong[0])}")
    for entry in value:
        _check_characters(name, entry)
    return value


# Parameters -------------------------------------------------------------------------------------

TYPES: dict[int, str] = {
    ParameterType.PARAMETER_BOOL: "bool",
    ParameterType.PARAMETER_INTEGER: "int",
    ParameterType.PARAMETER_DOUBLE: "float",
    ParameterType.PARAMETER_STRING: "str",
    ParameterType.PARAMETER_STRING_ARRAY: "list",
}
"""Types of the parameters of kosmos_node, as the page calls them."""


def value_of(value: ParameterValue) -> Any:
    """Return the value of a parameter; None if it has another type than those in TYPES."""
    if value.type == ParameterType.PARAMETER_DOUBLE:
        return value.double_value if math.isfinite(value.double_value) else None
    values: dict[int, Any] = {
        ParameterType.PARAMETER_BOOL: value.bool_value,
        ParameterType.PARAMETER_INTEGER: value.integer_value,
        ParameterType.PARAMETER_STRING: value.string_value,
        ParameterType.PARAMETER_STRING_ARRAY: list(value.string_array_value),
    }
    return values.get(value.type)


def parameter_from(name: str, value: object) -> Parameter:
    """Return a message that sets a parameter. Raises RequestError for a value of another type.

    The node converts an integer where it expects another number, and checks everything else.
    """
    kinds: dict[type, tuple[int, str]] = {
        type(None): (ParameterType.PARAMETER_NOT_SET, ""),
        bool: (ParameterType.PARAMETER_BOOL, "bool_value"),
        int: (ParameterType.PARAMETER_INTEGER, "integer_value"),
        float: (ParameterType.PARAMETER_DOUBLE, "double_value"),
        str: (ParameterType.PARAMETER_STRING, "string_value"),
        list: (ParameterType.PARAMETER_STRING_ARRAY, "string_array_value"),
    }
    kind = kinds.get(type(value))
    texts = not isinstance(value, list) or all(isinstance(entry, str) for entry in value)
    large = isinstance(value, int) and not -(2**63) <= value < 2**63
    if kind is None or not texts or large:
        raise RequestError(
            f"parameter {quoted(name)} must be true, false, a number (an integer of at most 64 "
            f"bits), a text, a list of texts or null, got {quoted(value)}"
        )
    for text in (name, *(value if isinstance(value, list) else [value])):
        if isinstance(text, str):
            _check_characters(f"parameter {quoted(name)}", text)
    message = Parameter(name=name, value=ParameterValue(type=kind[0]))
    if kind[1]:
        setattr(message.value, kind[1], value)
    return message


def description_json(descriptor: ParameterDescriptor) -> Json:
    """Return what the page shows about a parameter; `default` is None if it is not known."""
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    constraints = descriptor.additional_constraints
    field = FIELDS.get(descriptor.name.rpartition(".")[2])
    default = field.default if field else None
    return {
        "type": TYPES.get(descriptor.type, "unknown"),
        "default": list(default) if isinstance(default, tuple) else default,
        "limits": [ranges[0].from_value, ranges[0].to_value] if ranges else None,
        "choices": (
            constraints.removeprefix(CHOICES).split(", ")
            if constraints.startswith(CHOICES)
            else None
        ),
        "description": descriptor.description,
        "camera": descriptor.name.rpartition(".")[2] in CAMERA_FIELDS,
        "read_only": descriptor.read_only,
    }


def split(name: str, cameras: Iterable[str]) -> tuple[str, str]:
    """Return the camera and the rest of a parameter's name; "" without a camera."""
    camera, dot, rest = name.partition(".")
    return (camera, rest) if dot and camera in cameras else ("", name)


def values_json(values: Mapping[str, Any], cameras: Iterable[str]) -> dict[str, Json]:
    """Return the values of all parameters, by camera and name."""
    cameras = tuple(cameras)
    found: dict[str, Json] = {"": {}, **{camera: {} for camera in cameras}}
    for name, value in values.items():
        camera, rest = split(name, cameras)
        found[camera][rest] = value
    return found


# State ------------------------------------------------------------------------------------------


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """Return the values of a status by their keys."""
    return {pair.key: pair.value for pair in status.values}


def state_json(status: DiagnosticStatus) -> Json:
    """Return the state of the node, from ~/model_info."""
    state = values_of(status).get("state", "")
    return {"state": STATES.get(state, "inactive"), "message": status.message}


def model_json(status: DiagnosticStatus) -> Json:
    """Return the state of the model, from its status in /diagnostics."""
    values = values_of(status)
    phase = values.get("phase", "")
    loading = {
        "phase": phase,
        "done": measured(values, "downloaded (MB)"),
        "total": measured(values, "download size (MB)"),
    }
    return {
        "level": LEVELS.get(status.level, "error"),
        "message": status.message,
        "values": values,
        "loading": loading if phase else None,
    }


def camera_json(status: DiagnosticStatus) -> Json:
    """Return the state of a camera, from its status in /diagnostics, without a sample."""
    level = LEVELS.get(status.level, "error")
    return {"level": level, "message": status.message, "values": values_of(status)}


def sample_json(camera: Mapping[str, str], model: Mapping[str, str]) -> Json:
    """Return one point of a camera's plots; `camera` and `model` are values of /diagnostics.

    Latencies are in milliseconds and memory in megabytes.
    """
    return {
        "captions": measured(camera, "described rate (Hz)"),
        "images": measured(camera, IMAGE_RATE),
        "p50": number(1e3 * measured(camera, "latency p50 (s)")),
        "p95": number(1e3 * measured(camera, "latency p95 (s)")),
        "lost": measured(camera, "lost share"),
        "memory": measured(model, "process memory (MB)"),
        "device": measured(model, "device memory (MB)"),
    }


def measured(values: Mapping[str, str], key: str) -> float:
    """Return a measurement of a status; 0 if it is missing or unknown."""
    return known(values, key) or 0.0


def known(values: Mapping[str, str], key: str) -> float | None:
    """Return a measurement of a status; None if it is missing or unknown."""
    try:
        return number(float(values.get(key, "")))
    except ValueError:
        return None
