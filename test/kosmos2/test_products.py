# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The faster ways to compute a product give torch's results."""

import pytest
import torch
from torch import nn

from kosmos_ros.kosmos2 import products
from kosmos_ros.kosmos2.int8 import Int8Linear
from kosmos_ros.kosmos2.products import (
    LARGE_PRODUCT,
    MKL_ROWS,
    fused,
    head,
    large_with_either,
    large_with_onednn,
    linear,
    side_by_side,
)

INPUTS = 512
LARGE = LARGE_PRODUCT // INPUTS  # outputs
SHAPES = [(1,), (MKL_ROWS,), (MKL_ROWS + 1,), (16,), (1, 1), (2, 8), (3, 7)]


@pytest.mark.parametrize("outputs", [8, LARGE - 1, LARGE, LARGE + 1, LARGE + 7])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_equals_that_of_the_module(outputs, shape, bias):
    torch.manual_seed(outputs)
    module = nn.Linear(INPUTS, outputs, bias=bias).requires_grad_(False)
    hidden = torch.randn(*shape, INPUTS)
    torch.testing.assert_close(linear(module)(hidden), module(hidden), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("large", [large_with_either, large_with_onednn])
@pytest.mark.parametrize("outputs", [8, 15])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_with_large_weights_are_the_same(large, outputs, shape, dtype):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    torch.manual_seed(outputs)
    weight, bias = torch.randn(outputs, INPUTS, dtype=dtype), torch.randn(outputs, dtype=dtype)
    hidden = torch.randn(*shape, 2 * INPUTS, dtype=dtype)[..., ::2]  # not contiguous
    for added in (bias, None):
        expected = hidden.double() @ weight.double().T + (0 if added is None else added.double())
        found = large(hidden, weight, added)
        close = (
            {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.5, "rtol": 0.02}
        )
        assert found.shape == (*shape, outputs)
        torch.testing.assert_close(found.double(), expected, **close)


@pytest.mark.parametrize(
    ("large", "rows", "expected"),
    [
        (large_with_onednn, 1, 1),
        (large_with_onednn, 9, 1),
        (large_with_either, MKL_ROWS, 0),
        (large_with_either, MKL_ROWS + 1, 1),
    ],
)
def test_onednn_multiplies_float32(large, rows, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda *_: calls.append(1), raising=False
    )
    large(torch.zeros(1, rows, 4), torch.zeros(2, 4), None)
    assert len(calls) == expected
    large(*(torch.zeros(rows, 4, dtype=torch.bfloat16) for _ in range(2)), None)
    assert len(calls) == expected


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("vendor_id\t: GenuineIntel\n", large_with_either),
        ("vendor_id\t: AuthenticAMD\n", large_with_onednn),
        (None, large_with_onednn),  # no such file
    ],
)
def test_the_kind_of_the_cpu_chooses_the_product(cpu, expected, monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    if cpu:
        file.write_text(cpu)
    monkeypatch.setattr(products, "CPU_INFO", file)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None, raising=False)
    assert products._large.__wrapped__() is expected
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert products._large.__wrapped__() is nn.functional.linear


@pytest.mark.parametrize("outputs", [(8, 16, 24), (LARGE, 8, 3)])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("rows", [2, 50])
def test_a_fused_product_has_the_outputs_of_its_modules_side_by_side(outputs, quantized, rows):
    modules = [nn.Linear(INPUTS, size).requires_grad_(False) for size in outputs]
    if quantized:
        modules = [Int8Linear.of(module) for module in modules]
    hidden = torch.randn(rows, INPUTS)
    apart = torch.cat([module(hidden) for module in modules], -1)
    memory = set()
    for _ in range(2):  # fusing the same modules again copies nothing
        torch.testing.assert_close(fused(*modules)(hidden), apart, atol=1e-5, rtol=1e-4)
        memory |= {module.weight.untyped_storage().data_ptr() for module in modules}
        again = torch.cat([module(hidden) for module in modules], -1)
        torch.testing.assert_close(again, apart, atol=1e-5, rtol=1e-4)
    assert len(memory) == 1


def test_adjacent_tensors_are_joined_without_a_copy():
    whole = torch.arange(24.0).view(8, 3)
    for parts, shared in (
        (whole.split([2, 5, 1]), True),
        (whole[1:].split(3), True),
        ([whole[2:4], whole[:2]], False),
        ([whole[:2], whole[3:]], False),
        ([whole[:2], whole[2:].clone()], False),
        ([whole[:, :1], whole[:, 1:2]], False),
        ([whole[:2], whole[2:].view(torch.int32)], False),
    ):
        found = side_by_side(parts)
        assert torch.equal(found, torch.cat(list(parts)))
        assert (found.data_ptr() == parts[0].data_ptr()) == shared


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("outputs", [16, 13])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_head_has_any_number_of_outputs_and_shares_its_weights(
    monkeypatch, on_gpu, outputs, dtype
):
    monkeypatch.setattr(torch.Tensor, "is_cuda", on_gpu)
    module = nn.Linear(INPUTS, outputs, bias=False, dtype=dtype).requires_grad_(False)
    tied, own = nn.Embedding(outputs, INPUTS), nn.Embedding(outputs, INPUTS)
    tied.weight = module.weight
    before, others = module.weight.clone(), own.weight
    hidden = torch.randn(2, 3, INPUTS, dtype=dtype)
    for turn in range(2):  # a second head of the same module pads nothing again
        product = head(module, tied, own)
        torch.testing.assert_close(product(hidden), hidden @ before.T)
        assert torch.equal(module.weight, before)
        assert tied.weight is module.weight and own.weight is others
        rows = module.weight.untyped_storage().nbytes() / module.weight[0].nbytes
        assert rows == (16 if on_gpu and dtype == torch.bfloat16 else outputs)
        if turn == 0:
            address = module.weight.data_ptr()
    assert module.weight.data_ptr() == address


def test_a_head_of_another_class_keeps_its_function(monkeypatch):
    class Doubled(nn.Linear):
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    module = Doubled(INPUTS, 13, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(3, INPUTS).bfloat16()
    assert torch.equal(head(module)(hidden), module(hidden))
