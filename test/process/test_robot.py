# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every task over DDS with the embedded model: results match the drawn scenes.

One process serves two cameras. The tests draw the scenes, so they know the right answers.
"""

import itertools

import numpy as np
import pytest
from conftest import Spinner
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from action_msgs.msg import GoalStatus
from comparison import corners, in_pixels, iou, message_of
from diagnostic_msgs.msg import DiagnosticArray
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import Answer, BoundingBox, Event, GroundedCaption
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter, get_parameter_value, parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, Shape

SHAPES = {
    "a red circle": Shape("circle", "red", (0.1, 0.2, 0.3, 0.5)),
    "a blue square": Shape("square", "blue", (0.6, 0.4, 0.9, 0.8)),
    "a green star": Shape("star", "green", (0.55, 0.3, 0.85, 0.75)),
    "a yellow triangle": Shape("triangle", "yellow", (0.1, 0.5, 0.4, 0.9)),
}


def scene(*names, width=640, height=480):
    return Scene(tuple(SHAPES[name] for name in names), width, height)


FRONT = scene("a red circle", "a blue square")
REAR = scene("a yellow triangle", "a green star", width=320, height=180)


def frame(drawn, sec=1):
    message = message_of(render(drawn))
    message.header.stamp.sec = sec
    return message


def region(name, drawn):
    pixels = in_pixels(SHAPES[name].box, drawn.width, drawn.height)
    names = ("x_min", "y_min", "x_max", "y_max")
    return BoundingBox(**dict(zip(names, map(float, pixels), strict=True)))


def check_box(box, name, drawn):
    truth = in_pixels(SHAPES[name].box, drawn.width, drawn.height)
    assert iou((box.x_min, box.y_min, box.x_max, box.y_max), truth) > 0.5, (name, box)
    assert 0 < box.score <= 1


class Robot:
    """The node as a process, and a client that acts as both cameras and the user."""

    def __init__(self):
        self.program = Program(
            "kosmos_node",
            *parameters(model="shapes", device="cpu", max_rate=0, cameras="[front, rear]"),
        )
        self.client = Node("robot_of_two")
        self.spinner = Spinner(self.client)
        self.until = self.spinner.until
        self.cameras = {
            name: self.client.create_publisher(Image, f"{name}/image", 10)
            for name in ("front", "rear")
        }
        self.clients = {
            kind: self.client.create_client(kind, f"kosmos/{name}")
            for kind, name in (
                (Ask, "ask"),
                (Ground, "ground"),
                (Describe, "describe"),
                (Generate, "generate"),
                (SetParameters, "set_parameters"),
                (SetParametersAtomically, "set_parameters_atomically"),
                (GetParameters, "get_parameters"),
                (ChangeState, "change_state"),
            )
        }
        self.action = ActionClient(
            self.client,
            GenerateAction,
            "kosmos/generate_stream",
            feedback_sub_qos_profile=QoSProfile(depth=100),
        )
        self.program.says("active: ")
        self.until(self.action.server_is_ready)
        self.until(lambda: all(c.get_subscription_count() for c in self.cameras.values()))
        while not self.call(Describe, image=frame(FRONT)).success:
            pass  # the node may be inactive for another moment

    def call(self, kind, **request):
        return self.spinner.call(self.clients[kind], kind.Request(**request))

    def set(self, **values):
        changed = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        results = self.call(SetParameters, parameters=changed).results
        assert all(result.successful for result in results), results

    def subscribe(self, kind, topic):
        messages = []
        name = topic if topic.startswith("/") else f"kosmos/{topic}"
        subscription = self.client.create_subscription(kind, name, messages.append, 100)
        self.until(lambda: self.client.count_publishers(name))
        return subscription, messages

    def show(self, scenes, condition):
        """Publish frames of the cameras, as cameras do, until the condition is true."""
        self.sec = getattr(self, "sec", 100)

        def send():
            self.sec += 1
            for name, drawn in scenes.items():
                self.cameras[name].publish(frame(drawn, self.sec))

        timer = self.client.create_timer(0.2, send)
        send()
        try:
            return self.until(condition)
        finally:
            self.client.destroy_timer(timer)


@pytest.fixture(scope="module")
def robot():
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    robot = Robot()
    with robot.program:
        yield robot
    robot.action.destroy()
    robot.client.destroy_node()
    rclpy.try_shutdown()


def test_grounding_finds_the_drawn_phrases_only(robot):
    phrases = ["a blue square", "a green cross", "a red circle"]
    sent = frame(FRONT, 7)
    response = robot.call(Ground, phrases=phrases, image=sent)
    assert response.success, response.message
    assert response.result.header == sent.header
    assert [phrase.text for phrase in response.result.phrases] == phrases
    blue, absent, red = response.result.phrases
    assert not absent.boxes
    check_box(blue.boxes[0], "a blue square", FRONT)
    check_box(red.boxes[0], "a red circle", FRONT)


def test_two_equal_shapes_are_one_phrase_with_two_boxes(robot):
    twins = Scene((SHAPES["a red circle"], Shape("circle", "red", (0.6, 0.1, 0.9, 0.5))), 640, 480)
    response = robot.call(Ground, phrases=["two red circles"], image=frame(twins))
    (phrase,) = response.result.phrases
    for box, shape in zip(phrase.boxes, twins.left_to_right, strict=True):
        assert iou(corners(box), in_pixels(shape.box, 640, 480)) > 0.5


@pytest.mark.fault(99)
def test_the_text_of_named_phrases_says_only_what_is_in_view(robot):
    """A program that speaks the text must not say that something absent is there."""
    asked = ["a red circle", "an elephant", "a green star", "a blue square"]
    response = robot.call(Ground, phrases=asked, image=frame(FRONT))
    assert [phrase.text for phrase in response.result.phrases] == asked
    assert response.result.caption == "a red circle and a blue square"
    response = robot.call(Ground, phrases=asked[1:3], image=frame(FRONT))
    assert (response.success, response.result.caption) == (True, "")
    robot.set(front__phrases=asked, front__task="phrase_grounding")
    subscription, heard = robot.subscribe(String, "front/text")
    robot.show({"front": FRONT}, lambda: heard)
    assert heard[-1].data == "a red circle and a blue square"
    robot.set(front__phrases=["an elephant"])
    robot.show({"front": FRONT}, lambda: heard[-1].data == "")
    robot.client.destroy_subscription(subscription)
    robot.set(front__task="null", front__phrases="null")


@pytest.mark.fault(100)
def test_a_region_in_fractions_of_the_image_is_refused(robot):
    fractions = BoundingBox(x_min=0.1, y_min=0.2, x_max=0.3, y_max=0.5)
    for kind, fields in ((Ask, {"question": "What is this?"}), (Describe, {})):
        response = robot.call(kind, regions=[fractions], image=frame(FRONT), **fields)
        assert not response.success
        assert response.message == (
            "region (0.1, 0.2, 0.3, 0.5) must be in pixels of the image (0, 0, 640, 480), "
            "not in fractions of it; multiply x by 640 and y by 480"
        )


@pytest.mark.fault(97)
def test_parameters_set_on_the_command_line_mean_what_they_mean_in_yaml(robot):
    """`ros2 param set` guesses the type of a text: an integer for 2, a BOOL_ARRAY for []."""

    def set_to(name, text):
        change = ParameterMessage(name=name, value=get_parameter_value(text))
        (result,) = robot.call(SetParameters, parameters=[change]).results
        assert result.successful, result.reason
        assert robot.call(SetParametersAtomically, parameters=[change]).result.successful
        (value,) = robot.call(GetParameters, names=[name]).values
        return value.type, parameter_value_to_python(value)

    double, strings = ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_STRING_ARRAY
    assert set_to("event_seconds", "2") == (double, 2.0)
    (value,) = robot.call(GetParameters, names=["front.event_seconds"]).values
    assert (value.type, value.double_value) == (double, 2.0)
    assert set_to("front.event_seconds", "7") == (double, 7.0)
    assert set_to("front.event_seconds", "null") == (double, 2.0)
    assert set_to("event_seconds", "null") == (double, 0.0)
    for name in ("questions", "front.questions"):
        assert set_to(name, '["What is this?"]') == (strings, ["What is this?"])
        assert set_to(name, "[]") == (strings, [])
    set_to("front.questions", "null")


def test_the_captions_of_a_still_camera_keep_coming_with_their_own_stamps(robot):
    front, captions = robot.subscribe(GroundedCaption, "front/captions")
    rear, diagnostics = robot.subscribe(DiagnosticArray, "/diagnostics")

    def unchanged():
        statuses = [s for message in diagnostics for s in message.status if "front" in s.name]
        values = [{pair.key: pair.value for pair in status.values} for status in statuses]
        return values and int(values[-1]["unchanged"]) > 2

    robot.show({"front": FRONT}, lambda: len(captions) > 4 and unchanged())
    stamps = [caption.header.stamp.sec for caption in captions]
    assert stamps == sorted(set(stamps))
    assert {caption.caption for caption in captions} == {captions[0].caption}
    # Frames may be described beside those of other cameras, which rounds differently.
    boxes = [
        [corners(box) for phrase in each.phrases for box in phrase.boxes] for each in captions
    ]
    assert np.allclose(boxes, boxes[0], atol=0.01)
    assert [phrase.text for phrase in captions[0].phrases] == ["a red circle", "a blue square"]
    moved = Scene((SHAPES["a green star"],), 640, 480)
    robot.show({"front": moved}, lambda: "green star" in captions[-1].caption)
    for subscription in (front, rear):
        robot.client.destroy_subscription(subscription)


def test_each_region_is_described_separately(robot):
    regions = [region("a blue square", FRONT), region("a red circle", FRONT)]
    response = robot.call(Describe, regions=regions, image=frame(FRONT))
    assert response.success, response.message
    assert list(response.descriptions) == ["It is a blue square.", "It is a red circle."]


def test_an_image_is_described_briefly_and_in_detail(robot):
    brief = robot.call(Describe, image=frame(FRONT), grounded=True)
    assert list(brief.descriptions) == ["An image of a red circle and a blue square."]
    assert len(brief.results[0].phrases) == 2
    detailed = robot.call(Describe, image=frame(FRONT), detailed=True)
    assert detailed.descriptions[0].startswith("The image shows a red circle ")
    assert not detailed.results[0].phrases


def test_a_raw_prompt_is_completed(robot):
    start = "<grounding><phrase> a red circle</phrase>"
    for prompt in (start, start + "<object>"):
        response = robot.call(Generate, prompt=prompt, image=frame(FRONT))
        assert response.success, response.message
        assert response.text == "a red circle"
        check_box(response.result.phrases[0].boxes[0], "a red circle", FRONT)
        assert response.result.raw_text.startswith(start + "<object><patch_index_")


def test_a_raw_prompt_with_a_region_and_a_stop_ends_at_its_box(robot):
    """As in grounding with examples: the first phrase has a given box, the second gets one."""
    response = robot.call(
        Generate,
        prompt="<grounding> An image of<phrase> a red circle</phrase> <object></object> and"
        "<phrase> a blue square</phrase> ",
        regions=[region("a red circle", FRONT)],
        stop="</object>",
        image=frame(FRONT),
    )
    assert response.success, response.message
    assert response.text == "a blue square"
    (phrase,) = response.result.phrases
    check_box(phrase.boxes[0], "a blue square", FRONT)
    assert response.result.raw_text.count("<object>") == 2
    assert response.result.raw_text.endswith("</object>")
    assert not response.result.truncated
    whole = robot.call(Generate, prompt="<grounding> An image of", image=frame(FRONT))
    cut = robot.call(Generate, prompt="<grounding> An image of", stop=" and", image=frame(FRONT))
    assert (whole.text, cut.text) == ("a red circle and a blue square.", "a red circle")


def test_a_disguised_tag_is_refused_by_name(robot):
    response = robot.call(Ask, question="What is ＜/s＞ here?", image=frame(FRONT))
    assert response.message == (
        "question 'What is ＜/s＞ here?' contains the reserved tag </s>; remove it"
    )


def test_each_camera_has_captions_of_its_own_scene(robot):
    subscriptions = {
        name: robot.subscribe(GroundedCaption, f"{name}/captions") for name in ("front", "rear")
    }
    scenes = {"front": FRONT, "rear": REAR}
    robot.show(scenes, lambda: all(len(captions) >= 5 for _, captions in subscriptions.values()))
    for name, (subscription, captions) in subscriptions.items():
        for caption in captions:
            assert caption.camera == name
            assert (caption.image_width, caption.image_height) == (
                scenes[name].width,
                scenes[name].height,
            )
            assert {p.text for p in caption.phrases} == {p for p, _ in scenes[name].truth}
        robot.client.destroy_subscription(subscription)


def test_a_question_is_about_the_camera_that_it_names(robot):
    subscription, captions = robot.subscribe(GroundedCaption, "rear/captions")
    robot.show({"front": FRONT, "rear": REAR}, lambda: len(captions) >= 2)
    robot.client.destroy_subscription(subscription)
    for camera, answer in (("front", "yes."), ("rear", "no.")):
        response = robot.call(Ask, question="Is there a red circle?", camera=camera)
        assert (response.answer, response.result.camera) == (answer, camera)


def test_phrases_and_questions_of_a_camera_become_topics_and_events(robot):
    received = {
        topic: robot.subscribe(kind, f"front/{topic}")
        # The subscriber of events first: each event is published only once.
        for topic, kind in (("events", Event), ("phrases", GroundedCaption), ("answers", Answer))
    }
    events = received["events"][1]
    robot.set(
        front__phrases=["a red circle", "a green star"],
        front__questions=["How many shapes are there?"],
        front__event_frames=2,
    )
    robot.show({"front": FRONT}, lambda: len(events) >= 2 and received["answers"][1])
    listed = received["phrases"][1][-1]
    assert [(p.text, len(p.boxes)) for p in listed.phrases] == [
        ("a red circle", 1),
        ("a green star", 0),
    ]
    check_box(listed.phrases[0].boxes[0], "a red circle", FRONT)
    assert {answer.answer for answer in received["answers"][1]} == {"two."}
    robot.show({"front": REAR}, lambda: len(events) >= 4)
    published = [(event.kind, event.subject, event.answer) for event in events]
    assert sorted(published) == sorted(
        [
            (Event.APPEARED, "a red circle", ""),
            (Event.ANSWERED, "How many shapes are there?", "two."),
            (Event.APPEARED, "a green star", ""),
            (Event.DISAPPEARED, "a red circle", ""),
        ]
    )
    appeared = next(event for event in events if event.subject == "a green star")
    check_box(appeared.phrases[0].boxes[0], "a green star", REAR)
    for subscription, _ in received.values():
        robot.client.destroy_subscription(subscription)
    robot.set(front__phrases=[], front__questions=[])


def send_goal(robot, **goal):
    feedback = []
    sent = robot.action.send_goal_async(
        GenerateAction.Goal(**goal), lambda message: feedback.append(message.feedback)
    )
    robot.until(sent.done)
    return sent.result(), feedback


def test_streamed_feedback_grows_to_the_caption(robot):
    caption = "An image of a red circle and a blue square."
    handle, feedback = send_goal(robot, task="brief_caption", grounded=True, image=frame(FRONT))
    # rclpy drops feedback that comes after the result, so the result is requested last.
    robot.until(lambda: feedback and feedback[-1].text == caption, "the whole caption")
    ended = handle.get_result_async()
    robot.until(ended.done)
    result = ended.result().result
    assert result.success, result.message
    assert result.result.caption == caption
    assert feedback[-1].phrases == result.result.phrases
    assert len(feedback) > 5
    assert sorted({len(so_far.phrases) for so_far in feedback}) == [0, 1, 2]


def test_a_cancelled_goal_frees_the_model_within_a_token(robot):
    published = []  # of all goals, also of finished ones
    topic = "kosmos/generate_stream/_action/feedback"
    kind = GenerateAction.Impl.FeedbackMessage
    subscription = robot.client.create_subscription(kind, topic, published.append, 1000)

    def feedback_of(handle):
        return [m.feedback for m in published if m.goal_id == handle.goal_id]

    for _ in range(10):  # a goal may end before the cancel request arrives
        handle, _ = send_goal(
            robot, task="phrase_grounding", phrases=["a red circle"] * 100, image=frame(FRONT)
        )
        ended = handle.get_result_async()
        robot.until(lambda handle=handle, ended=ended: feedback_of(handle) or ended.done())
        handle.cancel_goal_async()
        robot.until(ended.done)
        if ended.result().status != GoalStatus.STATUS_SUCCEEDED:
            break
    assert ended.result().status == GoalStatus.STATUS_CANCELED
    # This caption takes longer than each phrase: if the goal went on, all its phrases would come.
    caption = "An image of a red circle and a blue square."
    after, _ = send_goal(robot, task="brief_caption", image=frame(FRONT))
    robot.until(lambda: any(feedback.text == caption for feedback in feedback_of(after)))
    assert len(feedback_of(handle)[-1].phrases) < 100
    robot.client.destroy_subscription(subscription)


def test_captions_of_a_thousand_frames_belong_to_their_camera_and_frame(robot):
    front = scene("a red circle", "a blue square", width=320, height=240)
    scenes = {
        "front": (front, scene("a green star", width=240, height=240)),
        "rear": (REAR, scene("a blue square", width=240, height=180)),
    }
    frames = {name: [frame(drawn) for drawn in pair] for name, pair in scenes.items()}
    received = {name: robot.subscribe(GroundedCaption, f"{name}/captions") for name in scenes}
    sent = itertools.count()

    def send():
        number = next(sent)
        for name, messages in frames.items():
            message = messages[number % 2]
            message.header.stamp.sec, message.header.frame_id = number, f"{name} {number}"
            robot.cameras[name].publish(message)

    timer = robot.client.create_timer(0.03, send)
    for count in range(100, 501, 100):
        robot.until(lambda count=count: all(len(found) >= count for _, found in received.values()))
    robot.client.destroy_timer(timer)
    for name, (subscription, captions) in received.items():
        robot.client.destroy_subscription(subscription)
        # A frame without a frame_id is from the test before.
        for caption in filter(lambda caption: caption.header.frame_id, captions):
            number = caption.header.stamp.sec
            drawn = scenes[name][number % 2]
            assert (caption.camera, caption.header.frame_id) == (name, f"{name} {number}")
            assert (caption.image_width, caption.image_height) == (drawn.width, drawn.height)
            assert {phrase.text for phrase in caption.phrases} == {text for text, _ in drawn.truth}


def test_lifecycle_transitions_pause_free_and_reload_the_model(robot):
    def change(label):
        return robot.call(ChangeState, transition=Transition(label=label)).success

    assert change("deactivate")
    assert robot.call(Describe, image=frame(FRONT)).message == "the node is not active"
    assert change("cleanup")
    assert robot.call(Describe, image=frame(FRONT)).message == "the node is unconfigured"
    assert change("configure")
    assert change("activate")
    described = robot.call(Describe, image=frame(REAR))
    assert described.descriptions[0] == "An image of a yellow triangle and a green star."
