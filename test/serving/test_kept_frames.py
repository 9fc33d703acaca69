# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Requests about frames that the model has encoded, by their stamps."""

import dataclasses
import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stepper import Message, Rig, Stepper

from kosmos_ros.errors import GenerationError, OutOfMemoryError, RequestError
from kosmos_ros.serving import kept_frames as module
from kosmos_ros.serving.kept_frames import KeptFrames
from kosmos_ros.serving.scheduler import Limits
from kosmos_ros.serving.work import Job, Observation, Work

IMAGE = np.zeros((2, 3, 3), np.uint8)


def header(second, nanosecond=5):
    return SimpleNamespace(stamp=SimpleNamespace(sec=second, nanosec=nanosecond))


def job(camera, second, image=None):
    """Return the job of a camera's frame; or of a request with its own image."""
    work = Work(lambda *_: (), print, print, 1, image=image)
    return Job(work, None, Observation(camera, header(second), IMAGE, (), 0))


def kept(most):
    frames = KeptFrames()
    frames.most = most
    return frames


# The store ---------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["front", "rear"])), st.integers(0, 4))
def test_the_newest_frames_of_each_camera_are_found_and_no_others(cameras, most):
    frames = kept(most)
    for second, camera in enumerate(cameras):
        frames.keep(job(camera, second), f"<{second}>")
    for camera in ("front", "rear"):
        own = [second for second, name in enumerate(cameras) if name == camera]
        for second in own[len(own) - min(most, len(own)) :]:
            assert frames.find(camera, (second, 5)).encoded == f"<{second}>"
        for second in set(range(len(cameras))) - set(own[len(own) - min(most, len(own)) :]):
            with pytest.raises(RequestError):
                frames.find(camera, (second, 5))


def test_a_frame_that_is_not_kept_is_refused_with_its_stamp_and_the_parameter():
    frames = kept(3)
    frames.keep(job("front", 12), "<12>")
    rest = (
        "is kept; use the stamp of a newer result, or none for the newest frame: the node keeps "
        "the last 3 frames that were described or used by a request (parameter kept_frames)"
    )
    with pytest.raises(RequestError) as error:
        frames.find("front", (12, 6))
    assert str(error.value) == f"no frame of camera front with stamp 12.000000006 {rest}"
    with pytest.raises(RequestError) as error:
        frames.find("", (12, 5))
    assert str(error.value) == f"no frame with stamp 12.000000005 {rest}"


def test_the_newer_of_two_frames_with_one_stamp_is_found():
    frames = kept(3)
    for encoded in ("<old>", "<new>"):
        frames.keep(job("front", 1), encoded)
    assert frames.find("front", (1, 5)).encoded == "<new>"


def test_a_frame_that_is_asked_about_is_kept_longer():
    frames = kept(2)
    for second in (1, 2):
        frames.keep(job("front", second), f"<{second}>")
    assert frames.find("front", (1, 5)).encoded == "<1>"
    frames.keep(job("front", 3), "<3>")
    assert frames.find("front", (1, 5)).encoded == "<1>"
    with pytest.raises(RequestError):
        frames.find("front", (2, 5))


def test_a_smaller_limit_counts_at_once():
    frames = kept(3)
    for second in range(3):
        frames.keep(job("front", second), f"<{second}>")
    frames.limit(1)
    assert frames.find("front", (2, 5)).encoded == "<2>"
    with pytest.raises(RequestError):
        frames.find("front", (1, 5))


def test_a_frame_that_several_requests_are_about_takes_one_place():
    frames = kept(2)
    frames.keep(job("front", 1), "<1>")
    asked = job("front", 2)
    for _ in range(3):
        frames.keep(asked, "<2>")
    assert frames.find("front", (1, 5)).encoded == "<1>"


def test_an_image_of_a_request_is_not_kept():
    frames = kept(2)
    frames.keep(job("front", 1, image=object()), "<1>")
    with pytest.raises(RequestError):
        frames.find("front", (1, 5))


def test_the_camera_that_was_seen_least_recently_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(module, "MAX_CAMERAS", 2)
    frames = kept(2)
    for second, camera in enumerate(["one", "two", "one", "three"]):
        frames.keep(job(camera, second), "")
    assert frames.find("one", (0, 5))
    with pytest.raises(RequestError):
        frames.find("two", (1, 5))


def test_a_kept_frame_has_its_size_and_no_pixels():
    frames = kept(1)
    frames.keep(job("front", 1), "<1>")
    image = frames.find("front", (1, 5)).image
    assert (image.shape, image.nbytes, image.base) == ((2, 3, 0), 0, None)


# The worker --------------------------------------------------------------------------------------


class Turns:
    """A worker whose turns the test takes itself, and a camera."""

    def __init__(self, monkeypatch, most=4, kept_frames=30):
        self.rig = Rig(Stepper(), most)
        self.rig.settings = dataclasses.replace(self.rig.settings, kept_frames=kept_frames)
        self.engine = self.rig.engine
        monkeypatch.setattr("kosmos_ros.serving.worker.Worker._run", lambda worker: None)
        self.worker = self.rig.start()
        self.decoded = []
        self.worker._decode = self.decode
        self.rig.scheduler.set_limits("front", Limits(max_rate=0.0))

    def decode(self, message, max_pixels):
        self.decoded.append(message)
        return message.pixels

    def turn(self):
        return self.worker._turn(self.engine)

    def describe(self, second, value):
        """Describe a frame of the camera with this stamp, whose pixels are `value`."""
        self.rig.frames["front"] = (["caption"], 1)
        self.rig.scheduler.offer("front", Message(value, header(second)))
        self.turn()

    def ask(self, name, second, words=("q",), tokens=1):
        """Send a request about the camera's frame with this stamp."""
        self.rig.scheduler.submit(self.rig.work(name, words, tokens, kept=("front", (second, 5))))


def test_a_question_about_an_earlier_frame_needs_neither_pixels_nor_an_encoding(monkeypatch):
    turns = Turns(monkeypatch)
    for second, value in enumerate((7, 8, 9)):
        turns.describe(second, value)
    turns.ask("earlier", 1)
    turns.turn()
    assert turns.rig.said["earlier"] == ["8"]
    seen = turns.rig.observations["earlier"]
    assert (seen.camera, seen.header.stamp.sec, seen.size) == ("front", 1, (3, 2))
    assert (len(turns.decoded), turns.engine.encoded) == (3, [1, 1, 1])


def test_a_frame_that_was_only_asked_about_is_kept_too(monkeypatch):
    turns = Turns(monkeypatch)
    turns.rig.scheduler.offer("front", Message(7, header(1)), wanted=False)
    turns.rig.ask("first", ["q"], 1, camera="front")
    turns.turn()
    turns.ask("second", 1)
    turns.turn()
    assert turns.rig.said == {"first": ["7"], "second": ["7"]}
    assert turns.engine.encoded == [1]


def test_a_frame_that_was_answered_from_its_equal_is_found_by_its_own_stamp(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    turns.describe(2, 7)
    assert turns.engine.encoded == [1]
    turns.ask("repeated", 2)
    turns.turn()
    assert turns.rig.said["repeated"] == ["7"]
    assert turns.rig.observations["repeated"].header.stamp.sec == 2


def test_a_repeated_frame_has_its_own_encoding_although_another_frame_was_asked_about(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    turns.rig.scheduler.offer("front", Message(8, header(2)), wanted=False)
    turns.rig.ask("between", ["q"], 1, camera="front")
    turns.turn()
    for second in (3, 4):
        turns.describe(second, 7)
        turns.ask(f"about {second}", second)
        turns.turn()
    assert (turns.rig.said["about 3"], turns.rig.said["about 4"]) == (["7"], ["7"])
    assert turns.engine.encoded == [1, 1]


def test_a_repeated_frame_has_its_own_encoding_although_another_frame_has_failed(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    step = turns.engine.step
    turns.engine.step = lambda: [(query, GenerationError("bad")) for query, _ in step()]
    turns.describe(2, 8)
    turns.engine.step = step
    turns.describe(3, 7)
    turns.ask("repeated", 3)
    turns.turn()
    assert turns.rig.said["repeated"] == ["7"]


def test_a_repeated_frame_is_encoded_again_after_all_frames_were_given_up(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    errors = [OutOfMemoryError("memory is short")]
    turns.engine.refuses = lambda prompts: errors.pop() if errors else None
    turns.rig.ask("large", ["q"], 1)
    while "large" not in turns.rig.said:
        turns.turn()
    encoded = len(turns.engine.encoded)
    for second in (2, 3):
        turns.describe(second, 7)
    assert len(turns.engine.encoded) == encoded + 1
    for second in (2, 3):
        turns.ask(f"about {second}", second)
        turns.turn()
        assert turns.rig.said[f"about {second}"] == ["7"]


def test_without_kept_frames_a_stamp_is_refused(monkeypatch):
    turns = Turns(monkeypatch, kept_frames=0)
    turns.describe(1, 7)
    turns.ask("gone", 1)
    turns.turn()
    assert turns.rig.errors == {
        "gone": "no frame of camera front with stamp 1.000000005 is kept; set the parameter "
        "kept_frames to more than 0, or use no stamp"
    }


def test_a_request_about_a_kept_frame_is_tried_again_like_any_other(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    turns.engine.refuses = lambda prompts: GenerationError("bad") if len(prompts) > 1 else None
    turns.ask("one", 1, ["a", "b"])
    turns.ask("two", 1, ["c"])
    while len(turns.rig.answered) < 3:
        turns.turn()
    assert turns.rig.said == {"front": ["7"], "one": ["7", "7"], "two": ["7"]}
    assert turns.engine.encoded == [1]


def test_requests_about_one_kept_frame_share_a_compact_copy(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    copies = []
    turns.engine.compact = lambda encoded: copies.append(encoded) or encoded
    turns.ask("one", 1, tokens=2)
    turns.ask("two", 1, tokens=2)
    turns.turn()
    turns.turn()
    assert turns.rig.said == {"front": ["7"], "one": ["7"], "two": ["7"]}
    # Two at the beginning, and one for each answer, which is not kept again.
    assert copies == [7] * 4


def test_kept_frames_are_given_up_when_memory_is_short(monkeypatch):
    turns = Turns(monkeypatch)
    turns.describe(1, 7)
    errors = [OutOfMemoryError("memory is short")]
    turns.engine.refuses = lambda prompts: errors.pop() if errors else None
    turns.describe(2, 8)
    turns.turn()
    turns.ask("gone", 1)
    turns.ask("newer", 2)
    turns.turn()
    assert turns.rig.said["newer"] == ["8"]
    assert "no frame of camera front with stamp 1.000000005" in turns.rig.errors["gone"]


def test_an_encoding_is_freed_once_its_answers_are_delivered(monkeypatch):
    turns = Turns(monkeypatch, kept_frames=0)
    alive = watched(turns.engine)
    turns.describe(1, 7)
    gc.collect()
    assert [encoding() for encoding in alive] == [None]


def test_kept_frames_are_freed_before_the_engine_gives_back_its_memory():
    rig = Rig(Stepper())
    alive = watched(rig.engine)
    left = []

    def unload():
        gc.collect()
        left.extend(encoding() for encoding in alive)

    rig.engine.unload = unload
    rig.offer("front", ["a"], 1)
    assert rig.run(1) == ["front"]
    assert left == [None]


class Encoding:
    """An encoding that can be watched."""

    def __int__(self):
        return 7


def watched(engine):
    """Let an engine return encodings that can be watched. Return weak references to them."""
    alive = []

    def encode(images):
        made = [Encoding() for _ in images]
        alive.extend(map(weakref.ref, made))
        return made

    engine.encode_batch = encode
    return alive
