# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A change counts once it has lasted, and it is reported once."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.serving.events import Change, Debouncer, Event, FrameTime, Watchlist


def fed(values, frames=3, seconds=0.0, first=False, period=1.0):
    """Return (number of the frame, change) for each change; frames come every `period` seconds."""
    debouncer = Debouncer(first)
    changes = (
        (number, debouncer.update(value, number * period, number, frames, seconds))
        for number, value in enumerate(values)
    )
    return [(number, change) for number, change in changes if change]


def test_a_change_counts_once_it_has_lasted():
    assert fed([False, True, True, True, True]) == [(3, Change(False, True, 1))]


def test_a_flicker_is_no_change():
    assert fed([True, True, False, True, True, False] * 5) == []


def test_another_new_value_begins_its_own_count():
    assert fed(["a", "b", "b", "a", "a", "a"], first="") == [(5, Change("", "a", 3))]


def test_seconds_count_from_the_first_frame():
    assert fed([True] * 9, frames=1, seconds=2.5) == [(3, Change(False, True, 0))]
    assert fed([True], frames=1, seconds=0.0) == [(0, Change(False, True, 0))]


@pytest.mark.fault(26)
def test_counting_starts_again_where_time_runs_backwards():
    debouncer = Debouncer(False)
    assert debouncer.update(True, 100.0, "old", 2, 5.0) is None
    assert debouncer.update(True, 1.0, "new", 2, 5.0) is None
    assert debouncer.update(True, 4.0, "later", 2, 5.0) is None
    assert debouncer.update(True, 6.0, "last", 2, 5.0) == Change(False, True, "new")


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 5.0)), min_size=1, max_size=30))
def test_the_time_of_a_frame_is_its_stamp_and_advances_while_the_stamp_repeats(frames):
    times = FrameTime()
    now, before, expected = 1000.0, None, 0.0
    for stamp, pause in frames:
        now += pause
        expected = expected + pause if stamp == before else stamp
        assert times.of(stamp, now) == pytest.approx(expected)
        before = stamp


def test_frames_that_repeat_a_stamp_are_counted_until_it_changes():
    times = FrameTime()
    still = []
    for stamp in (5.0, 5.0, 5.0, 6.0, 6.0):
        times.of(stamp, 0.0)
        still.append(times.still)
    assert still == [0, 1, 2, 0, 1]


def test_each_subject_has_its_own_value_until_it_is_removed():
    watched = Watchlist(False)
    details = (0.0, "mark", 2, 0.0)
    assert watched.update("dog", True, *details) is None
    assert watched.update("cat", True, *details) is None
    assert watched.update("dog", True, *details) == Change(False, True, "mark")
    watched.keep({"dog"})
    assert watched.update("cat", True, *details) is None
    assert watched.update("dog", False, *details) is None


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 5))
def test_every_change_ends_a_run_of_equal_values_and_is_reported_once(values, frames):
    changes = fed(values, frames, first="a")
    before = "a"
    for number, change in changes:
        assert change.before == before != change.now
        assert number - change.since >= frames - 1
        assert set(values[change.since : number + 1]) == {change.now}
        before = change.now
    # No value that lasted is left out.
    if len(values) >= frames and len(set(values[-frames:])) == 1:
        assert before == values[-1]


# Exact boundaries --------------------------------------------------------------------------------


def test_a_new_value_equal_to_the_first_one_is_no_change():
    assert fed([False] * 9, frames=1) == []
    assert fed([True] * 9, frames=1, first=True) == []


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_value_counts_in_exactly_the_last_frame_that_it_needs(frames):
    assert fed([True] * (frames - 1), frames) == []
    assert fed([True] * 9, frames) == [(frames - 1, Change(False, True, 0))]


@pytest.mark.parametrize(("period", "number"), [(1.0, 2), (0.5, 4), (0.9999, 3), (2.0, 1), (9, 1)])
def test_a_value_counts_after_exactly_the_seconds_that_it_needs(period, number):
    (change,) = fed([True] * 9, frames=1, seconds=2.0, period=period)
    assert change == (number, Change(False, True, 0))


def test_a_value_needs_both_its_frames_and_its_seconds():
    assert fed([True] * 9, frames=5, seconds=2.0) == [(4, Change(False, True, 0))]
    assert fed([True] * 9, frames=2, seconds=6.0) == [(6, Change(False, True, 0))]


def test_the_settled_value_in_between_starts_the_count_again():
    assert fed([True, True, False, True, True, True]) == [(5, Change(False, True, 3))]


def test_another_new_value_starts_the_seconds_again():
    found = fed(["b", "c", "c", "c"], frames=1, seconds=2.0, first="a")
    assert found == [(3, Change("a", "c", 1))]


def test_a_settled_change_may_change_back():
    assert fed([True, True, False, False, True, True], frames=2) == [
        (1, Change(False, True, 0)),
        (3, Change(True, False, 2)),
        (5, Change(False, True, 4)),
    ]


def test_frames_with_one_stamp_count_each():
    assert fed([True] * 3, period=0.0) == [(2, Change(False, True, 0))]


def test_a_restart_counts_from_zero_and_keeps_the_settled_value():
    debouncer = Debouncer(False)
    details = (2, 0.0)
    assert debouncer.update(True, 1.0, "first", *details) is None
    debouncer.restart()
    assert debouncer.value is False
    assert debouncer.update(True, 2.0, "second", *details) is None
    assert debouncer.update(True, 3.0, "third", *details) == Change(False, True, "second")
    debouncer.restart()
    assert debouncer.value is True


def test_a_restart_counts_again_for_every_subject():
    watched = Watchlist(False)
    details = ("mark", 2, 0.0)
    for subject in ("dog", "cat"):
        assert watched.update(subject, True, 0.0, *details) is None
    watched.restart()
    for subject in ("dog", "cat"):
        assert watched.update(subject, True, 1.0, *details) is None
        assert watched.update(subject, True, 2.0, *details) == Change(False, True, "mark")


def test_a_removed_subject_has_the_first_value_again():
    watched = Watchlist("")
    details = (0.0, "mark", 1, 0.0)
    assert watched.update("a", "yes", *details) == Change("", "yes", "mark")
    assert watched.update("a", "yes", *details) is None
    watched.keep(())
    assert watched.update("a", "yes", *details) == Change("", "yes", "mark")
    watched.keep({"a", "b"})
    assert watched.update("a", "yes", *details) is None


def test_a_new_value_is_counted_from_its_first_frame_even_if_it_is_none():
    assert fed([None] * 9) == [(2, Change(False, None, 0))]


def test_an_event_has_by_default_no_boxes_and_no_answers():
    event = Event("appeared", "a man", "mark")
    assert (event.phrases, event.answer, event.previous) == ((), "", "")


@pytest.mark.parametrize(
    "value", [Change(False, True, "mark"), Event("appeared", "a man", "mark")]
)
def test_changes_and_events_cannot_be_altered(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.since = "later"
