# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The records of an observation log. Knows no file, no ROS and no model.

Boxes are in pixels of the source image: x right, y down, origin at the image's top-left corner.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in an image."""

    x_min: float  # pixels of the source image, all four
    y_min: float
    x_max: float  # > x_min
    y_max: float  # > y_min
    score: float = 0.0  # [0, 1]
    track: int | None = None  # number of the object over time; None: not tracked
    position: tuple[float, float, float] | None = None  # m, x y z in the frame of the pose


@dataclass(frozen=True)
class Phrase:
    """Words, and the boxes of what they mean."""

    text: str
    start: int  # code points from the start of the caption or answer; 0 if it is no part of it
    end: int  # code points, exclusive; 0 if the phrase is no part of the caption or answer
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer to one question about an image."""

    question: str
    text: str
    score: float = 0.0  # [0, 1], mean probability of its tokens
    phrases: tuple[Phrase, ...] = ()


@dataclass(frozen=True)
class Pose:
    """The pose of the robot when an image was taken."""

    frame_id: str
    x: float  # m
    y: float  # m
    z: float = 0.0  # m
    qx: float = 0.0  # orientation, a unit quaternion
    qy: float = 0.0
    qz: float = 0.0
    qw: float = 1.0


@dataclass(frozen=True)
class Observation:
    """A described frame with its results."""

    stamp: int  # ns, of the image
    camera: str  # name; empty for the only camera
    caption: str  # text without tags; empty if the frame has only answers
    task: str = "brief_caption"  # kind of the caption, as in kosmos_msgs/GroundedCaption
    phrases: tuple[Phrase, ...] = ()  # of the caption, then the requested ones in view (0, 0)
    answers: tuple[Answer, ...] = ()
    raw_text: str = ""  # prompt and output of the model, with tags
    score: float = 0.0  # [0, 1], mean probability of the caption's tokens
    frame_id: str = ""  # of the image
    width: int = 0  # pixels of the source image
    height: int = 0  # pixels of the source image
    model: str = ""  # Hugging Face id, directory or shapes
    settings: str = "{}"  # JSON object of the settings that change the model's results
    pose: Pose | None = None  # None: unknown
    thumbnail: bytes | None = None  # WebP; None: none was kept
    id: int | None = None  # see ObservationLog; None: not in a log yet

    @property
    def shown(self) -> tuple[Phrase, ...]:
        """The phrases of the caption and of the answers that have boxes."""
        both = [*self.phrases, *(phrase for answer in self.answers for phrase in answer.phrases)]
        return tuple(phrase for phrase in both if phrase.boxes)

    @property
    def said(self) -> list[tuple[str, float]]:
        """The caption, the answers and the requested phrases in view, each with its score.

        Phrases of the caption and of the answers are left out, because these texts contain them.
        """
        texts = [(self.caption, self.score), *((each.text, each.score) for each in self.answers)]
        others = [
            (phrase.text, max(box.score for box in phrase.boxes))
            for phrase in self.shown
            if phrase.end == 0
        ]
        return texts + others


@dataclass(frozen=True)
class Event:
    """A lasting change in what a camera sees."""

    stamp: int  # ns, of the image that confirmed the change
    camera: str
    kind: str  # appeared, disappeared or answered
    subject: str  # the phrase or the question
    answer: str = ""
    previous: str = ""  # the previous answer
    since: int = 0  # ns, stamp of the first image with the change
    phrases: tuple[Phrase, ...] = ()  # the phrase that appeared, with its boxes
