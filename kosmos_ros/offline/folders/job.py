# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe the images of a folder or the frames of a video, and write the results as one file.

Knows no command line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kosmos_ros.errors import ConfigError
from kosmos_ros.images.decode import load
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.memory.records import Event
from kosmos_ros.offline import run
from kosmos_ros.offline.batches import Failure
from kosmos_ros.offline.folders import coco, events
from kosmos_ros.offline.folders.reading import Origin, Video, open_reading
from kosmos_ros.offline.run import Frame, Maker, Results
from kosmos_ros.offline.unfinished import Row, Unfinished
from kosmos_ros.offline.values import value_of
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving.plan import STANDING, FrameResult

LINES, COCO = ".jsonl", ".json"
"""Ends of the names of outputs."""


@dataclass(frozen=True, kw_only=True)
class Job(run.Job):
    """What `kosmos images` does."""

    source: Path  # a folder, an image or a video
    start: float = 0.0  # s after the beginning of the video
    end: float = math.inf  # s after the beginning of the video

    def fixed(self) -> dict[str, Any]:
        end = self.end if self.end < math.inf else None  # JSON has no infinity
        return {**super().fixed(), "start": self.start, "end": end}


class ImageMaker(Maker):
    """Make the results of an image file, or of a frame of a video."""

    def decode(self, stored: Origin) -> tuple[np.ndarray, Origin]:
        return load(stored.path, self.job.max_image_pixels), stored

    def results(self, source: Origin, image: np.ndarray, captions: Sequence[Caption]) -> Results:
        """Return one row for each result, which is a JSON object, and the observation."""
        result = self.plan.read(captions)
        time = {} if source.time is None else {"time": source.time}
        name = json.dumps(source.name)  # SQLite stores no text that is not UTF-8
        rows = []
        for prompt, caption, more in self._found(result):
            value = value_of(source.path, image, prompt, caption, self.job.model)
            line = json.dumps(value | more | time, allow_nan=False)
            rows.append(Row(name, source.stamp, line.encode()))
        seen = self.observations(source.stamp, source.camera, source.name, image, result)
        return rows, seen

    def _found(self, result: FrameResult) -> Iterator[tuple[Prompt, Caption, dict[str, Any]]]:
        """Yield the caption, the requested phrases and the answers, each once."""
        if self.job.settings.task not in ("phrase_grounding", "question"):
            for prompt, caption in result.task:
                yield prompt, caption, {}
        for prompt, caption in result.captions.get("phrases", ()):
            yield prompt, caption, {}
        questions = result.findings.get("questions", ())
        answers = result.captions.get("questions", ())
        for finding, (prompt, caption) in zip(questions, answers, strict=True):
            yield prompt, caption, {"question": finding.subject}


class Run(run.Run):
    """A job with its source. Raises ConfigError, RequestError or ImageError if it cannot begin."""

    job: Job

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if job.out.suffix not in (LINES, COCO):
            raise ConfigError(
                f"output must end in {LINES} (JSON lines) or {COCO} (COCO), "
                f"got {quoted(str(job.out), 300)}"
            )
        self._reading = open_reading(
            job.source, job.every, job.start, job.end, job.max_image_pixels
        )

    @property
    def expected(self) -> int:
        return self._reading.expected

    def values(self) -> dict[str, Any]:
        return {
            "source": str(self.job.source.resolve()),
            "set of files": self._reading.identity,
        }

    def frames(self, position: int) -> Iterator[Frame | Failure]:
        return self._reading.frames(position)

    def events(self, results: Unfinished) -> Iterable[Event]:
        """Return the events of a video. Images of a folder are no sequence: they have none."""
        settings = self.job.settings
        asked = any(standing.subjects(settings) for standing in STANDING)
        if not asked or not isinstance(self._reading, Video):
            return ()
        return events.events(results.rows(), self._reading.name, settings)

    def maker(self) -> ImageMaker:
        return ImageMaker(self.job)

    def written(self, path: Path, results: Unfinished) -> Iterator[None]:
        if path.suffix == COCO:
            lines = coco.lines(results.rows)
        else:
            lines = (row.data.decode() + "\n" for row in results.rows())
        with path.open("w", encoding="ascii") as file:
            for line in lines:
                file.write(line)
                yield
            file.flush()
            os.fsync(file.fileno())
