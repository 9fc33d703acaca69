# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a transformer, on the weights of the modules that Hugging Face loaded.

A module's call takes as long as a small model's layer norm itself, and three products of one
input take longer than one three times as wide. Knows tensors only.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kosmos_ros.kosmos2.int8 import Int8Linear

Map = Callable[[Tensor], Tensor]

_switch = threading.Lock()  # of oneDNN, which is the whole process's

LARGE = 2**20  # weights that no cache of a core holds
FEW = 16  # rows
SMALL_ACTIVATION = 2**14  # numbers
PARTS = 8  # of large weights, which threads share


class Block:
    """Norm, attention, norm, two products: `project`, then `finish` with what was attended to."""

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
        self.plain = type(up) is nn.Linear  # weights are not quantised
        self._before = norm(before)
        self._qkv = fused(attention.q_proj, attention.k_proj, attention.v_proj)
        self._within = norm(within) if within else _same
        self._out = linear(attention.out_proj)
        self._between = norm(between)
        self._up, self._down = linear(up), linear(down)
        # By name, since their module is no public one.
        own = {"QuickGELUActivation": _quick_gelu, "GELUActivation": _gelu}
        self._activation: Map = own.get(type(activation).__name__, activation)
        self._inner = norm(inner) if inner else _same

    @classmethod
    def text(cls, block: Any) -> Block:
        """Of a Kosmos2TextBlock."""
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
        """Of a Kosmos2VisionEncoderLayer."""
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
        """Queries (..., heads, D), keys and values (..., 2, heads, D) of `hidden` (..., H)."""
        shape = (*hidden.shape[:-1], 3, self.heads, self.depth)
        qkv = self._qkv(self._before(hidden)).view(shape)
        return qkv.select(-3, 0), qkv.narrow(-3, 1, 2)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """`hidden` (..., H) after the block, of what its queries found (..., heads, D)."""
        hidden = self._out(self._within(attended.flatten(-2))).add_(hidden)
        inner = self._inner(self._activation(self._up(self._between(hidden))))
        return self._down(inner).add_(hidden)

    def __call__(self, hidden: Tensor) -> Tensor:
        """`hidden` (B, S, H) after the block, where all look at all."""
        q, kv = self.project(hidden)
        k, v = kv.transpose(1, 3).unbind(2)
        return self.finish(hidden, attend(q.transpose(1, 2), k, v))


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """What queries (B, heads, S, D) find in keys and values (B, heads, T, D): (B, S, heads, D)."""
    found = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    return found.transpose(1, 2)


def norm(module: nn.LayerNorm) -> Map:
    """The module's function."""
    shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda hidden: torch.layer_norm(hidden, shape, weight, bias, eps)


def linear(module: Any) -> Map:
    """The module's function; the module itself where its weights are quantised."""
    if type(module) is not nn.Linear:
        quantised: Map = module
        return quantised
    return _product(module.weight, module.bias)


def fused(*modules: Any) -> Map:
    """Several products of the same input as one, side by side."""
    if all(isinstance(module, Int8Linear) for module in modules):
        return Int8Linear.joined(modules)
    if any(type(module) is not nn.Linear for module in modules):
        return lambda hidden: torch.cat([module(hidden) for module in modules], dim=-1)
    weight = torch.cat([module.weight for module in modules])
    bias = torch.cat([module.bias for module in modules])
    # Not a second copy: the modules read parts of the fused weights from now on.
    ends = [0, *itertools.accumulate(module.out_features for module in modules)]
    for module, start, end in zip(modules, ends, ends[1:], strict=False):
        module.weight = nn.Parameter(weight[start:end], requires_grad=False)
        module.bias = nn.Parameter(bias[start:end], requires_grad=False)
    return _product(weight, bias)


def _product(weight: Tensor, bias: Tensor | None) -> Map:
    across = weight.t()
    large = weight.device.type == "cpu" and weight.numel() >= LARGE

    def product(hidden: Tensor) -> Tensor:
        if large and hidden.numel() <= FEW * hidden.shape[-1]:
            return _of_few(weight, bias, hidden)
        if bias is not None and hidden.dim() == 2:
            # A step; functional.linear would turn the weights again.
            return torch.addmm(bias, hidden, across)
        return functional.linear(hidden, weight, bias)

    return product


def _of_few(weight: Tensor, bias: Tensor | None, hidden: Tensor) -> Tensor:
    """`functional.linear` of a few rows, which reads large weights nearly as fast as memory does.

    MKL has one thread read the weights for a single row, and reads them several times for a few.
    """
    rows = hidden.reshape(-1, hidden.shape[-1])
    columns = rows.t()
    whole = len(weight) // PARTS * PARTS
    parts = weight[:whole].view(PARTS, -1, weight.shape[1])
    found = torch.bmm(parts, columns.expand(PARTS, -1, -1)).view(whole, -1)
    if whole < len(weight):
        found = torch.cat([found, weight[whole:] @ columns])
    found = found.t().contiguous()
    if bias is not None:
        found.add_(bias)
    return found.view(*hidden.shape[:-1], -1)


def _gelu(hidden: Tensor) -> Tensor:
    """`functional.gelu`, of few numbers on a CPU without oneDNN, whose call takes longer."""
    if hidden.is_cuda or hidden.numel() > SMALL_ACTIVATION or torch.backends.flags_frozen():
        return functional.gelu(hidden)
    onednn: Any = torch.backends.mkldnn
    with _switch:
        before, onednn.enabled = onednn.enabled, False
        try:
            return functional.gelu(hidden)
        finally:
            onednn.enabled = before


def _quick_gelu(hidden: Tensor) -> Tensor:
    return torch.sigmoid_(hidden * 1.702).mul_(hidden)


def _same(hidden: Tensor) -> Tensor:
    return hidden
