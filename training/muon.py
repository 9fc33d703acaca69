# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Muon, the optimiser of the layers' matrices, in float32. Knows no model.

torch.optim.Muon orthogonalises in bfloat16, which most CPUs do not support in hardware: at the
size of `shapes` that takes longer than the rest of a step. Matrices of equal shape are updated
together.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5  # of the orthogonalisation
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration's polynomial (Jordan, https://kellerjordan.github.io/posts/muon)."""


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates; `lr` as for AdamW (arXiv 2502.16982, 2.2)."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; `closure` is not used."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in by_shape.values():
                self._update(matrices, group["lr"], group["weight_decay"])

    def _update(self, matrices: list[nn.Parameter], rate: float, decay: float) -> None:
        gradients = torch.stack([m.grad for m in matrices if m.grad is not None])
        for matrix in matrices:
            self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        momenta = [self.state[matrix]["momentum"] for matrix in matrices]
        for momentum, gradient in zip(momenta, gradients, strict=True):
            momentum.lerp_(gradient, 1.0 - MOMENTUM)
        updates = orthogonal(gradients.lerp(torch.stack(momenta), MOMENTUM))
        scale = 0.2 * max(updates.shape[-2:]) ** 0.5
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1.0 - rate * decay).add_(update, alpha=-rate * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly U V^T for matrices (N, rows, columns) = U S V^T: singular values near 1."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
