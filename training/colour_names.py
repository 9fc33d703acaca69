# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write the colour names that recall understands, each with the basic colours that it means.

    python -m training.colour_names > kosmos_ros/memory/colours.txt

The names are those of a survey of 2010, in which 200,000 people named colours on a screen:
https://xkcd.com/color/rgb/ (CC0). Matplotlib has them with their RGB values. Most names end with a
basic colour: "navy blue". The others take the basic colours of the nearest such names. Needs
matplotlib, and WordNet (see kosmos_ros.memory.wordnet), which tells "crimson" from "chocolate":
a name that mostly means a thing is left out.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.colors import XKCD_COLORS, to_rgb

from kosmos_ros.memory import wordnet
from kosmos_ros.memory.wordnet import ADJECTIVE, NOUN, WordNet
from kosmos_ros.memory.words import BREAKS, DETERMINERS, FILLERS, NEGATIONS

BASIC = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
    "grey",
)  # fmt: skip
"""The basic colour terms of English: Berlin and Kay, Basic Color Terms, 1969."""
SHADES = ("light", "dark", "pale", "deep", "bright")
"""Words before a colour. A name that the survey has with such a word is used as a colour."""
NEAREST = 5  # names that are compared
VOTES = 2  # of the nearest names; a basic colour with fewer is not meant
WHITISH = 95.0, 35.0
"""Minimum lightness and maximum chroma, in CIELAB, of a colour that counts as white. Too few names
end with "white" to decide by the nearest ones."""
RUDE = frozenset({"barf", "bile", "booger", "diarrhea", "piss", "poo", "poop", "puke", "shit",
                  "snot", "vomit"})  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
"""Matrix from linear RGB to CIE XYZ: IEC 61966-2-1 (sRGB)."""
D65 = XYZ.sum(axis=1)  # the white of sRGB


def main() -> None:
    """Print the table."""
    net = wordnet.find()
    if net is None:
        sys.exit(wordnet.MISSING)
    survey = {name.removeprefix("xkcd:"): to_rgb(value) for name, value in XKCD_COLORS.items()}
    print("# Made by training/colour_names.py from the xkcd colour survey (CC0).")
    for name, basic in meanings(survey, net):
        print(f"{name}: {', '.join(basic)}")


def meanings(
    survey: Mapping[str, tuple[float, float, float]], net: WordNet
) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of a survey, sorted, each with its basic colours, likeliest first.

    `survey` has the colour of each name in sRGB, [0, 1].
    """
    separators = BREAKS | DETERMINERS | FILLERS | NEGATIONS | RUDE
    places = {
        name: lab(rgb)
        for name, rgb in survey.items()
        if name.replace(" ", "").isalpha() and not separators & set(name.split())
    }
    ends = {name: _last(name) for name in places if _last(name) in BASIC}
    known = np.array([places[name] for name in ends])

    def nearest(place: np.ndarray) -> list[str]:
        if place[0] > WHITISH[0] and np.hypot(*place[1:]) < WHITISH[1]:
            return ["white"]
        order = np.argsort(np.linalg.norm(known - place, axis=1), kind="stable")[:NEAREST]
        votes = Counter(list(ends.values())[at] for at in order)
        return [basic for basic, count in votes.most_common() if count >= VOTES]

    for name in sorted(places.keys() - set(BASIC)):
        last = _last(name)
        if last in BASIC:
            yield name, [last]
        elif is_colour(last, survey, net):  # "light tan" means what "tan" means
            yield name, nearest(places.get(last, places[name]))


def _last(name: str) -> str:
    return name.split()[-1]


def lab(rgb: tuple[float, float, float]) -> np.ndarray:
    """Return the place in CIELAB of a colour in sRGB, [0, 1]: ISO/CIE 11664-4."""
    value = np.asarray(rgb)
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ linear / D65
    low = (6 / 29) ** 3
    x, y, z = np.where(ratio > low, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def is_colour(word: str, survey: Mapping[str, object], net: WordNet) -> bool:
    """Return whether a word mostly means a colour before a noun.

    It does if the survey has it with a shade ("dark navy"), if WordNet has an adjective of a
    colour, or if the noun's most frequent meaning is one.
    """
    if any(f"{shade} {word}" in survey for shade in SHADES):
        return True
    coloured = {
        meaning
        for each in ("chromatic", "achromatic")
        for meaning in net.meanings(each, ADJECTIVE)
    }
    if any(coloured.intersection(net.entry(each).alike) for each in net.meanings(word, ADJECTIVE)):
        return True
    level = net.meanings(word, NOUN)[:1]
    while level:
        level = tuple(above for each in level for above in net.entry(each).above)
        if any("color" in net.entry(above).words for above in level):
            return True
    return False


if __name__ == "__main__":
    main()
