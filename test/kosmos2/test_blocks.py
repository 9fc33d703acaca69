# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The faster ways to compute a product and an activation give torch's results."""

import pytest
import torch
from torch import nn

from kosmos_ros.kosmos2.blocks import (
    FEW_ROWS,
    LARGE_PRODUCT,
    SMALL_ACTIVATION,
    WEIGHT_PARTS,
    _gelu,
    fused,
    linear,
)

INPUTS = 512
LARGE = LARGE_PRODUCT // INPUTS  # outputs


@pytest.mark.parametrize("outputs", [8, LARGE - 1, LARGE, LARGE + 1, LARGE + WEIGHT_PARTS - 1])
@pytest.mark.parametrize("shape", [(1,), (FEW_ROWS,), (FEW_ROWS + 1,), (2, FEW_ROWS // 2), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_equals_that_of_the_module(outputs, shape, bias):
    torch.manual_seed(outputs)
    module = nn.Linear(INPUTS, outputs, bias=bias).requires_grad_(False)
    hidden = torch.randn(*shape, INPUTS)
    torch.testing.assert_close(linear(module)(hidden), module(hidden), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("outputs", [(8, 16, 24), (LARGE, 8, 3)])
def test_a_fused_product_has_the_outputs_of_its_modules_side_by_side(outputs):
    modules = [nn.Linear(INPUTS, size).requires_grad_(False) for size in outputs]
    hidden = torch.randn(5, INPUTS)
    apart = torch.cat([module(hidden) for module in modules], -1)
    torch.testing.assert_close(fused(*modules)(hidden), apart, atol=1e-5, rtol=1e-4)
    # The modules use parts of the fused weights.
    assert len({module.weight.untyped_storage().data_ptr() for module in modules}) == 1
    again = torch.cat([module(hidden) for module in modules], -1)
    torch.testing.assert_close(again, apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("numbers", [1, SMALL_ACTIVATION, SMALL_ACTIVATION + 1])
def test_gelu_equals_torchs_and_restores_onednn(numbers):
    onednn, hidden = torch.backends.mkldnn, torch.linspace(-6, 6, numbers)
    expected = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    for enabled in (False, True):
        onednn.enabled = enabled
        torch.testing.assert_close(_gelu(hidden), expected, atol=1e-6, rtol=1e-5)
        assert onednn.enabled == enabled
    with pytest.raises(RuntimeError):
        _gelu(torch.ones(3, dtype=torch.complex64))
    assert onednn.enabled
