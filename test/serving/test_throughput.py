# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a camera's counts say."""

from kosmos_ros.serving.throughput import KEPT, WINDOW, Throughput


def test_the_rate_is_that_of_the_newest_seconds():
    meter = Throughput()
    for number in range(60):
        meter.described(number * 0.5, 0.1)
    assert meter.rate(29.5) == 2.0
    assert meter.rate(29.5 + 2 * WINDOW) == 0.0
    assert meter.count == 60


def test_latencies_are_ranked():
    meter = Throughput()
    assert meter.latency(0.5) == 0.0
    for number in range(100):
        meter.described(0.0, float(number))
    assert (meter.latency(0.5), meter.latency(0.95), meter.latency(1.0)) == (50.0, 95.0, 99.0)
    for _ in range(KEPT):
        meter.described(0.0, 7.0)
    assert meter.latency(1.0) == 7.0


def test_a_failure_is_kept_after_a_success():
    meter = Throughput()
    meter.missed(5.0, "first")
    meter.missed(5.0, "second")
    assert (meter.failed, meter.failing, meter.error) == (2, True, "second")
    meter.described(0.0, 0.1)
    assert (meter.failed, meter.failing, meter.error) == (2, False, "second")
