# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs without CUDA: a replay runs the same operations on the same addresses again.

A recorded function must not read values from the host, because every replay would read the old
ones, and must not wait for the device, because a GPU cannot record that.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations that read values from the host.
FROM_HOST = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}
WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Tape(TorchDispatchMode):
    """A recorded graph."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.replays = 0
        self._before = []  # tensors that were written to, and copies of their values

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert func not in FROM_HOST, func
        assert not WAITING & set(func.tags), func
        for value, argument in zip(args, func._schema.arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._before.append((value, value.clone()))
        output = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, output))
        return output

    def undo(self):
        """Restore all tensors: on a GPU, recording runs nothing."""
        for place, held in reversed(self._before):
            place.copy_(held)
        self._before.clear()

    def replay(self):
        self.replays += 1
        for func, args, kwargs, places in self.calls:
            output = func(*args, **kwargs)
            for place, value in zip(tree_leaves(places), tree_leaves(output), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


class Recorder:
    """A recorder of tapes, which it lists in the order of their recording."""

    def __init__(self):
        self.tapes, self.fresh = [], []
        self.fails = None  # the error that the next recording raises

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
