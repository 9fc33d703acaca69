# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Convert captions, boxes and images to ROS messages and back.

Every number is cast before it is put into a message. Since Jazzy, rclpy does not check field
types: a NumPy scalar, or an int in a float field, is published as another value without an error.
"""

from __future__ import annotations

import array
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from kosmos_msgs.msg import Answer, BoundingBox, Event, GroundedCaption, GroundedPhrase
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from kosmos_ros.images.decode import stored_encoding
from kosmos_ros.images.drawing import jpeg
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.serving import events
from kosmos_ros.serving.work import Observation

try:
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose
    from vision_msgs.msg import Detection2DArray as Detection2DArray  # exported
except ImportError:
    Detection2DArray = None
"""The message type, or None if vision_msgs is not installed."""


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
    """Return a caption as a message with boxes in pixels of an image of `size` (width, height).

    `inference_time` is in seconds. `latency` stays 0 until the message is published.
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


def observation_message(
    observation: Observation, prompt: Prompt, caption: Caption, model: str, now: float
) -> GroundedCaption:
    """Return the message of a caption that answers `prompt`.

    `now` is the time of publication, in seconds of the clock of the stamps.
    """
    message = caption_message(
        caption,
        header=observation.header,
        camera=observation.camera,
        size=observation.size,
        prompt=prompt,
        model=model,
        inference_time=observation.inference_time,
        frames_dropped=observation.frames_dropped,
    )
    message.latency = duration(latency(observation, now))
    return message


def latency(observation: Observation, now: float) -> float:
    """Return the seconds from the stamp of an observation's image to `now`; 0 if it is later."""
    return max(0.0, now - seconds(observation.header.stamp))


def answer_message(observation: Observation, question: str, caption: Caption) -> Answer:
    """Return the message of an answer to one of the parameter `questions`."""
    return Answer(
        header=observation.header,
        camera=str(observation.camera),
        question=str(question),
        answer=str(caption.text),
        score=float(caption.score),
        phrases=[_phrase_message(phrase, *observation.size) for phrase in caption.phrases],
    )


EVENT_KINDS = {
    "appeared": Event.APPEARED,
    "disappeared": Event.DISAPPEARED,
    "answered": Event.ANSWERED,
}


def event_message(observation: Observation, event: events.Event) -> Event:
    """Return the message of an event; `event.since` is a stamp."""
    return Event(
        header=observation.header,
        camera=str(observation.camera),
        kind=EVENT_KINDS[event.kind],
        subject=str(event.subject),
        answer=str(event.answer),
        previous=str(event.previous),
        phrases=[_phrase_message(phrase, *observation.size) for phrase in event.phrases],
        since=event.since,
    )


def detections_message(observation: Observation, phrases: Iterable[Phrase]) -> Any:
    """Return a message with one detection per box, in pixels. The class_id is the phrase."""
    width, height = observation.size
    found = [
        _detection(observation, phrase.text, box.scaled(width, height))
        for phrase in phrases
        for box in phrase.boxes
    ]
    return Detection2DArray(header=observation.header, detections=found)


def box_from(message: BoundingBox) -> Box:
    """Return the box of a message, in the unit of the message."""
    return Box(message.x_min, message.y_min, message.x_max, message.y_max, message.score)


def image_message(image: np.ndarray, header: Header) -> Image:
    """Return an rgb8 message of an image (H, W, 3) uint8."""
    height, width, _ = image.shape
    data = array.array("B")
    # Only array.array is fast to assign on every distribution: bytes and ndarray are not.
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = data
    return message


def compressed_message(
    image: np.ndarray, header: Header, encoding: str = "rgb8"
) -> CompressedImage:
    """Return an image (H, W, 3) uint8 RGB as a JPEG; `encoding` is that of the raw image."""
    # As image_transport writes it: raw encoding, compression, channel order after decoding.
    return CompressedImage(
        header=header, format=f"{encoding}; jpeg compressed bgr8", data=jpeg(image)
    )


AS_VALUES = re.compile("mono16|16UC1|32FC1|bayer_.*")
"""Encodings of a compressed image whose values the node converts to colours: depth, the mosaic of
a Bayer pattern, or 16-bit grey. Viewers would show wrong colours or a nearly black image."""


def frame_message(observation: Observation) -> CompressedImage:
    """Return the source image as JPEG, or unchanged if viewers show it as the model saw it."""
    source = observation.source
    compressed = isinstance(source, CompressedImage)
    if compressed and not AS_VALUES.fullmatch(stored_encoding(source.format)):
        return source
    return compressed_message(observation.image, observation.header)


def duration(seconds: float) -> Duration:
    """Return the nearest Duration, clipped to 32 bits of seconds."""
    nanoseconds = min(max(round(seconds * 1e9), -(2**31) * 10**9), (2**31 - 1) * 10**9)
    whole, rest = divmod(nanoseconds, 10**9)
    return Duration(sec=whole, nanosec=rest)


def seconds(message: Duration | Time) -> float:
    """Return a duration or a stamp in seconds; a stamp is exact to the microsecond."""
    return float(message.sec) + message.nanosec * 1e-9


def nanoseconds(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _phrase_message(phrase: Phrase, width: int, height: int) -> GroundedPhrase:
    return phrase_message(phrase, [box.scaled(width, height) for box in phrase.boxes])


def phrase_message(phrase: Any, boxes: Iterable[Any]) -> GroundedPhrase:
    """Return a phrase of a caption or of an observation, with `boxes` in pixels."""
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
            for box in boxes
        ],
    )


def _detection(observation: Observation, name: str, box: Any) -> Any:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = str(name)
    hypothesis.hypothesis.score = float(box.score)
    detection = Detection2D(header=observation.header, results=[hypothesis])
    detection.bbox.center.position.x = float(box.x_min + box.x_max) / 2.0
    detection.bbox.center.position.y = float(box.y_min + box.y_max) / 2.0
    detection.bbox.size_x = float(box.x_max - box.x_min)
    detection.bbox.size_y = float(box.y_max - box.y_min)
    return detection
