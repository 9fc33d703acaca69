# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rules of the command line that were meant to set parameters are found, others are not."""

import pytest

from kosmos_ros.ros.arguments import bare_rule, mistaken_remaps

PARAMETERS = {"model", "task"}


def found(*words):
    return mistaken_remaps(["program", *words], PARAMETERS.__contains__)


@pytest.mark.parametrize(
    "words",
    [
        ("--ros-args", "-r", "model:=shapes"),
        ("--ros-args", "--remap", "model:=shapes"),
        ("--ros-args", "-p", "task:=question", "-r", "model:=shapes", "--"),
        ("--ros-args", "--", "x", "--ros-args", "-r", "model:=shapes"),
        ("--ros-args", "-r", "kosmos:model:=shapes"),
    ],
)
def test_a_rule_that_names_a_parameter_is_found(words):
    (line,) = found(*words)
    assert line.endswith("did you mean -p model:=shapes?")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("model:=shapes",),
        ("--ros-args", "-p", "model:=shapes"),
        ("--ros-args", "--param", "model:=shapes"),
        ("--ros-args", "-r", "image:=/camera"),
        ("--ros-args", "-r", "__node:=model"),
        ("--ros-args", "-r", "~/model:=/x"),
        ("--ros-args", "--log-level", "model:=info"),
        ("--ros-args", "--", "-r", "model:=shapes"),
        ("-r", "model:=shapes"),
    ],
)
def test_other_rules_are_left_alone(words):
    assert found(*words) == []


def test_a_long_rule_is_shortened():
    (line,) = found("--ros-args", "-r", f"model:={'x' * 5000}\n")
    assert len(line) < 300 and line.isprintable()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--ros-args", "model:=shapes"), "model:=shapes"),
        (("--ros-args", "-p", "task:=question", "model:=shapes"), "model:=shapes"),
        (("--ros-args", "-p", "task:=question", "-r", "a:=b"), ""),
        (("--ros-args", "--log-level", "rcl:=info", "--params-file", "x.yaml"), ""),
        (("model:=shapes", "--ros-args"), ""),
    ],
)
def test_a_rule_without_an_option_is_found(words, rule):
    assert bare_rule(["program", *words]) == rule
