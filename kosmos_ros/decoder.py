"""KOSMOS-2's text model token by token: rows that join, step together and leave.

Runs on the modules that Hugging Face loaded and shares their weights. One cache holds the keys
and values of all rows; a row's position is its place in the cache, so that rows of different
length need no padding and one that joins disturbs no other. On a GPU a step has one of a few
shapes, each captured once as a CUDA graph. Knows token ids, no text and no pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.blocks import Block, attend, linear, norm
from kosmos_ros.grammar import Grammar

ROUND = 64  # places by which the cache grows, and the reach of a step's attention on a GPU


class Decoder:
    """Greedy decoding of many rows at once. One thread at a time, in inference mode.

    `model` is a Kosmos2TextForCausalLM. The picture's part of a prompt, which all prompts about it
    begin with, goes through the model once (`prefixes`); its keys and values serve them all.
    `grammar` keeps what is written well formed; the probabilities are the model's own.
    `static` gives steps the few shapes that can be captured; by default on a GPU, where weights
    are not quantised: bitsandbytes' int8 product asks the device a question in each call.
    """

    def __init__(self, model: Any, grammar: Grammar | None = None, static: bool | None = None):
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
        self._static = self._device.type == "cuda" and plain if static is None else static
        self._graphs: dict[tuple[int, int], Any] = {}  # of the buffers that `_grow` made
        captured = self._static and self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if captured else None
        self._lengths: list[int] = []  # places taken, of each row
        # Of each row: its next token, that one's position, 1 if it moves on, the grammar's state.
        self._values = torch.zeros(4, 0, dtype=torch.long, device=self._device)
        self._cache = torch.zeros(len(self._blocks), 0, 0, device=self._device)
        self._views: list[tuple[Tensor, Tensor, Tensor]] = []
        self._grow(1, ROUND)

    @property
    def rows(self) -> int:
        """How many there are: 0 to `rows` - 1."""
        return len(self._lengths)

    def prefixes(self, ids: Sequence[int], images: Tensor, start: int) -> list[Tensor]:
        """Keys and values (layers, P, 2, heads, D) of `ids` (P tokens) with each of `images`.

        `images` (N, Q, H) take the place of the Q ids from `start` on.
        """
        tokens = self._embeddings(torch.tensor(ids, device=self._device))
        hidden = tokens.expand(len(images), -1, -1).clone()
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
        if not first and not self._static and 4 * needed < self._cache.shape[2]:
            self.clear()  # after one that was much longer
        self._grow(first + count, needed)
        rows = slice(first, first + count)
        cache = self._cache[:, rows]
        for row, prefix in zip(cache.unbind(1), prefixes, strict=True):
            row[:, :shared] = prefix
        # The last token of a prompt is written by the next step, as every other.
        if longest := max(lengths) - shared:
            self._prefill(cache, shared, [[*row[:-1]] for row in ids], longest)
        self._lengths += lengths
        states = [self._grammar.after(row) if self._grammar else 0 for row in ids]
        values = [[row[-1] for row in ids], lengths, [1] * count, states]
        self._values[:, rows] = torch.tensor(values)

    def _prefill(self, cache: Tensor, shared: int, ids: list[list[int]], longest: int) -> None:
        """Keys and values of `ids` behind the `shared` positions that are filled."""
        # What lies behind a row's end is overwritten before it is looked at.
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        end = shared + longest
        hidden = self._embeddings(padded.to(self._device)) * self._scale
        hidden = hidden + self._encodings[shared:end]
        mask = torch.ones(longest, end, dtype=torch.bool, device=self._device).tril(shared)
        for number, block in enumerate(self._blocks):
            q, kv = block.project(hidden)
            cache[number, :, shared:end] = kv
            if number + 1 < len(self._blocks):
                k, v = cache[number, :, :end].transpose(1, 3).unbind(2)
                hidden = block.finish(hidden, attend(q.transpose(1, 2), k, v, mask))

    def step(self) -> tuple[list[int], list[float]]:
        """The next token of each row and its probability, which may not be finite."""
        count, reach = self.rows, max(self._lengths) + 1
        if not self._static:
            self._forward(count, reach, ragged=len(set(self._lengths)) > 1)
        else:
            size = 1 << (count - 1).bit_length()
            reach = -(-reach // ROUND) * ROUND
            self._run(size, reach)
        self._lengths = [length + 1 for length in self._lengths]
        tokens, probabilities = self._written[:, :count].tolist()
        return [int(token) for token in tokens], probabilities

    def leave(self, row: int) -> None:
        """Remove a row; the last one takes its number."""
        last = self.rows - 1
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

    def warm_up(self, rows: int, positions: int) -> None:
        """Make room for so many rows of so many positions, and every step that they may need."""
        self._grow(rows, positions)
        if self._static:
            sizes = [1 << power for power in range((rows - 1).bit_length() + 1)]
            reaches = range(ROUND, self._cache.shape[2] + 1, ROUND)
            for size, reach in itertools.product(reversed(sizes), reaches):
                self._run(size, reach)

    def clear(self) -> None:
        """Remove all rows and give back the cache's memory."""
        self._lengths.clear()
        self._cache = self._cache[:, :0, :0].clone()
        self._views, self._values = [], self._values[:, :0].clone()  # which hold the old one
        self._graphs.clear()
        self._grow(1, ROUND)

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
        self._graphs.clear()

    def _forward(self, count: int, reach: int, ragged: bool) -> None:
        """One step of the first `count` rows, whose attention reaches over `reach` places."""
        ids, positions = self._ids[:count], self._positions[:count]
        hidden = self._embeddings(ids) * self._scale + self._encodings.index_select(0, positions)
        mask = None
        if ragged:
            mask = torch.arange(reach, device=self._device) <= positions[:, None, None, None]
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

    def _run(self, count: int, reach: int) -> None:
        """`_forward` in a fixed shape; on a GPU as a CUDA graph."""
        if self._stream is None:
            self._forward(count, reach, ragged=True)
            return
        graph = self._graphs.get((count, reach))
        if graph is None:
            # Libraries make their work space in a first run, outside of the graph.
            before = self._values.clone()
            current = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                self._forward(count, reach, ragged=True)
                self._values.copy_(before)
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            pool = next((other.pool() for other in self._graphs.values()), None)
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool=pool, stream=self._stream),
            ):
                self._forward(count, reach, ragged=True)
            self._graphs[count, reach] = graph
        graph.replay()
