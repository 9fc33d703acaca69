# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The model gets less work after each memory failure, and more again after a quiet time."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.serving.memory_backoff import LEVELS, QUIET, MemoryBackoff


class ManualClock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self):
        return self.now


def test_there_is_no_limit_before_the_first_failure():
    backoff = MemoryBackoff(ManualClock())
    assert (backoff.level, backoff.level.name) == (LEVELS[0], "")
    assert [backoff.batch(most) for most in (1, 7, 256)] == [1, 7, 256]
    assert backoff.tokens(1024) == 1024


def test_the_levels_are_distinct_and_each_allows_no_more_than_the_one_before():
    assert len({level.name for level in LEVELS}) == len(LEVELS)
    assert [(level.batch, level.tokens) for level in LEVELS] == [
        (1.0, sys.maxsize),
        (0.5, sys.maxsize),
        (0.0, sys.maxsize),
        (0.0, 32),
    ]


def test_each_failure_goes_one_level_down_and_the_last_level_stays():
    backoff = MemoryBackoff(ManualClock())
    found = [(backoff.batch(8), backoff.tokens(128), backoff.reduce()) for _ in range(5)]
    assert found == [
        (8, 128, True),
        (4, 128, True),
        (1, 128, True),
        (1, 32, False),
        (1, 32, False),
    ]
    assert backoff.level == LEVELS[-1]
    assert [backoff.tokens(most) for most in (16, 31, 32, 33)] == [16, 31, 32, 32]


def test_half_of_an_odd_batch_is_rounded_down():
    backoff = MemoryBackoff(ManualClock())
    backoff.reduce()
    assert [backoff.batch(most) for most in (1, 2, 3, 5)] == [1, 1, 1, 2]


def test_each_quiet_time_goes_one_level_up():
    clock = ManualClock()
    backoff = MemoryBackoff(clock)
    for _ in range(3):
        backoff.reduce()
    clock.now += QUIET - 1
    assert backoff.level == LEVELS[3]
    clock.now += 1
    assert backoff.level == LEVELS[2]
    clock.now += QUIET
    assert backoff.batch(8) == 4
    backoff.reduce()
    assert backoff.level == LEVELS[2]
    clock.now += 9 * QUIET
    assert backoff.level == LEVELS[0]
    backoff.reduce()
    assert backoff.level == LEVELS[1]


def test_a_failure_at_the_lowest_level_starts_the_quiet_time_again():
    clock = ManualClock()
    backoff = MemoryBackoff(clock)
    while backoff.reduce():
        pass
    clock.now += QUIET - 1
    assert not backoff.reduce()
    clock.now += QUIET - 1
    assert backoff.level == LEVELS[-1]
    clock.now += 1
    assert backoff.level == LEVELS[-2]


@given(
    st.lists(st.one_of(st.just("failure"), st.floats(0, 3 * QUIET)), max_size=60),
    st.integers(1, 256),
)
def test_at_least_one_prompt_and_never_more_than_the_batch_size_is_allowed(steps, most):
    clock = ManualClock()
    backoff = MemoryBackoff(clock)
    for step in steps:
        before = LEVELS.index(backoff.level)
        if step == "failure":
            assert backoff.reduce() == (before + 1 < len(LEVELS))
            assert LEVELS.index(backoff.level) == min(before + 1, len(LEVELS) - 1)
        else:
            clock.now += step
            assert before - step / QUIET - 1 <= LEVELS.index(backoff.level) <= before
        assert 1 <= backoff.batch(most) <= most
