# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that cameras and phrases are lists in kosmos.launch.py, and that a manager can activate."""

import sys
import unittest
from pathlib import Path

import launch_testing
from launch_testing.asserts import assertExitCodes
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

sys.path.append(str(Path(__file__).parent))
from launched import ClientTestCase, description_of


def generate_test_description():
    return description_of(
        "kosmos.launch.py",
        model="shapes",
        autostart="false",
        cameras="[front, rear]",
        phrases="[a dog, a cat]",
    )


class TestManagedNode(ClientTestCase):
    def test_a_manager_activates_the_node(self):
        for label in ("configure", "activate"):
            transition = Transition(label=label)
            response = self.call(ChangeState, "/kosmos/change_state", transition=transition)
            self.assertTrue(response.success, label)

    def test_lists_of_arguments_are_lists_of_parameters(self):
        found = self.parameters("/kosmos", "cameras", "phrases")
        self.assertEqual(found, [["front", "rear"], ["a dog", "a cat"]])
        topics = ("/kosmos/front/captions", "/kosmos/rear/events")
        self.wait_for_topics("publisher", "/kosmos", *topics)


@launch_testing.post_shutdown_test()
class TestStoppedNode(unittest.TestCase):
    def test_the_node_ends_with_exit_code_0(self, proc_info):
        assertExitCodes(proc_info)
