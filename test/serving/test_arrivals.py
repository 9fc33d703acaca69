# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Silence, rate and loss of a camera, from arrival times and stamps."""

import pytest

from kosmos_ros.serving.arrivals import Arrivals

TWO_OF_SEVEN = [n / 10 for n in range(100) if n % 7 in (0, 1)]
"""Stamps of a 10 Hz camera of which two frames in seven arrive."""


def arrivals_of(stamps):
    """Return a camera's arrivals; each frame arrives 1000 s after its stamp."""
    arrivals = Arrivals(0.0)
    for stamp in stamps:
        arrivals.arrived(1000.0 + stamp, stamp)
    return arrivals


def lost(stamps):
    """Return the loss right after the newest frame."""
    return arrivals_of(stamps).lost(1000.0 + stamps[-1])


def test_silence_counts_from_the_start_and_then_from_the_newest_frame():
    arrivals = Arrivals(10.0)
    assert arrivals.last is None
    assert arrivals.silence(13.0) == 3.0
    arrivals.arrived(14.0, 0.0)
    assert arrivals.last == 14.0
    assert arrivals.silence(14.5) == 0.5


def test_nothing_is_lost_and_no_rate_is_known_before_the_first_frame():
    arrivals = Arrivals(10.0)
    assert (arrivals.rate(11.0), arrivals.lost(11.0)) == (0.0, 0.0)


def test_a_complete_stream_has_lost_nothing():
    stamps = [n / 30 for n in range(400)]
    assert lost(stamps) == pytest.approx(0, abs=0.02)
    assert arrivals_of(stamps).rate(1000.0 + stamps[-1]) == pytest.approx(30)


def test_the_rate_needs_two_frames_within_the_window():
    arrivals = arrivals_of([0.0])
    assert arrivals.rate(1001.0) == 0.0
    arrivals = arrivals_of([0.0, 2.0])
    assert arrivals.rate(1002.0) == 0.5
    assert arrivals.rate(1010.0) == 0.1  # the first frame is exactly one window old
    assert arrivals.rate(1010.5) == 0.0


def test_two_frames_at_the_same_time_have_no_rate():
    arrivals = Arrivals(0.0)
    for _ in range(2):
        arrivals.arrived(5.0, 0.0)
    assert arrivals.rate(5.0) == 0.0


def test_gaps_between_stamps_are_lost_frames():
    assert lost(TWO_OF_SEVEN) == pytest.approx(1 - 2 / 7, abs=0.05)


def test_one_late_stamp_does_not_count_as_loss():
    """It makes one distance between stamps ten times too short."""
    stamps = [n / 10 for n in range(100)]
    for number in (20, 70):
        stamps[number] += 0.09
    assert lost(stamps) == pytest.approx(0, abs=0.05)


def test_loss_in_one_half_of_the_window_alone_is_none():
    complete, gaps = [n / 10 for n in range(100)], [10 + stamp / 2 for stamp in TWO_OF_SEVEN]
    assert lost(complete + gaps) == pytest.approx(0, abs=0.05)


def test_a_camera_that_changes_its_rate_has_lost_nothing():
    fast = [n / 30 for n in range(300)]
    slow = [10 + n / 5 for n in range(1, 50)]
    for end in range(1, 50):
        assert lost(fast + slow[:end]) < 0.2


def test_a_camera_that_has_stopped_loses_nothing():
    arrivals = arrivals_of(TWO_OF_SEVEN)
    assert arrivals.lost(1010.0) > 0.5
    assert arrivals.lost(1020.0) == 0.0


def test_loss_before_forget_does_not_count():
    arrivals = arrivals_of(TWO_OF_SEVEN)
    arrivals.forget(1010.0)
    assert arrivals.lost(1010.0) == 0.0
    assert arrivals.silence(1012.9) == pytest.approx(3)


def test_a_frame_that_arrives_at_the_moment_of_forget_counts():
    arrivals = arrivals_of(TWO_OF_SEVEN)
    arrivals.forget(1000.0)
    assert arrivals.lost(1010.0) == arrivals_of(TWO_OF_SEVEN).lost(1010.0)


def test_silence_and_loss_do_not_count_before_a_later_restart():
    arrivals = arrivals_of(TWO_OF_SEVEN)
    arrivals.restart(1011.0)
    assert [arrivals.silence(now) for now in (1010.0, 1011.0, 1012.5)] == [0.0, 0.0, 1.5]
    assert arrivals.lost(1010.0) == arrivals.lost(1012.0) == 0.0
    arrivals.arrived(1013.0, 0.0)
    assert arrivals.silence(1013.5) == 0.5


@pytest.mark.parametrize(
    "stamps", [[], [1.0], [0.0] * 20, [5, 4, 3, 2, 1, 0, -1], [1, 2, 30, 40], [0, 0.1, 5, 10, 15]]
)
@pytest.mark.fault(26)
def test_too_few_or_useless_stamps_show_no_loss(stamps):
    arrivals = Arrivals(0.0)
    for second, stamp in enumerate(stamps):
        arrivals.arrived(float(second), stamp)
    assert arrivals.lost(float(len(stamps))) == 0.0


def test_only_the_window_is_judged():
    arrivals = Arrivals(0.0, window=10.0)
    for second in range(100):
        arrivals.arrived(float(second), float(second if second < 50 else 10 * second))
    assert arrivals.rate(99.0) == pytest.approx(1.0)
    assert arrivals.lost(99.0) == pytest.approx(0.0)


def test_frames_older_than_the_window_are_not_kept():
    arrivals = Arrivals(0.0, window=10.0)
    for second in range(100):
        arrivals.arrived(float(second), float(second))
    assert [frame.arrived for frame in arrivals._frames] == list(range(89, 100))


def test_a_frame_at_the_moment_of_forgetting_still_counts():
    arrivals = arrivals_of([0.0, 1.0, 4.0, 6.0, 7.0, 10.0])
    arrivals.forget(1000.0)
    assert arrivals.lost(1010.0) == pytest.approx(0.4)  # three of five in each half
    arrivals.forget(1000.001)
    assert arrivals.lost(1010.0) == 0.0  # two frames in a half are too few to judge


def numbered(*frames):
    """Return arrivals of (seconds, frames sent since the one before, skipped on purpose)."""
    arrivals = Arrivals(0.0)
    for second, sent, skipped in frames:
        arrivals.arrived(second, 0.0, sent, skipped)
    return arrivals


def test_the_loss_is_exact_if_the_number_of_sent_frames_is_known():
    arrivals = numbered((0.0, None, False), (1.0, 1, False), (2.0, 6, False), (3.0, 2, False))
    assert arrivals.missed == 6
    assert arrivals.lost(3.0) == pytest.approx(0.6)  # 4 of 10 arrived, with useless stamps
    assert arrivals.rate(3.0) == 1.0


def test_two_frames_are_too_few_to_judge_a_loss():
    assert numbered((0.0, None, False), (1.0, 100, False)).lost(1.0) == 0.0


def test_frames_that_are_skipped_on_purpose_are_not_lost_but_count_in_the_rate():
    arrivals = numbered(*((float(second), 30, True) for second in range(5)))
    assert (arrivals.missed, arrivals.lost(4.0), arrivals.rate(4.0)) == (0, 0.0, 30.0)


def test_the_loss_counts_from_the_first_frame_after_those_that_were_skipped():
    frames = [(0.0, None, False), (1.0, 30, True), (1.1, 1, False), (1.2, 1, False)]
    assert numbered(*frames).lost(1.2) == 0.0
    assert numbered(*frames, (1.3, 6, False)).lost(1.3) == pytest.approx(1 - 4 / 9)


def test_no_rate_is_known_after_an_unknown_number_of_skipped_frames():
    arrivals = numbered((0.0, None, False), (0.1, None, False), (1.0, None, True))
    assert arrivals.rate(1.0) == 0.0
    arrivals.arrived(1.5, 0.0)
    assert arrivals.rate(1.5) == 2.0


def test_stamps_show_the_loss_again_if_a_number_is_unknown():
    arrivals = arrivals_of([n / 10 for n in range(100)])
    arrivals.arrived(1010.0, 10.0, sent=500)
    assert arrivals.lost(1010.0) == pytest.approx(0, abs=0.05)
    assert arrivals.missed == 499
