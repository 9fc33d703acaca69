# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Kernels of products x (M, K) @ w (N, K).T, each with what comes before and after it.

A row of x is a token of the step; m, n and k count rows, outputs and inputs. A program has BN
outputs and reads BK inputs at a time.

A layer norm comes before the product of a block. With its weight g and bias s,

    norm(x) @ w.T + bias = scale * rstd(x) * ((x * g / scale) @ w.T - mean(x) * sums) + offset

where `sums` (N) = (g / scale) @ w.T and `offset` (N) = s @ w.T + bias are computed once. So the
weights stay as they are, and the norm takes no kernel of its own. `scale` is a power of two that
makes g / scale at most 1, so that no product with it overflows in float16. `norm_weight` is
g / scale, and `next_norm` that of the norm after the product.

One row: a program multiplies and adds BN outputs on the ordinary cores, and finds mean and rstd
itself. 2 to 16 rows: tensor cores multiply. There the kernel that wrote x also wrote x * g / scale
(`weighted`) and, for each of its tiles, the mean and the sum of squared differences from it
(`moments`, (tiles, 2, 16) float32), because each program of the product would have to repeat that
work.

After the product comes one of these:
QKV   queries to `out` (M, H); keys and values to the cache, at each row's position
ADD   the residual; `out` (M, N)
GELU  `out` (M, N)
The head has kernels of its own. They write the logits and what `sampling.choose` needs of each
tile. Knows tensors only.
"""

import triton
import triton.language as tl

from kosmos_ros.kosmos2.kernels.chain import begin, end, wait

ROWS = tl.constexpr(16)
"""Rows of a tensor core's tile, and most rows of a step."""
QKV, ADD, GELU = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
PLAIN, INT8, NF4 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Formats of weights, as weights.py describes them."""
BLOCK = tl.constexpr(64)
"""Inputs that have the same scale in NF4."""
ROW_TENSORS = ("tokens", "positions", "moves", "written")
"""State of the rows. A kernel is not compiled again if their addresses are aligned otherwise."""
VECTOR = tl.constexpr(16)
"""Bytes that a thread loads at once."""


@triton.jit
def normed(y, centre, away, squares, sums, scale, eps, K: tl.constexpr):
    """Return the products y (BN) after a norm, from sums of differences and of their squares.

    Moments about any of the numbers are far more exact than about 0 if the mean is large.
    """
    off = tl.sum(away, 0) / K
    variance = tl.sum(squares, 0) / K - off * off
    return scale * tl.rsqrt(variance + eps) * (y - (centre + off) * sums)


@triton.jit
def weighted_of(numbers, norm_weight, at):
    """Return numbers * norm_weight, rounded as `write_weighted` does.

    So a row alone and beside others differs only in the order in which products are added.
    """
    product = numbers * tl.load(norm_weight + at).to(tl.float32)
    return product.to(norm_weight.dtype.element_ty).to(tl.float32)


@triton.jit
def inputs_of(BK: tl.constexpr, FORMAT: tl.constexpr):
    """Return the indices of BK inputs (groups, inputs).

    A thread loads a group at once. In NF4 the inputs of a group have the same scale.
    """
    GROUP: tl.constexpr = BLOCK if FORMAT == NF4 else VECTOR if FORMAT == INT8 else VECTOR // 2
    return tl.arange(0, BK // GROUP)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]


@triton.jit
def part_of(w, scales, table, n, here, K: tl.constexpr, BK: tl.constexpr, FORMAT: tl.constexpr):
    """Return the weights of outputs n and BK inputs from `here` on, and their scales.

    Weights of NF4 are integers of `table` (256), each of which packs the values of the two codes
    of a byte. The scale of plain weights is 1.
    """
    if FORMAT == NF4:
        row = n[:, None].to(tl.int64) * (K // BLOCK) + (tl.arange(0, BK // BLOCK) + here // BLOCK)
        HALF: tl.constexpr = BLOCK // 2
        at = w + row[:, :, None] * HALF + tl.arange(0, HALF)[None, None, :]
        weight = tl.load(table + tl.load(at))
        scale = tl.load(scales + row)
    else:
        at = inputs_of(BK, FORMAT) + here
        weight = tl.load(w + n[:, None, None].to(tl.int64) * K + at[None, :, :])
        scale = tl.load(scales + n) if FORMAT == INT8 else 1.0
    return weight, scale


@triton.jit
def values_of(pair, DTYPE: tl.constexpr):
    """Return the two values (..., 2) that an integer of the table packs."""
    BITS: tl.constexpr = pair.dtype.primitive_bitwidth // 2
    INTEGER: tl.constexpr = tl.int16 if BITS == 16 else tl.int32
    first = pair.to(INTEGER).to(DTYPE, bitcast=True)
    second = (pair >> BITS).to(INTEGER).to(DTYPE, bitcast=True)
    return tl.join(first, second)


@triton.jit
def one_row(
    x, w, scales, table, n, first, norm_weight, sums, scale, eps,
    K: tl.constexpr, BK: tl.constexpr, NORM: tl.constexpr, FORMAT: tl.constexpr,
):  # fmt: skip
    """Return outputs n (BN) of the product of x (K) with w, after a layer norm if NORM.

    `first`: part_of w from 0 on. `sums` (BN).
    """
    k = inputs_of(BK, FORMAT)
    total = tl.zeros((n.shape[0], k.shape[0]), tl.float32)
    if NORM:
        centre = tl.load(x).to(tl.float32)
        away = tl.zeros((k.shape[0],), tl.float32)
        squares = tl.zeros((k.shape[0],), tl.float32)
    weight, scale_of = first
    for part in tl.static_range(K // BK):
        here = part * BK
        numbers = tl.load(x + here + k).to(tl.float32)
        if NORM:
            apart = numbers - centre
            away += tl.sum(apart, 1)
            squares += tl.sum(apart * apart, 1)
            numbers = weighted_of(numbers, norm_weight, here + k)
        if part > 0:
            weight, scale_of = part_of(w, scales, table, n, here, K, BK, FORMAT)
        if FORMAT == NF4:
            pairs = numbers.reshape((1, BK // BLOCK, BLOCK // 2, 2))
            values = values_of(weight, norm_weight.dtype.element_ty).to(tl.float32)
            total += tl.sum(tl.sum(values * pairs, 3), 2) * scale_of
        else:
            total += tl.sum(weight.to(tl.float32) * numbers[None, :, :], 2)
    y = tl.sum(total, 1)
    if FORMAT == INT8:
        y *= scale_of
    return normed(y, centre, away, squares, sums, scale, eps, K) if NORM else y


@triton.jit
def few_rows_nf4(x, w, scales, table, n, m, exists, K: tl.constexpr, BK: tl.constexpr):
    """Return the products of `few_rows` with NF4. Reads BK inputs at a time.

    Multiplies by the values of the codes, and scales the sum over each BLOCK inputs.
    """
    HALF: tl.constexpr = BLOCK // 2
    block = tl.arange(0, BK // BLOCK)
    row = n[None, :].to(tl.int64) * (K // BLOCK) + block[:, None]
    at = w + row[:, :, None] * HALF + tl.arange(0, HALF)[None, None, :]
    k = block[:, None, None] * BLOCK + tl.arange(0, BLOCK)[None, None, :]
    parts = tl.zeros((BK // BLOCK, ROWS, n.shape[0]), tl.float32)
    codes = tl.load(at)
    scale = tl.load(scales + row)
    # Triton's pipelining (num_stages) would copy the value of each code to shared memory. Instead,
    # the loop loads the next part before it multiplies this one.
    for here in tl.range(0, K, BK, num_stages=1):
        after = tl.minimum(here + BK, K - BK)  # loads the last part twice, but needs no mask
        next_codes = tl.load(at + after // 2)
        next_scale = tl.load(scales + row + after // BLOCK)
        numbers = tl.load(x + m[None, :, None] * K + here + k, exists[None, :, None], 0.0)
        weight = values_of(tl.load(table + codes), x.dtype.element_ty)
        weight = weight.reshape((BK // BLOCK, n.shape[0], BLOCK))
        parts += tl.dot(numbers, tl.permute(weight, (0, 2, 1))) * scale[:, None, :]
        codes = next_codes
        scale = next_scale
    return tl.sum(parts, 0)


@triton.jit
def few_rows(
    x, w, scales, table, n, moments, sums, scale, eps, M,
    K: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
    TILES: tl.constexpr, FIT: tl.constexpr, NORM: tl.constexpr, FORMAT: tl.constexpr,
):  # fmt: skip
    """Return outputs n (BN) of the products (ROWS, BN) of M rows of x, on tensor cores.

    With NORM, x has been multiplied by the norm weight, and moments of its rows come from TILES
    tiles. FIT is the next power of two. SPLIT groups of warps each have a part of every
    BK * SPLIT inputs. With NF4, BK * SPLIT inputs are read at a time, and STAGES is not used.
    """
    BN: tl.constexpr = n.shape[0]
    m = tl.arange(0, ROWS)
    exists = m < M
    if NORM:  # loaded early, used late
        tile = tl.arange(0, FIT)
        known = (tile < TILES)[:, None] & exists[None, :]
        at = moments + tile[:, None] * (2 * ROWS) + m[None, :]
        means = tl.load(at, known, 0.0)
        squares = tl.load(at + ROWS, known, 0.0)
    if FORMAT == NF4:
        y = few_rows_nf4(x, w, scales, table, n, m, exists, K, BK * SPLIT)
    elif SPLIT == 1:
        k = tl.arange(0, BK)[None, :]
        y = tl.zeros((ROWS, BN), tl.float32)
        for here in tl.range(0, K, BK, num_stages=STAGES):
            weight = tl.load(w + n[:, None].to(tl.int64) * K + (here + k))
            numbers = tl.load(x + m[:, None] * K + here + k, exists[:, None], 0.0)
            y = tl.dot(numbers, tl.trans(weight.to(x.dtype.element_ty)), y)
    else:
        group = tl.arange(0, SPLIT)[:, None, None]
        k = group * BK + tl.arange(0, BK)[None, None, :]
        parts = tl.zeros((SPLIT, ROWS, BN), tl.float32)
        for here in tl.range(0, K, BK * SPLIT, num_stages=STAGES):
            weight = tl.load(w + n[None, :, None].to(tl.int64) * K + (here + k))
            numbers = tl.load(x + m[None, :, None] * K + here + k, exists[None, :, None], 0.0)
            weight = tl.permute(weight.to(x.dtype.element_ty), (0, 2, 1))
            parts = tl.dot(numbers, weight, parts)
        y = tl.sum(parts, 0)
    if FORMAT == INT8:
        y *= tl.load(scales + n)[None, :]
    if NORM:
        mean = tl.sum(means, 0) / TILES
        apart = tl.where(known, means - mean[None, :], 0.0)
        spread = tl.sum(squares, 0) + tl.sum(apart * apart, 0) * (K // TILES)
        rstd = tl.rsqrt(spread / K + eps)
        y = scale * rstd[:, None] * (y - mean[:, None] * sums[None, :])
    return y


@triton.jit
def write_weighted(y, norm_weight, weighted, moments, m, n, tile, M, N: tl.constexpr):
    """Write what the next norm needs of the tile y (rows, BN).

    That is `weighted` (M, N) = y * norm_weight, and moments. Tiles must be full, unless there is
    only one; its columns behind N must be 0.
    """
    inside = (n < N)[None, :]
    product = (y * norm_weight.to(tl.float32)[None, :]).to(weighted.dtype.element_ty)
    tl.store(weighted + m[:, None] * N + n[None, :], product, (m < M)[:, None] & inside)
    WIDTH: tl.constexpr = y.shape[1] if y.shape[1] < N else N
    mean = tl.sum(y, 1) / WIDTH
    apart = tl.where(inside, y - mean[:, None], 0.0)
    at = moments + tile * (2 * ROWS) + m
    tl.store(at, mean, m < M)
    tl.store(at + ROWS, tl.sum(apart * apart, 1), m < M)


@triton.jit
def gelu(y):
    """Return the GELU of y, without approximation."""
    return 0.5 * y * (1 + tl.erf(y * 0.7071067811865476))


@triton.jit
def write(
    y, residual, position, out, cache, m, n, there, stride, window,
    N: tl.constexpr, H: tl.constexpr, AFTER: tl.constexpr,
):  # fmt: skip
    """Do what comes after the product y (rows, BN), write and return it.

    `there` (rows, BN): which of its numbers exist. Queries, keys and values have the columns n of
    3 * H. `position` (rows): of each token in its row. `stride`: numbers between two rows of the
    cache, each of which has `window` rows here. `out` may be None.
    """
    if AFTER == QKV:
        query = y.to(out.dtype.element_ty)
        at = out + m[:, None] * H + n[None, :]
        tl.store(at, query, there & (n < H)[None, :])
        row = cache + (m // window).to(tl.int64) * stride + position * (2 * H)
        kept = y.to(cache.dtype.element_ty)
        tl.store(row[:, None] + (n - H)[None, :], kept, there & (n >= H)[None, :])
    else:
        if AFTER == GELU:
            y = gelu(y)
        if AFTER == ADD:
            y += residual.to(tl.float32)
        if out is not None:
            tl.store(out + m[:, None] * N + n[None, :], y.to(out.dtype.element_ty), there)
    return y


@triton.jit(do_not_specialize_on_alignment=ROW_TENSORS)
def block_one_row(
    x, w, scales, table, norm_weight, sums, scale, eps, offset, residual, out, cache, positions,
    stride, N: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    FORMAT: tl.constexpr, AFTER: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Norm, product and what comes after it (AFTER), of one row.

    All constants are loaded before the wait.
    """
    begin(CHAIN)
    m = tl.arange(0, 1)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = tl.minimum(n, N - 1)
    first = part_of(w, scales, table, inside, 0, K, BK, FORMAT)
    sum_of = tl.load(sums + inside)
    offset_of = tl.load(offset + inside)
    position = tl.load(positions + m) if AFTER == QKV else None
    wait(CHAIN)
    beside = tl.load(residual + inside)[None, :] if AFTER == ADD else None
    y = one_row(
        x, w, scales, table, inside, first, norm_weight, sum_of, scale, eps, K, BK, True, FORMAT
    )
    end(CHAIN)
    y = (y + offset_of)[None, :]
    write(y, beside, position, out, cache, m, n, (n < N)[None, :], stride, 1, N, K, AFTER)


@triton.jit(do_not_specialize=["M", "window"], do_not_specialize_on_alignment=ROW_TENSORS)
def block_few_rows(
    x, w, scales, table, moments, sums, scale, eps, offset, residual, out, cache, positions,
    stride, next_norm, weighted, next_moments, M, window,
    N: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    STAGES: tl.constexpr, TILES: tl.constexpr, FIT: tl.constexpr, FORMAT: tl.constexpr,
    AFTER: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Norm, product and what comes after it (AFTER), of M rows; with `next_norm`, also the input
    of the next norm.

    All constants are loaded before the wait.
    """
    begin(CHAIN)
    m = tl.arange(0, ROWS)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = tl.minimum(n, N - 1)
    sum_of = tl.load(sums + inside)
    offset_of = tl.load(offset + inside)
    norm_weight = tl.load(next_norm + inside) if next_norm is not None else None
    position = tl.load(positions + m // window, m < M, 0) if AFTER == QKV else 0
    position += m % window
    wait(CHAIN)
    at = residual + m[:, None] * N + inside[None, :] if AFTER == ADD else None
    beside = tl.load(at, (m < M)[:, None], 0.0) if AFTER == ADD else None
    y = few_rows(
        x, w, scales, table, inside, moments, sum_of, scale, eps, M,
        K, BK, SPLIT, STAGES, TILES, FIT, True, FORMAT,
    )  # fmt: skip
    end(CHAIN)
    y += offset_of[None, :]
    there = (m < M)[:, None] & (n < N)[None, :]
    y = write(y, beside, position, out, cache, m, n, there, stride, window, N, K, AFTER)
    if next_norm is not None:
        y = y.to(weighted.dtype.element_ty).to(tl.float32)
        write_weighted(y, norm_weight, weighted, next_moments, m, n, tl.program_id(0), M, N)


@triton.jit
def write_logits(y, logits, found, tokens, kinds, bias, states, banned, m, n, M, N, KINDS):
    """Write logits y (rows, BN) and what a tile contributes to the choice of each row's token.

    `found` (ROWS, 3, tiles) float32: the largest logit, the sum of exp(logit - largest), and the
    largest score. `tokens` (ROWS, tiles): the first token with that score. A score is the logit,
    lowered by the grammar and by the ban.
    """
    there = (m < M)[:, None] & (n < N)[None, :]
    tl.store(logits + m[:, None] * N + n[None, :], y, there)
    y = tl.where((n < N)[None, :], y, -float("inf"))
    top = tl.max(y, 1)
    total = tl.sum(tl.exp(y - top[:, None]), 1)
    if banned is not None:
        marks = tl.load(banned + m[:, None] * N + n[None, :], there, 0)
        y = tl.where(marks != 0, y + PENALTY, y)
    if kinds is not None:
        kind = tl.load(kinds + n, n < N, 0)
        state = tl.load(states + m, m < M, 0)
        y += tl.load(bias + state[:, None] * KINDS + kind[None, :], there, 0.0)
    y = tl.where(y == y, y, -float("inf"))  # NaN; the probabilities will show it
    best, index = tl.max(y, 1, return_indices=True, return_indices_tie_break_left=True)
    tiles = tl.num_programs(0)
    tile = tl.program_id(0)
    BN: tl.constexpr = y.shape[1]
    at = found + m * (3 * tiles) + tile
    tl.store(at, top, m < M)
    tl.store(at + tiles, total, m < M)
    tl.store(at + 2 * tiles, best, m < M)
    tl.store(tokens + m * tiles + tile, tile * BN + index, m < M)


PENALTY = tl.constexpr(-1e30)
"""As in repetition.py: far below every logit, but above the -inf of the grammar."""


@triton.jit
def head_one_row(
    x, w, logits, found, tokens, kinds, bias, states, banned,
    N: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    KINDS: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Logits and scores of one row x (K), after its norm."""
    begin(CHAIN)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = tl.minimum(n, N - 1)
    first = part_of(w, None, None, inside, 0, K, BK, PLAIN)
    wait(CHAIN)
    y = one_row(x, w, None, None, inside, first, None, None, 1.0, 0.0, K, BK, False, PLAIN)
    end(CHAIN)
    m = tl.arange(0, 1)
    write_logits(y[None, :], logits, found, tokens, kinds, bias, states, banned, m, n, 1, N, KINDS)


@triton.jit(do_not_specialize=["M"])
def head_few_rows(
    x, w, logits, found, tokens, kinds, bias, states, banned, M,
    N: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    STAGES: tl.constexpr, KINDS: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    """Logits and scores of M rows x (M, K), after their norm."""
    begin(CHAIN)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = tl.minimum(n, N - 1)
    wait(CHAIN)
    y = few_rows(
        x, w, None, None, inside, None, None, 1.0, 0.0, M,
        K, BK, SPLIT, STAGES, 1, 1, False, PLAIN,
    )  # fmt: skip
    end(CHAIN)
    m = tl.arange(0, ROWS)
    write_logits(y, logits, found, tokens, kinds, bias, states, banned, m, n, M, N, KINDS)
