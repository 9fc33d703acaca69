# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sizes of the parts in which programs read weights, for GPUs with different shared memory.

The sizes for 227 KiB were the fastest ones of a search on an H200 (compute capability 9.0), with
an earlier form of these kernels and KOSMOS-2's weights in bfloat16. The others are reasoned, not
measured: the same sizes, with fewer parts in flight where shared memory is smaller. Nothing is
tuned when the node starts.
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
        """Return the part of `inputs` that is read at a time: a power of two that divides them."""
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
        """Return `split` and `depth` for a number of inputs that may be less divisible."""
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
    "qkv": OneRow(4, 2048, 4),
    "out": OneRow(2, 2048, 4),
    "up": OneRow(4, 2048, 4),
    "down": OneRow(2, 8192, 4),
    "head": OneRow(4, 2048, 4),
}

BY_SHARED_MEMORY = {
    # Capability 9.0, 10.0.
    227: Tiles(
        ONE_ROW,
        {
            "qkv": FewRows(16, 128, 4, 4, 3),
            "out": FewRows(16, 128, 4, 4, 3),
            "up": FewRows(64, 128, 1, 4, 3),
            "down": FewRows(16, 128, 8, 8, 3),
            "head": FewRows(32, 64, 4, 4, 3),
        },
    ),
    # Capability 8.0 (163 KiB), 8.6, 8.7 (163 KiB), 8.9, 12.0.
    99: Tiles(
        ONE_ROW,
        {
            "qkv": FewRows(16, 64, 4, 4, 3),
            "out": FewRows(16, 64, 4, 4, 3),
            "up": FewRows(64, 64, 1, 4, 4),
            "down": FewRows(16, 128, 4, 4, 3),
            "head": FewRows(32, 64, 4, 4, 3),
        },
    ),
}
"""By the KiB of shared memory that one program can have (CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability")."""


def tiles(shared: int) -> Tiles | None:
    """Return the sizes for a GPU with this much shared memory (bytes), or None if too little."""
    fitting = [size for size in BY_SHARED_MEMORY if size * 1024 <= shared]
    return BY_SHARED_MEMORY[max(fitting)] if fitting else None
