# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that arguments override a parameter file, which overrides the defaults."""

import sys
import tempfile
import unittest
from pathlib import Path

import launch_testing
from launch_testing.asserts import assertExitCodes

sys.path.append(str(Path(__file__).parent))
from launched import ClientTestCase, description_of

# The node's full name, which overrides /**. The name of the file has a space.
CONTENT = """
/kosmos:
  ros__parameters:
    {model: /no/such, use_sim_time: false, max_rate: 7.5, task: detailed_caption}
"""
FOLDER = tempfile.TemporaryDirectory()


def generate_test_description():
    file = Path(FOLDER.name) / "my parameters.yaml"
    file.write_text(CONTENT)
    return description_of(
        "kosmos.launch.py",
        params_file=str(file),
        model="shapes",
        use_sim_time="true",
        max_rate="2",
    )


class TestParameters(ClientTestCase):
    def test_arguments_override_the_file_and_the_file_the_defaults(self):
        self.assertEqual(self.wait_until_ready("/kosmos")["model"], "shapes")
        names = ("model", "use_sim_time", "max_rate", "task", "queue_size")
        found = self.parameters("/kosmos", *names)
        self.assertEqual(found, ["shapes", True, 2, "detailed_caption", 8])


@launch_testing.post_shutdown_test()
class TestStoppedNode(unittest.TestCase):
    def test_the_node_ends_with_exit_code_0(self, proc_info):
        assertExitCodes(proc_info)
