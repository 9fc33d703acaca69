# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ban on repetition bans the tokens that Hugging Face's generate bans."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import NoRepeatNGramLogitsProcessor

from kosmos_ros.kosmos2.grammar import CELLS, Grammar
from kosmos_ros.kosmos2.repetition import NoRepeat

CPU = torch.device("cpu")
WORDS = 4  # few, so that sequences repeat
PLACES = 24


def banned(rule, rows, words=WORDS):
    """The banned tokens of each row."""
    lowered = rule.restrict(torch.zeros(rows, words)) < 0
    return [set(torch.nonzero(row)[:, 0].tolist()) for row in lowered]


def banned_by_hugging_face(size, ids, words=WORDS):
    scores = NoRepeatNGramLogitsProcessor(size)(torch.tensor([ids]), torch.zeros(1, words))
    return set(torch.nonzero(scores[0] < 0)[:, 0].tolist())


def rule_after(size, *texts, prefix=(0, 1)):
    rule = NoRepeat(size, prefix, WORDS, CPU)
    rule.resize(len(texts), PLACES)
    rule.join(0, texts)
    return rule


tokens = st.integers(0, WORDS - 1)
prompt_lists = st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=300)
@given(
    size=st.one_of(st.integers(1, 5), st.integers(5, PLACES + 5)),
    prefix=st.lists(tokens, min_size=4, max_size=5),
    prompts=prompt_lists,
    written=st.lists(st.lists(tokens, min_size=4, max_size=4), max_size=12),
)
@pytest.mark.fault(87)
def test_every_step_bans_the_tokens_that_generate_bans(size, prefix, prompts, written):
    rule = rule_after(size, *prompts, prefix=prefix)
    rows = [[*prefix, *prompt] for prompt in prompts]
    for step in written:
        assert banned(rule, len(rows)) == [banned_by_hugging_face(size, row) for row in rows]
        rule.advance(torch.tensor(step[: len(rows)]))
        for row, token in zip(rows, step, strict=False):
            row.append(token)


def test_the_image_and_the_prompt_count():
    """In generate, the places of an image are tokens, too."""
    rule = rule_after(3, [2, 0, 1], prefix=(0, 1, 3))
    assert banned(rule, 1) == [{3}]


class Model:
    """Rows that join, leave and write: the rule's rows and their texts."""

    def __init__(self, size):
        self.size, self.prefix, self.texts = size, [0, 1], []
        self.rule, self.room = NoRepeat(size, self.prefix, WORDS, CPU), (0, 0)

    def resize(self, rows, places):
        self.room = (rows, places)
        self.rule.resize(rows, places)

    def join(self, prompts):
        first = len(self.texts)
        self.texts += [[*self.prefix, *prompt] for prompt in prompts]
        needed = (len(self.texts), max(map(len, self.texts)) + 1)
        if needed[0] > self.room[0] or needed[1] > self.room[1]:
            self.resize(*map(max, needed, self.room))
        self.rule.join(first, prompts)

    def leave(self, row):
        row %= len(self.texts)
        self.rule.leave(row, len(self.texts) - 1)
        self.texts[row] = self.texts[-1]
        self.texts.pop()
        if not self.texts:
            self.resize(1, 4)  # as Decoder.shrink does

    def write(self, step):
        if max(map(len, self.texts)) + 1 > self.room[1]:
            self.resize(self.room[0], self.room[1] + 3)
        # Rows that no prompt has joined also step.
        spare = self.room[0] - len(self.texts)
        self.rule.advance(torch.tensor([*step[: len(self.texts)], *[0] * spare]))
        for row, token in zip(self.texts, step, strict=False):
            row.append(token)

    def check(self):
        assert banned(self.rule, len(self.texts)) == [
            banned_by_hugging_face(self.size, row) for row in self.texts
        ]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("join"),
            st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=1, max_size=3),
        ),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("write"), st.lists(tokens, min_size=12, max_size=12)),
    ),
    max_size=20,
)


@settings(max_examples=150)
@given(size=st.integers(1, 4), actions=ACTIONS)
def test_each_row_keeps_its_own_text_when_others_join_or_leave(size, actions):
    model = Model(size)
    for name, value in actions:
        if name == "join":
            if len(model.texts) + len(value) <= 12:
                model.join(value)
        elif model.texts:
            getattr(model, name)(value)
        if model.texts:
            model.check()


def test_the_models_scores_stay_as_they_are():
    scores = torch.randn(1, WORDS)
    before = scores.clone()
    rule_after(2, [2, 1, 2]).restrict(scores)
    assert torch.equal(scores, before)


OPEN, CLOSE, DELIMITER, FIRST = 0, 1, 2, 3
GRAMMAR = Grammar(FIRST + CELLS, OPEN, CLOSE, DELIMITER, range(FIRST, FIRST + CELLS), CPU)


def last_cell(count):
    """A text in which a box at the last cell of the grid begins `count` times."""
    box = [OPEN, FIRST + CELLS - 1, FIRST + CELLS - 1, CLOSE]
    return [*box * (count - 1), *box[:2]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_grammar_wins_where_the_ban_leaves_it_no_token(order):
    text, only = last_cell(2), FIRST + CELLS - 1
    ban = NoRepeat(3, [FIRST], FIRST + CELLS, CPU)
    grammar = copy.copy(GRAMMAR)
    for rule in (ban, grammar):
        rule.resize(1, 40)
        rule.join(0, [text])
    scores = torch.randn(1, FIRST + CELLS)
    assert bool(ban.restrict(scores)[0, only] < -1e29)
    for place in order:
        scores = (ban, grammar)[place].restrict(scores)
    assert int(scores.argmax()) == only


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_banned_corner_gives_way_to_the_next_best_one(order):
    """generate writes no box a second time, because its corners and tags would repeat."""
    box = [OPEN, FIRST + 40, FIRST + 80]
    ban, grammar = NoRepeat(3, [FIRST], FIRST + CELLS, CPU), copy.copy(GRAMMAR)
    for rule in (ban, grammar):
        rule.resize(1, 40)
        rule.join(0, [[*box, CLOSE, *box[:2]]])
    scores = torch.zeros(1, FIRST + CELLS)
    scores[0, [CLOSE, FIRST + 7, FIRST + 80, FIRST + 81]] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    for place in order:
        scores = (ban, grammar)[place].restrict(scores)
    assert int(scores.argmax()) == FIRST + 81
