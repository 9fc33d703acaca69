# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Less at a time after it was too much, and all again after a quiet time."""

from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.serving.memory_backoff import LEVELS, QUIET, MemoryBackoff


class Hand:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self):
        return self.now


def test_each_failure_is_a_rung_down_and_the_last_one_stays():
    ladder = MemoryBackoff(Hand())
    found = [(ladder.batch(8), ladder.tokens(128), ladder.fall()) for _ in range(5)]
    assert found == [
        (8, 128, True),
        (4, 128, True),
        (1, 128, True),
        (1, 32, False),
        (1, 32, False),
    ]
    assert ladder.rung == LEVELS[-1]
    assert ladder.tokens(16) == 16


def test_each_quiet_time_is_a_rung_up():
    hand = Hand()
    ladder = MemoryBackoff(hand)
    for _ in range(3):
        ladder.fall()
    hand.now += QUIET - 1
    assert ladder.rung == LEVELS[3]
    hand.now += 1
    assert ladder.rung == LEVELS[2]
    hand.now += QUIET
    assert ladder.batch(8) == 4
    ladder.fall()
    assert ladder.rung == LEVELS[2]
    hand.now += 9 * QUIET
    assert ladder.rung == LEVELS[0]
    ladder.fall()
    assert ladder.rung == LEVELS[1]


@given(
    st.lists(st.one_of(st.just("fall"), st.floats(0, 3 * QUIET)), max_size=60),
    st.integers(1, 256),
)
def test_there_is_always_room_for_one_and_never_more_than_asked(steps, most):
    hand = Hand()
    ladder = MemoryBackoff(hand)
    for step in steps:
        before = LEVELS.index(ladder.rung)
        if step == "fall":
            assert ladder.fall() == (before + 1 < len(LEVELS))
            assert LEVELS.index(ladder.rung) == min(before + 1, len(LEVELS) - 1)
        else:
            hand.now += step
            assert before - step / QUIET - 1 <= LEVELS.index(ladder.rung) <= before
        assert 1 <= ladder.batch(most) <= most
