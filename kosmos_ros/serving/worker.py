# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the model: it takes work from the scheduler and calls the engine.

Loading and inference run in this thread. decoding.py decodes images in other threads, batch.py
decides which prompts run together, and `deliver` passes the results to another thread. Knows no
ROS and never reads messages.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np

from kosmos_ros.errors import (
    CancelledError,
    DeviceLostError,
    KosmosError,
    OutOfMemoryError,
    RequestError,
)
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.sanitize import format_error, format_traceback
from kosmos_ros.serving.batch import Batch
from kosmos_ros.serving.decoding import Arrival, Decoding
from kosmos_ros.serving.kept_frames import KeptFrame, KeptFrames
from kosmos_ros.serving.memory_backoff import MemoryBackoff
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Frame, Scheduler
from kosmos_ros.serving.work import Deliver, Job, Observation, Stamp, Work

MEMORY_PERIOD = 1.0  # s between two measurements of the device's memory


class CaptionEngine(Protocol):
    """The methods of an engine that the worker uses; see kosmos2.engine.Engine."""

    info: Any  # a dataclass such as loading.ModelInfo

    def warm_up(self, most: int, tokens: int) -> None:
        """Allocate memory in advance for `most` prompts with answers of `tokens`."""

    def check(self, prompt: str) -> None:
        """Raise PromptError for a prompt that the model cannot read. Any thread may call it."""

    def encode_batch(self, images: Sequence[np.ndarray]) -> Sequence[Any]:
        """Return the encoding of each image (H, W, 3) uint8 RGB, in order."""

    def compact(self, encoded: Any) -> Any:
        """Return a copy of an encoding that holds little memory."""

    def add(self, queries: Sequence[Query]) -> None:
        """Add queries to the running ones."""

    def step(self) -> Sequence[tuple[Query, Generation | KosmosError]]:
        """Write the next tokens of the queries. Return the queries that ended."""

    def clear(self) -> None:
        """Remove all queries after an error of `add` or `step`."""

    def tidy(self) -> None:
        """Free cached memory."""

    def memory(self) -> int:
        """Return the bytes of device memory in use. Any thread may call it."""

    def unload(self) -> None:
        """Free the weights. No other call follows."""


Decode = Callable[[Any, int], np.ndarray]
"""Decodes an image message to RGB (H, W, 3) uint8. The number is the largest size in pixels.

Raises ImageError. Several threads may call it at a time.
"""


class Host(Protocol):
    """The owner of a worker. The worker's thread calls it."""

    @property
    def settings(self) -> NodeSettings:
        """The current values of the node's parameters."""

    def load(self) -> tuple[CaptionEngine, Decode]:
        """Return the loaded engine and the image decoder."""

    def loaded(self, engine: CaptionEngine) -> None:
        """Receive the engine once it is ready."""

    def frame_work(self, camera: str) -> Work:
        """Return the work for a camera's newest frame."""

    def paused(self) -> bool:
        """Return whether generation must stop."""

    def log_bug(self, traceback: str) -> None:
        """Log an unexpected error of the engine, one that is not a KosmosError."""

    def ended(self, error: Exception | None) -> None:
        """Receive the error that ends the thread; None: it was closed. This is the last call."""


class Worker:
    """Load the model and work until closed. `pool` decodes images; default: its own threads."""

    def __init__(
        self,
        scheduler: Scheduler,
        host: Host,
        deliver: Deliver,
        pool: Executor | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._host = host
        self._deliver = deliver
        self._decoding = Decoding(pool)
        self._kept = KeptFrames()
        self.memory = 0  # bytes of device memory
        self._measured = -math.inf  # s, monotonic
        self._closing = threading.Event()
        self._called = math.inf  # s, monotonic: when the current activity of the thread began
        self._batch = Batch(lambda: self._closing.is_set() or host.paused(), self._post)
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask the thread to end. Generation ends within one pass; loading first completes."""
        self._closing.set()
        self._scheduler.close()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds. Return whether the thread has ended."""
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the worker still takes work."""
        return self._thread.is_alive() and not self._closing.is_set()

    @property
    def backoff(self) -> MemoryBackoff:
        """The limit on the work that runs at a time, after memory ran out."""
        return self._batch.backoff

    def stuck(self) -> float:
        """Return the seconds since the oldest current activity began; 0 while there is none.

        An activity is a call of the engine, the work between two calls, or the decoding of one
        image in another thread. Loading the model, waiting for work or images and waiting for the
        delivery thread do not count. The node watches the delivery thread separately.
        """
        return max(self._decoding.stuck(), time.monotonic() - self._called)

    def _run(self) -> None:
        engine, error = None, None
        try:
            engine, self._decode = self._host.load()
            if not self._closing.is_set():
                with self._watched():
                    self._host.loaded(engine)
            while self._turn(engine):
                pass
        except BaseException as exc:  # of any type, because waiting clients need a response
            # A library in Rust raises a BaseException for its own bug.
            error = exc if isinstance(exc, Exception) else RuntimeError(format_error(exc))
            self.close()
        try:
            self._kept.clear()  # before the engine frees unused memory
            if engine is not None and not isinstance(error, DeviceLostError):
                with self._watched():
                    engine.unload()
        finally:
            self._host.ended(error)
            self._decoding.close()

    def _turn(self, engine: CaptionEngine) -> bool:
        """Take work and run one pass for every prompt. Return False once closed and idle.

        Waits for work or for decoded images while the model has nothing to do.
        """
        batch, decoding = self._batch, self._decoding
        with self._watched():
            if time.monotonic() >= self._measured + MEMORY_PERIOD:
                self._measured, self.memory = time.monotonic(), engine.memory()
            batch.max_rows = self._host.settings.max_batch_size
            self._kept.limit(self._host.settings.kept_frames)
            intake = batch.prepare(decoding.works)
        taken = self._scheduler.take(*intake) if intake else []
        for work, frame in taken:
            with self._watched():
                self._begin(work, frame)
        if batch.idle and batch.open:
            decoding.wait(batch.takes_frames)
        with self._watched():
            return self._work(engine) or bool(taken)

    def _work(self, engine: CaptionEngine) -> bool:
        """Encode the images that are decoded, and run one pass for every prompt.

        Return False if there is nothing to do.
        """
        batch = self._batch
        jobs: list[Job] = []
        arrivals = self._decoding.ready(batch.takes_frames) if batch.open else []
        for arrival in arrivals:
            self._admit(arrival, jobs)
        if not jobs and (again := batch.next_retry()):
            jobs = [again]
        if batch.idle and not jobs:
            return bool(arrivals or self._decoding.works)
        if jobs:
            self._encode(engine, jobs)
        for job in batch.finish(self._step(engine)):
            self._kept.keep(job, engine.compact(job.encoded))
            job.encoded = None  # device memory, which the job would hold until it is delivered
            self._post(functools.partial(job.deliver, time.monotonic()), job.work.urgent)
        return True

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Time an activity for `stuck`. The time of an outer activity starts again after it."""
        inside = self._called < math.inf
        self._called = time.monotonic()
        try:
            yield
        finally:
            self._called = time.monotonic() if inside else math.inf

    def _post(self, call: Callable[[], None], urgent: bool) -> None:
        """Hand a call over to the delivery thread. May wait for that thread."""
        self._called = math.inf
        try:
            self._deliver(call, urgent)
        finally:
            self._called = time.monotonic()

    def _begin(self, work: Work | None, frame: Frame | None) -> None:
        """Start to decode the image of new work.

        Work about the same image message shares the decoded image.
        """
        camera = frame.camera if frame else ""
        work = work or self._host.frame_work(camera)
        if work.kept:
            self._begin_kept(work, *work.kept)
            return
        source: Any = frame.image if frame else work.image
        known = (job.observation.image for job in self._batch.jobs if job.source is source)
        decode = functools.partial(self._decode, source, self._host.settings.max_image_pixels)
        try:
            self._decoding.begin(work, camera, source, decode, next(known, None))
        except RuntimeError as exc:  # the system cannot start a thread now
            self._fail(work, exc.with_traceback(None))

    def _begin_kept(self, work: Work, camera: str, stamp: Stamp) -> None:
        """Begin work about a kept frame, which needs no decoding."""
        try:
            frame = self._kept.find(camera, stamp)
        except RequestError as exc:
            self._fail(work, exc)
        else:
            self._decoding.begin(work, camera, frame, lambda: frame.image, frame.image)

    def _admit(self, arrival: Arrival, jobs: list[Job]) -> None:
        """Make the prompts of work whose image is decoded, and append its job to `jobs`.

        A frame with the pixels of the camera's last described one is answered at once instead.
        """
        work, camera = arrival.work, arrival.camera
        try:
            image = arrival.image.result()
            if work.stopped.is_set():  # nobody waits for it any more
                raise CancelledError("generation was stopped")
            height, width, _ = image.shape
            prompts = tuple(work.prompts(width, height))
            if not prompts:
                raise CancelledError("the last subscriber has left")
        except Exception as exc:  # an error of one image must not affect the others
            # The traceback would keep the image message in memory, in a cycle through `arrival`.
            self._fail(work, exc.with_traceback(None))
            return
        dropped = self._scheduler.dropped(camera) if work.image is None else 0
        observation = Observation(camera, arrival.source.header, image, prompts, dropped)
        job = Job(work, arrival.source, observation)
        if work.begun:
            self._post(job.announce, work.urgent)
        if not self._batch.unchanged(job, jobs):
            jobs.append(job)
        elif self._kept.repeat(job):
            self._post(functools.partial(job.deliver, time.monotonic()), work.urgent)
        else:
            jobs.append(job.again(job.most))

    def _encode(self, engine: CaptionEngine, jobs: Sequence[Job]) -> None:
        """Encode the images of jobs, each image once, and admit the jobs to the batch."""
        known = {
            id(job.source.image): engine.compact(job.source.encoded)
            for job in jobs
            if isinstance(job.source, KeptFrame)
        }
        known |= {id(job.observation.image): job.encoded for job in self._batch.jobs}
        images = {id(job.observation.image): job.observation.image for job in jobs}
        fresh = {key: image for key, image in images.items() if key not in known}
        error = None
        try:
            if fresh:
                with self._watched():
                    encoded = engine.encode_batch(list(fresh.values()))
                known |= zip(fresh, encoded, strict=True)
        except Exception as exc:  # of any type, because the next images may be fine
            error = self._stripped(exc)
        if error:
            self._retry(engine, error, jobs, encoding=True)
            return
        for job in jobs:
            job.encoded = known[id(job.observation.image)]
        self._batch.admit(jobs)

    def _step(self, engine: CaptionEngine) -> Sequence[tuple[Query, Generation | KosmosError]]:
        """Run one pass for every prompt that has a row. Return the queries that ended."""
        queries = self._batch.step()
        error = None
        try:
            with self._watched():
                if queries:
                    engine.add(queries)
                ended = engine.step() if self._batch.running else ()
        except Exception as exc:  # of any type, because the next images may be fine
            error = self._stripped(exc)
        if error:
            with self._watched():
                engine.clear()
            del queries  # they hold the encoded images
            self._retry(engine, error, self._batch.jobs)
            return ()
        return ended

    def _retry(
        self, engine: CaptionEngine, error: Exception, jobs: Sequence[Job], encoding: bool = False
    ) -> None:
        """Try failed jobs again as batch.py plans it. Raises `error` if the device is lost."""
        if isinstance(error, DeviceLostError):
            works = [job.work for job in self._batch.abandon(jobs)]
            for work in (*works, *self._decoding.abandon()):
                self._fail(work, error)
            raise error
        given_up = self._batch.retry(error, jobs, encoding)
        for job in jobs:
            job.encoded = None  # device memory, which `tidy` gives back
        if isinstance(error, OutOfMemoryError):
            self._kept.clear()
            with self._watched():
                engine.tidy()
        for job in given_up:
            self._fail(job.work, error)

    def _fail(self, work: Work, error: Exception) -> None:
        """Hand over an error, after everything that was handed over before."""
        self._post(functools.partial(work.failed, error), work.urgent)

    def _stripped(self, error: Exception) -> Exception:
        """Return the error without its traceback, whose frames keep large tensors alive."""
        if not isinstance(error, KosmosError):
            self._host.log_bug(format_traceback(error))
        error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        return error
