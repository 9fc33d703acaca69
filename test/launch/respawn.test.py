# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that kosmos.launch.py starts a killed node again, and does not restart a stopped one.

The new node has the names and parameters of the old one, although launch has left the group.
"""

import os
import signal
import sys
import unittest
from pathlib import Path

import launch_testing
import launch_testing.markers
from launch.events.process import ProcessStarted
from launch_ros.actions import PushRosNamespace, SetParameter

sys.path.append(str(Path(__file__).parent))
from launched import ClientTestCase, description_of

KILLS = 2


# No process runs between two starts, which would end the launch.
@launch_testing.markers.keep_alive
def generate_test_description():
    return description_of(
        "kosmos.launch.py",
        PushRosNamespace("robot"),
        SetParameter("queue_size", 3),
        model="shapes",
        name="eyes",
        max_rate="7.5",
    )


def running(proc_info):
    """Return the ids of the running processes."""
    return [info.pid for info in proc_info if isinstance(info, ProcessStarted)]


class TestKilledNode(ClientTestCase):
    def test_a_killed_node_starts_again(self, proc_info):
        for _ in range(KILLS):
            self.wait_until_ready("/robot/eyes")
            before = running(proc_info)
            (node,) = before
            os.kill(node, signal.SIGKILL)
            self.until(lambda old=before: running(proc_info) not in ([], old), "new process")
        self.wait_until_ready("/robot/eyes")
        self.assertEqual(self.parameters("/robot/eyes", "max_rate", "queue_size"), [7.5, 3])


@launch_testing.post_shutdown_test()
class TestStoppedNode(unittest.TestCase):
    def test_the_last_process_was_stopped_and_not_started_again(self, proc_info):
        codes = [info.returncode for info in proc_info]
        self.assertEqual(codes, [-signal.SIGKILL] * KILLS + [0])

    def test_each_process_loaded_the_model(self, proc_output):
        output = "".join(event.text.decode() for event in proc_output)
        self.assertEqual(output.count("model ready: "), KILLS + 1)
