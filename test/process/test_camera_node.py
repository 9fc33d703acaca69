# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""camera_node as a process over DDS: it publishes what it drew, and it ends cleanly."""

import contextlib
import dataclasses
import io
import signal

import numpy as np
import pytest
from conftest import Spinner
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.msg import GroundedCaption
from PIL import Image as Pillow
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.images.decode import decode_compressed, decode_raw
from kosmos_ros.kosmos2.grounding import enumerated
from kosmos_ros.ros.camera_node import CameraNodeSettings
from kosmos_ros.shapes.scenes import COLOURS

OPTIONS = {field.name: field for field in dataclasses.fields(CameraNodeSettings)}

KINDS = {"image_raw": Image, "image_raw/compressed": CompressedImage, "truth": GroundedCaption}


class Viewer:
    """A client that collects the messages of camera_node on `topics`."""

    def __init__(self, *topics):
        self.node = Node("viewer")
        self.spinner = Spinner(self.node)
        self.seen = {topic: [] for topic in topics}
        for topic in topics:
            self.node.create_subscription(
                KINDS[topic], f"camera/{topic}", self.seen[topic].append, 100
            )

    def close(self):
        """Remove the subscriptions, which would otherwise live on in the tests that follow."""
        self.spinner.executor.shutdown()
        self.node.destroy_node()

    def wait(self, count):
        """Wait until `count` messages of each topic have arrived."""
        self.spinner.until(
            lambda: all(len(messages) >= count for messages in self.seen.values()), "images"
        )


@pytest.fixture
def viewing(ros):
    """Return a function that makes a Viewer for one test."""
    with contextlib.ExitStack() as stack:
        yield lambda *topics: stack.enter_context(contextlib.closing(Viewer(*topics)))


def pixels(image):
    return decode_raw(
        image.data, image.width, image.height, image.encoding, image.step, False, 10**6
    )


def nearest(colour):
    return min(
        COLOURS, key=lambda name: np.abs(np.subtract(COLOURS[name], colour, dtype=int)).sum()
    )


def stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_shapes_are_published_with_their_truth(viewing, encoding):
    arguments = parameters(
        seed=1, width=320, height=240, rate=10, encoding=encoding, frame_id="front_optical_frame"
    )
    viewer = viewing(*KINDS)
    with Program("camera_node", *arguments) as camera:
        viewer.wait(8)
        assert camera.stop(signal.SIGINT) == 0
        assert "Traceback" not in camera.output
    truths = {stamp(truth): truth for truth in viewer.seen["truth"]}
    jpegs = {stamp(jpeg): jpeg for jpeg in viewer.seen["image_raw/compressed"]}
    checked = 0
    for image in viewer.seen["image_raw"]:
        if stamp(image) not in truths or stamp(image) not in jpegs:
            continue
        truth, jpeg = truths[stamp(image)], jpegs[stamp(image)]
        assert image.header.frame_id == "front_optical_frame"
        assert truth.header == image.header == jpeg.header
        assert (image.encoding, image.width, image.height, image.step) == (encoding, 320, 240, 960)
        assert (truth.image_width, truth.image_height) == (320, 240)
        assert truth.caption == enumerated([phrase.text for phrase in truth.phrases])[0]
        rgb = pixels(image)
        for phrase in truth.phrases:
            assert truth.caption[phrase.start : phrase.end] == phrase.text
            (box,) = phrase.boxes
            assert box.score == 1.0
            assert 0 <= box.x_min < box.x_max <= 320
            assert 0 <= box.y_min < box.y_max <= 240
            if phrase.text.split()[-1] != "ring":
                middle = rgb[int((box.y_min + box.y_max) / 2), int((box.x_min + box.x_max) / 2)]
                assert nearest(middle) == phrase.text.split()[1]
                checked += 1
        decoded = decode_compressed(jpeg.data, jpeg.format, 10**6)
        assert jpeg.format == f"{encoding}; jpeg compressed bgr8"
        assert np.abs(decoded.astype(int) - rgb).mean() < 8
    assert checked >= 3
    stamps = [stamp(image) for image in viewer.seen["image_raw"]]
    assert stamps == sorted(set(stamps))


def test_a_folder_is_published_in_order(viewing, tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for name, colour in zip("abc", colours, strict=True):
        Pillow.new("RGB", (20, 10), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"no picture")
    viewer = viewing("image_raw")
    with Program("camera_node", *parameters(source=tmp_path, rate=10)) as camera:
        viewer.wait(7)
        assert "d.png" in camera.says("not a JPEG")
        assert camera.stop(signal.SIGTERM) == 0
        assert "Traceback" not in camera.output
    shown = [tuple(pixels(image)[5, 10].tolist()) for image in viewer.seen["image_raw"]]
    start = colours.index(shown[0])
    assert shown == [colours[(start + number) % 3] for number in range(len(shown))]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"source": "no_such_file.png"},
            ["'no_such_file.png'", "does not exist; it must be"],
        ),
        ({"source": 97}, ["'97'", "/dev/video97 does not exist"]),
        ({"rate": 0}, ["rate must be 0.1 to 240", "got 0"]),
        ({"rate": 1000.0}, ["rate must be 0.1 to 240.0", "got 1000.0"]),
        ({"rate": "fast"}, ["rate must be a number", "got 'fast'"]),
        ({"encoding": "mono8"}, ["'mono8'", "rgb8, bgr8"]),
        ({"width": 320}, ["width and height", "both", "got 320 and 0"]),
    ],
)
def test_a_bad_parameter_ends_the_node_with_its_name(values, words):
    with Program("camera_node", *parameters(**values)) as camera:
        assert camera.ends() == 1
        (line,) = camera.lines
    for word in words:
        assert word in line
    assert "Traceback" not in camera.output


def test_without_subscribers_no_image_is_read(viewing, tmp_path):
    Pillow.new("RGB", (20, 10)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with Program("camera_node", *parameters(source=tmp_path, rate=100)) as camera:
        camera.says("100 Hz")
        viewer = viewing()
        client = viewer.node.create_client(DescribeParameters, "camera/describe_parameters")
        for _ in range(3):  # the timer runs in the meantime
            viewer.spinner.call(client, DescribeParameters.Request(names=list(OPTIONS)))
        assert "broken.png" not in camera.output
        viewer.node.create_subscription(Image, "camera/image_raw", lambda message: None, 1)
        viewer.spinner.until(lambda: "broken.png" in camera.output, "a camera that reads")


def test_parameters_are_described_and_cannot_be_changed(viewing):
    with Program("camera_node", *parameters(rate=1)):
        viewer = viewing()
        client = viewer.node.create_client(DescribeParameters, "camera/describe_parameters")
        described = viewer.spinner.call(client, DescribeParameters.Request(names=list(OPTIONS)))
        for descriptor in described.descriptors:
            assert descriptor.read_only
            assert descriptor.description
        (rate,) = described.descriptors[1].floating_point_range
        assert (rate.from_value, rate.to_value) == OPTIONS["rate"].metadata["limits"]
        client = viewer.node.create_client(SetParameters, "camera/set_parameters")
        change = Parameter("rate", value=2.0).to_parameter_msg()
        (result,) = viewer.spinner.call(client, SetParameters.Request(parameters=[change])).results
        assert not result.successful


def test_a_jpeg_has_the_rgb_pixels_whatever_the_raw_encoding():
    from std_msgs.msg import Header

    from kosmos_ros.ros.conversions import compressed_message

    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    message = compressed_message(image, Header(), "bgr8")
    decoded = np.asarray(Pillow.open(io.BytesIO(message.data)))
    assert np.abs(decoded.astype(int) - image).max() < 10
