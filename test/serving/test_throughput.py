# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rate, latency quantiles and failures of one camera."""

import pytest

from kosmos_ros.serving.throughput import MAX_GAINS, MAX_LATENCIES, WINDOW, Throughput


def test_nothing_is_counted_at_the_start():
    throughput = Throughput()
    assert (throughput.count, throughput.failed) == (0, 0)
    assert (throughput.error, throughput.error_at, throughput.failing) == ("", 0.0, False)
    assert (throughput.rate(0.0), throughput.latency(0.5)) == (0.0, 0.0)


def test_the_rate_counts_the_newest_seconds_only():
    throughput = Throughput()
    for number in range(60):
        throughput.described(number * 0.5, 0.1)
    assert throughput.rate(29.5) == 2.0
    assert throughput.rate(29.5 + 2 * WINDOW) == 0.0
    assert throughput.count == 60


def test_a_frame_leaves_the_rate_exactly_after_the_window():
    throughput = Throughput()
    throughput.described(5.0, 0.1)
    assert throughput.rate(5.0 + WINDOW - 0.001) == pytest.approx(1 / WINDOW)
    assert throughput.rate(5.0 + WINDOW) == 0.0


def test_quantiles_are_taken_over_the_newest_latencies():
    throughput = Throughput()
    assert throughput.latency(0.5) == 0.0
    for number in range(100):
        throughput.described(0.0, float(number))
    quantiles = [throughput.latency(quantile) for quantile in (0.0, 0.5, 0.95, 1.0)]
    assert quantiles == [0.0, 50.0, 95.0, 99.0]
    for _ in range(MAX_LATENCIES - 1):
        throughput.described(0.0, 7.0)
    assert throughput.latency(1.0) == 99.0
    throughput.described(0.0, 7.0)
    assert throughput.latency(1.0) == 7.0


def test_quantiles_do_not_depend_on_the_order_of_the_latencies():
    throughput = Throughput()
    for latency in (0.3, 0.1, 0.2):
        throughput.described(0.0, latency)
    assert [throughput.latency(quantile) for quantile in (0.0, 0.5, 1.0)] == [0.1, 0.2, 0.3]


def test_the_newest_error_stays_after_a_success():
    throughput = Throughput()
    throughput.missed(5.0, "first")
    throughput.missed(6.0, "second")
    assert (throughput.failed, throughput.failing, throughput.error) == (2, True, "second")
    throughput.described(7.0, 0.1)
    assert (throughput.failed, throughput.failing, throughput.error) == (2, False, "second")
    assert (throughput.error_at, throughput.count) == (6.0, 1)


def test_the_gain_is_a_mean_over_the_frames_that_the_model_described():
    throughput = Throughput()
    assert (throughput.gain(), throughput.unchanged) == (1.0, 0)
    throughput.described(1.0, 0.1, gain=2.0)
    throughput.described(2.0, 0.1, gain=4.0)
    throughput.described(3.0, 0.1, gain=9.0, unchanged=True)
    assert (throughput.gain(), throughput.unchanged, throughput.count) == (3.0, 1, 3)
    for _ in range(MAX_GAINS):
        throughput.described(4.0, 0.1, gain=1.5)
    assert throughput.gain() == 1.5
