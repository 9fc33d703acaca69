# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Texts are cut into noun chunks, and these into tokens."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.memory.words import (
    BREAKS,
    CLOSING,
    DETERMINERS,
    FILLERS,
    MAX_WORD,
    NEGATIONS,
    OPENING,
    REACH,
    chunks,
    pair,
    parse,
    question_chunks,
    stem,
    tokens,
)

MEANINGLESS = BREAKS | CLOSING | DETERMINERS | FILLERS | NEGATIONS | OPENING
NOUNS = st.sampled_from(["cup", "circle", "dogs", "table", "hat", "street"])
ADJECTIVES = st.sampled_from(["red", "small", "wooden", "two", "shiny"])
NAMES = st.tuples(st.lists(ADJECTIVES, max_size=REACH - 1, unique=True), NOUNS).map(
    lambda parts: (*parts[0], parts[1])
)
LINKS = st.sampled_from([", ", " and ", " on ", " with ", " next to ", ". ", " and a ", ", the "])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An image of a red chair and a blue cup.", [("red", "chair"), ("blue", "cup")]),
        ("The circle is red.", [("circle", "red")]),
        ("a cat in front of the box to the left of a bed", [("cat",), ("box",), ("bed",)]),
        ("a red circle at the top left", [("red", "circle"), ("top", "left")]),
        ("A man riding a horse, wearing a hat", [("man", "riding"), ("horse",), ("hat",)]),
        ("a well-lit street - at night", [("well", "lit", "street"), ("night",)]),
        ("a room with no people and a dog", [("room",), ("dog",)]),
        ("a man without a hat", [("man",)]),
        ("a trash can and a can of soda", [
            ("trash", "can"), ("can",), ("soda",), ("soda", "can"),
        ]),
        ("a full glass of cold water and a cup", [
            ("full", "glass"), ("cold", "water"), ("cup",), ("water", "glass"),
        ]),
        ("a dog that can swim can be seen", [("dog",), ("swim", "seen")]),
        ("a trash can that is full", [("trash", "can"), ("full",)]),
        ("no.", []),
        ("Il y a un café", [("il", "y"), ("un", "cafe")]),
        ("", []),
    ],
)  # fmt: skip
def test_a_text_is_cut_at_prepositions_conjunctions_articles_and_punctuation(text, expected):
    assert chunks(text) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Where did you last see the red circle?", [("", ("red", "circle"))]),
        ("have you seen my keys recently", [("", ("keys",))]),
        ("show me pictures of dogs", [("", ("dogs",))]),
        ("the cup to the left of the box", [("", ("cup",)), ("leftof", ("box",))]),
        ("a cup on top of a table under a lamp", [
            ("", ("cup",)), ("above", ("table",)), ("below", ("lamp",)),
        ]),
        ("what is on the table?", [("on", ("table",))]),
        ("What did you see last?", []),
        ("how long ago did you see the cup", [("", ("cup",))]),
        ("at what time did you see the cup?", [("", ("cup",))]),
        ("which day did you see the cup", [("", ("cup",))]),
        ("where is the cup right now?", [("", ("cup",))]),
        ("where is the can?", [("", ("can",))]),
        ("where did I leave my keys?", [("", ("keys",))]),
        ("list a bunch of keys and the nearest pair of scissors", [
            ("", ("keys",)), ("and", ("scissors",)),
        ]),
        ("which camera has seen the dog", [("", ("dog",))]),
        ("where has the cat gone?", [("", ("cat",))]),
        ("when was the first time you saw a dog?", [("", ("dog",))]),
        ("when did the dog first appear", [("", ("dog",))]),
        ("where is the first aid kit?", [("", ("first", "aid", "kit"))]),
        ("did she wear a hat and hold a cup", [("wear", ("hat",)), ("and hold", ("cup",))]),
        ("did anyone leave a backpack somewhere?", [("", ("backpack",))]),
        ("has anyone been in the hallway", [("", ("person",)), ("in", ("hallway",))]),
        ("is somebody left of the cup?", [("", ("person",)), ("leftof", ("cup",))]),
        ("what's next to the window?", [("beside", ("window",))]),
        ("can you see the red can", [("", ("red", "can"))]),
        ("what can you see on the table?", [("on", ("table",))]),
        ("where can I find the trash cans?", [("", ("trash", "cans"))]),
        ("can the cup be seen anywhere?", [("", ("cup",))]),
        ("did you see that can?", [("", ("can",))]),
        ("the can I left on the table", [("", ("can",)), ("on", ("table",))]),
        ("where is the list?", [("", ("list",))]),
        ("how many bananas are left on the table", [("", ("bananas",)), ("on", ("table",))]),
        ("is someone left in the room?", [("", ("person",)), ("in", ("room",))]),
        ("what camera did you see the dog on?", [("", ("dog",))]),
        ("I'm looking for any sign of a fire", [("", ("fire",))]),
        ("do you know where my umbrella is", [("", ("umbrella",))]),
        ("what does the dog look like ?", [("", ("dog",))]),
        ("what was in view?", []),
        ("what happened", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_question_has_its_things_and_the_words_between_them(question, expected):
    assert question_chunks(question)[0] == expected


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("a delivery truck parked in front", [(2, 3), (1,)]),
        ("two men carrying boxes", [(2, 4)]),
        ("the circle is red", [(1, 2)]),
        ("a red building", [(1, 2)]),
        ("a washing machine", [(2,)]),
        ("a cat sits", [(1, 2)]),
    ],
)
def test_a_noun_may_end_before_a_verb_or_with_its_chunk(text, ends):
    assert [chunk.ends for chunk in parse(text)] == ends


def test_the_rules_of_older_logs_stay():
    text = "a man holds a can of cold water"
    assert chunks(text) == [("man",), ("can",), ("cold", "water"), ("water", "can")]
    assert chunks(text, old=True) == [("man", "holds"), ("cold", "water")]
    assert tokens([text], old=True) == {"man", "hold", "hold_man", "cold", "water", "cold_water"}


@given(st.lists(NAMES, min_size=1, max_size=5), st.data())
def test_each_name_is_one_chunk_and_words_of_two_names_are_no_pair(names, data):
    text = "a " + " ".join(names[0])
    for name in names[1:]:
        text += data.draw(LINKS) + " ".join(name)
    assert chunks(text) == names
    assert [chunk for _, chunk in question_chunks(f"where did you see {text}?")[0]] == names
    inside = {
        pair(stem(one), stem(other))
        for name in names
        for one, other in itertools.combinations(name, 2)
    }
    assert {token for token in tokens([text]) if "_" in token} == inside


@given(st.text(max_size=200))
def test_any_text_gives_short_tokens_that_are_the_stems_of_its_chunks(text):
    found = tokens([text])
    words = {stem(word) for chunk in chunks(text) for word in chunk}
    assert {token for token in found if "_" not in token} == words
    assert all(":" not in token and " " not in token for token in found)
    assert all(0 < len(word) <= 2 * MAX_WORD for word in words)
    question_chunks(text)


@given(st.lists(NOUNS, max_size=60))
def test_the_pairs_of_a_long_chunk_are_few(words):
    chunk = [f"{word}{number}" for number, word in enumerate(words)]
    pairs = [token for token in tokens([" ".join(chunk)]) if "_" in token]
    assert len(pairs) <= REACH * len(chunk)


def test_an_inflected_word_has_the_stem_of_its_base_form():
    for one, other in (("circles", "circle"), ("crosses", "cross"), ("puppies", "puppy")):
        assert stem(one) == stem(other)
    assert stem("円") == "円"


def test_words_that_mean_nothing_are_no_tokens():
    text = " ".join(sorted(MEANINGLESS - NEGATIONS - OPENING - CLOSING))
    assert tokens([text]) == set()
