# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The memory of a decoder's rows: token ids, keys and values by position.

The position of a token in its row is also its position in the cache, so rows of different length
need no padding, and a joining row does not affect the others. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2.blocks import Block

CACHE_STEP = 64
"""Number of positions by which the cache grows, and on a GPU also the attention of a pass."""


def rounded_positions(positions: int) -> int:
    """Return a number of positions, rounded up to a multiple of CACHE_STEP."""
    return -(-positions // CACHE_STEP) * CACHE_STEP


def rounded_rows(rows: int) -> int:
    """Return a number of rows (1 or more), rounded up to a power of two."""
    return 1 << (rows - 1).bit_length()


class Rows:
    """The rows of a decoder with these blocks. Has no room at first; see `grow`.

    The addresses of all tensors stay fixed except in `grow` and `free`.
    """

    tokens: Tensor  # (rows, positions) int64: token ids
    cache: Tensor  # (layers, rows, positions, 2, heads, D): keys and values
    # Views of the cache, which take time to make. For each layer: all positions of all rows
    # (rows * positions, 2, heads, D), keys and values (rows, heads, positions, D).
    views: list[tuple[Tensor, Tensor, Tensor]]
    starts: Tensor  # (rows, 1) int64: where each row begins in the first of these views
    state: Tensor  # (2, rows) int64: `positions` and `moves`
    positions: Tensor  # (rows,): of each row's newest token, which no pass has read yet
    moves: Tensor  # (rows,): 1 for a row that exists, 0 for another

    def __init__(self, blocks: Sequence[Block], device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._block_shape = (2, blocks[0].heads, blocks[0].depth)
        self._layers = len(blocks)
        # For each row: the position of its newest token after all passes that have begun.
        self.newest: list[int] = []
        self.free()

    @property
    def room(self) -> tuple[int, int]:
        """The numbers of rows and of positions for which there is memory."""
        rows, positions = self.tokens.shape
        return rows, positions

    def free(self) -> None:
        """Free all memory. There must be no rows."""
        empty = (self._layers, 0, 0, *self._block_shape)
        self.cache = torch.zeros(empty, dtype=self._dtype, device=self._device)
        self.tokens = torch.zeros(0, 0, dtype=torch.long, device=self._device)
        self.state = torch.zeros(2, 0, dtype=torch.long, device=self._device)
        self.views = []  # views keep the memory that they show

    def grow(self, rows: int, positions: int) -> bool:
        """Make room for `rows` rows of `positions` positions, and keep the contents.

        Returns whether the tensors have other addresses now.
        """
        had_rows, had_positions = self.room
        if rows <= had_rows and positions <= had_positions:
            return False
        more_rows = max(rounded_rows(rows) - had_rows, 0)
        more_positions = max(rounded_positions(positions) - had_positions, 0)
        added = (0, more_positions, 0, more_rows)
        # Nothing has changed if there is too little memory for one of these.
        cache = functional.pad(self.cache, (*(0, 0) * len(self._block_shape), *added))
        tokens = functional.pad(self.tokens, added)
        state = functional.pad(self.state, (0, more_rows))
        count, length = tokens.shape
        starts = torch.arange(count, device=self._device).unsqueeze(1) * length
        self.cache, self.tokens, self.state, self.starts = cache, tokens, state, starts
        self.positions, self.moves = state
        self.views = [(layer.flatten(0, 1), *layer.transpose(1, 3).unbind(2)) for layer in cache]
        return True

    def add(self, newest: Sequence[int]) -> None:
        """Add rows by the positions of their newest tokens. Their first pass writes the rest."""
        first = len(self.newest)
        self.newest += newest
        self.moves[first : len(self.newest)] = 1

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its number."""
        last = len(self.newest) - 1
        if row != last:
            filled = self.newest[last]
            self.state[:, row] = self.state[:, last]
            self.tokens[row] = self.tokens[last]
            self.cache[:, row, :filled] = self.cache[:, last, :filled]
            self.cache[:, row, filled:] = 0
            self.newest[row] = filled
        # Clear the row: a mask would not hide a NaN or an infinity from the next row there.
        self.cache[:, last] = 0
        self.state[:, last] = 0
        self.newest.pop()
