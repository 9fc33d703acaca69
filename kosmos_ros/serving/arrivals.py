# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Watches one camera's input: has it stopped, and does less of it arrive than was sent?

Knows arrival times and stamps only; no ROS, no pictures. Times are seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Arrivals:
    """Arrivals of one camera. One thread at a time may use it."""

    started: float  # s, monotonic
    window: float = 10.0  # s, over which rates are judged
    last: float | None = None  # s, monotonic, of the newest arrival
    _judged: float = float("-inf")  # s, monotonic, since when loss counts
    _arrivals: deque[tuple[float, float]] = field(default_factory=deque)

    def arrived(self, now: float, stamp: float) -> None:
        """Note a frame: `now` by the monotonic clock, `stamp` from its header."""
        self.last = now
        self._arrivals.append((now, stamp))
        while now - self._arrivals[0][0] > self.window:
            self._arrivals.popleft()

    def forget(self, now: float) -> None:
        """Count no loss of before `now`."""
        self._judged = now

    def restart(self, at: float) -> None:
        """Count no silence and no loss of before `at`, which may be to come."""
        self.started, self.last, self._judged = at, None, at

    def silence(self, now: float) -> float:
        """Seconds since the newest frame, or since the start when none has come."""
        return max(0.0, now - (self.started if self.last is None else self.last))

    def rate(self, now: float) -> float:
        """Frames per second that arrived within the window; 0 for fewer than two."""
        recent = [arrived for arrived, _ in self._arrivals if now - arrived <= self.window]
        spent = now - recent[0] if len(recent) > 1 else 0.0
        return (len(recent) - 1) / spent if spent > 0 else 0.0

    def lost(self, now: float) -> float:
        """Share of frames, in [0, 1], that were sent in the window and did not arrive.

        The lesser of both halves of the window, so that a camera that changes its rate loses
        nothing. A half's period is taken to be the lowest decile of the distances of two stamps
        that arrived one after the other, since a single late stamp makes one of them short. A
        camera whose every second frame is lost without exception looks like one of half the
        rate. 0 when a half has fewer than 3 frames, or stamps that stand still or go back.
        """
        halves: tuple[list[float], list[float]] = ([], [])
        for arrived, stamp in self._arrivals:
            if arrived >= self._judged and now - arrived <= self.window:
                halves[now - arrived < self.window / 2].append(stamp)
        return min(map(_lost, halves))


def _lost(stamps: list[float]) -> float:
    steps = [after - before for before, after in pairwise(stamps)]
    if len(steps) < 2 or min(steps) <= 0:
        return 0.0
    period = sorted(steps)[len(steps) // 10]
    sent = round((stamps[-1] - stamps[0]) / period) + 1
    return max(0.0, 1 - len(stamps) / sent)
