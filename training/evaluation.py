# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure a `shapes` model on held-out scenes, with the node's own engine, prompts and grounding.

An error in any of these therefore shows here, too. Scene `i` of seed `s` comes from the random
seed [1, s, i]; the seeds of training begin with 0.
"""

import argparse
import itertools
import json
import math
import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kosmos_ros.kosmos2 import grounding, prompts
from kosmos_ros.kosmos2.decoder import EncodedImage
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import ALIKE, Box, Scene, Shape, sample_scene
from training import gallery, language
from training.relations import sample_reference
from training.results import Placed, PredictedBox, Results, metrics

FRAME_SIZES: tuple[tuple[int, int], ...] = ((320, 240), (640, 360), (240, 240))
"""Width and height in pixels: 4:3, 16:9 and 1:1."""

JPEG = 60  # quality of the frames that are evaluated a second time
JPEG_EVERY = 4  # every fourth scene is also evaluated as JPEG and with a detailed caption


class Evaluator:
    """Evaluates a loaded model on scenes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def evaluate(
        self, scene: Scene, rng: np.random.Generator, checks: Sequence[str] | None = None
    ) -> Results:
        """Return the results of one scene in `checks`, keys of CHECKS; None: all."""
        image = self.engine.encode(render(scene))
        results = Results()
        for check in checks or CHECKS:
            results += CHECKS[check](self, image, scene, rng)
        return results

    def caption(self, image: EncodedImage) -> Caption:
        """Return the brief caption of an encoded image."""
        return self._ask(image, prompts.caption("brief_caption"))

    def _ask(self, image: EncodedImage, prompt: prompts.Prompt) -> Caption:
        return self._ask_both(image, prompt)[0]

    def _ask_both(self, image: EncodedImage, prompt: prompts.Prompt) -> tuple[Caption, Caption]:
        """Return the caption, and the same caption with corners at the centres of cells."""
        answer = self.engine.generate(image, prompt.text)
        refined, cells = (
            grounding.read(generation, prompt.text, prompt.lead)
            for generation in (answer, replace(answer, location_points=()))
        )
        return refined, cells

    def _brief(self, image: EncodedImage, scene: Scene, rng: np.random.Generator) -> Results:
        """Check the phrases of the brief caption; a repeated phrase is right once."""
        caption, cells = self._ask_both(image, prompts.caption("brief_caption"))
        wanted = {language.group_name(group): group for group in scene.groups}
        ious: list[float] = []
        boxes: list[PredictedBox] = []
        placed: list[Placed] = []
        for phrase, same in zip(caption.phrases, cells.phrases, strict=True):
            if group := wanted.pop(phrase.text, []):
                overlaps = _overlaps(phrase.boxes, group)
                ious += overlaps
                boxes += _predicted_boxes(phrase.boxes, overlaps)
                placed += _placed("caption", scene, phrase.boxes, same.boxes, group)
                continue
            for box in phrase.boxes:
                nearest = max(_overlaps([box], [shape])[0] for shape in scene.shapes)
                boxes.append(PredictedBox(nearest, box.score, named=False))
        predicted, expected = len(caption.phrases), len(scene.groups)
        correct = expected - len(wanted)
        return Results(
            predicted, expected, correct, tuple(ious), boxes=tuple(boxes), placed=tuple(placed)
        )

    def _detailed(self, image: EncodedImage, scene: Scene, rng: np.random.Generator) -> Results:
        """Check shapes with size and place, word for word: "a small red circle at the top"."""
        example = language.detailed_caption(scene, rng, grounded=False)
        answer = self._ask(image, prompts.caption("detailed_caption")).text
        predicted, expected = (_mentions(text) for text in (answer, example.answer))
        correct = (Counter(predicted) & Counter(expected)).total()
        return Results(detailed=(len(predicted), len(expected), correct))

    def _phrase(self, image: EncodedImage, scene: Scene, rng: np.random.Generator) -> Results:
        """Ground one phrase of the scene, and each phrase that names several equal shapes."""
        groups = scene.groups
        group = groups[int(rng.integers(len(groups)))]
        name = language.group_name(group)
        results = self._ground(image, scene, "phrase_grounding", name, group)
        for several in groups:
            if len(several) > 1:
                name = language.group_name(several)
                results += self._ground(image, scene, "several_grounding", name, several)
        return results

    def _reference(self, image: EncodedImage, scene: Scene, rng: np.random.Generator) -> Results:
        reference = sample_reference(scene, rng)
        if reference is None:
            return Results()
        target = [reference.target]
        return self._ground(image, scene, "reference_grounding", reference.text, target)

    def _ground(
        self, image: EncodedImage, scene: Scene, task: str, words: str, shapes: list[Shape]
    ) -> Results:
        """Expect as many boxes as shapes, each with an IoU over 0.5."""
        boxes, cells = self.both_boxes(image, words)
        overlaps = _overlaps(boxes, shapes)
        right = min(overlaps) > 0.5
        return Results(
            boxes=_predicted_boxes(boxes, overlaps),
            answers=((task, right),),
            placed=_placed("grounding", scene, boxes, cells, shapes),
        )

    def _absent(self, image: EncodedImage, scene: Scene, rng: np.random.Generator) -> Results:
        """Expect no box for a phrase that is not in the scene, and the answer "no"."""
        phrase = language.absent_phrase(scene, rng)
        boxes = self.boxes(image, phrase)
        answer = self._ask(image, prompts.question(f"Is there {phrase}?")).text
        right = not boxes and answer == "no."
        return Results(boxes=_predicted_boxes(boxes, []), answers=(("absent", right),))

    def _answers(self, image: EncodedImage, scene: Scene, rng: np.random.Generator) -> Results:
        answers = []
        for task in EXACT_TASKS:
            if (example := task(scene, rng, True)) is not None:
                written = self.engine.generate(image, example.prompt)
                right = written.text.strip() == example.answer.strip()
                answers.append((task.__name__, right))
        return Results(answers=tuple(answers))

    def boxes(self, image: EncodedImage, words: str) -> tuple[grounding.Box, ...]:
        """Return the boxes of a phrase that the model is asked to locate in an encoded image."""
        return self.both_boxes(image, words)[0]

    def both_boxes(
        self, image: EncodedImage, words: str
    ) -> tuple[tuple[grounding.Box, ...], tuple[grounding.Box, ...]]:
        """Return the boxes of a phrase, and the same with corners at the centres of cells."""
        both = self._ask_both(image, prompts.phrase_grounding(words))
        refined, cells = (caption.phrases[0].boxes if caption.phrases else () for caption in both)
        return refined, cells


SIZE_CLASSES = ((5, "up to 5 cells"), (8, "5 to 8 cells"), (11, "8 to 11 cells"), (32, "larger"))
"""Rows of the table of boxes by size: the end of their range of Placed.cells, and their names."""

Check = Callable[[Evaluator, EncodedImage, Scene, np.random.Generator], Results]

CHECKS: dict[str, Check] = {
    "brief": Evaluator._brief,
    "detailed": Evaluator._detailed,
    "phrase": Evaluator._phrase,
    "reference": Evaluator._reference,
    "absent": Evaluator._absent,
    "answers": Evaluator._answers,
}
"""Checks of each scene, by name."""

EXACT_TASKS: tuple[language.MakeExample, ...] = (
    language.region_question,
    language.region_description,
    language.count_question,
    language.presence_question,
    language.colour_question,
    language.beside_question,
)
"""Tasks whose answer must be right word for word."""


def held_out_scene(seed: int, index: int) -> tuple[Scene, np.random.Generator]:
    """Return a scene, and the random generator for the questions about it."""
    rng = np.random.default_rng([1, seed, index])
    return sample_scene(rng, *FRAME_SIZES[index % len(FRAME_SIZES)], alike=ALIKE), rng


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


def _overlaps(boxes: Sequence[grounding.Box], shapes: Sequence[Shape]) -> list[float]:
    """Return the IoU of boxes and shapes in order, left to right; 0 where one is missing."""
    pairs = zip(boxes, shapes, strict=False)
    overlaps = [iou((b.x_min, b.y_min, b.x_max, b.y_max), shape.box) for b, shape in pairs]
    return overlaps + [0.0] * (max(len(boxes), len(shapes)) - len(overlaps))


def _predicted_boxes(
    boxes: Sequence[grounding.Box], overlaps: Sequence[float]
) -> tuple[PredictedBox, ...]:
    padded = [*overlaps, *[0.0] * len(boxes)]
    return tuple(PredictedBox(padded[number], box.score) for number, box in enumerate(boxes))


def _placed(
    task: str,
    scene: Scene,
    boxes: Sequence[grounding.Box],
    cells: Sequence[grounding.Box],
    shapes: Sequence[Shape],
) -> tuple[Placed, ...]:
    """Return how well `boxes` fit `shapes`, in order. `cells` are the same boxes, not refined."""
    count = min(len(boxes), len(shapes))
    overlaps = zip(shapes, _overlaps(boxes, shapes), _overlaps(cells, shapes), strict=False)
    return tuple(
        Placed(task, f"{scene.width}x{scene.height}", _size(shape), *both)
        for shape, *both in itertools.islice(overlaps, count)
    )


def _size(shape: Shape) -> float:
    x1, y1, x2, y2 = shape.box
    return math.sqrt((x2 - x1) * (y2 - y1)) * grounding.GRID


def _mentions(text: str) -> list[str]:
    words = text.strip().removeprefix("The image shows ").removesuffix(".")
    return words.replace(" and ", ", ").split(", ")


_evaluator: Evaluator  # of a worker process


def _load(model: str, device: str, quantization: str, repeat: int) -> None:
    global _evaluator
    engine = Engine.load(
        model,
        local_files_only=True,
        device=device,
        quantization=quantization,
        threads=1,
        no_repeat_ngram_size=repeat,
    )
    _evaluator = Evaluator(engine)


def _evaluate(place: tuple[int, int]) -> tuple[Results, Results | None]:
    """Return the results of scene (seed, index), and of one in JPEG_EVERY as JPEG, too."""
    seed, index = place
    scene, rng = held_out_scene(seed, index)
    if index % JPEG_EVERY:
        checks = [name for name in CHECKS if name != "detailed"]
        return _evaluator.evaluate(scene, rng, checks), None
    results = _evaluator.evaluate(scene, rng)
    scene, rng = held_out_scene(seed, index)
    as_jpeg = replace(scene, light=replace(scene.light, jpeg=JPEG))
    return results, _evaluator.evaluate(as_jpeg, rng)


def _caption(image: np.ndarray) -> Caption:
    return _evaluator.caption(_evaluator.engine.encode(image))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="evaluate-shapes", description="Measure the model `shapes` on held-out scenes."
    )
    parser.add_argument("--scenes", type=int, default=2000, help="number of scenes")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    parser.add_argument("--model", default="shapes", help="shapes (embedded), or a directory")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quantization", default="none", help="none, int8 or nf4")
    parser.add_argument(
        "--no-repeat-ngram-size", type=int, default=-1, help="-1: as the model says, 0: no limit"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, each on one core")
    parser.add_argument("--pictures", type=Path, help="folder for example frames and a chart")
    options = parser.parse_args()
    places = [(options.seed, index) for index in range(options.scenes)]
    arguments = (
        options.model, options.device, options.quantization, options.no_repeat_ngram_size,
    )  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(options.workers, _load, arguments) as pool:
        pairs = list(tqdm(pool.imap(_evaluate, places), total=options.scenes, unit="scene"))
    results = [as_drawn for as_drawn, _ in pairs]
    _print_table(results, [as_jpeg for _, as_jpeg in pairs if as_jpeg is not None])
    _print_places([placed for result in results for placed in result.placed])
    if options.pictures:
        _load(*arguments)
        scenes = [held_out_scene(*place)[0] for place in places]
        gallery.write(options.pictures, _caption, scenes, results)
    measured = metrics(results)
    print(json.dumps({k: None if v is None else round(v, 4) for k, v in measured.items()}))


def _print_table(results: Sequence[Results], as_jpeg: Sequence[Results]) -> None:
    columns = {"all": metrics(results)}
    for first, (width, height) in enumerate(FRAME_SIZES):
        columns[f"{width}x{height}"] = metrics(results[first :: len(FRAME_SIZES)])
    columns[f"jpeg {JPEG}"] = metrics(as_jpeg)
    print(f"{'':20}" + "".join(f"{name:>9}" for name in columns))
    for name in columns["all"]:
        row = [column[name] for column in columns.values()]
        print(f"{name:20}" + "".join("        -" if v is None else f"{v:9.3f}" for v in row))
    answers = [answer for result in results for answer in result.answers]
    for task in dict.fromkeys(task for task, _ in answers):
        right = [is_right for name, is_right in answers if name == task]
        print(f"{task:20}{np.mean(right):9.3f} of {len(right)}")


def _print_places(places: Sequence[Placed]) -> None:
    """Print the IoU of boxes at cell centres and of refined ones, by frame and by size."""
    columns = ("IoU", "boxes", "centres, mean", "refined, mean", "centres, p10", "refined, p10")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    frames = [f"{width}x{height}" for width, height in FRAME_SIZES]
    for task in ("grounding", "caption"):
        rows: dict[str, list[Placed]] = {
            name: [] for name in (*frames, *(name for _, name in SIZE_CLASSES))
        }
        for placed in (placed for placed in places if placed.task == task):
            rows[placed.frame].append(placed)
            rows[next(name for end, name in SIZE_CLASSES if placed.cells <= end)].append(placed)
        for name, row in rows.items():
            pairs = np.array([(placed.cell_iou, placed.iou) for placed in row] or [(np.nan,) * 2])
            figures = [*pairs.mean(0), *np.quantile(pairs, 0.1, axis=0)]
            print(f"| {task}, {name} | {len(row)} | {' | '.join(f'{v:.3f}' for v in figures)} |")


if __name__ == "__main__":
    main()
