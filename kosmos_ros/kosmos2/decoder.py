# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""KOSMOS-2's text model token by token: rows that join, step together and leave.

Runs on the modules that Hugging Face loaded and shares their weights. One cache holds the keys
and values of all rows; a row's position is its place in the cache, so that rows of different
length need no padding and one that joins disturbs no other. On a GPU steps and prompts have one of
a few shapes, each captured once as a CUDA graph, and a step begins before the host has read the
one before it. Knows token ids, no text and no pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2.blocks import Block, attend, linear, norm
from kosmos_ros.kosmos2.cuda_graphs import Cuda, Graphs
from kosmos_ros.kosmos2.grammar import Grammar

ROUND = 64  # places by which the cache grows, and the reach of a step's attention on a GPU
LENGTHS = (16, 64)  # tokens to which prompts are padded on a GPU; longer ones are not


class Decoder:
    """Greedy decoding of many rows at once. One thread at a time, in inference mode.

    `model` is a Kosmos2TextForCausalLM. The picture's part of a prompt, which all prompts about it
    begin with, goes through the model once (`prefixes`); its keys and values serve them all.
    `grammar` keeps what is written well formed; the probabilities are the model's own.
    `graphs` run what can be captured, and with them a step begins before the last one's tokens are
    read; by default on a GPU where weights are not quantised: bitsandbytes' int8 product asks the
    device a question in each call.
    """

    def __init__(
        self, model: Any, grammar: Grammar | None = None, graphs: Graphs | None = None
    ) -> None:
        inner = model.model
        self._embeddings = inner.embed_tokens
        self._scale = float(inner.embed_scale)
        self._blocks = [Block.text(layer) for layer in inner.layers]
        self._norm = norm(inner.layer_norm)
        self._head = linear(model.lm_head)
        self._device = inner.embed_tokens.weight.device
        self._dtype = inner.embed_tokens.weight.dtype
        # Hugging Face's positions begin behind the padding's.
        positions = inner.embed_positions
        self._encodings = positions.weights[positions.padding_idx + 1 :].to(
            self._device, self._dtype
        )
        self._grammar = grammar
        plain = all(block.plain for block in self._blocks)
        captured = self._device.type == "cuda" and plain
        self.graphs = graphs or Graphs(Cuda(self._device) if captured else None)
        self._ahead: _Written | None = None  # by a step whose tokens were not asked for yet
        self._lengths: list[int] = []  # places taken, of each row
        # Of each row: its next token, that one's position, 1 if it moves on, the grammar's state.
        self._values = torch.zeros(4, 0, dtype=torch.long, device=self._device)
        self._cache = torch.zeros(len(self._blocks), 0, 0, device=self._device)
        self._views: list[tuple[Tensor, Tensor, Tensor]] = []
        self._least = (1, ROUND)  # rows and places that there is always room for
        self._grow(*self._least)

    @property
    def rows(self) -> int:
        """How many there are: 0 to `rows` - 1."""
        return len(self._lengths)

    def prefixes(self, ids: Tensor, images: Tensor, start: int) -> list[Tensor]:
        """Keys and values (layers, P, 2, heads, D) of `ids` (P) with each of `images`.

        `images` (N, Q, H) take the place of the Q ids from `start` on.
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
        # Not parts of one block of memory, which the last of them would hold for all.
        return [torch.stack(layers) for layers in zip(*kept, strict=True)]

    def join(
        self, prefixes: Sequence[Tensor], ids: Sequence[Sequence[int]], new: Sequence[int]
    ) -> None:
        """Add rows: prefix, the tokens behind it (at least one) and how many will be written."""
        first, count = self.rows, len(ids)
        shared = prefixes[0].shape[1]
        lengths = [shared + len(row) - 1 for row in ids]
        needed = max(map(sum, zip(lengths, new, strict=True)))
        longest = max(lengths) - shared
        if self.graphs.fixed:
            longest = next((fit for fit in self._fitting(shared) if fit >= longest > 0), longest)
            # A row has ended one step before that is known.
            needed = max(needed + 1, shared + longest)
        if not first and 4 * needed < self._cache.shape[2]:
            self.shrink()  # after one that was much longer
        self._grow(first + count, needed)
        rows = slice(first, first + count)
        cache = self._cache[:, rows]
        for row, prefix in zip(cache.unbind(1), prefixes, strict=True):
            row[:, :shared] = prefix
        # The last token of a prompt is written by the next step, as every other.
        if longest:
            # What lies behind a row's end is overwritten before it is looked at.
            tokens = self._sent([[*row[:-1], *[0] * (longest + 1 - len(row))] for row in ids])
            if self.graphs.fixed and longest in LENGTHS:
                numbers = torch.arange(first, first + count, device=self._device)
                for part in self.graphs.parts(count):
                    self.graphs(self._prefill_rows, shared, tokens[part], numbers[part])
            else:
                self._prefill(cache, shared, tokens)
        self._lengths += lengths
        states = [self._grammar.after(row) if self._grammar else 0 for row in ids]
        values = [[row[-1] for row in ids], lengths, [1] * count, states]
        self._values[:, rows] = self._sent(values)

    def _fitting(self, shared: int) -> list[int]:
        """Those of LENGTHS that fit in the model's context behind `shared` positions."""
        return [length for length in LENGTHS if shared + length <= len(self._encodings)]

    def _sent(self, numbers: list[list[int]]) -> Tensor:
        """To the device, without waiting for what that was given before."""
        pinned = self._device.type == "cuda"  # else the driver may wait for the stream first
        return torch.tensor(numbers, pin_memory=pinned).to(self._device, non_blocking=True)

    def _prefill_rows(self, shared: int, ids: Tensor, rows: Tensor) -> None:
        """`_prefill` of any `rows` (B)."""
        end = shared + ids.shape[1]
        cache = self._cache[:, :, :end].index_select(1, rows)
        self._prefill(cache, shared, ids)
        self._cache[:, :, shared:end].index_copy_(1, rows, cache[:, :, shared:])

    def _prefill(self, cache: Tensor, shared: int, ids: Tensor) -> None:
        """Keys and values of `ids` (B, L) behind the `shared` positions that are filled."""
        longest = ids.shape[1]
        end = shared + longest
        hidden = self._embeddings(ids) * self._scale + self._encodings[shared:end]
        # Numbers, since torch makes them of truth values in each layer anew.
        mask = torch.full((longest, end), -torch.inf, dtype=self._dtype, device=self._device)
        mask = mask.triu(shared + 1)
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            cache[number, :, shared:end] = kv
            if number + 1 < len(self._blocks):
                k, v = cache[number, :, :end].transpose(1, 3).unbind(2)
                hidden = block.finish(hidden, attend(q.transpose(1, 2), k, v, mask))

    def step(self) -> tuple[list[int], list[float]]:
        """The next token of each row and its probability, which may not be finite.

        With graphs, rows that joined since the last call may have none yet: all others are first.
        """
        ahead, self._ahead = self._ahead, None
        written = ahead if ahead and ahead.columns else self._launch()
        if self.graphs.fixed:
            # The device works while the host reads; of rows that end, for nothing.
            self._ahead = self._launch()
        return written.read()

    def _launch(self) -> _Written:
        """Begin a step of all rows."""
        count, reach = self.rows, max(self._lengths) + 1
        if self.graphs.fixed:
            size = 1 << (count - 1).bit_length()
            self.graphs(self._forward, size, -(-reach // ROUND) * ROUND, True)
        else:
            self._forward(count, reach, ragged=len(set(self._lengths)) > 1)
        self._lengths = [length + 1 for length in self._lengths]
        return _Written(self._written, count, copy=self.graphs.fixed)

    def leave(self, row: int) -> None:
        """Remove a row that has had a step; the last one takes its number."""
        last = self.rows - 1
        if self._ahead:
            self._ahead.leave(row)
        if row != last:
            length = self._lengths[last]
            self._values[:, row] = self._values[:, last]
            self._cache[:, row, :length] = self._cache[:, last, :length]
            self._cache[:, row, length:] = 0
            self._lengths[row] = length
        # What is not finite would reach the next one through any mask.
        self._cache[:, last] = 0
        self._values[:, last] = 0
        self._lengths.pop()

    def warm_up(self, rows: int, positions: int, shared: int) -> None:
        """Make room for so many rows of so many positions, and all that they may need captured.

        `shared` of the positions are a prefix's.
        """
        if not self.graphs.fixed:
            self._grow(rows, positions)
            return
        lengths = self._fitting(shared)
        self._grow(rows, max([positions, *(shared + length for length in lengths)]))
        # What is larger goes first: the others find room in its memory.
        sizes = [1 << power for power in range((rows - 1).bit_length() + 1)]
        first = -(-(shared + 1) // ROUND) * ROUND
        reaches = range(first, self._cache.shape[2] + 1, ROUND)
        for size, reach in itertools.product(reversed(sizes), reversed(reaches)):
            self.graphs(self._forward, size, reach, True)
        for length, size in itertools.product(reversed(lengths), self.graphs.sizes(rows)):
            ids = torch.zeros(size, length, dtype=torch.long, device=self._device)
            self.graphs(self._prefill_rows, shared, ids, torch.arange(size, device=self._device))
        self._least = self._cache.shape[1], self._cache.shape[2]

    def clear(self) -> None:
        """Remove all rows and graphs, and give back the cache's memory."""
        self._lengths.clear()
        self.graphs.clear()
        self._least = (1, ROUND)
        self.shrink()

    def shrink(self) -> None:
        """Give back what the cache has beyond what was warmed up; while there are no rows."""
        self._ahead = None
        if tuple(self._cache.shape[1:3]) != self._least:
            self._cache = self._cache[:, :0, :0].clone()
            self._views, self._values = [], self._values[:, :0].clone()  # which hold the old one
            self._grow(*self._least)

    def _grow(self, rows: int, places: int) -> None:
        """Make room for so many rows of so many places, and keep what is there."""
        had_rows, had_places = self._cache.shape[1:3]
        if rows <= had_rows and places <= had_places:
            return
        size = max(had_rows, 1 << (rows - 1).bit_length())
        layer = self._blocks[0]
        shape = (max(had_places, -(-places // ROUND) * ROUND), 2, layer.heads, layer.depth)
        old = self._cache
        self._cache = torch.zeros(
            len(self._blocks), size, *shape, dtype=self._dtype, device=self._device
        )
        if had_rows:
            self._cache[:, :had_rows, :had_places] = old
        # Of each layer: all places, and keys and values by row. Making a view takes time, too.
        self._views = [
            (layer.flatten(0, 1), *layer.transpose(1, 3).unbind(2)) for layer in self._cache
        ]
        self._values = functional.pad(self._values, (0, size - had_rows))
        self._ids, self._positions, self._moves, self._states = self._values
        self._starts = torch.arange(size, device=self._device) * shape[0]
        self._written = torch.zeros(2, size, device=self._device)
        self.graphs.clear(self._forward, self._prefill_rows)

    def _forward(self, count: int, reach: int, ragged: bool) -> None:
        """One step of the first `count` rows, whose attention reaches over `reach` places."""
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
        states = self._states[:count]
        if self._grammar is None:
            tokens = logits.argmax(-1)
        else:
            tokens = (logits + self._grammar.bias(states)).argmax(-1)
            states.copy_(self._grammar.next(states, tokens))
        written = self._written[:, :count]
        written[0].copy_(tokens)
        written[1].copy_(logits.softmax(-1).gather(1, tokens.unsqueeze(1)).squeeze(1))
        ids.copy_(tokens)
        positions.add_(self._moves[:count])


class _Written:
    """What a step wrote for each of its rows, on its way to the host."""

    def __init__(self, written: Tensor, rows: int, copy: bool) -> None:
        self.columns = list(range(rows))  # of each row that is still there
        # To memory that the device reaches by itself, if there is one (torch's _to_copy).
        self._values = written.to("cpu", non_blocking=True, copy=copy)
        # Blocking: the host's core is free meanwhile, and the next step is under way.
        self._arrived = torch.cuda.Event(blocking=True) if written.is_cuda else None
        if self._arrived:
            self._arrived.record(torch.cuda.current_stream(written.device))

    def leave(self, row: int) -> None:
        """As the decoder's."""
        self.columns[row] = self.columns[-1]
        self.columns.pop()

    def read(self) -> tuple[list[int], list[float]]:
        """Wait for the tokens, and their probabilities."""
        if self._arrived:
            self._arrived.synchronize()
        tokens, probabilities = self._values.tolist()
        return (
            [int(tokens[column]) for column in self.columns],
            [probabilities[column] for column in self.columns],
        )
