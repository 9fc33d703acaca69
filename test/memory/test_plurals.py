# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Singulars and plurals lead to each other where the stemmer takes them for different words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.memory.plurals import PLURALS, STARTS, other_number
from kosmos_ros.memory.words import stem


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        *PLURALS.items(),
        ("policemen", "policeman"),
        ("bookshelves", "bookshelf"),
        ("buses", "bus"),
        ("canvases", "canvas"),
    ],
)
def test_both_numbers_lead_to_each_other(plural, singular):
    assert singular in other_number(plural)
    assert plural in other_number(singular)
    assert stem(plural) != stem(singular)  # otherwise nothing would have to be found


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=12))
def test_a_form_begins_as_the_word_or_as_a_word_of_the_table(word):
    for other in other_number(word):
        assert other != word
        assert other[:2] == word[:2] or {word[:2], other[:2]} <= STARTS


@pytest.mark.parametrize("word", ["dress", "table", "red", ""])
def test_other_words_have_no_other_form(word):
    assert other_number(word) == ()
