# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The examples of KOSMOS-2's model card, and the picture that they are about.

Knows no model: only prompts, and the outputs that the card shows for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, Shape

TOKENS = 128  # maximum number of tokens of an answer, as in the model card

_SNOWMAN_HASH = 0x894949DCC1E8303C
"""Difference hash of the card's picture snowman.png: whether each of 8 x 8 places is brighter than
its left neighbour. It is the same for the copy as JPEG that the card also uses."""
_MOST_BITS = 6  # of 64 that a copy may differ in; other pictures differ in about 32

SNOWMAN, FIRE = (44, 863), (5, 911)  # grid indices of the card's two regions


@dataclass(frozen=True)
class Example:
    """A prompt, and what the model card shows as the output."""

    title: str
    prompt: Prompt
    known: tuple[str, ...] = ()  # prompt and answer with tags, for each version of the picture


@dataclass(frozen=True)
class Subject:
    """The words and places of one picture with which the examples are written."""

    thing: str  # phrase
    expression: str  # referring expression
    region: tuple[int, int]  # grid indices
    question: str
    about: str  # question about `named`
    named: str  # words of `about`
    place: tuple[int, int]  # grid indices of `named`


_CARD = Subject(
    "a snowman",
    "a snowman next to a fire",
    SNOWMAN,
    "What is special about this image?",
    "Where is the fire next to?",
    "the fire",
    FIRE,
)
# Grid indices of the boxes of `drawn`.
_DRAWN = Subject(
    "a red circle",
    "a red circle left of a blue star",
    (260, 716),
    "How many shapes are there?",
    "What is this?",
    "this",
    (178, 665),
)

KNOWN = {
    "brief caption": (
        # of snowman.png
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
        "<patch_index_0863></object> warming himself by<phrase> a campfire</phrase><object>"
        "<patch_index_0643><patch_index_1009></object>.",
        # of the picture saved as JPEG
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
        "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
        "<patch_index_0005><patch_index_0911></object>.",
    ),
    "detailed caption": tuple(
        "<grounding> Describe this image in detail: The image features a snowman sitting by"
        "<phrase> a campfire</phrase><object><patch_index_0005><patch_index_1007></object> in the "
        "snow. He is wearing<phrase> a hat</phrase><object><patch_index_0048><patch_index_0250>"
        "</object>,<phrase> scarf</phrase><object><patch_index_0240><patch_index_0604></object>, "
        "and<phrase> gloves</phrase><object><patch_index_0400><patch_index_0532></object>, with"
        "<phrase> a pot</phrase><object><patch_index_0610><patch_index_0872></object> nearby and"
        "<phrase> a cup</phrase><object><patch_index_0796><patch_index_1023></object>"
        f"{placed} nearby. The snowman appears to be enjoying the warmth of the fire, and it "
        "appears to have a warm and cozy atmosphere."
        for placed in ("", " placed")  # snowman.png, saved as JPEG
    ),
    "phrase grounding": (
        "<grounding><phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863>"
        "</object> is warming himself by<phrase> the fire</phrase><object><patch_index_0006>"
        "<patch_index_0878></object>",
    ),
    "referring expression": (
        "<grounding><phrase> a snowman next to a fire</phrase><object><patch_index_0044>"
        "<patch_index_0863></object>",
    ),
    "region description": (
        "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is "
        "snowman in a hat and scarf",
    ),
    "question": (
        "<grounding> Question: What is special about this image? Answer: The image features"
        "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> sitting "
        "by<phrase> a campfire</phrase><object><patch_index_0643><patch_index_1009></object> in "
        "the snow.",
    ),
    "question, region": (
        "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005>"
        "<patch_index_0911></object> next to? Answer: Near<phrase> the snowman</phrase><object>"
        "<patch_index_0044><patch_index_0863></object>.",
    ),
}
"""Outputs of the model card of microsoft/kosmos-2-patch14-224, and, for the picture saved as JPEG,
of transformers' tests/models/kosmos2/test_modeling_kosmos2.py."""


def drawn() -> np.ndarray:
    """Return the picture (480, 640, 3) of the examples if no other one is given."""
    circle = Shape("circle", "red", (0.125, 0.25, 0.4, 0.7))
    star = Shape("star", "blue", (0.57, 0.16, 0.8, 0.63))
    return render(Scene((circle, star), 640, 480))


def is_snowman(image: np.ndarray) -> bool:
    """Return whether an image (H, W, 3) is the model card's picture, of any size or format."""
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    levels = np.asarray(grey).astype(int)
    bits = (levels[:, 1:] > levels[:, :-1]).ravel()
    value = int("".join(str(int(bit)) for bit in bits), 2)
    return (value ^ _SNOWMAN_HASH).bit_count() <= _MOST_BITS


def examples(of_card: bool, known: bool) -> list[Example]:
    """Return the model card's examples, with its words or with those of `drawn`.

    `known` adds the outputs that the card shows. Only the default model writes them.
    """
    of = _CARD if of_card else _DRAWN
    asked = {
        "brief caption": prompts.caption("brief_caption"),
        "detailed caption": prompts.caption("detailed_caption"),
        "phrase grounding": prompts.phrase_grounding(of.thing),
        "referring expression": prompts.phrase_grounding(of.expression),
        "region description": prompts.region_description(of.region),
        "question": prompts.question(of.question),
        "question, region": prompts.question(of.about, [of.place], [of.named]),
    }
    return [
        Example(title, prompt, KNOWN[title] if known and of_card else ())
        for title, prompt in asked.items()
    ]
