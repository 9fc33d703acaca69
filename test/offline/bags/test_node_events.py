# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Events in a bag of results and in its observation log are those of the node.

The value of all pixels of a frame says what a fake engine sees in it.
"""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")
pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import bags
from bags import BEGIN, PERIOD, SENT, TYPES
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from mute_engine import BOX, MuteEngine
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from kosmos_ros.kosmos2.grounding import read
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.memory.record_json import phrases_from_json
from kosmos_ros.offline.bags.job import Job, Run
from kosmos_ros.offline.bags.messages import IMAGE
from kosmos_ros.offline.run import plan_of
from kosmos_ros.ros import memory
from kosmos_ros.ros.camera import Camera
from kosmos_ros.ros.conversions import event_message
from kosmos_ros.ros.outputs import DescribedFrame
from kosmos_ros.ros.stamps import Stamps
from kosmos_ros.serving.events import Watchlist
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING
from kosmos_ros.serving.work import Observation

ASKED = CameraSettings(phrases=("a cat", "a dog"), questions=("Where?", "Who?"))
NOTHING, CAT, DOG, HERE, ALICE = 0, 1, 2, 4, 8
EVENT = "kosmos_msgs/msg/Event"
BROKEN = None
"""A message that is no image."""
TOPICS = {"front": "/front/image_raw", "rear": "/rear/image_raw"}


class Engine(MuteEngine):
    """Sees what the pixels of an image say."""

    def encode_batch(self, images):
        super().encode_batch(images)
        return [int(image[0, 0, 0]) for image in images]

    def generate_batch(self, queries):
        return [self._answer(query.prompt, query.image) for query in queries]

    def _answer(self, prompt, seen):
        in_view = ("a cat" in prompt and seen & CAT) or ("a dog" in prompt and seen & DOG)
        text = BOX if in_view else ""
        if "Where?" in prompt:
            text = " here" if seen & HERE else " there"
        elif "Who?" in prompt:
            text = f"<phrase> Alice</phrase>{BOX}" if seen & ALICE else " nobody"
        return Generation(text, (0.5, 0.25) if BOX in text else (), 0.75, 7, False)


def message(topic, number, seen, stamp=None):
    """Return frame `number` of a camera for `write_bag`."""
    time = BEGIN + number * PERIOD
    image = np.full((24, 32, 3), seen or 0, np.uint8)
    stamp = time - SENT if stamp is None else stamp
    return topic, IMAGE, time, b"" if seen is BROKEN else bags.raw(image, stamp)


def job(folder, **values):
    model = {"model": "fake", "model_settings": dict.fromkeys(MODEL_SETTINGS, "")}
    values = {"settings": ASKED, "log": folder / "log.db", "out": folder / "out", **values}
    return Job(bag=folder / "in", max_image_pixels=10**6, **model, **values)


def describe(own, engine=None):
    """Do a job as the command does, and return its numbers of messages."""
    run, engine = Run(own), engine or Engine()
    with run.open({}) as results:
        list(run.describe(results, lambda: engine))
        run.add_to_log(results)
        list(run.write(results))
        numbers = run.counts(results)["messages"]
    run.clean()
    return numbers


def described(folder, frames, **values):
    """Describe a new bag. Return the time and CDR of its events, and the events of its log."""
    bags.write_bag(folder / "in", frames)
    numbers = describe(job(folder, **values))
    found = events_of(folder / "out")
    counted = {topic: count for topic, count in numbers.items() if topic.endswith("/events")}
    assert {topic for topic in counted if counted[topic]} == {topic for topic, *_ in found}
    assert sum(counted.values()) == len(found)
    return found, log_of(folder)


def events_of(path):
    return [
        (topic, time, data) for topic, kind, time, data in bags.contents(path) if kind == EVENT
    ]


def log_of(folder):
    """Return the events of a log in the order of time."""
    with ObservationLog.read(folder / "log.db") as log:
        return log.connection.execute(
            "SELECT stamp, name, kind, subject, answer, previous, since, phrases FROM event "
            "JOIN camera ON camera.id = event.camera ORDER BY event.id"
        ).fetchall()


class NodeCamera:
    """The part of a node's camera that makes events."""

    _events = Camera._events

    def __init__(self, name):
        self.name = name
        self.subscription = SimpleNamespace(latched=False)
        self._stamps = Stamps(SimpleNamespace(get_logger=SimpleNamespace), "")
        self._watchlists = {each.name: Watchlist(each.first) for each in STANDING}
        self._plan = plan_of(ASKED)

    def publish(self, number, seen):
        """Return the events that a frame confirms, as CDR and as records."""
        time = BEGIN + number * PERIOD - SENT
        prompts = self._plan.prompts
        captions = [
            read(Engine()._answer(each.text, seen), each.text, each.lead) for each in prompts
        ]
        header = Header(stamp=Time(sec=time // 10**9, nanosec=time % 10**9), frame_id="camera")
        image = np.zeros((24, 32, 3), np.uint8)
        observation = Observation(self.name, header, image, tuple(prompts), 0, tuple(captions))
        result = self._plan.read(captions)
        events = tuple(self._events(observation, result, ASKED))
        frame = DescribedFrame(observation, result, events, "fake", 0.0)
        return [(canonical(frame, each), memory._event(frame, each)) for each in events]


def canonical(frame, event):
    data = serialize_message(event_message(frame.observation, event))
    return TYPES.data(TYPES.store.deserialize_cdr(data, EVENT))


seen = st.one_of(st.none(), st.integers(0, 15), st.just(NOTHING), st.just(CAT | HERE))
runs = st.lists(st.tuples(seen, st.integers(1, 5)), min_size=1, max_size=9)
"""What is seen, and in how many consecutive frames."""


@settings(max_examples=25, deadline=None)
@given(front=runs, rear=runs)
def test_events_are_those_of_the_node(tmp_path_factory, front, rear):
    frames, expected = [], []
    for name, script in (("front", front), ("rear", rear)):
        camera = NodeCamera(name)
        for number, value in enumerate(v for v, count in script for _ in range(count)):
            frames.append(message(TOPICS[name], number, value))
            if value is not BROKEN:
                topic, time = f"/kosmos/{name}/events", BEGIN + number * PERIOD
                expected += [(topic, time, *each) for each in camera.publish(number, value)]
    frames.sort(key=lambda each: each[2])
    found, log = described(tmp_path_factory.mktemp("bag"), frames)

    assert sorted(found) == sorted(each[:3] for each in expected)
    for name in TOPICS:  # the order of the events of one frame
        own = f"/kosmos/{name}/events"
        assert [each for each in found if each[0] == own] == [
            each[:3] for each in expected if each[0] == own
        ]
    records = [record for *_, record in expected]
    assert sorted(row[:-1] for row in log) == sorted(
        tuple(vars(each).values())[:-1] for each in records
    )
    assert sorted(phrase.text for row in log for phrase in phrases_from_json(row[-1])) == sorted(
        phrase.text for each in records for phrase in each.phrases
    )


def events(found):
    """Return camera, kind, subject, answer, frame and first frame of each event."""
    read = [(time, TYPES.store.deserialize_cdr(data, EVENT)) for _, time, data in found]
    return [
        (each.camera, each.kind, each.subject, each.answer, number(time), number(since(each)))
        for time, each in read
    ]


def since(event):
    return event.since.sec * 10**9 + event.since.nanosec + SENT


def number(time):
    return (time - BEGIN) // PERIOD


def only(script, **values):
    """Return the frames of one camera."""
    return [message(TOPICS["front"], n, value, **values) for n, value in enumerate(script)]


def test_a_phrase_that_appears_flickers_and_disappears_has_two_events(tmp_path):
    script = [NOTHING, CAT, NOTHING, CAT, CAT, CAT, NOTHING, CAT, *[NOTHING] * 4]
    asked = CameraSettings(phrases=("a cat",))
    found, log = described(tmp_path, only(script), settings=asked)
    assert events(found) == [("", 0, "a cat", "", 5, 3), ("", 1, "a cat", "", 10, 8)]
    assert [topic for topic, *_ in found] == ["/kosmos/events"] * 2
    (box,) = TYPES.store.deserialize_cdr(found[0][2], EVENT).phrases[0].boxes
    (phrase,) = phrases_from_json(log[0][-1])
    assert (phrase.text, phrase.boxes[0].x_max) == ("a cat", pytest.approx(box.x_max, abs=0.01))
    assert [row[2] for row in log] == ["appeared", "disappeared"]
    assert log[0][0] == BEGIN + 5 * PERIOD - SENT


def test_an_answer_that_changes_has_the_previous_answer(tmp_path):
    asked = CameraSettings(questions=("Where?",), task="question")
    found, log = described(tmp_path, only([HERE] * 4 + [NOTHING] * 4), settings=asked)
    assert events(found) == [("", 2, "Where?", "here", 2, 0), ("", 2, "Where?", "there", 6, 4)]
    assert [row[4:6] for row in log] == [("here", ""), ("there", "here")]


def test_a_frame_that_cannot_be_read_is_skipped_as_in_the_node(tmp_path):
    asked = CameraSettings(phrases=("a cat",))
    found, _ = described(tmp_path, only([CAT, CAT, BROKEN, CAT]), settings=asked)
    assert events(found) == [("", 0, "a cat", "", 3, 0)]


def test_frames_that_are_not_chosen_do_not_count(tmp_path):
    asked = CameraSettings(phrases=("a cat",))
    found, _ = described(tmp_path, only([CAT, NOTHING] * 4), settings=asked, every="2")
    assert events(found) == [("", 0, "a cat", "", 4, 0)]


def test_without_phrases_and_questions_there_is_no_topic(tmp_path):
    bags.write_bag(tmp_path / "in", only([CAT] * 4))
    assert "/kosmos/events" not in describe(job(tmp_path, settings=CameraSettings()))
    assert log_of(tmp_path) == []


def test_frames_without_stamps_have_events(tmp_path):
    asked = CameraSettings(phrases=("a cat",))
    found, log = described(tmp_path, only([CAT] * 4, stamp=0), settings=asked)
    assert [number(time) for _, time, _ in found] == [2]
    assert len(log) == 1


@pytest.fixture
def long(tmp_path):
    """A bag whose events are in all batches and across their limits."""
    values = list(product((CAT, DOG, HERE | DOG, ALICE), repeat=2))
    script = [value for pair in values for value in pair for _ in range(3)][:60]
    return bags.write_bag(tmp_path / "in", only(script))


@pytest.mark.parametrize("batches", range(8))
def test_a_run_that_was_stopped_continues_with_the_events_of_one_run(long, tmp_path, batches):
    describe(job(tmp_path, out=tmp_path / "whole", log=tmp_path / "whole.db"))
    engine = Engine()
    engine.fails_after = batches
    with pytest.raises(RuntimeError):
        describe(job(tmp_path), engine)
    describe(job(tmp_path))
    assert events_of(tmp_path / "out") == events_of(tmp_path / "whole")
    assert len(events_of(tmp_path / "out")) > 20
    assert len(log_of(tmp_path)) == len(events_of(tmp_path / "out"))


def test_a_repeated_command_adds_no_event_twice(long, tmp_path):
    describe(job(tmp_path))
    before = log_of(tmp_path)
    describe(job(tmp_path, out=tmp_path / "again"))
    assert log_of(tmp_path) == before


def test_events_of_frames_that_the_log_lacks_are_added(long, tmp_path):
    describe(job(tmp_path, end=3.0))
    first = log_of(tmp_path)
    describe(job(tmp_path, out=tmp_path / "again"))
    describe(replace(job(tmp_path), out=tmp_path / "third", log=tmp_path / "log2.db"))
    assert 0 < len(first) < len(log_of(tmp_path))
    with ObservationLog.read(tmp_path / "log2.db") as log:
        (count,) = log.connection.execute("SELECT count(*) FROM event").fetchone()
    assert len(log_of(tmp_path)) == count
