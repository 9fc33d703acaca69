# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A row writes the same tokens alone and beside rows that join and leave at any moment.

It also writes the same ones with drafts, whatever the drafts are. The tests also run the decoder
as on a GPU: in few shapes, one step ahead, with recorded steps (tape.py).
"""

import contextlib
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import Recorder
from torch.nn import functional

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2 import decoder as decoder_module
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.cuda_graphs import RUN_SIZES, Graphs
from kosmos_ros.kosmos2.decoder import PADDED_LENGTHS, Decoder, EncodedImage
from kosmos_ros.kosmos2.engine import DRAFT_COST, Engine, _likely_tokens
from kosmos_ros.kosmos2.grammar import CELLS, Grammar
from kosmos_ros.kosmos2.grounding import GRID
from kosmos_ros.kosmos2.passes import WINDOW
from kosmos_ros.kosmos2.query import Earlier, Query
from kosmos_ros.kosmos2.rows import CACHE_STEP
from kosmos_ros.kosmos2.written import Written
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PROMPTS = [
    prompts.caption("brief_caption").text,
    prompts.caption("detailed_caption").text,
    prompts.phrase_grounding("a red circle").text,
    prompts.region_description((44, 863)).text,
    prompts.question("How many shapes are there?", grounded=False).text,
]


COST = DRAFT_COST["cpu"][1]  # of one row


@pytest.fixture(scope="module")
def engine():
    return Engine.load("shapes", device="cpu")


@pytest.fixture(scope="module")
def learning():
    return Engine.load("shapes", device="cpu", ngrams=True)


def with_graphs(graphs, rules=(), **options):
    """An engine whose decoder has `graphs`, and `rules` after those of the engine."""
    engine = Engine.load("shapes", device="cpu", **options)
    with torch.inference_mode():
        old = engine._decoder
        passes, model = old._passes, engine.model.text_model
        rules = (*passes._rules, *rules)
        engine._decoder = Decoder(
            model, old._prefix, passes._image, rules, graphs, passes._neighbours
        )
    return engine


@pytest.fixture(scope="module")
def recorded():
    """An engine that works as on a GPU."""
    return with_graphs(Graphs(Recorder()))


def tapes(engine):
    return engine._decoder.graphs._recorder.tapes


def shapes(engine):
    """The shapes of the recorded runs, by the function's name."""
    found = {}
    for name, *shape in engine._decoder.graphs._recorded:
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
    return (
        one.ids == other.ids
        and one.score == pytest.approx(other.score, abs=1e-4)
        and len(one.location_points) == len(other.location_points)
        and np.allclose(one.location_points, other.location_points, atol=1e-4)
    )


def run(engine, queries, joins):
    """The answers to `queries`, of which `joins[n]` join before step n and the rest after."""
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
def test_a_row_writes_the_same_tokens_whenever_others_join(engine, queries, alone, joins):
    for query, answer, expected in zip(queries, run(engine, queries, joins), alone, strict=True):
        assert near(answer, expected), query.prompt


@pytest.mark.parametrize("replayed", [False, True])
def test_steps_of_fixed_shape_write_the_same_tokens(queries, alone, replayed):
    """Rows, attention and prompts are padded."""
    recorder = Recorder() if replayed else None
    fixed = with_graphs(Graphs(recorder, fixed=True))
    passes, ran = fixed._decoder._passes, set()
    run_next = passes.next

    def next(count, reach, ragged, drafts):
        ran.add((count, reach))
        return run_next(count, reach, ragged, drafts)

    passes.next = next
    for answer, expected in zip(run(fixed, queries, [3, 0, 1, 2] * 3), alone, strict=True):
        assert near(answer, expected)
    assert not fixed._decoder._rows.state.any()  # positions of removed rows must not move
    assert {count for count, _ in ran} <= {1, 2, 4, 8, 16, 32}
    assert all(reach % CACHE_STEP == 0 for _, reach in ran)
    assert len(ran) < 20
    if recorder:
        assert sum(tape.replays for tape in recorder.tapes) > len(recorder.tapes)


@pytest.mark.parametrize("reach", [64, 83, 131])
def test_the_rows_of_a_mask_are_aligned(engine, reach):
    """To 8 numbers of 16 bits at least, or torch's attention on a GPU copies it in each layer."""
    newest = torch.tensor([[3, 4], [reach - 2, reach - 1]])
    mask = engine._decoder._passes._mask(newest, reach)
    assert mask.shape == (2, 1, 2, reach)
    assert all(step % 16 == 0 for step in mask.stride()[:-1]) and mask.stride()[-1] == 1
    seen = torch.arange(reach) <= newest.unsqueeze(2)
    assert torch.equal(mask.squeeze(1) == 0, seen)
    assert torch.equal(mask.squeeze(1) == -torch.inf, ~seen)


def test_only_passes_of_unpadded_prompts_may_have_any_shape(images, monkeypatch):
    fixed, entered = with_graphs(Graphs(Recorder())), []

    @contextlib.contextmanager
    def any_shape(device):
        entered.append(device)
        yield

    monkeypatch.setattr(decoder_module, "any_shape", any_shape)
    for words, count in ((1, 0), (max(PADDED_LENGTHS) + 1, 1)):
        fixed.generate(images[0], "<grounding>" + " a" * words, 2)
        assert len(entered) == count, words


@pytest.mark.parametrize(
    ("device", "quantization", "rows", "cost"),
    [
        ("cpu", "int8", 1, 3.0),
        ("cpu", "none", 9, 6.5),
        ("cuda", "none", 1, 2.0),
        ("cuda", "none", 5, 2.2),
        ("cuda", "int8", 1, 2.4),
        ("cuda", "nf4", 8, 1.5),
    ],
)
def test_the_cost_of_drafts_depends_on_the_device_and_the_weights(
    engine, monkeypatch, device, quantization, rows, cost
):
    monkeypatch.setattr(engine, "_device", torch.device(device))
    monkeypatch.setattr(engine, "info", replace(engine.info, quantization=quantization))
    assert engine._draft_cost(rows) == cost


def drafted(query, answer, kind, rng):
    """The query with an earlier answer: the right one, a changed one, or any tokens."""
    ids = np.array(answer.ids)
    changed = rng.random(len(ids)) < {"right": 0.0, "changed": 0.2, "any": 1.0}[kind]
    ids[changed] = rng.integers(1492, size=changed.sum())
    keep = int(rng.integers(len(ids) + 1)) if kind == "changed" else len(ids)
    return replace(query, earlier=Earlier(tuple(ids.tolist())[:keep]))


@pytest.mark.parametrize("graphs", [None, Graphs(fixed=True), Graphs(Recorder())])
@settings(max_examples=6)
@given(joins=st.lists(st.integers(0, 4), max_size=20), seed=st.integers(0, 99))
def test_drafts_change_no_answer(queries, alone, graphs, joins, seed):
    """In batches of rows with and without drafts."""
    one = with_graphs(graphs)
    rng = np.random.default_rng(seed)
    asked = []
    for query, answer in zip(queries, alone, strict=True):
        kind = rng.choice(["none", "right", "changed", "any"])
        asked.append(query if kind == "none" else drafted(query, answer, kind, rng))
    for query, answer, expected in zip(asked, run(one, asked, joins), alone, strict=True):
        assert near(answer, expected), query.prompt
    assert not one._decoder._rows.state.any()


@pytest.mark.parametrize("words", range(42, 57, 2))
def test_no_pass_begins_before_a_draft_of_unknown_length_is_read(engine, recorded, images, words):
    """Where drafts pay for a joining row, but not for the whole batch."""
    prompt = "word " * words
    expected = engine.generate(images[0], prompt, 24)
    plain = [Query(image, PROMPTS[1], 30) for image in images]
    query = Query(images[0], prompt, 24, earlier=Earlier(expected.ids, COST + 1))
    found = run(recorded, [*plain, query], [3, 1])
    assert near(found[-1], expected)
    for answer, other in zip(found, engine.generate_batch(plain), strict=False):
        assert near(answer, other)


@pytest.mark.parametrize("graphs", [None, Graphs(Recorder())])
def test_rules_hold_in_a_draft(queries, graphs):
    """A ban on repetition depends on all tokens before, those of the draft included."""
    options = {"no_repeat_ngram_size": 2}
    plain, other = with_graphs(None, **options), with_graphs(graphs, **options)
    rng = np.random.default_rng(5)
    for query in queries:
        (expected,) = plain.generate_batch([query])
        for kind in ("right", "changed"):
            (answer,) = other.generate_batch([drafted(query, expected, kind, rng)])
            assert near(answer, expected)


@pytest.mark.parametrize("graphs", [None, Graphs(Recorder())])
def test_a_right_draft_gives_an_answer_in_few_passes(engine, images, graphs, monkeypatch):
    one, passes = with_graphs(graphs), []
    expected = engine.generate(images[0], PROMPTS[1], 60)
    launch = one._decoder._launch
    monkeypatch.setattr(
        one._decoder, "_launch", lambda drafts: passes.append(drafts) or launch(drafts)
    )
    query = Query(images[0], PROMPTS[1], 60, earlier=Earlier(expected.ids))
    (answer,) = one.generate_batch([query])
    assert near(answer, expected)
    assert 1 + len(passes) == -(-len(expected.ids) // WINDOW)
    after_first = max(len(expected.ids) - one._decoder.first_window(1), 0)
    assert answer.gain == len(expected.ids) / (1 + -(-after_first // WINDOW))
    assert all(0 < len(draft) < WINDOW for (draft,) in passes)


@pytest.mark.parametrize(("rows", "window"), [(1, 64), (2, 32), (3, 21), (4, 16), (8, 16)])
def test_a_first_pass_of_any_shape_checks_a_whole_caption(engine, recorded, images, rows, window):
    assert engine._decoder.first_window(rows) == window
    assert recorded._decoder.first_window(rows) == WINDOW
    expected = engine.generate(images[0], PROMPTS[1], 60)
    query = Query(images[0], PROMPTS[1], 60, earlier=Earlier(expected.ids, 60.0))
    engine.add([query, *[replace(query) for _ in range(rows - 1)]])
    engine.step()
    written = [60 - row.left for row in engine._rows]
    assert written == [window] * (rows if len(expected.ids) > window else 0)
    while engine._rows:
        engine.step()


@pytest.mark.parametrize(
    ("gain", "tokens"), [(math.inf, 15), (60.0, 95), (12.0, 18), (4.0, 5), (2.0, 2), (1.0, 0)]
)
def test_a_first_pass_has_the_tokens_that_are_probably_right(gain, tokens):
    assert _likely_tokens(gain) == tokens


def test_drafts_that_do_not_pay_are_not_used(engine, images, monkeypatch):
    passes, launch = [], engine._decoder._launch
    monkeypatch.setattr(
        engine._decoder, "_launch", lambda drafts: passes.append(drafts) or launch(drafts)
    )
    expected = engine.generate(images[0], PROMPTS[1], 60)
    for gain, uses in ((0.9 * COST, False), (1.1 * COST, True)):
        passes.clear()
        query = Query(images[0], PROMPTS[1], 60, earlier=Earlier(expected.ids, gain))
        (answer,) = engine.generate_batch([query])
        assert any(passes) == uses
        assert (answer.ids, answer.gain > COST) == (expected.ids, True)


@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_what_usually_follows_saves_passes_and_changes_no_answer(engine, monkeypatch, prompt):
    learning, passes, begun = Engine.load("shapes", device="cpu", ngrams=True), [], []
    launch, join = learning._decoder._launch, learning._decoder.join
    monkeypatch.setattr(
        learning._decoder, "_launch", lambda drafts: passes.append(drafts) or launch(drafts)
    )
    monkeypatch.setattr(learning._decoder, "join", lambda rows: begun.extend(rows) or join(rows))
    rng, shares = np.random.default_rng(14), []
    for image in engine.encode_batch([render(sample_scene(rng, 320, 240)) for _ in range(30)]):
        expected = engine.generate(image, prompt, 60)
        passes.clear()
        assert near(learning.generate(image, prompt, 60), expected)
        shares.append((1 + len(passes)) / len(expected.ids))
        right = [one == other for one, other in zip(begun[-1].draft, expected.ids, strict=False)]
    assert not begun[0].draft
    assert shares[0] == 1.0
    assert any(right)  # in the first pass
    assert np.mean(shares[-10:]) < 0.7


def test_only_float32_engines_have_ngrams(engine, learning):
    assert learning._ngrams and not engine._ngrams
    for options in ({"dtype": "bfloat16"}, {"quantization": "int8"}):
        assert Engine.load("shapes", device="cpu", ngrams=True, **options)._ngrams is None


@settings(max_examples=25)
@given(joins=st.lists(st.integers(0, 3), max_size=12), seed=st.integers(0, 10))
def test_ngrams_change_no_answer_whenever_rows_join(learning, queries, alone, joins, seed):
    rng = np.random.default_rng(seed)
    mixed = [
        drafted(query, answer, "changed", rng) if rng.random() < 0.3 else replace(query)
        for query, answer in zip(queries, alone, strict=True)
    ]
    for answer, expected in zip(run(learning, mixed, joins), alone, strict=True):
        assert near(answer, expected)


@pytest.mark.parametrize(
    ("rights", "width"),
    [
        ([[]], 1),
        ([[1.0]], 2),
        ([[0.5]], 1),  # the pass takes longer than it saves
        ([[0.5, 0.5, 0.5]], 4),
        ([[1.0] * 15], 16),
        ([[1.0] * 3 + [0.15] * 12], 4),
        ([[1.0, 1.0], [], [], []], 1),  # three rows would gain nothing
        ([[1.0, 1.0], [1.0, 1.0], [1.0], []], 3),
    ],
)
def test_a_pass_has_as_many_tokens_as_pay(engine, rights, width):
    following = [[(7, right) for right in each] for each in rights]
    best, rate = engine._best_width(following)
    assert (best, rate > 1.0) == (width, width > 1)


class Client:
    """Records the progress of a query and stops it at the call number `last` of `stopped`."""

    def __init__(self, image, prompt, limit, stop, last):
        self.asked, self.seen, self.last = 0, [], last
        self.query = Query(image, prompt, limit, self.stopped, self.seen.append, stop)

    def stopped(self):
        self.asked += 1
        return self.asked == self.last

    def received(self):
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
def test_running_a_step_ahead_changes_no_progress_and_no_answer(
    engine, recorded, images, asked, joins
):
    results = []
    for one in (engine, recorded):
        clients = [
            Client(images[image], PROMPTS[prompt], limit, stop, last)
            for image, prompt, limit, stop, last in asked
        ]
        answers = run(one, [client.query for client in clients], joins)
        assert not one._rows
        results.append((clients, answers))
    (clients, answers), (others, found) = results
    for client, other in zip(clients, others, strict=True):
        assert (other.received(), other.asked) == (client.received(), client.asked)
    for answer, expected in zip(found, answers, strict=True):
        assert type(answer) is type(expected)
        if not isinstance(answer, CancelledError):
            assert near(answer, expected)
            assert answer.truncated == expected.truncated
            assert answer.location_scores == pytest.approx(expected.location_scores, abs=1e-4)


def test_a_step_begins_before_the_previous_one_is_read(monkeypatch, engine, recorded, images):
    events, read = [], Written.read
    monkeypatch.setattr(Written, "read", lambda self: events.append("read") or read(self))
    found = {}
    for one in (engine, recorded):
        launch = one._decoder._launch
        monkeypatch.setattr(
            one._decoder,
            "_launch",
            lambda drafts, launch=launch: events.append("begun") or launch(drafts),
        )
        query = Query(images[0], PROMPTS[0], 3, stopped=lambda: events.append("asked"))
        one.generate_batch([query])
        found[one], events[:] = events[1:], []  # `stopped` is called once before the first step
    # The first pass began when the row joined.
    assert found[engine] == ["read", "asked", *["begun", "read", "asked"] * 2]
    # No pass follows the one that writes the last token of the row's limit.
    assert found[recorded] == ["begun", "read", "asked"] * 2 + ["read", "asked"]
    events.clear()
    recorded.generate_batch([Query(images[0], PROMPTS[0], limit) for limit in (1, 3)])
    assert events == ["begun", "read"] * 2 + ["read"]


def test_a_joining_row_waits_only_for_the_current_step(recorded, images):
    events = []
    one, two = (
        Query(images[0], PROMPTS[0], 6, progress=lambda step, name=name: events.append(name))
        for name in "ab"
    )
    recorded.add([one])
    recorded.step()
    recorded.add([two])
    while recorded._rows:
        recorded.step()
    assert "".join(events) == "a" + "ab" * 5 + "b"


@pytest.mark.parametrize("count", range(1, 8))
def test_images_in_runs_of_fixed_size_encode_the_same(engine, recorded, pictures, count):
    for turn in (pictures, pictures[::-1]):  # the first is recorded, the second replayed
        found = recorded.encode_batch(turn[:count])
        expected = engine.encode_batch(turn[:count])
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one.tokens, other.tokens, atol=1e-5)
            # It must not keep the memory of the other images.
            assert one.tokens.untyped_storage().nbytes() == one.tokens.nbytes
    kept = [one.tokens.clone() for one in found]
    recorded.encode_batch(pictures[:count])
    assert all(torch.equal(one.tokens, other) for one, other in zip(found, kept, strict=True))


@settings(max_examples=15)
@given(words=st.lists(st.integers(1, 90), min_size=1, max_size=7))
def test_padding_of_prompts_changes_no_answer(engine, recorded, images, words):
    queries = [Query(images[n % 3], "word " * count, 3) for n, count in enumerate(words)]
    recorded.clear()  # so that the cache is just large enough
    for answer, expected in zip(
        recorded.generate_batch(queries), engine.generate_batch(queries), strict=True
    ):
        assert near(answer, expected)
    shared = len(recorded._tokens.prefix)
    for start, width, (count, length), _ in shapes(recorded).get("first", ()):
        assert start in (0, shared)
        assert width == WINDOW
        assert count in RUN_SIZES
        assert start + length - 3 - shared in PADDED_LENGTHS


def test_the_decoder_shares_the_models_weights(engine):
    attention = engine.model.text_model.model.layers[0].self_attn
    storages = {
        part.weight.untyped_storage().data_ptr()
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    }
    assert len(storages) == 1


@pytest.mark.fault(43)
def test_a_row_that_is_not_finite_does_not_reach_the_row_that_takes_its_place(engine, images):
    """The new row is shorter, and a longer one is beside it."""
    nan = EncodedImage(torch.full_like(images[0].tokens, float("nan")))
    broken = Query(nan, "word " * 40, 20)
    short, long = Query(images[1], PROMPTS[0], 20), Query(images[1], "word " * 30, 20)
    expected = engine.generate_batch([short, long])
    engine.clear()
    engine.add([broken])
    ((_, error),) = engine.step()
    assert "not finite" in str(error)
    found = run(engine, [short, long], [1, 1])
    assert all(near(one, other) for one, other in zip(found, expected, strict=True))


def test_warm_up_makes_room_for_the_longest_caption(images):
    warm = with_graphs(Graphs(Recorder()))
    warm.warm_up(2, 300)
    made = len(tapes(warm))
    warm.generate_batch([Query(image, PROMPTS[0], 300) for image in images[:2]])
    assert len(tapes(warm)) == made
    warm.warm_up(1, 10**6)
    assert warm._decoder._rows.room[1] == warm._tokens.context + CACHE_STEP


@pytest.mark.parametrize("most", [1, 3, 6])
def test_warm_up_records_all_graphs(images, pictures, most):
    warm = with_graphs(Graphs(Recorder()))
    warm.warm_up(most)
    found, rows = shapes(warm), [size for size in (1, 2, 4, 8) if size < 2 * most]
    sizes = [size for size in RUN_SIZES if size <= most]
    side, shared = warm.info.image_size, len(warm._tokens.prefix)
    tokens = (warm.model.config.latent_query_num, warm.model.config.text_config.embed_dim)
    steps = [(size, reach) for size in rows for reach in (128, 192, 256)]
    starts = [(size, length) for size in sizes for length in PADDED_LENGTHS]
    assert found == {
        "next": {
            (size, reach, True, drafts)
            for size, reach in steps
            for drafts in (None, (size, WINDOW))
        },
        "_encode": {((size, 3, side, side),) for size in sizes},
        "prefixes": {((size, *tokens),) for size in sizes},
        "first": {
            *((shared, WINDOW, (size, length + 3), None) for size, length in starts),
            *(
                (0, WINDOW, (size, shared + length + 3), (size, *tokens))
                for size, length in starts
            ),
        },
    }
    made = len(tapes(warm))
    assert made == sum(map(len, found.values()))
    texts = [PROMPTS[0], "<grounding>" * 60]
    for count in range(1, most + 1):
        encoded = warm.encode_batch(pictures[:count])
        for prompt in texts:
            warm.generate_batch([Query(image, prompt, 60) for image in encoded])
            warm.generate_batch([Query(encoded[0], prompt, 60)] * count)
    assert len(tapes(warm)) == made


def test_a_new_cache_is_recorded_again(images, pictures):
    one = with_graphs(Graphs(Recorder()))
    one.warm_up(3)
    made = len(tapes(one))
    expected = one.generate(images[0], PROMPTS[0], 30)
    one.add([Query(images[0], PROMPTS[0], 500) for _ in range(5)])
    assert one._decoder._rows.room == (8, 10 * CACHE_STEP)
    one.step()
    assert len(tapes(one)) > made
    made = len(tapes(one))
    one.encode(pictures[0])  # encoding uses no cache, so its graphs remain
    assert len(tapes(one)) == made
    one.clear()
    assert not shapes(one)
    assert near(one.generate(images[0], PROMPTS[0], 30), expected)


@pytest.mark.fault(30)
def test_answers_are_the_same_when_recording_fails(engine, images, caplog):
    recorder = Recorder()
    recorder.fails = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    one = with_graphs(Graphs(recorder))
    one.warm_up(2)
    for prompt in PROMPTS:
        assert near(one.generate(images[0], prompt, 40), engine.generate(images[0], prompt, 40))
    assert len(caplog.records) == 1


def test_a_row_of_fixed_shape_reaches_the_end_of_the_context(engine, recorded, images):
    prompt = "<grounding>" * (1024 - 67 - 3)
    assert near(recorded.generate(images[0], prompt, 90), engine.generate(images[0], prompt, 90))


def test_the_step_ahead_does_not_overwrite_the_next_row(engine, recorded, images):
    """The last token of a row fills the cache."""
    for one in (engine, recorded):
        one.clear()
    limit = 1
    prompt = "<grounding>" * (3 * CACHE_STEP - WINDOW - limit - len(engine._tokens.prefix))
    queries = [Query(images[0], prompt, limit), Query(images[1], PROMPTS[0], 30)]
    expected = engine.generate_batch(queries)
    assert expected[0].truncated
    assert engine._decoder._rows.room[1] == 3 * CACHE_STEP
    for answer, other in zip(recorded.generate_batch(queries), expected, strict=True):
        assert near(answer, other)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_rows_that_do_not_fit_in_memory_change_nothing(engine, images, monkeypatch, failing):
    """One of the tensors cannot grow."""
    engine.clear()
    expected = engine.generate(images[0], PROMPTS[0], 30)
    rows, pad, calls = engine._decoder._rows, functional.pad, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == failing:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return pad(*arguments)

    before = [rows.cache, rows.tokens, rows.state, rows.starts]
    query = Query(images[0], PROMPTS[0], 30)
    engine.add([query])
    with monkeypatch.context() as patch:
        patch.setattr(functional, "pad", full)
        with pytest.raises(RuntimeError), torch.inference_mode():
            rows.grow(9, 900)
    after = [rows.cache, rows.tokens, rows.state, rows.starts]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert near(finish(engine, query), expected)


def finish(engine, query):
    """The answer to a query that has been added."""
    answers = {}
    while query not in answers:
        answers.update(engine.step())
    return answers[query]


def test_clear_frees_the_cache(engine, images):
    engine.clear()
    engine.add([Query(images[0], PROMPTS[0], 500) for _ in range(9)])
    assert engine._decoder._rows.room == (16, 10 * CACHE_STEP)
    engine.clear()
    assert not engine._rows
    assert engine._decoder._rows.room == (1, CACHE_STEP)
    assert engine.generate(images[0], PROMPTS[0], 5).tokens == 5


def test_a_long_answer_frees_its_memory_at_the_next_query(engine, images):
    engine.generate(images[0], PROMPTS[0], 900)
    assert engine._decoder._rows.room[1] == 16 * CACHE_STEP
    engine.generate(images[0], PROMPTS[0], 40)
    assert engine._decoder._rows.room[1] == 2 * CACHE_STEP


def test_a_long_answer_leaves_the_warmed_up_size(images):
    recorded = with_graphs(Graphs(Recorder()))
    decoder = recorded._decoder
    recorded.warm_up(2, 150)
    recorded.generate(images[0], PROMPTS[0], 900)
    assert decoder._rows.room == (2, 16 * CACHE_STEP)
    vision = decoder.graphs._recorded.keys() & shapes_of(recorded, "_encode")
    recorded.generate(images[0], PROMPTS[0], 4)
    assert decoder._rows.room == (2, 4 * CACHE_STEP)
    assert vision and vision == shapes_of(recorded, "_encode")


def shapes_of(engine, name):
    """The keys of one function's graphs."""
    return {key for key in engine._decoder.graphs._recorded if key[0] == name}


def test_tidy_frees_the_cache_of_long_answers_unless_rows_need_it(engine, images):
    engine.clear()
    engine.generate(images[0], PROMPTS[0], 900)
    engine.add([Query(images[0], PROMPTS[0], 3)])
    engine.tidy()
    assert engine._decoder._rows.room[1] == 2 * CACHE_STEP
    engine.add([Query(images[0], PROMPTS[0], 900)])
    engine.tidy()
    assert engine._decoder._rows.room[1] == 16 * CACHE_STEP
    while engine._rows:
        engine.step()
    engine.tidy()
    assert engine._decoder._rows.room == (1, CACHE_STEP)


class Ban:
    """A rule that forbids one token."""

    def __init__(self, token):
        self.token = token

    def restrict(self, scores, tokens, newest):
        return scores.index_fill(2, self.token, float("-inf"))


class Once:
    """A rule that forbids the `words` that a row has read or written."""

    def __init__(self, vocabulary, words):
        self.bias = torch.zeros(vocabulary)
        self.bias[words] = float("-inf")

    def restrict(self, scores, tokens, newest):
        places = torch.arange(tokens.shape[1])
        behind = places > newest.unsqueeze(2)
        bias = self.bias.take(tokens).unsqueeze(1).expand_as(behind).masked_fill(behind, 0)
        index = tokens.unsqueeze(1).expand_as(behind)
        return scores.scatter_reduce(2, index, bias, "sum")


VOCABULARY, WORDS, BANNED = 1492, range(98, 176), 108  # of the embedded model; " square"


def with_toy_rules(graphs):
    return with_graphs(graphs, (Ban(torch.tensor([BANNED])), Once(VOCABULARY, WORDS)))


@pytest.mark.parametrize("graphs", [Graphs(fixed=True), Graphs(Recorder())])
def test_several_rules_hold_whenever_rows_join_and_leave(engine, queries, graphs):
    """The grammar and two other rules."""
    plain, fixed = with_toy_rules(None), with_toy_rules(graphs)
    alone = [plain.generate_batch([query])[0] for query in queries]
    for one in (plain, fixed):
        for answer, expected in zip(run(one, queries, [3, 0, 1, 2] * 3), alone, strict=True):
            assert near(answer, expected)
    changed = 0
    for query, answer in zip(queries, alone, strict=True):
        ids = [*engine.token_ids(query.prompt)[67:], *answer.ids]
        words = [token for token in ids if token in WORDS]
        assert BANNED not in answer.ids
        assert all(words.count(token) == 1 for token in answer.ids if token in WORDS)
        location = "<patch_index_[0-9]{4}>"
        box = f"{location}{location}(</delimiter_of_multi_objects/>{location}{location})*"
        rest = re.sub(f"<object>{box}</object>", "", answer.text)
        assert "<object>" not in rest or answer.truncated
        changed += answer.ids != engine.generate(*inputs(query)).ids
    assert changed > 5
    if shapes(fixed):
        assert sum(tape.replays for tape in tapes(fixed)) > len(tapes(fixed))


@pytest.mark.parametrize("graphs", [None, Graphs(fixed=True), Graphs(Recorder())])
@pytest.mark.fault(87)
def test_no_sequence_is_written_twice_whenever_rows_join_and_leave(engine, queries, graphs):
    options = {"no_repeat_ngram_size": 3, "location_grammar": False}
    plain, other = with_graphs(None, **options), with_graphs(graphs, **options)
    alone = [plain.generate_batch([query])[0] for query in queries]
    for joins in ([3, 0, 1, 2] * 3, [30], [0, 9, 9]):
        for answer, expected in zip(run(other, queries, joins), alone, strict=True):
            assert near(answer, expected)
    changed = 0
    for query, answer in zip(queries, alone, strict=True):
        ids = [*engine.token_ids(query.prompt), *answer.ids]
        sequences = list(zip(ids, ids[1:], ids[2:], strict=False))
        written = len(answer.ids)
        assert not set(sequences[-written:]) & set(sequences[:-written])
        assert len(set(sequences[-written:])) == written
        changed += answer.ids != engine.generate(*inputs(query)).ids
    assert changed > 3
    if shapes(other):
        assert sum(tape.replays for tape in tapes(other)) > len(tapes(other))


def inputs(query):
    return query.image, query.prompt, query.max_new_tokens


OPEN, CLOSE, DELIMITER, WORD, LOCATIONS = 3, 4, 5, 6, range(10, 10 + CELLS)
NAMES = {OPEN: "<", CLOSE: ">", DELIMITER: "|", WORD: "w"}


TABLES = Grammar(10 + CELLS, OPEN, CLOSE, DELIMITER, LOCATIONS, torch.device("cpu"))


def bias(*texts, places=9):
    """0 or -inf for each text, of at most `places` tokens, and each token after it."""
    tokens = torch.tensor([[*ids, *[OPEN] * (places - len(ids))] for ids in texts])
    newest = torch.tensor([[len(ids) - 1] for ids in texts])
    return TABLES.restrict(torch.zeros(len(texts), 1, 10 + CELLS), tokens, newest)[:, 0]


@given(st.integers(0, 2**32 - 1))
def test_everything_written_under_the_grammar_is_well_formed(seed):
    generator = torch.Generator().manual_seed(seed)
    # Tags are likely, because random tokens would hardly ever begin a box.
    likely = torch.zeros(10 + CELLS)
    likely[[OPEN, CLOSE, DELIMITER]] = 6.0
    ids = []
    for _ in range(40):
        logits = torch.randn(10 + CELLS, generator=generator) + likely
        ids.append(int((logits + bias([WORD, *ids], places=41)[0]).argmax()))
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
        ([OPEN, 10 + CELLS - 1], {10 + CELLS - 1}),
        ([OPEN, 10, 10], {CLOSE, DELIMITER}),
        ([OPEN, 10, 10, DELIMITER], set(LOCATIONS)),
        ([OPEN, 10, 10, CLOSE], None),
        ([10, 10], None),
    ],
)
def test_the_grammar_allows_exactly_these_tokens(ids, allowed):
    found = set(torch.nonzero(bias(ids)[0] == 0)[:, 0].tolist())
    assert found == (allowed or set(range(10 + CELLS)))


def test_the_grammar_scores_several_places_of_each_row():
    rows = [OPEN, 10, 20, CLOSE, WORD], [WORD, OPEN, 50, 60, DELIMITER]
    newest = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    scores = torch.zeros(2, 4, 10 + CELLS)
    found = TABLES.restrict(scores, torch.tensor(rows), newest)
    for row, places, one in zip(rows, newest.tolist(), found, strict=True):
        for place, value in zip(places, one, strict=True):
            assert torch.equal(value, bias(row[: place + 1])[0])
    assert not scores.any()
