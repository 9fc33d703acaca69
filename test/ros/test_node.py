# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The path of a frame to its caption in the running node, with a fake engine."""

import io
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.msg import GroundedCaption
from node_harness import LATCHED, SNOWMAN, FakeEngine, plain_image
from PIL import Image as Pillow
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from kosmos_ros.errors import DeviceLostError, ModelLoadError
from kosmos_ros.ros import camera, model_host


def test_frame_becomes_caption_with_its_header_and_boxes_in_pixels(start):
    harness = start(max_rate=0).subscribe_to_captions()
    texts = harness.collect(String, "kosmos/text")
    sent = harness.send(width=640, height=480)
    caption = harness.until(lambda: harness.captions)[0]
    assert caption.header == sent.header
    assert (caption.image_width, caption.image_height) == (640, 480)
    assert caption.caption == "An image of a snowman warming himself by a fire."
    assert caption.prompt == "<grounding> An image of"
    assert caption.raw_text == "<grounding> An image of" + SNOWMAN
    assert caption.task == "brief_caption"
    assert [(p.text, p.start, p.end) for p in caption.phrases] == [
        ("a snowman", 12, 21),
        ("a fire", 41, 47),
    ]
    box = caption.phrases[0].boxes[0]
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (250, 22.5, 630, 397.5)
    assert (box.score, caption.phrases[1].boxes[0].score) == (0.25, 0.5)
    assert caption.score == pytest.approx(0.75)
    assert (caption.generated_tokens, caption.truncated, caption.model) == (
        20,
        False,
        "microsoft/kosmos-2-patch14-224",
    )
    assert caption.latency.sec > 1_000_000_000  # the stamp is in 1970
    harness.until(lambda: texts)
    assert texts[0].data == caption.caption


@pytest.mark.parametrize("output", ["", " ", ".", "</phrase><object></object>"])
@pytest.mark.fault(40)
def test_empty_output_gives_valid_messages(start, output):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.engine.outputs = {"": (output, ())}
    sent = harness.send()
    caption = harness.until(lambda: harness.captions)[0]
    assert caption.header == sent.header
    assert caption.caption.rstrip(".") == "An image of"
    assert list(caption.phrases) == []
    answer = harness.ask(question="What is it?")
    assert answer.success, answer.message
    assert (answer.answer.rstrip("."), list(answer.result.phrases)) == ("", [])


@pytest.mark.fault(43)
def test_truncated_text_is_marked_and_logged(start):
    harness = start(max_rate=0, max_new_tokens=20).subscribe_to_captions()
    harness.engine.truncates = True
    harness.send()
    assert harness.until(lambda: harness.captions)[0].truncated
    harness.until(lambda: harness.logs("a text is cut off after 20 tokens", "max_new_tokens"))
    assert harness.ask(question="What is it?").result.truncated


@pytest.mark.fault(45)
def test_any_text_of_the_model_fits_into_a_message(start):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.engine.outputs = {"": (f" a\0b \ud800 \x1b[2J 中 😀 {'x' * 100_000}", ())}
    harness.send()
    caption = harness.until(lambda: harness.captions)[0]
    assert caption.caption == f"An image of a b    [2J 中 😀 {'x' * 100_000}"
    assert caption.raw_text == f"<grounding> {caption.caption}"


@pytest.mark.fault(20)
def test_newest_frame_wins_while_the_model_works(start):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.engine.block()
    harness.send(colour=(1, 1, 1))
    harness.until(harness.engine.stepping.is_set)
    for number in (2, 3, 4):
        harness.send(colour=(number,) * 3)
    harness.engine.unblock()
    harness.until(lambda: len(harness.captions) == 2)
    assert harness.engine.mean_colours == [(1, 1, 1), (4, 4, 4)]
    assert [caption.frames_dropped for caption in harness.captions] == [0, 2]
    assert harness.captions[0].inference_time.nanosec > 0
    answer = harness.ask(question="What is it?")
    assert answer.result.frames_dropped == 2
    assert answer.result.header == harness.captions[1].header
    # An image in the request belongs to no camera.
    assert harness.ask(question="What is it?", image=plain_image()).result.frames_dropped == 0


@pytest.mark.fault(51)
def test_executor_serves_parameters_while_the_model_works(start):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.engine.block()
    harness.send()
    harness.until(harness.engine.stepping.is_set)
    client = harness.client.create_client(GetParameters, "kosmos/get_parameters")
    response = harness.spinner.call(client, GetParameters.Request(names=["task"]))
    assert response.values[0].string_value == "brief_caption"
    assert not harness.captions


@pytest.mark.fault(25)
def test_boxes_are_in_the_pixels_of_their_own_frame(start):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.send(width=320, height=240)
    harness.until(lambda: len(harness.captions) == 1)
    harness.send(width=1280, height=320)
    harness.until(lambda: len(harness.captions) == 2)
    assert [caption.phrases[0].boxes[0].x_min for caption in harness.captions] == [125, 500]
    assert [caption.phrases[0].boxes[0].y_max for caption in harness.captions] == [198.75, 265]


def test_image_transport_selects_compressed_images(start):
    harness = start(image_transport="compressed", max_rate=0)
    captions = harness.collect(GroundedCaption, "kosmos/captions")
    harness.wait_for_connection(harness.compressed_publisher, harness.camera)
    harness.until(harness.camera.wanted)
    png = io.BytesIO()
    Pillow.new("RGB", (64, 32), (200, 100, 50)).save(png, "PNG")
    message = CompressedImage(format="rgb8; png compressed", data=png.getvalue())
    message.header.frame_id = "here"
    harness.compressed_publisher.publish(message)
    caption = harness.until(lambda: captions)[0]
    assert harness.engine.mean_colours == [(200, 100, 50)]
    assert (caption.header.frame_id, caption.image_width, caption.image_height) == ("here", 64, 32)


@pytest.mark.fault(1)
def test_bad_frame_is_logged_and_the_next_one_is_described(start):
    harness = start(max_rate=0).subscribe_to_captions()
    bad = plain_image()
    bad.data = bad.data[:100]
    harness.image_publisher.publish(bad)
    harness.until(lambda: harness.logs("100"))
    harness.send()
    harness.until(lambda: harness.captions)
    assert harness.captions[0].frames_dropped == 1


@pytest.mark.fault(1)
def test_every_bad_frame_is_counted_but_the_warning_is_throttled(start, monkeypatch):
    monkeypatch.setattr("kosmos_ros.ros.camera.REPEAT_ERROR", 3600.0)
    harness = start(max_rate=0).subscribe_to_captions()
    bad = plain_image()
    bad.data = bad.data[:100]
    for count in (1, 2, 3):
        harness.deliver(harness.image_publisher, bad, harness.camera)
        harness.until(lambda count=count: harness.camera.throughput.failed >= count)
    harness.send()
    harness.until(lambda: harness.captions)
    assert harness.captions[0].frames_dropped == harness.camera.throughput.failed >= 3
    assert sum("100 bytes of data" in text for text in harness.logged) == 1


def test_two_different_errors_of_one_camera_are_each_logged_once(start, monkeypatch):
    monkeypatch.setattr("kosmos_ros.ros.camera.REPEAT_ERROR", 3600.0)
    harness = start(max_rate=0).subscribe_to_captions()
    short, strange = plain_image(), plain_image()
    short.data, strange.encoding = short.data[:100], "strange"
    for count, bad in enumerate((short, strange, short, strange), 1):
        harness.deliver(harness.image_publisher, bad, harness.camera)
        harness.until(lambda count=count: harness.camera.throughput.failed >= count)
    for part in ("100 bytes of data", "'strange' is not supported"):
        assert sum(part in text for text in harness.logged) == 1


def test_log_lines_about_errors_are_bounded_and_start_again():
    throttle = camera._Throttle()
    words = [chr(ord("a") + number) for number in range(20)]
    allowed = [throttle.allows(f"image {word} has 1 byte", 0.0) for word in words]
    assert allowed == [True] * camera.MAX_ERROR_KINDS + [False] * (20 - camera.MAX_ERROR_KINDS)
    assert not throttle.allows("image a has 22 byte", camera.REPEAT_ERROR / 2)  # the same kind
    assert throttle.allows("image z has 1 byte", camera.REPEAT_ERROR)


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError("boom"), KeyError("boom")])
@pytest.mark.fault(29)
def test_any_exception_is_logged_and_the_next_frame_is_described(start, error):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.engine.errors.append(error)
    harness.send()
    harness.until(lambda: harness.logs(type(error).__name__, "boom"))
    harness.send()
    harness.until(lambda: harness.captions)


@pytest.mark.fault(32)
def test_lost_device_ends_the_node_with_exit_code_3(start):
    harness = start()
    harness.engine.errors.append(DeviceLostError("CUDA error: gone"))
    states = harness.collect(DiagnosticStatus, "kosmos/model_info", LATCHED)
    response = harness.ask(question="What is it?", image=plain_image())
    assert (response.success, response.message) == (False, "CUDA error: gone")
    harness.until(harness.node.finished.done)
    assert harness.node.finished.result() == 3
    harness.until(lambda: states and states[-1].level == DiagnosticStatus.ERROR)
    assert harness.ask(question="And now?", image=plain_image()).message == "CUDA error: gone"
    assert len(harness.engine.prompts) == 1


def no_thread(*_):
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (MemoryError(), "MemoryError; free memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "free memory"),
        (OSError(24, "Too many open files"), "ulimit -n"),
    ],
)
@pytest.mark.fault(84)
def test_lack_of_the_environment_while_loading_ends_the_node_with_exit_code_7(
    start, error, remedy
):
    connected = threading.Event()

    def load(settings):
        assert connected.wait(30)
        raise error

    harness = start(load=load, wait=False)
    connected.set()
    harness.until(harness.node.finished.done)
    assert harness.node.finished.result() == 7
    harness.until(lambda: harness.logs("the model cannot be used", remedy))


@pytest.mark.fault(84)
def test_worker_without_a_thread_ends_the_node_with_exit_code_7(start, monkeypatch):
    monkeypatch.setattr(model_host, "Worker", no_thread)
    harness = start(wait=False)
    harness.until(harness.node.finished.done)
    assert harness.node.finished.result() == 7


SHUTDOWN_WHILE_THE_MODEL_WORKS = """
import threading
import time

import rclpy
from node_harness import FakeEngine, plain_image
from rclpy.parameter import Parameter

from kosmos_ros.ros.kosmos_node import KosmosNode

crashes = []
threading.excepthook = crashes.append
rclpy.init()
engine = FakeEngine()
values = {"always_on": True, "max_rate": 0.0}
overrides = [Parameter(name, value=value) for name, value in values.items()]
node = KosmosNode(lambda settings: engine, parameter_overrides=overrides)
while not node.host.availability.ready:
    time.sleep(0.01)
camera, missed = node.cameras[""], threading.Event()
count = camera.throughput.missed
camera.throughput.missed = lambda *details: (count(*details), missed.set())
engine.block()
camera._on_image(plain_image())
assert engine.stepping.wait(60)
rclpy.shutdown()
engine.unblock()
# Kilted destroys the node with its context, which ends the delivery of results.
while node._delivery._thread.is_alive() and not missed.wait(0.01):
    pass
assert node.stop(60)
assert engine.unloaded and not crashes, crashes
print("missed:", camera.throughput.error or "delivery has ended")
"""


@pytest.mark.fault(56)
def test_worker_survives_the_end_of_its_context():
    """The test needs its own process: since Kilted, rclpy destroys a context's nodes with it."""
    done = subprocess.run(
        [sys.executable, "-c", SHUTDOWN_WHILE_THE_MODEL_WORKS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        "missed: .*(context is invalid|destruction was requested|delivery has ended)", done.stdout
    )


@pytest.mark.fault(49)
def test_questions_are_refused_while_loading_and_model_info_is_latched(start):
    loaded = threading.Event()
    engine = FakeEngine()

    def load(settings):
        assert loaded.wait(60)
        return engine

    harness = start(engine, load, model="some/model")
    assert harness.ask(question="What?").message == "the model is loading"
    states = harness.collect(DiagnosticStatus, "kosmos/model_info", LATCHED)
    first = harness.until(lambda: states)[0]
    assert (first.message, first.level) == ("loading", DiagnosticStatus.WARN)
    assert {pair.key: pair.value for pair in first.values} == {
        "state": "loading",
        "model": "some/model",
    }
    loaded.set()
    harness.until(lambda: states[-1].message == "ready")
    second = states[-1]
    assert second.level == DiagnosticStatus.OK
    assert {pair.key: pair.value for pair in second.values}["device"] == "cpu"


@pytest.mark.fault(36)
def test_node_reports_why_a_model_cannot_be_loaded(start):
    def load(settings):
        raise ModelLoadError(f"model {settings.model!r} is nowhere")

    harness = start(load=load, model="no/model")
    harness.until(lambda: "nowhere" in harness.node.unavailable())
    response = harness.ask(question="What?")
    assert response.message == "the model cannot be used: model 'no/model' is nowhere"
    states = harness.collect(DiagnosticStatus, "kosmos/model_info", LATCHED)
    harness.until(lambda: states and states[-1].level == DiagnosticStatus.ERROR)


def test_model_info_has_the_progress_of_loading(start, monkeypatch):
    loading, warming_up, go_on, loaded = (threading.Event() for _ in range(4))
    engine = FakeEngine()

    def load(_):
        loading.set()
        assert loaded.wait(60)
        return engine

    def warm_up(*_):
        warming_up.set()
        assert go_on.wait(60)

    monkeypatch.setattr(engine, "warm_up", warm_up)
    harness = start(engine, load=load)
    harness.until(loading.is_set)
    states = harness.collect(DiagnosticStatus, "kosmos/model_info", LATCHED)
    harness.until(lambda: states)

    def newest():
        values = {pair.key: pair.value for pair in states[-1].values}
        return states[-1].message, {
            key: values[key] for key in values if key not in ("state", "model")
        }

    monkeypatch.setattr(model_host, "REPORT_PERIOD", 0.0)
    harness.node.host.report("downloading", 5_123_000, 6_600_000_000)
    harness.until(
        lambda: (
            newest()
            == (
                "loading",
                {
                    "phase": "downloading",
                    "downloaded (MB)": "5.1",
                    "download size (MB)": "6600.0",
                },
            )
        )
    )
    monitored = harness.collect(DiagnosticArray, "/diagnostics")
    harness.until(lambda: monitored)
    assert all(value in monitored[-1].status[0].values for value in states[-1].values)
    loaded.set()
    harness.until(warming_up.is_set)
    harness.until(lambda: newest() == ("loading", {"phase": "warming up"}))
    go_on.set()
    harness.until(lambda: newest()[0] == "ready")
    assert "phase" not in newest()[1]


def test_the_same_phase_is_published_at_most_twice_a_second(start, monkeypatch):
    loading, loaded = threading.Event(), threading.Event()

    def load(_):
        loading.set()
        assert loaded.wait(60)
        return harness.engine

    harness = start(load=load)
    harness.until(loading.is_set)
    host, published = harness.node.host, []
    monkeypatch.setattr(harness.node, "on_availability", published.append)
    now = 1000.0
    monkeypatch.setattr(model_host, "time", SimpleNamespace(monotonic=lambda: now))
    for done in range(100):
        host.report("downloading", done, 100)
        now += 0.05
    host.report("reading weights", 0, 0)
    phases = [availability.progress["phase"] for availability in published]
    assert phases == ["downloading"] * 10 + ["reading weights"]
    assert host.availability is published[-1]
    loaded.set()
    harness.until(lambda: host.availability.ready)
    host.report("reading weights", 0, 0)
    assert host.availability.progress == {}


@pytest.mark.parametrize("warm_up", [True, False])
def test_engine_is_warmed_up_for_the_longest_captions(start, warm_up):
    values = {"front.max_new_tokens": 300, "rear.max_new_tokens": 40, "warm_up": warm_up}
    harness = start(cameras=["front", "rear"], max_batch_size=4, **values)
    assert harness.engine.warmed_up == ((4, 300) if warm_up else None)
