# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Boxes in pixels and messages of images, for tests that compare with drawn scenes."""

import numpy as np
from sensor_msgs.msg import Image


def iou(first, second):
    """Return the intersection over union of two boxes (x_min, y_min, x_max, y_max)."""
    left, top = (max(first[i], second[i]) for i in (0, 1))
    right, bottom = (min(first[i], second[i]) for i in (2, 3))
    shared = max(right - left, 0) * max(bottom - top, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def corners(box):
    return box.x_min, box.y_min, box.x_max, box.y_max


def in_pixels(box, width, height):
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def message_of(pixels, encoding="rgb8", padding=0):
    if encoding == "bgr8":
        pixels = pixels[:, :, ::-1]
    height, width, _ = pixels.shape
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=99)
    message = Image(width=width, height=height, encoding=encoding, step=3 * width + padding)
    message.header.stamp.nanosec = 5
    message.header.frame_id = "front_optical_frame"
    message.data = np.ascontiguousarray(rows).tobytes()
    return message
