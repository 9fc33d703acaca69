# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Clients and cameras that send far too much: the node's memory and threads stay as they are."""

import itertools
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import psutil
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.srv import Ask, Ground
from node_harness import plain_image
from programs import Program, parameters
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from kosmos_ros.serving.decoding import THREADS

MB = 1_000_000
LARGE = 8 * MB  # characters of one text


@pytest.fixture
def node():
    with Program("kosmos_node", *parameters(model="shapes")) as program:
        program.says("active: ")
        yield program
        assert program.stop() == 0


@pytest.fixture
def usage(node):
    """Provide a function that returns bytes of memory, threads and open files of the node."""
    process = psutil.Process(node.process.pid)

    def read():
        # The node itself briefly opens files to check its ports and its memory.
        files = process.num_fds()
        for _ in range(5):
            time.sleep(0.05)
            files = min(files, process.num_fds())
        return process.memory_info().rss, process.num_threads(), files

    return read


@pytest.mark.fault(79)
def test_large_texts_of_clients_fill_no_memory(client, spinner, usage):
    """Without limits, a refused goal takes 8 MB, and a request with a frame_id of 4 MB 410 MB."""
    asking = client.create_client(Ask, "kosmos/ask")
    image = plain_image()
    assert spinner.call(asking, Ask.Request(question="What is it?", image=image)).success
    before, threads, files = usage()
    goals = ActionClient(client, GenerateAction, "kosmos/generate_stream")
    spinner.until(goals.server_is_ready, "an action server")
    for _ in range(20):
        sent = goals.send_goal_async(GenerateAction.Goal(task="question", text="x" * LARGE))
        spinner.until(sent.done, "an accepted goal")
        ended = sent.result().get_result_async()
        spinner.until(ended.done, "a result")
        message = ended.result().result.message
        assert message == f"text must have at most 61440 characters, got {LARGE}"
    goals.destroy()
    image.header.frame_id = "x" * (LARGE // 2)
    grounding = client.create_client(Ground, "kosmos/ground")
    response = spinner.call(grounding, Ground.Request(phrases=["a circle"] * 100, image=image))
    assert response.message.startswith("image.header.frame_id must have at most 255 characters")
    setting = client.create_client(SetParameters, "kosmos/set_parameters")
    for value in (["a dog" + " " * LARGE], [""] * MB):
        change = Parameter("phrases", value=value).to_parameter_msg()
        response = spinner.call(setting, SetParameters.Request(parameters=[change]))
        assert response.results[0].reason.startswith("parameter phrases")
    after, threads_after, files_after = usage()
    assert after - before < 100 * MB
    assert threads_after < threads + THREADS  # those that decode begin when they are needed
    assert files_after <= files
    image.header.frame_id = "lens"
    assert spinner.call(asking, Ask.Request(question="What is it?", image=image)).success


@pytest.mark.fault(82)
def test_camera_that_starts_and_stops_all_the_time_leaves_nothing_behind(client, spinner, usage):
    """A driver with a bad cable makes and destroys its publisher, perhaps with another QoS."""
    asking = client.create_client(Ask, "kosmos/ask")
    frame, numbers = plain_image(width=64, height=48), itertools.count(1)

    def send(publisher):
        frame.header.stamp.sec = next(numbers)
        publisher.publish(frame)

    def flap(times):
        for reliability in [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT] * times:
            qos = QoSProfile(depth=1, reliability=reliability)
            publisher = client.create_publisher(Image, "image", qos)
            send(publisher)
            spinner.executor.spin_once(timeout_sec=0.1)
            client.destroy_publisher(publisher)

    def served():
        """Send a frame and return whether a request gets one of these frames."""
        send(camera)
        request = Ask.Request(question="What is it?")
        request.max_age.sec = 1
        response = spinner.call(asking, request)
        return response.success and response.result.header.stamp.sec > first

    flap(10)
    before, threads, files = usage()
    flap(30)
    first = next(numbers)
    camera = client.create_publisher(Image, "image", 1)
    spinner.until(served, "an answer about a frame")
    after, threads_after, files_after = usage()
    assert threads_after < threads + THREADS  # those that decode begin when they are needed
    assert files_after <= files
    assert after - before < 20 * MB
