# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Topics of the running node: which subscribers cause which work, with a fake engine."""

import io
import threading

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.msg import Answer, GroundedCaption
from node_harness import SNOWMAN_BOX
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from kosmos_ros.ros import camera, conversions, outputs
from kosmos_ros.ros.outputs import Output


@pytest.mark.fault(61)
def test_always_on_captions_without_subscribers(start):
    harness = start(always_on=True, max_rate=0)
    harness.send()
    harness.until(lambda: harness.engine.prompts == ["<grounding> An image of"])


@pytest.mark.fault(61)
def test_without_subscribers_only_questions_reach_the_model(start):
    harness = start(max_rate=0)
    harness.send()
    response = harness.ask(question="What is it?")
    assert response.success, response.message
    assert harness.engine.prompts == ["Question: What is it? Answer:"]


ANNOTATED = [("annotated", Image), ("annotated/compressed", CompressedImage)]
FRAME = ("frame/compressed", CompressedImage)


@pytest.mark.parametrize(("topic", "kind"), [("text", String), *ANNOTATED, FRAME])
def test_subscriber_of_any_topic_starts_captions(start, topic, kind):
    harness = start(max_rate=0)
    results = harness.collect(kind, f"kosmos/{topic}")
    harness.until(harness.camera.wanted)
    harness.send()
    harness.until(lambda: results)


def test_annotated_frames_are_drawn_only_for_subscribers(start, monkeypatch):
    drawn = []

    def annotate(image, caption):
        drawn.append(caption.text)
        return image

    monkeypatch.setattr("kosmos_ros.ros.outputs.annotate", annotate)
    harness = start(max_rate=0).subscribe_to_captions()
    harness.send()
    harness.until(lambda: harness.captions and harness.camera.throughput.count == 1)
    assert not drawn
    received = [harness.collect(kind, f"kosmos/{topic}") for topic, kind in ANNOTATED]
    for topic, _ in ANNOTATED:
        harness.until(lambda topic=topic: harness.has_subscriber(topic))
    sent = harness.send(colour=(9, 8, 7))
    harness.until(lambda: all(received))
    (raw,), (compressed,) = received
    assert drawn == ["An image of a snowman warming himself by a fire."]
    assert raw.header == compressed.header == sent.header
    assert (raw.encoding, raw.step, bytes(raw.data[:3])) == ("rgb8", 1920, b"\x09\x08\x07")
    assert compressed.format == "rgb8; jpeg compressed bgr8"
    decoded = Pillow.open(io.BytesIO(compressed.data))
    assert decoded.size == (640, 480)
    assert decoded.getpixel((0, 0)) == pytest.approx((9, 8, 7), abs=2)
    harness.send(sec=8)
    harness.until(lambda: all(messages[-1].header.stamp.sec == 8 for messages in received))
    assert [[m.header.stamp.sec for m in messages] for messages in received] == [[7, 8]] * 2


def test_a_subscriber_of_the_frame_gets_that_of_each_result_and_adds_no_prompt(start):
    harness = start(phrases=["a dog"], max_rate=0)
    found = harness.collect(GroundedCaption, "kosmos/phrases")
    harness.until(lambda: harness.has_subscriber("phrases"))
    topic, kind = FRAME
    frames = harness.collect(kind, f"kosmos/{topic}")
    harness.until(lambda: harness.has_subscriber(topic))
    sent = harness.send(colour=(90, 80, 70))
    harness.until(lambda: found and frames)
    assert harness.engine.prompts == ["<grounding><phrase> a dog</phrase>"]
    assert [message.header for message in (*found, *frames)] == [sent.header] * 2
    image = Pillow.open(io.BytesIO(frames[0].data))
    assert image.size == (640, 480)
    assert image.getpixel((0, 0)) == pytest.approx((90, 80, 70), abs=2)


def test_the_frame_of_a_compressed_camera_is_published_without_decoding_it_again(
    start, monkeypatch
):
    harness = start(image_transport="compressed", max_rate=0)
    monkeypatch.setattr(conversions, "compressed_message", {}.__getitem__)
    topic, kind = FRAME
    frames = harness.collect(kind, f"kosmos/{topic}")
    harness.wait_for_connection(harness.compressed_publisher, harness.camera)
    harness.until(harness.camera.wanted)
    file = io.BytesIO()
    Pillow.new("RGB", (64, 32), (200, 100, 50)).save(file, "WebP")
    sent = CompressedImage(format="webp", data=file.getvalue())
    sent.header.frame_id = "lens"
    harness.deliver(harness.compressed_publisher, sent, harness.camera)
    harness.until(lambda: frames)
    assert frames == [sent]


def test_frames_are_compressed_only_for_subscribers_and_only_the_newest(start, monkeypatch):
    made, compressing, go_on = [], threading.Event(), threading.Event()

    def compressed(image, header):
        made.append(header.stamp.sec)
        compressing.set()
        assert go_on.wait(60)
        return CompressedImage(header=header)

    monkeypatch.setattr(conversions, "compressed_message", compressed)
    harness = start(max_rate=0).subscribe_to_captions()
    harness.send(sec=1)
    harness.until(lambda: len(harness.captions) == 1)
    topic, kind = FRAME
    frames = harness.collect(kind, f"kosmos/{topic}")
    harness.until(lambda: harness.has_subscriber(topic))
    harness.send(sec=2)
    harness.until(compressing.is_set)
    for sec in (3, 4, 5):
        before = len(harness.engine.prompts)
        harness.send(sec=sec)
        harness.until(lambda before=before: len(harness.engine.prompts) > before)
    harness.until(lambda: len(harness.node._delivery._others) == 3)  # the results of 3, 4 and 5
    go_on.set()
    harness.until(lambda: [frame.header.stamp.sec for frame in frames] == [2, 5])
    assert made == [2, 5]
    harness.until(lambda: len(harness.captions) == 5)  # no caption waits for a newer one


@pytest.mark.fault(61)
def test_prompts_without_a_subscriber_are_skipped(start):
    harness = start(phrases=["a dog"], questions=["Who is it?"], max_rate=0)
    harness.engine.outputs = {"Who": (" a man.", ())}
    answers = harness.collect(Answer, "kosmos/answers")
    harness.until(harness.camera.wanted)
    harness.send()
    harness.until(lambda: answers)
    assert harness.engine.prompts == ["<grounding> Question: Who is it? Answer:"]


@pytest.mark.fault(40)
def test_detections_have_every_box_and_may_be_empty(start):
    vision_msgs = pytest.importorskip(
        "vision_msgs.msg",
        reason="vision_msgs is not installed: apt-get install ros-$ROS_DISTRO-vision-msgs",
    )
    harness = start(phrases=["a man"], max_rate=0)
    arrays = harness.collect(vision_msgs.Detection2DArray, "kosmos/detections")
    harness.wait_for_image_connection()
    harness.until(harness.camera.wanted)
    harness.engine.outputs = {"a man": (SNOWMAN_BOX, (0.25, 1.0))}
    sent = harness.send()
    harness.until(lambda: arrays)
    harness.engine.outputs = {"a man": ("", ())}
    harness.send()
    harness.until(lambda: len(arrays) == 2)
    (detection,) = arrays[0].detections
    assert arrays[0].header == detection.header == sent.header
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("a man", 0.5)
    center = detection.bbox.center.position
    assert (center.x, center.y, detection.bbox.size_x, detection.bbox.size_y) == (
        440,
        210,
        380,
        375,
    )
    assert list(arrays[1].detections) == []
    harness.set_parameter("phrases", [""])
    harness.until(harness.camera.wanted)
    harness.send()
    harness.until(lambda: len(arrays) == 3)
    names = [d.results[0].hypothesis.class_id for d in arrays[2].detections]
    assert names == ["a snowman", "a fire"]


@pytest.mark.fault(101)
def test_a_subscriber_of_detections_without_boxes_is_warned_once(start, monkeypatch):
    """Here ~/detections has texts, because vision_msgs may not be installed."""
    detections = Output("detections", String, lambda settings: (), list, empty=outputs._no_boxes)
    monkeypatch.setattr(camera, "OUTPUTS", (detections,))
    harness = start(grounded=False)
    words = "/kosmos/detections has a subscriber, but its messages are empty"
    harness.camera.watch(loading=False)
    assert not harness.logs(words)
    harness.collect(String, "kosmos/detections")
    harness.until(lambda: harness.logs(words))
    assert harness.logs(words).startswith("/image: ")
    assert harness.logs(words).endswith("parameter grounded is false")
    harness.camera.watch(loading=False)
    harness.set_parameter("grounded", True)
    harness.camera.watch(loading=False)
    harness.node.get_logger().info("the end")
    harness.until(lambda: harness.logs("the end"))
    assert len([text for text in harness.logged if words in text]) == 1
