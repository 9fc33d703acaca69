# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the events in the results of a bag.

They come from the messages with requested phrases and with answers. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kosmos_ros.memory import records
from kosmos_ros.offline.bags.messages import OUTPUTS, Types
from kosmos_ros.offline.unfinished import Row
from kosmos_ros.offline.watched import Watched
from kosmos_ros.serving.events import Event
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, Finding

KINDS = ("appeared", "disappeared", "answered")
"""Kind of an event for each value of kosmos_msgs/Event.kind, from 0."""
WATCHED = {
    output.topic: (output.type, standing)
    for output in OUTPUTS
    for standing in STANDING
    if output.parts == {standing.name}
}
"""Topic with the results for a parameter: its type, and what the parameter asks for."""


def events(
    rows: Iterable[Row], topics: Mapping[str, str], types: Types, settings: CameraSettings
) -> Iterator[tuple[int, Any]]:
    """Yield the record time (ns) and the message of each event, in the order of the results.

    `rows` are the results of `topics`, which has the topic in WATCHED for each. `settings` has
    event_frames and event_seconds.
    """
    watched = {topic: Watched(WATCHED[own][1], settings) for topic, own in topics.items()}
    for row in rows:
        message = types.store.deserialize_cdr(row.data, WATCHED[topics[row.topic]][0])
        stamp = message.header.stamp
        times = stamp.sec + stamp.nanosec * 1e-9, row.time * 1e-9
        for event in watched[row.topic].events(_findings(message), *times, stamp):
            yield row.time, _message(types, message, event)


def _findings(message: Any) -> list[Finding]:
    """Return what a message says: an answer, or the requested phrases of a frame."""
    if hasattr(message, "question"):
        return [Finding(message.question, message.answer)]
    return [Finding(each.text, bool(each.boxes), (each,)) for each in message.phrases]


def _message(types: Types, frame: Any, event: Event) -> Any:
    """Return the message of an event, as ros/conversions.py makes it."""
    return types.new(
        "kosmos_msgs/msg/Event",
        header=frame.header,
        camera=frame.camera,
        kind=KINDS.index(event.kind),
        subject=event.subject,
        answer=event.answer,
        previous=event.previous,
        phrases=list(event.phrases),
        since=event.since,
    )


def record(message: Any) -> records.Event:
    """Return the record of an event for the observation log."""
    return records.Event(
        stamp=_nanoseconds(message.header.stamp),
        camera=message.camera,
        kind=KINDS[message.kind],
        subject=message.subject,
        answer=message.answer,
        previous=message.previous,
        since=_nanoseconds(message.since),
        phrases=tuple(
            records.Phrase(each.text, each.start, each.end, tuple(map(_box, each.boxes)))
            for each in message.phrases
        ),
    )


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _box(box: Any) -> records.Box:
    return records.Box(box.x_min, box.y_min, box.x_max, box.y_max, box.score)
