# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the input of one camera: its rate, its silence and its lost frames.

Knows arrival times and stamps only. Knows no ROS and no images. Times are in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class _Frame(NamedTuple):
    arrived: float  # s, monotonic
    stamp: float  # s, of its header
    sent: int | None  # frames sent since the last one received, with this one; None: unknown
    skipped: bool  # frames before this one were left unread on purpose


@dataclass
class Arrivals:
    """Arrivals of one camera. One thread at a time may use it."""

    started: float  # s, monotonic
    window: float = 10.0  # s over which rate and loss are measured
    last: float | None = None  # s, monotonic, of the newest arrival
    _judged_from: float = float("-inf")  # s, monotonic; earlier frames do not count as lost
    missed: int = 0  # frames that are known to be lost
    _frames: deque[_Frame] = field(default_factory=deque)

    def arrived(
        self, now: float, stamp: float, sent: int | None = None, skipped: bool = False
    ) -> None:
        """Record a frame: `now` by the monotonic clock, `stamp` from its header.

        `sent` is the number of frames that the camera has sent since the last recorded frame,
        including this one; None if unknown. `skipped`: the frames between them were left unread on
        purpose and are not lost.
        """
        if skipped:
            self.forget(now)
            if sent is None:  # the rate is unknown, too
                self._frames.clear()
        elif sent:
            self.missed += sent - 1
        self.last = now
        self._frames.append(_Frame(now, stamp, sent, skipped))
        while now - self._frames[0].arrived > self.window:
            self._frames.popleft()

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
        """Return the frames per second within the window; 0 for fewer than two frames.

        Lost frames do not count. Frames that were skipped on purpose count.
        """
        recent = self._since(now - self.window)
        elapsed = now - recent[0].arrived if len(recent) > 1 else 0.0
        count = sum((frame.sent or 1) if frame.skipped else 1 for frame in recent[1:])
        return count / elapsed if elapsed > 0 else 0.0

    def lost(self, now: float) -> float:
        """Return the share of frames, in [0, 1], that were sent within the window but lost.

        The share is exact if the number of sent frames is known. Otherwise it is estimated from
        stamps, for each half of the window, and the lower share counts. A change of the camera's
        rate therefore does not look like loss. The camera's period is the lowest decile of the
        intervals between successive stamps, and not the shortest one, because a single late stamp
        makes the next interval too short. A camera that always loses every second frame looks
        like one of half the rate. The share is 0 for fewer than 3 frames in the window or
        in a half, and for stamps that repeat or go back.
        """
        frames = self._since(max(now - self.window, self._judged_from))
        sent = [frame.sent for frame in frames[1:] if frame.sent]
        if len(sent) == len(frames) - 1:
            return 1 - len(frames) / (sum(sent) + 1) if len(frames) > 2 else 0.0
        halves: tuple[list[float], list[float]] = ([], [])
        for frame in frames:
            halves[now - frame.arrived < self.window / 2].append(frame.stamp)
        return min(map(_lost, halves))

    def _since(self, start: float) -> Sequence[_Frame]:
        return [frame for frame in self._frames if frame.arrived >= start]


def _lost(stamps: list[float]) -> float:
    steps = [after - before for before, after in pairwise(stamps)]
    if len(steps) < 2 or min(steps) <= 0:
        return 0.0
    period = sorted(steps)[len(steps) // 10]
    sent = round((stamps[-1] - stamps[0]) / period) + 1
    return max(0.0, 1 - len(stamps) / sent)
