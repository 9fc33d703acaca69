# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Requests and goals, checked: their prompts, their responses and the errors of bad ones."""

import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("kosmos_msgs", reason="kosmos_msgs is not built: run scripts/setup")

from builtin_interfaces.msg import Duration, Time
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from kosmos_ros.errors import PromptError, RegionError, RequestError
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.ros import requests
from kosmos_ros.ros.requests import GOAL_TASKS
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.work import Observation

SETTINGS = CameraSettings(min_score=0.5)

# Two regions and their tags in an image of 640 x 480 pixels.
REGION = BoundingBox(x_min=250.0, y_min=22.5, x_max=630.0, y_max=397.5)
OTHER = BoundingBox(x_min=110.0, y_min=7.5, x_max=310.0, y_max=427.5)
HERE = "<patch_index_0044><patch_index_0863>"
THERE = "<patch_index_0005><patch_index_0911>"
SMALL = BoundingBox(x_min=0.0, y_min=0.0, x_max=1.0, y_max=1.0)
INVERTED = BoundingBox(x_min=9.0, y_min=0.0, x_max=8.0, y_max=1.0)
EMPTY = BoundingBox(x_min=9.0, y_min=0.0, x_max=9.0, y_max=1.0)
INFINITE = BoundingBox(x_min=0.0, y_min=0.0, x_max=math.inf, y_max=1.0)

BRIEF = "<grounding> An image of"
DETAILED = "<grounding> Describe this image in detail:"
MAN = "<grounding><phrase> a man</phrase>"
DOG = "<grounding><phrase> a dog</phrase>"
IT_IS = f"<grounding><phrase> It</phrase><object>{HERE}</object> is"
WHAT = "<grounding> Question: What is it? Answer:"
WHAT_IS_THERE = (
    f"<grounding> Question: What is<phrase> it</phrase><object>{HERE}</object>? Answer:"
)
HISTORY = ["Who?", "A man"]
EARLIER = "<grounding> Question: Who? Answer: A man "
BOX = Box(0.25, 0.5, 0.75, 1.0, score=0.5)


def texts(checked, width=640, height=480):
    return [prompt.text for prompt in checked.prompts(width, height)]


def message(observation, prompt, caption):
    """Return a message with nothing but the texts and the phrases."""
    found = [len(phrase.boxes) for phrase in caption.phrases]
    return GroundedCaption(
        header=observation.header, prompt=prompt.text, caption=caption.text, raw_text=str(found)
    )


def reply(checked, *captions):
    """Return the response to a checked request whose prompts have these answers."""
    asked = tuple(checked.prompts(640, 480))
    header = Header(frame_id="lens")
    image = np.zeros((480, 640, 3), np.uint8)
    observation = Observation("front", header, image, asked, 0, captions)
    return checked.reply(observation, message)


def seen(phrase, *boxes, text=None):
    found = Phrase(phrase, 0, len(phrase), boxes)
    return Caption(phrase if text is None else text, (found,))


def refused(function, request, kind=RequestError):
    """Return the text of the error of a request."""
    with pytest.raises(kind) as raised:
        function(request, SETTINGS)
    return str(raised.value)


def goal(task, **fields):
    return GenerateAction.Goal(task=task, **{"grounded": True, **fields})


def checked_goal(task, **fields):
    return requests.goal(goal(task, **fields), SETTINGS)


# Fields that all requests share ------------------------------------------------------------------

ALL_REQUESTS = [Ask.Request, Ground.Request, Describe.Request, Generate.Request]
ALL_REQUESTS += [GenerateAction.Goal]


@pytest.mark.parametrize("kind", ALL_REQUESTS)
def test_a_request_without_limits_is_good(kind):
    requests.check(kind())


@pytest.mark.parametrize("kind", ALL_REQUESTS)
@pytest.mark.parametrize("tokens", [1, 1024])
def test_each_number_of_tokens_in_the_range_is_good(kind, tokens):
    requests.check(kind(max_new_tokens=tokens))


@pytest.mark.parametrize("kind", ALL_REQUESTS)
@pytest.mark.parametrize("tokens", [1025, 2**32 - 1])
def test_more_tokens_than_the_parameter_allows_are_refused(kind, tokens):
    with pytest.raises(RequestError) as raised:
        requests.check(kind(max_new_tokens=tokens))
    assert str(raised.value).endswith(f"max_new_tokens must be 1 to 1024, got {tokens}")


@pytest.mark.parametrize("kind", ALL_REQUESTS)
@pytest.mark.parametrize("age", [Duration(), Duration(nanosec=1), Duration(sec=2**31 - 1)])
def test_an_age_of_zero_or_more_is_good(kind, age):
    requests.check(kind(max_age=age))


@pytest.mark.parametrize("kind", ALL_REQUESTS)
@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (Duration(sec=-1, nanosec=500_000_000), "-0.5"),
        (Duration(sec=-1, nanosec=999_999_999), "-1e-09"),
        (Duration(sec=-3), "-3"),
    ],
)
def test_a_negative_age_is_refused(kind, age, shown):
    with pytest.raises(RequestError) as raised:
        requests.check(kind(max_age=age))
    assert str(raised.value) == f"max_age is {shown} s; it must be 0 or more"


RAW, JPEG = Image(width=2, height=1), CompressedImage(data=b"\xff\xd8\xff")


@pytest.mark.parametrize("kind", ALL_REQUESTS)
@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, None),
        ({"image": RAW}, RAW),
        ({"image": Image(data=b"1")}, Image(data=b"1")),
        ({"compressed_image": JPEG}, JPEG),
        # The decoder refuses it; a frame of a camera would be another image.
        ({"compressed_image": CompressedImage(format="jpeg")}, CompressedImage(format="jpeg")),
        ({"image": Image(encoding="rgb8")}, Image(encoding="rgb8")),
    ],
)
def test_a_request_has_its_own_image_or_uses_a_frame(kind, fields, own):
    request = kind(**fields)
    requests.check(request)
    assert requests.own_image(request) == own


@pytest.mark.parametrize("kind", ALL_REQUESTS)
def test_a_request_with_two_images_is_refused(kind):
    with pytest.raises(RequestError) as raised:
        requests.check(kind(image=RAW, compressed_image=JPEG))
    assert str(raised.value) == (
        "image and compressed_image must not both be set; leave one of them empty"
    )


STAMP = Time(sec=-1, nanosec=5)


@pytest.mark.parametrize("kind", ALL_REQUESTS)
def test_a_request_may_name_a_frame_by_its_stamp(kind):
    requests.check(kind(stamp=STAMP, camera="left"))
    assert requests.stamp(kind(stamp=STAMP)) == (-1, 5)
    assert requests.stamp(kind(stamp=Time(nanosec=1))) == (0, 1)
    assert requests.stamp(kind()) is None


@pytest.mark.parametrize("kind", ALL_REQUESTS)
@pytest.mark.parametrize("image", [{"image": RAW}, {"compressed_image": JPEG}])
def test_a_request_with_a_stamp_and_an_image_is_refused(kind, image):
    with pytest.raises(RequestError) as raised:
        requests.check(kind(stamp=STAMP, **image))
    assert str(raised.value) == (
        "stamp names a frame of a camera, but the request has an image of its own; "
        "leave one of them empty"
    )


@pytest.mark.parametrize("kind", ALL_REQUESTS)
def test_a_request_with_a_stamp_and_an_age_is_refused(kind):
    with pytest.raises(RequestError) as raised:
        requests.check(kind(stamp=STAMP, max_age=Duration(nanosec=500_000_000)))
    assert str(raised.value) == (
        "max_age is 0.5 s, but stamp names a frame of any age; leave one of them 0"
    )


LISTS = [
    (Ask, "history"),
    (Ask, "regions"),
    (Ask, "region_phrases"),
    (Ground, "phrases"),
    (Describe, "regions"),
]
LISTS = [(kind.Request, name) for kind, name in LISTS]
LISTS += [
    (GenerateAction.Goal, name) for name in ("phrases", "history", "regions", "region_phrases")
]


@pytest.mark.parametrize(("kind", "name"), LISTS)
def test_each_list_may_have_a_hundred_entries(kind, name):
    entry = SMALL if name == "regions" else "a"
    requests.check(kind(**{name: [entry] * 100}))
    with pytest.raises(RequestError) as raised:
        requests.check(kind(**{name: [entry] * 101}))
    assert str(raised.value) == f"{name} has 101 entries; it must have at most 100"


@pytest.mark.parametrize("kind", [Ask.Request, Describe.Request, GenerateAction.Goal])
@pytest.mark.parametrize("region", [INVERTED, EMPTY, INFINITE])
def test_a_region_that_no_image_has_is_refused_before_an_image_comes(kind, region):
    with pytest.raises(RegionError, match="region"):
        requests.check(kind(regions=[SMALL, region]))


def test_a_checked_request_cannot_be_altered():
    with pytest.raises(dataclasses.FrozenInstanceError):
        requests.generate(Generate.Request(prompt="Two"), SETTINGS).reply = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOAL_TASKS["prompt"].fields = ()


# ~/ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, WHAT),
        ({"grounded": False}, "Question: What is it? Answer:"),
        ({"history": HISTORY}, f"{EARLIER}Question: What is it? Answer:"),
        ({"regions": [REGION]}, WHAT_IS_THERE),
        (
            {"regions": [REGION], "region_phrases": ["What"]},
            f"<grounding> Question:<phrase> What</phrase><object>{HERE}</object> is it? Answer:",
        ),
        (
            {"regions": [REGION, OTHER], "region_phrases": ["it", "What"]},
            f"<grounding> Question:<phrase> What</phrase><object>{THERE}</object> is"
            f"<phrase> it</phrase><object>{HERE}</object>? Answer:",
        ),
        (
            {"regions": [REGION, OTHER]},
            "<grounding> Question: What is<phrase> it</phrase>"
            f"<object>{HERE}</delimiter_of_multi_objects/>{THERE}</object>? Answer:",
        ),
    ],
)
def test_a_question_has_one_prompt(fields, expected):
    fields = {"grounded": True, **fields}
    asked = requests.ask(Ask.Request(question="What is it?", **fields), SETTINGS)
    assert texts(asked) == [expected]
    assert texts(checked_goal("question", text="What is it?", **fields)) == [expected]
    (prompt,) = asked.prompts(640, 480)
    assert prompt.task == "question"


def test_the_cells_of_a_region_depend_on_the_size_of_the_image():
    asked = requests.ask(Ask.Request(question="What is it?", regions=[REGION]), SETTINGS)
    assert HERE in texts(asked, 640, 480)[0]
    assert "<patch_index_0006><patch_index_0431>" in texts(asked, 1280, 960)[0]
    assert "<patch_index_0012><patch_index_0447>" in texts(asked, 640, 960)[0]


def test_a_region_outside_the_image_is_refused_when_the_image_has_come():
    asked = requests.ask(Ask.Request(question="What is it?", regions=[REGION]), SETTINGS)
    with pytest.raises(RegionError, match="region"):
        asked.prompts(250, 480)
    assert asked.prompts(251, 480)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"question": ""}, "question"),
        ({"question": "a <phrase>"}, "question"),
        ({"question": "What?", "history": ["Who?"]}, "history"),
        ({"question": "What?", "history": ["Who?", ""]}, "history"),
        ({"question": "What?", "regions": [REGION]}, "region phrases"),
        ({"question": "What?", "regions": [REGION], "region_phrases": ["a", "b"]}, "region"),
        ({"question": "What?", "regions": [REGION], "region_phrases": ["dog"]}, "region phrase"),
        ({"question": "What?", "region_phrases": ["What"]}, "region_phrases"),
    ],
)
def test_a_bad_question_is_refused_before_an_image_comes(fields, named):
    assert named in refused(requests.ask, Ask.Request(**fields), PromptError)
    fields = dict(fields)
    bad = goal("question", text=fields.pop("question"), **fields)
    assert named in refused(requests.goal, bad, PromptError)


def test_the_response_to_a_question_has_the_answer_and_the_whole_output():
    asked = requests.ask(Ask.Request(question="What is it?", grounded=True), SETTINGS)
    response = reply(asked, Caption("A dog"))
    assert isinstance(response, Ask.Response)
    assert (response.success, response.message, response.answer) == (True, "", "A dog")
    assert (response.result.caption, response.result.prompt) == ("A dog", WHAT)
    assert response.result.header.frame_id == "lens"


# ~/ground ----------------------------------------------------------------------------------------


def ground(**fields):
    return requests.ground(Ground.Request(**fields), SETTINGS)


def grounding_goal(**fields):
    return checked_goal("phrase_grounding", **fields)


both = pytest.mark.parametrize("make", [ground, grounding_goal])


@both
def test_each_phrase_has_a_prompt(make):
    asked = make(phrases=["a man", " a  dog "])
    assert texts(asked) == [MAN, DOG]
    assert {prompt.task for prompt in asked.prompts(1, 1)} == {"phrase_grounding"}


@both
def test_the_response_has_the_phrases_in_their_order(make):
    asked = make(phrases=["a man", " a  dog "])
    response = reply(asked, seen("a man", BOX, text="a man in snow"), seen("a dog"))
    assert (response.success, response.message) == (True, "")
    assert response.result.caption == "a man"
    assert response.result.prompt == f"{MAN}\n{DOG}"
    assert response.result.raw_text == "[1, 0]"
    kind = Ground.Response if make is ground else GenerateAction.Result
    assert isinstance(response, kind)


@both
@pytest.mark.parametrize(
    ("asked", "boxes"),
    [(0.0, [0, 1]), (0.25, [1, 1]), (0.3, [0, 1]), (0.5, [0, 1]), (0.501, [0, 0]), (1.0, [0, 0])],
)
def test_boxes_under_the_least_score_are_left_out(make, asked, boxes):
    """0 stands for the parameter's value, 0.5."""
    request = make(phrases=["a man", "a dog"], min_score=asked)
    low = Box(0.25, 0.5, 0.75, 1.0, score=0.25)
    response = reply(request, seen("a man", low), seen("a dog", BOX))
    assert response.result.raw_text == str(boxes)


@pytest.mark.parametrize("score", [-0.001, 1.001, math.nan, math.inf])
def test_a_score_out_of_range_is_refused(score):
    fields = {"phrases": ["a man"], "min_score": score}
    error = f"min_score must be 0 to 1, got {score}"
    assert refused(requests.ground, Ground.Request(**fields)).endswith(error)
    assert refused(requests.goal, goal("phrase_grounding", **fields)).endswith(error)


def test_a_request_without_phrases_is_refused():
    error = "phrases is empty; it must have at least one phrase"
    assert refused(requests.ground, Ground.Request()) == error
    assert refused(requests.goal, goal("phrase_grounding")) == error


@pytest.mark.parametrize("phrase", ["", " ", "a <s>", "a\x00b", "x" * 1001])
def test_a_bad_phrase_is_refused(phrase):
    fields = {"phrases": ["a man", phrase]}
    for function, bad in (
        (requests.ground, Ground.Request(**fields)),
        (requests.goal, goal("phrase_grounding", **fields)),
    ):
        assert refused(function, bad, PromptError).startswith("phrase ")


# ~/describe --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "task", "expected"),
    [
        ({"grounded": True}, "brief_caption", [BRIEF]),
        ({"grounded": False}, "brief_caption", ["An image of"]),
        ({"grounded": True, "detailed": True}, "detailed_caption", [DETAILED]),
        ({"detailed": True}, "detailed_caption", ["Describe this image in detail:"]),
        ({"grounded": True, "regions": [REGION]}, "region_description", [IT_IS]),
        (
            {"regions": [REGION]},
            "region_description",
            [f"<phrase> It</phrase><object>{HERE}</object> is"],
        ),
        (
            {"grounded": True, "regions": [OTHER, REGION, REGION]},
            "region_description",
            [IT_IS.replace(HERE, THERE), IT_IS, IT_IS],
        ),
    ],
)
def test_the_image_or_each_region_has_a_prompt(fields, task, expected):
    asked = requests.describe(Describe.Request(**fields), SETTINGS)
    assert texts(asked) == expected
    assert {prompt.task for prompt in asked.prompts(640, 480)} == {task}


def test_regions_cannot_be_described_in_detail():
    request = Describe.Request(regions=[REGION], detailed=True)
    assert refused(requests.describe, request) == (
        "detailed must be false if regions are given; it describes the whole image only"
    )


def test_the_response_describes_each_region_in_its_order():
    asked = requests.describe(Describe.Request(grounded=True, regions=[REGION, OTHER]), SETTINGS)
    response = reply(asked, Caption("It is a dog"), Caption("It is a man"))
    assert isinstance(response, Describe.Response)
    assert (response.success, response.message) == (True, "")
    assert response.descriptions == ["It is a dog", "It is a man"]
    assert [result.caption for result in response.results] == response.descriptions
    assert [result.prompt for result in response.results] == texts(asked)


def test_another_number_of_answers_than_regions_is_a_bug():
    asked = requests.describe(Describe.Request(regions=[REGION, OTHER]), SETTINGS)
    with pytest.raises(ValueError):
        reply(asked, Caption("It is a dog"))


# ~/generate --------------------------------------------------------------------------------------


def generate(text):
    return requests.generate(Generate.Request(prompt=text), SETTINGS)


def prompt_goal(text):
    return checked_goal("prompt", text=text)


@pytest.mark.parametrize("make", [generate, prompt_goal])
@pytest.mark.parametrize("text", ["Two", f"{MAN}<object>", " <grounding> a  b ", "x" * 10_000])
def test_a_prompt_is_taken_without_outer_spaces(make, text):
    asked = make(text)
    assert texts(asked) == [text.strip()]
    assert asked.prompts(1, 1)[0].task == "prompt"


@pytest.mark.parametrize("text", ["", " \n", "a </s>", "a\x07", "x" * 61441])
def test_a_bad_prompt_is_refused(text):
    assert "prompt" in refused(requests.generate, Generate.Request(prompt=text), PromptError)
    assert "prompt" in refused(requests.goal, goal("prompt", text=text), PromptError)


@pytest.mark.parametrize("kind", [Generate.Request, GenerateAction.Goal])
def test_regions_and_stop_of_a_prompt_are_its_boxes_and_its_end(kind):
    text = "<phrase> a</phrase><object></object> and<phrase> b</phrase> <object></object> of"
    fields = {"regions": [REGION, OTHER], "stop": "</object>"}
    asked = (
        requests.generate(kind(prompt=text, **fields), SETTINGS)
        if kind is Generate.Request
        else checked_goal("prompt", text=text, **fields)
    )
    (prompt,) = asked.prompts(640, 480)
    assert prompt.stop == "</object>"
    assert prompt.text == (
        f"<phrase> a</phrase><object>{HERE}</object> and<phrase> b</phrase>"
        f"<object>{THERE}</object> of"
    )
    with pytest.raises(RegionError, match="is outside the image"):
        asked.prompts(100, 20)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": "It<object></object> is"}, "each of 0 regions, got 1"),
        ({"prompt": "It is", "regions": [REGION]}, "each of 1 regions, got 0"),
        ({"prompt": "It is", "stop": "</object> and"}, "stop '</object> and' must be one tag"),
        ({"prompt": "It is", "stop": "</s>"}, "stop '</s>' contains the reserved tag </s>"),
    ],
)
def test_regions_and_stop_that_do_not_fit_the_prompt_are_refused(fields, reason):
    assert reason in refused(requests.generate, Generate.Request(**fields), PromptError)
    text = fields.pop("prompt")
    assert reason in refused(requests.goal, goal("prompt", text=text, **fields), PromptError)


def test_the_response_to_a_prompt_has_the_text_and_the_whole_output():
    response = reply(generate("Two"), Caption("dogs"))
    assert isinstance(response, Generate.Response)
    assert (response.success, response.message, response.text) == (True, "", "dogs")
    assert (response.result.caption, response.result.prompt) == ("dogs", "Two")


# ~/generate_stream -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "fields", "expected"),
    [
        ("brief_caption", {}, BRIEF),
        ("brief_caption", {"grounded": False}, "An image of"),
        ("detailed_caption", {}, DETAILED),
        ("detailed_caption", {"grounded": False}, "Describe this image in detail:"),
        ("region_description", {"regions": [REGION]}, IT_IS),
        (
            "region_description",
            {"regions": [REGION], "grounded": False},
            f"<phrase> It</phrase><object>{HERE}</object> is",
        ),
        ("question", {"text": "What is it?"}, WHAT),
        ("prompt", {"text": "Two"}, "Two"),
    ],
)
def test_each_task_of_a_goal_has_one_prompt_and_its_answer_is_the_result(task, fields, expected):
    asked = checked_goal(task, **fields)
    assert texts(asked) == [expected]
    (prompt,) = asked.prompts(640, 480)
    assert prompt.task == task
    result = reply(asked, Caption("snow"))
    assert isinstance(result, GenerateAction.Result)
    assert (result.success, result.message) == (True, "")
    assert (result.result.caption, result.result.prompt) == ("snow", expected)


@pytest.mark.parametrize(("regions", "count"), [([], 0), ([REGION, OTHER], 2)])
def test_a_goal_describes_exactly_one_region(regions, count):
    assert refused(requests.goal, goal("region_description", regions=regions)) == (
        f"regions must have exactly one entry for task region_description, got {count}; "
        "send one goal for each region"
    )


TASKS = "brief_caption, detailed_caption, phrase_grounding, region_description, question, prompt"


@pytest.mark.parametrize("task", ["", "caption", "Question"])
def test_an_unknown_task_is_refused(task):
    error = f"task {task!r} is unknown; it must be one of {TASKS}"
    assert refused(requests.goal, goal(task)) == error


def test_the_task_of_an_error_is_short():
    assert len(refused(requests.goal, goal("x" * 10_000))) < 250


VALUES = {
    "text": "What is it?",
    "phrases": ["a man"],
    "history": HISTORY,
    "regions": [REGION],
    "region_phrases": ["it"],
    "stop": "</object>",
}
USERS = {  # the tasks that have each field
    "text": ["question", "prompt"],
    "phrases": ["phrase_grounding"],
    "history": ["question"],
    "regions": ["region_description", "question", "prompt"],
    "region_phrases": ["question"],
    "stop": ["prompt"],
}


@pytest.mark.parametrize("task", GOAL_TASKS)
@pytest.mark.parametrize("name", VALUES)
def test_a_field_of_other_tasks_must_be_empty(task, name):
    own = {field: VALUES[field] for field in VALUES if task in USERS[field]}
    if task == "prompt":
        own["text"] = "It<object></object> is"
    if task in USERS[name]:
        assert texts(checked_goal(task, **own))
    else:
        bad = goal(task, **own, **{name: VALUES[name]})
        others = " and ".join(USERS[name])
        assert refused(requests.goal, bad) == (
            f"{name} must be empty for task '{task}'; only {others} can have it"
        )


@pytest.mark.parametrize("task", sorted(GOAL_TASKS))
def test_a_goal_may_have_a_min_score_only_if_its_task_uses_it(task):
    goal = GenerateAction.Goal(
        task=task,
        min_score=0.5,
        phrases=["a dog"] if task == "phrase_grounding" else [],
        regions=[REGION] if task == "region_description" else [],
        text="What?" if task in ("question", "prompt") else "",
    )
    if task == "phrase_grounding":
        requests.goal(goal, SETTINGS)
        return
    with pytest.raises(RequestError) as raised:
        requests.goal(goal, SETTINGS)
    assert str(raised.value) == (
        f"min_score must be 0 for task '{task}'; only phrase_grounding can have it"
    )
