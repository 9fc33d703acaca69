# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Show which `min_score` separates phrases in view from absent ones, on held-out scenes.

    python -m training.min_score [--scenes N] [--model DIRECTORY]

Each line of the table is a value of the parameter: the share of the right boxes (IoU over 0.5)
that it keeps, and the share of absent phrases that still have a box. Absent shapes are phrases of
shapes that the scene lacks. Absent things are phrases that no scene shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import Box
from kosmos_ros.shapes.rendering import render
from training import language
from training.evaluation import Evaluator, held_out_scene, iou

THINGS = (
    "an elephant", "a person", "a dog", "a chair", "the door", "a red car", "a cup",
    "a blue shirt", "a traffic light", "a green tree",
)  # fmt: skip
"""Phrases that no scene shows."""

THRESHOLDS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
SEED = 5  # of the scenes; not one of scripts/evaluate-shapes or of training


@dataclass(frozen=True)
class Scores:
    """Scores of the boxes that the model writes when it is asked to locate phrases."""

    right: Sequence[float]  # of each box of a phrase in view with an IoU over 0.5
    shapes: Sequence[float]  # the highest of each absent shape; -1: it has no box
    things: Sequence[float]  # the same of each thing

    def shares(self, min_score: float) -> tuple[float, float, float]:
        """Return which share of each list has at least `min_score`."""
        right, shapes, things = (
            sum(score >= min_score for score in scores) / max(len(scores), 1)
            for scores in (self.right, self.shapes, self.things)
        )
        return right, shapes, things


def measure(evaluator: Evaluator, scenes: int) -> Scores:
    """Locate every group of shapes, an absent shape and one of THINGS in each scene."""
    right: list[float] = []
    shapes: list[float] = []
    things: list[float] = []
    for index in range(scenes):
        scene, rng = held_out_scene(SEED, index)
        image = evaluator.engine.encode(render(scene))
        for group in scene.groups:
            found = evaluator.boxes(image, language.group_name(group))
            right += [
                box.score
                for box in found
                if max(iou(_corners(box), shape.box) for shape in group) > 0.5
            ]
        absent = language.absent_phrase(scene, rng)
        shapes.append(_highest(evaluator.boxes(image, absent)))
        things.append(_highest(evaluator.boxes(image, THINGS[index % len(THINGS)])))
    return Scores(right, shapes, things)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x_min, box.y_min, box.x_max, box.y_max


def _highest(boxes: Iterable[Box]) -> float:
    return max((box.score for box in boxes), default=-1.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="min_score", description="Measure min_score.")
    parser.add_argument("--scenes", type=int, default=1000, help="number of scenes")
    parser.add_argument("--model", default="shapes", help="shapes (embedded), or a directory")
    options = parser.parse_args()
    engine = Engine.load(options.model, local_files_only=True, device="cpu", threads=1)
    scores = measure(Evaluator(engine), options.scenes)
    print(
        f"{len(scores.right)} right boxes, {len(scores.shapes)} absent shapes, "
        f"{len(scores.things)} absent things"
    )
    print("min_score   right boxes kept   absent shapes with a box   absent things with a box")
    for threshold in THRESHOLDS:
        right, shapes, things = scores.shares(threshold)
        print(f"{threshold:9.2f}{right:19.2%}{shapes:27.2%}{things:27.2%}")


if __name__ == "__main__":
    main()
