# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""How much may go through the model at a time, after it was too much for the device's memory.

A rung down for each failure, one up again after a quiet time. Knows no torch and no ROS.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

QUIET = 60.0  # s without a failure before the next rung up is tried


@dataclass(frozen=True)
class Level:
    """One measure of less."""

    name: str  # for people; empty: nothing is less
    batch: float = 0.0  # of the largest batch, but one prompt at least
    tokens: int = sys.maxsize  # of an answer, which then says that it was cut off


LEVELS = (
    Level("", 1.0),
    Level("half of max_batch_size", 0.5),
    Level("one prompt at a time"),
    Level("one prompt at a time, answers of at most 32 tokens", tokens=32),
)


class MemoryBackoff:
    """Where one worker stands; from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fallen = 0, 0.0  # number of the rung, and when it fell there

    @property
    def rung(self) -> Level:
        """The present one."""
        return LEVELS[self._number()]

    def batch(self, most: int) -> int:
        """How many prompts of `most` may go together."""
        return max(1, int(most * self.rung.batch))

    def tokens(self, most: int) -> int:
        """How long an answer of `most` tokens may be."""
        return min(most, self.rung.tokens)

    def fall(self) -> bool:
        """It was too much. False where there is nothing less to try."""
        number = self._number()
        lowest = number + 1 == len(LEVELS)
        self._fallen = number + (not lowest), self._clock()
        return not lowest

    def _number(self) -> int:
        number, since = self._fallen
        return max(0, number - int((self._clock() - since) / QUIET)) if number else 0
