# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make the messages of a described frame as the node makes them, without ROS: OUTPUTS.

The fields are those of ros/conversions.py; a test compares both. The folder `definitions` has the
types. Knows no file, no model and no settings of the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kosmos_ros.images.drawing import annotate, colours_of, ink_on, jpeg, line_width, text_size
from kosmos_ros.kosmos2.grounding import Box, Phrase
from kosmos_ros.serving.plan import TASK, FrameResult, PromptCaption

DEFINITIONS = Path(__file__).parent / "definitions"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
LINE_LOOP = 2  # foxglove_msgs/PointsAnnotation.LINE_LOOP
COVARIANCE = 36  # numbers of geometry_msgs/PoseWithCovariance.covariance


class Types:
    """All message types that are read and written, in a store of the package rosbags."""

    def __init__(self) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        # Image, CompressedImage and Header are the same in all distributions since Humble.
        self.store = get_typestore(Stores.ROS2_JAZZY)
        for path in sorted(DEFINITIONS.glob("*/msg/*.msg")):
            name = path.relative_to(DEFINITIONS).with_suffix("").as_posix()
            self.store.register(get_types_from_msg(path.read_text(), name))
        for name in (IMAGE, COMPRESSED):  # made now, because several threads read messages
            self.store.get_msgdef(name)

    def new(self, name: str, **fields: Any) -> Any:
        """Return a message of the type `name`. All fields must be given."""
        return self.store.types[name](**fields)

    def data(self, message: Any) -> bytes:
        """Return a message as CDR."""
        return bytes(self.store.serialize_cdr(message, message.__msgtype__))


@dataclass(frozen=True, eq=False)
class DescribedImage:
    """A frame with its results, and everything else that its messages contain."""

    camera: str  # empty if the bag has one camera
    header: Any  # of the image message
    image: np.ndarray  # (H, W, 3) uint8 RGB
    result: FrameResult
    model: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width, _ = self.image.shape
        return width, height


Make = Callable[[Types, DescribedImage], Iterable[Any]]


@dataclass(frozen=True)
class Output:
    """A topic of a camera, as in ros/outputs.py."""

    topic: str
    type: str
    parts: frozenset[str]  # of the plan: the topic is in the bag if the plan has any of them
    make: Make  # the messages of one frame


def _messages(types: Types, frame: DescribedImage, captions: Iterable[PromptCaption]) -> list[Any]:
    width, height = frame.size
    return [
        types.new(
            "kosmos_msgs/msg/GroundedCaption",
            header=frame.header,
            camera=frame.camera,
            image_width=width,
            image_height=height,
            task=prompt.task,
            prompt=prompt.text,
            caption=caption.text,
            phrases=_phrases(types, caption.phrases, frame.size),
            raw_text=caption.raw_text,
            score=float(caption.score),
            generated_tokens=int(caption.generated_tokens),
            truncated=bool(caption.truncated),
            # Times of this run, which would differ in the next one.
            latency=types.new("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
            inference_time=types.new("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
            frames_dropped=0,
            model=frame.model,
        )
        for prompt, caption in captions
    ]


def _captions(types: Types, frame: DescribedImage) -> Iterable[Any]:
    return _messages(types, frame, frame.result.task)


def _located(types: Types, frame: DescribedImage) -> Iterable[Any]:
    return _messages(types, frame, frame.result.captions.get("phrases", ()))


def _answers(types: Types, frame: DescribedImage) -> Iterable[Any]:
    findings = frame.result.findings.get("questions", ())
    captions = frame.result.captions.get("questions", ())
    return [
        types.new(
            "kosmos_msgs/msg/Answer",
            header=frame.header,
            camera=frame.camera,
            question=finding.subject,
            answer=caption.text,
            score=float(caption.score),
            phrases=_phrases(types, caption.phrases, frame.size),
        )
        for finding, (_, caption) in zip(findings, captions, strict=True)
    ]


def _boxes(frame: DescribedImage) -> list[tuple[str, Box]]:
    """Return the boxes of the requested phrases, or of the caption if there are none, in pixels.

    Each has the text of its phrase.
    """
    captions = frame.result.captions.get("phrases") or frame.result.task[:1]
    return [
        (phrase.text, box.scaled(*frame.size))
        for _, caption in captions
        for phrase in caption.phrases
        for box in phrase.boxes
    ]


def _detections(types: Types, frame: DescribedImage) -> Iterable[Any]:
    found = [_detection(types, frame.header, text, box) for text, box in _boxes(frame)]
    return [
        types.new("vision_msgs/msg/Detection2DArray", header=frame.header, detections=found),
    ]


def _detection(types: Types, header: Any, text: str, box: Box) -> Any:
    new = types.new
    pose = new(
        "geometry_msgs/msg/Pose",
        position=new("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
        orientation=new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    hypothesis = new(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=new("vision_msgs/msg/ObjectHypothesis", class_id=text, score=float(box.score)),
        pose=new(
            "geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(COVARIANCE)
        ),
    )
    centre = new(
        "vision_msgs/msg/Point2D",
        x=float(box.x_min + box.x_max) / 2.0,
        y=float(box.y_min + box.y_max) / 2.0,
    )
    return new(
        "vision_msgs/msg/Detection2D",
        header=header,
        results=[hypothesis],
        bbox=new(
            "vision_msgs/msg/BoundingBox2D",
            center=new("vision_msgs/msg/Pose2D", position=centre, theta=0.0),
            size_x=float(box.x_max - box.x_min),
            size_y=float(box.y_max - box.y_min),
        ),
        id="",
    )


def _annotated(types: Types, frame: DescribedImage) -> Iterable[Any]:
    return [
        types.new(
            COMPRESSED,
            header=frame.header,
            format="rgb8; jpeg compressed bgr8",
            data=np.frombuffer(jpeg(annotate(frame.image, caption)), np.uint8),
        )
        for _, caption in frame.result.task[:1]
    ]


def _annotations(types: Types, frame: DescribedImage) -> Iterable[Any]:
    """Make the boxes of ~/detections and their labels, for Foxglove's panel Image."""
    stamp, new = frame.header.stamp, types.new
    boxes = _boxes(frame)
    colours = colours_of(text for text, _ in boxes)
    size = text_size(*frame.size)

    def colour(rgb: tuple[int, int, int], alpha: float = 1.0) -> Any:
        red, green, blue = (value / 255 for value in rgb)
        return new("foxglove_msgs/msg/Color", r=red, g=green, b=blue, a=alpha)

    def point(x: float, y: float) -> Any:
        return new("foxglove_msgs/msg/Point2", x=float(x), y=float(y))

    outlines = [
        new(
            "foxglove_msgs/msg/PointsAnnotation",
            timestamp=stamp,
            type=LINE_LOOP,
            points=[
                point(box.x_min, box.y_min),
                point(box.x_max, box.y_min),
                point(box.x_max, box.y_max),
                point(box.x_min, box.y_max),
            ],
            outline_color=colour(colours[text]),
            outline_colors=[],
            fill_color=colour((0, 0, 0), 0.0),
            thickness=float(line_width(size)),
            metadata=[],
        )
        for text, box in boxes
    ]
    labels = [
        new(
            "foxglove_msgs/msg/TextAnnotation",
            timestamp=stamp,
            position=point(box.x_min, max(box.y_min, size)),  # its lower left corner
            text=f"{text} {box.score:.2f}".strip(),
            font_size=float(size),
            text_color=colour(ink_on(colours[text])),
            background_color=colour(colours[text]),
            metadata=[],
        )
        for text, box in boxes
    ]
    return [
        new(
            "foxglove_msgs/msg/ImageAnnotations",
            timestamp=stamp,
            circles=[],
            points=outlines,
            texts=labels,
            metadata=[],
        )
    ]


def _events(types: Types, frame: DescribedImage) -> Iterable[Any]:
    """Return nothing: an event needs several frames. events.py finds them."""
    return ()


def _phrases(types: Types, phrases: Iterable[Phrase], size: tuple[int, int]) -> list[Any]:
    return [
        types.new(
            "kosmos_msgs/msg/GroundedPhrase",
            text=phrase.text,
            start=int(phrase.start),
            end=int(phrase.end),
            boxes=[
                types.new(
                    "kosmos_msgs/msg/BoundingBox",
                    x_min=float(box.x_min),
                    y_min=float(box.y_min),
                    x_max=float(box.x_max),
                    y_max=float(box.y_max),
                    score=float(box.score),
                )
                for box in (box.scaled(*size) for box in phrase.boxes)
            ],
        )
        for phrase in phrases
    ]


_CAPTION = frozenset({TASK})
OUTPUTS = (
    Output("captions", "kosmos_msgs/msg/GroundedCaption", _CAPTION, _captions),
    Output("phrases", "kosmos_msgs/msg/GroundedCaption", frozenset({"phrases"}), _located),
    Output("answers", "kosmos_msgs/msg/Answer", frozenset({"questions"}), _answers),
    Output("detections", "vision_msgs/msg/Detection2DArray", _CAPTION, _detections),
    Output("annotated/compressed", COMPRESSED, _CAPTION, _annotated),
    Output("annotations", "foxglove_msgs/msg/ImageAnnotations", _CAPTION, _annotations),
    Output("events", "kosmos_msgs/msg/Event", frozenset({"phrases", "questions"}), _events),
)
"""All topics of a camera in the order of their messages: /kosmos/<topic> for the only camera,
/kosmos/<camera>/<topic> for one of several."""
