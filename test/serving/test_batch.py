# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The policy of the batch, without a thread and without an engine."""

import sys

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kosmos_ros.errors import CancelledError, GenerationError, OutOfMemoryError
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.serving.batch import RESERVED, Batch, Intake
from kosmos_ros.serving.memory_backoff import LEVELS, QUIET, MemoryBackoff
from kosmos_ros.serving.work import Job, Observation, Work

IMAGE = np.zeros((2, 3, 3), np.uint8)
BAD = GenerationError("bad")
SHORT = OutOfMemoryError("memory is short")


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self):
        return self.now


def batch(max_rows, level=0, stopping=lambda: False):
    """Return an empty batch at a level of the memory back-off."""
    made = Batch(stopping, lambda call, urgent: call())
    made.max_rows = max_rows
    made.backoff = MemoryBackoff(Clock())
    for _ in range(level):
        made.backoff.reduce()
    return made


def job(name, prompts=1, urgent=True, tokens=100, most=sys.maxsize):
    """Return an encoded job with the prompts "name 0", "name 1" …"""
    work = Work(lambda *_: (), print, print, tokens, urgent=urgent, image=name)
    asked = tuple(Prompt("prompt", f"{name} {number}", "") for number in range(prompts))
    return Job(work, name, Observation("", None, IMAGE, asked, 0), most, encoded=f"<{name}>")


def request(name="request", prompts=1, **options):
    return job(name, prompts, urgent=True, **options)


def frame(name="frame", prompts=1, **options):
    return job(name, prompts, urgent=False, **options)


def begin(made, *jobs):
    """Admit jobs and take a step; return the texts of the prompts that begin."""
    made.admit(jobs)
    return [query.prompt for query in made.step()]


def running(made):
    return [query.prompt for query in made.running]


def waiting(made):
    return [job.observation.prompts[number].text for job, number in made.waiting]


def finish(made, *texts):
    """End the queries of these prompts with answers that repeat them."""
    ended = [query for query in made.running if query.prompt in texts]
    assert len(ended) == len(texts)
    return made.finish([(query, answer(query.prompt)) for query in ended])


def answer(text):
    return Generation(text, (), 1.0, 1, False)


def names(jobs):
    return [job.source for job in jobs]


def retrying(made):
    """Return the name of each job to try again and its number of prompts at a time."""
    return [(job.source, job.most) for job in made.retrying]


def fail(made, error, *jobs, encoding=False):
    """Fail jobs; return the names of those that are given up."""
    return names(made.retry(error, jobs, encoding))


# How much new work fits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_rows", "most", "frames"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (8, 8, 7), (256, 256, 255)]
)
def test_an_empty_batch_waits_for_work_and_frames_leave_one_row_of_several(max_rows, most, frames):
    made = batch(max_rows)
    assert made.idle
    assert made.prepare() == Intake(most, frames, wait=True)
    assert made.next_retry() is None
    assert made.step() == []


def test_a_new_batch_has_one_row_and_the_highest_level():
    made = Batch(lambda: False, lambda call, urgent: call())
    assert made.prepare() == Intake(1, 1, wait=True)
    assert made.backoff.batch(8) == 8


@pytest.mark.parametrize(("level", "rows"), [(0, 8), (1, 4), (2, 1), (3, 1)])
def test_each_level_of_the_backoff_allows_fewer_rows(level, rows):
    made = batch(8, level)
    frames = max(1, rows - RESERVED)
    assert made.prepare() == Intake(rows, frames, wait=True)
    assert len(begin(made, frame(prompts=9))) == frames
    assert len(begin(made, request(prompts=9))) == rows - frames


@pytest.mark.parametrize("level", range(len(LEVELS)))
@pytest.mark.parametrize("tokens", [9, 100])
def test_each_level_of_the_backoff_limits_the_tokens_of_new_prompts(level, tokens):
    made = batch(8, level)
    begin(made, request(tokens=tokens))
    (query,) = made.running
    assert query.max_new_tokens == min(tokens, LEVELS[level].tokens)


def test_running_prompts_take_rows_and_work_in_progress_is_not_waited_for():
    made = batch(4)
    begin(made, request("a"))
    assert not made.idle
    assert made.prepare() == Intake(3, 2, wait=False)
    begin(made, request("b"), request("c"))
    assert made.prepare() == Intake(1, 0, wait=False)
    begin(made, request("d"))
    assert made.prepare() is None


def test_waiting_requests_take_rows_and_waiting_frames_take_the_rows_of_frames():
    made = batch(8)
    made.admit([request("a", 2), frame("b", 3)])
    assert not made.idle
    assert made.prepare() == Intake(6, 2, wait=False)
    made.admit([frame("c", 2)])
    assert made.prepare() == Intake(6, 0, wait=False)
    made.admit([frame("d", 9)])
    assert made.prepare() == Intake(6, 0, wait=False)
    made.admit([request("e", 5)])
    assert made.prepare() == Intake(1, 0, wait=False)
    made.admit([request("f")])
    assert made.prepare() is None
    made.admit([request("g", 9)])
    assert made.prepare() is None


def test_more_running_rows_than_allowed_leave_no_room():
    made = batch(8)
    begin(made, request(prompts=6))
    made.backoff.reduce()
    assert made.prepare() is None
    assert begin(made, request("late")) == []
    finish(made, "request 0", "request 1")
    assert begin(made) == []
    finish(made, "request 2")
    assert begin(made) == ["late 0"]


def test_max_rows_may_change_between_two_steps():
    made = batch(1)
    assert begin(made, request(prompts=4)) == ["request 0"]
    made.max_rows = 3
    assert begin(made) == ["request 1", "request 2"]
    made.max_rows = 1
    finish(made, "request 0", "request 1")
    assert begin(made) == []


# Which prompts begin -----------------------------------------------------------------------------


def test_requests_begin_before_frames_and_in_the_order_of_their_arrival():
    made = batch(2)
    made.admit([frame("a"), request("b", 2)])
    made.admit([request("c")])
    assert waiting(made) == ["b 0", "b 1", "c 0", "a 0"]
    assert begin(made) == ["b 0", "b 1"]
    finish(made, "b 0")
    assert begin(made) == ["c 0"]
    finish(made, "b 1", "c 0")
    assert begin(made) == ["a 0"]
    assert running(made) == ["a 0"]


def test_a_frame_takes_the_only_row():
    made = batch(1)
    assert begin(made, frame(prompts=2)) == ["frame 0"]
    assert begin(made, request()) == []
    assert waiting(made) == ["request 0", "frame 1"]


@pytest.mark.parametrize("max_rows", [2, 3, 4])
def test_frames_leave_one_row_that_a_request_takes_at_once(max_rows):
    made = batch(max_rows)
    begun = begin(made, frame(prompts=9))
    assert len(begun) == max_rows - 1
    assert begin(made) == []
    assert begin(made, request()) == ["request 0"]
    finish(made, *begun)
    assert len(begin(made)) == max_rows - 2  # one row stays free beside the request


def test_frames_leave_a_row_beside_requests_that_begin_with_them():
    made = batch(4)
    assert begin(made, frame(prompts=9), request()) == ["request 0", "frame 0", "frame 1"]


def test_requests_may_take_all_rows_and_no_more():
    made = batch(3)
    assert begin(made, request(prompts=4), frame()) == ["request 0", "request 1", "request 2"]
    assert waiting(made) == ["request 3", "frame 0"]


def test_a_query_has_what_the_engine_needs():
    stopping = []
    made = batch(8, stopping=lambda: bool(stopping))
    one = request("one", 2, tokens=7)
    made.admit([one])
    query, other = made.step()
    assert (query.image, query.prompt, query.max_new_tokens) == ("<one>", "one 0", 7)
    assert other.prompt == "one 1"
    assert not query.stopped()
    stopping.append(True)
    assert query.stopped()


# Which jobs are complete -------------------------------------------------------------------------


def test_a_job_is_complete_with_its_last_answer():
    made = batch(8)
    one, two = request("one", 3), request("two")
    begin(made, one, two)
    assert finish(made, "one 2", "one 0") == []
    assert finish(made, "two 0", "one 1") == [one, two]
    assert {number: said.text for number, said in one.answers.items()} == {
        0: "one 0",
        1: "one 1",
        2: "one 2",
    }
    assert made.idle


def test_an_error_in_place_of_an_answer_completes_a_job_too():
    made = batch(8)
    one = request("one")
    made.admit([one])
    (query,) = made.step()
    stopped = CancelledError("stopped")
    assert made.finish([(query, stopped)]) == [one]
    assert one.answers == {0: stopped}


def test_jobs_lists_each_running_and_waiting_job_once():
    made = batch(2)
    begin(made, request("a", 3), request("b", 2), frame("c"))
    assert names(made.jobs) == ["a", "b", "c"]
    finish(made, "a 0", "a 1")
    begin(made)
    finish(made, "a 2")
    assert names(made.jobs) == ["b", "c"]
    assert not made.idle


# Which jobs are tried again ----------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [False, True])
def test_jobs_that_fail_together_are_tried_alone_requests_first(encoding):
    made = batch(8)
    jobs = [frame("a", 2), request("b", most=3), frame("c"), request("d")]
    assert fail(made, BAD, *jobs, encoding=encoding) == []
    free = sys.maxsize
    assert retrying(made) == [("b", 3), ("d", free), ("a", free), ("c", free)]
    assert made.backoff.batch(8) == 8
    assert [made.next_retry().source for _ in jobs] == ["b", "d", "a", "c"]
    assert made.next_retry() is None


def test_jobs_that_fail_later_are_tried_after_those_of_their_kind():
    made = batch(8)
    fail(made, BAD, frame("a"), request("b"))
    fail(made, BAD, frame("c"), request("d"))
    assert names(made.retrying) == ["b", "d", "a", "c"]


def test_a_job_tried_again_has_no_answers_yet():
    made = batch(2)
    one = request("one", 2)
    begin(made, one)
    finish(made, "one 0")
    fail(made, BAD, one)
    (again,) = made.retrying
    assert again is not one
    assert (again.work, again.source, again.observation) == (one.work, "one", one.observation)
    assert again.answers == {}


@pytest.mark.parametrize(
    ("max_rows", "prompts", "most", "half"),
    [
        (8, 1, sys.maxsize, None),
        (8, 2, sys.maxsize, 1),
        (8, 3, sys.maxsize, 1),
        (8, 4, sys.maxsize, 2),
        (8, 9, sys.maxsize, 4),
        (3, 9, sys.maxsize, 1),
        (1, 9, sys.maxsize, None),
        (8, 9, 1, None),
        (8, 9, 2, 1),
        (8, 9, 3, 1),
        (8, 9, 4, 2),
    ],
)
def test_a_job_that_fails_alone_is_tried_with_half_as_many_prompts(max_rows, prompts, most, half):
    made = batch(max_rows)
    given_up = fail(made, BAD, request("one", prompts, most=most))
    assert given_up == ([] if half else ["one"])
    assert retrying(made) == ([("one", half)] if half else [])
    assert made.backoff.batch(8) == 8


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_job_tried_alone_takes_as_many_rows_as_it_may_have(most):
    made = batch(4)
    fail(made, BAD, frame("one", 8, most=2 * most))
    assert retrying(made) == [("one", min(most, 2))]
    made.retrying[0].most = most
    alone = made.next_retry()
    assert len(begin(made, alone)) == most
    finish(made, "one 0")
    assert begin(made) == [f"one {most}"]
    assert len(made.running) == most


def test_a_frame_tried_alone_leaves_no_row_to_requests():
    made = batch(3)
    fail(made, BAD, frame("a", 8), frame("b"))
    assert len(begin(made, made.next_retry())) == 3
    assert made.prepare() is None


def test_short_memory_lowers_the_level_and_then_halves_the_rows():
    made = batch(8)
    assert fail(made, SHORT, request("one", 9)) == []
    assert made.backoff.batch(8) == 4
    assert retrying(made) == [("one", 2)]


def test_one_prompt_is_tried_at_each_level_and_then_given_up():
    made = batch(8)
    one = request("one")
    for level in (1, 2, 3):
        assert fail(made, SHORT, one) == []
        assert retrying(made) == [("one", 1)]
        assert made.backoff.tokens(100) == min(100, LEVELS[level].tokens)
        one = made.next_retry()
    assert fail(made, SHORT, one) == ["one"]
    assert made.retrying == []


def test_short_memory_of_several_jobs_lowers_the_level_once():
    made = batch(8)
    assert fail(made, SHORT, request("a", 5), frame("b", 3, most=2)) == []
    assert retrying(made) == [("a", sys.maxsize), ("b", 2)]
    assert made.backoff.batch(8) == 4


def test_several_jobs_are_tried_alone_even_at_the_lowest_level():
    made = batch(8, level=3)
    assert fail(made, SHORT, request("a"), request("b")) == []
    assert names(made.retrying) == ["a", "b"]


@pytest.mark.parametrize("prompts", [1, 8])
def test_an_image_that_fails_to_encode_cannot_be_split(prompts):
    made = batch(8)
    assert fail(made, BAD, request("one", prompts), encoding=True) == ["one"]
    assert made.retrying == []


def test_an_image_that_fails_to_encode_for_short_memory_has_one_more_try():
    made = batch(8)
    begin(made, request("running"))
    assert fail(made, SHORT, frame("one", 8, most=5), encoding=True) == []
    assert retrying(made) == [("one", 5)]
    assert made.backoff.batch(8) == 8  # fewer rows do not help an image
    finish(made, "running 0")
    alone = made.next_retry()
    assert fail(made, SHORT, alone, encoding=True) == ["one"]
    assert made.backoff.batch(8) == 8
    assert made.retrying == []


def test_images_that_fail_to_encode_together_for_short_memory_lower_the_level():
    made = batch(8)
    assert fail(made, SHORT, request("a"), request("b"), encoding=True) == []
    assert names(made.retrying) == ["a", "b"]
    assert made.backoff.batch(8) == 4


def test_an_image_that_fails_to_encode_leaves_other_prompts_alone():
    made = batch(2)
    begin(made, request("a", 3))
    made.admit([frame("b")])
    fail(made, BAD, request("c"), encoding=True)
    assert running(made) == ["a 0", "a 1"]
    assert waiting(made) == ["a 2", "b 0"]


def test_a_failed_job_leaves_its_rows_and_its_place_among_the_waiting():
    made = batch(2)
    one, two = request("one", 3), request("two", 2)
    begin(made, one, two)
    fail(made, BAD, one)
    assert running(made) == []
    assert waiting(made) == ["two 0", "two 1"]


# What comes between ------------------------------------------------------------------------------


def test_nothing_new_is_taken_while_jobs_to_try_again_wait_for_others_to_end():
    made = batch(8)
    begin(made, request("running"))
    fail(made, BAD, frame("a"), frame("b"))
    assert made.prepare() is None
    assert made.next_retry() is None
    finish(made, "running 0")
    assert made.prepare() == Intake(8, 0, wait=False)  # requests go before frames tried again
    assert made.next_retry().source == "a"


def test_a_waiting_prompt_is_work_in_progress_too():
    made = batch(8)
    made.admit([frame("waiting")])
    fail(made, BAD, frame("a"), frame("b"))
    assert made.prepare() is None
    assert made.next_retry() is None


def test_a_request_is_tried_again_before_new_requests():
    made = batch(8)
    fail(made, BAD, request("a"), frame("b"))
    assert made.prepare() is None
    begin(made, made.next_retry())
    finish(made, "a 0")
    assert made.prepare() == Intake(8, 0, wait=False)


def test_a_job_tried_again_is_alone_until_it_ends():
    made = batch(8)
    fail(made, BAD, frame("a", 3), frame("b"))
    begin(made, made.next_retry())
    assert made.prepare() is None
    finish(made, "a 0", "a 1")
    assert made.prepare() is None
    assert made.next_retry() is None
    finish(made, "a 2")
    begin(made, made.next_retry())
    finish(made, "b 0")
    assert made.prepare() == Intake(8, 7, wait=True)
    assert len(begin(made, request(prompts=9))) == 8


def test_the_job_that_is_tried_alone_is_known_only_until_it_ends():
    """The next job has one more try of its own."""
    made = batch(8)
    fail(made, SHORT, request("a"), encoding=True)
    fail(made, SHORT, made.next_retry(), encoding=True)
    made.prepare()
    assert fail(made, SHORT, request("b"), encoding=True) == []


def test_an_abandoned_batch_names_each_job_once_and_is_empty():
    made = batch(2)
    one, two, three = request("one", 3), frame("two"), request("three")
    begin(made, one, two)
    fail(made, BAD, request("four"), request("five"))
    assert names(made.abandon([three, one])) == ["one", "two", "three", "four", "five"]
    assert made.idle
    assert (made.jobs, made.retrying) == ([], [])
    assert made.prepare() == Intake(2, 1, wait=True)


# Any order of events -----------------------------------------------------------------------------


class Turns(RuleBasedStateMachine):
    """Turns of a worker whose engine fails at random."""

    def __init__(self):
        super().__init__()
        self.batch = batch(4)
        self.clock = Clock()
        self.batch.backoff = MemoryBackoff(self.clock)
        self.requests, self.frames = [], []  # jobs that wait to be taken
        self.alone = None
        self.sent = 0
        self.ended = {}  # name: "answered" or "given up"

    @rule(prompts=st.integers(1, 5), urgent=st.booleans(), tokens=st.integers(1, 99))
    def send(self, prompts, urgent, tokens):
        (self.requests if urgent else self.frames).append(
            job(f"{self.sent}", prompts, urgent, tokens)
        )
        self.sent += 1

    @rule(rows=st.integers(1, 5))
    def set_max_rows(self, rows):
        self.batch.max_rows = rows

    @rule(seconds=st.sampled_from([1.0, QUIET, 3 * QUIET]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(
        encoding=st.sampled_from([None, None, BAD, SHORT]),
        stepping=st.sampled_from([None, None, BAD, SHORT]),
        data=st.data(),
    )
    def turn(self, encoding, stepping, data):
        self.play(encoding, stepping, lambda queries: data.draw(st.sets(st.sampled_from(queries))))

    @precondition(lambda self: self.sent > len(self.ended))
    @rule(error=st.sampled_from([BAD, SHORT]), encoding=st.booleans())
    def fail_until_all_are_given_up(self, error, encoding):
        self.drain(error if encoding else None, error, lambda queries: ())

    def teardown(self):
        self.drain(None, None, lambda queries: queries)
        assert sorted(self.ended) == sorted(map(str, range(self.sent)))

    def drain(self, encoding, stepping, choose):
        for _ in range(20 * (self.sent + 1)):
            if self.batch.idle and not (self.batch.retrying or self.requests or self.frames):
                return
            self.play(encoding, stepping, choose)
        raise AssertionError("a job neither ends nor fails")

    def play(self, encoding, stepping, choose):
        """Take one turn as the worker does, in which the queries end that `choose` returns."""
        jobs = self.take()
        if not jobs and (again := self.batch.next_retry()):
            assert again.work.urgent or not any(job.work.urgent for job in self.batch.retrying)
            self.alone, jobs = again, [again]
        if jobs and encoding:
            self.give_up(self.batch.retry(encoding, jobs, encoding=True))
        else:
            self.batch.admit(jobs)
        self.begin()
        if not self.batch.running:
            return
        if stepping:
            self.give_up(self.batch.retry(stepping, self.batch.jobs))
            return
        queries = list(self.batch.running)
        ended = [(query, answer(query.prompt)) for query in choose(queries)]
        for complete in self.batch.finish(ended):
            said = [complete.answers[n].text for n in range(len(complete.observation.prompts))]
            assert said == [prompt.text for prompt in complete.observation.prompts]
            self.end(complete, "answered")

    def take(self):
        if self.batch.idle:
            self.alone = None
        intake = self.batch.prepare()
        if intake is None:
            assert self.batch.retrying or self.alone or not self.batch.idle
            return []
        assert intake.wait == (self.batch.idle and not self.batch.retrying)
        assert 0 <= intake.frames <= intake.most
        assert 0 < intake.most <= self.rows()
        jobs, self.requests = self.requests[: intake.most], self.requests[intake.most :]
        left = min(intake.most - len(jobs), intake.frames)
        jobs += self.frames[:left]
        self.frames = self.frames[left:]
        return jobs

    def begin(self):
        waited = [job.work.urgent for job, _ in self.batch.waiting]
        begun = [self.batch.running[query][0].work.urgent for query in self.batch.step()]
        assert begun == waited[: len(begun)]
        assert not begun or len(self.batch.running) <= self.rows()
        if False in begun:
            assert not any(job.work.urgent for job, _ in self.batch.waiting)
            if self.rows() > RESERVED and not self.alone:
                assert len(self.batch.running) <= self.rows() - RESERVED
        if self.alone:
            assert all(job is self.alone for job, _ in self.batch.running.values())
            assert len(self.batch.running) <= self.alone.most

    def rows(self):
        return self.batch.backoff.batch(self.batch.max_rows)

    def give_up(self, jobs):
        for job in jobs:
            self.end(job, "given up")

    def end(self, job, how):
        assert job.source not in self.ended
        self.ended[job.source] = how

    @invariant()
    def every_prompt_is_in_one_place(self):
        jobs = self.batch.jobs
        places = [(id(job), number) for job, number in self.batch.running.values()]
        places += [(id(job), number) for job, number in self.batch.waiting]
        places += [(id(job), number) for job in jobs for number in job.answers]
        asked = [(id(job), n) for job in jobs for n in range(len(job.observation.prompts))]
        assert sorted(places) == sorted(asked)
        known = names([*jobs, *self.batch.retrying, *self.requests, *self.frames])
        assert sorted([*known, *self.ended]) == sorted(map(str, range(self.sent)))


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=150, stateful_step_count=40)
