# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Results leave the node through the delivery thread: in order, not too late, not too early."""

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from node_harness import plain_image
from rclpy.parameter import Parameter
from std_msgs.msg import String

WAIT = 20.0  # s


@pytest.fixture
def block():
    """Provide a call that blocks the delivery thread until the test sets `end`."""

    class Block:
        def __init__(self):
            self.begun, self.end = threading.Event(), threading.Event()

        def __call__(self):
            self.begun.set()
            assert self.end.wait(WAIT)

    block = Block()
    yield block
    block.end.set()


def post(node, block):
    node._delivery.post(block, urgent=True)
    assert block.begun.wait(WAIT)


def test_a_request_uses_the_parameters_that_were_set_just_before(start):
    harness = start()
    for limit in (11, 12, 13):
        harness.node.set_parameters([Parameter("max_new_tokens", value=limit)])
        assert harness.ask(question="What is it?", image=plain_image()).success
    assert harness.engine.limits == [11, 12, 13]


def test_stop_tells_that_a_result_is_still_being_published(start, block):
    harness = start()
    post(harness.node, block)
    assert not harness.node.stop(0.2)
    block.end.set()


def test_nothing_is_published_after_deactivate_has_returned(start, block, monkeypatch):
    monkeypatch.setattr("kosmos_ros.ros.kosmos_node.FLUSH_TIMEOUT", WAIT)
    harness = start(max_rate=0).subscribe_to_captions()
    harness.client.create_subscription(String, "kosmos/text", lambda message: None, 10)
    harness.until(lambda: harness.has_subscriber("text"))
    publishers = {output.topic: publisher for output, publisher in harness.camera._outputs}
    published = []
    publishers["captions"].publish = lambda message: block()
    publishers["text"].publish = lambda message: published.append(time.monotonic())
    harness.send()
    harness.until(block.begun.is_set, "a caption that is being published")
    threading.Timer(0.2, block.end.set).start()
    assert harness.node._run_transition(harness.node.trigger_deactivate)
    ended = time.monotonic()
    assert harness.node._delivery.flush(WAIT)
    assert published and published[-1] <= ended


def test_an_error_is_told_after_the_results_that_came_before_it(start, block):
    harness = start(max_rate=0).subscribe_to_captions()
    post(harness.node, block)
    harness.send()
    harness.until(lambda: harness.node._delivery._others, "a caption that waits")
    bad = plain_image()
    bad.data = bad.data[:10]
    harness.deliver(harness.image_publisher, bad, harness.camera)
    harness.until(lambda: len(harness.node._delivery._others) == 2, "an error behind it")
    block.end.set()
    harness.until(lambda: harness.camera.throughput.failed)
    assert (harness.camera.throughput.count, harness.camera.throughput.failing) == (1, True)


def test_publishing_that_hangs_ends_the_process(start, block):
    harness = start()
    post(harness.node, block)
    harness.set_parameter("hard_timeout", 1.0)  # after loading, which it also limits
    harness.until(harness.node.finished.done)
    assert harness.node.finished.result() == 4
    assert "publishing has not ended for" in harness.node.unavailable()
    block.end.set()
