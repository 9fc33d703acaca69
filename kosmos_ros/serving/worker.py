# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the model: takes what the scheduler gives, and hands out what was said.

Everything slow happens here: loading, decoding, inference, and what the receivers do with the
result, such as drawing and publishing. Knows no ROS: messages are carried, not looked at.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from kosmos_ros.errors import CancelledError, DeviceLostError, KosmosError, OutOfMemoryError
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.sanitize import format_traceback
from kosmos_ros.serving.memory_backoff import MemoryBackoff
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Job, Scheduler
from kosmos_ros.serving.work import Picture, Seen, Task

MEASURE = 1.0  # s between two looks at the device's memory

KEPT = 1
"""Rows of a batch that frames leave to requests, which thus begin at the next token."""


class CaptionEngine(Protocol):
    """What the worker needs of an engine; see engine.Engine."""

    info: Any  # dataclass of what runs where

    def warm_up(self, most: int, tokens: int) -> None:
        """Make what is made once, for `most` prompts that are answered in `tokens`."""

    def encode_batch(self, images: Sequence[np.ndarray]) -> Sequence[Any]: ...

    def add(self, queries: Sequence[Query]) -> None:
        """Take up queries beside those under way."""

    def step(self) -> Sequence[tuple[Query, Generation | KosmosError]]:
        """Go on with all by a token, and give those that end with it."""

    def clear(self) -> None:
        """Let go of all queries, after an error of `add` or `step`."""

    def tidy(self) -> None:
        """Give back memory that is kept for later."""

    def memory(self) -> int:
        """Bytes of the device's memory that are taken; from any thread."""

    def unload(self) -> None: ...


Decode = Callable[[Any, int], np.ndarray]
"""Message and largest number of pixels to RGB pixels (H, W, 3) uint8. Raises ImageError."""


class Host(Protocol):
    """Whom a worker works for. All but `settings` are called in the worker's thread."""

    settings: NodeSettings

    def load(self) -> tuple[CaptionEngine, Decode]:
        """The model, and what makes pictures of messages."""

    def loaded(self, engine: CaptionEngine) -> None: ...

    def standing(self, camera: str) -> Task:
        """What is asked of a camera's newest frame."""

    def paused(self) -> bool:
        """Whether generation is to stop."""

    def bug(self, format_traceback: str) -> None:
        """An error that the engine raised and that is none of ours."""

    def ended(self, error: Exception | None) -> None:
        """The thread's last call; None where it was closed."""


class Worker:
    """Loads the model and works until it is closed."""

    def __init__(self, scheduler: Scheduler, host: Host) -> None:
        self._scheduler = scheduler
        self._host = host
        self.ladder = MemoryBackoff()
        self.memory = 0  # bytes of the device's
        self._measured = -math.inf  # s, monotonic
        self._closing = threading.Event()
        self._called = math.inf  # s, monotonic, when the model was called that has not returned
        self._waiting: list[tuple[Picture, int]] = []  # prompts that the model has no room for
        self._asked: dict[Query, tuple[Picture, int]] = {}  # those under way
        self._troubled: list[Picture] = []  # to be tried each by itself
        self._alone: Picture | None = None  # the one that is
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Begin to end: generation stops within a token, loading when it is through."""
        self._closing.set()
        self._scheduler.close()

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended within `timeout` seconds."""
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether it goes on taking work."""
        return self._thread.is_alive() and not self._closing.is_set()

    def stuck(self) -> float:
        """Seconds for which the model has not returned from a call; 0 outside of one."""
        return max(0.0, time.monotonic() - self._called)

    def _run(self) -> None:
        engine, error = None, None
        try:
            engine, self._decode = self._host.load()
            if not self._closing.is_set():
                self._host.loaded(engine)
            while self._take_up(engine):
                self._go_on(engine)
        except Exception as exc:  # the thread's outermost border: who waits must hear of it
            error = exc
            self.close()
        if engine is not None and not isinstance(error, DeviceLostError):
            engine.unload()
        self._host.ended(error)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Around a call of the model."""
        self._called = time.monotonic()
        try:
            yield
        finally:
            self._called = math.inf

    def _take_up(self, engine: CaptionEngine) -> bool:
        """Begin what can begin now; where nothing is under way, wait for it.

        False when all is done and nothing more will come.
        """
        if time.monotonic() >= self._measured + MEASURE:
            self._measured, self.memory = time.monotonic(), engine.memory()
        idle = not self._asked and not self._waiting
        if idle:
            self._alone = None
        if self._alone or (self._troubled and not idle):
            return True
        # A row that is free is a request's first; what waits for one yields to it.
        urgent = self._urgent()
        room = self._room() - urgent
        jobs: list[Job] = []
        # A request that was taken once goes before those that were not.
        first = idle and self._troubled and self._troubled[0].urgent
        if room > 0 and not first:
            waiting = len(self._waiting) - urgent
            frames = 0 if self._troubled else max(0, room - self._kept() - waiting)
            wait = idle and not self._troubled
            jobs = self._scheduler.take(room, wait=wait, frames=frames)
        pictures: list[Picture] = []
        for job in jobs:
            self._look(job, pictures)
        if pictures:
            self._begin(engine, pictures)
        elif self._troubled:
            self._alone = self._troubled.pop(0)
            self._begin(engine, [self._alone])
        return bool(jobs) or not idle or self._alone is not None

    def _begin(self, engine: CaptionEngine, pictures: Sequence[Picture]) -> None:
        """Encode pictures; what several of them share once."""
        known = {id(other.seen.image): other.encoded for other in self._under_way()}
        images = {id(picture.seen.image): picture.seen.image for picture in pictures}
        fresh = {key: image for key, image in images.items() if key not in known}
        error = None
        try:
            if fresh:
                with self._calling():
                    encoded = engine.encode_batch(list(fresh.values()))
                known |= zip(fresh, encoded, strict=True)
        except Exception as exc:  # whatever it is, the next pictures may be fine
            error = self._bare(exc)
        if error:
            self._trouble(engine, error, pictures, encoding=True)
            return
        for picture in pictures:
            picture.encoded = known[id(picture.seen.image)]
            self._waiting += [(picture, number) for number in range(len(picture.seen.prompts))]
        self._waiting.sort(key=lambda waiting: not waiting[0].urgent)

    def _go_on(self, engine: CaptionEngine) -> None:
        """One more token of every prompt that the model has room for."""
        room = self._room()
        fit = min(room, max(self._urgent(), room - self._kept()))
        begun, self._waiting = self._waiting[:fit], self._waiting[fit:]
        queries = {self._query(picture, number): (picture, number) for picture, number in begun}
        self._asked |= queries
        error = None
        try:
            with self._calling():
                if queries:
                    engine.add(list(queries))
                ended = engine.step() if self._asked else ()
        except Exception as exc:  # whatever it is, the next pictures may be fine
            error = self._bare(exc)
        if error:
            with self._calling():
                engine.clear()
            self._trouble(engine, error, self._under_way())
            return
        for query, answer in ended:
            picture, number = self._asked.pop(query)
            picture.answers[number] = answer
            if len(picture.answers) == len(picture.seen.prompts):
                picture.deliver()

    def _trouble(
        self,
        engine: CaptionEngine,
        error: Exception,
        pictures: Sequence[Picture],
        encoding: bool = False,
    ) -> None:
        """One of them, or their number, was too much: each again by itself, then in parts.

        Of a single picture that could not be encoded there is no part. Raises `error` where the
        device is lost.
        """
        if isinstance(error, DeviceLostError):
            everyone = {id(picture): picture for picture in (*self._under_way(), *pictures)}
            for picture in (*everyone.values(), *self._troubled):
                picture.task.failed(error)
            raise error
        mine = {id(picture) for picture in pictures}
        self._asked = {q: of for q, of in self._asked.items() if id(of[0]) not in mine}
        self._waiting = [of for of in self._waiting if id(of[0]) not in mine]
        single, short = len(pictures) == 1, isinstance(error, OutOfMemoryError)
        whole = single and encoding
        if short:
            with self._calling():
                engine.tidy()
        fell = short and not whole and self.ladder.reduce()
        for picture in pictures:
            most = picture.most
            if whole:  # beside others it may have been too much
                most = most if short and picture is not self._alone else 0
            elif single:
                most = min(most, self._most(), len(picture.seen.prompts)) // 2
            if most or fell:
                self._troubled.append(picture.again(max(most, 1)))
            else:
                picture.task.failed(error)
        self._troubled.sort(key=lambda picture: not picture.urgent)

    def _under_way(self) -> list[Picture]:
        places = (*self._asked.values(), *self._waiting)
        return list({id(picture): picture for picture, _ in places}.values())

    def _most(self) -> int:
        return self.ladder.batch(self._host.settings.max_batch_size)

    def _urgent(self) -> int:
        """Prompts of requests that wait for a row."""
        return sum(picture.urgent for picture, _ in self._waiting)

    def _kept(self) -> int:
        """Rows that are no frame's."""
        return KEPT if self._most() > KEPT and not self._alone else 0

    def _room(self) -> int:
        """For prompts in the model."""
        most = min(self._most(), self._alone.most) if self._alone else self._most()
        return max(0, most - len(self._asked))

    def _look(self, job: Job, pictures: list[Picture]) -> None:
        """Append the job's picture, decoded, with its prompts; what is there is not done again."""
        frame = job.frame
        camera = frame.camera if frame else ""
        task: Task = job.request.content if job.request else self._host.standing(camera)
        source: Any = frame.image if frame else task.image
        try:
            others = (p.seen.image for p in (*self._under_way(), *pictures) if p.source is source)
            image = next(others, None)
            if image is None:
                image = self._decode(source, self._host.settings.max_image_pixels)
            height, width, _ = image.shape
            prompts = tuple(task.prompts(width, height))
            if not prompts:
                raise CancelledError("nothing is asked of it any more")
        except Exception as exc:  # one picture's trouble is not the others'
            task.failed(exc)
            return
        dropped = self._scheduler.dropped(camera) if frame else 0
        seen = Seen(camera, source.header, image, prompts, dropped)
        pictures.append(Picture(task, source, seen, urgent=job.request is not None))

    def _query(self, picture: Picture, number: int) -> Query:
        task, prompt = picture.task, picture.seen.prompts[number]
        return Query(
            picture.encoded,
            prompt.text,
            self.ladder.tokens(task.max_new_tokens),
            lambda: (
                self._closing.is_set()
                or self._host.paused()
                or picture.error is not None
                or task.stopped()
            ),
            functools.partial(picture.report, number) if task.progress else None,
            prompt.stop,
        )

    def _bare(self, error: Exception) -> Exception:
        """Without its frames, which hold what fills the device's memory."""
        if not isinstance(error, KosmosError):
            self._host.bug(format_traceback(error))
        error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        return error
