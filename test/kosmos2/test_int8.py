# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Products of 8-bit weights on a CPU are near those of the original weights."""

import pytest
import torch
from torch import nn

from kosmos_ros.kosmos2.int8 import Int8Linear, quantize


def linear(outputs=48, inputs=64, bias=True):
    torch.manual_seed(outputs)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def error(found, right):
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("shape", [(1,), (32,), (33,), (2, 5), (3, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_near_for_any_shape(shape, bias):
    module = linear(bias=bias)
    hidden = torch.randn(*shape, 64)
    found = Int8Linear.of(module)(hidden)
    assert found.shape == (*shape, 48)
    assert found.dtype == hidden.dtype
    # Errors: half a step of 127 for each weight, and bfloat16's 8 bits for each product.
    assert error(found, module(hidden)) < 0.02


def test_each_output_has_its_own_scale():
    module = linear()
    module.weight[3] *= 1e-4
    module.weight[7] = 0.0
    small = Int8Linear.of(module)
    hidden = torch.randn(4, 64)
    right = hidden @ module.weight[3]
    assert error(small(hidden)[:, 3] - module.bias[3], right) < 0.05
    assert torch.equal(small(hidden)[:, 7], module.bias[7].expand(4))
    assert int(small.weight.abs().max()) == 127


def test_quantize_replaces_all_linear_layers_except_the_kept_one():
    model = nn.Sequential(linear(), nn.LayerNorm(48), nn.ModuleList([linear(8, 48), linear(9)]))
    kept = model[2][1]
    quantize(model, keep=kept)
    assert type(model[0]) is type(model[2][0]) is Int8Linear
    assert model[2][1] is kept and type(kept) is nn.Linear
    assert model[0].weight.dtype == torch.int8
