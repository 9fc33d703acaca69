# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Questions to the running node: responses, refusals and waiting, with a fake engine."""

import dataclasses

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Duration, Time
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from node_harness import OUTSIDE, REGION, plain_image
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String

from kosmos_ros.ros import kosmos_node


@pytest.mark.fault(53)
def test_client_in_the_nodes_own_executor_gets_responses(start):
    """The client sends its requests from callbacks, as in a process of several nodes."""
    harness = start(max_rate=0)
    answers = []

    def on_caption(caption):
        request = Ask.Request(question=f"Is it so: {caption.caption}?")
        harness.ask_client.call_async(request).add_done_callback(
            lambda done: answers.append(done.result())
        )

    async def on_text(text):
        answers.append(await harness.ask_client.call_async(Ask.Request(question="What is it?")))

    harness.client.create_subscription(GroundedCaption, "kosmos/captions", on_caption, 10)
    harness.client.create_subscription(
        String, "kosmos/text", on_text, 10, callback_group=ReentrantCallbackGroup()
    )
    harness.until(lambda: harness.ask_client.service_is_ready() and harness.camera.wanted())
    harness.send()
    harness.until(lambda: len(answers) >= 2)
    assert all(answer.success for answer in answers)


def test_max_new_tokens_of_a_request_overrides_the_parameter(start):
    harness = start(max_new_tokens=50)
    for limit in (0, 7, 1024):
        request = {"question": "What is it?", "image": plain_image(), "max_new_tokens": limit}
        assert harness.ask(**request).success
    assert harness.engine.limits == [50, 7, 1024]


def test_question_about_a_region_names_its_cells(start):
    harness = start()
    response = harness.ask(
        question="What is the man?",
        regions=[REGION],
        region_phrases=["the man"],
        image=plain_image(colour=(1, 2, 3)),
        grounded=True,
    )
    assert response.success, response.message
    assert harness.engine.mean_colours == [(1, 2, 3)]
    assert harness.engine.prompts == [
        "<grounding> Question: What is<phrase> the man</phrase><object><patch_index_0044>"
        "<patch_index_0863></object>? Answer:"
    ]
    assert response.answer == "a snowman warming himself by a fire."
    assert response.result.header.stamp.sec == 7
    assert response.result.phrases[1].boxes[0].x_min == 110
    assert response.result.task == "question"


def test_history_precedes_the_question_in_the_prompt(start):
    harness = start()
    response = harness.ask(
        question="Why?",
        history=["Who is it?", "A man.", "Is he cold?", "No."],
        image=plain_image(),
    )
    assert response.success, response.message
    assert harness.engine.prompts == [
        "Question: Who is it? Answer: A man. Question: Is he cold? Answer: No. "
        "Question: Why? Answer:"
    ]


def test_regions_need_a_camera_or_an_image(start):
    harness = start(cameras=["left", "right"])
    refused = harness.ask(question="What is it?", regions=[REGION])
    assert "camera must be one of left, right for a request with regions" in refused.message
    assert harness.ask(question="What is it?", regions=[REGION], image=plain_image()).success


def test_a_stamp_needs_a_camera(start):
    harness = start(cameras=["left", "right"])
    refused = harness.ask(question="What is it?", stamp=Time(sec=5))
    assert refused.message == (
        "camera must be one of left, right for a request with a stamp, got ''; set it"
    )


def test_a_question_with_a_stamp_is_about_that_frame(start):
    harness = start(max_rate=0.0).subscribe_to_captions()
    captions = harness.captions
    for count in (1, 2):
        harness.send(colour=(50 * count, 0, 0), sec=4 + count)
        harness.until(lambda count=count: len(captions) == count)
    colours = list(harness.engine.mean_colours)
    answered = harness.ask(question="Who?", stamp=captions[0].header.stamp)
    assert answered.success
    assert answered.result.header == captions[0].header
    assert (answered.result.image_width, answered.result.image_height) == (640, 480)
    assert harness.engine.mean_colours == colours  # neither frame is encoded again
    refused = harness.ask(question="Who?", stamp=Time(sec=5, nanosec=7))
    assert refused.message == (
        "no frame with stamp 5.000000007 is kept; use the stamp of a newer result, or none for "
        "the newest frame: the node keeps the last 120 frames that were described or used by a "
        "request (parameter kept_frames)"
    )


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
        ({"question": "What?", "max_new_tokens": 1025}, "must be 1 to 1024, got 1025"),
        ({"question": "What?", "max_age": Duration(sec=-1)}, "max_age is -1 s"),
        (
            {"question": "Is it?", "regions": [OUTSIDE], "image": plain_image()},
            "outside the image (0, 0, 640, 480)",
        ),
        ({"question": "What?", "image": Image(width=10, height=10, encoding="rgb8")}, "step"),
        ({"question": "What?", "image": Image(width=1, height=1, step=3, encoding="x")}, "'x'"),
    ],
)
@pytest.mark.fault(46, 48)
def test_invalid_question_is_refused_at_once_with_the_reason(start, request_fields, reason):
    harness = start(request_timeout=3600.0)
    response = harness.ask(**request_fields)
    assert not response.success
    assert reason in response.message
    assert not harness.engine.prompts


@pytest.mark.fault(50)
def test_question_without_an_image_names_the_silent_topic(start):
    harness = start(request_timeout=0.2)
    response = harness.ask(question="What is it?")
    assert not response.success
    assert "no image arrived within 0.2 s on /image (1 publisher)" in response.message


@pytest.mark.fault(51)
def test_question_times_out_while_the_model_works(start):
    harness = start()
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    first = harness.ask_client.call_async(Ask.Request(question="0?", image=plain_image()))
    harness.until(harness.engine.stepping.is_set)
    harness.node.set_parameters([Parameter("request_timeout", value=0.2)])
    harness.until(lambda: harness.node.settings.request_timeout == 0.2)
    response = harness.ask(question="1?", image=plain_image())
    assert not response.success
    assert response.message == "the model was not free within 0.2 s; try again later"
    assert not first.done()
    harness.engine.unblock()
    harness.until(first.done)
    assert first.result().success


def test_shutdown_answers_every_waiting_request(start):
    harness = start()
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    answers = [harness.ask_client.call_async(Ask.Request(question="0?", image=plain_image()))]
    harness.until(harness.engine.stepping.is_set)
    answers.append(harness.ask_client.call_async(Ask.Request(question="1?", image=plain_image())))
    answers.append(harness.ask_client.call_async(Ask.Request(question="2?")))
    harness.until(lambda: harness.node.request_services.waiting == 3)
    assert harness.node.stop(10)
    answers.append(harness.ask_client.call_async(Ask.Request(question="3?")))
    harness.until(lambda: all(answer.done() for answer in answers))
    assert [(a.result().success, a.result().message) for a in answers] == [
        (False, "the node is shutting down")
    ] * 4


@pytest.mark.parametrize("time_left", [10.0, 0.0])
def test_shutdown_refuses_requests_that_have_arrived_however_slow_the_machine_is(
    start, monkeypatch, time_left
):
    harness = start()
    assert harness.ask_client.wait_for_service(10)
    monkeypatch.setattr(kosmos_node, "LAST_REQUESTS", 0.0)
    answers = [harness.ask_client.call_async(Ask.Request(question=f"{n}?")) for n in range(3)]
    assert harness.node.stop(time_left) or not time_left
    # Nobody spins any more, as at the end of the process.
    assert all(answer.done() for answer in answers)
    assert {answer.result().message for answer in answers} == {"the node is shutting down"}


@pytest.mark.fault(50)
def test_question_waits_for_an_image_within_max_age(start):
    harness = start()
    harness.send(colour=(1, 1, 1))
    slot = harness.node.scheduler._slots[""]
    slot.newest = dataclasses.replace(slot.newest, arrived=slot.newest.arrived - 60)
    request = Ask.Request(question="What is it?")
    request.max_age.sec = 30
    assert harness.ask_client.wait_for_service(10)
    answered = harness.ask_client.call_async(request)
    harness.until(lambda: harness.node.scheduler._requests, "a waiting request")
    harness.send(colour=(2, 2, 2))
    harness.until(answered.done)
    assert answered.result().success
    assert harness.engine.mean_colours == [(2, 2, 2)]


@pytest.mark.fault(51)
def test_full_queue_refuses_at_once(start):
    harness = start(queue_size=2)
    harness.send()
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    first = harness.ask_client.call_async(Ask.Request(question="0?"))
    harness.until(harness.engine.stepping.is_set)
    others = [harness.ask_client.call_async(Ask.Request(question=f"{n}?")) for n in range(1, 6)]
    harness.until(lambda: sum(future.done() for future in others) == 3)
    refused = [future for future in others if future.done()]
    assert all("2 requests wait" in future.result().message for future in refused)
    harness.engine.unblock()
    answered = [first, *(future for future in others if future not in refused)]
    harness.until(lambda: all(future.done() for future in answered))
    assert all(future.result().success for future in answered)


def test_requests_about_one_frame_encode_it_once(start):
    harness = start()
    harness.send(colour=(5, 5, 5))
    harness.until(lambda: harness.node.scheduler._slots[""].newest)
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    first = harness.ask_client.call_async(Ask.Request(question="0?", image=plain_image((1, 1, 1))))
    harness.until(harness.engine.stepping.is_set)
    rest = [harness.ask_client.call_async(Ask.Request(question=f"{n}?")) for n in (1, 2, 3)]
    harness.until(lambda: harness.node.scheduler.waiting() == 3)
    harness.engine.unblock()
    harness.until(lambda: first.done() and all(answer.done() for answer in rest))
    assert harness.engine.batches == [1, 3]
    assert harness.engine.mean_colours == [(1, 1, 1), (5, 5, 5)]
