# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stamps, latency and simulated time of the running node, with a fake engine."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock as ClockMessage


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
    future, past = (harness.captions[number].latency.sec for number in (1, 2))
    assert future == pytest.approx(now - (2**31 - 1), abs=600)
    assert past == 2**31 - 1  # the longest possible duration
