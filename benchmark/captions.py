# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe new scenes, give an engine n-grams, and make random weights write given captions.

If the benchmark repeated a scene, a draft from n-grams would be the whole caption. So its engines
have n-grams only where each scene is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.ngrams import LENGTH, Ngrams
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

SEED = 4  # of scenes that no other part of the benchmark shows
BRIEF, DETAILED = (prompts.caption(task) for task in prompts.CAPTION_TASKS)


@dataclass(frozen=True)
class Described:
    """A drawn scene, and what the embedded model says about it."""

    frame: np.ndarray  # (H, W, 3) uint8
    ids: tuple[int, ...]  # of the tokens of its detailed caption


def described(count: int, tokens: int, others: int = 0) -> list[Described]:
    """Return `others` and then `count` different scenes whose captions have `tokens` or more."""
    engine = Engine.load("shapes", device="cpu", threads=torch.get_num_threads())
    found: list[Described] = []
    number = 0
    while len(found) < others + count:
        rng = np.random.default_rng([SEED, number])
        frame = render(sample_scene(rng, 640, 480, counts=(4,)))
        answer = engine.generate(engine.encode(frame), DETAILED.text, 128)
        if answer.tokens >= tokens:
            found.append(Described(frame, answer.ids))
        number += 1
    return found


class Learning:
    """A context in which an engine has n-grams: of `texts`, and of its answers in this context."""

    def __init__(self, engine: Engine, texts: Sequence[Sequence[int]] = ()) -> None:
        self._engine = engine
        self._known = Ngrams(engine._drafts.cells)
        for ids in texts:
            self._known.learn(engine.token_ids(DETAILED.text)[-LENGTH:], ids)

    def __enter__(self) -> None:
        self._engine._ngrams = self._known

    def __exit__(self, *_: object) -> None:
        self._engine._ngrams = None


class Script:
    """Makes a model on a CPU write given tokens.

    It is a Rule for the engine, and a logits processor for `generate`.
    """

    def __init__(self, prompt: int) -> None:
        """`prompt`: the number of tokens of the prompt, including those of the image."""
        self._prompt = prompt
        self.ids: Sequence[int] = ()  # empty: the model writes its own tokens

    def restrict(self, scores: Tensor, tokens: Tensor, newest: Tensor) -> Tensor:
        if not self.ids:
            return scores
        at = (newest + 1 - self._prompt).clamp(0, len(self.ids) - 1)
        wanted = torch.tensor(self.ids)[at].unsqueeze(-1)
        return torch.full_like(scores, float("-inf")).scatter(-1, wanted, 0.0)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        newest = torch.full((len(ids), 1), ids.shape[1] - 1)
        return self.restrict(scores.unsqueeze(1), ids, newest).squeeze(1)

    def for_kernels(self) -> dict[str, Any]:
        raise NotImplementedError("a script is for a CPU, which has no kernels")
