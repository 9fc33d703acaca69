# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training examples of `shapes`: prompts, answers and tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos_ros.shapes.scenes import Scene, Shape, sample_scene
from training import language, tokenizer

TOKENIZER = tokenizer.build()
RED = Shape("circle", "red", (0.375, 0.03125, 0.99, 0.84))
BLUE = Shape("square", "blue", (0.05, 0.5, 0.15, 0.6))
SCENE = Scene((RED, BLUE), 320, 240)

CAPTION = (
    "<phrase> a blue square</phrase><object><patch_index_0513><patch_index_0612></object> and"
    "<phrase> a red circle</phrase><object><patch_index_0044><patch_index_0863></object>."
)


def decoded(ids: list[int]) -> str:
    return TOKENIZER.decode(ids, skip_special_tokens=False)


def example(
    task: language.MakeExample, grounded: bool = True, seed: int = 0
) -> language.Example | None:
    return task(SCENE, np.random.default_rng(seed), grounded)


def test_a_brief_caption_names_shapes_from_left_to_right() -> None:
    made = example(language.brief_caption)
    assert made == language.Example("<grounding> An image of", CAPTION)


def test_without_grounding_a_caption_is_plain_text() -> None:
    made = example(language.brief_caption, grounded=False)
    assert made == language.Example("An image of", " a blue square and a red circle.")


def test_a_detailed_caption_adds_size_and_place() -> None:
    assert example(language.detailed_caption, grounded=False) == language.Example(
        "Describe this image in detail:",
        " The image shows a small blue square at the left and a large red circle at the right.",
    )


def test_three_shapes_are_listed_with_a_comma() -> None:
    scene = Scene((*SCENE.shapes, Shape("star", "orange", (0.2, 0.1, 0.3, 0.2))), 320, 240)
    made = language.brief_caption(scene, np.random.default_rng(0), False)
    assert made.answer == " a blue square, an orange star and a red circle."


def test_a_region_question_is_answered_by_the_shape_of_its_region() -> None:
    answers = {example(language.region_question, seed=seed).answer for seed in range(100)}
    assert answers == {
        f" {text}." for shape in (RED, BLUE) for text in
        (shape.phrase, shape.colour, f"a {shape.kind}")
    }  # fmt: skip


def test_an_absent_phrase_is_not_in_the_scene() -> None:
    rng = np.random.default_rng(0)
    phrases = {language.absent_phrase(SCENE, rng) for _ in range(300)}
    assert not phrases & {RED.phrase, BLUE.phrase}
    assert {"a red square", "a blue circle"} <= phrases


def test_equal_shapes_share_a_phrase_with_a_box_for_each() -> None:
    twin = Shape("circle", "red", (0.1, 0.1, 0.2, 0.2))
    scene = Scene((RED, BLUE, twin), 320, 240)
    rng = np.random.default_rng(0)
    caption = language.brief_caption(scene, rng, False)
    assert caption.answer == " a blue square and two red circles."
    boxes = (
        "<object><patch_index_0099><patch_index_0198></delimiter_of_multi_objects/>"
        "<patch_index_0044><patch_index_0863></object>"
    )
    asked = {language.phrase_grounding(scene, rng, True) for _ in range(50)}
    assert language.Example("<grounding><phrase> two red circles</phrase>", boxes) in asked
    assert language.detailed_caption(scene, rng, False).answer == (
        " The image shows a small blue square at the left, a small red circle at the top left "
        "and a large red circle at the right."
    )


def test_questions_have_right_answers() -> None:
    answers = {
        "How many shapes are there?": " two.",
        "How many circles are there?": " one.",
        "How many crosses are there?": " zero.",
        "How many blue shapes are there?": " one.",
        "How many black shapes are there?": " zero.",
        "Is there a red circle?": " yes.",
        "Is there a blue square?": " yes.",
        "Is there a red square?": " no.",
        "What colour is the circle?": " red.",
        "What color is the square?": " blue.",
        "What is left of the red circle?": " a blue square.",
        "What is right of the square?": " a red circle.",
        "What is left of the square?": " nothing.",
        "What is above the blue square?": " a red circle.",
    }
    made = {
        example(task, seed=seed)
        for task in (
            language.count_question,
            language.presence_question,
            language.absence_question,
            language.colour_question,
            language.beside_question,
        )
        for seed in range(200)
    }
    for question, answer in answers.items():
        prompt = f"<grounding> Question: {question} Answer:"
        assert {one.answer for one in made if one.prompt == prompt} == {answer}, question


@pytest.mark.parametrize("task", language.TASKS)
def test_every_example_consists_of_whole_pieces(task: language.MakeExample) -> None:
    rng = np.random.default_rng(1)
    letters = {TOKENIZER.token_to_id(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    for grounded in (True, False):
        for _ in range(20):
            made = task(sample_scene(rng, 192, 144, alike=0.5), rng, grounded)
            if made is None:
                continue
            prompt, answer = (TOKENIZER.encode(text).ids for text in (made.prompt, made.answer))
            together = TOKENIZER.encode(made.prompt + made.answer).ids
            assert together == prompt + answer
            assert decoded(together) == made.prompt + made.answer
            if grounded or not made.prompt.startswith(("An", "Describe", "Question")):
                assert not letters & set(together)


def test_ids_are_indices_into_the_vocabulary() -> None:
    pieces = tokenizer.vocabulary()
    assert [TOKENIZER.token_to_id(piece) for piece in pieces] == list(range(len(pieces)))


@settings(max_examples=300)
@given(st.text())
def test_decoding_returns_any_text_and_nothing_is_unknown(text: str) -> None:
    # A tag swallows the space before it, as in KOSMOS-2; special tokens are not text.
    for piece in (*tokenizer.SPECIAL, *tokenizer.TAGS):
        text = text.replace(piece, "")
    ids = TOKENIZER.encode(text).ids
    assert decoded(ids) == text
    assert tokenizer.SPECIAL.index("<unk>") not in ids


@pytest.mark.parametrize(
    "text", ["<0x41>", "\u2581word", " two  spaces ", "héllo ☃ 日本", "\x00\n\t"]
)
def test_decoding_returns_odd_text(text: str) -> None:
    assert decoded(TOKENIZER.encode(text).ids) == text
