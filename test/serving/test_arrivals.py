# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the input's arrivals and stamps say."""

import pytest

from kosmos_ros.serving.arrivals import Arrivals


def fed(stamps):
    watch = Arrivals(0.0)
    for stamp in stamps:
        watch.arrived(1000.0 + stamp, stamp)
    return watch


def lost(stamps):
    """By a watch that is asked at once."""
    return fed(stamps).lost(1000.0 + stamps[-1])


def test_silence_counts_from_the_start_and_then_from_the_newest_frame():
    watch = Arrivals(10.0)
    assert watch.silence(13.0) == 3.0
    watch.arrived(14.0, 0.0)
    assert watch.silence(14.5) == 0.5


def test_a_complete_stream_has_lost_nothing():
    stamps = [n / 30 for n in range(400)]
    assert lost(stamps) == pytest.approx(0, abs=0.02)
    assert fed(stamps).rate(1000.0 + stamps[-1]) == pytest.approx(30)


def test_gaps_between_stamps_are_lost_frames():
    stamps = [n / 10 for n in range(100) if n % 7 in (0, 1)]
    assert lost(stamps) == pytest.approx(1 - 2 / 7, abs=0.05)


def test_a_camera_that_changes_its_rate_has_lost_nothing():
    fast = [n / 30 for n in range(300)]
    slow = [10 + n / 5 for n in range(1, 50)]
    for end in range(1, 50):
        assert lost(fast + slow[:end]) < 0.2


def test_a_camera_that_has_stopped_loses_nothing():
    stamps = [n / 10 for n in range(100) if n % 7 in (0, 1)]
    watch = fed(stamps)
    assert watch.lost(1010.0) > 0.5
    assert watch.lost(1020.0) == 0.0


def test_what_came_before_is_forgotten():
    watch = fed([n / 10 for n in range(100) if n % 7 in (0, 1)])
    watch.forget(1010.0)
    assert watch.lost(1010.0) == 0.0
    assert watch.silence(1012.9) == pytest.approx(3)


def test_a_watch_that_restarts_later_counts_nothing_until_then():
    watch = fed([n / 10 for n in range(100) if n % 7 in (0, 1)])
    watch.restart(1011.0)
    assert [watch.silence(now) for now in (1010.0, 1011.0, 1012.5)] == [0.0, 0.0, 1.5]
    assert watch.lost(1010.0) == watch.lost(1012.0) == 0.0
    watch.arrived(1013.0, 0.0)
    assert watch.silence(1013.5) == 0.5


@pytest.mark.parametrize(
    "stamps", [[], [1.0], [0.0] * 20, [5, 4, 3, 2, 1, 0, -1], [1, 2, 30, 40], [0, 0.1, 5, 10, 15]]
)
@pytest.mark.fault(26)
def test_too_few_or_useless_stamps_accuse_nobody(stamps):
    watch = Arrivals(0.0)
    for second, stamp in enumerate(stamps):
        watch.arrived(float(second), stamp)
    assert watch.lost(float(len(stamps))) == 0.0


def test_only_the_window_is_judged():
    watch = Arrivals(0.0, window=10.0)
    for second in range(100):
        watch.arrived(float(second), float(second if second < 50 else 10 * second))
    assert watch.rate(99.0) == pytest.approx(1.0)
    assert watch.lost(99.0) == pytest.approx(0.0)
