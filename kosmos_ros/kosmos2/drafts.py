# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Propose the next tokens of an answer from an earlier answer.

A camera sees nearly the same as in its previous frame, so most of its caption is the same, too.
The decoder checks a proposal in one pass and keeps only what the model itself would write.
Knows token ids and the grid of locations, no text and no model.
"""

from __future__ import annotations

from collections.abc import Sequence

from kosmos_ros.kosmos2.grounding import GRID

CONTEXT = (3, 2, 1)
"""Numbers of tokens that are looked for in the earlier answer, the most telling first."""
MIN_SHIFT = 2
"""Cells by which a box has moved at least, if both of its corners have. A smaller difference is
more often a change of one corner only."""


class Drafts:
    """The maker of drafts. `locations` are the tokens of the grid's cells, in their order."""

    def __init__(self, locations: Sequence[int]) -> None:
        self._locations = locations
        self._cells = {token: cell for cell, token in enumerate(locations)}

    def moved(self, before: int, corner: int, following: int) -> int:
        """Return the token `following`, moved as much as `corner` from its earlier place `before`.

        Returns it unchanged if the three are no locations or the place is outside of the grid.
        """
        if not {before, corner, following} <= self._cells.keys():
            return following
        places = (divmod(self._cells[token], GRID) for token in (before, corner, following))
        (old_y, old_x), (y, x), (other_y, other_x) = places
        down, right = y - old_y, x - old_x
        moved_y, moved_x = other_y + down, other_x + right
        inside = 0 <= moved_y < GRID and 0 <= moved_x < GRID
        if max(abs(down), abs(right)) < MIN_SHIFT or not inside:
            return following
        return self._locations[moved_y * GRID + moved_x]

    def gain(self, earlier: Sequence[int], answer: Sequence[int], window: int) -> float:
        """Return the tokens of `answer` per pass of `window` tokens, drafted from `earlier`."""
        draft, done, passes = Draft(earlier, self), 0, 0
        while done < len(answer):
            proposal = draft.propose(answer[:done], window - 1)
            done += 1 + agreed(proposal, answer[done:])
            passes += 1
        return len(answer) / max(passes, 1)


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

        They follow the place in the earlier answer where the last tokens match, the nearest to
        the expected place if there are several. Without a match, the answers are taken to differ
        in the last token only. `written` grows from call to call.
        """
        expected = self._after + len(written) - self._seen
        self._after = self._match(written, expected) if written else 0
        self._seen = len(written)
        proposal = self._earlier[self._after : self._after + most]
        if proposal and self._after:
            before = self._earlier[self._after - 1]
            proposal[0] = self._drafts.moved(before, written[-1], proposal[0])
        return proposal

    def _match(self, written: Sequence[int], expected: int) -> int:
        """Return the number of earlier tokens up to and including the match."""
        for length in CONTEXT:
            ends = self._ends.get(tuple(written[-length:]))
            if ends and len(written) >= length:
                return min(ends, key=lambda end: abs(end - expected))
        return expected


def agreed(proposal: Sequence[int], tokens: Sequence[int]) -> int:
    """Return the number of first tokens that are equal."""
    count = min(len(proposal), len(tokens))
    return next((at for at in range(count) if proposal[at] != tokens[at]), count)
