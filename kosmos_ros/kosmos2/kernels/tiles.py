# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sizes of the parts in which programs read weights, for GPUs with different shared memory.

The sizes for 227 KiB were the fastest ones of a search on an H200 (compute capability 9.0), with
random bfloat16 weights of KOSMOS-2's size and steps of 1 and 8 rows. So were, of those for NF4,
the sizes for one row and that of qkv for few rows. The others are reasoned: those for 99 KiB keep
fewer numbers in flight, and those for NF4 give a program more weights, because decoding takes
longer than reading. benchmark.tiles searches sizes for the GPU at hand. Nothing is tuned when the
node starts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OneRow:
    """Sizes of a product of one row."""

    outputs: int  # of a program
    depth: int  # inputs that it reads at a time
    warps: int

    def part(self, inputs: int) -> int:
        """Return how many of `inputs` are read at a time: a power of two that divides them."""
        return min(_power(inputs), self.depth)


@dataclass(frozen=True)
class FewRows:
    """Sizes of a product of 2 to 16 rows on tensor cores."""

    outputs: int  # of a program
    depth: int  # inputs that each group of warps reads at a time
    split: int  # groups of warps
    warps: int
    stages: int  # parts in flight

    def parts(self, inputs: int) -> tuple[int, int]:
        """Return `split` and `depth`, reduced if their product does not divide `inputs`."""
        part = min(_power(inputs), self.depth * self.split)
        split = max(1, min(self.split, part // self.depth))
        return split, part // split


def _power(inputs: int) -> int:
    """Return the largest power of two that divides `inputs`."""
    return inputs & -inputs


@dataclass(frozen=True)
class Tiles:
    """Sizes for each product of a step, by the product's name."""

    one_row: dict[str, OneRow]
    few_rows: dict[str, FewRows]
    positions: int = 128  # of the cache that attention reads at a time


ONE_ROW = {
    "qkv": OneRow(2, 2048, 4),
    "out": OneRow(4, 2048, 8),
    "up": OneRow(4, 1024, 2),
    "down": OneRow(2, 8192, 4),
    "head": OneRow(4, 2048, 4),
}
HEAD = FewRows(32, 64, 4, 4, 3)

BY_SHARED_MEMORY = {
    # Capability 9.0, 10.0.
    227: Tiles(
        ONE_ROW,
        {
            "qkv": FewRows(32, 128, 1, 4, 5),
            "out": FewRows(16, 128, 4, 4, 4),
            "up": FewRows(64, 128, 1, 4, 4),
            "down": FewRows(16, 128, 4, 4, 5),
            "head": HEAD,
        },
    ),
    # Capability 8.6, 8.9, 12.0; also 8.0 and 8.7, which have 163 KiB but no sizes of their own.
    99: Tiles(
        ONE_ROW,
        {
            "qkv": FewRows(16, 64, 4, 4, 3),
            "out": FewRows(16, 64, 4, 4, 3),
            "up": FewRows(64, 64, 1, 4, 4),
            "down": FewRows(16, 128, 4, 4, 3),
            "head": HEAD,
        },
    ),
}
"""By the KiB of shared memory that one program can have (CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability")."""

NF4 = Tiles(
    {
        "qkv": OneRow(4, 2048, 4),
        "out": OneRow(4, 2048, 4),
        "up": OneRow(8, 2048, 4),
        "down": OneRow(4, 4096, 8),
        "head": ONE_ROW["head"],
    },
    {
        "qkv": FewRows(32, 256, 1, 4, 1),
        "out": FewRows(16, 512, 1, 8, 1),
        "up": FewRows(32, 512, 1, 8, 1),
        "down": FewRows(16, 1024, 1, 8, 1),
        "head": HEAD,
    },
)
"""For weights of 4 bits, whose decoding takes longer than reading them."""


def tiles(shared: int, nf4: bool = False) -> Tiles | None:
    """Return the sizes for a GPU with this much shared memory (bytes), or None if too little.

    `nf4`: for weights in NF4.
    """
    fitting = [size for size in BY_SHARED_MEMORY if size * 1024 <= shared]
    if not fitting:
        return None
    return NF4 if nf4 else BY_SHARED_MEMORY[max(fitting)]
