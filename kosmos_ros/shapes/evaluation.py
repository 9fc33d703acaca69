"""Figures of a `shapes` model on scenes it never saw, through the same chain that the node uses.

Engine, prompts and grounding are the node's own, so a break in any of them shows here. Scene `i`
of seed `s` comes from the random stream [1, s, i]; training draws from streams that begin with
0.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kosmos_ros import grounding, prompts
from kosmos_ros.engine import Engine
from kosmos_ros.grounding import Caption
from kosmos_ros.shapes import language
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Box, Scene, sample_scene

FRAMES: tuple[tuple[int, int], ...] = ((320, 240), (640, 360), (240, 240))
"""Width and height in pixels of the frames: 4:3, 16:9 and 1:1."""


@dataclass(frozen=True)
class Found:
    """A phrase of a caption that names a shape of the scene."""

    iou: float  # of its first box with the shape's box
    score: float


@dataclass(frozen=True)
class Marks:
    """How one scene went; True is right."""

    said: int  # phrases in the brief caption
    drawn: int  # shapes in the scene
    found: tuple[Found, ...]
    region: bool
    count: bool
    present: bool  # "Is there ...?" about a shape of the scene
    absent: bool  # no box for a phrase that is not there, and "no" when asked for it
    pointed: float  # IoU of the box for a phrase of the scene, 0 without one


class Examiner:
    """Asks a loaded model about scenes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def mark(self, scene: Scene, rng: np.random.Generator) -> Marks:
        picture = self.engine.encode(render(scene))

        def ask(prompt: prompts.Prompt) -> Caption:
            written = self.engine.generate(picture, prompt.text)
            return grounding.read(written, prompt.text, prompt.lead)

        caption = ask(prompts.caption("brief_caption"))
        found = tuple(_found(caption, scene))
        wording = str(rng.choice(list(language.REGION_QUESTIONS)))
        shape, other = language.one_of(scene, rng), language.one_of(scene, rng)
        absent = language.absent_phrase(scene, rng)
        region = language.cells(language.jittered(shape.box, rng))
        answer = ask(prompts.question(wording, [region])).text
        count = ask(prompts.question("How many shapes are there?")).text
        pointed = ask(prompts.phrase_grounding(other.phrase)).phrases
        missed = ask(prompts.phrase_grounding(absent)).phrases
        return Marks(
            said=len(caption.phrases),
            drawn=len(scene.shapes),
            found=found,
            region=answer == f"{language.REGION_QUESTIONS[wording](shape)}.",
            count=count == f"{language.NUMBERS[len(scene.shapes)]}.",
            present=ask(prompts.question(f"Is there {other.phrase}?")).text == "yes.",
            absent=not missed and ask(prompts.question(f"Is there {absent}?")).text == "no.",
            pointed=iou(_corners(pointed[0].boxes[0]), other.box) if pointed else 0.0,
        )


def held_out_scenes(count: int, seed: int) -> Iterator[tuple[Scene, np.random.Generator]]:
    """Scenes, each with the random stream that the questions about it come from."""
    for index in range(count):
        rng = np.random.default_rng([1, seed, index])
        yield sample_scene(rng, *FRAMES[index % len(FRAMES)]), rng


def figures(marks: list[Marks]) -> dict[str, float | None]:
    """The measured figures by name; None where nothing was measured."""
    found = [one for mark in marks for one in mark.found]
    ious = np.array([one.iou for one in found])
    over_half = ious > 0.5
    said, drawn = sum(mark.said for mark in marks), sum(mark.drawn for mark in marks)
    return {
        "phrase_f1": 2.0 * len(found) / max(said + drawn, 1),
        "mean_iou": _mean(ious),
        "iou50": _mean(over_half),
        "region_accuracy": _mean([mark.region for mark in marks]),
        "question_accuracy": _mean(
            [right for mark in marks for right in (mark.count, mark.present)]
        ),
        "absent_accuracy": _mean([mark.absent for mark in marks]),
        "score_auroc": _auroc(np.array([one.score for one in found]), over_half),
    }


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


def _found(caption: Caption, scene: Scene) -> Iterator[Found]:
    """Phrases that name a shape of the scene; each shape is found once."""
    wanted = dict(scene.truth)
    for phrase in caption.phrases:
        if (box := wanted.pop(phrase.text, None)) is not None:
            yield Found(iou(_corners(phrase.boxes[0]), box), phrase.boxes[0].score)


def _corners(box: grounding.Box) -> Box:
    return box.x_min, box.y_min, box.x_max, box.y_max


def _mean(values: np.ndarray | list[bool]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Chance that a right one scores above a wrong one, ties counting half (Mann-Whitney U)."""
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return None
    above = (good[:, None] > bad[None, :]).mean() + 0.5 * (good[:, None] == bad[None, :]).mean()
    return float(above)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="evaluate-shapes", description="Measure the model `shapes` on held-out scenes."
    )
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="shapes", help="the embedded model, or a directory")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    examiner = Examiner(Engine.load(options.model, local_files_only=True, device=options.device))
    scenes = held_out_scenes(options.scenes, options.seed)
    marks = [examiner.mark(*pair) for pair in tqdm(scenes, total=options.scenes, unit="scene")]
    measured = figures(marks)
    by_frame = {
        f"{width}x{height}": figures(marks[start :: len(FRAMES)])
        for start, (width, height) in enumerate(FRAMES)
    }
    print(f"{'':20}{'all':>9}" + "".join(f"{frame:>9}" for frame in by_frame))
    for name, value in measured.items():
        row = [value, *(part[name] for part in by_frame.values())]
        print(f"{name:20}" + "".join("        -" if v is None else f"{v:9.3f}" for v in row))
    print(f"count right {_mean([mark.count for mark in marks]):.3f}")
    print(f"phrase grounding: mean IoU {np.mean([mark.pointed for mark in marks]):.3f}")
    print(json.dumps({k: None if v is None else round(v, 4) for k, v in measured.items()}))


if __name__ == "__main__":
    main()
