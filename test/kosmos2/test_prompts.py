# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Prompts are the model card's, to the space; nothing from outside speaks in their voice."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.errors import ConfigError, PromptError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import TAG, TAGS

FIRE = (5, 911)


@pytest.mark.parametrize(
    ("prompt", "text", "lead"),
    [
        (
            prompts.caption("brief_caption"),
            "<grounding> An image of",
            "<grounding> An image of",
        ),
        (
            prompts.caption("detailed_caption"),
            "<grounding> Describe this image in detail:",
            "",
        ),
        (prompts.caption("brief_caption", grounded=False), "An image of", "An image of"),
        (
            prompts.phrase_grounding("a snowman next to a fire"),
            "<grounding><phrase> a snowman next to a fire</phrase>",
            "<grounding><phrase> a snowman next to a fire</phrase>",
        ),
        (
            prompts.region_description((44, 863)),
            "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863>"
            "</object> is",
            "It is",
        ),
        (
            prompts.question("What is special about this image?"),
            "<grounding> Question: What is special about this image? Answer:",
            "",
        ),
        (
            prompts.question("Where is the fire next to?", [FIRE], ["the fire"]),
            "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005>"
            "<patch_index_0911></object> next to? Answer:",
            "",
        ),
        (
            prompts.question("  What\tis\nit? ", [FIRE], grounded=False),
            "Question: What is<phrase> it</phrase><object><patch_index_0005><patch_index_0911>"
            "</object>? Answer:",
            "",
        ),
        (
            prompts.question("It is what?", [FIRE]),
            "<grounding> Question:<phrase> It</phrase><object><patch_index_0005>"
            "<patch_index_0911></object> is what? Answer:",
            "",
        ),
        (
            prompts.question("Are they alike?", [(0, 33), FIRE]),
            "<grounding> Question: Are<phrase> they</phrase><object><patch_index_0000>"
            "<patch_index_0033></delimiter_of_multi_objects/><patch_index_0005>"
            "<patch_index_0911></object> alike? Answer:",
            "",
        ),
        (
            prompts.question("Is the cat on the mat?", [FIRE, (0, 33)], ["the mat", "the cat"]),
            "<grounding> Question: Is<phrase> the cat</phrase><object><patch_index_0000>"
            "<patch_index_0033></object> on<phrase> the mat</phrase><object><patch_index_0005>"
            "<patch_index_0911></object>? Answer:",
            "",
        ),
    ],
)
def test_prompts_are_the_model_cards(prompt, text, lead):
    assert (prompt.text, prompt.lead) == (text, lead)


@pytest.mark.parametrize("tag", [*TAGS, "<patch_index_0044>", "<patch_index_99999>"])
@pytest.mark.fault(47)
def test_tags_in_text_from_outside_are_refused_by_name(tag):
    for make in (
        lambda: prompts.question(f"What is{tag} it?"),
        lambda: prompts.phrase_grounding(f"a {tag} cat"),
        lambda: prompts.question("What is it?", [FIRE], [f"it{tag}"]),
    ):
        with pytest.raises(PromptError, match=re.escape(tag)):
            make()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * 1_000_000, "at most 1000 characters, got 1000000"),
        ("what\x00", "U\\+0000"),
        ("what \x1b[31m", "U\\+001B"),
        ("what \ud800", "U\\+D800"),
    ],
)
@pytest.mark.fault(46)
def test_unusable_questions_are_refused(question, reason):
    with pytest.raises(PromptError, match=reason):
        prompts.question(question)


@pytest.mark.parametrize(
    ("question", "phrases", "reason"),
    [
        ("What colour?", [], "must say which words mean the region"),
        ("What is it?", ["the cat"], "'the cat' is not in question"),
        ("What item?", ["it"], "'it' is not in question"),
        ("What is it?", ["it", "is"], "one entry for each of 1 regions or none, got 2"),
        ("What is it?", [""], "empty"),
    ],
)
def test_regions_without_words_are_refused(question, phrases, reason):
    with pytest.raises(PromptError, match=reason):
        prompts.question(question, [FIRE], phrases)


def test_overlapping_region_phrases_are_refused():
    with pytest.raises(PromptError, match="overlap"):
        prompts.question("Is the red cat here?", [FIRE, FIRE], ["the red", "red cat"])


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"one of brief_caption, detailed_caption, got 'ocr'"):
        prompts.caption("ocr")


@given(st.text(max_size=60))
@pytest.mark.fault(47)
def test_any_question_is_refused_or_holds_only_our_tags(question):
    try:
        prompt = prompts.question(question)
    except PromptError:
        return
    assert [tag.group() for tag in TAG.finditer(prompt.text)] == ["<grounding>"]
    assert prompt.text == f"<grounding> Question: {' '.join(question.split())} Answer:"
