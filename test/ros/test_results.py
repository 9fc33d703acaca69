# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Results leave the node through the delivery thread: in order, not too late, not too early."""

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from desk import picture
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
    desk = start()
    for limit in (11, 12, 13):
        desk.node.set_parameters([Parameter("max_new_tokens", value=limit)])
        assert desk.ask(question="What is it?", image=picture()).success
    assert desk.engine.limits == [11, 12, 13]


def test_stop_tells_that_a_result_is_still_being_published(start, block):
    desk = start()
    post(desk.node, block)
    assert not desk.node.stop(0.2)
    block.end.set()


def test_nothing_is_published_after_deactivate_has_returned(start, block):
    desk = start(max_rate=0).listen()
    desk.client.create_subscription(String, "kosmos/text", print, 10)
    desk.until(lambda: desk.heard("text"))
    publishers = {output.topic: publisher for output, publisher in desk.camera._outputs}
    published = []
    publishers["captions"].publish = lambda message: block()
    publishers["text"].publish = lambda message: published.append(time.monotonic())
    desk.send()
    desk.until(block.begun.is_set, "a caption that is being published")
    threading.Timer(0.2, block.end.set).start()
    assert desk.node._run_transition(desk.node.trigger_deactivate)
    ended = time.monotonic()
    assert desk.node._delivery.flush(WAIT)
    assert published and published[-1] <= ended


def test_an_error_is_told_after_the_results_that_came_before_it(start, block):
    desk = start(max_rate=0).listen()
    post(desk.node, block)
    desk.send()
    desk.until(lambda: desk.node._delivery._others, "a caption that waits")
    bad = picture()
    bad.data = bad.data[:10]
    desk.deliver(desk.images, bad, desk.camera)
    desk.until(lambda: len(desk.node._delivery._others) == 2, "an error behind it")
    block.end.set()
    desk.until(lambda: desk.camera.throughput.failed)
    assert (desk.camera.throughput.count, desk.camera.throughput.failing) == (1, True)


def test_publishing_that_hangs_ends_the_process(start, block):
    desk = start(hard_timeout=0.3)
    post(desk.node, block)
    desk.until(desk.node.finished.done)
    assert desk.node.finished.result() == 4
    assert "publishing has not ended for" in desk.node.unavailable()
    block.end.set()
