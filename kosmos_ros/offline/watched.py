# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the events in results: phrases come into view or leave it, answers change.

The events are found when all frames are described. A continued run therefore finds the events of
an uninterrupted one. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kosmos_ros.serving.events import Event, FrameTime, Watchlist
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import Finding, Standing


class Watched:
    """The results of one camera for one kind of prompts, with what was accepted so far.

    `settings` has event_frames and event_seconds.
    """

    def __init__(self, standing: Standing, settings: CameraSettings) -> None:
        self._standing = standing
        self._limits = settings.event_frames, settings.event_seconds
        self._time = FrameTime()
        self._values = Watchlist(standing.first)

    def events(
        self, findings: Iterable[Finding], stamp: float, now: float, mark: Any
    ) -> Iterator[Event]:
        """Yield the events that one more frame confirms.

        `stamp`: the frame's time in seconds. If it repeats that of the frame before, as some
        drivers' stamps do, `now` counts, the time of the recording. `mark` identifies the frame in
        `Event.since`.
        """
        time = self._time.of(stamp, now)
        for finding in findings:
            change = self._values.update(finding.subject, finding.value, time, mark, *self._limits)
            if change:
                yield self._standing.event(change, finding)
