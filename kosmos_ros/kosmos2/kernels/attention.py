# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Kernel of a step's attention: each token's query over the positions of the token's row.

Knows tensors only.
"""

import triton
import triton.language as tl

from kosmos_ros.kosmos2.kernels.chain import begin, end, wait
from kosmos_ros.kosmos2.kernels.linear import ROW_TENSORS, ROWS, write_weighted


@triton.jit
def attended(y, total, top, query, k, v, seen):
    """Add positions (P) with keys and values (P, D) to a softmax.

    As in FlashAttention (arXiv 2205.14135). `top`: the largest score so far; y and `total`: sums
    of exp(score - top), with and without the values.
    """
    score = tl.sum(k.to(tl.float32) * query[None, :], 1)
    score = tl.where(seen, score, -float("inf"))
    new = tl.maximum(top, tl.max(score, 0))
    shrink = tl.exp(top - new)
    weight = tl.exp(score - new)
    y = y * shrink + tl.sum(weight[:, None] * v.to(tl.float32), 0)
    return y, total * shrink + tl.sum(weight, 0), new


@triton.jit(do_not_specialize=["window"], do_not_specialize_on_alignment=ROW_TENSORS)
def attend(
    queries, cache, positions, out, next_norm, weighted, moments, stride, window,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, FIT: tl.constexpr,
    CHAIN: tl.constexpr,
):  # fmt: skip
    """Write softmax(q k / sqrt(D)) v of a token and a head, over the positions up to the token.

    `queries` and `out` (M, HEADS * D): a row has `window` tokens, the first one at its position.
    FIT is the next power of two of `window`. `cache` (rows, length, 2, HEADS, D) has `stride`
    numbers between rows. With `next_norm`, write the input of the next norm instead of `out`.
    The kernel reads BLOCK positions at a time. Earlier steps wrote the positions before the
    window, so the kernel loads the first block of these before those of the window are ready.
    """
    begin(CHAIN)
    m = tl.program_id(0)
    row = m // window
    head = tl.program_id(1)
    H: tl.constexpr = HEADS * D
    d = tl.arange(0, D)
    within = tl.arange(0, BLOCK)
    position = tl.load(positions + row)
    base = cache + row.to(tl.int64) * stride + head * D
    at = base + within[:, None] * (2 * H) + d[None, :]
    k = tl.load(at, (within < position)[:, None], 0.0)
    v = tl.load(at + H, (within < position)[:, None], 0.0)
    norm_weight = tl.load(next_norm + head * D + d) if next_norm is not None else None
    wait(CHAIN)
    query = tl.load(queries + m * H + head * D + d).to(tl.float32) * (D**-0.5)
    inside = tl.arange(0, FIT)
    seen = inside <= m % window
    now = base + (position + inside)[:, None] * (2 * H) + d[None, :]
    own_k = tl.load(now, seen[:, None], 0.0)
    own_v = tl.load(now + H, seen[:, None], 0.0)
    top = -float("inf")
    total = 0.0
    y = tl.zeros((D,), tl.float32)
    for start in range(0, position, BLOCK):
        before = start + within < position
        if start > 0:
            k = tl.load(at + start * (2 * H), before[:, None], 0.0)
            v = tl.load(at + start * (2 * H) + H, before[:, None], 0.0)
        y, total, top = attended(y, total, top, query, k, v, before)
    y, total, top = attended(y, total, top, query, own_k, own_v, seen)
    end(CHAIN)
    y = (y / total)[None, :]
    m += tl.arange(0, 1)
    n = head * D + d
    if next_norm is None:
        tl.store(out + m[:, None] * H + n[None, :], y.to(out.dtype.element_ty))
    else:
        y = y.to(weighted.dtype.element_ty).to(tl.float32)
        write_weighted(y, norm_weight, weighted, moments, m, n, head, ROWS, H)
