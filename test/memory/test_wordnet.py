# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""WordNet's files are read in place: every line is found, and meanings have their neighbours."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.memory import wordnet
from kosmos_ros.memory.meanings import Thesaurus
from kosmos_ros.memory.wordnet import ADJECTIVE, NOUN, Meaning, WordNet
from kosmos_ros.memory.words import stem

HEAD = "  1 This head, like WordNet's licence, has lines that begin with spaces.\n" * 3
LETTERS = st.text("ab_-'.9z", min_size=1, max_size=4)


@pytest.fixture(scope="module")
def net():
    if (found := wordnet.find()) is None:
        pytest.skip("wordnet-base is not installed: run scripts/setup")
    return found


def write(folder, index):
    """Write the files of a WordNet with this index of nouns: lemma, offsets."""
    lines = sorted(
        f"{lemma} n {len(offsets)} 0 {len(offsets)} 0 {' '.join(f'{o:08}' for o in offsets)}  \n"
        for lemma, offsets in index.items()
    )
    texts = {
        "index.noun": HEAD + "".join(lines),
        "noun.exc": "".join(sorted(f"{lemma}x {lemma}\n" for lemma in index)) or "\n",
    }
    for name in ("index.noun", "index.adj", "data.noun", "data.adj", "noun.exc", "adj.exc"):
        (folder / name).write_text(texts.get(name, HEAD))


@given(
    index=st.dictionaries(LETTERS, st.lists(st.integers(0, 10**8 - 1), min_size=1, max_size=3)),
    others=st.lists(LETTERS),
)
def test_bisection_finds_what_a_dictionary_of_the_lines_has(tmp_path_factory, index, others):
    folder = tmp_path_factory.mktemp("wordnet")
    write(folder, index)
    small = WordNet(folder)
    for lemma in [*index, *others]:
        expected = tuple(Meaning(NOUN, offset) for offset in index.get(lemma, ()))
        assert small.meanings(lemma.replace("_", " "), NOUN) == expected
        assert small.meanings(lemma, ADJECTIVE) == ()
    for lemma in index:
        assert lemma.replace("_", " ") in small.base_forms(f"{lemma}x".replace("_", " "), NOUN)


def test_every_word_of_wordnet_is_found(net):
    lines = list(wordnet.lines(net._index[NOUN]))
    for line in random.Random(1).sample(lines, 2000):
        lemma, *_ = line.decode().split()
        offsets = [int(field) for field in line.split()[-int(line.split()[2]) :]]
        found = net.meanings(lemma.replace("_", " "), NOUN)
        assert [meaning.offset for meaning in found] == offsets
        assert lemma.replace("_", " ") in [word.lower() for word in net.entry(found[0]).words]


def test_a_meaning_has_the_words_above_and_below_it(net):
    (puppy, *_) = net.meanings("puppy", NOUN)
    above = {word for up in net.entry(puppy).above for word in net.entry(up).words}
    assert {"pup", "dog"} <= above
    (dog, *_) = net.meanings("dog", NOUN)
    assert puppy in net.entry(dog).below
    (crimson, *_) = net.meanings("crimson", ADJECTIVE)
    assert {"red", "scarlet"} <= set(net.entry(crimson).words)


def test_base_forms_are_those_that_wordnet_has(net):
    assert net.base_forms("mice", NOUN) == ["mouse"]
    assert net.base_forms("circles", NOUN) == ["circle"]
    assert net.base_forms("redder", ADJECTIVE) == ["red"]
    assert net.base_forms("traffic lights", NOUN) == ["traffic light"]
    assert net.base_forms("qwertyish", NOUN) == net.base_forms("naïveté", NOUN) == []


def test_a_missing_or_empty_wordnet_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv(wordnet.VARIABLE, str(tmp_path))
    wordnet.find.cache_clear()
    assert wordnet.find() is None
    for name in ("index.noun", "index.adj", "data.noun", "data.adj", "noun.exc", "adj.exc"):
        (tmp_path / name).touch()
    wordnet.find.cache_clear()
    assert wordnet.find() is None
    write(tmp_path, {"dog": [7]})
    wordnet.find.cache_clear()
    assert wordnet.find().meanings("dog", NOUN) == (Meaning(NOUN, 7),)
    wordnet.find.cache_clear()


# Meanings --------------------------------------------------------------------------------------


def meant(net, question, said):
    """Return the words of `said` that can stand for those of a question."""
    known = {stem(word): word for word in said.split()}
    found = Thesaurus(known.keys(), net).alternatives(tuple(question.split()))
    return [" ".join(known[each] for each in one.stems) for one in found]


@pytest.mark.parametrize(
    ("question", "said", "expected"),
    [
        ("red", "red crimson blue", ["red", "crimson"]),  # itself, then a synonym or one below
        ("crimson", "red blue", ["red"]),
        ("couch", "sofa chair", ["sofa"]),
        ("vehicle", "car dog truck", ["car", "truck"]),
        ("car", "vehicle dog", []),  # more than one step above
        ("puppy", "dog cat", ["dog"]),
        ("puppy", "puppy dog", ["puppy"]),  # nothing above, because the log has the word
        ("disc", "circle square", ["circle"]),
        ("traffic light", "light traffic stoplight", ["traffic light", "stoplight"]),
        ("zebra", "circle white black", []),
        ("jet", "green", []),  # both mean a drug, but rarely
        ("mice", "mouse", ["mouse"]),
        ("man", "men woman", ["men"]),
        ("animal", "geese lamp", ["geese"]),
        ("human", "people nurse table", ["people", "nurse"]),
        ("people", "woman table", ["woman"]),
        ("person", "girl men dog bear", ["girl", "men"]),  # "dog" also means a person
        ("person", "backpack football control", []),  # stems of backpacker, footballer, controller
        ("person", "toaster", []),  # "toaster" also means who proposes a toast
        ("appliance", "toaster", ["toaster"]),
        ("animal", "chicken drill", ["chicken"]),  # "drill" rarely means a monkey
        ("tool", "hammer drill saw", ["hammer", "drill", "saw"]),  # "saw" also means a proverb
        ("furniture", "table chair", ["table", "chair"]),  # "table" first means an array
        ("fruit", "banana hammer", ["banana"]),
        ("vegetable", "broccoli", ["broccoli"]),
        ("dustbin", "trash can", ["trash can"]),
    ],
)
def test_a_word_stands_for_itself_synonyms_and_words_below(net, question, said, expected):
    assert sorted(meant(net, question, said)) == sorted(expected)


def test_the_same_word_is_the_closest_one(net):
    assert meant(net, "crimson", "red scarlet crimson")[0] == "crimson"


def test_without_wordnet_a_word_stands_for_its_own_forms():
    assert meant(None, "circles", "circle disc") == ["circle"]
    assert meant(None, "disc", "circle") == []
    assert meant(None, "person", "people persons men") == ["persons", "people"]
    assert meant(None, "buses", "bus") == ["bus"]
    assert meant(None, "bus", "buses") == ["buses"]


def test_compounds_are_terms_of_wordnet(net):
    def compound(words):
        return Thesaurus(set(), net).compound(tuple(words.split()))

    assert compound("traffic light pole") == 2
    assert compound("red cup") == 1
    assert compound("jet black circle") == 2
