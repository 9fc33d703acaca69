# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The work on one image: its prompts, its progress in the model, and its result.

Knows no ROS, no model and no thread, and never reads messages.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kosmos_ros.errors import CancelledError, KosmosError
from kosmos_ros.kosmos2.grounding import Caption, read
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Earlier, Generation, Query

NOTHING = Generation("", (), 0.0, 0, False)  # the text of a prompt before its first token

Stamp = tuple[int, int]
"""Seconds and nanoseconds of an image message's header."""
Deliver = Callable[[Callable[[], None], bool], None]
"""Runs a call outside the model's thread. True: before the calls of frames. See delivery.py."""


@dataclass(frozen=True, eq=False)
class Observation:
    """An image and the model's captions of it."""

    camera: str  # empty for an image that came with a request
    header: Any  # of the image message
    image: np.ndarray  # (H, W, 3) uint8 RGB; (H, W, 0) if the frame is a KeptFrame
    prompts: tuple[Prompt, ...]
    frames_dropped: int  # frames of its camera, so far
    captions: tuple[Caption, ...] = ()  # one for each prompt
    inference_time: float = 0.0  # s, from the decoded image to the last token
    gain: float = 1.0  # mean of Generation.gain of the answers
    unchanged: bool = False  # the captions are those of an earlier frame with the same pixels
    source: Any = None  # the image message; None while the captions are not complete

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width, _ = self.image.shape
        return width, height


@dataclass(frozen=True, eq=False)
class Work:
    """The prompts about one image, and the functions that receive the result.

    A service makes one for each request, and a camera for each frame that it describes. `begun`,
    `progress`, `done` and `failed` run in the delivery thread. A refusal may call `failed` in any
    thread.
    """

    prompts: Callable[[int, int], Sequence[Prompt]]  # for an image of (width, height) pixels
    done: Callable[[Observation], None]
    failed: Callable[[Exception], None]
    max_new_tokens: int
    progress: Callable[[Observation], None] | None = None  # after each pass
    begun: Callable[[Observation], None] | None = None  # once, when its image is decoded
    urgent: bool = True  # belongs to a request, not to a frame
    image: Any = None  # the request's own image message; None: a camera's frame
    kept: tuple[str, Stamp] | None = None  # camera and stamp of a KeptFrame; None: another image
    cameras: tuple[str, ...] = ()  # use the newest frame of any of these
    max_age: float = 0.0  # s since the frame arrived; 0: any age
    asked: float = math.inf  # s, monotonic, when the request was made
    deadline: float = math.inf  # s, monotonic; refused if the model has not begun by then
    stopped: threading.Event = field(default_factory=threading.Event)  # no client waits any more


@dataclass(eq=False)
class Job:
    """Work with its image, while the model works on it."""

    work: Work
    source: Any  # the image message, or a KeptFrame
    observation: Observation  # without captions
    most: int = sys.maxsize  # prompts at a time; lower after too many ran together
    begun: float = field(default_factory=time.monotonic)  # s
    error: Exception | None = None  # raised by the work's `begun` or `progress`
    encoded: Any = None  # the engine's encoding of the image
    answers: dict[int, Generation | KosmosError] = field(default_factory=dict)  # by prompt
    max_new_tokens: int = sys.maxsize  # the smallest limit of its queries
    repeated: Observation | None = None  # an earlier frame with the same pixels and answers
    _partial: dict[int, Caption] = field(default_factory=dict)  # by prompt, for `progress`

    @property
    def camera(self) -> str | None:
        """The camera whose frame the image is; None: the image came with the request."""
        return self.observation.camera if self.work.image is None else None

    def follows(self, other: Job) -> bool:
        """Return whether both are frames of one camera, and `other` is the earlier one."""
        frames = not self.work.urgent and not other.work.urgent
        return frames and self.camera == other.camera and other.begun <= self.begun

    def again(self, most: int) -> Job:
        """Return the same job without answers, for `most` prompts at a time."""
        return Job(self.work, self.source, self.observation, most, self.begun)

    def query(
        self,
        number: int,
        max_new_tokens: int,
        stopping: Callable[[], bool],
        deliver: Deliver,
        earlier: Earlier | None = None,
    ) -> Query:
        """Return the query of prompt `number`. It ends early once `stopping()` is true."""
        prompt = self.observation.prompts[number]
        self.max_new_tokens = min(self.max_new_tokens, max_new_tokens)

        def report(generation: Generation) -> None:
            deliver(functools.partial(self._report, number, generation, time.monotonic()), True)

        return Query(
            self.encoded,
            prompt.text,
            max_new_tokens,
            lambda: stopping() or self.error is not None or self.work.stopped.is_set(),
            report if self.work.progress else None,
            prompt.stop,
            earlier,
        )

    def announce(self) -> None:
        """Pass the observation without captions to `begun`."""
        if self.work.begun and not self.work.stopped.is_set():
            try:
                self.work.begun(self.observation)
            except Exception as exc:  # an error of one recipient must not reach the others
                self.error = exc

    def deliver(self, ended: float) -> None:
        """Pass the captions of all prompts to the recipient, or the error of one of them.

        `ended` is when the model wrote the last token, in seconds of the monotonic clock.
        """
        try:
            if self.work.stopped.is_set():
                raise CancelledError("generation was stopped")
            if self.error:
                raise self.error
            captions = [self._read(n, self.answers[n]) for n in self._numbers()]
            observed = self._observed(captions, ended)
            gain = statistics.fmean(answer.gain for answer in self._generations())
            unchanged = self.repeated is not None
            result = dataclasses.replace(observed, gain=gain, unchanged=unchanged)
            self.work.done(dataclasses.replace(result, source=self.source))
        except Exception as exc:  # an error of one recipient must not reach the others
            self.work.failed(exc)

    def _report(self, number: int, generation: Generation, now: float) -> None:
        """Pass the text so far of all prompts to `progress`; that of prompt `number` is new."""
        assert self.work.progress
        if self.error or self.work.stopped.is_set():
            return
        try:
            self._partial = self._partial or {n: self._read(n, NOTHING) for n in self._numbers()}
            self._partial[number] = self._read(number, generation)
            self.work.progress(self._observed(self._partial.values(), now))
        except Exception as exc:  # an error of one recipient must not reach the others
            self.error = exc

    def _generations(self) -> Iterator[Generation]:
        return (answer for answer in self.answers.values() if isinstance(answer, Generation))

    def _numbers(self) -> range:
        return range(len(self.observation.prompts))

    def _read(self, number: int, answer: Generation | KosmosError) -> Caption:
        """Return the caption for prompt `number`. Raises `answer` if it is an error."""
        if isinstance(answer, KosmosError):
            raise answer
        prompt = self.observation.prompts[number]
        return read(answer, prompt.text, prompt.lead)

    def _observed(self, captions: Iterable[Caption], now: float) -> Observation:
        elapsed = now - self.begun
        return dataclasses.replace(
            self.observation, captions=tuple(captions), inference_time=elapsed
        )
