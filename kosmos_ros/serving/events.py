# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""When something has really changed: a phrase comes into view or leaves it, an answer differs.

The model's word on a single frame is unsteady. A value counts once it has been the same in a
number of consecutive frames and over a number of seconds. Knows no ROS and no model; times are
those of the images, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

from kosmos_ros.kosmos2.grounding import Phrase


@dataclass(frozen=True)
class Change:
    """A value that has settled and differs from the one before."""

    before: Any
    now: Any
    since: Any  # mark of the first frame with the new value


@dataclass(frozen=True)
class Event:
    """A change in what a camera sees."""

    kind: str  # appeared, disappeared or answered
    subject: str  # the phrase or the question
    since: Any  # mark of the first frame of which it was true
    phrases: tuple[Phrase, ...] = ()  # what appeared, with its boxes
    answer: str = ""
    previous: str = ""  # the answer before


@dataclass
class Debouncer:
    """One value over time. `value` is the settled one, at first the one it is made with."""

    value: Any
    _next: Any = None
    _count: int = 0  # consecutive frames with `_next`
    _since: float = 0.0  # s
    _mark: Any = None

    def update(
        self, value: Hashable, time: float, mark: Any, frames: int, seconds: float
    ) -> Change | None:
        """Take the value of one more frame; return the change that it settles, if any.

        `mark` identifies the frame for the caller. Counting starts again where time runs
        backwards, as in a recording that is played again.
        """
        if value == self.value:
            self._count = 0
            return None
        if not self._count or value != self._next or time < self._since:
            self._next, self._count, self._since, self._mark = value, 0, time, mark
        self._count += 1
        if self._count < frames or time - self._since < seconds:
            return None
        change = Change(self.value, value, self._mark)
        self.value, self._count = value, 0
        return change

    def restart(self) -> None:
        """Start counting again."""
        self._count = 0


@dataclass
class Watchlist:
    """Several values by subject, each of which is `first` at first."""

    first: Any
    _values: dict[str, Debouncer] = field(default_factory=dict)

    def update(self, subject: str, value: Hashable, *details: Any) -> Change | None:
        """See Debouncer.update."""
        return self._values.setdefault(subject, Debouncer(self.first)).update(value, *details)

    def restart(self) -> None:
        """Start counting again for every subject: frames were left out."""
        for value in list(self._values.values()):  # another thread may add to it
            value.restart()

    def keep(self, subjects: Collection[str]) -> None:
        """Forget all other subjects."""
        self._values = {s: v for s, v in self._values.items() if s in subjects}
