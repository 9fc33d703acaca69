# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test that demo.launch.py describes an image file until it is interrupted."""

import re
import sys
import tempfile
import unittest
from pathlib import Path

import launch_testing
import numpy as np
from launch_testing.asserts import assertExitCodes
from PIL import Image as Pillow

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

sys.path.append(str(Path(__file__).parent))
from launched import PATIENCE, description_of

FOLDER = tempfile.TemporaryDirectory()
IMAGE = Path(FOLDER.name) / "my image.png"
SCENE = sample_scene(np.random.default_rng(20_261_124), 640, 480)


def generate_test_description():
    Pillow.fromarray(render(SCENE)).save(IMAGE)
    return description_of("demo.launch.py", image=str(IMAGE), out=FOLDER.name, keep="true")


class TestRunningDemo(unittest.TestCase):
    def test_the_demo_goes_on_after_its_questions(self, proc_output):
        words = "captions continue until Ctrl-C"
        proc_output.assertWaitFor(words, timeout=3 * PATIENCE, stream="stdout")


@launch_testing.post_shutdown_test()
class TestInterruptedDemo(unittest.TestCase):
    def test_all_programs_end_with_exit_code_0(self, proc_info):
        assertExitCodes(proc_info)

    def test_the_image_is_sent_and_described(self, proc_output):
        output = "".join(event.text.decode() for event in proc_output)
        output = re.sub(r"\x1b\[\d*m|\r", "", output)
        self.assertIn(f"{IMAGE} on /front/image_raw", output)
        answers = re.findall(r"^answer: (.*)$", output, re.M)
        self.assertIn(SCENE.truth[0][0], answers[0])
