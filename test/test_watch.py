"""What the input's arrivals and stamps say."""

import pytest

from kosmos_ros.watch import InputWatch


def fed(stamps, started=0.0):
    watch = InputWatch(started)
    for stamp in stamps:
        watch.arrived(1000.0 + stamp, stamp)
    return watch


def test_silence_counts_from_the_start_and_then_from_the_newest_frame():
    watch = InputWatch(10.0)
    assert watch.silence(13.0) == 3.0
    watch.arrived(14.0, 0.0)
    assert watch.silence(14.5) == 0.5


def test_a_complete_stream_has_lost_nothing():
    watch = fed([n / 30 for n in range(200)])
    assert watch.lost() == pytest.approx(0, abs=0.02)
    assert watch.rate() == pytest.approx(30)


def test_gaps_between_stamps_are_lost_frames():
    arrived = [0, 1, 9, 20, 29]
    assert fed([n / 5 for n in arrived]).lost() == pytest.approx(1 - 5 / 30)


def test_what_came_before_is_forgotten():
    watch = fed([n / 5 for n in (0, 1, 9, 20, 29)])
    watch.forget()
    assert watch.lost() == 0.0
    assert watch.silence(1000.0 + 29 / 5 + 3) == pytest.approx(3)


@pytest.mark.parametrize("stamps", [[], [1.0], [0.0] * 20, [5, 4, 3, 2, 1], [1, 2, 30, 40]])
def test_too_few_or_useless_stamps_accuse_nobody(stamps):
    watch = InputWatch(0.0)
    for second, stamp in enumerate(stamps):
        watch.arrived(2.0 * second, stamp)
    assert watch.lost() == 0.0


def test_a_hiccup_at_the_start_accuses_nobody():
    assert fed([0, 0.1, 0.2, 2.0, 4.0]).lost() == 0.0
    assert fed([0, 0.1, 0.2, 2.0, 6.0]).lost() > 0.5


def test_only_the_window_is_judged():
    watch = InputWatch(0.0, window=10.0)
    for second in range(100):
        watch.arrived(float(second), float(second if second < 50 else 10 * second))
    assert watch.rate() == pytest.approx(1.0)
    assert watch.lost() == pytest.approx(0.0)
