# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compile the kernels of a step for GPUs that this machine does not have.

Prints the registers and the shared memory of each kernel. Fails if a kernel keeps variables in
memory for want of registers, or needs more shared memory than the GPU has for a program.
"""

import argparse
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from torch import nn
from transformers import Kosmos2TextConfig, Kosmos2VisionConfig
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextForCausalLM
from triton.backends.compiler import GPUTarget

from kosmos_ros.kosmos2.blocks import Block
from kosmos_ros.kosmos2.kernels import CHAINING_CAPABILITY, norms
from kosmos_ros.kosmos2.kernels.step import MAX_ROWS, Rules, State, Step, Text
from kosmos_ros.kosmos2.kernels.tiles import tiles
from kosmos_ros.kosmos2.kernels.weights import Matrix

SHARED_MEMORY = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227}
"""KiB for a program, by compute capability times 10 (CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability")."""
ROWS = (1, 8)
"""A step of one row and one of few rows: all kernels."""
LENGTH = 256


@dataclass(frozen=True)
class Compiled:
    """A kernel for one GPU."""

    name: str
    capability: int
    dtype: str
    registers: int  # of a thread
    stack: int  # bytes of a thread in memory
    shared: int  # bytes of a program

    @property
    def fits(self):
        return self.stack == 0 and self.shared <= SHARED_MEMORY[self.capability] * 1024


class Compiling(Step):
    """A step that compiles its kernels instead of launching them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kernels = []

    def launch(self, kernel, grid, *arguments, **options):
        made = kernel.run(*arguments, grid=grid, warmup=True, enable_fp_fusion=True, **options)
        if all(made is not other for other in self.kernels):
            self.kernels.append(made)


def quantize(step, form):
    """Give the blocks of a step weights of the format "int8" or "nf4", without values."""

    def matrix(outputs, inputs, bias):
        if form == "int8":
            values, scales = torch.empty(outputs, inputs), torch.empty(outputs)
            return Matrix(outputs, inputs, bias, values.to(torch.int8), scales)
        values, scales = torch.empty(outputs * inputs // 2, 1), torch.empty(outputs * inputs // 64)
        table = torch.empty(256, dtype=torch.int32)
        return Matrix(outputs, inputs, bias, values.to(torch.uint8), scales, table)

    for part in itertools.chain(*step._blocks):
        plain = part.matrix
        part.matrix = matrix(plain.outputs, plain.inputs, plain.bias)


class Norms:
    """The kernel of norms.run, compiled instead of launched."""

    def __init__(self):
        self.kernel, self.made = norms.norm_row, []

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.made.append(
            self.kernel.run(*arguments, grid=grid, warmup=True, **options)
        )


def norm_kernels(dtype):
    """Return the norms of many rows, of KOSMOS-2's sizes."""
    text, vision = Kosmos2TextConfig(), Kosmos2VisionConfig()
    norms.norm_row = compiled = Norms()
    for width, inner, activation in (
        (text.embed_dim, text.ffn_dim, norms.GELU),
        (vision.hidden_size, vision.intermediate_size, norms.QUICK_GELU),
    ):
        x, y = torch.empty(2, width, dtype=dtype), torch.empty(2, inner, dtype=dtype)
        layer_norm = nn.LayerNorm(width).to(dtype)
        inner_norm = nn.LayerNorm(inner).to(dtype) if activation is norms.GELU else None
        norms.run(x, layer_norm)
        norms.run(x, layer_norm, x)
        norms.run(y, inner_norm, None, activation)
    norms.norm_row = compiled.kernel
    return compiled.made


def kernels(capability, dtype, rows=ROWS, form="plain"):
    """Return the kernels (Compiled) of a model with KOSMOS-2's sizes."""
    target = GPUTarget("cuda", capability, 32)
    driver = types.SimpleNamespace(
        get_current_device=lambda: capability,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: target,
    )
    triton.runtime.driver.set_active(driver)
    with torch.device("meta"):
        model = Kosmos2TextForCausalLM(Kosmos2TextConfig(layers=2)).to(dtype)
        vocabulary, width = model.lm_head.weight.shape
        text = Text(
            [Block.text(layer) for layer in model.model.layers],
            model.model.layer_norm,
            model.lm_head.weight,
            model.model.embed_tokens.weight,
            torch.zeros(LENGTH, width, dtype=dtype),
            1.0,
        )
        block = text.blocks[0]
        grammar = (
            torch.zeros(vocabulary, dtype=torch.long),
            torch.zeros(1027, 1028),
            torch.zeros(1027, 1028, dtype=torch.long),
        )
        rules = Rules(grammar, 3, torch.zeros(vocabulary, 9, dtype=torch.long))
        chained = divmod(capability, 10) >= CHAINING_CAPABILITY
        step = Compiling(
            text, rules, tiles(SHARED_MEMORY[capability] * 1024, form == "nf4"), chained
        )
        if form != "plain":
            quantize(step, form)
        for count in rows:
            # On the CPU, so that their addresses are not all aligned.
            values = torch.zeros(3, count, dtype=torch.long, device="cpu")
            state = State(
                torch.zeros(2, count, LENGTH, 2, block.heads, block.depth, dtype=dtype),
                torch.zeros(count, LENGTH, dtype=torch.long),
                *values[1:],
                torch.zeros(count, 10),
            )
            step._run(state, count, 1)
        made = [*step.kernels, *norm_kernels(dtype)]
    name = str(dtype).removeprefix("torch.")
    return [_measured(kernel, capability, name) for kernel in made]


def _measured(kernel, capability, dtype):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True)
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout).groups())
    name = kernel.metadata.name
    return Compiled(name, capability, dtype, registers, stack, kernel.metadata.shared)


def main():
    parser = argparse.ArgumentParser(prog="compile-kernels", description=__doc__)
    choices = {
        "capability": list(SHARED_MEMORY),
        "dtype": ["bfloat16", "float16"],
        "format": ["plain", "int8", "nf4"],
    }
    for name, values in choices.items():
        kind = type(values[0])
        parser.add_argument(f"--{name}", type=kind, nargs="+", choices=values, default=values)
    rows = range(1, MAX_ROWS + 1)
    parser.add_argument("--rows", type=int, nargs="+", choices=rows, metavar="N", default=ROWS)
    options = parser.parse_args()
    wrong = 0
    combinations = itertools.product(options.capability, options.dtype, options.format)
    for capability, dtype, form in combinations:
        for kernel in kernels(capability, getattr(torch, dtype), options.rows, form):
            wrong += not kernel.fits
            print(
                f"{'' if kernel.fits else 'DOES NOT FIT: '}{capability} {dtype} {form} "
                f"{kernel.name}: {kernel.registers} registers, {kernel.stack} bytes of stack, "
                f"{kernel.shared} bytes of shared memory",
                flush=True,
            )
    if wrong:
        sys.exit(f"{wrong} kernels do not fit")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
