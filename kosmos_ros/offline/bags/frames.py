# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode the frames of a bag, and make their messages and observations. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import decode_compressed, decode_message
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.offline.bags.messages import COMPRESSED, OUTPUTS, DescribedImage, Types
from kosmos_ros.offline.run import Job, Maker, Results
from kosmos_ros.offline.unfinished import Row
from kosmos_ros.sanitize import one_line, quoted

PREFIX = "/kosmos"
"""Name of the node whose topics the results have."""


@dataclass(frozen=True)
class Stored:
    """An image message as it is stored."""

    topic: str
    type: str
    time: int  # ns, when it was recorded
    format: str  # of the serialization
    data: bytes


@dataclass(frozen=True)
class Origin:
    """The fields of an image message that its results have."""

    topic: str
    time: int  # ns, when it was recorded
    sec: int  # of the stamp
    nanosec: int
    frame_id: str


class BagMaker(Maker):
    """Make the results of a bag's frames. `cameras` has the name for each image topic."""

    def __init__(self, job: Job, cameras: Mapping[str, str], types: Types) -> None:
        super().__init__(job)
        self._cameras = cameras
        self._types = types

    def decode(self, stored: Stored) -> tuple[np.ndarray, Origin]:
        message = self._deserialized(stored)
        most = self.job.max_image_pixels
        if stored.type == COMPRESSED:
            image = decode_compressed(message.data, message.format, most)
        else:
            image = decode_message(message, most)
        header = message.header
        stamp = header.stamp
        return image, Origin(stored.topic, stored.time, stamp.sec, stamp.nanosec, header.frame_id)

    def results(self, source: Origin, image: np.ndarray, captions: Sequence[Caption]) -> Results:
        """Return the messages in the order of OUTPUTS, and the observation."""
        new = self._types.new
        stamp = new("builtin_interfaces/msg/Time", sec=source.sec, nanosec=source.nanosec)
        header = new("std_msgs/msg/Header", stamp=stamp, frame_id=source.frame_id)
        camera, result = self._cameras[source.topic], self.plan.read(captions)
        described = DescribedImage(camera, header, image, result, self.job.model)
        rows = [
            Row(topic_of(camera, output.topic), source.time, self._types.data(message))
            for output in OUTPUTS
            if output.parts.intersection(self.plan.parts)
            for message in output.make(self._types, described)
        ]
        time = source.sec * 10**9 + source.nanosec
        return rows, self.observations(time, camera, source.frame_id, image, result)

    def _deserialized(self, stored: Stored) -> Any:
        """Return an image message. Raises ImageError if its bytes are not one."""
        if stored.format != "cdr":
            raise ImageError(f"its serialization format must be cdr, got {quoted(stored.format)}")
        try:
            return self._types.store.deserialize_cdr(stored.data, stored.type)
        except Exception as exc:  # rosbags raises any error for broken bytes
            reason = one_line(exc, 200)
            raise ImageError(
                f"its bytes are not a message of type {stored.type}: {reason}"
            ) from exc


def topic_of(camera: str, topic: str) -> str:
    """Return the topic of the results of a camera; of the only camera if its name is empty."""
    return f"{PREFIX}/{camera}/{topic}" if camera else f"{PREFIX}/{topic}"
