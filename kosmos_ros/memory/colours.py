# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Name colours with basic words: a "navy" block is a blue one. Knows no log and no synonyms.

training/colour_names.py made the table of names.
"""

from __future__ import annotations

import functools
import importlib.resources

MAX_NAME = 3  # words
MAX_CHUNKS = 8  # that one chunk can mean


def basic(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return a noun chunk with basic words instead of colour names; empty: it has no such name.

    A name counts only before another word. It can mean several colours, so there may be several
    chunks: "an amber cup" is yellow or orange, "an amber" is no colour.
    """
    found: list[tuple[str, ...]] = [()]
    at, named = 0, False
    while at < len(words):
        count, colours = _name(words[at:-1])
        named = named or count > 0
        found = [(*each, colour) for each in found for colour in colours or (words[at],)]
        del found[MAX_CHUNKS:]
        at += max(count, 1)
    return found if named else []


def _name(words: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Return how many of the first words are a colour name, and its basic colours; 0: none."""
    for count in range(min(len(words), MAX_NAME), 0, -1):
        colours = _table().get(" ".join(words[:count]).replace("gray", "grey"))
        if colours:
            return count, colours
    return 0, ()


@functools.cache
def _table() -> dict[str, tuple[str, ...]]:
    """Return the basic colours of each name."""
    text = importlib.resources.files(__package__).joinpath("colours.txt").read_text("utf-8")
    lines = (line.split(": ") for line in text.splitlines() if not line.startswith("#"))
    return {name: tuple(colours.split(", ")) for name, colours in lines}
