# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Values survive a message, with and without rclpy's checks of field types.

If nothing checks the type, rclpy publishes a NumPy scalar or an int in a float field as another
number.
"""

import array
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from std_msgs.msg import Header

from kosmos_ros.ros.conversions import image_message

ROUND_TRIP = """
import numpy as np
from kosmos_msgs.msg import GroundedCaption
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from kosmos_ros.ros.conversions import caption_message, duration, seconds
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.kosmos2.prompts import Prompt

box = Box(np.float32(0.25), np.float64(0.5), 1, 1, score=np.float32(0.125))
phrase = Phrase("ein Hügel 😀", np.int64(3), np.uint32(14), (box,))
caption = Caption(
    "An ein Hügel 😀.", (phrase,), "<grounding> An", np.float32(0.75), np.int64(20), np.bool_(True)
)
sent = caption_message(
    caption,
    header=Header(frame_id="here"),
    camera="front",
    size=(640, np.uint16(480)),
    prompt=Prompt("brief_caption", "<grounding> An", ""),
    model="shapes",
    inference_time=np.float32(0.5),
    frames_dropped=np.int64(2**40),
)
sent.latency = duration(np.float64(-1.25))
found = deserialize_message(serialize_message(sent), GroundedCaption)
[phrase_found] = found.phrases
[box_found] = phrase_found.boxes
assert (found.header.frame_id, found.camera, found.task) == ("here", "front", "brief_caption")
assert (found.image_width, found.image_height) == (640, 480)
assert (found.caption, found.model) == ("An ein Hügel 😀.", "shapes")
assert found.raw_text == found.prompt == "<grounding> An"
assert (found.score, found.generated_tokens, found.truncated) == (0.75, 20, True)
assert (phrase_found.text, phrase_found.start, phrase_found.end) == ("ein Hügel 😀", 3, 14)
corners = (box_found.x_min, box_found.y_min, box_found.x_max, box_found.y_max)
assert (corners, box_found.score) == ((160, 240, 640, 480), 0.125)
assert (seconds(found.inference_time), seconds(found.latency)) == (0.5, -1.25)
assert found.frames_dropped == 2**40
"""


@pytest.mark.parametrize("checks", ["0", "1"])
@pytest.mark.fault(44, 45)
def test_values_survive_serialization(checks):
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP],
        env={**os.environ, "ROS_PYTHON_CHECK_FIELDS": checks},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.fault(63)
def test_4k_frame_is_copied_once_into_the_array_type_of_rclpy(contiguous):
    pixels = np.random.default_rng(0).integers(0, 256, (2160, 3840, 3), np.uint8)
    pixels = pixels if contiguous else pixels[:, ::-1]
    tracemalloc.start()
    message = image_message(pixels, Header())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # rclpy checks any other type byte by byte, or copies it again.
    assert type(message._data) is array.array
    assert np.array_equal(np.frombuffer(message.data, np.uint8).reshape(pixels.shape), pixels)
    assert peak < (1.2 if contiguous else 2.2) * pixels.nbytes
