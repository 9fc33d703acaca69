# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which tokens may follow which, so that every box that is written is one.

An automaton over token ids: after `<object>` or the delimiter comes a location, then a location
that is neither above nor left of it, then `</object>` or the delimiter. Its tables live on the
model's device, so that a step needs no word of the host. Knows token ids and no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kosmos_ros.kosmos2.grounding import GRID

CELLS = GRID * GRID
FREE, OPENED, CLOSING = 0, 1, 2  # anything; a first corner; an end or another box
CORNER = 3  # + its cell: a second corner
OTHER, CLOSE, DELIMITER, OPEN = 0, 1, 2, 3  # kinds of tokens
LOCATION = 4  # + its cell


class Grammar:
    """Of the given token ids: `locations` in the order of their cells."""

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
        rows, columns = cells // GRID, cells % GRID
        allowed[CORNER:, LOCATION:] = (rows >= rows[:, None]) & (columns >= columns[:, None])

        following = torch.full((CORNER + CELLS, LOCATION + CELLS), FREE)
        following[:, [OPEN, DELIMITER]] = OPENED
        following[OPENED, LOCATION:] = cells + CORNER
        following[CORNER:, LOCATION:] = CLOSING

        # `after` would wait for a GPU.
        self._of_host, self._kinds_of_host = following, kinds
        self._kinds = kinds.to(device)
        self._bias = torch.where(allowed, 0.0, float("-inf")).to(device)
        self._following = following.to(device)

    def bias(self, states: Tensor) -> Tensor:
        """0 or -inf for each row's state (B,) and token: (B, vocabulary)."""
        return self._bias.index_select(0, states).index_select(1, self._kinds)

    def next(self, states: Tensor, tokens: Tensor) -> Tensor:
        """States (B,) after one more token (B,) each."""
        kinds = self._kinds.index_select(0, tokens)
        return self._following.take(states * (LOCATION + CELLS) + kinds)

    def after(self, ids: Sequence[int]) -> int:
        """The state after `ids`, which may be no box of the grammar's."""
        state = FREE
        # It depends on no more than an opening and two corners.
        for token in ids[-3:]:
            state = int(self._of_host[state, self._kinds_of_host[token]])
        return state
