# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the input of one camera: its rate, its silence and its lost frames.

Knows arrival times, and how many frames are known to be lost. Knows no ROS, no stamps and no
images. Times are in seconds.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

INTERVALS = 5
"""Number of the newest intervals between frames whose median is the period of a camera."""
PATIENCE = 2.0
"""A slow camera is silent after this number of periods without a frame. One frame may be late."""


class _Frame(NamedTuple):
    arrived: float  # s, monotonic
    sent: int  # frames that it stands for: itself, and those skipped on purpose before it
    lost: int  # frames that are known to be lost since the previous one


@dataclass
class Arrivals:
    """Arrivals of one camera. One thread at a time may use it."""

    started: float  # s, monotonic
    window: float = 10.0  # s over which rate and loss are measured
    last: float | None = None  # s, monotonic, of the newest arrival
    _judged_from: float = float("-inf")  # s, monotonic; earlier frames do not count as lost
    missed: int = 0  # frames that are known to be lost
    _frames: deque[_Frame] = field(default_factory=deque)
    _intervals: deque[float] = field(default_factory=lambda: deque(maxlen=INTERVALS))  # s

    def arrived(self, now: float, lost: int = 0) -> None:
        """Record a frame at `now` by the monotonic clock.

        `lost` is the number of frames that are known to be lost since the last recorded one.
        """
        self.missed += lost
        self._add(now, _Frame(now, 1, lost))

    def sampled(self, now: float, sent: int | None) -> None:
        """Record a frame. The frames before it were left unread on purpose and are not lost.

        `sent` is the number of frames that the camera has sent since the last recorded frame,
        including this one. None: unknown, and then the rate is unknown, too.
        """
        self.forget(now)
        if sent is None:
            self._frames.clear()
        self._add(now, _Frame(now, sent or 1, 0))

    def _add(self, now: float, frame: _Frame) -> None:
        if self.last is not None:
            self._intervals.append(now - self.last)
        self.last = now
        self._frames.append(frame)
        while now - self._frames[0].arrived > self.window:
            self._frames.popleft()

    def forget(self, now: float) -> None:
        """Ignore all loss before `now`."""
        self._judged_from = now

    def restart(self, at: float) -> None:
        """Ignore all silence and loss before `at`, which may be in the future."""
        self.started, self.last, self._judged_from = at, None, at

    @property
    def single(self) -> bool:
        """Whether exactly one frame has arrived, so that the camera has no known period."""
        return self.last is not None and not self._intervals

    def silence(self, now: float) -> float:
        """Return the seconds since the newest frame, or since the start if none has arrived."""
        return max(0.0, now - (self.started if self.last is None else self.last))

    def silent(self, now: float, timeout: float) -> bool:
        """Return whether no frame has arrived for `timeout` seconds; 0: never.

        If PATIENCE periods of the camera are longer than `timeout`, they count instead.
        """
        period = statistics.median(self._intervals) if self._intervals else 0.0
        return timeout > 0 and max(timeout, PATIENCE * period) < self.silence(now)

    def rate(self, now: float) -> float:
        """Return the frames per second within the window; 0 for fewer than two frames.

        Lost frames do not count. Frames that were skipped on purpose count.
        """
        recent = self._since(now - self.window)
        elapsed = now - recent[0].arrived if len(recent) > 1 else 0.0
        count = sum(frame.sent for frame in recent[1:])
        return count / elapsed if elapsed > 0 else 0.0

    def lost(self, now: float) -> float:
        """Return the share of frames, in [0, 1], that are known to be lost within the window.

        The share is 0 for fewer than 3 frames. Stamps do not show a loss: a camera that sends
        pairs of frames has the same stamps as a faster camera that loses most of its frames.
        """
        frames = self._since(max(now - self.window, self._judged_from))
        if len(frames) < 3:
            return 0.0
        return 1 - len(frames) / (len(frames) + sum(frame.lost for frame in frames[1:]))

    def _since(self, start: float) -> Sequence[_Frame]:
        return [frame for frame in self._frames if frame.arrived >= start]
