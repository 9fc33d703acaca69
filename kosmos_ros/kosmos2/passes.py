# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The passes of KOSMOS-2's text model over the rows of a decoder.

Runs on the modules that Hugging Face loaded and shares their weights. Each public method of
`Passes` that returns a list of tensors can be recorded as a CUDA graph: it waits for nothing and
changes only tensors of `rows`, whose addresses are fixed. Knows token ids, no text and no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2 import kernels
from kosmos_ros.kosmos2.blocks import Block, attend, norm
from kosmos_ros.kosmos2.products import head
from kosmos_ros.kosmos2.rows import Rows, rounded_positions, rounded_rows
from kosmos_ros.kosmos2.rule import Rule
from kosmos_ros.kosmos2.written import NONE

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.kernels.step import Step

WINDOW = 16
"""Largest number of tokens that a pass gives a row: those of its draft, and one more."""
FIRST_WINDOW = 64
"""Largest number of tokens that a first pass of one row gives it, if the pass has no fixed shape.
Rows that join together share this number, because the logits of each token need memory, but each
of them may have WINDOW tokens."""


class Passes:
    """The text model with its rules, and its `rows`. For the arguments see Decoder."""

    def __init__(
        self,
        model: Any,
        prefix: Sequence[int],
        image: slice,
        rules: tuple[Rule, ...],
        neighbours: Tensor | None,
    ) -> None:
        inner = model.model
        self._head = head(model.lm_head, inner.embed_tokens)
        self._table = inner.embed_tokens.weight
        self._scale = float(inner.embed_scale)
        fast = kernels.fast_norms(self._table)
        self._blocks = [Block.text(layer, fast) for layer in inner.layers]
        self._norm = norm(inner.layer_norm)
        self.device, self._dtype = self._table.device, self._table.dtype
        # Hugging Face's positions begin after that of the padding token.
        positions = inner.embed_positions
        self._encodings = positions.weights[positions.padding_idx + 1 :].to(
            self.device, self._dtype
        )
        self.context = len(self._encodings)  # positions that the model can read
        self._prefix = torch.tensor(prefix, device=self.device)
        self._image = image
        self._rules = rules
        self._neighbours = neighbours
        self._window = torch.arange(FIRST_WINDOW, device=self.device)
        self.plain = all(block.plain for block in self._blocks)  # weights are not quantized
        self.kernels = self._triton(model)
        self.rows = Rows(self._blocks, self.device, self._dtype)

    def _triton(self, model: Any) -> Step | None:
        """Return the pass as Triton kernels; None if they cannot run this model here."""
        if not kernels.available(self.device, self._dtype):
            return None
        from kosmos_ros.kosmos2.kernels.step import Rules, Text

        limits = {key: value for rule in self._rules for key, value in rule.for_kernels().items()}
        text = Text(
            self._blocks,
            model.model.layer_norm,
            model.lm_head.weight,
            self._table,
            self._encodings,
            self._scale,
        )
        return kernels.make(text, Rules(**limits, neighbours=self._neighbours))

    def window(self, rows: int) -> int:
        """Return the largest number of tokens that a pass of `rows` rows gives each row.

        For a first pass see Decoder.first_window.
        """
        if self.plain or self.kernels is None or not self.kernels.runs(1):
            return WINDOW
        # Quantized weights take many times longer without the kernels.
        return self.kernels.window(rounded_rows(rows))

    def blank(self, images: int) -> Tensor:
        """Return zeros (N, Q, H) that have the form of the tokens of N `images`."""
        tokens = self._prefix[self._image]
        return self._table.new_zeros(images, len(tokens), self._table.shape[1])

    def prefixes(self, images: Tensor) -> list[Tensor]:
        """Return keys and values (layers, P, 2, heads, D) of the prefix with each of `images`.

        `images` (N, Q, H) are the tokens of N images.
        """
        hidden = self._embed(self._prefix.expand(len(images), -1), 0, images)
        kept = []
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            kept.append(kv)
            if number + 1 < len(self._blocks):
                k, v = kv.transpose(1, 3).unbind(2)
                hidden = block.finish(hidden, attend(q.transpose(1, 2), k, v, causal=True))
        # Copies: a view of one image would keep the memory of all images.
        return [torch.stack(layers) for layers in zip(*kept, strict=True)]

    def first(self, start: int, width: int, values: Tensor, images: Tensor | None) -> list[Tensor]:
        """Run the first pass of rows and return what `_choose` wrote.

        `values` (B, L + 3) has for each row: L token ids from position `start` on, the number of
        the row, the length of its prompt, and the length of its draft, which follows the prompt.
        `width`: the largest number of tokens that the pass gives a row.
        """
        ids = values[:, :-3]
        rows, lengths, drafted = values[:, -3:].unbind(1)
        end = start + ids.shape[1]
        hidden = self._embed(ids, start, images)
        mask = None
        if start:
            mask = self._mask(torch.arange(start, end, device=self.device).unsqueeze(0), end)
        # Tokens are chosen only after these. The other tokens only need keys and values.
        at = lengths.unsqueeze(1) - 1 + self._window[:width]
        at = at.clamp(0, ids.shape[1] - 1)
        newest = start + at
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            cache = self.rows.cache[number]
            cache[:, start:end].index_copy_(0, rows, kv)
            if start:
                kv = torch.cat([cache[:, :start].index_select(0, rows), kv], 1)
            k, v = kv.transpose(1, 3).unbind(2)
            if number + 1 == len(self._blocks):
                q, hidden, mask = _each(q, at), _each(hidden, at), self._mask(newest, end)
            hidden = block.finish(
                hidden, attend(q.transpose(1, 2), k, v, mask, causal=mask is None)
            )
        tokens = self.rows.tokens[:, :end]
        tokens[:, start:].index_copy_(0, rows, ids)
        if start:
            tokens[:, :start].index_copy_(0, rows, self._prefix.expand(len(rows), -1))
        tokens = tokens.index_select(0, rows)
        chosen, written = self._choose(hidden.flatten(0, 1), tokens, newest)
        right = self._right(chosen, tokens, newest, drafted, written)
        positions = newest[:, 0] + 1 + right[:, 0]
        self.rows.positions.index_copy_(0, rows, positions)
        self.rows.tokens.index_put_((rows, positions), chosen.gather(1, right)[:, 0])
        return [written]

    def next(self, count: int, reach: int, ragged: bool, drafts: Tensor | None) -> list[Tensor]:
        """Run a pass of the first `count` rows and return what `_choose` wrote.

        The rows attend to the first `reach` positions; `ragged`: their positions may differ.
        `drafts` (count, W) has for each row the W - 1 tokens after the newest one, and the number
        of these that are its draft.
        """
        rows = self.rows
        tokens, positions = rows.tokens[:count, :reach], rows.positions[:count].unsqueeze(1)
        newest = positions
        if drafts is not None:
            newest = positions + self._window[: drafts.shape[1]]
            tokens.scatter_(1, newest[:, 1:], drafts[:, :-1])
        width = newest.shape[1]
        if (written := self._run_kernels(count, width)) is not None:
            return [written]
        hidden = functional.embedding(tokens.gather(1, newest), self._table)
        # No token at a position beyond the model's context is used.
        encodings = functional.embedding(newest.clamp(max=self.context - 1), self._encodings)
        hidden = (hidden * self._scale + encodings).flatten(0, 1)
        mask = self._mask(newest, reach) if ragged or width > 1 else None
        slots = (rows.starts[:count] + newest).flatten()
        for block, (cache, keys, values) in zip(self._blocks, rows.views, strict=True):
            q, kv = block.project(hidden)
            cache.index_copy_(0, slots, kv)
            k, v = keys.narrow(2, 0, reach), values.narrow(2, 0, reach)
            if count < len(k):
                k, v = k[:count], v[:count]
            q = q.unflatten(0, (count, width)).transpose(1, 2)
            hidden = block.finish(hidden, attend(q, k, v, mask).flatten(0, 1))
        chosen, written = self._choose(hidden, tokens, newest)
        moves = rows.moves[:count].unsqueeze(1)
        if drafts is not None:
            right = self._right(chosen, tokens, newest, drafts[:, -1], written)
            chosen = chosen.gather(1, right)
            moves = (right + 1) * moves
        positions.add_(moves)
        rows.tokens[:count].scatter_(1, positions, chosen)
        return [written]

    def _run_kernels(self, count: int, width: int) -> Tensor | None:
        """Run the pass of `next` as Triton kernels; None if they cannot run it."""
        if not self.kernels:
            return None
        from kosmos_ros.kosmos2.kernels.step import State

        kept = 1 if self._neighbours is None else self._neighbours.shape[1]
        written = torch.empty(count, width, 1 + kept, device=self.device)
        rows = self.rows
        state = State(rows.cache, rows.tokens, rows.positions, rows.moves, written)
        return written if self.kernels(state, count, width) else None

    def _embed(self, ids: Tensor, start: int, images: Tensor | None) -> Tensor:
        """Return hidden states (B, L, H) of `ids` (B, L) at the positions from `start` on."""
        hidden = functional.embedding(ids, self._table)
        if images is not None:
            hidden[:, self._image] = images
        return hidden * self._scale + self._encodings[start : start + ids.shape[1]]

    def _mask(self, newest: Tensor, reach: int) -> Tensor:
        """Return the mask (B, 1, W, reach) of tokens at the positions `newest` (B, W).

        It has numbers, because torch would convert a boolean mask in each layer. Its rows begin
        at multiples of 64 numbers, because torch would copy an unaligned mask in each layer.
        """
        behind = torch.arange(rounded_positions(reach), device=self.device) > newest.unsqueeze(2)
        mask = torch.zeros(behind.shape, dtype=self._dtype, device=self.device)
        return mask.masked_fill_(behind, -torch.inf).narrow(2, 0, reach).unsqueeze(1)

    def _choose(self, hidden: Tensor, tokens: Tensor, newest: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the tokens (B, W) after the positions `newest` (B, W) of `tokens` (B, P).

        `hidden` (B * W, H) are the text model's last states. The second tensor (B, W, 1 + K) has
        each chosen token as a number, and the probabilities of its neighbours.
        """
        logits = self._head(self._norm(hidden)).float()
        scores = logits.view(*newest.shape, -1)
        for rule in self._rules:
            scores = rule.restrict(scores, tokens, newest)
        chosen = scores.argmax(-1)
        near = chosen.view(-1, 1)
        if self._neighbours is not None:
            near = self._neighbours.index_select(0, chosen.flatten())
        probabilities = logits.softmax(-1).gather(1, near)
        written = torch.cat([chosen.view(-1, 1), probabilities], 1)
        return chosen, written.view(*newest.shape, -1)

    def _right(
        self, chosen: Tensor, tokens: Tensor, newest: Tensor, drafted: Tensor, written: Tensor
    ) -> Tensor:
        """Return for each row how many tokens of its draft are right (B, 1).

        The draft is the `drafted` (B) tokens after the first position of `newest`. It is right up
        to the first token that differs from the `chosen` one. The row gets the right tokens and
        one more; all later tokens in `written` become NONE.
        """
        right = chosen[:, :-1] == tokens.gather(1, newest[:, 1:])
        right &= self._window[: right.shape[1]] < drafted.unsqueeze(1)
        count = right.cumprod(1).sum(1, keepdim=True)
        written[:, :, 0].masked_fill_(self._window[: chosen.shape[1]] > count, NONE)
        return count


def _each(values: Tensor, at: Tensor) -> Tensor:
    """Return values[b, at[b, w]] (B, W, ...) of `values` (B, L, ...)."""
    begin = torch.arange(len(at), device=at.device).unsqueeze(1) * values.shape[1]
    return values.flatten(0, 1).index_select(0, (begin + at).flatten()).unflatten(0, at.shape)
