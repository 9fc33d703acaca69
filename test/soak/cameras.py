# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Publish drawn scenes as cameras, from one process; a tenth of the frames is bad.

python -m soak.cameras SEED NAME...
"""

import copy
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from soak import pictures
from soak.player import Player, say

RAW, COMPRESSED = ("front", "rear", "left"), ("right",)
CAMERAS = RAW + COMPRESSED
RATE = 60.0  # Hz, of each camera
GOOD = 42  # different images of each camera, drawn beforehand: six in each encoding


@dataclass
class Camera:
    """One camera and its images."""

    name: str
    publisher: Any
    album: list[tuple[pictures.Scene, Any, bool]]  # scene, message, bad
    numbers: Counter[bool] = field(default_factory=Counter)  # published; key: bad

    def publish(self, rng: np.random.Generator) -> None:
        """Publish one image."""
        scene, message, bad = pictures.one_of(self.album, rng)
        message = copy.copy(message)
        message.header = type(message.header)()
        number = self.numbers.total()
        pictures.label(message, self.name, number, scene, time.time_ns(), bad)
        self.publisher.publish(message)
        self.numbers[bad] += 1


def album(compressed: bool, rng: np.random.Generator) -> list[tuple[pictures.Scene, Any, bool]]:
    """Return GOOD images and as many bad ones as BAD_SHARE requires."""
    made = []
    kinds = list(pictures.FORMATS if compressed else pictures.RAW)
    make = pictures.compressed if compressed else pictures.raw
    for number in range(GOOD):
        scene = pictures.draw(rng)
        made.append((scene, make(scene, kinds[number % len(kinds)]), False))
    for _ in range(round(GOOD * pictures.BAD_SHARE / (1 - pictures.BAD_SHARE))):
        scene = pictures.draw(rng)
        made.append((scene, pictures.spoilt(make(scene, kinds[0]), rng), True))
    return made


def main(seed: int, *names: str) -> None:
    """Publish until SIGINT, then report the counts."""
    player = Player("cameras_" + "_".join(names))
    rng = np.random.default_rng(seed)
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    cameras = []
    for name in names:
        compressed = name in COMPRESSED
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        publisher = player.node.create_publisher(kind, f"{name}/{topic}", qos)
        cameras.append(Camera(name, publisher, album(compressed, rng)))
    say(playing=names)
    begun, rounds = time.monotonic(), 0
    while not player.stopping:
        for camera in cameras:
            camera.publish(rng)
        rounds += 1
        time.sleep(max(0.0, begun + rounds / RATE - time.monotonic()))
    for camera in cameras:
        published, bad = camera.numbers.total(), camera.numbers[True]
        rate = published / (time.monotonic() - begun)
        say(camera=camera.name, published=published, bad=bad, rate=rate)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
