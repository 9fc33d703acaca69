# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Deliver results in a second thread, so that the model's thread does not wait for recipients.

Publishing, drawing and JPEG encoding run in this thread. Knows only calls: no ROS and no image.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

CAPACITY = {True: 100, False: 8}
"""Largest number of waiting calls: urgent (True) and others (False).

`post` blocks while its queue is full. No result is lost, and memory is limited, although the call
of a frame holds its image. A call takes about a millisecond. Slower calls go to `post_latest`,
which keeps one per key.
"""


class Delivery:
    """Run calls in their order: urgent ones first, then others, then the latest of each key.

    A call should not raise. If it does, `report` receives the exception.
    """

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._urgent: deque[Callable[[], None]] = deque()
        self._others: deque[Callable[[], None]] = deque()
        self._latest: dict[Hashable, Callable[[], None]] = {}
        self._called = math.inf  # s, monotonic: start of the running call
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def post(self, call: Callable[[], None], urgent: bool = False) -> None:
        """Run `call` later. Blocks while CAPACITY calls wait. Drops the call after `close`.

        A call must not use `post` itself, only `post_latest`.
        """
        queue = self._urgent if urgent else self._others
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(queue) < CAPACITY[urgent])
            if not self._closed:
                queue.append(call)
                self._changed.notify_all()

    def post_latest(self, key: Hashable, call: Callable[[], None]) -> None:
        """Run `call` after all other calls. It replaces a waiting call with the same key."""
        with self._changed:
            if not self._closed:
                self._latest.pop(key, None)
                self._latest[key] = call
                self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all posted calls have run. Return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout)

    def close(self, timeout: float) -> bool:
        """Run the posted calls, then end the thread.

        Return False if the thread still runs after `timeout` seconds. Calls that wait then are
        dropped.
        """
        end = time.monotonic() + timeout
        self.flush(max(0.0, timeout))
        with self._changed:
            self._closed = True
            for waiting in (self._urgent, self._others, self._latest):
                waiting.clear()
            self._changed.notify_all()
        self._thread.join(max(0.0, end - time.monotonic()))
        return not self._thread.is_alive()

    def stuck(self) -> float:
        """Return the seconds since the running call began; 0 between calls."""
        return max(0.0, time.monotonic() - self._called)

    def _next(self) -> bool:
        return bool(self._urgent or self._others or self._latest)

    def _idle(self) -> bool:
        return self._called == math.inf and not self._next()

    def _take(self) -> Callable[[], None] | None:
        """Wait for the next call and return it; None once closed."""
        with self._changed:
            self._called = math.inf
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._next())
            if self._closed:
                return None
            self._called = time.monotonic()
            if queue := self._urgent or self._others:
                return queue.popleft()
            return self._latest.pop(next(iter(self._latest)))

    def _run(self) -> None:
        while call := self._take():
            try:
                call()
            except Exception as exc:  # an exception would end the thread
                self._report(exc)
            del call  # it refers to an image
