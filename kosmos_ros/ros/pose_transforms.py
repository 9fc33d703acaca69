# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Listen to tf, and return the robot's pose in a fixed frame at a given time.

Knows transforms and stamps; no image and no file. tf2_ros is optional and imported only here.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.records import Pose
from kosmos_ros.ros.conversions import nanoseconds
from kosmos_ros.ros.pose_subscription import MAX_GAP, pose_of
from kosmos_ros.ros.process import spin_once
from kosmos_ros.sanitize import one_line, quoted

CACHE = 120  # s of transforms that are kept, longer than a frame waits for the model
REPEAT_WARNING = 60.0  # s between two warnings that a frame has no pose
JOIN_TIMEOUT = 1.0  # s for the callback that runs when the listener is closed


class PoseTransforms:
    """The poses of `robot_frame` in `pose_frame`, from /tf and /tf_static.

    A node of its own receives the transforms in a thread of its own: /tf often has hundreds of
    messages per second, and the executor of `node` would check all its services, timers and topics
    for each of them. Raises ConfigError if a frame has no valid name or tf2_ros is not installed.
    """

    def __init__(self, node: Node, pose_frame: str, robot_frame: str) -> None:
        _check_frames(pose_frame, robot_frame)
        try:
            import tf2_ros
        except ImportError as exc:
            raise ConfigError(
                f"parameter pose_frame: {quoted(pose_frame)} needs tf2_ros, which cannot be "
                f"imported ({one_line(exc)}); install it with `sudo apt-get install "
                f"ros-{os.environ.get('ROS_DISTRO', 'DISTRO')}-tf2-ros-py`, or leave pose_frame "
                "empty"
            ) from exc
        self._tf = tf2_ros
        self._node = node
        self._frames = pose_frame, robot_frame
        self._buffer = tf2_ros.Buffer(Duration(seconds=CACHE))
        self._stamps: dict[str, int] = {}  # newest stamp (ns) of each child frame
        self._seen: int | None = None  # ns, stamp of the newest pose, as far as `age` knows
        self._changed = 0.0  # s, monotonic, when `age` saw this stamp
        self._listener_node = _quiet_node(node)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._listener_node)
        self._listener = tf2_ros.TransformListener(self, self._listener_node)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="tf", daemon=True)
        self._thread.start()
        node.get_logger().info(f"observations have the poses of {robot_frame} in {pose_frame}")

    @property
    def age(self) -> float | None:
        """Seconds since a call last found a newer pose than the one before; None: no pose so far.

        0 if all transforms are static. The accuracy is the time between two calls.
        """
        try:
            newest = self._buffer.get_latest_common_time(*self._frames).nanoseconds
        # Unknown, cleared when a recording began again, or a negative stamp.
        except (self._tf.TransformException, ValueError):
            newest = self._seen
        if newest != self._seen or newest == 0:
            self._seen, self._changed = newest, time.monotonic()
        return None if newest is None else time.monotonic() - self._changed

    def at(self, stamp: int) -> Pose | None:
        """Return the pose at `stamp` in ns; None if there is none, and log the reason.

        If the transforms do not reach the stamp yet, the newest pose is returned if it is within
        MAX_GAP. Any thread may call this.
        """
        try:
            transform = self._lookup(stamp)
        except (self._tf.TransformException, ValueError) as exc:
            if self._node.context.ok():
                fixed, robot = self._frames
                self._node.get_logger().warning(
                    f"observations have no pose of {robot} in {fixed}: {one_line(exc).rstrip()}",
                    throttle_duration_sec=REPEAT_WARNING,
                )
            return None
        at, turned = transform.transform.translation, transform.transform.rotation
        return pose_of(self._frames[0], at, turned)

    def close(self) -> None:
        """Stop listening."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._executor.create_task(lambda: None)  # wakes the thread
        self._thread.join(JOIN_TIMEOUT)
        if not self._thread.is_alive():
            self._executor.shutdown()
            self._listener_node.destroy_node()

    def _lookup(self, stamp: int) -> Any:
        if stamp <= 0:  # tf2 would take 0 for the newest transform
            raise ValueError(f"the stamp of the image must be later than 0, got {stamp} ns")
        try:
            return self._buffer.lookup_transform(*self._frames, Time(nanoseconds=stamp))
        except self._tf.ExtrapolationException:
            newest = self._buffer.lookup_transform(*self._frames, Time())
            if abs(nanoseconds(newest.header.stamp) - stamp) > MAX_GAP:
                raise
            return newest

    def _spin(self) -> None:
        try:
            while not self._closed.is_set():
                spin_once(self._listener_node)
        except Exception:
            if self._node.context.ok():
                raise

    # Called by TransformListener, in the thread of the listener -------------------------------

    def set_transform(self, transform: Any, authority: str) -> None:
        """Keep a transform of /tf, and drop older ones if its time goes back."""
        # The buffer ignores transforms that are older than CACHE. Its own check for a clock that
        # goes back needs use_sim_time; a recording may be played without it.
        child, stamp = transform.child_frame_id, nanoseconds(transform.header.stamp)
        newest = self._stamps.get(child, stamp)
        if stamp < newest - MAX_GAP:
            self._buffer.clear()  # static transforms stay
            self._stamps.clear()
            newest = stamp
        self._stamps[child] = max(stamp, newest)
        self._buffer.set_transform(transform, authority)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """Keep a transform of /tf_static."""
        self._buffer.set_transform_static(transform, authority)


def _check_frames(pose_frame: str, robot_frame: str) -> None:
    """Raise ConfigError for names that tf2 refuses, and for one frame instead of two."""
    for name, frame in {"pose_frame": pose_frame, "robot_frame": robot_frame}.items():
        if not frame or frame.startswith("/"):
            raise ConfigError(
                f"parameter {name}: must be a frame name without a leading /, got {quoted(frame)}"
            )
    if pose_frame == robot_frame:
        raise ConfigError(
            f"parameters pose_frame and robot_frame must differ, got {quoted(pose_frame)} for both"
        )


def _quiet_node(node: Node) -> Node:
    """Return a node beside `node` that only subscribes. Remappings of topics hold for it, too."""
    name = f"{node.get_name()}_tf"
    return Node(
        name,
        namespace=node.get_namespace(),
        context=node.context,
        cli_args=["--ros-args", "-r", f"__node:={name}"],  # else it takes kosmos_node's name
        parameter_overrides=[
            Parameter("use_sim_time", value=False),  # it needs no clock
            Parameter("start_type_description_service", value=False),
        ],
        enable_rosout=False,
        start_parameter_services=False,
    )
