# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ban on repetition: a rule that lets a row write no sequence of N tokens twice.

KOSMOS-2 was published with N = 3 (no_repeat_ngram_size). Without a ban its captions may run in
loops. This rule bans the same tokens as NoRepeatNGramLogitsProcessor of Hugging Face's generate.
Knows token ids, no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2.cuda_graphs import upload

PENALTY = -1e30
"""Added to the score of a banned token. Far below every logit, but above a forbidden token's -inf:
where another rule allows banned tokens only, the row writes one of those."""


class NoRepeat:
    """A Rule that bans repeated sequences of `size` tokens (1 or more).

    As in generate, the tokens before the answer count, too: `prefix`, with which every prompt
    begins, and the prompt.
    """

    def __init__(
        self, size: int, prefix: Sequence[int], vocabulary: int, device: torch.device
    ) -> None:
        self._size = size
        self._prefix = list(prefix)
        # Fills the positions before a row's first token. No token has this id.
        self._none = vocabulary
        # (rows, positions): the tokens of each row so far, the newest one at the end.
        self._ids = torch.zeros(0, 0, dtype=torch.long, device=device)

    def resize(self, rows: int, positions: int) -> None:
        had_rows, had_positions = self._ids.shape
        added = (positions - had_positions, 0, 0, rows - had_rows)
        self._ids = functional.pad(self._ids, added, value=self._none)

    def join(self, first: int, prompts: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, prompts))
        texts = [[*[self._none] * (longest - len(ids)), *self._prefix, *ids] for ids in prompts]
        rows = self._ids[first : first + len(texts)]
        rows.fill_(self._none)
        rows[:, -len(texts[0]) :] = upload(texts, rows.device)

    def leave(self, row: int, last: int) -> None:
        if row != last:
            self._ids[row] = self._ids[last]

    def restrict(self, scores: Tensor) -> Tensor:
        ids = self._ids[: len(scores)]
        if self._size > ids.shape[1]:
            return scores  # no row is that long
        begun = ids[:, ids.shape[1] + 1 - self._size :]  # the next token completes this sequence
        earlier = ids.unfold(1, self._size, 1)  # (B, windows, size)
        repeated = (earlier[..., :-1] == begun.unsqueeze(1)).all(-1)
        padded = functional.pad(scores, (0, 1))  # a copy with a column for `_none`
        return padded.scatter_add_(1, earlier[..., -1], repeated * PENALTY)[:, :-1]

    def advance(self, tokens: Tensor) -> None:
        ids = self._ids[: len(tokens)]
        ids.copy_(torch.cat([ids[:, 1:], tokens.unsqueeze(1)], 1))
