# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation and their metrics. Knows no model and no scene."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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
"""Metrics that are a share of right answers, and the tasks that they count."""


@dataclass(frozen=True)
class PredictedBox:
    """A predicted box."""

    iou: float  # with its phrase's shape; 0: there is none
    score: float
    named: bool = True  # its phrase is right; otherwise `iou` is with the nearest shape


@dataclass(frozen=True)
class Placed:
    """How well a box fits a shape that the model named."""

    task: str  # caption or grounding
    frame: str  # width x height in pixels
    cells: float  # square root of the true area, in cells of the model's grid
    iou: float  # with the shape
    cell_iou: float  # the same if the corners were at the centres of their cells


@dataclass(frozen=True)
class Results:
    """Results of one scene in the checks that were made; `+` adds up results."""

    predicted: int = 0  # phrases in the brief caption
    expected: int = 0  # phrases that it should have
    correct: int = 0  # phrases that it has and should have
    ious: tuple[float, ...] = ()  # boxes of the `correct`; 0 for a missing or superfluous box
    detailed: tuple[int, int, int] = (0, 0, 0)  # the same counts for the detailed caption
    boxes: tuple[PredictedBox, ...] = ()  # of all tasks
    answers: tuple[tuple[str, bool], ...] = ()  # task, and whether its answer is right
    placed: tuple[Placed, ...] = ()  # boxes of right phrases

    def __add__(self, other: "Results") -> "Results":
        first, second = self.detailed, other.detailed
        return Results(
            self.predicted + other.predicted,
            self.expected + other.expected,
            self.correct + other.correct,
            self.ious + other.ious,
            (first[0] + second[0], first[1] + second[1], first[2] + second[2]),
            self.boxes + other.boxes,
            self.answers + other.answers,
            self.placed + other.placed,
        )


def metrics(results: Iterable[Results]) -> dict[str, float | None]:
    """Return the metrics by name; None where nothing was measured.

    phrase_f1, mean_iou and iou50 describe the brief caption. score_auroc is the AUROC of the
    scores of all boxes of brief captions and groundings; a box is right if its IoU is over 0.5
    with its phrase's shape, or with the nearest shape if the phrase is wrong or repeated. For
    named_auroc the boxes of such phrases are always wrong.
    """
    total = sum(results, Results())
    ious = np.array(total.ious)
    over_half = np.array([box.iou > 0.5 for box in total.boxes], dtype=bool)
    named = np.array([box.named for box in total.boxes], dtype=bool)
    scores = np.array([box.score for box in total.boxes])
    accuracies = {
        name: _mean([right for task, right in total.answers if task in tasks])
        for name, tasks in ACCURACIES.items()
    }
    return {
        "phrase_f1": _f1(total.predicted, total.expected, total.correct),
        "mean_iou": _mean(ious),
        "iou50": _mean(ious > 0.5),
        **accuracies,
        "detailed_f1": _f1(*total.detailed),
        "score_auroc": _auroc(scores, over_half),
        "named_auroc": _auroc(scores, over_half & named),
    }


def _f1(predicted: int, expected: int, correct: int) -> float | None:
    return 2.0 * correct / (predicted + expected) if expected else None


def _mean(values: np.ndarray | list[bool]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Return the chance that a right box scores above a wrong one; ties count half.

    This is the Mann-Whitney U statistic, divided by the number of pairs.
    """
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return None
    above = (good[:, None] > bad[None, :]).mean() + 0.5 * (good[:, None] == bad[None, :]).mean()
    return float(above)
