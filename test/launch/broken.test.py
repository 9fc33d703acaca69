# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that kosmos.launch.py starts a node again that has ended because of a failure."""

import sys
import unittest
from pathlib import Path

import launch_testing
import launch_testing.markers
from kosmos_msgs.srv import Ask
from launch.events.process import ProcessExited
from sensor_msgs.msg import Image

sys.path.append(str(Path(__file__).parent))
from launched import ClientTestCase, description_of

BROKEN = Path(__file__).parents[1] / "broken_node.py"


# No process runs between two starts, which would end the launch.
@launch_testing.parametrize("how, code", [("lost", 3), ("hangs", 4), ("bug", 5)])
@launch_testing.markers.keep_alive
def generate_test_description(how, code):
    prefix = f"{sys.executable} -u {BROKEN} {how}"
    return description_of("kosmos.launch.py", prefix=prefix, hard_timeout="1.0")


class TestBrokenNode(ClientTestCase):
    def test_a_broken_node_starts_again(self, proc_info):
        self.wait_until_ready("/kosmos")
        image = Image(height=2, width=2, encoding="mono8", step=2, data=bytes(4))
        client = self.client.create_client(Ask, "/kosmos/ask")
        self.assertTrue(client.wait_for_service(30))
        request = Ask.Request(question="Will it break?", image=image)
        # Repeatedly, because DDS may still know the service of the launch before.
        timer = self.client.create_timer(1.0, lambda: client.call_async(request))
        self.until(
            lambda: any(isinstance(info, ProcessExited) for info in proc_info), "end of the node"
        )
        self.client.destroy_timer(timer)
        self.until(lambda: len(list(proc_info)) > 1, "second start")
        self.wait_until_ready("/kosmos")


@launch_testing.post_shutdown_test()
class TestStoppedNode(unittest.TestCase):
    def test_the_failure_has_its_code_and_the_next_process_ends_with_0(self, proc_info, code):
        self.assertEqual([info.returncode for info in proc_info], [code, 0])
