# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The real node among others: fast cameras, killed clients, stopped listeners, a second node."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")

import numpy as np
import psutil
from conftest import Bench
from diagnostic_msgs.msg import DiagnosticArray
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from programs import Program, parameters
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from kosmos_ros.ros.conversions import image_message
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

FAST = parameters(model="shapes", max_rate=0, image_reliability="reliable")


@pytest.fixture
def client(ros):
    node = Node("client")
    yield node
    node.destroy_node()


@pytest.fixture
def bench(client):
    return Bench(client)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(20_261_124)
    return [sample_scene(rng, *size) for size in ((640, 480), (480, 270))]


def hear(client, topic):
    captions = []
    client.create_subscription(GroundedCaption, topic, captions.append, 10)
    return captions


def framed(scene, frame_id):
    return image_message(render(scene), Header(frame_id=frame_id))


def about(caption, scene):
    """Whether a caption names something that was drawn."""
    return any(phrase in caption.caption for phrase, _ in scene.truth)


@pytest.mark.fault(20)
def test_a_camera_faster_than_the_model_fills_no_memory(client, bench):
    camera = client.create_publisher(Image, "image", 1)
    captions = hear(client, "kosmos/captions")
    # Small enough for a busy computer to pass a hundred a second on.
    scene = sample_scene(np.random.default_rng(1), 320, 240)
    frame, numbers = framed(scene, "fast"), itertools.count(1)

    def send():
        frame.header.stamp.sec = next(numbers)
        camera.publish(frame)

    with Program("kosmos_node", *FAST) as node:
        node.says("active: ")
        client.create_timer(0.01, send)
        bench.until(lambda: len(captions) >= 5)
        memory = psutil.Process(node.process.pid).memory_info
        before, dropped = memory().rss, captions[-1].frames_dropped
        bench.until(lambda: captions[-1].frames_dropped >= dropped + 100)
        grown = memory().rss - before
        assert node.stop() == 0
    assert grown < 100 * len(frame.data) / 2
    stamps = [caption.header.stamp.sec for caption in captions]
    assert stamps == sorted(set(stamps))
    # Each frame was described, dropped, or never came.
    assert len(captions) + captions[-1].frames_dropped <= stamps[-1]


@pytest.mark.fault(22)
def test_a_node_without_frames_idles(client, bench):
    ticks = []
    client.create_subscription(DiagnosticArray, "/diagnostics", ticks.append, 10)
    with Program("kosmos_node", *FAST) as node:
        node.says("active: ")
        process = psutil.Process(node.process.pid)

        def used():
            """Seconds of the processor, just after one more message."""
            first = len(ticks)
            bench.until(lambda: len(ticks) > first)
            times = process.cpu_times()
            return times.user + times.system

        before = used()
        spent = [used() - before for _ in range(5)][-1]
        assert node.stop() == 0
    assert spent < 2.5  # of the 5 that a busy loop would take


@pytest.mark.fault(24)
def test_two_publishers_of_a_topic_are_one_camera(client, bench, scenes):
    other = Node("another_camera")
    frames = [framed(scene, str(number)) for number, scene in enumerate(scenes)]
    cameras = [node.create_publisher(Image, "image", 1) for node in (client, other)]
    captions = hear(client, "kosmos/captions")
    turns = itertools.cycle(zip(cameras, frames, strict=True))

    def send():
        camera, frame = next(turns)
        camera.publish(frame)

    with Program("kosmos_node", *FAST) as node:
        node.says("active: ")
        client.create_timer(0.3, send)
        bench.until(lambda: all(sum(c.header.frame_id == n for c in captions) > 2 for n in "01"))
        assert node.stop() == 0
    other.destroy_node()
    for caption in captions:
        scene = scenes[int(caption.header.frame_id)]
        assert (caption.image_width, caption.image_height) == (scene.width, scene.height)
        assert about(caption, scene)


ASKER = """
import rclpy
from kosmos_msgs.action import Generate
from kosmos_msgs.srv import Ask
from rclpy.action import ActionClient

rclpy.init()
node = rclpy.create_node("asker")
client = node.create_client(Ask, "kosmos/ask")
action = ActionClient(node, Generate, "kosmos/generate_stream")
client.wait_for_service()
action.wait_for_server()
accepted = action.send_goal_async(Generate.Goal(task="brief_caption"))
rclpy.spin_until_future_complete(node, accepted)
for _ in range(3):
    client.call_async(Ask.Request(question="What is it?"))
# It is refused at once, and shows that those before it have arrived.
last = client.call_async(Ask.Request(question=" "))
rclpy.spin_until_future_complete(node, last)
print("all wait", flush=True)
rclpy.spin(node)
"""


@pytest.mark.fault(52)
def test_a_client_that_is_killed_leaves_no_place_taken(client, bench, scenes):
    asking = client.create_client(Ask, "kosmos/ask")
    question = Ask.Request(question="What is it?")
    with Program(
        "kosmos_node", *parameters(model="shapes", queue_size=4, request_timeout=10.0)
    ) as node:
        node.says("active: ")
        with Program(Path(sys.executable), "-u", "-c", ASKER) as asker:
            asker.says("all wait")
        assert "4 requests wait already" in bench.call(asking, question).message

        def free():
            return "no image came within 10 s" in bench.call(asking, question).message

        bench.until(free, "a free place")
        question.image = framed(scenes[0], "here")
        answer = bench.call(asking, question)
        code = node.stop()
    assert answer.success, answer.message
    assert code == 0
    assert "Traceback" not in node.output and "ERROR" not in node.output


@pytest.mark.fault(60)
def test_two_nodes_are_apart_by_their_namespaces(client, bench, scenes):
    statuses, places = [], ("one", "two")
    client.create_subscription(DiagnosticArray, "/diagnostics", statuses.append, 10)
    captions = {place: hear(client, f"/{place}/kosmos/captions") for place in places}
    cameras = {place: client.create_publisher(Image, f"/{place}/image", 1) for place in places}
    nodes = [Program("kosmos_node", *FAST, "-r", f"__ns:=/{place}") for place in places]
    with nodes[0], nodes[1]:
        for node in nodes:
            node.says("active: ")

        def send():
            for place, scene in zip(places, scenes, strict=True):
                cameras[place].publish(framed(scene, place))

        client.create_timer(0.3, send)
        bench.until(lambda: all(len(said) > 2 for said in captions.values()))
        for place, scene in zip(places, scenes, strict=True):
            asking = client.create_client(Ask, f"/{place}/kosmos/ask")
            answer = bench.call(asking, Ask.Request(question="What is in this image?"))
            assert (answer.success, answer.result.header.frame_id) == (True, place)
            assert {caption.header.frame_id for caption in captions[place]} == {place}
            assert all(about(caption, scene) for caption in captions[place])
        expected = {f"/{place}/kosmos: {of}" for place in places for of in ("model", "camera")}
        bench.until(lambda: {s.name for seen in statuses for s in seen.status} >= expected)
        assert [node.stop() for node in nodes] == [0, 0]
    assert {status.name for seen in statuses for status in seen.status} == expected


LISTENER = """
import rclpy
from kosmos_msgs.msg import GroundedCaption
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("listener")
for kind, topic in ((GroundedCaption, "captions"), (Image, "annotated")):
    node.create_subscription(kind, "kosmos/" + topic, lambda _, topic=topic: print(topic), 10)
rclpy.spin(node)
"""


@pytest.mark.fault(62)
def test_a_listener_that_has_stopped_keeps_nobody_waiting(client, bench, scenes):
    """Its deliveries are reliable, and it takes and confirms none."""
    camera = client.create_publisher(Image, "image", 1)
    captions = hear(client, "kosmos/captions")
    frame = framed(scenes[0], "here")
    with (
        Program("kosmos_node", *FAST) as node,
        Program(Path(sys.executable), "-u", "-c", LISTENER) as listener,
    ):
        node.says("active: ")
        client.create_timer(0.05, lambda: camera.publish(frame))
        for topic in ("captions", "annotated"):
            bench.until(lambda topic=topic: listener.has(topic))
        listener.process.send_signal(signal.SIGSTOP)
        before = len(captions)
        bench.until(lambda: len(captions) >= before + 40, "captions beside one that has stopped")
        heard = len(listener.lines)
        listener.process.send_signal(signal.SIGCONT)
        bench.until(lambda: listener.has("captions", after=heard + 20))
        assert node.stop() == 0
    assert "Traceback" not in node.output


@pytest.mark.fault(68)
def test_nodes_of_another_domain_are_not_seen(client, bench):
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
        bench.until(lambda: "near" in client.get_node_names())
        assert "far" not in client.get_node_names()


@pytest.mark.fault(68)
def test_each_run_of_the_tests_has_a_domain_by_its_process():
    environment = {
        key: of for key, of in os.environ.items() if not key.startswith(("ROS_", "PYTEST_XDIST"))
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
    process, domain, reach = done.stdout.split()
    assert (int(domain), reach) == (1 + int(process) % 101, "LOCALHOST")
