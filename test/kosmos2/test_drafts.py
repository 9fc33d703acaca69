# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A draft continues like the earlier answer, and a box moves by the shift of its first corner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.kosmos2.drafts import Draft, Drafts, agreed
from kosmos_ros.kosmos2.grounding import GRID

CELL = 1000  # token of the first cell; words are smaller
DRAFTS = Drafts(range(CELL, CELL + GRID * GRID))
ids = st.lists(st.integers(0, 5), max_size=30)


def at(x, y):
    """The token of a cell."""
    return CELL + y * GRID + x


def proposals(earlier, *written):
    draft = Draft(earlier, DRAFTS)
    return [draft.propose(ids, 4) for ids in written]


def test_an_answer_is_expected_to_begin_like_the_earlier_one():
    assert proposals([1, 2, 3, 4, 5, 6], []) == [[1, 2, 3, 4]]


def test_a_draft_goes_on_behind_what_was_written():
    assert proposals([1, 2, 3, 4, 5, 6], [], [1, 2, 3]) == [[1, 2, 3, 4], [4, 5, 6]]


def test_without_a_match_the_last_token_replaces_an_earlier_one():
    assert proposals([1, 2, 3, 4, 5, 6], [], [1, 2, 9]) == [[1, 2, 3, 4], [4, 5, 6]]


@pytest.mark.parametrize(
    ("written", "following"),
    [
        ([8, 8, 8, 8, 8, 8, 8, 1, 2, 3], 10),  # although another place is nearer
        ([8, 8, 8, 8, 8, 8, 8, 8, 2, 3], 20),
        ([8, 8, 8, 8, 8, 8, 8, 8, 8, 3], 30),
    ],
)
def test_the_longest_match_counts(written, following):
    (proposal,) = proposals([1, 2, 3, 10, 2, 3, 20, 0, 0, 3, 30], written)
    assert proposal[0] == following


def test_the_match_nearest_to_the_expected_place_counts():
    earlier = [1, 2, 10, 1, 2, 20, 1, 2, 30]
    for count, following in ((2, 10), (5, 20), (8, 30)):
        draft = Draft(earlier, DRAFTS)
        draft.propose([], 4)
        assert draft.propose(earlier[:count], 4)[0] == following


@pytest.mark.parametrize(
    ("shift", "moved"),
    [((3, 2), True), ((2, 0), True), ((0, -2), True), ((1, 1), False), ((20, 0), False)],
)
def test_the_second_corner_moves_as_the_first_has(shift, moved):
    """By at least two cells, and within the grid."""
    corner, other = at(4, 5), at(14, 15)
    right, down = shift if moved else (0, 0)
    written = [1, at(4 + shift[0], 5 + shift[1])]
    assert proposals([1, corner, other, 2], written) == [[at(14 + right, 15 + down), 2]]


def test_only_locations_move():
    assert proposals([1, at(4, 5), 7, 8], [1, at(9, 9)]) == [[7, 8]]
    assert proposals([1, 6, at(4, 5), 8], [1, at(9, 9)]) == [[at(4, 5), 8]]


@given(earlier=ids, written=ids, most=st.integers(0, 20))
def test_a_proposal_is_a_part_of_the_earlier_answer(earlier, written, most):
    proposal = Draft(earlier, DRAFTS).propose(written, most)
    assert len(proposal) <= most
    begins = range(len(earlier) - len(proposal) + 1)
    assert any(earlier[begin : begin + len(proposal)] == proposal for begin in begins)


@given(answer=st.lists(st.integers(0, 5), min_size=1, max_size=60), window=st.integers(2, 16))
def test_the_gain_is_the_tokens_per_pass(answer, window):
    assert Draft(answer, DRAFTS).gain(answer, window, window) >= 1
    assert Draft([9] * 60, DRAFTS).gain(answer, window, window) == 1
    distinct = list(range(len(answer)))
    passes = -(-len(answer) // window)
    assert Draft(distinct, DRAFTS).gain(distinct, window, window) == len(answer) / passes


@given(one=ids, other=ids)
def test_agreed_counts_the_first_tokens_that_are_equal(one, other):
    count = agreed(one, other)
    assert one[:count] == other[:count]
    assert one[: count + 1] != other[: count + 1] or count == min(len(one), len(other))
