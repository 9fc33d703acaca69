# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The time that a question names, and the question without it."""

import time
from datetime import datetime

import pytest

from kosmos_ros.errors import RequestError
from kosmos_ros.memory import moments


def ns(text):
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        ("in the last hour", "2026-03-29T15:30", None),
        ("in the last half an hour", "2026-03-29T16:00", None),
        ("in the last half hour", "2026-03-29T16:00", None),
        ("in the last 1.5 hours", "2026-03-29T15:00", None),
        ("within the past two days", "2026-03-27T15:30", None),  # 48 h; one was skipped
        ("today", "2026-03-29T00:00", "2026-03-30T00:00"),
        ("Yesterday", "2026-03-28T00:00", "2026-03-29T00:00"),
        ("this morning", "2026-03-29T00:00", "2026-03-29T12:00"),
        ("yesterday evening", "2026-03-28T18:00", "2026-03-29T00:00"),
    ],
)
def test_words_of_time_are_an_interval(words, first, last, monkeypatch):
    with monkeypatch.context() as context:
        context.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # 2:00 to 3:00 is skipped that day
        time.tzset()
        for question in (f"was the cup {words} there?", f"was the cup there {words}"):
            rest, since, until = moments.split(question, ns("2026-03-29T16:30"))
            assert rest.rstrip("?").split() == ["was", "the", "cup", "there"]
            assert (since, until) == (ns(first), last and ns(last) - 1)
        assert moments.split("in the last ſix hours", 0) == ("in the last ſix hours", None, None)
    time.tzset()


@pytest.mark.parametrize(
    ("question", "times"),
    [
        ("a cup today yesterday", "'today' and 'yesterday'"),
        ("a cup yesterday in the last hour", "'yesterday' and 'in the last hour'"),
        ("a cup today this morning", "'today' and 'this morning'"),
    ],
)
def test_two_times_are_refused(question, times):
    with pytest.raises(RequestError, match=f"a question must name at most one time, got {times}"):
        moments.split(question, ns("2026-03-29T16:30"))
