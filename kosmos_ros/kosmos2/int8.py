# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Linear layers with 8-bit weights, for CPUs.

A token takes as long as reading the weights, so smaller weights make it faster. Only weights are
quantized. Each output has its own scale, from its largest weight. torch's kernel for 8-bit weights
multiplies in bfloat16. Knows tensors only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A linear layer (..., I) -> (..., O): `weight` (O, I) int8 times `scale` (O), plus `bias`."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = bias
        # The kernel's own scales are bfloat16, which is too coarse.
        self._ones = torch.ones(len(weight), dtype=torch.bfloat16)

    @classmethod
    def of(cls, module: nn.Linear) -> Int8Linear:
        """Return the quantized layer of `module`."""
        weight = module.weight.detach().float()  # float16 cannot hold every scale
        scale = weight.abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
        values = (weight / scale[:, None]).round().clamp(-127, 127)
        return cls(values.to(torch.int8), scale, module.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        output = torch._weight_int8pack_mm(flat.bfloat16(), self.weight, self._ones) * self.scale
        if self.bias is not None:
            output += self.bias
        return output.to(hidden.dtype).view(*hidden.shape[:-1], -1)


def quantize(model: nn.Module, keep: nn.Module) -> None:
    """Replace every nn.Linear of `model` except `keep` by an Int8Linear."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.Linear and module is not keep:
                setattr(parent, name, Int8Linear.of(module))
