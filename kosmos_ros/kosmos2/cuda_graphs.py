# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Functions of few shapes, each captured once as a CUDA graph and replayed from then on.

A graph launches hundreds of kernels at the price of one: always the same kernels, on the same
places in memory. Knows tensors only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kosmos_ros.sanitize import first_line

SIZES = (4, 2, 1)
"""Pictures or prompts in one run of fixed shape. More at once gain little and hold memory."""


class Graph(Protocol):
    """As torch.cuda.CUDAGraph."""

    def replay(self) -> None: ...


class Recorder(Protocol):
    """What makes graphs; see Cuda."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Its output, and whatever only a first run makes."""

    def record(self, function: Callable[[], Any], fresh: bool) -> tuple[Graph, Any]:
        """What replays it, and the output that replays write again; it does not run yet.

        Graphs share their temporary memory, but for a `fresh` one, which begins anew.
        """


@dataclass
class _Held:
    graph: Graph
    inputs: list[Tensor]
    outputs: list[Tensor]


class Graphs:
    """Those of one model. One thread at a time, in inference mode.

    Without a `recorder` functions just run; shapes are few if it is there, or `fixed`.
    """

    def __init__(self, recorder: Recorder | None = None, fixed: bool = False) -> None:
        self.fixed = fixed or recorder is not None
        self._recorder = recorder
        self._failed = False  # a capture, since the last `clear`
        self._held: dict[tuple[Hashable, ...], _Held] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`, which gives a list of tensors or nothing.

        It may depend on and change what stays in its place until it is cleared; of its arguments
        only tensors may differ between calls of one name, shapes and other arguments.
        """
        inputs = [value for value in arguments if isinstance(value, Tensor)]
        shape = (value.shape if isinstance(value, Tensor) else value for value in arguments)
        key = (function.__name__, *shape)
        held = self._held.get(key)
        if held is not None:
            for buffer, value in zip(held.inputs, inputs, strict=True):
                buffer.copy_(value, non_blocking=True)
            held.graph.replay()
            # The next graph may use the memory.
            return [output.clone() for output in held.outputs]
        if self._recorder is None or self._failed:
            return function(*arguments)
        return self._first(key, function, arguments)

    def _first(
        self, key: tuple[Hashable, ...], function: Callable[..., Any], arguments: Sequence[Any]
    ) -> Any:
        """Run it, and capture it for the next time."""
        assert self._recorder is not None
        places = [value.clone() if isinstance(value, Tensor) else value for value in arguments]

        def call() -> Any:
            return function(*places)

        output = self._recorder.run(call)
        try:
            graph, outputs = self._recorder.record(call, fresh=not self._held)
        except RuntimeError as exc:  # such as too little memory for a second copy of all
            self._failed = True
            logging.getLogger(__name__).warning(
                "no more CUDA graphs for now, kernels are launched one by one: %s", first_line(exc)
            )
        else:
            inputs = [value for value in places if isinstance(value, Tensor)]
            self._held[key] = _Held(graph, inputs, outputs or [])
        return output

    def sizes(self, most: int) -> list[int]:
        """Of the runs that up to `most` pictures or prompts need to be warm, the largest first."""
        return [size for size in SIZES if size <= most] if self.fixed else [1]

    def parts(self, count: int) -> list[slice]:
        """`count` pictures or prompts in runs."""
        if not self.fixed:
            return [slice(0, count)]
        parts, start = [], 0
        for size in SIZES:
            while count - start >= size:
                parts.append(slice(start, start + size))
                start += size
        return parts

    def clear(self, *functions: Callable[..., Any]) -> None:
        """Forget the graphs of these functions, of all without one.

        Something that they use is in its place no longer.
        """
        names = {function.__name__ for function in functions}
        self._held = {
            key: held for key, held in self._held.items() if names and key[0] not in names
        }
        self._failed = False


class Cuda:
    """Makes graphs of what is launched on one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    def run(self, function: Callable[[], Any]) -> Any:
        # Libraries make their work space for a stream in a first run, outside of the graph.
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                return function()
        finally:  # what is under way where it fails may still write
            current.wait_stream(self._stream)

    def record(self, function: Callable[[], Any], fresh: bool) -> tuple[Graph, Any]:
        if fresh:  # torch frees a pool with the last of its graphs
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.device(self._device),
                # A capture that cannot be ended leaves its stream the current one.
                torch.cuda.stream(torch.cuda.current_stream(self._device)),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                output = function()
        except RuntimeError:
            # It also leaves torch's allocator in it, which then gives no memory back any more
            # (CUDAGraph::capture_end). Where it does not, this is refused.
            with contextlib.suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(self._stream.device.index, self._pool)
            raise
        return graph, output
