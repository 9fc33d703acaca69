# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ground, Describe, Generate, history and the action: what is asked and what is answered."""

import math
import re
from itertools import pairwise
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from conftest import Bench
from desk import FAR, REGION, SNOWMAN, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import BoundingBox
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2.query import Generation

HERE = "<object><patch_index_0044><patch_index_0863></object>"
THERE = "<object><patch_index_0005><patch_index_0911></object>"


def call(desk, kind, name, **request):
    client = desk.client.create_client(kind, f"kosmos/{name}")
    response = desk.bench.call(client, kind.Request(**request))
    desk.client.destroy_client(client)
    return response


class Goal:
    """A goal of the action, sent and accepted, with the feedback that came.

    Rclpy drops what comes after the result: where feedback counts, that is asked for only when
    `heard(feedback)` is true.
    """

    def __init__(self, desk, heard=None, **goal):
        self.desk = desk
        self.feedback = []
        self.client = ActionClient(
            desk.client,
            GenerateAction,
            "kosmos/generate_stream",
            feedback_sub_qos_profile=QoSProfile(depth=100),
        )
        desk.until(self.client.server_is_ready, "an action server")
        sent = self.client.send_goal_async(
            GenerateAction.Goal(**goal), lambda message: self.feedback.append(message.feedback)
        )
        desk.until(sent.done, "an accepted goal")
        self.handle = sent.result()
        assert self.handle.accepted
        if heard:
            desk.until(lambda: self.feedback and heard(self.feedback[-1]), "the feedback")
        self.ended = self.handle.get_result_async()

    def result(self):
        self.desk.until(self.ended.done, "a result")
        return self.ended.result().result

    def destroy(self):
        self.client.destroy()

    @property
    def status(self):
        return self.ended.result().status

    def cancel(self):
        done = self.handle.cancel_goal_async()
        self.desk.until(done.done, "a cancelled goal")


def test_phrases_are_grounded_together_and_listed_in_their_order(start):
    desk = start()
    desk.engine.says = {"a fire": (THERE, (0.5, 0.5)), "a dog": ("", ()), "a man": (HERE, (1, 1))}
    response = call(
        desk, Ground, "ground", phrases=["a man", " a  dog ", "a fire"], image=picture()
    )
    assert response.success, response.message
    assert desk.engine.batches == [3]
    assert desk.engine.prompts[1] == "<grounding><phrase> a dog</phrase>"
    result = response.result
    assert result.caption == "a man, a dog, a fire"
    assert [(p.text, len(p.boxes)) for p in result.phrases] == [
        ("a man", 1),
        ("a dog", 0),
        ("a fire", 1),
    ]
    assert [result.caption[p.start : p.end] for p in result.phrases] == [
        "a man",
        "a dog",
        "a fire",
    ]
    assert (result.phrases[0].boxes[0].x_min, result.phrases[2].boxes[0].score) == (250, 0.5)
    assert (result.task, result.generated_tokens) == ("phrase_grounding", 60)


@pytest.mark.parametrize(
    ("asked", "parameter", "seen"), [(0.0, 0.0, 1), (0.0, 0.5, 0), (0.3, 0.5, 1)]
)
def test_a_box_under_the_least_score_is_not_given(start, asked, parameter, seen):
    desk = start(min_score=parameter)
    desk.engine.says = {"a man": (HERE, (0.4, 0.4))}
    response = call(desk, Ground, "ground", phrases=["a man"], min_score=asked, image=picture())
    assert len(response.result.phrases[0].boxes) == seen


def test_what_the_model_adds_to_a_phrase_is_left_out(start):
    desk = start()
    desk.engine.says = {"a man": (f" by<phrase> a fire</phrase>{THERE}", (0.5, 0.5))}
    response = call(desk, Ground, "ground", phrases=["a man"], image=picture())
    assert [(p.text, list(p.boxes)) for p in response.result.phrases] == [("a man", [])]


def test_regions_are_described_each_for_itself(start):
    desk = start()
    desk.engine.says = {"0044": (" a dog.", ()), "0000": (" a cat.", ())}
    other = BoundingBox(x_max=100.0, y_max=100.0)
    response = call(desk, Describe, "describe", regions=[REGION, other], image=picture())
    assert response.success, response.message
    assert list(response.descriptions) == ["It is a dog.", "It is a cat."]
    assert [result.task for result in response.results] == ["region_description"] * 2
    assert desk.engine.batches == [2]


@pytest.mark.parametrize(
    ("detailed", "grounded", "prompt"),
    [
        (False, True, "<grounding> An image of"),
        (True, False, "Describe this image in detail:"),
    ],
)
def test_a_picture_is_described_as_asked(start, detailed, grounded, prompt):
    desk = start()
    response = call(
        desk, Describe, "describe", detailed=detailed, grounded=grounded, image=picture()
    )
    assert response.success, response.message
    assert desk.engine.prompts == [prompt]
    assert response.descriptions[0].endswith("a snowman warming himself by a fire.")


def test_a_raw_prompt_goes_to_the_model_as_it_is(start):
    desk = start()
    prompt = f"<grounding> It is<phrase> the man</phrase>{HERE} and<phrase> his hat</phrase>"
    desk.engine.says = {"hat": (THERE, (1, 1))}
    response = call(desk, Generate, "generate", prompt=prompt, image=picture(), max_new_tokens=9)
    assert response.success, response.message
    assert (desk.engine.prompts, desk.engine.limits) == ([prompt], [9])
    assert response.text == "his hat"
    assert [(p.text, len(p.boxes)) for p in response.result.phrases] == [("his hat", 1)]


def test_history_goes_before_the_question(start):
    desk = start()
    response = desk.ask(
        question="Why?", history=["Who is it?", "A man.", "Is he cold?", "No."], image=picture()
    )
    assert response.success, response.message
    assert desk.engine.prompts == [
        "Question: Who is it? Answer: A man. Question: Is he cold? Answer: No. "
        "Question: Why? Answer:"
    ]


@pytest.mark.parametrize(
    ("kind", "name", "fields", "reason"),
    [
        (Ground, "ground", {}, "phrases is empty"),
        (Ground, "ground", {"phrases": ["a dog", ""]}, "phrase must not be empty"),
        (Ground, "ground", {"phrases": ["a </phrase>"]}, "</phrase>"),
        (Ground, "ground", {"phrases": ["a dog"], "min_score": 1.5}, "must be 0 to 1, got 1.5"),
        (
            Ground,
            "ground",
            {"phrases": ["a dog"], "min_score": float("nan")},
            "must be 0 to 1, got nan",
        ),
        (Ground, "ground", {"phrases": ["a dog"], "camera": "rear"}, "camera 'rear' is unknown"),
        (
            Describe,
            "describe",
            {"regions": [REGION], "detailed": True},
            "detailed must be false if regions are given",
        ),
        (Describe, "describe", {"regions": [FAR], "image": picture()}, "outside the image"),
        (Describe, "describe", {"regions": [BoundingBox()]}, "empty or inverted"),
        (Describe, "describe", {"max_age": Duration(sec=-2)}, "max_age is -2 s"),
        (Generate, "generate", {"prompt": "  "}, "prompt must not be empty"),
        (Generate, "generate", {"prompt": "a</image>b"}, "</image>"),
        (Generate, "generate", {"prompt": "a\x07b"}, "U+0007"),
        (
            Generate,
            "generate",
            {"prompt": "a", "max_new_tokens": 5000},
            "must be 1 to 1024, got 5000",
        ),
        (Ask, "ask", {"question": "Why?", "history": ["Who?"]}, "answer, got 1 entries"),
        (Ask, "ask", {"question": "Why?", "history": ["Who?", "<s>"]}, "<s>"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(start, kind, name, fields, reason):
    desk = start(request_timeout=3600.0)
    response = call(desk, kind, name, **fields)
    assert not response.success
    assert reason in response.message
    assert not desk.engine.prompts


def test_a_stream_grows_to_its_result(start):
    desk = start()
    sent = picture()
    caption = "An image of a snowman warming himself by a fire."
    goal = Goal(
        desk,
        heard=lambda so_far: so_far.text == caption,
        task="brief_caption",
        grounded=True,
        image=sent,
    )
    result = goal.result()
    assert (goal.status, result.success) == (GoalStatus.STATUS_SUCCEEDED, True)
    assert (result.result.header, result.result.caption) == (sent.header, caption)
    texts = [feedback.text for feedback in goal.feedback]
    assert texts[0].startswith("An image of")
    assert all(after.startswith(before.rstrip(".")) for before, after in pairwise(texts))
    assert goal.feedback[-1].phrases == result.result.phrases
    goal.destroy()
    counts = [len(feedback.phrases) for feedback in goal.feedback]
    assert counts == sorted(counts)
    assert {0, 1, 2} == set(counts)


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
def test_a_goal_can_be_any_task(start, goal, prompt):
    desk = start()
    sent = Goal(desk, image=picture(), **goal)
    result = sent.result()
    sent.destroy()
    assert result.success, result.message
    assert prompt in desk.engine.prompts[0]
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
            {"task": "prompt", "text": "a", "regions": [REGION]},
            "regions must be empty for task 'prompt'",
        ),
        ({"task": "question", "text": ""}, "question must not be empty"),
        ({"task": "region_description"}, "regions must have exactly one entry"),
        ({"task": "phrase_grounding"}, "phrases is empty"),
    ],
)
def test_an_impossible_goal_is_aborted_with_the_reason(start, goal, reason):
    desk = start()
    sent = Goal(desk, image=picture(), **goal)
    result = sent.result()
    sent.destroy()
    assert (sent.status, result.success) == (GoalStatus.STATUS_ABORTED, False)
    assert reason in result.message


def test_a_cancelled_goal_stops_the_model_and_frees_the_worker(start):
    desk = start()
    desk.engine.free.clear()
    goal = Goal(desk, task="brief_caption", image=picture())
    desk.until(desk.engine.busy.is_set)
    goal.cancel()
    result = goal.result()
    assert (goal.status, result.success) == (GoalStatus.STATUS_CANCELED, False)
    assert result.message == "the goal was cancelled"
    desk.engine.free.set()
    assert desk.ask(question="What is it?", image=picture()).success


def test_a_goal_that_is_cancelled_before_it_begins_does_not_begin(start):
    desk, ends = start(), []
    asked = GenerateAction.Goal(task="brief_caption", image=picture())
    goal = SimpleNamespace(
        request=asked, is_cancel_requested=True, canceled=lambda: ends.append("cancelled")
    )
    with pytest.raises(StopIteration) as ended:
        desk.node.request_services._stream(goal).send(None)
    assert (ended.value.value.message, ends) == ("the goal was cancelled", ["cancelled"])
    assert not desk.engine.prompts


def test_a_goal_that_is_cancelled_during_a_long_step_is_not_gone_on_with(start):
    desk, said = start(), []
    say = desk.engine._say
    desk.engine._say = lambda query: said.append(say(query)) or said[-1]
    desk.engine.hold_in_batches_of = 1
    goal = Goal(desk, task="brief_caption", image=picture())
    desk.until(desk.engine.busy.is_set)
    goal.cancel()
    assert goal.result().message == "the goal was cancelled"
    desk.engine.hold_in_batches_of = None
    desk.engine.held.set()
    assert desk.ask(question="What is it?", image=picture()).success
    assert [type(answer) for answer in said] == [CancelledError, Generation]


@pytest.mark.parametrize("end", ["succeeded", "aborted", "cancelled"])
@pytest.mark.fault(52)
def test_a_goal_that_is_over_keeps_no_picture(start, end):
    """Rclpy keeps it for RESULT_KEPT; at a goal a second that is 750 MB of Full HD pictures."""
    desk = start()
    if end == "cancelled":
        desk.engine.free.clear()
    image = picture()
    if end == "aborted":
        image.encoding = "rgb9"
    goal = Goal(desk, task="brief_caption", image=image)
    (kept,) = desk.node.request_services._action._goal_handles.values()
    assert len(kept.request.image.data) == len(image.data)
    if end == "cancelled":
        goal.cancel()
    assert goal.result().success == (end == "succeeded")
    assert not kept.request.image.data


def test_goals_wait_for_each_other_and_can_be_cancelled_before_they_begin(start):
    desk = start(max_batch_size=1)
    desk.engine.free.clear()
    first = Goal(desk, task="brief_caption", image=picture())
    desk.until(desk.engine.busy.is_set)
    second = Goal(desk, task="detailed_caption", image=picture())
    third = Goal(desk, task="prompt", text="An", image=picture())
    desk.until(lambda: desk.node.scheduler.waiting() == 2)
    second.cancel()
    assert second.result().message == "the goal was cancelled"
    assert second.status == GoalStatus.STATUS_CANCELED
    desk.engine.free.set()
    assert first.result().success
    assert third.result().success
    assert desk.engine.prompts == ["An image of", "An"]


def test_a_cancelled_goal_does_not_wait_for_the_others_of_its_batch(start):
    desk = start()
    desk.engine.free.clear()
    first = Goal(desk, task="prompt", text="An", image=picture())
    desk.until(desk.engine.busy.is_set)
    others = [Goal(desk, task="brief_caption", image=picture()) for _ in range(2)]
    desk.until(lambda: desk.node.scheduler.waiting() == 2)
    desk.engine.busy.clear()
    desk.engine.hold_in_batches_of = 2
    desk.engine.free.set()
    desk.until(desk.engine.busy.is_set)
    desk.until(lambda: desk.engine.batches == [1, 2])
    others[0].cancel()
    assert others[0].result().message == "the goal was cancelled"
    assert others[0].status == GoalStatus.STATUS_CANCELED
    assert not others[1].ended.done()
    desk.engine.held.set()
    assert others[1].result().success
    assert first.result().success


def test_a_goal_that_is_worked_at_when_the_node_ends_gets_its_result(start):
    desk = start()
    desk.engine.free.clear()
    goals = [Goal(desk, task="brief_caption", image=picture()) for _ in range(2)]
    desk.until(desk.engine.busy.is_set)
    assert desk.node.stop(10)
    for goal in goals:
        # The node's executor is not spun any more: what is to be sent has been sent.
        desk.bench.executor.remove_node(desk.node)
        assert goal.result().message == "the node is shutting down"
        assert goal.status == GoalStatus.STATUS_ABORTED


def test_regions_belong_to_a_camera_that_is_named(start):
    desk = start(cameras=["left", "right"])
    refused = desk.ask(question="What is it?", regions=[REGION])
    assert "camera must be one of left, right for a request with regions" in refused.message
    assert desk.ask(question="What is it?", regions=[REGION], image=picture()).success


def test_a_request_without_camera_goes_by_the_common_parameters(start):
    desk = start(cameras=["left", "right"], min_score=0.1, **{"left.min_score": 0.9})
    desk.engine.says = {"a man": (HERE, (0.4, 0.4))}
    response = call(desk, Ground, "ground", phrases=["a man"], image=picture())
    assert len(response.result.phrases[0].boxes) == 1


def test_what_is_too_long_a_list_is_refused(start):
    desk = start()
    # Of each of them more could be said, after a while.
    for kind, name, fields in (
        (Ground, "ground", {"phrases": [""] * 101}),
        (Describe, "describe", {"regions": [BoundingBox()] * 101}),
    ):
        response = call(desk, kind, name, image=picture(), **fields)
        assert (
            response.message == f"{next(iter(fields))} has 101 entries; it must have at most 100"
        )
    goal = Goal(desk, task="phrase_grounding", phrases=[""] * 101)
    assert goal.result().message == "phrases has 101 entries; it must have at most 100"


def test_feedback_of_grounding_has_the_phrases_that_are_done(start):
    desk = start()
    desk.engine.says = {"a man": (HERE, (0.5, 0.5)), "a fire": (THERE, (0.5, 0.5))}
    goal = Goal(
        desk,
        heard=lambda so_far: len(so_far.phrases) == 2,
        task="phrase_grounding",
        phrases=["a man", "a fire"],
        image=picture(),
    )
    result = goal.result()
    assert len(goal.feedback) > 4
    assert goal.feedback[-1].phrases == result.result.phrases
    assert all(phrase.boxes for feedback in goal.feedback for phrase in feedback.phrases)


def test_a_goal_that_waits_too_long_is_aborted(start):
    desk = start(request_timeout=0.2)
    goal = Goal(desk, task="brief_caption")
    assert "no image arrived within 0.2 s" in goal.result().message
    assert goal.status == GoalStatus.STATUS_ABORTED


SERVICES = (
    (Ask, "ask"), (Ground, "ground"), (Describe, "describe"), (Generate, "generate"),
)  # fmt: skip

boxes = st.builds(
    BoundingBox,
    **dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), st.floats(-1e3, 1e3) | st.floats()),
)
texts = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: "\0" not in text)
requests = st.one_of(
    st.builds(
        Ask.Request,
        question=texts | st.sampled_from(["What is it?", "Is this that?"]),
        regions=st.lists(boxes, max_size=3),
        region_phrases=st.lists(texts | st.just("it"), max_size=3),
        history=st.lists(texts, max_size=3),
        max_new_tokens=st.integers(0, 2**32 - 1),
    ),
    st.builds(
        Ground.Request,
        phrases=st.lists(texts, max_size=3),
        min_score=st.floats(-1, 2) | st.floats(),
    ),
    st.builds(Describe.Request, regions=st.lists(boxes, max_size=3), detailed=st.booleans()),
    st.builds(Generate.Request, prompt=texts | st.just(SNOWMAN)),
)


def cells(box):
    """Grid indices of a box in a picture of 64 x 48 pixels, by the definition."""
    x1, x2 = (min(max(x / 64, 0.0), 1.0) * 32 for x in (box.x_min, box.x_max))
    y1, y2 = (min(max(y / 48, 0.0), 1.0) * 32 for y in (box.y_min, box.y_max))
    return 32 * int(y1) + int(x1), 32 * (math.ceil(y2) - 1) + math.ceil(x2) - 1


def test_random_requests_are_answered_or_refused_and_never_about_another_region(start):
    desk = start()
    clients = {
        kind.Request: desk.client.create_client(kind, f"kosmos/{name}")
        for kind, name in (
            (Ask, "ask"),
            (Ground, "ground"),
            (Describe, "describe"),
            (Generate, "generate"),
        )
    }

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(requests)
    def check(request):
        request.image = picture(width=64, height=48)
        desk.engine.prompts.clear()
        response = desk.bench.call(clients[type(request)], request)
        assert response.success != bool(response.message)
        if not response.success:
            return
        named = re.findall(r"<patch_index_(\d+)><patch_index_(\d+)>", "".join(desk.engine.prompts))
        if isinstance(request, Generate.Request):
            return
        assert sorted((int(first), int(last)) for first, last in named) == sorted(
            cells(box) for box in getattr(request, "regions", ())
        )

    check()


def test_a_client_with_room_for_others_answers_does_not_lose_its_own(start):
    desk = start()
    resting, name = Node("resting"), "kosmos/generate"
    room = QoSProfile(depth=1000)
    slow, busy = (
        node.create_client(Generate, name, qos_profile=room) for node in (resting, desk.client)
    )
    desk.bench.executor.add_node(resting)
    assert not desk.bench.call(slow, Generate.Request()).success  # so that both ends are linked
    desk.bench.executor.remove_node(resting)
    desk.bench.call(busy, Generate.Request())
    mine = slow.call_async(Generate.Request())
    others = [busy.call_async(Generate.Request(prompt=" ")) for _ in range(30)]
    desk.until(lambda: all(other.done() for other in others), "thirty answers")
    Bench(resting).until(mine.done, "an answer that was kept")
    assert "prompt" in mine.result().message
    resting.destroy_node()
