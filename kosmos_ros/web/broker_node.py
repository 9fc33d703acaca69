# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run a client of kosmos_node in the main thread, and a server of others in a second thread.

Neither thread waits for the other. Knows threads; no protocol.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.task import Future
from rclpy.validate_full_topic_name import validate_full_topic_name

from kosmos_ros.entry import BROKEN
from kosmos_ros.errors import ConfigError
from kosmos_ros.ros.parameters import ParameterNode
from kosmos_ros.sanitize import format_traceback, quoted
from kosmos_ros.web.broker import Broker
from kosmos_ros.web.node_client import NodeClient

KOSMOS = "/kosmos"  # default name of kosmos_node


def check_name(kosmos: str, setting: str) -> None:
    """Raise ConfigError unless `kosmos` is the full name of a node. `setting`: where it is set."""
    try:
        validate_full_topic_name(kosmos)
    except InvalidTopicNameException as exc:
        raise ConfigError(
            f"{setting} must be the full name of a node, such as {KOSMOS}, got {quoted(kosmos)}"
        ) from exc


class BrokerNode(ParameterNode):
    """A client of a kosmos_node, with a thread for an event loop.

    A subclass calls `connect` and then `start`.
    """

    broker: Broker

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.finished: Future = Future()
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._main: asyncio.Task[int] | None = None
        self._node_client: NodeClient | None = None

    def connect(self, kosmos: str) -> None:
        """Become a client of the node with the full name `kosmos`, which check_name accepts.

        Check all settings before. A loop that never runs may print an error when Python ends.
        """
        self._loop = asyncio.new_event_loop()
        self.broker = Broker(kosmos, self._loop)
        self._node_client = NodeClient(self, kosmos, self.broker, self._loop.call_soon_threadsafe)
        self.broker.node_client = self._node_client

    def start(self, serve: Coroutine[Any, Any, int]) -> None:
        """Run `serve` in the event loop's thread. It returns the process's exit code."""
        self._main = self._loop.create_task(serve)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """End the event loop's thread. Return whether it has ended."""
        if self._node_client:
            self._node_client.destroy()
        if not (self._thread and self._main):
            return True
        self._loop.call_soon_threadsafe(self.end)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def end(self) -> None:
        """Let `serve` end. Called in the event loop."""
        if self._main:
            self._main.cancel()

    def _run(self) -> None:
        try:
            code = self._loop.run_until_complete(self._main)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            return
        except (Exception, SystemExit) as exc:  # uvicorn may end a process, but not in a thread
            self.get_logger().fatal(format_traceback(exc))
            code = BROKEN
        self._finish_soon(code)

    def _finish_soon(self, code: int) -> None:
        """End the process with `code`. Called in the event loop's thread."""
        if self._node_client:
            self._node_client.post(lambda: self._finish(code))

    def _finish(self, code: int) -> None:
        if not self.finished.done():
            self.finished.set_result(code)
