# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""camera_node: replaces a camera on a machine without one.

Publishes the images of a source from sources.py, stamped with the node's clock. For drawn scenes
it also publishes the drawn shapes and their boxes. Knows topics and parameters; no pixels and no
model.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long
    from kosmos_ros.entry import camera_node

    sys.exit(camera_node())

from dataclasses import dataclass
from typing import Any

import numpy as np
from kosmos_msgs.msg import GroundedCaption
from rclpy.clock import Clock, ClockType
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from kosmos_ros.errors import ConfigError, ImageError
from kosmos_ros.images.sources import View, open_source
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase, enumerated
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.ros.conversions import caption_message, compressed_message, image_message
from kosmos_ros.ros.parameters import ParameterNode
from kosmos_ros.ros.process import run
from kosmos_ros.sanitize import one_line
from kosmos_ros.settings import parameter

TRUTH = Prompt("truth", "", "")


@dataclass(frozen=True)
class CameraNodeSettings:
    """Parameters of camera_node."""

    source: str = parameter(
        "shapes",
        "Source of the images. shapes: drawn scenes of moving shapes. Otherwise an image file, a "
        "folder of images, a video file, or a camera (/dev/video0, or 0). Files are repeated.",
        read_only=True,
    )
    rate: float = parameter(
        10.0, "Rate at which images are published (Hz).", limits=(0.1, 240.0), read_only=True
    )
    width: int = parameter(
        0,
        "Width of the images (pixels). 0: the source's own, 640 for shapes.",
        limits=(0, 8192),
        read_only=True,
    )
    height: int = parameter(
        0,
        "Height of the images (pixels). 0: the source's own, 480 for shapes.",
        limits=(0, 8192),
        read_only=True,
    )
    seed: int = parameter(
        0,
        "Seed of the drawn scenes. The same seed and rate give the same images.",
        limits=(0, 2**31),
        read_only=True,
    )
    frame_id: str = parameter(
        "camera_optical_frame", "frame_id in the headers of the images.", read_only=True
    )
    encoding: str = parameter(
        "rgb8", "Encoding of the raw images.", choices=("rgb8", "bgr8"), read_only=True
    )


class CameraNode(ParameterNode):
    """Publish images like a camera. Raises ConfigError for an invalid parameter or source."""

    def __init__(self, **options: Any) -> None:
        super().__init__("camera", **options)
        self.finished: Future = Future()  # never gets a result: only a signal ends this node
        self._settings = settings = self.declare(CameraNodeSettings).values
        size = settings.width, settings.height
        if any(size) and not all(size):
            raise ConfigError(
                "parameters width and height must be both 0 or both more than 0, "
                f"got {size[0]} and {size[1]}"
            )
        self._source = open_source(
            settings.source, size=size, rate=settings.rate, seed=settings.seed
        )
        self._raw = self._output(Image, "~/image_raw")
        self._compressed = self._output(CompressedImage, "~/image_raw/compressed")
        self._truth = self._output(GroundedCaption, "~/truth")
        # A camera keeps its rate even if simulated time stands still.
        self._timer = self.create_timer(
            1 / settings.rate, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.get_logger().info(
            f"publishing {one_line(settings.source)} on {self._raw.topic_name} "
            f"at {settings.rate:g} Hz"
        )
        for text in self.unknown():
            self.get_logger().warning(text)

    def stop(self, timeout: float) -> bool:
        """Close the source. Return False if a driver still uses it."""
        return self._source.close()

    def _output(self, kind: Any, topic: str) -> Any:
        return self.create_publisher(
            kind, topic, 5, qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )

    def _on_timer(self) -> None:
        outputs = (self._raw, self._compressed, self._truth)
        if not any(output.get_subscription_count() for output in outputs):
            return
        try:
            view = self._source.read()
        except ImageError as exc:
            self.get_logger().warning(one_line(exc), throttle_duration_sec=5.0)
            return
        if view is not None:
            self._publish(view)

    def _publish(self, view: View) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._settings.frame_id)
        if self._raw.get_subscription_count():
            self._raw.publish(_raw_message(view.image, header, self._settings.encoding))
        if self._compressed.get_subscription_count():
            self._compressed.publish(
                compressed_message(view.image, header, self._settings.encoding)
            )
        if view.truth is not None:
            self._truth.publish(_truth_message(view, header))


def _raw_message(image: np.ndarray, header: Header, encoding: str) -> Image:
    message = image_message(image if encoding == "rgb8" else image[..., ::-1], header)
    message.encoding = encoding
    return message


def _truth_message(view: View, header: Header) -> GroundedCaption:
    truth = tuple(view.truth or ())
    text, starts = enumerated([words for words, _ in truth])
    phrases = tuple(
        Phrase(words, start, start + len(words), (Box(*box, 1.0),))
        for start, (words, box) in zip(starts, truth, strict=True)
    )
    height, width, _ = view.image.shape
    return caption_message(
        Caption(text, phrases, score=1.0),
        header=header,
        camera="",
        size=(width, height),
        prompt=TRUTH,
        model="truth",
        inference_time=0.0,
        frames_dropped=0,
    )


def main(args: list[str] | None = None) -> int:
    """Run camera_node until SIGINT or SIGTERM."""
    return run(CameraNode, args)
