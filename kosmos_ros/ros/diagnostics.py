# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The state of the node on /diagnostics: one status for the model and one for each camera.

Levels of a camera: STALE, no image has come for `stale_timeout`; ERROR, the newest frame could not
be described; WARN, more than half of the images do not arrive; else OK. Of the model: ERROR, it
cannot be used; WARN, it is loading, not active or short of memory; else OK.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from kosmos_ros.ros.image_subscription import LOST_SHARE, ImageSubscription
from kosmos_ros.serving.throughput import Throughput

PERIOD = 1.0  # s


@dataclass(frozen=True)
class CameraState:
    """What is known of one camera."""

    name: str  # empty for the only one
    feed: ImageSubscription
    meter: Throughput
    enabled: bool
    wanted: bool  # somebody listens
    stale_timeout: float  # s; 0: never
    dropped: int  # frames


def camera_status(node: str, state: CameraState, unready: str) -> DiagnosticStatus:
    """Status of a camera of the node with this full name; `unready` says why nothing is done."""
    now = time.monotonic()
    watch, meter = state.feed.arrivals, state.meter
    silence, lost = watch.silence(now), watch.lost(now)
    level, message = DiagnosticStatus.OK, "images are described"
    if 0 < state.stale_timeout < silence:
        level, message = DiagnosticStatus.STALE, f"no image on {state.feed.topic}"
    elif unready:
        message = unready
    elif not state.enabled:
        message = "switched off"
    elif not state.wanted:
        message = "nobody listens"
    elif meter.failing:
        level, message = DiagnosticStatus.ERROR, meter.error
    elif lost > LOST_SHARE:
        level, message = DiagnosticStatus.WARN, f"{lost:.0%} of the images do not arrive"
    values = {
        "topic": state.feed.topic,
        "image rate (Hz)": f"{watch.rate(now):.2f}",
        "image age (s)": f"{silence:.2f}",
        "lost share": f"{lost:.2f}",
        "described rate (Hz)": f"{meter.rate(now):.2f}",
        "described": str(meter.count),
        "dropped": str(state.dropped),
        "failed": str(meter.failed),
        "latency p50 (s)": f"{meter.latency(0.5):.3f}",
        "latency p95 (s)": f"{meter.latency(0.95):.3f}",
        "last error": meter.error,
        "last error age (s)": f"{now - meter.error_at:.0f}" if meter.failed else "",
    }
    return status(level, f"{node}: camera {state.name}".rstrip(), message, "", values)


def model_status(
    node: str,
    level: bytes,
    message: str,
    info: Mapping[str, str],
    waiting: int,
    memory: int,
    rung: str,
) -> DiagnosticStatus:
    """Status of the model; `memory` in bytes is what it takes of its device.

    `rung` says what it does for want of memory; see memory_backoff.LEVELS.
    """
    if rung and level == DiagnosticStatus.OK:
        level, message = DiagnosticStatus.WARN, f"short of memory: {rung}"
    values = {
        **info,
        "requests waiting": str(waiting),
        "short of memory": rung,
        "device memory (MB)": f"{memory / 1e6:.0f}",
        "process memory (MB)": f"{psutil.Process().memory_info().rss / 1e6:.0f}",
    }
    return status(level, f"{node}: model", message, hardware(info), values)


def hardware(info: Mapping[str, str]) -> str:
    """The hardware_id of a model's status."""
    return info.get("device_name") or info.get("device") or "none"


def status(
    level: bytes, name: str, message: str, hardware_id: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """The message with these fields."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
