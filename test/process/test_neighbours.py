# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node among other processes: fast cameras, killed clients, stopped subscribers."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from programs import Program, parameters
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from kosmos_ros.ros.conversions import image_message
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import COLOURS, KINDS, sample_scene

FAST = parameters(model="shapes", max_rate=0, image_reliability="reliable")


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(20_261_124)
    return [sample_scene(rng, *size) for size in ((640, 480), (480, 270))]


def subscribe(client, topic):
    captions = []
    client.create_subscription(GroundedCaption, topic, captions.append, 10)
    return captions


def frame_of(scene, frame_id):
    return image_message(render(scene), Header(frame_id=frame_id))


def names_a_shape(caption, scene):
    """Return whether the caption names something that was drawn."""
    return any(phrase in caption.caption for phrase, _ in scene.truth)


@pytest.mark.fault(20)
def test_camera_faster_than_the_model_does_not_fill_the_memory(client, spinner):
    camera = client.create_publisher(Image, "image", 1)
    captions = subscribe(client, "kosmos/captions")
    # The scene is small: a busy computer must send a hundred frames per second.
    scene = sample_scene(np.random.default_rng(1), 320, 240)
    frame, numbers = frame_of(scene, "fast"), itertools.count(1)

    def send():
        number = next(numbers)
        frame.header.stamp.sec = number
        frame.data[0] = number % 256  # the same picture would not be described again
        camera.publish(frame)

    # Many phrases keep the model busy.
    phrases = [f"a {colour} {kind}" for colour in COLOURS for kind in KINDS]
    busy = parameters(task="phrase_grounding", phrases=json.dumps(phrases))
    with Program("kosmos_node", *FAST, *busy) as node:
        node.says("active: ")
        client.create_timer(0.01, send)
        spinner.until(lambda: len(captions) >= 5)
        memory = psutil.Process(node.process.pid).memory_info
        before, dropped = memory().rss, captions[-1].frames_dropped
        spinner.until(lambda: captions[-1].frames_dropped >= dropped + 100)
        grown = memory().rss - before
        assert node.stop() == 0
    assert grown < 100 * len(frame.data) / 2
    stamps = [caption.header.stamp.sec for caption in captions]
    assert stamps == sorted(set(stamps))
    # Each frame was described or dropped, or did not arrive.
    assert len(captions) + captions[-1].frames_dropped < next(numbers)


@pytest.mark.fault(22)
def test_node_without_frames_uses_little_cpu_time(client, spinner):
    reports = []
    client.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    with Program("kosmos_node", *FAST) as node:
        node.says("active: ")
        process = psutil.Process(node.process.pid)

        def used():
            """Return the CPU time in seconds, right after the next diagnostics message."""
            first = len(reports)
            spinner.until(lambda: len(reports) > first)
            times = process.cpu_times()
            return times.user + times.system

        before = used()
        spent = [used() - before for _ in range(5)][-1]
        assert node.stop() == 0
    assert spent < 2.5  # s; a busy loop would take 5


@pytest.mark.fault(24)
def test_two_publishers_of_a_topic_are_one_camera(client, spinner, scenes):
    other = Node("another_camera")
    frames = [frame_of(scene, str(number)) for number, scene in enumerate(scenes)]
    cameras = [node.create_publisher(Image, "image", 1) for node in (client, other)]
    captions = subscribe(client, "kosmos/captions")
    turns = itertools.cycle(zip(cameras, frames, strict=True))

    def send():
        camera, frame = next(turns)
        camera.publish(frame)

    with Program("kosmos_node", *FAST) as node:
        node.says("active: ")
        client.create_timer(0.3, send)
        spinner.until(lambda: all(sum(c.header.frame_id == n for c in captions) > 2 for n in "01"))
        assert node.stop() == 0
    other.destroy_node()
    for caption in captions:
        scene = scenes[int(caption.header.frame_id)]
        assert (caption.image_width, caption.image_height) == (scene.width, scene.height)
        assert names_a_shape(caption, scene)


CLIENT = """
import rclpy
from kosmos_msgs.action import Generate
from kosmos_msgs.srv import Ask
from rclpy.action import ActionClient

rclpy.init()
node = rclpy.create_node("requester")
client = node.create_client(Ask, "kosmos/ask")
action = ActionClient(node, Generate, "kosmos/generate_stream")
client.wait_for_service()
action.wait_for_server()

def repeat(call):
    "The response to a client that the node has not discovered yet is lost."
    futures = []
    while not any(future.done() for future in futures):
        futures.append(call())
        rclpy.spin_until_future_complete(node, futures[-1], timeout_sec=5)

# The node refuses these requests at once.
repeat(lambda: client.call_async(Ask.Request(question=" ")))
repeat(lambda: action.send_goal_async(Generate.Goal()))
accepted = action.send_goal_async(Generate.Goal(task="brief_caption"))
rclpy.spin_until_future_complete(node, accepted)
for _ in range(3):
    client.call_async(Ask.Request(question="What is it?"))
# The node refuses this request at once, so the requests before it have arrived.
last = client.call_async(Ask.Request(question=" "))
rclpy.spin_until_future_complete(node, last)
print("all requests wait", flush=True)
rclpy.spin(node)
"""


@pytest.mark.fault(52)
def test_requests_of_a_killed_client_leave_the_queue(client, spinner, scenes):
    ask_client = client.create_client(Ask, "kosmos/ask")
    question = Ask.Request(question="What is it?")
    with Program(
        "kosmos_node", *parameters(model="shapes", queue_size=4, request_timeout=12.0)
    ) as node:
        node.says("active: ")
        with Program(Path(sys.executable), "-u", "-c", CLIENT) as requester:
            requester.says("all requests wait")
        assert (
            "4 requests wait, the most that queue_size allows"
            in spinner.call(ask_client, question).message
        )

        def has_room():
            return "no image arrived within 12 s" in spinner.call(ask_client, question).message

        spinner.until(has_room, "room in the queue")
        question.image = frame_of(scenes[0], "here")
        answer = spinner.call(ask_client, question)
        code = node.stop()
    assert answer.success, answer.message
    assert code == 0
    assert "Traceback" not in node.output and "ERROR" not in node.output


@pytest.mark.fault(60)
def test_namespaces_keep_two_nodes_apart(client, spinner, scenes):
    statuses, places = [], ("one", "two")
    client.create_subscription(DiagnosticArray, "/diagnostics", statuses.append, 10)
    captions = {place: subscribe(client, f"/{place}/kosmos/captions") for place in places}
    cameras = {place: client.create_publisher(Image, f"/{place}/image", 1) for place in places}
    nodes = [Program("kosmos_node", *FAST, "-r", f"__ns:=/{place}") for place in places]
    with nodes[0], nodes[1]:
        for node in nodes:
            node.says("active: ")

        def send():
            for place, scene in zip(places, scenes, strict=True):
                cameras[place].publish(frame_of(scene, place))

        client.create_timer(0.3, send)
        spinner.until(lambda: all(len(found) > 2 for found in captions.values()))
        for place, scene in zip(places, scenes, strict=True):
            ask_client = client.create_client(Ask, f"/{place}/kosmos/ask")
            answer = spinner.call(ask_client, Ask.Request(question="What is in this image?"))
            assert (answer.success, answer.result.header.frame_id) == (True, place)
            assert {caption.header.frame_id for caption in captions[place]} == {place}
            assert all(names_a_shape(caption, scene) for caption in captions[place])
        expected = {f"/{place}/kosmos: {part}" for place in places for part in ("model", "camera")}
        spinner.until(lambda: {s.name for message in statuses for s in message.status} >= expected)
        assert [node.stop() for node in nodes] == [0, 0]
    assert {status.name for message in statuses for status in message.status} == expected


SUBSCRIBER = """
import rclpy
from kosmos_msgs.msg import GroundedCaption
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("subscriber")
for kind, topic in ((GroundedCaption, "captions"), (Image, "annotated")):
    node.create_subscription(kind, "kosmos/" + topic, lambda _, topic=topic: print(topic), 10)
rclpy.spin(node)
"""


@pytest.mark.fault(62)
def test_stopped_subscriber_does_not_delay_the_others(client, spinner, scenes):
    """The subscriber is reliable and acknowledges nothing while it is stopped."""
    camera = client.create_publisher(Image, "image", 1)
    captions = subscribe(client, "kosmos/captions")
    frame = frame_of(scenes[0], "here")
    # Over shared memory, a process that was stopped sometimes receives nothing more. With the
    # discovery range LOCALHOST, rmw_fastrtps ignores FASTDDS_BUILTIN_TRANSPORTS.
    udp = {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    with (
        Program("kosmos_node", *FAST) as node,
        Program(Path(sys.executable), "-u", "-c", SUBSCRIBER, env=os.environ | udp) as subscriber,
    ):
        node.says("active: ")
        client.create_timer(0.05, lambda: camera.publish(frame))
        for topic in ("captions", "annotated"):
            spinner.until(lambda topic=topic: subscriber.has(topic))
        subscriber.process.send_signal(signal.SIGSTOP)
        before = len(captions)
        spinner.until(lambda: len(captions) >= before + 40, "captions for the other subscriber")
        lines = len(subscriber.lines)
        subscriber.process.send_signal(signal.SIGCONT)
        spinner.until(
            lambda: subscriber.has("captions", after=lines + 20),
            "captions in the resumed subscriber",
        )
        assert node.stop() == 0
    assert "Traceback" not in node.output


@pytest.mark.fault(68)
def test_nodes_of_another_domain_are_invisible(client, spinner):
    domain = int(os.environ["ROS_DOMAIN_ID"])
    assert (domain, os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"]) != (0, "SUBNET")
    others = {**os.environ, "ROS_DOMAIN_ID": str(domain % 101 + 1)}
    arguments = parameters(rate=5.0)
    with (
        Program("camera_node", *arguments, "-r", "__node:=far", env=others) as far,
        Program("camera_node", *arguments, "-r", "__node:=near") as near,
    ):
        far.says(" at 5 Hz")
        near.says(" at 5 Hz")
        spinner.until(lambda: "near" in client.get_node_names())
        assert "far" not in client.get_node_names()


@pytest.mark.fault(68)
def test_each_test_run_takes_its_domain_from_its_process_id():
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ROS_", "PYTEST_XDIST"))
    }
    code = "import os, conftest; print(os.getpid(), *map(os.environ.get, {!r}))"
    names = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
    done = subprocess.run(
        [sys.executable, "-c", code.format(names)],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    process, domain, discovery = done.stdout.split()
    assert (int(domain), discovery) == (1 + int(process) % 101, "LOCALHOST")
