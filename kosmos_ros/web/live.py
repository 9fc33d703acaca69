# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Receive the newest images of the cameras' own topics, only while a client asks for them.

Runs in the thread of the client's executor. Messages stay serialized until they are read.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

LINGER = 5.0  # s from the last call for an image until its subscription ends
COMPRESSED = "/compressed"  # end of the name of a topic with compressed images


class LiveImage(NamedTuple):
    """The newest image of a camera. `read` returns its message; any thread may call it."""

    number: int  # of this image; no other image of this process has it
    read: Callable[[], Image | CompressedImage]


class _Source(NamedTuple):
    """What to subscribe to."""

    topic: str
    type: Any
    reliability: ReliabilityPolicy


@dataclass(eq=False)
class _Live:
    """The images of one camera."""

    topic: str  # of the raw images
    source: _Source
    subscription: Any = None
    asked: float = field(default_factory=time.monotonic)
    newest: LiveImage | None = None


class LiveImages:
    """The newest image of each camera that a client watches."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._cameras: dict[str, _Live] = {}
        self._numbers = itertools.count()

    def newest(self, camera: str, topic: str) -> LiveImage | None:
        """Return the newest image of a camera, whose topic is `topic`; None: none has arrived.

        The first call begins the subscription.
        """
        live = self._cameras.get(camera)
        if live is None:
            live = self._cameras[camera] = _Live(topic, self._source(topic))
            self._subscribe(live)
        live.topic, live.asked = topic, time.monotonic()
        return live.newest

    def watch(self, now: float) -> None:
        """End subscriptions without a call for LINGER; `now` is the monotonic time.

        Subscribe again where another topic or reliability fits the publishers better: a camera may
        start later than its page, and the node may report another topic than its parameters.
        """
        for camera, live in [*self._cameras.items()]:
            if now - live.asked > LINGER:
                self._node.destroy_subscription(self._cameras.pop(camera).subscription)
            elif (source := self._source(live.topic)) != live.source:
                self._node.destroy_subscription(live.subscription)
                live.source, live.newest = source, None
                self._subscribe(live)

    def clear(self) -> None:
        """End all subscriptions."""
        while self._cameras:
            self._node.destroy_subscription(self._cameras.popitem()[1].subscription)

    def _source(self, topic: str) -> _Source:
        """Return what fits the publishers of a camera, whose topic is `topic`."""
        compressed = topic.removesuffix(COMPRESSED) + COMPRESSED
        if self._node.count_publishers(compressed):
            topic = compressed  # fewer bytes to transfer, and no need to compress them here
        kind = CompressedImage if topic == compressed else Image
        offers = self._node.get_publishers_info_by_topic(topic)
        reliable = all(
            offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers
        )
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return _Source(topic, kind, reliability)

    def _subscribe(self, live: _Live) -> None:
        topic, kind, reliability = live.source

        def keep(data: bytes) -> None:
            read = functools.partial(deserialize_message, data, kind)
            live.newest = LiveImage(next(self._numbers), read)

        qos = QoSProfile(depth=1, reliability=reliability)
        live.subscription = self._node.create_subscription(kind, topic, keep, qos, raw=True)
