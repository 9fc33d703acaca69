# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The services ~/ground, ~/describe and ~/generate of the running node, with a fake engine."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Duration
from compressed_images import EXAMPLES
from conftest import Spinner
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import BoundingBox
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from node_harness import FIRE_BOX, OUTSIDE, REGION, SNOWMAN_BOX, plain_image
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image


def call(harness, kind, name, **request):
    client = harness.client.create_client(kind, f"kosmos/{name}")
    response = harness.spinner.call(client, kind.Request(**request))
    harness.client.destroy_client(client)
    return response


def test_phrases_are_grounded_in_one_batch_and_keep_their_order(start):
    harness = start()
    harness.engine.outputs = {
        "a fire": (FIRE_BOX, (0.5, 0.5)),
        "a dog": ("", ()),
        "a man": (SNOWMAN_BOX, (1, 1)),
    }
    response = call(
        harness, Ground, "ground", phrases=["a man", " a  dog ", "a fire"], image=plain_image()
    )
    assert response.success, response.message
    assert harness.engine.batches == [3]
    assert harness.engine.prompts[1] == "<grounding><phrase> a dog</phrase>"
    result = response.result
    assert result.caption == "a man and a fire"
    assert [(p.text, len(p.boxes)) for p in result.phrases] == [
        ("a man", 1),
        ("a dog", 0),
        ("a fire", 1),
    ]
    assert [result.caption[p.start : p.end] for p in result.phrases] == [
        "a man",
        "",
        "a fire",
    ]
    assert (result.phrases[0].boxes[0].x_min, result.phrases[2].boxes[0].score) == (250, 0.5)
    assert (result.task, result.generated_tokens) == ("phrase_grounding", 60)


@pytest.mark.parametrize(
    ("of_request", "parameter", "count"), [(0.0, 0.0, 1), (0.0, 0.5, 0), (0.3, 0.5, 1)]
)
def test_boxes_below_min_score_are_left_out(start, of_request, parameter, count):
    harness = start(min_score=parameter)
    harness.engine.outputs = {"a man": (SNOWMAN_BOX, (0.4, 0.4))}
    response = call(
        harness, Ground, "ground", phrases=["a man"], min_score=of_request, image=plain_image()
    )
    assert len(response.result.phrases[0].boxes) == count


def test_phrases_that_the_model_adds_are_left_out(start):
    harness = start()
    harness.engine.outputs = {"a man": (f" by<phrase> a fire</phrase>{FIRE_BOX}", (0.5, 0.5))}
    response = call(harness, Ground, "ground", phrases=["a man"], image=plain_image())
    assert [(p.text, list(p.boxes)) for p in response.result.phrases] == [("a man", [])]


def test_request_without_a_camera_uses_the_common_parameters(start):
    harness = start(cameras=["left", "right"], min_score=0.1, **{"left.min_score": 0.9})
    harness.engine.outputs = {"a man": (SNOWMAN_BOX, (0.4, 0.4))}
    response = call(harness, Ground, "ground", phrases=["a man"], image=plain_image())
    assert len(response.result.phrases[0].boxes) == 1


def test_each_region_gets_its_own_description(start):
    harness = start()
    harness.engine.outputs = {"0044": (" a dog.", ()), "0000": (" a cat.", ())}
    other = BoundingBox(x_max=100.0, y_max=100.0)
    response = call(harness, Describe, "describe", regions=[REGION, other], image=plain_image())
    assert response.success, response.message
    assert list(response.descriptions) == ["It is a dog.", "It is a cat."]
    assert [result.task for result in response.results] == ["region_description"] * 2
    assert harness.engine.batches == [2]


@pytest.mark.parametrize(
    ("detailed", "grounded", "prompt"),
    [
        (False, True, "<grounding> An image of"),
        (True, False, "Describe this image in detail:"),
    ],
)
def test_detailed_and_grounded_select_the_prompt(start, detailed, grounded, prompt):
    harness = start()
    response = call(
        harness, Describe, "describe", detailed=detailed, grounded=grounded, image=plain_image()
    )
    assert response.success, response.message
    assert harness.engine.prompts == [prompt]
    assert response.descriptions[0].endswith("a snowman warming himself by a fire.")


def test_raw_prompt_reaches_the_model_unchanged(start):
    harness = start()
    prompt = (
        f"<grounding> It is<phrase> the man</phrase>{SNOWMAN_BOX} and<phrase> his hat</phrase>"
    )
    harness.engine.outputs = {"hat": (FIRE_BOX, (1, 1))}
    response = call(
        harness, Generate, "generate", prompt=prompt, image=plain_image(), max_new_tokens=9
    )
    assert response.success, response.message
    assert (harness.engine.prompts, harness.engine.limits) == ([prompt], [9])
    assert response.text == "his hat"
    assert [(p.text, len(p.boxes)) for p in response.result.phrases] == [("his hat", 1)]


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
        (
            Describe,
            "describe",
            {"regions": [OUTSIDE], "image": plain_image()},
            "outside the image",
        ),
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
        (
            Ask,
            "ask",
            {"question": "Why?", "history": ["Who?"]},
            "answer, but it has 1, an odd number of entries",
        ),
        (Ask, "ask", {"question": "Why?", "history": ["Who?", "<s>"]}, "<s>"),
    ],
)
def test_invalid_request_is_refused_with_the_reason(start, kind, name, fields, reason):
    harness = start(request_timeout=3600.0)
    response = call(harness, kind, name, **fields)
    assert not response.success
    assert reason in response.message
    assert not harness.engine.prompts


KINDS = {
    "ask": (Ask, {"question": "What?"}),
    "ground": (Ground, {"phrases": ["a dog"]}),
    "describe": (Describe, {}),
    "generate": (Generate, {"prompt": "An image of"}),
}
OWN = {"image": plain_image(), "compressed_image": CompressedImage(data=EXAMPLES["PNG"])}


def stream(harness, **goal):
    action = ActionClient(harness.client, GenerateAction, "kosmos/generate_stream")
    harness.until(action.server_is_ready, "an action server")
    sent = action.send_goal_async(GenerateAction.Goal(task="brief_caption", **goal))
    harness.until(sent.done, "an accepted goal")
    ended = sent.result().get_result_async()
    harness.until(ended.done, "a result")
    action.destroy()
    return ended.result().result


def asked_in_every_way(harness, **fields):
    """Return the responses of all services and the action to a request with these fields."""
    responses = [call(harness, kind, name, **own, **fields) for name, (kind, own) in KINDS.items()]
    return [*responses, stream(harness, **fields)]


@pytest.mark.parametrize("cameras", [["left", "right"], [""]])
def test_camera_and_max_age_have_one_rule_for_requests_with_their_own_image(start, cameras):
    """An unknown camera is refused; a known one only chooses parameters; no age is too small."""
    harness = start(cameras=cameras, request_timeout=3600.0)
    for name, image in OWN.items():
        own = {name: image}
        for response in asked_in_every_way(harness, camera="rear", **own):
            assert response.message.startswith("camera 'rear' is unknown; ")
        for camera in {"", cameras[0]}:
            age = Duration(nanosec=1)
            for response in asked_in_every_way(harness, camera=camera, max_age=age, **own):
                assert response.success, response.message
                results = getattr(response, "results", None) or [response.result]
                assert [result.camera for result in results] == [""]


def test_image_data_beyond_the_limit_are_refused_before_they_are_queued(start, monkeypatch):
    monkeypatch.setattr("kosmos_ros.images.size.METADATA", 100)
    harness = start(max_image_pixels=10)
    monkeypatch.setattr(harness.node.scheduler, "submit", lambda work: pytest.fail("queued"))
    raw = Image(data=bytes(181))
    for name, image in (("image", raw), ("compressed_image", CompressedImage(data=bytes(181)))):
        for response in asked_in_every_way(harness, **{name: image}):
            assert not response.success
            assert response.message == (
                f"{name}.data must have at most 180 bytes (8 for each of the 10 pixels of "
                "max_image_pixels, and 100 more), got at least 181"
            )


def test_list_that_is_too_long_is_refused_before_its_entries(start):
    """Each entry is invalid, too; checking a long list would take long."""
    harness = start()
    for kind, name, fields in (
        (Ground, "ground", {"phrases": [""] * 101}),
        (Describe, "describe", {"regions": [BoundingBox()] * 101}),
    ):
        response = call(harness, kind, name, image=plain_image(), **fields)
        assert (
            response.message == f"{next(iter(fields))} has 101 entries; it must have at most 100"
        )


def test_client_with_a_deep_queue_keeps_its_own_response(start):
    """With Fast DDS, each client also receives the responses to all other clients."""
    harness = start()
    resting, name = Node("resting"), "kosmos/generate"
    deep = QoSProfile(depth=1000)
    slow, busy = (
        node.create_client(Generate, name, qos_profile=deep) for node in (resting, harness.client)
    )
    harness.spinner.executor.add_node(resting)
    # The first response proves that the client and the service are connected.
    assert not harness.spinner.call(slow, Generate.Request()).success
    harness.spinner.executor.remove_node(resting)
    harness.spinner.call(busy, Generate.Request())
    mine = slow.call_async(Generate.Request())
    others = [busy.call_async(Generate.Request(prompt=" ")) for _ in range(30)]
    harness.until(lambda: all(other.done() for other in others), "30 responses")
    Spinner(resting).until(mine.done, "the response to the slow client")
    assert "prompt" in mine.result().message
    resting.destroy_node()
