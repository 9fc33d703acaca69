# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choose the topics of a bag and the frames of each, and name the cameras. Knows no files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kosmos_ros.errors import ConfigError
from kosmos_ros.offline.bags.messages import COMPRESSED, IMAGE
from kosmos_ros.sanitize import quoted

MAX_NAMED = 20  # topics that an error lists


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


def image_topics(topics: Mapping[str, str], wanted: Sequence[str]) -> list[str]:
    """Return the image topics among `topics` (name: type): those `wanted`, or all if none is.

    Raises ConfigError if there is none, or if one that is wanted is missing or has no images.
    """
    found = sorted(topic for topic, kind in topics.items() if kind in (IMAGE, COMPRESSED))
    for topic in wanted:
        if topic not in topics:
            raise ConfigError(
                f"the bag has no --topic {quoted(topic, 200)}; its image topics are "
                f"{_listed(found)}"
            )
        if topic not in found:
            raise ConfigError(
                f"--topic {quoted(topic, 200)} has {topics[topic]}; expected one of "
                f"{_listed(found)}"
            )
    if not found:
        raise ConfigError(f"the bag has no image topics; its topics are {_listed(sorted(topics))}")
    return sorted(set(wanted)) or found


def cameras(topics: Sequence[str]) -> dict[str, str]:
    """Return the name of the camera of each image topic: empty for a single one.

    The name is the topic without its last part, such as front for /front/image_raw, or the whole
    topic if two cameras would have the same name.
    """
    if len(topics) == 1:
        return {topics[0]: ""}
    names = {topic: _name(_base(topic)) for topic in topics}
    counts = Counter(names.values())
    taken: set[str] = set()
    for topic in topics:
        name = names[topic] if counts[names[topic]] == 1 else _name(topic)
        while name in taken:
            name += "_"
        taken.add(name)
        names[topic] = name
    return names


def _base(topic: str) -> str:
    """Return a topic without its transport and without the name of its image."""
    start, _, last = topic.removesuffix("/compressed").strip("/").rpartition("/")
    return start if start and last.startswith("image") else f"{start}/{last}"


def _name(topic: str) -> str:
    """Return a topic as a camera name, as check_name of serving/node_settings.py requires it."""
    name = re.sub(r"\W+", "_", topic.strip("/"), flags=re.ASCII)
    return name if re.match("[A-Za-z]", name) else f"camera_{name}"


def _listed(topics: Iterable[str]) -> str:
    names = [quoted(topic, 200) for topic in topics]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more if names else "none"
