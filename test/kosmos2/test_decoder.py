# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rows that join and leave at any moment are written as each alone; boxes are well formed.

Also in the few shapes of a GPU, a step ahead, by graphs that stand for its own (tape.py).
"""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import Recorder

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.blocks import LITTLE, _gelu
from kosmos_ros.kosmos2.cuda_graphs import SIZES, Graphs
from kosmos_ros.kosmos2.decoder import LENGTHS, ROUND, Decoder, _Written
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grammar import CELLS, Grammar
from kosmos_ros.kosmos2.grounding import GRID
from kosmos_ros.kosmos2.query import Query
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


def with_graphs(graphs):
    """An engine whose decoder has `graphs`."""
    engine = Engine.load("shapes", device="cpu")
    with torch.inference_mode():
        decoder = Decoder(engine._model.text_model, engine._decoder._grammar, graphs)
    engine._decoder = decoder
    return engine


@pytest.fixture(scope="module")
def captured():
    """As on a GPU."""
    return with_graphs(Graphs(Recorder()))


def tapes(engine):
    return engine._decoder.graphs._recorder.tapes


def shapes(engine):
    """Of what is captured, by the function's name."""
    found = {}
    for name, *shape in engine._decoder.graphs._held:
        found.setdefault(name, set()).add(tuple(map(tuple_or_number, shape)))
    return found


def tuple_or_number(value):
    return tuple(value) if isinstance(value, torch.Size) else value


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(12)
    return [render(sample_scene(rng, 320, 240)) for _ in range(7)]


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


@settings(max_examples=8)
@given(joins=st.lists(st.integers(0, 4), max_size=20))
def test_rows_that_join_at_any_moment_are_written_as_each_alone(engine, queries, alone, joins):
    for query, answer, expected in zip(queries, run(engine, queries, joins), alone, strict=True):
        assert near(answer, expected), query.prompt


@pytest.mark.parametrize("replayed", [False, True])
def test_steps_of_fixed_shape_write_the_same(queries, alone, replayed):
    """Padded rows, reach and prompts."""
    recorder = Recorder() if replayed else None
    fixed = with_graphs(Graphs(recorder, fixed=True))
    ran, forward = set(), fixed._decoder._forward

    def _forward(count, reach, ragged):
        ran.add((count, reach))
        forward(count, reach, ragged)

    fixed._decoder._forward = _forward
    for answer, expected in zip(run(fixed, queries, [3, 0, 1, 2] * 3), alone, strict=True):
        assert near(answer, expected)
    assert not fixed._decoder._values[1:3].any()  # or rows that left would move on
    assert {count for count, _ in ran} <= {1, 2, 4, 8, 16, 32}
    assert all(reach % ROUND == 0 for _, reach in ran)
    assert len(ran) < 20
    if recorder:
        assert sum(tape.replays for tape in recorder.tapes) > len(recorder.tapes)


class Asker:
    """Follows a query, and stops it when it is asked for the `last` time."""

    def __init__(self, image, prompt, limit, stop, last):
        self.asked, self.seen, self.last = 0, [], last
        self.query = Query(image, prompt, limit, self.stopped, self.seen.append, stop)

    def stopped(self):
        self.asked += 1
        return self.asked == self.last

    def told(self):
        return [(step.ids, step.text) for step in self.seen]


ASKED = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, len(PROMPTS) - 1),
        st.integers(1, 40),
        st.sampled_from(["", "", "</object>", " a"]),
        st.one_of(st.none(), st.integers(1, 12)),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=25)
@given(asked=ASKED, joins=st.lists(st.integers(0, 3), max_size=12))
def test_a_step_ahead_nobody_hears_another_word(engine, captured, images, asked, joins):
    """Whatever ends a query, and whoever comes and goes meanwhile."""
    told = []
    for one in (engine, captured):
        askers = [
            Asker(images[image], PROMPTS[prompt], limit, stop, last)
            for image, prompt, limit, stop, last in asked
        ]
        answers = run(one, [asker.query for asker in askers], joins)
        assert not one._rows
        told.append((askers, answers))
    (askers, answers), (others, found) = told
    for asker, other in zip(askers, others, strict=True):
        assert (other.told(), other.asked) == (asker.told(), asker.asked)
    for answer, expected in zip(found, answers, strict=True):
        assert type(answer) is type(expected)
        if not isinstance(answer, CancelledError):
            assert near(answer, expected)
            assert answer.truncated == expected.truncated
            assert answer.location_scores == pytest.approx(expected.location_scores, abs=1e-4)


def test_the_next_step_begins_before_the_last_one_is_read(monkeypatch, engine, captured, images):
    events, read = [], _Written.read
    monkeypatch.setattr(_Written, "read", lambda self: events.append("read") or read(self))
    found = {}
    for one in (engine, captured):
        launch = one._decoder._launch
        monkeypatch.setattr(
            one._decoder, "_launch", lambda launch=launch: events.append("begun") or launch()
        )
        query = Query(images[0], PROMPTS[0], 3, stopped=lambda: events.append("asked"))
        one.generate_batch([query])
        found[one], events[:] = events[1:], []  # it is asked once before it begins
    assert found[engine] == ["begun", "read", "asked"] * 3
    assert found[captured] == ["begun", *["begun", "read", "asked"] * 3]


def test_who_joins_waits_for_no_step_but_the_one_under_way(captured, images):
    told = []
    one, two = (
        Query(images[0], PROMPTS[0], 6, progress=lambda step, name=name: told.append(name))
        for name in "ab"
    )
    captured.add([one])
    captured.step()
    captured.add([two])
    while captured._rows:
        captured.step()
    assert "".join(told) == "aa" + "ab" * 4 + "bb"


@pytest.mark.parametrize("count", range(1, 8))
def test_pictures_in_runs_of_fixed_size_are_seen_the_same(engine, captured, pictures, count):
    for turn in (pictures, pictures[::-1]):  # captured, and replayed
        found = captured.encode_batch(turn[:count])
        expected = engine.encode_batch(turn[:count])
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
            # Not a part of what it holds with others.
            assert one.untyped_storage().nbytes() == one.nbytes
    kept = [one.clone() for one in found]
    captured.encode_batch(pictures[:count])
    assert all(torch.equal(one, other) for one, other in zip(found, kept, strict=True))


@settings(max_examples=15)
@given(words=st.lists(st.integers(1, 90), min_size=1, max_size=7))
def test_padded_prompts_of_any_length_are_read_the_same(engine, captured, images, words):
    queries = [Query(images[n % 3], "word " * count, 3) for n, count in enumerate(words)]
    captured.clear()  # for a cache that is just large enough
    for answer, expected in zip(
        captured.generate_batch(queries), engine.generate_batch(queries), strict=True
    ):
        assert near(answer, expected)
    for shared, (count, length), rows in shapes(captured).get("_prefill_rows", ()):
        assert (shared, rows) == (len(captured._prefix), (count,))
        assert count in SIZES
        assert length in LENGTHS


def test_weights_are_shared_and_not_copied(engine):
    attention = engine._model.text_model.model.layers[0].self_attn
    storages = {
        part.weight.untyped_storage().data_ptr()
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    }
    assert len(storages) == 1


@pytest.mark.fault(43)
def test_what_is_not_finite_stays_in_its_row(engine, images):
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


def test_a_warm_engine_has_room_for_the_longest_caption(images):
    warm = with_graphs(Graphs(Recorder()))
    warm.warm_up(2, 300)
    made = len(tapes(warm))
    warm.generate_batch([Query(image, PROMPTS[0], 300) for image in images[:2]])
    assert len(tapes(warm)) == made
    warm.warm_up(1, 10**6)
    assert warm._decoder._cache.shape[2] == warm._context


@pytest.mark.parametrize("most", [1, 3, 6])
def test_a_warm_engine_captures_nothing_more(images, pictures, most):
    warm = with_graphs(Graphs(Recorder()))
    warm.warm_up(most)
    found, rows = shapes(warm), [size for size in (1, 2, 4, 8) if size < 2 * most]
    sizes = [size for size in SIZES if size <= most]
    side, shared = warm.info.image_size, len(warm._prefix)
    assert found == {
        "_forward": {(size, reach, True) for size in rows for reach in (128, 192, 256)},
        "_see": {((size, 3, side, side),) for size in sizes},
        "_prefill_rows": {
            (shared, (size, length), (size,)) for size in sizes for length in LENGTHS
        },
    }
    made = len(tapes(warm))
    assert made == sum(map(len, found.values()))
    texts = [PROMPTS[0], "<grounding>" * 60]
    for count in range(1, most + 1):
        encoded = warm.encode_batch(pictures[:count])
        for prompt in texts:
            warm.generate_batch([Query(image, prompt, 60) for image in encoded])
    assert len(tapes(warm)) == made


def test_what_uses_the_cache_is_captured_anew_when_it_is(images, pictures):
    one = with_graphs(Graphs(Recorder()))
    one.warm_up(3)
    made = len(tapes(one))
    expected = one.generate(images[0], PROMPTS[0], 30)
    one.add([Query(images[0], PROMPTS[0], 500) for _ in range(5)])
    assert one._decoder._cache.shape[1:3] == (8, 9 * ROUND)
    one.step()
    assert len(tapes(one)) > made
    made = len(tapes(one))
    one.encode(pictures[0])  # which needs no cache
    assert len(tapes(one)) == made
    one.clear()
    assert not shapes(one)
    assert near(one.generate(images[0], PROMPTS[0], 30), expected)


@pytest.mark.fault(30)
def test_without_graphs_answers_are_the_same(engine, images, caplog):
    recorder = Recorder()
    recorder.fails = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    one = with_graphs(Graphs(recorder))
    one.warm_up(2)
    for prompt in PROMPTS:
        assert near(one.generate(images[0], prompt, 40), engine.generate(images[0], prompt, 40))
    assert len(caplog.records) == 1


def test_rows_of_fixed_shape_reach_the_end_of_the_context(engine, captured, images):
    prompt = "<grounding>" * (1024 - 67 - 3)
    assert near(captured.generate(images[0], prompt, 90), engine.generate(images[0], prompt, 90))


def test_a_step_too_many_is_not_written_into_a_neighbour(engine, captured, images):
    """Where the last token fills the cache."""
    for one in (engine, captured):
        one.clear()
    limit = 1
    prompt = "<grounding>" * (3 * ROUND + 1 - limit - len(engine._prefix))
    queries = [Query(images[0], prompt, limit), Query(images[1], PROMPTS[0], 30)]
    expected = engine.generate_batch(queries)
    assert expected[0].truncated
    assert engine._decoder._cache.shape[2] == 3 * ROUND
    for answer, other in zip(captured.generate_batch(queries), expected, strict=True):
        assert near(answer, other)


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


def test_one_long_answer_leaves_what_was_warmed_up(images):
    captured = with_graphs(Graphs(Recorder()))
    decoder = captured._decoder
    captured.warm_up(2, 150)
    captured.generate(images[0], PROMPTS[0], 900)
    assert decoder._cache.shape[1:3] == (2, 16 * ROUND)
    vision = decoder.graphs._held.keys() & shapes_of(captured, "_see")
    captured.generate(images[0], PROMPTS[0], 4)
    assert decoder._cache.shape[1:3] == (2, 4 * ROUND)
    assert vision and vision == shapes_of(captured, "_see")


def shapes_of(engine, name):
    """What is captured of one function."""
    return {key for key in engine._decoder.graphs._held if key[0] == name}


def test_tidying_gives_back_what_long_answers_took_unless_rows_need_it(engine, images):
    engine.clear()
    engine.generate(images[0], PROMPTS[0], 900)
    engine.add([Query(images[0], PROMPTS[0], 3)])
    engine.tidy()
    assert engine._decoder._cache.shape[2] == 2 * ROUND
    engine.add([Query(images[0], PROMPTS[0], 900)])
    engine.tidy()
    assert engine._decoder._cache.shape[2] == 16 * ROUND
    while engine._rows:
        engine.step()
    engine.tidy()
    assert engine._decoder._cache.shape[1:3] == (1, ROUND)


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


@pytest.mark.parametrize("numbers", [1, LITTLE, LITTLE + 1])
def test_gelu_is_torchs_with_and_without_onednn(numbers):
    onednn, asked = torch.backends.mkldnn, torch.linspace(-6, 6, numbers)
    expected = 0.5 * asked * (1 + torch.erf(asked / 2**0.5))
    for enabled in (False, True):
        onednn.enabled = enabled
        torch.testing.assert_close(_gelu(asked), expected, atol=1e-6, rtol=1e-5)
        assert onednn.enabled == enabled
    with pytest.raises(RuntimeError):
        _gelu(torch.ones(3, dtype=torch.complex64))
    assert onednn.enabled
