# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choose the topics of a bag, and name the cameras. Knows no files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kosmos_ros.errors import ConfigError
from kosmos_ros.offline.bags.messages import COMPRESSED, IMAGE
from kosmos_ros.sanitize import quoted

MAX_NAMED = 20  # topics that an error lists


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
                f"--topic {quoted(topic, 200)} has the type {topics[topic]}; expected one of "
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
