# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that kosmos.launch.py starts the node again until its environment is repaired."""

import sys
import tempfile
import unittest
from pathlib import Path

import launch_testing
import launch_testing.markers
from launch.events.process import ProcessExited

sys.path.append(str(Path(__file__).parent))
from launched import ClientTestCase, description_of

FOLDER = tempfile.TemporaryDirectory()
LOG = Path(FOLDER.name) / "log"
TRIES = 2


# No process runs between two starts, which would end the launch.
@launch_testing.markers.keep_alive
def generate_test_description():
    LOG.touch()  # a file, where ROS needs a folder
    return description_of("kosmos.launch.py", model="shapes", prefix=f"env ROS_LOG_DIR={LOG}")


class TestNode(ClientTestCase):
    def test_the_node_runs_once_the_log_can_be_written(self, proc_info):
        def failures():
            return [info for info in proc_info if isinstance(info, ProcessExited)]

        self.until(lambda: len(failures()) >= TRIES, "failures")
        LOG.unlink()
        self.wait_until_ready("/kosmos")


@launch_testing.post_shutdown_test()
class TestStoppedNode(unittest.TestCase):
    def test_each_start_before_has_ended_with_code_7(self, proc_info):
        *before, last = [info.returncode for info in proc_info]
        self.assertGreaterEqual(len(before), TRIES)
        self.assertEqual({*before}, {7})
        self.assertEqual(last, 0)

    def test_each_failure_names_the_remedy(self, proc_output):
        output = "".join(event.text.decode() for event in proc_output)
        self.assertGreaterEqual(output.count("set ROS_LOG_DIR to a folder"), TRIES)
