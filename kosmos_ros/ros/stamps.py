# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Judge the stamps of one camera's images against the node's clock, and warn once of each fault.

Knows stamps and clocks; no image and no topic.
"""

from __future__ import annotations

from rclpy.node import Node

from kosmos_ros.serving.events import FrameTime

AHEAD = 1.0  # s that a stamp may be in the future: clocks differ, and /clock may come seldom
OLD = 86400.0  # s; a stamp that is older comes from another clock
STILL = 5  # consecutive frames with one stamp; a few may share a stamp, such as a stereo pair


class Stamps:
    """The stamps of the described frames of one camera. `label` begins its warnings."""

    def __init__(self, node: Node, label: str) -> None:
        self._node = node
        self._label = label
        self._time = FrameTime()
        self._warned: set[str] = set()

    def time(self, stamp: float, now: float, latched: bool = False) -> float:
        """Return the time of a frame in seconds: its stamp, while stamps change.

        While a stamp repeats, the time advances with `now`, the monotonic time in seconds.
        `latched`: the previous frame may come again, which is no fault.
        """
        time = self._time.of(stamp, now)
        if self._time.still >= STILL and not latched:
            self._warn(
                "still",
                f"the stamps of its images do not change ({stamp:g} s): latency is wrong, and "
                "event_seconds counts from the arrival of frames; let the camera's driver set the "
                "stamps",
            )
        return time

    def check(self, stamp: float, now: float) -> None:
        """Warn if `stamp` does not fit `now`, the time of publication by the node's clock."""
        simulated = self._node.get_parameter("use_sim_time").value
        if simulated and now == 0:
            self._warn(
                "clock",
                "latency is unknown, because use_sim_time is true and no time arrives on /clock; "
                "start its publisher or set use_sim_time to false",
            )
        elif stamp > now + AHEAD:
            remedy = "set use_sim_time to false" if simulated else "synchronize the computers"
            self._warn(
                "ahead",
                f"the stamps of its images are {stamp - now:.3g} s ahead of this node's clock, so "
                f"latency is reported as 0; {remedy}",
            )
        elif now - stamp > OLD and not simulated:
            self._warn(
                "old",
                f"the stamps of its images are {now - stamp:.3g} s old, and so is the reported "
                "latency; set use_sim_time to true if the images are simulated or recorded",
            )

    def _warn(self, fault: str, text: str) -> None:
        if fault not in self._warned:
            self._warned.add(fault)
            self._node.get_logger().warning(f"{self._label}{text}")
