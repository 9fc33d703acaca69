# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The grammar of locations: a rule that keeps every bounding box well formed.

An automaton over token ids: after `<object>` or the delimiter comes a location, then a location
that is neither above nor left of it, then `</object>` or the delimiter. Knows token ids, no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2.cuda_graphs import upload
from kosmos_ros.kosmos2.grounding import GRID

CELLS = GRID * GRID
# States, by what may come next: any token; the first corner; the end or another box.
FREE, OPENED, CLOSING = 0, 1, 2
CORNER = 3  # + cell of the first corner; the second corner comes next
# Kinds of tokens.
OTHER, CLOSE, DELIMITER, OPEN = 0, 1, 2, 3
LOCATION = 4  # + cell


class Grammar:
    """A Rule for a vocabulary with these token ids, `locations` in the order of their cells."""

    def __init__(
        self,
        vocabulary: int,
        opening: int,
        closing: int,
        delimiter: int,
        locations: Sequence[int],
        device: torch.device,
    ) -> None:
        kinds = torch.full((vocabulary,), OTHER)
        kinds[[opening, closing, delimiter]] = torch.tensor([OPEN, CLOSE, DELIMITER])
        kinds[torch.tensor(locations)] = torch.arange(LOCATION, LOCATION + CELLS)

        allowed = torch.zeros(CORNER + CELLS, LOCATION + CELLS, dtype=torch.bool)
        allowed[FREE] = True
        allowed[OPENED, LOCATION:] = True
        allowed[CLOSING, [CLOSE, DELIMITER]] = True
        cells = torch.arange(CELLS)
        y, x = cells // GRID, cells % GRID
        allowed[CORNER:, LOCATION:] = (y >= y[:, None]) & (x >= x[:, None])

        following = torch.full((CORNER + CELLS, LOCATION + CELLS), FREE)
        following[:, [OPEN, DELIMITER]] = OPENED
        following[OPENED, LOCATION:] = cells + CORNER
        following[CORNER:, LOCATION:] = CLOSING

        # Copies on the host, because reading from the device would wait for it.
        self._host_following, self._host_kinds = following, kinds
        self._kinds = kinds.to(device)  # (vocabulary,)
        self._bias = torch.where(allowed, 0.0, float("-inf")).to(device)  # (states, kinds)
        self._following = following.to(device)  # (states, kinds)
        self._states = torch.zeros(0, dtype=torch.long, device=device)  # (rows,)

    def resize(self, rows: int, positions: int) -> None:
        self._states = functional.pad(self._states, (0, rows - len(self._states)))

    def join(self, first: int, prompts: Sequence[Sequence[int]]) -> None:
        states = [self._after(ids) for ids in prompts]
        self._states[first : first + len(states)] = upload(states, self._states.device)

    def leave(self, row: int, last: int) -> None:
        if row != last:
            self._states[row] = self._states[last]

    def restrict(self, scores: Tensor) -> Tensor:
        states = self._states[: len(scores)]
        return scores + self._bias.index_select(0, states).index_select(1, self._kinds)

    def advance(self, tokens: Tensor) -> None:
        states = self._states[: len(tokens)]
        kinds = self._kinds.index_select(0, tokens)
        states.copy_(self._following.take(states * (LOCATION + CELLS) + kinds))

    def _after(self, ids: Sequence[int]) -> int:
        """Return the state after `ids`, which may break the grammar."""
        state = FREE
        for token in ids[-3:]:  # an opening and two corners; earlier tokens change nothing
            state = int(self._host_following[state, self._host_kinds[token]])
        return state
