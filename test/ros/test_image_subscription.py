# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Warnings of an image subscription: topic, publishers, reliability, and what helps."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from kosmos_ros.ros.image_subscription import (
    MAX_PUBLISHERS,
    REPEAT_WARNING,
    RESUBSCRIBE_DELAY,
    ImageSubscription,
)


class Subscriber:
    """An image subscription whose publishers, time and log the test controls."""

    def __init__(self, monkeypatch, reliability="reliable", transport="raw"):
        self.node = Node("subscriber")
        self.now = 1000.0  # s, monotonic
        self.infos, self.warnings, self.news = [], [], []
        log = SimpleNamespace(warning=self.warnings.append, info=self.news.append)
        monkeypatch.setattr(
            "kosmos_ros.ros.image_subscription.time", SimpleNamespace(monotonic=lambda: self.now)
        )
        monkeypatch.setattr(self.node, "get_logger", lambda: log)
        self.images = []
        self.subscription = ImageSubscription(
            self.node, "image", transport, reliability, self.images.append
        )
        monkeypatch.setattr(self.node, "get_publishers_info_by_topic", lambda topic: self.infos)
        # A computer without a setting that helps.
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
        monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA?max_msg_size=4MB")

    def offer(self, name="camera", kind="sensor_msgs/msg/Image", reliability="RELIABLE"):
        self.infos.append(
            SimpleNamespace(
                node_name=name,
                node_namespace="/",
                topic_type=kind,
                qos_profile=SimpleNamespace(reliability=ReliabilityPolicy[reliability]),
            )
        )

    def check(self, after, stale_timeout=1.0, loading=False):
        """Check `after` seconds from now."""
        self.now += after
        return self.subscription.check(stale_timeout, loading)


@pytest.fixture
def subscribe(ros, monkeypatch):
    subscribers = []

    def make(**options):
        subscribers.append(Subscriber(monkeypatch, **options))
        return subscribers[-1]

    yield make
    for subscriber in subscribers:
        subscriber.node.destroy_node()


def test_a_topic_without_a_publisher_is_reported(subscribe):
    subscriber = subscribe()
    assert subscriber.check(after=2.5)
    assert subscriber.warnings == [
        "no image on /image for 2.5 s: no publisher; "
        "check the topic's name, remap it or set image_topics"
    ]


def test_silence_of_exactly_the_timeout_is_not_stale(subscribe):
    subscriber = subscribe()
    assert not subscriber.check(after=1.0)
    assert subscriber.check(after=0.25)


def test_a_timeout_of_0_never_warns(subscribe):
    subscriber = subscribe()
    assert not subscriber.check(after=1e6, stale_timeout=0.0)
    assert not subscriber.warnings


def test_a_publisher_of_another_type_is_named(subscribe):
    subscriber = subscribe()
    subscriber.offer("jpeg", "sensor_msgs/msg/CompressedImage")
    subscriber.check(after=2.0)
    assert subscriber.warnings == [
        "no image on /image for 2.0 s: this node requests RELIABLE; "
        "/jpeg offers CompressedImage with RELIABLE, expected Image; "
        "check image_transport and the topic's name"
    ]


def test_a_publisher_that_cannot_connect_is_named_with_the_parameter_that_helps(subscribe):
    subscriber = subscribe()
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.check(after=2.0)
    assert subscriber.warnings == [
        "no image on /image for 2.0 s: this node requests RELIABLE; "
        "/camera offers Image with BEST_EFFORT, which cannot connect; "
        "set image_reliability to best_effort"
    ]


@pytest.mark.parametrize("offered", ["RELIABLE", "BEST_EFFORT"])
def test_a_best_effort_subscription_fits_every_publisher(subscribe, offered):
    subscriber = subscribe(reliability="best_effort")
    subscriber.offer(reliability=offered)
    subscriber.check(after=2.0)
    assert subscriber.warnings == [
        "no image on /image for 2.0 s: this node requests BEST_EFFORT; "
        f"/camera offers Image with {offered}; perhaps large images are lost in transport; "
        "set image_reliability:=auto or set image_transport:=compressed or send smaller images"
    ]


def test_one_publisher_that_fits_among_others_may_lose_images(subscribe):
    subscriber = subscribe()
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.offer("second")
    subscriber.check(after=2.0)
    (text,) = subscriber.warnings
    assert "/camera offers Image with BEST_EFFORT, which cannot connect" in text
    assert "/second offers Image with RELIABLE; perhaps large images are lost" in text


def test_a_warning_names_five_publishers_and_the_number_of_all(subscribe):
    subscriber = subscribe()
    for number in range(MAX_PUBLISHERS):
        subscriber.offer(f"camera_{number}")
    subscriber.check(after=2.0)
    assert "publishers in all" not in subscriber.warnings[-1]
    subscriber.offer(f"camera_{MAX_PUBLISHERS}")
    subscriber.check(after=REPEAT_WARNING)
    text = subscriber.warnings[-1]
    assert f"/camera_{MAX_PUBLISHERS - 1} offers" in text
    assert f"/camera_{MAX_PUBLISHERS} offers" not in text
    assert "; 6 publishers in all; perhaps" in text


def test_names_of_other_nodes_cannot_write_control_characters(subscribe):
    subscriber = subscribe()
    subscriber.offer("camera\n\x1b[31m")
    subscriber.check(after=2.0)
    assert "/camera\\n\\x1b[31m offers" in subscriber.warnings[-1]


def test_a_warning_is_repeated_after_thirty_seconds(subscribe):
    subscriber = subscribe()
    subscriber.check(after=2.0)
    subscriber.check(after=REPEAT_WARNING - 0.25)
    assert len(subscriber.warnings) == 1
    subscriber.check(after=0.25)
    assert len(subscriber.warnings) == 2


def test_the_first_image_after_silence_is_reported_once(subscribe):
    subscriber = subscribe()
    subscriber.check(after=2.0)
    for _ in range(2):
        subscriber.subscription._receive(Image())
    assert subscriber.news == ["images arrive on /image"]
    assert len(subscriber.images) == 2
    assert not subscriber.check(after=0.5)
    assert subscriber.check(after=1.0)
    assert len(subscriber.warnings) == 2  # no need to wait for thirty seconds


def test_auto_follows_the_publishers_and_waits_before_it_becomes_reliable(subscribe):
    subscriber = subscribe(reliability="auto")
    assert subscriber.subscription.reliability == "reliable"
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.check(after=0.0)
    assert subscriber.subscription.reliability == "best_effort"
    assert subscriber.subscription._subscription
    subscriber.infos.clear()
    subscriber.check(after=0.0)
    assert subscriber.subscription.reliability == "best_effort"  # nobody offers more
    subscriber.offer()
    subscriber.check(after=0.0)
    assert subscriber.subscription.reliability == "reliable"
    assert not subscriber.subscription._subscription
    subscriber.check(after=RESUBSCRIBE_DELAY - 0.25)
    assert not subscriber.subscription._subscription
    subscriber.check(after=0.25)
    assert subscriber.subscription._subscription
    assert subscriber.news == [
        "/image: requesting BEST_EFFORT; not all publishers offer RELIABLE",
        "/image: requesting RELIABLE; all publishers offer it",
    ]
