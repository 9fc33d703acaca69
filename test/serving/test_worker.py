# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The worker's thread without ROS, with an engine that needs one step for each token."""

import math
import threading
from types import SimpleNamespace

import pytest
from stepper import WAIT, Message, Rig, Stepper

from kosmos_ros.errors import (
    DeviceLostError,
    GenerationError,
    ImageError,
    ModelLoadError,
    OutOfMemoryError,
    QueueFullError,
)
from kosmos_ros.serving import decoding
from kosmos_ros.serving import worker as worker_module
from kosmos_ros.serving.memory_backoff import LEVELS, QUIET, MemoryBackoff
from kosmos_ros.serving.scheduler import Drop, Limits
from kosmos_ros.serving.worker import MEMORY_PERIOD, Worker

FULL = "the queue is full: 2 requests wait, the most that queue_size allows; try again later"


def test_a_request_joins_a_running_batch_at_the_next_token():
    engine = Stepper()
    rig = Rig(engine, most=3)
    rig.offer("front", ["a", "b", "c", "d"], 5)
    engine.at[2] = lambda: rig.ask("request", ["q"], 2, camera="front")
    assert rig.run(2) == ["request", "front"]
    assert engine.steps[:2] == [["a", "b"]] * 2
    assert engine.steps[2:4] == [["a", "b", "q"]] * 2
    assert engine.steps[4:6] == [["a", "b"], ["c", "d"]]
    assert engine.encoded == [1]  # the same frame
    assert rig.said == {"request": ["7"], "front": ["7"] * 4}


def test_a_request_takes_the_only_row_before_waiting_prompts():
    engine = Stepper()
    rig = Rig(engine, most=1)
    rig.offer("front", ["a", "b"], 3)
    engine.at[2] = lambda: rig.ask("request", ["q"], 1, camera="front")
    assert rig.run(2) == ["request", "front"]
    assert engine.steps == [["a"]] * 3 + [["q"]] + [["b"]] * 3


def test_a_frame_joins_where_rows_are_free_and_leaves_one_to_requests():
    engine = Stepper()
    rig = Rig(engine, most=4)
    rig.offer("front", ["a", "b"], 8)
    engine.at[2] = lambda: (rig.offer("rear", ["c"], 2, 8), rig.offer("left", ["d"], 2, 9))
    assert rig.run(3) == ["rear", "left", "front"]
    assert rig.said == {"front": ["7", "7"], "rear": ["8"], "left": ["9"]}
    assert max(map(len, engine.steps)) == 3


def test_after_an_error_each_job_is_tried_alone_and_then_in_parts():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses = lambda prompts: GenerationError("too much") if len(prompts) > 1 else None
    rig.ask("one", ["a"], 2)
    rig.ask("two", ["b", "c", "d"], 1, value=4)
    assert rig.run(2) == ["one", "two"]
    assert rig.said == {"one": ["3"], "two": ["4"] * 3}
    assert [len(prompts) for prompts in engine.steps] == [4, 1, 1, 3, 1, 1, 1]


def test_a_prompt_that_waited_runs_once_after_an_error():
    engine = Stepper()
    rig = Rig(engine, most=2)
    engine.refuses = lambda prompts: GenerationError("too much") if len(prompts) > 1 else None
    rig.ask("one", ["a", "b", "c", "d"], 1)
    rig.run(1)
    assert rig.said == {"one": ["3"] * 4}
    assert engine.steps == [["a", "b"], ["a"], ["b"], ["c"], ["d"]]


def test_a_request_that_always_fails_is_refused_and_others_are_answered():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses = lambda prompts: GenerationError("bad") if "bad" in prompts else None
    rig.ask("good", ["a"], 1)
    rig.ask("bad", ["b", "bad"], 1)
    rig.ask("late", ["c"], 1)
    rig.run(3)
    assert rig.said == {"good": ["3"], "late": ["3"]}
    assert rig.errors == {"bad": "bad"}


def test_an_image_that_cannot_be_encoded_leaves_running_prompts_alone():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses_images = lambda images: (
        GenerationError("white") if any(image.max() == 255 for image in images) else None
    )
    rig.ask("running", ["a"], 4)
    engine.at[2] = lambda: rig.ask("white", ["b"], 1, value=255)
    rig.run(2)
    assert rig.said == {"running": ["3"]}
    assert rig.errors == {"white": "white"}
    assert engine.steps == [["a"]] * 4


@pytest.mark.fault(32)
def test_a_lost_device_fails_running_and_waiting_requests_and_ends_the_worker():
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
def test_a_device_lost_in_a_second_try_fails_the_requests_that_wait_for_theirs():
    engine = Stepper()
    rig = Rig(engine, most=3)
    for name in ("one", "two", "three"):
        rig.ask(name, [name], 5)
    errors = {1: GenerationError("too much"), 3: DeviceLostError("gone")}
    engine.refuses = lambda _: errors.get(len(engine.steps))
    assert sorted(rig.run(3)) == ["one", "three", "two"]
    assert rig.errors == dict.fromkeys(("one", "two", "three"), "gone")


def test_requests_wait_in_the_bounded_queue_until_a_row_is_free():
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
    assert refused == [FULL] * 3 + [2]
    assert engine.encoded == [1, 1, 1]


def test_a_request_goes_before_frames_that_are_tried_again():
    engine = Stepper()
    rig = Rig(engine, most=3)
    for number, camera in enumerate(("a", "b", "c")):
        rig.offer(camera, [camera], 3, value=number)
    errors = {1: GenerationError("too much")}
    engine.refuses = lambda _: errors.get(len(engine.steps))
    engine.at[2] = lambda: rig.ask("request", ["q"], 1)
    assert rig.run(4) == ["a", "request", "b", "c"]


@pytest.mark.parametrize("cause", ["paused", "stopped"])
def test_a_stopped_request_ends_at_the_next_token(cause):
    engine = Stepper()
    rig = Rig(engine)
    stop = threading.Event()
    if cause == "paused":
        rig.paused = stop.is_set
    stopped = stop if cause == "stopped" else threading.Event()
    rig.scheduler.submit(rig.work("one", ["a"], 10**6, image=Message(1), stopped=stopped))
    engine.at[3] = stop.set
    rig.run(1)
    assert rig.errors == {"one": "generation was stopped"}
    assert len(engine.steps) == 3


def test_a_recipient_that_cannot_take_progress_fails_alone():
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


def test_a_request_begins_once_before_its_text_even_if_it_is_tried_again():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses = lambda prompts: GenerationError("too much") if len(prompts) > 1 else None
    told = []
    options = {
        "image": Message(1),
        "begun": lambda observation: told.append((observation.header, observation.captions)),
        "progress": lambda observation: told.append("text"),
    }
    rig.scheduler.submit(rig.work("one", ["a", "b"], 2, **options))
    rig.run(1)
    begun, *texts = told
    assert begun == ("header of 1", ())
    assert set(texts) == {"text"}


def test_a_request_whose_image_cannot_be_decoded_does_not_begin():
    rig, told = Rig(Stepper()), []
    rig.scheduler.submit(rig.work("bad", ["a"], 2, image=object(), begun=told.append))
    rig.run(1)
    assert (list(rig.errors), told) == (["bad"], [])


def test_a_recipient_that_cannot_take_the_beginning_fails_alone():
    engine = Stepper()
    rig = Rig(engine)

    def begun(_):
        raise RuntimeError("publisher's context is invalid")

    rig.scheduler.submit(rig.work("broken", ["a"], 9, image=Message(1), begun=begun))
    rig.ask("whole", ["b"], 4)
    rig.run(2)
    assert rig.errors == {"broken": "publisher's context is invalid"}
    assert rig.said == {"whole": ["3"]}


def test_a_closed_worker_stops_its_requests():
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
def test_the_prompts_of_an_image_are_answered_in_their_order(asked):
    engine = Stepper()
    rig = Rig(engine, most=3)
    words = [f"w{number}" for number in range(asked)]
    rig.ask("many", words, 3)
    rig.run(1)
    assert rig.said == {"many": ["3"] * asked}
    assert sorted({prompt for step in engine.steps for prompt in step}) == words


def test_a_frame_without_prompts_is_not_encoded():
    rig = Rig(Stepper())
    rig.offer("front", [], 3)
    rig.offer("rear", ["a"], 3)
    assert sorted(rig.run(expected=2)) == ["front", "rear"]
    assert rig.errors == {"front": "the last subscriber has left"}
    assert rig.engine.encoded == [1]


# The thread --------------------------------------------------------------------------------------


def test_a_worker_is_alive_until_it_is_closed():
    rig = Rig(Stepper())
    worker = rig.start()
    assert rig.ready.wait(WAIT)
    assert worker.alive
    worker.close()
    assert not worker.alive
    assert worker.join(WAIT)
    assert not worker.alive
    assert (rig.error, rig.engine.unloaded) == (None, 1)
    assert worker._thread.daemon
    assert worker._thread.name == "model"


def test_a_worker_is_not_alive_when_its_thread_has_ended_with_an_error():
    rig = Rig(Stepper())
    rig.engine.refuses = lambda prompts: DeviceLostError("gone")
    worker = rig.start()
    rig.ask("one", ["a"], 1)
    assert rig.over.wait(WAIT)
    assert worker.join(WAIT)
    assert not worker.alive


@pytest.mark.parametrize("timeout", [0.01, 0.0, -1.0])
def test_join_waits_for_the_thread_no_longer_than_asked(timeout):
    rig = Rig(Stepper())
    worker = rig.start()
    assert not worker.join(timeout)
    worker.close()
    assert worker.join(WAIT)


@pytest.mark.parametrize(("timeout", "waited"), [(2.5, 2.5), (0.0, 0.0), (-1.0, 0.0)])
def test_join_never_waits_for_a_negative_time(monkeypatch, timeout, waited):
    worker = Turns(monkeypatch).worker
    timeouts = []
    worker._thread = SimpleNamespace(join=timeouts.append, is_alive=lambda: True)
    assert not worker.join(timeout)
    assert timeouts == [waited]


def test_an_engine_that_cannot_be_loaded_ends_the_worker():
    rig = Rig(Stepper())
    error = ModelLoadError("no weights")

    def load():
        raise error

    rig.load = load
    worker = rig.start()
    assert rig.over.wait(WAIT)
    assert worker.join(WAIT)
    assert rig.error is error
    assert (rig.ready.is_set(), rig.engine.unloaded) == (False, 0)
    with pytest.raises(Exception, match="the model has stopped"):
        rig.ask("late", ["a"], 1)


def test_a_worker_closed_while_it_loads_unloads_the_engine():
    rig = Rig(Stepper())
    loading, loaded = threading.Event(), threading.Event()
    rest = rig.load

    def load():
        loading.set()
        assert loaded.wait(WAIT)
        return rest()

    rig.load = load
    worker = rig.start()
    assert loading.wait(WAIT)
    worker.close()
    loaded.set()
    assert worker.join(WAIT)
    assert (rig.error, rig.ready.is_set(), rig.engine.unloaded) == (None, False, 1)


def test_an_engine_on_a_lost_device_is_not_unloaded():
    rig = Rig(Stepper())
    rig.engine.refuses = lambda prompts: DeviceLostError("gone")
    rig.ask("one", ["a"], 1)
    rig.run(1)
    assert isinstance(rig.error, DeviceLostError)
    assert rig.engine.unloaded == 0


def test_an_error_of_the_host_ends_the_worker_and_unloads_the_engine():
    rig = Rig(Stepper())
    error = RuntimeError("no settings")

    def frame_work(camera):
        raise error

    rig.frame_work = frame_work
    rig.offer("front", ["a"], 1)
    worker = rig.start()
    assert rig.over.wait(WAIT)
    assert worker.join(WAIT)
    assert rig.error is error
    assert rig.engine.unloaded == 1


# Time and memory ---------------------------------------------------------------------------------


class Turns:
    """A worker whose turns the test takes itself, by a clock that stands still."""

    def __init__(self, monkeypatch, most=2):
        self.rig = Rig(Stepper(), most)
        self.engine = self.rig.engine
        self.now = 100.0
        # The worker's thread ends at once, and the test takes its place.
        monkeypatch.setattr(Worker, "_run", lambda worker: None)
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(worker_module, "time", clock)
        monkeypatch.setattr(decoding, "time", clock)
        self.worker = self.rig.start()
        assert self.worker.join(WAIT)
        self.decoded = []  # (message, largest number of pixels)
        self.worker._decode = self.decode

    def decode(self, message, max_pixels):
        self.decoded.append((message, max_pixels))
        return message.pixels

    def turn(self):
        return self.worker._turn(self.engine)


def test_memory_is_measured_once_in_each_period(monkeypatch):
    turns = Turns(monkeypatch)
    assert turns.worker.memory == 0
    turns.rig.ask("one", ["a"], 100)
    measured = []
    for seconds in (0.0, MEMORY_PERIOD - 0.25, 0.25, 0.5, 9.0):
        turns.engine.bytes += 1
        turns.now += seconds
        turns.turn()
        measured.append(turns.worker.memory)
    assert measured == [1, 1, 3, 3, 5]


def test_a_worker_is_stuck_for_as_long_as_a_call_of_the_engine_lasts(monkeypatch):
    turns = Turns(monkeypatch)
    assert turns.worker.stuck() == 0.0
    stuck = []

    def during(seconds, error=None):
        turns.now += seconds
        stuck.append(turns.worker.stuck())
        return error

    turns.engine.refuses_images = lambda images: during(5.0)
    turns.engine.refuses = lambda prompts: during(7.0, GenerationError("bad"))
    turns.engine.clear = lambda: during(11.0)
    turns.rig.ask("one", ["a"], 2)
    turns.turn()
    assert stuck == [5.0, 7.0, 11.0]
    assert turns.worker.stuck() == 0.0
    turns.now += 100.0
    assert turns.worker.stuck() == 0.0


WATCHED = ("measure the memory", "decode", "find the work", "make the prompts", "log a bug")


@pytest.mark.parametrize("step", WATCHED)
@pytest.mark.fault(78)
def test_everything_that_runs_in_the_models_thread_is_watched(monkeypatch, step):
    turns = Turns(monkeypatch)
    worker, rig, engine = turns.worker, turns.rig, turns.engine
    stuck = []

    def during(name, call):
        def taking(*arguments):
            if name == step:
                turns.now += 5.0
                stuck.append(worker.stuck())
            return call(*arguments)

        return taking

    engine.memory = during("measure the memory", engine.memory)
    worker._decode = during("decode", worker._decode)
    rig.frame_work = during("find the work", rig.frame_work)
    rig.log_bug = during("log a bug", rig.log_bug)
    engine.refuses = lambda prompts: ValueError("wrong shape")
    work = rig.work("one", ["a"], 1, image=Message(3))
    object.__setattr__(work, "prompts", during("make the prompts", work.prompts))
    rig.scheduler.submit(work)
    rig.offer("front", ["b"], 1)
    turns.turn()
    assert set(stuck) == {5.0}
    assert worker.stuck() == 0.0


def test_each_image_has_the_whole_time_for_its_decoding(monkeypatch):
    turns = Turns(monkeypatch, most=3)
    stuck = []

    def decode(message, max_pixels):
        turns.now += 7.0
        stuck.append(turns.worker.stuck())
        return message.pixels

    turns.worker._decode = decode
    for name in "abc":
        turns.rig.ask(name, [name], 1)
    turns.turn()
    assert stuck == [7.0] * 3


def test_a_worker_that_waits_for_the_delivery_thread_is_not_stuck(monkeypatch):
    """Delivery is watched by itself; after it, the model has its whole time again."""
    turns = Turns(monkeypatch)
    stuck = []

    def deliver(call, urgent):
        turns.now += 50.0
        stuck.append(turns.worker.stuck())

    turns.worker._deliver = deliver
    turns.engine.refuses = lambda prompts: GenerationError("bad")
    turns.rig.ask("one", ["a"], 1)
    turns.turn()
    assert stuck == [0.0]
    assert turns.worker.stuck() == 0.0


@pytest.mark.parametrize("step", ["loaded", "unload"])
@pytest.mark.fault(78)
def test_the_beginning_and_the_end_are_watched_too(step):
    rig = Rig(Stepper())
    stuck, started = [], threading.Event()
    owner = rig if step == "loaded" else rig.engine
    call = getattr(owner, step)

    def watched(*arguments):
        assert started.wait(WAIT)
        stuck.append(worker._called)
        call(*arguments)

    setattr(owner, step, watched)
    worker = rig.start()
    started.set()
    assert rig.ready.wait(WAIT)
    worker.close()
    assert worker.join(WAIT)
    assert len(stuck) == 1
    assert stuck[0] < math.inf
    assert worker.stuck() == 0.0


def test_freeing_memory_is_watched_too(monkeypatch):
    turns = Turns(monkeypatch)
    stuck = []

    def tidy():
        turns.now += 3.0
        stuck.append(turns.worker.stuck())

    turns.engine.tidy = tidy
    turns.engine.refuses = lambda prompts: OutOfMemoryError("full")
    turns.rig.ask("one", ["a"], 2)
    turns.turn()
    assert stuck == [3.0]


@pytest.mark.parametrize(
    ("error", "tidied"),
    [(OutOfMemoryError("full"), 1), (GenerationError("bad"), 0), (ValueError("bug"), 0)],
)
@pytest.mark.parametrize("encoding", [False, True])
def test_memory_is_freed_only_when_it_is_short(monkeypatch, error, tidied, encoding):
    turns = Turns(monkeypatch)
    if encoding:
        turns.engine.refuses_images = lambda images: error
    else:
        turns.engine.refuses = lambda prompts: error
    turns.rig.ask("one", ["a"], 2)
    turns.turn()
    assert turns.engine.tidied == tidied
    assert turns.engine.cleared == (not encoding)


def test_the_backoff_is_that_of_the_batch(monkeypatch):
    turns = Turns(monkeypatch, most=8)
    assert turns.worker.backoff.batch(8) == 8
    turns.engine.refuses = lambda prompts: OutOfMemoryError("full")
    turns.rig.ask("one", ["a"], 2)
    turns.turn()
    assert turns.worker.backoff.batch(8) == 4


# One turn ----------------------------------------------------------------------------------------


def test_a_turn_takes_work_encodes_it_and_writes_a_token(monkeypatch):
    turns = Turns(monkeypatch)
    turns.rig.ask("one", ["a"], 2)
    assert turns.turn()
    assert (turns.engine.encoded, turns.engine.steps) == ([1], [["a"]])
    assert turns.turn()
    assert (turns.engine.encoded, turns.engine.steps) == ([1], [["a"], ["a"]])
    assert turns.rig.said == {"one": ["3"]}


def test_the_last_turn_is_that_of_a_closed_worker_without_work(monkeypatch):
    turns = Turns(monkeypatch)
    turns.rig.ask("one", ["a"], 9)
    assert turns.turn()
    turns.worker.close()
    assert turns.turn()
    assert turns.rig.errors == {"one": "generation was stopped"}
    assert not turns.turn()
    assert len(turns.engine.steps) == 2


def test_jobs_to_try_again_are_answered_by_a_closed_worker_too(monkeypatch):
    turns = Turns(monkeypatch)
    turns.engine.refuses = lambda prompts: GenerationError("bad") if len(prompts) > 1 else None
    for name in "ab":
        turns.rig.ask(name, [name], 9)
    turns.turn()
    turns.worker.close()
    assert [turns.turn() for _ in range(3)] == [True, True, False]
    assert turns.rig.errors == dict.fromkeys("ab", "generation was stopped")


def test_a_turn_whose_images_cannot_be_decoded_is_not_the_last(monkeypatch):
    turns = Turns(monkeypatch)

    def decode(message, max_pixels):
        raise ImageError("no pixels")

    turns.worker._decode = decode
    turns.rig.ask("one", ["a"], 2)
    assert turns.turn()
    assert turns.rig.errors == {"one": "no pixels"}
    assert (turns.engine.encoded, turns.engine.steps) == ([], [])


def test_images_are_decoded_up_to_the_largest_number_of_pixels(monkeypatch):
    turns = Turns(monkeypatch)
    turns.rig.ask("one", ["a"], 1)
    turns.turn()
    ((message, most),) = turns.decoded
    assert most == turns.rig.settings.max_image_pixels
    assert message.pixels[0, 0, 0] == 3


def test_prompts_are_made_for_the_width_and_the_height_of_the_image(monkeypatch):
    turns = Turns(monkeypatch)
    sizes = []
    work = turns.rig.work("one", ["a"], 1, image=Message(3))
    object.__setattr__(work, "prompts", lambda *size: sizes.append(size) or ())
    turns.rig.scheduler.submit(work)
    turns.turn()
    assert sizes == [(3, 2)]


def test_an_observation_has_the_camera_and_the_header_of_its_frame(monkeypatch):
    turns = Turns(monkeypatch)
    for value in (7, 8):
        turns.rig.offer("front", ["a", "b"], 1, value)
    turns.rig.ask("request", ["q"], 1, value=3)
    for _ in range(3):
        turns.turn()
    seen = turns.rig.observations
    front, request = seen["front"], seen["request"]
    assert (front.camera, front.header, front.frames_dropped) == ("front", "header of 8", 1)
    assert [prompt.text for prompt in front.prompts] == ["a", "b"]
    assert (request.camera, request.header, request.frames_dropped) == ("", "header of 3", 0)
    assert front.image[0, 0, 0] == 8


def test_a_request_about_a_frame_has_the_frames_camera_and_count(monkeypatch):
    turns = Turns(monkeypatch)
    for value in (7, 8):
        turns.rig.offer("front", ["a"], 1, value)
    turns.rig.ask("request", ["q"], 1, camera="front")
    turns.turn()
    request = turns.rig.observations["request"]
    assert (request.camera, request.header, request.frames_dropped) == ("front", "header of 8", 1)


def test_requests_about_one_frame_share_its_decoded_and_encoded_image(monkeypatch):
    turns = Turns(monkeypatch, most=4)
    turns.rig.offer("front", ["a"], 9)
    turns.rig.ask("one", ["q"], 9, camera="front")
    turns.turn()
    turns.rig.ask("two", ["r"], 9, camera="front")
    turns.turn()
    assert len(turns.decoded) == 1
    assert turns.engine.encoded == [1]
    assert turns.engine.steps == [["a", "q"], ["a", "q", "r"]]


def test_answers_about_a_camera_are_the_drafts_of_the_next_ones(monkeypatch):
    turns = Turns(monkeypatch, most=4)
    turns.rig.offer("front", ["a", "b"], 1, 5)
    turns.turn()
    turns.rig.offer("front", ["a", "b"], 1, 6)
    turns.rig.offer("rear", ["a"], 1, 6)
    turns.turn()
    assert turns.engine.drafts[:2] == [("a", None), ("b", None)]
    assert sorted(turns.engine.drafts[2:], key=str) == [("a", (5,)), ("a", None), ("b", (5,))]
    turns.rig.ask("request", ["new"], 1, camera="front")
    turns.rig.ask("own", ["a"], 1, value=9)
    turns.turn()
    assert turns.engine.drafts[5:] == [("new", (6,)), ("a", None)]
    assert turns.rig.said["front"] == ["6", "6"]


def test_a_job_that_failed_alone_is_tried_again_without_drafts(monkeypatch):
    turns = Turns(monkeypatch, most=4)
    turns.rig.offer("front", ["a", "b"], 1, 5)
    turns.turn()
    turns.engine.refuses = lambda prompts: (
        GenerationError("too much") if len(prompts) > 1 else None
    )
    turns.rig.offer("front", ["a", "b"], 1, 6)
    for _ in range(3):
        turns.turn()
    assert turns.engine.drafts[2:4] == [("a", (5,)), ("b", (5,))]
    assert turns.engine.drafts[4:] == [("a", None), ("b", None)]
    assert turns.rig.said["front"] == ["6", "6"]


def repeated(turns, *words, value=7, header="second", tokens=1, camera="front"):
    """Send a frame with a header of its own and take a turn; return the observation."""
    turns.rig.frames[camera] = (words, tokens)
    turns.rig.scheduler.set_limits(camera, Limits(max_rate=0.0))
    turns.rig.scheduler.offer(camera, Message(value, header))
    turns.turn()
    return turns.rig.observations.get(camera)


def test_an_unchanged_frame_has_the_answers_of_the_one_before_and_its_own_header(monkeypatch):
    turns = Turns(monkeypatch)
    first = repeated(turns, "a", header="first")
    turns.rig.scheduler.drop("front", Drop.FAILED)
    again = repeated(turns, "a", header="second")
    assert (first.header, first.unchanged) == ("first", False)
    assert (again.header, again.unchanged) == ("second", True)
    assert again.captions == first.captions
    assert (first.frames_dropped, again.frames_dropped) == (0, 1)
    assert turns.engine.encoded == [1]
    assert turns.engine.steps == [["a"]]
    assert turns.rig.answered == ["front"] * 2


@pytest.mark.parametrize(
    "other",
    [{"value": 8}, {"words": ("b",)}, {"words": ("a", "b")}, {"tokens": 2}, {"camera": "rear"}],
)
def test_a_frame_that_differs_in_pixels_prompts_limit_or_camera_is_described(monkeypatch, other):
    turns = Turns(monkeypatch, most=4)
    repeated(turns, "a")
    repeated(turns, *other.pop("words", ("a",)), **other)
    assert turns.engine.encoded == [1, 1]


def test_an_unchanged_frame_is_described_anew_after_a_failed_one_and_while_paused(monkeypatch):
    turns = Turns(monkeypatch)
    turns.engine.refuses = lambda prompts: GenerationError("bad")
    for _ in range(3):
        repeated(turns, "a")
    assert not turns.rig.observations
    turns.engine.refuses = lambda prompts: None
    while not turns.rig.observations:
        repeated(turns, "a")
    encoded = len(turns.engine.encoded)
    turns.rig.paused = lambda: True
    answered = len(turns.rig.answered)
    repeated(turns, "a")
    assert len(turns.engine.encoded) == encoded + 1
    assert turns.rig.answered[answered:] == ["front"]
    assert turns.rig.errors["front"] == "generation was stopped"


def test_an_unchanged_frame_does_not_overtake_an_earlier_one(monkeypatch):
    turns = Turns(monkeypatch, most=4)
    repeated(turns, "a", value=7, header="first", tokens=3)
    while turns.worker._batch.running:
        turns.turn()
    repeated(turns, "a", value=8, header="second", tokens=3)
    seen = []
    note = turns.rig.note
    turns.rig.note = lambda name: (note(name), seen.append(turns.rig.observations[name].header))
    repeated(turns, "a", value=7, header="third", tokens=3)
    while turns.worker._batch.running:
        turns.turn()
    assert seen == ["second", "third"]


def test_a_frame_is_described_again_once_its_answers_may_be_longer(monkeypatch):
    turns = Turns(monkeypatch)
    now = [0.0]
    backoff = turns.worker._batch.backoff = MemoryBackoff(lambda: now[0])
    for _ in LEVELS:
        backoff.reduce()
    repeated(turns, "a", tokens=40)
    while turns.worker._batch.running:
        turns.turn()
    assert len(turns.rig.observations) == 1
    assert len(turns.engine.steps) == LEVELS[-1].tokens
    now[0] = len(LEVELS) * QUIET
    repeated(turns, "a", tokens=40)
    assert turns.engine.encoded == [1, 1]


def test_equal_images_of_two_messages_are_encoded_each(monkeypatch):
    turns = Turns(monkeypatch)
    for name in "ab":
        turns.rig.ask(name, [name], 1)
    turns.turn()
    assert len(turns.decoded) == 2
    assert turns.engine.encoded == [2]


def test_max_batch_size_may_change_between_two_turns(monkeypatch):
    turns = Turns(monkeypatch, most=1)
    turns.rig.ask("one", ["a", "b", "c"], 9)
    turns.turn()
    turns.rig.settings = Rig(None, most=3).settings
    turns.turn()
    assert turns.engine.steps == [["a"], ["a", "b", "c"]]


@pytest.mark.parametrize("kind", ["request", "frame"])
def test_results_of_requests_are_delivered_before_those_of_frames(monkeypatch, kind):
    turns = Turns(monkeypatch)
    posted = []
    turns.worker._deliver = lambda call, urgent: posted.append(urgent)
    if kind == "request":
        turns.rig.ask("one", ["a"], 1)
    else:
        turns.rig.offer("front", ["a"], 1)
    turns.turn()
    assert posted == [kind == "request"]


@pytest.mark.parametrize("encoding", [False, True])
@pytest.mark.parametrize(
    ("error", "bugs"), [(ValueError("wrong shape"), 1), (GenerationError("bad"), 0)]
)
def test_only_an_unknown_error_is_logged_with_its_traceback(monkeypatch, encoding, error, bugs):
    turns = Turns(monkeypatch)
    if encoding:
        turns.engine.refuses_images = lambda images: error
    else:
        turns.engine.refuses = lambda prompts: error
    error.__cause__ = error.__context__ = MemoryError()
    turns.rig.ask("one", ["a"], 1)
    turns.turn()
    assert len(turns.rig.bugs) == bugs
    assert all("ValueError: wrong shape" in text for text in turns.rig.bugs)
    assert all("stepper.py" in text for text in turns.rig.bugs)
    assert turns.rig.errors == {"one": str(error)}
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_the_engine_is_cleared_after_an_error(monkeypatch):
    turns = Turns(monkeypatch, most=3)
    turns.rig.ask("one", ["a"], 9)
    turns.turn()
    turns.rig.ask("two", ["b"], 9)
    turns.engine.refuses = lambda prompts: GenerationError("bad") if len(prompts) > 1 else None
    turns.turn()
    assert (turns.engine.cleared, turns.engine.rows) == (1, {})
    turns.turn()
    assert turns.engine.steps[-1] == ["a"]


def test_an_engine_that_cannot_be_unloaded_ends_the_worker(monkeypatch):
    """The host waits for this call before it can load another model."""

    def unload():
        raise error

    error, crashes = RuntimeError("out of order"), []
    monkeypatch.setattr(threading, "excepthook", crashes.append)
    rig = Rig(Stepper())
    rig.engine.unload = unload
    worker = rig.start()
    assert rig.ready.wait(WAIT)
    worker.close()
    assert rig.over.wait(WAIT)
    assert worker.join(WAIT)
    assert [crash.exc_value for crash in crashes] == [error]


class Panic(BaseException):
    """The error of a library in Rust for its own bug; `except Exception` does not catch it."""


def test_a_panic_ends_the_worker_and_is_reported():
    rig = Rig(Stepper())
    rig.engine.refuses = lambda prompts: Panic("index out of range")
    worker = rig.start()
    rig.ask("one", ["a"], 1)
    assert rig.over.wait(WAIT)
    assert worker.join(WAIT)
    assert (type(rig.error), str(rig.error)) == (RuntimeError, "Panic: index out of range")
    assert rig.engine.unloaded == 1
