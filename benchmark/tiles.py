# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Search the sizes of the kernels' tiles that are fastest on this GPU, for kernels/tiles.py.

One product after the other gets the size that makes a whole step fastest, with random weights of
KOSMOS-2's size. Prints the sizes, and the time of a step before and after.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmark import subjects
from kosmos_ros.kosmos2 import kernels
from kosmos_ros.kosmos2.cuda_graphs import Cuda
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.kernels.tiles import FewRows, OneRow, Tiles

Size = TypeVar("Size", OneRow, FewRows)
FORMATS = ("none", "int8", "nf4")
ROWS = (1, 2, 4, 8, 16)
FEW = 8  # rows of a step for which the sizes of few rows are searched
LENGTH, POSITION = 256, 100  # of the rows
REPLAYS = 20
BETTER = 0.998  # a smaller difference between two times is noise
PER_THREAD = (8, 128)  # fewest and most weights that a thread reads at a time
SHARED = 24 * 1024  # fewest bytes of shared memory of a program with few rows


def main() -> None:
    """Search, and print what was found."""
    parser = argparse.ArgumentParser(prog="benchmark.tiles", description=__doc__)
    parser.add_argument("--quantization", choices=FORMATS, default="none")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--most", type=int, default=40, metavar="N", help="candidates for each product"
    )
    options = parser.parse_args()
    if options.most < 1:
        parser.error(f"--most must be 1 or more, got {options.most}")
    if not torch.cuda.is_available():
        sys.exit("benchmark.tiles: torch sees no GPU")
    step = _step(options.device, options.quantization)
    if step is None:
        sys.exit(f"benchmark.tiles: the kernels do not run on {options.device}; see the log")
    nf4 = options.quantization == "nf4"
    shared = kernels._shared_memory(step._text.head.device)
    timer = Timer(step)
    found = step._tiles
    print({rows: f"{timer(found, rows):.3f} ms" for rows in ROWS})
    found = dataclasses.replace(
        found,
        one_row=search(
            found.one_row,
            sample(one_row_candidates(), options.most),
            lambda sizes: timer(dataclasses.replace(found, one_row=sizes), 1),
        ),
    )
    found = dataclasses.replace(
        found,
        few_rows=search(
            found.few_rows,
            sample(few_rows_candidates(shared, nf4), options.most),
            lambda sizes: timer(dataclasses.replace(found, few_rows=sizes), FEW),
        ),
    )
    print({rows: f"{timer(found, rows):.3f} ms" for rows in ROWS})
    for sizes in (found.one_row, found.few_rows):
        for name, size in sizes.items():
            print(f'"{name}": {type(size).__name__}{dataclasses.astuple(size)},')


def search(
    sizes: dict[str, Size], candidates: Sequence[Size], time: Callable[[dict[str, Size]], float]
) -> dict[str, Size]:
    """Return `sizes`, for each product with the candidate for which `time` is shortest.

    `time` raises an exception for sizes that the GPU cannot run.
    """
    best = time(sizes)
    for name, candidate in tqdm([*itertools.product(sizes, candidates)], unit="size"):
        tried = sizes | {name: candidate}
        try:
            taken = time(tried)
        except Exception:  # of many kinds: too little shared memory, too few registers
            continue
        if taken < best * BETTER:
            best, sizes = taken, tried
    return sizes


def sample(candidates: Sequence[Size], most: int) -> Sequence[Size]:
    """Return at most `most` of the candidates, the same ones in each run."""
    return random.Random(0).sample(candidates, min(most, len(candidates)))


def one_row_candidates() -> list[OneRow]:
    """Return sizes of products of one row."""
    least, most = PER_THREAD
    grid = itertools.product((1, 2, 4, 8, 16), (1024, 2048, 4096, 8192), (2, 4, 8))
    return [
        OneRow(outputs, depth, warps)
        for outputs, depth, warps in grid
        if least <= outputs * depth / (32 * warps) <= most
    ]


def few_rows_candidates(shared: int, nf4: bool) -> list[FewRows]:
    """Return sizes of products of few rows, for a GPU with `shared` bytes for a program."""
    if nf4:  # these have one part in flight
        grid = itertools.product((16, 32, 64), (256, 512, 1024), (1,), (4, 8, 16), (1,))
        return [FewRows(*size) for size in grid]
    grid = itertools.product((16, 32, 64), (64, 128, 256), (1, 2, 4, 8), (4, 8), (3, 4, 5))
    return [
        FewRows(outputs, depth, split, warps, stages)
        for outputs, depth, split, warps, stages in grid
        if split <= warps and SHARED <= (outputs + 16) * depth * split * 2 * stages <= shared
    ]


class Timer:
    """Measure steps with other sizes of tiles than those of `step`."""

    def __init__(self, step: Any) -> None:
        self._step = step
        text = step._text
        device, block = text.head.device, text.blocks[0]
        shape = (len(text.blocks), max(ROWS), LENGTH, 2, block.heads, block.depth)
        self._cache = torch.randn(shape, device=device, dtype=text.head.dtype)
        self._tokens = torch.randint(3, 1000, shape[1:3], device=device)
        self._positions = torch.full((max(ROWS),), POSITION, device=device)
        self._moves = torch.zeros_like(self._positions)
        neighbours = step._rules.neighbours
        self._kept = 1 if neighbours is None else neighbours.shape[1]

    @torch.inference_mode()
    def __call__(self, tiles: Tiles, rows: int) -> float:
        """Return the milliseconds of a step of `rows` rows on the GPU, the mean of some replays.

        Raises whatever Triton raises for sizes that the GPU cannot run.
        """
        from kosmos_ros.kosmos2.kernels.step import State, Step

        old = self._step
        step = Step(old._text, old._rules, tiles, old._chained)
        device = self._cache.device
        written = torch.zeros(rows, 1 + self._kept, device=device)
        state = State(self._cache, self._tokens, self._positions, self._moves, written)
        recorder = Cuda(device)

        def run() -> None:
            step._run(state, rows, 1)

        recorder.run(run)
        torch.cuda.synchronize(device)
        graph, _ = recorder.record(run, fresh=True)
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        begun.record()
        for _ in range(REPLAYS):
            graph.replay()
        ended.record()
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / REPLAYS


def _step(device: str, quantization: str) -> Any:
    """Return the kernels' step of a model of KOSMOS-2's size, or None if they cannot run."""
    subject = subjects.full(device)
    engine = subject.engine
    if quantization != "none":
        with tempfile.TemporaryDirectory() as folder:
            subject.save(folder)
            engine = Engine.load(folder, device=device, quantization=quantization)
    return engine._decoder._passes.kernels


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
