# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode many rows at once: rows join with a prompt, write tokens together and leave.

A pass reads all weights once. It gives a row one token. If the row has a draft of its next
tokens, the pass also gives those tokens of the draft that are right. On a GPU, passes have few
shapes, and each shape is recorded once as a CUDA graph. Without drafts, a pass begins before the
host has read the tokens of the previous one.
Knows the numbers of rows and positions, and no arithmetic of the model.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kosmos_ros.kosmos2.cuda_graphs import Cuda, Graphs, any_shape, upload
from kosmos_ros.kosmos2.passes import FIRST_WINDOW, WINDOW, Passes
from kosmos_ros.kosmos2.rows import CACHE_STEP, rounded_positions, rounded_rows
from kosmos_ros.kosmos2.rule import Rule
from kosmos_ros.kosmos2.written import Token, Written

LEAST_ROOM = (1, CACHE_STEP)
"""Rows and positions for which a decoder has memory before it is warmed up."""
PADDED_LENGTHS = (16, 64)
"""Numbers of tokens to which prompts are padded on a GPU. Longer prompts are not padded."""


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
    limit: int  # maximum number of tokens to write
    draft: Sequence[int] = ()  # of the first tokens; shorter than `limit` and `first_window`


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
        self._prefix = list(prefix)
        self._passes = Passes(model, prefix, image, rules, neighbours)
        self._rows = self._passes.rows
        self._device = self._passes.device
        recorded = self._passes.plain or self._passes.kernels is not None
        recorder = Cuda(self._device) if recorded and self._device.type == "cuda" else None
        self.graphs = graphs or Graphs(recorder)
        self._pending: list[Written] = []  # passes that have begun and are not read yet
        self._least = LEAST_ROOM  # rows and positions for which there is always memory
        self._grow(*self._least)

    def join(self, rows: Sequence[NewRow]) -> None:
        """Add rows and begin their first pass, whose tokens the next `step` returns."""
        first, shared = len(self._rows.newest), len(self._prefix)
        longest = max(self._padded(len(row.ids) + len(row.draft)) for row in rows)
        needed = shared + max([longest, *(len(row.ids) + row.limit for row in rows)])
        if not first and 4 * needed < self._rows.room[1]:
            self.shrink()  # an earlier row was much longer
        self._grow(first + len(rows), needed + WINDOW)
        self._rows.add([shared + len(row.ids) for row in rows])
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
            prefixes = self.run(self._passes.prefixes, tokens)
            for image, prefix in zip(fresh[part], prefixes, strict=True):
                image.prefix = prefix

    def _begin(self, start: int, rows: Sequence[tuple[int, NewRow]]) -> Written:
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
                self._rows.cache[:, number, :start] = row.image.prefix
        images = None
        if not start:
            images = torch.stack([row.image.tokens for _, row in rows])
        fixed = self.graphs.fixed
        width = WINDOW if fixed else 1 + max(len(row.draft) for _, row in rows)
        arguments = (start, width, upload(torch.tensor(values), self._device), images)
        first = self._passes.first
        if fixed and padded in PADDED_LENGTHS:
            (output,) = self.run(first, *arguments)
        else:
            with any_shape(self._device):
                (output,) = first(*arguments)
        drafted = any(row.draft for _, row in rows)
        return Written(output, [number for number, _ in rows], drafted, copy=fixed)

    def _padded(self, length: int) -> int:
        """Return the tokens after the prefix of a first pass that needs `length` of them."""
        return next((fit for fit in self._lengths() if fit >= length), length)

    def _lengths(self) -> list[int]:
        """Return the PADDED_LENGTHS in use, those that fit in the model's context."""
        room = self._passes.context - len(self._prefix)
        return [fit for fit in PADDED_LENGTHS if fit <= room] if self.graphs.fixed else []

    def step(
        self, drafts: Sequence[Sequence[int]] | None = None, last: bool = False
    ) -> list[list[Token]]:
        """Return the next tokens of each row: those of its draft that are right, and one more.

        `drafts` has for each row the tokens that may come next, fewer than `window`. None: no row
        has any, in this step and the next one. `last`: no row needs a token after this step's.
        A step after `join` uses no drafts, and in it the rows that did not join may get no token.
        Probabilities may not be finite.
        """
        pending = [written for written in self._pending if written.rows]
        pending = pending or [self._launch(drafts or [])]
        self._pending = []
        ahead = self.graphs.fixed and drafts is None and not last
        if ahead and not any(one.drafted for one in pending):
            # The device works while the host reads. For a row that ends, this pass is wasted.
            # After drafts the host must first read how far the rows have come.
            self._pending = [self._launch([])]
        tokens: list[list[Token]] = [[] for _ in self._rows.newest]
        for written in pending:
            for row, new in written.read():
                tokens[row] += new
                self._rows.newest[row] += len(new) - 1  # the first one is counted already
        return tokens

    def window(self, rows: int) -> int:
        """Return the largest number of tokens that a pass of `rows` rows gives each row."""
        return self._passes.window(rows)

    def first_window(self, rows: int) -> int:
        """Return the same number for the first pass of `rows` rows that join together."""
        return WINDOW if self.graphs.fixed else max(WINDOW, FIRST_WINDOW // rows)

    def _launch(self, drafts: Sequence[Sequence[int]]) -> Written:
        """Begin a pass of all rows."""
        newest = self._rows.newest
        count, width = len(newest), 1 + max(map(len, drafts), default=0)
        size, reach, ragged = count, max(newest) + width, len(set(newest)) > 1
        if self.graphs.fixed:
            width = self.window(count) if width > 1 else 1
            size, reach, ragged = rounded_rows(count), rounded_positions(max(newest) + width), True
        values = None
        if width > 1:
            padded = [[*draft, *[0] * (width - 1 - len(draft)), len(draft)] for draft in drafts]
            padded += [[0] * width] * (size - count)
            values = upload(torch.tensor(padded), self._device)
        (output,) = self._run_next(size, reach, ragged, values)
        self._rows.newest = [position + 1 for position in newest]
        return Written(output, range(count), any(drafts), copy=self.graphs.fixed)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`, from its graph unless the weights are quantized."""
        return self.graphs(function, *arguments) if self._passes.plain else function(*arguments)

    def _run_next(self, count: int, reach: int, ragged: bool, drafts: Tensor | None) -> Any:
        """Return `Passes.next(...)`, from its graph if it can be recorded."""
        width = 1 if drafts is None else drafts.shape[1]
        kernels = self._passes.kernels
        if kernels is not None and kernels.runs(count * width):
            # The kernels read a row's own positions, so one graph serves every reach.
            return self.graphs(self._passes.next, count, self._rows.room[1], True, drafts)
        return self.run(self._passes.next, count, reach, ragged, drafts)

    def leave(self, row: int) -> None:
        """Remove a row that has had a step; the last row takes its number."""
        last = len(self._rows.newest) - 1
        for written in self._pending:
            written.leave(row, last)
        self._rows.leave(row)

    def warm_up(self, rows: int, positions: int) -> None:
        """Make room for `rows` rows of `positions` positions and record all graphs they need."""
        shared, lengths = len(self._prefix), self._lengths()
        self._grow(rows, max([positions, *(shared + length for length in lengths)]) + WINDOW)
        if not self.graphs.fixed:
            return
        # Record the largest first, so that the smaller ones reuse its memory.
        sizes = [1 << exponent for exponent in reversed(range(rounded_rows(rows).bit_length()))]
        reaches = range(self._rows.room[1], rounded_positions(shared + 1) - 1, -CACHE_STEP)
        for drafted, size, reach in itertools.product((True, False), sizes, reaches):
            width = self.window(size) if drafted else 1
            drafts = self._zeros(size, width) if width > 1 else None
            self._run_next(size, reach, True, drafts)
        passes = self._passes
        runs = itertools.product(reversed(lengths), self.graphs.sizes(rows))
        for length, size in runs:
            images = passes.blank(size)
            self.run(passes.first, 0, WINDOW, self._zeros(size, shared + length + 3), images)
            self.run(passes.first, shared, WINDOW, self._zeros(size, length + 3), None)
            self.run(passes.prefixes, images)
        self._least = self._rows.room

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.long, device=self._device)

    def clear(self) -> None:
        """Remove all rows and graphs, and free the cache's memory."""
        self._rows.newest.clear()
        self.graphs.clear()
        self._least = LEAST_ROOM
        self.shrink()

    def shrink(self) -> None:
        """Free the memory beyond the warmed-up size. There must be no rows."""
        self._pending = []
        if self._rows.room != self._least:
            self._rows.free()
            self._grow(*self._least)

    def _grow(self, rows: int, positions: int) -> None:
        """Make room for `rows` rows of `positions` positions, and keep the contents."""
        if self._rows.grow(rows, positions):
            self.graphs.clear(self._passes.first, self._passes.next)
