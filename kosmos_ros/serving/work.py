# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is asked of a picture, what was said about it, and who is told.

Knows no ROS, no model and no thread: messages are carried, not looked at.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2.grounding import Caption, read
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Generation, never

NOTHING = Generation("", (), 0.0, 0, False)


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture and what the model said about it."""

    camera: str  # empty for a picture that came with a request
    header: Any  # the picture's own
    image: np.ndarray  # (H, W, 3) uint8 RGB
    prompts: tuple[Prompt, ...]
    frames_dropped: int  # of its camera
    captions: tuple[Caption, ...] = ()  # one for each prompt
    inference_time: float = 0.0  # s, from the decoded image to its last token

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width, _ = self.image.shape
        return width, height


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of a picture, and who is told.

    The callables run in the worker's thread, `failed` in any.
    """

    prompts: Callable[[int, int], Sequence[Prompt]]  # of a picture of (width, height) pixels
    done: Callable[[Seen], None]
    failed: Callable[[Exception], None]
    max_new_tokens: int
    image: Any = None  # the message with the picture, where no frame is meant
    stopped: Callable[[], bool] = never
    progress: Callable[[Seen], None] | None = None  # what is said so far, after each token


@dataclass(eq=False)
class Picture:
    """A task on its way through the model."""

    task: Task
    source: Any  # the message
    seen: Seen  # without captions
    urgent: bool  # somebody waits for it
    most: int = sys.maxsize  # prompts at a time, where all of them were too much
    begun: float = field(default_factory=time.monotonic)  # s
    error: Exception | None = None  # of who is told of its progress
    encoded: Any = None  # as the engine gives it
    answers: dict[int, Generation | KosmosError] = field(default_factory=dict)  # by prompt
    so_far: dict[int, Caption] = field(default_factory=dict)  # by prompt, where it is told

    def again(self, most: int) -> Picture:
        """The same before anything was done, for so many prompts at a time."""
        return Picture(self.task, self.source, self.seen, self.urgent, most)

    def report(self, number: int, generation: Generation) -> None:
        """Tell what is said so far to prompt `number`, and to the others."""
        assert self.task.progress
        try:
            self.so_far = self.so_far or {n: self._read(n, NOTHING) for n in self._numbers()}
            self.so_far[number] = self._read(number, generation)
            self.task.progress(self._said(self.so_far.values()))
        except Exception as exc:  # one picture's trouble is not the others'
            self.error = exc

    def deliver(self) -> None:
        """Tell what was said to all prompts, or why there is no answer to one."""
        try:
            if self.error:
                raise self.error
            self.task.done(self._said([self._read(n, self.answers[n]) for n in self._numbers()]))
        except Exception as exc:  # one picture's trouble is not the others'
            self.task.failed(exc)

    def _numbers(self) -> range:
        return range(len(self.seen.prompts))

    def _read(self, number: int, answer: Generation | KosmosError) -> Caption:
        """What prompt `number` was answered; raises the error that stands in its place."""
        if isinstance(answer, KosmosError):
            raise answer
        prompt = self.seen.prompts[number]
        return read(answer, prompt.text, prompt.lead)

    def _said(self, captions: Iterable[Caption]) -> Seen:
        taken = time.monotonic() - self.begun
        return dataclasses.replace(self.seen, captions=tuple(captions), inference_time=taken)
