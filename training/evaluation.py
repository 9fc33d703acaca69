# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Figures of a `shapes` model on scenes it never saw, through the same chain that the node uses.

Engine, prompts and grounding are the node's own, so a break in any of them shows here. Scene `i`
of seed `s` comes from the random stream [1, s, i]; training draws from streams that begin with
0.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from kosmos_ros.kosmos2 import grounding, prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import ALIKE, Box, Scene, Shape, sample_scene
from training import gallery, language
from training.relations import sample_reference

FRAMES: tuple[tuple[int, int], ...] = ((320, 240), (640, 360), (240, 240))
"""Width and height in pixels of the frames: 4:3, 16:9 and 1:1."""

JPEG = 60  # quality of the frames that are looked at a second time
JPEG_EVERY = 4  # scenes, of which one is looked at a second time, and described in detail

ACCURACIES: dict[str, tuple[str, ...]] = {
    "region_accuracy": ("region_question", "region_description"),
    "question_accuracy": (
        "count_question", "presence_question", "colour_question", "beside_question",
    ),
    "absent_accuracy": ("absent",),
    "grounding_accuracy": ("phrase_grounding",),
    "several_accuracy": ("several_grounding",),
    "reference_accuracy": ("reference_grounding",),
}  # fmt: skip
"""Figures that are the share of right answers, and the tasks they count."""


@dataclass(frozen=True)
class Guess:
    """A predicted box."""

    iou: float  # with the box of the shape that it is meant to be; 0 where there is none
    score: float
    named: bool = True  # its phrase is right; else `iou` is with the shape that it is nearest to


@dataclass(frozen=True)
class Marks:
    """How one scene went, as far as it was examined."""

    said: int = 0  # phrases in the brief caption
    drawn: int = 0  # phrases that it should have had
    named: int = 0  # phrases that it had and should have had
    ious: tuple[float, ...] = ()  # of the boxes of the `named`; 0 for a missing or needless one
    detailed: tuple[int, int, int] = (0, 0, 0)  # said, drawn and named of the detailed caption
    guesses: tuple[Guess, ...] = ()  # every box of every task
    answers: tuple[tuple[str, bool], ...] = ()  # task, and whether it went right

    def __add__(self, other: "Marks") -> "Marks":
        first, second = self.detailed, other.detailed
        return Marks(
            self.said + other.said,
            self.drawn + other.drawn,
            self.named + other.named,
            self.ious + other.ious,
            (first[0] + second[0], first[1] + second[1], first[2] + second[2]),
            self.guesses + other.guesses,
            self.answers + other.answers,
        )


class Examiner:
    """Asks a loaded model about scenes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def mark(
        self, scene: Scene, rng: np.random.Generator, parts: Sequence[str] | None = None
    ) -> Marks:
        """The marks of one scene in `parts` of the examination, keys of PARTS; None is all."""
        picture = self.engine.encode(render(scene))
        marks = Marks()
        for part in parts or PARTS:
            marks += PARTS[part](self, picture, scene, rng)
        return marks

    def caption(self, picture: torch.Tensor) -> Caption:
        """The brief caption of an encoded picture."""
        return self._ask(picture, prompts.caption("brief_caption"))

    def _ask(self, picture: torch.Tensor, prompt: prompts.Prompt) -> Caption:
        return grounding.read(self.engine.generate(picture, prompt.text), prompt.text, prompt.lead)

    def _brief(self, picture: torch.Tensor, scene: Scene, rng: np.random.Generator) -> Marks:
        """Phrases by name; a phrase that is said twice is right once."""
        caption = self.caption(picture)
        wanted = {language.group_name(group): group for group in scene.groups}
        ious: list[float] = []
        guesses: list[Guess] = []
        for phrase in caption.phrases:
            if group := wanted.pop(phrase.text, []):
                overlaps = _overlaps(phrase.boxes, group)
                ious += overlaps
                guesses += _guesses(phrase.boxes, overlaps)
                continue
            for box in phrase.boxes:
                nearest = max(_overlaps([box], [shape])[0] for shape in scene.shapes)
                guesses.append(Guess(nearest, box.score, named=False))
        said, drawn = len(caption.phrases), len(scene.groups)
        named = drawn - len(wanted)
        return Marks(said, drawn, named, tuple(ious), guesses=tuple(guesses))

    def _detailed(self, picture: torch.Tensor, scene: Scene, rng: np.random.Generator) -> Marks:
        """Shapes with size and place, word for word: "a small red circle at the top"."""
        example = language.detailed_caption(scene, rng, grounded=False)
        answer = self._ask(picture, prompts.caption("detailed_caption")).text
        said, drawn = (_mentions(text) for text in (answer, example.answer))
        rest = list(drawn)
        for mention in said:
            if mention in rest:
                rest.remove(mention)
        return Marks(detailed=(len(said), len(drawn), len(drawn) - len(rest)))

    def _phrase(self, picture: torch.Tensor, scene: Scene, rng: np.random.Generator) -> Marks:
        """A phrase of the scene; and, where shapes are alike, the one that names them together."""
        groups = scene.groups
        group = groups[int(rng.integers(len(groups)))]
        marks = self._place(picture, "phrase_grounding", language.group_name(group), group)
        for several in groups:
            if len(several) > 1:
                name = language.group_name(several)
                marks += self._place(picture, "several_grounding", name, several)
        return marks

    def _reference(self, picture: torch.Tensor, scene: Scene, rng: np.random.Generator) -> Marks:
        reference = sample_reference(scene, rng)
        if reference is None:
            return Marks()
        return self._place(picture, "reference_grounding", reference.text, [reference.target])

    def _place(self, picture: torch.Tensor, task: str, words: str, shapes: list[Shape]) -> Marks:
        """Right are as many boxes as shapes, each over half of its own."""
        boxes = self._boxes(picture, words)
        overlaps = _overlaps(boxes, shapes)
        right = min(overlaps) > 0.5
        return Marks(guesses=_guesses(boxes, overlaps), answers=((task, right),))

    def _absent(self, picture: torch.Tensor, scene: Scene, rng: np.random.Generator) -> Marks:
        """Right is no box for a phrase that is not there, and "no" when asked for it."""
        phrase = language.absent_phrase(scene, rng)
        boxes = self._boxes(picture, phrase)
        answer = self._ask(picture, prompts.question(f"Is there {phrase}?")).text
        right = not boxes and answer == "no."
        return Marks(guesses=_guesses(boxes, []), answers=(("absent", right),))

    def _answers(self, picture: torch.Tensor, scene: Scene, rng: np.random.Generator) -> Marks:
        answers = []
        for task in ASKED:
            if (example := task(scene, rng, True)) is not None:
                written = self.engine.generate(picture, example.prompt)
                right = written.text.strip() == example.answer.strip()
                answers.append((task.__name__, right))
        return Marks(answers=tuple(answers))

    def _boxes(self, picture: torch.Tensor, words: str) -> tuple[grounding.Box, ...]:
        phrases = self._ask(picture, prompts.phrase_grounding(words)).phrases
        return phrases[0].boxes if phrases else ()


Part = Callable[[Examiner, torch.Tensor, Scene, np.random.Generator], Marks]

PARTS: dict[str, Part] = {
    "brief": Examiner._brief,
    "detailed": Examiner._detailed,
    "phrase": Examiner._phrase,
    "reference": Examiner._reference,
    "absent": Examiner._absent,
    "answers": Examiner._answers,
}
"""Parts of the examination."""

ASKED: tuple[language.Task, ...] = (
    language.region_question,
    language.region_description,
    language.count_question,
    language.presence_question,
    language.colour_question,
    language.beside_question,
)
"""Tasks whose answer is right when it is so word for word."""


def held_out_scene(seed: int, index: int) -> tuple[Scene, np.random.Generator]:
    """A scene, and the random stream that the questions about it come from."""
    rng = np.random.default_rng([1, seed, index])
    return sample_scene(rng, *FRAMES[index % len(FRAMES)], alike=ALIKE), rng


def figures(marks: Iterable[Marks]) -> dict[str, float | None]:
    """The measured figures by name; None where nothing was measured.

    phrase_f1, mean_iou and iou50 are of the brief caption. score_auroc is that of the scores of
    all boxes of brief captions and groundings against an IoU over 0.5: with the shape that is
    meant, or, where a caption's phrase names nothing in the scene or names it again, with the
    shape that lies nearest. For named_auroc boxes of such phrases are wrong, wherever they lie.
    """
    total = sum(marks, Marks())
    ious = np.array(total.ious)
    over_half = np.array([guess.iou > 0.5 for guess in total.guesses], dtype=bool)
    named = np.array([guess.named for guess in total.guesses], dtype=bool)
    scores = np.array([guess.score for guess in total.guesses])
    accuracies = {
        name: _mean([right for task, right in total.answers if task in tasks])
        for name, tasks in ACCURACIES.items()
    }
    return {
        "phrase_f1": _f1(total.said, total.drawn, total.named),
        "mean_iou": _mean(ious),
        "iou50": _mean(ious > 0.5),
        **accuracies,
        "detailed_f1": _f1(*total.detailed),
        "score_auroc": _auroc(scores, over_half),
        "named_auroc": _auroc(scores, over_half & named),
    }


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


def _overlaps(boxes: Sequence[grounding.Box], shapes: Sequence[Shape]) -> list[float]:
    """IoU of boxes and shapes in their order, which is left to right; 0 for one without other."""
    pairs = zip(boxes, shapes, strict=False)
    overlaps = [iou((b.x_min, b.y_min, b.x_max, b.y_max), shape.box) for b, shape in pairs]
    return overlaps + [0.0] * (max(len(boxes), len(shapes)) - len(overlaps))


def _guesses(boxes: Sequence[grounding.Box], overlaps: Sequence[float]) -> tuple[Guess, ...]:
    padded = [*overlaps, *[0.0] * len(boxes)]
    return tuple(Guess(padded[place], box.score) for place, box in enumerate(boxes))


def _mentions(text: str) -> list[str]:
    words = text.strip().removeprefix("The image shows ").removesuffix(".")
    return words.replace(" and ", ", ").split(", ")


def _f1(said: int, drawn: int, named: int) -> float | None:
    return 2.0 * named / (said + drawn) if drawn else None


def _mean(values: np.ndarray | list[bool]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Chance that a right one scores above a wrong one, ties counting half (Mann-Whitney U)."""
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return None
    above = (good[:, None] > bad[None, :]).mean() + 0.5 * (good[:, None] == bad[None, :]).mean()
    return float(above)


_examiner: Examiner  # of a worker process


def _start(model: str, device: str, quantization: str) -> None:
    global _examiner
    engine = Engine.load(
        model, local_files_only=True, device=device, quantization=quantization, threads=1
    )
    _examiner = Examiner(engine)


def _examine(place: tuple[int, int]) -> tuple[Marks, Marks | None]:
    """Marks of the scene (seed, index) as it is and, now and then, after JPEG compression."""
    seed, index = place
    scene, rng = held_out_scene(seed, index)
    if index % JPEG_EVERY:
        return _examiner.mark(scene, rng, [part for part in PARTS if part != "detailed"]), None
    marks = _examiner.mark(scene, rng)
    scene, rng = held_out_scene(seed, index)
    return marks, _examiner.mark(replace(scene, light=replace(scene.light, jpeg=JPEG)), rng)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="evaluate-shapes", description="Measure the model `shapes` on held-out scenes."
    )
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="shapes", help="the embedded model, or a directory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quantization", default="none", help="none, int8 or nf4")
    parser.add_argument("--workers", type=int, default=2, help="processes, each on one core")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of what came out")
    options = parser.parse_args()
    places = [(options.seed, index) for index in range(options.scenes)]
    start = _start, (options.model, options.device, options.quantization)
    with multiprocessing.get_context("spawn").Pool(options.workers, *start) as pool:
        pairs = list(tqdm(pool.imap(_examine, places), total=options.scenes, unit="scene"))
    marks = [first for first, _ in pairs]
    columns = {"all": figures(marks)}
    for start_index, (width, height) in enumerate(FRAMES):
        columns[f"{width}x{height}"] = figures(marks[start_index :: len(FRAMES)])
    columns[f"jpeg {JPEG}"] = figures(second for _, second in pairs if second is not None)
    print(f"{'':20}" + "".join(f"{name:>9}" for name in columns))
    for name in columns["all"]:
        row = [column[name] for column in columns.values()]
        print(f"{name:20}" + "".join("        -" if v is None else f"{v:9.3f}" for v in row))
    for task in dict.fromkeys(task for mark in marks for task, _ in mark.answers):
        rights = [right for mark in marks for name, right in mark.answers if name == task]
        print(f"{task:20}{_mean(rights):9.3f} of {len(rights)}")
    if options.pictures:
        _start(options.model, options.device, options.quantization)
        scenes = [held_out_scene(*place)[0] for place in places]
        gallery.write(options.pictures, _examiner, scenes, marks)
    measured = columns["all"]
    print(json.dumps({k: None if v is None else round(v, 4) for k, v in measured.items()}))


if __name__ == "__main__":
    main()
