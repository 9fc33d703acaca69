"""One camera's images as they come in: the subscription, and what to say when nothing comes.

Knows topics, delivery and arrival times; hands messages on and never looks into their pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.watch import InputWatch

TRANSPORTS = {"raw": (Image, ""), "compressed": (CompressedImage, "/compressed")}
"""image_transport's name: message type, and what it appends to the topic's name."""

REPEAT_WARNING = 30.0  # s
LOST_SHARE = 0.5  # of the camera's frames, above which the loss is reported


class ImageFeed:
    """Subscribes `name` (remappable) by `transport` and gives each message to `on_image`.

    Best effort and depth 1, which connects to any publisher; `qos_overrides` change it.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        transport: str,
        on_image: Callable[[Image | CompressedImage], None],
    ) -> None:
        kind, suffix = TRANSPORTS[transport]
        self.topic = node.resolve_topic_name(name) + suffix
        self.watch = InputWatch(time.monotonic())
        self._node = node
        self._kind = kind.__name__
        self._on_image = on_image
        self._stale = False
        self._warned = float("-inf")  # s, monotonic
        # rclpy writes what qos_overrides say into this object.
        self._qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscription = node.create_subscription(
            kind,
            self.topic,
            self._arrived,
            self._qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def publishers(self) -> int:
        """How many publishers the topic has."""
        return int(self._node.count_publishers(self.topic))

    def check(self, stale_timeout: float, loading: bool) -> None:
        """Warn, now and then, when nothing came for `stale_timeout` seconds or much is lost.

        While the model is `loading`, this process is too busy to take every image, which is no
        loss worth a word.
        """
        now = time.monotonic()
        self._stale = 0 < stale_timeout < self.watch.silence(now)
        if loading:
            self.watch.forget()
        lost = self.watch.lost()
        if now - self._warned < REPEAT_WARNING or not (self._stale or lost > LOST_SHARE):
            return
        self._warned = now
        self._node.get_logger().warning(self._silence(now) if self._stale else self._loss(lost))

    def _arrived(self, message: Image | CompressedImage) -> None:
        stamp = message.header.stamp
        self.watch.arrived(time.monotonic(), stamp.sec + stamp.nanosec * 1e-9)
        if self._stale:
            self._stale, self._warned = False, float("-inf")
            self._node.get_logger().info(f"images arrive on {self.topic}")
        self._on_image(message)

    def _loss(self, lost: float) -> str:
        return (
            f"about {lost:.0%} of the images on {self.topic} do not reach this node; "
            f"{self.watch.rate():.1f} a second do. Large images over best effort need "
            "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA in all processes, a reliable subscription "
            "or image_transport:=compressed; or this computer is too busy"
        )

    def _silence(self, now: float) -> str:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        asked = self._qos.reliability
        text = (
            f"no image on {self.topic} for {self.watch.silence(now):.1f} s: "
            f"{len(publishers)} publishers, this node asks for {asked.name} delivery"
        )
        if not publishers:
            return text + "; is the topic's name right? Set it by remapping image"
        for publisher in publishers:
            offered = publisher.qos_profile.reliability
            kind = publisher.topic_type.rpartition("/")[2]
            text += (
                f"; {publisher.node_namespace.rstrip('/')}/{publisher.node_name} offers "
                f"{kind} with {offered.name} delivery"
            )
            if kind != self._kind:
                text += f", but {self._kind} is needed: see the parameter image_transport"
            elif (asked, offered) == (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT):
                text += (
                    f", which never connects: set qos_overrides.{self.topic}"
                    ".subscription.reliability to best_effort"
                )
        return text
