# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A question may name a camera of the log; its other words stay as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.memory.views import split

CAMERAS = ["front", "rear", "front_left", "cam1", "wrist_camera", "/arm/camera/color"]


@pytest.mark.parametrize(
    ("question", "text", "camera"),
    [
        ("did the rear camera see a dog?", "did see a dog?", "rear"),
        ("what does camera front show?", "what does show?", "front"),
        ("when did the front left camera last see a cup", "when did last see a cup", "front_left"),
        ("is a dog in front of the Rear Camera", "is a dog", "rear"),
        ("a cup in the image of the front camera", "a cup", "front"),
        ("a cup on the left of the rear camera's image", "a cup on the left", "rear"),
        ("did cam1 see a cup?", "did see a cup?", "cam1"),
        ("a cup from FRONT_LEFT", "a cup", "front_left"),
        ("what did my wrist camera see?", "what did see?", "wrist_camera"),
        ("a cup in the arm camera color view", "a cup", "/arm/camera/color"),
    ],
)
def test_a_camera_is_named_in_many_ways(question, text, camera):
    assert split(question, CAMERAS) == (text, [camera])


@pytest.mark.parametrize(
    "question",
    ["which camera saw a dog?", "the  camera", "a cup in front", "the rear of a car", "cam 1", ""],
)
def test_other_words_name_no_camera(question):
    assert split(question, CAMERAS) == (question, [])


def test_two_cameras_are_both_returned():
    found = split("a cup on the front cam and the rear camera, front camera", CAMERAS)[1]
    assert found == ["front", "rear"]


def test_a_log_of_the_only_camera_has_no_names():
    assert split("the rear camera", [""]) == ("the rear camera", [])


@given(st.lists(st.text(max_size=8)), st.text(max_size=30))
def test_any_names_and_questions_are_read(names, rest):
    text, found = split(rest, names)
    assert set(found) <= set(names)
    assert found or text == rest
    for name in names:
        text, found = split(f"a cup on the {name} camera", names)
        assert set(found) <= set(names)
        assert text.startswith("a cup")
