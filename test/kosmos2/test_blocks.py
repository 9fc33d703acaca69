# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The faster way to compute an activation gives torch's results."""

import pytest
import torch

from kosmos_ros.kosmos2.blocks import SMALL_ACTIVATION, _gelu


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
