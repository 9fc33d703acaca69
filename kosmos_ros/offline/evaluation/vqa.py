# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Score answers as the official evaluation of VQAv2 does.

The rules are those of vqaEval.py of https://github.com/GT-Vision-Lab/VQA (commit a013f00).
Knows no data set and no model.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

FULL = 3  # people who must give the answer for a score of 1

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # the official code passes the flag re.UNICODE, 32, where `sub` reads a count
_THOUSANDS = re.compile(r"\d,\d")
_ARTICLES = {"a", "an", "the"}
_UP_TO_TEN = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(number) for number, word in enumerate(_UP_TO_TEN.split())} | {"none": "0"}
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll
    you're you've
"""
"""Words in which a missing apostrophe is restored."""
_MENDED = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place in range(len(word))
    if word[place] == "'"
} | {"somebody'd": "somebodyd"}  # as the official table has it


def normalized(answer: str) -> str:
    """Return an answer in the form in which answers are compared.

    The text is in lower case. Punctuation becomes a space, or is removed beside a space. Articles
    are removed. Words for numbers up to ten become digits.
    """
    words = _without_punctuation(answer).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, truths: Sequence[str]) -> float:
    """Return the score, 0 to 1, of an answer; `truths` are the answers of at least two people.

    It is min(n / 3, 1), where n others gave the same answer, averaged over all choices of the
    others: all people but one. If all people agree, answers are compared as they are.
    """
    answer, truths = _one_line(answer), [_one_line(truth) for truth in truths]
    if len(set(truths)) > 1:
        answer, truths = normalized(answer), [normalized(truth) for truth in truths]
    same = [truth == answer for truth in truths]
    return statistics.fmean(min((sum(same) - left_out) / FULL, 1.0) for left_out in same)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    without = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        without = without.replace(mark, "" if beside_space or _THOUSANDS.search(text) else " ")
    return _PERIOD.sub("", without, count=_MOST_PERIODS)
