# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Propose the next tokens of an answer from what followed the same tokens in earlier answers.

Much of a caption is regular: a box follows each phrase, and words repeat. So an answer has a
draft even if there is no earlier answer about the same camera. The decoder checks a draft in one
pass and keeps only the tokens that the model itself would write.
Knows token ids, no text and no model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import NamedTuple

LENGTH = 3
"""Largest length of a sequence whose next token is remembered. The longest known one decides."""
MAX_SEQUENCES = 20_000
"""Largest number of remembered sequences, in about 6 MB. The oldest ones are dropped."""
RECENT = 32
"""Largest count of a sequence's occurrences. Above it the counts are halved: scenes change."""
RARE = 1 / 8
"""Share of a sequence's occurrences up to which its usual next token is replaced by a new one."""
DOUBT = 2
"""Imaginary occurrences with another next token, so that few occurrences give a low probability: a
single one gives 1/3."""
MIN_PROBABILITY = 0.2
"""Smallest probability of a proposed token. Less likely ones would hardly ever pay."""

_LOCATION = -1  # replaces every location token: boxes differ, the tokens around them do not


class _Next(NamedTuple):
    """The usual next token of a sequence.

    It is the first token that followed the sequence, until it is RARE. To count every next token
    would be exact, but a word such as "a" has thousands.
    """

    token: int
    hits: float  # occurrences of the sequence before this token; older ones count less
    total: float  # all occurrences of the sequence, likewise


class Ngrams:
    """The usual next tokens of short sequences. One thread at a time may use it."""

    def __init__(self, locations: Container[int]) -> None:
        """`locations` are the tokens of the grid's cells."""
        self._locations = locations
        self._next: OrderedDict[tuple[int, ...], _Next] = OrderedDict()

    def learn(self, before: Sequence[int], answer: Sequence[int]) -> None:
        """Remember the tokens of an answer. `before` are the last LENGTH tokens of its prompt."""
        tokens = self._alike([*before, *answer])
        for at in range(len(before), len(tokens)):
            for start in range(max(at - LENGTH, 0), at):
                self._count(tuple(tokens[start:at]), tokens[at])
        while len(self._next) > MAX_SEQUENCES:
            self._next.popitem(last=False)

    def _count(self, sequence: tuple[int, ...], token: int) -> None:
        usual, hits, total = self._next.pop(sequence, _Next(token, 0.0, 0.0))
        total += 1.0
        if token == usual:
            hits += 1.0
        elif hits <= RARE * total:
            usual, hits, total = token, 1.0, 1.0
        if total > RECENT:
            hits, total = hits / 2.0, total / 2.0
        self._next[sequence] = _Next(usual, hits, total)

    def following(self, last: Sequence[int], most: int) -> list[tuple[int, float]]:
        """Return at most `most` tokens that may follow `last`.

        `last` are the last LENGTH tokens of a prompt and its answer. Each proposed token comes
        with the estimated probability that it and all proposed ones before it are right. The list
        ends before a location.
        """
        tokens, found, probability = self._alike(last), list[tuple[int, float]](), 1.0
        while len(found) < most:
            sequences = (tuple(tokens[-length:]) for length in range(LENGTH, 0, -1))
            usual = next(filter(None, map(self._next.get, sequences)), None)
            if usual is None or usual.token == _LOCATION:
                break
            probability *= usual.hits / (usual.total + DOUBT)
            if probability < MIN_PROBABILITY:
                break
            found.append((usual.token, probability))
            tokens.append(usual.token)
        return found

    def _alike(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens with each location replaced by _LOCATION."""
        return [_LOCATION if token in self._locations else token for token in tokens]
