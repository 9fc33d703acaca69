"""Runs one node as a process: start, spin, end.

Knows the ways in which rclpy ends on the supported distributions, and nothing of the node but
its `stop`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from kosmos_ros.errors import KosmosError

STOP_TIMEOUT = 2.0
"""Seconds for a node's threads to end; ros2 launch sends SIGTERM 5 s after SIGINT."""


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` makes until SIGINT, SIGTERM or its own end.

    The node has a future `finished`, whose result is the exit code, and a method
    `stop(seconds) -> bool` that ends its threads and says whether they have ended. Gives the
    exit code: that result, 0 after a signal, 1 when the node cannot be made (a KosmosError), 2
    when rcl refuses the arguments.
    """
    node = None
    code = 0
    try:
        rclpy.init(args=args)
    except RuntimeError as exc:  # RCLError: arguments or a parameter file that rcl cannot read
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 2
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        # Not spin_until_future_complete: rclpy adds a callback to the future at every turn.
        while rclpy.ok() and not node.finished.done():
            executor.spin_once()
        code = node.finished.result() if node.finished.done() else 0
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except KosmosError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        code = 1
    except RuntimeError:  # RCLError: a signal ended the context inside a call
        if rclpy.ok():
            raise
    finally:
        # A second Ctrl-C must not break what follows.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ended = node is None or node.stop(STOP_TIMEOUT)
        rclpy.try_shutdown()
    if not ended:
        # A thread inside native code cannot be ended, and Python would crash around it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
