# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A job's queries, and the recipient of its captions, its progress and its errors."""

import dataclasses
import sys
import time

import numpy as np
import pytest

from kosmos_ros.errors import CancelledError, GenerationError
from kosmos_ros.kosmos2.grounding import Box
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.serving.work import Job, Observation, Work

IMAGE = np.zeros((480, 640, 3), np.uint8)
LEAD = Prompt("prompt", "An image of", "An image of", stop=" Question:")
PLAIN = Prompt("question", "Question: What? Answer:", "")


def generation(text, truncated=False):
    return Generation(text, (), 0.5, 3, truncated)


class Recipient:
    """Work of one image, and what its recipient has received."""

    def __init__(self, *asked, progress=True, error=None):
        self.done, self.failed, self.progress = [], [], []
        self.error = error  # raised by the recipient
        self.work = Work(
            lambda *_: asked,
            self.receive(self.done),
            self.failed.append,
            99,
            self.receive(self.progress) if progress else None,
        )
        observation = Observation("front", "header", IMAGE, asked, 5)
        self.job = Job(self.work, "source", observation, encoded="encoded")
        self.posted = []  # (call, urgent)

    def receive(self, received):
        def call(observation):
            received.append(observation)
            if self.error:
                raise self.error

        return call

    def query(self, number=0, tokens=7, stopping=lambda: False):
        return self.job.query(
            number, tokens, stopping, lambda call, urgent: self.posted.append((call, urgent))
        )

    def deliver_progress(self):
        for call, _ in self.posted:
            call()
        self.posted.clear()


def captions(observations):
    return [[caption.text for caption in observation.captions] for observation in observations]


# Observation and Work ----------------------------------------------------------------------------


def test_the_size_of_an_image_is_its_width_and_height():
    assert Recipient(PLAIN).job.observation.size == (640, 480)


def test_work_is_by_default_an_urgent_request_of_its_own_image_that_never_expires():
    work = Work(lambda *_: (), print, print, 1)
    assert work.urgent
    assert (work.image, work.cameras, work.progress) == (None, (), None)
    assert (work.max_age, work.deadline) == (0.0, float("inf"))
    assert not work.stopped.is_set()
    assert work.stopped is not Work(lambda *_: (), print, print, 1).stopped


def test_an_observation_has_at_first_no_captions():
    observation = Recipient(PLAIN).job.observation
    assert (observation.captions, observation.inference_time) == ((), 0.0)


def test_work_and_observations_are_immutable_and_equal_only_to_themselves():
    """They are keys, and an array has no single truth value."""
    recipient = Recipient(PLAIN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipient.work.urgent = False
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipient.job.observation.camera = "rear"
    for value in (recipient.work, recipient.job.observation, recipient.job):
        assert value != dataclasses.replace(value)
        assert {value: 1}[value] == 1


def test_the_beginning_of_stopped_work_is_not_announced():
    told = []
    recipient = Recipient(PLAIN)
    job = dataclasses.replace(
        recipient.job, work=dataclasses.replace(recipient.work, begun=told.append)
    )
    job.announce()
    assert told == [job.observation]
    job.work.stopped.set()
    job.announce()
    assert len(told) == 1


# Queries -----------------------------------------------------------------------------------------


def test_a_query_has_the_image_the_prompt_the_limit_and_the_stop_text():
    recipient = Recipient(LEAD, PLAIN)
    query = recipient.query(0, tokens=7)
    assert (query.image, query.prompt) == ("encoded", "An image of")
    assert (query.max_new_tokens, query.stop) == (7, " Question:")
    other = recipient.query(1, tokens=8)
    assert (other.prompt, other.max_new_tokens, other.stop) == (PLAIN.text, 8, "")


def test_a_query_reports_progress_only_if_its_recipient_takes_it():
    assert Recipient(PLAIN).query().progress is not None
    assert Recipient(PLAIN, progress=False).query().progress is None


def test_a_query_ends_when_the_worker_stops():
    stopping = []
    query = Recipient(PLAIN).query(stopping=lambda: bool(stopping))
    assert query.stopped() is False
    stopping.append(True)
    assert query.stopped() is True


def test_a_query_ends_when_its_work_is_stopped():
    recipient = Recipient(PLAIN)
    query = recipient.query()
    recipient.work.stopped.set()
    assert query.stopped() is True


def test_a_query_ends_when_its_progress_cannot_be_received():
    recipient = Recipient(PLAIN, error=RuntimeError("context is invalid"))
    query = recipient.query()
    query.progress(generation(" snow"))
    assert query.stopped() is False  # until it is delivered
    recipient.deliver_progress()
    assert query.stopped() is True


# Progress ----------------------------------------------------------------------------------------


def test_progress_is_delivered_before_frames_with_all_captions_so_far():
    recipient = Recipient(LEAD, PLAIN)
    recipient.query(1).progress(generation(" Yes"))
    assert [urgent for _, urgent in recipient.posted] == [True]
    assert recipient.progress == []
    recipient.deliver_progress()
    recipient.query(0).progress(generation(" snow"))
    recipient.query(0).progress(generation(" snow and ice"))
    recipient.deliver_progress()
    assert captions(recipient.progress) == [
        ["An image of", "Yes"],
        ["An image of snow", "Yes"],
        ["An image of snow and ice", "Yes"],
    ]
    assert recipient.progress[0].captions[0].generated_tokens == 0
    assert recipient.progress[0].captions[0].score == 0.0
    assert not recipient.progress[0].captions[0].truncated
    assert (recipient.done, recipient.failed) == ([], [])


def test_a_recipient_that_raises_receives_no_more_progress():
    error = RuntimeError("context is invalid")
    recipient = Recipient(PLAIN, error=error)
    query = recipient.query()
    query.progress(generation(" a"))
    query.progress(generation(" a b"))
    recipient.deliver_progress()
    assert captions(recipient.progress) == [["a"]]
    assert recipient.job.error is error
    recipient.job.answers[0] = generation(" a b")
    recipient.job.deliver(time.monotonic())
    assert (recipient.done, recipient.failed) == ([], [error])


def test_progress_that_cannot_be_read_fails_the_job():
    recipient = Recipient(PLAIN)
    recipient.query().progress(Generation(" a", (0.5,), 0.5, 1, False))
    recipient.deliver_progress()
    assert recipient.progress == []
    assert isinstance(recipient.job.error, GenerationError)


# Delivery ----------------------------------------------------------------------------------------


def test_the_captions_of_all_prompts_are_delivered_in_their_order():
    recipient = Recipient(LEAD, PLAIN)
    recipient.job.answers = {1: generation(" Yes", truncated=True), 0: generation(" snow")}
    recipient.job.begun = time.monotonic() - 100.0
    recipient.job.deliver(time.monotonic())
    assert captions(recipient.done) == [["An image of snow", "Yes"]]
    (observation,) = recipient.done
    assert (observation.camera, observation.header, observation.image) == (
        "front",
        "header",
        IMAGE,
    )
    assert (observation.prompts, observation.frames_dropped) == ((LEAD, PLAIN), 5)
    assert 100.0 <= observation.inference_time < 160.0
    snow, yes = observation.captions
    assert (snow.raw_text, snow.score, snow.generated_tokens) == ("An image of snow", 0.5, 3)
    assert (snow.truncated, yes.truncated) == (False, True)
    assert recipient.failed == []


def test_boxes_are_read_with_their_scores():
    recipient = Recipient(PLAIN)
    text = "<phrase> snow</phrase><object><patch_index_0000><patch_index_0033></object>"
    recipient.job.answers = {0: Generation(text, (0.25, 1.0), 0.5, 6, False)}
    recipient.job.deliver(time.monotonic())
    (phrase,) = recipient.done[0].captions[0].phrases
    assert (phrase.text, phrase.boxes) == ("snow", (Box(1 / 64, 1 / 64, 3 / 64, 3 / 64, 0.5),))


@pytest.mark.parametrize("number", [0, 1])
def test_the_error_of_one_prompt_is_the_error_of_the_job(number):
    recipient = Recipient(LEAD, PLAIN)
    stopped = CancelledError("generation was stopped")
    recipient.job.answers = {number: stopped, 1 - number: generation(" Yes")}
    recipient.job.deliver(time.monotonic())
    assert (recipient.done, recipient.failed) == ([], [stopped])


def test_inference_time_ends_with_the_last_token_however_late_it_is_delivered():
    recipient = Recipient(PLAIN)
    recipient.job.answers = {0: generation(" Yes")}
    recipient.job.begun = 100.0
    recipient.job.deliver(101.5)
    assert recipient.done[0].inference_time == 1.5


def test_stopped_work_is_not_parsed():
    recipient = Recipient(PLAIN)
    recipient.query().progress(generation(" a"))
    recipient.job.work.stopped.set()
    recipient.deliver_progress()
    recipient.job.answers = {0: generation(" a b")}
    recipient.job.deliver(time.monotonic())
    assert (recipient.progress, recipient.done) == ([], [])
    assert [str(error) for error in recipient.failed] == ["generation was stopped"]


def test_an_error_of_done_is_passed_to_failed():
    error = RuntimeError("context is invalid")
    recipient = Recipient(PLAIN, error=error)
    recipient.job.answers = {0: generation(" Yes")}
    recipient.job.deliver(time.monotonic())
    assert captions(recipient.done) == [["Yes"]]
    assert recipient.failed == [error]


# Trying again ------------------------------------------------------------------------------------


def test_a_job_tried_again_keeps_its_work_and_start_and_has_no_answers():
    recipient = Recipient(LEAD, PLAIN)
    job = recipient.job
    assert job.most == sys.maxsize
    job.answers[0] = generation(" snow")
    job.error = RuntimeError("context is invalid")
    job.begun = 1.0
    recipient.query(1).progress(generation(" Yes"))
    again = job.again(3)
    assert (again.work, again.source, again.observation) == (
        job.work,
        "source",
        job.observation,
    )
    assert (again.most, again.error, again.encoded, again.answers) == (3, None, None, {})
    assert again.begun == 1.0  # the first try is a part of the inference time
    recipient.job = again
    recipient.posted.clear()
    recipient.query(0).progress(generation(" ice"))
    recipient.deliver_progress()
    assert captions(recipient.progress) == [["An image of ice", ""]]
