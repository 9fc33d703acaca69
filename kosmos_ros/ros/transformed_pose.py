# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Return the robot's pose at a given time from the transforms of tf2, where tf2 is installed.

Knows frames and stamps; no image and no file.
"""

from __future__ import annotations

import os

from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.records import Pose
from kosmos_ros.ros.conversions import nanoseconds
from kosmos_ros.ros.pose_subscription import MAX_GAP
from kosmos_ros.sanitize import one_line, quoted

CACHE = 120_000_000_000  # ns of transforms that are kept, longer than a frame waits for the model
REPEAT_WARNING = 60.0  # s


class TransformedPose:
    """The poses of the frame `robot` in the frame `fixed`.

    Raises ConfigError if a name is no name of a frame, or tf2_ros is not installed.
    """

    def __init__(self, node: Node, fixed: str, robot: str) -> None:
        for name, frame in (("pose_frame", fixed), ("robot_frame", robot)):
            if not frame or frame.startswith("/"):
                raise ConfigError(
                    f"parameter {name} must be the name of a frame without a slash at its start, "
                    f"such as map, got {quoted(frame)}"
                )
        try:
            import tf2_ros
        except ImportError as exc:
            distribution = os.environ.get("ROS_DISTRO", "DISTRO")
            raise ConfigError(
                f"parameter pose_frame is {quoted(fixed)}, but tf2_ros is not installed "
                f"({one_line(exc)}); install it with 'sudo apt-get install "
                f"ros-{distribution}-tf2-ros-py', or leave pose_frame empty"
            ) from exc
        self._tf2 = tf2_ros
        self._node = node
        self._fixed, self._robot = fixed, robot
        self._newest = 0  # ns, largest stamp of a frame
        self._buffer = tf2_ros.Buffer(Duration(nanoseconds=CACHE))
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        node.get_logger().info(f"observations have the poses of {robot} in {fixed} from /tf")

    @property
    def age(self) -> float | None:
        """Seconds since the stamp of the newest transform; None: none has arrived.

        It is 0 if no transform between the two frames ever changes.
        """
        try:
            newest = self._stamp_of_newest()
        except self._tf2.TransformException:
            return None
        now = self._node.get_clock().now().nanoseconds
        return max(0.0, (now - newest) * 1e-9) if newest else 0.0

    def at(self, stamp: int) -> Pose | None:
        """Return the pose at `stamp` in ns; None if no transform is within MAX_GAP.

        If the transforms do not reach to `stamp` yet, this is the newest pose. Any thread may call
        this.
        """
        if stamp <= 0:
            return None
        if stamp < self._newest - CACHE:  # a recording begins again; tf2 would ignore it as old
            self._buffer.clear()
            self._newest = 0
        self._newest = max(self._newest, stamp)
        try:
            return self._nearest(stamp)
        except self._tf2.TransformException as exc:
            self._node.get_logger().warning(
                f"observations have no pose: no transform from {self._robot} to {self._fixed} at "
                f"the time of the frame: {one_line(exc).strip()}",
                throttle_duration_sec=REPEAT_WARNING,
            )
            return None

    def _nearest(self, stamp: int) -> Pose:
        """Return the pose at `stamp` in ns, or the newest one. Raises TransformException."""
        try:
            return self._look_up(stamp)
        except self._tf2.ExtrapolationException:
            newest = self._stamp_of_newest()
            if abs(newest - stamp) > MAX_GAP:
                raise
            return self._look_up(newest)

    def _look_up(self, stamp: int) -> Pose:
        """Return the pose at `stamp` in ns. Raises TransformException."""
        time = Time(nanoseconds=stamp, clock_type=ClockType.ROS_TIME)
        transform = self._buffer.lookup_transform(self._fixed, self._robot, time).transform
        at, turned = transform.translation, transform.rotation
        return Pose(self._fixed, at.x, at.y, at.z, turned.x, turned.y, turned.z, turned.w)

    def _stamp_of_newest(self) -> int:
        """Return the newest time (ns) at which the pose is known; 0: always.

        Raises TransformException.
        """
        newest = self._buffer.lookup_transform(self._fixed, self._robot, Time())
        return nanoseconds(newest.header.stamp)
