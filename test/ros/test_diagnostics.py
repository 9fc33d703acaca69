# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""/diagnostics and /events of the running node, with a fake engine."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.msg import Event, GroundedCaption
from node_harness import plain_image
from rclpy.parameter import Parameter

from kosmos_ros.errors import ModelLoadError

SNOWMAN_BOX = "<object><patch_index_0044><patch_index_0863></object>"


class Panel:
    """The newest status of each name."""

    def __init__(self, harness):
        self.harness = harness
        self.statuses = {}
        harness.client.create_subscription(DiagnosticArray, "/diagnostics", self._on, 10)

    def _on(self, message):
        self.statuses |= {status.name: status for status in message.status}

    def until(self, name, level, words="", **values):
        """The values of the status, once it is so."""

        def so():
            status = self.statuses.get(f"/kosmos: {name}")
            if not status or status.level != level or words not in status.message:
                return None
            told = {pair.key: pair.value for pair in status.values}
            return told if values.items() <= told.items() else None

        return self.harness.until(so, f"{name} at level {level} with {words!r} and {values}")


def test_a_camera_that_works_is_measured(start):
    harness = start(max_rate=0).subscribe_to_captions()
    panel = Panel(harness)
    for count in range(1, 4):
        harness.send()
        harness.until(lambda count=count: len(harness.captions) == count)
    values = panel.until("camera", DiagnosticStatus.OK, "images are described", described="3")
    assert (values["topic"], values["failed"]) == ("/image", "0")
    assert float(values["latency p50 (s)"]) <= float(values["latency p95 (s)"])
    assert float(values["described rate (Hz)"]) > 0
    values = panel.until("model", DiagnosticStatus.OK, "ready")
    assert (values["device memory (MB)"], values["model"]) == ("3", "fake")
    assert float(values["process memory (MB)"]) > 10


@pytest.mark.fault(21)
def test_silence_failure_and_switch_show_as_levels(start):
    harness = start(max_rate=0, stale_timeout=1.0).subscribe_to_captions()
    panel = Panel(harness)
    panel.until("camera", DiagnosticStatus.STALE, "no image on /image")
    bad = plain_image()
    bad.data = bad.data[:5]
    timer = harness.client.create_timer(0.1, lambda: harness.image_publisher.publish(bad))
    values = panel.until("camera", DiagnosticStatus.ERROR, "5 bytes of data")
    assert int(values["failed"]) > 0
    harness.client.destroy_timer(timer)
    timer = harness.client.create_timer(
        0.1, lambda: harness.image_publisher.publish(plain_image())
    )
    values = panel.until("camera", DiagnosticStatus.OK)
    assert "5 bytes of data" in values["last error"]
    assert 0 <= int(values["last error age (s)"]) < 60
    harness.client.destroy_timer(timer)


def test_each_camera_and_the_model_have_a_status(start):
    def load(settings):
        raise ModelLoadError("no such model")

    harness = start(load=load, cameras=["left", "right"])
    panel = Panel(harness)
    panel.until("model", DiagnosticStatus.ERROR, "no such model")
    assert set(panel.statuses) == {
        "/kosmos: model",
        "/kosmos: camera left",
        "/kosmos: camera right",
    }


@pytest.fixture
def watched(start):
    """A harness whose node looks for a dog and asks one question, and its events."""
    harness = start(
        max_rate=0, phrases=["a dog"], questions=["Is it warm?"], event_frames=3, always_on=False
    )
    harness.events = []

    def hear():
        found = harness.client.create_subscription(
            Event, "kosmos/events", harness.events.append, 10
        )
        harness.until(lambda: harness.has_subscriber("events"))
        return found

    harness.hear, harness.hearing = hear, hear()
    harness.count = 0

    def show(dog, warm, times):
        """As many frames, each with its own stamp."""
        harness.engine.outputs = {
            "a dog": (SNOWMAN_BOX, (1.0, 0.25)) if dog else ("", ()),
            "warm": (f" {warm}.", ()),
        }
        for _ in range(times):
            harness.count += 1
            done = harness.camera.throughput.count
            harness.send(sec=harness.count)
            harness.until(lambda done=done: harness.camera.throughput.count > done)

    harness.show = show
    return harness


def test_what_comes_into_view_and_leaves_is_told_once(watched):
    watched.show(dog=False, warm="no", times=4)
    watched.until(lambda: len(watched.events) == 1)
    watched.show(dog=True, warm="no", times=2)
    watched.show(dog=False, warm="no", times=1)
    watched.show(dog=True, warm="no", times=6)
    watched.until(lambda: len(watched.events) == 2)
    watched.show(dog=False, warm="no", times=6)
    watched.until(lambda: len(watched.events) == 3)
    _, came, went = watched.events
    assert (came.kind, came.subject, came.header.stamp.sec, came.since.sec) == (
        Event.APPEARED,
        "a dog",
        10,
        8,
    )
    assert [box.x_min for box in came.phrases[0].boxes] == [250]
    assert (went.kind, went.subject, went.since.sec, list(went.phrases)) == (
        Event.DISAPPEARED,
        "a dog",
        14,
        [],
    )


def test_an_answer_that_changes_is_told_with_the_one_before(watched):
    watched.show(dog=False, warm="no", times=3)
    watched.show(dog=False, warm="yes", times=3)
    watched.until(lambda: len(watched.events) == 2)
    first, second = watched.events
    assert [(e.kind, e.subject) for e in watched.events] == [(Event.ANSWERED, "Is it warm?")] * 2
    assert (first.answer, first.previous) == ("no.", "")
    assert (second.answer, second.previous, second.since.sec) == ("yes.", "no.", 4)


def test_what_was_seen_before_a_gap_does_not_count_after_it(watched):
    watched.show(dog=True, warm="no", times=2)
    watched.node.set_parameters([Parameter("enabled", value=False)])
    watched.send(sec=50)
    watched.node.set_parameters([Parameter("enabled", value=True)])
    watched.show(dog=True, warm="no", times=2)
    assert not watched.events
    watched.show(dog=True, warm="no", times=1)
    watched.until(lambda: len(watched.events) == 2)


def test_frames_that_were_asked_something_else_are_a_gap_too(watched):
    watched.show(dog=True, warm="no", times=2)
    watched.client.create_subscription(GroundedCaption, "kosmos/captions", print, 10)
    watched.until(lambda: watched.has_subscriber("captions"))
    watched.client.destroy_subscription(watched.hearing)
    watched.until(lambda: not watched.has_subscriber("events"))
    watched.show(dog=True, warm="no", times=1)
    watched.hear()
    watched.show(dog=True, warm="no", times=2)
    assert not watched.events
    watched.show(dog=True, warm="no", times=1)
    watched.until(lambda: len(watched.events) == 2)


def test_a_camera_that_is_not_described_says_why(start):
    harness = start(max_rate=0)
    panel = Panel(harness)
    harness.send()
    panel.until("camera", DiagnosticStatus.OK, "nobody subscribes")
    harness.node.set_parameters([Parameter("enabled", value=False)])
    panel.until("camera", DiagnosticStatus.OK, "switched off")
