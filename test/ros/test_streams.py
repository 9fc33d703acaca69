# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Several cameras on one model, and what is asked of every frame; with a fake engine."""

import io

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from desk import FakeEngine, picture
from kosmos_msgs.msg import Answer, GroundedCaption
from kosmos_msgs.srv import Ask
from PIL import Image as Pillow
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2.query import Generation

HERE = "<object><patch_index_0044><patch_index_0863></object>"
LEFT, RIGHT = (10, 10, 10), (200, 200, 200)


class ColourEngine(FakeEngine):
    """Says the mean colour of each picture."""

    def _say(self, query):
        return Generation(str(query.image), (), 0.5, 1, False)


class Rig:
    """Cameras that the client plays, and what comes back of each."""

    def __init__(self, desk, *names, **topics):
        self.desk = desk
        self.cameras = {
            name: desk.client.create_publisher(Image, topics.get(name, f"{name}/image"), 10)
            for name in names
        }
        self.captions = {name: [] for name in names}
        for name in names:
            self.hear(GroundedCaption, name, "captions", self.captions[name])
        for name, camera in self.cameras.items():
            desk.connect(camera, desk.node.cameras[name])
        desk.until(lambda: all(desk.node.cameras[name].wanted() for name in names))

    def hear(self, kind, name, topic, where):
        self.desk.client.create_subscription(kind, f"kosmos/{name}/{topic}", where.append, 10)

    def send(self, name, colour, **options):
        message = picture(colour, **options)
        return self.desk.deliver(self.cameras[name], message, self.desk.node.cameras[name])


def change(desk, name, value):
    (result,) = desk.node.set_parameters([Parameter(name, value=value)])
    assert result.successful, result.reason


def test_each_camera_has_its_own_outputs_with_its_name(start):
    desk = start(cameras=["left", "right"], max_rate=0)
    rig = Rig(desk, "left", "right")
    sent = {"left": rig.send("left", LEFT, width=64, height=48), "right": rig.send("right", RIGHT)}
    desk.until(lambda: all(rig.captions.values()))
    for name, message in sent.items():
        (caption,) = rig.captions[name]
        assert (caption.camera, caption.header) == (name, message.header)
        assert (caption.image_width, caption.image_height) == (message.width, message.height)
    assert sorted(desk.engine.seen) == [LEFT, RIGHT]


def test_frames_that_wait_together_go_through_the_model_together(start):
    desk = start(cameras=["left", "right"], max_rate=0)
    rig = Rig(desk, "left", "right")
    desk.engine.free.clear()
    rig.send("left", (1, 1, 1))
    desk.until(desk.engine.busy.is_set)
    for name, colour in (("left", LEFT), ("right", RIGHT), ("left", LEFT), ("right", RIGHT)):
        rig.send(name, colour)
    desk.engine.free.set()
    desk.until(lambda: len(rig.captions["left"]) == 2 and rig.captions["right"])
    assert desk.engine.batches == [1, 2]
    assert [caption.frames_dropped for caption in rig.captions["left"]] == [0, 1]


@pytest.mark.fault(21)
def test_a_dead_or_broken_camera_starves_nobody(start):
    desk = start(cameras=["left", "right", "rear"], max_rate=0, stale_timeout=0.2)
    rig = Rig(desk, "left", "right", "rear")
    desk.until(lambda: desk.logs("no image on /rear/image"))
    bad = picture()
    bad.data = bad.data[:7]
    for count in range(1, 4):
        desk.deliver(rig.cameras["left"], bad, desk.node.cameras["left"])
        rig.send("right", RIGHT)
        desk.until(lambda count=count: len(rig.captions["right"]) == count)
    assert desk.logs("camera left: ", "7 bytes of data")
    rig.send("rear", LEFT)
    desk.until(lambda: rig.captions["rear"])
    desk.until(lambda: desk.logs("images arrive on /rear/image"))
    assert not rig.captions["left"]


def test_raw_and_compressed_cameras_are_mixed_and_topics_are_free(start):
    desk = start(
        cameras=["left", "right"],
        image_topics=["/wide/image_raw", "tele"],
        max_rate=0,
        **{"right.image_transport": "compressed"},
    )
    rig = Rig(desk, "left", left="/wide/image_raw")
    captions = []
    rig.hear(GroundedCaption, "right", "captions", captions)
    jpegs = desk.client.create_publisher(CompressedImage, "tele/compressed", 10)
    desk.connect(jpegs, desk.node.cameras["right"])
    desk.until(desk.node.cameras["right"].wanted)
    coded = io.BytesIO()
    Pillow.new("RGB", (64, 32), RIGHT).save(coded, "PNG")
    jpegs.publish(CompressedImage(format="png", data=coded.getvalue()))
    rig.send("left", LEFT)
    desk.until(lambda: captions and rig.captions["left"])
    assert (captions[0].camera, captions[0].image_width) == ("right", 64)


def test_a_cameras_own_parameter_goes_before_the_common_one(start):
    desk = start(
        cameras=["left", "right"], max_rate=0, grounded=False, **{"left.task": "detailed_caption"}
    )
    rig = Rig(desk, "left", "right")

    def task(name):
        before = len(rig.captions[name])
        rig.send(name, LEFT)
        desk.until(lambda: len(rig.captions[name]) > before)
        return rig.captions[name][-1].task

    assert (task("left"), task("right")) == ("detailed_caption", "brief_caption")
    assert rig.captions["left"][0].prompt == "Describe this image in detail:"
    change(desk, "task", "detailed_caption")
    change(desk, "left.task", "brief_caption")
    assert (task("left"), task("right")) == ("brief_caption", "detailed_caption")
    (refused,) = desk.node.set_parameters([Parameter("right.task", value="ocr")])
    assert "one of brief_caption" in refused.reason


def test_a_camera_is_switched_off_and_on(start):
    desk = start(cameras=["left", "right"], max_rate=0)
    rig = Rig(desk, "left", "right")
    client = desk.client.create_client(SetBool, "kosmos/left/enable")
    assert desk.bench.call(client, SetBool.Request(data=False)).success
    rig.send("left", LEFT)
    rig.send("right", RIGHT)
    desk.until(lambda: rig.captions["right"])
    desk.until(lambda: desk.node.scheduler._slots["left"].newest)
    assert not rig.captions["left"]
    # A camera that is off still serves requests.
    assert desk.ask(question="What is it?", camera="left").success
    assert desk.bench.call(client, SetBool.Request(data=True)).success
    rig.send("left", LEFT)
    desk.until(lambda: rig.captions["left"])
    assert desk.node.get_parameter("left.enabled").value is True


def test_a_question_names_a_camera_or_gets_the_freshest_frame(start):
    desk = start(cameras=["left", "right"])
    rig = Rig(desk, "left", "right")
    slots = desk.node.scheduler._slots
    rig.send("right", RIGHT, sec=1)
    desk.until(lambda: slots["right"].newest)
    rig.send("left", LEFT, sec=2)
    desk.until(lambda: slots["left"].newest)
    named = desk.ask(question="What is it?", camera="right")
    freshest = desk.ask(question="What is it?")
    own = desk.ask(question="What is it?", image=picture((3, 3, 3), sec=9))
    for response, camera, sec in ((named, "right", 1), (freshest, "left", 2), (own, "", 9)):
        assert response.success, response.message
        assert (response.result.camera, response.result.header.stamp.sec) == (camera, sec)
    unknown = desk.ask(question="What is it?", camera="rear")
    assert unknown.message == "camera 'rear' is unknown; it must be one of left, right"


def test_null_gives_a_camera_the_common_value_again(start):
    desk = start(cli_args=["--ros-args", "-p", "cameras:=[left]", "-p", "left.max_rate:=null"])
    (camera,) = desk.node.cameras.values()

    def rate(name, value):
        done = desk.node.set_parameters([Parameter(name, value=value)])
        assert done[0].successful, done[0].reason
        camera.refresh()
        return camera.settings.max_rate

    assert rate("max_rate", 4.0) == 4.0
    assert rate("left.max_rate", 2.0) == 2.0
    assert rate("left.max_rate", "null") == 4.0
    # rclpy would undeclare it, and the node would end when it is read.
    unset = Parameter("left.max_rate", Parameter.Type.NOT_SET)
    (refused,) = desk.node.set_parameters([unset])
    assert refused.reason == (
        "parameter left.max_rate must have a value; set it to null to unset it"
    )
    assert rate("max_rate", 3.0) == 3.0
    refused = desk.node.set_parameters([Parameter("max_rate", value="null")])[0]
    assert refused.reason == "parameter max_rate must be a number, got 'null' (str)"


def test_a_list_may_be_empty_on_the_command_line(start):
    arguments = ["cameras:=[left, right]", "phrases:=[a dog]", "left.phrases:=[]", "questions:=[]"]
    desk = start(cli_args=["--ros-args", *(word for a in arguments for word in ("-p", a))])
    settings = [camera.settings for camera in desk.node.cameras.values()]
    assert [s.phrases for s in settings] == [(), ("a dog",)]
    assert [s.questions for s in settings] == [(), ()]


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
def test_cameras_that_cannot_be_are_refused_with_the_reason(start, values, reason):
    with pytest.raises(ConfigError, match=reason):
        start(**values)


def test_phrases_and_questions_are_asked_of_every_frame_in_one_batch(start):
    desk = start(phrases=["a dog", "a man"], questions=["Who is it?", "Is it warm?"], max_rate=0)
    desk.engine.says = {
        "a man": (HERE, (0.25, 1.0)),
        "a dog": ("", ()),
        "Who": (" a snowman.", ()),
        "warm": (" no.", ()),
    }
    phrases, answers = [], []
    desk.client.create_subscription(GroundedCaption, "kosmos/phrases", phrases.append, 10)
    desk.client.create_subscription(Answer, "kosmos/answers", answers.append, 10)
    desk.listen()
    parts = {"task", "phrases", "questions"}
    desk.until(lambda: desk.camera._wanted_parts(desk.camera.settings) == parts)
    sent = desk.send()
    desk.until(lambda: desk.captions and phrases and len(answers) == 2)
    assert (desk.engine.batches, len(desk.engine.seen)) == ([5], 1)
    assert [(p.text, len(p.boxes)) for p in phrases[0].phrases] == [("a dog", 0), ("a man", 1)]
    assert (phrases[0].header, phrases[0].task) == (sent.header, "phrase_grounding")
    assert [(a.question, a.answer) for a in answers] == [
        ("Who is it?", "a snowman."),
        ("Is it warm?", "no."),
    ]
    assert all(answer.header == sent.header for answer in answers)
    assert answers[0].score == pytest.approx(0.75)


@pytest.mark.fault(61)
def test_what_nobody_hears_is_not_asked(start):
    desk = start(phrases=["a dog"], questions=["Who is it?"], max_rate=0)
    desk.engine.says = {"Who": (" a man.", ())}
    answers = []
    desk.client.create_subscription(Answer, "kosmos/answers", answers.append, 10)
    desk.until(desk.camera.wanted)
    desk.send()
    desk.until(lambda: answers)
    assert desk.engine.prompts == ["<grounding> Question: Who is it? Answer:"]


@pytest.mark.parametrize(
    ("values", "asked", "said"),
    [
        (
            {"task": "phrase_grounding", "phrases": ["a man", "a dog"]},
            2,
            [("phrase_grounding", "a man, a dog")],
        ),
        (
            {"task": "question", "questions": ["Who?", "Why?"]},
            2,
            [("question", "a man."), ("question", "it is cold.")],
        ),
        ({"task": "prompt", "prompt": "It is"}, 1, [("prompt", "a man.")]),
    ],
)
def test_captions_say_what_the_task_is(start, values, asked, said):
    desk = start(max_rate=0, **values).listen()
    desk.engine.says = {
        "a man": (HERE, (1, 1)),
        "a dog": ("", ()),
        "Why": (" it is cold.", ()),
        "": (" a man.", ()),
    }
    desk.send()
    desk.until(lambda: len(desk.captions) == len(said))
    assert [(caption.task, caption.caption) for caption in desk.captions] == said
    assert desk.engine.batches == [asked]


def test_a_task_without_its_parameter_says_so_until_it_has_one(start):
    desk = start(task="question", max_rate=0).listen()
    desk.send()
    desk.until(lambda: desk.logs("task is question, but parameter questions is empty"))
    change(desk, "questions", ["Who?"])
    desk.send()
    desk.until(lambda: desk.captions)


def test_a_batch_that_fails_is_tried_one_by_one(start):
    desk = start(cameras=["left", "right"], max_rate=0)
    rig = Rig(desk, "left", "right")
    desk.engine.free.clear()
    asking = desk.client.create_client(Ask, "kosmos/ask")
    assert asking.wait_for_service(10)
    first = asking.call_async(Ask.Request(question="0?", image=picture()))
    desk.until(desk.engine.busy.is_set)
    rig.send("left", LEFT)
    rig.send("right", RIGHT)
    slots = desk.node.scheduler._slots
    desk.until(lambda: slots["left"].pending and slots["right"].pending)
    desk.engine.errors_in_batches_of = 2
    desk.engine.free.set()
    desk.until(lambda: first.done() and all(rig.captions.values()))
    assert desk.engine.batches == [1, 2, 1, 1]


@pytest.mark.fault(40)
def test_boxes_are_detections_too_and_no_box_is_an_empty_array(start):
    vision_msgs = pytest.importorskip(
        "vision_msgs.msg",
        reason="vision_msgs is not installed: apt-get install ros-$ROS_DISTRO-vision-msgs",
    )
    desk = start(phrases=["a man"], max_rate=0)
    arrays = []
    desk.client.create_subscription(
        vision_msgs.Detection2DArray, "kosmos/detections", arrays.append, 10
    )
    desk.connected()
    desk.until(desk.camera.wanted)
    desk.engine.says = {"a man": (HERE, (0.25, 1.0))}
    sent = desk.send()
    desk.until(lambda: arrays)
    desk.engine.says = {"a man": ("", ())}
    desk.send()
    desk.until(lambda: len(arrays) == 2)
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
    change(desk, "phrases", [""])
    desk.until(desk.camera.wanted)
    desk.send()
    desk.until(lambda: len(arrays) == 3)
    names = [d.results[0].hypothesis.class_id for d in arrays[2].detections]
    assert names == ["a snowman", "a fire"]


def test_a_thousand_frames_of_three_cameras_are_never_mixed_up(start):
    names = ("left", "right", "rear")
    desk = start(ColourEngine(), cameras=list(names), max_rate=0)
    rig = Rig(desk, *names)
    asking = desk.client.create_client(Ask, "kosmos/ask")
    assert asking.wait_for_service(10)
    rounds, answers = 334, []

    def colour(name, number):
        return (names.index(name), number // 250, number % 250)

    for number in range(rounds):
        for name in names:
            rig.send(
                name, colour(name, number), width=16 + names.index(name), height=8, sec=number
            )
        if number % 5 == 0:
            camera = names[number % 3]
            answers.append(
                (camera, asking.call_async(Ask.Request(question="Which?", camera=camera)))
            )
        desk.until(lambda number=number: all(len(rig.captions[n]) > number for n in names))
    desk.until(lambda: all(answer.done() for _, answer in answers))
    results = [caption for name in names for caption in rig.captions[name]]
    assert len(results) == rounds * 3 >= 1000
    results += [answer.result().result for _, answer in answers]
    assert [answer.result().result.camera for _, answer in answers] == [c for c, _ in answers]
    for name in names:
        assert {caption.camera for caption in rig.captions[name]} == {name}
    for result in results:
        expected = colour(result.camera, result.header.stamp.sec)
        assert result.caption.endswith(str(tuple(map(np.int64, expected))))
        assert result.image_width == 16 + names.index(result.camera)


def test_a_frame_with_too_many_prompts_for_the_device_is_asked_in_parts(start):
    desk = start(phrases=["a dog", "a man", "a cat"], max_rate=0, task="phrase_grounding").listen()
    desk.engine.errors_in_batches_of = 2
    desk.send()
    (caption,) = desk.until(lambda: desk.captions)
    assert [phrase.text for phrase in caption.phrases] == ["a dog", "a man", "a cat"]
    assert desk.engine.batches == [3, 1, 1, 1]


def test_what_several_requests_ask_of_one_frame_is_encoded_once(start):
    desk = start()
    desk.send(colour=(5, 5, 5))
    desk.until(lambda: desk.node.scheduler._slots[""].newest)
    desk.engine.free.clear()
    assert desk.asking.wait_for_service(10)
    first = desk.asking.call_async(Ask.Request(question="0?", image=picture((1, 1, 1))))
    desk.until(desk.engine.busy.is_set)
    rest = [desk.asking.call_async(Ask.Request(question=f"{n}?")) for n in (1, 2, 3)]
    desk.until(lambda: desk.node.scheduler.waiting() == 3)
    desk.engine.free.set()
    desk.until(lambda: first.done() and all(answer.done() for answer in rest))
    assert desk.engine.batches == [1, 3]
    assert desk.engine.seen == [(1, 1, 1), (5, 5, 5)]


def test_a_camera_that_is_silent_leaves_room_for_questions_about_others(start):
    desk = start(cameras=["left", "rear"], queue_size=2)
    assert desk.asking.wait_for_service(10)
    for _ in range(2):
        desk.asking.call_async(Ask.Request(question="What?", camera="rear"))
    desk.until(lambda: desk.node.scheduler.waiting() == 2)
    assert desk.ask(question="What?", image=picture()).success
