# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Raw and compressed images in requests to the node with the embedded model, over DDS."""

import io

import numpy as np
import pytest
from comparison import message_of
from conftest import Spinner
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from PIL import Image as Pillow
from rclpy.action import ActionClient
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

SCENE = sample_scene(np.random.default_rng(5), 320, 240)
PIXELS = render(SCENE)
PHRASE = SCENE.shapes[0].phrase
QUESTIONS = {
    "ask": (Ask, {"question": "What is it?", "grounded": True}),
    "ground": (Ground, {"phrases": [PHRASE, "a blue square"]}),
    "describe": (Describe, {"grounded": True}),
    "generate": (Generate, {"prompt": "<grounding> An image of"}),
}
GOAL = {"task": "brief_caption", "grounded": True}


class Client:
    """A client of a node that has no camera."""

    def __init__(self):
        self.node = Node("client_with_images")
        self.spinner = Spinner(self.node)
        self.clients = {
            name: self.node.create_client(kind, f"kosmos/{name}")
            for name, (kind, _) in QUESTIONS.items()
        }
        self.action = ActionClient(self.node, GenerateAction, "kosmos/generate_stream")

    def call(self, name, **image):
        kind, fields = QUESTIONS[name]
        return self.spinner.call(self.clients[name], kind.Request(**fields, **image))

    def stream(self, **image):
        """Return the result of a goal."""
        assert self.action.wait_for_server(60)
        sent = self.action.send_goal_async(GenerateAction.Goal(**GOAL, **image))
        self.spinner.until(sent.done, "an accepted goal")
        ended = sent.result().get_result_async()
        self.spinner.until(ended.done, "a result")
        return ended.result().result


@pytest.fixture(scope="module")
def client():
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    with Program(
        "kosmos_node", *parameters(model="shapes", max_image_pixels=320 * 240)
    ) as program:
        program.says("active: ")
        client = Client()
        yield client
        client.action.destroy()
        client.node.destroy_node()
    rclpy.try_shutdown()


def compressed(format, pixels=PIXELS, **options):
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, format, **options)
    message = CompressedImage(format=format.lower(), data=file.getvalue())
    message.header.stamp.nanosec = 5
    message.header.frame_id = "front_optical_frame"
    return message


def results_of(response):
    """Return the results of a response without their timing."""
    assert response.success, response.message
    results = list(getattr(response, "results", ())) or [response.result]
    for result in results:
        for name in ("latency", "inference_time"):
            setattr(result, name, type(getattr(result, name))())
    return results


def leaves(message):
    """Return all numbers and texts of a message, or of a list of messages."""
    if hasattr(message, "get_fields_and_field_types"):
        message = [getattr(message, name) for name in message.get_fields_and_field_types()]
    if not isinstance(message, list):
        return [message]
    return [leaf for each in message for leaf in leaves(each)]


@pytest.mark.parametrize("name", [*QUESTIONS, "generate_stream"])
def test_a_compressed_image_gives_the_result_of_the_raw_one(client, name):
    def asked(**image):
        return results_of(
            client.call(name, **image) if name in QUESTIONS else client.stream(**image)
        )

    expected = asked(image=message_of(PIXELS))
    # The node has drafts from its earlier answers, which may change the last digits.
    found = leaves(asked(compressed_image=compressed("PNG")))
    assert found == pytest.approx(leaves(expected), abs=1e-3)
    (first, *_) = expected
    assert (first.image_width, first.image_height) == (320, 240)
    assert first.header.frame_id == "front_optical_frame"
    assert first.caption
    assert name == "ask" or any(phrase.boxes for phrase in first.phrases)


def test_a_jpeg_is_described_as_it_is_stored(client):
    """Boxes are in the pixels of the camera, as for its frames."""
    exif = Pillow.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    (result,) = results_of(
        client.call("describe", compressed_image=compressed("JPEG", exif=exif, quality=95))
    )
    assert (result.image_width, result.image_height) == (320, 240)
    assert any(phrase.boxes for phrase in result.phrases)


BAD = {
    "broken": (
        {"compressed_image": CompressedImage(format="jpeg", data=b"\xff\xd8\xff")},
        "broken",
    ),
    "without data": ({"compressed_image": CompressedImage(format="jpeg")}, "0 bytes of data"),
    "of another kind": (
        {"compressed_image": CompressedImage(format="h264", data=b"\0\0\0\1")},
        "'h264' is not a JPEG, PNG or WebP image",
    ),
    "too large": (
        {"compressed_image": compressed("PNG", np.zeros((240, 321, 3), np.uint8))},
        "at most 76800 pixels (max_image_pixels), got 321 x 240",
    ),
    "beside a raw one": (
        {"compressed_image": compressed("PNG"), "image": Image(width=1, height=1)},
        "image and compressed_image must not both be set",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.fault(96)
def test_a_bad_compressed_image_is_refused_and_the_node_lives_on(client, case):
    image, reason = BAD[case]
    for response in (client.call("ask", **image), client.stream(**image)):
        assert not response.success
        assert reason in response.message
    assert client.call("ask", compressed_image=compressed("PNG")).success
