# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recall finds the frames that a question fits, or says that there is none."""

import contextlib
import itertools
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kosmos_ros.errors import RequestError
from kosmos_ros.memory import recall as recall_module
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recall import (
    MAX_CHUNKS,
    MAX_QUESTION,
    MAX_WORDS,
    PAGE,
    REFUSED,
    Query,
    recall,
    unknown_words,
)
from kosmos_ros.memory.records import Answer, Box, Observation, Phrase, Pose
from kosmos_ros.memory.words import bare, chunks, question_chunks

COLOURS, KINDS = ("red", "green", "blue"), ("circle", "square", "star")
SECOND = 10**9  # ns


@pytest.fixture
def log(tmp_path):
    with ObservationLog.open(tmp_path / "memory.db") as log:
        yield log


@pytest.fixture(scope="module")
def net():
    if (found := wordnet.find()) is None:
        pytest.skip("wordnet-base is not installed: run scripts/setup")
    return found


def seen(stamp, caption, places=None, **fields):
    """Return an observation; `places` has the centre of each name's box in percent."""
    phrases = [
        Phrase(name, caption.index(name), caption.index(name) + len(name), (
            Box(x - 5, y - 5, x + 5, y + 5, 0.9),
        ))
        for name, (x, y) in (places or {}).items()
    ]  # fmt: skip
    values = {"camera": "", "score": 0.8, "width": 100, "height": 100} | fields
    return Observation(stamp, caption=caption, phrases=tuple(phrases), **values)


def stamps(log, text, net=None, **fields):
    return [result.observation.stamp for result in recall(log, Query(text, **fields), net)]


# Words -----------------------------------------------------------------------------------------


def test_a_thing_is_found_only_where_its_words_are_one_thing(log):
    log.add(
        [
            seen(1, "a red chair and a blue cup"),
            seen(2, "a red cup and a blue chair"),
            seen(3, "the cup is red"),
            seen(4, "a big red cup with a handle"),
            seen(5, "a room with no red cup"),
        ]
    )
    assert stamps(log, "where did you last see the red cup?") == [4, 3, 2]
    assert stamps(log, "red cups") == [4, 3, 2]
    assert stamps(log, "big cup") == [4]
    assert stamps(log, "blue cup and red chair") == [1]
    assert stamps(log, "green cup") == stamps(log, "red handle") == stamps(log, "zebra") == []


def test_one_thing_finds_several_and_a_can_is_a_thing(log):
    log.add([seen(1, "two men beside shelves"), seen(2, "a group of people and three buses")])
    log.add([seen(3, "a red can"), seen(4, "a dog that can jump over a red car")])
    assert stamps(log, "have you seen a man?") == [1]
    assert stamps(log, "a person and a bus") == [2]
    assert stamps(log, "the shelf") == [1]
    assert stamps(log, "where can i find the can?") == stamps(log, "red can") == [3]


def test_a_question_may_name_a_camera(log):
    log.add([seen(1, "a red cup", camera="front"), seen(2, "a red cup", camera="rear")])
    log.add([seen(3, "a dog", camera="rear")])
    assert stamps(log, "when did the front camera last see a cup?") == [1]
    assert stamps(log, "what did the rear camera see last?") == [3, 2]
    assert stamps(log, "which camera saw a red cup?") == [2, 1]
    assert stamps(log, "a dog on the front camera") == []
    assert stamps(log, "a cup on the rear camera", camera="rear") == [2]


@pytest.mark.parametrize(
    "question",
    ["how many cups did the rear camera see?", "which cups did the rear camera see last?",
     "the cup that the rear camera saw", "where was the cup when the rear camera saw it?",
     "does the rear camera still see the cup?"],
)  # fmt: skip
def test_a_camera_that_saw_a_thing_is_no_thing(log, question):
    log.add([seen(1, "a red cup", camera="front"), seen(2, "a red cup", camera="rear", score=0.5)])
    log.add([seen(3, "a dog", camera="rear"), seen(0, "a red cup", camera="rear", score=0.9)])
    assert stamps(log, question) == ([2, 0] if "last" in question else [0, 2])


@pytest.mark.parametrize(
    "question",
    ["did any camera see a cup?", "when did a camera see the cup", "a cup on camera",
     "the last time that a camera saw a cup", "did the cameras see a cup?",
     "did both cameras see a cup?", "has one of the cameras seen a cup?"],
)  # fmt: skip
def test_any_camera_is_no_thing(log, question):
    log.add([seen(1, "a cup"), seen(2, "a dog")])
    assert stamps(log, question) == [1]


def test_what_was_seen_first_or_last_is_all_that_a_frame_shows(log):
    log.add([seen(1, "a cup", {"a cup": (10, 10)}), seen(2, "a dog", {"a dog": (20, 20)})])
    assert stamps(log, "what did you see first?") == [1, 2]
    assert stamps(log, "what was in the latest image?") == [2, 1]
    assert stamps(log, "what was the last thing you saw?") == [2, 1]
    assert stamps(log, "the first thing that the camera saw") == [1, 2]
    (first, second) = recall(log, Query("what did the camera see last?"), None)
    assert [phrase.text for phrase in (*first.phrases, *second.phrases)] == ["a dog", "a cup"]


def test_a_camera_can_be_a_thing(log):
    log.add([seen(1, "a camera on a table"), seen(2, "a security camera"), seen(3, "a table")])
    for question in ("where was the camera last seen?", "a camera spotted on a table"):
        assert 3 not in stamps(log, question), question
    assert stamps(log, "when was my camera last seen?") == [2, 1]
    assert stamps(log, "where was the security camera last seen?") == [2]


def test_a_camera_that_the_log_does_not_have_is_refused(log):
    log.add([seen(1, "a cup", camera="front")])
    with pytest.raises(RequestError, match=r"one of the log's \('front'\), got 'left'"):
        stamps(log, "did the left camera see a cup?")


@pytest.mark.parametrize("colour", ["red", "orange", "yellow", "green", "blue", "white", "pink"])
def test_a_basic_colour_finds_only_itself(log, net, colour):
    others = {"red", "orange", "yellow", "green", "blue", "white", "pink"} - {colour}
    log.add([seen(1, f"a {colour} cup"), *(seen(2, f"a {other} cup") for other in others)])
    assert stamps(log, f"a {colour} cup", net) == [1]


def test_a_question_and_the_query_may_name_only_one_camera(log):
    log.add([seen(1, "a red cup", camera="front"), seen(2, "a red cup", camera="rear")])
    with pytest.raises(RequestError, match="at most one camera, got 'front' and 'rear'; ask a"):
        stamps(log, "front camera and rear camera")
    with pytest.raises(RequestError, match="question names, 'rear', or not be set, got 'front'"):
        stamps(log, "a cup, rear camera", camera="front")


@pytest.mark.parametrize(
    "question",
    ["when did the red cup disappear?", "has the red cup vanished", "where did the red cup go?",
     "do you know where the red cup went?", "when did the red cup go away", "the latest red cup",
     "when did the red cup disappear from view?", "where is the red cup now?",
     "when did you see a red cup last?", "when was the red cup last in view?",
     "is the red cup missing?", "has the red cup been moved?", "was the red cup taken?"],
)  # fmt: skip
def test_for_a_thing_that_is_gone_the_newest_frame_with_it_comes_first(log, question):
    log.add([seen(1, "a red cup", score=0.9), seen(2, "a red cup", score=0.5), seen(3, "a dog")])
    assert stamps(log, question) == [2, 1]


@pytest.mark.parametrize(
    ("caption", "question"),
    [
        ("a cell phone on a desk", "mobile phone"),
        ("a cell phone on a desk", "cellphone"),
        ("a cellphone on a desk", "cell phone"),
        ("a book shelf", "bookshelves"),
        ("a bookshelf", "a book shelf"),
        ("a person with sun glasses", "sunglasses"),
        ("a keyboard", "key board"),
    ],
)
def test_a_compound_is_found_as_one_word_and_as_two(log, net, caption, question):
    log.add([seen(1, caption), seen(2, "a desk lamp"), seen(3, "a book on the shelf")])
    assert stamps(log, question, net) == [1]


def test_two_words_are_not_always_a_compound(log, net):
    log.add([seen(1, "a black wooden board"), seen(2, "a driver"), seen(3, "a green house")])
    log.add([seen(4, "a red cap and a blue jacket"), seen(5, "a white cup"), seen(6, "a nurse")])
    log.add([seen(7, "an orange cup"), seen(8, "a ring")])
    assert stamps(log, "black board", net) == [1]
    assert stamps(log, "animal", net) == []  # "driverant" has the stem of "driver"
    for words in (None, net):  # "orangering" has that of "orange"
        assert stamps(log, "an orange ring", words) == []
    assert stamps(log, "greenhouse", net) == []
    assert stamps(log, "a person", net) == [6]  # no redcap and no bluejacket
    assert stamps(log, "a plant", net) == []  # no whitecup


def test_what_happened_to_a_thing_is_looked_for_before_the_thing_alone(log):
    log.add([seen(1, "a taken seat"), seen(2, "a bicycle with a missing wheel")])
    log.add([seen(3, "a seat"), seen(4, "a car with four wheels"), seen(5, "a cup", score=0.9)])
    log.add([seen(6, "a cup", score=0.1), seen(7, "a person stealing a bicycle")])
    assert stamps(log, "is the seat taken?") == [1]
    assert stamps(log, "is a wheel missing?") == [2]
    assert stamps(log, "where is the missing wheel?") == [2]
    for question in (
        "is the cup missing?",
        "has the cup been taken yet?",
        "who took the cup?",
        "did anyone move the cup?",
        "when did you lose sight of the cup?",
    ):
        assert stamps(log, question) == [6, 5], question
    for question in ("what has been stolen?", "did anyone take anything?", "who took it?"):
        assert stamps(log, question) == [], question


def test_what_vanished_is_no_question_for_any_frame(log):
    log.add([seen(1, "a cup")])
    assert stamps(log, "what disappeared?") == []
    assert stamps(log, "is anything missing?") == []
    assert stamps(log, "when did you first see the cup vanish?") == [1]


def test_a_compound_that_the_log_has_is_not_called_unknown(log, net):
    log.add([seen(1, "a cellphone")])
    assert unknown_words(log, "a mobile phone and a zebra", net) == ["zebra"]


def test_an_older_log_is_searched_by_its_own_rules(log):
    log.connection.execute("PRAGMA user_version = 2")
    log.old = True
    log.add([seen(1, "a trash can"), seen(2, "a bottle of water"), seen(3, "a man")])
    assert stamps(log, "where is the trash can?") == [1]
    assert stamps(log, "a bottle of water") == [2]
    assert stamps(log, "water bottle") == []


def test_the_words_of_a_question_are_found_before_a_verb(log, net):
    log.add(
        [seen(1, "a delivery truck parked in a street"), seen(2, "a hard hat lying on a shelf")]
    )
    assert stamps(log, "delivery truck", net) == [1]
    assert stamps(log, "hard hat", net) == [2]


@pytest.mark.parametrize(
    ("question", "fitting", "others"),
    [
        (
            "person",
            ["two men carrying boxes", "a police officer standing at a car", "a woman walks"],
            ["a washing machine", "a model car", "a coffee maker", "a dead plant", "a letter"],
        ),
        ("animal", ["a cat sits on a couch", "the dog is big"], ["a computer mouse"]),
        ("food", ["a plate of carrots"], ["an orange cone", "a green backpack"]),
        ("vehicle", ["a white truck is parked", "a delivery truck"], ["a fish tank"]),
        ("seat", ["a chair pushed to a table"], ["a can of soda"]),
        ("something crimson", ["a red circle"], ["a blue circle"]),
    ],
)
def test_another_word_counts_only_as_the_noun_of_a_thing(log, net, question, fitting, others):
    log.add(seen(number, caption) for number, caption in enumerate([*fitting, *others]))
    assert stamps(log, question, net) == list(reversed(range(len(fitting))))


def test_what_a_thing_holds_belongs_to_it(log, net):
    log.add([seen(1, "a glass of cold water"), seen(2, "a glass of milk and a bottle of water")])
    log.add([seen(3, "a water glass"), seen(4, "a glass beside the water")])
    assert stamps(log, "where is the glass of water?", net) == [3, 1]
    assert stamps(log, "water glass", net) == [3, 1]
    assert stamps(log, "glass of beverage", net) == [2]
    log.add([seen(5, "two men carrying boxes of food")])
    assert stamps(log, "food boxes", net) == stamps(log, "boxes of food", net) == [5]


def test_who_asks_for_a_person_if_there_is_one(log, net):
    log.add([seen(1, "a nurse in a room"), seen(2, "an empty room"), seen(3, "a team in a hall")])
    assert stamps(log, "who was in the room?", net) == [1]
    assert stamps(log, "Who did you see?", net) == [1]
    assert stamps(log, "who was in the hall?", net) == [3]
    assert stamps(log, "who did you see?", net, since=2) == []
    assert stamps(log, "who was in the room?") == [2, 1]


def test_the_first_time_is_asked_for(log):
    log.add([seen(number, "a dog" if number % 2 else "a cat", score=1.0) for number in range(9)])
    assert stamps(log, "when did you first see a dog?") == [1, 3, 5, 7]
    assert stamps(log, "when did the dog first appear?", limit=2) == [1, 3]
    assert stamps(log, "the first time you saw a dog", since=3, until=5) == [3, 5]
    assert stamps(log, "which camera first noticed the dog?", limit=1) == [1]
    assert stamps(log, "when was a dog seen for the first time", limit=1) == [1]
    assert stamps(log, "cat", first=True, limit=1) == [0]
    assert stamps(log, "which cat was seen most recently?", limit=1) == [8]
    assert stamps(log, "where did you last see a dog?") == [7, 5, 3, 1]
    for text, last in (
        ("when did you first see a dog?", True),
        ("first seen and last seen", False),
    ):
        with pytest.raises(
            RequestError, match=r"asks for the oldest frame, but.*remove one of the two"
        ):
            recall(log, Query(text, last=last), None)


def test_the_first_time_is_found_on_the_last_page(log, monkeypatch):
    monkeypatch.setattr("kosmos_ros.memory.recall.MAX_PAGE", 3)
    box = {"a dog": (50, 50), "a cat": (20, 50)}
    log.add([seen(number, "a dog and a cat", box) for number in range(20)])
    log.add([seen(20, "a dog and a cat", {"a dog": (20, 50), "a cat": (50, 50)})])
    assert stamps(log, "when did you first see a dog left of a cat?", limit=1) == [20]
    assert stamps(log, "when did you first see a dog?", limit=12) == list(range(12))


def test_a_thing_without_a_name_is_any_thing_in_that_place(log):
    log.add([seen(1, "a dog on the chair"), seen(2, "a chair"), seen(3, "a thing on a table")])
    assert stamps(log, "what is on the chair?") == stamps(log, "the thing on the chair") == [2, 1]
    log.add([seen(4, "a figure on a table"), seen(5, "a table")])
    assert stamps(log, "the figure on the table") == [4]


def test_the_phrases_that_match_come_with_their_boxes(log):
    log.add([seen(1, "a red cup and a blue box", {"a red cup": (20, 30), "a blue box": (70, 60)})])
    (found,) = recall(log, Query("the red cup"), None)
    assert [phrase.text for phrase in found.phrases] == ["a red cup"]
    assert found.phrases[0].boxes == (Box(15, 25, 25, 35, 0.9),)
    assert found.score == 0.8
    assert found.observation.caption == "a red cup and a blue box"


def test_answers_and_requested_phrases_are_found(log):
    cup = Phrase("a cup", 0, 0, (Box(0, 0, 10, 10, 0.5),))
    log.add(
        [
            seen(1, "", answers=(Answer("What is it?", "a green bottle", 0.25),)),
            Observation(2, "", "a dog", phrases=(cup, Phrase("a hat", 0, 0)), score=0.75),
        ]
    )
    (bottle,) = recall(log, Query("bottle"), None)
    assert (bottle.observation.stamp, bottle.score) == (1, 0.25)
    (found,) = recall(log, Query("cup"), None)
    assert (found.observation.stamp, found.score, found.phrases) == (2, 0.5, (cup,))
    assert stamps(log, "hat") == []


def test_other_words_of_the_same_meaning_are_found_and_are_less_close(log, net):
    log.add([seen(1, "a crimson disc"), seen(2, "a red circle"), seen(3, "a blue circle")])
    results = recall(log, Query("a red disc"), net)
    assert [result.observation.stamp for result in results] == [1]
    assert 0.0 < results[0].score < 0.8
    log.add([seen(4, "a sofa"), seen(5, "a truck"), seen(6, "a lamp")])
    assert stamps(log, "couch", net) == [4]
    assert stamps(log, "vehicle", net) == [5]
    assert stamps(log, "azure circle", net) == [3]
    assert stamps(log, "violet circle", net) == stamps(log, "zebra", net) == []
    assert stamps(log, "couch") == []


def test_a_synonym_of_several_words_matches_only_side_by_side_at_the_end_of_a_chunk(log, net):
    log.add([seen(1, "a light beside the traffic"), seen(2, "a traffic light")])
    log.add([seen(3, "a light in traffic and a pole"), seen(4, "a small white circle")])
    assert stamps(log, "traffic light", net) == stamps(log, "traffic signal", net) == [2]
    assert stamps(log, "butterfly", net) == []  # the small white is one


def test_a_thing_with_as_many_words_as_a_question_may_have_is_found(log):
    words = ["old", "big", "dusty", "round", "red", "iron", "coffee", "cup"]
    assert len(words) == MAX_WORDS
    log.add([seen(1, f"a {' '.join(words)}")])
    assert stamps(log, " ".join(words)) == stamps(log, " ".join(reversed(words))) == [1]


def test_a_word_that_says_nothing_may_be_missing(log):
    log.add([seen(1, "a red cup"), seen(2, "a thing")])
    assert stamps(log, "a red thing") == stamps(log, "the red coloured cup") == [1]
    assert stamps(log, "a thing") == [2]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("a star left of a circle", [1]),
        ("a circle to the right of the star", [1]),
        ("a star above a circle", [2]),
        ("a star over the circle", [2]),
        ("circle under a star", [2]),
        ("star right of the circle", []),
        ("star and circle", [4, 3, 2, 1]),
        ("star next to a circle", [4, 3, 2, 1]),
        ("circle below a star", [2]),
    ],
)
def test_a_relation_is_that_of_the_boxes(log, question, expected):
    text = "a star and a circle"
    log.add(
        [
            seen(1, text, {"a star": (20, 50), "a circle": (80, 50)}),
            seen(2, text, {"a star": (50, 20), "a circle": (50, 80)}),
            seen(3, text, {"a star": (50, 50), "a circle": (51, 51)}),  # too close to say
        ]
    )
    without_boxes = seen(4, text)
    log.add([without_boxes])
    related = "and" not in question and "next" not in question
    assert stamps(log, question) == ([4] if related else []) + expected


# Time, place and camera ------------------------------------------------------------------------


def test_camera_time_and_place_limit_the_search(log):
    log.add(
        seen(n, "a red cup", camera="ab"[n % 2], pose=Pose("map", float(n), 0.0) if n else None)
        for n in range(10)
    )
    assert stamps(log, "cup", limit=20) == list(range(9, -1, -1))
    assert stamps(log, "cup", camera="b", limit=20) == [9, 7, 5, 3, 1]
    assert stamps(log, "cup", since=3, until=5) == [5, 4, 3]
    assert stamps(log, "cup", near=(5.0, 0.0, 1.0)) == [6, 5, 4]
    assert stamps(log, "cup", near=(5.0, 0.0, 1e6), limit=20) == list(range(9, 0, -1))
    assert stamps(log, "cup", camera="a", since=4, near=(5.0, 0.0, 1.0)) == [6, 4]
    assert stamps(log, "", since=8) == stamps(log, "what did you see?", since=8) == [9, 8]


def test_frames_of_the_same_stamp_have_the_same_time(log):
    log.add([seen(5, "a cup", camera=name) for name in "abc"])
    log.add([seen(6, "a cup")])
    assert stamps(log, "cup", until=5) == [5, 5, 5]
    assert stamps(log, "cup", since=6) == [6]
    assert stamps(log, "cup", since=6, until=5) == stamps(log, "cup", since=2**70) == []
    assert stamps(log, "cup", since=-(2**70), until=2**70) == [6, 5, 5, 5]


def test_a_pose_in_a_corner_outside_the_circle_is_not_near(log):
    log.add(seen(n, "a cup", pose=Pose("map", x, 0.9)) for n, x in enumerate((5.9, 5.3)))
    assert stamps(log, "cup", near=(5.0, 0.0, 1.0)) == [1]


def test_a_large_circle_is_found_behind_many_frames_elsewhere(log, monkeypatch):
    monkeypatch.setattr(recall_module, "MAX_CHECKED", PAGE)
    log.add(
        [seen(0, "a cup", pose=Pose("map", 900, -300)), seen(1, "a box", pose=Pose("map", 0, 0))]
    )
    log.add(seen(n, "a cup", pose=Pose("map", 5000, 0)) for n in range(2, 2 * PAGE))
    log.add([seen(3 * PAGE, "a cup")])
    assert stamps(log, "cup", near=(0.0, 0.0, 1000.0)) == [0]
    assert stamps(log, "", near=(0.0, 0.0, 1000.0), last=True) == [1, 0]
    assert len(stamps(log, "cup", near=(0.0, 0.0, 1e308), limit=1000)) == 2 * PAGE - 1


def test_each_frame_is_found_once(log):
    log.add([seen(n, "a cup") for n in range(3 * PAGE)])
    assert stamps(log, "cup", last=True, limit=2 * PAGE) == list(range(3 * PAGE - 1, PAGE - 1, -1))
    assert len(stamps(log, "cup", limit=6 * PAGE)) == 3 * PAGE
    assert stamps(log, "cup", limit=2 * PAGE) == list(range(3 * PAGE - 1, PAGE - 1, -1))


def test_the_best_frame_is_first_or_the_newest(log):
    log.add([seen(n, "a red cup", score=score) for n, score in enumerate((0.9, 0.3, 0.5))])
    assert stamps(log, "cup") == [0, 2, 1]
    assert stamps(log, "cup", last=True) == [2, 1, 0]
    assert stamps(log, "cup", last=True, limit=1) == [2]


def test_a_rare_match_behind_many_that_do_not_fit_is_found(log):
    places = {"a star": (80, 50), "a circle": (20, 50)}
    text = "a star and a circle"
    log.add([seen(0, text, {"a star": (20, 50), "a circle": (80, 50)})])
    log.add(seen(n, text, places) for n in range(1, 3 * PAGE))
    for last in (False, True):
        assert stamps(log, "a star left of a circle", last=last) == [0]


def test_the_number_of_checked_frames_is_limited(log, monkeypatch):
    monkeypatch.setattr(recall_module, "MAX_CHECKED", PAGE)
    text = "a star and a circle"
    log.add([seen(0, text, {"a star": (20, 50), "a circle": (80, 50)})])
    log.add(seen(n, text, {"a star": (80, 50), "a circle": (20, 50)}) for n in range(1, 2 * PAGE))
    assert stamps(log, "a star left of a circle") == []
    assert stamps(log, "a star right of a circle")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"camera": "left"}, "camera must be one of the log's ('front'), got 'left'"),
        ({"near": (0.0, 0.0, 0.0)}, "near must be finite x, y and a radius > 0"),
        ({"near": (0.0, float("nan"), 1.0)}, "near must be finite x, y and a radius > 0"),
        ({"limit": 0}, "limit must be in [1, 1000], got 0"),
        ({"text": "x" * (MAX_QUESTION + 1)}, "a question may have at most 1000 characters"),
        ({"text": ", ".join("bcdefghjk")}, "a question may name at most 8 things, got 9"),
        ({"text": " ".join("bcdefghjk")}, "a thing may have at most 8 words, got 9: 'b c d e f"),
    ],
)
def test_a_query_that_can_never_be_answered_is_refused(log, fields, message):
    log.add([seen(0, "a cup", camera="front")])
    with pytest.raises(RequestError) as error:
        recall(log, Query(**({"text": "zebra"} | fields)), None)
    assert str(error.value).startswith(message)


def test_a_frame_without_a_score_is_found(log):
    log.add([seen(0, "a red cup", score=0.0)])
    assert stamps(log, "red cup") == [0]


@pytest.mark.parametrize("text", ['"', "cup AND", "a*", "NEAR(", "tokens:cup", "-", "'; --", "円"])
def test_the_query_language_of_the_index_means_nothing_in_a_question(log, text):
    log.add([seen(0, "a dog")])
    assert stamps(log, f"{text} zebra") == []


@given(st.text(max_size=60), st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("a\u19b0b \u19b0", "a\u19b0b")  # a letter that SQLite does not know
@example("EXCEPT", "")
def test_any_question_about_any_caption_is_answered(log, said, asked):
    log.add([seen(0, said)])
    with contextlib.suppress(RequestError):
        stamps(log, asked)
    named = question_chunks(said)[0]
    short = all(len(words) <= MAX_WORDS for _, words in named) and len(named) <= MAX_CHUNKS
    if named and short and not REFUSED.intersection(map(bare, said.split())):
        assert stamps(log, said)


# The plain way ---------------------------------------------------------------------------------


def test_the_index_finds_what_reading_every_frame_finds(log):
    rng = random.Random(1)

    def named():
        return f"{rng.choice(COLOURS)} {rng.choice(KINDS)}"

    frames = [
        seen(stamp, "An image of a " + ", a ".join(named() for _ in range(rng.randint(1, 3))))
        for stamp in range(300)
    ]
    log.add(frames)
    asked = [*itertools.product(COLOURS, KINDS), *((word,) for word in (*COLOURS, *KINDS, "cup"))]
    for one, other in [(words, ()) for words in asked] + rng.sample(
        list(itertools.combinations(asked, 2)), 40
    ):
        text = " and ".join(" ".join(words) for words in (one, other) if words)
        plain = [
            frame.stamp
            for frame in reversed(frames)
            if all(
                any(set(words) <= set(chunk) for chunk in chunks(frame.caption))
                for words in (one, other)
            )
        ]
        assert stamps(log, text, last=True, limit=1000) == plain


@pytest.mark.parametrize(
    ("question", "word"),
    [("a star without a square", "without"), ("No red cup!", "no"), ("a cup or a bowl", "or")],
)
def test_a_question_for_what_is_absent_or_for_either_is_refused(log, question, word):
    with pytest.raises(RequestError, match=f"got '{word}'; name only what is in view, each"):
        recall(log, Query(question), None)


def test_words_of_time_and_number_in_a_question_are_understood(log):
    hour, now = 3600 * SECOND, 10**6 * SECOND
    log.add([seen(now - hours * hour, "a red cup") for hours in (1, 3)])
    asked = "how many red cups were there in the last 2 hours?"
    assert stamps(log, asked, now=now) == [now - hour]
    assert stamps(log, "red cup in the last day", now=now) == [now - hour, now - 3 * hour]
    with pytest.raises(RequestError, match="last 2 hours.' names a time that is not between"):
        stamps(log, asked, now=now, until=now - 3 * hour)
    assert unknown_words(log, "where was a zebra", None) == ["zebra"]
    assert unknown_words(log, "is the zebra missing?", None) == ["zebra"]


def test_a_colour_name_finds_its_basic_colour_if_nothing_else_fits(log):
    log.add([seen(1, "a blue circle"), seen(2, "a gray square"), seen(3, "a red star")])
    assert stamps(log, "where is the navy circle?") == [1]
    assert stamps(log, "the light blue circle and the charcoal square") == []
    assert stamps(log, "a grey square") == [2]
    assert stamps(log, "a navy star") == []
    assert stamps(log, "navy") == []
    (found,) = recall(log, Query("the navy circle"), None)
    assert found.score == pytest.approx(0.7 * 0.8)
    log.add([seen(4, "a navy circle"), seen(5, "a blue circle")])
    assert stamps(log, "where is the navy circle?", last=True) == [4]


def test_a_colour_name_keeps_its_own_meaning_beside_another_one(log):
    log.add([seen(1, "a navy circle left of a green square")])
    assert stamps(log, "a navy circle left of an olive square") == [1]


def test_a_colour_name_is_unknown_only_without_its_basic_colour(log):
    log.add([seen(1, "a blue circle")])
    assert unknown_words(log, "the navy circle", None) == []
    assert unknown_words(log, "the navy zebra", None) == ["zebra"]
    assert unknown_words(log, "the crimson circle", None) == ["crimson"]


def test_a_relation_without_a_first_thing_asks_for_any_other_thing(log):
    log.add(
        [
            seen(1, "a red cup and a box", {"a red cup": (20, 50), "a box": (70, 50)}),
            seen(2, "a red cup and a box", {"a red cup": (70, 50), "a box": (20, 50)}),
            seen(3, "a red cup", {"a red cup": (20, 50)}),
            seen(4, "a red cup and a box", {"a box": (20, 50)}),
        ]
    )
    for question in (
        "what is left of the red cup?",
        "what did you see to the left of the cup?",
        "something left of the cup",
        "anything left of a red cup?",
        "which thing is left of the cup?",
        "how many objects are to the left of the red cup?",
        "who is left of the cup?",
        "what can be seen to the left of the cup?",
    ):
        assert stamps(log, question) == [2], question
    assert stamps(log, "what is to the right of the red cup?") == [1]
    (found,) = recall(log, Query("what is to the right of the red cup?"), None)
    assert [phrase.text for phrase in found.phrases] == ["a red cup", "a box"]
    assert stamps(log, "what is below the cup?") == []
    assert stamps(log, "what is beside the cup?") == [4, 3, 2, 1]


@pytest.mark.parametrize(
    "question",
    [
        "red cup left of",
        "red cup to the left of it?",
        "what is above",
        "what was above you there?",
    ],
)
def test_a_relation_without_a_second_thing_is_refused(log, question):
    log.add([seen(1, "a red cup")])
    with pytest.raises(RequestError, match="a thing after its preposition, got '") as refused:
        recall(log, Query(question), None)
    assert str(refused.value).endswith(f"got '{question}'")


@pytest.mark.parametrize(
    ("caption", "question"),
    [
        ("a chair is knocked over", "did you see a chair that was knocked over?"),
        ("a kite in the sky", "where is the kite in the sky above?"),
        ("a red all-terrain vehicle", "red vehicle"),
        ("the car is all red", "red car"),
        ("a box in front of a red cup", "what is in front of the red cup?"),
        ("a red cup on a table", "how many red cups did you see on the table?"),
        ("a gray cat", "where is the cat that is grey?"),
        ("a grey cat", "grey cat"),
        ("a blue cup", "the navy thing"),
        ("a blue cup", "navy objects"),
        ("red things", "anything else red"),
    ],
)
def test_ordinary_questions_are_answered(log, caption, question):
    log.add([seen(1, caption)])
    assert stamps(log, question) == [1]


@pytest.mark.parametrize(
    "question",
    [
        "how many red cups did you see?",
        "the red cups that you have already seen",
        "which red cup did you see last?",
        "what red cups have you seen so far?",
        "show me all red cups",
        "have you seen anything red?",
        "something red",
        "where did we lose sight of the red cup?",
        "did anybody move the red cup?",
        "who took the red cup?",
    ],
)
def test_words_around_the_thing_mean_nothing(log, question):
    log.add([seen(1, "a red cup"), seen(2, "a blue cup")])
    assert stamps(log, question) == [1]


def test_a_place_in_the_image_is_compared_with_its_centre(log):
    log.add(
        [
            seen(1, "a red cup and a box", {"a red cup": (20, 80), "a box": (70, 20)}),
            seen(2, "a red cup and a box", {"a red cup": (70, 20), "a box": (20, 80)}),
            seen(3, "a red cup"),
            seen(4, "a red cup", {"a red cup": (50, 50)}),
        ]
    )
    for question, expected in (
        ("the red cup on the left", [1]),
        ("where is the cup on the right side?", [2]),
        ("a cup at the bottom of the image", [1]),
        ("the cup in the top half of the picture", [2]),
        ("a cup on the left and a box on the right", [1]),
        ("a cup on the left and a box on the left", []),
        ("a cup in the lower left corner", [1]),
        ("is there a cup at the top-right?", [2]),
        ("a cup at the bottom right of the image", []),
        ("was a cup in the lower left-hand corner last?", [1]),
        ("a cup in the upper left-hand corner", []),
        ("is a cup at the bottom left now?", [1]),
        ("a cup at the upper right and a box at the bottom left", [2]),
        ("a box to the left of the red cup", [2]),
        ("did you see a cup?", [4, 3, 2, 1]),
        ("a cup in the left hand", []),
        ("a cup on the left of the box", [1]),
    ):
        assert stamps(log, question) == expected, question
    for question in (
        "what is on the left?",
        "what did you see on the left?",
        "a thing on the left",
    ):
        assert stamps(log, question) == [2, 1], question
    assert stamps(log, "what is at the top right?") == [2, 1]
    log.add([seen(5, "a hat", {"a hat": (20, 10)}), seen(6, "two hats", {"two hats": (10, 90)})])
    assert stamps(log, "what is in the top left corner?") == [5]
    last, first = recall(log, Query("what is on the left?", until=4), None)
    assert [phrase.text for phrase in first.phrases + last.phrases] == ["a red cup", "a box"]
    assert unknown_words(log, "a zebra on the left", None) == ["zebra"]
