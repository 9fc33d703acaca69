# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks on the weights of the modules that Hugging Face loaded.

Functions replace modules, because a call of a module takes as long as a small model's layer norm.
One product replaces three products of the same input, because it is faster. Knows tensors only.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kosmos_ros.kosmos2.int8 import Int8Linear

Map = Callable[[Tensor], Tensor]
"""A function of hidden states, such as a layer norm or a product with weights."""

_onednn_lock = threading.Lock()  # oneDNN's switch is global

LARGE_PRODUCT = 2**20
"""Number of weights from which the weights of a product do not fit in the cache of a core."""
FEW_ROWS = 16
"""Largest number of rows for which the weights of a large product are split among threads."""
WEIGHT_PARTS = 8
"""Number of parts into which the weights of such a product are split."""
SMALL_ACTIVATION = 2**14
"""Largest number of values for which GELU is faster without oneDNN on a CPU."""


class Block:
    """Norm, attention, norm, two products. Call `project`, attend, then `finish`.

    `before` and `between` are the layer norms before the attention and before the products.
    `within` and `inner` are those that only a Kosmos2TextBlock has: before the output product of
    the attention and before the last product.
    """

    def __init__(
        self,
        attention: Any,
        before: nn.LayerNorm,
        within: nn.LayerNorm | None,
        between: nn.LayerNorm,
        up: Any,
        activation: Any,
        inner: nn.LayerNorm | None,
        down: Any,
    ) -> None:
        self.heads, self.depth = attention.num_heads, attention.head_dim
        self.plain = type(up) is nn.Linear  # weights are not quantized
        self._before = norm(before)
        self._qkv = fused(attention.q_proj, attention.k_proj, attention.v_proj)
        self._within = norm(within) if within else _same
        self._out = linear(attention.out_proj)
        self._between = norm(between)
        self._up, self._down = linear(up), linear(down)
        # Compare names, because these classes are in a private module.
        own = {"QuickGELUActivation": _quick_gelu, "GELUActivation": _gelu}
        self._activation: Map = own.get(type(activation).__name__, activation)
        self._inner = norm(inner) if inner else _same
        self._norms = before, within, between, inner

    def products(self) -> list[tuple[nn.LayerNorm | None, Map]]:
        """Return the four products, each after the norm of its input, in the order of use."""
        maps = self._qkv, self._out, self._up, self._down
        return list(zip(self._norms, maps, strict=True))

    @property
    def gelu(self) -> bool:
        """Whether the activation is GELU without approximation."""
        return self._activation is _gelu

    @classmethod
    def text(cls, block: Any) -> Block:
        """Return a block with the weights of a Kosmos2TextBlock."""
        attention, ffn = block.self_attn, block.ffn
        return cls(
            attention,
            block.self_attn_layer_norm,
            attention.inner_attn_ln,
            block.final_layer_norm,
            ffn.fc1,
            ffn.activation_fn,
            ffn.ffn_layernorm,
            ffn.fc2,
        )

    @classmethod
    def vision(cls, layer: Any) -> Block:
        """Return a block with the weights of a Kosmos2VisionEncoderLayer."""
        mlp = layer.mlp
        return cls(
            layer.self_attn,
            layer.layer_norm1,
            None,
            layer.layer_norm2,
            mlp.fc1,
            mlp.activation_fn,
            None,
            mlp.fc2,
        )

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries (..., heads, D), and keys and values (..., 2, heads, D) of (..., H)."""
        shape = (*hidden.shape[:-1], 3, self.heads, self.depth)
        qkv = self._qkv(self._before(hidden)).view(shape)
        return qkv.select(-3, 0), qkv.narrow(-3, 1, 2)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return `hidden` (..., H) after the block, with `attended` (..., heads, D) added."""
        hidden = self._out(self._within(attended.flatten(-2))).add_(hidden)
        inner = self._inner(self._activation(self._up(self._between(hidden))))
        return self._down(inner).add_(hidden)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return `hidden` (B, S, H) after the block, with attention over all positions."""
        q, kv = self.project(hidden)
        k, v = kv.transpose(1, 3).unbind(2)
        return self.finish(hidden, attend(q.transpose(1, 2), k, v))


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Return attention (B, S, heads, D) of q (B, heads, S, D) over k and v (B, heads, T, D)."""
    attended = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    return attended.transpose(1, 2)


def norm(module: nn.LayerNorm) -> Map:
    """Return a function that computes the layer norm of `module`."""
    shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda hidden: torch.layer_norm(hidden, shape, weight, bias, eps)


def linear(module: Any) -> Map:
    """Return the product with the weights of `module`, or `module` if they are quantized."""
    if type(module) is not nn.Linear:
        quantized: Map = module
        return quantized
    return Product(module.weight, module.bias)


def fused(*modules: Any) -> Map:
    """Return several products of the same input as one, with their outputs side by side."""
    if all(isinstance(module, Int8Linear) for module in modules):
        return Int8Linear.joined(modules)
    if any(type(module) is not nn.Linear for module in modules):
        return SideBySide(modules)
    weight = torch.cat([module.weight for module in modules])
    bias = torch.cat([module.bias for module in modules])
    # The modules use parts of the fused weights from now on, which saves a copy.
    ends = [0, *itertools.accumulate(module.out_features for module in modules)]
    for module, start, end in zip(modules, ends, ends[1:], strict=False):
        module.weight = nn.Parameter(weight[start:end], requires_grad=False)
        module.bias = nn.Parameter(bias[start:end], requires_grad=False)
    return Product(weight, bias)


class Product:
    """The function of a linear layer with `weight` (O, I) and `bias` (O)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._across = weight.t()
        self._large = weight.device.type == "cpu" and weight.numel() >= LARGE_PRODUCT

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._large and hidden.numel() <= FEW_ROWS * hidden.shape[-1]:
            return _of_few(self.weight, self.bias, hidden)
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


def _of_few(weight: Tensor, bias: Tensor | None, hidden: Tensor) -> Tensor:
    """Return `functional.linear` of a few rows, at nearly the bandwidth of the memory.

    MKL uses one thread for a single row, and reads the weights several times for a few rows.
    """
    columns = hidden.reshape(-1, hidden.shape[-1]).t()
    whole = len(weight) // WEIGHT_PARTS * WEIGHT_PARTS
    parts = weight[:whole].view(WEIGHT_PARTS, -1, weight.shape[1])
    output = torch.bmm(parts, columns.expand(WEIGHT_PARTS, -1, -1)).view(whole, -1)
    if whole < len(weight):
        output = torch.cat([output, weight[whole:] @ columns])
    output = output.t().contiguous()
    if bias is not None:
        output.add_(bias)
    return output.view(*hidden.shape[:-1], -1)


def _gelu(hidden: Tensor) -> Tensor:
    """Return `functional.gelu`. Small inputs on a CPU skip oneDNN, which is slower for them."""
    if hidden.is_cuda or hidden.numel() > SMALL_ACTIVATION or torch.backends.flags_frozen():
        return functional.gelu(hidden)
    onednn: Any = torch.backends.mkldnn
    with _onednn_lock:
        before, onednn.enabled = onednn.enabled, False
        try:
            return functional.gelu(hidden)
        finally:
            onednn.enabled = before


def _quick_gelu(hidden: Tensor) -> Tensor:
    return torch.sigmoid_(hidden * 1.702).mul_(hidden)


def _same(hidden: Tensor) -> Tensor:
    return hidden
