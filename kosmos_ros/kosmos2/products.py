# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Multiply hidden states by the weights of linear layers, in the fastest way on each device.

Several products of the same input are computed as one. On a CPU, torch multiplies by large weights
with MKL. oneDNN is faster for more than a few rows, and for any number of rows on CPUs of other
makers than Intel. Knows tensors only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kosmos_ros.kosmos2.int8 import Int8Linear

Map = Callable[[Tensor], Tensor]
"""A function of hidden states, such as a layer norm or a product with weights."""
_Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""As functional.linear: of hidden states (..., I), weights (O, I) and bias (O)."""

ALIGNED = 8  # numbers of 16 bits in 16 bytes, which a thread loads at once
CPU_INFO = Path("/proc/cpuinfo")
LARGE_PRODUCT = 2**20
"""Number of weights from which the weights of a product do not fit in the cache of a core."""
MKL_ROWS = 3
"""Largest number of rows for which MKL reads large weights on an Intel CPU only once. Everywhere
else, MKL reads them several times, or with one thread; oneDNN does neither."""


def linear(module: Any) -> Map:
    """Return the product with the weights of `module`, or `module` if they are quantized."""
    if type(module) is not nn.Linear:
        quantized: Map = module
        return quantized
    return Product(module.weight, module.bias)


def fused(*modules: Any) -> Map:
    """Return several products of the same input as one, with their outputs side by side.

    Plain and Int8Linear modules must have a bias. Their weights become views of the fused ones,
    so nothing is stored twice. Other modules stay separate.
    """
    kinds = {type(module) for module in modules}
    if kinds == {nn.Linear}:
        return Product(_shared(modules, "weight"), _shared(modules, "bias"))
    if kinds == {Int8Linear}:
        return Int8Linear(*(_shared(modules, name) for name in ("weight", "scale", "bias")))
    return SideBySide(modules)


def _shared(modules: Sequence[Any], name: str) -> Tensor:
    """Return a parameter of several modules as one tensor, and make theirs views of it."""
    parts = [getattr(module, name) for module in modules]
    whole = side_by_side(parts)
    for module, part in zip(modules, whole.split([len(part) for part in parts]), strict=True):
        setattr(module, name, nn.Parameter(part, requires_grad=False))
    return whole


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors (N, ...); a view if they are already adjacent in memory."""
    first, end = parts[0], parts[0].data_ptr()
    storage = first.untyped_storage().data_ptr()
    for part in parts:
        beside = part.data_ptr() == end and part.untyped_storage().data_ptr() == storage
        alike = part.dtype == first.dtype and part.shape[1:] == first.shape[1:]
        if not (beside and alike and part.is_contiguous()):
            return torch.cat(list(parts))
        end += part.nbytes
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def head(module: Any, *tied: Any) -> Map:
    """Return the product with the weights (O, I) of `module`.

    On a GPU, products of 16-bit numbers are several times slower if O is not a multiple of
    ALIGNED. So this adds rows of zeros to the weights, and the product cuts off their outputs. The
    weights of `module`, and of each module of `tied` that shares them, become a view of the longer
    ones.
    """
    before: Tensor = module.weight
    outputs, inputs = before.shape
    rows = -(-outputs // ALIGNED) * ALIGNED
    aligned = rows == outputs or before.element_size() != 2 or not before.is_cuda
    if aligned or type(module) is not nn.Linear or module.bias is not None:
        return linear(module)
    if before.untyped_storage().nbytes() == rows * inputs * before.element_size():
        weight = before.as_strided((rows, inputs), (inputs, 1), 0)  # it is a view already
    else:
        weight = functional.pad(before, (0, 0, 0, rows - outputs))
    module.weight = nn.Parameter(weight[:outputs], requires_grad=False)
    for other in tied:
        if other.weight is before:
            other.weight = module.weight
    product = Product(weight, None)
    return lambda hidden: product(hidden)[..., :outputs]


class Product:
    """The function of a linear layer with `weight` (O, I) and `bias` (O)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._across = weight.t()
        large = weight.device.type == "cpu" and weight.numel() >= LARGE_PRODUCT
        self._large = _large() if large else None

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._large:
            return self._large(hidden, self.weight, self.bias)
        if self.bias is not None and hidden.dim() == 2:
            # A step of the decoder; functional.linear would transpose the weights each time.
            return torch.addmm(self.bias, hidden, self._across)
        return functional.linear(hidden, self.weight, self.bias)


class SideBySide:
    """The function of several modules of the same input, with their outputs side by side."""

    def __init__(self, modules: Sequence[Any]) -> None:
        self.modules = modules

    def __call__(self, hidden: Tensor) -> Tensor:
        return torch.cat([module(hidden) for module in self.modules], dim=-1)


@functools.cache
def _large() -> _Linear:
    """Return the fastest product with large weights on this CPU.

    It depends on the kind of the CPU, not on a measurement: results must be the same in each run.
    """
    mkl, onednn = torch.backends.mkl.is_available(), torch.backends.mkldnn.is_available()
    if not (mkl and onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return functional.linear
    try:
        intel = "GenuineIntel" in CPU_INFO.read_text()
    except OSError:
        intel = False
    return large_with_either if intel else large_with_onednn


def large_with_either(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `functional.linear`: up to MKL_ROWS rows with MKL, more rows with oneDNN."""
    if hidden.numel() <= MKL_ROWS * hidden.shape[-1]:
        return functional.linear(hidden, weight, bias)
    return large_with_onednn(hidden, weight, bias)


def large_with_onednn(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `functional.linear` with oneDNN. torch itself uses it only for other types."""
    if weight.dtype != torch.float32:
        return functional.linear(hidden, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
    return product
