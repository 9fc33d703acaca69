# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Report the node's state on /diagnostics: for the model, each camera and the memory, if any.

Levels of a camera: STALE, no image has arrived for `stale_timeout`, or for two periods of a slower
camera; ERROR, the newest frame could not be described; WARN, more than half of the images are lost
and fewer than `max_rate` arrive; otherwise OK.
Levels of the model: ERROR, it cannot be used; WARN, it is loading, not active or short of memory,
or another node has the same name; otherwise OK.
Levels of the memory: WARN, the observation log cannot be written; otherwise OK.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from kosmos_ros.memory.recorder import RecorderState
from kosmos_ros.ros.image_subscription import ImageSubscription
from kosmos_ros.serving.availability import Availability, Phase
from kosmos_ros.serving.gate import LOOK_PERIOD
from kosmos_ros.serving.scheduler import Drop
from kosmos_ros.serving.throughput import Throughput

PERIOD = 1.0  # s
UNKNOWN = "unknown"  # value of a measurement that requires all images, while images are skipped


@dataclass(frozen=True)
class CameraState:
    """The state of one camera, for diagnostics."""

    name: str  # empty for the only one
    subscription: ImageSubscription
    throughput: Throughput
    enabled: bool
    wanted: bool  # somebody subscribes to its results
    stale_timeout: float  # s; 0: never
    dropped: Mapping[Drop, int]  # frames, for each reason


def camera_status(node: str, state: CameraState, unavailable: str) -> DiagnosticStatus:
    """Return the status of a camera of `node`, the node's full name.

    `unavailable` is the reason why the model takes no frames; empty if it takes them.
    """
    now = time.monotonic()
    images, throughput = state.subscription, state.throughput
    arrivals, sampling = images.arrivals, images.sampling
    silence, lost = arrivals.silence(now), arrivals.lost(now)
    rate = arrivals.rate(arrivals.last if sampling and arrivals.last else now)
    level, message = DiagnosticStatus.OK, "images are described"
    if images.silent(now, state.stale_timeout):
        level, message = DiagnosticStatus.STALE, f"no image on {images.topic}"
    elif unavailable:
        message = unavailable
    elif not state.enabled:
        message = "switched off"
    elif not state.wanted:
        message = "nobody subscribes"
    elif throughput.failing:
        level, message = DiagnosticStatus.ERROR, throughput.error
    elif images.losing:
        level, message = DiagnosticStatus.WARN, f"{lost:.0%} of the images are lost"
    values = {
        "topic": images.topic,
        "publishers": str(images.publishers()),
        "transport": images.transport,
        "reliability": images.reliability,
        "cause": images.cause(now, state.stale_timeout),
        "images read": f"one every {LOOK_PERIOD:g} s (idle)" if sampling else "all",
        "image rate (Hz)": f"{rate:.2f}" if rate or not sampling else UNKNOWN,
        "image age (s)": f"{silence:.2f}",
        "lost share": UNKNOWN if sampling else f"{lost:.2f}",
        "lost": str(images.missed),
        "described rate (Hz)": f"{throughput.rate(now):.2f}",
        "described": str(throughput.count),
        "unchanged": str(throughput.unchanged),
        "dropped": str(sum(state.dropped.values())),
        **{f"dropped: {reason.value}": str(count) for reason, count in state.dropped.items()},
        "failed": str(throughput.failed),
        "latency p50 (s)": f"{throughput.latency(0.5):.3f}",
        "latency p95 (s)": f"{throughput.latency(0.95):.3f}",
        "tokens per pass with drafts": f"{throughput.gain():.2f}",
        "last error": throughput.error,
        "last error age (s)": f"{now - throughput.error_at:.0f}" if throughput.failed else "",
    }
    return status(level, f"{node}: camera {state.name}".rstrip(), message, "", values)


def model_status(
    node: str,
    availability: Availability,
    model: str,
    waiting: int,
    memory: int,
    backoff: str,
    namesakes: int = 0,
) -> DiagnosticStatus:
    """Return the status of the model; `memory` is the device memory in use, in bytes.

    `backoff` names the limit that applies because memory is short; empty: none. `namesakes` is the
    number of other nodes with the same name.
    """
    message = availability_status(f"{node}: model", availability, model)
    if backoff and availability.ready:
        message.level, message.message = DiagnosticStatus.WARN, f"memory is short: {backoff}"
    elif namesakes and availability.ready:
        message.level, message.message = DiagnosticStatus.WARN, "another node has this name"
    values = {
        "requests waiting": str(waiting),
        "short of memory": backoff,
        "other nodes of this name": str(namesakes),
        "device memory (MB)": f"{memory / 1e6:.0f}",
        "process memory (MB)": f"{psutil.Process().memory_info().rss / 1e6:.0f}",
    }
    message.values = [*message.values, *_pairs(values)]
    return message


def memory_status(
    node: str, file: str, state: RecorderState, pose_age: float | None
) -> DiagnosticStatus:
    """Return the status of the observation log `file`; `pose_age` in s, None: there is no pose."""
    level = DiagnosticStatus.WARN if state.error else DiagnosticStatus.OK
    values = {
        "file": file,
        "file size (MB)": f"{state.file_bytes / 1e6:.1f}",
        "written": str(state.written),
        "waiting": str(state.waiting),
        "deleted": str(state.deleted),
        "lost": str(state.lost),
        "lost thumbnails": str(state.lost_thumbnails),
        "pose age (s)": "" if pose_age is None else f"{pose_age:.1f}",
    }
    message = state.error or "observations are written"
    return status(level, f"{node}: memory", message, "", values)


LEVELS = {Phase.READY: DiagnosticStatus.OK, Phase.FAILED: DiagnosticStatus.ERROR}
"""Diagnostic levels of phases. All other phases have WARN."""


def availability_status(name: str, availability: Availability, model: str) -> DiagnosticStatus:
    """Return the status of a model, for ~/model_info. `model` is the parameter of this name."""
    state = {"state": availability.phase.value}
    info = {**state, **(availability.info or {"model": model}), **availability.progress}
    return status(
        LEVELS.get(availability.phase, DiagnosticStatus.WARN),
        name,
        availability.summary,
        info.get("device_name") or info.get("device") or "none",
        info,
    )


def status(
    level: bytes, name: str, message: str, hardware_id: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """Return a message with these fields."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=_pairs(values),
    )


def _pairs(values: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value) for key, value in values.items()]
