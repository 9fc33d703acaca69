# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stamps, latency and simulated time of the running node, with a fake engine."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from kosmos_msgs.msg import Event
from node_harness import SNOWMAN_BOX, plain_image
from rosgraph_msgs.msg import Clock as ClockMessage

from kosmos_ros.ros.stamps import STILL


@pytest.mark.fault(27)
def test_latency_follows_the_nodes_clock(start):
    """Warnings follow the monotonic clock, also while simulated time stands still."""
    harness = start(use_sim_time=True, max_rate=0, stale_timeout=0.5).subscribe_to_captions()
    harness.until(lambda: harness.logs("no image on /image"))
    clock = harness.client.create_publisher(ClockMessage, "/clock", 10)
    harness.until(clock.get_subscription_count)
    clock.publish(ClockMessage(clock=Time(sec=9, nanosec=500_000_000)))
    harness.until(lambda: harness.node.get_clock().now().nanoseconds)
    harness.send(sec=7)
    latency = harness.until(lambda: harness.captions)[0].latency
    assert (latency.sec, latency.nanosec) == (2, 500_000_000)


@pytest.mark.fault(27)
def test_node_works_on_after_the_clock_jumps_back(start):
    """The clock of a recording jumps back when its playback starts again."""
    harness = start(use_sim_time=True, max_rate=0).subscribe_to_captions()
    clock = harness.client.create_publisher(ClockMessage, "/clock", 10)
    harness.until(clock.get_subscription_count)
    for number, seconds in enumerate((100, 101, 5, 6), start=1):
        clock.publish(ClockMessage(clock=Time(sec=seconds)))
        harness.until(lambda s=seconds: harness.node.get_clock().now().nanoseconds == s * 10**9)
        harness.send(sec=seconds)
        harness.until(lambda number=number: len(harness.captions) == number)
    assert [caption.header.stamp.sec for caption in harness.captions] == [100, 101, 5, 6]
    assert {caption.latency.sec for caption in harness.captions} == {0}


@pytest.mark.fault(27)
def test_rates_and_diagnostics_work_without_a_clock(start):
    harness = start(use_sim_time=True, max_rate=10.0).subscribe_to_captions()
    reports = harness.collect(DiagnosticArray, "/diagnostics")
    for count in (1, 2, 3):
        harness.send()
        harness.until(lambda count=count: len(harness.captions) == count)
    harness.until(lambda: len(reports) >= 2)
    assert harness.node.get_clock().now().nanoseconds == 0


@pytest.mark.fault(26)
def test_results_carry_any_stamp(start):
    harness = start(max_rate=100.0).subscribe_to_captions()
    stamps = [0, 2**31 - 1, -(2**31), 50, 7, 7]
    for count, sec in enumerate(stamps, start=1):
        sent = harness.send(sec=sec)
        harness.until(lambda count=count: len(harness.captions) == count)
        assert harness.captions[-1].header == sent.header
    assert [caption.header.stamp.sec for caption in harness.captions] == stamps
    now = time.time()
    newest, future, past = (harness.captions[number].latency.sec for number in (0, 1, 2))
    assert newest == pytest.approx(now, abs=600)
    assert future == 0
    assert past == 2**31 - 1  # the longest possible duration
    warnings = [text for text in harness.logged if "stamps of its images" in text]
    assert len(warnings) == 2  # one for each fault
    assert "s old, and so is the reported latency; set use_sim_time to true" in warnings[0]
    assert "s ahead of this node's clock, so latency is reported as 0; synch" in warnings[1]


@pytest.mark.fault(95)
def test_a_clock_that_does_not_start_is_named_once(start):
    """Stamps of this century would give a latency of minus fifty years."""
    harness = start(use_sim_time=True, max_rate=0).subscribe_to_captions()
    for count in (1, 2):
        harness.send(sec=1_700_000_000 + count)
        harness.until(lambda count=count: len(harness.captions) == count)
    assert [caption.latency.sec for caption in harness.captions] == [0, 0]
    assert harness.camera.throughput.latency(0.0) == 0.0
    harness.until(lambda: harness.logs("use_sim_time is true and no time arrives on /clock"))
    assert sum("no time arrives on /clock" in text for text in harness.logged) == 1


@pytest.mark.fault(95)
def test_a_latency_is_never_negative(start):
    harness = start(max_rate=0)
    image = plain_image(sec=2**31 - 1)
    response = harness.ask(question="What is it?", image=image)
    latency = response.result.latency
    assert (latency.sec, latency.nanosec) == (0, 0)


@pytest.mark.fault(95)
def test_events_follow_the_arrival_of_frames_whose_stamps_stand_still(start):
    """event_seconds would never pass by such stamps."""
    harness = start(max_rate=0, phrases=["a dog"], event_frames=2, event_seconds=0.1)
    harness.engine.outputs = {"a dog": (SNOWMAN_BOX, (1.0, 0.25))}
    events = harness.collect(Event, "kosmos/events")
    harness.until(lambda: harness.has_subscriber("events"))
    harness.wait_for_image_connection()
    frame = plain_image(sec=7)
    harness.client.create_timer(0.05, lambda: harness.image_publisher.publish(frame))
    harness.until(lambda: events, "an event")
    assert (events[0].kind, events[0].subject) == (Event.APPEARED, "a dog")
    assert (events[0].header.stamp.sec, events[0].since.sec) == (7, 7)
    harness.until(lambda: harness.camera.throughput.count > 2 * STILL)
    harness.until(lambda: harness.logs("the stamps of its images do not change (7 s)"))
    assert sum("do not change" in text for text in harness.logged) == 1
