# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node in process, with literal KOSMOS-2 output in place of a model."""

import dataclasses
import io
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kosmos_ros.errors import DeviceLostError, ModelLoadError

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Duration, Time
from desk import FAR, REGION, SNOWMAN, FakeEngine, picture
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from PIL import Image as Pillow
from rcl_interfaces.srv import GetParameters
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from kosmos_ros.ros import parameters
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings


def test_a_frame_becomes_a_caption_with_its_header_and_boxes_in_pixels(start):
    desk = start(max_rate=0).listen()
    texts = []
    desk.client.create_subscription(String, "kosmos/text", texts.append, 10)
    sent = desk.send(width=640, height=480)
    caption = desk.until(lambda: desk.captions)[0]
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
    assert caption.latency.sec > 1_000_000_000  # the stamp is of 1970
    desk.until(lambda: texts)
    assert texts[0].data == caption.caption


@pytest.mark.parametrize("said", ["", " ", ".", "</phrase><object></object>"])
@pytest.mark.fault(40)
def test_an_output_without_words_or_phrases_is_a_message(start, said):
    desk = start(max_rate=0).listen()
    desk.engine.says = {"": (said, ())}
    sent = desk.send()
    caption = desk.until(lambda: desk.captions)[0]
    assert caption.header == sent.header
    assert caption.caption.rstrip(".") == "An image of"
    assert list(caption.phrases) == []
    answer = desk.ask(question="What is it?")
    assert answer.success, answer.message
    assert (answer.answer.rstrip("."), list(answer.result.phrases)) == ("", [])


@pytest.mark.fault(43)
def test_a_text_that_is_cut_off_says_so_and_is_warned_of(start):
    desk = start(max_rate=0, max_new_tokens=20).listen()
    desk.engine.truncates = True
    desk.send()
    assert desk.until(lambda: desk.captions)[0].truncated
    desk.until(lambda: desk.logs("a text is cut off after 20 tokens", "max_new_tokens"))
    assert desk.ask(question="What is it?").result.truncated


@pytest.mark.fault(45)
def test_a_message_arrives_whatever_the_model_writes(start):
    desk = start(max_rate=0).listen()
    desk.engine.says = {"": (f" a\0b \ud800 \x1b[2J 中 😀 {'x' * 100_000}", ())}
    desk.send()
    caption = desk.until(lambda: desk.captions)[0]
    assert caption.caption == f"An image of a b    [2J 中 😀 {'x' * 100_000}"
    assert caption.raw_text == f"<grounding> {caption.caption}"


@pytest.mark.fault(53)
def test_a_client_in_the_nodes_own_executor_is_answered(start):
    """From a callback, as when several nodes are composed in a process."""
    desk = start(max_rate=0)
    answers = []

    def on_caption(caption):
        request = Ask.Request(question=f"Is it so: {caption.caption}?")
        desk.asking.call_async(request).add_done_callback(
            lambda done: answers.append(done.result())
        )

    async def on_text(text):
        answers.append(await desk.asking.call_async(Ask.Request(question="What is it?")))

    desk.client.create_subscription(GroundedCaption, "kosmos/captions", on_caption, 10)
    desk.client.create_subscription(
        String, "kosmos/text", on_text, 10, callback_group=ReentrantCallbackGroup()
    )
    desk.until(lambda: desk.asking.service_is_ready() and desk.camera.wanted())
    desk.send()
    desk.until(lambda: len(answers) >= 2)
    assert all(answer.success for answer in answers)


ANNOTATED = [("annotated", Image), ("annotated/compressed", CompressedImage)]

ENDING = """
import threading
import time

import rclpy
from desk import FakeEngine, picture
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
engine.free.clear()
camera._on_image(picture())
assert engine.busy.wait(60)
rclpy.shutdown()
engine.free.set()
assert missed.wait(60)
assert node.stop(60)
assert engine.unloaded and not crashes, crashes
print("missed:", camera.throughput.error)
"""


@pytest.mark.fault(56)
def test_a_context_that_ends_under_the_worker_is_no_crash():
    """In a process of its own: since Kilted, rclpy destroys a context's nodes with it."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("missed: .*(context is invalid|destruction was requested)", done.stdout)


@pytest.mark.fault(61)
def test_without_listeners_nothing_is_captioned_and_questions_are_answered(start):
    desk = start(max_rate=0)
    desk.send()
    response = desk.ask(question="What is it?")
    assert response.success, response.message
    assert desk.engine.prompts == ["Question: What is it? Answer:"]


@pytest.mark.parametrize(("topic", "kind"), [("text", String), *ANNOTATED])
def test_any_output_that_is_listened_to_starts_captions(start, topic, kind):
    desk = start(max_rate=0)
    results = []
    desk.client.create_subscription(kind, f"kosmos/{topic}", results.append, 10)
    desk.until(desk.camera.wanted)
    desk.send()
    desk.until(lambda: results)


def test_the_longest_text_is_the_requests_or_the_parameters(start):
    desk = start(max_new_tokens=50)
    for asked in (0, 7, 1024):
        request = {"question": "What is it?", "image": picture(), "max_new_tokens": asked}
        assert desk.ask(**request).success
    assert desk.engine.limits == [50, 7, 1024]


@pytest.mark.fault(61)
def test_always_on_captions_without_listeners(start):
    desk = start(always_on=True, max_rate=0)
    desk.send()
    desk.until(lambda: desk.engine.prompts == ["<grounding> An image of"])


@pytest.mark.fault(20)
def test_newest_frame_wins_while_the_model_works(start):
    desk = start(max_rate=0).listen()
    desk.engine.free.clear()
    desk.send(colour=(1, 1, 1))
    desk.until(desk.engine.busy.is_set)
    for number in (2, 3, 4):
        desk.send(colour=(number,) * 3)
    desk.engine.free.set()
    desk.until(lambda: len(desk.captions) == 2)
    assert desk.engine.seen == [(1, 1, 1), (4, 4, 4)]
    assert [caption.frames_dropped for caption in desk.captions] == [0, 2]
    assert desk.captions[0].inference_time.nanosec > 0
    answer = desk.ask(question="What is it?")
    assert answer.result.frames_dropped == 2
    assert answer.result.header == desk.captions[1].header
    # What is sent with a question is no camera's.
    assert desk.ask(question="What is it?", image=picture()).result.frames_dropped == 0


@pytest.mark.fault(51)
def test_executor_answers_while_the_model_works(start):
    desk = start(max_rate=0).listen()
    desk.engine.free.clear()
    desk.send()
    desk.until(desk.engine.busy.is_set)
    client = desk.client.create_client(GetParameters, "kosmos/get_parameters")
    response = desk.bench.call(client, GetParameters.Request(names=["task"]))
    assert response.values[0].string_value == "brief_caption"
    assert not desk.captions


@pytest.mark.fault(25)
def test_boxes_follow_each_frames_own_size(start):
    desk = start(max_rate=0).listen()
    desk.send(width=320, height=240)
    desk.until(lambda: len(desk.captions) == 1)
    desk.send(width=1280, height=320)
    desk.until(lambda: len(desk.captions) == 2)
    assert [caption.phrases[0].boxes[0].x_min for caption in desk.captions] == [125, 500]
    assert [caption.phrases[0].boxes[0].y_max for caption in desk.captions] == [198.75, 265]


@pytest.mark.fault(1)
def test_a_bad_frame_is_named_and_the_next_one_served(start):
    desk = start(max_rate=0).listen()
    bad = picture()
    bad.data = bad.data[:100]
    desk.images.publish(bad)
    desk.until(lambda: desk.logs("100"))
    desk.send()
    desk.until(lambda: desk.captions)
    assert desk.captions[0].frames_dropped == 1


@pytest.mark.fault(1)
def test_bad_frames_are_all_counted_and_warned_of_now_and_then(start, monkeypatch):
    monkeypatch.setattr("kosmos_ros.ros.camera.REPEAT_ERROR", 3600.0)
    desk = start(max_rate=0).listen()
    bad = picture()
    bad.data = bad.data[:100]
    for count in (1, 2, 3):
        desk.deliver(desk.images, bad, desk.camera)
        desk.until(lambda count=count: desk.camera.throughput.failed >= count)
    desk.send()
    desk.until(lambda: desk.captions)
    assert desk.captions[0].frames_dropped == desk.camera.throughput.failed >= 3
    assert sum("100 bytes of data" in text for text in desk.logged) == 1


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError("boom"), KeyError("boom")])
@pytest.mark.fault(29)
def test_a_failure_of_any_type_is_logged_and_the_next_frame_served(start, error):
    desk = start(max_rate=0).listen()
    desk.engine.errors.append(error)
    desk.send()
    desk.until(lambda: desk.logs(type(error).__name__, "boom"))
    desk.send()
    desk.until(lambda: desk.captions)


@pytest.mark.fault(32)
def test_a_lost_device_ends_the_node_with_its_own_exit_code(start):
    desk = start()
    desk.engine.errors.append(DeviceLostError("CUDA error: gone"))
    states = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    desk.client.create_subscription(DiagnosticStatus, "kosmos/model_info", states.append, latched)
    response = desk.ask(question="What is it?", image=picture())
    assert (response.success, response.message) == (False, "CUDA error: gone")
    desk.until(desk.node.finished.done)
    assert desk.node.finished.result() == 3
    desk.until(lambda: states and states[-1].level == DiagnosticStatus.ERROR)
    assert desk.ask(question="And now?", image=picture()).message == "CUDA error: gone"
    assert len(desk.engine.prompts) == 1


def test_compressed_images_come_by_image_transport(start):
    desk = start(image_transport="compressed", max_rate=0)
    desk.client.create_subscription(GroundedCaption, "kosmos/captions", desk.captions.append, 10)
    desk.connect(desk.compressed, desk.camera)
    desk.until(desk.camera.wanted)
    coded = io.BytesIO()
    Pillow.new("RGB", (64, 32), (200, 100, 50)).save(coded, "PNG")
    message = CompressedImage(format="rgb8; png compressed", data=coded.getvalue())
    message.header.frame_id = "here"
    desk.compressed.publish(message)
    caption = desk.until(lambda: desk.captions)[0]
    assert desk.engine.seen == [(200, 100, 50)]
    assert (caption.header.frame_id, caption.image_width, caption.image_height) == ("here", 64, 32)


def test_annotated_frames_are_drawn_only_for_listeners(start, monkeypatch):
    drawn = []

    def annotate(image, caption):
        drawn.append(caption.text)
        return image

    monkeypatch.setattr("kosmos_ros.ros.outputs.annotate", annotate)
    desk = start(max_rate=0).listen()
    desk.send()
    desk.until(lambda: desk.captions and desk.camera.throughput.count == 1)
    assert not drawn
    frames = []
    for topic, kind in ANNOTATED:
        desk.client.create_subscription(kind, f"kosmos/{topic}", frames.append, 10)
        desk.until(lambda topic=topic: desk.heard(topic))
    sent = desk.send(colour=(9, 8, 7))
    desk.until(lambda: len(frames) == 2)
    raw, coded = sorted(frames, key=lambda frame: isinstance(frame, CompressedImage))
    assert drawn == ["An image of a snowman warming himself by a fire."]
    assert raw.header == coded.header == sent.header
    assert (raw.encoding, raw.step, bytes(raw.data[:3])) == ("rgb8", 1920, b"\x09\x08\x07")
    assert coded.format == "rgb8; jpeg compressed bgr8"
    decoded = Pillow.open(io.BytesIO(coded.data))
    assert decoded.size == (640, 480)
    assert decoded.getpixel((0, 0)) == pytest.approx((9, 8, 7), abs=2)


def test_a_question_about_a_region_names_its_cells(start):
    desk = start()
    response = desk.ask(
        question="What is the man?",
        regions=[REGION],
        region_phrases=["the man"],
        image=picture(colour=(1, 2, 3)),
        grounded=True,
    )
    assert response.success, response.message
    assert desk.engine.seen == [(1, 2, 3)]
    assert desk.engine.prompts == [
        "<grounding> Question: What is<phrase> the man</phrase><object><patch_index_0044>"
        "<patch_index_0863></object>? Answer:"
    ]
    assert response.answer == "a snowman warming himself by a fire."
    assert response.result.header.stamp.sec == 7
    assert response.result.phrases[1].boxes[0].x_min == 110
    assert response.result.task == "question"


@pytest.mark.parametrize(
    ("request_fields", "reason"),
    [
        ({"question": " "}, "question must not be empty"),
        ({"question": "a" * 10**6}, "at most 1000 characters"),
        ({"question": "<phrase> x"}, "<phrase>"),
        ({"question": "What?", "camera": "rear"}, "camera 'rear' is unknown"),
        ({"question": "Is it?", "regions": [BoundingBox(x_max=1.0)]}, "empty or inverted"),
        (
            {"question": "Is it?", "regions": [BoundingBox(x_max=float("nan"), y_max=1.0)]},
            "must have finite numbers",
        ),
        ({"question": "What?", "regions": [REGION]}, "must refer to the region"),
        (
            {"question": "What?", "region_phrases": ["a"]},
            "one entry for each of 0 regions or none, got 1",
        ),
        ({"question": "What?", "regions": [REGION]}, "must refer to the region"),
        (
            {"question": "What?", "region_phrases": ["a"]},
            "one entry for each of 0 regions or none, got 1",
        ),
        ({"question": "What?", "max_new_tokens": 1025}, "must be 1 to 1024, got 1025"),
        ({"question": "What?", "max_age": Duration(sec=-1)}, "max_age is -1 s"),
        (
            {"question": "Is it?", "regions": [FAR], "image": picture()},
            "outside the image (0, 0, 640, 480)",
        ),
        ({"question": "What?", "image": Image(width=10, height=10, encoding="rgb8")}, "step"),
        ({"question": "What?", "image": Image(width=1, height=1, step=3, encoding="x")}, "'x'"),
    ],
)
@pytest.mark.fault(46, 48)
def test_impossible_questions_are_answered_at_once_with_the_reason(start, request_fields, reason):
    desk = start(request_timeout=3600.0)
    response = desk.ask(**request_fields)
    assert not response.success
    assert reason in response.message
    assert not desk.engine.prompts


@pytest.mark.fault(50)
def test_a_question_without_any_image_says_what_is_missing(start):
    desk = start(request_timeout=0.2)
    response = desk.ask(question="What is it?")
    assert not response.success
    assert "no image arrived within 0.2 s on /image (publishers: 1); see" in response.message


@pytest.mark.fault(51)
def test_a_question_that_waits_too_long_is_refused_while_the_model_works(start):
    desk = start()
    desk.engine.free.clear()
    assert desk.asking.wait_for_service(10)
    first = desk.asking.call_async(Ask.Request(question="0?", image=picture()))
    desk.until(desk.engine.busy.is_set)
    desk.node.set_parameters([Parameter("request_timeout", value=0.2)])
    desk.until(lambda: desk.node.settings.request_timeout == 0.2)
    response = desk.ask(question="1?", image=picture())
    assert not response.success
    assert response.message == "the model was not free within 0.2 s; try again later"
    assert not first.done()
    desk.engine.free.set()
    desk.until(first.done)
    assert first.result().success


def test_who_waits_when_the_node_ends_is_told_so(start):
    desk = start()
    desk.engine.free.clear()
    assert desk.asking.wait_for_service(10)
    answers = [desk.asking.call_async(Ask.Request(question="0?", image=picture()))]
    desk.until(desk.engine.busy.is_set)
    answers.append(desk.asking.call_async(Ask.Request(question="1?", image=picture())))
    answers.append(desk.asking.call_async(Ask.Request(question="2?")))
    desk.until(lambda: desk.node.request_services.waiting == 3)
    assert desk.node.stop(10)
    answers.append(desk.asking.call_async(Ask.Request(question="3?")))
    desk.until(lambda: all(answer.done() for answer in answers))
    assert [(a.result().success, a.result().message) for a in answers] == [
        (False, "the node is shutting down")
    ] * 4


@pytest.mark.fault(50)
def test_a_question_waits_for_an_image_young_enough(start):
    desk = start()
    desk.send(colour=(1, 1, 1))
    slot = desk.node.scheduler._slots[""]
    slot.newest = dataclasses.replace(slot.newest, arrived=slot.newest.arrived - 60)
    request = Ask.Request(question="What is it?")
    request.max_age.sec = 30
    assert desk.asking.wait_for_service(10)
    answered = desk.asking.call_async(request)
    desk.until(lambda: desk.node.scheduler._requests, "a waiting request")
    desk.send(colour=(2, 2, 2))
    desk.until(answered.done)
    assert answered.result().success
    assert desk.engine.seen == [(2, 2, 2)]


@pytest.mark.fault(51)
def test_a_full_queue_refuses_at_once(start):
    desk = start(queue_size=2)
    desk.send()
    desk.engine.free.clear()
    assert desk.asking.wait_for_service(10)
    first = desk.asking.call_async(Ask.Request(question="0?"))
    desk.until(desk.engine.busy.is_set)
    others = [desk.asking.call_async(Ask.Request(question=f"{n}?")) for n in range(1, 6)]
    desk.until(lambda: sum(future.done() for future in others) == 3)
    refused = [future for future in others if future.done()]
    assert all("2 requests wait" in future.result().message for future in refused)
    desk.engine.free.set()
    answered = [first, *(future for future in others if future not in refused)]
    desk.until(lambda: all(future.done() for future in answered))
    assert all(future.result().success for future in answered)


@pytest.mark.fault(49)
def test_while_loading_questions_are_refused_and_the_state_is_latched(start):
    loaded = threading.Event()
    engine = FakeEngine()

    def load(settings):
        assert loaded.wait(60)
        return engine

    desk = start(engine, load, model="some/model")
    assert desk.ask(question="What?").message == "the model is loading"
    states = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    desk.client.create_subscription(DiagnosticStatus, "kosmos/model_info", states.append, latched)
    first = desk.until(lambda: states)[0]
    assert (first.message, first.level) == ("loading", DiagnosticStatus.WARN)
    assert {pair.key: pair.value for pair in first.values} == {"model": "some/model"}
    loaded.set()
    desk.until(lambda: states[-1].message == "ready")
    second = states[-1]
    assert second.level == DiagnosticStatus.OK
    assert {pair.key: pair.value for pair in second.values}["device"] == "cpu"


@pytest.mark.fault(36)
def test_a_model_that_cannot_be_loaded_leaves_the_node_alive_and_explaining(start):

    def load(settings):
        raise ModelLoadError(f"model {settings.model!r} is nowhere")

    desk = start(load=load, model="no/model")
    desk.until(lambda: "nowhere" in desk.node.unavailable())
    response = desk.ask(question="What?")
    assert response.message == "the model cannot be used: model 'no/model' is nowhere"
    states = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    desk.client.create_subscription(DiagnosticStatus, "kosmos/model_info", states.append, latched)
    desk.until(lambda: states and states[-1].level == DiagnosticStatus.ERROR)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_rate", -1.0, "0"),
        ("max_rate", float("nan"), "nan"),
        ("max_rate", "fast", "must be a number, got 'fast' (str)"),
        ("task", "ocr", "one of brief_caption, detailed_caption"),
        ("max_new_tokens", 0, "0"),
        ("model", "shapes", "read"),
        ("grounded", 1, ""),
    ],
)
@pytest.mark.fault(57, 70)
def test_bad_parameter_values_are_refused_with_a_reason(start, name, value, reason):
    desk = start()
    before = [parameters.read(desk.node, kind) for kind in (NodeSettings, CameraSettings)]
    result = desk.node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert reason in result.reason
    assert [parameters.read(desk.node, kind) for kind in (NodeSettings, CameraSettings)] == before


@pytest.mark.fault(58)
def test_a_changed_task_holds_from_the_next_frame(start):
    desk = start(max_rate=0).listen()
    desk.engine.free.clear()
    desk.send()
    desk.until(desk.engine.busy.is_set)
    changes = [Parameter("task", value="detailed_caption"), Parameter("grounded", value=False)]
    assert desk.node.set_parameters_atomically(changes).successful
    desk.send()
    desk.engine.free.set()
    desk.until(lambda: len(desk.captions) == 2)
    assert [caption.task for caption in desk.captions] == ["brief_caption", "detailed_caption"]
    assert desk.engine.prompts == ["<grounding> An image of", "Describe this image in detail:"]
    wrong = [Parameter("task", value="brief_caption"), Parameter("max_rate", value=-1.0)]
    assert not desk.node.set_parameters_atomically(wrong).successful
    assert parameters.read(desk.node, CameraSettings).task == "detailed_caption"


@pytest.mark.fault(57)
def test_an_integer_serves_where_a_float_is_needed(start):
    desk = start(max_rate=2)
    assert desk.camera.settings.max_rate == 2.0
    assert desk.node.set_parameters([Parameter("max_rate", value=3)])[0].successful
    assert parameters.read(desk.node, CameraSettings).max_rate == 3.0


@pytest.mark.fault(57)
def test_unknown_parameters_are_warned_about_by_name(start):
    desk = start(max_rat=1.0, zzz=True)
    assert parameters.unknown(desk.node) == [
        "parameter max_rat is unknown; did you mean max_rate?",
        "parameter zzz is unknown",
    ]


@pytest.mark.fault(21, 22)
def test_silence_is_reported_with_topic_and_publishers_and_so_is_its_end(start):
    desk = start(stale_timeout=0.1)
    text = desk.until(lambda: desk.logs("no image on /image"))
    assert "this node requests RELIABLE" in text
    desk.send()
    desk.until(lambda: desk.logs("images arrive on /image"))


@pytest.mark.fault(23)
def test_incompatible_delivery_is_named_with_its_cure(start):
    override = {"qos_overrides./image.subscription.reliability": "reliable"}
    desk = start(stale_timeout=0.0, **override)
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    desk.client.destroy_publisher(desk.images)
    desk.until(lambda: desk.camera.subscription.publishers() == 0)
    desk.client.create_publisher(Image, "image", lossy)
    desk.until(lambda: desk.camera.subscription.publishers() == 1)
    desk.node.set_parameters([Parameter("stale_timeout", value=0.5)])
    desk.until(lambda: desk.logs("no image on /image"))
    assert desk.logs(
        "offers Image with BEST_EFFORT",
        "set qos_overrides./image.subscription.reliability to best_effort",
    )
    assert sum("no image on /image" in text for text in desk.logged) == 1
    statuses = []
    desk.client.create_subscription(DiagnosticArray, "/diagnostics", statuses.append, 10)
    desk.until(
        lambda: any(
            status.level == DiagnosticStatus.STALE for seen in statuses for status in seen.status
        )
    )


@pytest.mark.fault(23)
def test_delivery_is_what_all_cameras_offer(start):
    """Reliable, which loses no large image, until there is one that does not offer it."""
    desk = start()
    feed = desk.camera.subscription
    desk.until(lambda: feed.reliability == "reliable")
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    second = desk.client.create_publisher(Image, "image", lossy)
    desk.until(lambda: feed.reliability == "best_effort")
    for publisher in (second, desk.images):
        desk.until(publisher.get_subscription_count)
        desk.deliver(publisher, picture(), desk.camera)
    desk.client.destroy_publisher(second)
    # The publishers are to forget the one before they hear of the other.
    desk.until(lambda: feed._subscription is None)
    assert feed.reliability == "reliable"
    assert feed.arrivals.started == feed._resubscribe_at
    desk.until(lambda: feed._subscription)
    desk.send()
    # As many as before, of another kind.
    desk.client.destroy_publisher(desk.images)
    desk.client.create_publisher(Image, "image", lossy)
    desk.until(lambda: feed.reliability == "best_effort")
    assert not desk.node.has_parameter("qos_overrides./image.subscription.reliability")
    assert desk.until(lambda: desk.logs("/image: requesting BEST_EFFORT; not all publishers"))
    assert not desk.logs("incompatible")  # rclpy's words, untrue where the node follows


@pytest.mark.parametrize("warm", [True, False])
def test_the_engine_is_warmed_up_for_the_longest_captions(start, warm):
    values = {"front.max_new_tokens": 300, "rear.max_new_tokens": 40, "warm_up": warm}
    desk = start(cameras=["front", "rear"], max_batch_size=4, **values)
    assert desk.engine.warmed_up == ((4, 300) if warm else None)


def test_publishers_of_other_messages_do_not_decide_on_delivery(start):
    desk = start()
    feed = desk.camera.subscription
    desk.until(lambda: feed.reliability == "reliable")
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    elsewhere = Context()  # DDS allows one type of a topic in each
    elsewhere.init()
    stranger = Node("stranger", context=elsewhere)
    stranger.create_publisher(CompressedImage, "image", lossy)
    desk.until(lambda: feed.publishers() == 2)
    feed.check(stale_timeout=0, loading=False)
    assert feed.reliability == "reliable"
    stranger.destroy_node()
    elsewhere.shutdown()


@pytest.mark.parametrize("asked", ["best_effort", "reliable"])
def test_an_override_of_delivery_goes_before_the_parameter(start, asked):
    desk = start(**{"qos_overrides./image.subscription.reliability": asked})
    feed = desk.camera.subscription
    if asked == "reliable":  # what auto would not choose, as for the camera alone best effort
        lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        desk.client.create_publisher(Image, "image", lossy)
    desk.until(lambda: feed.publishers() == (2 if asked == "reliable" else 1))
    for _ in range(3):
        feed.check(stale_timeout=0, loading=False)
    assert feed.reliability == asked
    if asked == "best_effort":
        assert "remove qos_overrides./image.subscription.reliability" in feed._cures()


def test_a_remapped_transport_is_named_as_it_is(start):
    desk = start(
        cli_args=["--ros-args", "-r", "image/compressed:=/front/jpeg"],
        image_transport="compressed",
    )
    assert desk.camera.subscription.topic == "/front/jpeg"


@pytest.mark.parametrize(
    ("local", "transports", "image_transport", "named"),
    [
        (True, "", "raw", ["compressed", "FASTDDS", "without LOCALHOST"]),
        (
            True,
            "LARGE_DATA?max_msg_size=4MB",
            "raw",
            ["compressed", "FASTDDS", "without LOCALHOST"],
        ),
        (False, "", "raw", ["compressed", "FASTDDS"]),
        (False, "LARGE_DATA", "raw", ["compressed", "FASTDDS"]),
        (False, "LARGE_DATA?max_msg_size=4MB", "raw", ["compressed"]),
        (False, "UDPv4", "compressed", ["FASTDDS"]),
        (False, "LARGE_DATA?max_msg_size=4MB", "compressed", []),
    ],
)
def test_only_cures_of_loss_that_are_not_in_force_are_named(
    start, monkeypatch, local, transports, image_transport, named
):
    feed = start(image_transport=image_transport).camera.subscription
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST" if local else "SUBNET")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", transports)
    words = {
        "compressed": "image_transport:=compressed",
        "FASTDDS": "FASTDDS_BUILTIN_TRANSPORTS='LARGE_DATA?max_msg_size",
        "without LOCALHOST": "without ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
    }
    text = feed._cures()
    assert [name for name, word in words.items() if word in text] == named
    assert text.endswith("smaller images")


@pytest.mark.parametrize("ready", [True, False])
def test_loss_is_reported_with_its_cures_once_the_model_is_there(start, ready):
    engine = FakeEngine()

    def load(settings):
        engine.free.wait()
        return engine

    engine.free.clear()
    desk = start(engine, None if ready else load, image_reliability="best_effort")
    watch = desk.camera.subscription.arrivals
    if ready:
        watch.forget(float("-inf"))  # it was loading a moment ago, which counts for no loss
    now = time.monotonic()
    for second in range(10):
        for stamp in (second, second + 0.1):
            watch.arrived(now - 9.5 + stamp, stamp)
    if ready:
        text = desk.until(lambda: desk.logs("do not reach this node"))
        assert "% of the images on /image do not" in text
        assert (
            "set image_reliability:=auto or set image_transport:=compressed or set FASTDDS_"
            in text
        )
        assert "'LARGE_DATA?max_msg_size=4MB&sockets_size=4MB' in all processes" in text
    else:
        desk.until(lambda: not watch.lost(time.monotonic()), "forgetting")
        assert not desk.logs("do not reach")


@pytest.mark.fault(27)
def test_times_are_those_of_the_nodes_clock(start):
    """Latency by simulated time; warnings although it stands still."""
    desk = start(use_sim_time=True, max_rate=0, stale_timeout=0.5).listen()
    desk.until(lambda: desk.logs("no image on /image"))
    clock = desk.client.create_publisher(ClockMessage, "/clock", 10)
    desk.until(clock.get_subscription_count)
    clock.publish(ClockMessage(clock=Time(sec=9, nanosec=500_000_000)))
    desk.until(lambda: desk.node.get_clock().now().nanoseconds)
    desk.send(sec=7)
    latency = desk.until(lambda: desk.captions)[0].latency
    assert (latency.sec, latency.nanosec) == (2, 500_000_000)


@pytest.mark.fault(27)
def test_a_clock_that_jumps_back_stops_nothing(start):
    """A recording that begins again."""
    desk = start(use_sim_time=True, max_rate=0).listen()
    clock = desk.client.create_publisher(ClockMessage, "/clock", 10)
    desk.until(clock.get_subscription_count)
    for number, seconds in enumerate((100, 101, 5, 6), start=1):
        clock.publish(ClockMessage(clock=Time(sec=seconds)))
        desk.until(lambda s=seconds: desk.node.get_clock().now().nanoseconds == s * 10**9)
        desk.send(sec=seconds)
        desk.until(lambda number=number: len(desk.captions) == number)
    assert [caption.header.stamp.sec for caption in desk.captions] == [100, 101, 5, 6]
    assert {caption.latency.sec for caption in desk.captions} == {0}


@pytest.mark.fault(27)
def test_without_a_clock_rates_and_diagnostics_go_on(start):
    desk = start(use_sim_time=True, max_rate=10.0).listen()
    ticks = []
    desk.client.create_subscription(DiagnosticArray, "/diagnostics", ticks.append, 10)
    for count in (1, 2, 3):
        desk.send()
        desk.until(lambda count=count: len(desk.captions) == count)
    desk.until(lambda: len(ticks) >= 2)
    assert desk.node.get_clock().now().nanoseconds == 0


@pytest.mark.fault(26)
def test_results_carry_any_stamp_and_the_next_frame_is_served(start):
    desk = start(max_rate=100.0).listen()
    stamps = [0, 2**31 - 1, -(2**31), 50, 7, 7]
    for count, sec in enumerate(stamps, start=1):
        sent = desk.send(sec=sec)
        desk.until(lambda count=count: len(desk.captions) == count)
        assert desk.captions[-1].header == sent.header
    assert [caption.header.stamp.sec for caption in desk.captions] == stamps
    now = time.time()
    future, past = (desk.captions[number].latency.sec for number in (1, 2))
    assert future == pytest.approx(now - (2**31 - 1), abs=600)
    assert past == 2**31 - 1  # the longest that there is


@pytest.mark.fault(22)
def test_a_topic_that_nobody_publishes_is_named(start):
    desk = start(stale_timeout=0.0)
    desk.client.destroy_publisher(desk.images)
    desk.until(lambda: desk.camera.subscription.publishers() == 0)
    desk.node.set_parameters([Parameter("stale_timeout", value=0.5)])
    text = desk.until(lambda: desk.logs("no image on /image"))
    assert "no publisher" in text
    assert "remap it" in text
