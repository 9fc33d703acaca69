# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Several cameras on one model, with a fake engine."""

import io

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")


import numpy as np
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from node_harness import FakeEngine, plain_image
from PIL import Image as Pillow
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2.query import Generation

LEFT, RIGHT = (10, 10, 10), (200, 200, 200)


class ColourEngine(FakeEngine):
    """An engine that writes the mean colour of each image."""

    def _generate(self, query):
        return Generation(str(query.image), (), 0.5, 1, False)


class Cameras:
    """A publisher and a caption subscriber of each camera."""

    def __init__(self, harness, *names, **topics):
        self.harness = harness
        self.publishers = {
            name: harness.client.create_publisher(Image, topics.get(name, f"{name}/image"), 10)
            for name in names
        }
        self.captions = {
            name: harness.collect(GroundedCaption, f"kosmos/{name}/captions") for name in names
        }
        for name, publisher in self.publishers.items():
            harness.wait_for_connection(publisher, harness.node.cameras[name])
        harness.until(lambda: all(harness.node.cameras[name].wanted() for name in names))

    def send(self, name, colour, **options):
        message = plain_image(colour, **options)
        return self.harness.deliver(
            self.publishers[name], message, self.harness.node.cameras[name]
        )


def test_each_camera_publishes_captions_under_its_name(start):
    harness = start(cameras=["left", "right"], max_rate=0)
    cameras = Cameras(harness, "left", "right")
    sent = {
        "left": cameras.send("left", LEFT, width=64, height=48),
        "right": cameras.send("right", RIGHT),
    }
    harness.until(lambda: all(cameras.captions.values()))
    for name, message in sent.items():
        (caption,) = cameras.captions[name]
        assert (caption.camera, caption.header) == (name, message.header)
        assert (caption.image_width, caption.image_height) == (message.width, message.height)
    assert sorted(harness.engine.mean_colours) == [LEFT, RIGHT]


@pytest.fixture
def patient_decoders(monkeypatch):
    """A batch begins only when the images of both cameras are decoded, also on a slow machine."""
    monkeypatch.setattr("kosmos_ros.serving.decoding.GATHER", 60.0)


def test_waiting_frames_form_one_batch(start, patient_decoders):
    harness = start(cameras=["left", "right"], max_rate=0)
    cameras = Cameras(harness, "left", "right")
    harness.engine.block()
    cameras.send("left", (1, 1, 1))
    harness.until(harness.engine.stepping.is_set)
    for name, colour in (("left", LEFT), ("right", RIGHT), ("left", LEFT), ("right", RIGHT)):
        cameras.send(name, colour)
    harness.engine.unblock()
    harness.until(lambda: len(cameras.captions["left"]) == 2 and cameras.captions["right"])
    assert harness.engine.batches == [1, 2]
    assert [caption.frames_dropped for caption in cameras.captions["left"]] == [0, 1]


def test_failed_batch_is_retried_frame_by_frame(start, patient_decoders):
    harness = start(cameras=["left", "right"], max_rate=0)
    cameras = Cameras(harness, "left", "right")
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    first = harness.ask_client.call_async(Ask.Request(question="0?", image=plain_image()))
    harness.until(harness.engine.stepping.is_set)
    cameras.send("left", LEFT)
    cameras.send("right", RIGHT)
    slots = harness.node.scheduler._slots
    harness.until(lambda: slots["left"].pending and slots["right"].pending)
    harness.engine.fails_in_batches_of = 2
    harness.engine.unblock()
    harness.until(lambda: first.done() and all(cameras.captions.values()))
    assert harness.engine.batches == [1, 2, 1, 1]


@pytest.mark.fault(21)
def test_silent_or_broken_camera_does_not_block_the_others(start):
    harness = start(cameras=["left", "right", "rear"], max_rate=0, stale_timeout=0.2)
    cameras = Cameras(harness, "left", "right", "rear")
    harness.until(lambda: harness.logs("no image on /rear/image"))
    bad = plain_image()
    bad.data = bad.data[:7]
    for count in range(1, 4):
        harness.deliver(cameras.publishers["left"], bad, harness.node.cameras["left"])
        cameras.send("right", RIGHT)
        harness.until(lambda count=count: len(cameras.captions["right"]) == count)
    harness.until(lambda: harness.logs("camera left: ", "7 bytes of data"))
    cameras.send("rear", LEFT)
    harness.until(lambda: cameras.captions["rear"])
    harness.until(lambda: harness.logs("images arrive on /rear/image"))
    assert not cameras.captions["left"]


def test_each_camera_has_its_own_topic_and_transport(start):
    harness = start(
        cameras=["left", "right"],
        image_topics=["/wide/image_raw", "tele"],
        max_rate=0,
        **{"right.image_transport": "compressed"},
    )
    cameras = Cameras(harness, "left", left="/wide/image_raw")
    captions = harness.collect(GroundedCaption, "kosmos/right/captions")
    publisher = harness.client.create_publisher(CompressedImage, "tele/compressed", 10)
    harness.wait_for_connection(publisher, harness.node.cameras["right"])
    harness.until(harness.node.cameras["right"].wanted)
    png = io.BytesIO()
    Pillow.new("RGB", (64, 32), RIGHT).save(png, "PNG")
    publisher.publish(CompressedImage(format="png", data=png.getvalue()))
    cameras.send("left", LEFT)
    harness.until(lambda: captions and cameras.captions["left"])
    assert (captions[0].camera, captions[0].image_width) == ("right", 64)


def test_parameter_of_a_camera_wins_over_the_common_one(start):
    harness = start(
        cameras=["left", "right"], max_rate=0, grounded=False, **{"left.task": "detailed_caption"}
    )
    cameras = Cameras(harness, "left", "right")

    def task(name):
        before = len(cameras.captions[name])
        cameras.send(name, LEFT)
        harness.until(lambda: len(cameras.captions[name]) > before)
        return cameras.captions[name][-1].task

    assert (task("left"), task("right")) == ("detailed_caption", "brief_caption")
    assert cameras.captions["left"][0].prompt == "Describe this image in detail:"
    harness.set_parameter("task", "detailed_caption")
    harness.set_parameter("left.task", "brief_caption")
    assert (task("left"), task("right")) == ("brief_caption", "detailed_caption")
    (refused,) = harness.node.set_parameters([Parameter("right.task", value="ocr")])
    assert "one of brief_caption" in refused.reason


def test_camera_can_be_switched_off_and_on(start):
    harness = start(cameras=["left", "right"], max_rate=0)
    cameras = Cameras(harness, "left", "right")
    client = harness.client.create_client(SetBool, "kosmos/left/enable")
    assert harness.spinner.call(client, SetBool.Request(data=False)).success
    cameras.send("left", LEFT)
    cameras.send("right", RIGHT)
    harness.until(lambda: cameras.captions["right"])
    harness.until(lambda: harness.node.scheduler._slots["left"].newest)
    assert not cameras.captions["left"]
    # A camera that is off still serves requests.
    assert harness.ask(question="What is it?", camera="left").success
    assert harness.spinner.call(client, SetBool.Request(data=True)).success
    cameras.send("left", LEFT)
    harness.until(lambda: cameras.captions["left"])
    assert harness.node.get_parameter("left.enabled").value is True


def test_question_uses_the_named_camera_or_the_newest_frame(start):
    harness = start(cameras=["left", "right"])
    cameras = Cameras(harness, "left", "right")
    slots = harness.node.scheduler._slots
    cameras.send("right", RIGHT, sec=1)
    harness.until(lambda: slots["right"].newest)
    cameras.send("left", LEFT, sec=2)
    harness.until(lambda: slots["left"].newest)
    named = harness.ask(question="What is it?", camera="right")
    newest = harness.ask(question="What is it?")
    own = harness.ask(question="What is it?", image=plain_image((3, 3, 3), sec=9))
    for response, camera, sec in ((named, "right", 1), (newest, "left", 2), (own, "", 9)):
        assert response.success, response.message
        assert (response.result.camera, response.result.header.stamp.sec) == (camera, sec)
    unknown = harness.ask(question="What is it?", camera="rear")
    assert unknown.message == "camera 'rear' is unknown; it must be one of left, right"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"cameras": ["left", "left"]}, "must not repeat a name"),
        ({"cameras": ["front camera"]}, "camera name must be .*'front camera'"),
        (
            {"cameras": ["a", "b"], "image_topics": ["x"]},
            "must have one entry for each of the 2 cameras, or none, got 1",
        ),
        ({"cameras": ["a"], "image_topics": ["a b"]}, "'a b' of camera 'a': Invalid topic name"),
        ({"phrases": ["<s>"]}, "contains the reserved tag"),
        ({"cameras": ["left"], "left.max_rate": -1.0}, "max_rate"),
    ],
)
def test_invalid_cameras_are_refused_with_the_reason(start, values, reason):
    with pytest.raises(ConfigError, match=reason):
        start(**values)


def test_frames_of_three_cameras_are_never_mixed_up(start):
    names = ("left", "right", "rear")
    harness = start(ColourEngine(), cameras=list(names), max_rate=0)
    cameras = Cameras(harness, *names)
    assert harness.ask_client.wait_for_service(10)
    rounds, answers = 334, []

    def colour(name, number):
        return (names.index(name), number // 250, number % 250)

    for number in range(rounds):
        for name in names:
            cameras.send(
                name, colour(name, number), width=16 + names.index(name), height=8, sec=number
            )
        if number % 5 == 0:
            camera = names[number % 3]
            request = Ask.Request(question="Which?", camera=camera)
            answers.append((camera, harness.ask_client.call_async(request)))
        harness.until(lambda number=number: all(len(cameras.captions[n]) > number for n in names))
    harness.until(lambda: all(answer.done() for _, answer in answers))
    results = [caption for name in names for caption in cameras.captions[name]]
    assert len(results) == rounds * 3 >= 1000
    results += [answer.result().result for _, answer in answers]
    assert [answer.result().result.camera for _, answer in answers] == [c for c, _ in answers]
    for name in names:
        assert {caption.camera for caption in cameras.captions[name]} == {name}
    for result in results:
        expected = colour(result.camera, result.header.stamp.sec)
        assert result.caption.endswith(str(tuple(map(np.int64, expected))))
        assert result.image_width == 16 + names.index(result.camera)


def test_requests_for_a_silent_camera_leave_room_for_others(start):
    harness = start(cameras=["left", "rear"], queue_size=2)
    assert harness.ask_client.wait_for_service(10)
    for _ in range(2):
        harness.ask_client.call_async(Ask.Request(question="What?", camera="rear"))
    harness.until(lambda: harness.node.scheduler.waiting() == 2)
    assert harness.ask(question="What?", image=plain_image()).success


@pytest.mark.parametrize("field", ["frame_id", "encoding"])
@pytest.mark.fault(79)
def test_frame_with_a_long_text_is_refused_and_the_one_before_serves_requests(start, field):
    """Every result has the frame_id of its image: a hundred results could take 400 MB."""
    harness = start(max_rate=0).subscribe_to_captions()
    good = harness.send(sec=1)
    harness.until(lambda: harness.captions, "a caption")
    bad, limit = plain_image(sec=2), {"frame_id": 255, "encoding": 1000}[field]
    setattr(bad.header if field == "frame_id" else bad, field, "x" * (limit + 1))
    harness.deliver(harness.image_publisher, bad, harness.camera)
    harness.until(
        lambda: harness.logs(
            f"/image: {field}" if field == "encoding" else "/image: header.frame_id",
            f"must have at most {limit} characters, got {limit + 1}",
        )
    )
    assert harness.camera.throughput.failed == 1
    assert harness.node.scheduler.dropped("") == 1
    assert harness.ask(question="What is it?").result.header == good.header
    last = harness.send(sec=3)
    harness.until(lambda: len(harness.captions) == 2, "a caption")
    assert harness.captions[-1].header == last.header
    assert harness.captions[-1].frames_dropped == 1
    harness.until(lambda: not harness.camera.throughput.failing)


@pytest.mark.fault(79)
def test_request_image_with_a_long_frame_id_is_refused(start):
    harness = start()
    image = plain_image()
    image.header.frame_id = "x" * 256
    response = harness.ask(question="What is it?", image=image)
    assert response.message == ("image.header.frame_id must have at most 255 characters, got 256")
    image.header.frame_id = "x" * 255
    assert harness.ask(question="What is it?", image=image).result.header == image.header
