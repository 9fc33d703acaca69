# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Kernel of a layer norm of many rows, with what comes before it: a sum or an activation.

The first pass and the vision tower have too many rows for the kernels of a step. They multiply
with torch. For their few hundred rows, torch's layer norms take several times as long as it takes
to read the numbers. Knows tensors only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton import next_power_of_2

from kosmos_ros.kosmos2.kernels.linear import gelu

NONE, GELU, QUICK_GELU = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
ELEMENTS = 16  # of a thread


@triton.jit
def norm_row(
    x, residual, total, weight, bias, out, eps,
    H: tl.constexpr, FIT: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Write norm(activation(x + residual)) of a row of x (M, H) to `out`, and the sum to `total`.

    Without `weight`, there is no norm; without `residual`, there is no sum. The sum and GELU are
    rounded to the type of x, as torch does. FIT is the next power of two of H.
    """
    h = tl.arange(0, FIT)
    here = h < H
    at = tl.program_id(0).to(tl.int64) * H + h
    y = tl.load(x + at, here, 0.0).to(tl.float32)
    if residual is not None:
        y += tl.load(residual + at, here, 0.0).to(tl.float32)
        y = y.to(total.dtype.element_ty)
        tl.store(total + at, y, here)
        y = y.to(tl.float32)
    if ACTIVATION == GELU:
        y = gelu(y).to(out.dtype.element_ty).to(tl.float32)
    if ACTIVATION == QUICK_GELU:
        y *= tl.sigmoid(1.702 * y)
    if weight is not None:
        y = tl.where(here, y - tl.sum(y, 0) / H, 0.0)
        y *= tl.rsqrt(tl.sum(y * y, 0) / H + eps)
        y *= tl.load(weight + h, here, 0.0).to(tl.float32)
        y += tl.load(bias + h, here, 0.0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), here)


def run(
    x: Tensor,
    norm: nn.LayerNorm | None,
    residual: Tensor | None = None,
    activation: tl.constexpr = NONE,
) -> tuple[Tensor, Tensor]:
    """Return x + residual (..., H), and norm(activation(x + residual)).

    Without `residual`, the first tensor is x.
    """
    x = x.contiguous()
    total = None if residual is None else torch.empty_like(x)
    out = torch.empty_like(x)
    width = x.shape[-1]
    fit = next_power_of_2(width)
    weight, bias, eps = (norm.weight, norm.bias, norm.eps) if norm else (None, None, 0.0)
    norm_row[(x.numel() // width,)](
        x, residual, total, weight, bias, out, eps, width, fit, activation,
        num_warps=min(max(fit // (32 * ELEMENTS), 1), 16),
    )  # fmt: skip
    return x if total is None else total, out
