# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The topics on which a camera's results are published, as one table: OUTPUTS.

Knows messages and their contents; no subscription, no parameter and no thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from kosmos_msgs.msg import Answer, Event, GroundedCaption
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from kosmos_ros.images.drawing import annotate
from kosmos_ros.ros.conversions import (
    Detection2DArray,
    answer_message,
    compressed_message,
    detections_message,
    event_message,
    frame_message,
    image_message,
    observation_message,
)
from kosmos_ros.serving import events
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, TASK, FrameResult, PromptCaption
from kosmos_ros.serving.work import Observation

GROUNDING = "<grounding>"
"""The tag without which a prompt in KOSMOS-2's own language is answered without boxes."""


@dataclass(frozen=True)
class DescribedFrame:
    """A described frame, with everything that its messages contain."""

    observation: Observation
    result: FrameResult
    events: tuple[events.Event, ...]
    model: str
    now: float  # s by the node's clock, time of publication

    @functools.cached_property
    def captions(self) -> tuple[GroundedCaption, ...]:
        """The messages for the parameter `task`."""
        return self.messages(self.result.task)

    @functools.cached_property
    def annotated(self) -> tuple[np.ndarray, ...]:
        """The image (H, W, 3) with the boxes of the caption; empty if the frame has no caption."""
        captions = self.result.task[:1]
        return tuple(annotate(self.observation.image, caption) for _, caption in captions)

    def messages(self, captions: Iterable[PromptCaption]) -> tuple[GroundedCaption, ...]:
        """Return a message for each prompt and its caption."""
        return tuple(
            observation_message(self.observation, prompt, caption, self.model, self.now)
            for prompt, caption in captions
        )


def _detections(described: DescribedFrame) -> Iterable[Any]:
    """Return the boxes of the parameter `phrases`, or of the caption if there are none."""
    captions = described.result.captions.get("phrases") or described.result.task[:1]
    return [detections_message(described.observation, caption.phrases) for _, caption in captions]


def _answers(described: DescribedFrame) -> Iterable[Answer]:
    findings = described.result.findings.get("questions", ())
    captions = described.result.captions.get("questions", ())
    return [
        answer_message(described.observation, finding.subject, caption)
        for finding, (_, caption) in zip(findings, captions, strict=True)
    ]


@dataclass(frozen=True)
class Output:
    """A topic, and the parts of a camera's plan that its messages need."""

    topic: str
    type: Any
    when: Callable[[CameraSettings], Collection[str]]
    """Returns the parts of the plan that are needed, see plan.Plan; empty: any part will do."""
    make: Callable[[DescribedFrame], Iterable[Any]]  # the messages of one frame
    slow: bool = False  # takes long, so only the newest frame waits for it
    kept: int = 0  # newest messages that a late subscriber receives, if it asks for them; 0: none
    empty: Callable[[CameraSettings], str] = lambda settings: ""
    """Returns why no message can have content with these parameters; empty: some can."""


def _task(settings: CameraSettings) -> Collection[str]:
    return (TASK,)


def _boxes(settings: CameraSettings) -> Collection[str]:
    return ("phrases",) if settings.phrases else (TASK,)


def _no_boxes(settings: CameraSettings) -> str:
    """Return why the detections have no boxes; empty if they may have some."""
    if settings.phrases or settings.task == "phrase_grounding":
        return ""
    if settings.task == "prompt":
        missing = GROUNDING not in settings.prompt
        return f"parameter prompt has no {GROUNDING}" if missing else ""
    return "" if settings.grounded else "parameter grounded is false"


OUTPUTS: tuple[Output, ...] = (
    Output("captions", GroundedCaption, _task, lambda frame: frame.captions),
    Output(
        "text",
        String,
        _task,
        lambda frame: [String(data=message.caption) for message in frame.captions],
    ),
    Output(
        "phrases",
        GroundedCaption,
        lambda settings: ("phrases",),
        lambda frame: frame.messages(frame.result.captions.get("phrases", ())),
    ),
    Output("answers", Answer, lambda settings: ("questions",), _answers),
    Output(
        "events",
        Event,
        lambda settings: tuple(standing.name for standing in STANDING),
        lambda frame: [event_message(frame.observation, event) for event in frame.events],
        kept=100,
    ),
    Output(
        "annotated",
        Image,
        _task,
        lambda frame: [image_message(i, frame.observation.header) for i in frame.annotated],
        slow=True,
    ),
    Output(
        "annotated/compressed",
        CompressedImage,
        _task,
        lambda frame: [compressed_message(i, frame.observation.header) for i in frame.annotated],
        slow=True,
    ),
    Output(
        "frame/compressed",
        CompressedImage,
        lambda settings: (),
        lambda frame: [frame_message(frame.observation)],
        slow=True,
    ),
)
"""All topics of a camera: ~/<topic> for a single camera, ~/<camera>/<topic> for one of several."""

if Detection2DArray is not None:
    OUTPUTS += (Output("detections", Detection2DArray, _boxes, _detections, empty=_no_boxes),)
