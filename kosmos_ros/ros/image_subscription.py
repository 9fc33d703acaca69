# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""One camera's images as they come in: the subscription, and what to say when nothing comes.

Knows topics, delivery and arrival times; hands messages on and never looks into their pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.ros.conversions import seconds
from kosmos_ros.ros.parameters import given
from kosmos_ros.sanitize import MAX_VALUE, one_line
from kosmos_ros.serving.arrivals import Arrivals

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

TRANSPORTS = {"raw": (Image, ""), "compressed": (CompressedImage, "/compressed")}
"""image_transport's name: message type, and what it appends to the topic's name."""

LARGE_DATA = "LARGE_DATA?max_msg_size=4MB&sockets_size=4MB"
"""Transports of Fast DDS that bring large images; by itself the name brings few of them."""

AUTO = "auto"
BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE

REPEAT_WARNING = 30.0  # s
NAMED = 5  # publishers, in a warning
LOST_SHARE = 0.5  # of the camera's frames, above which the loss is reported

REST = 1.0
"""Seconds before best effort becomes reliable, in which publishers forget the old subscription.

Where a topic has other subscribers, Fast DDS sends images under way to the old one to the new one
as well, and tells it to pass over them once it knows of it. A reliable one forgets an image of
which parts have come by then, but not its place in the queue, and rclpy's next take never ends
(processGapMsg of StatefulReader.cpp, add_instance of ReadTakeCommand.hpp; 2.14.5, 3.2.2).
"""


class ImageSubscription:
    """Subscribes `name` (remappable) by `transport` and gives each message to `on_image`.

    `reliability` is best_effort, which connects to any publisher, reliable, or auto: reliable
    while every publisher offers it, else best_effort. The queue holds the newest image only.
    `qos_overrides` go before all of them.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        transport: str,
        reliability: str,
        on_image: Callable[[Image | CompressedImage], None],
    ) -> None:
        self._kind, suffix = TRANSPORTS[transport]
        self.arrivals = Arrivals(time.monotonic())
        self._node = node
        self._on_image = on_image
        self._stale = False
        self._warned = float("-inf")  # s, monotonic
        # Under auto what most cameras offer: the way from reliable is the safe one.
        asked = "reliable" if reliability == AUTO else reliability
        # rclpy writes what qos_overrides say into this object.
        self._qos = QoSProfile(depth=1, reliability=ReliabilityPolicy[asked.upper()])
        # As image_transport has it: a remapped `name` takes its transports along.
        self._name = node.resolve_topic_name(name) + suffix
        topic = node.resolve_topic_name(self._name)
        self._overridden = f"qos_overrides.{topic}.subscription.reliability" in given(node)
        self._auto = reliability == AUTO and not self._overridden
        policies = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
        if not self._auto:
            # Not under auto: a dump of the parameters would bring it back as an override.
            policies.append(QoSPolicyKind.RELIABILITY)
        subscription = self._subscribe(QoSOverridingOptions(policies))
        self._subscription: Subscription | None = subscription  # None: until `_rested`
        self._rested = float("-inf")  # s, monotonic
        self.topic: str = subscription.topic_name  # which may be remapped as well

    def _subscribe(self, overrides: QoSOverridingOptions | None = None) -> Subscription:
        return self._node.create_subscription(
            self._kind,
            self._name,
            self._arrived,
            self._qos,
            # Of publishers that do not fit rclpy warns at once, before auto can follow them.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=not self._auto),
            qos_overriding_options=overrides,
        )

    def _follow(self, now: float) -> None:
        """Ask for the delivery that the publishers offer.

        Best effort connects to all, but large images of several datagrams are lost on the way.
        """
        offers = [
            publisher.qos_profile.reliability
            for publisher in self._node.get_publishers_info_by_topic(self.topic)
            if _kind(publisher) == self._kind.__name__
        ]
        wanted = RELIABLE if all(offer == RELIABLE for offer in offers) else BEST_EFFORT
        if offers and wanted != self._qos.reliability:
            self._qos.reliability = wanted
            if self._subscription:
                self._node.destroy_subscription(self._subscription)
                self._subscription = None
            rest, why = (
                (REST, "all publishers offer it")
                if wanted == RELIABLE
                else (0.0, "not all publishers offer more")
            )
            self._rested = now + rest
            self.arrivals.restart(self._rested)
            self._node.get_logger().info(f"{self.topic}: {wanted.name} delivery, {why}")
        if not self._subscription and now >= self._rested:
            self._subscription = self._subscribe()

    @property
    def reliability(self) -> str:
        """What is asked for now: best_effort or reliable."""
        return self._qos.reliability.name.lower()

    def publishers(self) -> int:
        """How many publishers the topic has."""
        return int(self._node.count_publishers(self.topic))

    def check(self, stale_timeout: float, loading: bool) -> bool:
        """Warn, now and then, when nothing came for `stale_timeout` seconds or much is lost.

        Gives whether nothing came.

        While the model is `loading`, this process is too busy to take every image, which is no
        loss worth a word.
        """
        now = time.monotonic()
        if self._auto:
            self._follow(now)
        stale = 0 < stale_timeout < self.arrivals.silence(now)
        if stale and not self._stale:
            self._warned = float("-inf")  # a warning of loss does not stand for this one
        self._stale = stale
        if loading:
            self.arrivals.forget(now)
        if now - self._warned < REPEAT_WARNING:
            return stale
        if stale:
            self._warn(now, self._silence(now))
        elif (lost := self.arrivals.lost(now)) > LOST_SHARE:
            self._warn(now, self._loss(now, lost))
        return stale

    def _warn(self, now: float, text: str) -> None:
        self._warned = now
        self._node.get_logger().warning(text)

    def _arrived(self, message: Image | CompressedImage) -> None:
        self.arrivals.arrived(time.monotonic(), seconds(message.header.stamp))
        if self._stale:
            self._stale, self._warned = False, float("-inf")
            self._node.get_logger().info(f"images arrive on {self.topic}")
        self._on_image(message)

    def _loss(self, now: float, lost: float) -> str:
        return (
            f"about {lost:.0%} of the images on {self.topic} do not reach this node; "
            f"{self.arrivals.rate(now):.1f} a second do. "
            f"This computer is too busy, or{self._cures()}"
        )

    def _cures(self) -> str:
        """What helps against loss and is not in force yet."""
        cures = []
        if self._qos.reliability == BEST_EFFORT:
            if self._auto:
                cures.append("a camera that offers RELIABLE")
            elif self._overridden:
                cures.append("no qos_overrides of reliability")
            else:
                cures.append("image_reliability:=auto")
        if self._kind is Image:
            cures.append("image_transport:=compressed")
        # With LOCALHOST rmw_fastrtps chooses the transports itself (its participant.cpp).
        local = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
        if local or "max_msg_size" not in os.environ.get("FASTDDS_BUILTIN_TRANSPORTS", ""):
            cures.append(
                f"FASTDDS_BUILTIN_TRANSPORTS='{LARGE_DATA}' in all processes (see the README)"
                + (", without ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST," if local else "")
            )
        cures.append("smaller images")
        return f" large images are lost on the way, which is cured by {' or '.join(cures)}"

    def _silence(self, now: float) -> str:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        asked = self._qos.reliability
        text = (
            f"no image on {self.topic} for {self.arrivals.silence(now):.1f} s: "
            f"{len(publishers)} publishers, this node asks for {asked.name} delivery"
        )
        if not publishers:
            return text + "; is the topic's name right? Remap it, or see image_topics"
        fits = False
        for publisher in publishers[:NAMED]:
            offered = publisher.qos_profile.reliability
            kind = _kind(publisher)
            name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
            text += (
                f"; {one_line(name, MAX_VALUE)} offers {one_line(kind, MAX_VALUE)} "
                f"with {offered.name} delivery"
            )
            if kind != self._kind.__name__:
                text += f", but {self._kind.__name__} is needed: see the parameter image_transport"
            elif (asked, offered) == (RELIABLE, BEST_EFFORT):
                text += (
                    ", which never connects: set image_reliability (or qos_overrides."
                    f"{self.topic}.subscription.reliability) to best_effort"
                )
            else:
                fits = True
        return f"{text}; perhaps{self._cures()}" if fits else text


def _kind(publisher: TopicEndpointInfo) -> str:
    """The name of its messages' type, without its package."""
    return str(publisher.topic_type).rpartition("/")[2]
