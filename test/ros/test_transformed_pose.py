# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Poses of observations from the transforms of tf2."""

import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from geometry_msgs.msg import TransformStamped

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.records import Pose
from kosmos_ros.ros.transformed_pose import CACHE

SECOND = 10**9  # ns


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"pose_frame": "map", "pose_topic": "odom"},
            "parameters pose_topic and pose_frame are 'odom' and 'map', but only one of them",
        ),
        ({"pose_frame": "/map"}, "parameter pose_frame must be .* slash .*, got '/map'"),
        ({"pose_frame": "map", "robot_frame": ""}, "parameter robot_frame must be .*, got ''"),
        ({"pose_frame": "map", "robot_frame": "/base"}, "parameter robot_frame .* got '/base'"),
    ],
)
def test_invalid_frames_are_named(start, path, values, message):
    with pytest.raises(ConfigError, match=message):
        start(memory=str(path), **values)


def test_an_error_says_how_to_install_tf2(start, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with pytest.raises(
        ConfigError,
        match=r"parameter pose_frame is 'map', but tf2_ros is not installed \(.*\); install it "
        r"with 'sudo apt-get install ros-jazzy-tf2-ros-py', or leave pose_frame empty",
    ):
        start(memory=str(path), pose_frame="map")


# Where tf2 is installed ------------------------------------------------------------------------


class Transforms:
    """A node that publishes transforms."""

    def __init__(self, harness):
        tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed")
        self.kind, self.harness = tf2_msgs.TFMessage, harness
        self.poses = harness.node.memory._poses
        from rclpy.qos import DurabilityPolicy, QoSProfile

        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.moving = harness.client.create_publisher(self.kind, "/tf", 100)
        self.static = harness.client.create_publisher(self.kind, "/tf_static", latched)
        harness.until(self.moving.get_subscription_count, "a subscription to /tf")

    def send(self, parent, child, stamp, x, fixed=False):
        transform = TransformStamped(child_frame_id=child)
        transform.header.frame_id = parent
        transform.header.stamp.sec, transform.header.stamp.nanosec = divmod(stamp, SECOND)
        transform.transform.translation.x, transform.transform.rotation.w = x, 1.0
        (self.static if fixed else self.moving).publish(self.kind(transforms=[transform]))

    def until(self, stamp, x):
        def there():
            pose = self.poses.at(stamp)
            return pose is not None and abs(pose.x - x) < 1e-6

        self.harness.until(there, f"the pose {x} at {stamp}")


@pytest.fixture
def transforms(start, path):
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    harness = start(memory=str(path), max_rate=0.0, pose_frame="map", robot_frame="base")
    return Transforms(harness)


def test_a_pose_is_interpolated_along_a_chain_of_frames(transforms, path):
    transforms.send("map", "odom", 0, 10.0, fixed=True)
    for second in (6, 7, 8):
        transforms.send("odom", "base", second * SECOND, float(second))
    transforms.until(8 * SECOND, 18.0)
    assert transforms.poses.at(6 * SECOND + SECOND // 2) == Pose("map", 16.5, 0.0)
    harness = transforms.harness
    harness.send()  # its stamp is 7 s
    harness.until(lambda: path.exists() and observed(path), "an observation")
    assert observed(path)[0].pose == Pose("map", 17.0, 0.0)


def observed(path):
    with ObservationLog.read(path) as log:
        return log.get(log.search("", limit=10))


def test_the_newest_pose_serves_for_a_second(transforms):
    for second in (5, 6):
        transforms.send("map", "base", second * SECOND, float(second))
    transforms.until(6 * SECOND, 6.0)
    assert transforms.poses.at(7 * SECOND).x == 6.0
    assert transforms.poses.at(7 * SECOND + 1) is None
    assert transforms.poses.at(5 * SECOND - 1) is None
    assert transforms.poses.at(0) is None
    assert transforms.poses.age > 0.0


def test_without_a_transform_a_warning_says_why_and_poses_come_later(transforms):
    assert transforms.poses.at(5 * SECOND) is None
    assert transforms.poses.age is None
    transforms.harness.until(
        lambda: transforms.harness.logs(
            "observations have no pose: no transform from base to map at the time of the frame: "
        ),
        "a warning",
    )
    transforms.send("map", "base", 5 * SECOND, 1.0)
    transforms.until(5 * SECOND, 1.0)


def test_a_recording_that_begins_again_has_poses_again(transforms):
    transforms.send("map", "odom", 0, 10.0, fixed=True)
    late = 5 * SECOND + CACHE + 1
    transforms.send("odom", "base", late, 1.0)
    transforms.until(late, 11.0)
    transforms.poses.at(4 * SECOND)  # a frame of the new beginning
    transforms.send("odom", "base", 5 * SECOND, 2.0)
    transforms.until(5 * SECOND, 12.0)
