# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decide which prompts run together, which wait, and which are tried again after an error.

This is the policy of the worker. Knows no thread, no engine and no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kosmos_ros.errors import KosmosError, OutOfMemoryError
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.serving.earlier_answers import EarlierAnswers
from kosmos_ros.serving.memory_backoff import MemoryBackoff
from kosmos_ros.serving.work import Deliver, Job, Work

RESERVED = 1
"""Rows that frames leave free, so that a request begins at the next token."""


class Intake(NamedTuple):
    """The amount of new work to take."""

    most: int  # requests and frames together
    frames: int  # frames among them, at most
    wait: bool  # wait for new work, because nothing is in progress


class Batch:
    """The prompts in progress. One thread at a time may use it.

    Each prompt takes one row of the model. `waiting` prompts have an encoded image and no row yet,
    `running` ones have a row, and `retrying` jobs failed together with others and are tried again
    one at a time. Requests go before frames everywhere. Frames of one camera end in their order of
    arrival, because events are changes between consecutive frames.
    """

    def __init__(self, stopping: Callable[[], bool], deliver: Deliver) -> None:
        self.max_rows = 1  # the setting max_batch_size
        self.backoff = MemoryBackoff()
        self.waiting: list[tuple[Job, int]] = []  # job, number of its prompt
        self.running: dict[Query, tuple[Job, int]] = {}
        self.retrying: list[Job] = []
        self._complete: list[Job] = []  # frames with all answers, behind a frame without all
        self._alone: Job | None = None  # the job that is being tried again
        self._earlier = EarlierAnswers()
        self._stopping = stopping
        self._deliver = deliver

    @property
    def idle(self) -> bool:
        """Whether no prompt is running or waiting."""
        return not self.running and not self.waiting

    @property
    def jobs(self) -> list[Job]:
        """The jobs of all running and waiting prompts."""
        prompts = (*self.running.values(), *self.waiting)
        return list({id(job): job for job, _ in prompts}.values())

    @property
    def open(self) -> bool:
        """Whether new jobs may join; not while failed jobs are tried again."""
        if self._alone:
            return False
        return not self.retrying or (self.idle and not self.retrying[0].work.urgent)

    @property
    def takes_frames(self) -> bool:
        """Whether new frames may join. While failed jobs wait, a frame could overtake them."""
        return not self.retrying

    def prepare(self, arriving: Sequence[Work] = ()) -> Intake | None:
        """Return how much new work to take; None: none until some work has ended.

        `arriving` is the work that is already taken and whose images are being decoded.
        """
        if self.idle:
            self._alone = None
        urgent = self._urgent() + sum(work.urgent for work in arriving)
        room = self._room() - urgent
        if room <= 0 or not self.open:
            return None
        waiting_frames = len(self.waiting) + len(self._complete) + len(arriving) - urgent
        frames = max(0, room - self._reserved() - waiting_frames) if self.takes_frames else 0
        wait = self.idle and not self.retrying and not arriving
        return Intake(room, frames, wait)

    def next_retry(self) -> Job | None:
        """Return the job to try again alone, if the batch is empty and one is left."""
        if self.idle and self.retrying:
            self._alone = self.retrying.pop(0)
            return self._alone
        return None

    def unchanged(self, job: Job, before: Sequence[Job] = ()) -> bool:
        """Answer a frame from its camera's last described frame if the pixels are the same.

        Return whether the frame is answered. It is not while an earlier frame of its camera has no
        answer, so that no frame overtakes another. `before` are jobs that are admitted before it.
        """
        behind = any(map(job.follows, (*self.jobs, *self.retrying, *before)))
        limit = self.backoff.tokens(job.work.max_new_tokens)
        return not behind and not self._stopping() and self._earlier.repeat(job, limit)

    def admit(self, jobs: Iterable[Job]) -> None:
        """Add the prompts of encoded jobs to `waiting`."""
        for job in jobs:
            self.waiting += [(job, number) for number in range(len(job.observation.prompts))]
        self.waiting.sort(key=lambda waiting: not waiting[0].work.urgent)

    def step(self) -> list[Query]:
        """Move waiting prompts to free rows. Return their queries, which begin with this step."""
        room = self._room()
        fit = min(room, max(self._urgent(), room - self._reserved()))
        begun, self.waiting = self.waiting[:fit], self.waiting[fit:]
        queries = {self._query(job, number): (job, number) for job, number in begun}
        self.running |= queries
        return list(queries)

    def _query(self, job: Job, number: int) -> Query:
        limit = self.backoff.tokens(job.work.max_new_tokens)
        # A job that has failed is tried again without drafts.
        earlier = None if self._alone else self._earlier.draft(job, number)
        return job.query(number, limit, self._stopping, self._deliver, earlier)

    def finish(self, ended: Iterable[tuple[Query, Generation | KosmosError]]) -> list[Job]:
        """Free the rows of ended queries. Return the jobs that have all their answers, in order.

        A frame is returned after the earlier frames of its camera.
        """
        for query, answer in ended:
            job, number = self.running.pop(query)
            job.answers[number] = answer
            if isinstance(answer, Generation):
                self._earlier.keep(job, number, answer, drafted=query.earlier is not None)
            if len(job.answers) == len(job.observation.prompts):
                self._complete.append(job)
        unfinished = (*self.jobs, *self.retrying) if self._complete else ()
        finished = [job for job in self._complete if not any(map(job.follows, unfinished))]
        self._complete = [job for job in self._complete if job not in finished]
        finished.sort(key=lambda job: job.begun)
        for job in finished:
            self._earlier.keep_frame(job)
        return finished

    def retry(self, error: Exception, jobs: Sequence[Job], encoding: bool = False) -> list[Job]:
        """Plan how to try failed `jobs` again. Return those that are not tried again.

        Jobs that failed together are tried one by one. A job that failed alone is tried with half
        as many prompts at a time. After an OutOfMemoryError the back-off also goes one level
        down. An image that failed to encode (`encoding`) cannot be split: it is tried once more
        if memory was short while other images were in the model.
        """
        failed_ids = {id(job) for job in jobs}
        self.running = {q: at for q, at in self.running.items() if id(at[0]) not in failed_ids}
        self.waiting = [at for at in self.waiting if id(at[0]) not in failed_ids]
        single, short = len(jobs) == 1, isinstance(error, OutOfMemoryError)
        unsplittable = single and encoding
        reduced = short and not unsplittable and self.backoff.reduce()
        given_up = []
        for job in jobs:
            most = job.most
            if unsplittable:
                most = most if short and job is not self._alone else 0
            elif single:
                most = min(most, self._rows(), len(job.observation.prompts)) // 2
            if most or reduced:
                self.retrying.append(job.again(max(most, 1)))
            else:
                given_up.append(job)
        self.retrying.sort(key=lambda job: not job.work.urgent)
        return given_up

    def abandon(self, jobs: Sequence[Job]) -> list[Job]:
        """Remove all jobs. Return every job of the batch and of `jobs`, each once."""
        everyone = {id(job): job for job in (*self.jobs, *jobs, *self.retrying, *self._complete)}
        self.running, self.waiting, self.retrying, self._complete = {}, [], [], []
        return list(everyone.values())

    def _rows(self) -> int:
        """The number of rows that the model may have now."""
        return self.backoff.batch(self.max_rows)

    def _room(self) -> int:
        """The number of free rows."""
        most = min(self._rows(), self._alone.most) if self._alone else self._rows()
        return max(0, most - len(self.running))

    def _urgent(self) -> int:
        """The number of waiting prompts that belong to requests."""
        return sum(job.work.urgent for job, _ in self.waiting)

    def _reserved(self) -> int:
        """The number of rows that frames must leave free."""
        return RESERVED if self._rows() > RESERVED and not self._alone else 0
