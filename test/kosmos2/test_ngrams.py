# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The usual next tokens are proposed, with about the probability that they are right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.kosmos2.ngrams import DOUBT, LENGTH, MAX_SEQUENCES, MIN_PROBABILITY, RECENT, Ngrams

CELLS = range(1000, 1010)  # tokens of locations; words are smaller
tokens = st.lists(st.one_of(st.integers(0, 5), st.sampled_from(CELLS)), max_size=20)


def learned(*answers, before=()):
    ngrams = Ngrams(CELLS)
    for answer in answers:
        ngrams.learn(before, answer)
    return ngrams


def proposed(ngrams, last, most=15):
    return [token for token, _ in ngrams.following(last, most)]


def test_what_followed_before_is_proposed_with_the_probability_of_all_of_it():
    ngrams = learned(*[[1, 2, 3]] * 4)
    share = 4 / (4 + DOUBT)
    assert ngrams.following([1], 15) == [(2, share), (3, pytest.approx(share**2))]
    assert ngrams.following([1], 1) == [(2, share)]
    assert ngrams.following([7], 15) == []


def test_a_single_occurrence_gives_a_low_probability():
    ((token, right),) = learned([1, 2]).following([1], 15)
    assert (token, right) == (2, 1 / 3)


def test_the_longest_known_sequence_counts():
    ngrams = learned(*[[5, 2, 3, 6], [5, 2, 3, 6], [1, 2, 3, 4]] * 3)
    assert proposed(ngrams, [1, 2, 3], 1) == [4]
    assert proposed(ngrams, [5, 2, 3], 1) == [6]
    assert proposed(ngrams, [9, 2, 3], 1) == [6]  # in two of three cases


def test_all_locations_are_alike_and_none_is_proposed():
    ngrams = learned(*[[1, CELLS[n], CELLS[n + 1], 2] for n in range(4)])
    assert proposed(ngrams, [1]) == []
    assert proposed(ngrams, [1, CELLS[8], CELLS[5]]) == [2]


def test_an_answer_begins_as_others_did_after_such_a_prompt():
    ngrams = learned([3, 4], [3, 4], [3, 4], before=[9, 8, 7])
    assert proposed(ngrams, [9, 8, 7]) == [3, 4]
    assert proposed(ngrams, [8]) == []  # the prompt itself is not learned


def test_another_token_takes_over_when_scenes_change():
    ngrams, changed = learned(*[[1, 2]] * 200), 0
    while proposed(ngrams, [1], 1) != [3] and changed < 10 * RECENT:
        ngrams.learn([], [1, 3])
        changed += 1
    assert 1 < changed < 3 * RECENT
    assert ngrams.following([1], 1)[0][1] < 0.5


def test_old_sequences_are_forgotten():
    ngrams = learned([1, 2], [1, 2])
    for start in range(10_000, 10_000 + 2 * MAX_SEQUENCES, 10):
        ngrams.learn([], range(start, start + 10))
        assert len(ngrams._next) <= MAX_SEQUENCES
    assert proposed(ngrams, [1]) == []
    assert proposed(ngrams, [start], 1) == [start + 1]


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_the_probabilities_are_about_the_shares_of_right_tokens(share):
    rng = np.random.default_rng(4)
    ngrams = Ngrams(CELLS)
    estimates = []
    for word in rng.choice([2, 3, 4], 2000, p=[share, (1 - share) / 2, (1 - share) / 2]):
        estimates += [right for token, right in ngrams.following([1], 1) if token == 2]
        ngrams.learn([], [1, int(word)])
    assert np.mean(estimates[100:]) == pytest.approx(share, abs=0.1)


@given(answers=st.lists(tokens, max_size=8), last=tokens, most=st.integers(0, 15))
def test_proposals_are_likely_known_words(answers, last, most):
    found = learned(*answers).following(last[-LENGTH:], most)
    assert len(found) <= most
    rights = [right for _, right in found]
    assert rights == sorted(rights, reverse=True)
    assert all(MIN_PROBABILITY <= right < 1 for right in rights)
    assert {token for token, _ in found} <= {token for answer in answers for token in answer[1:]}
    assert not {token for token, _ in found} & set(CELLS)
