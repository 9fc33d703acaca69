# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The grammar of locations: a rule that keeps every bounding box well formed.

An automaton over token ids: after `<object>` or the delimiter comes a location, then a location
that is neither above nor left of it, then `</object>` or the delimiter. Knows token ids, no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kosmos_ros.kosmos2.grounding import GRID

CELLS = GRID * GRID
# States, by what may come next: any token; the first corner; the end or another box.
FREE, OPENED, CLOSING = 0, 1, 2
CORNER = 3  # + cell of the first corner; the second corner comes next
# Kinds of tokens.
OTHER, CLOSE, DELIMITER, OPEN = 0, 1, 2, 3
LOCATION = 4  # + cell
BOX_TOKENS = 3
"""Tokens of an unfinished box: its opening or the delimiter, and two corners."""


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

        kinds_count = LOCATION + CELLS
        self._kinds = kinds.to(device)  # (vocabulary,)
        self._bias = torch.where(allowed, 0.0, float("-inf")).to(device)  # (states, kinds)
        self._following = following.to(device)  # (states, kinds)
        self._rows = self._following * kinds_count  # where each state's row of `_following` begins
        self._back = torch.arange(1 - BOX_TOKENS, 1, device=device)

    def restrict(self, scores: Tensor, tokens: Tensor, newest: Tensor) -> Tensor:
        bias = self._bias.index_select(0, self._states(tokens, newest))
        return scores + bias.index_select(1, self._kinds).view_as(scores)

    def for_kernels(self) -> dict[str, Any]:
        return {"grammar": (self._kinds, self._bias, self._following)}

    def _states(self, tokens: Tensor, newest: Tensor) -> Tensor:
        """Return the state (B * W,) after each `newest` token.

        Three tokens decide it, an opening and two corners; earlier tokens change nothing.
        """
        positions = (newest.unsqueeze(2) + self._back).flatten(1).clamp_(min=0)
        kinds = self._kinds.take(tokens.gather(1, positions)).view(-1, BOX_TOKENS)
        first, second, third = kinds.unbind(1)
        state = self._rows.take(first)  # from FREE, whose row is the first
        return self._following.take(self._rows.take(state.add_(second)).add_(third))
