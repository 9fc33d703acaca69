# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Kernel of a layer norm, with the sum or the activation before it.

First passes and the vision tower have a few hundred rows, too many for the kernels of a step, so
torch computes their products. Its layer norms of so few rows take several times as long as reading
the numbers. Knows tensors only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton import next_power_of_2

from kosmos_ros.kosmos2.kernels.linear import gelu

NONE, GELU, QUICK_GELU = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
ELEMENTS = 16  # that a thread computes


@triton.jit
def norm_row(
    x, residual, total, weight, bias, out, eps,
    H: tl.constexpr, FIT: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Write norm(activation(x + residual)) of a row of x (M, H) to `out`, and the sum to `total`.

    There is no norm if `weight` is None, and no sum if `residual` is None. The sum and GELU are
    rounded to the type of x, as torch does. FIT is the smallest power of two that is at least H.
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

    If `residual` is None, the first tensor is x. If `norm` is None, the second is not normalized.
    """
    x = x.contiguous()
    residual = None if residual is None else residual.contiguous()
    total = None if residual is None else torch.empty_like(x)
    out = torch.empty_like(x)
    width = x.shape[-1]
    fit = next_power_of_2(width)
    weight, bias, eps = (norm.weight, norm.bias, norm.eps) if norm else (None, None, 0.0)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        norm_row[(x.numel() // width,)](
            x, residual, total, weight, bias, out, eps, width, fit, activation,
            num_warps=min(max(fit // (32 * ELEMENTS), 1), 16),
        )  # fmt: skip
    return x if total is None else total, out
