# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decide what the model works on next: requests first, then the cameras in turn.

One slot per camera holds its newest frame. An older frame is dropped and counted, never queued.
Every frame that is to be described is either described or dropped, for one reason of Drop.
Knows no ROS, no torch and no model, and never reads images or work. Times are seconds of a
monotonic clock, so neither a step of the system clock nor simulated time changes a rate or a
deadline. Every method may be called from any thread.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kosmos_ros.errors import CancelledError, QueueFullError
from kosmos_ros.serving.work import Work


class Drop(enum.Enum):
    """Why a frame that was to be described was not. The value is the name that users see."""

    REPLACED = "replaced"  # by a newer frame, before the model was free
    TOO_OLD = "too old"  # over max_image_age
    UNREADABLE = "unreadable"  # the image cannot be decoded
    FAILED = "failed"  # any other error
    CANCELLED = "cancelled"  # the last subscriber left, or the node was paused


@dataclass(frozen=True)
class Limits:
    """Limits of one camera's frames."""

    max_rate: float = 1.0  # Hz; 0: as fast as the model works
    max_image_age: float = 0.0  # s since arrival; older frames are dropped; 0: any age


@dataclass(frozen=True, eq=False)
class Frame:
    """An image as it arrived from a camera."""

    camera: str
    image: Any
    arrived: float  # s


CATCH_UP = 0.1
"""Seconds that a request waits for a newer frame of an idle camera, whose frames are read rarely.

The newest frame is often still on its way to this process, because a large image arrives in parts.
A frame that arrives while a request waits is accepted up to this age, even if `max_age` is
smaller.
"""


class Taken(NamedTuple):
    """A request with the frame that it needs, if any; or a frame to describe."""

    request: Work | None = None
    frame: Frame | None = None


@dataclass
class _Slot:
    limits: Limits = field(default_factory=Limits)
    newest: Frame | None = None
    pending: bool = False  # `newest` waits to be described
    sampled: bool = False  # the camera may have sent newer frames that were left unread
    catching_up: float = float("-inf")  # s; requests wait for a newer frame until this time
    dropped: Counter[Drop] = field(default_factory=Counter)
    started: float = float("-inf")  # s, when its last frame was taken
    turn: int = 0  # number of its last taken frame, counted over all cameras


@dataclass(eq=False)
class Scheduler:
    """The newest frame of each camera, and a queue of requests."""

    queue_size: int = 8  # requests that may wait for the model; as many may wait for a frame
    clock: Callable[[], float] = time.monotonic
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _requests: deque[Work] = field(default_factory=deque)
    _turn: int = 0
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def offer(
        self,
        camera: str,
        image: Any,
        wanted: bool = True,
        age: float = 0.0,
        sampled: bool = False,
    ) -> None:
        """Replace the camera's newest frame. If not `wanted`, only requests use it.

        `age` is the seconds since the frame arrived. `sampled`: the caller reads the next frames
        only now and then, unless the camera is `awaited`.
        """
        with self._changed:
            slot = self._slots.setdefault(camera, _Slot())
            # Without a subscriber, the pending frame would not be described either.
            slot.dropped[Drop.REPLACED if wanted else Drop.CANCELLED] += slot.pending
            slot.newest = Frame(camera, image, self.clock() - age)
            slot.sampled, slot.catching_up = sampled, float("-inf")
            # A camera with a pending frame needs no second wake-up for a newer frame.
            if self._requests or wanted > slot.pending:
                self._changed.notify()
            slot.pending = wanted

    def submit(self, request: Work) -> None:
        """Queue a request. Raises QueueFullError, or CancelledError once closed."""
        with self._changed:
            if self._closed:
                raise CancelledError("the model has stopped")
            now = self.clock()
            # Requests that wait for a frame must not block those that could be served now.
            servable = self._servable(request, now)
            alike = sum(self._servable(other, now) == servable for other in self._requests)
            if alike >= self.queue_size:
                raise QueueFullError(
                    f"the queue is full: {alike} requests wait, the most that queue_size allows; "
                    "try again later"
                )
            self._requests.append(request)
            for slot in self._slots_of(request):
                if slot.sampled:  # only the first request sets the time; more cannot extend it
                    slot.sampled, slot.catching_up = False, now + CATCH_UP
            self._changed.notify()

    def withdraw(self, request: Work) -> None:
        """Remove a request from the queue, if it is there."""
        with self._changed, contextlib.suppress(ValueError):
            self._requests.remove(request)

    def take(self, most: int = 1, frames: int | None = None, wait: bool = True) -> list[Taken]:
        """Return all work that can begin now, at most `most` items.

        At most `frames` items are frames to describe, one per camera. With `wait`, blocks until
        there is work. The list is empty once the scheduler is closed, and may be empty without
        `wait`.
        """
        taken: list[Taken] = []
        left = most if frames is None else frames
        with self._changed:
            while not self._closed:
                now = self.clock()
                item, due = self.next(now, left > 0)
                if item is not None:
                    taken.append(item)
                    left -= item.request is None
                if len(taken) == most or (item is None and (taken or not wait)):
                    return taken
                if item is None:
                    pause = None if due is None else min(due - now, threading.TIMEOUT_MAX)
                    self._changed.wait(pause)
        return []

    def next(self, now: float, frames: bool = True) -> tuple[Taken | None, float | None]:
        """Return the work to begin at `now`, or None and the time at which to call again.

        If both are None, call again when a frame or a request arrives.
        """
        with self._changed:
            item, due = self._next_request(now)
            if item is not None or not frames:
                return item, due
            item, frame_due = self._next_frame(now)
            moments = [moment for moment in (due, frame_due) if moment is not None]
            return item, None if item else min(moments, default=None)

    def expired(self) -> list[tuple[Work, bool]]:
        """Remove and return the requests whose deadline has passed.

        Each has a flag: true if it had a frame and waited for the model, false if it waited for a
        frame.
        """
        with self._changed:
            now = self.clock()
            late = [request for request in self._requests if now >= request.deadline]
            for request in late:
                self._requests.remove(request)
            return [(request, self._servable(request, now)) for request in late]

    def set_limits(self, camera: str, limits: Limits) -> None:
        """Set a camera's limits. They apply from its next frame on."""
        with self._changed:
            slot = self._slots.setdefault(camera, _Slot())
            if limits != slot.limits:
                slot.limits = limits
                self._changed.notify()

    def forget(self) -> None:
        """Remove all frames and requests."""
        with self._changed:
            self._requests.clear()
            for slot in self._slots.values():
                slot.dropped[Drop.CANCELLED] += slot.pending
                slot.newest, slot.pending = None, False

    def drop(self, camera: str, reason: Drop) -> None:
        """Count a frame as dropped that was taken, or that was refused before `offer`."""
        with self._changed:
            self._slots.setdefault(camera, _Slot()).dropped[reason] += 1

    def waiting(self) -> int:
        """Return the number of waiting requests."""
        with self._changed:
            return len(self._requests)

    def ahead(self, request: Work) -> int | None:
        """Return how many waiting requests go before `request`; None if it does not wait.

        Those that wait for a frame do not count, because they block no other.
        """
        with self._changed:
            if request not in self._requests:
                return None
            now = self.clock()
            before = itertools.takewhile(lambda other: other is not request, self._requests)
            return sum(self._servable(other, now) for other in before)

    def awaited(self, camera: str) -> bool:
        """Return whether a waiting request may use a frame of `camera`."""
        with self._changed:
            return any(camera in request.cameras for request in self._requests)

    def dropped(self, camera: str) -> int:
        """Return how many frames of `camera` were to be described but were not."""
        return sum(self.drops(camera).values())

    def drops(self, camera: str) -> Mapping[Drop, int]:
        """Return the same number for each reason."""
        with self._changed:
            dropped = self._slots.get(camera, _Slot()).dropped
            return {reason: dropped[reason] for reason in Drop}

    def close(self) -> None:
        """End every `take` and remove all waiting requests."""
        with self._changed:
            self._closed = True
            self._requests.clear()
            self._changed.notify_all()

    def _next_request(self, now: float) -> tuple[Taken | None, float | None]:
        due: list[float] = []
        for request in self._requests:
            if now >= request.deadline:
                continue
            if self._servable(request, now):
                self._requests.remove(request)
                return Taken(request, self._frame_of(request)), None
            due += [slot.catching_up for slot in self._catching_up(request, now)]
        return None, min(due, default=None)

    def _servable(self, request: Work, now: float) -> bool:
        if self._catching_up(request, now):
            return False
        frame = self._frame_of(request)
        if frame is None:
            return not request.cameras
        # A frame takes some time to arrive, so no frame could satisfy a smaller age.
        newest = CATCH_UP if frame.arrived >= request.asked else 0.0
        return not request.max_age > 0 or now - frame.arrived <= max(request.max_age, newest)

    def _slots_of(self, request: Work) -> list[_Slot]:
        return [self._slots[camera] for camera in request.cameras if camera in self._slots]

    def _catching_up(self, request: Work, now: float) -> list[_Slot]:
        return [slot for slot in self._slots_of(request) if now < slot.catching_up]

    def _frame_of(self, request: Work) -> Frame | None:
        frames = [slot.newest for slot in self._slots_of(request) if slot.newest]
        return max(frames, key=lambda frame: frame.arrived, default=None)

    def _next_frame(self, now: float) -> tuple[Taken | None, float | None]:
        due: dict[str, float] = {}
        for camera, slot in self._slots.items():
            if not slot.pending or slot.newest is None:
                continue
            if 0 < slot.limits.max_image_age < now - slot.newest.arrived:
                slot.pending = False
                slot.dropped[Drop.TOO_OLD] += 1
                continue
            rate = slot.limits.max_rate
            # The reciprocal of the smallest floats is infinite.
            pause = min(1 / rate, threading.TIMEOUT_MAX) if rate > 0 else 0.0
            due[camera] = slot.started + pause
        ready = [camera for camera, moment in due.items() if moment <= now]
        if not ready:
            return None, min(due.values(), default=None)
        slot = self._slots[min(ready, key=lambda camera: self._slots[camera].turn)]
        assert slot.newest is not None
        self._turn += 1
        slot.turn, slot.started, slot.pending = self._turn, now, False
        return Taken(frame=slot.newest), None
