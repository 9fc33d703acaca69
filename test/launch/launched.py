# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Base of the launch tests: a launch file as a test description, and a client of its node."""

import time
import unittest
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch_testing.actions import ReadyToTest
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile

FILES = Path(__file__).parents[2] / "launch"
PATIENCE = 60.0  # s, far longer than any step takes


def description_of(file, *before, **arguments):
    """Return the test description that includes one of the project's launch files in a group.

    The actions `before` come first in the group.
    """
    # launch sends SIGTERM 5 s after SIGINT by default, which is too early on busy cores.
    arguments = {"sigterm_timeout": "30", **arguments}
    include = IncludeLaunchDescription(
        AnyLaunchDescriptionSource(str(FILES / file)), launch_arguments=arguments.items()
    )
    return LaunchDescription([GroupAction([*before, include]), ReadyToTest()])


class ClientTestCase(unittest.TestCase):
    """A test with a ROS node, `client`."""

    def setUp(self):
        rclpy.init()
        self.addCleanup(rclpy.try_shutdown)
        self.client = rclpy.create_node("robot")
        self.addCleanup(self.client.destroy_node)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.client)

    def until(self, condition, what):
        """Spin until `condition()` is true and return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            self.assertLess(time.monotonic(), end, f"no {what} within {PATIENCE:g} s")
            self._executor.spin_once(timeout_sec=0.1)
        return value

    def call(self, kind, name, **request):
        """Return the response of a service."""
        client = self.client.create_client(kind, name)
        self.assertTrue(client.wait_for_service(PATIENCE), f"no service {name}")
        future = client.call_async(kind.Request(**request))
        self.until(future.done, f"response of {name}")
        return future.result()

    def wait_until_ready(self, node):
        """Wait until the model of a node is loaded; return its model_info."""
        states = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic = f"{node}/model_info"
        self.client.create_subscription(DiagnosticStatus, topic, states.append, latched)
        self.until(lambda: states and states[-1].message == "ready", "loaded model")
        return {pair.key: pair.value for pair in states[-1].values}

    def parameters(self, node, *names):
        """Return the values of a node's parameters."""
        response = self.call(GetParameters, f"{node}/get_parameters", names=names)
        return list(map(parameter_value_to_python, response.values))

    def wait_for_topics(self, kind, node, *topics):
        """Wait until a node has publishers or subscribers (`kind`) of these topics."""
        namespace, _, name = node.rpartition("/")
        found_of = getattr(self.client, f"get_{kind}_names_and_types_by_node")

        def found():
            try:
                return {topic for topic, _ in found_of(name, namespace or "/")}
            except RuntimeError:  # rclpy's NodeNameNonExistentError: not discovered yet
                return set()

        self.until(lambda: set(topics) <= found(), f"{kind} of {', '.join(topics)}")
