# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the words of a log that mean what a word of a question means.

A word stands for itself, its synonyms, and the words below it in WordNet whose likely meaning this
is: "vehicle" finds a car.
If the log never used any of these, it stands for the words just above it: "crimson" finds what
was called red. Knows no question and no log, only the log's words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache

from kosmos_ros.memory.plurals import STARTS, other_number
from kosmos_ros.memory.wordnet import (
    ADJECTIVE,
    ATTRIBUTE,
    NOUN,
    PERSON,
    PLANT,
    TANGIBLE,
    UNSEEN,
    Meaning,
    WordNet,
)
from kosmos_ros.memory.words import stem

SYNONYM, BELOW, ABOVE = 0.95, 0.9, 0.7
"""Closeness of a synonym, of a word below, and of a word one step above.

Two steps above, the words mean too much: "grey" would be white. See docs/performance.md.
"""
RARE = 0.96
"""Factor for each more likely meaning of a word: "jet" and "green" can both mean a drug."""
MIN_CLOSENESS = 0.8  # of a synonym; a word that has this meaning more rarely is not used
MAX_MEANINGS = 12_000  # of words below a word; "person" has 10,000, "object" 36,000
MAX_COMPOUND = 3  # words
MIN_PART = 3  # letters of each of the two words that a word is cut into
SAME = {
    "gray": "grey", "grey": "gray", "human": "person", "humans": "people", "clothes": "clothing",
}  # fmt: skip
"""Synonyms that WordNet lacks."""


@dataclass(frozen=True)
class Alternative:
    """Words of the log that can stand for those of a question."""

    stems: tuple[str, ...]  # side by side in one chunk
    closeness: float  # in (0, 1]; 1: the same words
    noun: bool = False  # other words than the question's, which name a thing


@dataclass(frozen=True, slots=True)  # a word such as "object" has tens of thousands
class _Term:
    """Words in one of their meanings."""

    words: str  # lower case, separated by spaces
    meaning: Meaning
    closeness: float  # if this were the most likely meaning of the words
    least: float = 0.0  # smallest closeness that counts
    below: bool = False  # below the word of the question


class Thesaurus:
    """The words of a log, and what they mean."""

    def __init__(self, known: Set[str], net: WordNet | None) -> None:
        """`known` has the stems of the log's words. `net` None: there are no synonyms."""
        self._known = known
        # The stemmer keeps the first two letters.
        self._starts = {word[:2] for word in known} | STARTS
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

    def beginnings(self, words: tuple[str, ...]) -> list[tuple[int, list[Alternative]]]:
        """Return ways to read the first words: how many, and what can stand for them.

        Two words may also be one that is written apart: "cell phone" is "cellphone".
        """
        found = []
        for count in (self.compound(words), 1):
            if alternatives := self.alternatives(words[:count]):
                found.append((count, alternatives))
                break
        if alternatives := self._joined(words[:2]):
            found.append((2, alternatives))
        return found

    def _joined(self, words: tuple[str, ...]) -> list[Alternative]:
        """Return what can stand for two words as one; empty: they are no word."""
        one = "".join(words)
        # The stem of "orangering" is that of "orange".
        if len(words) < 2 or len(stem(one)) <= len(words[0]):
            return []
        known = stem(one) in self._known or (self._net and self._net.base_forms(one, NOUN))
        return self.alternatives((one,)) if known else []

    def alternatives(self, words: tuple[str, ...]) -> list[Alternative]:
        """Return what can stand for a word or a compound, closest first; empty: the log has none.

        A meaning above is used only if there is nothing else.
        """
        found: dict[tuple[str, ...], Alternative] = {}
        forms = _forms(tuple(SAME.get(word, word) for word in words))
        forms = tuple(dict.fromkeys((words, *forms)))
        for form in (*forms, *itertools.chain(*map(self._apart, forms))):
            self._add(found, form, 1.0, False)
        if self._net is not None:
            for form in forms:
                self._add_terms(found, self._net, _same_and_below(self._net, form))
            for form in forms if not found else ():
                self._add_terms(found, self._net, _above(self._net, form))
        return sorted(found.values(), key=lambda each: -each.closeness)

    def _add_terms(
        self, found: dict[tuple[str, ...], Alternative], net: WordNet, terms: list[_Term]
    ) -> None:
        for term in terms:
            if term.words[:2] not in self._starts:
                continue
            words = tuple(term.words.replace("-", " ").split())
            forms = _forms(words)
            if not term.below:
                forms = (*forms, *self._apart(words))
            if any(map(self._has, forms)) and (closeness := _closeness(net, term)):
                noun = term.meaning.kind == NOUN and net.entry(term.meaning).group != ATTRIBUTE
                for form in forms:
                    self._add(found, form, closeness, noun)

    def _apart(self, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Return the two words of the log that one word is, written apart: "cell phone".

        The first of the two is no adjective: a "green house" is no "greenhouse".
        """
        if len(words) > 1:
            return []
        (word,), net = words, self._net
        parts = ((word[:at], word[at:]) for at in range(MIN_PART, len(word) - MIN_PART + 1))
        return [
            two
            for two in parts
            if two[1][:2] in self._starts
            and self._has(two)
            and not (net and net.base_forms(two[0], ADJECTIVE))
        ]

    def _has(self, words: tuple[str, ...]) -> bool:
        return all(stem(word) in self._known for word in words)

    def _add(
        self,
        found: dict[tuple[str, ...], Alternative],
        words: tuple[str, ...],
        closeness: float,
        noun: bool,
    ) -> None:
        stems = tuple(map(stem, words))
        if self._known >= set(stems) and (
            stems not in found or closeness > found[stems].closeness
        ):
            found[stems] = Alternative(stems, closeness, noun)


def _forms(words: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return words, and the same words with the last one in plural or singular."""
    return (words, *((*words[:-1], other) for other in other_number(words[-1])))


def _closeness(net: WordNet, term: _Term) -> float:
    """Return the closeness of a term, less for each more likely meaning of its words; 0: none."""
    ranks = _ranks(net, term.words, term.meaning.kind)
    rank = ranks.get(term.meaning)
    if rank is None:  # a proper name
        return 0.0
    group, likely = net.entry(term.meaning).group, net.entry(next(iter(ranks))).group
    if group in (PERSON, PLANT) and group != likely:
        return 0.0  # "dog" can also mean an unpleasant person
    if term.below and (rank > 1 or (group == PERSON and _stands_for_another(net, term.words))):
        return 0.0
    closeness = term.closeness * RARE**rank
    return closeness if closeness >= term.least else 0.0


@lru_cache(maxsize=65536)
def _ranks(net: WordNet, words: str, kind: str) -> dict[Meaning, int]:
    """Return the rank of each meaning of words, 0 for the most likely one in a caption.

    The rank of a meaning that WordNet's texts do not have is one higher, unless there is no other.
    """
    meanings, counted = net.senses(words, kind)
    rare = set(meanings[counted:])

    def unlikely(meaning: Meaning) -> tuple[bool, bool]:
        group = net.entry(meaning).group if kind == NOUN else None
        return group in UNSEEN, meaning in rare and group not in TANGIBLE

    ordered = sorted(meanings, key=unlikely)
    several = len(ordered) > 1
    return {each: at + (several and each in rare) for at, each in enumerate(ordered)}


@lru_cache(maxsize=65536)
def _stands_for_another(net: WordNet, words: str) -> bool:
    """Return whether words have the stem of a shorter noun: "footballer", that of "football"."""
    starts = (words[:end] for end in range(len(words) - 1, 2, -1))
    return any(stem(start) == stem(words) and net.has_noun(start) for start in starts)


def _senses(net: WordNet, words: tuple[str, ...]) -> Iterator[tuple[int, Meaning]]:
    """Yield the ranks and the meanings of words."""
    for kind in (NOUN, ADJECTIVE):
        forms = {form: None for mark in " -" for form in net.base_forms(mark.join(words), kind)}
        for form in forms:
            yield from ((rank, each) for each, rank in _ranks(net, form, kind).items())


@lru_cache(maxsize=64)  # up to 8 MB each
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
            _Term(word, meaning, BELOW, below=True)
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
