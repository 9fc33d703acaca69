"""README's tables of topics, services and the action against the running node."""

import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")

from rclpy.action import get_action_server_names_and_types_by_node

README = (Path(__file__).parent.parent / "README.md").read_text()
ROSS_OWN = ("rcl_interfaces/", "lifecycle_msgs/", "type_description_interfaces/", "rosgraph_msgs/")


def table(heading):
    """Type of each name in a table of the README."""
    section = README.partition(f"### {heading}\n")[2].partition("\n#")[0]
    return dict(re.findall(r"^\| `([~/\w]+)` \| ([\w/]+) \|", section, re.M))


def own(names_and_types, camera=""):
    """Those that are not every node's, with ~ for the node's name and without the camera's."""
    found = {}
    for name, (kind, *_) in names_and_types:
        if not kind.startswith(ROSS_OWN):
            found[name.replace(f"/kosmos/{camera}", "~/", 1)] = kind
    return found


@pytest.fixture
def node(start):
    return start().node


def test_the_readme_lists_the_topics_that_are_published(node):
    listed = table("Topics")
    published = own(node.get_publisher_names_and_types_by_node("kosmos", "/"))
    published = {name: kind for name, kind in published.items() if "/_action/" not in name}
    if "~/detections" not in published:  # without vision_msgs
        listed.pop("~/detections")
    assert listed == published


def test_the_readme_lists_the_services_and_the_action(node):
    listed = table("Services and the action")
    served = own(node.get_service_names_and_types_by_node("kosmos", "/"))
    served = {name: kind for name, kind in served.items() if "/_action/" not in name}
    actions = own(get_action_server_names_and_types_by_node(node, "kosmos", "/"))
    assert listed == served | actions


def test_each_of_several_cameras_has_them_under_its_name(start):
    node = start(cameras=["left", "right"]).node
    names = {name for name, _ in node.get_publisher_names_and_types_by_node("kosmos", "/")}
    names |= {name for name, _ in node.get_service_names_and_types_by_node("kosmos", "/")}
    for topic in ("captions", "text", "annotated", "phrases", "answers", "events", "enable"):
        assert {f"/kosmos/left/{topic}", f"/kosmos/right/{topic}"} <= names
        assert f"/kosmos/{topic}" not in names


def test_every_name_follows_the_namespace_and_remapping(start):
    arguments = ["--ros-args", "-r", "__ns:=/robot", "-r", "__node:=eyes"]
    arguments += ["-r", "~/captions:=/said", "-r", "/diagnostics:=/robot/diagnostics"]
    node = start(cli_args=arguments).node
    assert node.get_fully_qualified_name() == "/robot/eyes"
    published = dict(node.get_publisher_names_and_types_by_node("eyes", "/robot"))
    assert {"/said", "/robot/eyes/text", "/robot/diagnostics"} <= set(published)
    assert node._streams[""].topic == "/robot/image"
