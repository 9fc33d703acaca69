# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node with the embedded model and the cameras that robots have: latched, slow, compressed."""

import io
import itertools

import numpy as np
import pytest
from comparison import corners, message_of
from conftest import Spinner
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.msg import Event, GroundedCaption
from kosmos_msgs.srv import Describe
from PIL import Image as Pillow
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SCENE = sample_scene(np.random.default_rng(5), 320, 240)
PIXELS = render(SCENE)
PHRASE = SCENE.shapes[0].phrase
CAMERAS = {
    "latched": "/latched/image",
    "late": "/late/image",
    "mosaic": "/mosaic/image/compressed",
    "slow": "/slow/image",
    "pairs": "/pairs/image",
}
PARAMETERS = {
    "cameras": f"[{','.join(CAMERAS)}]",
    "image_topics": f"[{','.join(CAMERAS.values())}]",
    "max_rate": 0.0,
    "stale_timeout": 0.0,
    "qos_overrides./latched/image.subscription.durability": "transient_local",
    "mosaic.image_transport": "compressed",
    "slow.stale_timeout": 0.3,
    "slow.phrases": f"['{PHRASE}']",
}


def mosaic_of(pixels):
    """Return the Bayer pattern rggb of an image (H, W, 3) as (H, W)."""
    mosaic = pixels[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = pixels[::2, ::2, 0], pixels[1::2, 1::2, 2]
    return mosaic


class Robot:
    """The node as a process, and a client that acts as its cameras."""

    def __init__(self):
        self.client = Node("robot")
        self.spinner = Spinner(self.client)
        self.until = self.spinner.until
        for name in ("latched", "late"):
            self.client.create_publisher(Image, CAMERAS[name], LATCHED).publish(message_of(PIXELS))
        self.captions = {name: self.collect(GroundedCaption, name, "captions") for name in CAMERAS}
        self.events = self.collect(Event, "slow", "events")
        self.publish_pairs()  # from now on, because loss is judged over 10 s
        self.program = Program("kosmos_node", *parameters(model="shapes", **PARAMETERS))

    def collect(self, kind, camera, output):
        messages = []
        self.client.create_subscription(kind, f"kosmos/{camera}/{output}", messages.append, 10)
        return messages

    def publish(self, camera, message, period, kind=Image):
        """Publish the message once in each period, in seconds."""
        publisher = self.client.create_publisher(kind, CAMERAS[camera], 10)
        return self.client.create_timer(period, lambda: publisher.publish(message))

    def publish_pairs(self):
        """Publish an image from each of two publishers, 0.06 s apart, every 0.9 s."""
        publishers = [self.client.create_publisher(Image, CAMERAS["pairs"], 10) for _ in range(2)]
        turns, message = itertools.cycle([*publishers, *[None] * 13]), message_of(PIXELS)

        def send():
            if publisher := next(turns):
                message.header.stamp = self.client.get_clock().now().to_msg()
                publisher.publish(message)

        self.client.create_timer(0.06, send)


@pytest.fixture(scope="module")
def robot():
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    robot = Robot()
    with robot.program:
        robot.program.says("active: ")
        yield robot
    robot.client.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.fault(93)
def test_an_image_that_was_sent_before_the_node_started_is_received(robot):
    robot.until(lambda: robot.captions["latched"], "a caption")
    assert any(phrase.boxes for phrase in robot.captions["latched"][0].phrases)


@pytest.mark.fault(93)
def test_durability_is_named_as_the_cause_if_such_an_image_does_not_arrive(robot):
    change = SetParameters.Request(
        parameters=[Parameter("late.stale_timeout", value=0.5).to_parameter_msg()]
    )
    changing = robot.client.create_client(SetParameters, "kosmos/set_parameters")
    assert robot.spinner.call(changing, change).results[0].successful
    line = robot.program.says("no image on /late/image")
    assert (
        "perhaps its only image was sent before this node subscribed: "
        "set qos_overrides./late/image.subscription.durability:=transient_local"
    ) in line
    assert "lost" not in line


@pytest.mark.fault(91)
def test_a_compressed_mosaic_is_described_like_the_raw_one(robot):
    """Also if the camera's topic is given as `ros2 topic list` shows it."""
    assert robot.program.has("images of camera mosaic from /mosaic/image/compressed")
    mosaic, file = mosaic_of(PIXELS), io.BytesIO()
    Pillow.fromarray(mosaic).save(file, "PNG")
    png = CompressedImage(format="bayer_rggb8; png compressed ", data=file.getvalue())
    timer = robot.publish("mosaic", png, 0.2, CompressedImage)
    robot.until(lambda: robot.captions["mosaic"], "a caption")
    robot.client.destroy_timer(timer)
    raw = Image(width=320, height=240, step=320, encoding="bayer_rggb8", data=mosaic.tobytes())
    describing = robot.client.create_client(Describe, "kosmos/describe")
    request = Describe.Request(image=raw, grounded=True)
    (expected,) = robot.spinner.call(describing, request).results
    caption = robot.captions["mosaic"][0]
    assert (caption.caption, caption.raw_text) == (expected.caption, expected.raw_text)
    assert [phrase.text for phrase in caption.phrases] == [
        phrase.text for phrase in expected.phrases
    ]
    # The caption may have been written beside those of other cameras, which rounds differently.
    boxes, same = (
        [corners(box) for phrase in each.phrases for box in phrase.boxes]
        for each in (caption, expected)
    )
    assert boxes and np.allclose(boxes, same, atol=0.01)


@pytest.mark.fault(95)
def test_a_camera_that_is_slower_than_its_timeout_has_events(robot):
    robot.publish("slow", message_of(PIXELS), 0.5)
    robot.until(lambda: robot.events, "an event")
    assert (robot.events[0].kind, robot.events[0].subject) == (Event.APPEARED, PHRASE)


@pytest.mark.fault(94)
def test_pairs_of_images_from_two_publishers_raise_no_alarm(robot):
    robot.until(lambda: len(robot.captions["pairs"]) > 20, "captions")
    assert not robot.program.has("of the images on /pairs/image")
