# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks on the weights of the modules that Hugging Face loaded.

Functions replace modules, because a call of a module takes as long as a small model's layer norm.
Knows tensors only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kosmos_ros.kosmos2.products import Map, fused, linear

_onednn_lock = threading.Lock()  # oneDNN's switch is global

SMALL_ACTIVATION = 2**14
"""Largest number of values for which GELU is faster without oneDNN on a CPU."""


class Block:
    """Norm, attention, norm, two products. Call `project`, attend, then `finish`.

    `before` and `between` are the layer norms before the attention and before the products.
    `within` and `inner` are those that only a Kosmos2TextBlock has: before the output product of
    the attention and before the last product. `fast`: the module kernels.norms if its kernel runs
    on this device, otherwise None.
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
        fast: Any,
    ) -> None:
        self.heads, self.depth = attention.num_heads, attention.head_dim
        self.plain = type(up) is nn.Linear  # weights are not quantized
        self._norms = before, within, between, inner
        affine = all(each.elementwise_affine for each in self._norms if each)
        # Blocks with quantized weights have no CUDA graphs, and Triton takes longer to launch.
        if not self.plain or not affine:
            fast = None
        self._before = norm(before, fast)
        self._qkv = fused(attention.q_proj, attention.k_proj, attention.v_proj)
        self._within = norm(within, fast) if within else _same
        self._out = linear(attention.out_proj)
        self._between = _sum_norm(between, fast)
        self._up, self._down = linear(up), linear(down)
        # Compare names, because these classes are in a private module.
        own = {"QuickGELUActivation": _quick_gelu, "GELUActivation": _gelu}
        self._activation: Map = own.get(type(activation).__name__, activation)
        self._inner = _activated_norm(self._activation, inner, fast)

    def products(self) -> list[tuple[nn.LayerNorm | None, Map]]:
        """Return the four products, each after the norm of its input, in the order of use."""
        maps = self._qkv, self._out, self._up, self._down
        return list(zip(self._norms, maps, strict=True))

    @property
    def gelu(self) -> bool:
        """Whether the activation is GELU without approximation."""
        return self._activation is _gelu

    @classmethod
    def text(cls, block: Any, fast: Any = None) -> Block:
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
            fast,
        )

    @classmethod
    def vision(cls, layer: Any, fast: Any = None) -> Block:
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
            fast,
        )

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries (..., heads, D), and keys and values (..., 2, heads, D) of (..., H)."""
        shape = (*hidden.shape[:-1], 3, self.heads, self.depth)
        qkv = self._qkv(self._before(hidden)).view(shape)
        return qkv.select(-3, 0), qkv.narrow(-3, 1, 2)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return `hidden` (..., H) after the block, with `attended` (..., heads, D) added."""
        product = self._out(self._within(attended.flatten(-2)))
        hidden, normed = self._between(product, hidden)
        return self._down(self._inner(self._up(normed))).add_(hidden)

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


def norm(module: nn.LayerNorm, fast: Any = None) -> Map:
    """Return a function that computes the layer norm of `module`. For `fast` see Block."""
    if fast:
        return lambda hidden: fast.run(hidden, module)[1]
    shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda hidden: torch.layer_norm(hidden, shape, weight, bias, eps)


def _sum_norm(
    module: nn.LayerNorm, fast: Any
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a function of two hidden states that returns their sum, and the norm of the sum.

    It may overwrite its first argument.
    """
    if fast:
        return lambda product, hidden: fast.run(product, module, hidden)
    alone = norm(module)

    def summed(product: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        total = product.add_(hidden)
        return total, alone(total)

    return summed


def _activated_norm(activation: Map, module: nn.LayerNorm | None, fast: Any) -> Map:
    """Return a function that computes the activation, and then the layer norm if any."""
    if fast and activation in (_gelu, _quick_gelu):
        number = fast.GELU if activation is _gelu else fast.QUICK_GELU
        return lambda hidden: fast.run(hidden, module, activation=number)[1]
    if not module:
        return activation
    alone = norm(module, fast)
    return lambda hidden: alone(activation(hidden))


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
