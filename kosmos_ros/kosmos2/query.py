# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A prompt about an image, and the text that the model writes. Knows no model and no boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def never() -> bool:
    """Return false: the default of Query.stopped."""
    return False


@dataclass(frozen=True)
class Earlier:
    """An answer about a similar image: a draft of the next one.

    A draft makes an answer faster and, in float32, changes none of its tokens.
    """

    ids: tuple[int, ...]  # of the generated tokens
    gain: float = math.inf  # expected tokens per pass with the draft; infinite: not measured yet


@dataclass(frozen=True, eq=False)
class Query:
    """One prompt about one image."""

    image: Any  # the result of Engine.encode
    prompt: str
    max_new_tokens: int = 128
    stopped: Callable[[], bool] = never  # called after each pass; true cancels the query
    progress: Callable[[Generation], None] | None = None
    """Called after each pass that writes tokens, with the text so far."""
    stop: str = ""  # ends the answer: a tag, which is kept, or text without tags, which is cut off
    earlier: Earlier | None = None


@dataclass(frozen=True)
class Generation:
    """The text that a model wrote after a prompt."""

    text: str  # with tags, without the prompt and the end token
    location_scores: tuple[float, ...]  # probability of each location token of `text`, in order
    score: float  # [0, 1], mean probability of the generated tokens
    tokens: int  # generated tokens, including the end token
    truncated: bool  # ended by the token limit
    ids: tuple[int, ...] = ()  # of the generated tokens
    location_points: tuple[tuple[float, float], ...] = ()
    """(x, y) in [0, 1] of each location token's corner; empty: the centres of the cells."""
    gain: float = 1.0
    """Mean number of tokens per pass if passes check drafts from Query.earlier; 1: no draft."""
