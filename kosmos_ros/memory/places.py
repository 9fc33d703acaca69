# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Squares of the floor, by which the index of an observation log finds places. Knows no log."""

from __future__ import annotations

import itertools
import math

from kosmos_ros.memory.records import Pose

FAR = 1e9  # m; no robot is farther away, and a search there compares distances only
MAX_CELLS = 36  # cells of one size that a search may name; more take longer than they save
CELL_SIZES = {"p": 1.0, "q": 8.0, "r": 64.0}  # first letter of a cell's token: side in m


def cell_tokens(pose: Pose | None) -> list[str]:
    """Return the tokens of the three cells that contain a pose, one of each size."""
    if pose is None:
        return []
    return [
        _cell(letter, math.floor(pose.x / size), math.floor(pose.y / size))
        for letter, size in CELL_SIZES.items()
    ]


def cells_near(x: float, y: float, radius: float) -> list[str]:
    """Return the tokens of cells that together cover a circle; all values in m.

    Returns the smallest cells of which there are at most MAX_CELLS; empty: the circle is larger.
    """
    for letter, size in CELL_SIZES.items():
        if radius > MAX_CELLS * size or max(abs(x), abs(y)) > FAR:
            continue  # a range of Python cannot have as many numbers
        columns, rows = (
            range(math.floor((at - radius) / size), math.floor((at + radius) / size) + 1)
            for at in (x, y)
        )
        if len(columns) * len(rows) <= MAX_CELLS:
            return [_cell(letter, i, j) for i, j in itertools.product(columns, rows)]
    return []


def _cell(letter: str, column: int, row: int) -> str:
    return f"{letter}:{column}:{row}"
