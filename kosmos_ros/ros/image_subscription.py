# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The image subscription of one camera, and its warnings when images are missing.

Knows topics, QoS and arrival times; never reads pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.ros.parameters import given
from kosmos_ros.sanitize import MAX_VALUE, one_line
from kosmos_ros.serving.arrivals import Arrivals
from kosmos_ros.serving.gate import LOOK_PERIOD, Gate

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

TRANSPORTS = {"raw": (Image, ""), "compressed": (CompressedImage, "/compressed")}
"""Message type and topic suffix of each image_transport."""

_TRANSPORT_OF = {kind.__name__: name for name, (kind, _) in TRANSPORTS.items()}

LARGE_DATA = "LARGE_DATA?max_msg_size=4MB&sockets_size=4MB"
"""Fast DDS transports that deliver large images. Plain LARGE_DATA delivers few of them."""

AUTO = "auto"
BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
VOLATILE, LATCHED = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
UNKNOWN_NODE = "_NODE_NAME_UNKNOWN_"
"""Name that rmw gives to a node whose publisher it has discovered before the node itself."""

REPEAT_WARNING = 30.0  # s
MAX_PUBLISHERS = 5  # named in one warning
LOST_SHARE = 0.5  # of a camera's frames; a larger loss is reported

RESUBSCRIBE_DELAY = 1.0
"""Seconds without a subscription before a best-effort one is replaced by a reliable one.

Publishers forget the old subscription in this time. Without the pause, if the topic has other
subscribers, Fast DDS also sends the images pending for the old subscription to the new one, and
then tells the new one to skip them. A reliable subscription drops a partly received image but
keeps its place in the queue, and rclpy's next take never returns (processGapMsg of
StatefulReader.cpp, add_instance of ReadTakeCommand.hpp; Fast DDS 2.14.5, 3.2.2).
"""

NO_NUMBER = 2**64 - 1  # sequence number of a message if the middleware does not number messages


class _Gated(MutuallyExclusiveCallbackGroup):
    """Let the executor take messages and events of a subscription only while `taking()`.

    The executor calls `can_execute` before it waits. If the result is false, it does not wait for
    the subscription, and the middleware keeps the newest message. This includes events: with Fast
    DDS a new message wakes an executor that waits for an event of the same subscription.
    """

    def __init__(self, taking: Callable[[], bool]) -> None:
        super().__init__()
        self._taking = taking

    def can_execute(self, entity: Any) -> bool:
        return self._taking() and bool(super().can_execute(entity))


class ImageSubscription:
    """Subscribe to `name` (remappable) by `transport` and pass messages to `on_image`.

    `name` is the base topic, as for image_transport, but may also have the transport's suffix.
    `on_image` receives each message and the seconds since it arrived. While `needed()` is false,
    about one message per LOOK_PERIOD is taken from the middleware, to see that images arrive.

    `reliability` is best_effort, which connects to every publisher; reliable; or auto, which is
    reliable while every publisher offers it and best_effort otherwise. The queue holds the newest
    image only. `qos_overrides` have priority over all of these.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        transport: str,
        reliability: str,
        on_image: Callable[[Image | CompressedImage, float], None],
        needed: Callable[[], bool],
    ) -> None:
        self._type, suffix = TRANSPORTS[transport]
        self.transport = transport  # raw or compressed
        self.arrivals = Arrivals(time.monotonic())
        self._node = node
        self._on_image = on_image
        self._needed = needed
        self._gate = Gate()
        self._group = _Gated(self._taking)
        self._single = False  # the topic has one publisher, so its images have one sequence
        self._reported = 0  # losses that the middleware reported since the newest image
        self._reports = True  # the middleware reports losses
        self._reported_in_all = 0  # losses that the middleware reported since the start
        self._skipped = False  # messages before the next one may have been skipped on purpose
        self._sequence: int | None = None  # the publisher's number of the newest message
        self._stale_timeout = 0.0  # s
        self.losing = False  # most images are lost, and fewer arrive than max_rate
        self._stale = False
        self._warned_at = float("-inf")  # s, monotonic
        # Most cameras offer reliable, and a change from reliable to best effort is safe.
        initial = "reliable" if reliability == AUTO else reliability
        # rclpy writes the values of qos_overrides into this object.
        self._qos = QoSProfile(depth=1, reliability=ReliabilityPolicy[initial.upper()])
        # As in image_transport, remapping `name` also moves its transports.
        self._base = node.resolve_topic_name(name).removesuffix(suffix)
        self._name = self._base + suffix
        self._policy = f"qos_overrides.{node.resolve_topic_name(self._name)}.subscription."
        self._override = self._policy + "reliability"
        self._overridden = self._override in given(node)
        self._auto = reliability == AUTO and not self._overridden
        policies = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DURABILITY]
        if not self._auto:
            # With auto, a parameter dump would turn the current value into an override.
            policies.append(QoSPolicyKind.RELIABILITY)
        subscription = self._subscribe(QoSOverridingOptions(policies))
        self._subscription: Subscription | None = subscription  # None until `_resubscribe_at`
        self._resubscribe_at = float("-inf")  # s, monotonic
        self.topic: str = subscription.topic_name  # the full name may be remapped, too

    def _subscribe(self, overrides: QoSOverridingOptions | None = None) -> Subscription:
        try:
            return self._create(overrides, message_lost=self._on_loss)
        except UnsupportedEventTypeError:
            self._reports = False
            return self._create(overrides)

    def _create(self, overrides: QoSOverridingOptions | None, **events: Any) -> Subscription:
        return self._node.create_subscription(
            self._type,
            self._name,
            # Humble has no callbacks with information about the message.
            self._receive if hasattr(Subscription, "CallbackType") else self._receive_alone,
            self._qos,
            callback_group=self._group,
            # rclpy warns of an incompatible publisher before auto can adapt to it.
            event_callbacks=SubscriptionEventCallbacks(
                use_default_callbacks=not self._auto, **events
            ),
            qos_overriding_options=overrides,
        )

    def _adapt(self, now: float) -> None:
        """Request the reliability that all publishers offer.

        Best effort connects to every publisher, but loses large images, which are sent in several
        datagrams.
        """
        offers = [
            publisher.qos_profile.reliability
            for publisher in self._node.get_publishers_info_by_topic(self.topic)
            if _type_name(publisher) == self._type.__name__
        ]
        wanted = RELIABLE if all(offer == RELIABLE for offer in offers) else BEST_EFFORT
        if offers and wanted != self._qos.reliability:
            self._qos.reliability = wanted
            if self._subscription:
                self._node.destroy_subscription(self._subscription)
                self._subscription = None
            delay, reason = (
                (RESUBSCRIBE_DELAY, "all publishers offer it")
                if wanted == RELIABLE
                else (0.0, "not all publishers offer RELIABLE")
            )
            self._resubscribe_at = now + delay
            self.arrivals.restart(self._resubscribe_at)
            self._sequence = None  # images are not lost while there is no subscription
            self._node.get_logger().info(f"{self.topic}: requesting {wanted.name}; {reason}")
        if not self._subscription and now >= self._resubscribe_at:
            self._subscription = self._subscribe()

    @property
    def latched(self) -> bool:
        """Whether publishers may have sent the newest image long ago, and send no other."""
        return bool(self._qos.durability == LATCHED)

    @property
    def reliability(self) -> str:
        """The reliability that is requested now: best_effort or reliable."""
        return self._qos.reliability.name.lower()

    def publishers(self) -> int:
        """Return the number of publishers of the topic."""
        return int(self._node.count_publishers(self.topic))

    def describe_publishers(self) -> str:
        """Return the number of publishers in words."""
        count = self.publishers()
        return "1 publisher" if count == 1 else f"{count} publishers"

    @property
    def missed(self) -> int:
        """Number of images that are known to be lost. More may be lost."""
        return max(self.arrivals.missed, self._reported_in_all)

    def silent(self, now: float, timeout: float) -> bool:
        """Return whether images are missing: none arrived for `timeout` seconds (0: never).

        Returns False if exactly one image has arrived, and there are only publishers that keep
        their last image for late subscribers. That image stays valid, so no other is missing.
        """
        return self.arrivals.silent(now, timeout) and not self._keeps_only_image()

    def _keeps_only_image(self) -> bool:
        if not self.arrivals.single:
            return False
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        durabilities = {publisher.qos_profile.durability for publisher in publishers}
        return durabilities == {LATCHED}

    def check(self, stale_timeout: float, loading: bool, max_rate: float = 0.0) -> bool:
        """Return whether no image arrived for `stale_timeout` seconds (0: never), and warn.

        Warns about missing and lost images at most every REPEAT_WARNING seconds. Loss is no fault
        if `max_rate` images per second arrive (0: never enough), because no more are described.
        While the model is `loading`, this process is too busy to receive every image, so loss is
        ignored.
        """
        now = time.monotonic()
        self._stale_timeout = stale_timeout
        self._single = self.publishers() == 1
        if self._auto:
            self._adapt(now)
        stale = self.silent(now, stale_timeout)
        if stale and not self._stale:
            self._warned_at = float("-inf")  # a warning of loss must not delay this one
        self._stale = stale
        if loading:
            self.arrivals.forget(now)
        enough = 0 < max_rate <= self.arrivals.rate(now)
        self.losing = self.arrivals.lost(now) > LOST_SHARE and not enough
        due = now - self._warned_at >= REPEAT_WARNING
        if due and (cause := self.cause(now, stale_timeout)):
            self._warned_at = now
            silence = f"no image on {self.topic} for {self.arrivals.silence(now):.1f} s: "
            self._node.get_logger().warning(f"{silence if stale else ''}{cause}")
        return stale

    def cause(self, now: float, stale_timeout: float) -> str:
        """Return why images are missing or lost, and what helps; empty: neither.

        While images are missing, the text changes only with the reason.

        This asks the middleware for the topic's publishers if images are missing. `check` says
        whether images are lost.
        """
        if self.silent(now, stale_timeout):
            return self._describe_silence()
        return self._describe_loss(now) if self.losing else ""

    @property
    def sampling(self) -> bool:
        """Whether images are skipped because nobody needs them."""
        return self._gate.closed

    def _all_needed(self) -> bool:
        # With a short timeout, skipped images would look like a silent camera.
        return 0 < self._stale_timeout < 2 * LOOK_PERIOD or self._needed()

    def _taking(self) -> bool:
        """Return whether the executor may take an image now."""
        closed = self._gate.closed
        if self._gate.update(time.monotonic(), self._all_needed()) and closed:
            self._take()
        return not self._gate.closed

    def _take(self) -> None:
        """Take and pass on the newest image that has arrived, without waiting for one.

        If an image was not taken, Fast DDS wakes the executor again and again while the next one
        arrives in parts. An attempt to take an image ends this, even if there is none.
        """
        if subscription := self._subscription:
            with subscription.handle:
                taken = subscription.handle.take_message(self._type, False)
            if taken:  # a message, and information about it
                self._receive(*taken)

    def _receive(self, message: Image | CompressedImage, info: Mapping[str, Any]) -> None:
        now = time.monotonic()
        # Several publishers number their images independently.
        sequence, age = _sequence(info) if self._single else None, 0.0
        if self._skipped:
            age = self._waited(info, now)
        sent = self._sent(sequence)
        if self._skipped:
            self.arrivals.sampled(now - age, sent)
        else:
            self.arrivals.arrived(now, self._lost(sent))
        self._reported = 0
        self._sequence = sequence
        self._gate.passed(now, self._all_needed())
        self._skipped = self._gate.closed
        if self._stale:
            self._stale, self._warned_at = False, float("-inf")
            self._node.get_logger().info(f"images arrive on {self.topic}")
        self._on_image(message, age)

    def _on_loss(self, status: Any) -> None:
        """Count reported losses. With reliable delivery Fast DDS reports almost none."""
        self._reported += status.total_count_change
        self._reported_in_all += status.total_count_change

    def _receive_alone(self, message: Image | CompressedImage) -> None:
        self._receive(message, {})

    def _waited(self, info: Mapping[str, Any], now: float) -> float:
        """Return the seconds that a message has waited in the middleware; 0 if unknown."""
        age = time.time() - float(info.get("received_timestamp") or 0) * 1e-9
        longest = now - (self.arrivals.last or now)
        return age if 0 < age < longest else 0.0

    def _sent(self, sequence: int | None) -> int | None:
        """Return how many images the publisher sent since the last one received; None: unknown."""
        if sequence is None or self._sequence is None:
            return None
        sent = sequence - self._sequence
        return sent if sent > 0 else None

    def _lost(self, sent: int | None) -> int:
        """Return how many images are known to be lost since the newest one.

        The publisher's numbers also count images that a newer one has replaced here, which happens
        if images come in bursts. Best-effort middleware reports exactly those that were lost.
        """
        if self._reports and self._qos.reliability == BEST_EFFORT:
            return self._reported
        return sent - 1 if sent else 0

    def _describe_loss(self, now: float) -> str:
        return (
            f"{self.arrivals.lost(now):.0%} of the images on {self.topic} are lost, or replaced "
            f"by newer ones before this node reads them ({self.arrivals.rate(now):.1f} images/s "
            f"are read, {self.missed} lost so far): this computer is too busy, images arrive "
            f"in bursts, or {self._cures()}"
        )

    def _cures(self) -> str:
        """Return remedies for loss that are not applied yet."""
        cures = []
        if self._qos.reliability == BEST_EFFORT:
            if self._auto:
                cures.append("use cameras that offer RELIABLE")
            elif self._overridden:
                cures.append(f"remove {self._override}")
            else:
                cures.append("set image_reliability:=auto")
        if self._type is Image:
            cures.append("set image_transport:=compressed")
        # With LOCALHOST rmw_fastrtps chooses the transports itself (its participant.cpp).
        local = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
        if local or "max_msg_size" not in os.environ.get("FASTDDS_BUILTIN_TRANSPORTS", ""):
            cures.append(
                f"set FASTDDS_BUILTIN_TRANSPORTS='{LARGE_DATA}' in all processes"
                + (" without ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST" if local else "")
                + " (see docs/troubleshooting.md)"
            )
        cures.append("send smaller images")
        return f"large images are lost in transport; {' or '.join(cures)}"

    def _describe_silence(self) -> str:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return f"no publisher; {self._elsewhere()}"
        text = f"this node requests {self._qos.reliability.name}"
        for publisher in publishers[:MAX_PUBLISHERS]:
            text += (
                f"; {_node_name(publisher)} offers {_type_name(publisher)} "
                f"with {publisher.qos_profile.reliability.name}{self._problem(publisher)}"
            )
        if len(publishers) > MAX_PUBLISHERS:
            text += f"; {len(publishers)} publishers in all"
        if all(map(self._problem, publishers)):
            return text
        if self.arrivals.last is None and any(map(self._latched, publishers)):
            return (
                f"{text}; perhaps its only image was sent before this node subscribed: "
                f"set {self._policy}durability:=transient_local"
            )
        if self._reported:
            return f"{text}; {self._reported} images have been lost since then: {self._cures()}"
        stopped = self.arrivals.last is not None
        return f"{text}; perhaps {'the camera has stopped' if stopped else self._cures()}"

    def _problem(self, publisher: TopicEndpointInfo) -> str:
        """Return why this publisher's images cannot arrive; empty: they can."""
        offered, requested = publisher.qos_profile, self._qos
        if (kind := _type_name(publisher)) != self._type.__name__:
            return f", expected {self._type.__name__}; {self._remedy(self.topic, kind)}"
        if (offered.durability, requested.durability) == (VOLATILE, LATCHED):
            remedy = f"set {self._policy}durability to volatile"
        elif (offered.reliability, requested.reliability) == (BEST_EFFORT, RELIABLE):
            parameter = self._override if self._overridden else "image_reliability"
            remedy = f"set {parameter} to best_effort"
        else:
            return ""
        return f", which cannot connect; {remedy}"

    def _latched(self, publisher: TopicEndpointInfo) -> bool:
        """Return whether the publisher keeps images for late subscribers, but not for this one."""
        offered = publisher.qos_profile.durability
        return (offered, self._qos.durability) == (LATCHED, VOLATILE)

    def _elsewhere(self) -> str:
        """Return what to do if the topic has no publisher."""
        for _, suffix in TRANSPORTS.values():
            topic = self._base + suffix
            for publisher in self._node.get_publishers_info_by_topic(topic):
                kind = _type_name(publisher)
                if topic != self.topic and kind in _TRANSPORT_OF:
                    return f"{topic} has {kind}: {self._remedy(topic, kind)}"
        return "check the topic's name, remap it or set image_topics"

    def _remedy(self, topic: str, kind: str) -> str:
        """Return how to receive the images of type `kind` that `topic` has."""
        if kind not in _TRANSPORT_OF:
            return "check the topic's name"
        transport = _TRANSPORT_OF[kind]
        _, suffix = TRANSPORTS[transport]
        remedy = f"set image_transport:={transport}"
        if topic.endswith(suffix):
            return remedy
        return f"{remedy} and remap {topic}{suffix}:={topic}"


def _type_name(publisher: TopicEndpointInfo) -> str:
    """Return the message type without its package, safe to print."""
    return one_line(str(publisher.topic_type).rpartition("/")[2], MAX_VALUE)


def _node_name(publisher: TopicEndpointInfo) -> str:
    if publisher.node_name == UNKNOWN_NODE:
        return "a node whose name is not known yet"
    name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
    return one_line(name, MAX_VALUE)


def _sequence(info: Mapping[str, Any]) -> int | None:
    """Return the publisher's number of a message; None: unknown."""
    number = info.get("publication_sequence_number")
    return None if number in (None, NO_NUMBER) else int(number)
