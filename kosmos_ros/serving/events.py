# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detect lasting changes: a phrase comes into view or leaves it, or an answer changes.

The model's output for a single frame may be wrong. A new value is accepted once it has been the
same in a number of consecutive frames and over a number of seconds. Knows no ROS and no model.
Times are those of FrameTime, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

from kosmos_ros.kosmos2.grounding import Phrase


@dataclass(frozen=True)
class Change:
    """A newly accepted value and the previous one."""

    before: Any
    now: Any
    since: Any  # mark of the first frame with the new value


@dataclass(frozen=True)
class Event:
    """A change in what a camera sees."""

    kind: str  # appeared, disappeared or answered
    subject: str  # the phrase or the question
    since: Any  # mark of the first frame with the change
    phrases: tuple[Phrase, ...] = ()  # the phrase that appeared, with its boxes
    answer: str = ""
    previous: str = ""  # the previous answer


@dataclass
class FrameTime:
    """Times of the frames of one camera: their stamps, as long as these change.

    Some drivers always send the same stamp. While a stamp repeats, the time advances with the
    monotonic clock instead.
    """

    still: int = 0  # newest frames in a row that repeat the stamp of the frame before
    _stamp: float | None = None  # s, of the newest frame
    _time: float = 0.0  # s, of the newest frame
    _now: float = 0.0  # s, monotonic, of the newest frame

    def of(self, stamp: float, now: float) -> float:
        """Return the time of one more frame; `now` is the monotonic time, both in seconds."""
        if stamp == self._stamp:
            self.still += 1
            self._time += now - self._now
        else:
            self.still, self._time = 0, stamp
        self._stamp, self._now = stamp, now
        return self._time


@dataclass
class Debouncer:
    """One value over time. `value` is the accepted one; the constructor sets the first."""

    value: Any
    _next: Any = None
    _count: int = 0  # consecutive frames with `_next`
    _since: float = 0.0  # s
    _mark: Any = None

    def update(
        self, value: Hashable, time: float, mark: Any, frames: int, seconds: float
    ) -> Change | None:
        """Add the value of one more frame. Return the change that it confirms, or None.

        `mark` identifies the frame for the caller. Counting starts again if time goes back, as in
        a recording that is played again.
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
    """Debounce one value for each subject. Every value starts as `first`."""

    first: Any
    _values: dict[str, Debouncer] = field(default_factory=dict)

    def update(self, subject: str, value: Hashable, *details: Any) -> Change | None:
        """Update the value of `subject`; see Debouncer.update."""
        return self._values.setdefault(subject, Debouncer(self.first)).update(value, *details)

    def restart(self) -> None:
        """Start counting again for every subject, because frames were skipped."""
        for value in list(self._values.values()):  # another thread may add to it
            value.restart()

    def keep(self, subjects: Collection[str]) -> None:
        """Forget all other subjects."""
        self._values = {s: v for s, v in self._values.items() if s in subjects}
