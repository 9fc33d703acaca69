# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Propose the next tokens of an answer from what mostly followed the same tokens before.

Much of a caption is regular: a box follows each phrase, and words return. So an answer without an
earlier one about the same camera has drafts, too. The decoder checks a proposal in one pass and
keeps only the tokens that the model itself would write.
Knows token ids, no text and no model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import NamedTuple

LENGTH = 3
"""Largest number of tokens whose next one is remembered. The longest known sequence counts."""
MAX_SEQUENCES = 20_000
"""Sequences that are remembered, in about 6 MB. The least recently written ones are dropped."""
RECENT = 32
"""Largest number of counted occurrences. Above it the counts are halved, because scenes change."""
RARE = 1 / 8
"""A next token with this share of the occurrences, or less, is replaced by a new one."""
DOUBT = 2
"""Occurrences with another next token that are added to those seen. After a single occurrence, the
same token is expected with a probability of 1/3."""
LEAST = 0.2
"""Smallest probability of a proposed token. Less likely ones would hardly ever pay."""

_LOCATION = -1  # stands for every location token: boxes differ, the tokens around them do not


class _Next(NamedTuple):
    """A token that often follows a sequence.

    It is the first one that did, until it is RARE. The counts of all tokens would be exact, but
    after a word such as "a" there are thousands.
    """

    token: int
    hits: float  # occurrences of the sequence before this token, the older ones count less
    total: float  # all occurrences of the sequence, likewise


class Ngrams:
    """Which token mostly follows which tokens. One thread at a time may use it."""

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
        """Return at most `most` tokens that may follow `last`, the LENGTH tokens written last.

        Each has the estimated probability that it and all before it are right. Locations are never
        proposed.
        """
        tokens, found, probability = self._alike(last), list[tuple[int, float]](), 1.0
        while len(found) < most:
            sequences = (tuple(tokens[-length:]) for length in range(LENGTH, 0, -1))
            usual = next(filter(None, map(self._next.get, sequences)), None)
            if usual is None or usual.token == _LOCATION:
                break
            probability *= usual.hits / (usual.total + DOUBT)
            if probability < LEAST:
                break
            found.append((usual.token, probability))
            tokens.append(usual.token)
        return found

    def _alike(self, tokens: Sequence[int]) -> list[int]:
        """Return tokens in which all locations are the same one."""
        return [_LOCATION if token in self._locations else token for token in tokens]
