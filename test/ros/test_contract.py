# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tables of topics, services and the action in docs/interface.md against the running node."""

import re
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rclpy.action import get_action_server_names_and_types_by_node

from kosmos_ros.ros.conversions import Detection2DArray

PAGE = (Path(__file__).parents[2] / "docs" / "interface.md").read_text()
STANDARD = ("rcl_interfaces/", "lifecycle_msgs/", "type_description_interfaces/", "rosgraph_msgs/")


def table(heading):
    """Return the type of each name in a table of the page."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n#")[0]
    return dict(re.findall(r"^\| `([~/\w]+)` \| ([\w/]+) \|", section, re.M))


def own(names_and_types, camera=""):
    """Return the names that only this node has, with ~ for the node's and the camera's name."""
    found = {}
    for name, (kind, *_) in names_and_types:
        if not kind.startswith(STANDARD):
            found[name.replace(f"/kosmos/{camera}", "~/", 1)] = kind
    return found


def shown(harness, what, expected):
    """Return what the graph shows: as soon as it is as expected, or else after 10 s."""
    end = time.monotonic() + 10.0
    harness.until(lambda: what() == expected or time.monotonic() > end)
    return what()


def test_the_page_lists_the_published_topics(start):
    harness, listed = start(), table("Topics")
    if Detection2DArray is None:
        listed.pop("~/detections")

    def published():
        found = own(harness.node.get_publisher_names_and_types_by_node("kosmos", "/"))
        return {name: kind for name, kind in found.items() if "/_action/" not in name}

    assert shown(harness, published, listed) == listed


def test_the_page_lists_the_services_and_the_action(start):
    harness, listed = start(), table("Services and the action")

    def served():
        found = own(harness.node.get_service_names_and_types_by_node("kosmos", "/"))
        services = {name: kind for name, kind in found.items() if "/_action/" not in name}
        actions = own(get_action_server_names_and_types_by_node(harness.node, "kosmos", "/"))
        return services | actions

    assert shown(harness, served, listed) == listed


def test_each_of_several_cameras_has_its_own_topics(start):
    harness = start(cameras=["left", "right"])
    topics = ("captions", "text", "annotated", "annotated/compressed")
    topics += ("frame/compressed", "phrases", "answers", "events", "enable")

    def names():
        pairs = harness.node.get_publisher_names_and_types_by_node("kosmos", "/")
        pairs += harness.node.get_service_names_and_types_by_node("kosmos", "/")
        return {name for name, _ in pairs}

    expected = {f"/kosmos/{camera}/{topic}" for camera in ("left", "right") for topic in topics}
    harness.until(lambda: expected <= names(), "the cameras' names")
    assert not {f"/kosmos/{topic}" for topic in topics} & names()


@pytest.mark.fault(60)
def test_every_name_follows_the_namespace_and_remapping(start):
    arguments = ["--ros-args", "-r", "__ns:=/robot", "-r", "__node:=eyes"]
    arguments += ["-r", "~/captions:=/said", "-r", "/diagnostics:=/robot/diagnostics"]
    harness = start(cli_args=arguments)
    node = harness.node
    assert node.get_fully_qualified_name() == "/robot/eyes"
    expected = {"/said", "/robot/eyes/text", "/robot/diagnostics"}
    harness.until(
        lambda: expected <= set(dict(node.get_publisher_names_and_types_by_node("eyes", "/robot")))
    )
    assert node.cameras[""].subscription.topic == "/robot/image"
