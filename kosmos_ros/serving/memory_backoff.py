# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Limit how much work runs at a time after the device ran out of memory.

Each failure lowers the limit by one level. Each QUIET seconds without a failure restore one level.
Knows no torch and no ROS.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

QUIET = 60.0  # s without a failure before the next higher level is tried


@dataclass(frozen=True)
class Level:
    """A limit on the work that runs at a time."""

    name: str  # for diagnostics and logs; empty: no limit
    batch: float = 0.0  # share of max_batch_size; at least one prompt
    tokens: int = sys.maxsize  # per answer; a longer one is marked as truncated


LEVELS = (
    Level("", 1.0),
    Level("half of max_batch_size", 0.5),
    Level("one prompt at a time"),
    Level("one prompt at a time, answers of at most 32 tokens", tokens=32),
)
"""Levels from no limit to the strictest limit."""


class MemoryBackoff:
    """The current level of one worker. Any thread may read it while one calls `reduce`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reduced = 0, 0.0  # index into LEVELS after the newest failure, and its time in s

    @property
    def level(self) -> Level:
        """The current level."""
        return LEVELS[self._index()]

    def batch(self, most: int) -> int:
        """Return how many prompts may run together if `most` is the full batch size."""
        return max(1, int(most * self.level.batch))

    def tokens(self, most: int) -> int:
        """Return how many tokens an answer may have if `most` is its own limit."""
        return min(most, self.level.tokens)

    def reduce(self) -> bool:
        """Go one level down. Return False at the lowest level."""
        index = self._index()
        lowest = index + 1 == len(LEVELS)
        self._reduced = index + (not lowest), self._clock()
        return not lowest

    def _index(self) -> int:
        index, since = self._reduced
        return max(0, index - int((self._clock() - since) / QUIET)) if index else 0
