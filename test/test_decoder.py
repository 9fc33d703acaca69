# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rows that join and leave at any moment are written as each alone; boxes are well formed."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos_ros import prompts
from kosmos_ros.decoder import ROUND, Decoder
from kosmos_ros.engine import Engine
from kosmos_ros.grammar import CELLS, Grammar
from kosmos_ros.grounding import GRID, Query
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PROMPTS = [
    prompts.caption("brief_caption").text,
    prompts.caption("detailed_caption").text,
    prompts.phrase_grounding("a red circle").text,
    prompts.region_description((44, 863)).text,
    prompts.question("How many shapes are there?", grounded=False).text,
]


@pytest.fixture(scope="module")
def engine():
    return Engine.load("shapes", device="cpu")


@pytest.fixture(scope="module")
def images(engine):
    rng = np.random.default_rng(8)
    return engine.encode_batch([render(sample_scene(rng, 320, 240)) for _ in range(3)])


@pytest.fixture(scope="module")
def queries(images):
    rng = np.random.default_rng(9)
    return [
        Query(images[rng.integers(3)], PROMPTS[rng.integers(5)], int(rng.integers(1, 60)))
        for _ in range(30)
    ]


@pytest.fixture(scope="module")
def alone(engine, queries):
    return [engine.generate_batch([query])[0] for query in queries]


def near(one, other):
    return one.ids == other.ids and one.score == pytest.approx(other.score, abs=1e-4)


def run(engine, queries, joins):
    """Answers of queries of which `joins` come before each step."""
    left, answers = list(queries), {}
    for count in joins:
        engine.add(left[:count])
        del left[:count]
        answers.update(engine.step())
    engine.add(left)
    while len(answers) < len(queries):
        answers.update(engine.step())
    return [answers[query] for query in queries]


@settings(max_examples=8, deadline=None)
@given(joins=st.lists(st.integers(0, 4), max_size=20))
def test_rows_that_join_at_any_moment_are_written_as_each_alone(engine, queries, alone, joins):
    for query, answer, expected in zip(queries, run(engine, queries, joins), alone, strict=True):
        assert near(answer, expected), query.prompt


def test_steps_of_fixed_shape_write_the_same(engine, queries, alone):
    """As on a GPU, without the capture: padded rows, reach and prompts."""
    grammar = engine._decoder._grammar
    fixed = Engine.load("shapes", device="cpu")
    fixed._decoder = Decoder(fixed._model.text_model, grammar, static=True)
    shapes = set()
    forward = fixed._decoder._forward

    def noted(count, reach, ragged):
        shapes.add((count, reach))
        forward(count, reach, ragged)

    fixed._decoder._forward = noted
    for answer, expected in zip(run(fixed, queries, [3, 0, 1, 2] * 3), alone, strict=True):
        assert near(answer, expected)
    assert not fixed._decoder._values[1:3].any()  # or rows that left would move on
    assert {count for count, _ in shapes} <= {1, 2, 4, 8, 16, 32}
    assert all(reach % ROUND == 0 for _, reach in shapes)
    assert len(shapes) < 20


def test_weights_are_shared_and_not_copied(engine):
    attention = engine._model.text_model.model.layers[0].self_attn
    storages = {
        part.weight.untyped_storage().data_ptr()
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    }
    assert len(storages) == 1


def test_fault_43_what_is_not_finite_stays_in_its_row(engine, images):
    """And does not reach a shorter one that takes its place, beside a longer one."""
    broken = Query(torch.full_like(images[0], float("nan")), "word " * 40, 20)
    short, long = Query(images[1], PROMPTS[0], 20), Query(images[1], "word " * 30, 20)
    expected = engine.generate_batch([short, long])
    engine.clear()
    engine.add([broken])
    ((_, error),) = engine.step()
    assert "not finite" in str(error)
    found = run(engine, [short, long], [1, 1])
    assert all(near(one, other) for one, other in zip(found, expected, strict=True))


def test_a_step_is_captured_anew_when_its_buffers_are(engine, images):
    decoder = Decoder(engine._model.text_model, static=True)
    decoder._run = lambda *_: None
    decoder.warm_up(3, 200)
    assert (decoder._cache.shape[1:3], len(decoder._values[0])) == ((4, 256), 4)
    decoder._graphs[4, 256] = object()
    decoder.warm_up(4, 256)
    assert decoder._graphs
    decoder.warm_up(5, 200)
    assert not decoder._graphs


def test_all_steps_that_may_come_are_made_at_once(engine):
    decoder, made = Decoder(engine._model.text_model, static=True), set()
    decoder._run = lambda *shape: made.add(shape)
    decoder.warm_up(6, 200)
    assert made == {(size, reach) for size in (1, 2, 4, 8) for reach in (64, 128, 192, 256)}


def test_rows_of_fixed_shape_reach_the_end_of_the_context(engine, images):
    fixed = Engine.load("shapes", device="cpu")
    fixed._decoder = Decoder(fixed._model.text_model, fixed._decoder._grammar, static=True)
    prompt = "<grounding>" * (1024 - 67 - 3)
    assert near(fixed.generate(images[0], prompt, 90), engine.generate(images[0], prompt, 90))


def test_the_cache_goes_when_all_rows_are_let_go(engine, images):
    engine.clear()
    engine.add([Query(images[0], PROMPTS[0], 500) for _ in range(9)])
    assert engine._decoder._cache.shape[1:3] == (16, 9 * ROUND)
    engine.clear()
    assert not engine._rows
    assert engine._decoder._cache.shape[1:3] == (1, ROUND)
    assert engine.generate(images[0], PROMPTS[0], 5).tokens == 5


def test_one_long_answer_does_not_keep_its_memory(engine, images):
    engine.generate(images[0], PROMPTS[0], 900)
    assert engine._decoder._cache.shape[2] == 16 * ROUND
    engine.generate(images[0], PROMPTS[0], 40)
    assert engine._decoder._cache.shape[2] == 2 * ROUND


OPEN, CLOSE, DELIMITER, WORD, LOCATIONS = 3, 4, 5, 6, range(10, 10 + CELLS)
GRAMMAR = Grammar(10 + CELLS, OPEN, CLOSE, DELIMITER, LOCATIONS, torch.device("cpu"))
NAMES = {OPEN: "<", CLOSE: ">", DELIMITER: "|", WORD: "w"}


@given(st.integers(0, 2**32 - 1))
def test_what_is_written_under_the_grammar_is_well_formed(seed):
    generator = torch.Generator().manual_seed(seed)
    # Tags are likely, or hardly any box would be begun.
    liking = torch.zeros(10 + CELLS)
    liking[[OPEN, CLOSE, DELIMITER]] = 6.0
    state, ids = torch.zeros(1, dtype=torch.long), []
    for _ in range(40):
        logits = torch.randn(10 + CELLS, generator=generator) + liking + GRAMMAR.bias(state)[0]
        token = logits.argmax()[None]
        ids.append(int(token))
        state = GRAMMAR.next(state, token)
        assert GRAMMAR.after(ids) == int(state)
    text = "".join(NAMES.get(token, "L" if token >= 10 else "w") for token in ids)
    whole, begun = r"(?:[w>L]|[<|]LL(?:[|]LL)*>)*", r"(?:[<|](?:LL[|])*L{0,2})?"
    assert re.fullmatch(whole + begun, text), text
    for place in (match.start() for match in re.finditer(r"(?<=[<|])LL", text)):
        one, two = (ids[place + step] - 10 for step in (0, 1))
        assert two // GRID >= one // GRID
        assert two % GRID >= one % GRID


@pytest.mark.parametrize(
    ("ids", "allowed"),
    [
        ([WORD], None),
        ([OPEN], set(LOCATIONS)),
        (
            [OPEN, 10 + 5 * GRID + 7],
            {10 + r * GRID + c for r in range(5, 32) for c in range(7, 32)},
        ),
        ([OPEN, 10, 10], {CLOSE, DELIMITER}),
        ([OPEN, 10, 10, DELIMITER], set(LOCATIONS)),
        ([OPEN, 10, 10, CLOSE], None),
        ([10, 10], None),
    ],
)
def test_what_may_follow(ids, allowed):
    bias = GRAMMAR.bias(torch.tensor([GRAMMAR.after(ids)]))[0]
    found = set(torch.nonzero(bias == 0)[:, 0].tolist())
    assert found == (allowed or set(range(10 + CELLS)))
