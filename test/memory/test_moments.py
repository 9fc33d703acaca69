# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The time that a question names, and the question without it."""

import re
import time
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.errors import RequestError
from kosmos_ros.memory import moments


@pytest.fixture(scope="module", autouse=True)
def _utc():
    with pytest.MonkeyPatch.context() as context:
        context.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


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


WEDNESDAY = "2026-05-27T10:20"


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        ("at 3 pm", "2026-05-26T14:30", "2026-05-26T15:30"),  # the latest one
        ("at 9 am", "2026-05-27T08:30", "2026-05-27T09:30"),
        ("at about 9:30", "2026-05-27T09:00", "2026-05-27T10:00"),
        ("around noon", "2026-05-26T11:30", "2026-05-26T12:30"),
        ("at midnight", "2026-05-26T23:30", "2026-05-27T00:30"),
        ("since 9 am", "2026-05-27T09:00", None),
        ("after 12:30 pm", "2026-05-26T12:30", None),
        ("since ten minutes ago", "2026-05-27T10:10", None),
        ("before an hour ago", None, "2026-05-27T09:20"),
        ("before 10:00", None, "2026-05-27T10:00"),
        ("until 11 pm", None, "2026-05-27T23:00"),
        ("between 3 and 4 pm", "2026-05-26T15:00", "2026-05-26T16:00"),
        ("between 8 and 9:30 a.m.", "2026-05-27T08:00", "2026-05-27T09:30"),
        ("between 11 and 2 pm", "2026-05-26T11:00", "2026-05-26T14:00"),
        ("from 9 am to 5:00", "2026-05-27T09:00", "2026-05-27T17:00"),
        ("between 3 pm and 4", "2026-05-26T15:00", "2026-05-26T16:00"),
        ("from 8:00 to 10", "2026-05-27T08:00", "2026-05-27T10:00"),
        ("between 12 and 1 am", "2026-05-27T00:00", "2026-05-27T01:00"),
        ("between 12:15 and 12:45 am", "2026-05-27T00:15", "2026-05-27T00:45"),
        ("this morning at 12:30", "2026-05-27T00:00", "2026-05-27T01:00"),
        ("this morning between 12:00 and 2:00", "2026-05-27T00:00", "2026-05-27T02:00"),
        ("at 3 p.m. on Monday", "2026-05-25T14:30", "2026-05-25T15:30"),
        ("yesterday, at 3 pm", "2026-05-26T14:30", "2026-05-26T15:30"),
        ("at 3 pm, yesterday", "2026-05-26T14:30", "2026-05-26T15:30"),
        ("at 10:45", "2026-05-27T10:15", "2026-05-27T11:15"),  # begun at 10:15
        ("at 10:55", "2026-05-26T10:25", "2026-05-26T11:25"),
        ("on Wednesday after 3 pm", "2026-05-20T15:00", "2026-05-21T00:00"),
        ("on Wednesday at 3 pm", "2026-05-20T14:30", "2026-05-20T15:30"),
        ("yesterday after 3 pm", "2026-05-26T15:00", "2026-05-27T00:00"),
        ("before noon on Monday", None, "2026-05-25T12:00"),
        ("on Monday before noon", "2026-05-25T00:00", "2026-05-25T12:00"),
        ("yesterday since 9:00", "2026-05-26T09:00", "2026-05-27T00:00"),
        ("after 3 pm yesterday", "2026-05-26T15:00", None),
        ("since 10:45", "2026-05-26T10:45", None),
        ("till 11 pm", None, "2026-05-27T23:00"),
        ("before 11 pm", None, "2026-05-27T23:00"),
        ("from 8:00 to 20:30", "2026-05-27T08:00", "2026-05-27T20:30"),
        ("from 22:00 to 2:00 on Monday", "2026-05-25T22:00", "2026-05-26T02:00"),
        ("Yesterday at 3 PM", "2026-05-26T14:30", "2026-05-26T15:30"),
        ("at 15:00 on 2026-05-20", "2026-05-20T14:30", "2026-05-20T15:30"),
        ("yesterday afternoon at 3:30", "2026-05-26T15:00", "2026-05-26T16:00"),
        ("last night at 2 am", "2026-05-27T01:30", "2026-05-27T02:30"),
        ("last night between 10:00 and 2:00", "2026-05-26T22:00", "2026-05-27T02:00"),
        ("since yesterday at 3 pm", "2026-05-26T15:00", None),
        ("on Wednesday evening", "2026-05-20T18:00", "2026-05-21T00:00"),  # today's is to come
        ("this Wednesday at 3 pm", "2026-05-27T14:30", "2026-05-27T15:30"),
        ("from Wednesday evening to Monday", "2026-05-20T18:00", "2026-05-26T00:00"),
        ("between noon and 3", "2026-05-26T12:00", "2026-05-26T15:00"),
        ("at 9:00 in the evening", "2026-05-26T20:30", "2026-05-26T21:30"),
        ("at 9 in the evening", "2026-05-26T20:30", "2026-05-26T21:30"),
        ("at 9 in the morning yesterday", "2026-05-26T08:30", "2026-05-26T09:30"),
        ("at 9:00 in the evening on Monday", "2026-05-25T20:30", "2026-05-25T21:30"),
        ("last night", "2026-05-26T18:00", "2026-05-27T06:00"),
        ("tonight", "2026-05-27T18:00", "2026-05-28T06:00"),
        ("on Monday", "2026-05-25T00:00", "2026-05-26T00:00"),
        ("Monday morning", "2026-05-25T00:00", "2026-05-25T12:00"),
        ("on wednesday", "2026-05-27T00:00", "2026-05-28T00:00"),
        ("last Wednesday", "2026-05-20T00:00", "2026-05-21T00:00"),
        ("since Friday", "2026-05-22T00:00", None),
        ("after yesterday", "2026-05-27T00:00", None),
        ("before yesterday", None, "2026-05-26T00:00"),
        ("until yesterday", None, "2026-05-27T00:00"),
        ("on 2026-05-20", "2026-05-20T00:00", "2026-05-21T00:00"),
        ("the day before yesterday", "2026-05-25T00:00", "2026-05-26T00:00"),
        ("3 pm yesterday", "2026-05-26T14:30", "2026-05-26T15:30"),
        ("Monday, 3 pm", "2026-05-25T14:30", "2026-05-25T15:30"),
        ("between Monday and yesterday evening", "2026-05-25T00:00", "2026-05-27T00:00"),
        ("from Friday to Monday", "2026-05-22T00:00", "2026-05-26T00:00"),
        ("from Thursday to Monday", "2026-05-21T00:00", "2026-05-26T00:00"),
        ("from Wednesday until Tuesday", "2026-05-20T00:00", "2026-05-27T00:00"),
        ("this week", "2026-05-25T00:00", "2026-06-01T00:00"),
        ("last week", "2026-05-18T00:00", "2026-05-25T00:00"),
        ("since last week", "2026-05-18T00:00", None),
    ],
)
def test_days_and_times_of_day_give_an_interval(words, first, last):
    for question in (f"was the cup {words} there?", f"was the cup there {words}?"):
        rest, since, until = moments.split(question, ns(WEDNESDAY))
        assert rest.rstrip(" ?").split() == ["was", "the", "cup", "there"]
        assert (since, until) == (first and ns(first), last and ns(last) - 1)


@pytest.mark.parametrize(
    ("words", "longest", "shortest"),  # s
    [
        ("ten minutes ago", 900, 300),
        ("an hour ago", 5400, 1800),
        ("1.5 hours ago", 8100, 2700),
        ("a few minutes ago", 450, 150),
        ("a couple of days ago", 259_200, 86_400),
        ("in the last few minutes", 300, None),
        ("5 min ago", 450, 150),
        ("in the past 2hrs", 7200, None),
        ("twenty minutes ago", 1800, 600),
        ("half an hour ago", 2700, 900),
        ("twelve minutes ago", 1080, 360),
        ("for the last 24h", 86400, None),
        ("a week ago", 907_200, 302_400),
    ],
)
def test_a_time_relative_to_now_gives_an_interval(words, longest, shortest):
    now = ns(WEDNESDAY)
    rest, *limits = moments.split(f"a cup {words}", now)
    assert rest.split() == ["a", "cup"]
    assert limits == [now - longest * 10**9, shortest and now - shortest * 10**9 - 1]


def test_the_next_midnight_is_the_latest_one_half_an_hour_before_it():
    _, since, until = moments.split("at midnight", ns("2026-05-27T23:40"))
    assert (since, until + 1) == (ns("2026-05-27T23:30"), ns("2026-05-28T00:30"))


def test_a_number_before_a_time_belongs_to_a_thing():
    rest, since, until = moments.split("who was in room 3 ten minutes ago", ns(WEDNESDAY))
    assert rest.split() == ["who", "was", "in", "room", "3"] and until > since


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),
    st.times(),
    st.sampled_from(["", "yesterday", "on Tuesday", "on 2011-07-08"]),
)
def test_all_spellings_of_a_time_of_day_mean_the_same(now, at, day):
    stamp = int(now.timestamp()) * 10**9
    written = [f"{at:%H:%M}", f"{at:%I:%M %p}", f"{at:%I:%M}{'am' if at.hour < 12 else 'pm'}"]
    found = {moments.split(f"at {one} {day}", stamp)[1:] for one in written}
    ((since, until),) = found
    middle = datetime.fromtimestamp((since + until + 1) // (2 * 10**9))
    assert (middle.hour, middle.minute) == (at.hour, at.minute)
    assert until + 1 - since == 3600 * 10**9
    if not day:
        assert now - timedelta(days=1) <= middle - moments.AROUND <= now


VOCABULARY = (
    "a few 3 12 99 0.5 minutes weeks ago week yesterday since after until last "
    "this on today monday night morning 2026-02-30 2099-12-31 "
    "at about between and to 3pm 13 pm 11:59 25:00 noon cup"
)


@given(st.lists(st.sampled_from(VOCABULARY.split()), max_size=8), st.integers(0, 4 * 10**18))
def test_any_words_give_an_interval_or_an_error(words, now):
    try:
        _, since, until = moments.split(" ".join(words), now)
    except RequestError:
        return
    assert since is None or until is None or since <= until


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("at 13 pm", "an hour before am or pm must be in 1..12"),
        ("at 25:00", "an hour must be in 0..23 and a minute in 0..59"),
        ("at 3:60", "an hour must be in 0..23 and a minute in 0..59"),
        ("at 0 pm", "an hour before am or pm must be in 1..12"),
        ("from 3 pm until now", "write the start with 'since', such as 'since 3 pm'"),
        ("in the last hour and a half", "write one number and one unit, such as '90 minutes'"),
        ("yesterday until midnight", "it ends before it starts; midnight is the start of a day"),
        *(
            (words, "write a time of day as '3 pm' or '15:00', or name the thing after the number")
            for words in (
                "at two",
                "since 9",
                "at 3 oclock",
                "at three pm",
                "half past three",
                "between 3 and 4",
                "from nine to ten",
            )
        ),
        *(
            (words, "write a past day, such as 'on Monday' or '2026-05-31'")
            for words in (
                "next Monday",
                "every Sunday",
                "tomorrow",
                "in March",
                "last month",
                "November 28",
                "on the 5th",
            )
        ),
        ("from today to yesterday", "it ends before it starts; midnight is the start of a day"),
        *(
            (f"{words} ago", "write one number and one unit, such as '90 minutes'")
            for words in (
                "twenty-five minutes",
                "two and a half hours",
                "1 hour 30 minutes",
                "an hour and ten minutes",
                "1/2 hour",
                "100,000 seconds",
                "5.5555 hours",
                "a quarter of an hour",
                "a month",
                "a moment",
            )
        ),
        ("on 2026-02-30", "day is out of range for month"),
        ("yesterday afternoon at 3 am", "3 am is not in that part of the day"),
    ],
)
def test_an_invalid_time_is_refused(words, reason):
    question = f"a cup {words}"
    if "quarter" in words:
        words = words.removeprefix("a ")
    end = re.escape(f"{words}': {reason}")
    with pytest.raises(RequestError, match=f"^cannot use the time '{end}$"):
        moments.split(question, ns(WEDNESDAY))


def test_a_vague_time_of_a_day_is_named_before_the_day():
    with pytest.raises(RequestError, match="cannot use the time 'at 3': write a time of day"):
        moments.split("a cup at 3 on Monday", ns(WEDNESDAY))


@pytest.mark.parametrize(
    "question",
    [
        "a cup before the box",
        "a box from 3 to 4 boxes",
        "a cup on the 3rd shelf",
        "a 2 year old boy",
        "people who march 5 abreast",
        "a next day parcel",
        "last year calendar",
        "a man about 60",
        "a thermometer at 38",
        "three am radios",
        "a piece of two by four",
        "a table at 3 chairs",
        "a sign 16:09:01",
        "a 3 pm train",
        "the Sunday newspaper",
        "a noon sun",
        "a five minute timer",
        "a ratio of 16:09",
        "Monday's newspaper",
        "a log-2026-05-27",
        "a 2026-05-27.jpg",
        "the second cup ago",
    ],
)
def test_other_words_are_not_a_time(question):
    assert moments.split(question, ns(WEDNESDAY)) == (question, None, None)


@pytest.mark.parametrize(
    ("question", "times"),
    [
        ("a cup today yesterday", "'today' and 'yesterday'"),
        ("a cup yesterday in the last hour", "'yesterday' and 'in the last hour'"),
        ("a cup last week at 3 pm", "'last week' and 'at 3 pm'"),
        ("a cup two days ago at 3 pm", "'two days ago' and 'at 3 pm'"),
        ("a cup at 3 pm or at 4 pm", "'at 3 pm' and 'at 4 pm'"),
        ("a cup today this morning", "'today' and 'this morning'"),
    ],
)
def test_two_times_are_refused(question, times):
    with pytest.raises(RequestError, match=f"a question must name at most one time, got {times}"):
        moments.split(question, ns("2026-03-29T16:30"))
