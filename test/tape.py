# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs without CUDA: the same operations again, on the same places in memory.

What a function reads from the host when it is captured is what every replay reads, and what would
wait for a device cannot be captured at all.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# These bring values from the host, which is gone when a graph is replayed.
FROM_HOST = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}
WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Tape(TorchDispatchMode):
    """One graph."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.replays = 0
        self._before = []  # tensors that were written to, and what they held

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert func not in FROM_HOST, func
        assert not WAITING & set(func.tags), func
        for value, argument in zip(args, func._schema.arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._before.append((value, value.clone()))
        found = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, found))
        return found

    def undo(self):
        """A capture runs nothing."""
        for place, held in reversed(self._before):
            place.copy_(held)
        self._before.clear()

    def replay(self):
        self.replays += 1
        for func, args, kwargs, places in self.calls:
            found = func(*args, **kwargs)
            for place, value in zip(tree_leaves(places), tree_leaves(found), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


class Recorder:
    """Of tapes, by the order of their captures."""

    def __init__(self):
        self.tapes, self.fresh = [], []
        self.fails = None  # an error of the next capture

    def run(self, function):
        return function()

    def record(self, function, fresh):
        if self.fails:
            raise self.fails
        tape = Tape()
        with tape:
            output = function()
        tape.undo()
        self.tapes.append(tape)
        self.fresh.append(fresh)
        return tape, output
