# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe the frames of a bag as the node would, and write the results as a bag.

A run that ended early is continued: `OUT.unfinished` has its results, and the directory OUT
appears when it is complete. Frames are always put together in the same batches, so the results
are those of one run. Knows no command line.
"""

from __future__ import annotations

import itertools
import math
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
from kosmos_ros.images.decode import decode_compressed, decode_message
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import Source, record_of
from kosmos_ros.memory.recorder import thumbnail_of
from kosmos_ros.memory.records import Observation
from kosmos_ros.offline import batches
from kosmos_ros.offline.bags import selection, writing
from kosmos_ros.offline.bags.messages import COMPRESSED, OUTPUTS, DescribedImage, Types
from kosmos_ros.offline.bags.reading import Bag, Message, Unreadable
from kosmos_ros.offline.bags.selection import Every
from kosmos_ros.offline.bags.unfinished import DATABASE, Row, Unfinished
from kosmos_ros.offline.batches import MAX_BATCH, Described, Failure, Picture
from kosmos_ros.sanitize import one_line, quoted
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, TASK, Plan

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

Results = tuple[list[Row], list[Observation]]
"""What is kept of a frame: its messages, and its observation if there is a log."""
LATEST = 2**63 - 1
"""Latest time in nanoseconds that a bag can have."""
PREFIX = "/kosmos"
"""Name of the node whose topics the results have."""
MAX_THREADS = 4
"""Most threads that decode frames and draw results while the model works, as in
serving/decoding.py. One core is left to the model, which would wait for them otherwise."""
LOOK_AHEAD = 2 * MAX_BATCH
"""Most frames that are read before the model needs them: those of the next batch, and as many more
while the slowest of them is decoded."""
LOOK_AHEAD_BYTES = 64 << 20
"""Messages of more bytes together are not read ahead, whatever their number."""


@dataclass(frozen=True)
class Job:
    """What `kosmos bag` does."""

    bag: Path
    out: Path
    settings: CameraSettings  # task, phrases, questions, min_score, grounded, max_new_tokens
    model: str
    max_image_pixels: int
    topics: tuple[str, ...] = ()  # image topics; empty: all
    every: str = "1"  # see selection.Every
    start: float = 0.0  # s after the beginning of the bag
    end: float = math.inf  # s after the beginning of the bag
    copy: bool = False  # write the original messages, too
    log: Path | None = None  # observation log to which the frames are added
    model_settings: Mapping[str, Any] = field(default_factory=dict)  # observed.MODEL_SETTINGS


class Run:
    """A job with its bag. Raises ConfigError, RequestError or ImageError if it cannot begin."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.types = Types()
        self.plan = Plan(job.settings, self._parts(job.settings))
        self.plan.prompts  # noqa: B018  # raises ConfigError
        self.bag = Bag(job.bag)
        self.topics = selection.image_topics(self.bag.topics, job.topics)
        self.cameras = selection.cameras(self.topics)
        self.lost: list[Failure] = []  # what `write` could not copy
        Every.parse(job.every)
        self.first, self.last = self._window(job.start, job.end)
        if not job.out.name:
            raise ConfigError(f"output must be the name of a new directory, got {job.out}")
        if job.log:  # an error after hours of work would be late
            ObservationLog.open(job.log).close()

    def _window(self, start: float, end: float) -> tuple[int, int]:
        """Return the record times (ns) between which messages are read. Raises ConfigError.

        Without limits these are all times, because metadata.yaml may be wrong.
        """
        if not 0 <= start < end:
            raise ConfigError(
                f"--start must be at least 0 and before --end, got {start:g} and {end:g}"
            )
        duration = (self.bag.end - self.bag.start) * 1e-9
        if start and start >= duration:
            raise ConfigError(
                f"--start must be less than the duration of the bag, {duration:.3f} s, "
                f"got {start:g}"
            )
        first = self.bag.start + round(start * 1e9) if start else 0
        last = self.bag.start + round(end * 1e9) if end < math.inf else LATEST
        return first, last

    @staticmethod
    def _parts(settings: CameraSettings) -> frozenset[str]:
        """Return the parts of the plan, as if somebody subscribed to all topics of the node."""
        return frozenset({TASK, *(each.name for each in STANDING if each.subjects(settings))})

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Type of each topic of the results."""
        return {
            self._topic(camera, output.topic): output.type
            for camera in self.cameras.values()
            for output in OUTPUTS
            if output.parts.intersection(self.plan.parts)
        }

    @property
    def not_copied(self) -> list[str]:
        """Original topics whose names the results need."""
        return sorted(self.outputs.keys() & self.bag.topics.keys()) if self.job.copy else []

    @property
    def expected(self) -> int:
        """About the number of frames that will be described."""
        every, whole = Every.parse(self.job.every), self.bag.end - self.bag.start
        read = min(self.last, self.bag.end) - max(self.first, self.bag.start)
        share = read / whole if whole else 1.0
        return sum(every.expected(self.bag.counts[topic], whole, share) for topic in self.topics)

    @cached_property
    def partial(self) -> Path:
        """The folder of an unfinished run."""
        return self.job.out.with_name(f"{self.job.out.name}.unfinished")

    def open(self, model: dict[str, Any]) -> Unfinished:
        """Return the results so far. Raises ConfigError if the output has others.

        `model` has the options of the model, which must be the same in all runs.
        """
        if self.job.out.exists() and not (self.partial / DATABASE).exists():
            raise ConfigError(f"output {self.job.out} exists; choose another name, or remove it")
        values = {
            **model,
            "bag": str(self.job.bag.resolve()),
            "size of the bag": self.bag.size,
            "topics": self.topics,
            "every": self.job.every,
            "start": self.first,
            "end": self.last,
            "copy": self.job.copy,
            "prompts": [prompt.text for prompt in self.plan.prompts],
            "task": self.job.settings.task,
            "min_score": self.job.settings.min_score,
            "max_new_tokens": self.job.settings.max_new_tokens,
            "max_image_pixels": self.job.max_image_pixels,
            "log": self.job.log and str(self.job.log.resolve()),
        }
        results = Unfinished(self.partial, values)
        if self.job.out.exists() and not results.written:
            results.__exit__()
            raise ConfigError(
                f"output {self.job.out} exists, although its run has not ended; remove it"
            )
        return results

    def describe(
        self, results: Unfinished, engine: Callable[[], Engine]
    ) -> Iterator[Message | Failure]:
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
        with ThreadPoolExecutor(threads, "bag") as pool:
            try:
                yield from self._describe(results, checked, pool)
            finally:
                pool.shutdown(cancel_futures=True)

    def _describe(
        self, results: Unfinished, engine: Callable[[], Engine], pool: ThreadPoolExecutor
    ) -> Iterator[Message | Failure]:
        frames = itertools.islice(self._frames(), results.position, None)
        waiting: list[Future[Results] | Failure] = []
        before: list[Message | Failure] = []
        for group in batches.groups(self._decoded(frames, pool), self.job.max_image_pixels):
            found = list(batches.describe(group, engine, self.job.settings.max_new_tokens))
            # The results of a batch are made while the model describes the next one.
            yield from _stored(results, before, waiting)
            before = [_origin(each) for each in found]
            waiting = [
                each if isinstance(each, Failure) else pool.submit(self._results, each)
                for each in found
            ]
        yield from _stored(results, before, waiting)

    def _frames(self) -> Iterator[Message | Unreadable]:
        """Yield the messages of the chosen frames, and what cannot be read."""
        every = Every.parse(self.job.every)
        for each in self.bag.messages(self.topics, self.first, self.last):
            if isinstance(each, Unreadable) or every.takes(each.topic, each.time):
                yield each

    def _decoded(
        self, frames: Iterator[Message | Unreadable], pool: ThreadPoolExecutor
    ) -> Iterator[Picture | Failure]:
        """Yield the frames in their order; other threads decode the next ones in advance."""
        ahead: deque[tuple[int, Future[Picture | Failure] | Failure]] = deque()
        for frame in frames:
            if isinstance(frame, Unreadable):
                ahead.append((0, Failure(frame.name, frame.error)))
            else:
                ahead.append((len(frame.data), pool.submit(self._decode, frame)))
            while len(ahead) > LOOK_AHEAD or sum(size for size, _ in ahead) > LOOK_AHEAD_BYTES:
                yield _result(ahead.popleft()[1])
        while ahead:
            yield _result(ahead.popleft()[1])

    def _decode(self, frame: Message) -> Picture | Failure:
        try:
            message = _deserialized(self.types, frame)
            decoded = _pixels(message, frame.type == COMPRESSED, self.job.max_image_pixels)
        except KosmosError as exc:
            return Failure(frame.name, exc)
        except MemoryError:
            return Failure(frame.name, ImageError("memory is too short to decode the image"))
        return Picture(frame.name, decoded, self.plan.prompts, (frame, message.header))

    def _results(self, described: Described) -> Results:
        """Return what is kept of a described frame; its messages are in the order of OUTPUTS."""
        picture, captions = described
        frame, header = picture.source
        camera = self.cameras[frame.topic]
        image = DescribedImage(
            camera, header, picture.image, self.plan.read(captions), self.job.model
        )
        rows = [
            Row(self._topic(camera, output.topic), frame.time, self.types.data(message))
            for output in OUTPUTS
            if output.parts.intersection(self.plan.parts)
            for message in output.make(self.types, image)
        ]
        return rows, [self._observation(image)] if self.job.log else []

    def _observation(self, image: DescribedImage) -> Observation:
        stamp = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
        source = Source(stamp, image.camera, image.header.frame_id, *image.size)
        job = self.job
        record = record_of(source, image.result, job.settings, job.model, job.model_settings)
        return replace(record, thumbnail=thumbnail_of(image.image))

    def write(self, results: Unfinished) -> Iterator[None]:
        """Write the bag and remove the unfinished results. Yields after each message."""
        if not results.written:
            # The name of the directory is part of the name of the file in it.
            path = self.partial / self.job.out.name
            shutil.rmtree(path, ignore_errors=True)
            yield from writing.write(
                path, self.outputs, results.rows(), self._copied(), self.types
            )
            if self.job.out.exists():
                raise ConfigError(f"output {self.job.out} was made meanwhile; remove it")
            results.finish()
        if not self.job.out.exists():
            (self.partial / self.job.out.name).rename(self.job.out)

    def add_to_log(self, results: Unfinished) -> None:
        """Add the frames to the observation log. Raises ConfigError and LogError.

        Frames that the log has from an earlier attempt are left out.
        """
        if self.job.log:
            with ObservationLog.open(self.job.log) as log:
                # Found before the first one is added: frames of a bag whose stamps are 0 may be
                # equal, and none of them is from an earlier attempt.
                known = [log.has(each) for each in results.observations()]
                found = zip(results.observations(), known, strict=True)
                log.add(each for each, has in found if not has)

    def _copied(self) -> Iterable[Message]:
        if not self.job.copy:
            return
        topics = self.bag.topics.keys() - set(self.not_copied)
        for each in self.bag.messages(topics, self.first, self.last):
            if isinstance(each, Message):
                yield each
            else:
                self.lost.append(Failure(each.name, each.error))

    def clean(self) -> None:
        """Remove the unfinished results after `write`; at last the file that says so."""
        for file in self.partial.iterdir():
            if file.name != DATABASE:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        (self.partial / DATABASE).unlink()
        self.partial.rmdir()

    @staticmethod
    def _topic(camera: str, topic: str) -> str:
        return f"{PREFIX}/{camera}/{topic}" if camera else f"{PREFIX}/{topic}"


def _origin(found: Described | Failure) -> Message | Failure:
    if isinstance(found, Failure):
        return found
    frame: Message = found[0].source[0]
    return frame


def _stored(
    results: Unfinished,
    frames: Sequence[Message | Failure],
    waiting: Sequence[Future[Results] | Failure],
) -> list[Message | Failure]:
    """Store the results of one batch and return its frames."""
    if frames:
        made = [each.result() for each in waiting if isinstance(each, Future)]
        rows = [row for own, _ in made for row in own]
        observations = [each for _, own in made for each in own]
        failures = sum(isinstance(each, Failure) for each in frames)
        results.add(rows, observations, len(frames), len(frames) - failures, failures)
    return list(frames)


def _result(found: Future[Picture | Failure] | Failure) -> Picture | Failure:
    return found if isinstance(found, Failure) else found.result()


def _deserialized(types: Types, frame: Message) -> Any:
    """Return an image message. Raises ImageError if its bytes are not one."""
    if (format := frame.connection.ext.serialization_format) != "cdr":
        raise ImageError(f"its serialization format must be cdr, got {quoted(format)}")
    try:
        return types.store.deserialize_cdr(frame.data, frame.type)
    except Exception as exc:  # rosbags raises any error for broken bytes
        reason = one_line(exc, 200)
        raise ImageError(f"its bytes are not a message of type {frame.type}: {reason}") from exc


def _pixels(message: Any, compressed: bool, max_pixels: int) -> np.ndarray:
    """Return the image of a message as the node decodes it."""
    if compressed:
        return decode_compressed(message.data, message.format, max_pixels)
    return decode_message(message, max_pixels)
