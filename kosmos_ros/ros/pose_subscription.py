# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Subscribe to the robot's pose, and return the pose at a given time.

Knows messages and stamps; no image and no file.
"""

from __future__ import annotations

import bisect
import importlib
import threading
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.validate_topic_name import validate_topic_name

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.records import Pose
from kosmos_ros.ros.conversions import nanoseconds
from kosmos_ros.sanitize import one_line, quoted

LOOK_PERIOD = 1.0  # s between two checks for a publisher of the topic
SPACING = 50_000_000  # ns between two poses that are kept
MAX_POSES = 2400  # newest ones that are kept: 120 s, longer than a frame waits for the model
MAX_GAP = 1_000_000_000  # ns between a frame and the nearest pose; the robot may be elsewhere then

TYPES = {
    "geometry_msgs/msg/PoseStamped": lambda message: message.pose,
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda message: message.pose.pose,
    "nav_msgs/msg/Odometry": lambda message: message.pose.pose,
}
"""Type of the topic: returns the geometry_msgs/Pose in a message, which also has a header."""


class PoseSubscription:
    """The newest poses on `topic`, whose type is that of its publisher.

    Raises ConfigError if `topic` is no name of a topic.
    """

    def __init__(self, node: Node, topic: str) -> None:
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as exc:
            reason = str(exc).partition(":\n")[0]
            raise ConfigError(f"parameter pose_topic: {quoted(topic)}: {reason}") from exc
        self._node = node
        self._given = topic
        self._topic = node.resolve_topic_name(topic)
        self._lock = threading.Lock()  # protects the two lists
        self._stamps: list[int] = []  # ns, ascending
        self._poses: list[Pose] = []
        self._arrived: float | None = None  # s, monotonic, when the newest message came
        self._refused: set[str] = set()  # types that a warning has named; "" for no stamp
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(LOOK_PERIOD, self._look, clock=steady)
        self._look()

    @property
    def age(self) -> float | None:
        """Seconds since the newest message arrived; None: none has arrived."""
        return None if self._arrived is None else time.monotonic() - self._arrived

    def at(self, stamp: int) -> Pose | None:
        """Return the pose nearest to `stamp` in ns; None if none is within MAX_GAP.

        Any thread may call this.
        """
        with self._lock:
            after = bisect.bisect(self._stamps, stamp)
            near = range(max(0, after - 1), min(len(self._stamps), after + 1))
            best = min(near, key=lambda n: abs(self._stamps[n] - stamp), default=None)
            if best is None or abs(self._stamps[best] - stamp) > MAX_GAP:
                return None
            return self._poses[best]

    def close(self) -> None:
        """Stop to look for a publisher. The node destroys the subscription."""
        self._timer.cancel()

    def _look(self) -> None:
        """Subscribe with the type of a publisher, if the topic has one with a known type."""
        for info in self._node.get_publishers_info_by_topic(self._topic):
            if info.topic_type in TYPES:
                if self._subscribe(info.topic_type):
                    self._timer.cancel()
                    return
            else:
                name = info.topic_type
                self._refuse(name, f"has the type {name}; expected one of {', '.join(TYPES)}")

    def _subscribe(self, name: str) -> bool:
        """Subscribe with the type of this name. Return False if it is not installed."""
        package, _, kind = name.split("/")
        try:
            message = getattr(importlib.import_module(f"{package}.msg"), kind)
        except ImportError as exc:
            self._refuse(
                name, f"has the type {name}; {one_line(exc)}: install the ROS package {package}"
            )
            return False
        read = TYPES[name]
        self._node.create_subscription(
            message,
            self._given,
            lambda message: self._on_pose(message.header, read(message)),
            qos_profile_sensor_data,
        )
        self._node.get_logger().info(f"observations have the poses from {self._topic} ({name})")
        return True

    def _refuse(self, reason: str, why: str) -> None:
        if reason not in self._refused:
            self._refused.add(reason)
            self._node.get_logger().warning(f"observations have no pose: {self._topic} {why}")

    def _on_pose(self, header: Any, pose: Any) -> None:
        self._arrived = time.monotonic()
        stamp = nanoseconds(header.stamp)
        if not stamp and not self._poses:
            self._refuse("", "has messages without a stamp")
            return
        with self._lock:
            newest = self._stamps[-1] if self._stamps else stamp - SPACING
            if stamp < newest - MAX_GAP:  # a recording begins again
                self._stamps.clear()
                self._poses.clear()
            elif stamp < newest + SPACING:  # too near, or out of order
                return
            self._stamps.append(stamp)
            self._poses.append(pose_of(header.frame_id, pose.position, pose.orientation))
            if len(self._stamps) > MAX_POSES:
                del self._stamps[: MAX_POSES // 10], self._poses[: MAX_POSES // 10]


def pose_of(frame_id: str, at: Any, turned: Any) -> Pose:
    """Return the pose of a position (or translation) and an orientation of messages."""
    return Pose(frame_id, at.x, at.y, at.z, turned.x, turned.y, turned.z, turned.w)
