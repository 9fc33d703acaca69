# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The messages in a bag of results are those that the node publishes, field by field."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")
pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from bags import TYPES
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.offline.bags import events
from kosmos_ros.offline.bags.messages import DEFINITIONS, OUTPUTS, DescribedImage
from kosmos_ros.ros import conversions, outputs
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import TASK, Plan
from kosmos_ros.serving.work import Observation

ROOT = Path(__file__).parents[3]
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
STAMP = 1_700_000_000, 123_456_789
ALL = (TASK, "phrases", "questions")

sides = st.floats(0, 1, width=32)
boxes = st.builds(
    lambda xs, ys, score: Box(min(xs), min(ys), max(xs), max(ys), score),
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    sides,
)
phrases = st.builds(
    Phrase, st.text("aé汉 ", max_size=5), st.integers(0, 9), st.integers(0, 9),
    st.lists(boxes, max_size=2).map(tuple),
)  # fmt: skip
captions = st.builds(
    Caption,
    st.text("aé汉 ", max_size=9),
    st.lists(phrases, max_size=3).map(tuple),
    st.text("a<>/_", max_size=9),
    sides,
    st.integers(0, 128),
    st.booleans(),
)


def pair(asked, answers, camera="front"):
    """Return a described frame as the node has it, and as the bag has it."""
    parts = [TASK, *(name for name in ALL[1:] if getattr(asked, name))]
    plan = Plan(asked, parts)
    result = plan.read(answers[: len(plan.prompts)])
    seconds, nanoseconds = STAMP
    header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id="optical")
    observation = Observation(camera, header, IMAGE, tuple(plan.prompts), 0, tuple(answers))
    node = outputs.DescribedFrame(observation, result, (), "shapes", now=float(seconds))
    stamp = TYPES.new("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    own = TYPES.new("std_msgs/msg/Header", stamp=stamp, frame_id="optical")
    return node, DescribedImage(camera, own, IMAGE, result, "shapes")


def offline(topic):
    return next(output for output in OUTPUTS if output.topic == topic)


def canonical(message, kind):
    """Return a message of rclpy as CDR. Its own CDR has any bytes between and after the fields."""
    return TYPES.data(TYPES.store.deserialize_cdr(serialize_message(message), kind))


@settings(max_examples=25)
@pytest.mark.parametrize("topic", ["captions", "phrases", "answers", "annotated/compressed"])
@given(answers=st.lists(captions, min_size=9, max_size=9), task=st.sampled_from(
    ["brief_caption", "detailed_caption", "phrase_grounding", "question"]
))  # fmt: skip
def test_each_field_of_a_message_is_that_of_the_node(topic, answers, task):
    asked = CameraSettings(
        task=task, phrases=("a cat", "a dog"), questions=("What is this?",), min_score=0.0
    )
    node, own = pair(asked, answers)
    (output,) = [output for output in outputs.OUTPUTS if output.topic == topic]
    expected = [canonical(message, offline(topic).type) for message in output.make(node)]
    found = [TYPES.data(message) for message in offline(topic).make(TYPES, own)]
    assert found == expected
    assert found
    # ROS reads them.
    read = [deserialize_message(data, output.type) for data in found]
    assert [canonical(message, offline(topic).type) for message in read] == expected


@settings(max_examples=50)
@pytest.mark.parametrize("phrases_of", [(), ("a cat", "a dog")])
@given(answers=st.lists(captions, min_size=9, max_size=9))
def test_detections_are_those_of_the_node(phrases_of, answers):
    node, own = pair(CameraSettings(phrases=phrases_of, min_score=0.0), answers)
    with pytest.MonkeyPatch.context() as patch:  # vision_msgs may not be installed
        for name in ("Detection2DArray", "Detection2D", "ObjectHypothesisWithPose"):
            patch.setattr(conversions, name, filled(f"vision_msgs/msg/{name}"), raising=False)
        header = {"header": own.header}
        node = SimpleNamespace(
            observation=SimpleNamespace(size=node.observation.size, **header), result=node.result
        )
        expected = [TYPES.data(message) for message in outputs._detections(node)]
    assert [TYPES.data(each) for each in offline("detections").make(TYPES, own)] == expected


def filled(name):
    """Return a constructor of messages in which each field has ROS's default value."""

    def make(**fields):
        defaults = {}
        for field, (kind, detail) in TYPES.store.fielddefs[name][1]:
            if kind == 1:
                defaults[field] = {"string": ""}.get(detail[0], 0.0)
            elif kind == 2:
                defaults[field] = filled(detail)()
            else:
                defaults[field] = np.zeros(detail[1]) if detail[1] else []
        if name == "geometry_msgs/msg/Quaternion":
            defaults["w"] = 1.0
        return TYPES.new(name, **(defaults | fields))

    return make


def test_the_topics_are_the_nodes():
    types = {output.topic: output.type for output in outputs.OUTPUTS}
    for output in OUTPUTS:
        if output.topic not in ("annotations", "detections"):
            package, _, name = output.type.split("/")
            assert types[output.topic].__module__.startswith(f"{package}.msg")
            assert types[output.topic].__name__ == name


def test_the_definitions_are_those_of_kosmos_msgs():
    copies = sorted((DEFINITIONS / "kosmos_msgs" / "msg").glob("*.msg"))
    assert len(copies) == 5
    for copy in copies:
        assert copy.read_text() == (ROOT / "kosmos_msgs" / "msg" / copy.name).read_text()


@pytest.mark.parametrize("name", ["GroundedCaption", "Answer", "Event"])
def test_types_have_the_hashes_of_the_built_messages(name):
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    files = [Path(prefix, "share/kosmos_msgs/msg", f"{name}.json") for prefix in prefixes]
    built = [file for file in files if file.exists()]
    if not built:
        pytest.skip("kosmos_msgs is not built with hashes: Humble has none")
    hashes = json.loads(built[0].read_text())["type_hashes"]
    full = f"kosmos_msgs/msg/{name}"
    (expected,) = [each["hash_string"] for each in hashes if each["type_name"] == full]
    assert TYPES.store.hash_rihs01(full) == expected


def test_events_have_the_numbers_of_the_node():
    assert {kind: number for number, kind in enumerate(events.KINDS)} == conversions.EVENT_KINDS


def test_foxglove_gets_an_outline_and_a_label_for_each_box():
    caption = Caption("a cat", (Phrase("a cat", 0, 5, (Box(0.25, 0.5, 0.5, 0.75, 0.875),)),))
    _, own = pair(CameraSettings(), [caption])
    (message,) = offline("annotations").make(TYPES, own)
    (outline,), (label,) = message.points, message.texts
    assert [(point.x, point.y) for point in outline.points] == [
        (40.0, 60.0), (80.0, 60.0), (80.0, 90.0), (40.0, 90.0)
    ]  # fmt: skip
    assert outline.type == 2  # a closed line
    assert (label.text, label.position.x, label.position.y) == ("a cat 0.88", 40.0, 60.0)
    assert message.timestamp == outline.timestamp == own.header.stamp
    assert label.background_color == outline.outline_color
