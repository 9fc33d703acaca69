# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Images are decoded in other threads, while the model's thread continues."""

import gc
import threading
import weakref
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stepper import WAIT, Message, Rig, Stepper

from kosmos_ros.errors import DeviceLostError, GenerationError, ImageError
from kosmos_ros.serving import decoding as module
from kosmos_ros.serving.decoding import THREADS, Decoding
from kosmos_ros.serving.scheduler import Drop
from kosmos_ros.serving.work import Work
from kosmos_ros.serving.worker import Worker

PIXELS = np.zeros((2, 3, 3), np.uint8)


class Slow(Executor):
    """A pool whose calls end when the test says so."""

    def __init__(self):
        self.calls = []

    def submit(self, function, /, *arguments, **options):
        future = Future()
        self.calls.append((lambda: function(*arguments, **options), future))
        return future

    def finish(self, number=0):
        """Run one of the calls that wait."""
        call, future = self.calls.pop(number)
        try:
            future.set_result(call())
        except Exception as exc:
            future.set_exception(exc)


def work(urgent=True):
    return Work(lambda *_: (), print, print, 1, urgent=urgent)


class Turns:
    """A worker whose turns the test takes itself, with images that the test decodes."""

    def __init__(self, monkeypatch, most=3):
        self.pool = Slow()
        self.rig = Rig(Stepper(), most, self.pool)
        self.engine = self.rig.engine
        monkeypatch.setattr(Worker, "_run", lambda worker: None)
        monkeypatch.setattr(module, "POLL", 0.0)  # no other thread decodes, so waiting is in vain
        self.worker = self.rig.start()
        assert self.worker.join(WAIT)
        self.worker._decode = lambda message, max_pixels: message.pixels

    def turn(self):
        return self.worker._turn(self.engine)


# The pool ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["front", "rear", "request", "decode"]), max_size=40), st.data())
def test_each_image_is_ready_once_and_no_frame_overtakes_another_of_its_camera(steps, data):
    pool = Slow()
    decoding = Decoding(pool)
    begun, ready = {"front": [], "rear": [], "request": []}, []
    for number, step in enumerate([*steps, *["decode"] * len(steps)]):
        if step != "decode":
            decoding.begin(work(step == "request"), step, number, lambda: PIXELS)
            begun[step].append(number)
        elif pool.calls:
            pool.finish(data.draw(st.integers(0, len(pool.calls) - 1)))
            done = decoding.ready()
            assert all(arrival.image.done() for arrival in done)
            ready += [(arrival.camera, arrival.source) for arrival in done]
    assert not decoding.works
    for camera in ("front", "rear"):
        assert [source for name, source in ready if name == camera] == begun[camera]
    assert sorted(source for name, source in ready if name == "request") == begun["request"]


def test_a_request_does_not_wait_for_a_frame_and_frames_do_not_wait_for_requests():
    pool = Slow()
    decoding = Decoding(pool)
    for urgent, source in ((False, "frame"), (True, "request"), (False, "other frame")):
        decoding.begin(work(urgent), "front" if source != "other frame" else "rear", source, str)
    pool.finish(2)
    assert [arrival.source for arrival in decoding.ready()] == ["other frame"]
    pool.finish(1)
    assert [arrival.source for arrival in decoding.ready()] == ["request"]
    assert len(decoding.works) == 1


def test_several_images_are_decoded_at_a_time():
    decoding = Decoding()
    together = threading.Barrier(THREADS)

    def decode():
        together.wait(WAIT)  # until THREADS images are being decoded
        return PIXELS

    for number in range(THREADS):
        decoding.begin(work(), "", number, decode)
    while decoding.works:
        decoding.wait()
        for arrival in decoding.ready():
            assert arrival.image.result() is PIXELS
    decoding.close()


def test_work_about_one_message_shares_its_image_and_known_pixels_are_not_decoded_again():
    pool = Slow()
    decoding = Decoding(pool)
    message = object()
    for _ in range(2):
        decoding.begin(work(), "front", message, lambda: PIXELS.copy())
    decoding.begin(work(), "front", object(), lambda: pytest.fail("decoded"), PIXELS)
    (known,) = decoding.ready()
    assert known.image.result() is PIXELS
    assert len(pool.calls) == 1
    pool.finish()
    one, other = decoding.ready()
    assert one.image.result() is other.image.result()


def test_stuck_is_the_age_of_the_oldest_image_in_a_thread(monkeypatch):
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    decoding = Decoding()
    inside, go_on = threading.Semaphore(0), threading.Event()

    def decode():
        inside.release()
        assert go_on.wait(WAIT)
        return PIXELS

    assert decoding.stuck() == 0.0
    for number in range(2):
        decoding.begin(work(), "", number, decode)
        assert inside.acquire(timeout=WAIT)
        now += 3.0
    assert decoding.stuck() == 6.0
    go_on.set()
    while decoding.works:
        decoding.wait()
        decoding.ready()
    assert decoding.stuck() == 0.0
    decoding.close()


# The worker --------------------------------------------------------------------------------------


def test_running_prompts_go_on_while_an_image_is_decoded(monkeypatch):
    turns = Turns(monkeypatch)
    turns.rig.ask("long", ["a"], 9)
    turns.turn()
    turns.pool.finish()
    turns.turn()
    turns.rig.ask("short", ["b"], 1)
    for _ in range(3):
        turns.turn()
    assert turns.engine.steps == [["a"]] * 4
    turns.pool.finish()
    turns.turn()
    assert turns.engine.steps[4:] == [["a", "b"]]
    assert turns.rig.answered == ["short"]


def test_images_that_are_ready_together_are_encoded_together(monkeypatch):
    turns = Turns(monkeypatch, most=4)
    for name in "abc":
        turns.rig.ask(name, [name], 1)
    turns.turn()
    assert turns.engine.encoded == []
    for _ in range(3):
        turns.pool.finish()
    turns.turn()
    assert turns.engine.encoded == [3]


def test_work_whose_image_is_being_decoded_takes_a_row(monkeypatch):
    """Otherwise more images than rows would be decoded, and would wait in memory."""
    turns = Turns(monkeypatch, most=3)
    for number in range(5):
        turns.rig.offer(f"camera {number}", ["a"], 1)
        turns.turn()
    assert len(turns.pool.calls) == 2  # one row is kept for a request
    for name in "abcd":  # requests go before the frames
        turns.rig.ask(name, [name], 1)
    turns.turn()
    turns.turn()
    assert len(turns.pool.calls) == 2 + 3
    assert turns.rig.scheduler.waiting() == 1


def test_new_work_passes_a_slow_image():
    rig = Rig(Stepper(), most=3)
    slow, go_on = threading.Event(), threading.Event()

    def decode(message, max_pixels):
        if message.pixels[0, 0, 0] == 9:
            slow.set()
            assert go_on.wait(WAIT)
        return message.pixels

    rig.pool = None  # threads
    rig.load = lambda: (rig.engine, decode)
    rig.expected = 1
    rig.ask("slow", ["a"], 1, value=9)
    worker = rig.start()
    assert slow.wait(WAIT)
    rig.ask("quick", ["b"], 1)
    assert rig.all_answered.wait(WAIT)
    assert rig.answered == ["quick"]
    go_on.set()
    worker.close()
    assert worker.join(WAIT)
    assert sorted(rig.answered) == ["quick", "slow"]  # the second one may be refused


def test_a_worker_watches_its_images_and_does_not_end_before_them():
    """Python waits at exit for a thread that hangs, so the node must notice the hanging thread."""
    rig = Rig(Stepper())
    inside, go_on = threading.Event(), threading.Event()

    def decode(message, max_pixels):
        inside.set()
        assert go_on.wait(WAIT)
        return message.pixels

    rig.pool = None
    rig.load = lambda: (rig.engine, decode)
    rig.ask("one", ["a"], 1)
    worker = rig.start()
    assert inside.wait(WAIT)
    assert worker.stuck() > 0.0
    worker.close()
    assert not worker.join(0.05)
    go_on.set()
    assert worker.join(WAIT)
    assert rig.errors == {"one": "generation was stopped"}
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_a_broken_image_fails_alone_although_others_are_decoded_beside_it(monkeypatch):
    turns = Turns(monkeypatch)

    def decode(message, max_pixels):
        if message.pixels[0, 0, 0] == 9:
            raise ImageError("no pixels")
        return message.pixels

    turns.worker._decode = decode
    turns.rig.ask("bad", ["a"], 1, value=9)
    turns.rig.ask("good", ["b"], 1)
    turns.turn()
    turns.pool.finish()
    turns.pool.finish()
    turns.turn()
    assert turns.rig.errors == {"bad": "no pixels"}
    assert turns.rig.said == {"good": ["3"]}


def test_work_fails_alone_while_the_system_cannot_start_a_thread(monkeypatch):
    turns = Turns(monkeypatch)
    submit = turns.pool.submit

    def refuse(function, /, *arguments, **options):
        raise RuntimeError("can't start new thread")

    turns.pool.submit = refuse
    turns.rig.ask("one", ["a"], 1)
    turns.turn()
    assert turns.rig.errors == {"one": "can't start new thread"}
    turns.pool.submit = submit
    turns.rig.ask("two", ["b"], 1)
    turns.turn()
    turns.pool.finish()
    turns.turn()
    assert turns.rig.said == {"two": ["3"]}


def test_a_lost_device_fails_the_work_whose_image_is_being_decoded(monkeypatch):
    turns = Turns(monkeypatch)
    turns.rig.ask("one", ["a"], 5)
    turns.turn()
    turns.pool.finish()
    turns.turn()
    turns.rig.ask("two", ["b"], 5)
    turns.turn()
    turns.engine.refuses = lambda prompts: DeviceLostError("gone")
    with pytest.raises(DeviceLostError):
        turns.turn()
    assert turns.rig.errors == dict.fromkeys(("one", "two"), "gone")


def test_a_job_that_is_tried_again_alone_stays_alone(monkeypatch):
    turns = Turns(monkeypatch)
    turns.engine.refuses = lambda prompts: GenerationError("bad") if len(prompts) > 1 else None
    for name in "ab":
        turns.rig.ask(name, [name], 3)
    turns.turn()
    for _ in range(2):
        turns.pool.finish()
    turns.rig.ask("late", ["c"], 1)
    turns.turn()  # fails with two prompts; the third image is being decoded
    turns.pool.finish()
    while len(turns.rig.answered) < 3:
        turns.turn()
    assert turns.engine.steps == [["a", "b"], *[["a"]] * 3, *[["b"]] * 3, ["c"]]


def test_a_frame_does_not_overtake_one_that_is_tried_again(monkeypatch):
    turns = Turns(monkeypatch, most=8)
    turns.engine.refuses = lambda prompts: GenerationError("bad") if len(prompts) > 1 else None
    for camera in ("front", "rear"):
        turns.rig.offer(camera, [camera], 2)
    turns.turn()
    for _ in range(2):
        turns.pool.finish()
    turns.rig.offer("front", ["newer"], 1, value=8)
    turns.turn()  # the two frames fail together, while the newer one is being decoded
    turns.pool.finish()
    while len(turns.rig.answered) < 3:
        turns.turn()
    assert turns.engine.steps[1:] == [["front"]] * 2 + [["rear"]] * 2 + [["newer"]]


@pytest.mark.parametrize("error", [None, GenerationError("bad")])
def test_a_short_caption_waits_for_the_long_one_of_an_earlier_frame(monkeypatch, error):
    turns = Turns(monkeypatch, most=8)
    turns.rig.frame_work = lambda name: turns.rig.work(
        turns.rig.frames[name][0][0], *turns.rig.frames[name], urgent=False
    )
    for word, tokens in (("long", 5), ("short", 1)):
        turns.rig.offer("front", [word], tokens)
        turns.turn()
        turns.pool.finish()
        turns.turn()
    assert turns.engine.steps[-1] == ["long", "short"]
    assert turns.rig.answered == []
    turns.engine.refuses = lambda prompts: error
    while len(turns.rig.answered) < 2:
        turns.turn()
    assert turns.rig.answered == ["long", "short"]
    assert list(turns.rig.said) == (["short"] if error else ["long", "short"])


def test_frames_that_wait_for_an_earlier_one_take_the_place_of_new_ones(monkeypatch):
    """Their images would fill the memory while the model writes one long caption."""
    turns = Turns(monkeypatch, most=4)
    for tokens in (9, 1, 1, 1, 1):
        turns.rig.offer("front", ["a"], tokens, value=tokens)
        turns.turn()
        for _ in turns.pool.calls[:]:
            turns.pool.finish()
        turns.turn()
    assert sum(turns.engine.encoded) == 3  # one row is kept for a request
    while len(turns.rig.answered) < 3:
        turns.turn()
    assert turns.rig.scheduler.drops("front")[Drop.REPLACED] == 1


def test_a_lost_device_fails_a_frame_that_waits_for_an_earlier_one(monkeypatch):
    turns = Turns(monkeypatch, most=8)
    for tokens in (5, 1):
        turns.rig.offer("front", ["a"], tokens, value=tokens)
        turns.turn()
        turns.pool.finish()
        turns.turn()
    turns.engine.refuses = lambda prompts: DeviceLostError("gone")
    with pytest.raises(DeviceLostError):
        turns.turn()
    assert turns.rig.answered == ["front", "front"]


def test_a_request_goes_before_frames_that_are_tried_again(monkeypatch):
    turns = Turns(monkeypatch, most=8)
    turns.engine.refuses = lambda prompts: GenerationError("bad") if len(prompts) > 1 else None
    for camera in ("front", "rear"):
        turns.rig.offer(camera, [camera], 1)
    turns.turn()
    for _ in range(2):
        turns.pool.finish()
    turns.rig.ask("request", ["q"], 1)
    turns.turn()
    turns.pool.finish()
    while len(turns.rig.answered) < 3:
        turns.turn()
    assert turns.rig.answered == ["request", "front", "rear"]


def test_a_broken_image_is_freed_once_its_error_is_delivered(monkeypatch):
    """A camera may send broken images at its full rate, so none may wait for the collector."""
    turns = Turns(monkeypatch)

    def decode(message, max_pixels):
        raise ImageError("no pixels")

    turns.worker._decode = decode
    message = Message(9)
    alive = weakref.ref(message)
    turns.rig.scheduler.submit(turns.rig.work("bad", ["a"], 1, image=message))
    del message
    gc.disable()
    try:
        turns.turn()
        turns.pool.finish()
        turns.turn()
        assert turns.rig.errors == {"bad": "no pixels"}
        assert alive() is None
    finally:
        gc.enable()


def test_a_frame_like_the_last_described_one_waits_for_the_frame_before_it(monkeypatch):
    turns = Turns(monkeypatch, most=8)
    turns.rig.offer("front", ["a"], 1)
    turns.turn()
    turns.pool.finish()
    turns.turn()
    assert turns.rig.answered == ["front"]
    for value in (8, 7):
        turns.rig.offer("front", ["a"], 1, value)
        turns.turn()
    turns.pool.finish(1)  # its pixels are those of the described frame
    turns.turn()
    assert turns.rig.answered == ["front"]
    turns.pool.finish(0)
    turns.turn()
    assert turns.rig.answered == ["front"] * 3
    assert turns.engine.encoded == [1, 2]


def test_an_image_is_not_encoded_if_nobody_waits_for_it_any_more(monkeypatch):
    turns = Turns(monkeypatch)
    work = turns.rig.work("gone", ["a"], 1, image=Message(3))
    turns.rig.scheduler.submit(work)
    turns.turn()
    work.stopped.set()
    turns.pool.finish()
    turns.turn()
    assert turns.rig.errors == {"gone": "generation was stopped"}
    assert turns.engine.encoded == []
