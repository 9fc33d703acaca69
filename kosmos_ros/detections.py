# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Boxes as vision_msgs/Detection2DArray, where vision_msgs is installed. Knows no camera."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kosmos_ros.grounding import Phrase
from kosmos_ros.tasks import Seen

try:
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose
    from vision_msgs.msg import Detection2DArray as Detection2DArray  # also for others
except ImportError:
    Detection2DArray = None
"""The message type, or None."""


def detections_message(seen: Seen, phrases: Iterable[Phrase]) -> Any:
    """One detection for each box, in pixels; the phrase is its class_id. Empty where none is."""
    width, height = seen.size
    found = [
        _detection(seen, phrase.text, box.scaled(width, height))
        for phrase in phrases
        for box in phrase.boxes
    ]
    return Detection2DArray(header=seen.header, detections=found)


def _detection(seen: Seen, name: str, box: Any) -> Any:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = str(name)
    hypothesis.hypothesis.score = float(box.score)
    detection = Detection2D(header=seen.header, results=[hypothesis])
    detection.bbox.center.position.x = float(box.x_min + box.x_max) / 2.0
    detection.bbox.center.position.y = float(box.y_min + box.y_max) / 2.0
    detection.bbox.size_x = float(box.x_max - box.x_min)
    detection.bbox.size_y = float(box.y_max - box.y_min)
    return detection
