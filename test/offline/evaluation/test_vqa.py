# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scores of answers, against the rules that https://visualqa.org/evaluation.html states."""

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.offline.evaluation.vqa import accuracy, normalized

WORDS = st.sampled_from(["red", "Red.", "a red", "2", "two", "dont", "t-shirt", "t shirt", "no,"])
PEOPLE = 10


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # all characters in lower case
        ("Frisbee", "frisbee"),
        # periods are removed, except in a number
        ("u.s.a.", "usa"),
        ("3.5", "3.5"),
        ("a red square.", "red square"),
        # number words are digits
        ("two", "2"),
        ("Ten people", "10 people"),
        ("none", "0"),
        ("eleven", "eleven"),
        # articles are removed, also inside
        ("the man in an orange hat", "man in orange hat"),
        ("Thea", "thea"),
        # apostrophes that are missing in contractions are added
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("o'clock", "o'clock"),
        ("10 oclock", "10 o'clock"),
        # other punctuation is a space, or nothing beside a space
        ("t-shirt", "t shirt"),
        ("yes, no", "yes no"),
        ("yes,no", "yes no"),
        ("red/blue", "red blue"),
        ("what ?", "what"),
        # or if a comma separates thousands
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        # apostrophes and colons stay
        ("man's", "man's"),
        ("10:20", "10:20"),
        ("", ""),
    ],
)
def test_answers_are_compared_in_the_official_form(answer, expected):
    assert normalized(answer) == expected


@pytest.mark.parametrize(
    ("same", "expected"),
    # The answer that people gave counts one less for the choices that leave one of them out.
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_an_answer_of_three_people_counts_as_right(same, expected):
    others = [f"other {number}" for number in range(PEOPLE - same)]
    assert accuracy("red", ["red"] * same + others) == pytest.approx(expected)


@given(WORDS, st.lists(WORDS, min_size=2, max_size=PEOPLE))
def test_the_score_is_the_mean_over_all_choices_of_others(answer, truths):
    if len(set(truths)) > 1:
        said, compared = normalized(answer), [normalized(truth) for truth in truths]
    else:
        said, compared = answer, truths
    choices = list(itertools.combinations(compared, len(compared) - 1))
    expected = statistics.fmean(min(others.count(said) / 3, 1) for others in choices)
    assert accuracy(answer, truths) == pytest.approx(expected)


def test_answers_are_compared_as_they_are_if_all_people_agree():
    assert accuracy("Yes.", ["yes"] * PEOPLE) == 0
    assert accuracy(" yes\n", ["yes"] * PEOPLE) == 1
    assert accuracy("Yes.", ["yes"] * (PEOPLE - 1) + ["no"]) == 1


@given(st.text(max_size=30))
def test_any_text_has_an_official_form(text):
    found = normalized(text)
    assert found == " ".join(found.split())
    assert not set(found) & set(';/[]"{}()=+\\_-><@`,?!')
    assert not {"a", "an", "the"} & set(found.split())
