# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rclpy.node import Node

from kosmos_ros.ros.parameter_files import unmatched

SECTIONS = [
    "kosmos",
    "/kosmos",
    "/**",
    "/*",
    "/**/kosmos",
    "/*/kosmos",
    "/robot/kosmos",
    "robot/kosmos",
    "robot/*",
    "/robot/**",
    "/a/b/kosmos",
    "/a/**/kosmos",
    "/a/**",
    "eyes",
]


@pytest.mark.parametrize("namespace", ["", "robot", "/a/b"])
@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.fault(107)
def test_a_file_is_unmatched_exactly_if_ros_uses_none_of_its_values(
    ros, tmp_path, section, namespace
):
    file = tmp_path / "values.yaml"
    file.write_text(f"{section}: {{ros__parameters: {{max_rate: 7.5}}}}\n")
    words = ["--ros-args", "--params-file", str(file)]
    node = Node("kosmos", namespace=namespace, cli_args=words)
    used = node.declare_parameter("max_rate", 1.0).value == 7.5
    warnings = unmatched(words, node.get_fully_qualified_name())
    node.destroy_node()
    assert bool(warnings) is not used


def test_nested_namespaces_are_one_name(tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text("robot: {kosmos: {ros__parameters: {a: 1}}, eyes: {ros__parameters: {b: 2}}}")
    assert not unmatched(["--params-file", str(file)], "/robot/kosmos")
    (warning,) = unmatched(["--params-file", str(file)], "/kosmos")
    assert f"parameter file {file} has no section for /kosmos" in warning
    assert (
        "its sections are /robot/kosmos, /robot/eyes; rename the right one to /** or /kosmos"
        in warning
    )


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "a: b: c", "\xff", "/**: 3", "kosmos: {ros__parameters: {a: 2024-13-45}}"],
)
def test_a_file_without_sections_is_left_to_ros(tmp_path, text):
    file = tmp_path / "values.yaml"
    file.write_text(text, encoding="latin-1")
    assert unmatched(["--params-file", str(file), "--params-file", "/no/such"], "/kosmos") == []
