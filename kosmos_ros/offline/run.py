# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe the frames of a source with the model, and keep the results until all are complete.

A run that ended early is continued: `OUT.unfinished` has its results, and OUT appears when it is
complete. Frames are always put together in the same batches, so the results are those of one run.
Other threads decode frames and make results while the model works. Knows no source and no form
of output.
"""

from __future__ import annotations

import abc
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kosmos_ros.errors import ConfigError, ImageError, KosmosError
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import Source, record_of
from kosmos_ros.memory.recorder import thumbnail_of
from kosmos_ros.memory.records import Event, Observation
from kosmos_ros.offline import batches
from kosmos_ros.offline.batches import MAX_BATCH, Failure, Picture
from kosmos_ros.offline.unfinished import DATABASE, Row, Unfinished
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, TASK, FrameResult, Plan

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

Results = tuple[list[Row], list[Observation]]
"""The rows of a described frame, and its observation if there is a log."""
MAX_THREADS = 4
"""Maximum number of threads that decode frames and make results while the model works, as in
serving/decoding.py. One core is left to the model, which would wait for them otherwise."""
LOOK_AHEAD = 2 * MAX_BATCH
"""Maximum number of frames that are read before the model needs them: those of the next batch, and
as many more while the slowest of them is decoded."""
LOOK_AHEAD_BYTES = 64 << 20
"""Frames of more bytes together are not read ahead, whatever their number."""
JPEG_RATIO = 10
"""Bytes of an image for each byte of its JPEG file, about. A PNG file has more bytes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The settings of a command that describes many frames."""

    out: Path
    settings: CameraSettings  # task, phrases, questions, min_score, grounded, max_new_tokens
    model: str
    max_image_pixels: int
    every: str = "1"  # see every.Every
    log: Path | None = None  # observation log to which the frames are added
    model_settings: Mapping[str, Any] = field(default_factory=dict)  # observed.MODEL_SETTINGS

    def fixed(self) -> dict[str, Any]:
        """Return what must be the same in all runs with this output, besides the model.

        Raises ConfigError or RequestError if the settings give no valid prompts.
        """
        return {
            "every": self.every,
            "prompts": [prompt.text for prompt in plan_of(self.settings).prompts],
            "task": self.settings.task,
            "min_score": self.settings.min_score,
            "max_new_tokens": self.settings.max_new_tokens,
            "max_image_pixels": self.max_image_pixels,
            "log": self.log and str(self.log.resolve()),
        }


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame as the source has it."""

    name: str  # for errors
    stored: Any  # for Maker.decode; for Maker.results if the source has decoded the frame
    size: int  # bytes of its image, about
    image: np.ndarray | None = None  # (H, W, 3) uint8 RGB; None: `decode` makes it


class Maker(abc.ABC):
    """Decodes frames and makes their results. Several threads use it at the same time."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.plan = plan_of(job.settings)

    @abc.abstractmethod
    def decode(self, stored: Any) -> tuple[np.ndarray, Any]:
        """Return the image of a frame (H, W, 3) uint8 RGB, and what `results` needs to know.

        Raises KosmosError.
        """

    @abc.abstractmethod
    def results(self, source: Any, image: np.ndarray, captions: Sequence[Caption]) -> Results:
        """Return what is kept of a described frame. `source` comes from `decode`."""

    def observations(
        self, stamp: int, camera: str, frame_id: str, image: np.ndarray, result: FrameResult
    ) -> list[Observation]:
        """Return the observation of a frame if there is a log. `stamp` is in ns."""
        job = self.job
        if not job.log:
            return []
        height, width, _ = image.shape
        source = Source(stamp, camera, frame_id, width, height)
        record = record_of(source, result, job.settings, job.model, job.model_settings)
        return [replace(record, thumbnail=thumbnail_of(image))]


def plan_of(settings: CameraSettings) -> Plan:
    """Return the plan of a node with these settings if somebody subscribed to all its topics."""
    parts = frozenset({TASK, *(each.name for each in STANDING if each.subjects(settings))})
    return Plan(settings, parts)


class Run(abc.ABC):
    """A job with its source. Raises ConfigError, RequestError or ImageError if it cannot begin."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.lost: list[Failure] = []  # what `written` could not copy from the source
        self.plan = plan_of(job.settings)
        self.plan.prompts  # noqa: B018  # raises ConfigError
        if not job.out.name:
            raise ConfigError(f"output must be a new name, got {job.out}")

    # What a source has --------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def expected(self) -> int:
        """About the number of frames that will be described."""

    @property
    def warnings(self) -> list[str]:
        """Warnings about the whole run."""
        return []

    def counts(self, results: Unfinished) -> dict[str, Any]:
        """Return numbers of the results for the user."""
        return {}

    def events(self, results: Unfinished) -> Iterable[Event]:
        """Return the events in complete results, for the observation log."""
        return ()

    @abc.abstractmethod
    def values(self) -> dict[str, Any]:
        """Return what identifies the source: all runs with the same output must have the same."""

    @abc.abstractmethod
    def frames(self, position: int) -> Iterator[Frame | Failure]:
        """Yield the chosen frames and the failures from `position` on, in order."""

    @abc.abstractmethod
    def maker(self) -> Maker:
        """Return what decodes the frames and makes their results."""

    @abc.abstractmethod
    def written(self, path: Path, results: Unfinished) -> Iterator[None]:
        """Write the results as `path`, which does not exist. Yield after each part."""

    # The run --------------------------------------------------------------------------------

    @cached_property
    def partial(self) -> Path:
        """The folder of an unfinished run."""
        return self.job.out.with_name(f"{self.job.out.name}.unfinished")

    def open(self, model: dict[str, Any]) -> Unfinished:
        """Return the results so far. Raises ConfigError if the output has others.

        `model` has the options of the model, which must be the same in all runs.
        """
        job = self.job
        if job.out.exists() and not (self.partial / DATABASE).exists():
            raise ConfigError(f"output {job.out} exists; choose another name, or remove it")
        values = {
            **model,
            **self.values(),
            **job.fixed(),
        }
        results = Unfinished(self.partial, values)
        if job.out.exists() and not results.written:
            results.__exit__()
            raise ConfigError(
                f"output {job.out} exists, but its run is unfinished; remove {job.out} and repeat "
                "the command"
            )
        return results

    def describe(
        self, results: Unfinished, engine: Callable[[], Engine]
    ) -> Iterator[Picture | Failure]:
        """Describe the frames that have no results yet, and keep the results.

        Yields each frame, or why it has no result, when that is stored. Raises the errors of
        `engine`, PromptError for a prompt that the model cannot read, and DeviceLostError.
        """
        if results.written:
            return

        def checked() -> Engine:
            loaded = engine()
            for prompt in self.plan.prompts:
                loaded.check(prompt.text)
            return loaded

        threads = min(MAX_THREADS, max(1, (os.cpu_count() or 1) - 1))
        with ThreadPoolExecutor(threads, "offline") as pool:
            try:
                yield from self._describe(results, checked, self.maker(), pool)
            finally:
                pool.shutdown(cancel_futures=True)

    def _describe(
        self,
        results: Unfinished,
        engine: Callable[[], Engine],
        maker: Maker,
        pool: ThreadPoolExecutor,
    ) -> Iterator[Picture | Failure]:
        waiting: list[Future[Results] | Failure] = []
        before: list[Picture | Failure] = []
        frames = self._decoded(self.frames(results.position), maker, pool)
        for group in batches.groups(frames, self.job.max_image_pixels):
            found = list(batches.describe(group, engine, self.job.settings.max_new_tokens))
            # The results of a batch are made while the model describes the next one.
            yield from _stored(results, before, waiting)
            before = [each if isinstance(each, Failure) else each[0] for each in found]
            waiting = [
                each
                if isinstance(each, Failure)
                else pool.submit(maker.results, each[0].source, each[0].image, each[1])
                for each in found
            ]
        yield from _stored(results, before, waiting)

    def _decoded(
        self, frames: Iterator[Frame | Failure], maker: Maker, pool: ThreadPoolExecutor
    ) -> Iterator[Picture | Failure]:
        """Yield the frames in their order; other threads decode the next ones in advance."""
        ahead: deque[tuple[int, Callable[[], Picture | Failure]]] = deque()
        for frame in frames:
            ahead.append(self._begun(frame, maker, pool))
            while len(ahead) > LOOK_AHEAD or sum(size for size, _ in ahead) > LOOK_AHEAD_BYTES:
                yield ahead.popleft()[1]()
        while ahead:
            yield ahead.popleft()[1]()

    def _begun(
        self, frame: Frame | Failure, maker: Maker, pool: ThreadPoolExecutor
    ) -> tuple[int, Callable[[], Picture | Failure]]:
        """Begin to decode a frame. Return its bytes, and a function that returns the image."""
        if isinstance(frame, Failure):
            return 0, lambda: frame
        if frame.image is not None:
            picture = Picture(frame.name, frame.image, self.plan.prompts, frame.stored)
            return frame.size, lambda: picture
        future = pool.submit(maker.decode, frame.stored)

        def decoded() -> Picture | Failure:
            try:
                image, source = future.result()
            except KosmosError as exc:
                return Failure(frame.name, exc)
            except MemoryError:
                reason = "there is not enough memory to decode the image"
                return Failure(frame.name, ImageError(reason))
            return Picture(frame.name, image, self.plan.prompts, source)

        return frame.size, decoded

    def write(self, results: Unfinished) -> Iterator[None]:
        """Write the output. Yield after each part."""
        out = self.job.out
        # In a folder of its own, because its name may be that of a file of the unfinished results.
        # The name itself must stay, because the contents may include it.
        path = self.partial / "output" / out.name
        if not results.written:
            _remove(path.parent)
            path.parent.mkdir()
            yield from self.written(path, results)
            if out.exists():
                raise ConfigError(
                    f"another program has created output {out}; remove it and repeat the command"
                )
            self.lost = results.finish(self.lost)
        if not out.exists():
            path.rename(out)

    def add_to_log(self, results: Unfinished) -> None:
        """Add the frames and events to the observation log. Raises ConfigError and LogError.

        Those that the log has from an earlier attempt are left out.
        """
        if self.job.log:
            events = list(self.events(results))  # before the log is locked
            with ObservationLog.open(self.job.log) as log:
                log.add_missing(results.observations, events)

    def clean(self) -> None:
        """Remove the unfinished results, the database last: it says that all is written."""
        for file in self.partial.iterdir():
            if file.name != DATABASE:
                _remove(file)
        (self.partial / DATABASE).unlink()
        self.partial.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _stored(
    results: Unfinished,
    frames: Sequence[Picture | Failure],
    waiting: Sequence[Future[Results] | Failure],
) -> list[Picture | Failure]:
    """Store the results of one batch and return its frames."""
    if frames:
        made = [each.result() for each in waiting if isinstance(each, Future)]
        rows = [row for own, _ in made for row in own]
        observations = [each for _, own in made for each in own]
        failures = [each for each in frames if isinstance(each, Failure)]
        results.add(rows, observations, len(frames) - len(failures), failures)
    return list(frames)
