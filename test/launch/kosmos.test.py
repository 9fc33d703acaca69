# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that kosmos.launch.py gives the node its names, topics and command, and ends cleanly."""

import sys
import unittest
from pathlib import Path

import launch_testing
import numpy as np
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from launch_testing.asserts import assertExitCodes
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from kosmos_ros.ros.conversions import image_message
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

sys.path.append(str(Path(__file__).parent))
from launched import PATIENCE, ClientTestCase, description_of

PREFIX = f"{sys.executable} -u"


def generate_test_description():
    return description_of(
        "kosmos.launch.py",
        model="shapes",
        image="/front/image_raw",
        namespace="robot",
        name="eyes",
        prefix=PREFIX,
        web="true",
        web_port="0",
    )


class TestRunningNode(ClientTestCase):
    def test_the_web_server_shows_this_node(self, proc_output):
        words = "/robot/eyes is shown at http://127.0.0.1:"
        proc_output.assertWaitFor(words, timeout=PATIENCE, stream="stdout")
        self.wait_for_topics("subscriber", "/robot/eyes_web", "/robot/eyes/model_info")

    def test_topics_have_the_requested_names(self):
        self.assertEqual(self.wait_until_ready("/robot/eyes")["model"], "shapes")
        self.wait_for_topics("subscriber", "/robot/eyes", "/front/image_raw")
        outputs = (f"/robot/eyes/{name}" for name in ("captions", "text", "annotated"))
        self.wait_for_topics("publisher", "/robot/eyes", *outputs)

    def test_frames_are_captioned_and_questions_answered(self):
        scene = sample_scene(np.random.default_rng(20_261_124), 640, 480)
        header = Header(frame_id="front_optical_frame")
        header.stamp.sec = 7
        frame = image_message(render(scene), header)
        captions = []
        self.client.create_subscription(
            GroundedCaption, "/robot/eyes/captions", captions.append, 10
        )
        camera = self.client.create_publisher(Image, "/front/image_raw", 10)
        self.client.create_timer(0.3, lambda: camera.publish(frame))
        self.until(lambda: captions, "caption")
        self.assertEqual(captions[0].header, header)
        self.assertIn(scene.truth[0][0], captions[0].caption)
        response = self.call(Ask, "/robot/eyes/ask", question="What is in this image?")
        self.assertTrue(response.success, response.message)
        self.assertEqual(response.result.header, header)


@launch_testing.post_shutdown_test()
class TestStoppedNode(unittest.TestCase):
    def test_the_node_ends_with_exit_code_0(self, proc_info):
        # launch sends SIGTERM if SIGINT does not end the node; its exit code would be -15.
        assertExitCodes(proc_info)

    def test_the_command_has_the_prefix_and_the_parameter_file(self, proc_info):
        command = proc_info["kosmos_node"].cmd
        self.assertEqual(command[:2], PREFIX.split())
        self.assertTrue(any(word.endswith("config/kosmos.yaml") for word in command), command)
