# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""/diagnostics and /events of the running node, with a fake engine."""

import threading

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.msg import Event, GroundedCaption
from node_harness import LATCHED, SNOWMAN_BOX, plain_image
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from kosmos_ros.errors import GenerationError, ModelLoadError
from kosmos_ros.kosmos2 import progress
from kosmos_ros.ros import status_keys
from kosmos_ros.ros.model_host import load_engine
from kosmos_ros.serving.scheduler import Drop


class Monitor:
    """The newest status of each name on /diagnostics."""

    def __init__(self, harness):
        self.harness = harness
        self.statuses = {}
        harness.client.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, 10
        )

    def _on_diagnostics(self, message):
        self.statuses |= {status.name: status for status in message.status}

    def until(self, name, level, words="", **values):
        """Wait for a status with this level, text and values; return all its values."""

        def found():
            status = self.statuses.get(f"/kosmos: {name}")
            if not status or status.level != level or words not in status.message:
                return None
            published = {pair.key: pair.value for pair in status.values}
            return published if values.items() <= published.items() else None

        return self.harness.until(found, f"{name} at level {level} with {words!r} and {values}")


def test_status_of_a_working_camera_has_rates_and_latency(start):
    harness = start(max_rate=0).subscribe_to_captions()
    monitor = Monitor(harness)
    for count in range(1, 4):
        harness.send()
        harness.until(lambda count=count: len(harness.captions) == count)
    values = monitor.until("camera", DiagnosticStatus.OK, "images are described", described="3")
    assert (values["topic"], values["failed"]) == ("/image", "0")
    median, high = (float(values[f"latency p{share} (s)"]) for share in (50, 95))
    assert 1_000_000_000 < median <= high  # the stamps are in 1970
    assert float(values["described rate (Hz)"]) > 0
    values = monitor.until("model", DiagnosticStatus.OK, "ready")
    assert (values["device memory (MB)"], values["model"]) == ("3", "fake")
    assert float(values["process memory (MB)"]) > 10


def test_an_unchanged_frame_is_counted_and_published_with_its_own_header(start):
    harness = start(max_rate=0).subscribe_to_captions()
    monitor = Monitor(harness)
    frame = harness.send(sec=7)
    harness.until(lambda: len(harness.captions) == 1)
    frame.header.stamp.sec = 8
    harness.deliver(harness.image_publisher, frame, harness.camera)
    harness.until(lambda: len(harness.captions) == 2)
    first, second = harness.captions
    assert [caption.header.stamp.sec for caption in (first, second)] == [7, 8]
    assert (second.caption, second.phrases) == (first.caption, first.phrases)
    assert len(harness.engine.prompts) == 1
    values = monitor.until("camera", DiagnosticStatus.OK, described="2", unchanged="1")
    assert values["tokens per pass with drafts"] == "1.00"


def test_dropped_frames_are_counted_for_each_reason(start):
    harness = start(max_rate=0).subscribe_to_captions()
    monitor = Monitor(harness)
    harness.engine.block()
    harness.send()
    harness.until(harness.engine.stepping.is_set)
    for _ in range(3):
        harness.send()
    harness.engine.unblock()  # two of the three are replaced by newer ones
    harness.until(lambda: len(harness.captions) == 2)
    bad = plain_image()
    bad.data = bad.data[:5]
    harness.deliver(harness.image_publisher, bad, harness.camera)
    harness.until(lambda: harness.camera.throughput.failed == 1)
    harness.engine.errors = [GenerationError("broken")]
    harness.send()
    harness.until(lambda: harness.camera.throughput.failed == 2)
    harness.engine.block()
    harness.engine.stepping.clear()
    harness.send()
    harness.until(harness.engine.stepping.is_set)
    harness.send()
    harness.until(lambda: harness.node.scheduler._slots[""].pending)
    assert harness.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    harness.engine.unblock()  # one frame in progress and one pending are cancelled
    reasons = {"replaced": "2", "too old": "0", "unreadable": "1", "failed": "1", "cancelled": "2"}
    drops = {f"dropped: {reason}": count for reason, count in reasons.items()}
    values = monitor.until("camera", DiagnosticStatus.OK, "not active", **drops)
    assert (values["described"], values["dropped"], values["failed"]) == ("2", "6", "2")


@pytest.mark.fault(21)
def test_silence_and_failures_set_the_level(start):
    harness = start(max_rate=0, stale_timeout=1.0).subscribe_to_captions()
    monitor = Monitor(harness)
    values = monitor.until("camera", DiagnosticStatus.STALE, "no image on /image")
    assert "perhaps" in values["cause"]
    assert values["cause"].startswith("this node requests ")  # no second that counts
    bad = plain_image()
    bad.data = bad.data[:5]
    timer = harness.client.create_timer(0.1, lambda: harness.image_publisher.publish(bad))
    values = monitor.until("camera", DiagnosticStatus.ERROR, "5 bytes of data")
    assert int(values["failed"]) > 0
    harness.client.destroy_timer(timer)
    timer = harness.client.create_timer(
        0.1, lambda: harness.image_publisher.publish(plain_image())
    )
    values = monitor.until("camera", DiagnosticStatus.OK)
    assert values["cause"] == ""
    assert "5 bytes of data" in values["last error"]
    assert 0 <= int(values["last error age (s)"]) < 60
    harness.client.destroy_timer(timer)


@pytest.mark.parametrize("offered", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_status_has_the_delivery_in_use(start, offered):
    harness = start(image_transport="compressed", image_reliability="auto")
    values = Monitor(harness).until("camera", DiagnosticStatus.OK, publishers="1")
    assert (values["transport"], values["reliability"]) == ("compressed", "reliable")
    harness.client.destroy_publisher(harness.compressed_publisher)
    harness.client.create_publisher(
        CompressedImage, "image/compressed", QoSProfile(depth=1, reliability=offered)
    )
    reliability = offered.name.lower()
    monitor = Monitor(harness)
    monitor.until("camera", DiagnosticStatus.OK, publishers="1", reliability=reliability)


def test_model_and_each_camera_have_a_status(start):
    def load(settings):
        raise ModelLoadError("no such model")

    harness = start(load=load, cameras=["left", "right"])
    monitor = Monitor(harness)
    monitor.until("model", DiagnosticStatus.ERROR, "no such model")
    assert set(monitor.statuses) == {
        "/kosmos: model",
        "/kosmos: camera left",
        "/kosmos: camera right",
    }


class Scene:
    """A node that looks for a dog and asks one question about each frame, and its events."""

    def __init__(self, harness):
        self.harness = harness
        self.events = []
        self.frames = 0  # sent
        self.subscribe()

    def subscribe(self):
        self.subscription = self.harness.client.create_subscription(
            Event, "kosmos/events", self.events.append, 10
        )
        self.harness.until(lambda: self.harness.has_subscriber("events"))

    def show(self, dog, warm, frames):
        """Send frames with increasing stamps; the model finds the dog if `dog`, answers `warm`."""
        self.harness.engine.outputs = {
            "a dog": (SNOWMAN_BOX, (1.0, 0.25)) if dog else ("", ()),
            "warm": (f" {warm}.", ()),
        }
        for _ in range(frames):
            self.frames += 1
            described = self.harness.camera.throughput.count
            self.harness.send(sec=self.frames)
            self.harness.until(
                lambda before=described: self.harness.camera.throughput.count > before
            )

    def wait_for_events(self, count):
        self.harness.until(lambda: len(self.events) == count, f"{count} events")


@pytest.fixture
def scene(start):
    return Scene(
        start(
            max_rate=0,
            phrases=["a dog"],
            questions=["Is it warm?"],
            event_frames=3,
            always_on=False,
        )
    )


def test_appearing_and_disappearing_publish_one_event_each(scene):
    scene.show(dog=False, warm="no", frames=4)
    scene.wait_for_events(1)
    scene.show(dog=True, warm="no", frames=2)
    scene.show(dog=False, warm="no", frames=1)
    scene.show(dog=True, warm="no", frames=6)
    scene.wait_for_events(2)
    scene.show(dog=False, warm="no", frames=6)
    scene.wait_for_events(3)
    _, appeared, disappeared = scene.events
    assert (appeared.kind, appeared.subject, appeared.header.stamp.sec, appeared.since.sec) == (
        Event.APPEARED,
        "a dog",
        10,
        8,
    )
    assert [box.x_min for box in appeared.phrases[0].boxes] == [250]
    assert (
        disappeared.kind,
        disappeared.subject,
        disappeared.since.sec,
        list(disappeared.phrases),
    ) == (
        Event.DISAPPEARED,
        "a dog",
        14,
        [],
    )


def test_changed_answer_publishes_an_event_with_the_previous_answer(scene):
    scene.show(dog=False, warm="no", frames=3)
    scene.show(dog=False, warm="yes", frames=3)
    scene.wait_for_events(2)
    first, second = scene.events
    assert [(e.kind, e.subject) for e in scene.events] == [(Event.ANSWERED, "Is it warm?")] * 2
    assert (first.answer, first.previous) == ("no.", "")
    assert (second.answer, second.previous, second.since.sec) == ("yes.", "no.", 4)


def test_frames_before_a_gap_do_not_count(scene):
    scene.show(dog=True, warm="no", frames=2)
    scene.harness.node.set_parameters([Parameter("enabled", value=False)])
    scene.harness.send(sec=50)
    scene.harness.node.set_parameters([Parameter("enabled", value=True)])
    scene.show(dog=True, warm="no", frames=2)
    assert not scene.events
    scene.show(dog=True, warm="no", frames=1)
    scene.wait_for_events(2)


def test_frames_without_the_prompts_of_events_are_a_gap(scene):
    scene.show(dog=True, warm="no", frames=2)
    scene.harness.client.create_subscription(
        GroundedCaption, "kosmos/captions", lambda message: None, 10
    )
    scene.harness.until(lambda: scene.harness.has_subscriber("captions"))
    scene.harness.client.destroy_subscription(scene.subscription)
    scene.harness.until(lambda: not scene.harness.has_subscriber("events"))
    scene.show(dog=True, warm="no", frames=1)
    scene.subscribe()
    scene.show(dog=True, warm="no", frames=2)
    assert not scene.events
    scene.show(dog=True, warm="no", frames=1)
    scene.wait_for_events(2)


LATE = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EVENTS = "/kosmos/events"


def publish_events(harness, count):
    """Publish events with the subjects 1, 2 ... in place of those of frames."""
    publishers = {output.topic: publisher for output, publisher in harness.camera._outputs}
    for number in range(1, count + 1):
        publishers["events"].publish(Event(subject=str(number)))
    return publishers["events"]


def subjects(events):
    return [int(event.subject) for event in events]


@pytest.mark.parametrize(
    ("overrides", "kept"), [({}, 100), ({"depth": 5}, 5), ({"durability": "volatile"}, 0)]
)
def test_a_late_subscriber_receives_the_last_events_as_qos_overrides_say(start, overrides, kept):
    values = {f"qos_overrides.{EVENTS}.publisher.{name}": of for name, of in overrides.items()}
    harness = start(**values)
    publisher = publish_events(harness, 120)
    late, common = (harness.collect(Event, EVENTS, qos) for qos in (LATE, 10))
    expected = list(range(121 - kept, 121)) if kept else []
    connected = 1 if overrides.get("durability") else 2
    harness.until(lambda: publisher.get_subscription_count() == connected)
    harness.until(lambda: subjects(late) == expected)
    publisher.publish(Event(subject="121"))
    harness.until(lambda: subjects(common) == [121], "a new event with default QoS")
    assert subjects(late) == ([*expected, 121] if kept else [])


def test_events_that_nobody_received_are_kept_while_the_node_is_not_active(scene):
    harness, found = scene.harness, scene.harness.collect(GroundedCaption, "kosmos/phrases")
    harness.until(lambda: harness.has_subscriber("phrases"))
    harness.client.destroy_subscription(scene.subscription)
    harness.until(lambda: not harness.has_subscriber("events"))
    scene.show(dog=True, warm="no", frames=3)
    harness.until(lambda: len(found) == 3)
    assert harness.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    paused = harness.collect(Event, EVENTS, LATE)
    harness.until(lambda: paused)
    assert harness.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    active = harness.collect(Event, EVENTS, LATE)
    harness.until(lambda: active)
    assert [(event.kind, event.subject) for event in active] == [(Event.APPEARED, "a dog")]
    assert paused == active


def test_status_of_an_idle_camera_gives_the_reason(start):
    harness = start(max_rate=0)
    monitor = Monitor(harness)
    harness.send()
    monitor.until("camera", DiagnosticStatus.OK, "nobody subscribes")
    harness.node.set_parameters([Parameter("enabled", value=False)])
    monitor.until("camera", DiagnosticStatus.OK, "switched off")


def test_the_published_keys_are_those_of_the_documentation(start):
    harness = start(load=load_engine, model="shapes", device="cpu", max_batch_size=1)
    infos = harness.collect(DiagnosticStatus, "kosmos/model_info", LATCHED)
    reports = harness.collect(DiagnosticArray, "/diagnostics")
    harness.until(lambda: infos and infos[-1].message == "ready")

    def keys(status):
        return [pair.key for pair in status.values]

    harness.until(lambda: reports and reports[-1].status[0].message == "ready")
    model, camera = reports[-1].status
    assert keys(infos[-1]) == list(status_keys.MODEL_INFO)
    assert keys(model) == [*status_keys.MODEL_INFO, *status_keys.MODEL]
    assert keys(camera) == list(status_keys.CAMERA)
    units = {pair.key: pair.value.rpartition(" ")[2] for pair in infos[-1].values}
    assert units["start_up"] == "s"


def test_the_keys_of_a_download_are_those_of_the_documentation(start):
    loaded = threading.Event()
    harness = start(load=lambda settings: loaded.wait(60) and harness.engine)
    harness.until(lambda: harness.node.host.worker)  # accepts the progress from now on
    infos = harness.collect(DiagnosticStatus, "kosmos/model_info", LATCHED)
    harness.until(lambda: infos)
    harness.node.host.report(progress.DOWNLOADING, 1, 2)
    harness.until(lambda: len(infos[-1].values) > 2)
    assert [pair.key for pair in infos[-1].values] == ["state", "model", *status_keys.LOADING]
    loaded.set()


def test_the_documentation_names_every_phase_and_every_reason_for_a_drop():
    phases = [getattr(progress, name) for name in dir(progress) if name.isupper()]
    assert len(phases) == 5
    assert all(phase in status_keys.LOADING["phase"].meaning for phase in phases)
    reasons = [key.partition(": ")[2] for key in status_keys.CAMERA if ": " in key]
    assert reasons == [reason.value for reason in Drop]
