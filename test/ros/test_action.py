# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The action ~/generate_stream: feedback, results and cancellation, with a fake engine."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from kosmos_msgs.action import Generate as GenerateAction
from node_harness import FIRE_BOX, REGION, SNOWMAN_BOX, plain_image
from rclpy.action import ActionClient
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.ros import services


class Goal:
    """An accepted goal of the action, with its feedback.

    rclpy drops feedback that arrives after the result. A test of feedback therefore passes
    `complete`; the goal requests its result once `complete(feedback)` is true.
    """

    def __init__(self, harness, complete=None, **goal):
        self.harness = harness
        self.feedback = []
        self.client = ActionClient(
            harness.client,
            GenerateAction,
            "kosmos/generate_stream",
            feedback_sub_qos_profile=QoSProfile(depth=100),
        )
        harness.until(self.client.server_is_ready, "an action server")
        sent = self.client.send_goal_async(
            GenerateAction.Goal(**goal), lambda message: self.feedback.append(message.feedback)
        )
        harness.until(sent.done, "an accepted goal")
        self.handle = sent.result()
        assert self.handle.accepted
        if complete:
            harness.until(lambda: self.feedback and complete(self.feedback[-1]), "the feedback")
        self.ended = self.handle.get_result_async()

    def result(self):
        self.harness.until(self.ended.done, "a result")
        return self.ended.result().result

    def destroy(self):
        self.client.destroy()

    @property
    def status(self):
        return self.ended.result().status

    def cancel(self):
        done = self.handle.cancel_goal_async()
        self.harness.until(done.done, "a cancelled goal")


def test_feedback_grows_into_the_result(start):
    harness = start()
    sent = plain_image()
    caption = "An image of a snowman warming himself by a fire."
    goal = Goal(
        harness,
        complete=lambda feedback: feedback.text == caption,
        task="brief_caption",
        grounded=True,
        image=sent,
    )
    result = goal.result()
    assert (goal.status, result.success) == (GoalStatus.STATUS_SUCCEEDED, True)
    assert (result.result.header, result.result.caption) == (sent.header, caption)
    assert all(after != before for before, after in pairwise(goal.feedback))
    queued, *with_frame = goal.feedback
    assert queued == GenerateAction.Feedback()
    assert with_frame[0] == GenerateAction.Feedback(header=sent.header)
    assert all(feedback.header == sent.header for feedback in with_frame)
    texts = [feedback.text for feedback in with_frame[1:]]
    assert texts[0].startswith("An image of")
    assert all(after.startswith(before.rstrip(".")) for before, after in pairwise(texts))
    assert goal.feedback[-1].phrases == result.result.phrases
    goal.destroy()
    counts = [len(feedback.phrases) for feedback in goal.feedback]
    assert counts == sorted(counts)
    assert {0, 1, 2} == set(counts)


def test_feedback_of_grounding_has_the_completed_phrases(start):
    harness = start()
    harness.engine.outputs = {"a man": (SNOWMAN_BOX, (0.5, 0.5)), "a fire": (FIRE_BOX, (0.5, 0.5))}
    goal = Goal(
        harness,
        complete=lambda feedback: len(feedback.phrases) == 2,
        task="phrase_grounding",
        phrases=["a man", "a fire"],
        image=plain_image(),
    )
    result = goal.result()
    texts = [feedback.text for feedback in goal.feedback]
    assert texts == ["", "", "a man", "a man and a fire"]
    assert goal.feedback[-1].phrases == result.result.phrases
    assert all(phrase.boxes for feedback in goal.feedback for phrase in feedback.phrases)


def test_feedback_names_the_camera_and_the_stamp_of_its_frame(start):
    harness = start(cameras=["left", "right"])
    publisher = harness.client.create_publisher(Image, "left/image", 10)
    camera = harness.node.cameras["left"]
    harness.wait_for_connection(publisher, camera)
    frame = harness.deliver(publisher, plain_image(sec=5), camera)
    goal = Goal(
        harness,
        complete=lambda feedback: feedback.text.endswith("fire."),
        task="brief_caption",
        camera="left",
    )
    assert goal.result().success
    first, *others = goal.feedback
    assert (first.header, first.camera) == (Header(), "")
    assert {feedback.camera for feedback in others} == {"left"}
    assert all(feedback.header == frame.header for feedback in others)


def test_feedback_of_a_waiting_goal_has_the_number_of_requests_before_it(start):
    harness = start(max_batch_size=1)
    harness.engine.block()
    first = Goal(harness, task="brief_caption", image=plain_image())
    harness.until(harness.engine.stepping.is_set)
    without_frame = Goal(harness, task="brief_caption")  # no image arrives, so it blocks nobody
    second = Goal(harness, task="detailed_caption", image=plain_image())
    third = Goal(harness, task="prompt", text="An", image=plain_image())
    harness.until(lambda: harness.node.scheduler.waiting() == 3)
    harness.until(lambda: third.feedback and second.feedback and without_frame.feedback)
    waiting = (without_frame, second, third)
    assert [goal.feedback[0].requests_ahead for goal in waiting] == [0, 0, 1]
    second.cancel()
    harness.until(lambda: len(third.feedback) == 2)
    assert [feedback.requests_ahead for feedback in third.feedback] == [1, 0]
    assert all(feedback.header == Header() for feedback in third.feedback)
    harness.engine.unblock()
    harness.until(lambda: third.feedback[-1].text)
    assert third.feedback[2].header.frame_id == "camera_optical_frame"
    assert {feedback.requests_ahead for feedback in third.feedback[1:]} == {0}
    assert third.result().success
    assert first.result().success


@pytest.mark.parametrize(
    ("goal", "prompt"),
    [
        ({"task": "detailed_caption"}, "Describe this image in detail:"),
        (
            {"task": "question", "text": "Who?", "history": ["A?", "B."]},
            "Question: A? Answer: B.",
        ),
        ({"task": "question", "text": "Is it?", "regions": [REGION]}, "Is<phrase> it</phrase>"),
        ({"task": "phrase_grounding", "phrases": ["a man", "a dog"]}, "<phrase> a man</phrase>"),
        ({"task": "region_description", "regions": [REGION]}, "<phrase> It</phrase><object>"),
        ({"task": "prompt", "text": "An image of"}, "An image of"),
    ],
)
def test_goal_accepts_every_task(start, goal, prompt):
    harness = start()
    sent = Goal(harness, image=plain_image(), **goal)
    result = sent.result()
    sent.destroy()
    assert result.success, result.message
    assert prompt in harness.engine.prompts[0]
    assert result.result.task == goal["task"]


@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        ({}, "task '' is unknown"),
        ({"task": "ocr"}, "task 'ocr' is unknown"),
        (
            {"task": "brief_caption", "text": "Who?"},
            "text must be empty for task 'brief_caption'; only question and prompt can have it",
        ),
        (
            {"task": "brief_caption", "regions": [REGION]},
            "regions must be empty for task 'brief_caption'",
        ),
        (
            {"task": "prompt", "text": "a", "regions": [REGION]},
            "one <object></object> for each of 1 regions, got 0",
        ),
        ({"task": "question", "text": ""}, "question must not be empty"),
        (
            {"task": "region_description"},
            "regions must have exactly one entry",
        ),
        ({"task": "phrase_grounding"}, "phrases is empty"),
    ],
)
def test_invalid_goal_is_aborted_with_the_reason(start, goal, reason):
    harness = start()
    sent = Goal(harness, image=plain_image(), **goal)
    result = sent.result()
    sent.destroy()
    assert (sent.status, result.success) == (GoalStatus.STATUS_ABORTED, False)
    assert reason in result.message


def test_goal_that_times_out_is_aborted(start):
    harness = start(request_timeout=0.2)
    goal = Goal(harness, task="brief_caption")
    assert "no image arrived within 0.2 s" in goal.result().message
    assert goal.status == GoalStatus.STATUS_ABORTED


def test_cancelled_goal_stops_the_model(start):
    harness = start()
    harness.engine.block()
    goal = Goal(harness, task="brief_caption", image=plain_image())
    harness.until(harness.engine.stepping.is_set)
    goal.cancel()
    result = goal.result()
    assert (goal.status, result.success) == (GoalStatus.STATUS_CANCELED, False)
    assert result.message == "the goal was cancelled"
    harness.engine.unblock()
    assert harness.ask(question="What is it?", image=plain_image()).success


def test_goal_cancelled_before_it_begins_never_reaches_the_model(start):
    harness, ends = start(), []
    request = GenerateAction.Goal(task="brief_caption", image=plain_image())
    goal = SimpleNamespace(
        request=request, is_cancel_requested=True, canceled=lambda: ends.append("cancelled")
    )
    with pytest.raises(StopIteration) as ended:
        harness.node.request_services._stream(goal).send(None)
    assert (ended.value.value.message, ends) == ("the goal was cancelled", ["cancelled"])
    assert not harness.engine.prompts


def test_goal_cancelled_during_a_step_ends_with_that_step(start):
    harness, outputs = start(), []
    generate = harness.engine._generate
    harness.engine._generate = lambda query: outputs.append(generate(query)) or outputs[-1]
    harness.engine.pauses_in_batches_of = 1
    goal = Goal(harness, task="brief_caption", image=plain_image())
    harness.until(harness.engine.stepping.is_set)
    goal.cancel()
    assert goal.result().message == "the goal was cancelled"
    harness.engine.pauses_in_batches_of = None
    harness.engine.resume.set()
    assert harness.ask(question="What is it?", image=plain_image()).success
    assert [type(output) for output in outputs] == [CancelledError, Generation]


def test_waiting_goal_can_be_cancelled(start):
    harness = start(max_batch_size=1)
    harness.engine.block()
    first = Goal(harness, task="brief_caption", image=plain_image())
    harness.until(harness.engine.stepping.is_set)
    second = Goal(harness, task="detailed_caption", image=plain_image())
    third = Goal(harness, task="prompt", text="An", image=plain_image())
    harness.until(lambda: harness.node.scheduler.waiting() == 2)
    second.cancel()
    assert second.result().message == "the goal was cancelled"
    assert second.status == GoalStatus.STATUS_CANCELED
    harness.engine.unblock()
    assert first.result().success
    assert third.result().success
    assert harness.engine.prompts == ["An image of", "An"]


def test_cancelled_goal_ends_before_the_rest_of_its_batch(start, monkeypatch):
    monkeypatch.setattr("kosmos_ros.serving.decoding.GATHER", 60.0)
    harness = start()
    harness.engine.block()
    first = Goal(harness, task="prompt", text="An", image=plain_image())
    harness.until(harness.engine.stepping.is_set)
    others = [Goal(harness, task="brief_caption", image=plain_image()) for _ in range(2)]
    harness.until(lambda: harness.node.scheduler.waiting() == 2)
    harness.engine.stepping.clear()
    harness.engine.pauses_in_batches_of = 2
    harness.engine.unblock()
    harness.until(harness.engine.stepping.is_set)
    harness.until(lambda: harness.engine.batches == [1, 2])
    others[0].cancel()
    assert others[0].result().message == "the goal was cancelled"
    assert others[0].status == GoalStatus.STATUS_CANCELED
    assert not others[1].ended.done()
    harness.engine.resume.set()
    assert others[1].result().success
    assert first.result().success


@pytest.mark.parametrize("end", ["succeeded", "aborted", "cancelled"])
@pytest.mark.fault(52)
def test_ended_goal_keeps_no_image(start, end):
    """rclpy keeps a goal for RESULT_KEPT: at one goal per second, 750 MB of Full HD images."""
    harness = start()
    if end == "cancelled":
        harness.engine.block()
    image = plain_image()
    if end == "aborted":
        image.encoding = "rgb9"
    goal = Goal(harness, task="brief_caption", image=image)
    (kept,) = harness.node.request_services._action._goal_handles.values()
    assert len(kept.request.image.data) == len(image.data)
    if end == "cancelled":
        goal.cancel()
    assert goal.result().success == (end == "succeeded")
    assert not kept.request.image.data


def test_list_of_a_goal_that_is_too_long_is_refused(start):
    goal = Goal(start(), task="phrase_grounding", phrases=[""] * 101)
    assert goal.result().message == "phrases has 101 entries; it must have at most 100"


def test_shutdown_aborts_running_goals_with_a_result(start):
    harness = start()
    harness.engine.block()
    goals = [Goal(harness, task="brief_caption", image=plain_image()) for _ in range(2)]
    harness.until(harness.engine.stepping.is_set)
    assert harness.node.stop(10)
    for goal in goals:
        # Nothing spins the node any more, so it has already sent its result.
        harness.spinner.executor.remove_node(harness.node)
        assert goal.result().message == "the node is shutting down"
        assert goal.status == GoalStatus.STATUS_ABORTED


LARGE = {
    "task": "brief_caption" * 100,
    "text": "x" * 100_000,
    "phrases": ["x" * 100_000],
    "history": ["x" * 100_000],
    "region_phrases": ["x" * 100_000],
    "regions": [REGION] * 1000,
    "camera": "x" * 100_000,
}


@pytest.mark.parametrize("field", LARGE)
@pytest.mark.fault(52, 79)
def test_refused_goal_keeps_no_field(start, field):
    """rclpy keeps refused goals for RESULT_KEPT, too: forty texts of 8 MB would take 330 MB."""
    harness = start()
    goal = Goal(harness, **{"task": "question", field: LARGE[field]})
    (kept,) = harness.node.request_services._action._goal_handles.values()
    result = goal.result()
    assert not result.success
    assert result.message.startswith(field)
    assert len(result.message) < 100
    assert kept.request == GenerateAction.Goal()


@pytest.mark.fault(80)
def test_goals_beyond_the_limit_are_rejected_until_others_are_forgotten(start, monkeypatch):
    monkeypatch.setattr(services, "MAX_GOALS", 3)
    monkeypatch.setattr(services, "RESULT_KEPT", 5)
    harness = start()
    kept = harness.node.request_services._action._goal_handles
    for _ in range(3):
        assert not Goal(harness, task="nonsense").result().success
    client = ActionClient(harness.client, GenerateAction, "kosmos/generate_stream")
    harness.until(client.server_is_ready, "an action server")

    def send():
        sent = client.send_goal_async(GenerateAction.Goal(task="nonsense"))
        harness.until(sent.done)
        return sent.result().accepted

    assert not send()
    assert len(kept) == 3
    harness.until(
        lambda: harness.logs("a goal", "is rejected: the node keeps 3 goals", "5 s after")
    )
    harness.until(send, "an accepted goal")
    assert len(kept) <= 3
    client.destroy()


@pytest.mark.fault(80)
def test_flood_of_cancellations_cancels_the_goal_once(start):
    harness = start()
    harness.engine.block()
    goal = Goal(harness, task="brief_caption", image=plain_image())
    harness.until(harness.engine.stepping.is_set)
    name = "kosmos/generate_stream/_action/cancel_goal"
    client = harness.client.create_client(CancelGoal, name, qos_profile=QoSProfile(depth=1000))
    harness.until(client.service_is_ready)
    flood = [client.call_async(CancelGoal.Request()) for _ in range(300)]
    harness.until(lambda: all(future.done() for future in flood), "300 responses")
    cancelled = [info for future in flood for info in future.result().goals_canceling]
    assert [bytes(info.goal_id.uuid) for info in cancelled] == [bytes(goal.handle.goal_id.uuid)]
    assert goal.result().message == "the goal was cancelled"
    assert not harness.node.request_services.waiting
    harness.until(lambda: not harness.node.mailbox._posted)
    harness.engine.unblock()
    assert harness.ask(question="What is it?", image=plain_image()).success
