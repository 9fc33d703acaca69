# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run KOSMOS-2's text model token by token: rows join, step together and leave.

Runs on the modules that Hugging Face loaded and shares their weights. One cache holds the keys
and values of all rows. The position of a token in its row is also its position in the cache, so
rows of different length need no padding, and a joining row does not affect the others. On a GPU,
steps and prompts have few shapes, each recorded once as a CUDA graph, and a step begins before the
host has read the tokens of the previous one.
Knows token ids, no text and no pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2.blocks import Block, attend, linear, norm
from kosmos_ros.kosmos2.cuda_graphs import Cuda, Graphs, upload
from kosmos_ros.kosmos2.rule import Rule

CACHE_STEP = 64
"""Number of positions by which the cache grows, and a step's attention on a GPU."""
PADDED_LENGTHS = (16, 64)
"""Numbers of tokens to which prompts are padded on a GPU. Longer prompts are not padded."""


class Decoder:
    """Greedy decoding of many rows at once. Call from one thread at a time, in inference mode.

    `model` is a Kosmos2TextForCausalLM. All prompts about an image begin with the image's tokens;
    these go through the model once (`prefixes`), and their keys and values serve all prompts.
    `rules` limit which tokens a row may write; they do not change the returned probabilities.
    `neighbours` (vocabulary, K) has for each token the tokens whose probabilities `step` returns
    when a row writes it. Default: the token itself.
    `graphs` record the runs of fixed shape, and a step then begins before the tokens of the
    previous one are read. Default: CUDA graphs on a GPU with weights that are not quantized,
    because bitsandbytes' int8 product waits for the device in each call.
    """

    def __init__(
        self,
        model: Any,
        rules: tuple[Rule, ...] = (),
        graphs: Graphs | None = None,
        neighbours: Tensor | None = None,
    ) -> None:
        inner = model.model
        self._embeddings = inner.embed_tokens
        self._scale = float(inner.embed_scale)
        self._blocks = [Block.text(layer) for layer in inner.layers]
        self._norm = norm(inner.layer_norm)
        self._head = linear(model.lm_head)
        self._device = inner.embed_tokens.weight.device
        self._dtype = inner.embed_tokens.weight.dtype
        # Hugging Face's positions begin after that of the padding token.
        positions = inner.embed_positions
        self._encodings = positions.weights[positions.padding_idx + 1 :].to(
            self._device, self._dtype
        )
        self._rules = rules
        self._neighbours = neighbours
        self._kept = 1 if neighbours is None else neighbours.shape[1]  # probabilities
        plain = all(block.plain for block in self._blocks)
        recorded = self._device.type == "cuda" and plain
        self.graphs = graphs or Graphs(Cuda(self._device) if recorded else None)
        self._ahead: _Written | None = None  # a step that has begun and is not read yet
        self._lengths: list[int] = []  # positions that each row has filled
        # (3, rows): each row's next token, that token's position, and 1 for a row that exists.
        self._values = torch.zeros(3, 0, dtype=torch.long, device=self._device)
        # (layers, rows, positions, 2, heads, D)
        self._cache = torch.zeros(len(self._blocks), 0, 0, device=self._device)
        self._views: list[tuple[Tensor, Tensor, Tensor]] = []
        self._least = (1, CACHE_STEP)  # rows and positions that the cache always has
        self._grow(*self._least)

    def prefixes(self, ids: Tensor, images: Tensor, start: int) -> list[Tensor]:
        """Return keys and values (layers, P, 2, heads, D) of `ids` (P) with each of `images`.

        `images` (N, Q, H) replace the embeddings of the Q ids from `start` on.
        """
        hidden = self._embeddings(ids).expand(len(images), -1, -1).clone()
        hidden[:, start : start + images.shape[1]] = images
        hidden = hidden * self._scale + self._encodings[: len(ids)]
        kept = []
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            kept.append(kv)
            if number + 1 < len(self._blocks):
                k, v = kv.transpose(1, 3).unbind(2)
                hidden = block.finish(hidden, attend(q.transpose(1, 2), k, v, causal=True))
        # Copies: a view of one image would keep the memory of all images.
        return [torch.stack(layers) for layers in zip(*kept, strict=True)]

    def join(
        self, prefixes: Sequence[Tensor], ids: Sequence[Sequence[int]], new: Sequence[int]
    ) -> None:
        """Add one row for each of `prefixes`, as the method `prefixes` returns them.

        `ids` are the row's token ids after its prefix, at least one. `new` is the largest number
        of tokens that the row may write.
        """
        first, count = len(self._lengths), len(ids)
        shared = prefixes[0].shape[1]
        lengths = [shared + len(row) - 1 for row in ids]
        needed = max(map(sum, zip(lengths, new, strict=True)))
        longest = max(lengths) - shared
        if self.graphs.fixed:
            longest = next((fit for fit in self._fitting(shared) if fit >= longest > 0), longest)
            # A step that runs ahead writes one more token for a row that has ended.
            needed = max(needed + 1, shared + longest)
        if not first and 4 * needed < self._cache.shape[2]:
            self.shrink()  # an earlier row was much longer
        self._grow(first + count, needed)
        rows = slice(first, first + count)
        cache = self._cache[:, rows]
        for row, prefix in zip(cache.unbind(1), prefixes, strict=True):
            row[:, :shared] = prefix
        # The next step processes the last token of a prompt, like every token after it.
        if longest:
            # A row overwrites the padding after its end before it attends to it.
            padded = [[*row[:-1], *[0] * (longest + 1 - len(row))] for row in ids]
            tokens = upload(padded, self._device)
            if self.graphs.fixed and longest in PADDED_LENGTHS:
                numbers = torch.arange(first, first + count, device=self._device)
                for part in self.graphs.parts(count):
                    self.graphs(self._prefill_rows, shared, tokens[part], numbers[part])
            else:
                self._prefill(cache, shared, tokens)
        self._lengths += lengths
        values = [[row[-1] for row in ids], lengths, [1] * count]
        self._values[:, rows] = upload(values, self._device)
        for rule in self._rules:
            rule.join(first, ids)

    def _fitting(self, shared: int) -> list[int]:
        """Return the PADDED_LENGTHS that fit in the model's context after `shared` positions."""
        return [length for length in PADDED_LENGTHS if shared + length <= len(self._encodings)]

    def _prefill_rows(self, shared: int, ids: Tensor, rows: Tensor) -> None:
        """Run `_prefill` on any `rows` (B) of the cache."""
        end = shared + ids.shape[1]
        cache = self._cache[:, :, :end].index_select(1, rows)
        self._prefill(cache, shared, ids)
        self._cache[:, :, shared:end].index_copy_(1, rows, cache[:, :, shared:])

    def _prefill(self, cache: Tensor, shared: int, ids: Tensor) -> None:
        """Write keys and values of `ids` (B, L) to `cache`, after `shared` filled positions."""
        longest = ids.shape[1]
        end = shared + longest
        hidden = self._embeddings(ids) * self._scale + self._encodings[shared:end]
        # A mask of numbers, because torch would convert a boolean mask in each layer.
        mask = torch.full((longest, end), -torch.inf, dtype=self._dtype, device=self._device)
        mask = mask.triu(shared + 1)
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            cache[number, :, shared:end] = kv
            if number + 1 < len(self._blocks):
                k, v = cache[number, :, :end].transpose(1, 3).unbind(2)
                hidden = block.finish(hidden, attend(q.transpose(1, 2), k, v, mask))

    def step(self) -> tuple[list[int], list[list[float]]]:
        """Return the next token of each row and the probabilities (K) of its neighbours.

        A probability is NaN if the model's output is not finite. With graphs, the rows that joined
        since the previous call may be missing at the end.
        """
        ahead, self._ahead = self._ahead, None
        written = ahead if ahead and ahead.indices else self._launch()
        if self.graphs.fixed:
            # The device works while the host reads. For a row that ends, this step is wasted.
            self._ahead = self._launch()
        return written.read()

    def _launch(self) -> _Written:
        """Begin a step of all rows."""
        count, reach = len(self._lengths), max(self._lengths) + 1
        if self.graphs.fixed:
            size = 1 << (count - 1).bit_length()
            self.graphs(self._forward, size, -(-reach // CACHE_STEP) * CACHE_STEP, True)
        else:
            self._forward(count, reach, ragged=len(set(self._lengths)) > 1)
        self._lengths = [length + 1 for length in self._lengths]
        return _Written(self._written, count, copy=self.graphs.fixed)

    def leave(self, row: int) -> None:
        """Remove a row that has had a step; the last row takes its number."""
        last = len(self._lengths) - 1
        if self._ahead:
            self._ahead.leave(row)
        if row != last:
            length = self._lengths[last]
            self._values[:, row] = self._values[:, last]
            self._cache[:, row, :length] = self._cache[:, last, :length]
            self._cache[:, row, length:] = 0
            self._lengths[row] = length
        # Clear the row: a mask would not hide a NaN or an infinity from the next row there.
        self._cache[:, last] = 0
        self._values[:, last] = 0
        for rule in self._rules:
            rule.leave(row, last)
        self._lengths.pop()

    def warm_up(self, rows: int, positions: int, shared: int) -> None:
        """Make room for `rows` rows of `positions` positions and record all graphs they need.

        The first `shared` positions of each row are a prefix.
        """
        if not self.graphs.fixed:
            self._grow(rows, positions)
            return
        lengths = self._fitting(shared)
        self._grow(rows, max([positions, *(shared + length for length in lengths)]))
        # Record the largest first, so that the smaller ones reuse its memory.
        sizes = [1 << power for power in range((rows - 1).bit_length() + 1)]
        first = -(-(shared + 1) // CACHE_STEP) * CACHE_STEP
        reaches = range(first, self._cache.shape[2] + 1, CACHE_STEP)
        for size, reach in itertools.product(reversed(sizes), reversed(reaches)):
            self.graphs(self._forward, size, reach, True)
        for length, size in itertools.product(reversed(lengths), self.graphs.sizes(rows)):
            ids = torch.zeros(size, length, dtype=torch.long, device=self._device)
            self.graphs(self._prefill_rows, shared, ids, torch.arange(size, device=self._device))
        self._least = self._cache.shape[1], self._cache.shape[2]

    def clear(self) -> None:
        """Remove all rows and graphs, and free the cache's memory."""
        self._lengths.clear()
        self.graphs.clear()
        self._least = (1, CACHE_STEP)
        self.shrink()

    def shrink(self) -> None:
        """Free the part of the cache beyond the warmed-up size. There must be no rows."""
        self._ahead = None
        if tuple(self._cache.shape[1:3]) != self._least:
            self._cache = self._cache[:, :0, :0].clone()
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
        self._values = functional.pad(self._values, (0, size - had_rows))
        self._ids, self._positions, self._moves = self._values
        self._starts = torch.arange(size, device=self._device) * length
        # For each row: its next token, and the probabilities of the token's neighbours.
        self._written = torch.zeros(size, 1 + self._kept, device=self._device)
        for rule in self._rules:
            rule.resize(size, length)
        self.graphs.clear(self._forward, self._prefill_rows)

    def _forward(self, count: int, reach: int, ragged: bool) -> None:
        """Run one step of the first `count` rows, which attend to the first `reach` positions."""
        ids, positions = self._ids[:count], self._positions[:count]
        hidden = self._embeddings(ids) * self._scale + self._encodings.index_select(0, positions)
        mask = None
        if ragged:
            behind = torch.arange(reach, device=self._device) > positions[:, None, None, None]
            mask = torch.zeros(behind.shape, dtype=self._dtype, device=self._device)
            mask.masked_fill_(behind, -torch.inf)
        written_to = self._starts[:count] + positions
        for block, (slots, keys, values) in zip(self._blocks, self._views, strict=True):
            q, kv = block.project(hidden)
            slots.index_copy_(0, written_to, kv)
            k, v = keys.narrow(2, 0, reach), values.narrow(2, 0, reach)
            if count < len(k):
                k, v = k[:count], v[:count]
            hidden = block.finish(hidden, attend(q.unsqueeze(2), k, v, mask).squeeze(1))
        logits = self._head(self._norm(hidden)).float()
        scores = logits
        for rule in self._rules:
            scores = rule.restrict(scores)
        tokens = scores.argmax(-1)
        for rule in self._rules:
            rule.advance(tokens)
        near = tokens.unsqueeze(1)
        if self._neighbours is not None:
            near = self._neighbours.index_select(0, tokens)
        written = self._written[:count]
        written[:, 0].copy_(tokens)
        written[:, 1:].copy_(logits.softmax(-1).gather(1, near))
        ids.copy_(tokens)
        positions.add_(self._moves[:count])


class _Written:
    """The tokens and probabilities (rows, 1 + K) of one step, on their way to the host."""

    def __init__(self, written: Tensor, rows: int, copy: bool) -> None:
        self.indices = list(range(rows))  # into `written`, of each row that still exists
        # On a GPU this copies to pinned memory, so that nothing waits (torch's _to_copy).
        self._values = written.to("cpu", non_blocking=True, copy=copy)
        # Blocking: the host's core is free while it waits.
        self._arrived = torch.cuda.Event(blocking=True) if written.is_cuda else None
        if self._arrived:
            self._arrived.record(torch.cuda.current_stream(written.device))

    def leave(self, row: int) -> None:
        """Remove a row as Decoder.leave does."""
        self.indices[row] = self.indices[-1]
        self.indices.pop()

    def read(self) -> tuple[list[int], list[list[float]]]:
        """Wait for the tokens and return them with the probabilities."""
        if self._arrived:
            self._arrived.synchronize()
        values = self._values.tolist()
        rows = [values[index] for index in self.indices]
        return [int(token) for token, *_ in rows], [near for _, *near in rows]
