# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choose frames by their number or by time. Knows no files."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from kosmos_ros.errors import ConfigError
from kosmos_ros.sanitize import quoted


def check_window(start: float, end: float) -> None:
    """Raise ConfigError if no frame can be between two times of the source (s)."""
    if not 0 <= start < end:
        raise ConfigError(
            f"--start must be at least 0 and before --end, got {start:g} and {end:g}"
        )


@dataclass
class Every:
    """Choose frames of each topic: each frame, every `number`-th one, or one per `period`."""

    number: int = 1  # of frames
    period: int = 0  # ns; 0: `number` counts
    _counts: Counter[str] = field(default_factory=Counter)  # frames by topic
    _due: dict[str, int] = field(default_factory=dict)  # ns, by topic: time of the next frame

    @classmethod
    def parse(cls, text: str) -> Every:
        """Return the choice that an option names, such as 10 or 0.5s. Raises ConfigError."""
        if re.fullmatch("[0-9]{1,9}", text) and int(text):
            return cls(int(text))
        if re.fullmatch(r"[0-9]{0,9}\.?[0-9]{0,9}s", text) and any(map(str.isdigit, text)):
            period = round(float(text[:-1]) * 1e9)
            if period:
                return cls(period=period)
        raise ConfigError(
            "--every must be a number of frames such as 10, or seconds such as 0.5s, "
            f"got {quoted(text)}"
        )

    def takes(self, topic: str, time: int) -> bool:
        """Return whether the next frame of `topic` is chosen; `time` (ns) is its record time."""
        if not self.period:
            self._counts[topic] += 1
            return (self._counts[topic] - 1) % self.number == 0
        due = self._due.get(topic, time)
        # The time goes back where a bag was joined from several recordings.
        if due - self.period <= time < due:
            return False
        self._due[topic] = time - (time - due) % self.period + self.period
        return True

    def expected(self, count: int, duration: int, share: float) -> int:
        """Return about how many of `count` frames are chosen in a `share` of `duration` (ns)."""
        if self.period:
            return min(math.ceil(count * share), int(duration * share) // self.period + 1)
        return math.ceil(count * share / self.number)
