# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the newest answers about each camera, for drafts of the next ones and unchanged frames.

Knows no ROS, no thread and no engine. One thread at a time may use it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2.query import Earlier, Generation
from kosmos_ros.serving.work import Job, Observation

MAX_CAMERAS = 64
"""Cameras whose answers are kept. Each one costs the memory of a decoded image."""
MAX_PROMPTS = 64
"""Prompts of each camera whose answers are kept. Clients may ask any number of questions."""
NEWEST_WEIGHT = 0.25
"""Weight of the newest answer in the running mean of the gain. The gain depends on how fast the
scene changes, so old answers must count less."""
COMPARED_ROWS = 64
"""Rows of an image that are compared at a time, so that a changed frame is noticed early."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class _Draft:
    """The newest answer to a prompt, and the gain that drafts of such answers have had."""

    ids: tuple[int, ...] = ()  # of the answer's tokens; empty: there is none yet
    gain: float = math.inf  # running mean of Generation.gain; infinite: not measured yet

    def measure(self, gain: float) -> None:
        """Include the gain of one more draft in the mean."""
        old = gain if math.isinf(self.gain) else self.gain
        self.gain = old + NEWEST_WEIGHT * (gain - old)


class _Frame(NamedTuple):
    """A described frame."""

    observation: Observation  # without captions
    max_new_tokens: int
    answers: dict[int, Generation | KosmosError]  # by prompt


@dataclass
class _Camera:
    """The answers about one camera."""

    drafts: OrderedDict[str, _Draft] = field(default_factory=OrderedDict)  # by prompt text
    caption: _Draft = field(default_factory=_Draft)  # of the newest frame; draft of new prompts
    described: _Frame | None = None  # the newest one


class EarlierAnswers:
    """The newest answers about each camera. The least recently used ones are dropped."""

    def __init__(self) -> None:
        self._cameras: OrderedDict[str, _Camera] = OrderedDict()

    def draft(self, job: Job, number: int) -> Earlier | None:
        """Return the newest answer about the job's camera to the same prompt, number `number`.

        For a new prompt, return the camera's newest caption. Its phrases and boxes often occur in
        other answers, too. None: there is neither, or the image is no frame of a camera.
        """
        known = self._cameras.get(job.camera) if job.camera is not None else None
        if known is None:
            return None
        draft = known.drafts.get(job.observation.prompts[number].text, known.caption)
        return Earlier(draft.ids, draft.gain) if draft.ids else None

    def keep(self, job: Job, number: int, answer: Generation, drafted: bool) -> None:
        """Keep the answer to prompt `number` of a job. `drafted`: its query had a draft.

        A truncated answer is kept, too: its tokens are as likely as those of a whole one.
        """
        if job.camera is None or not answer.ids:
            return
        known = _entry(self._cameras, job.camera, _Camera(), MAX_CAMERAS)
        prompt = job.observation.prompts[number].text
        if drafted:
            known.drafts.get(prompt, known.caption).measure(answer.gain)
        _entry(known.drafts, prompt, _Draft(), MAX_PROMPTS).ids = answer.ids
        if number == 0 and not job.work.urgent:
            known.caption.ids = answer.ids

    def keep_frame(self, job: Job) -> None:
        """Keep a camera's described frame with all its answers, unless one of them is an error."""
        whole = all(isinstance(answer, Generation) for answer in job.answers.values())
        if job.camera is not None and not job.work.urgent and whole:
            known = _entry(self._cameras, job.camera, _Camera(), MAX_CAMERAS)
            known.described = _Frame(job.observation, job.max_new_tokens, job.answers)

    def repeat(self, job: Job, max_new_tokens: int) -> bool:
        """Give a frame the answers of the camera's newest described frame if the two are alike.

        Return whether they are: same pixels, same prompts and same token limit.
        """
        known = self._cameras.get(job.camera) if job.camera is not None else None
        before = known.described if known else None
        if known is None or before is None or job.work.urgent:
            return False
        seen = job.observation
        alike = (
            before.max_new_tokens == max_new_tokens
            and before.observation.prompts == seen.prompts
            and _equal(before.observation.image, seen.image)
        )
        if alike:
            job.answers, job.repeated = before.answers, before.observation
            known.described = before._replace(observation=seen)
        return alike


def _entry(entries: OrderedDict[K, V], key: K, new: V, most: int) -> V:
    """Return the entry of `key` and make it the newest. If there is none, insert `new`.

    Drops the oldest entry if there are more than `most`.
    """
    entry = entries.setdefault(key, new)
    entries.move_to_end(key)
    if len(entries) > most:
        entries.popitem(last=False)
    return entry


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two images have the same size and pixels."""
    parts = range(0, len(one), COMPARED_ROWS)
    return one.shape == other.shape and all(
        np.array_equal(one[at : at + COMPARED_ROWS], other[at : at + COMPARED_ROWS])
        for at in parts
    )
