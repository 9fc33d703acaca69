# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the input of one camera: its rate, its silence and its lost frames.

Knows arrival times and stamps only. Knows no ROS and no images. Times are in seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Arrivals:
    """Arrivals of one camera. One thread at a time may use it."""

    started: float  # s, monotonic
    window: float = 10.0  # s over which rate and loss are measured
    last: float | None = None  # s, monotonic, of the newest arrival
    _judged_from: float = float("-inf")  # s, monotonic; earlier frames do not count as lost
    _arrivals: deque[tuple[float, float]] = field(default_factory=deque)  # arrival, stamp

    def arrived(self, now: float, stamp: float) -> None:
        """Record a frame: `now` by the monotonic clock, `stamp` from its header."""
        self.last = now
        self._arrivals.append((now, stamp))
        while now - self._arrivals[0][0] > self.window:
            self._arrivals.popleft()

    def forget(self, now: float) -> None:
        """Ignore all loss before `now`."""
        self._judged_from = now

    def restart(self, at: float) -> None:
        """Ignore all silence and loss before `at`, which may be in the future."""
        self.started, self.last, self._judged_from = at, None, at

    def silence(self, now: float) -> float:
        """Return the seconds since the newest frame, or since the start if none has arrived."""
        return max(0.0, now - (self.started if self.last is None else self.last))

    def rate(self, now: float) -> float:
        """Return the frames per second that arrived within the window; 0 for fewer than two."""
        recent = [arrived for arrived, _ in self._arrivals if now - arrived <= self.window]
        elapsed = now - recent[0] if len(recent) > 1 else 0.0
        return (len(recent) - 1) / elapsed if elapsed > 0 else 0.0

    def lost(self, now: float) -> float:
        """Return the share of frames, in [0, 1], that were sent within the window but lost.

        The share is computed for each half of the window, and the lower one counts. A change of
        the camera's rate therefore does not look like loss. The camera's period is the lowest
        decile of the intervals between successive stamps, and not the shortest one, because a
        single late stamp makes the next interval too short. A camera that always loses every
        second frame looks like one of half the rate. The share is 0 when a half has fewer than 3
        frames, or stamps that repeat or go back.
        """
        halves: tuple[list[float], list[float]] = ([], [])
        for arrived, stamp in self._arrivals:
            if arrived >= self._judged_from and now - arrived <= self.window:
                halves[now - arrived < self.window / 2].append(stamp)
        return min(map(_lost, halves))


def _lost(stamps: list[float]) -> float:
    steps = [after - before for before, after in pairwise(stamps)]
    if len(steps) < 2 or min(steps) <= 0:
        return 0.0
    period = sorted(steps)[len(steps) // 10]
    sent = round((stamps[-1] - stamps[0]) / period) + 1
    return max(0.0, 1 - len(stamps) / sent)
