# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Overlap kernels that follow each other (programmatic dependent launch, compute capability 9.0).

A kernel of a chain starts while the kernel before it still runs. It may load what no kernel of
the step writes, such as weights. It must call `wait` before it reads anything else: `wait` returns
when all kernels before it have ended. `LATE` is for kernels that fill the GPU. The next kernel
would take room from them, so it starts only when their products are done.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

OFF, EARLY, LATE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def begin(CHAIN: tl.constexpr):
    """Let the next kernel start now if the chain is EARLY."""
    if CHAIN == EARLY:
        gdc_launch_dependents()


@triton.jit
def wait(CHAIN: tl.constexpr):
    """Wait for the kernels before this one."""
    if CHAIN != OFF:
        gdc_wait()


@triton.jit
def end(CHAIN: tl.constexpr):
    """Let the next kernel start now if the chain is LATE."""
    if CHAIN == LATE:
        gdc_launch_dependents()
