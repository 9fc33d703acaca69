# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decides what the model works on next: requests first, then the cameras in turn.

One slot per camera holds its newest frame; an older one is dropped and counted, never queued.
Knows no ROS, no torch and no model: an image and a request's content are carried, not looked at.
Times are seconds of a monotonic clock, so neither a step of the system clock nor simulated time
disturbs a rate or a deadline. Every method may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kosmos_ros.errors import CancelledError, QueueFullError


@dataclass(frozen=True)
class Limits:
    """Of one camera."""

    max_rate: float = 1.0  # Hz, frames taken; 0: as fast as the model goes
    max_image_age: float = 0.0  # s since arrival; older frames are not taken; 0: any age


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera's picture as it arrived."""

    camera: str
    image: Any
    arrived: float  # s


@dataclass(frozen=True, eq=False)
class Request:
    """Work that somebody waits for."""

    content: Any
    deadline: float  # s; not begun from then on: see `expired`
    cameras: tuple[str, ...] = ()  # the newest frame of any of them; none: it needs no frame
    max_age: float = 0.0  # s since the frame's arrival; 0: any age


@dataclass(frozen=True)
class Job:
    """A piece of work: a frame to describe, or a request with the frame it needs."""

    frame: Frame | None = None
    request: Request | None = None


@dataclass
class _Slot:
    limits: Limits = field(default_factory=Limits)
    newest: Frame | None = None
    pending: bool = False  # `newest` is wanted and not yet taken
    dropped: int = 0
    started: float = float("-inf")  # s, when its last frame was taken
    turn: int = 0  # of its last frame, over all cameras


@dataclass(eq=False)
class Scheduler:
    """Newest frame per camera, requests in order, one `take` at a time."""

    queue_size: int = 8  # requests that may wait, and as many for a frame; may be changed
    clock: Callable[[], float] = time.monotonic
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _requests: deque[Request] = field(default_factory=deque)
    _turn: int = 0
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def offer(self, camera: str, image: Any, wanted: bool = True) -> None:
        """Replace the camera's newest frame. One that is not `wanted` serves requests only."""
        with self._changed:
            slot = self._slots.setdefault(camera, _Slot())
            slot.dropped += slot.pending
            slot.newest = Frame(camera, image, self.clock())
            # What waits for its turn does so until then, whichever frame it is.
            if self._requests or wanted > slot.pending:
                self._changed.notify()
            slot.pending = wanted

    def submit(self, request: Request) -> None:
        """Queue a request. Raises QueueFullError, and CancelledError once closed."""
        with self._changed:
            if self._closed:
                raise CancelledError("no more requests are taken")
            now = self.clock()
            # Those that wait for a camera must not keep out those that could be served.
            servable = self._servable(request, now)
            alike = sum(self._servable(other, now) == servable for other in self._requests)
            if alike >= self.queue_size:
                raise QueueFullError(f"{alike} requests wait already; try again later")
            self._requests.append(request)
            self._changed.notify()

    def withdraw(self, request: Request) -> bool:
        """Take out a request; False where it does not wait any more."""
        with self._changed:
            waits = request in self._requests
            if waits:
                self._requests.remove(request)
            return waits

    def take(self, most: int = 1, wait: bool = True, frames: int | None = None) -> list[Job]:
        """Wait for work, then give all that can begin now, up to `most`; nothing once closed.

        No camera is in it with more than one frame of its own, and there are no more of them
        than `frames`, where that is given. Without `wait` it may be nothing at all.
        """
        jobs: list[Job] = []
        left = most if frames is None else frames
        with self._changed:
            while not self._closed:
                now = self.clock()
                job, due = self.next(now, left > 0)
                if job is not None:
                    jobs.append(job)
                    left -= job.request is None
                if len(jobs) == most or (job is None and (jobs or not wait)):
                    return jobs
                if job is None:
                    pause = None if due is None else min(due - now, threading.TIMEOUT_MAX)
                    self._changed.wait(pause)
        return []

    def next(self, now: float, frames: bool = True) -> tuple[Job | None, float | None]:
        """The job to begin at `now`, or None and the moment at which to ask again.

        No moment means: not before a frame or a request comes.
        """
        with self._changed:
            job = self._next_request(now)
            if job is not None or not frames:
                return job, None
            return self._next_frame(now)

    def expired(self) -> list[tuple[Request, bool]]:
        """Take out the requests whose deadline has passed.

        With each comes whether a frame that it could use was there, so that it waited for its
        turn and not for a camera.
        """
        with self._changed:
            now = self.clock()
            late = [request for request in self._requests if now >= request.deadline]
            for request in late:
                self._requests.remove(request)
            return [(request, self._servable(request, now)) for request in late]

    def set_limits(self, camera: str, limits: Limits) -> None:
        """Replace a camera's limits; they hold from its next frame on."""
        with self._changed:
            slot = self._slots.setdefault(camera, _Slot())
            if limits != slot.limits:
                slot.limits = limits
                self._changed.notify()

    def forget(self) -> None:
        """Let go of every frame and request, as if none had come."""
        with self._changed:
            self._requests.clear()
            for slot in self._slots.values():
                slot.newest, slot.pending = None, False

    def drop(self, camera: str) -> None:
        """Count a frame that was taken and could not be described."""
        with self._changed:
            self._slots[camera].dropped += 1

    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            return len(self._requests)

    def dropped(self, camera: str) -> int:
        """Frames of `camera` that were wanted and not described."""
        with self._changed:
            return self._slots.get(camera, _Slot()).dropped

    def close(self) -> None:
        """End every `take`; requests that wait never begin."""
        with self._changed:
            self._closed = True
            self._requests.clear()
            self._changed.notify_all()

    def _next_request(self, now: float) -> Job | None:
        for request in self._requests:
            if now < request.deadline and self._servable(request, now):
                self._requests.remove(request)
                return Job(self._frame_of(request), request)
        return None

    def _servable(self, request: Request, now: float) -> bool:
        frame = self._frame_of(request)
        if frame is None:
            return not request.cameras
        return not 0 < request.max_age < now - frame.arrived

    def _frame_of(self, request: Request) -> Frame | None:
        slots = (self._slots.get(camera) for camera in request.cameras)
        frames = [slot.newest for slot in slots if slot and slot.newest]
        return max(frames, key=lambda frame: frame.arrived, default=None)

    def _next_frame(self, now: float) -> tuple[Job | None, float | None]:
        due: dict[str, float] = {}
        for camera, slot in self._slots.items():
            if not slot.pending or slot.newest is None:
                continue
            if 0 < slot.limits.max_image_age < now - slot.newest.arrived:
                slot.pending = False
                slot.dropped += 1
                continue
            rate = slot.limits.max_rate
            # The reciprocal of the least rates is infinite.
            pause = min(1 / rate, threading.TIMEOUT_MAX) if rate > 0 else 0.0
            due[camera] = slot.started + pause
        ready = [camera for camera, moment in due.items() if moment <= now]
        if not ready:
            return None, min(due.values(), default=None)
        slot = self._slots[min(ready, key=lambda camera: self._slots[camera].turn)]
        assert slot.newest is not None
        self._turn += 1
        slot.turn, slot.started, slot.pending = self._turn, now, False
        return Job(slot.newest), None
