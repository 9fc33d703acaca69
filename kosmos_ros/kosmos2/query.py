# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A prompt about a picture, and what the model writes after it. Knows no model and no boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def never() -> bool:
    """Nobody stops it."""
    return False


@dataclass(frozen=True, eq=False)
class Query:
    """One prompt about one picture."""

    image: Any  # as Engine.encode gives it
    prompt: str
    max_new_tokens: int = 128
    stopped: Callable[[], bool] = never  # asked after each token
    progress: Callable[[Generation], None] | None = None
    """Given what is written so far, after each token."""
    stop: str = ""  # text that ends the answer; a tag of TAGS is its last, other words are cut off


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt."""

    text: str  # generated text with tags, without the prompt and the end token
    location_scores: tuple[float, ...]  # probability of each location token of `text`, in order
    score: float  # [0, 1], mean probability of the generated tokens
    tokens: int  # generated, the end token included
    truncated: bool  # stopped by the token limit, not by the model
    ids: tuple[int, ...] = ()  # of the generated tokens
