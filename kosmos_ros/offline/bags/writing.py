# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write results, and copies of original messages, as a rosbag2 directory with one MCAP file.

`ros2 bag play` of all distributions since Humble reads it. Knows no model.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kosmos_ros.offline.bags.messages import Types
from kosmos_ros.offline.bags.reading import Message
from kosmos_ros.offline.unfinished import Row

VERSION: Final = 8
"""The version of metadata.yaml. Humble cannot read how version 9 stores QoS profiles."""
NO_HASH = "RIHS01_" + 64 * "0"
"""Hash of a type without a definition, as in SQLite files of Humble. rosbag2 ignores it."""


def write(
    path: Path,
    topics: Mapping[str, str],
    rows: Iterable[Row],
    copied: Iterable[Message],
    types: Types,
) -> Iterator[None]:
    """Write a bag to the new directory `path`, in the order of time. Yield after each message.

    `topics` has the types of the results `rows`; each topic is in the bag, even without messages.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        results = {
            topic: writer.add_connection(topic, kind, typestore=types.store)
            for topic, kind in topics.items()
        }
        copies: dict[tuple[Any, ...], Any] = {}
        both: Iterator[Message | Row] = heapq.merge(copied, rows, key=lambda each: each.time)
        for each in both:
            if isinstance(each, Row):
                connection = results[each.topic]
            else:
                key = each.topic, each.type, repr(each.connection.ext)
                connection = copies.get(key) or _copy(writer, each, types)
                copies[key] = connection
            writer.write(connection, each.time, each.data)
            yield
    for file in path.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _copy(writer: Any, message: Message, types: Types) -> Any:
    """Add the connection of an original message to a bag, with its definition and QoS."""
    original = message.connection
    definition, digest = original.msgdef.data, original.digest
    if not definition and message.type in types.store.fielddefs:
        definition, _ = types.store.generate_msgdef(message.type, ros_version=2)
        digest = types.store.hash_rihs01(message.type)
    return writer.add_connection(
        message.topic,
        message.type,
        msgdef=definition,
        rihs01=digest or NO_HASH,
        serialization_format=original.ext.serialization_format,
        offered_qos_profiles=original.ext.offered_qos_profiles,
    )
