# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read WordNet's files: the meanings of a word, and the words above and below each meaning.

The files are searched by bisection and read in place, so nothing is loaded. wndb(5WN) describes
the format. Knows nouns and adjectives; no log and no question.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = "/usr/share/wordnet"
"""Folder of Debian's and Ubuntu's package wordnet-base."""
VARIABLE = "WNSEARCHDIR"
"""WordNet's own environment variable for the folder of its files."""
MISSING = (
    "WordNet is not installed, so the search matches only a question's own words and names of "
    "colours; install it with 'sudo apt-get install wordnet-base'"
)
NOUN, ADJECTIVE = "n", "a"
ATTRIBUTE, PERSON, PLANT = 7, 18, 20
"""Numbers of lexicographer files, which are groups of nouns: lexnames(5WN)."""
TANGIBLE = frozenset({5, 6, 13})  # animals, artifacts and food
UNSEEN = frozenset({4, 9, 11, 12, 16, 19, 21, 22, 23, 24, 26, 28})
"""Groups of nouns that cameras do not see: acts, thoughts, feelings, quantities, times ..."""
_FILES = {NOUN: "noun", ADJECTIVE: "adj"}  # end of the names of the files
_ENDINGS = {
    NOUN: (
        ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    ADJECTIVE: (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
}  # fmt: skip
"""Endings of inflected words, and those of their base forms: morphy(7WN)."""
_ABOVE, _BELOW = ("@", "@i"), ("~", "~i")  # pointers to more general and more special meanings
_ALIKE = ("&", "+", "\\", "=")
"""Pointers of adjectives: a similar meaning, a word of the same root, "of or about", a quality."""


class Meaning(NamedTuple):
    """One meaning: its kind of word, and where it is in the file of that kind."""

    kind: str  # NOUN or ADJECTIVE
    offset: int  # bytes


@dataclass(frozen=True)
class Entry:
    """The words of a meaning, and its neighbours."""

    words: tuple[str, ...]  # with the capitals of names; several words have spaces between them
    above: tuple[Meaning, ...]  # more general
    below: tuple[Meaning, ...]  # more special
    alike: tuple[Meaning, ...]  # of an adjective: similar adjectives and related nouns
    group: int  # number of its group, such as PERSON


class WordNet:
    """WordNet's files in one folder. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        """Open the files. Raises OSError or ValueError if they are missing or empty."""
        self._index = {kind: _opened(folder / f"index.{end}") for kind, end in _FILES.items()}
        self._data = {kind: _opened(folder / f"data.{end}") for kind, end in _FILES.items()}
        self._irregular = {kind: _opened(folder / f"{end}.exc") for kind, end in _FILES.items()}
        self.senses = lru_cache(maxsize=65536)(self._senses)
        self.entry = lru_cache(maxsize=65536)(self._entry)

    def base_forms(self, words: str, kind: str) -> list[str]:
        """Return the forms of `words` that WordNet has: "mice" -> mouse."""
        forms = [words, *self._exceptions(words, kind)]
        forms += [
            words[: len(words) - len(ending)] + base
            for ending, base in _ENDINGS[kind]
            if words.endswith(ending) and len(words) > len(ending) + 1
        ]
        return [form for form in dict.fromkeys(forms) if self.meanings(form, kind)]

    def has_noun(self, words: str) -> bool:
        """Return whether the words, or their base form, are a noun and not only a proper name."""
        return any(
            form in self.entry(meaning).words
            for form in self.base_forms(words, NOUN)
            for meaning in self.meanings(form, NOUN)
        )

    def meanings(self, words: str, kind: str) -> tuple[Meaning, ...]:
        """Return the meanings of words in base form, in the order of `senses`."""
        return self.senses(words, kind)[0]

    def _senses(self, words: str, kind: str) -> tuple[tuple[Meaning, ...], int]:
        """Return the meanings of words, and how many of them WordNet's tagged texts have.

        These come first, the most frequent one first. The order of the others means nothing.
        """
        line = _line(self._index[kind], words.replace(" ", "_"))
        if line is None:
            return (), 0
        fields = line.split()
        count = int(fields[2])
        offsets = fields[-count:]
        return tuple(Meaning(kind, int(offset)) for offset in offsets), int(fields[-count - 1])

    def _entry(self, meaning: Meaning) -> Entry:
        """Return what the file says about a meaning."""
        data = self._data[meaning.kind]
        line = data[meaning.offset : data.find(b"\n", meaning.offset)].decode("ascii", "replace")
        fields = line.partition(" | ")[0].split()
        count = int(fields[3], 16)
        words = tuple(
            word.partition("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]
        )
        pointers = fields[5 + 2 * count :]
        neighbours: dict[str, list[Meaning]] = {}
        for at in range(0, 4 * int(fields[4 + 2 * count]), 4):
            symbol, offset, kind = pointers[at : at + 3]
            if kind in "nas":
                to = Meaning(kind.replace("s", ADJECTIVE), int(offset))
                neighbours.setdefault(symbol, []).append(to)

        def by(symbols: tuple[str, ...]) -> tuple[Meaning, ...]:
            return tuple(to for symbol in symbols for to in neighbours.get(symbol, ()))

        alike = by(_ALIKE) if meaning.kind == ADJECTIVE else ()
        return Entry(words, by(_ABOVE), by(_BELOW), alike, int(fields[1]))

    def _exceptions(self, words: str, kind: str) -> list[str]:
        line = _line(self._irregular[kind], words.replace(" ", "_"))
        return [form.replace("_", " ") for form in line.split()[1:]] if line else []


@lru_cache(maxsize=1)
def find() -> WordNet | None:
    """Return WordNet of the folder WNSEARCHDIR or of the system; None: it is not installed."""
    try:
        return WordNet(Path(os.environ.get(VARIABLE) or FOLDER))
    except (OSError, ValueError):
        return None


def lines(data: bytes | mmap.mmap) -> Iterator[bytes]:
    """Yield the lines of a file after its head, whose lines begin with spaces."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        if data[start : start + 1] != b" ":
            yield data[start:end]
        start = end + 1


def _line(data: mmap.mmap, words: str) -> str | None:
    """Return the line that begins with `words`; the lines are in the order of their bytes."""
    if not words.isascii():
        return None
    key = words.encode() + b" "
    low, high = 0, len(data)  # both at the start of a line
    while low < high:
        start = data.rfind(b"\n", low, (low + high) // 2) + 1 or low
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        found = data[start : min(end, start + len(key))]
        if found == key:
            return data[start:end].decode("ascii", "replace")
        if found < key:
            low = end + 1
        else:
            high = start
    return None


def _opened(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
