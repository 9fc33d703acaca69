"""Scenes in words: questions and right answers in KOSMOS-2's prompt language. No pixels, no ids.

The prompts are those of `kosmos_ros.prompts`, what the model is asked later. An answer starts
where the prompt ends. Without `<grounding>` the same prompts are answered in plain words.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kosmos_ros import grounding, prompts
from kosmos_ros.shapes.scenes import COLOURS, KINDS, Box, Scene, Shape, article

NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four")

SMALL, LARGE = 0.22, 0.34
"""Sides under and over which a box is small and large: geometric mean, fraction of the frame."""

JITTER = 0.125  # a region's corners are off by up to this share of its sides

PLAIN_SHARE = 0.05  # of the examples: asked without `<grounding>`


@dataclass(frozen=True)
class Example:
    prompt: str
    answer: str  # with its leading space, without the end token


Task = Callable[[Scene, np.random.Generator, bool], Example]


def cells(box: Box) -> tuple[int, int]:
    """Grid indices of the upper-left and the lower-right corner."""
    return grounding.region_cells(grounding.Box(*box))


def brief_caption(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    answer = _listed([_mention(shape, shape.phrase, grounded) for shape in scene.left_to_right])
    return Example(prompts.caption("brief_caption", grounded).text, f"{answer}.")


def detailed_caption(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """Size where it is notable and place of each shape."""
    mentions = [
        f"{_mention(shape, _sized(shape), grounded)} {place(shape.box)}"
        for shape in scene.left_to_right
    ]
    prompt = prompts.caption("detailed_caption", grounded).text
    return Example(prompt, f" The image shows{_listed(mentions)}.")


def phrase_grounding(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    """A phrase of the scene and its box, or one that is not there and no box; always grounded."""
    if rng.random() < 0.2:
        return Example(prompts.phrase_grounding(absent_phrase(scene, rng)).text, "")
    shape = one_of(scene, rng)
    return Example(prompts.phrase_grounding(shape.phrase).text, _location(shape.box))


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
    prompt = prompts.question("How many shapes are there?", grounded=grounded)
    return Example(prompt.text, f" {NUMBERS[len(scene.shapes)]}.")


def content_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    prompt = prompts.question("What is in this image?", grounded=grounded)
    return Example(prompt.text, brief_caption(scene, rng, grounded).answer)


def presence_question(scene: Scene, rng: np.random.Generator, grounded: bool) -> Example:
    there = rng.random() < 0.5
    phrase = one_of(scene, rng).phrase if there else absent_phrase(scene, rng)
    prompt = prompts.question(f"Is there {phrase}?", grounded=grounded)
    return Example(prompt.text, " yes." if there else " no.")


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

TASKS: dict[Task, float] = {
    brief_caption: 0.29,
    detailed_caption: 0.08,
    phrase_grounding: 0.18,
    region_question: 0.18,
    region_description: 0.06,
    count_question: 0.07,
    content_question: 0.04,
    presence_question: 0.10,
}
"""Share of each task in training."""


def sample_examples(scene: Scene, rng: np.random.Generator, count: int) -> list[Example]:
    """`count` examples of different tasks on one scene."""
    tasks, shares = list(TASKS), np.array(list(TASKS.values()))
    picks = rng.choice(len(tasks), size=count, replace=False, p=shares / shares.sum())
    return [tasks[pick](scene, rng, bool(rng.random() >= PLAIN_SHARE)) for pick in picks]


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
    """A phrase that fits no shape; at least half the time it is half right."""
    present = {shape.phrase for shape in scene.shapes}
    while True:
        model = one_of(scene, rng)
        colour, kind = str(rng.choice(list(COLOURS))), str(rng.choice(KINDS))
        if rng.random() < 0.5:
            colour, kind = (model.colour, kind) if rng.random() < 0.5 else (colour, model.kind)
        if (phrase := f"{article(colour)} {colour} {kind}") not in present:
            return phrase


def _location(box: Box) -> str:
    first, last = cells(box)
    return f"<object><patch_index_{first:04d}><patch_index_{last:04d}></object>"


def _mention(shape: Shape, phrase: str, grounded: bool) -> str:
    return f"<phrase> {phrase}</phrase>{_location(shape.box)}" if grounded else f" {phrase}"


def _sized(shape: Shape) -> str:
    side = math.sqrt((shape.box[2] - shape.box[0]) * (shape.box[3] - shape.box[1]))
    if SMALL <= side <= LARGE:
        return shape.phrase
    return f"a {'small' if side < SMALL else 'large'} {shape.colour} {shape.kind}"


def _listed(parts: list[str]) -> str:
    """Parts that bring their own leading space: `a`, `a and b`, `a, b and c`."""
    return " and".join([",".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
