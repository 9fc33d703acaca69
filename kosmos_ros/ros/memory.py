# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's memory: what cameras have shown goes into an observation log.

Knows described frames and records; no message and no service. recall_service.py answers from it.
"""

from __future__ import annotations

import contextlib
import os

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import Source, phrases_in_view, record_of
from kosmos_ros.memory.recorder import Recorder
from kosmos_ros.memory.records import Event
from kosmos_ros.ros import diagnostics
from kosmos_ros.ros.conversions import nanoseconds
from kosmos_ros.ros.outputs import DescribedFrame
from kosmos_ros.ros.pose_subscription import PoseSubscription
from kosmos_ros.ros.pose_transforms import PoseTransforms
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving import events
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings


class Memory:
    """The observation log of the parameter memory.

    Raises ConfigError if the parameters memory, pose_topic, pose_frame or robot_frame can never
    work. Faults that may pass, such as a full disk, are logged.
    """

    def __init__(self, node: Node, settings: NodeSettings) -> None:
        self.path = os.path.expanduser(settings.memory)
        self._node = node
        self._settings = settings
        self._poses = _poses(node, settings)
        try:
            with contextlib.suppress(LogError):  # the recorder tries again, and warns
                ObservationLog.open(self.path).close()
            self._recorder = Recorder(
                self.path,
                self._warn,
                settings.memory_max_size * 1_000_000,
                settings.memory_max_age,
                lambda: node.get_clock().now().nanoseconds,
            )
        except ConfigError as exc:
            if self._poses:
                self._poses.close()
            raise ConfigError(f"parameter memory: {exc}") from exc
        node.get_logger().info(f"observations are written to {self.path}")

    def record(self, described: DescribedFrame, settings: CameraSettings) -> None:
        """Write a described frame soon. Returns at once; any thread may call this."""
        stamp = nanoseconds(described.observation.header.stamp)
        pose = self._poses.at(stamp) if self._poses else None
        observed = described.observation
        observation = record_of(
            Source(stamp, observed.camera, observed.header.frame_id, *observed.size),
            described.result,
            settings,
            described.model,
            vars(self._settings),
            pose,
        )
        found = [_event(described, event) for event in described.events]
        self._recorder.add(observation, observed.image, found)

    def status(self) -> DiagnosticStatus:
        """Return its status for /diagnostics."""
        age = self._poses.age if self._poses else None
        name = self._node.get_fully_qualified_name()
        return diagnostics.memory_status(name, self.path, self._recorder.state(), age)

    def close(self, timeout: float) -> bool:
        """Write what waits. Return whether this took at most `timeout` seconds."""
        if self._poses:
            self._poses.close()
        return self._recorder.close(timeout)

    def _warn(self, text: str) -> None:
        if self._node.context.ok():
            self._node.get_logger().warning(text)


def _poses(node: Node, settings: NodeSettings) -> PoseSubscription | PoseTransforms | None:
    topic, frame = settings.pose_topic, settings.pose_frame
    if topic and frame:
        raise ConfigError(
            "parameters pose_topic and pose_frame: only one of them may be set, got "
            f"{quoted(topic)} and {quoted(frame)}"
        )
    if frame:
        return PoseTransforms(node, frame, settings.robot_frame)
    return PoseSubscription(node, topic) if topic else None


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
        phrases_in_view(event.phrases, *observed.size),
    )
