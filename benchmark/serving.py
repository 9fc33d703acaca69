# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the worker with cameras that always have a new JPEG."""

from __future__ import annotations

import io
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from benchmark.report import Result
from benchmark.subjects import BRIEF, frames
from kosmos_ros.images.decode import decode_compressed
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Limits, Scheduler
from kosmos_ros.serving.work import Work
from kosmos_ros.serving.worker import Decode, Worker

FULL_HD = (1920, 1080)  # pixels
IMAGES = 16
CAMERAS = (1, 4, 8)
SETTLE = 0.5  # s before each measurement
PATIENCE = 10.0  # s for the end of the worker
TURNS = 3  # measurements of each kind, in turn, because other programs disturb them


class _ModelsThread(Executor):
    """A pool without threads, so that the model's thread decodes."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **options))
        return future


class _Host:
    """The owner of a worker: cameras that send a new image for each described one."""

    def __init__(self, device: str, images: Sequence[bytes], cameras: int) -> None:
        self.settings = NodeSettings(max_batch_size=CAMERAS[-1])
        self.scheduler = Scheduler()
        self.described = 0
        self.ready = threading.Event()
        self.error: Exception | None = None
        self._device = device
        self._images = itertools.cycle(images)
        for camera in map(str, range(cameras)):
            self.scheduler.set_limits(camera, Limits(max_rate=0.0))
            self._send(camera)

    def _send(self, camera: str) -> None:
        self.scheduler.offer(camera, SimpleNamespace(header=None, data=next(self._images)))

    def load(self) -> tuple[Engine, Decode]:
        engine = Engine.load("shapes", device=self._device)  # the worker unloads it
        return engine, lambda image, most: decode_compressed(image.data, "jpeg", most)

    def loaded(self, engine: Any) -> None:
        self.ready.set()

    def frame_work(self, camera: str) -> Work:
        def done(_: object) -> None:
            self.described += 1
            self._send(camera)

        return Work(lambda *_: (BRIEF,), done, lambda error: None, 128, urgent=False)

    def paused(self) -> bool:
        return False

    def log_bug(self, traceback: str) -> None:
        print(traceback, file=sys.stderr)

    def ended(self, error: Exception | None) -> None:
        self.error = error
        self.ready.set()


def decoding(device: str, seconds: float) -> Iterator[Result]:
    """Compare decoding in threads with decoding in the model's thread, with the embedded model.

    Sets torch's number of threads to that of the node.
    """
    images = [_jpeg(frame) for frame in frames(IMAGES, size=FULL_HD)]
    for cameras in CAMERAS:
        rates: dict[bool, list[float]] = {True: [], False: []}
        for threads in (True, False) * TURNS:
            pool = None if threads else _ModelsThread()
            rates[threads].append(_rate(device, images, cameras, pool, seconds / TURNS))
        name = f"1080p JPEG, {cameras} camera{'s' * (cameras > 1)} at full speed"
        ours, other = (statistics.median(rates[threads]) for threads in (True, False))
        yield Result(name, ours, "captions/s", "decoding in the model's thread", other)


def _rate(
    device: str, images: Sequence[bytes], cameras: int, pool: Executor | None, seconds: float
) -> float:
    """Return the captions per second of all cameras together."""
    host = _Host(device, images, cameras)
    worker = Worker(host.scheduler, host, lambda call, urgent: call(), pool)
    host.ready.wait()
    time.sleep(SETTLE)
    before, begun = host.described, time.monotonic()
    time.sleep(seconds)
    rate = (host.described - before) / (time.monotonic() - begun)
    worker.close()
    worker.join(PATIENCE)
    if host.error:
        raise host.error
    return rate


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
