# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Events of bags: phrases that come into view or leave it, and answers that change."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")

import bags
from bags import BEGIN, PERIOD, SENT, TYPES
from mute_engine import BOX, MuteEngine

from kosmos_ros.kosmos2 import grounding
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.memory.records import Event
from kosmos_ros.offline.bags import events
from kosmos_ros.offline.bags.job import Job, Run
from kosmos_ros.offline.bags.messages import DescribedImage, _located
from kosmos_ros.offline.unfinished import Row
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, FrameResult

ASKED = {"phrases": ("a cup",), "questions": ("Is it day?",)}
VISIBLE = [*range(2, 5), *range(6, 10)]  # numbers of the frames with the cup
DAY = 8  # frames before the night
FRAMES = 20


NUMBERS = {bags.frame(number).tobytes(): number for number in range(FRAMES)}
"""Number of a frame by its pixels."""


class Scripted(MuteEngine):
    """Sees the cup in the frames VISIBLE, and the day in the first DAY frames."""

    def encode_batch(self, images):
        super().encode_batch(images)
        return [NUMBERS[np.ascontiguousarray(image).tobytes()] for image in images]

    def generate_batch(self, queries):
        texts = map(self.text, queries)
        return [Generation(text, (0.5, 0.25) if text == BOX else (), 0.75, 7, False)
                for text in texts]  # fmt: skip

    def text(self, query):
        if "<phrase> a cup</phrase>" in query.prompt:
            return BOX if query.image in VISIBLE else ""
        if "Is it day?" in query.prompt:
            return "yes" if query.image < DAY else "no"
        return "a room"


def run(source, out, engine=None, **values):
    """Describe a bag; return the counts of its messages by topic."""
    job = Job(
        bag=source, out=out, settings=CameraSettings(**ASKED), model="fake",
        max_image_pixels=10**6, model_settings=dict.fromkeys(MODEL_SETTINGS, ""), **values,
    )  # fmt: skip
    own = Run(job)
    with own.open({}) as results:
        list(own.describe(results, lambda: engine or Scripted()))
        for _ in own.write(results):
            pass
        own.add_to_log(results)
        counts = own.counts(results)["messages"]
    own.clean()
    return counts


def told(message):
    """Return what an event says: kind, subject, answers, and the numbers of its frames."""
    number, first = (
        round((each.sec * 10**9 + each.nanosec + SENT - BEGIN) / PERIOD)
        for each in (message.header.stamp, message.since)
    )
    kind = events.KINDS[message.kind]
    return kind, message.subject, message.answer, message.previous, number, first


EXPECTED = [  # the cup of frame 5 is missed once
    ("answered", "Is it day?", "yes", "", 2, 0),
    ("appeared", "a cup", "", "", 4, 2),
    ("answered", "Is it day?", "no", "yes", 10, 8),
    ("disappeared", "a cup", "", "", 12, 10),
]


@pytest.fixture
def source(tmp_path):
    return bags.write_bag(tmp_path / "in", bags.frames(FRAMES))


def test_events_are_in_the_bag_at_the_times_of_their_frames(source, tmp_path):
    counts = run(source, tmp_path / "out")
    found = bags.messages(tmp_path / "out", "/kosmos/events")
    assert [told(message) for _, message in found] == EXPECTED
    assert counts["/kosmos/events"] == 4
    assert [time for time, _ in found] == [BEGIN + n * PERIOD for n in (2, 4, 10, 12)]
    (phrase,) = found[1][1].phrases
    located = dict(bags.messages(tmp_path / "out", "/kosmos/phrases"))[BEGIN + 4 * PERIOD]
    assert phrase == located.phrases[0]
    assert found[1][1].header == located.header
    # An event comes after the other results of its frame.
    order = [topic for topic, _, time, _ in bags.contents(tmp_path / "out")
             if time == BEGIN + 4 * PERIOD]  # fmt: skip
    assert order[-1] == "/kosmos/events"


def test_each_camera_has_its_own_events(tmp_path):
    both = [*bags.frames(FRAMES), *bags.frames(3, "/rear/image_raw")]
    source = bags.write_bag(tmp_path / "in", sorted(both, key=lambda each: each[2]))
    run(source, tmp_path / "out")
    front = bags.messages(tmp_path / "out", "/kosmos/front/events")
    assert [told(message) for _, message in front] == EXPECTED
    rear = bags.messages(tmp_path / "out", "/kosmos/rear/events")
    assert [(told(each), each.camera) for _, each in rear] == [(EXPECTED[0], "rear")]


def test_the_log_has_the_events_of_each_camera(tmp_path):
    both = [*bags.frames(FRAMES), *bags.frames(3, "/rear/image_raw")]
    source = bags.write_bag(tmp_path / "in", sorted(both, key=lambda each: each[2]))
    run(source, tmp_path / "out", log=tmp_path / "memory.db")
    rows = logged(tmp_path / "memory.db")
    assert [row[:6] for row in rows if row[6] == "front"] == EXPECTED
    assert [row[:6] for row in rows if row[6] == "rear"] == EXPECTED[:1]


def logged(log):
    """Return the events of a log as in EXPECTED, each with its camera."""
    with ObservationLog.read(log) as reader:
        rows = reader.connection.execute(
            "SELECT kind, subject, answer, previous, stamp, since, name FROM event "
            "JOIN camera ON camera.id = camera ORDER BY stamp"
        ).fetchall()
    return [
        (*row[:4], *(round((each + SENT - BEGIN) / PERIOD) for each in row[4:6]), row[6])
        for row in rows
    ]


def test_if_stamps_repeat_the_record_times_count():
    settings = CameraSettings(phrases=("a cup",), event_frames=2, event_seconds=0.25)
    shown = grounding.Phrase("a cup", 0, 5, (grounding.Box(0.25, 0.5, 0.5, 0.75, 0.5),))
    rows = [
        Row("/kosmos/phrases", number * PERIOD, TYPES.data(located(shown, 7)))
        for number in range(6)
    ]
    found = events.events(rows, {"/kosmos/phrases": "phrases"}, TYPES, settings)
    assert [time // PERIOD for time, _ in found] == [3]


def test_a_record_has_all_fields_of_the_message(source, tmp_path):
    run(source, tmp_path / "out")
    _, message = bags.messages(tmp_path / "out", "/kosmos/events")[1]
    (box,) = message.phrases[0].boxes
    record = events.record(message)
    assert dataclasses.replace(record, phrases=()) == Event(
        BEGIN + 4 * PERIOD - SENT, "", "appeared", "a cup", since=BEGIN + 2 * PERIOD - SENT
    )
    assert vars(record.phrases[0].boxes[0]) == {
        **{name: getattr(box, name) for name in ("x_min", "y_min", "x_max", "y_max", "score")},
        "track": None,
        "position": None,
    }


def located(phrase, number):
    """Return the message of a frame with the requested phrase."""
    prompt = STANDING[0].prompt("a cup", CameraSettings())
    caption = grounding.Caption("a cup", (phrase,))
    header = bags.header(number * PERIOD)
    result = FrameResult((), {"phrases": ((prompt, caption),)}, {})
    (message,) = _located(TYPES, DescribedImage("", header, np.zeros((4, 4, 3)), result, "fake"))
    return message
