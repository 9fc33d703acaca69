"""Less at a time after it was too much, and all again after a quiet time."""

from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.ladder import QUIET, RUNGS, Ladder


class Hand:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self):
        return self.now


def test_each_failure_is_a_rung_down_and_the_last_one_stays():
    ladder = Ladder(Hand())
    found = [(ladder.batch(8), ladder.tokens(128), ladder.fall()) for _ in range(5)]
    assert found == [
        (8, 128, True),
        (4, 128, True),
        (1, 128, True),
        (1, 32, False),
        (1, 32, False),
    ]
    assert ladder.rung == RUNGS[-1]
    assert ladder.tokens(16) == 16


def test_a_quiet_time_is_a_rung_up():
    hand = Hand()
    ladder = Ladder(hand)
    ladder.fall()
    ladder.fall()
    hand.now += QUIET - 1
    assert not ladder.rise()
    hand.now += 1
    assert ladder.rise() and ladder.batch(8) == 4
    assert not ladder.rise()
    hand.now += QUIET
    assert ladder.rise() and ladder.rung == RUNGS[0]
    hand.now += QUIET
    assert not ladder.rise()


@given(
    st.lists(st.one_of(st.just("fall"), st.floats(0, 3 * QUIET)), max_size=60),
    st.integers(1, 256),
)
def test_there_is_always_room_for_one_and_never_more_than_asked(steps, most):
    hand = Hand()
    ladder = Ladder(hand)
    quiet = 0.0
    for step in steps:
        before = RUNGS.index(ladder.rung)
        if step == "fall":
            ladder.fall()
            quiet = 0.0
            assert RUNGS.index(ladder.rung) == min(before + 1, len(RUNGS) - 1)
        else:
            hand.now += step
            quiet += step
            if ladder.rise():
                assert quiet >= QUIET * 0.999
                assert RUNGS.index(ladder.rung) == before - 1
                quiet = 0.0
        assert 1 <= ladder.batch(most) <= most
