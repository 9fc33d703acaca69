# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Observations have the robot's pose from tf, if tf2_ros is installed."""

import sys
import threading

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from conftest import Spinner
from geometry_msgs.msg import TransformStamped
from node_harness import LATCHED
from rclpy.node import Node

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.records import Pose
from kosmos_ros.ros.pose_subscription import MAX_GAP
from kosmos_ros.ros.pose_transforms import CACHE, PoseTransforms

SECOND = 10**9  # ns
MISSING = "tf2_ros is not installed: apt-get install ros-$ROS_DISTRO-tf2-ros-py"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


# Without tf2_ros ----------------------------------------------------------------------------


def test_a_missing_tf2_ros_is_named_with_its_package(start, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with pytest.raises(
        ConfigError,
        match=r"parameter pose_frame: 'map' needs tf2_ros, .*install ros-jazzy-tf2-ros-py`",
    ):
        start(memory=str(path), pose_frame="map")


def test_a_topic_and_a_frame_contradict_each_other(start, path):
    with pytest.raises(
        ConfigError,
        match="parameters pose_topic and pose_frame: only one of them may be set, got 'odom' and",
    ):
        start(memory=str(path), pose_topic="odom", pose_frame="map")


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ({"pose_frame": "/map"}, "parameter pose_frame: .* without a leading /, got '/map'"),
        ({"robot_frame": "/base_link"}, "parameter robot_frame: .* got '/base_link'"),
        ({"robot_frame": ""}, "parameter robot_frame: must be a frame name .* got ''"),
        ({"robot_frame": "map"}, "pose_frame and robot_frame must differ, got 'map' for both"),
    ],
)
def test_a_wrong_frame_is_refused(start, path, frames, reason):
    with pytest.raises(ConfigError, match=reason):
        start(memory=str(path), **{"pose_frame": "map", **frames})


# With tf2_ros -------------------------------------------------------------------------------


class Robot:
    """A node that publishes transforms."""

    def __init__(self):
        messages = pytest.importorskip("tf2_msgs.msg", reason=MISSING)
        self.kind = messages.TFMessage
        self.node = Node("robot")
        self.moving = self.node.create_publisher(self.kind, "/tf", 100)
        self.static = self.node.create_publisher(self.kind, "/tf_static", LATCHED)

    def publish(self, publisher, parent, child, stamp, x):
        transform = TransformStamped(child_frame_id=child)
        transform.header.frame_id = parent
        transform.header.stamp.sec, transform.header.stamp.nanosec = divmod(stamp, SECOND)
        transform.transform.translation.x, transform.transform.rotation.w = x, 1.0
        publisher.publish(self.kind(transforms=[transform]))

    def move(self, stamp, x):
        self.publish(self.moving, "odom", "base_link", stamp, x)


@pytest.fixture
def robot(ros):
    pytest.importorskip("tf2_ros", reason=MISSING)
    robot = Robot()
    robot.publish(robot.static, "map", "odom", 0, 100.0)
    return robot


@pytest.fixture
def poses(robot, monkeypatch):
    monkeypatch.setattr("kosmos_ros.ros.pose_transforms.JOIN_TIMEOUT", 60.0)
    poses = PoseTransforms(robot.node, "map", "base_link")
    robot.spinner = Spinner(robot.node)
    robot.spinner.until(robot.moving.get_subscription_count, "a subscription")
    yield poses
    poses.close()


def seen(robot, poses, stamp, x):
    robot.spinner.until(lambda: poses.at(stamp) == Pose("map", x, 0.0), f"a pose at {x}")


def test_a_pose_is_that_of_the_stamp_through_static_and_moving_frames(robot, poses):
    assert (poses.at(10 * SECOND), poses.age) == (None, None)
    robot.move(10 * SECOND, 1.0)
    robot.move(12 * SECOND, 3.0)
    seen(robot, poses, 12 * SECOND, 103.0)
    assert poses.at(11 * SECOND) == Pose("map", 102.0, 0.0)
    assert poses.age < 60


def test_a_frame_newer_or_older_than_the_transforms_has_the_newest_pose_if_it_is_near(
    robot, poses
):
    robot.move(10 * SECOND, 1.0)
    seen(robot, poses, 10 * SECOND, 101.0)
    assert poses.at(10 * SECOND + MAX_GAP) == Pose("map", 101.0, 0.0)
    assert poses.at(10 * SECOND + MAX_GAP + 1) is None
    assert poses.at(10 * SECOND - MAX_GAP - 1) is None
    robot.move(12 * SECOND, 3.0)  # the transforms come again
    seen(robot, poses, 12 * SECOND, 103.0)


@pytest.mark.parametrize("stamp", [0, -5])
def test_a_frame_without_a_stamp_has_no_pose(robot, poses, stamp):
    robot.move(SECOND // 2, 1.0)
    seen(robot, poses, SECOND // 2, 101.0)
    assert poses.at(stamp) is None


@pytest.mark.parametrize("length", [10, 2 * CACHE])
def test_a_recording_may_begin_again(robot, poses, length):
    robot.move(1000 * SECOND, 1.0)
    robot.move((1000 + length) * SECOND, 2.0)
    seen(robot, poses, (1000 + length) * SECOND, 102.0)
    robot.move(1000 * SECOND, 5.0)
    seen(robot, poses, 1000 * SECOND, 105.0)
    assert poses.at((1000 + length) * SECOND) is None


def test_the_age_is_that_of_the_pose_and_not_of_another_frame(robot, poses):
    robot.move(10 * SECOND, 1.0)
    robot.spinner.until(lambda: poses.age is not None, "an age")
    robot.publish(robot.moving, "base_link", "arm", 20 * SECOND, 7.0)
    robot.spinner.until(lambda: poses._stamps.get("arm"), "the arm")
    first = poses.age
    assert poses.age > first


def test_wrong_transforms_leave_the_listener_alive(robot, poses):
    for parent, child, stamp, x in (
        ("odom", "base_link", -5 * SECOND, 1.0),
        ("odom", "base_link", 10 * SECOND, float("nan")),
        ("odom", "odom", 10 * SECOND, 1.0),
        ("", "base_link", 10 * SECOND, 1.0),
        ("odom", "", 10 * SECOND, 1.0),
        ("arm", "hand", 10 * SECOND, 1.0),  # comes last
    ):
        robot.publish(robot.moving, parent, child, stamp, x)
    robot.spinner.until(lambda: poses._stamps.get("hand"), "the transforms")
    assert (poses.at(10 * SECOND), poses.age) == (None, None)
    robot.move((2**31 - 1) * SECOND, 2.0)
    robot.move(12 * SECOND, 3.0)
    seen(robot, poses, 12 * SECOND, 103.0)


def test_an_error_of_a_callback_leaves_the_listener_alive(robot, poses, monkeypatch):
    failed = threading.Event()

    def fail(*args):
        failed.set()
        raise ValueError("a bug")

    with monkeypatch.context() as context:
        context.setattr(poses, "set_transform", fail)
        robot.move(10 * SECOND, 1.0)
        assert failed.wait(60)
    robot.move(12 * SECOND, 3.0)
    seen(robot, poses, 12 * SECOND, 103.0)


def test_an_end_leaves_no_thread_and_no_node(robot, poses):
    assert [thread.name for thread in threading.enumerate()].count("tf") == 1
    poses.close()
    poses.close()
    assert "tf" not in [thread.name for thread in threading.enumerate()]
    robot.spinner.until(lambda: "robot_tf" not in robot.node.get_node_names(), "an end")


def test_an_observation_has_the_pose_from_tf(start, path):
    pytest.importorskip("tf2_ros", reason=MISSING)
    harness = start(memory=str(path), max_rate=0.0, pose_frame="map")
    robot = Robot()
    robot.publish(robot.static, "map", "odom", 0, 100.0)
    harness.send(sec=6)
    reason = "observations have no pose of base_link in map: "
    harness.until(lambda: harness.logs(reason, "base_link"))
    harness.until(robot.moving.get_subscription_count, "a subscription")
    poses = harness.node.memory._poses
    robot.move(7 * SECOND, 2.0)
    harness.until(lambda: poses.at(7 * SECOND), "a pose")
    harness.send(sec=7)

    def poses_in_log():
        with ObservationLog.read(path) as log:
            return [each.pose for each in log.get(log.search("", limit=1000))]

    harness.until(lambda: Pose("map", 102.0, 0.0) in poses_in_log(), "an observation")
