# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe the frames of a bag as the node would, and write the results as a bag.

Knows no command line.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory import records
from kosmos_ros.offline import run
from kosmos_ros.offline.bags import events, selection, writing
from kosmos_ros.offline.bags.frames import BagMaker, Stored, topic_of
from kosmos_ros.offline.bags.messages import COMPRESSED, OUTPUTS, Types
from kosmos_ros.offline.bags.reading import Bag, Message, Unreadable
from kosmos_ros.offline.batches import Failure
from kosmos_ros.offline.every import Every, check_window
from kosmos_ros.offline.run import JPEG_RATIO, Frame
from kosmos_ros.offline.unfinished import Row, Unfinished
from kosmos_ros.sanitize import quoted

LATEST = 2**63 - 1
"""Latest time in nanoseconds that a bag can have."""


@dataclass(frozen=True, kw_only=True)
class Job(run.Job):
    """What `kosmos bag` does."""

    bag: Path
    topics: tuple[str, ...] = ()  # image topics; empty: all
    start: float = 0.0  # s after the beginning of the bag
    end: float = math.inf  # s after the beginning of the bag
    copy: bool = False  # write the original messages, too

    def fixed(self) -> dict[str, Any]:
        end = self.end if self.end < math.inf else None  # JSON has no infinity
        window = {"start": self.start, "end": end}
        return {**super().fixed(), "topics": self.topics, **window, "copy": self.copy}


class Run(run.Run):
    """A job with its bag. Raises ConfigError, RequestError or ImageError if it cannot begin."""

    job: Job

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.types = Types()
        self.bag = Bag(job.bag)
        self.topics = selection.image_topics(self.bag.topics, job.topics)
        self.cameras = selection.cameras(self.topics)
        Every.parse(job.every)
        self.first, self.last = self._window(job.start, job.end)

    def _window(self, start: float, end: float) -> tuple[int, int]:
        """Return the record times (ns) between which messages are read. Raises ConfigError.

        Without limits these are all times, because metadata.yaml may be wrong.
        """
        check_window(start, end)
        duration = (self.bag.end - self.bag.start) * 1e-9
        if start and start >= duration:
            raise ConfigError(
                f"--start must be less than the duration of the bag, {duration:.3f} s, "
                f"got {start:g}"
            )
        first = self.bag.start + round(start * 1e9) if start else 0
        last = self.bag.start + round(end * 1e9) if end < math.inf else LATEST
        return first, last

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Type of each topic of the results."""
        return {
            topic_of(camera, output.topic): output.type
            for camera in self.cameras.values()
            for output in OUTPUTS
            if output.parts.intersection(self.plan.parts)
        }

    @property
    def not_copied(self) -> list[str]:
        """Original topics that are not copied, because a topic of the results has their name."""
        return sorted(self.outputs.keys() & self.bag.topics.keys()) if self.job.copy else []

    @property
    def expected(self) -> int:
        every, whole = Every.parse(self.job.every), self.bag.end - self.bag.start
        read = min(self.last, self.bag.end) - max(self.first, self.bag.start)
        share = read / whole if whole else 1.0
        return sum(every.expected(self.bag.counts[topic], whole, share) for topic in self.topics)

    def values(self) -> dict[str, Any]:
        return {
            "bag": str(self.job.bag.resolve()),
            "size of the bag": self.bag.size,
        }

    def frames(self, position: int) -> Iterator[Frame | Failure]:
        for each in itertools.islice(self._chosen(), position, None):
            if isinstance(each, Unreadable):
                yield Failure(each.name, each.error)
            else:
                form = each.connection.ext.serialization_format
                stored = Stored(each.topic, each.type, each.time, form, each.data)
                ratio = JPEG_RATIO if each.type == COMPRESSED else 1
                yield Frame(each.name, stored, len(each.data) * ratio)

    def _chosen(self) -> Iterator[Message | Unreadable]:
        """Yield the messages of the chosen frames, and what cannot be read."""
        every = Every.parse(self.job.every)
        for each in self.bag.messages(self.topics, self.first, self.last):
            if isinstance(each, Unreadable) or every.takes(each.topic, each.time):
                yield each

    @property
    def warnings(self) -> list[str]:
        because = "is not copied, because the results have its name"
        return [f"topic {quoted(topic, 200)} {because}" for topic in self.not_copied]

    def counts(self, results: Unfinished) -> dict[str, Any]:
        found = Counter(results.counts(self.outputs))
        found.update(row.topic for row in self._events(results))
        return {"messages": dict(found)}

    def maker(self) -> BagMaker:
        return BagMaker(self.job, self.cameras, self.types)

    def written(self, path: Path, results: Unfinished) -> Iterator[None]:
        own = heapq.merge(results.rows(), self._events(results), key=lambda row: row.time)
        return writing.write(path, self.outputs, own, self._copied(), self.types)

    def events(self, results: Unfinished) -> Iterator[records.Event]:
        return (events.record(message) for _, message in self._found(results))

    def _events(self, results: Unfinished) -> Iterator[Row]:
        for time, message in self._found(results):
            yield Row(topic_of(message.camera, "events"), time, self.types.data(message))

    def _found(self, results: Unfinished) -> Iterator[tuple[int, Any]]:
        """Yield the record time and the message of each event."""
        topics = {
            name: topic
            for camera in self.cameras.values()
            for topic in events.WATCHED
            if (name := topic_of(camera, topic)) in self.outputs
        }
        return events.events(results.rows(topics), topics, self.types, self.job.settings)

    def _copied(self) -> Iterable[Message]:
        if not self.job.copy:
            return
        topics = self.bag.topics.keys() - set(self.not_copied)
        for each in self.bag.messages(topics, self.first, self.last):
            if isinstance(each, Message):
                yield each
            else:
                self.lost.append(Failure(each.name, each.error))
