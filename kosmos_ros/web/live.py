# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Receive the newest images of the cameras' own topics, only while a client asks for them.

Runs in the thread of the client's executor. Messages stay serialized until they are read.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

LINGER = 5.0  # s from the last call for an image until its subscription ends
COMPRESSED = "/compressed"  # end of the name of a topic with compressed images


@dataclass(eq=False)
class _Subscription:
    """The subscription of one camera's images."""

    subscription: Any
    type: Any
    asked: float = field(default_factory=time.monotonic)
    newest: bytes = b""  # serialized


class LiveImages:
    """The newest image of each camera that a client watches."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._cameras: dict[str, _Subscription] = {}

    def newest(self, camera: str, topic: str) -> Callable[[], Any] | None:
        """Return a function that reads the newest message of a camera, whose topic is `topic`.

        Returns None while no image has arrived. The first call begins the subscription.
        """
        live = self._cameras.get(camera)
        if live is None:
            live = self._cameras[camera] = self._subscribe(topic)
        live.asked = time.monotonic()
        read = functools.partial(deserialize_message, live.newest, live.type)
        return read if live.newest else None

    def watch(self, now: float) -> None:
        """End subscriptions without a call for LINGER; `now` is the monotonic time."""
        for camera, live in [*self._cameras.items()]:
            if now - live.asked > LINGER:
                self._node.destroy_subscription(self._cameras.pop(camera).subscription)

    def clear(self) -> None:
        """End all subscriptions."""
        while self._cameras:
            self._node.destroy_subscription(self._cameras.popitem()[1].subscription)

    def _subscribe(self, topic: str) -> _Subscription:
        compressed = topic.removesuffix(COMPRESSED) + COMPRESSED
        if self._node.count_publishers(compressed):
            topic = compressed  # fewer bytes to transfer, and no need to compress them here
        kind = CompressedImage if topic == compressed else Image
        offers = self._node.get_publishers_info_by_topic(topic)
        reliable = all(
            offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers
        )
        qos = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )

        def keep(data: bytes) -> None:
            live.newest = data

        live = _Subscription(
            self._node.create_subscription(kind, topic, keep, qos, raw=True), kind
        )
        return live
