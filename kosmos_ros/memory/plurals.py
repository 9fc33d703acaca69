# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the plural or singular of a noun whose two forms have different stems: "men".

A form that is no word does no harm, because no log has it. This module knows no log.
"""

from __future__ import annotations

from functools import lru_cache

PLURALS = {
    "calves": "calf", "cacti": "cactus", "children": "child", "elves": "elf", "feet": "foot",
    "geese": "goose", "halves": "half", "hooves": "hoof", "knives": "knife", "leaves": "leaf",
    "loaves": "loaf", "men": "man", "mice": "mouse", "oxen": "ox", "people": "person",
    "scarves": "scarf", "shelves": "shelf", "teeth": "tooth", "thieves": "thief",
    "wharves": "wharf", "wives": "wife", "wolves": "wolf",
}  # fmt: skip
"""Ends of irregular plurals, and those of their singulars: "policemen", "bookshelves"."""
STARTS = frozenset(word[:2] for both in PLURALS.items() for word in both)
"""First two letters of all these: those of "man" and "men" differ."""


@lru_cache(maxsize=65536)
def other_number(word: str) -> tuple[str, ...]:
    """Return what may be the plural or the singular of a noun: "bus" -> "buses"."""
    found = []
    for both in PLURALS.items():
        for end, other in (both, both[::-1]):
            if word.endswith(end):
                found.append(word.removesuffix(end) + other)
    if word.endswith("s") and not word.endswith("ss"):  # the stemmer takes off the s of "bus"
        found.append(f"{word}es")
    if word.endswith("ses"):
        found.append(word.removesuffix("es"))
    return tuple(found)
