# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Names of colours mean basic colours, only before another word."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.memory import colours, wordnet
from kosmos_ros.memory.colours import MAX_CHUNKS, basic

TABLE = colours._table()
BASIC = {
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
    "grey",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("navy block", ["blue block"]),
        ("navy blue block", ["blue block"]),
        ("big grass green box", ["big green box"]),
        ("amber cup", ["yellow cup", "orange cup"]),
        ("small teal cup", ["small green cup", "small blue cup"]),
        ("charcoal gray hat", ["grey hat"]),
        ("light tan sofa", ["brown sofa"]),
    ],
)
def test_a_name_before_another_word_means_basic_colours(words, expected):
    assert [" ".join(each) for each in basic(tuple(words.split()))] == expected


@pytest.mark.parametrize(
    "words",
    ["navy", "red cup", "cup", "", "chocolate cake", "wine glass", "coffee cup", "leather bag",
     "apple pie", "banana peel", "forest path", "cup teal", "grey cup"],
)  # fmt: skip
def test_things_and_basic_colours_stay_as_they_are(words):
    assert basic(tuple(words.split())) == []


@given(st.lists(st.sampled_from([*TABLE, "cup", "big"]), max_size=8))
def test_other_words_stay_in_order(names):
    words = tuple(word for name in names for word in name.split())
    found = basic(words)
    assert len(found) <= MAX_CHUNKS
    for chunk in found:
        assert chunk[-1:] == words[-1:]
        assert set(chunk) <= BASIC | set(words)
        assert [word for word in chunk if word in ("cup", "big")] == [
            word for word in words if word in ("cup", "big")
        ]


def test_the_table_is_what_its_script_makes(capsys):
    pytest.importorskip("matplotlib")
    if wordnet.find() is None:
        pytest.skip("wordnet-base is not installed: run scripts/setup")
    from training import colour_names

    colour_names.main()
    assert capsys.readouterr().out == Path(colours.__file__).with_suffix(".txt").read_text()


def test_every_basic_colour_has_names():
    assert set(itertools.chain.from_iterable(TABLE.values())) == BASIC
