# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A node that a test destroys leaves the network, with its action clients."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.action import Generate
from rclpy.action import ActionClient
from rclpy.node import Node


def test_a_node_leaves_the_network_with_its_action_clients(ros, client, spinner):
    leaving = Node("leaving")
    action = ActionClient(leaving, Generate, "stream")
    spinner.until(lambda: "leaving" in client.get_node_names())
    leaving.destroy_node()
    spinner.until(lambda: "leaving" not in client.get_node_names())
    assert action  # kept until here, as the traceback of a failed test keeps it
