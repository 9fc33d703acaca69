# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Live images come from the topic that the camera has now, with its own reliability."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.web.live import LINGER, LiveImages

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def arrives(client, spinner):
    """Provide a function that publishes until a live image of a topic arrives, and returns it."""
    live = LiveImages(client)

    def image(publisher, message, topic="/image"):
        def newest():
            publisher.publish(message)
            live.watch(time.monotonic())
            return live.newest("front", topic)

        return spinner.until(newest, "an image")()

    image.live = live
    yield image
    live.clear()


def test_a_camera_that_starts_after_its_page_is_shown(client, arrives):
    assert arrives.live.newest("front", "/image") is None  # no publisher yet
    camera = client.create_publisher(Image, "/image", BEST_EFFORT)
    assert arrives(camera, Image(width=7)).width == 7


def test_a_camera_that_changes_its_reliability_is_shown(client, arrives):
    camera = client.create_publisher(Image, "/image", 1)
    assert arrives(camera, Image(width=7)).width == 7
    client.destroy_publisher(camera)
    camera = client.create_publisher(Image, "/image", BEST_EFFORT)
    arrives.live.watch(time.monotonic())
    assert arrives(camera, Image(width=8)).width == 8


def test_the_topic_that_the_node_reports_later_replaces_the_first_one(client, arrives):
    assert arrives.live.newest("front", "/image") is None
    camera = client.create_publisher(Image, "/remapped", 1)
    assert arrives(camera, Image(width=7), "/remapped").width == 7


def test_compressed_images_are_preferred(client, arrives):
    client.create_publisher(Image, "/image", 1)
    camera = client.create_publisher(CompressedImage, "/image/compressed", 1)
    assert arrives(camera, CompressedImage(format="jpeg")).format == "jpeg"


def test_a_subscription_ends_when_no_page_asks_any_more(client, spinner, arrives):
    arrives.live.newest("front", "/image")
    spinner.until(lambda: client.count_subscribers("/image"), "a subscription")
    arrives.live.watch(time.monotonic() + LINGER + 1)
    spinner.until(lambda: not client.count_subscribers("/image"), "no subscription")
