# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ban on repetition bans the tokens that Hugging Face's generate bans."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import NoRepeatNGramLogitsProcessor

from kosmos_ros.kosmos2.grammar import CELLS, Grammar
from kosmos_ros.kosmos2.repetition import NoRepeat

CPU = torch.device("cpu")
WORDS = 4  # few, so that sequences repeat
PLACES = 30


def lowered(rule, *texts, words=WORDS, scores=None, places=PLACES):
    """The scores (rows, words) that the rule gives the tokens after each text."""
    rows = torch.tensor([[*ids, *[0] * (places - len(ids))] for ids in texts])
    newest = torch.tensor([[len(ids) - 1] for ids in texts])
    scores = torch.zeros(len(texts), words) if scores is None else scores
    return rule.restrict(scores.unsqueeze(1), rows, newest)[:, 0]


def banned(rule, *texts):
    """The banned tokens after each text."""
    return [set(torch.nonzero(row < 0)[:, 0].tolist()) for row in lowered(rule, *texts)]


def banned_by_hugging_face(size, ids):
    scores = NoRepeatNGramLogitsProcessor(size)(torch.tensor([ids]), torch.zeros(1, WORDS))
    return set(torch.nonzero(scores[0] < 0)[:, 0].tolist())


tokens = st.integers(0, WORDS - 1)


@settings(max_examples=500)
@given(
    size=st.one_of(st.integers(1, 5), st.integers(5, PLACES + 5)),
    texts=st.lists(st.lists(tokens, min_size=1, max_size=PLACES), min_size=1, max_size=4),
)
@pytest.mark.fault(87)
def test_the_tokens_are_banned_that_generate_bans(size, texts):
    """In generate, the places of an image and the prompt count, too."""
    assert banned(NoRepeat(size), *texts) == [banned_by_hugging_face(size, ids) for ids in texts]


@settings(max_examples=200)
@given(
    size=st.integers(1, 5),
    texts=st.lists(st.lists(tokens, min_size=9, max_size=9), min_size=1, max_size=3),
    first=st.integers(0, 5),
)
@pytest.mark.fault(87)
def test_each_place_counts_only_the_tokens_up_to_it(size, texts, first):
    places = range(first, first + 4)
    newest = torch.tensor([list(places)] * len(texts))
    found = NoRepeat(size).restrict(torch.zeros(len(texts), 4, WORDS), torch.tensor(texts), newest)
    for ids, row in zip(texts, found, strict=True):
        for place, scores in zip(places, row, strict=True):
            expected = banned_by_hugging_face(size, ids[: place + 1])
            assert set(torch.nonzero(scores < 0)[:, 0].tolist()) == expected


def test_the_models_scores_stay_as_they_are():
    scores = torch.randn(1, WORDS)
    before = scores.clone()
    lowered(NoRepeat(2), [2, 1, 2], scores=scores)
    assert torch.equal(scores, before)


OPEN, CLOSE, DELIMITER, FIRST = 0, 1, 2, 3
GRAMMAR = Grammar(FIRST + CELLS, OPEN, CLOSE, DELIMITER, range(FIRST, FIRST + CELLS), CPU)


def last_cell(count):
    """A text in which a box at the last cell of the grid begins `count` times."""
    box = [OPEN, FIRST + CELLS - 1, FIRST + CELLS - 1, CLOSE]
    return [*box * (count - 1), *box[:2]]


def both(order, text, scores):
    """The token after `text` under the ban and the grammar, one after the other."""
    for rule in order:
        scores = lowered(rule, text, scores=scores)
    return int(scores.argmax())


ORDERS = [(NoRepeat(3), GRAMMAR), (GRAMMAR, NoRepeat(3))]


@pytest.mark.parametrize("order", ORDERS)
def test_the_grammar_wins_where_the_ban_leaves_it_no_token(order):
    text, only = last_cell(2), FIRST + CELLS - 1
    scores = torch.randn(1, FIRST + CELLS)
    assert bool(lowered(NoRepeat(3), text, scores=scores)[0, only] < -1e29)
    assert both(order, text, scores) == only


@pytest.mark.parametrize("order", ORDERS)
def test_a_banned_corner_gives_way_to_the_next_best_one(order):
    """generate writes no box a second time, because its corners and tags would repeat."""
    box = [OPEN, FIRST + 40, FIRST + 80]
    scores = torch.zeros(1, FIRST + CELLS)
    scores[0, [CLOSE, FIRST + 7, FIRST + 80, FIRST + 81]] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    assert both(order, [*box, CLOSE, *box[:2]], scores) == FIRST + 81
