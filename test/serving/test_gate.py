# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which frames of a camera are read while somebody or nobody needs them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.serving.gate import LOOK_PERIOD, Gate


def test_the_first_frame_is_read_though_nobody_needs_it():
    assert Gate().update(0.0, needed=False)


def test_one_frame_in_a_period_is_read_while_nobody_needs_frames():
    gate = Gate()
    read = []
    for number in range(1000):
        now = number / 100
        if gate.update(now, needed=False):
            read.append(now)
            gate.passed(now, needed=False)
    assert read == pytest.approx([n * LOOK_PERIOD for n in range(10)])


def test_every_frame_is_read_while_somebody_needs_frames():
    gate = Gate()
    for number in range(100):
        assert gate.update(number / 30, needed=True)
        gate.passed(number / 30, needed=True)
        assert not gate.closed


def test_a_gate_that_was_opened_stays_open_until_a_frame_has_passed():
    gate = Gate()
    gate.passed(0.0, needed=False)
    assert gate.closed
    assert gate.update(0.1, needed=True)
    assert gate.update(0.2, needed=False)
    gate.passed(0.3, needed=False)
    assert not gate.update(0.3 + LOOK_PERIOD / 2, needed=False)
    assert gate.update(0.3 + LOOK_PERIOD, needed=False)


moves = st.lists(st.tuples(st.floats(0.0, 0.5), st.booleans(), st.booleans()), max_size=60)


@given(moves)
def test_the_rules_hold_in_any_order_of_events(moves):
    """Each move: seconds pass, somebody needs frames or not, and a frame is there or not."""
    gate, now, read = Gate(), 0.0, float("-inf")
    for passed, needed, frame in moves:
        now += passed
        is_open = gate.update(now, needed)
        assert is_open is not gate.closed
        assert is_open or not needed, "open to everybody who needs frames"
        assert is_open or now < read + LOOK_PERIOD, "never closed for longer than a period"
        if is_open and frame:
            read = now
            gate.passed(now, needed)
            assert gate.closed is not needed
