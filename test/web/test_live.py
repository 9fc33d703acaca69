# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Live images come from the topic that the camera has now, with its own reliability.

The page shows them as the node would read them.
"""

import array
import asyncio
import io
import time

import numpy as np
import pytest
from PIL import Image as Pillow

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from starlette.requests import Request

from kosmos_ros.web import server
from kosmos_ros.web.live import LINGER, LiveImage, LiveImages

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

        return spinner.until(newest, "an image").read()

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


class LiveBroker:
    """Takes the place of the broker: a camera front with the newest of `messages`."""

    def __init__(self, **values):
        self.values, self.messages = values, []

    def check_camera(self, name):
        assert name == "front"

    def value(self, camera, name):
        return self.values.get(name)

    async def live(self, camera):
        return LiveImage(len(self.messages), lambda: self.messages[-1])


@pytest.fixture
def shown(monkeypatch):
    """Provide a function that returns the responses to requests for each message, in turn."""
    monkeypatch.setattr(server, "LIVE_PERIOD", -1.0)

    def responses(*messages, **values):
        async def test():
            broker, number, found = LiveBroker(**values), "", []
            site = server.Site(broker)
            for message in messages:
                broker.messages.append(message)
                scope = {
                    "type": "http", "path_params": {"name": "front.jpg"},
                    "query_string": f"after={number}".encode(),
                }  # fmt: skip
                found.append(await site._live_image(Request(scope)))
                number = found[-1].headers.get("X-Number", "")
            return found

        return asyncio.run(test())

    return responses


def pixels_of(response):
    assert response.status_code == 200
    return np.asarray(Pillow.open(io.BytesIO(response.body))).astype(int)


def grey(value, encoding, **fields):
    data = np.full((8, 8), value, "<u2" if "16" in encoding else "u1")
    fields = {"height": 8, "width": 8, "step": data.strides[0], **fields}
    return Image(encoding=encoding, data=data.tobytes(), **fields)


def test_images_of_a_camera_without_stamps_are_shown_one_after_the_other(shown):
    dark, light = shown(grey(10, "mono8"), grey(200, "mono8"))
    assert abs(pixels_of(dark) - 10).max() < 4
    assert abs(pixels_of(light) - 200).max() < 4


def test_stretch_mono16_also_counts_for_live_images(shown):
    image = grey(1023, "mono16")
    image.data[:2] = array.array("B", b"\0\0")  # the darkest pixel
    (plain,), (stretched,) = shown(image), shown(image, stretch_mono16=True)
    assert pixels_of(plain)[4:, 4:].max() < 10
    assert pixels_of(stretched)[4:, 4:].min() > 240


def test_a_jpeg_in_an_image_is_refused_with_the_remedy(shown):
    image = grey(0, "mono8")
    image.data[:10] = array.array("B", b"\xff\xd8\xff\xe0\0\x10JFIF")
    (response,) = shown(image)
    assert response.status_code == 415
    assert "sensor_msgs/CompressedImage" in response.body.decode()
