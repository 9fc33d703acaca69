# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The weights of a block's products, as the kernels read them.

PLAIN  16-bit numbers (N, K)
INT8   bitsandbytes' Linear8bitLt: int8 (N, K), and a float32 scale of each output
NF4    bitsandbytes' Linear4bit: codes of 4 bits (N, K / 2), the first one of a byte in its upper
       half; a table of the values of both codes, by byte; a float32 scale of each 64 inputs (arXiv
       2305.14314)

The modules and the kernels share the weights, but not the scales of joined products.

The results differ slightly from those of bitsandbytes. With int8, bitsandbytes also rounds the
inputs to 8 bits, and the kernels do not. With NF4, bitsandbytes rounds each scaled weight to 16
bits; the kernels round the 16 values, and scale the sums of products. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kosmos_ros.kosmos2.kernels.linear import BLOCK, INT8, NF4, PLAIN
from kosmos_ros.kosmos2.products import Map, Product, SideBySide, side_by_side


class Layout(NamedTuple):
    """The form of a product's weights."""

    format: int  # PLAIN, INT8 or NF4
    outputs: int
    inputs: int
    dtype: torch.dtype  # of the bias


@dataclass(frozen=True)
class Matrix:
    """The weights and the bias of a product."""

    outputs: int
    inputs: int
    bias: Tensor  # (N,)
    values: Tensor
    scales: Tensor | None = None
    table: Tensor | None = None  # (256,): for each byte, an integer that packs its codes' values

    @property
    def format(self) -> int:
        return (
            PLAIN.value if self.scales is None else INT8.value if self.table is None else NF4.value
        )

    def exact(self) -> Tensor:
        """Return, in float32, the weights (N, K) that the kernels multiply by."""
        if self.scales is None:
            return self.values.float()
        if self.table is None:
            return self.values.float() * self.scales[:, None]
        values = self.table[self.values.flatten().int()].view(self.bias.dtype)
        weights = values.float().view(-1, BLOCK.value) * self.scales[:, None]
        return weights.view(self.outputs, self.inputs)


def layout(product: Map) -> Layout | None:
    """Return the form of a product's weights, or None if the kernels do not know it."""
    found = [_layout(module) for module in _modules(product)]
    forms = [form for form in found if form]
    if len(forms) < len(found) or len({(form.format, form.dtype) for form in forms}) > 1:
        return None
    return forms[0]._replace(outputs=sum(form.outputs for form in forms))


def matrix(product: Map) -> Matrix:
    """Return the weights of a product that has a layout.

    If the product has several modules, their weights become views of the matrix.
    """
    modules = _modules(product)
    parts = [_matrix(module) for module in modules]
    return parts[0] if len(parts) == 1 else _joined(modules, parts)


def _modules(product: Map) -> Sequence[Any]:
    return product.modules if isinstance(product, SideBySide) else [product]


def _layout(module: Any) -> Layout | None:
    bias: Tensor | None = getattr(module, "bias", None)
    if bias is None:
        return None
    if isinstance(module, Product):
        outputs, inputs = module.weight.shape
        return Layout(PLAIN.value, outputs, inputs, bias.dtype)
    if not isinstance(module, nn.Linear):
        return None
    weight, shape = module.weight, (module.out_features, module.in_features)
    if weight.dtype == torch.int8 and hasattr(weight, "SCB"):
        return Layout(INT8.value, *shape, bias.dtype)
    state = getattr(weight, "quant_state", None)
    if state is None or (state.quant_type, state.blocksize) != ("nf4", BLOCK.value):
        return None
    return Layout(NF4.value, *shape, bias.dtype)


def _matrix(module: Any) -> Matrix:
    form, weight = _layout(module), module.weight
    assert form
    if form.format == PLAIN.value:
        return Matrix(form.outputs, form.inputs, module.bias, weight)
    if form.format == INT8.value:
        # The first call of the module moves the scales to its state.
        largest = module.state.SCB if weight.SCB is None else weight.SCB
        scales = largest.float() / 127
        return Matrix(form.outputs, form.inputs, module.bias, weight.data, scales)
    state = weight.quant_state
    scales = state.absmax
    if state.nested:  # the scales are quantized, too
        from bitsandbytes.functional import dequantize_blockwise

        scales = dequantize_blockwise(scales, state.state2) + state.offset
    table = _table(state.code.to(form.dtype))
    return Matrix(form.outputs, form.inputs, module.bias, weight.data, scales.float(), table)


_tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def _table(values: Tensor) -> Tensor:
    """Return the table of NF4 for the values (16,) of its codes, the same tensor each time.

    So it stays in the GPU's cache.
    """
    key = values.device, values.dtype
    if key not in _tables:
        pairs = torch.cartesian_prod(values, values)
        # Little-endian: the first value is the lower half of the integer.
        integer = torch.int32 if values.dtype.itemsize == 2 else torch.int64
        _tables[key] = pairs.view(integer).flatten()
    return _tables[key]


def _joined(modules: Sequence[Any], parts: Sequence[Matrix]) -> Matrix:
    """Return one matrix of several quantized ones. The modules' weights become views of it."""
    values = side_by_side([part.values for part in parts])
    counts = [len(part.values) for part in parts]
    for module, own in zip(modules, values.split(counts), strict=True):
        weight = module.weight
        weight.data = own
        if hasattr(weight, "SCB"):  # the module's first call moves weight.CB to module.state.CB
            holder = module.state if weight.CB is None else weight
            holder.CB = own
    scales = torch.cat([part.scales for part in parts if part.scales is not None])
    bias = torch.cat([part.bias for part in parts])
    return Matrix(len(bias), parts[0].inputs, bias, values, scales, parts[0].table)


class NormedProduct:
    """A matrix after a layer norm, as linear.py describes it."""

    def __init__(self, layer_norm: nn.LayerNorm, matrix: Matrix) -> None:
        self.matrix = matrix
        weight = layer_norm.weight
        # A power of two, so that the division is exact.
        most = weight.float().abs().amax().clamp(min=torch.finfo(torch.float16).tiny)
        self.scale = 1.0 if most.is_meta else float(most.log2().ceil().exp2())
        self.norm_weight = weight / self.scale  # (K,)
        exact = matrix.exact()
        self.sums = exact @ self.norm_weight.float()  # (N,)
        self.offset = exact @ layer_norm.bias.float() + matrix.bias.float()  # (N,)
        self.eps = layer_norm.eps
