# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode images in threads of their own, several at a time, while the model works.

The model's thread starts the decoding of an image and takes the pixels when they are ready. Knows
no ROS, no engine and no format.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from kosmos_ros.serving.work import Work

THREADS = 4
"""Images that are decoded at a time. A camera's JPEG takes a few milliseconds, so four threads
keep up with many cameras, and more would take time from the rest of the robot."""
GATHER = 0.005
"""Seconds that the first decoded image waits for other images while the model has nothing to do.
Images that are ready together are encoded together."""
POLL = 0.02
"""Longest time in seconds until new work is noticed while the model waits for a slow image."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """Work whose image is being decoded."""

    work: Work
    camera: str  # of the frame; empty if the image came with a request
    source: Any  # the image message
    image: Future[np.ndarray]  # (H, W, 3) uint8 RGB; shared by all work about this message


class Decoding:
    """The images that are being decoded. The model's thread calls all methods except `stuck`."""

    def __init__(self, pool: Executor | None = None) -> None:
        self._pool = pool or ThreadPoolExecutor(THREADS, "decode")
        self._arrivals: list[Arrival] = []
        self._begun: dict[int, float] = {}  # by thread: s, monotonic, when its image began

    @property
    def works(self) -> list[Work]:
        """The work whose images `ready` has not returned yet."""
        return [arrival.work for arrival in self._arrivals]

    def begin(
        self,
        work: Work,
        camera: str,
        source: Any,
        decode: Callable[[], np.ndarray],
        known: np.ndarray | None = None,
    ) -> None:
        """Start to decode the image message `source`, unless its pixels are `known`.

        Another thread calls `decode`, which may raise any exception.
        """
        images = (arrival.image for arrival in self._arrivals if arrival.source is source)
        image = next(images, None)
        if image is None and known is not None:
            image = Future()
            image.set_result(known)
        if image is None:
            image = self._pool.submit(self._timed, decode)
        self._arrivals.append(Arrival(work, camera, source, image))

    def _timed(self, decode: Callable[[], np.ndarray]) -> np.ndarray:
        thread = threading.get_ident()
        self._begun[thread] = time.monotonic()
        try:
            return decode()
        finally:
            del self._begun[thread]

    def wait(self, frames: bool = True) -> None:
        """Wait at most POLL for an image, and then at most GATHER for the other images.

        Without `frames`, wait only for images of requests.
        """
        images = {one.image for one in self._arrivals if frames or one.work.urgent}
        if images and wait(images, POLL, FIRST_COMPLETED).done:
            wait(images, GATHER)

    def ready(self, frames: bool = True) -> list[Arrival]:
        """Remove and return the work whose images are decoded, in the order of `begin`.

        No frame overtakes an earlier one of its camera. Without `frames`, return only requests.
        """
        ready: list[Arrival] = []
        left: list[Arrival] = []
        for arrival in self._arrivals:
            held = not arrival.work.urgent and (
                not frames
                or any(one.camera == arrival.camera and not one.work.urgent for one in left)
            )
            (ready if arrival.image.done() and not held else left).append(arrival)
        self._arrivals = left
        return ready

    def abandon(self) -> list[Work]:
        """Remove and return all work."""
        works, self._arrivals = self.works, []
        return works

    def stuck(self) -> float:
        """Return the age in seconds of the oldest decoding in progress; 0: none is."""
        now = time.monotonic()
        return max(0.0, now - min(tuple(self._begun.values()), default=now))

    def close(self) -> None:
        """End the threads, after the images that they decode now."""
        self._pool.shutdown(cancel_futures=True)
