# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Record a function once for each shape of its inputs as a CUDA graph, and replay it afterwards.

A graph launches hundreds of kernels in the time of one launch, but always the same kernels on the
same addresses. Knows tensors only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kosmos_ros.sanitize import first_line

RUN_SIZES = (8, 4, 2, 1)
"""Numbers of images or prompts in one run of fixed shape.

On an H200, a run of 8 takes 0.6 to 0.8 times as long as two of 4.
"""


class Graph(Protocol):
    """A recorded run, such as torch.cuda.CUDAGraph."""

    def replay(self) -> None:
        """Run the same kernels again."""


class Recorder(Protocol):
    """A maker of graphs, such as Cuda."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Return `function()`. The first run may allocate what later runs share."""

    def record(self, function: Callable[[], Any], fresh: bool) -> tuple[Graph, Any]:
        """Return a graph of `function` and the output that each replay writes; do not run it.

        Graphs share their temporary memory. `fresh` starts a new pool of it.
        """


@dataclass
class _Recorded:
    graph: Graph
    inputs: list[Tensor]
    outputs: list[Tensor]


class Graphs:
    """The graphs of one model. Call from one thread at a time, in inference mode.

    Without a `recorder` every call runs its function. The attribute `fixed` is true if
    runs must have one of a few shapes: with a recorder, or if the argument is true.
    """

    def __init__(self, recorder: Recorder | None = None, fixed: bool = False) -> None:
        self.fixed = fixed or recorder is not None
        self._recorder = recorder
        self._failed = False  # a recording has failed since the last `clear`
        self._recorded: dict[tuple[Hashable, ...], _Recorded] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`, which is a list of tensors or None.

        The function may read and write tensors whose addresses stay fixed until `clear`. Calls
        with the same function name, tensor shapes and other arguments replay the same graph.
        """
        inputs = [value for value in arguments if isinstance(value, Tensor)]
        shape = (value.shape if isinstance(value, Tensor) else value for value in arguments)
        key = (function.__name__, *shape)
        recorded = self._recorded.get(key)
        if recorded is not None:
            for buffer, value in zip(recorded.inputs, inputs, strict=True):
                buffer.copy_(value, non_blocking=True)
            recorded.graph.replay()
            # The next graph may use the same memory.
            return [output.clone() for output in recorded.outputs]
        if self._recorder is None or self._failed:
            return function(*arguments)
        return self._first(self._recorder, key, function, arguments)

    def _first(
        self,
        recorder: Recorder,
        key: tuple[Hashable, ...],
        function: Callable[..., Any],
        arguments: Sequence[Any],
    ) -> Any:
        """Run the function and record it for the next call."""
        buffers = [value.clone() if isinstance(value, Tensor) else value for value in arguments]

        def call() -> Any:
            return function(*buffers)

        output = recorder.run(call)
        try:
            graph, outputs = recorder.record(call, fresh=not self._recorded)
        except RuntimeError as exc:  # for example, no memory for a second set of temporaries
            self._failed = True
            logging.getLogger(__name__).warning(
                "recording a CUDA graph failed; launching kernels one by one until the cache is "
                "reallocated: %s",
                first_line(exc),
            )
        else:
            inputs = [value for value in buffers if isinstance(value, Tensor)]
            self._recorded[key] = _Recorded(graph, inputs, outputs or [])
        return output

    def sizes(self, most: int) -> list[int]:
        """Return the sizes of the runs of 1 to `most` images or prompts, the largest first."""
        return [size for size in RUN_SIZES if size <= most] if self.fixed else [1]

    def parts(self, count: int) -> list[slice]:
        """Split `count` images or prompts into runs."""
        if not self.fixed:
            return [slice(0, count)]
        parts, start = [], 0
        for size in RUN_SIZES:
            while count - start >= size:
                parts.append(slice(start, start + size))
                start += size
        return parts

    def clear(self, *functions: Callable[..., Any]) -> None:
        """Forget the graphs of `functions`, or all graphs without an argument.

        Call this after a tensor that they use has moved to another address.
        """
        names = {function.__name__ for function in functions}
        self._recorded = {
            key: recorded
            for key, recorded in self._recorded.items()
            if names and key[0] not in names
        }
        self._failed = False


class Cuda:
    """The Recorder of one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    def run(self, function: Callable[[], Any]) -> Any:
        # On its first run on a stream a library allocates its work space, outside of the graph.
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                return function()
        finally:  # kernels launched before an error may still write
            current.wait_stream(self._stream)

    def record(self, function: Callable[[], Any], fresh: bool) -> tuple[Graph, Any]:
        if fresh:  # torch frees a pool together with the last graph that uses it
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.device(self._device),
                # A failed capture leaves its own stream as the current one; this restores it.
                torch.cuda.stream(torch.cuda.current_stream(self._device)),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                output = function()
        except RuntimeError:
            # A failed capture also leaves torch's allocator bound to the pool, and then it
            # returns no memory (CUDAGraph::capture_end). torch refuses this call otherwise.
            with contextlib.suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(self._stream.device.index, self._pool)
            raise
        return graph, output


def any_shape(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context for attention whose shape is new.

    In it, torch does not use cuDNN, which builds a plan for each shape: on an H200, the first
    prompts of new lengths took 0.1 to 0.7 s, and 0.02 s without cuDNN.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to the device without waiting for the device.

    On return, the caller may change `values` if the device is a GPU.
    """
    if device.type == "cuda":  # without pinned memory the driver may wait for the stream
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
