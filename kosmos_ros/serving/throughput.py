# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Count a camera's described and failed frames, and measure their latency. Knows no ROS.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW = 10.0  # s over which the rate is measured
MAX_LATENCIES = 200  # number of newest latencies for the quantiles
MAX_GAINS = 200  # number of newest frames over which the gain of drafts is averaged


@dataclass
class Throughput:
    """Counts of one camera. One thread may read them while another writes."""

    count: int = 0  # frames described
    unchanged: int = 0  # of these, answered from an earlier frame with the same pixels
    failed: int = 0  # frames that could not be described
    error: str = ""  # of the newest failed frame
    error_at: float = 0.0  # s, when it failed
    failing: bool = False  # the newest frame failed
    _moments: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LATENCIES))
    _gains: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_GAINS))

    def described(
        self, now: float, latency: float, gain: float = 1.0, unchanged: bool = False
    ) -> None:
        """Count a frame that was described `latency` seconds after it was taken.

        `gain` is the mean number of tokens in a pass of the model that checks drafts. An
        `unchanged` frame took no pass.
        """
        self.count += 1
        self.unchanged += unchanged
        if not unchanged:
            self._gains.append(gain)
        self.failing = False
        self._moments.append(now)
        self._latencies.append(latency)

    def missed(self, now: float, error: str) -> None:
        """Count a frame that could not be described."""
        self.error_at = now
        self.failed += 1
        self.failing = True
        self.error = error

    def rate(self, now: float) -> float:
        """Return the frames per second described within the last WINDOW."""
        # list() makes a copy, because the other thread may append meanwhile.
        return sum(moment > now - WINDOW for moment in list(self._moments)) / WINDOW

    def gain(self) -> float:
        """Return the mean gain of the newest frames; 1 if there is none."""
        gains = list(self._gains)
        return sum(gains) / len(gains) if gains else 1.0

    def latency(self, quantile: float) -> float:
        """Return this quantile (0 to 1) of the newest latencies in seconds; 0 if there is none."""
        latencies = sorted(list(self._latencies))
        if not latencies:
            return 0.0
        return latencies[min(int(quantile * len(latencies)), len(latencies) - 1)]
