# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node warns while another node has its name, and stops when that node is gone."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from kosmos_ros.ros import namesakes


@pytest.mark.fault(81)
def test_another_node_of_the_same_name_is_reported_until_it_is_gone(start, monkeypatch):
    monkeypatch.setattr(namesakes, "GRACE", 0.0)
    monkeypatch.setattr(namesakes, "PERIOD", 0.1)
    harness = start()
    reports = harness.collect(DiagnosticArray, "/diagnostics")

    def reported(level, message, others):
        status = reports[-1].status[0] if reports else DiagnosticStatus()
        values = {pair.key: pair.value for pair in status.values}
        return (status.level, status.message, values.get("other nodes of this name")) == (
            level,
            message,
            others,
        )

    harness.until(lambda: reported(DiagnosticStatus.OK, "ready", "0"))
    other = Node("kosmos", use_global_arguments=False)
    harness.until(lambda: harness.logs("1 more node has the name /kosmos", "__node:="))
    harness.until(lambda: reported(DiagnosticStatus.WARN, "another node has this name", "1"))
    other.destroy_node()  # which also ends the log topic of both, because they share this process
    harness.until(lambda: reported(DiagnosticStatus.OK, "ready", "0"))


class FakeNode:
    """A node whose graph has `names`; keeps its log."""

    def __init__(self):
        self.names, self.logged = [("kosmos", "/")], []

    def get_name(self):
        return "kosmos"

    def get_namespace(self):
        return "/"

    def get_fully_qualified_name(self):
        return "/kosmos"

    def get_node_names_and_namespaces(self):
        return self.names

    def get_logger(self):
        def log(text, throttle_duration_sec=0.0):
            self.logged.append(text)

        return SimpleNamespace(warning=log, info=log)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(namesakes.time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.fault(81)
def test_the_name_of_a_killed_process_is_no_other_node(clock):
    """The graph keeps it for 20 s, and a launch file may restart the node at once."""
    node = FakeNode()
    watch = namesakes.Namesakes(node)
    node.names *= 2
    watch.check()
    clock.now += 20.0
    watch.check()
    node.names.pop()
    clock.now += 5.0
    watch.check()
    assert (watch.count, node.logged) == (0, [])


def test_a_name_that_leaves_and_returns_counts_from_its_return(clock):
    node = FakeNode()
    watch = namesakes.Namesakes(node)
    for count, expected in ((3, 0), (1, 0), (3, 0), (3, 2)):
        node.names = [("kosmos", "/")] * count
        watch.check()
        assert watch.count == expected
        clock.now += namesakes.GRACE
    (warning,) = node.logged
    assert warning.startswith("2 more nodes have the name /kosmos")
    node.names = [("kosmos", "/")]
    watch.check()
    watch.check()
    assert node.logged[1:] == ["no other node has the name /kosmos any more"]


def test_the_same_name_in_another_namespace_is_another_name(clock):
    node = FakeNode()
    watch = namesakes.Namesakes(node)
    node.names += [("kosmos", "/front"), ("kosmos_camera", "/")]
    for _ in range(3):
        watch.check()
        clock.now += namesakes.GRACE
    assert (watch.count, node.logged) == (0, [])
