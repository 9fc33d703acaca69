# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Kernels at both ends of a step: the embedding, the last norm and the rules, and the choice.

Each runs one program for each row. Knows tensors only.
"""

import triton
import triton.language as tl

from kosmos_ros.kosmos2.kernels.chain import begin, wait
from kosmos_ros.kosmos2.kernels.linear import ROW_TENSORS, ROWS, write_weighted

SEARCHED = tl.constexpr(128)
"""Positions that are searched for a repetition at a time."""


@triton.jit(do_not_specialize=["window"], do_not_specialize_on_alignment=ROW_TENSORS)
def embed(
    tokens, positions, embeddings, encodings, out, next_norm, weighted, moments, scale, length,
    context, window, H: tl.constexpr, FIT: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Write embedding * scale + encoding (M, H) of the tokens that a step reads.

    `tokens` (rows, length). A row has `window` tokens, the first one at its position. With
    `next_norm`, write the input of the next norm, too. FIT is the next power of two of H.
    """
    begin(CHAIN)
    m = tl.program_id(0)
    row = m // window
    h = tl.arange(0, FIT)
    position = tl.load(positions + row) + m % window
    encoding = tl.minimum(position, context - 1)  # no token beyond the model's context is used
    token = tl.load(tokens + row.to(tl.int64) * length + position)
    y = tl.load(embeddings + token * H + h, h < H, 0.0).to(tl.float32) * scale
    y = y.to(out.dtype.element_ty).to(tl.float32)
    y += tl.load(encodings + encoding * H + h, h < H, 0.0).to(tl.float32)
    y = y.to(out.dtype.element_ty)
    tl.store(out + m * H + h, y, h < H)
    if next_norm is not None:
        m += tl.arange(0, 1)
        norm_weight = tl.load(next_norm + h, h < H, 0.0)
        write_weighted(y.to(tl.float32)[None, :], norm_weight, weighted, moments, m, h, 0, ROWS, H)


@triton.jit
def mark_repetitions(row_tokens, position, banned, value, SIZE: tl.constexpr):
    """Set banned[v] = value for each v that would repeat a sequence of SIZE tokens of the row."""
    for start in range(0, position + 1, SEARCHED):
        last = start + tl.arange(0, SEARCHED)  # of the last token of an earlier sequence
        same = (last <= position) & (last >= SIZE - 1)
        for back in range(1, SIZE):
            newest = tl.load(row_tokens + position + 1 - back, position + 1 >= back, 0)
            same &= tl.load(row_tokens + last - back, same, 0) == newest
        tl.store(banned + tl.load(row_tokens + last, same, 0), value, same)


@triton.jit(do_not_specialize=["window"], do_not_specialize_on_alignment=ROW_TENSORS)
def before_head(
    x, norm_weight, norm_bias, out, eps, tokens, positions, kinds, following, states, banned,
    length, window, H: tl.constexpr, FIT: tl.constexpr, VOCABULARY: tl.constexpr,
    KINDS: tl.constexpr, SIZE: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Write the last norm of x (M, H). For each token, prepare the rules on the token after it.

    The grammar's state follows from the last three tokens: an opening tag and two corners. The
    ban marks tokens in `banned` (M, vocabulary); `choose` removes the marks. Both depend only on
    token ids that are known before the step, so they run while the last product runs.
    """
    begin(CHAIN)
    m = tl.program_id(0)
    row = m // window
    position = tl.load(positions + row) + m % window
    row_tokens = tokens + row.to(tl.int64) * length
    if kinds is not None:
        state = tl.zeros((), tl.int64)
        for back in tl.static_range(2, -1, -1):
            token = tl.load(row_tokens + position - back, position >= back, 0)
            kind = tl.load(kinds + token, position >= back, 0)
            state = tl.load(following + state * KINDS + kind)
        tl.store(states + m, state)
    if SIZE > 0:
        mark_repetitions(row_tokens, position, banned + m * VOCABULARY, 1, SIZE)
    h = tl.arange(0, FIT)
    g = tl.load(norm_weight + h, h < H, 0.0)
    s = tl.load(norm_bias + h, h < H, 0.0)
    wait(CHAIN)
    y = tl.load(x + m * H + h, h < H, 0.0).to(tl.float32)
    y = tl.where(h < H, y - tl.sum(y, 0) / H, 0.0)
    y = y * tl.rsqrt(tl.sum(y * y, 0) / H + eps) * g.to(tl.float32) + s.to(tl.float32)
    tl.store(out + m * H + h, y.to(out.dtype.element_ty), h < H)


@triton.jit(do_not_specialize=["window"], do_not_specialize_on_alignment=ROW_TENSORS)
def choose(
    logits, found, best, neighbours, banned, tokens, positions, moves, written, length, window,
    VOCABULARY: tl.constexpr, TILES: tl.constexpr, FIT: tl.constexpr,
    KEPT: tl.constexpr, KEPT_FIT: tl.constexpr, SIZE: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Choose each row's next tokens from what the head found, write them, and move on.

    The first of the `window` tokens of a row is its newest one, and the others are its draft. The
    token chosen after a token counts only if the draft is right up to and including that token.
    `written` (rows, window, 1 + KEPT): the chosen token or -1, and the probabilities of its
    `neighbours` (vocabulary, KEPT), or its own. FIT and KEPT_FIT are the next powers of two of
    TILES and KEPT.
    """
    begin(CHAIN)
    wait(CHAIN)
    row = tl.program_id(0)
    position = tl.load(positions + row)
    row_tokens = tokens + row.to(tl.int64) * length
    tile = tl.arange(0, FIT)
    kept = tl.arange(0, KEPT_FIT)
    counts = tl.full((), 1, tl.int32)
    given = tl.full((), 0, tl.int32)
    newest = tl.full((), 0, tl.int64)
    for inside in range(window):
        m = row * window + inside
        at = found + m * (3 * TILES) + tile
        top = tl.load(at, tile < TILES, -float("inf"))
        most = tl.max(top, 0)
        total = tl.sum(tl.load(at + TILES, tile < TILES, 0.0) * tl.exp(top - most), 0)
        score = tl.load(at + 2 * TILES, tile < TILES, -float("inf"))
        _, index = tl.max(score, 0, return_indices=True, return_indices_tie_break_left=True)
        token = tl.load(best + m * TILES + index).to(tl.int64)
        if neighbours is None:
            near = token + tl.zeros((KEPT_FIT,), tl.int64)
        else:
            near = tl.load(neighbours + token * KEPT + kept, kept < KEPT, 0)
        probability = tl.exp(tl.load(logits + m * VOCABULARY + near) - most) / total
        at = written + m * (1 + KEPT)
        tl.store(at, tl.where(counts > 0, token, -1).to(tl.float32))
        tl.store(at + 1 + kept, probability, kept < KEPT)
        if SIZE > 0:
            mark_repetitions(row_tokens, position + inside, banned + m * VOCABULARY, 0, SIZE)
        newest = tl.where(counts > 0, token, newest)
        given += counts
        draft = tl.load(row_tokens + position + inside + 1, inside + 1 < window, -1)
        counts *= (draft == token).to(tl.int32)
    moved = position + given * tl.load(moves + row)
    tl.debug_barrier()  # every thread has read the position and the tokens
    tl.store(row_tokens + moved, newest, (moved > position) & (moved < length))
    tl.store(positions + row, moved)
