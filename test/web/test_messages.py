# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Messages of the node become JSON, and requests of the page become messages."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import Answer, BoundingBox, Event, GroundedCaption, GroundedPhrase
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    ParameterValue,
)
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from kosmos_ros.errors import RequestError
from kosmos_ros.ros.diagnostics import availability_status
from kosmos_ros.serving.availability import Availability, Phase
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import MAX_ENTRIES
from kosmos_ros.web import messages
from kosmos_ros.web.looks import ANSWER, CAPTION, PHRASES

STAMP = Time(sec=1795887698, nanosec=97056043)
HEADER = Header(stamp=STAMP, frame_id="optical")
CAT = GroundedPhrase(
    text="a cat",
    start=12,
    end=17,
    boxes=[BoundingBox(x_min=1.23456, y_min=2.0, x_max=30.0, y_max=40.0, score=0.98765)],
)
CAPTION_OF_A_CAT = GroundedCaption(
    header=HEADER,
    camera="front",
    image_width=640,
    image_height=480,
    task="brief_caption",
    caption="An image of a cat.",
    phrases=[CAT],
    score=0.5,
    generated_tokens=9,
    latency=Duration(nanosec=40_000_000),
    inference_time=Duration(nanosec=30_000_000),
    frames_dropped=7,
)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 10**9 - 1))
def test_a_stamp_is_the_same_after_a_round_trip(sec, nanosec):
    stamp = Time(sec=sec, nanosec=nanosec)
    assert messages.stamp_from(messages.stamp_text(stamp)) == stamp


@pytest.mark.parametrize(
    "text", ["", "1", "1.5", "1.0000000000", "+1.000000000", "1.00000000a", 1.5, None]
)
def test_a_text_that_is_no_stamp_is_refused(text):
    with pytest.raises(RequestError, match="stamp must be seconds, a dot and nine digits"):
        messages.stamp_from(text)


@pytest.mark.parametrize("text", ["2147483648.000000000", "-2147483649.000000000"])
def test_a_stamp_that_ros_cannot_have_is_refused(text):
    with pytest.raises(RequestError, match="stamp must be"):
        messages.stamp_from(text)


def test_a_look_has_all_parts_of_its_frame():
    absent = GroundedPhrase(text="a dog")
    standing = GroundedCaption(header=HEADER, phrases=[absent])
    answer = messages.answer_json(Answer(question="How many?", answer="one.", score=1.0))
    parts = {CAPTION: [CAPTION_OF_A_CAT], PHRASES: [standing], ANSWER: [answer]}
    look = messages.look_json("front", "1795887698.097056043", parts, "1795887698.097056043-5")
    cat = {"text": "a cat", "start": 12, "end": 17, "boxes": [[1.235, 2.0, 30.0, 40.0, 0.988]]}
    assert json.loads(json.dumps(look)) == {
        "camera": "front",
        "stamp": "1795887698.097056043",
        "time": 1795887698097.056,
        "width": 640,
        "height": 480,
        "picture": "/picture/front/1795887698.097056043-5.jpg",
        "task": "brief_caption",
        "caption": {
            "text": "An image of a cat.",
            "phrases": [cat],
            "score": 0.5,
            "tokens": 9,
            "truncated": False,
        },
        "phrases": [{"text": "a dog", "start": 0, "end": 0, "boxes": []}],
        "answers": [{"question": "How many?", "answer": "one.", "score": 1.0, "phrases": []}],
        "latency": 40.0,
    }


def test_a_look_without_a_picture_says_so():
    look = messages.look_json("", "1.000000000", {CAPTION: [CAPTION_OF_A_CAT]}, "")
    assert look["picture"] is None
    assert messages.look_json("", "1.000000000", {}, "1")["caption"] is None


@pytest.mark.parametrize(
    ("camera", "address"),
    [
        ("", "/picture/_/1.000000000.jpg"),
        ("../x?y#<b>", "/picture/..%2Fx%3Fy%23%3Cb%3E/1.000000000.jpg"),
    ],
)
def test_a_cameras_name_cannot_leave_its_place_in_an_address(camera, address):
    assert messages.picture_address(camera, "1.000000000") == address


def test_several_captions_of_a_frame_become_lines_with_their_phrases():
    second = GroundedCaption(
        caption="😀 a cat", phrases=[GroundedPhrase(text="a cat", start=2, end=7)], score=1.0
    )
    joined = messages.caption_json([CAPTION_OF_A_CAT, second, second])
    lines = joined["text"].split("\n")
    assert lines == ["An image of a cat.", "😀 a cat", "😀 a cat"]
    assert [
        joined["text"][phrase["start"] : phrase["end"]] for phrase in joined["phrases"]
    ] == ["a cat"] * 3  # fmt: skip
    assert joined["score"] == pytest.approx(2.5 / 3, abs=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_zero(value):
    box = BoundingBox(x_min=value, y_min=1.0, x_max=2.0, y_max=3.0, score=value)
    caption = GroundedCaption(phrases=[GroundedPhrase(boxes=[box])], score=value)
    found = messages.caption_json([caption])
    assert found["phrases"][0]["boxes"] == [[0.0, 1.0, 2.0, 3.0, 0.0]]
    json.dumps(found, allow_nan=False)


def test_an_event_has_its_kind_and_times():
    event = Event(
        header=HEADER, camera="front", kind=Event.ANSWERED, subject="How many?",
        answer="two.", previous="one.", since=Time(sec=1795887697),
    )  # fmt: skip
    assert messages.event_json(event) == {
        "camera": "front",
        "stamp": "1795887698.097056043",
        "time": 1795887698097.056,
        "kind": "answered",
        "subject": "How many?",
        "answer": "two.",
        "previous": "one.",
        "phrases": [],
    }
    assert messages.event_json(Event(kind=9))["kind"] == "unknown"


def test_feedback_becomes_the_wait_then_the_frame_then_the_text():
    tell = messages.feedback_json
    assert tell(Generate.Feedback(requests_ahead=2), False) == [{"waiting": 2}]
    begun = Generate.Feedback(header=HEADER, camera="front")
    frame = {
        "begun": True,
        "camera": "front",
        "stamp": "1795887698.097056043",
        "time": 1795887698097.056,
    }
    assert tell(begun, False) == [frame]
    assert tell(begun, True) == []
    text = Generate.Feedback(header=HEADER, camera="front", text="a cat", phrases=[CAT])
    assert tell(text, True) == [{"text": "a cat", "phrases": messages.phrases_json([CAT])}]
    assert tell(text, False) == [frame, *tell(text, True)]


# Requests ---------------------------------------------------------------------------------------


def test_a_question_about_a_region_of_a_past_frame_becomes_a_goal():
    goal = messages.goal_from(
        {
            "task": "question",
            "text": "What is it?",
            "camera": "front",
            "stamp": "1795887698.097056043",
            "regions": [[1, 2.5, 30, 40]],
            "region_phrases": ["it"],
            "history": ["Is it red?", "yes."],
            "phrases": [],
            "grounded": False,
        }
    )
    assert goal == Generate.Goal(
        task="question",
        text="What is it?",
        camera="front",
        stamp=STAMP,
        regions=[BoundingBox(x_min=1.0, y_min=2.5, x_max=30.0, y_max=40.0)],
        region_phrases=["it"],
        history=["Is it red?", "yes."],
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"region": [1, 2, 3, 4]},
            "a request has no field 'region'; its fields are type, id, task",
        ),
        ({"task": 1}, "task must be a text, got 1"),
        ({"text": ["a"]}, r"text must be a text, got \['a'\]"),
        ({"phrases": "a cat"}, "phrases must be a list of at most 100 entries, got 'a cat'"),
        ({"phrases": ["a"] * (MAX_ENTRIES + 1)}, "phrases must be a list of at most 100 entries"),
        ({"history": ["a", None]}, "history must be a list of texts, got None"),
        ({"regions": [[1, 2, 3]]}, r"a region must be a list of four numbers, got \[1, 2, 3\]"),
        ({"regions": [[1, 2, 3, "4"]]}, "a region must be a list of four numbers"),
        ({"regions": [[1, 2, 3, True]]}, "a region must be a list of four numbers"),
        ({"regions": [[1, 2, 3, 10**400]]}, "a region must be a list of four numbers"),
        ({"regions": [None]}, "a region must be a list of four numbers, got None"),
        ({"text": "a\0b"}, "text must not contain null characters"),
        ({"phrases": ["a", "\ud800"]}, "phrases must not contain null characters or lone surr"),
        ({"stamp": "now"}, "stamp must be seconds"),
        ({"grounded": 1}, "grounded must be true or false, got 1"),
    ],
)
def test_a_wrong_field_of_a_question_is_named(fields, message):
    with pytest.raises(RequestError, match=message):
        messages.goal_from(fields)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=5)  # also surrogates and null
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
FIELD = st.sampled_from(
    ["task", "text", "camera", "stamp", "phrases", "history", "regions", "region_phrases"]
)


@given(st.dictionaries(FIELD | st.just("grounded"), JSON))
def test_no_request_can_raise_anything_but_a_request_error(request):
    with contextlib.suppress(RequestError):
        serialize_message(messages.goal_from(request))


@given(ANY_TEXT, JSON)
def test_no_value_of_a_parameter_can_raise_anything_but_a_request_error(name, value):
    try:
        parameter = messages.parameter_from(name, value)
    except RequestError:
        return
    serialize_message(parameter)
    assert parameter.name == name
    if value is None:
        assert parameter.value.type == ParameterType.PARAMETER_NOT_SET
    else:
        assert messages.value_of(parameter.value) == (value if value == value else None)


def test_parameters_are_described_with_their_limits_and_choices():
    rate = ParameterDescriptor(
        name="front.max_rate",
        type=ParameterType.PARAMETER_DOUBLE,
        description="Rate.",
        floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1000.0)],
    )
    assert messages.description_json(rate) == {
        "type": "float",
        "default": FIELDS["max_rate"].default,
        "limits": [0.0, 1000.0],
        "choices": None,
        "description": "Rate.",
        "camera": True,
        "read_only": False,
    }
    size = ParameterDescriptor(
        name="queue_size",
        type=ParameterType.PARAMETER_INTEGER,
        integer_range=[IntegerRange(from_value=1, to_value=1000, step=1)],
    )
    assert messages.description_json(size)["limits"] == [1, 1000]
    assert messages.description_json(size)["camera"] is False
    dtype = ParameterDescriptor(
        name="dtype",
        type=ParameterType.PARAMETER_STRING,
        additional_constraints="one of auto, float32",
        read_only=True,
    )
    assert messages.description_json(dtype)["choices"] == ["auto", "float32"]
    assert messages.description_json(dtype)["read_only"] is True


def test_values_are_sorted_by_camera():
    values = {"max_rate": 1.0, "front.max_rate": 2.0, "qos_overrides./image.depth": 5}
    assert messages.values_json(values, ("front", "rear")) == {
        "": {"max_rate": 1.0, "qos_overrides./image.depth": 5},
        "front": {"max_rate": 2.0},
        "rear": {},
    }
    assert messages.values_json(values, ("",))[""]["max_rate"] == 1.0


def test_a_value_that_json_lacks_is_unknown():
    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=math.inf)
    assert messages.value_of(value) is None


# State ------------------------------------------------------------------------------------------


def status(level=DiagnosticStatus.OK, message="", **values):
    return DiagnosticStatus(
        level=level,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (Phase.READY, "ready"),
        (Phase.FAILED, "error"),
        (Phase.LOADING, "loading"),
        (Phase.INACTIVE, "inactive"),
        (Phase.UNCONFIGURED, "inactive"),
        (Phase.ENDED, "inactive"),
    ],
)
def test_the_state_follows_the_models_whatever_its_message(phase, state):
    message = "loading: ready, they say"
    info = availability_status("", Availability(phase, message), "shapes")
    assert messages.state_json(info) == {"state": state, "message": message}


def test_the_state_of_the_model_has_the_progress_of_loading():
    loading = {"phase": "downloading", "downloaded (MB)": "12.5", "download size (MB)": "300"}
    model = messages.model_json(status(DiagnosticStatus.WARN, "loading", **loading))
    assert model["loading"] == {"phase": "downloading", "done": 12.5, "total": 300.0}
    assert messages.model_json(status(message="ready"))["loading"] is None


def test_a_point_of_the_plots_has_units_that_people_read():
    camera = {
        "described rate (Hz)": "2.00",
        "image rate (Hz)": "unknown",
        "latency p50 (s)": "0.040",
        "latency p95 (s)": "0.100",
        "lost share": "0.25",
    }
    model = {"process memory (MB)": "582", "device memory (MB)": "0"}
    assert messages.sample_json(camera, model) == {
        "captions": 2.0,
        "images": 0.0,
        "p50": 40.0,
        "p95": 100.0,
        "lost": 0.25,
        "memory": 582.0,
        "device": 0.0,
    }
