# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes in words: questions and right answers in KOSMOS-2's prompt language. No pixels, no ids.

The prompts come from kosmos_ros.kosmos2.prompts, as they do at run time. An answer starts where
its prompt ends. Without `<grounding>` the same prompts are answered in plain words.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kosmos_ros.kosmos2 import grounding, prompts
from kosmos_ros.shapes.scenes import COLOURS, KINDS, Box, Scene, Shape, article, plural
from training.relations import RELATIONS, beside, names, sample_reference

NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four")

SMALL, LARGE = 0.22, 0.34
"""Sides under and over which a box is small and large: geometric mean, fraction of the frame."""

JITTER = 0.125  # a region's corners are off by up to this share of its sides

PLAIN_SHARE = 0.05  # of the examples: asked without `<grounding>`
SOMETHING_SHARE = 0.7  # of the questions what lies beside a shape, where both answers exist
PLURAL_SHARE = 0.15  # of the groundings of what is not there: "two red circles"


@dataclass(frozen=True)
class Example:
    prompt: str
    answer: str  # with its leading space, without the end token
    placed: bool = True  # False: any location is as right as those of the answer, which ends there


Task = Callable[[Scene, np.random.Generator, bool], Example | None]
"""Scene, random stream, whether to ask with `<grounding>`; None where the scene gives no such
example."""


def cells(box: Box) -> tuple[int, int]:
    """Grid indices of the upper-left and the lower-right corner."""
    return grounding.region_cells(grounding.Box(*box))


def brief_caption(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Shapes from left to right; those of one colour and kind are one phrase with their boxes."""
    mentions = [_mention(group, group_name(group), grounded) for group in scene.groups]
    return Example(prompts.caption("brief_caption", grounded).text, f"{_listed(mentions)}.")


def detailed_caption(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Each shape for itself, with its size where that is notable, and its place."""
    mentions = [
        f"{_mention([shape], _sized(shape), grounded)} {place(shape.box)}"
        for shape in scene.left_to_right
    ]
    prompt = prompts.caption("detailed_caption", grounded).text
    return Example(prompt, f" The image shows{_listed(mentions)}.")


def content_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    prompt = prompts.question("What is in this image?", grounded=grounded)
    return Example(prompt.text, brief_caption(scene, rng, grounded).answer)


def phrase_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """A phrase of the scene and its boxes; always grounded."""
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    return Example(prompts.phrase_grounding(group_name(group)).text, _location(group))


def absent_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """A phrase that is not there and no box; always grounded."""
    phrase = absent_phrase(scene, rng)
    if rng.random() < PLURAL_SHARE:
        phrase = f"two {plural(phrase.split(maxsplit=1)[1])}"
    return Example(prompts.phrase_grounding(phrase).text, "")


def reference_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example | None:
    """A shape meant by its place beside another, and its box; always grounded."""
    reference = sample_reference(scene, rng)
    if reference is None:
        return None
    return Example(prompts.phrase_grounding(reference.text).text, _location([reference.target]))


def region_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    shape = one_of(scene, rng)
    wording = list(REGION_QUESTIONS)[int(rng.integers(len(REGION_QUESTIONS)))]
    prompt = prompts.question(wording, [cells(jittered(shape.box, rng))], grounded=grounded)
    return Example(prompt.text, f" {REGION_QUESTIONS[wording](shape)}.")


def region_description(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    shape = one_of(scene, rng)
    prompt = prompts.region_description(cells(jittered(shape.box, rng)), grounded)
    return Example(prompt.text, f" {shape.phrase}.")


def count_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """How many shapes there are, or those of a kind or of a colour, which may be none."""
    wanted = str(rng.choice(("all", "kind", "colour"), p=(0.5, 0.25, 0.25)))
    model, present = one_of(scene, rng), rng.random() < 0.7
    if wanted == "kind":
        kind = model.kind if present else str(rng.choice(KINDS))
        words, count = plural(kind), sum(shape.kind == kind for shape in scene.shapes)
    elif wanted == "colour":
        colour = model.colour if present else str(rng.choice(list(COLOURS)))
        words, count = f"{colour} shapes", sum(shape.colour == colour for shape in scene.shapes)
    else:
        words, count = "shapes", len(scene.shapes)
    prompt = prompts.question(f"How many {words} are there?", grounded=grounded)
    return Example(prompt.text, f" {NUMBERS[count]}.")


def presence_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    prompt = prompts.question(f"Is there {one_of(scene, rng).phrase}?", grounded=grounded)
    return Example(prompt.text, " yes.")


def absence_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    prompt = prompts.question(f"Is there {absent_phrase(scene, rng)}?", grounded=grounded)
    return Example(prompt.text, " no.")


def colour_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example | None:
    """The colour of the only shape of its kind."""
    shape = one_of(scene, rng)
    if f"the {shape.kind}" not in names(shape, scene):
        return None
    word = str(rng.choice(("colour", "color")))
    prompt = prompts.question(f"What {word} is the {shape.kind}?", grounded=grounded)
    return Example(prompt.text, f" {shape.colour}.")


def beside_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example | None:
    """What is left of (right of, above, below) a shape, where that is one shape at most."""
    asked = [
        (f"What is {relation} {name}?", there)
        for anchor in scene.left_to_right
        for relation in RELATIONS
        if (there := beside(anchor, relation, scene)) is not None and len(there) <= 1
        for name in names(anchor, scene)
    ]
    something = rng.random() < SOMETHING_SHARE
    choice = [(words, there) for words, there in asked if bool(there) == something] or asked
    if not choice:
        return None
    words, there = choice[int(rng.integers(len(choice)))]
    answer = there[0].phrase if there else "nothing"
    return Example(prompts.question(words, grounded=grounded).text, f" {answer}.")


def doubt(scene: Scene, rng: np.random.Generator) -> Example:
    """A phrase that is not there, or was said already, and yet a box: nothing tells where.

    A model that has seen this gives such a box a low score when it writes one by mistake.
    """
    shapes = scene.left_to_right
    wrong, model = absent_phrase(scene, rng), one_of(scene, rng)
    place = _location([model]).removesuffix("</object>")
    if rng.random() < 0.5:
        prompt = prompts.phrase_grounding(wrong).text
    else:
        prompt = prompts.caption("brief_caption").text
        said = shapes[: int(rng.integers(len(shapes)))]
        prompt += ",".join(_mention([shape], shape.phrase, True) for shape in said)
        if said and rng.random() < 0.3:
            wrong = said[int(rng.integers(len(said)))].phrase
        prompt += f"{' and' if said else ''}<phrase> {wrong}</phrase>"
    return Example(f"{prompt}<object>", place.removeprefix("<object>"), placed=False)


def _kind_in_words(shape: Shape) -> str:
    return f"{article(shape.kind)} {shape.kind}"


REGION_QUESTIONS: dict[str, Callable[[Shape], str]] = {
    "What is it?": lambda shape: shape.phrase,
    "What is this?": lambda shape: shape.phrase,
    "What colour is it?": lambda shape: shape.colour,
    "What colour is this?": lambda shape: shape.colour,
    "What color is it?": lambda shape: shape.colour,
    "What color is this?": lambda shape: shape.colour,
    "What shape is it?": _kind_in_words,
    "What shape is this?": _kind_in_words,
}

CAPTIONS: dict[Task, float] = {brief_caption: 0.65, detailed_caption: 0.25, content_question: 0.1}
"""Share of each in training among the long tasks, of which every picture has one."""

QUESTIONS: dict[Task, float] = {
    phrase_grounding: 0.14,
    absent_grounding: 0.14,
    reference_grounding: 0.10,
    region_question: 0.15,
    region_description: 0.05,
    count_question: 0.09,
    presence_question: 0.10,
    absence_question: 0.10,
    colour_question: 0.04,
    beside_question: 0.09,
}
"""Share of each among the short tasks."""

HARD: dict[Task, float] = {
    phrase_grounding: 0.13,
    absent_grounding: 0.18,
    reference_grounding: 0.05,
    region_question: 0.07,
    region_description: 0.05,
    count_question: 0.09,
    presence_question: 0.13,
    absence_question: 0.16,
    colour_question: 0.06,
    beside_question: 0.08,
}
"""The same, with more of what is learnt last: whether something that is asked for is there."""

SPOKEN: dict[Task, float] = {
    content_question: 0.15,
    phrase_grounding: 0.12,
    absent_grounding: 0.12,
    reference_grounding: 0.07,
    region_question: 0.07,
    region_description: 0.04,
    count_question: 0.14,
    presence_question: 0.08,
    absence_question: 0.09,
    colour_question: 0.03,
    beside_question: 0.09,
}
"""The same, with more of what needs the whole scene: what is in it, and how many."""

TASKS: tuple[Task, ...] = (*CAPTIONS, *QUESTIONS)


@dataclass(frozen=True)
class Lesson:
    """What is asked about a picture."""

    questions: dict[Task, float]  # share of each short task
    doubts: float = 0.0  # share of doubts, instead of short tasks


def sample_examples(
    scene: Scene, rng: np.random.Generator, count: int, lesson: Lesson
) -> Iterator[Example]:
    """`count` examples of one scene, no prompt twice: a caption, then questions and doubts."""
    asked: set[str] = set()
    table = CAPTIONS
    while len(asked) < count:
        task = list(table)[int(rng.choice(len(table), p=list(table.values())))]
        example = task(scene, rng, bool(rng.random() >= PLAIN_SHARE))
        if lesson.doubts and asked and rng.random() < lesson.doubts:
            example = doubt(scene, rng)
        if example is not None and example.prompt not in asked:
            asked.add(example.prompt)
            table = lesson.questions
            yield example


def place(box: Box) -> str:
    """Where the box's centre lies, in thirds of the frame."""
    x, y = (box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0
    column, row = min(int(x * 3.0), 2), min(int(y * 3.0), 2)
    if (row, column) == (1, 1):
        return "in the middle"
    words = [word for word in (("top", "", "bottom")[row], ("left", "", "right")[column]) if word]
    return f"at the {' '.join(words)}"


def jittered(box: Box, rng: np.random.Generator) -> Box:
    """The box as a user might draw it."""
    across, down = box[2] - box[0], box[3] - box[1]
    moves = rng.uniform(-JITTER, JITTER, 4) * (across, down, across, down)
    x1, y1, x2, y2 = (float(value) for value in np.clip(np.array(box) + moves, 0.0, 1.0))
    return x1, y1, x2, y2


def one_of(scene: Scene, rng: np.random.Generator) -> Shape:
    return scene.shapes[int(rng.integers(len(scene.shapes)))]


def absent_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """A phrase that fits no shape; mostly its colour, its kind, or each for itself is there."""
    present = {shape.phrase for shape in scene.shapes}
    while True:
        colour, kind = str(rng.choice(list(COLOURS))), str(rng.choice(KINDS))
        if rng.random() < 0.75:
            first, second = one_of(scene, rng), one_of(scene, rng)
            halves = ((first.colour, kind), (colour, first.kind), (first.colour, second.kind))
            colour, kind = halves[int(rng.integers(len(halves)))]
        if (phrase := f"{article(colour)} {colour} {kind}") not in present:
            return phrase


def group_name(group: list[Shape]) -> str:
    """`a red circle`, or `two red circles` for several shapes of one colour and kind."""
    first = group[0]
    if len(group) == 1:
        return first.phrase
    return f"{NUMBERS[len(group)]} {first.colour} {plural(first.kind)}"


def _location(shapes: list[Shape]) -> str:
    return prompts.object_tags([cells(shape.box) for shape in shapes])


def _mention(shapes: list[Shape], phrase: str, grounded: bool) -> str:
    return f"<phrase> {phrase}</phrase>{_location(shapes)}" if grounded else f" {phrase}"


def _sized(shape: Shape) -> str:
    side = math.sqrt((shape.box[2] - shape.box[0]) * (shape.box[3] - shape.box[1]))
    if SMALL <= side <= LARGE:
        return shape.phrase
    return f"a {'small' if side < SMALL else 'large'} {shape.colour} {shape.kind}"


def _listed(parts: list[str]) -> str:
    """Parts that bring their own leading space: `a`, `a and b`, `a, b and c`."""
    return " and".join([",".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
