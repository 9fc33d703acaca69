# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A step of the kernels equals a plain step in float64. test_kernels.py runs these tests.

They need Triton's interpreter (TRITON_INTERPRET=1), which the whole process must use.
"""

import copy
import dataclasses
import logging

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import nn
from torch.nn import functional
from transformers import Kosmos2TextConfig, Kosmos2VisionConfig
from transformers.models.kosmos2.modeling_kosmos2 import (
    Kosmos2TextForCausalLM,
    Kosmos2VisionEncoderLayer,
)
from triton.runtime import interpreter
from triton.runtime.errors import OutOfResources

from kosmos_ros.kosmos2 import int8, kernels
from kosmos_ros.kosmos2.blocks import Block
from kosmos_ros.kosmos2.grammar import Grammar
from kosmos_ros.kosmos2.grounding import GRID
from kosmos_ros.kosmos2.kernels import norms, sampling
from kosmos_ros.kosmos2.kernels.step import Rules, State, Step, Text, supports
from kosmos_ros.kosmos2.kernels.tiles import BY_SHARED_MEMORY, NF4, FewRows, OneRow, Tiles

CPU = torch.device("cpu")
LENGTH = 40
WORDS = 30
OPEN, CLOSE, DELIMITER = range(WORDS, WORDS + 3)
LOCATIONS = range(WORDS + 3, WORDS + 3 + GRID * GRID)
VOCABULARY = WORDS + 3 + GRID * GRID
SIZES = {"embed_dim": 64, "ffn_dim": 128, "attention_heads": 2}
OTHER_SIZES = {"embed_dim": 192, "ffn_dim": 320, "attention_heads": 6}
FREE = Rules()
PRODUCTS = ("qkv", "out", "up", "down", "head")


def tiles(one=(64, 64, 4), few=(64, 64, 1, 4, 2), positions=16):
    """Large tiles, because the interpreter takes as long for a small one."""
    large = {"head": OneRow(256, *one[1:])}
    large_few = {"head": FewRows(256, *few[1:])}
    return Tiles(
        dict.fromkeys(PRODUCTS, OneRow(*one)) | large,
        dict.fromkeys(PRODUCTS, FewRows(*few)) | large_few,
        positions,
    )


def model(dtype=torch.float32, sizes=SIZES, layers=2):
    """A text model with random weights of which every one matters."""
    torch.manual_seed(7)
    config = Kosmos2TextConfig(
        vocab_size=VOCABULARY, layers=layers, max_position_embeddings=LENGTH, **sizes
    )
    made = Kosmos2TextForCausalLM(config).eval().requires_grad_(False)
    for name, weight in made.named_parameters():
        norm = ("norm" in name and name.endswith("weight")) or "_ln.weight" in name
        weight.copy_(torch.randn_like(weight) * (0.3 if norm else 0.1) + norm)
    return made.to(dtype)


def parts(made):
    inner = made.model
    encodings = inner.embed_positions
    weight = inner.embed_tokens.weight
    return Text(
        [Block.text(layer) for layer in inner.layers],
        inner.layer_norm,
        made.lm_head.weight,
        weight,
        encodings.weights[encodings.padding_idx + 1 :].to(weight.dtype),
        float(inner.embed_scale),
    )


def grammar():
    rule = Grammar(VOCABULARY, OPEN, CLOSE, DELIMITER, LOCATIONS, CPU)
    return rule._kinds, rule._bias, rule._following


def neighbours(count):
    return (torch.arange(VOCABULARY)[:, None] + 3 * torch.arange(count)) % VOCABULARY


def state(text, positions, kept=1, moves=None, rows=None):
    """Rows of these lengths with random contents."""
    made = torch.Generator().manual_seed(3)
    rows = rows or len(positions)
    block = text.blocks[0]
    shape = (len(text.blocks), rows, LENGTH, 2, block.heads, block.depth)
    padded = torch.zeros(rows, dtype=torch.long)
    padded[: len(positions)] = torch.tensor(positions)
    return State(
        torch.randn(shape, generator=made).to(text.head.dtype),
        torch.randint(0, WORDS, (rows, LENGTH), generator=made),
        padded,
        torch.ones(rows, dtype=torch.long) if moves is None else torch.tensor(moves),
        torch.full((rows, 1 + kept), -1.0),
    )


def copied(before):
    return State(*(getattr(before, each.name).clone() for each in dataclasses.fields(before)))


def banned(tokens, size):
    """The tokens that would repeat a sequence of `size` tokens."""
    begun = tokens[len(tokens) - size + 1 :] if size > 1 else []
    return {
        tokens[end]
        for end in range(size - 1, len(tokens))
        if tokens[end - size + 1 : end] == begun
    }


def scores(logits, tokens, rules):
    """The logits (vocabulary) lowered as the rules say, for a row with these tokens."""
    lowered = logits.clone()
    if rules.repetition:
        lowered[list(banned(tokens, rules.repetition))] += -1e30
    if rules.grammar:
        kinds, bias, following = rules.grammar
        state = 0
        for token in tokens[-3:]:
            state = following[state, kinds[token]]
        lowered += bias[state][kinds]
    return lowered


def plain(made, text, now, count, rules):
    """Change `now` by a plain step in float64, and return the logits and scores of the rows."""
    exact = {name: weight.double() for name, weight in made.named_parameters()}
    ids, positions = now.tokens, now.positions[:count].tolist()
    found = []
    for row, position in enumerate(positions):
        hidden = text.embeddings[ids[row, position]].double() * text.scale
        hidden = hidden + text.encodings[position].double()
        for layer in range(len(text.blocks)):
            hidden = _block(
                exact, f"model.layers.{layer}", now.cache[layer, row], hidden, position
            )
        hidden = _norm(exact, "model.layer_norm", hidden)
        logits = text.head.double() @ hidden
        lowered = scores(logits, ids[row, : position + 1].tolist(), rules)
        found.append((logits, lowered))
        token = int(lowered.argmax())
        near = [token] if rules.neighbours is None else rules.neighbours[token]
        now.written[row, 0] = token
        now.written[row, 1:] = logits.softmax(0)[near]
        if now.moves[row]:
            ids[row, position + 1] = token
        now.positions[row] += now.moves[row]
    return found


def _norm(exact, name, hidden):
    weight, bias = exact[f"{name}.weight"], exact[f"{name}.bias"]
    return functional.layer_norm(hidden, hidden.shape, weight, bias, 1e-5)


def _block(exact, name, cache, hidden, position):
    """A block of one row, with its cache (LENGTH, 2, heads, D)."""
    heads, depth = cache.shape[2:]

    def product(part, x):
        return functional.linear(x, exact[f"{name}.{part}.weight"], exact[f"{name}.{part}.bias"])

    normed = _norm(exact, f"{name}.self_attn_layer_norm", hidden)
    q, k, v = (
        product(f"self_attn.{part}_proj", normed).view(heads, depth) for part in ("q", "k", "v")
    )
    cache[position, 0], cache[position, 1] = k, v
    k, v = cache[: position + 1].double().unbind(1)
    weights = (torch.einsum("hd,thd->ht", q, k) * depth**-0.5).softmax(-1)
    attended = torch.einsum("ht,thd->hd", weights, v).flatten()
    attended = _norm(exact, f"{name}.self_attn.inner_attn_ln", attended)
    hidden = hidden + product("self_attn.out_proj", attended)
    inner = product("ffn.fc1", _norm(exact, f"{name}.final_layer_norm", hidden))
    inner = _norm(exact, f"{name}.ffn.ffn_layernorm", functional.gelu(inner))
    return hidden + product("ffn.fc2", inner)


def check(
    made, positions, rules=FREE, kept=1, sizes=None, prepare=None, steps=1, exact_model=None
):
    """Run a step in both ways, compare, and return the state and the tokens it chose.

    The plain one is that of `exact_model` if it is not None.
    """
    text = parts(made)
    now = state(text, positions, kept)
    if prepare:
        prepare(now)
    run = Step(text, rules, sizes or tiles(), chained=False)
    count, exact = len(positions), text.head.dtype == torch.float32
    close = {"atol": 1e-4, "rtol": 1e-4} if exact else {"atol": 0.05, "rtol": 0.05}
    for _ in range(steps):
        expected = copied(now)
        found = plain(exact_model or made, text, expected, count, rules)
        assert run(now, count)
        chosen = now.written[:count, 0].long()
        for token, (_, lowered) in zip(chosen, found, strict=True):
            assert lowered[token] >= lowered.max() - (0 if exact else 0.05)
        if torch.equal(chosen, expected.written[:count, 0].long()):
            torch.testing.assert_close(now.written, expected.written, **close)
        else:
            assert not exact
            expected.tokens[:] = now.tokens
        torch.testing.assert_close(now.cache, expected.cache, **close)
        assert torch.equal(now.tokens, expected.tokens)
        assert torch.equal(now.positions, expected.positions)
    return now, chosen


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch):
    """The interpreter multiplies the bits of bfloat16 numbers; multiply their values instead."""
    as_it_is = interpreter.InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return as_it_is(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.parametrize("positions", [[0], [1], [21], [9, 8], [5, 0, 30], [*range(3, 19)]])
def test_rows_of_any_length_equal_a_plain_step(positions):
    check(model(), positions)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positions", [[17], [4, 20], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_16_bit_weights_equal_a_plain_step(positions, dtype):
    check(model(dtype, layers=1), positions)


COUNTS = [1, 2, 3, 8]
LENGTHS = [20, 3, 31, 12, 0, 1, 2, 37]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 2), (8, 3)])
def test_no_sequence_is_written_twice(count, size):
    def repetitive(now):
        now.tokens[:] %= 3

    made = model(layers=1)
    made.lm_head.weight[:3] *= 8  # these tokens would win
    after, _ = check(made, LENGTHS[:count], Rules(repetition=size), prepare=repetitive)
    for row, position in enumerate(after.positions.tolist()):
        words = after.tokens[row, : position + 1].tolist()
        assert words[-1] not in banned(words[:-1], size)


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_follows_from_the_state_that_the_previous_one_left(count):
    def repetitive(now):
        now.tokens[:] %= 2

    rules = Rules(grammar(), 2, neighbours(2))
    check(model(layers=1), LENGTHS[:count], rules, kept=2, prepare=repetitive, steps=3)


TAGGED = {
    "free": [5, 6, 7],
    "opened": [5, 6, OPEN],
    "another box": [LOCATIONS[4], LOCATIONS[70], DELIMITER],
    "a corner": [6, OPEN, LOCATIONS[40]],
    "a corner of another box": [LOCATIONS[70], DELIMITER, LOCATIONS[1023]],
    "two corners": [OPEN, LOCATIONS[40], LOCATIONS[75]],
    "closed": [LOCATIONS[40], LOCATIONS[75], CLOSE],
    "a stray location": [5, 6, LOCATIONS[3]],
}


@pytest.mark.parametrize("count", COUNTS)
def test_every_row_follows_the_grammar(count):
    def tag(now):
        for row, ids in enumerate(list(TAGGED.values())[-count:]):
            now.tokens[row, 6:9] = torch.tensor(ids)

    rules = Rules(grammar(), neighbours=neighbours(9))
    check(model(layers=1), [8] * count, rules, kept=9, prepare=tag)


@pytest.mark.parametrize("positions", [[0], [0, 1]])
def test_a_row_shorter_than_the_rules_reach_back_is_safe(positions):
    def opened(now):
        now.tokens[:, 0] = OPEN

    check(model(layers=1), positions, Rules(grammar(), 3), prepare=opened)


@pytest.mark.parametrize("count", [1, 2])
def test_the_grammar_comes_before_the_ban(count):
    def closing_is_banned(now):
        words = [CLOSE, DELIMITER, OPEN, LOCATIONS[5], LOCATIONS[70]]
        now.tokens[:, :5] = torch.tensor(words)

    rules = Rules(grammar(), 1)
    _, chosen = check(model(layers=1), [4] * count, rules, prepare=closing_is_banned)
    assert set(chosen.tolist()) <= {CLOSE, DELIMITER}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kept", [2, 9])
def test_probabilities_of_neighbours_are_those_of_all_logits(count, kept):
    rules = Rules(grammar(), 2, neighbours(kept))
    check(model(layers=1), LENGTHS[:count], rules, kept)


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_of_equal_tokens_is_chosen(count):
    made = model(layers=1)
    made.lm_head.weight[:] = 0
    made.lm_head.weight[[9, 700]] = made.model.layer_norm.bias[:] = 1
    made.model.layer_norm.weight[:] = 0

    def contents(now):
        now.tokens[:] = 9

    _, chosen = check(made, [5] * count)
    assert set(chosen.tolist()) == {9}
    _, chosen = check(made, [5] * count, Rules(repetition=1), prepare=contents)
    assert set(chosen.tolist()) == {700}


def test_a_row_that_does_not_exist_stays_and_disturbs_no_other():
    made = model()
    text = parts(made)
    run = Step(text, Rules(grammar(), 2), tiles(), chained=False)
    alone, beside = (state(text, [7, 12, 0], moves=[1, 1, 0, 0], rows=4) for _ in range(2))
    beside.cache[:, 2:] = float("nan")
    assert run(alone, 2) and run(beside, 4)
    assert torch.equal(alone.tokens, beside.tokens)
    torch.testing.assert_close(alone.written[:2], beside.written[:2])
    torch.testing.assert_close(alone.cache[:, :2], beside.cache[:, :2])
    assert beside.positions.tolist() == [8, 13, 0, 0]


@pytest.mark.parametrize("positions", [[LENGTH - 1], [LENGTH - 1, 4]])
def test_the_last_place_of_a_row_is_filled_and_no_place_behind_it(positions):
    text = parts(model(layers=1))
    now = state(text, positions, rows=3)
    before = now.tokens.clone()
    assert Step(text, Rules(repetition=2), tiles(), chained=False)(now, len(positions))
    assert now.positions[0] == LENGTH
    assert torch.equal(now.tokens[0], before[0])
    assert torch.equal(now.tokens[1, :4], before[1, :4])
    assert torch.equal(now.tokens[2], before[2])


@pytest.mark.parametrize("count", [1, 2])
def test_a_place_behind_the_context_has_the_last_encoding(count):
    text = parts(model(layers=1))
    written = []
    for encodings in (text.encodings[:10], text.encodings[[*range(10), *[9] * 5]]):
        now = state(text, [12, 3][:count])
        other = dataclasses.replace(text, encodings=encodings)
        assert Step(other, FREE, tiles(), chained=False)(now, count)
        written.append(now.written)
    assert torch.equal(*written)


@pytest.mark.parametrize("positions", [[18], [3, 27]])
def test_parts_of_widths_that_are_no_powers_of_two_equal_a_plain_step(positions):
    sizes = tiles(one=(64, 32, 4), few=(64, 16, 4, 4, 2), positions=16)
    check(model(sizes=OTHER_SIZES, layers=1), positions, Rules(grammar(), 2), sizes=sizes)


@pytest.mark.parametrize("positions", [[18], [3, 27]])
def test_the_tiles_of_gpus_equal_a_plain_step(positions):
    for sizes in BY_SHARED_MEMORY.values():
        few = len(positions) > 1
        if few or sizes is BY_SHARED_MEMORY[227]:  # those of one row are the same
            check(model(layers=1), positions, sizes=dataclasses.replace(sizes, positions=16))


@pytest.mark.parametrize(
    ("count", "mean", "first"), [(1, 20, 20), (2, 5, 5), (1, 0, 400), (2, 0, 400)]
)
def test_a_norm_of_a_large_mean_or_a_large_number_is_exact(count, mean, first):
    made = model()
    made.model.embed_tokens.weight += mean
    made.model.embed_tokens.weight[:, 0] = first
    check(made, [5, 7][:count])


@pytest.mark.parametrize("count", [1, 2])
def test_a_large_gain_does_not_overflow_in_float16(count):
    made = model()
    for name, weight in made.named_parameters():
        if "layer_norm.weight" in name or "_ln.weight" in name:
            weight[3] *= 3000
    made.model.embed_tokens.weight *= 10
    for layer in made.model.layers:
        for product in (layer.self_attn.q_proj, layer.ffn.fc1, layer.ffn.fc2):
            product.weight /= 300
    made = made.half()
    _, chosen = check(made, [5, 7][:count])


@pytest.mark.parametrize("count", [1, 2])
def test_numbers_that_are_not_finite_show_in_the_probabilities(count):
    text = parts(model(layers=1))
    text.embeddings[5] = float("nan")
    now = state(text, [4, 4][:count], kept=9)
    now.tokens[:, 4] = 5
    rules = Rules(grammar(), 2, neighbours(9))
    assert Step(text, rules, tiles(), chained=False)(now, count)
    assert now.written[:, 1:].isnan().all()
    assert (now.tokens < VOCABULARY).all()
    assert now.positions.tolist() == [5, 5][:count]


def test_a_kernel_that_fails_costs_one_warning_and_changes_no_row(caplog):
    text = parts(model(layers=1))
    run = Step(text, Rules(), tiles(), chained=False)
    launch = run.launch

    def failing(kernel, *rest, **options):
        if kernel is sampling.choose:
            raise OutOfResources(300000, 232448, "shared memory")
        launch(kernel, *rest, **options)

    run.launch = failing
    now = state(text, [4])
    before = copied(now)
    with caplog.at_level(logging.WARNING):
        assert not run(now, 1)
        run.launch = launch
        assert not run(now, 1)
    (record,) = caplog.records
    assert "a Triton kernel failed" in record.message
    assert "shared memory" in record.message
    for name in ("tokens", "positions", "written"):
        assert torch.equal(getattr(now, name), getattr(before, name))


def test_more_rows_than_a_tensor_core_takes_are_left_to_torch():
    text = parts(model(layers=1))
    now = state(text, [4] * 17)
    assert not Step(text, Rules(), tiles(), chained=False)(now, 17)
    assert now.positions.tolist() == [4] * 17


def test_the_step_is_made_for_the_models_that_it_supports():
    assert isinstance(kernels.make(parts(model(torch.bfloat16)), Rules()), Step)
    assert kernels.make(parts(model(torch.float32)), Rules()) is None
    other = [
        {"activation_function": "relu"},
        {"activation_function": "gelu_new"},
        {"embed_dim": 96, "attention_heads": 3},  # no multiple of 64
        {"embed_dim": 192, "attention_heads": 4},  # heads of 48
        {"ffn_dim": 64 * 17},  # 17 parts
    ]
    for sizes in other:
        assert kernels.make(parts(model(torch.bfloat16, SIZES | sizes)), Rules()) is None, sizes


def test_int8_weights_for_cpus_are_left_to_torch():
    made = model(torch.bfloat16)
    int8.quantize(made, keep=made.lm_head)
    assert not supports(parts(made))


def to_int8(module, used=False):
    """Return bitsandbytes' module of 8 bits, and its weights; `used`: as after its first call."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    values, largest, _ = bitsandbytes.functional.int8_vectorwise_quant(module.weight.half())
    made = bitsandbytes.nn.Linear8bitLt(
        module.in_features, module.out_features, has_fp16_weights=False
    )
    made.weight = bitsandbytes.nn.Int8Params(
        values, requires_grad=False, has_fp16_weights=False, CB=values, SCB=largest
    )
    if used:
        made.init_8bit_state()
    return made, values.float() * largest[:, None] / 127


def to_nf4(module, nested=False):
    """Return bitsandbytes' module of 4 bits, and its weights."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    made = bitsandbytes.nn.Linear4bit(
        module.in_features, module.out_features, quant_type="nf4", compute_dtype=torch.float32
    )
    made.weight = bitsandbytes.nn.Params4bit(
        module.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=nested
    ).to("cpu")
    weight, state = made.weight, made.weight.quant_state
    return made, bitsandbytes.functional.dequantize_4bit(weight.data, state).float()


def quantized(made, convert, **options):
    """Return the quantized model, and one with the same weights in full."""
    exact = copy.deepcopy(made)
    for layer, full in zip(made.model.layers, exact.model.layers, strict=True):
        for name, module in list(full.named_modules()):
            if isinstance(module, nn.Linear):
                new, weight = convert(module, **options)
                new.bias = module.bias
                layer.set_submodule(name, new)
                module.weight.copy_(weight)
    return made, exact


@pytest.mark.parametrize(
    ("convert", "options", "positions", "dtype"),
    [
        (to_int8, {}, [9], torch.float32),
        (to_int8, {"used": True}, [3, 20, 0], torch.float32),
        (to_nf4, {}, [9], torch.float32),
        (to_nf4, {}, [3, 20, 0], torch.float32),
        (to_nf4, {"nested": True}, [9], torch.float32),
        (to_nf4, {}, [9], torch.bfloat16),
        (to_nf4, {}, [3, 20, 0], torch.float16),
    ],
)
@pytest.mark.parametrize("depth", [64, 128])
def test_a_model_quantized_by_bitsandbytes_equals_a_plain_step(
    convert, options, positions, dtype, depth
):
    made, exact = quantized(model(dtype, layers=1), convert, **options)
    sizes = tiles(one=(64, depth, 4), few=(64, depth, 2, 4, 2))
    check(made, positions, Rules(grammar(), 2), sizes=sizes, exact_model=exact)


@pytest.mark.parametrize(
    ("convert", "options"), [(to_int8, {}), (to_int8, {"used": True}), (to_nf4, {})]
)
def test_queries_keys_and_values_are_one_product_that_shares_the_modules_weights(convert, options):
    made, _ = quantized(model(layers=1), convert, **options)
    attention = made.model.layers[0].self_attn
    modules = [attention.q_proj, attention.k_proj, attention.v_proj]
    hidden = torch.randn(3, SIZES["embed_dim"])
    # The first call of a module of bitsandbytes may print a message and change the module.
    apart = copy.deepcopy(modules)
    expected = torch.cat([module(hidden) for module in apart], -1)
    memory = set()
    for _ in range(2):  # a second step of the same model copies nothing
        run = Step(parts(made), FREE, tiles(), chained=False)
        joined, *_ = run._blocks[0]
        assert joined.matrix.outputs == 3 * SIZES["embed_dim"]
        memory |= {module.weight.data.untyped_storage().data_ptr() for module in modules}
        memory.add(joined.matrix.values.untyped_storage().data_ptr())
    assert len(memory) == 1
    found = torch.cat([module(hidden) for module in modules], -1)
    assert torch.equal(found, expected)
    if convert is to_int8:
        assert all(module.state.CB.untyped_storage().data_ptr() in memory for module in modules)


def windowed(made, rules, now, window, drafts):
    """Put `drafts` behind the newest token of each row; change a copy by the plain steps."""
    for row, tokens in enumerate(drafts):
        position = now.positions[row] + 1
        now.tokens[row, position : position + window - 1] = torch.tensor(tokens)
    text, expected = parts(made), copied(now)
    expected.written[:] = -1
    for row, tokens in enumerate(drafts):
        one = State(
            expected.cache[:, row : row + 1],
            expected.tokens[row : row + 1],
            expected.positions[row : row + 1],
            expected.moves[row : row + 1],
            torch.zeros(1, now.written.shape[-1]),
        )
        for number in range(window):
            plain(made, text, one, 1, rules)
            expected.written[row, number] = one.written[0]
            if number < len(tokens) and one.written[0, 0] != tokens[number]:
                break
    return expected


@pytest.mark.parametrize("right", [[0], [1], [3], [0, 3, 2], [1, 0, 0, 3]])
def test_a_row_writes_what_its_drafts_say_as_long_as_they_are_right(right):
    made, rules, window = model(), Rules(grammar(), 2, neighbours(3)), 4
    text = parts(made)
    count = len(right)
    run = Step(text, rules, tiles(), chained=False)
    now = state(text, [3, 17, 30, 9][:count])
    now.tokens[:] %= 5
    now = dataclasses.replace(now, written=torch.zeros(count, window, 4))
    first = copied(now)
    for _ in range(window - 1):
        plain(made, text, dataclasses.replace(first, written=torch.zeros(count, 4)), count, rules)
    drafts = []
    for row, correct in enumerate(right):
        position = int(now.positions[row]) + 1
        drafts.append(first.tokens[row, position : position + window - 1].tolist())
        if correct < window - 1:
            drafts[row][correct] += 1
    expected = windowed(made, rules, now, window, drafts)
    assert run(now, count, window)
    assert (now.positions - first.positions + window - 2).tolist() == right
    assert torch.equal(now.positions, expected.positions)
    told = expected.written[..., 0] >= 0
    torch.testing.assert_close(now.written[told], expected.written[told], atol=1e-4, rtol=1e-4)
    assert (now.written[..., 0][~told] == -1).all()
    for row, position in enumerate(now.positions.tolist()):
        assert torch.equal(now.tokens[row, : position + 1], expected.tokens[row, : position + 1])
        torch.testing.assert_close(
            now.cache[:, row, :position], expected.cache[:, row, :position], atol=1e-4, rtol=1e-4
        )
    assert not run._banned.any()


FORMATS = {
    "bfloat16": (torch.bfloat16, None),
    "int8": (torch.float16, to_int8),
    "nf4": (torch.bfloat16, to_nf4),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_alone_is_rounded_as_beside_another(name):
    dtype, convert = FORMATS[name]
    made = model(dtype)
    if convert:
        made, _ = quantized(made, convert)
    text = parts(made)
    run = Step(text, FREE, tiles(), chained=False)
    alone, beside = state(text, [20, 9]), state(text, [20, 9])
    assert run(alone, 1) and run(beside, 2)
    # Sums in another order rarely give another 16-bit number.
    written = alone.cache[-1, 0, 20], beside.cache[-1, 0, 20]
    assert (written[0] != written[1]).float().mean() < 0.1
    torch.testing.assert_close(alone.written[0], beside.written[0], atol=1e-3, rtol=1e-3)


NEAR = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("shape", [(3, 64), (2, 3, 100), (1, 1)])
def test_a_norm_of_many_rows_equals_torchs(shape, dtype):
    torch.manual_seed(1)
    x, residual = torch.randn(2, *shape).to(dtype)
    module = nn.LayerNorm(shape[-1]).to(dtype).requires_grad_(False)
    module.weight.normal_(), module.bias.normal_()
    close = {"atol": NEAR[dtype], "rtol": NEAR[dtype]}
    for activation, torchs in {
        norms.NONE: lambda y: y,
        norms.GELU: functional.gelu,
        norms.QUICK_GELU: lambda y: y * torch.sigmoid(1.702 * y),
    }.items():
        for before in (None, residual):
            for layer_norm in (None, module):
                total, out = norms.run(x.clone(), layer_norm, before, activation)
                expected = x if before is None else x + before
                torch.testing.assert_close(total, expected, **close)
                if dtype != torch.bfloat16:  # the interpreter does not round to it as a GPU does
                    assert torch.equal(total, expected)
                expected = torchs(expected.double())
                if layer_norm:
                    expected = copy.deepcopy(module).double()(expected)
                torch.testing.assert_close(out, expected.to(dtype), **close)


def test_a_norm_takes_rows_that_are_not_contiguous():
    x, residual = torch.randn(2, 64, 3).transpose(1, 2)
    assert not x.is_contiguous() and not residual.is_contiguous()
    module = nn.LayerNorm(64).requires_grad_(False)
    total, out = norms.run(x, module, residual)
    assert torch.equal(total, x + residual)
    torch.testing.assert_close(out, module(x + residual))


@pytest.mark.parametrize("layer_of", ["text", "vision"])
def test_a_block_with_these_norms_equals_one_without(layer_of, monkeypatch):
    if layer_of == "text":
        layer, make, width = model(torch.float16).model.layers[0], Block.text, SIZES["embed_dim"]
    else:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
        config = Kosmos2VisionConfig(**sizes, attn_implementation="sdpa")
        layer = Kosmos2VisionEncoderLayer(config).half().requires_grad_(False)
        make, width = Block.vision, 64
    torch.manual_seed(2)
    hidden = torch.randn(2, 5, width).half()
    expected = make(layer)(hidden.clone())
    launched, run = [], norms.run
    monkeypatch.setattr(
        norms, "run", lambda *args, **names: launched.append(1) or run(*args, **names)
    )
    torch.testing.assert_close(make(layer, norms)(hidden.clone()), expected, atol=2e-2, rtol=2e-2)
    assert len(launched) == (4 if layer_of == "text" else 3)


def test_blocks_that_a_norm_or_its_weights_exclude_have_torchs_norms(monkeypatch):
    monkeypatch.setattr(norms, "run", None)
    hidden = torch.randn(1, 3, SIZES["embed_dim"]).half()
    made, _ = quantized(model(torch.float16, layers=1), to_nf4)
    Block.text(made.model.layers[0], norms)(hidden)
    layer = model(torch.float16).model.layers[0]
    layer.final_layer_norm = nn.LayerNorm(SIZES["embed_dim"], elementwise_affine=False).half()
    Block.text(layer, norms)(hidden)


def test_weights_in_nf4_have_their_own_tiles():
    made, _ = quantized(model(torch.bfloat16), to_nf4)
    assert kernels.make(parts(made), FREE)._tiles is NF4
    assert kernels.make(parts(model(torch.bfloat16)), FREE)._tiles is BY_SHARED_MEMORY[99]


@pytest.mark.parametrize("positions", [[9], [3, 20]])
def test_the_tiles_of_nf4_equal_a_plain_step(positions):
    made, exact = quantized(model(layers=1), to_nf4)
    check(made, positions, sizes=dataclasses.replace(NF4, positions=16), exact_model=exact)
