# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Errors of torch become errors of kosmos_ros by their texts."""

import pytest
import torch

from kosmos_ros.errors import DeviceLostError, GenerationError, OutOfMemoryError
from kosmos_ros.kosmos2.torch_errors import kind_of, translated

TEXTS = {
    OutOfMemoryError: [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
        "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1131",
        "NvMapMemAllocInternalTagged: 1075072515 error 12",
    ],
    DeviceLostError: [
        "CUDA error: an illegal memory access was encountered\nFor debugging",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA driver error: unknown error",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
    GenerationError: [
        "mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)",
        "The size of tensor a (3) must match the size of tensor b (4)",
        "",
    ],
}
CASES = [(kind, text) for kind, texts in TEXTS.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), CASES)
@pytest.mark.fault(30)
def test_a_text_of_torch_gives_the_error_of_its_kind(kind, text):
    error = RuntimeError(text)
    with pytest.raises(kind) as raised, translated("generation failed"):
        raise error
    assert type(raised.value) is kind is kind_of(error)
    assert raised.value.__cause__ is error
    line = text.partition("\n")[0] or "RuntimeError"
    assert str(raised.value) == f"generation failed: {line}"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_pythons_and_torchs_own_errors_of_memory_are_translated(error):
    with pytest.raises(OutOfMemoryError), translated("generation failed"):
        raise error


@pytest.mark.parametrize("error", [TypeError("x"), ValueError("x"), IndexError("x")])
def test_errors_in_our_code_are_not_translated(error):
    with pytest.raises(type(error)) as raised, translated("generation failed"):
        raise error
    assert raised.value is error
