# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The interface of a rule: which tokens each row of a decoder may write next.

Knows token ids, no text and no model.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Rule(Protocol):
    """A limit on the next token of each row, such as grammar.Grammar or repetition.NoRepeat.

    A rule is a function of a row's tokens and keeps no state of its own, so that the decoder may
    score several tokens of a row in one pass and discard some of them.
    """

    def restrict(self, scores: Tensor, tokens: Tensor, newest: Tensor) -> Tensor:
        """Return `scores` (B, W, vocabulary), lowered for forbidden tokens.

        `tokens` (B, P) has the token ids of each row, including those of the image and the prompt.
        `newest` (B, W) are positions in `tokens`. scores[b, w] are for the token after position
        newest[b, w]. The rule must ignore the ids after that position, which may be any token ids.
        After all rules, a row writes the token with the highest score. -inf forbids a token in any
        case; a finite penalty forbids it unless all other tokens are forbidden as well.
        `scores` itself must stay as it is: the decoder computes probabilities from it. A CUDA
        graph may record the call, so it must move nothing between host and device and must run the
        same operations for all tokens.
        """

    def for_kernels(self) -> dict[str, Any]:
        """Return the rule as fields of kernels.step.Rules."""
