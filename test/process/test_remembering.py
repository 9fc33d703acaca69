# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node with the embedded model remembers what it saw, also after kill -9, over DDS."""

import io
import signal

import numpy as np
import pytest
from comparison import in_pixels, iou, message_of
from conftest import Spinner
from PIL import Image as Pillow
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from geometry_msgs.msg import PoseStamped
from kosmos_msgs.srv import Recall
from rclpy.node import Node
from sensor_msgs.msg import Image

from kosmos_ros.entry import BAD_PARAMETER
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, Shape

CIRCLE = Shape("circle", "red", (0.1, 0.2, 0.3, 0.5))
SQUARE = Shape("square", "blue", (0.6, 0.4, 0.9, 0.8))
STAR = Shape("star", "green", (0.55, 0.3, 0.85, 0.75))
FIRST = Scene((CIRCLE, SQUARE), 640, 480)
SECOND = Scene((STAR,), 640, 480)


class Client:
    """A camera, a source of poses, and a user who asks what was seen."""

    def __init__(self):
        self.node = Node("client_with_a_memory")
        self.spinner = Spinner(self.node)
        self.images = self.node.create_publisher(Image, "image", 10)
        self.poses = self.node.create_publisher(PoseStamped, "pose", 10)
        self.client = self.node.create_client(Recall, "kosmos/recall")

    def show(self, scene, sec, until):
        """Publish frames and poses stamped `sec` and so on until `until()` is true."""
        pose = PoseStamped()
        pose.header.frame_id, pose.pose.position.x, pose.pose.orientation.w = "map", 4.0, 1.0
        image = message_of(render(scene))

        def again():
            image.header.stamp.nanosec += 1000
            image.header.stamp.sec = pose.header.stamp.sec = sec
            pose.header.stamp.nanosec = image.header.stamp.nanosec
            self.poses.publish(pose)
            self.images.publish(image)
            return until()

        return self.spinner.until(again, "what the frames cause")

    def recall(self, query, **fields):
        response = self.spinner.call(self.client, Recall.Request(query=query, **fields))
        assert response.success, response.message
        return response

    def wait_for_an_answer(self):
        """Wait until the node answers.

        Requests get lost until a node that was started again is discovered; the client takes the
        killed one for ready.
        """
        sent = []

        def again():
            sent.append(self.client.call_async(Recall.Request(query="anything")))
            return any(future.done() for future in sent)

        self.spinner.until(again, "an answer")

    def seen(self, query):
        """Return a function that tells whether the newest sighting has a pose.

        The first images may arrive before the first pose.
        """
        question = f"where did you last see {query}?"
        return lambda: any(result.has_pose for result in self.recall(question).results[:1])


@pytest.fixture
def client(ros):
    client = Client()
    yield client
    client.node.destroy_node()


def node(path):
    values = {"model": "shapes", "device": "cpu", "max_rate": 5.0, "pose_topic": "pose"}
    return Program("kosmos_node", *parameters(memory=path, **values))


def test_what_was_drawn_is_recalled_and_nothing_else_and_kill_9_forgets_nothing(client, tmp_path):
    path = tmp_path / "memory.db"
    with node(path) as program:
        program.says("active: ")
        client.show(FIRST, 5, client.seen("the red circle"))
        client.show(SECOND, 8, client.seen("a star"))
        check(client)
        program.stop(signal.SIGKILL)
    with node(path) as program:
        program.says("active: ")
        client.wait_for_an_answer()
        check(client)
        assert program.stop() == 0
    with ObservationLog.read(path) as log:
        assert log.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def check(client):
    """Check what is recalled of FIRST, and what is not."""
    results = client.recall("where did you last see the red circle?").results
    # On a slow disk, thumbnails are dropped.
    result = next(each for each in results if each.thumbnail.data and each.has_pose)
    assert (result.header.stamp.sec, result.header.frame_id) == (5, "front_optical_frame")
    assert "a red circle" in result.caption
    (phrase,) = result.phrases
    assert result.caption[phrase.start : phrase.end] == phrase.text == "a red circle"
    (box,) = phrase.boxes
    truth = in_pixels(CIRCLE.box, 640, 480)
    assert iou((box.x_min, box.y_min, box.x_max, box.y_max), truth) > 0.5
    picture = np.asarray(Pillow.open(io.BytesIO(result.thumbnail.data)))
    expected = np.asarray(Pillow.fromarray(render(FIRST)).resize((320, 240)))
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).mean() < 8
    assert (result.has_pose, result.pose.pose.position.x) == (True, 4.0)
    assert result.age.sec > 10**9
    if wordnet.find():
        (same, *_) = client.recall("a crimson disc").results
        assert same.phrases == [phrase]
    for query in ("a blue circle", "a yellow triangle", "a green star left of a red circle"):
        response = client.recall(query)
        assert (response.message, response.results) == ("never seen", []), query


def test_a_file_that_is_no_log_ends_the_node_with_the_reason(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("notes" * 1000)
    with node(path) as program:
        assert program.ends() == BAD_PARAMETER
        program.says(
            f"parameter memory: '{path}' is not an SQLite database, expected an observation log"
        )
    assert path.read_text() == "notes" * 1000
