# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""When something has changed for good: a phrase in view or not, another answer.

A model's word on a single frame is unsteady. A value counts once it has been the same in a number
of consecutive frames and over a number of seconds. Knows no ROS and no model; times are those of
the pictures, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Change:
    """A value that has settled, and differs from the one before."""

    before: Any
    now: Any
    since: Any  # mark of the first picture of which it was true


@dataclass
class Debouncer:
    """One value over time. `value` is what counts; at first, the one that it is made with."""

    value: Any
    _next: Any = None
    _count: int = 0  # consecutive pictures with `_next`
    _since: float = 0.0  # s
    _mark: Any = None

    def update(
        self, value: Hashable, time: float, mark: Any, frames: int, seconds: float
    ) -> Change | None:
        """Take the value of one more picture; the change that it settles, if any.

        `mark` is whatever the caller knows the picture by. Where time runs backwards, as in a
        recording that begins again, counting begins again.
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
        """Begin counting again."""
        self._count = 0


@dataclass
class Watchlist:
    """Several values by their subjects, each beginning with `first`."""

    first: Any
    _values: dict[str, Debouncer] = field(default_factory=dict)

    def update(self, subject: str, value: Hashable, *details: Any) -> Change | None:
        """See Debouncer.update."""
        return self._values.setdefault(subject, Debouncer(self.first)).update(value, *details)

    def restart(self) -> None:
        """Begin every count again: pictures were left out."""
        for value in list(self._values.values()):  # which another thread may add to
            value.restart()

    def keep(self, subjects: Collection[str]) -> None:
        """Forget all others."""
        self._values = {s: v for s, v in self._values.items() if s in subjects}
