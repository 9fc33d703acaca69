# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the events in results: phrases come into view or leave it, answers change.

Events are searched only after all frames are described. A continued run therefore finds the same
events as an uninterrupted one. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kosmos_ros.serving.events import Event, FrameTime, Watchlist
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import Finding, Standing


class Watched:
    """Find the events of one camera for one parameter with phrases or questions.

    Keeps the last accepted value of each subject. Of `settings`, event_frames and event_seconds
    count.
    """

    def __init__(self, standing: Standing, settings: CameraSettings) -> None:
        self._standing = standing
        self._limits = settings.event_frames, settings.event_seconds
        self._time = FrameTime()
        self._values = Watchlist(standing.first)

    def events(
        self, findings: Iterable[Finding], stamp: float, recorded: float, mark: Any
    ) -> Iterator[Event]:
        """Yield the events that one more frame confirms.

        `stamp` is the frame's time in seconds. `recorded` is when it was recorded, in seconds; it
        is used while the stamp does not change. `mark` identifies the frame in `Event.since`.
        """
        time = self._time.of(stamp, recorded)
        for finding in findings:
            change = self._values.update(finding.subject, finding.value, time, mark, *self._limits)
            if change:
                yield self._standing.event(change, finding)
