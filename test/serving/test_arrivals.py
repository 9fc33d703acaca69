# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Silence, rate and loss of a camera, from arrival times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.serving.arrivals import Arrivals


def arrivals_of(moments, lost=0):
    """Return the arrivals of a camera; before each frame the same number is lost."""
    arrivals = Arrivals(0.0)
    for moment in moments:
        arrivals.arrived(moment, lost)
    return arrivals


def test_silence_counts_from_the_start_and_then_from_the_newest_frame():
    arrivals = Arrivals(10.0)
    assert arrivals.last is None
    assert arrivals.silence(13.0) == 3.0
    arrivals.arrived(14.0)
    assert arrivals.last == 14.0
    assert arrivals.silence(14.5) == 0.5


def test_nothing_is_lost_and_no_rate_is_known_before_the_first_frame():
    arrivals = Arrivals(10.0)
    assert (arrivals.rate(11.0), arrivals.lost(11.0)) == (0.0, 0.0)


def test_the_rate_of_a_complete_stream_is_that_of_the_camera():
    arrivals = arrivals_of([n / 30 for n in range(400)])
    assert arrivals.rate(399 / 30) == pytest.approx(30)
    assert arrivals.lost(399 / 30) == 0.0


def test_the_rate_needs_two_frames_within_the_window():
    assert arrivals_of([1000.0]).rate(1001.0) == 0.0
    arrivals = arrivals_of([1000.0, 1002.0])
    assert arrivals.rate(1002.0) == 0.5
    assert arrivals.rate(1010.0) == 0.1  # the first frame is exactly one window old
    assert arrivals.rate(1010.5) == 0.0


def test_two_frames_at_the_same_time_have_no_rate():
    assert arrivals_of([5.0, 5.0]).rate(5.0) == 0.0


@given(st.lists(st.floats(0.0, 3.0), max_size=50))
@pytest.mark.fault(26)
def test_frames_at_any_moments_are_no_sign_of_loss(intervals):
    """Cameras send pairs and bursts, change their rate and pause."""
    arrivals = Arrivals(0.0)
    now = 0.0
    for interval in intervals:
        now += interval
        arrivals.arrived(now)
        assert arrivals.lost(now) == 0.0
    assert arrivals.missed == 0


def test_the_loss_is_the_share_of_the_frames_that_are_known_to_be_lost():
    arrivals = Arrivals(0.0)
    for second, lost in enumerate((0, 0, 5, 1)):
        arrivals.arrived(float(second), lost)
    assert arrivals.missed == 6
    assert arrivals.lost(3.0) == pytest.approx(0.6)  # 4 of 10 arrived
    assert arrivals.rate(3.0) == 1.0


def test_frames_lost_before_the_first_one_in_the_window_do_not_count():
    assert arrivals_of([0.0, 1.0, 2.0], lost=4).lost(2.0) == pytest.approx(8 / 11)


def test_two_frames_are_too_few_to_judge_a_loss():
    assert arrivals_of([0.0, 1.0], lost=99).lost(1.0) == 0.0


def test_loss_before_forget_does_not_count():
    arrivals = arrivals_of([float(n) for n in range(10)], lost=3)
    arrivals.forget(9.0)
    assert arrivals.lost(9.0) == 0.0
    assert arrivals.silence(11.5) == 2.5
    for moment in (10.0, 11.0):
        arrivals.arrived(moment)
    assert arrivals.lost(11.0) == 0.0
    arrivals.forget(7.5)
    assert arrivals.lost(11.0) == pytest.approx(3 / 7)


def test_a_frame_at_the_moment_of_forget_counts():
    arrivals = arrivals_of([0.0, 1.0, 2.0], lost=3)
    arrivals.forget(0.0)
    assert arrivals.lost(2.0) == pytest.approx(6 / 9)
    arrivals.forget(0.001)
    assert arrivals.lost(2.0) == 0.0


def test_a_camera_that_has_stopped_loses_nothing():
    arrivals = arrivals_of([float(n) for n in range(10)], lost=3)
    assert arrivals.lost(10.0) > 0.5
    assert arrivals.lost(20.0) == 0.0


def test_silence_and_loss_do_not_count_before_a_later_restart():
    arrivals = arrivals_of([float(n) for n in range(10)], lost=3)
    arrivals.restart(11.0)
    assert [arrivals.silence(now) for now in (10.0, 11.0, 12.5)] == [0.0, 0.0, 1.5]
    assert arrivals.lost(10.0) == arrivals.lost(12.0) == 0.0
    arrivals.arrived(13.0)
    assert arrivals.silence(13.5) == 0.5


def test_only_the_window_is_judged():
    arrivals = Arrivals(0.0, window=10.0)
    for second in range(100):
        arrivals.arrived(float(second), lost=7 if second < 50 else 0)
    assert arrivals.rate(99.0) == pytest.approx(1.0)
    assert arrivals.lost(99.0) == 0.0


def test_frames_older_than_the_window_are_not_kept():
    arrivals = Arrivals(0.0, window=10.0)
    for second in range(100):
        arrivals.arrived(float(second))
    assert [frame.arrived for frame in arrivals._frames] == list(range(89, 100))


# Frames that are left unread on purpose ----------------------------------------------------------


def test_frames_that_are_skipped_on_purpose_are_not_lost_but_count_in_the_rate():
    arrivals = Arrivals(0.0)
    for second in range(5):
        arrivals.sampled(float(second), sent=30)
    assert (arrivals.missed, arrivals.lost(4.0), arrivals.rate(4.0)) == (0, 0.0, 30.0)


def test_the_loss_counts_from_the_first_frame_after_those_that_were_skipped():
    arrivals = arrivals_of([0.0])
    arrivals.sampled(1.0, sent=30)
    for moment in (1.1, 1.2):
        arrivals.arrived(moment)
    assert arrivals.lost(1.2) == 0.0
    arrivals.arrived(1.3, lost=5)
    assert arrivals.lost(1.3) == pytest.approx(1 - 4 / 9)


def test_no_rate_is_known_after_an_unknown_number_of_skipped_frames():
    arrivals = arrivals_of([0.0, 0.1])
    arrivals.sampled(1.0, sent=None)
    assert arrivals.rate(1.0) == 0.0
    arrivals.arrived(1.5)
    assert arrivals.rate(1.5) == 2.0


# Silence -----------------------------------------------------------------------------------------


def test_a_fast_camera_is_silent_after_the_timeout():
    arrivals = arrivals_of([n / 10 for n in range(100)])
    assert not arrivals.silent(9.9 + 5.0, 5.0)
    assert arrivals.silent(9.9 + 5.1, 5.0)
    assert not arrivals.silent(1e9, 0.0)


def test_a_slow_camera_is_silent_after_two_of_its_periods():
    arrivals = arrivals_of([0.0, 10.0, 20.0, 30.0])
    assert not arrivals.silent(50.0, 5.0)
    assert arrivals.silent(50.1, 5.0)
    assert not arrivals.silent(50.1, 25.0)  # the timeout is longer


def test_one_pause_does_not_make_a_camera_slow():
    arrivals = arrivals_of([0.0, 0.1, 0.2, 60.0, 60.1, 60.2])
    assert arrivals.silent(65.3, 5.0)


def test_the_period_follows_a_camera_that_changes_its_rate():
    arrivals = arrivals_of([float(10 * n) for n in range(5)])
    for n in range(1, 6):
        arrivals.arrived(40.0 + n / 10)
    assert arrivals.silent(45.6, 5.0)


def test_a_camera_that_has_never_sent_a_frame_is_silent_after_the_timeout():
    assert [Arrivals(10.0).silent(now, 5.0) for now in (15.0, 15.1)] == [False, True]
