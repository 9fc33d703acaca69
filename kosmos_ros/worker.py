"""The thread that owns the model: takes what the scheduler gives, and hands out what was said.

Everything slow happens here: loading, decoding, inference, and what the receivers do with the
result, such as drawing and publishing. Knows no ROS: messages are carried, not looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kosmos_ros.errors import DeviceLostError, KosmosError
from kosmos_ros.grounding import Caption, Generation, Query, never, read
from kosmos_ros.prompts import Prompt
from kosmos_ros.scheduler import Job, Scheduler
from kosmos_ros.settings import Settings

NOTHING = Generation("", (), 0.0, 0, False)


class CaptionEngine(Protocol):
    """What the worker needs of an engine; see engine.Engine."""

    info: Any  # dataclass of what runs where

    def encode_batch(self, images: Sequence[np.ndarray]) -> Sequence[Any]: ...

    def generate_batch(self, queries: Sequence[Query]) -> Sequence[Generation | KosmosError]: ...

    def memory(self) -> int:
        """Bytes of the device's memory that are taken; from any thread."""

    def unload(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture and what the model said about it."""

    camera: str  # empty for a picture that came with a request
    header: Any  # the picture's own
    image: np.ndarray  # (H, W, 3) uint8 RGB
    prompts: tuple[Prompt, ...]
    frames_dropped: int  # of its camera
    captions: tuple[Caption, ...] = ()  # one for each prompt
    inference_time: float = 0.0  # s, of the batch that it was in

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width, _ = self.image.shape
        return width, height


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of a picture, and who is told. The callables run in the worker's thread."""

    prompts: Callable[[int, int], Sequence[Prompt]]  # of a picture of (width, height) pixels
    done: Callable[[Seen], None]
    failed: Callable[[Exception], None]
    max_new_tokens: int
    image: Any = None  # the message with the picture, where no frame is meant
    stopped: Callable[[], bool] = never
    progress: Callable[[Seen], None] | None = None  # what is said so far, after each token


@dataclass(eq=False)
class _Picture:
    """A task on its way through the model."""

    task: Task
    seen: Seen  # without captions

    def said(self, captions: Sequence[Caption], taken: float) -> Seen:
        """With what was said in `taken` seconds."""
        return dataclasses.replace(self.seen, captions=tuple(captions), inference_time=taken)


Decode = Callable[[Any, int], np.ndarray]
"""Message and largest number of pixels to RGB pixels (H, W, 3) uint8. Raises ImageError."""


class Host(Protocol):
    """Whom a worker works for. All but `settings` are called in the worker's thread."""

    settings: Settings

    def load(self) -> tuple[CaptionEngine, Decode]:
        """The model, and what makes pictures of messages."""

    def loaded(self, engine: CaptionEngine) -> None: ...

    def standing(self, camera: str) -> Task:
        """What is asked of a camera's newest frame."""

    def paused(self) -> bool:
        """Whether generation is to stop."""

    def ended(self, error: Exception | None) -> None:
        """The thread's last call; None where it was closed."""


class Worker:
    """Loads the model and works until it is closed."""

    def __init__(self, scheduler: Scheduler, host: Host) -> None:
        self._scheduler = scheduler
        self._host = host
        self._closing = threading.Event()
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

    def _run(self) -> None:
        engine, error = None, None
        try:
            engine, self._decode = self._host.load()
            if not self._closing.is_set():
                self._host.loaded(engine)
            while jobs := self._scheduler.take(self._host.settings.max_batch_size):
                self._serve(engine, jobs)
        except Exception as exc:  # the thread's outermost border: who waits must hear of it
            error = exc
            self._closing.set()
        if engine is not None:
            with contextlib.suppress(Exception):  # a lost device lets nothing be freed
                engine.unload()
        self._host.ended(error)

    def _serve(self, engine: CaptionEngine, jobs: Sequence[Job]) -> None:
        """Raises DeviceLostError; any other error goes to the tasks that it is about."""
        frames: dict[int, np.ndarray] = {}  # what several jobs are about is decoded once
        pictures = [picture for job in jobs if (picture := self._look(job, frames))]
        if pictures:
            self._describe(engine, pictures, self._host.settings.max_batch_size)

    def _describe(self, engine: CaptionEngine, pictures: Sequence[_Picture], most: int) -> None:
        """Answer all pictures, `most` prompts at a time, or as many fewer as the device bears."""
        begun = time.monotonic()
        error: Exception | None = None
        try:
            answers = self._answers(engine, pictures, most)
        except Exception as exc:  # whatever it is, the next pictures may be fine
            # Its frames hold what fills the device's memory.
            error = exc.with_traceback(None)
            error.__context__ = None
        if error is None:
            taken = time.monotonic() - begun
            for picture, written in zip(pictures, answers, strict=True):
                self._deliver(picture, written, taken)
        elif isinstance(error, DeviceLostError):
            for picture in pictures:
                picture.task.failed(error)
            raise error
        elif len(pictures) > 1:
            self._describe_singly(engine, pictures, most)
        elif (asked := min(most, len(pictures[0].seen.prompts))) > 1:
            self._describe(engine, pictures, asked // 2)
        else:
            pictures[0].task.failed(error)

    def _describe_singly(
        self, engine: CaptionEngine, pictures: Sequence[_Picture], most: int
    ) -> None:
        """One of them, or their number, was too much."""
        for number, picture in enumerate(pictures):
            try:
                self._describe(engine, [picture], most)
            except DeviceLostError as exc:
                for rest in pictures[number + 1 :]:
                    rest.task.failed(exc)
                raise

    def _deliver(
        self, picture: _Picture, written: Sequence[Generation | KosmosError], taken: float
    ) -> None:
        try:
            captions = []
            for prompt, answer in zip(picture.seen.prompts, written, strict=True):
                if isinstance(answer, KosmosError):
                    raise answer
                captions.append(read(answer, prompt.text, prompt.lead))
            picture.task.done(picture.said(captions, taken))
        except Exception as exc:  # one picture's trouble is not the others'
            picture.task.failed(exc)

    def _look(self, job: Job, frames: dict[int, np.ndarray]) -> _Picture | None:
        """The picture, decoded, with its prompts; None where that failed."""
        frame = job.frame
        camera = frame.camera if frame else ""
        task: Task = job.request.content if job.request else self._host.standing(camera)
        source: Any = frame.image if frame else task.image
        try:
            image = frames.get(id(source))
            if image is None:
                image = self._decode(source, self._host.settings.max_image_pixels)
                frames[id(source)] = image
            height, width, _ = image.shape
            prompts = tuple(task.prompts(width, height))
        except Exception as exc:  # one picture's trouble is not the others'
            task.failed(exc)
            return None
        dropped = self._scheduler.dropped(camera)
        return _Picture(task, Seen(camera, source.header, image, prompts, dropped))

    def _answers(
        self, engine: CaptionEngine, pictures: Sequence[_Picture], most: int
    ) -> list[list[Generation | KosmosError]]:
        """What the model says to each prompt of each picture."""
        images = {id(picture.seen.image): picture.seen.image for picture in pictures}
        encoded = dict(zip(images, engine.encode_batch(list(images.values())), strict=True))
        queries = [
            query
            for picture in pictures
            for query in self._queries(picture, encoded[id(picture.seen.image)])
        ]
        answers = iter(
            [
                answer
                for start in range(0, len(queries), most)
                for answer in engine.generate_batch(queries[start : start + most])
            ]
        )
        return [[next(answers) for _ in picture.seen.prompts] for picture in pictures]

    def _queries(self, picture: _Picture, tokens: Any) -> list[Query]:
        task, prompts = picture.task, picture.seen.prompts
        begun = time.monotonic()
        captions = [read(NOTHING, prompt.text, prompt.lead) for prompt in prompts]

        def progress(number: int, generation: Generation) -> None:
            captions[number] = read(generation, prompts[number].text, prompts[number].lead)
            assert task.progress
            task.progress(picture.said(captions, time.monotonic() - begun))

        return [
            Query(
                tokens,
                prompt.text,
                task.max_new_tokens,
                lambda: self._closing.is_set() or self._host.paused() or task.stopped(),
                functools.partial(progress, number) if task.progress else None,
            )
            for number, prompt in enumerate(prompts)
        ]
