# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The interface of a rule: which tokens each row of a decoder may write next.

Knows token ids, no text and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Rule(Protocol):
    """A limit on the next token of each row, such as grammar.Grammar or repetition.NoRepeat.

    A rule keeps the state of each row in tensors on the model's device. `restrict` and `advance`
    run in every step, where a CUDA graph may record them: they change these tensors in place,
    move nothing between host and device, and run the same operations for every state. Only
    `resize` may move the tensors to other addresses; the decoder records its steps again then.

    A step of fixed shape also runs rows that no prompt has joined. The rule may write any state
    for such a row, because `join` replaces it and nothing reads the row's tokens.
    """

    def resize(self, rows: int, positions: int) -> None:
        """Hold states for `rows` rows, and keep those of the rows that remain.

        Until a row ends, it has at most `positions` tokens, including those of the image.
        """

    def join(self, first: int, prompts: Sequence[Sequence[int]]) -> None:
        """Start rows `first`, `first` + 1, … with these prompts.

        A prompt is its token ids after the image; what precedes them is the same for all rows.
        """

    def leave(self, row: int, last: int) -> None:
        """Remove `row`: move the state of row `last` into its place."""

    def restrict(self, scores: Tensor) -> Tensor:
        """Return `scores` (B, vocabulary) of the first B rows, lowered for forbidden tokens.

        After all rules, a row writes the token with the highest score. -inf forbids a token in any
        case; a finite penalty forbids it unless all other tokens are forbidden as well.
        `scores` itself must stay as it is: the decoder computes probabilities from it.
        """

    def advance(self, tokens: Tensor) -> None:
        """Add the token (B,) that each of the first B rows has just written."""
