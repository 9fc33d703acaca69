# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run KOSMOS-2's text model: rows join with a prompt, write tokens together and leave.

Runs on the modules that Hugging Face loaded and shares their weights. One cache holds the keys
and values of all rows. The position of a token in its row is also its position in the cache, so
rows of different length need no padding, and a joining row does not affect the others.
A pass reads all weights once. It gives a row one token. If the row has a draft of its next
tokens, the pass also gives those tokens of the draft that are right. On a GPU, passes have few
shapes, and each shape is recorded once as a CUDA graph. Without drafts, a pass begins before the
host has read the tokens of the previous one.
Knows token ids, no text and no pixels.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2 import kernels
from kosmos_ros.kosmos2.blocks import Block, attend, linear, norm
from kosmos_ros.kosmos2.cuda_graphs import Cuda, Graphs, upload
from kosmos_ros.kosmos2.rule import Rule

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.kernels.step import Step

WINDOW = 16
"""Largest number of tokens that a pass gives a row: those of its draft, and one more."""
CACHE_STEP = 64
"""Number of positions by which the cache grows, and a pass's attention on a GPU."""
PADDED_LENGTHS = (16, 64)
"""Numbers of tokens to which prompts are padded on a GPU. Longer prompts are not padded."""

NONE = -1
"""Takes the place of each token that would follow a wrong token of a draft."""
Token = tuple[int, list[float]]
"""A token that a row has written, and the probabilities (K) of the token's neighbours."""


@dataclass(eq=False)
class EncodedImage:
    """An image for the text model."""

    tokens: Tensor  # (Q, H)
    prefix: Tensor | None = None
    """Keys and values (layers, P, 2, heads, D) of the P tokens with which all prompts about the
    image begin. None until several prompts about the image join together and share them."""


@dataclass(frozen=True)
class NewRow:
    """A row that joins."""

    image: EncodedImage
    ids: Sequence[int]  # of the prompt, after the prefix; 1 or more
    limit: int  # most tokens to write
    draft: Sequence[int] = ()  # of the first tokens; shorter than `limit` and WINDOW


class Decoder:
    """Greedy decoding of many rows at once. Call from one thread at a time, in inference mode.

    `model` is a Kosmos2TextForCausalLM. All prompts about an image begin with the ids `prefix`.
    At the positions `image`, the image's tokens replace the embeddings of these ids.
    `rules` limit which tokens a row may write; they do not change the returned probabilities.
    `neighbours` (vocabulary, K) has for each token the tokens whose probabilities `step` returns
    when a row writes it. Default: the token itself.
    `graphs` record the passes of fixed shape. Default: CUDA graphs on a GPU. With quantized
    weights they record only passes of Triton's kernels, because bitsandbytes' int8 product waits
    for the device.
    """

    def __init__(
        self,
        model: Any,
        prefix: Sequence[int],
        image: slice,
        rules: tuple[Rule, ...] = (),
        graphs: Graphs | None = None,
        neighbours: Tensor | None = None,
    ) -> None:
        inner = model.model
        self._table = inner.embed_tokens.weight
        self._scale = float(inner.embed_scale)
        self._blocks = [Block.text(layer) for layer in inner.layers]
        self._norm = norm(inner.layer_norm)
        self._head = linear(model.lm_head)
        self._device, self._dtype = self._table.device, self._table.dtype
        # Hugging Face's positions begin after that of the padding token.
        positions = inner.embed_positions
        self._encodings = positions.weights[positions.padding_idx + 1 :].to(
            self._device, self._dtype
        )
        self._prefix = list(prefix)
        self._prefix_ids = torch.tensor(self._prefix, device=self._device)
        self._image = image
        self._rules = rules
        self._neighbours = neighbours
        self._window = torch.arange(WINDOW, device=self._device)
        self._kernels = self._triton(model)
        self._plain = all(block.plain for block in self._blocks)
        recorded = self._device.type == "cuda" and (self._plain or self._kernels is not None)
        self.graphs = graphs or Graphs(Cuda(self._device) if recorded else None)
        self._pending: list[_Written] = []  # passes that have begun and are not read yet
        # For each row: the position of its newest token after all passes that have begun.
        self._newest: list[int] = []
        # (rows, positions): token ids by position.
        self._tokens = torch.zeros(0, 0, dtype=torch.long, device=self._device)
        # (2, rows): the position of each row's newest token, and 1 for a row that exists. No pass
        # has read the newest token yet.
        self._values = torch.zeros(2, 0, dtype=torch.long, device=self._device)
        # (layers, rows, positions, 2, heads, D): keys and values by position.
        self._cache = torch.zeros(len(self._blocks), 0, 0, device=self._device)
        self._views: list[tuple[Tensor, Tensor, Tensor]] = []
        self._least = (1, CACHE_STEP)  # rows and positions that the cache always has
        self._grow(*self._least)

    def _triton(self, model: Any) -> Step | None:
        """Return the pass as Triton kernels; None if they cannot run this model here."""
        if not kernels.available(self._device, self._dtype):
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

    def join(self, rows: Sequence[NewRow]) -> None:
        """Add rows and begin their first pass, whose tokens the next `step` returns."""
        first, shared = len(self._newest), len(self._prefix)
        longest = max(self._padded(len(row.ids) + len(row.draft)) for row in rows)
        needed = shared + max([longest, *(len(row.ids) + row.limit for row in rows)])
        if not first and 4 * needed < self._cache.shape[2]:
            self.shrink()  # an earlier row was much longer
        self._grow(first + len(rows), needed + WINDOW)
        self._newest += [shared + len(row.ids) for row in rows]
        self._values[1, first : len(self._newest)] = 1
        self._share([row.image for row in rows])
        numbered = list(enumerate(rows, first))
        for start in (0, shared):
            group = [at for at in numbered if (at[1].image.prefix is not None) == (start > 0)]
            self._pending += [self._begin(start, group[part]) for part in self._parts(group)]

    def _parts(self, values: Sequence[Any]) -> list[slice]:
        return self.graphs.parts(len(values)) if values else []

    def _share(self, images: Sequence[EncodedImage]) -> None:
        """Compute the prefix of each image that occurs more than once."""
        counts = Counter(images)
        fresh = [image for image in counts if counts[image] > 1 and image.prefix is None]
        for part in self._parts(fresh):
            tokens = torch.stack([image.tokens for image in fresh[part]])
            prefixes = self.run(self._prefixes, tokens)
            for image, prefix in zip(fresh[part], prefixes, strict=True):
                image.prefix = prefix

    def _prefixes(self, images: Tensor) -> list[Tensor]:
        """Return keys and values (layers, P, 2, heads, D) of the prefix with each of `images`.

        `images` (N, Q, H) are the tokens of N images.
        """
        hidden = self._embed(self._prefix_ids.expand(len(images), -1), 0, images)
        kept = []
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            kept.append(kv)
            if number + 1 < len(self._blocks):
                k, v = kv.transpose(1, 3).unbind(2)
                hidden = block.finish(hidden, attend(q.transpose(1, 2), k, v, causal=True))
        # Copies: a view of one image would keep the memory of all images.
        return [torch.stack(layers) for layers in zip(*kept, strict=True)]

    def _embed(self, ids: Tensor, start: int, images: Tensor | None) -> Tensor:
        """Return hidden states (B, L, H) of `ids` (B, L) at the positions from `start` on."""
        hidden = functional.embedding(ids, self._table)
        if images is not None:
            hidden[:, self._image] = images
        return hidden * self._scale + self._encodings[start : start + ids.shape[1]]

    def _begin(self, start: int, rows: Sequence[tuple[int, NewRow]]) -> _Written:
        """Begin the first pass of rows, given with their numbers.

        Their first `start` positions come from the prefix of their image.
        """
        padded = self._padded(max(len(row.ids) + len(row.draft) for _, row in rows))
        length = len(self._prefix) - start + padded
        values = []
        for number, row in rows:
            prompt = [*self._prefix[start:], *row.ids]
            text = [*prompt, *row.draft]
            # A row overwrites the padding after its end before it attends to it.
            text += [0] * (length - len(text))
            values.append([*text, number, len(prompt), len(row.draft)])
            if row.image.prefix is not None:
                self._cache[:, number, :start] = row.image.prefix
        images = None
        if not start:
            images = torch.stack([row.image.tokens for _, row in rows])
        fixed = self.graphs.fixed
        width = WINDOW if fixed else 1 + max(len(row.draft) for _, row in rows)
        arguments = (start, width, upload(values, self._device), images)
        recorded = fixed and padded in PADDED_LENGTHS
        (written,) = self.run(self._first, *arguments) if recorded else self._first(*arguments)
        drafted = any(row.draft for _, row in rows)
        return _Written(written, [number for number, _ in rows], drafted, copy=fixed)

    def _padded(self, length: int) -> int:
        """Return the tokens after the prefix of a first pass that needs `length` of them."""
        return next((fit for fit in self._lengths() if fit >= length), length)

    def _lengths(self) -> list[int]:
        """Return the PADDED_LENGTHS in use, those that fit in the model's context."""
        room = len(self._encodings) - len(self._prefix)
        return [fit for fit in PADDED_LENGTHS if fit <= room] if self.graphs.fixed else []

    def _first(
        self, start: int, width: int, values: Tensor, images: Tensor | None
    ) -> list[Tensor]:
        """Run the first pass of rows and return what `_choose` wrote.

        `values` (B, L + 3) has for each row: L token ids from position `start` on, the number of
        the row, the length of its prompt, and the length of its draft, which follows the prompt.
        """
        ids = values[:, :-3]
        rows, lengths, drafted = values[:, -3:].unbind(1)
        end = start + ids.shape[1]
        hidden = self._embed(ids, start, images)
        # A mask of numbers, because torch would convert a boolean mask in each layer.
        mask = None
        if start:
            shape = (ids.shape[1], end)
            mask = torch.full(shape, -torch.inf, dtype=self._dtype, device=self._device)
            mask = mask.triu(start + 1)
        # Tokens are chosen only after these. The other tokens only need keys and values.
        at = lengths.unsqueeze(1) - 1 + self._window[:width]
        at = at.clamp(0, ids.shape[1] - 1)
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            self._cache[number, :, start:end].index_copy_(0, rows, kv)
            if start:
                before = self._cache[number, :, :start].index_select(0, rows)
                kv = torch.cat([before, kv], 1)
            k, v = kv.transpose(1, 3).unbind(2)
            if number + 1 == len(self._blocks):
                q, hidden = _rows(q, at), _rows(hidden, at)
                behind = torch.arange(end, device=self._device) > (start + at).unsqueeze(2)
                mask = torch.zeros(behind.shape, dtype=self._dtype, device=self._device)
                mask = mask.masked_fill_(behind, -torch.inf).unsqueeze(1)
            hidden = block.finish(
                hidden, attend(q.transpose(1, 2), k, v, mask, causal=mask is None)
            )
        tokens = self._tokens[:, :end]
        tokens[:, start:].index_copy_(0, rows, ids)
        if start:
            tokens[:, :start].index_copy_(0, rows, self._prefix_ids.expand(len(rows), -1))
        newest = start + at
        tokens = tokens.index_select(0, rows)
        chosen, written = self._choose(hidden.flatten(0, 1), tokens, newest)
        right = self._right(chosen, tokens, newest, drafted, written)
        positions = newest[:, 0] + 1 + right[:, 0]
        self._positions.index_copy_(0, rows, positions)
        self._tokens.index_put_((rows, positions), chosen.gather(1, right)[:, 0])
        return [written]

    def step(self, drafts: Sequence[Sequence[int]] | None = None) -> list[list[Token]]:
        """Return the next tokens of each row: those of its draft that are right, and one more.

        `drafts` has for each row the tokens that may come next, fewer than `window`. None: no row
        has any, in this step and the next one. A step after `join` uses no drafts, and in it the
        rows that did not join may get no token. Probabilities may not be finite.
        """
        pending = [written for written in self._pending if written.rows]
        pending = pending or [self._launch(drafts or [])]
        self._pending = []
        if self.graphs.fixed and drafts is None and not any(one.drafted for one in pending):
            # The device works while the host reads. For a row that ends, this pass is wasted.
            # After drafts the host must first read how far the rows have come.
            self._pending = [self._launch([])]
        tokens: list[list[Token]] = [[] for _ in self._newest]
        for written in pending:
            for row, new in written.read():
                tokens[row] += new
                self._newest[row] += len(new) - 1  # the first one is counted already
        return tokens

    def window(self, rows: int) -> int:
        """Return the largest number of tokens that a pass of `rows` rows gives each row."""
        if self._plain or self._kernels is None or not self._kernels.runs(1):
            return WINDOW
        # Quantized weights take many times longer without the kernels.
        return self._kernels.window(1 << (rows - 1).bit_length())

    def _launch(self, drafts: Sequence[Sequence[int]]) -> _Written:
        """Begin a pass of all rows."""
        count, width = len(self._newest), 1 + max(map(len, drafts), default=0)
        size, positions = count, max(self._newest) + width
        ragged = len(set(self._newest)) > 1
        if self.graphs.fixed:
            width = self.window(count) if width > 1 else 1
            size = 1 << (count - 1).bit_length()
            positions = -(-(max(self._newest) + width) // CACHE_STEP) * CACHE_STEP
            ragged = True
        values = None
        if width > 1:
            padded = [[*draft, *[0] * (width - 1 - len(draft)), len(draft)] for draft in drafts]
            values = upload([*padded, *[[0] * width] * (size - count)], self._device)
        (written,) = self._run_pass(size, positions, ragged, values)
        self._newest = [position + 1 for position in self._newest]
        return _Written(written, range(count), any(drafts), copy=self.graphs.fixed)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`, from its graph unless the weights are quantized."""
        return self.graphs(function, *arguments) if self._plain else function(*arguments)

    def _run_pass(self, count: int, reach: int, ragged: bool, drafts: Tensor | None) -> Any:
        """Return `_forward(...)`, from its graph if it can be recorded."""
        width = 1 if drafts is None else drafts.shape[1]
        if self._kernels is not None and self._kernels.runs(count * width):
            # The kernels read a row's own positions, so one graph serves every reach.
            return self.graphs(self._forward, count, self._cache.shape[2], True, drafts)
        return self.run(self._forward, count, reach, ragged, drafts)

    def _forward(
        self, count: int, reach: int, ragged: bool, drafts: Tensor | None
    ) -> list[Tensor]:
        """Run a pass of the first `count` rows and return what `_choose` wrote.

        The rows attend to the first `reach` positions. `drafts` (count, W) has for each row the
        W - 1 tokens after the newest one, and the number of these that are its draft.
        """
        tokens, positions = self._tokens[:count, :reach], self._positions[:count].unsqueeze(1)
        newest = positions
        if drafts is not None:
            newest = positions + self._window[: drafts.shape[1]]
            tokens.scatter_(1, newest[:, 1:], drafts[:, :-1])
        width = newest.shape[1]
        if (written := self._run_kernels(count, width)) is not None:
            return [written]
        hidden = functional.embedding(tokens.gather(1, newest), self._table)
        # No token at a position beyond the model's context is used.
        encodings = functional.embedding(
            newest.clamp(max=len(self._encodings) - 1), self._encodings
        )
        hidden = (hidden * self._scale + encodings).flatten(0, 1)
        mask = None
        if ragged or width > 1:
            behind = torch.arange(reach, device=self._device) > newest.unsqueeze(2)
            mask = torch.zeros(behind.shape, dtype=self._dtype, device=self._device)
            mask = mask.masked_fill_(behind, -torch.inf).unsqueeze(1)
        written_to = (self._starts[:count] + newest).flatten()
        for block, (slots, keys, values) in zip(self._blocks, self._views, strict=True):
            q, kv = block.project(hidden)
            slots.index_copy_(0, written_to, kv)
            k, v = keys.narrow(2, 0, reach), values.narrow(2, 0, reach)
            if count < len(k):
                k, v = k[:count], v[:count]
            q = q.unflatten(0, (count, width)).transpose(1, 2)
            hidden = block.finish(hidden, attend(q, k, v, mask).flatten(0, 1))
        chosen, written = self._choose(hidden, tokens, newest)
        moves = self._moves[:count].unsqueeze(1)
        if drafts is not None:
            right = self._right(chosen, tokens, newest, drafts[:, -1], written)
            chosen = chosen.gather(1, right)
            moves = (right + 1) * moves
        positions.add_(moves)
        self._tokens[:count].scatter_(1, positions, chosen)
        return [written]

    def _run_kernels(self, count: int, width: int) -> Tensor | None:
        """Run the pass of `_forward` as Triton kernels; None if they cannot run it."""
        if not self._kernels:
            return None
        from kosmos_ros.kosmos2.kernels.step import State

        kept = 1 if self._neighbours is None else self._neighbours.shape[1]
        written = torch.empty(count, width, 1 + kept, device=self._device)
        state = State(self._cache, self._tokens, self._positions, self._moves, written)
        return written if self._kernels(state, count, width) else None

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

    def leave(self, row: int) -> None:
        """Remove a row that has had a step; the last row takes its number."""
        last = len(self._newest) - 1
        for written in self._pending:
            written.leave(row, last)
        if row != last:
            filled = self._newest[last]
            self._values[:, row] = self._values[:, last]
            self._tokens[row] = self._tokens[last]
            self._cache[:, row, :filled] = self._cache[:, last, :filled]
            self._cache[:, row, filled:] = 0
            self._newest[row] = filled
        # Clear the row: a mask would not hide a NaN or an infinity from the next row there.
        self._cache[:, last] = 0
        self._values[:, last] = 0
        self._newest.pop()

    def warm_up(self, rows: int, positions: int) -> None:
        """Make room for `rows` rows of `positions` positions and record all graphs they need."""
        shared, lengths = len(self._prefix), self._lengths()
        self._grow(rows, max([positions, *(shared + length for length in lengths)]) + WINDOW)
        if not self.graphs.fixed:
            return
        # Record the largest first, so that the smaller ones reuse its memory.
        sizes = [1 << power for power in reversed(range((rows - 1).bit_length() + 1))]
        least = -(-(shared + 1) // CACHE_STEP) * CACHE_STEP
        reaches = range(self._cache.shape[2], least - 1, -CACHE_STEP)
        for drafted, size, reach in itertools.product((True, False), sizes, reaches):
            width = self.window(size) if drafted else 1
            drafts = self._zeros(size, width) if width > 1 else None
            self._run_pass(size, reach, True, drafts)
        hidden = self._table.new_zeros(rows, shared, self._table.shape[1])
        runs = itertools.product(reversed(lengths), self.graphs.sizes(rows))
        for length, size in runs:
            images = hidden[:size, self._image]
            self.run(self._first, 0, WINDOW, self._zeros(size, shared + length + 3), images)
            self.run(self._first, shared, WINDOW, self._zeros(size, length + 3), None)
            self.run(self._prefixes, images)
        self._least = self._cache.shape[1], self._cache.shape[2]

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.long, device=self._device)

    def clear(self) -> None:
        """Remove all rows and graphs, and free the cache's memory."""
        self._newest.clear()
        self.graphs.clear()
        self._least = (1, CACHE_STEP)
        self.shrink()

    def shrink(self) -> None:
        """Free the part of the cache beyond the warmed-up size. There must be no rows."""
        self._pending = []
        if tuple(self._cache.shape[1:3]) != self._least:
            self._cache = self._cache[:, :0, :0].clone()
            self._tokens = self._tokens[:0, :0].clone()
            # Views keep the memory that they show.
            self._views, self._values = [], self._values[:, :0].clone()
            self._grow(*self._least)

    def _grow(self, rows: int, positions: int) -> None:
        """Make room for `rows` rows of `positions` positions, and keep the contents."""
        had_rows, had_positions = self._cache.shape[1:3]
        if rows <= had_rows and positions <= had_positions:
            return
        size = max(had_rows, 1 << (rows - 1).bit_length())
        block = self._blocks[0]
        length = max(had_positions, -(-positions // CACHE_STEP) * CACHE_STEP)
        shape = (len(self._blocks), size, length, 2, block.heads, block.depth)
        old = self._cache
        self._cache = torch.zeros(shape, dtype=self._dtype, device=self._device)
        if had_rows:
            self._cache[:, :had_rows, :had_positions] = old
        # For each layer: all positions of all rows, keys, values. Views take time to make.
        self._views = [
            (layer.flatten(0, 1), *layer.transpose(1, 3).unbind(2)) for layer in self._cache
        ]
        added = (0, length - had_positions, 0, size - had_rows)
        self._tokens = functional.pad(self._tokens, added)
        self._values = functional.pad(self._values, (0, size - had_rows))
        self._positions, self._moves = self._values
        self._starts = torch.arange(size, device=self._device).unsqueeze(1) * length
        self.graphs.clear(self._forward, self._first)


class _Written:
    """The output (B, W, 1 + K) of a pass for `rows`, while it is copied to the host."""

    def __init__(self, written: Tensor, rows: Sequence[int], drafted: bool, copy: bool) -> None:
        self.drafted = drafted  # a row may have more than one token
        # For each row that still exists, by its number: its index in `written`.
        self.rows = {row: index for index, row in enumerate(rows)}
        # On a GPU this copies to pinned memory, so that nothing waits (torch's _to_copy).
        self._values = written.to("cpu", non_blocking=True, copy=copy)
        # Blocking: the host's core is free while it waits.
        self._arrived = torch.cuda.Event(blocking=True) if written.is_cuda else None
        if self._arrived:
            self._arrived.record(torch.cuda.current_stream(written.device))

    def leave(self, row: int, last: int) -> None:
        """Remove a row as Decoder.leave does; `last` is the last row of the decoder."""
        moved = self.rows.pop(last, None)
        if row != last:
            self.rows.pop(row, None)
            if moved is not None:
                self.rows[row] = moved

    def read(self) -> list[tuple[int, list[Token]]]:
        """Wait for the tokens and return those of each row, by its number."""
        if self._arrived:
            self._arrived.synchronize()
        values = self._values.tolist()
        return [
            (row, [(int(token), near) for token, *near in values[index] if token != NONE])
            for row, index in self.rows.items()
        ]


def _rows(values: Tensor, at: Tensor) -> Tensor:
    """Return values[b, at[b, w]] (B, W, ...) of `values` (B, L, ...)."""
    begin = torch.arange(len(at), device=at.device).unsqueeze(1) * values.shape[1]
    return values.flatten(0, 1).index_select(0, (begin + at).flatten()).unflatten(0, at.shape)
