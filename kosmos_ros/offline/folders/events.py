# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the events in the results of a video.

They come from the results for requested phrases and questions. Knows no files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kosmos_ros.memory import records
from kosmos_ros.offline.unfinished import Row
from kosmos_ros.offline.watched import Watched
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, Finding


def events(rows: Iterable[Row], camera: str, settings: CameraSettings) -> Iterator[records.Event]:
    """Yield the events of a camera in the order of its frames.

    `rows` are lines of results (JSON). Of `settings`, event_frames and event_seconds count.
    """
    watched = {standing.name: Watched(standing, settings) for standing in STANDING}
    for row in rows:
        kind, findings = _findings(json.loads(row.data))
        if kind not in watched:
            continue
        seconds = row.time * 1e-9
        for event in watched[kind].events(findings, seconds, seconds, row.time):
            yield records.Event(
                row.time,
                camera,
                event.kind,
                event.subject,
                event.answer,
                event.previous,
                event.since,
                tuple(map(_phrase, event.phrases)),
            )


def _findings(value: dict[str, Any]) -> tuple[str, list[Finding]]:
    """Return the parameter with the subjects of a result, and its findings; "": a caption."""
    if "question" in value:
        return "questions", [Finding(value["question"], value["caption"])]
    if value["task"] != "phrase_grounding":
        return "", []
    phrases = value["phrases"]
    return "phrases", [Finding(each["text"], bool(each["boxes"]), (each,)) for each in phrases]


def _phrase(phrase: Any) -> records.Phrase:
    boxes = tuple(records.Box(**box) for box in phrase["boxes"])
    return records.Phrase(phrase["text"], phrase["start"], phrase["end"], boxes)
