# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: requests and goals with any value in any field, served without DDS.

The node of the services only stores their callbacks, and their server only stores the queued work.
The output of the model is literal KOSMOS-2 output.
"""

import functools
import os
from types import SimpleNamespace
from unittest import mock

# rclpy reads this when a message is imported, and then checks the types of fields.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

import numpy as np
from builtin_interfaces.msg import Duration, Time
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import BoundingBox
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fuzz.parse import SNOWMAN
from fuzz.prompt import BOX, CONTROL, IDS, PIECES, tags
from fuzz.source import Source, texts
from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption, parse
from kosmos_ros.ros import services
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings
from kosmos_ros.serving.work import Observation
from kosmos_ros.settings import MAX_ENTRIES

SERVED = (Ask, Ground, Describe, Generate, GenerateAction)
CAPTION = Caption(*parse(SNOWMAN, [0.5, 0.125, 1.0, 0.25]), SNOWMAN, 0.75, 20)
SIZE = 640, 480  # pixels of the image in results
_PICTURE = np.broadcast_to(np.uint8(0), (*SIZE[::-1], 3))
_NOW = SimpleNamespace(nanoseconds=1_700_000_000_000_000_000)

# After the kind and the cameras: the fields of a message in order; see `fill`.
IMAGE, COMPRESSED, CAMERA, AGE, TOKENS = b"\1", b"\0", b"\0", b"\0\0", b"\0"
REST = IMAGE + COMPRESSED + CAMERA + AGE + TOKENS
JPEG = b"\0\1" + CAMERA + AGE + TOKENS
SEEDS = (
    b"\0\0" + texts("What is it?") + b"\0\1" + BOX + b"\0" + REST + b"\1",
    b"\0\0" + texts("Is the cat here?") + b"\2" + texts("Who?", "A man.") + b"\1" + BOX + b"\1"
    + texts("the cat") + REST + b"\0",
    b"\0\1" + texts("Why?") + b"\0\0\0\0\0\1\1\0\5",
    b"\1\0\2" + texts("a dog", "a fire") + b"\2" + REST,
    b"\1\1\1" + texts("a dog") + b"\0\0\0\1\2\0\2",
    b"\1\0\1" + texts("a dog") + b"\0" + JPEG,
    b"\2\0\2" + BOX * 2 + b"\0" + REST + b"\1",
    b"\2\0\0\1" + REST + b"\0",
    b"\3\0" + texts("<grounding> An image of") + b"\0" + texts("") + REST,
    *(
        b"\4\0" + bytes([prompts.TASKS.index(task)]) + texts(text) + phrases + b"\0" + regions
        + b"\0" + texts("") + b"\0" + REST + b"\1"
        for task, text, phrases, regions in (
            ("brief_caption", "", b"\0", b"\0"),
            ("question", "What is it?", b"\0", b"\1" + BOX),
            ("phrase_grounding", "", b"\1" + texts("a dog"), b"\0"),
            ("region_description", "", b"\0", b"\1" + BOX),
            ("prompt", "An image of", b"\0", b"\0"),
        )
    ),
)  # fmt: skip
WORDS = (
    *(tag.encode() for tag in prompts.CONTROL_TAGS),
    *(b"<phrase>", b"</object>", b"it", b"this", BOX, REST, JPEG, b"\xff"),
)


class _Node:
    """Stores the callbacks by kind; sets results of futures at once."""

    mailbox = SimpleNamespace(post=lambda future, result: future.set_result(result))

    def __init__(self):
        self.callbacks = {}

    def create_service(self, kind, name, callback, **_):
        self.callbacks[kind] = callback

    def create_action(self, node, kind, name, callback, **_):
        self.callbacks[kind] = callback

    def get_clock(self):
        return SimpleNamespace(now=lambda: _NOW)


class _Server:
    settings = NodeSettings()

    def __init__(self, *cameras):
        self._cameras = dict.fromkeys(cameras, CameraSettings())
        self.scheduler = SimpleNamespace(submit=self._submit, ahead=lambda request: 0)
        self.queued = None
        self.node = _Node()
        with mock.patch.object(services, "ActionServer", self.node.create_action):
            self.services = services.Services(self.node, self)

    def _submit(self, request):
        self.queued = request

    def defaults(self):
        return CameraSettings()

    def unavailable(self):
        return ""

    def camera_settings(self):
        return self._cameras


class _Goal:
    goal_id = SimpleNamespace(uuid=bytes(16))
    is_cancel_requested = False

    def __init__(self, request):
        self.request = request
        self.ends = []
        self.succeed, self.abort, self.canceled = (
            functools.partial(self.ends.append, end)
            for end in ("succeeded", "aborted", "canceled")
        )

    def publish_feedback(self, feedback):
        serialize_message(feedback)


_SERVERS = _Server(""), _Server("left", "right")


def run(data):
    source = Source(data)
    kind, server = source.choice(SERVED), source.choice(_SERVERS)
    server.queued = None
    if kind is GenerateAction:
        goal = _Goal(fill(source, kind.Goal()))
        served = server.node.callbacks[kind](goal)
        response = _answered(served, server, goal.request)
        assert goal.ends == ["succeeded" if response.success else "aborted"]
    else:
        request = fill(source, kind.Request())
        served = server.node.callbacks[kind](request, kind.Response())
        response = _answered(served, server, request)
    assert response.success != bool(response.message)
    assert not server.services.waiting
    serialize_message(response)
    return response.success


def _answered(served, server, request):
    """Return the response. If the request was queued, finish it with CAPTION."""
    try:
        served.send(None)
        work = server.queued
        try:
            asked = tuple(work.prompts(*SIZE))
        except KosmosError as exc:  # as the worker does
            work.failed(exc)
        else:
            _check(asked, request)
            captions = (CAPTION,) * len(asked)
            observation = Observation("", Header(), _PICTURE, asked, 0, captions)
            if work.progress:
                work.progress(observation)
            work.done(observation)
        served.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the request still waits after its result")


def _check(asked, request):
    assert asked
    regions = len(getattr(request, "regions", ()))
    found = []
    for prompt in asked:
        assert prompt.task in prompts.TASKS
        found += tags(prompt.text)
    assert not {IDS[tag] for tag in found} & CONTROL
    if asked[0].task != "prompt":
        assert sum(tag.startswith("<patch_index_") for tag in found) == 2 * regions


def fill(source, message):
    """Set every field of `message` to a value and return the message."""
    for name, kind in message.get_fields_and_field_types().items():
        draw = _NAMED.get(name)
        setattr(message, name, draw(source) if draw else _value(source, kind))
    return message


def _value(source, kind):
    if kind.startswith("sequence<"):
        of = kind[len("sequence<") : -1]
        number = source.byte()
        count = number % 4 if number < 4 or number > 127 else 0
        if number == 255:
            count = MAX_ENTRIES + 1
        return [_value(source, of) for _ in range(count)]
    return _DRAWS[kind](source)


def _text(source):
    # Text as rclpy converts it from C: no NUL, only valid UTF-8.
    return source.words(PIECES).partition("\0")[0].encode("utf-8", "replace").decode()


def _image(source):
    pictures = (Image, lambda: Image(width=1), lambda: fill(source, Image()))
    return source.choice(pictures)()


def _compressed(source):
    files = (
        CompressedImage,
        lambda: CompressedImage(data=b"\xff\xd8\xff"),
        lambda: fill(source, CompressedImage()),
    )
    return source.choice(files)()


def _box(source):
    return BoundingBox(
        **dict(zip(("x_min", "y_min", "x_max", "y_max"), source.corners(), strict=True))
    )


def _one(*names):
    """Return a function that draws one of `names`, or any text."""

    def draw(source):
        name = source.choice((*names, None))
        return _text(source) if name is None else name

    return draw


_NAMED = {"task": _one(*prompts.TASKS), "camera": _one("", "left", "", "right", "")}
_DRAWS = {
    "string": _text,
    "boolean": Source.flag,
    "double": Source.number,
    "uint8": Source.byte,
    "uint32": lambda source: source.integer(0, 2**32 - 1),
    "int32": lambda source: source.integer(-(2**31), 2**31 - 1),
    "kosmos_msgs/BoundingBox": _box,
    "builtin_interfaces/Duration": lambda source: fill(source, Duration()),
    "builtin_interfaces/Time": lambda source: fill(source, Time()),
    "std_msgs/Header": lambda source: fill(source, Header()),
    "sensor_msgs/Image": _image,
    "sensor_msgs/CompressedImage": _compressed,
}
