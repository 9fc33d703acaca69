# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Propose the next tokens of an answer from an earlier answer.

Consecutive frames of a camera are similar, so their captions are mostly equal. The decoder checks
a proposal in one pass and keeps only the tokens that the model itself would write.
Knows token ids and the grid of locations, no text and no model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from kosmos_ros.kosmos2.grounding import GRID

CONTEXT = (3, 2, 1)
"""Numbers of last tokens to search for in the earlier answer. The longest match counts."""
MIN_SHIFT = 2
"""Smallest shift of a first corner (cells) that also moves the second corner. A smaller shift is
more often a change of one corner only."""


class Drafts:
    """The maker of drafts. `locations` are the tokens of the grid's cells, in their order."""

    def __init__(self, locations: Sequence[int]) -> None:
        self._locations = locations
        self.cells = {token: cell for cell, token in enumerate(locations)}

    def moved(self, before: int, corner: int, following: int) -> int:
        """Return the location `following`, shifted as `corner` has shifted from `before`.

        Returns `following` unchanged if one of the three is not a location, if the shift is below
        MIN_SHIFT, or if the result is outside the grid.
        """
        if not {before, corner, following} <= self.cells.keys():
            return following
        places = (divmod(self.cells[token], GRID) for token in (before, corner, following))
        (old_y, old_x), (y, x), (other_y, other_x) = places
        down, right = y - old_y, x - old_x
        moved_y, moved_x = other_y + down, other_x + right
        inside = 0 <= moved_y < GRID and 0 <= moved_x < GRID
        if max(abs(down), abs(right)) < MIN_SHIFT or not inside:
            return following
        return self._locations[moved_y * GRID + moved_x]


class Draft:
    """The proposals for one answer, from the token ids of an `earlier` one."""

    def __init__(self, earlier: Sequence[int], drafts: Drafts) -> None:
        self._earlier = list(earlier)
        self._drafts = drafts
        # Where each short sequence of the earlier answer ends.
        self._ends: dict[tuple[int, ...], list[int]] = {}
        for length in CONTEXT:
            for end in range(length, len(self._earlier) + 1):
                self._ends.setdefault(tuple(self._earlier[end - length : end]), []).append(end)
        self._after = 0  # tokens of `earlier` before the expected next one
        self._seen = 0  # written tokens at the previous proposal

    def propose(self, written: Sequence[int], most: int) -> list[int]:
        """Return at most `most` tokens that may follow the `written` ones.

        The proposal is the part of the earlier answer after the tokens that match the last written
        ones. If there are several matches, the one nearest to the expected place counts. Without a
        match, the last written token is assumed to replace one token of the earlier answer.
        `written` grows from call to call.
        """
        expected = self._after + len(written) - self._seen
        self._after = self._match(written, expected) if written else 0
        self._seen = len(written)
        proposal = self._earlier[self._after : self._after + most]
        if proposal and self._after:
            before = self._earlier[self._after - 1]
            proposal[0] = self._drafts.moved(before, written[-1], proposal[0])
        return proposal

    def gain(self, answer: Sequence[int], first: int, window: int) -> float:
        """Return how many tokens of `answer` a pass would have given on average.

        The first pass gives at most `first` tokens, and each later one at most `window`.
        """
        draft, done, passes = copy.copy(self), 0, 0
        draft._after = draft._seen = 0
        while done < len(answer):
            proposal = draft.propose(answer[:done], (window if passes else first) - 1)
            done += 1 + agreed(proposal, answer[done:])
            passes += 1
        return len(answer) / max(passes, 1)

    def _match(self, written: Sequence[int], expected: int) -> int:
        """Return the number of earlier tokens up to and including the match."""
        for length in CONTEXT:
            ends = self._ends.get(tuple(written[-length:]))
            if ends and len(written) >= length:
                return min(ends, key=lambda end: abs(end - expected))
        return expected


def agreed(proposal: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how many tokens at the start of both sequences are equal."""
    count = min(len(proposal), len(tokens))
    return next((at for at in range(count) if proposal[at] != tokens[at]), count)
