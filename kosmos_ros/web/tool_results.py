# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the tools for agents return. The descriptions are part of the schemas that agents read.

Knows JSON for the page; no tool and no connection.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kosmos_ros.web.looks import Json


class Corners(BaseModel):
    """A region in pixels of the image. The box of a result is one."""

    model_config = ConfigDict(strict=True)  # otherwise true and "5" are numbers, too

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Box(Corners):
    """A box in pixels of the image."""

    score: float = Field(description="probability of the box's corners, 0 to 1")


class Phrase(BaseModel):
    """A part of a text and its places in the image."""

    text: str
    boxes: list[Box] = Field(description="empty: not in view")


class Frame(BaseModel):
    """The image that a result is about."""

    camera: str
    stamp: str = Field(description="name of this frame; pass it to ask, find or describe")
    width: int = Field(description="pixels")
    height: int = Field(description="pixels")


class Answer(Frame):
    """The model's answer about a frame."""

    text: str
    phrases: list[Phrase]
    score: float = Field(description="mean probability of the tokens, 0 to 1")
    truncated: bool = Field(description="true: the token limit cut off the text")


class QuestionAnswer(BaseModel):
    """The answer to a question that the node answers for every frame."""

    question: str
    answer: str


class Sight(Frame):
    """A described frame."""

    caption: str
    phrases: list[Phrase] = Field(description="phrases of the caption")
    looked_for: list[Phrase] = Field(description="phrases that the node looks for in every frame")
    answers: list[QuestionAnswer]


class Camera(BaseModel):
    """One camera."""

    name: str
    topic: str
    level: Literal["ok", "warn", "error", "stale", "unknown"]
    message: str
    images_per_second: float | None = Field(
        description="null: not measured, because nobody subscribes to results of this camera"
    )
    captions_per_second: float = Field(
        description="frames described; 0 while nobody subscribes to results of this camera"
    )


class Cameras(BaseModel):
    """The node and its cameras."""

    state: Literal["ready", "loading", "error", "inactive", "gone"]
    message: str
    cameras: list[Camera]


class Event(BaseModel):
    """A change in what a camera sees, on which several consecutive frames agree."""

    camera: str
    stamp: str
    kind: Literal["appeared", "disappeared", "answered", "unknown"]
    subject: str = Field(description="the phrase or the question")
    answer: str
    previous: str = Field(description="the earlier answer; empty: none")
    phrases: list[Phrase]


class Waited(BaseModel):
    """The event, or the reason why there is none."""

    event: Event | None
    reason: str = Field(description="why there is no event; empty: there is one")


def phrases_of(phrases: list[Json]) -> list[Phrase]:
    """Return phrases as agents read them; `phrases` are JSON for the page."""
    return [
        Phrase(
            text=phrase["text"],
            boxes=[
                Box(**dict(zip(Box.model_fields, box, strict=True))) for box in phrase["boxes"]
            ],
        )
        for phrase in phrases
    ]


def sight_of(look: Json) -> Sight:
    """Return a look as agents read it; `look` is JSON for the page."""
    caption = look["caption"]
    return Sight(
        camera=look["camera"],
        stamp=look["stamp"],
        width=look["width"],
        height=look["height"],
        caption=caption["text"],
        phrases=phrases_of(caption["phrases"]),
        looked_for=phrases_of(look["phrases"]),
        answers=[
            QuestionAnswer(question=answer["question"], answer=answer["answer"])
            for answer in look["answers"]
        ],
    )
