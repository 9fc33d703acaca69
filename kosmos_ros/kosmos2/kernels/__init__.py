# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Triton kernels, for the GPUs and the formats of weights that they support.

A step is one pass of the decoder with up to 16 tokens. `chain` lets kernels overlap. `linear`,
`attention` and `sampling` contain the kernels of a step, and `tiles` the sizes of their tiles.
`weights` finds the weights that they read. `step` launches them. `norms` computes the layer norms
of other passes and of the vision tower, unless their weights are quantized. Without Triton, or for
other GPUs or weights, `make` and `fast_norms` return None, and torch's kernels run instead. Knows
tensors only.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING

import torch
from packaging.version import Version

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.kernels.step import Rules, Step, Text

DTYPES = (torch.bfloat16, torch.float16)
CAPABILITY = (8, 0)
"""Lowest compute capability: tensor cores with bfloat16, and asynchronous copies."""
TRITON = Version("3.5")
"""Lowest version: earlier ones cannot chain kernels."""
CHAINING_CAPABILITY = (9, 0)
"""Lowest compute capability with programmatic dependent launch."""
LEAST_SHARED_MEMORY = 99 * 1024  # bytes, of a program on a GPU of capability 8.0 or higher


def importable() -> bool:
    """Return whether there is a Triton that can chain kernels."""
    try:
        import triton
    except ImportError:
        return False
    return Version(triton.__version__) >= TRITON


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the kernels can run: Triton, an NVIDIA GPU of at least 8.0, a 16-bit type.

    Triton's interpreter (TRITON_INTERPRET=1) also runs them on a CPU, for tests.
    """
    if dtype not in DTYPES or not importable():
        return False
    if device.type == "cpu":
        import triton

        return bool(triton.knobs.runtime.interpret)
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def make(text: Text, rules: Rules) -> Step | None:
    """Return the step of a model, or None if the kernels cannot run it.

    Logs a warning if Triton cannot use the GPU's driver or a C compiler.
    """
    device = text.head.device
    if not available(device, text.head.dtype):
        return None
    if device.type == "cuda" and not fast_norms(text.head):  # Triton does not work there
        return None
    from kosmos_ros.kosmos2.kernels.step import Step, in_nf4, supports
    from kosmos_ros.kosmos2.kernels.tiles import tiles

    if not supports(text):
        return None
    chained, shared = False, LEAST_SHARED_MEMORY
    if device.type == "cuda":
        chained = torch.cuda.get_device_capability(device) >= CHAINING_CAPABILITY
        shared = _shared_memory(device)
    sizes = tiles(shared, in_nf4(text))
    return Step(text, rules, sizes, chained) if sizes else None


def fast_norms(weight: torch.Tensor) -> types.ModuleType | None:
    """Return the module `norms`, or None if its kernel cannot run with the type of `weight` there.

    Logs a warning if a GPU that should run the kernel does not.
    """
    return _norms(weight.device, weight.dtype) if weight.is_cuda else None


@functools.cache
def _norms(device: torch.device, dtype: torch.dtype) -> types.ModuleType | None:
    if not available(device, dtype):
        return None
    from kosmos_ros.kosmos2.kernels import norms as module
    from kosmos_ros.kosmos2.kernels.step import FAILURES, warn

    x = torch.zeros(1, 64, dtype=dtype, device=device)
    norm = torch.nn.LayerNorm(64, dtype=dtype, device=device)
    try:
        module.run(x, norm, x, module.GELU)
    except FAILURES as exc:
        warn(exc)
        return None
    return module


def _shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a program can have."""
    import triton

    utils = triton.runtime.driver.active.utils  # its first use runs a C compiler
    return int(utils.get_device_properties(device.index)["max_shared_mem"])
