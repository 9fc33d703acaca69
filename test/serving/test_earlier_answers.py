# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Earlier answers about a camera: drafts of the next ones, and unchanged frames."""

import math

import numpy as np
import pytest

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Earlier, Generation
from kosmos_ros.serving.earlier_answers import (
    COMPARED_ROWS,
    MAX_CAMERAS,
    MAX_PROMPTS,
    NEWEST_WEIGHT,
    EarlierAnswers,
)
from kosmos_ros.serving.work import Job, Observation, Work

GREY = np.full((2 * COMPARED_ROWS + 3, 4, 3), 128, np.uint8)


def job(*texts, camera="front", urgent=False, image=GREY, message=None):
    """Return the work on an image: a frame, a request about one, or one with its own message."""
    work = Work(lambda *_: (), print, print, 100, urgent=urgent, image=message)
    asked = tuple(Prompt("prompt", text, "") for text in texts)
    return Job(work, message, Observation(camera, None, image, asked, 0), max_new_tokens=100)


def answer(*ids, gain=1.0, truncated=False):
    return Generation("text", (), 1.0, len(ids), truncated, ids, gain=gain)


def described(earlier, *texts, ids=(1, 2), **options):
    """Describe a frame with one answer for each prompt; return its job."""
    made = job(*texts, **options)
    for number in range(len(texts)):
        made.answers[number] = answer(*ids)
        earlier.keep(made, number, made.answers[number], drafted=False)
    earlier.keep_frame(made)
    return made


# Drafts ------------------------------------------------------------------------------------------


def test_the_newest_answer_to_a_prompt_is_the_draft_of_the_next_and_is_optimistic():
    earlier = EarlierAnswers()
    assert earlier.draft(job("what"), 0) is None
    earlier.keep(job("what"), 0, answer(1, 2), drafted=False)
    assert earlier.draft(job("what"), 0) == Earlier((1, 2), math.inf)
    earlier.keep(job("what"), 0, answer(3, 4, truncated=True), drafted=False)
    assert earlier.draft(job("what"), 0) == Earlier((3, 4), math.inf)


def test_the_expected_gain_is_a_running_mean_of_drafted_answers():
    earlier = EarlierAnswers()
    earlier.keep(job("what"), 0, answer(1), drafted=False)
    earlier.keep(job("what"), 0, answer(1, gain=4.0), drafted=True)
    assert earlier.draft(job("what"), 0).gain == 4.0
    earlier.keep(job("what"), 0, answer(1, gain=1.0), drafted=False)
    assert earlier.draft(job("what"), 0).gain == 4.0
    earlier.keep(job("what"), 0, answer(1, gain=2.0), drafted=True)
    assert earlier.draft(job("what"), 0).gain == 4.0 - 2.0 * NEWEST_WEIGHT


def test_cameras_and_prompts_have_their_own_drafts():
    earlier = EarlierAnswers()
    frame, rear = job("what", "where"), job("what", camera="rear")
    earlier.keep(frame, 0, answer(1), drafted=False)
    earlier.keep(frame, 1, answer(2), drafted=False)
    assert earlier.draft(rear, 0) is None
    earlier.keep(rear, 0, answer(3), drafted=False)
    assert [earlier.draft(frame, number).ids for number in (0, 1)] == [(1,), (2,)]
    assert earlier.draft(rear, 0).ids == (3,)


def test_a_new_question_about_a_camera_has_its_newest_caption_as_draft():
    earlier = EarlierAnswers()
    frame = described(earlier, "caption", "phrase", ids=(1, 2, 3))
    earlier.keep(frame, 1, answer(8), drafted=False)
    asked = job("new", urgent=True)
    assert earlier.draft(asked, 0) == Earlier((1, 2, 3), math.inf)
    earlier.keep(asked, 0, answer(9, gain=1.5), drafted=True)
    assert earlier.draft(asked, 0) == Earlier((9,), math.inf)
    assert earlier.draft(job("other", urgent=True), 0) == Earlier((1, 2, 3), 1.5)
    assert earlier.draft(job("caption"), 0) == Earlier((1, 2, 3), math.inf)


def test_an_answer_to_a_request_is_no_caption_of_the_camera():
    earlier = EarlierAnswers()
    earlier.keep(job("what", urgent=True), 0, answer(1), drafted=False)
    assert earlier.draft(job("other", urgent=True), 0) is None
    assert earlier.draft(job("what", urgent=True), 0).ids == (1,)


def test_an_image_of_a_request_has_no_draft_although_the_only_camera_has_no_name():
    earlier = EarlierAnswers()
    described(earlier, "what", camera="")
    own = job("what", camera="", urgent=True, message="an image")
    assert earlier.draft(job("what", camera=""), 0).ids == (1, 2)
    assert earlier.draft(own, 0) is None
    earlier.keep(own, 0, answer(7), drafted=False)
    assert earlier.draft(job("what", camera=""), 0).ids == (1, 2)


def test_an_answer_without_ids_is_not_kept():
    earlier = EarlierAnswers()
    earlier.keep(job("what"), 0, answer(), drafted=False)
    assert earlier.draft(job("what"), 0) is None


def test_the_least_recently_answered_prompts_and_cameras_are_dropped():
    earlier = EarlierAnswers()
    asked = [job(f"{number}", urgent=True) for number in range(MAX_PROMPTS)]
    for request in (*asked, asked[0], job("new", urgent=True)):
        earlier.keep(request, 0, answer(1), drafted=False)
    assert [earlier.draft(request, 0) is None for request in asked[:3]] == [False, True, False]
    frames = [job("what", camera=f"{number}") for number in range(MAX_CAMERAS)]
    for frame in frames:
        earlier.keep(frame, 0, answer(1), drafted=False)
    assert earlier.draft(asked[0], 0) is None
    assert all(earlier.draft(frame, 0) for frame in frames)


# Unchanged frames --------------------------------------------------------------------------------


def test_a_frame_with_the_same_pixels_has_the_same_answers():
    earlier = EarlierAnswers()
    before = described(earlier, "caption", "phrase")
    again = job("caption", "phrase", image=GREY.copy())
    assert earlier.repeat(again, 100)
    assert (again.answers, again.repeated) == (before.answers, before.observation)


def changed(row):
    image = GREY.copy()
    image[row, -1, -1] += 1
    return image


@pytest.mark.parametrize(
    ("frame", "limit"),
    [
        *((job("caption", image=changed(row)), 100) for row in (0, COMPARED_ROWS, -1)),
        (job("caption", image=GREY[:-1]), 100),
        (job("caption", image=np.concatenate([GREY, GREY])), 100),
        (job("caption", "phrase"), 100),
        (job("other"), 100),
        (job("caption"), 99),
        (job("caption", camera="rear"), 100),
        (job("caption", urgent=True), 100),
        (job("caption", urgent=True, message="an image"), 100),
    ],
)
def test_other_pixels_prompts_limits_cameras_and_requests_are_answered_anew(frame, limit):
    earlier = EarlierAnswers()
    described(earlier, "caption")
    assert earlier.repeat(job("caption"), 100)
    assert not earlier.repeat(frame, limit)
    assert (frame.answers, frame.repeated) == ({}, None)


def test_a_failed_frame_and_a_request_are_not_repeated():
    earlier = EarlierAnswers()
    failed, request = job("caption"), job("caption", urgent=True)
    failed.answers = {0: CancelledError("generation was stopped")}
    request.answers = {0: answer(1)}
    for made in (failed, request):
        earlier.keep_frame(made)
        assert not earlier.repeat(job("caption"), 100)
