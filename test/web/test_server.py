# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The web server of a real node: what browsers can read, ask and set, and what is refused."""

import contextlib
import io
import json
import socket

import numpy as np
import pytest
from comparison import iou
from PIL import Image as Pillow

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from web_client import PHRASE, QUESTION, Robot
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kosmos_ros.web.server import MAX_MESSAGE, MAX_WRONG


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    robot = Robot(tmp_path_factory.mktemp("robot"))
    with robot.server.browser() as browser:
        browser.until("look", lambda look: look["camera"] == "front" and look["picture"])
        browser.until("health", lambda health: len(health["cameras"]) == 2)
    return robot


@pytest.fixture
def browser(robot):
    with robot.server.browser() as browser:
        browser.hello = browser.until("hello", lambda hello: hello["cameras"])
        yield browser


def front(look):
    """Whether all parts of a look at the front camera have arrived."""
    parts = ("caption", "phrases", "answers", "picture")
    return look["camera"] == "front" and all(look[part] for part in parts)


def shape(robot, index=0):
    """Return the words and the box of a shape of the front camera's scene."""
    words, box = robot.truth[index]
    width, height = 640, 480
    x_min, y_min, x_max, y_max = box
    return words, [x_min * width, y_min * height, x_max * width, y_max * height]


def test_hello_has_all_that_a_page_needs(browser):
    hello = browser.hello
    assert hello["node"] == "/kosmos"
    assert hello["cameras"] == [
        {"name": "front", "topic": "/front/image_raw"},
        {"name": "rear", "topic": "/rear/image_raw"},
    ]
    rate = hello["parameters"]["max_rate"]
    assert rate["limits"] == [0.0, 1000.0]
    assert rate["type"] == "float"
    assert rate["camera"]
    assert not rate["read_only"]
    assert hello["parameters"]["model"]["read_only"]
    assert "brief_caption" in hello["parameters"]["task"]["choices"]
    assert hello["values"][""]["model"] == "shapes"
    assert hello["values"]["front"]["phrases"] == [PHRASE]
    assert hello["health"]["model"]["message"] == "ready"
    assert hello["health"]["cameras"]["front"]["samples"][-1]["images"] > 0
    assert any(look["camera"] == "front" for look in hello["looks"])
    numbers = [look["number"] for look in hello["looks"]]
    assert numbers == sorted(numbers)
    assert browser.until("state")["state"] == "ready"


def test_a_look_has_the_described_frame_and_its_boxes(robot, browser):
    look = browser.until("look", front)
    response = robot.server.get(look["picture"])
    assert response.status == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    assert "immutable" in response.headers["Cache-Control"]
    image = np.asarray(Pillow.open(io.BytesIO(response.data)))
    assert image.shape == robot.image.shape
    assert np.abs(image.astype(int) - robot.image).mean() < 4
    found = {phrase["text"]: phrase["boxes"][0][:4] for phrase in look["caption"]["phrases"]}
    assert len(found) == len(robot.truth)
    for index in range(len(robot.truth)):
        words, box = shape(robot, index)
        assert iou(found[words], box) > 0.7
    assert [phrase["text"] for phrase in look["phrases"]] == [PHRASE]
    assert [answer["question"] for answer in look["answers"]] == [QUESTION]


@pytest.mark.parametrize("width", [160, 320, 640])
def test_a_thumbnail_is_the_same_picture_and_smaller(robot, browser, width):
    path = browser.until("look", front)["picture"]
    response = robot.server.get(f"{path}?width={width}")
    image = Pillow.open(io.BytesIO(response.data))
    assert image.size == (width, width * 3 // 4)
    expected = Pillow.fromarray(robot.image).resize(image.size)
    difference = np.asarray(image).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/picture/front/1.000000000.jpg", 404, "not kept"),
        ("/picture/front/x", 404, "not kept"),
        ("/picture/side/1.000000000.jpg", 404, "camera must be one of front, rear, got 'side'"),
        ("/picture/front/..%2f..%2fserver.py", 404, ""),
        ("/picture/front/1.000000000.jpg?width=100", 400, "one of 160, 320, 640, got '100'"),
        ("/live/side.jpg", 404, "camera must be one of front, rear, got 'side'"),
        ("/live/front.png", 404, "must be /live/CAMERA.jpg, got 'front.png'"),
        ("/..%2fserver.py", 404, ""),
        ("/../server.py", 404, ""),
        ("/ws", 404, ""),
    ],
)
def test_a_missing_picture_or_camera_is_refused_with_a_reason(robot, path, status, text):
    response = robot.server.get(path)
    assert response.status == status
    assert text in response.data.decode()


def test_a_live_image_is_newer_than_the_last_one(robot):
    def newest(after=""):
        while True:
            response = robot.server.get(f"/live/front.jpg{after}")
            if response.status == 200:
                return response
            assert response.status == 204

    first = newest()
    assert Pillow.open(io.BytesIO(first.data)).size == (640, 480)
    number = first.headers["X-Number"]
    second = newest(f"?after={number}")
    assert int(second.headers["X-Number"]) > int(number)


def test_a_question_about_a_region_is_answered_about_its_shape(robot, browser):
    words, box = shape(robot)
    name = browser.ask(
        camera="front", task="question", text="What is it?", regions=[box], grounded=True
    )
    answers = browser.answers(name)
    done = answers[-1]
    assert done["success"]
    assert words.split(maxsplit=1)[1] in done["result"]["text"]
    assert (done["result"]["width"], done["result"]["height"]) == (640, 480)
    assert done["result"]["camera"] == "front"


def test_a_question_is_about_the_frame_that_was_frozen(browser):
    look = browser.until("look", lambda look: look["camera"] == "rear" and look["caption"])
    for _ in range(3):
        browser.until("look", lambda later: later["camera"] == "rear")
    name = browser.ask(camera="rear", stamp=look["stamp"], task="brief_caption", grounded=True)
    *_, done = browser.answers(name)
    assert done["success"], done["message"]
    assert done["result"]["stamp"] == look["stamp"]
    assert done["result"]["text"] == look["caption"]["text"]
    gone = browser.ask(camera="rear", stamp="1.000000000", task="brief_caption")
    *_, done = browser.answers(gone)
    assert not done["success"]
    assert "1.000000000" in done["message"] or "kept" in done["message"]


def test_a_request_reports_its_place_and_then_its_frame(browser):
    # rclpy drops the feedback that is on its way when the result arrives, so a text may be late.
    while True:
        answers = browser.answers(browser.ask(camera="front", task="detailed_caption"))
        assert sum("begun" in answer for answer in answers) == 1
        if any("text" in answer for answer in answers):
            break
    texts = [answer["text"] for answer in answers if "text" in answer]
    assert answers[-1]["result"]["text"].startswith(texts[0])
    kinds = [
        next(key for key in ("done", "begun", "text", "waiting") if key in answer)
        for answer in answers
    ]
    assert kinds == sorted(kinds, key=["waiting", "begun", "text", "done"].index)
    assert kinds.count("begun") == 1
    begun = answers[kinds.index("begun")]
    assert begun["camera"] == "front"
    assert begun["stamp"] == answers[-1]["result"]["stamp"]
    assert begun["time"] == pytest.approx(float(begun["stamp"]) * 1e3, abs=1)


def test_phrases_are_located(robot, browser):
    words, box = shape(robot)
    name = browser.ask(camera="front", task="phrase_grounding", phrases=[words, "a blue dog"])
    found, absent = browser.answers(name)[-1]["result"]["phrases"]
    assert iou(found["boxes"][0][:4], box) > 0.7
    assert absent == {"text": "a blue dog", "start": 0, "end": 0, "boxes": []}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "question", "text": "What is <s>?"}, "contains the reserved tag <s>"),
        ({"task": "dance"}, "'dance'"),
        ({"task": "question", "text": "Why?", "camera": "side"}, "side"),
        ({"task": "question", "text": "Why?", "regions": [[0, 0, 1]]}, "list of four numbers"),
        ({"task": "question", "text": 7}, "text must be a text, got 7"),
    ],
)
def test_a_question_that_cannot_be_answered_gets_the_reason(browser, fields, message):
    (*_, done) = browser.answers(browser.ask(**{"camera": "front", **fields}))
    assert not done["success"]
    assert message in done["message"]
    assert done["result"] is None


def test_a_cancelled_request_ends_without_a_result(robot, browser):
    assert browser.set("", "max_batch_size", 1)["success"]  # so that the last one waits
    with robot.server.browser() as other:
        other.until("state")
        phrases = [f"a shape beside shape {number}" for number in range(50)]
        before = [
            (one, one.ask(camera="rear", task="phrase_grounding", phrases=phrases))
            for one in (other, other, other, other, browser, browser, browser)
        ]
        name = browser.ask(camera="rear", task="detailed_caption")
        browser.send(type="cancel", id=name)
        (*_, done) = browser.answers(name)
        for one, waiting in before:
            one.send(type="cancel", id=waiting)
        for one, waiting in before:
            one.wait_for_end(waiting)
    assert browser.set("", "max_batch_size", None)["success"]
    assert not done["success"]
    assert "cancel" in done["message"]
    browser.send(type="cancel", id=name)  # it is over, which is no error
    assert browser.answers(browser.ask(camera="front", task="brief_caption"))[-1]["success"]
    assert not [message for message in browser.messages if message["type"] == "error"]


def test_a_parameter_changes_for_every_browser(robot, browser):
    with robot.server.browser() as other:
        other.until("state")
        assert browser.set("rear", "min_score", 0.25)["success"]
        values = other.until("parameters")["values"]
        assert values["rear"]["min_score"] == 0.25
        assert values["front"]["min_score"] == 0.1
    assert browser.set("rear", "min_score", None)["success"]


@pytest.mark.parametrize(
    ("camera", "name", "value", "message"),
    [
        ("front", "max_rate", -1, "parameter front.max_rate must be 0 to 1000, got -1"),
        ("", "model", "other/model", "parameter model is read at start only; restart the node"),
        ("", "colour", 1, "parameter colour is unknown"),
        ("side", "max_rate", 1, "parameter side.max_rate is unknown"),
        ("front", "phrases", ["<s>"], "contains the reserved tag <s>"),
        ("front", "phrases", {"a": 1}, "parameter 'front.phrases' must be true, false"),
    ],
)
def test_a_refused_parameter_gets_the_nodes_reason(browser, camera, name, value, message):
    response = browser.set(camera, name, value)
    assert not response["success"]
    assert message in response["message"]


def test_hostile_text_arrives_as_text(robot, browser):
    hostile = '<img src=x onerror="alert(1)">\u2028</script>'
    assert browser.set("rear", "phrases", [hostile])["success"]
    look = browser.until(
        "look",
        lambda look: (
            look["camera"] == "rear" and look["phrases"] and look["phrases"][0]["text"] != PHRASE
        ),
    )
    assert [phrase["text"] for phrase in look["phrases"]] == [hostile]
    assert browser.set("rear", "phrases", None)["success"]


def test_a_hidden_browser_gets_nothing_but_its_own_answers(robot, browser):
    browser.send(type="visible", visible=False)
    name = browser.ask(camera="front", task="brief_caption")
    browser.answers(name)
    with robot.server.browser() as other:
        for _ in range(3):
            other.until("look", front)
        assert other.set("rear", "max_rate", 4.0)["success"]
        other.until("health")
    hidden_since = len(browser.messages)
    browser.socket.send("a barrier")
    browser.until("error")
    assert [message["type"] for message in browser.messages[hidden_since:]] == ["error"]
    browser.send(type="visible", visible=True)
    hello = browser.receive()
    assert hello["type"] == "hello"
    assert hello["values"]["rear"]["max_rate"] == 4.0
    browser.until("look", front)


def test_a_client_that_never_reads_delays_no_other_client(robot):
    with robot.server.browser() as greedy, robot.server.browser() as other:
        # Together, these are far more than the buffers of the connection can hold.
        for _ in range(400):
            greedy.send(type="visible", visible=False)
            greedy.send(type="visible", visible=True)
        assert len({other.until("look", front)["stamp"] for _ in range(10)}) >= 5
        assert other.answers(other.ask(camera="front", task="brief_caption"))[-1]["success"]
        greedy.socket.send("a barrier")
        greedy.until("error")
        hellos = [message for message in greedy.messages if message["type"] == "hello"]
        assert 0 < len(hellos) < 400  # those that it had no room for were never made


def test_wrong_messages_are_named_and_then_end_the_connection(browser):
    texts = ["", "[]", "1", "{", '{"type": "publish"}', '{"type": ["ask"]}', "NaN"]
    texts += ['{"type": "ask"}', '{"type": "ask", "id": 1}', '{"type": "visible"}']
    assert len(texts) == MAX_WRONG
    for text in texts[:-1]:
        browser.socket.send(text)
        assert browser.until("error")["message"]
    browser.socket.send(texts[-1])
    with pytest.raises(ConnectionClosed) as closed:
        browser.until("nothing more")
    assert closed.value.rcvd.code == 1008
    assert closed.value.rcvd.reason == "10 wrong messages in a row"


def test_a_large_message_is_refused_and_a_right_one_counts_anew(browser):
    for _ in range(MAX_WRONG + 2):
        browser.socket.send(json.dumps({"type": "set", "id": "x" * MAX_MESSAGE}))
        assert "at most 262144 bytes" in browser.until("error")["message"]
        browser.send(type="visible", visible=True)
    browser.socket.send(b"\x00")
    assert "must be text" in browser.until("error")["message"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/live/front.jpg", "/mcp"])
def test_other_sites_get_403(robot, path, headers):
    for method in ("GET", "POST"):
        assert robot.server.get(path, method, **headers).status == 403
    with pytest.raises(InvalidStatus) as refused, robot.server.browser(**headers):
        pass
    assert refused.value.response.status_code == 403


def test_the_node_works_for_a_browser_only_while_it_looks(robot, client, spinner):
    topic = "/kosmos/front/frame/compressed"
    spinner.until(lambda: not client.count_subscribers(topic), "no subscription")
    with robot.server.browser() as browser:
        spinner.until(lambda: client.count_subscribers(topic), "a subscription")
        browser.send(type="visible", visible=False)
        spinner.until(lambda: not client.count_subscribers(topic), "no subscription")


def test_garbage_on_the_port_does_no_harm(robot):
    host, port = robot.server.host.split(":")
    for data in (b"\x00" * 100, b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b"A" * 100_000):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)
    with robot.server.browser() as browser:
        browser.until("look", front)


def test_twenty_browsers_are_one_subscriber(robot, client, spinner):
    topics = [f"/kosmos/front/{name}" for name in ("captions", "phrases", "frame/compressed")]
    with contextlib.ExitStack() as all_of_them:
        browsers = [all_of_them.enter_context(robot.server.browser()) for _ in range(20)]
        spinner.until(lambda: all(map(client.count_subscribers, topics)), "a subscription")
        looks = [browser.until("look", front)["stamp"] for browser in browsers]
        newest = max(looks, key=float)
        for browser, stamp in zip(browsers, looks, strict=True):
            if stamp != newest:
                browser.until("look", lambda look: look["stamp"] == newest)
        assert [client.count_subscribers(topic) for topic in topics] == [1, 1, 1]


def test_a_node_that_dies_is_reported_and_found_again(robot):  # the last test: its node ends
    with robot.server.browser() as browser:
        browser.until("look", front)
        robot.node.stop()
        browser.until("state", lambda state: state["state"] == "gone")
        (done,) = browser.answers(browser.ask(camera="front", task="brief_caption"))
        assert "not running" in done["message"]
        assert "not running" in browser.set("front", "max_rate", 1.0)["message"]
        assert robot.server.get("/live/front.jpg").status in (200, 204)
        robot.node = robot.start()
        hello = browser.until("hello")
        assert [camera["name"] for camera in hello["cameras"]] == ["front", "rear"]
        assert hello["looks"]  # from before
        states = [message for message in browser.messages if message["type"] == "state"]
        if states[-1]["state"] != "ready":
            browser.until("state", lambda state: state["state"] == "ready")
        newest = max(float(look["stamp"]) for look in hello["looks"])
        browser.until("look", lambda look: front(look) and float(look["stamp"]) > newest)
        assert browser.answers(browser.ask(camera="front", task="brief_caption"))[-1]["success"]
