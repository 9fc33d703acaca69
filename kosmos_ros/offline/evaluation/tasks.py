# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tasks of an evaluation: what the model is asked about a sample, and how it is scored.

Prompts and scores are those of section 4 of the paper (https://arxiv.org/abs/2306.14824) and of
https://github.com/microsoft/unilm/tree/master/kosmos-2/evaluation. Knows no image and no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.offline.evaluation import vqa
from kosmos_ros.offline.evaluation.datasets import Sample
from kosmos_ros.offline.evaluation.scores import Corners, iou, normal, wilson

RIGHT = 0.5
"""Lowest IoU of a right box, as in Microsoft's evaluation."""


@dataclass(frozen=True)
class Answer:
    """What the model says about a sample, and how good it is."""

    sample: Sample
    prompt: str = ""
    prediction: Corners | str | None = None  # box [pixels] or text; None: none
    iou: float | None = None  # of the box and the true box that fits it best
    score: float | None = None  # None: the truth is not published, or CIDEr is computed later
    error: KosmosError | None = None  # why there is no answer

    def as_json(self) -> dict[str, Any]:
        """Return the fields of a line of details."""
        sample, boxes = self.sample, self.sample.boxes
        value: dict[str, Any] = {
            "id": sample.key,
            "image": sample.file,
            "prompt": self.prompt,
            "prediction": self.prediction,
            "truth": boxes or sample.texts,
            "score": self.score,
        }
        if boxes:
            value["iou"] = self.iou
        if self.error:
            value["error"] = str(self.error)
        return value


@dataclass(frozen=True)
class Task:
    """How one kind of data set is evaluated."""

    metric: str
    prompt: Callable[[Sample], Prompt]  # raises PromptError
    answer: Callable[[Sample, str, Caption], Answer]  # sample, prompt, the model's caption
    interval: Callable[[Sequence[float]], tuple[float, float] | None] = wilson


def failed(sample: Sample, error: KosmosError, prompt: str = "") -> Answer:
    """Return the answer about a sample that failed. It counts as wrong, if the truth is known."""
    known = sample.boxes or sample.texts
    return Answer(sample, prompt, score=0.0 if known else None, error=error)


def _box(sample: Sample, prompt: str, caption: Caption) -> Answer:
    """Score the first box of the phrase: 1 if it fits one of the true boxes, else 0."""
    first = caption.phrases[:1]
    if not first or first[0].start != 0 or not first[0].boxes:
        return Answer(sample, prompt, iou=0.0, score=0.0)
    box = first[0].boxes[0].scaled(*sample.size)
    corners = (box.x_min, box.y_min, box.x_max, box.y_max)
    best = max(iou(corners, truth) for truth in sample.boxes)
    return Answer(sample, prompt, corners, best, float(best >= RIGHT))


def _vqa_answer(sample: Sample, prompt: str, caption: Caption) -> Answer:
    """Score an answer in the form that people give: lower case, without a period at the end.

    The official evaluation compares answers letter by letter where all people agree.
    """
    text = caption.text.lower().removesuffix(".")
    score = vqa.accuracy(text, sample.texts) if sample.texts else None
    return Answer(sample, prompt, text, score=score)


def _caption_prompt(sample: Sample) -> Prompt:
    # The caption that is scored is the text after the prompt: true captions have no "An image of".
    return replace(prompts.caption("brief_caption", grounded=False), lead="")


TASKS = {
    "rec": Task("accuracy at IoU 0.5", lambda sample: prompts.phrase_grounding(sample.text), _box),
    "grounding": Task(
        "R@1 at IoU 0.5",
        lambda sample: prompts.phrase_grounding(sample.text, sample.before),
        _box,
    ),
    "caption": Task(
        "CIDEr",
        _caption_prompt,
        lambda sample, prompt, caption: Answer(sample, prompt, caption.text),
        normal,
    ),
    "vqa": Task(
        "VQA accuracy",
        lambda sample: prompts.question(sample.text, grounded=False),
        _vqa_answer,
    ),
}
"""Tasks by name: referring expression comprehension, phrase grounding, captions and questions."""
