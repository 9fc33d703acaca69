# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the words of a log that mean what a word of a question means.

A word stands for itself, its synonyms and all that is below it in WordNet: "vehicle" finds a car.
If the log never used any of these, it stands for the words just above it: "crimson" finds what
was called red. Knows no question and no log, only the log's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache

from kosmos_ros.memory.wordnet import ADJECTIVE, NOUN, Meaning, WordNet
from kosmos_ros.memory.words import stem

SYNONYM, BELOW, ABOVE = 0.95, 0.9, 0.7
"""Closeness of a synonym, of a word below, and of a word one step above.

Two steps above, the words mean too much: "grey" would be white. See docs/performance.md.
"""
RARE = 0.96
"""Factor for each more frequent meaning of a word: "jet" and "green" can both mean a drug."""
MIN_CLOSENESS = 0.7  # of a synonym; a word that has this meaning more rarely is not used
MAX_MEANINGS = 4000  # below a word; "object" has 30,000, most of which no caption has
MAX_COMPOUND = 3  # words
SPELLINGS = {"gray": "grey", "grey": "gray"}


@dataclass(frozen=True)
class Alternative:
    """Words of the log that can stand for those of a question."""

    stems: tuple[str, ...]  # side by side in one chunk
    closeness: float  # in (0, 1]; 1: the same words


@dataclass(frozen=True)
class _Term:
    """Words in one of their meanings."""

    words: str  # lower case, separated by spaces
    meaning: Meaning
    closeness: float  # if this were the words' most frequent meaning
    lowest: float = 0.0  # smallest closeness that counts


class Thesaurus:
    """The words of a log, and what they mean."""

    def __init__(self, known: Set[str], net: WordNet | None) -> None:
        """`known` has the stems of the log's words. `net` None: there are no synonyms."""
        self._known = known
        self._starts = {word[:2] for word in known}  # the stemmer keeps the first two letters
        self._net = net

    def compound(self, words: tuple[str, ...]) -> int:
        """Return how many of the first words form one term of WordNet: "traffic light"."""
        for count in range(min(len(words), MAX_COMPOUND), 1, -1):
            if self._net is not None and (
                self._net.base_forms(" ".join(words[:count]), NOUN)
                or self._net.base_forms("-".join(words[:count]), ADJECTIVE)
            ):
                return count
        return 1

    def alternatives(self, words: tuple[str, ...]) -> list[Alternative]:
        """Return what can stand for a word or a compound, closest first; empty: the log has none.

        A meaning above is used only if there is nothing else.
        """
        found: dict[tuple[str, ...], float] = {}
        self._add(found, " ".join(words), 1.0)
        self._add(found, " ".join(SPELLINGS.get(word, word) for word in words), 1.0)
        if self._net is not None:
            self._add_terms(found, _same_and_below(self._net, words))
            if not found:
                self._add_terms(found, _above(self._net, words))
        ordered = sorted(found.items(), key=lambda item: -item[1])
        return [Alternative(stems, closeness) for stems, closeness in ordered]

    def _add_terms(self, found: dict[tuple[str, ...], float], terms: list[_Term]) -> None:
        assert self._net is not None
        for term in terms:
            if term.words[:2] not in self._starts:
                continue
            meanings = self._net.meanings(term.words, term.meaning.kind)
            if term.meaning in meanings:  # otherwise a name below, written with a capital
                closeness = term.closeness * RARE ** meanings.index(term.meaning)
                if closeness >= term.lowest:
                    self._add(found, term.words, closeness)

    def _add(self, found: dict[tuple[str, ...], float], words: str, closeness: float) -> None:
        stems = tuple(stem(word) for word in words.replace("-", " ").split())
        if closeness > found.get(stems, 0.0) and self._known >= set(stems):
            found[stems] = closeness


def _senses(net: WordNet, words: tuple[str, ...]) -> Iterator[tuple[int, Meaning]]:
    """Yield the meanings of words and the rank of each, 0 for the most frequent one."""
    for kind in (NOUN, ADJECTIVE):
        forms = {form: None for mark in " -" for form in net.base_forms(mark.join(words), kind)}
        for form in forms:
            yield from enumerate(net.meanings(form, kind))


@lru_cache(maxsize=256)
def _same_and_below(net: WordNet, words: tuple[str, ...]) -> list[_Term]:
    """Return the synonyms of words and the words below them."""
    found = []
    level: dict[Meaning, None] = {}
    for rank, meaning in _senses(net, words):
        entry = net.entry(meaning)
        closeness = SYNONYM * RARE**rank
        found += [_Term(word.lower(), meaning, closeness, MIN_CLOSENESS) for word in entry.words]
        level |= dict.fromkeys(entry.below)
    seen = set(level)
    while level and len(seen) < MAX_MEANINGS:
        entries = [(meaning, net.entry(meaning)) for meaning in level]
        found += [
            _Term(word, meaning, BELOW, BELOW)
            for meaning, entry in entries
            for word in entry.words
        ]
        level = {low: None for _, entry in entries for low in entry.below if low not in seen}
        seen.update(level)
    return found


def _above(net: WordNet, words: tuple[str, ...]) -> list[_Term]:
    """Return the words one step above."""
    found = []
    for rank, meaning in _senses(net, words):
        entry = net.entry(meaning)
        for above in (*entry.above, *entry.alike):
            closeness = ABOVE * RARE**rank
            found += [_Term(word.lower(), above, closeness) for word in net.entry(above).words]
    return found
