# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Exit codes and error lines of the function that runs a node as a process."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import rclpy
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.task import Future

from kosmos_ros.errors import ConfigError
from kosmos_ros.ros import process
from kosmos_ros.ros.process import STOP_TIMEOUT, run


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Restore signal handlers and hooks that `run` changes for the rest of a process."""
    before = {number: signal.getsignal(number) for number in process.SIGNALS}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    yield
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)
    rclpy.try_shutdown()


class Finished(Node):
    """A node that has finished with an exit code, and whose threads end or not."""

    code, ends = 0, True

    def __init__(self):
        super().__init__("finished")
        self.finished = Future()
        self.finished.set_result(self.code)
        self.timeouts = []

    def stop(self, timeout):
        assert timeout == STOP_TIMEOUT
        return self.ends


def test_the_result_of_finished_is_the_exit_code(monkeypatch):
    monkeypatch.setattr(Finished, "code", 7)
    assert run(Finished, ["node"]) == 7
    assert not rclpy.ok()


def test_a_thread_that_does_not_end_does_not_hold_the_process(monkeypatch):
    codes = []
    monkeypatch.setattr(Finished, "code", 7)
    monkeypatch.setattr(Finished, "ends", False)
    monkeypatch.setattr(os, "_exit", codes.append)
    run(Finished, ["node"])
    assert codes == [7]


@pytest.mark.parametrize("number", process.SIGNALS)
def test_a_signal_ends_the_node_with_0(number):
    class Signalled(Finished):
        def __init__(self):
            super().__init__()
            self.finished = Future()
            os.kill(os.getpid(), number)

    assert run(Signalled, ["node"]) == 0


def test_arguments_that_rcl_cannot_read_end_the_process_with_2(capsys):
    assert run(Finished, ["node", "--ros-args", "-p", "no value"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no value" in line
    assert not rclpy.ok()


def test_an_argument_outside_ros_args_ends_the_process_with_2(capsys):
    assert run(Finished, ["node", "--rate\n", "3"]) == 2
    assert capsys.readouterr().err == (
        "unknown argument --rate\\n; set parameters with --ros-args -p NAME:=VALUE\n"
    )
    assert not rclpy.ok()


@pytest.mark.parametrize("domain", ["-1", "233", "abc", "9" * 100])
def test_an_invalid_domain_ends_the_process_with_2(capsys, monkeypatch, domain):
    """Fast DDS alone would end the process with code 1."""
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert run(Finished, ["node"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ROS_DOMAIN_ID must be a number from 0 to 232, got '")
    assert domain[:20] in line
    assert not rclpy.ok()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("max_rate must be positive"), ""),
        (InvalidQosOverridesError("depth"), "InvalidQosOverridesError: "),
        (
            RuntimeError("Unexpected QoS override for policy `reliability`: `perhaps`"),
            "RuntimeError: ",
        ),
    ],
)
def test_a_node_that_refuses_its_parameters_ends_the_process_with_1(capsys, error, kind):
    """Only the errors of libraries need their class: the project's own are whole sentences."""
    assert run(raising(error), ["node"]) == 1
    assert capsys.readouterr().err == f"{kind}{error}\n"
    assert not rclpy.ok()


def test_other_errors_of_a_new_node_are_raised_and_end_the_context():
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(raising(RuntimeError("can't start new thread")), ["node"])
    assert not rclpy.ok()


def raising(error):
    def make():
        raise error

    return make


def test_only_the_race_of_a_late_signal_is_suppressed(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "__unraisablehook__", reported.append)
    late = SimpleNamespace(exc_value=OSError("race condition: signal.SIG_IGN"))
    other = SimpleNamespace(exc_value=OSError("disk full"))
    for unraisable in (late, other):
        process._report_unless_late_signal(unraisable)
    assert reported == [other]
