# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights of 8 bits on a processor: products near those of the weights that they stand for."""

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
def test_products_are_near_whatever_the_number_of_rows(shape, bias):
    module = linear(bias=bias)
    hidden = torch.randn(*shape, 64)
    found = Int8Linear.of(module)(hidden)
    assert found.shape == (*shape, 48)
    assert found.dtype == hidden.dtype
    # Half a step of 127 to each weight, and bfloat16's 8 bits to each product.
    assert error(found, module(hidden)) < 0.02


def test_each_row_has_a_scale_of_its_own():
    module = linear()
    module.weight[3] *= 1e-4
    module.weight[7] = 0.0
    small = Int8Linear.of(module)
    hidden = torch.randn(4, 64)
    right = hidden @ module.weight[3]
    assert error(small(hidden)[:, 3] - module.bias[3], right) < 0.05
    assert torch.equal(small(hidden)[:, 7], module.bias[7].expand(4))
    assert int(small.weight.abs().max()) == 127


@pytest.mark.parametrize("rows", [2, 50])
def test_joined_maps_are_those_side_by_side(rows):
    parts = [Int8Linear.of(linear(outputs)) for outputs in (16, 32, 24)]
    hidden = torch.randn(rows, 64)
    apart = torch.cat([part(hidden) for part in parts], -1)
    assert torch.allclose(Int8Linear.joined(parts)(hidden), apart, atol=1e-5)


def test_all_maps_of_a_model_but_the_one_that_is_kept_are_replaced():
    model = nn.Sequential(linear(), nn.LayerNorm(48), nn.ModuleList([linear(8, 48), linear(9)]))
    kept = model[2][1]
    quantize(model, keep=kept)
    assert type(model[0]) is type(model[2][0]) is Int8Linear
    assert model[2][1] is kept and type(kept) is nn.Linear
    assert model[0].weight.dtype == torch.int8
