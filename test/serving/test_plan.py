# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The prompts for a frame, and the findings that their answers make combined."""

import pytest

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.serving.events import Change, Event
from kosmos_ros.serving.node_settings import FRAME_TASKS, CameraSettings
from kosmos_ros.serving.plan import STANDING, TASK, Finding, Plan

BRIEF = "<grounding> An image of"
MAN = "<grounding><phrase> a man</phrase>"
DOG = "<grounding><phrase> a dog</phrase>"
SNOW = "<grounding> Question: Is there snow? Answer:"
WHERE = "<grounding> Question: Where is it? Answer:"

BOX = Box(0.25, 0.5, 0.75, 1.0, score=0.5)
ALL = ("phrases", "questions", TASK)
LISTS = {"phrases": ("a man", "a dog"), "questions": ("Is there snow?", "Where is it?")}

standing = {each.name: each for each in STANDING}


def plan(*parts, **settings):
    return Plan(CameraSettings(**settings), parts)


def texts(made):
    return [prompt.text for prompt in made.prompts]


def seen(phrase, *boxes):
    """Return the answer to the prompt of a phrase."""
    found = Phrase(phrase, 0, len(phrase), boxes)
    return Caption(phrase, (found,), f"raw {phrase}", score=0.5, generated_tokens=4)


# Prompts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [BRIEF]),
        ({"grounded": False}, ["An image of"]),
        ({"task": "detailed_caption"}, ["<grounding> Describe this image in detail:"]),
        ({"task": "detailed_caption", "grounded": False}, ["Describe this image in detail:"]),
        ({"task": "phrase_grounding"}, [MAN, DOG]),
        ({"task": "phrase_grounding", "grounded": False}, [MAN, DOG]),
        ({"task": "question"}, [SNOW, WHERE]),
        (
            {"task": "question", "grounded": False},
            ["Question: Is there snow? Answer:", "Question: Where is it? Answer:"],
        ),
        ({"task": "prompt", "prompt": "<grounding> Two"}, ["<grounding> Two"]),
        ({"task": "prompt", "prompt": "Two", "grounded": True}, ["Two"]),
    ],
)
def test_each_task_has_its_prompts(settings, expected):
    made = plan(TASK, **{**LISTS, **settings})
    assert texts(made) == expected
    assert {prompt.task for prompt in made.prompts} == {settings.get("task", "brief_caption")}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), []),
        ((TASK,), [BRIEF]),
        (("phrases",), [MAN, DOG]),
        (("questions",), [SNOW, WHERE]),
        (("questions", "phrases"), [MAN, DOG, SNOW, WHERE]),
        (("phrases", TASK), [BRIEF, MAN, DOG]),
        (ALL, [BRIEF, MAN, DOG, SNOW, WHERE]),
    ],
)
def test_each_part_adds_its_prompts_in_a_fixed_order(parts, expected):
    assert texts(plan(*parts, **LISTS)) == expected


@pytest.mark.parametrize(
    ("task", "parts", "expected"),
    [
        ("phrase_grounding", ("phrases", TASK), [MAN, DOG]),
        ("phrase_grounding", ALL, [MAN, DOG, SNOW, WHERE]),
        ("question", ("questions", TASK), [SNOW, WHERE]),
        ("question", ALL, [MAN, DOG, SNOW, WHERE]),
        ("question", ("phrases",), [MAN, DOG]),
        ("prompt", ALL, ["Two", MAN, DOG, SNOW, WHERE]),
    ],
)
def test_a_standing_question_that_is_the_task_is_asked_once(task, parts, expected):
    assert texts(plan(*parts, task=task, prompt="Two", **LISTS)) == expected


def test_equal_subjects_are_asked_once():
    made = plan(*ALL, phrases=("a dog", "a man", "a dog"), questions=("Is there snow?",) * 2)
    assert texts(made) == [BRIEF, DOG, MAN, SNOW]
    assert standing["phrases"].subjects(made.settings) == ("a dog", "a man")
    assert [(each.name, subjects) for each, subjects in made.queries] == [
        ("phrases", ("a dog", "a man")),
        ("questions", ("Is there snow?",)),
    ]


def test_empty_lists_ask_nothing():
    assert texts(plan(*ALL)) == [BRIEF]
    assert texts(plan("phrases", "questions")) == []
    assert plan("phrases", "questions").queries == []
    assert texts(plan("phrases", "questions", questions=("Is there snow?",))) == [SNOW]


@pytest.mark.parametrize(
    ("task", "parameter"),
    [("phrase_grounding", "phrases"), ("question", "questions"), ("prompt", "prompt")],
)
def test_a_task_without_its_parameter_is_an_error(task, parameter):
    made = plan(*ALL, task=task)
    with pytest.raises(ConfigError) as raised:
        made.prompts  # noqa: B018
    assert str(raised.value) == (
        f"parameter task is {task}, but parameter {parameter} is empty; set {parameter} before "
        "task, or choose another task first"
    )
    assert plan("phrases", "questions", task=task).prompts == []


def test_every_task_of_the_parameter_can_be_asked():
    for task in FRAME_TASKS:
        assert plan(TASK, task=task, prompt="Two", **LISTS).prompts


# Results of a frame -----------------------------------------------------------------------------


def test_answers_are_sorted_by_the_part_that_they_belong_to():
    made = plan(*ALL, **LISTS)
    caption, yes, no = Caption("An image of snow"), Caption("Yes"), Caption("Here")
    result = made.read([caption, seen("a man", BOX), seen("a dog"), yes, no])
    brief, _, _, snow, where = made.prompts
    assert result.task == ((brief, caption),)
    assert result.captions["questions"] == ((snow, yes), (where, no))
    assert result.findings["questions"] == (
        Finding("Is there snow?", "Yes"),
        Finding("Where is it?", "Here"),
    )
    ((joined, combined),) = result.captions["phrases"]
    assert (joined.task, joined.text) == ("phrase_grounding", f"{MAN}\n{DOG}")
    assert (combined.text, combined.raw_text) == ("a man", "raw a man\nraw a dog")
    man, dog = Phrase("a man", 0, 5, (BOX,)), Phrase("a dog", 0, 0, ())
    assert combined.phrases == (man, dog)
    assert result.findings["phrases"] == (
        Finding("a man", True, (man,)),
        Finding("a dog", False, (dog,)),
    )


@pytest.mark.parametrize(("min_score", "found"), [(0.0, True), (0.5, True), (0.5001, False)])
def test_a_phrase_is_in_view_if_a_box_has_at_least_min_score(min_score, found):
    made = plan("phrases", phrases=("a man",), min_score=min_score)
    result = made.read([seen("a man", BOX)])
    phrase = Phrase("a man", 0, 5, (BOX,)) if found else Phrase("a man", 0, 0, ())
    assert result.findings["phrases"] == (Finding("a man", found, (phrase,)),)
    assert result.task == ()


@pytest.mark.parametrize(
    ("task", "name"), [("phrase_grounding", "phrases"), ("question", "questions")]
)
def test_a_standing_question_that_is_the_task_is_the_caption(task, name):
    made = plan(TASK, task=task, **LISTS)
    result = made.read([seen("a man"), seen("a dog")])
    assert result.task == result.captions[name]
    assert list(result.captions) == list(result.findings) == [name]


def test_a_standing_question_that_is_not_the_task_is_no_caption():
    result = plan("questions", task="question", **LISTS).read([Caption("Yes"), Caption("No")])
    assert result.task == ()
    result = plan("phrases", "questions", TASK, task="question", **LISTS).read(
        [seen("a man"), seen("a dog"), Caption("Yes"), Caption("No")]
    )
    assert [caption.text for _, caption in result.task] == ["Yes", "No"]


def test_a_plan_without_standing_questions_finds_only_the_caption():
    made = plan(TASK)
    result = made.read([Caption("snow")])
    assert result.task == ((made.prompts[0], Caption("snow")),)
    assert (result.captions, result.findings) == ({}, {})


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_answers_than_prompts_is_a_bug(count):
    with pytest.raises(ValueError):
        plan(TASK).read([Caption("snow")] * count)


# Events ------------------------------------------------------------------------------------------


def test_a_phrase_appears_with_its_boxes_and_disappears_without():
    man = Phrase("a man", 0, 5, (BOX,))
    event = standing["phrases"].event
    assert event(Change(False, True, "then"), Finding("a man", True, (man,))) == Event(
        "appeared", "a man", "then", (man,)
    )
    lost = Phrase("a man", 0, 5, ())
    assert event(Change(True, False, "now"), Finding("a man", False, (lost,))) == Event(
        "disappeared", "a man", "now", ()
    )


def test_another_answer_is_an_event_with_both_answers():
    event = standing["questions"].event(Change("No", "Yes", "then"), Finding("Snow?", "Yes"))
    assert event == Event("answered", "Snow?", "then", (), answer="Yes", previous="No")


def test_at_first_no_phrase_is_in_view_and_no_question_answered():
    assert {each.name: each.first for each in STANDING} == {"phrases": False, "questions": ""}
