# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the node's worker with cameras that send images without a pause. Needs no ROS."""

from __future__ import annotations

import io
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmark.captions import BRIEF
from benchmark.engine import measured, percentile
from benchmark.report import Result
from benchmark.subjects import Subject, frames
from kosmos_ros.errors import CancelledError
from kosmos_ros.images.decode import decode_compressed
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.query import Query
from kosmos_ros.serving.delivery import Delivery
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Limits, Scheduler
from kosmos_ros.serving.work import Observation, Work
from kosmos_ros.serving.worker import Decode, Worker

RATE = 60.0  # Hz, of each camera under load
LOAD_CAMERAS = 8
PATIENCE = 60.0  # s, for a caption or an answer under load
PAUSES = (0.05, 0.25)  # s, shortest and longest between questions under load
FULL_HD = (1920, 1080)  # pixels
JPEGS = 16
JPEG_CAMERAS = (1, 4, 8)
SETTLE = 0.5  # s before each measurement
TURNS = 3  # measurements of each kind, in turn, because other programs disturb them


def load(subject: Subject, questions: int) -> Iterator[Result]:
    """Measure questions while the node's worker describes eight cameras without a pause."""
    views = frames(LOAD_CAMERAS, 2)
    subject.engine.warm_up(NodeSettings().max_batch_size, 128)  # as the node does

    def batch(_: int) -> None:
        encoded = subject.engine.encode_batch(views)
        subject.engine.generate_batch([Query(one, BRIEF.text, 128) for one in encoded])

    alone, whole = measured(subject, 5, lambda _: subject.ours(views[0], _question(), 32), batch)
    waits, answers = _under_load(subject, views, questions)
    name = f"{subject.name}: question under load of {LOAD_CAMERAS} cameras"
    for percent in (50, 95):
        wait, answer = percentile(waits, percent), percentile(answers, percent)
        one_batch, one = statistics.median(whole), statistics.median(alone)
        yield Result(
            f"{name}, until its first token, p{percent}",
            wait,
            "ms",
            "a batch of captions",
            one_batch,
        )
        yield Result(f"{name}, until its answer, p{percent}", answer, "ms", "without load", one)


def _question() -> prompts.Prompt:
    return prompts.question("How many shapes are there?", grounded=False)


def _under_load(
    subject: Subject, views: Sequence[Any], questions: int
) -> tuple[list[float], list[float]]:
    """Return milliseconds from each question to its first token, and to its answer."""
    scheduler, host = Scheduler(), _Host(subject, lambda message, _: message.data)
    names = [f"camera{number}" for number in range(len(views))]
    for name in names:
        scheduler.set_limits(name, Limits(max_rate=0.0))
    delivery = Delivery(_fail)
    worker = Worker(scheduler, host, delivery.post)
    stop = threading.Event()

    def film() -> None:
        while not stop.wait(1 / RATE):
            for name, frame in zip(names, views, strict=True):
                scheduler.offer(name, _Message(frame))

    filming = threading.Thread(target=film, daemon=True)
    filming.start()
    if not host.captioned.wait(PATIENCE):
        raise RuntimeError(f"no caption in {PATIENCE:g} s: {host.error}")
    rng = np.random.default_rng(4)
    waits, answers = [], []
    for _ in range(questions):
        time.sleep(float(rng.uniform(*PAUSES)))
        question = _TimedQuestion(tuple(names))
        scheduler.submit(question.work)
        if not question.answered.wait(PATIENCE):
            raise RuntimeError(f"no answer in {PATIENCE:g} s: {host.error}")
        waits.append((question.begun - question.submitted) * 1e3)
        answers.append((time.perf_counter() - question.submitted) * 1e3)
    stop.set()
    filming.join()
    worker.close()
    worker.join(60)
    delivery.close(60)
    return waits, answers


class _TimedQuestion:
    """A question, and the times of its first token and its answer."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self.answered = threading.Event()
        self.submitted = time.perf_counter()
        self.begun = 0.0  # time of the first token
        self.work = Work(
            prompts=lambda *_: [_question()],
            done=self._done,
            failed=_fail,
            max_new_tokens=32,
            progress=self._progress,
            cameras=cameras,
        )

    def _progress(self, _: object) -> None:
        self.begun = self.begun or time.perf_counter()

    def _done(self, _: object) -> None:
        self.answered.set()


@dataclass(frozen=True, eq=False)
class _Message:
    """An image message without ROS."""

    data: Any
    header: None = None


class _Host:
    """The host of the worker, in place of a node. `described` receives the name of a camera."""

    settings = NodeSettings()

    def __init__(
        self, subject: Subject, decode: Decode, described: Callable[[str], None] = lambda _: None
    ) -> None:
        self.captioned = threading.Event()
        self.error: Exception | None = None
        self._engine = _SharedEngine(subject.engine)
        self._decode = decode
        self._described = described

    def load(self) -> Any:
        return self._engine, self._decode

    def loaded(self, engine: Any) -> None: ...

    def log_bug(self, traceback: str) -> None:
        raise AssertionError(traceback)

    def frame_work(self, camera: str) -> Work:
        return Work(lambda *_: [BRIEF], self._done, _fail, max_new_tokens=128, urgent=False)

    def _done(self, seen: Observation) -> None:
        self.captioned.set()
        self._described(seen.camera)

    def paused(self) -> bool:
        return False

    def ended(self, error: Exception | None) -> None:
        self.error = error


class _SharedEngine:
    """An engine that the worker cannot unload."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def unload(self) -> None: ...


def _fail(error: Exception) -> None:
    if not isinstance(error, CancelledError):  # raised for work that ends with the worker
        raise error


class _ModelsThread(Executor):
    """A pool without threads, so that the model's thread decodes."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **options))
        return future


def decoding(subject: Subject, seconds: float) -> Iterator[Result]:
    """Compare decoding in threads with decoding in the model's thread, one thread of torch."""
    images = [_jpeg(frame) for frame in frames(JPEGS, size=FULL_HD)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the node with a small model
    for cameras in JPEG_CAMERAS:
        rates: tuple[list[float], list[float]] = [], []
        for _ in range(TURNS):
            for taken, pool in zip(rates, (None, _ModelsThread()), strict=True):
                taken.append(_rate(subject, images, cameras, pool, seconds / TURNS))
        name = f"{subject.name}: {cameras} camera{'s' * (cameras > 1)} with 1080p JPEG"
        ours, other = map(statistics.median, rates)
        yield Result(name, ours, "captions/s", "decoding in the model's thread", other)
    torch.set_num_threads(threads)


def _rate(
    subject: Subject, images: Sequence[bytes], cameras: int, pool: Executor | None, seconds: float
) -> float:
    """Return the captions per second of all cameras. Each sends an image when one is described."""
    scheduler, source = Scheduler(), itertools.cycle(images)
    described = 0

    def send(camera: str) -> None:
        nonlocal described
        described += 1
        scheduler.offer(camera, _Message(next(source)))

    host = _Host(
        subject, lambda message, most: decode_compressed(message.data, "jpeg", most), send
    )
    worker = Worker(scheduler, host, lambda call, urgent: call(), pool)
    for camera in map(str, range(cameras)):
        scheduler.set_limits(camera, Limits(max_rate=0.0))
        send(camera)
    if not host.captioned.wait(PATIENCE):
        raise RuntimeError(f"no caption in {PATIENCE:g} s: {host.error}")
    time.sleep(SETTLE)
    before, begun = described, time.monotonic()
    time.sleep(seconds)
    rate = (described - before) / (time.monotonic() - begun)
    worker.close()
    worker.join(PATIENCE)
    return rate


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
