# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run one node as a process: start, spin, end.

Knows signals and exit codes. Uses only `finished`, `stop` and `patience` of the node.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import rclpy
import rclpy.utilities
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions

from kosmos_ros.entry import BAD_ARGUMENT, BAD_PARAMETER, SIGNALS, catch_signals, leave
from kosmos_ros.errors import KosmosError
from kosmos_ros.ros import environment, parameter_files
from kosmos_ros.ros.arguments import bare_rule, mistaken_remaps
from kosmos_ros.sanitize import format_error, format_traceback, one_line

REPEAT_ERROR = 5.0  # s between log lines about failing callbacks

STOP_TIMEOUT = 2.0
"""Seconds for a node's threads to end. ros2 launch sends SIGTERM 5 s after SIGINT."""

START_PATIENCE = 120.0  # s for ROS and the node to start, far more than a busy machine needs
END_PATIENCE = 30.0  # s for the node to stop and for Python to exit

STDERR = 2  # file descriptor

SETTING_ERRORS = (
    KosmosError,
    ParameterException,
    NameValidationException,
    InvalidQosOverridesError,
)
"""Errors about parameters and names."""
WRONG_SETTINGS = {
    "Unexpected QoS override": BAD_PARAMETER,
    "external configuration": BAD_ARGUMENT,  # --log-config-file
}
"""Text of a RuntimeError that rclpy raises for a wrong setting: exit code."""


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` returns until SIGINT, SIGTERM or its own end.

    The node has a future `finished`, whose result is the exit code, and a method
    `stop(seconds) -> bool`, which ends the node's threads and returns whether they have ended; it
    may spin the node's executor. The node may have `patience`: the seconds that one callback of
    the executor may take, or 0 for no limit. After that time the stacks of all threads are printed
    and SIGALRM ends the process. It also ends a process that hangs while it starts or stops, and
    one that does not react to a signal.

    Returns the exit code: the result of `finished`; 0 after a signal; 1 if the node refuses its
    parameters; 2 for arguments or environment variables that ROS refuses. Raises any other error
    of the start, such as RuntimeError if the system cannot start a thread.
    """
    words = sys.argv if args is None else args
    if reason := environment.wrong_variable() or _wrong_argument(words):
        return _refuse(BAD_ARGUMENT, reason)
    environment.warn_of_missing_profiles()
    # After the stacks, the default action of the signal ends the process.
    faulthandler.register(signal.SIGALRM, file=STDERR, chain=True)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signals = catch_signals()
    # Native code may block while it holds Python's global lock, as Fast DDS does under rclpy
    # (Fast-DDS #6485). It then stops every Python thread, but not the kernel's timer.
    signal.setitimer(signal.ITIMER_REAL, START_PATIENCE)
    signalled = threading.Event()
    try:
        # rclpy's own signal handlers end the context at once, before pending responses are sent.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        executor = SingleThreadedExecutor()
        _start_reading(signals, signalled, executor)
        node = make_node()
    except (*SETTING_ERRORS, RuntimeError) as exc:
        if code := _code_of(exc):
            return _refuse(code, format_error(exc))
        rclpy.try_shutdown()
        raise
    for text in mistaken_remaps(words, node.has_parameter):
        node.get_logger().warning(text)
    threads_ended = False
    try:
        executor.add_node(node)
        for warning in parameter_files.unmatched(words, node.get_fully_qualified_name()):
            node.get_logger().warning(warning)
        _spin(node, signalled)
        signal.set_wakeup_fd(-1)  # another signal must not shorten END_PATIENCE
        signal.setitimer(signal.ITIMER_REAL, END_PATIENCE)
        threads_ended = node.stop(STOP_TIMEOUT)
        node.destroy_node()  # otherwise other nodes may see it for another 20 s
    finally:
        # Python takes a while to exit. Another Ctrl-C must not change the exit code meanwhile.
        sys.unraisablehook = _report_unless_late_signal
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        rclpy.shutdown(uninstall_handlers=False)
    code = int(node.finished.result()) if node.finished.done() else 0
    if not threads_ended:
        # A thread in native code cannot be stopped, and would crash a normal exit of Python.
        leave(code)
    return code


def spin_once(node: Any, timeout: float | None = None) -> None:
    """Wait at most `timeout` seconds for a callback of `node`'s executor, and run it.

    An exception of the callback is logged, so that other callbacks still run.
    """
    try:
        node.executor.spin_once(timeout_sec=timeout)
    except Exception as exc:
        if not node.context.ok():
            raise
        node.get_logger().error(format_traceback(exc), throttle_duration_sec=REPEAT_ERROR)


def _wrong_argument(words: list[str]) -> str:
    """Return the reason why ROS refuses the command line; empty: none."""
    if rule := bare_rule(words):
        rule = one_line(rule, 100)
        return f"unknown argument {rule}; set a parameter with -p {rule}, rename with -r {rule}"
    try:
        unknown = rclpy.utilities.remove_ros_args(words)[1:]
    except RuntimeError as exc:  # rcl cannot read the arguments or a parameter file
        return f"{type(exc).__name__}: {exc}"
    if not unknown:
        return ""
    return (
        f"unknown argument {one_line(unknown[0], 100)}; "
        "set parameters with --ros-args -p NAME:=VALUE"
    )


def _code_of(error: Exception) -> int:
    """Return the exit code for an error in the user's settings; 0 for other errors."""
    codes = [code for part, code in WRONG_SETTINGS.items() if part in str(error)]
    if isinstance(error, SETTING_ERRORS):
        return BAD_PARAMETER
    return codes[0] if codes else 0


def _refuse(code: int, reason: str) -> int:
    print(one_line(reason), file=sys.stderr)
    rclpy.try_shutdown()
    return code


def _spin(node: Any, signalled: threading.Event) -> None:
    """Spin until the node has finished or a signal has arrived."""
    # Not spin_until_future_complete, which adds a callback to the future at every iteration.
    while not (node.finished.done() or signalled.is_set()):
        signal.setitimer(signal.ITIMER_REAL, getattr(node, "patience", 0.0))
        spin_once(node)


def _report_unless_late_signal(unraisable: Any) -> None:
    """Suppress the OSError that Python raises if a signal arrives just as it is set to ignored."""
    if "race condition" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _start_reading(pipe: int, signalled: threading.Event, executor: Any) -> None:
    """Start a thread that sets `signalled` and wakes the executor for each byte in the pipe.

    Python runs a signal handler only after the main thread has left native code, in which it waits
    for messages.
    """

    def read() -> None:
        while os.read(pipe, 1):
            signalled.set()
            executor.create_task(lambda: None)

    threading.Thread(target=read, name="signals", daemon=True).start()
