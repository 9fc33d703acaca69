# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training examples of a scene: prompts and right answers in KOSMOS-2's prompt language.

Knows no pixels and no token ids. The prompts come from kosmos_ros.kosmos2.prompts, as at run time.
An answer starts where its prompt ends. Prompts without `<grounding>` are answered in plain text.
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
"""A shape below SMALL is called small, one above LARGE large.

Both are geometric means of the sides of a box, as a fraction of the frame.
"""

JITTER = 0.125  # largest offset of a region's corners, as a share of its sides

PLAIN_SHARE = 0.05  # of all examples: without `<grounding>`
SOMETHING_SHARE = 0.7  # of beside_question: answers other than "nothing", if both exist
PLURAL_SHARE = 0.15  # of absent_grounding: plural phrases such as "two red circles"


@dataclass(frozen=True)
class Example:
    """A prompt and its right answer."""

    prompt: str
    answer: str  # with its leading space, without the end token
    any_location: bool = False  # every location is as right as the answer's; no end token follows


MakeExample = Callable[[Scene, np.random.Generator, bool], Example | None]
"""Makes an example of one task: scene, random generator, whether to use `<grounding>`.

Returns None if the scene allows no such example.
"""


def cells(box: Box) -> tuple[int, int]:
    """Return the grid indices of the upper-left and the lower-right corner."""
    return grounding.region_cells(grounding.Box(*box))


def brief_caption(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Name the shapes from left to right; shapes of one colour and kind share a phrase."""
    mentions = [_mention(group, group_name(group), grounded) for group in scene.groups]
    return Example(prompts.caption("brief_caption", grounded).text, f"{_join(mentions)}.")


def detailed_caption(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Name each shape with its place, and its size if it is small or large."""
    mentions = [
        f"{_mention([shape], _phrase_with_size(shape), grounded)} {place(shape.box)}"
        for shape in scene.left_to_right
    ]
    prompt = prompts.caption("detailed_caption", grounded).text
    return Example(prompt, f" The image shows{_join(mentions)}.")


def content_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask what is in the image. The answer is that of the brief caption."""
    prompt = prompts.question("What is in this image?", grounded=grounded)
    return Example(prompt.text, brief_caption(scene, rng, grounded).answer)


def phrase_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask for the boxes of a phrase of the scene; always grounded."""
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    return Example(prompts.phrase_grounding(group_name(group)).text, _location(group))


def absent_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask for the boxes of a phrase that is not in the scene: none; always grounded."""
    phrase = absent_phrase(scene, rng)
    if rng.random() < PLURAL_SHARE:
        phrase = f"two {plural(phrase.split(maxsplit=1)[1])}"
    return Example(prompts.phrase_grounding(phrase).text, "")


def reference_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example | None:
    """Ask for the box of a shape that is named by its place beside another; always grounded."""
    reference = sample_reference(scene, rng)
    if reference is None:
        return None
    return Example(prompts.phrase_grounding(reference.text).text, _location([reference.target]))


def region_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask for the name, the colour or the kind of the shape in a region."""
    shape = pick_shape(scene, rng)
    wording = list(REGION_QUESTIONS)[int(rng.integers(len(REGION_QUESTIONS)))]
    prompt = prompts.question(wording, [cells(jittered(shape.box, rng))], grounded=grounded)
    return Example(prompt.text, f" {REGION_QUESTIONS[wording](shape)}.")


def region_description(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask for a description of the shape in a region."""
    shape = pick_shape(scene, rng)
    prompt = prompts.region_description(cells(jittered(shape.box, rng)), grounded)
    return Example(prompt.text, f" {shape.phrase}.")


def count_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask how many shapes there are, in all or of one kind or colour. The answer may be zero."""
    wanted = str(rng.choice(("all", "kind", "colour"), p=(0.5, 0.25, 0.25)))
    example, present = pick_shape(scene, rng), rng.random() < 0.7
    if wanted == "kind":
        kind = example.kind if present else str(rng.choice(KINDS))
        words, count = plural(kind), sum(shape.kind == kind for shape in scene.shapes)
    elif wanted == "colour":
        colour = example.colour if present else str(rng.choice(list(COLOURS)))
        words, count = f"{colour} shapes", sum(shape.colour == colour for shape in scene.shapes)
    else:
        words, count = "shapes", len(scene.shapes)
    prompt = prompts.question(f"How many {words} are there?", grounded=grounded)
    return Example(prompt.text, f" {NUMBERS[count]}.")


def presence_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask whether a shape of the scene is there."""
    prompt = prompts.question(f"Is there {pick_shape(scene, rng).phrase}?", grounded=grounded)
    return Example(prompt.text, " yes.")


def absence_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Ask whether a shape is there that is not in the scene."""
    prompt = prompts.question(f"Is there {absent_phrase(scene, rng)}?", grounded=grounded)
    return Example(prompt.text, " no.")


def colour_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example | None:
    """Ask for the colour of the only shape of its kind."""
    shape = pick_shape(scene, rng)
    if f"the {shape.kind}" not in names(shape, scene):
        return None
    word = str(rng.choice(("colour", "color")))
    prompt = prompts.question(f"What {word} is the {shape.kind}?", grounded=grounded)
    return Example(prompt.text, f" {shape.colour}.")


def beside_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example | None:
    """Ask what is left of (right of, above, below) a shape: one other shape at most."""
    asked = [
        (f"What is {relation} {name}?", there)
        for anchor in scene.left_to_right
        for relation in RELATIONS
        if (there := beside(anchor, relation, scene)) is not None and len(there) <= 1
        for name in names(anchor, scene)
    ]
    something = rng.random() < SOMETHING_SHARE
    choices = [(words, there) for words, there in asked if bool(there) == something] or asked
    if not choices:
        return None
    words, there = choices[int(rng.integers(len(choices)))]
    answer = there[0].phrase if there else "nothing"
    return Example(prompts.question(words, grounded=grounded).text, f" {answer}.")


def absent_box(scene: Scene, rng: np.random.Generator) -> Example:
    """Start a box of a phrase that is not in the scene or was mentioned before.

    Every location is equally right. The model learns to give such a box a low score when it
    writes one by mistake.
    """
    shapes = scene.left_to_right
    wrong, shape = absent_phrase(scene, rng), pick_shape(scene, rng)
    location = _location([shape]).removesuffix("</object>")
    if rng.random() < 0.5:
        prompt = prompts.phrase_grounding(wrong).text
    else:
        prompt = prompts.caption("brief_caption").text
        mentioned = shapes[: int(rng.integers(len(shapes)))]
        prompt += ",".join(_mention([shape], shape.phrase, True) for shape in mentioned)
        if mentioned and rng.random() < 0.3:
            wrong = mentioned[int(rng.integers(len(mentioned)))].phrase
        prompt += f"{' and' if mentioned else ''}<phrase> {wrong}</phrase>"
    return Example(f"{prompt}<object>", location.removeprefix("<object>"), any_location=True)


def _kind_with_article(shape: Shape) -> str:
    return f"{article(shape.kind)} {shape.kind}"


REGION_QUESTIONS: dict[str, Callable[[Shape], str]] = {
    "What is it?": lambda shape: shape.phrase,
    "What is this?": lambda shape: shape.phrase,
    "What colour is it?": lambda shape: shape.colour,
    "What colour is this?": lambda shape: shape.colour,
    "What color is it?": lambda shape: shape.colour,
    "What color is this?": lambda shape: shape.colour,
    "What shape is it?": _kind_with_article,
    "What shape is this?": _kind_with_article,
}
"""Wording of a question about a region, and its answer."""

CAPTION_TASKS: dict[MakeExample, float] = {
    brief_caption: 0.65,
    detailed_caption: 0.25,
    content_question: 0.1,
}
"""Share of each task in the first example of an image."""

BASIC_TASKS: dict[MakeExample, float] = {
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
"""Share of each task in the other examples of an image."""

PRESENCE_TASKS: dict[MakeExample, float] = {
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
"""The same shares with more questions about presence, which the model learns late."""

WHOLE_SCENE_TASKS: dict[MakeExample, float] = {
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
"""The same shares with more questions about the whole scene: its content and counts."""

TASKS: tuple[MakeExample, ...] = (*CAPTION_TASKS, *BASIC_TASKS)


@dataclass(frozen=True)
class TaskMix:
    """Shares of the tasks in the examples of an image, without its caption."""

    tasks: dict[MakeExample, float]  # share of each task
    absent_boxes: float = 0.0  # share of `absent_box`, in place of the tasks


def sample_examples(
    scene: Scene, rng: np.random.Generator, count: int, mix: TaskMix
) -> Iterator[Example]:
    """Yield `count` examples of one scene with different prompts: a caption, then the mix."""
    asked: set[str] = set()
    table = CAPTION_TASKS
    while len(asked) < count:
        task = list(table)[int(rng.choice(len(table), p=list(table.values())))]
        example = task(scene, rng, bool(rng.random() >= PLAIN_SHARE))
        if mix.absent_boxes and asked and rng.random() < mix.absent_boxes:
            example = absent_box(scene, rng)
        if example is not None and example.prompt not in asked:
            asked.add(example.prompt)
            table = mix.tasks
            yield example


def place(box: Box) -> str:
    """Return words for the third of the frame with the box's centre: "at the top left"."""
    x, y = (box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0
    column, row = min(int(x * 3.0), 2), min(int(y * 3.0), 2)
    if (row, column) == (1, 1):
        return "in the middle"
    words = [word for word in (("top", "", "bottom")[row], ("left", "", "right")[column]) if word]
    return f"at the {' '.join(words)}"


def jittered(box: Box, rng: np.random.Generator) -> Box:
    """Return the box as a user might draw it: each corner up to JITTER off."""
    across, down = box[2] - box[0], box[3] - box[1]
    moves = rng.uniform(-JITTER, JITTER, 4) * (across, down, across, down)
    x1, y1, x2, y2 = (float(value) for value in np.clip(np.array(box) + moves, 0.0, 1.0))
    return x1, y1, x2, y2


def pick_shape(scene: Scene, rng: np.random.Generator) -> Shape:
    """Return a random shape of the scene."""
    return scene.shapes[int(rng.integers(len(scene.shapes)))]


def absent_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """Return a phrase that fits no shape; mostly its colour or its kind is in the scene."""
    present = {shape.phrase for shape in scene.shapes}
    while True:
        colour, kind = str(rng.choice(list(COLOURS))), str(rng.choice(KINDS))
        if rng.random() < 0.75:
            first, second = pick_shape(scene, rng), pick_shape(scene, rng)
            halves = ((first.colour, kind), (colour, first.kind), (first.colour, second.kind))
            colour, kind = halves[int(rng.integers(len(halves)))]
        if (phrase := f"{article(colour)} {colour} {kind}") not in present:
            return phrase


def group_name(group: list[Shape]) -> str:
    """Return `a red circle`, or `two red circles` for several shapes of one colour and kind."""
    first = group[0]
    if len(group) == 1:
        return first.phrase
    return f"{NUMBERS[len(group)]} {first.colour} {plural(first.kind)}"


def _location(shapes: list[Shape]) -> str:
    return prompts.object_tags([cells(shape.box) for shape in shapes])


def _mention(shapes: list[Shape], phrase: str, grounded: bool) -> str:
    return f"<phrase> {phrase}</phrase>{_location(shapes)}" if grounded else f" {phrase}"


def _phrase_with_size(shape: Shape) -> str:
    side = math.sqrt((shape.box[2] - shape.box[0]) * (shape.box[3] - shape.box[1]))
    if SMALL <= side <= LARGE:
        return shape.phrase
    return f"a {'small' if side < SMALL else 'large'} {shape.colour} {shape.kind}"


def _join(parts: list[str]) -> str:
    """Join parts that have leading spaces: ` a`, ` a and b`, ` a, b and c`."""
    return " and".join([",".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
