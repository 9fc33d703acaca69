# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A question may name a camera of the log: its words are left out, the others stay."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kosmos_ros.memory.camera_names import NO_NAMES, split, unknown

CAMERAS = [
    "front", "rear", "front_left", "cam1", "wrist_camera", "/arm/camera/color", "left", "2",
    "table", "top-left", "red cup", "2026-05-31", "camera", "a",
    "camera_top",
]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "text", "camera"),
    [
        ("did the rear camera see a dog?", "did you see a dog?", "rear"),
        ("what does camera front show?", "what does show?", "front"),
        ("did camera 2 see 2 dogs?", "did you see 2 dogs?", "2"),
        ("dogs that the rear camera has seen", "dogs that you has seen", "rear"),
        (
            "when did the front left camera last see a cup",
            "when did you last see a cup",
            "front_left",
        ),
        ("is a dog in front of the Rear Camera", "is a dog", "rear"),
        ("a cup in the photo from the front-camera", "a cup", "front"),
        ("a cup on the left of the rear camera's image", "a cup on the left of the image", "rear"),
        ("a cup on the left in the rear camera's image", "a cup on the left", "rear"),
        ("did cam1 see a cup?", "did you see a cup?", "cam1"),
        ("a cup on camera 1", "a cup", "cam1"),
        ("a cup from FRONT_LEFT", "a cup", "front_left"),
        ("what did my wrist camera see?", "what did you see?", "wrist_camera"),
        ("a cup in the arm camera color camera", "a cup", "/arm/camera/color"),
        ("a dog on camera table", "a dog", "table"),
        ("the red cup camera", "", "red cup"),
        ("a dog on camera rear today", "a dog today", "rear"),
        ("does camera rear still see a dog", "does you still see a dog", "rear"),
        ("a dog on camera 2 and a cup", "a dog and a cup", "2"),
        ("what did camera left see?", "what did you see?", "left"),
        ("a dog on camera left", "a dog", "left"),
        ("what did camera top see?", "what did you see?", "camera_top"),
        ("did the top camera see a dog", "did you see a dog", "camera_top"),
        ("at the top of the rear camera", "at the top of the image", "rear"),
    ],
)
def test_a_camera_is_named_in_many_ways(question, text, camera):
    assert split(question, CAMERAS) == (text, [camera])


@pytest.mark.parametrize(
    "question",
    ["which camera saw a dog?", "the  camera", "a cup in front", "the rear of a car", "cam 1",
     "2 cups", "2 dogs and 1 cat", "at 2 pm", "the front left wheel", "left of the cup", "red cup",
     "a cup on 2026-05-31", "the cup at the top left", "is a camera left on the table?",
     "a person with a camera left of a dog", "a camera table", "where is my camera?",
     "did you see 2 cameras?", "who left cameras on the table?", "is there a camera left?",
     "a dog near a front camera", ""],
)  # fmt: skip
def test_a_question_that_names_no_camera_stays_as_it_is(question):
    assert split(question, CAMERAS) == (question, [])


@pytest.mark.parametrize(
    "question",
    ["a cup on the front cam and the rear camera, front camera", "the front and rear cameras",
     "the front, the rear camera", "did the front & rear cameras see a dog?"],
)  # fmt: skip
def test_two_cameras_are_both_returned(question):
    assert split(question, CAMERAS)[1] == ["front", "rear"]


def test_of_names_with_the_same_words_the_same_spelling_is_meant_or_all():
    names = ["a_b", "a-b", "A_B"]
    assert split("a dog on the a-b camera", names)[1] == ["a-b"]
    assert split("a dog on the a b camera", names)[1] == ["A_B", "a-b", "a_b"]


def test_a_camera_without_a_name_cannot_be_named():
    assert split("the rear camera", [""]) == ("the rear camera", [])


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("what did the kitchen camera see?", "kitchen"),
        ("has the left side camera ever seen a dog", "left side"),
        ("what did the camera see?", None),
        ("a man with a security camera", None),
        ("where is the security camera?", None),
        ("where was the security camera last seen?", None),
        ("did the other camera see a dog", None),
        ("what did the man with camera see?", None),
    ],
)
def test_a_camera_that_the_log_does_not_have_is_found(question, name):
    assert unknown(question, CAMERAS) == name
    assert unknown(question, [""]) is None


def test_a_long_list_of_names_takes_no_long_time():
    names = ["front", "left", "front_left", "cats", "dogs", "cats and dogs"]
    for words in ("front, left, ", "cats and dogs and "):  # would not end in exponential time
        assert split(words * 60 + "x", names) == (words * 60 + "x", [])


@given(st.lists(st.text(max_size=8)), st.text(max_size=30))
def test_any_name_and_question_is_accepted(names, rest):
    text, found = split(rest, names)
    assert set(found) <= set(names)
    assert found or text == rest


@given(st.from_regex(r"[b-z]{2,8}([_ -][b-z]{2,8})?", fullmatch=True))
def test_any_name_is_found_before_the_word_camera(name):
    assume(name not in NO_NAMES)
    text, found = split(f"a cup on the {name} camera", [name])
    assert (text, found) == ("a cup", [name])
