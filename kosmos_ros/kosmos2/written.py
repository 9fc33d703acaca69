# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read the tokens that a pass has written, while the device already runs the next pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NONE = -1
"""Takes the place of each token that would follow a wrong token of a draft."""
Token = tuple[int, list[float]]
"""A token that a row has written, and the probabilities (K) of the token's neighbours."""


class Written:
    """The output (B, W, 1 + K) of a pass for `rows`, while it is copied to the host.

    It has each token as a number, or NONE, and the probabilities of its neighbours.
    """

    def __init__(self, output: Tensor, rows: Sequence[int], drafted: bool, copy: bool) -> None:
        self.drafted = drafted  # a row may have more than one token
        # For each row that still exists, by its number: its index in the output.
        self.rows = {row: index for index, row in enumerate(rows)}
        # On a GPU this copies to pinned memory, so that nothing waits (torch's _to_copy).
        self._output = output.to("cpu", non_blocking=True, copy=copy)
        # Blocking: the host's core is free while it waits.
        self._arrived = torch.cuda.Event(blocking=True) if output.is_cuda else None
        if self._arrived:
            self._arrived.record(torch.cuda.current_stream(output.device))

    def leave(self, row: int, last: int) -> None:
        """Remove a row as Rows.leave does; `last` is the decoder's last row."""
        moved = self.rows.pop(last, None)
        if row != last:
            self.rows.pop(row, None)
            if moved is not None:
                self.rows[row] = moved

    def read(self) -> list[tuple[int, list[Token]]]:
        """Wait for the tokens and return those of each row, by its number."""
        if self._arrived:
            self._arrived.synchronize()
        values = self._output.tolist()
        return [
            (row, [(int(token), near) for token, *near in values[index] if token != NONE])
            for row, index in self.rows.items()
        ]
