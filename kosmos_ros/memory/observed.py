# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make the record of a described frame, of a camera or of a bag. Knows no file and no ROS."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from kosmos_ros.kosmos2 import grounding
from kosmos_ros.memory.records import Answer, Box, Observation, Phrase, Pose
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import FrameResult

MODEL_SETTINGS = (
    "revision", "dtype", "quantization", "no_repeat_ngram_size", "location_grammar",
    "refine_boxes",
)  # fmt: skip
CAMERA_SETTINGS = ("grounded", "max_new_tokens", "min_score", "prompt")
"""Parameters of the node and of a camera that change the results, and belong to the log."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The frame that was described."""

    stamp: int  # ns
    camera: str  # name; empty for the only camera
    frame_id: str
    width: int  # pixels
    height: int  # pixels


def record_of(
    source: Source,
    result: FrameResult,
    camera: CameraSettings,
    model: str,
    settings: Mapping[str, Any],
    pose: Pose | None = None,
) -> Observation:
    """Return the record of a frame without its thumbnail.

    `camera` has the settings of its plan. `settings` has those of the model: MODEL_SETTINGS.
    """
    size = source.width, source.height
    # The answers to the parameter questions may be the result of the task; they are no caption.
    captions = [each for _, each in result.task] if camera.task != "question" else []
    caption = captions[0] if captions else grounding.Caption("")
    values = {name: settings[name] for name in MODEL_SETTINGS}
    values |= {name: getattr(camera, name) for name in CAMERA_SETTINGS}
    return Observation(
        stamp=source.stamp,
        camera=source.camera,
        caption=caption.text,
        task=camera.task,
        phrases=(*phrases_in_view(caption.phrases, *size), *_requested(result, camera, *size)),
        answers=_answers(result, *size),
        raw_text="\n".join(each.raw_text for _, each in result.task),
        score=float(caption.score),
        frame_id=source.frame_id,
        width=source.width,
        height=source.height,
        model=model,
        settings=json.dumps(values, sort_keys=True),
        pose=pose,
    )


def _requested(
    result: FrameResult, camera: CameraSettings, width: int, height: int
) -> tuple[Phrase, ...]:
    """Return those of the parameter phrases that are in view, unless the caption has them."""
    if camera.task == "phrase_grounding":
        return ()
    found = [phrase for _, each in result.captions.get("phrases", ()) for phrase in each.phrases]
    phrases = phrases_in_view(found, width, height)
    return tuple(dataclasses.replace(phrase, start=0, end=0) for phrase in phrases)


def _answers(result: FrameResult, width: int, height: int) -> tuple[Answer, ...]:
    questions = result.findings.get("questions", ())
    answers = result.captions.get("questions", ())
    return tuple(
        Answer(
            finding.subject,
            each.text,
            float(each.score),
            phrases_in_view(each.phrases, width, height),
        )
        for finding, (_, each) in zip(questions, answers, strict=True)
    )


def phrases_in_view(
    phrases: Iterable[grounding.Phrase], width: int, height: int
) -> tuple[Phrase, ...]:
    """Return phrases that are in view, with boxes in pixels of an image of this size."""
    return tuple(
        Phrase(
            phrase.text,
            phrase.start,
            phrase.end,
            tuple(_box(box.scaled(width, height)) for box in phrase.boxes),
        )
        for phrase in phrases
        if phrase.boxes
    )


def _box(box: grounding.Box) -> Box:
    corners = (float(box.x_min), float(box.y_min), float(box.x_max), float(box.y_max))
    return Box(*corners, float(box.score))
