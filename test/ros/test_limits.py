# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Texts and lists in messages from outside are limited, field by field."""

import pytest

pytest.importorskip("kosmos_msgs", reason="kosmos_msgs is not built: run scripts/setup")

from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import RequestError
from kosmos_ros.ros import limits

REQUESTS = [Ask.Request, Ground.Request, Describe.Request, Generate.Request, GenerateAction.Goal]


def texts_of(message, *path):
    """Yield the path of every text in a message; a list of texts counts as one."""
    for name, kind in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if kind in ("string", "sequence<string>"):
            yield (*path, name)
        elif hasattr(value, "get_fields_and_field_types"):
            yield from texts_of(value, *path, name)


def with_text(kind, path, text):
    """Return a message of this kind with `text` in one field, and the name of its place."""
    message = place = kind()
    for name in path[:-1]:
        place = getattr(place, name)
    listed = isinstance(getattr(place, path[-1]), list)
    setattr(place, path[-1], ["", text] if listed else text)
    return message, ".".join(path) + ("[1]" if listed else "")


TEXTS = [(kind, path) for kind in (*REQUESTS, Image, CompressedImage) for path in texts_of(kind())]


def test_every_kind_of_text_is_known():
    names = {".".join(path) for _, path in TEXTS}
    assert names == {
        "question", "history", "region_phrases", "camera", "phrases", "prompt", "task", "text",
        "image.header.frame_id", "image.encoding", "header.frame_id", "encoding", "format",
        "compressed_image.header.frame_id", "compressed_image.format", "stop",
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "path"), TEXTS)
@pytest.mark.fault(79)
def test_every_text_has_a_limit(kind, path):
    most = {"frame_id": 255, "prompt": 61440, "text": 61440}.get(path[-1], 1000)
    limits.check(with_text(kind, path, "\u20ac" * most)[0])
    message, name = with_text(kind, path, "\u20ac" * (most + 1))
    with pytest.raises(RequestError) as raised:
        limits.check(message)
    assert str(raised.value) == f"{name} must have at most {most} characters, got {most + 1}"


def test_bytes_of_an_image_are_not_limited_here():
    limits.check(Ask.Request(image=Image(data=bytes(10_000))))
    limits.check(CompressedImage(data=bytes(10_000)))


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (GetParameters.Request(names=["n"] * 11), "names has 11 entries; it must have at most 10"),
        (GetParameters.Request(names=["n" * 1001]), "names[0] must have at most 1000 characters"),
        (ListParameters.Request(prefixes=["n"] * 11), "prefixes has 11 entries"),
        (
            SetParameters.Request(parameters=[Parameter(name="n" * 1001)]),
            "parameters[0].name must have at most 1000 characters, got 1001",
        ),
        *(
            (
                SetParameters.Request(parameters=[Parameter(value=ParameterValue(**value))]),
                f"parameters[0].value.{next(iter(value))}{problem}",
            )
            for value, problem in (
                ({"string_value": "v" * 61441}, " must have at most 61440 characters"),
                ({"string_array_value": [""] * 101}, " has 101 entries"),
                ({"string_array_value": ["v" * 1001]}, "[0] must have at most 1000 characters"),
                ({"double_array_value": [0.0] * 101}, " has 101 entries"),
                ({"integer_array_value": [0] * 101}, " has 101 entries"),
                ({"bool_array_value": [True] * 101}, " has 101 entries"),
                ({"byte_array_value": [b"0"] * 101}, " has 101 entries"),
            )
        ),
    ],
)
@pytest.mark.fault(79)
def test_every_list_has_a_limit(request_, reason):
    with pytest.raises(RequestError) as raised:
        limits.check(request_, entries=10)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_cleared_message_equals_a_new_one(kind):
    message = kind(max_new_tokens=7)
    message.image.data = bytes(1000)
    for path in texts_of(message):
        owner = message
        for name in path[:-1]:
            owner = getattr(owner, name)
        setattr(owner, path[-1], ["x"] if isinstance(getattr(owner, path[-1]), list) else "x")
    assert message != kind()
    limits.clear(message)
    assert message == kind()
