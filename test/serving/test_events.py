# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""When a change counts, and that it is told once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.serving.events import Change, Debouncer, Watchlist


def fed(values, frames=3, seconds=0.0, first=False, period=1.0):
    """(number of the picture, change) for pictures a `period` apart, marked by their numbers."""
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


def test_seconds_count_from_the_first_picture():
    assert fed([True] * 9, frames=1, seconds=2.5) == [(3, Change(False, True, 0))]
    assert fed([True], frames=1, seconds=0.0) == [(0, Change(False, True, 0))]


@pytest.mark.fault(26)
def test_time_that_goes_back_begins_again():
    debouncer = Debouncer(False)
    assert debouncer.update(True, 100.0, "old", 2, 5.0) is None
    assert debouncer.update(True, 1.0, "new", 2, 5.0) is None
    assert debouncer.update(True, 4.0, "later", 2, 5.0) is None
    assert debouncer.update(True, 6.0, "last", 2, 5.0) == Change(False, True, "new")


def test_subjects_are_apart_and_forgotten_when_they_leave():
    watched = Watchlist(False)
    details = (0.0, "mark", 2, 0.0)
    assert watched.update("dog", True, *details) is None
    assert watched.update("cat", True, *details) is None
    assert watched.update("dog", True, *details) == Change(False, True, "mark")
    watched.keep({"dog"})
    assert watched.update("cat", True, *details) is None
    assert watched.update("dog", False, *details) is None


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 5))
def test_every_change_is_the_end_of_an_unbroken_run_and_never_repeats(values, frames):
    changes = fed(values, frames, first="a")
    before = "a"
    for number, change in changes:
        assert change.before == before != change.now
        assert number - change.since >= frames - 1
        assert set(values[change.since : number + 1]) == {change.now}
        before = change.now
    # Nothing that lasted was left out.
    if len(values) >= frames and len(set(values[-frames:])) == 1:
        assert before == values[-1]
