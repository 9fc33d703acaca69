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
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from kosmos_ros.errors import KosmosError
from kosmos_ros.sanitize import format_traceback, one_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)

REPEAT_ERROR = 5.0  # s between log lines about failing callbacks

STOP_TIMEOUT = 2.0
"""Seconds for a node's threads to end. ros2 launch sends SIGTERM 5 s after SIGINT."""


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` returns until SIGINT, SIGTERM or its own end.

    The node has a future `finished`, whose result is the exit code, and a method
    `stop(seconds) -> bool`, which ends the node's threads and returns whether they have ended; it
    may spin the node's executor. The node may have `patience`: the seconds that one callback of
    the executor may take, or 0 for no limit. After that time the stacks of all threads are printed
    and SIGALRM ends the process.

    Returns the exit code: the result of `finished`; 0 after a signal; 1 if the node cannot be
    made (a KosmosError, or a name, QoS override or ROS parameter that rclpy refuses); 2 for
    arguments that rcl refuses or that are not ROS arguments.
    """
    try:
        # rclpy's own signal handlers end the context at once, before pending responses are sent.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as exc:  # RCLError: rcl cannot read the arguments or a parameter file
        return _refuse(2, f"{type(exc).__name__}: {exc}")
    if unknown := rclpy.utilities.remove_ros_args(args)[1:]:
        return _refuse(
            2,
            f"unknown argument {one_line(unknown[0], 100)}; "
            "set parameters with --ros-args -p NAME:=VALUE",
        )
    executor = SingleThreadedExecutor()
    signalled = threading.Event()
    _on_signal(lambda: executor.create_task(signalled.set))
    try:
        node = make_node()
    except (KosmosError, ParameterException, RuntimeError) as exc:
        return _refuse(1, f"{type(exc).__name__}: {exc}")
    threads_ended = False
    try:
        executor.add_node(node)
        _spin(node, signalled)
        threads_ended = node.stop(STOP_TIMEOUT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Python takes a while to exit. Another Ctrl-C must not change the exit code meanwhile.
        sys.unraisablehook = _report_unless_late_signal
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        rclpy.shutdown(uninstall_handlers=False)
    code = int(node.finished.result()) if node.finished.done() else 0
    if not threads_ended:
        # A thread in native code cannot be stopped, and would crash a normal exit of Python.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
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


def _refuse(code: int, reason: str) -> int:
    print(one_line(reason), file=sys.stderr)
    rclpy.try_shutdown()
    return code


def _spin(node: Any, signalled: threading.Event) -> None:
    """Spin until the node has finished or a signal has arrived."""
    if sys.stderr:
        # chain: the default action of the signal follows the stacks, and ends the process.
        faulthandler.register(signal.SIGALRM, chain=True)
    # Not spin_until_future_complete, which adds a callback to the future at every iteration.
    while not (node.finished.done() or signalled.is_set()):
        # Native code may block while it holds Python's global lock, as Fast DDS does under rclpy
        # (Fast-DDS #6485). It then stops every Python thread, but not the kernel's timer.
        signal.setitimer(signal.ITIMER_REAL, getattr(node, "patience", 0.0))
        spin_once(node)


def _report_unless_late_signal(unraisable: Any) -> None:
    """Suppress the OSError that Python raises if a signal arrives just as it is set to ignored."""
    if "race condition" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _on_signal(act: Callable[[], Any]) -> None:
    """Call `act` in a separate thread for each SIGINT and SIGTERM.

    A Python handler would wait until the main thread leaves native code, where it waits for
    messages. The file descriptor, however, is written at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # set_wakeup_fd requires it
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        while os.read(reader, 1):
            act()

    threading.Thread(target=wait, name="signals", daemon=True).start()
