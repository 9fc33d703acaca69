# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""How fast frames are described: rate, latency, failures. Knows no ROS.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW = 10.0  # s over which the rate is taken
KEPT = 200  # newest latencies


@dataclass
class Throughput:
    """Counts of one camera. May be read from one thread while another writes."""

    count: int = 0  # frames described
    failed: int = 0  # frames that could not be
    error: str = ""  # the newest one
    error_at: float = 0.0  # s, when it came
    failing: bool = False  # the newest frame could not be described
    _moments: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def described(self, now: float, latency: float) -> None:
        """One more frame, `latency` seconds after it was taken."""
        self.count += 1
        self.failing = False
        self._moments.append(now)
        self._latencies.append(latency)

    def missed(self, now: float, error: str) -> None:
        """One more frame that could not be described."""
        self.error_at = now
        self.failed += 1
        self.failing = True
        self.error = error

    def rate(self, now: float) -> float:
        """Frames per second within the last WINDOW."""
        return sum(moment > now - WINDOW for moment in list(self._moments)) / WINDOW

    def latency(self, quantile: float) -> float:
        """That `quantile` of the newest frames do not exceed, in seconds; 0 without any."""
        latencies = sorted(list(self._latencies))
        if not latencies:
            return 0.0
        return latencies[min(int(quantile * len(latencies)), len(latencies) - 1)]
