# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Core dataclasses to kosmos_msgs and back.

Every number is cast on its way into a message: since Jazzy rclpy does not check field types, and
a NumPy scalar or an int in a float field is published as another value without a word.
"""

from __future__ import annotations

import array
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from kosmos_msgs.msg import Answer, BoundingBox, Event, GroundedCaption, GroundedPhrase
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.serving.work import Seen

try:
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose
    from vision_msgs.msg import Detection2DArray as Detection2DArray  # also for others
except ImportError:
    Detection2DArray = None
"""The message type, or None."""

JPEG_QUALITY = 90


def caption_message(
    caption: Caption,
    *,
    header: Header,
    camera: str,
    size: tuple[int, int],
    prompt: Prompt,
    model: str,
    inference_time: float,
    frames_dropped: int,
) -> GroundedCaption:
    """A caption in pixels of a picture of `size` (width, height); `inference_time` in seconds.

    `latency` is left for the moment of publication.
    """
    width, height = size
    return GroundedCaption(
        header=header,
        camera=str(camera),
        image_width=int(width),
        image_height=int(height),
        task=str(prompt.task),
        prompt=str(prompt.text),
        caption=str(caption.text),
        phrases=[_phrase_message(phrase, width, height) for phrase in caption.phrases],
        raw_text=str(caption.raw_text),
        score=float(caption.score),
        generated_tokens=int(caption.generated_tokens),
        truncated=bool(caption.truncated),
        inference_time=duration(inference_time),
        frames_dropped=int(frames_dropped),
        model=str(model),
    )


def said_message(
    seen: Seen, prompt: Prompt, caption: Caption, model: str, now: float
) -> GroundedCaption:
    """What was said of a picture to one prompt; published at `now`, in seconds of its stamp."""
    message = caption_message(
        caption,
        header=seen.header,
        camera=seen.camera,
        size=seen.size,
        prompt=prompt,
        model=model,
        inference_time=seen.inference_time,
        frames_dropped=seen.frames_dropped,
    )
    message.latency = duration(now - seconds(seen.header.stamp))
    return message


def answer_message(seen: Seen, question: str, caption: Caption) -> Answer:
    """The answer to a standing question about a picture."""
    return Answer(
        header=seen.header,
        camera=str(seen.camera),
        question=str(question),
        answer=str(caption.text),
        score=float(caption.score),
    )


def phrase_event(seen: Seen, phrase: Phrase, appeared: bool, since: Time) -> Event:
    """A phrase came into view or left it."""
    return Event(
        header=seen.header,
        camera=str(seen.camera),
        kind=Event.APPEARED if appeared else Event.DISAPPEARED,
        subject=str(phrase.text),
        phrases=[_phrase_message(phrase, *seen.size)] if appeared else [],
        since=since,
    )


def answer_event(seen: Seen, question: str, answer: str, before: str, since: Time) -> Event:
    """A standing question has another answer."""
    return Event(
        header=seen.header,
        camera=str(seen.camera),
        kind=Event.ANSWERED,
        subject=str(question),
        answer=str(answer),
        previous=str(before),
        since=since,
    )


def detections_message(seen: Seen, phrases: Iterable[Phrase]) -> Any:
    """One detection for each box, in pixels; the phrase is its class_id. Empty where none is."""
    width, height = seen.size
    found = [
        _detection(seen, phrase.text, box.scaled(width, height))
        for phrase in phrases
        for box in phrase.boxes
    ]
    return Detection2DArray(header=seen.header, detections=found)


def caption_from(message: GroundedCaption) -> Caption:
    """The caption of a message, its boxes in [0, 1] again."""
    width, height = message.image_width or 1, message.image_height or 1
    return Caption(
        text=message.caption,
        phrases=tuple(
            Phrase(
                phrase.text,
                phrase.start,
                phrase.end,
                tuple(box_from(box).scaled(1 / width, 1 / height) for box in phrase.boxes),
            )
            for phrase in message.phrases
        ),
        raw_text=message.raw_text,
        score=message.score,
        generated_tokens=message.generated_tokens,
        truncated=message.truncated,
    )


def box_from(message: BoundingBox) -> Box:
    """The box of a message, in its unit."""
    return Box(message.x_min, message.y_min, message.x_max, message.y_max, message.score)


def image_message(image: np.ndarray, header: Header) -> Image:
    """An rgb8 message of a picture (H, W, 3) uint8."""
    height, width, _ = image.shape
    data = array.array("B")
    # The one assignment that is fast on every distribution: neither bytes nor an ndarray is.
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = data
    return message


def compressed_message(
    image: np.ndarray, header: Header, encoding: str = "rgb8"
) -> CompressedImage:
    """A JPEG of a picture (H, W, 3) uint8 RGB, which was `encoding` before."""
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    # image_transport's form: the raw encoding, and the order in which OpenCV shall decode it.
    return CompressedImage(
        header=header, format=f"{encoding}; jpeg compressed bgr8", data=file.getvalue()
    )


def duration(seconds: float) -> Duration:
    """Nearest Duration; what 32 bits of seconds cannot hold is clipped."""
    nanoseconds = min(max(round(seconds * 1e9), -(2**31) * 10**9), (2**31 - 1) * 10**9)
    whole, rest = divmod(nanoseconds, 10**9)
    return Duration(sec=whole, nanosec=rest)


def seconds(message: Duration | Time) -> float:
    """A length, or a stamp good to a microsecond, in seconds."""
    return float(message.sec) + message.nanosec * 1e-9


def _phrase_message(phrase: Phrase, width: int, height: int) -> GroundedPhrase:
    return GroundedPhrase(
        text=str(phrase.text),
        start=int(phrase.start),
        end=int(phrase.end),
        boxes=[
            BoundingBox(
                x_min=float(box.x_min),
                y_min=float(box.y_min),
                x_max=float(box.x_max),
                y_max=float(box.y_max),
                score=float(box.score),
            )
            for box in (box.scaled(width, height) for box in phrase.boxes)
        ],
    )


def _detection(seen: Seen, name: str, box: Any) -> Any:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = str(name)
    hypothesis.hypothesis.score = float(box.score)
    detection = Detection2D(header=seen.header, results=[hypothesis])
    detection.bbox.center.position.x = float(box.x_min + box.x_max) / 2.0
    detection.bbox.center.position.y = float(box.y_min + box.y_max) / 2.0
    detection.bbox.size_x = float(box.x_max - box.x_min)
    detection.bbox.size_y = float(box.y_max - box.y_min)
    return detection
