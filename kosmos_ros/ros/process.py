# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Runs one node as a process: start, spin, end.

Knows signals and exit codes, and nothing of the node but `finished`, `stop` and `patience`.
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

REPEAT_ERROR = 5.0  # s, of what is logged about callbacks that fail

STOP_TIMEOUT = 2.0
"""Seconds for a node's threads to end; ros2 launch sends SIGTERM 5 s after SIGINT."""


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` makes until SIGINT, SIGTERM or its own end.

    The node has a future `finished`, whose result is the exit code, and a method
    `stop(seconds) -> bool` that ends its threads and says whether they have ended, which may spin
    the node's executor. It may have `patience`: seconds after which a turn of the executor will
    not end any more, or 0; SIGALRM then ends the process, with a trace of its threads.

    Gives the exit code: that result, 0 after a signal, 1 when the node cannot be made (a
    KosmosError, or what rclpy says of a name, a QoS override or a parameter of its own that it
    refuses), 2 for arguments that rcl refuses or that are none of ROS.
    """
    try:
        # rclpy's own handlers end the context at once, and with it every answer still to be sent.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as exc:  # RCLError: arguments or a parameter file that rcl cannot read
        print(one_line(f"{type(exc).__name__}: {exc}"), file=sys.stderr)
        return 2
    if others := rclpy.utilities.remove_ros_args(args)[1:]:
        print(
            f"argument {one_line(others[0], 100)} is unknown; "
            "parameters are set by --ros-args -p NAME:=VALUE",
            file=sys.stderr,
        )
        rclpy.shutdown()
        return 2
    executor = SingleThreadedExecutor()
    signalled = threading.Event()
    _on_signal(lambda: executor.create_task(signalled.set))
    try:
        node = make_node()
    except (KosmosError, ParameterException, RuntimeError) as exc:
        print(one_line(f"{type(exc).__name__}: {exc}"), file=sys.stderr)
        rclpy.shutdown()
        return 1
    ended = False
    try:
        executor.add_node(node)
        if sys.stderr:
            # With chain, what the signal does by itself comes behind the trace.
            faulthandler.register(signal.SIGALRM, chain=True)
        # Not spin_until_future_complete: rclpy adds a callback to the future at every turn.
        while not (node.finished.done() or signalled.is_set()):
            # Native code that waits with Python's lock in its hand, as Fast DDS may below rclpy
            # (Fast-DDS #6485), stops every thread but the kernel's clock.
            signal.setitimer(signal.ITIMER_REAL, getattr(node, "patience", 0.0))
            spin_once(node)
        ended = node.stop(STOP_TIMEOUT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Python's own end takes a while, in which one more Ctrl-C must not change the exit code.
        sys.unraisablehook = _tell_unless_late
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        rclpy.shutdown(uninstall_handlers=False)
    code = int(node.finished.result()) if node.finished.done() else 0
    if not ended:
        # A thread inside native code cannot be ended, and Python would crash around it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def spin_once(node: Any, timeout: float | None = None) -> None:
    """Run one callback that is ready within `timeout` seconds, of `node` and its executor.

    What it raises is logged, and the others go on.
    """
    try:
        node.executor.spin_once(timeout_sec=timeout)
    except Exception as exc:
        if not node.context.ok():
            raise
        node.get_logger().error(format_traceback(exc), throttle_duration_sec=REPEAT_ERROR)


def _tell_unless_late(unraisable: Any) -> None:
    """Of a signal that comes while it begins to be ignored, Python tells by an OSError."""
    if "race condition" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _on_signal(act: Callable[[], Any]) -> None:
    """Call `act` in a thread of its own for each SIGINT and SIGTERM.

    A handler in Python runs only between two steps of the main thread, which waits for messages
    in native code; the descriptor is written to at once.
    """
    arrived, announce = os.pipe()
    os.set_blocking(announce, False)  # as set_wakeup_fd demands
    signal.set_wakeup_fd(announce, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        while os.read(arrived, 1):
            act()

    threading.Thread(target=wait, name="signals", daemon=True).start()
