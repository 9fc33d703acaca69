# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""One step of the decoder as a chain of Triton kernels: 5 for each block, 4 around them.

Few kernels, which start before their predecessors have ended, bring the time of a step of one row
close to that of reading the weights. Shares the weights with the modules that Hugging Face
loaded. Knows tensors only.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from triton import cdiv, next_power_of_2
from triton.errors import TritonError

from kosmos_ros.kosmos2.blocks import Block
from kosmos_ros.kosmos2.kernels import attention, linear, sampling
from kosmos_ros.kosmos2.kernels.chain import EARLY, LATE, OFF
from kosmos_ros.kosmos2.kernels.tiles import Tiles
from kosmos_ros.kosmos2.kernels.weights import NormedProduct, layout, matrix
from kosmos_ros.kosmos2.products import Map
from kosmos_ros.sanitize import first_line

MAX_ROWS: int = linear.ROWS.value
FAILURES = (
    TritonError,
    RuntimeError,
    OSError,
    ImportError,
    AssertionError,
    subprocess.SubprocessError,
)
"""Exceptions that Triton raises if it cannot compile or launch a kernel. A C compiler, its headers
or a library of the driver may be missing."""


@dataclass(frozen=True)
class Text:
    """The parts of a text model. The tensors have the same 16-bit type."""

    blocks: Sequence[Block]
    norm: nn.LayerNorm  # after the last block
    head: Tensor  # (vocabulary, H)
    embeddings: Tensor  # (vocabulary, H)
    encodings: Tensor  # (context, H) of positions
    scale: float  # of embeddings


@dataclass(frozen=True)
class Rules:
    """The limits on a row's next token, as functions of the row's tokens."""

    # Kinds of tokens (vocabulary), 0 or -inf (states, kinds), and following (states, kinds), as
    # in grammar.Grammar.
    grammar: tuple[Tensor, Tensor, Tensor] | None = None
    repetition: int = 0  # length of sequences that a row must not repeat; 0: no ban
    # Tokens (vocabulary, K) whose probabilities are written; None: the token itself.
    neighbours: Tensor | None = None


@dataclass(frozen=True)
class State:
    """The rows of a decoder. A step changes all tensors but `moves`; they must be contiguous."""

    cache: Tensor  # (layers, rows, length, 2, heads, D): keys and values
    tokens: Tensor  # (rows, length) int64
    positions: Tensor  # (rows,) int64: of each row's newest token, not in the cache yet
    moves: Tensor  # (rows,) int64: 1 for a row that exists, 0 for another
    # (rows, 1 + K) or (rows, window, 1 + K) float32: the chosen tokens, and probabilities.
    written: Tensor


HEAD_DEPTHS = (16, 32, 64, 128)
"""Sizes of an attention head that the kernels accept."""
WIDTH = 64
"""The hidden sizes must be multiples of this, because tiles have up to 64 outputs."""
PARTS = 16
"""Maximum number of parts in which a product reads the inputs of one row; each part makes the code
longer."""


def supports(text: Text) -> bool:
    """Return whether the kernels compute this model: plain weights, GELU, fitting sizes."""
    return text.norm.elementwise_affine and all(
        block.gelu and block.depth in HEAD_DEPTHS and all(map(_fits, block.products()))
        for block in text.blocks
    )


def in_nf4(text: Text) -> bool:
    """Return whether the weights of a supported model are in NF4."""
    _, product = text.blocks[0].products()[0]
    form = layout(product)
    return form is not None and form.format == linear.NF4.value


def _fits(pair: tuple[nn.LayerNorm | None, Map]) -> bool:
    layer_norm, product = pair
    form = layout(product)
    if layer_norm is None or not layer_norm.elementwise_affine or form is None:
        return False
    return (
        form.outputs % WIDTH == form.inputs % WIDTH == 0
        and form.inputs // (form.inputs & -form.inputs) <= PARTS
        and form.dtype == layer_norm.weight.dtype
    )


def _normed(pair: tuple[nn.LayerNorm | None, Map]) -> NormedProduct:
    """Return a product that `_fits`."""
    layer_norm, product = pair
    assert layer_norm is not None
    return NormedProduct(layer_norm, matrix(product))


def warn(error: BaseException) -> None:
    """Log that torch's kernels run instead of these."""
    logging.getLogger(__name__).warning(
        "a Triton kernel failed; continuing with torch's kernels, which are slower: %s",
        first_line(error),
    )


class _Flow(NamedTuple):
    """The tensors that one of a block's products reads and writes."""

    after: int  # what comes after the product, as in linear.py
    x: Tensor  # input of one row
    weighted: Tensor  # input of few rows, multiplied by the norm's weight
    residual: Tensor | None
    out: Tensor | None  # output of one row
    out_few: Tensor | None
    out_weighted: Tensor | None  # input of the next norm, of few rows


class _Run(NamedTuple):
    """One step, on its way to the GPU."""

    state: State
    rows: int
    window: int  # tokens of each row
    chain: Any  # how its kernels overlap
    options: dict[str, Any]  # of each kernel but the first

    @property
    def tokens(self) -> int:
        return self.rows * self.window

    @property
    def length(self) -> int:
        return self.state.tokens.shape[1]


class Step:
    """Run one step of rows 0 to count - 1: `step(state, count)`.

    A CUDA graph can record it: it waits for nothing, allocates nothing, and launches the same
    kernels whatever the rows contain. `chained`: the GPU has programmatic dependent launch.
    """

    def __init__(self, text: Text, rules: Rules, tiles: Tiles, chained: bool) -> None:
        self._text, self._rules, self._tiles, self._chained = text, rules, tiles, chained
        self._failed = False
        self._blocks = [[_normed(pair) for pair in block.products()] for block in text.blocks]
        vocabulary, width = text.head.shape
        inner = self._blocks[0][2].matrix.outputs
        self._heads = text.blocks[0].heads
        device = text.head.device

        def rows(size: int, dtype: torch.dtype = text.head.dtype) -> Tensor:
            return torch.zeros(MAX_ROWS, size, dtype=dtype, device=device)

        # A product must not write the residual that it reads: its threads may read it twice.
        hidden, between, weighted, attended, queries = (rows(width) for _ in range(5))
        activated = rows(inner)
        self._hidden, self._weighted = hidden, weighted
        self._flows = {
            "qkv": _Flow(linear.QKV, hidden, weighted, None, queries, queries, None),
            "out": _Flow(linear.ADD, attended, attended, hidden, between, between, weighted),
            "up": _Flow(linear.GELU, between, weighted, None, activated, None, activated),
            "down": _Flow(linear.ADD, activated, activated, between, hidden, hidden, weighted),
        }
        few, one = tiles.few_rows, tiles.one_row
        # Number of tiles of the moments that each product reads; 1 for the first block's qkv.
        self._read = {
            "qkv": width // few["down"].outputs,
            "out": self._heads,
            "up": width // few["out"].outputs,
            "down": inner // few["up"].outputs,
        }
        # Each product reads one of these, and the next norm's moments go to the other.
        size = 2 * max(self._read.values())
        self._moments = rows(size, torch.float32), rows(size, torch.float32)
        self._logits = rows(vocabulary, torch.float32)
        found = max(
            cdiv(vocabulary, one["head"].outputs),
            cdiv(vocabulary, few["head"].outputs) * MAX_ROWS,
        )
        self._found = torch.zeros(3 * found, device=device)
        self._best = torch.zeros(found, dtype=torch.int32, device=device)
        self._states = torch.zeros(MAX_ROWS, dtype=torch.int64, device=device)
        self._banned = rows(vocabulary, torch.int8) if rules.repetition else None

    def __call__(self, state: State, count: int, window: int = 1) -> bool:
        """Launch the step and return True, or return False before any row has moved.

        With a `window` above 1, the tokens after each row's newest one are its draft. A row writes
        the tokens of the draft that are right, and one more. `state.written` must then be (rows,
        window, 1 + K); it gets -1 for all later tokens. Each row must have room for
        `window` tokens from its position on, in the cache and in `tokens`.

        Returns False for more than MAX_ROWS tokens (count * window). If a kernel cannot be
        compiled or launched, this logs a warning and always returns False afterwards. Only the
        last kernel moves the rows, so the caller can run the same step in another way.
        """
        if not self.runs(count * window):
            return False
        try:
            with torch.cuda.device_of(state.cache):  # Triton launches on the current device
                self._run(state, count, window)
        except FAILURES as exc:
            self._failed = True
            warn(exc)
        return not self._failed

    def runs(self, tokens: int) -> bool:
        """Return whether a step of this number of tokens (rows * window) can run."""
        return not self._failed and tokens <= MAX_ROWS

    def window(self, rows: int) -> int:
        """Return the largest window of a step of `rows` rows; 1 if drafts have no room."""
        return max(1, MAX_ROWS // rows)

    def launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        """Launch one kernel."""
        kernel[grid](*arguments, enable_fp_fusion=True, **options)

    def _run(self, state: State, rows: int, window: int) -> None:
        chain: Any = OFF
        if self._chained:
            chain = LATE if rows * window > 1 else EARLY
        run = _Run(state, rows, window, chain, {"launch_pdl": True} if self._chained else {})
        self._embed(run)
        last = len(self._blocks) - 1
        for layer, (qkv, out, up, down) in enumerate(self._blocks):
            after = self._blocks[layer + 1][0] if layer < last else None
            self._product("qkv", qkv, None, layer, run)
            self._attend(out, layer, run)
            self._product("out", out, up, layer, run)
            self._product("up", up, down, layer, run)
            self._product("down", down, after, layer, run)
        self._choose(run)

    def _embed(self, run: _Run) -> None:
        """Launch the first kernel. It waits for all earlier work, because it is not chained."""
        text, width = self._text, self._hidden.shape[1]
        next_norm = self._blocks[0][0].norm_weight if run.tokens > 1 else None
        self.launch(
            sampling.embed, (run.tokens,),
            run.state.tokens, run.state.positions, text.embeddings, text.encodings,
            self._hidden, next_norm, self._weighted, self._moments[0],
            text.scale, run.length, len(text.encodings), run.window,
            width, next_power_of_2(width), run.chain,
        )  # fmt: skip

    def _attend(self, out: NormedProduct, layer: int, run: _Run) -> None:
        cache = run.state.cache[layer]
        next_norm = out.norm_weight if run.tokens > 1 else None
        queries, attended = self._flows["qkv"].out, self._flows["out"].x
        self.launch(
            attention.attend, (run.tokens, self._heads),
            queries, cache, run.state.positions, attended, next_norm, attended, self._moments[1],
            cache.stride(0), run.window, self._heads, cache.shape[-1], self._tiles.positions,
            next_power_of_2(run.window), run.chain, **run.options,
        )  # fmt: skip

    def _product(
        self,
        name: str,
        part: NormedProduct,
        following: NormedProduct | None,
        layer: int,
        run: _Run,
    ) -> None:
        """Launch a product. `following` is the next one, after a norm of this one's output."""
        if run.tokens == 1:
            self._one_row(name, part, layer, run)
        else:
            self._few_rows(name, part, following, layer, run)

    def _one_row(self, name: str, part: NormedProduct, layer: int, run: _Run) -> None:
        flow, cache, matrix = self._flows[name], run.state.cache[layer], part.matrix
        tile, n, k = self._tiles.one_row[name], matrix.outputs, matrix.inputs
        self.launch(
            linear.block_one_row, (cdiv(n, tile.outputs),),
            flow.x, matrix.values, matrix.scales, matrix.table,
            part.norm_weight, part.sums, part.scale, part.eps, part.offset,
            flow.residual, flow.out, cache, run.state.positions, cache.stride(0),
            n, k, tile.outputs, tile.part(k), matrix.format, flow.after, run.chain,
            num_warps=tile.warps, **run.options,
        )  # fmt: skip

    def _few_rows(
        self,
        name: str,
        part: NormedProduct,
        following: NormedProduct | None,
        layer: int,
        run: _Run,
    ) -> None:
        flow, cache, matrix = self._flows[name], run.state.cache[layer], part.matrix
        tile, n, k = self._tiles.few_rows[name], matrix.outputs, matrix.inputs
        split, depth = tile.parts(k)
        tiles = 1 if name == "qkv" and layer == 0 else self._read[name]
        read, write = self._moments if name in ("qkv", "up") else self._moments[::-1]
        self.launch(
            linear.block_few_rows, (cdiv(n, tile.outputs),),
            flow.weighted, matrix.values, matrix.scales, matrix.table,
            read, part.sums, part.scale, part.eps, part.offset, flow.residual, flow.out_few,
            cache, run.state.positions, cache.stride(0),
            following.norm_weight if following else None, flow.out_weighted, write,
            run.tokens, run.window, n, k, tile.outputs, depth, split, tile.stages,
            tiles, next_power_of_2(tiles), matrix.format, flow.after, run.chain,
            num_warps=tile.warps, **run.options,
        )  # fmt: skip

    def _choose(self, run: _Run) -> None:
        """Launch the last norm, the head and the choice of tokens."""
        text, rules, state, x = self._text, self._rules, run.state, self._weighted
        kinds, bias, following = rules.grammar or (None, None, None)
        number_of_kinds = 1 if bias is None else bias.shape[1]
        n, k = text.head.shape
        self.launch(
            sampling.before_head, (run.tokens,),
            self._hidden, text.norm.weight, text.norm.bias, x, text.norm.eps,
            state.tokens, state.positions, kinds, following, self._states, self._banned,
            run.length, run.window, k, next_power_of_2(k), n, number_of_kinds, rules.repetition,
            run.chain, num_warps=8, **run.options,
        )  # fmt: skip
        found = self._logits, self._found, self._best
        tensors = x, text.head, *found, kinds, bias, self._states, self._banned
        if run.tokens == 1:
            one = self._tiles.one_row["head"]
            tiles = cdiv(n, one.outputs)
            self.launch(
                linear.head_one_row, (tiles,), *tensors,
                n, k, one.outputs, one.part(k), number_of_kinds, run.chain,
                num_warps=one.warps, **run.options,
            )  # fmt: skip
        else:
            few = self._tiles.few_rows["head"]
            tiles = cdiv(n, few.outputs)
            split, part = few.parts(k)
            self.launch(
                linear.head_few_rows, (tiles,), *tensors, run.tokens,
                n, k, few.outputs, part, split, few.stages, number_of_kinds, run.chain,
                num_warps=few.warps, **run.options,
            )  # fmt: skip
        kept = state.written.shape[-1] - 1
        self.launch(
            sampling.choose, (run.rows,),
            *found, rules.neighbours, self._banned,
            state.tokens, state.positions, state.moves, state.written, run.length, run.window,
            n, tiles, next_power_of_2(tiles), kept, next_power_of_2(kept), rules.repetition,
            run.chain, num_warps=16, **run.options,
        )  # fmt: skip
