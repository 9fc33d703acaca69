# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The results of a frame become one look, in any order, which is sent when it is complete."""

from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.web.looks import ANSWER, CAPTION, KEPT, LATEST, PHRASES, PICTURE, Looks

EXPECTED = {CAPTION: 1, PHRASES: 1, ANSWER: 2, PICTURE: 1}
PARTS = [(CAPTION, "a"), (PHRASES, "b"), (ANSWER, "c"), (ANSWER, "d"), (PICTURE, True)]
KEY = ("front", "1.000000000")


class Clock:
    """Timers that are due when the test says so."""

    def __init__(self):
        self.due = []
        self.now = 0.0  # s

    def later(self, seconds, call):
        timer = Timer(self, call)
        self.due.append(timer)
        return timer

    def strike(self):
        due, self.due = self.due, []
        for timer in due:
            timer.call()


class Timer:
    def __init__(self, clock, call):
        self.clock, self.call = clock, call

    def cancel(self):
        if self in self.clock.due:
            self.clock.due.remove(self)


def looks(expected=EXPECTED):
    """Return Looks, its clock, and the contents of the looks that were sent."""
    clock, sent = Clock(), []
    send = lambda look: sent.append(  # noqa: E731
        {part: [*found] for part, found in look.parts.items()}
    )
    return Looks(send, lambda camera: expected, clock.later, lambda: clock.now), clock, sent


@given(st.permutations(PARTS))
def test_a_look_is_sent_once_when_its_last_part_arrives(parts):
    found, clock, sent = looks()
    for part, content in parts[:-1]:
        found.add(KEY, part, content)
    assert not sent
    found.add(KEY, *parts[-1])
    assert len(sent) == 1
    assert {part: sorted(map(str, contents)) for part, contents in sent[0].items()} == {
        CAPTION: ["a"], PHRASES: ["b"], ANSWER: ["c", "d"], PICTURE: ["True"],
    }  # fmt: skip
    assert not clock.due


def test_a_late_picture_is_sent_with_the_same_look_again():
    found, clock, sent = looks()
    for part, content in PARTS[:-1]:
        found.add(KEY, part, content)
    clock.strike()
    assert [PICTURE in look for look in sent] == [False]
    found.add(KEY, PICTURE, True)
    assert [PICTURE in look for look in sent] == [False, True]
    assert sent[1][CAPTION] == ["a"]
    assert not clock.due


def test_missing_parts_hold_a_look_back_once_only():
    found, clock, sent = looks()
    found.add(KEY, CAPTION, "a")
    found.add(KEY, ANSWER, "c")
    assert len(clock.due) == 1
    clock.strike()
    assert sent == [{CAPTION: ["a"], ANSWER: ["c"]}]


def test_a_part_that_is_no_longer_expected_belongs_to_its_look():
    found, clock, sent = looks({CAPTION: 1, PHRASES: 0})
    found.add(KEY, CAPTION, "a")
    found.add(KEY, PHRASES, "b")
    assert sent[-1] == {CAPTION: ["a"], PHRASES: ["b"]}


def test_a_frame_that_is_described_again_replaces_its_parts():
    found, clock, sent = looks({CAPTION: 1})
    found.add(KEY, CAPTION, "old")
    found.add(KEY, CAPTION, "new")
    assert sent == [{CAPTION: ["old"]}, {CAPTION: ["new"]}]


def test_a_frame_of_the_next_loop_has_no_part_of_the_frame_with_its_stamp():
    found, clock, sent = looks()
    for part, content in PARTS[:2]:  # no answers and no picture
        found.add(KEY, part, content)
    clock.now += LATEST + 1
    for part, content in PARTS[2:]:
        found.add(KEY, part, content)
    clock.strike()
    assert sent == [{ANSWER: ["c", "d"], PICTURE: [True]}]
    (look,) = found
    assert look.parts == sent[0]


def test_the_late_picture_of_an_earlier_frame_does_not_begin_a_look():
    found, clock, sent = looks({CAPTION: 1, PICTURE: 1})
    for part, content in [(CAPTION, 1), (CAPTION, 2), (PICTURE, "1"), (PICTURE, "2")]:
        found.add(KEY, part, content)
    (look,) = found
    assert look.parts == {CAPTION: [2], PICTURE: ["2"]}


def test_cameras_with_equal_stamps_have_their_own_looks():
    found, clock, sent = looks({CAPTION: 1})
    found.add(("front", "1.000000000"), CAPTION, "a cat")
    found.add(("rear", "1.000000000"), CAPTION, "a dog")
    assert [(look.camera, look.parts[CAPTION]) for look in found] == [
        ("front", ["a cat"]),
        ("rear", ["a dog"]),
    ]


def test_only_the_newest_looks_are_kept():
    found, clock, sent = looks()  # never complete, so each has a timer
    for index in range(KEPT + 10):
        found.add(("front", f"{index}.000000000"), CAPTION, index)
    kept = [look.stamp for look in found]
    assert len(kept) == KEPT
    assert kept[0] == "10.000000000"
    assert len(clock.due) == KEPT  # the forgotten looks are never sent
