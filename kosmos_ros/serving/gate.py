# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decide when the frames of a camera are read, because reading a frame costs time.

While no frames are needed, one frame per LOOK_PERIOD is read, to see that the camera works. Knows
no ROS and no images. Times are in seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK_PERIOD = 1.0  # s between two frames that are read while none are needed


@dataclass
class Gate:
    """Decide for one camera whether its frames are read. One thread at a time may use it."""

    _closed_until: float = float("-inf")  # s

    def update(self, now: float, needed: bool) -> bool:
        """Return whether frames are read now. An open gate stays open until a frame has passed.

        `needed`: every frame is needed.
        """
        if needed or now >= self._closed_until:
            self._closed_until = float("-inf")
        return not self.closed

    def passed(self, now: float, needed: bool) -> None:
        """Record a frame that has been read. Close the gate if the next one is not needed."""
        self._closed_until = float("-inf") if needed else now + LOOK_PERIOD

    @property
    def closed(self) -> bool:
        """Whether frames are left unread."""
        return self._closed_until > float("-inf")
