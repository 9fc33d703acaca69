# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The worker's thread with an engine that takes a step for each token, without ROS."""

import threading

import pytest
from stepper import WAIT, Message, Rig, Stepper

from kosmos_ros.errors import DeviceLostError, GenerationError, QueueFullError

FULL = "the queue is full: 2 requests wait (queue_size); try again later"


def test_a_question_joins_a_running_batch_at_the_next_token():
    engine = Stepper()
    rig = Rig(engine, most=3)
    rig.offer("front", ["a", "b", "c", "d"], 5)
    engine.at[2] = lambda: rig.ask("question", ["q"], 2, camera="front")
    assert rig.run(2) == ["question", "front"]
    assert engine.steps[:2] == [["a", "b"]] * 2
    assert engine.steps[2:4] == [["a", "b", "q"]] * 2
    assert engine.steps[4:6] == [["a", "b"], ["c", "d"]]
    assert engine.encoded == [1]  # the same frame
    assert rig.said == {"question": ["7"], "front": ["7"] * 4}


def test_a_question_goes_before_what_waits_where_there_is_one_row():
    engine = Stepper()
    rig = Rig(engine, most=1)
    rig.offer("front", ["a", "b"], 3)
    engine.at[2] = lambda: rig.ask("question", ["q"], 1, camera="front")
    assert rig.run(2) == ["question", "front"]
    assert engine.steps == [["a"]] * 3 + [["q"]] + [["b"]] * 3


def test_a_frame_joins_where_there_is_room_and_leaves_a_row_to_requests():
    engine = Stepper()
    rig = Rig(engine, most=4)
    rig.offer("front", ["a", "b"], 8)
    engine.at[2] = lambda: (rig.offer("rear", ["c"], 2, 8), rig.offer("left", ["d"], 2, 9))
    assert rig.run(3) == ["rear", "left", "front"]
    assert rig.said == {"front": ["7", "7"], "rear": ["8"], "left": ["9"]}
    assert max(map(len, engine.steps)) == 3


def test_after_an_error_each_is_tried_alone_and_then_in_parts():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses = lambda under_way: GenerationError("too much") if len(under_way) > 1 else None
    rig.ask("one", ["a"], 2)
    rig.ask("two", ["b", "c", "d"], 1, value=4)
    assert rig.run(2) == ["one", "two"]
    assert rig.said == {"one": ["3"], "two": ["4"] * 3}
    assert [len(under_way) for under_way in engine.steps] == [4, 1, 1, 3, 1, 1, 1]


def test_what_waited_is_not_asked_besides_when_all_is_tried_again():
    engine = Stepper()
    rig = Rig(engine, most=2)
    engine.refuses = lambda under_way: GenerationError("too much") if len(under_way) > 1 else None
    rig.ask("one", ["a", "b", "c", "d"], 1)
    rig.run(1)
    assert rig.said == {"one": ["3"] * 4}
    assert engine.steps == [["a", "b"], ["a"], ["b"], ["c"], ["d"]]


def test_what_can_never_be_is_refused_and_the_rest_goes_on():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses = lambda under_way: GenerationError("bad") if "bad" in under_way else None
    rig.ask("good", ["a"], 1)
    rig.ask("bad", ["b", "bad"], 1)
    rig.ask("late", ["c"], 1)
    rig.run(3)
    assert rig.said == {"good": ["3"], "late": ["3"]}
    assert rig.errors == {"bad": "bad"}


def test_a_picture_that_cannot_be_encoded_leaves_those_under_way_alone():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses_pictures = lambda images: (
        GenerationError("white") if any(image.max() == 255 for image in images) else None
    )
    rig.ask("under way", ["a"], 4)
    engine.at[2] = lambda: rig.ask("white", ["b"], 1, value=255)
    rig.run(2)
    assert rig.said == {"under way": ["3"]}
    assert rig.errors == {"white": "white"}
    assert engine.steps == [["a"]] * 4


@pytest.mark.fault(32)
def test_a_lost_device_is_told_to_all_and_ends_the_worker():
    """To those under way, to those that wait for a row and to those to be tried again."""
    engine = Stepper()
    rig = Rig(engine, most=3)
    rig.ask("one", ["a"], 5)
    rig.ask("two", ["b"], 5)
    rig.ask("three", ["c", "d", "e"], 5)
    engine.refuses = lambda _: DeviceLostError("gone") if len(engine.steps) == 2 else None
    assert sorted(rig.run(3)) == ["one", "three", "two"]
    assert isinstance(rig.error, DeviceLostError)
    assert rig.errors == dict.fromkeys(("one", "two", "three"), "gone")


@pytest.mark.fault(32)
def test_a_device_lost_while_each_is_tried_alone_is_told_to_the_rest():
    engine = Stepper()
    rig = Rig(engine, most=3)
    for name in ("one", "two", "three"):
        rig.ask(name, [name], 5)
    errors = {1: GenerationError("too much"), 3: DeviceLostError("gone")}
    engine.refuses = lambda _: errors.get(len(engine.steps))
    assert sorted(rig.run(3)) == ["one", "three", "two"]
    assert rig.errors == dict.fromkeys(("one", "two", "three"), "gone")


def test_requests_wait_in_the_queue_until_a_row_is_free():
    """Where they are refused when it is full, and time out."""
    engine = Stepper()
    rig = Rig(engine, most=1)
    rig.scheduler.queue_size = 2
    rig.ask("long", ["a"], 30)
    refused = []

    def crowd():
        for number in range(5):
            try:
                rig.ask(f"{number}", ["q"], 1)
            except QueueFullError as exc:
                refused.append(str(exc))

    engine.at[2] = crowd
    engine.at[20] = lambda: refused.append(rig.scheduler.waiting())
    assert rig.run(3) == ["long", "0", "1"]
    assert refused == ["the queue is full: 2 requests wait (queue_size); try again later"] * 3 + [
        2
    ]
    assert engine.encoded == [1, 1, 1]


def test_a_question_goes_before_frames_that_are_tried_again():
    engine = Stepper()
    rig = Rig(engine, most=3)
    for number, camera in enumerate(("a", "b", "c")):
        rig.offer(camera, [camera], 3, value=number)
    errors = {1: GenerationError("too much")}
    engine.refuses = lambda _: errors.get(len(engine.steps))
    engine.at[2] = lambda: rig.ask("question", ["q"], 1)
    assert rig.run(4) == ["a", "question", "b", "c"]


@pytest.mark.parametrize("who", ["paused", "stopped"])
def test_what_is_stopped_ends_at_the_next_token(who):
    engine = Stepper()
    rig = Rig(engine)
    stop = threading.Event()
    if who == "paused":
        rig.paused = stop.is_set
    stopped = stop if who == "stopped" else threading.Event()
    rig.scheduler.submit(rig.work("one", ["a"], 10**6, image=Message(1), stopped=stopped))
    engine.at[3] = stop.set
    rig.run(1)
    assert rig.errors == {"one": "generation was stopped"}
    assert len(engine.steps) == 3


def test_who_cannot_be_told_of_progress_is_alone_in_it():
    engine = Stepper()
    rig = Rig(engine)

    def progress(_):
        raise RuntimeError("publisher's context is invalid")

    rig.scheduler.submit(rig.work("broken", ["a"], 9, image=Message(1), progress=progress))
    rig.ask("whole", ["b"], 4)
    rig.run(2)
    assert rig.errors == {"broken": "publisher's context is invalid"}
    assert rig.said == {"whole": ["3"]}
    assert engine.encoded == [2]


def test_all_are_told_when_the_worker_is_closed():
    engine = Stepper()
    rig = Rig(engine, most=1)
    rig.ask("one", ["a", "b", "c"], 10**6)
    closing = threading.Event()
    engine.at[3] = closing.set
    rig.expected = 1
    worker = rig.start()
    assert closing.wait(WAIT)
    worker.close()
    assert worker.join(WAIT)
    assert rig.errors == {"one": "generation was stopped"}


@pytest.mark.parametrize("asked", [1, 7])
def test_prompts_of_a_picture_are_answered_in_their_order(asked):
    engine = Stepper()
    rig = Rig(engine, most=3)
    words = [f"w{number}" for number in range(asked)]
    rig.ask("many", words, 3)
    rig.run(1)
    assert rig.said == {"many": ["3"] * asked}
    assert sorted({prompt for step in engine.steps for prompt in step}) == words


def test_what_nobody_asks_anything_of_is_not_encoded():
    rig = Rig(Stepper())
    rig.offer("front", [], 3)
    rig.offer("rear", ["a"], 3)
    assert sorted(rig.run(expected=2)) == ["front", "rear"]
    assert rig.errors == {"front": "the last subscriber has left"}
    assert rig.engine.encoded == [1]
