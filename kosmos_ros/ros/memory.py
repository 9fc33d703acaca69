# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's memory: what cameras have shown goes into an observation log.

Knows described frames and records; no message and no service. recall_service.py answers from it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.kosmos2 import grounding
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recorder import Recorder
from kosmos_ros.memory.records import Answer, Box, Event, Observation, Phrase, Pose
from kosmos_ros.ros import diagnostics
from kosmos_ros.ros.outputs import DescribedFrame
from kosmos_ros.ros.pose_subscription import PoseSubscription
from kosmos_ros.serving import events
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings
from kosmos_ros.serving.plan import FrameResult

MODEL_SETTINGS = (
    "revision", "dtype", "quantization", "no_repeat_ngram_size", "location_grammar",
    "refine_boxes",
)  # fmt: skip
CAMERA_SETTINGS = ("grounded", "max_new_tokens", "min_score", "prompt")
"""Parameters of the node and of a camera that change the results, and belong to the log."""


class Memory:
    """The observation log of the parameter memory.

    Raises ConfigError if the parameters memory or pose_topic can never work. What may pass, such
    as a full disk, is logged.
    """

    def __init__(self, node: Node, settings: NodeSettings) -> None:
        self.path = os.path.expanduser(settings.memory)
        self._node = node
        self._settings = settings
        try:
            ObservationLog.open(self.path).close()
        except ConfigError as exc:
            raise ConfigError(f"parameter memory: {exc}") from exc
        except LogError:
            pass  # the recorder tries again, and warns
        self._poses = PoseSubscription(node, settings.pose_topic) if settings.pose_topic else None
        self._recorder = Recorder(
            self.path,
            self._warn,
            settings.memory_max_size * 1_000_000,
            settings.memory_max_age,
            lambda: node.get_clock().now().nanoseconds,
        )
        node.get_logger().info(f"observations are written to {self.path}")

    def record(self, described: DescribedFrame, settings: CameraSettings) -> None:
        """Write a described frame soon. Returns at once; any thread may call this."""
        stamp = nanoseconds(described.observation.header.stamp)
        pose = self._poses.at(stamp) if self._poses else None
        observation = _observation(described, self._settings, settings, pose)
        found = [_event(described, event) for event in described.events]
        self._recorder.add(observation, described.observation.image, found)

    def status(self) -> DiagnosticStatus:
        """Return its status for /diagnostics."""
        age = self._poses.age if self._poses else None
        name = self._node.get_fully_qualified_name()
        return diagnostics.memory_status(name, self.path, self._recorder.state(), age)

    def close(self, timeout: float) -> bool:
        """Write what waits. Return whether this took at most `timeout` seconds."""
        return self._recorder.close(timeout)

    def _warn(self, text: str) -> None:
        if self._node.context.ok():
            self._node.get_logger().warning(text)


def nanoseconds(stamp: Time) -> int:
    """Return a stamp in ns."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _observation(
    described: DescribedFrame, node: NodeSettings, camera: CameraSettings, pose: Pose | None
) -> Observation:
    observed, result = described.observation, described.result
    width, height = observed.size
    # The answers to the parameter questions may be the result of the task; they are no caption.
    captions = [each for _, each in result.task] if camera.task != "question" else []
    caption = captions[0] if captions else grounding.Caption("")
    return Observation(
        stamp=nanoseconds(observed.header.stamp),
        camera=observed.camera,
        caption=caption.text,
        task=camera.task,
        phrases=(
            *_phrases(caption.phrases, width, height),
            *_requested(result, camera, width, height),
        ),
        answers=_answers(result, width, height),
        raw_text="\n".join(each.raw_text for _, each in result.task),
        score=float(caption.score),
        frame_id=observed.header.frame_id,
        width=width,
        height=height,
        model=described.model,
        settings=_settings(node, camera),
        pose=pose,
    )


def _requested(
    result: FrameResult, camera: CameraSettings, width: int, height: int
) -> tuple[Phrase, ...]:
    """Return those of the parameter phrases that are in view, unless the caption has them."""
    if camera.task == "phrase_grounding":
        return ()
    found = [phrase for _, each in result.captions.get("phrases", ()) for phrase in each.phrases]
    phrases = _phrases(found, width, height)
    return tuple(dataclasses.replace(phrase, start=0, end=0) for phrase in phrases)


def _answers(result: FrameResult, width: int, height: int) -> tuple[Answer, ...]:
    questions = result.findings.get("questions", ())
    answers = result.captions.get("questions", ())
    return tuple(
        Answer(
            finding.subject, each.text, float(each.score), _phrases(each.phrases, width, height)
        )
        for finding, (_, each) in zip(questions, answers, strict=True)
    )


def _phrases(phrases: Iterable[grounding.Phrase], width: int, height: int) -> tuple[Phrase, ...]:
    """Return phrases that are in view, with boxes in pixels of an image of this size."""
    return tuple(
        Phrase(
            phrase.text,
            phrase.start,
            phrase.end,
            tuple(_box(box.scaled(width, height)) for box in phrase.boxes),
        )
        for phrase in phrases
        if phrase.boxes
    )


def _box(box: grounding.Box) -> Box:
    corners = (float(box.x_min), float(box.y_min), float(box.x_max), float(box.y_max))
    return Box(*corners, float(box.score))


def _event(described: DescribedFrame, event: events.Event) -> Event:
    observed = described.observation
    return Event(
        nanoseconds(observed.header.stamp),
        observed.camera,
        event.kind,
        event.subject,
        event.answer,
        event.previous,
        nanoseconds(event.since),
        _phrases(event.phrases, *observed.size),
    )


def _settings(node: NodeSettings, camera: CameraSettings) -> str:
    """Return the settings that change results, as a JSON object."""
    values = {name: getattr(node, name) for name in MODEL_SETTINGS}
    values |= {name: getattr(camera, name) for name in CAMERA_SETTINGS}
    return json.dumps(values, sort_keys=True)
