# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The weights of a block's products, as the kernels read them.

PLAIN  16-bit numbers (N, K)
INT8   bitsandbytes' Linear8bitLt: int8 (N, K), and a float32 scale of each output
NF4    bitsandbytes' Linear4bit: codes of 4 bits (N, K / 2), the first one of a byte in its upper
       half; a table of the values of both codes, by byte; a float32 scale of each 64 inputs (arXiv
       2305.14314)

The modules and the kernels share the weights.

The results differ slightly from those of bitsandbytes. With int8, bitsandbytes also rounds the
inputs to 8 bits, and the kernels do not. With NF4, bitsandbytes rounds each scaled weight to 16
bits; the kernels round the 16 values, and scale the sums of products. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kosmos_ros.kosmos2.kernels.linear import BLOCK, INT8, NF4, PLAIN
from kosmos_ros.kosmos2.products import Map, Product, SideBySide, side_by_side


@dataclass(frozen=True)
class Matrix:
    """The weights and the bias of a linear layer."""

    outputs: int
    inputs: int
    bias: Tensor  # (N,)
    values: Tensor
    scales: Tensor | None = None
    code: Tensor | None = None  # (256,): for each byte, an integer that packs its codes' values

    @property
    def format(self) -> Any:
        return PLAIN if self.scales is None else INT8 if self.code is None else NF4

    def exact(self) -> Tensor:
        """Return, in float32, the weights (N, K) that the kernels multiply by."""
        if self.scales is None:
            return self.values.float()
        if self.code is None:
            return self.values.float() * self.scales[:, None]
        values = self.code[self.values.flatten().int()].view(self.bias.dtype)
        weights = values.float().view(-1, BLOCK.value) * self.scales[:, None]
        return weights.view(self.outputs, self.inputs)


def matrices(product: Map) -> Sequence[Matrix] | None:
    """Return the matrices of a product, in the order of its outputs; None if one is unknown.

    Quantized ones of the same format are joined.
    """
    modules = product.modules if isinstance(product, SideBySide) else [product]
    maybe = [_matrix(module) for module in modules]
    found = [matrix for matrix in maybe if matrix]
    if len(found) < len(maybe):
        return None
    if len(found) > 1 and all(matrix.format == found[0].format for matrix in found):
        return [_joined(modules, found)]
    return found


def _joined(modules: Sequence[Any], parts: Sequence[Matrix]) -> Matrix:
    """Return one matrix of several quantized ones.

    The weights of the modules become views of it, so nothing is stored twice.
    """
    values = side_by_side([part.values for part in parts])
    counts = [len(part.values) for part in parts]
    for module, codes in zip(modules, values.split(counts), strict=True):
        weight = module.weight
        weight.data = codes
        if hasattr(weight, "SCB"):  # the module's first call moves weight.CB to module.state.CB
            holder = module.state if weight.CB is None else weight
            holder.CB = codes
    scales = torch.cat([part.scales for part in parts if part.scales is not None])
    bias = torch.cat([part.bias for part in parts])
    return Matrix(len(bias), parts[0].inputs, bias, values, scales, parts[0].code)


def _matrix(module: Any) -> Matrix | None:
    bias: Tensor | None = getattr(module, "bias", None)
    if bias is None:
        return None
    if isinstance(module, Product):
        outputs, inputs = module.weight.shape
        return Matrix(outputs, inputs, bias, module.weight)
    return _quantized(module) if isinstance(module, nn.Linear) else None


def _quantized(module: Any) -> Matrix | None:
    """Return the matrix of a module of bitsandbytes."""
    weight, shape = module.weight, (module.out_features, module.in_features)
    dtype = module.bias.dtype
    if weight.dtype == torch.int8 and hasattr(weight, "SCB"):
        # The first call of the module moves the scales to its state.
        largest = module.state.SCB if weight.SCB is None else weight.SCB
        return Matrix(*shape, module.bias, weight.data, largest.float() / 127)
    state = getattr(weight, "quant_state", None)
    if state is None or (state.quant_type, state.blocksize) != ("nf4", BLOCK.value):
        return None
    scales = state.absmax
    if state.nested:  # the scales are quantized, too
        from bitsandbytes.functional import dequantize_blockwise

        scales = dequantize_blockwise(scales, state.state2) + state.offset
    values = state.code.to(dtype)
    pairs = torch.cartesian_prod(
        values, values
    )  # little-endian: the first value is the lower half
    code = pairs.view(torch.int32 if dtype.itemsize == 2 else torch.int64).flatten()
    return Matrix(*shape, module.bias, weight.data, scales.float(), code)


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
