# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Errors of the environment are distinguished from bugs, and each names a remedy."""

import errno
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from kosmos_ros import entry


class RCLError(RuntimeError):
    __module__ = "rclpy._rclpy_pybind11"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("pthread_create failed: Resource temporarily unavailable"), "ulimit -u"),
        (RCLError("error creating node: Failed to create std::thread: Resource"), ""),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/some/file.py"), "ulimit -n"),
        (RuntimeError("eventfd_select_interrupter: Too many open files"), "ulimit -n"),
        (MemoryError(), "ulimit -v"),
        (ImportError("libx.so: failed to map segment from shared object"), "ulimit -v"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "ulimit -v"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "free space on the disk"),
        (RCLError("Failed to create log directory '/x/log': 13"), "set ROS_LOG_DIR"),
        (RCLError("Failed to get logging directory"), "set HOME"),
        (RCLError("failed to initialize rcl: error not set"), ""),
        (ModuleNotFoundError("No module named 'kosmos_msgs'"), "setup files"),
        (ImportError("librcl_action.so: cannot open shared object file"), "setup files of ROS"),
        (ImportError("No module named 'rclpy._rclpy_pybind11'"), "not that of conda"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x"), ""),
    ],
)
def test_trouble_names_the_error_and_the_remedy(error, remedy):
    line = entry.trouble(error)
    assert line.startswith(f"{type(error).__name__}: {error}".removesuffix(": "))
    assert remedy in line
    assert line.isprintable()


class InvalidHandle(RuntimeError):
    __module__ = "rclpy._rclpy_pybind11"


def test_an_error_without_a_text_is_named_by_its_type():
    assert entry.trouble(MemoryError()).startswith("MemoryError; free memory")


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), ValueError("x"), KeyError("x"), InvalidHandle("a bug")]
)
def test_other_errors_are_not_the_environments(error):
    assert entry.trouble(error) == ""


@pytest.fixture
def program(monkeypatch):
    """Return a function that runs a program whose `main` is given, and returns its exit code."""
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    monkeypatch.setattr(entry.os, "_exit", lambda _: None)

    def run(main):
        module = ModuleType("some_program")
        module.main = main
        monkeypatch.setitem(sys.modules, "some_program", module)
        return entry.run_program("some_program")

    return run


def raising(error):
    def main():
        raise error

    return main


def test_the_result_of_main_is_the_exit_code(program):
    assert program(lambda: 3) == 3


def test_trouble_of_the_environment_is_one_line_and_code_7(program, capsys):
    assert program(raising(OSError(errno.EMFILE, "Too many open files", "a\nb"))) == 7
    assert capsys.readouterr().err == (
        "some_program: OSError: [Errno 24] Too many open files: 'a\\nb'; "
        "allow more open files (ulimit -n, LimitNOFILE)\n"
    )


def test_a_bug_is_a_traceback_and_code_5(program, capsys):
    assert program(raising(LookupError("a bug"))) == 5
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("LookupError: a bug\n")


class Panic(BaseException):
    """The error of a library in Rust for its own bug; `except Exception` does not catch it."""


def test_a_panic_of_a_library_is_code_5_and_not_1(program, capsys):
    assert program(raising(Panic("index out of range"))) == 5
    assert capsys.readouterr().err.endswith("Panic: index out of range\n")


@pytest.mark.parametrize("end", [SystemExit(2), KeyboardInterrupt()])
def test_an_end_that_the_program_chooses_is_left_alone(program, end):
    with pytest.raises(type(end)):
        program(raising(end))


def test_a_module_that_is_missing_is_named(capsys, monkeypatch):
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    monkeypatch.setattr(entry.os, "_exit", lambda _: None)
    assert entry.run_program("no_such_package.node") == 7
    assert capsys.readouterr().err.startswith(
        "node: ModuleNotFoundError: No module named 'no_such_package'; install it"
    )


@pytest.fixture
def node(monkeypatch):
    """Return a function that starts kosmos_node with arguments: exit code, whether it began."""

    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)

    def run(*words):
        began = []
        monkeypatch.setattr(entry, "run_program", lambda module: began.append(module) or 0)
        monkeypatch.setattr(sys, "argv", ["kosmos_node", *words])
        return entry.kosmos_node(), bool(began)

    return run


@pytest.fixture
def installed(monkeypatch):
    """Return a function that lets Python find only these packages, with their origins."""

    def only(**origins):
        spec = {name: SimpleNamespace(origin=origin) for name, origin in origins.items()}
        monkeypatch.setattr(entry.importlib.util, "find_spec", spec.get)

    return only


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_printed_without_ros(node, installed, capsys, word):
    installed()
    assert node(word) == (0, False)
    out, err = capsys.readouterr()
    assert out.startswith("usage: kosmos_node [--ros-args") and err == ""
    assert "model:=shapes" in out


def test_help_among_the_arguments_of_ros_is_left_to_ros(node, installed):
    installed(rclpy="/ros/rclpy/__init__.py", kosmos_msgs="/ros/kosmos_msgs/__init__.py")
    assert node("--ros-args", "--help") == (0, True)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({}, "no package rclpy: ROS 2 is not set up in this shell; run 'source /opt/ros/DISTRO"),
        ({"rclpy": "/x"}, "no package kosmos_msgs: build the workspace"),
        # The folder of the sources, which is no package.
        ({"rclpy": "/x", "kosmos_msgs": None}, "no package kosmos_msgs: build the workspace"),
    ],
)
@pytest.mark.fault(103)
def test_a_shell_without_ros_is_one_line_and_code_7(node, installed, capsys, found, line):
    installed(**found)
    assert node() == (7, False)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"kosmos_node: Python finds {line}")
    assert err.count("\n") == 1
