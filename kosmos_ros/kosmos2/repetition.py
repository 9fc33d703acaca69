# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ban on repetition: a rule that lets a row write no sequence of N tokens twice.

KOSMOS-2 was published with N = 3 (no_repeat_ngram_size). Without a ban its captions may run in
loops. This rule bans the same tokens as NoRepeatNGramLogitsProcessor of Hugging Face's generate.
Knows token ids, no text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PENALTY = -1e30
"""Added to the score of a banned token. Far below every logit, but above a forbidden token's -inf:
where another rule allows banned tokens only, the row writes one of those."""


class NoRepeat:
    """A Rule that bans repeated sequences of `size` tokens (1 or more).

    As in generate, the tokens before the answer count, too: those of the image and the prompt.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def restrict(self, scores: Tensor, tokens: Tensor, newest: Tensor) -> Tensor:
        known = self._size - 1  # tokens of a sequence that the next token completes
        if tokens.shape[1] <= known:
            return scores  # no row is that long
        earlier = tokens.unfold(1, self._size, 1)  # (B, sequences, size)
        ends = torch.arange(known, tokens.shape[1], device=tokens.device)
        repeated = ends <= newest.unsqueeze(2)  # (B, W, sequences)
        for back in range(known):
            begun = tokens.gather(1, (newest - back).clamp(min=0)).unsqueeze(2)
            repeated = repeated & (earlier[:, None, :, known - 1 - back] == begun)
        last = earlier[:, None, :, -1].expand_as(repeated)
        return scores.scatter_add(2, last, repeated * PENALTY)

    def for_kernels(self) -> dict[str, Any]:
        return {"repetition": self._size}
