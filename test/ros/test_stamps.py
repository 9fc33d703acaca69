# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stamps are compared with the node's clock; each fault is named once."""

from types import SimpleNamespace

import pytest

from kosmos_ros.ros.stamps import AHEAD, OLD, STILL, Stamps


def stamps_of_a_camera(texts, sim_time=False):
    logger = SimpleNamespace(warning=texts.append)
    parameter = SimpleNamespace(value=sim_time)
    node = SimpleNamespace(get_logger=lambda: logger, get_parameter=lambda name: parameter)
    return Stamps(node, "a camera")


@pytest.mark.parametrize(
    ("ahead", "warnings"), [(AHEAD / 2, 0), (2 * AHEAD, 1), (-OLD / 2, 0), (-2 * OLD, 1)]
)
def test_a_stamp_that_is_far_from_the_clock_is_named_once(ahead, warnings):
    texts = []
    stamps = stamps_of_a_camera(texts)
    for now in (1e9, 1e9 + 1):
        stamps.check(now + ahead, now)
    assert len(texts) == warnings
    assert AHEAD < 60 < OLD


@pytest.mark.parametrize("latched", [False, True])
def test_a_latched_image_that_is_described_again_is_no_fault(latched):
    texts = []
    stamps = stamps_of_a_camera(texts)
    for now in range(2 * STILL):
        assert stamps.time(7.0, now, latched) == 7.0 + now
    assert len(texts) == (0 if latched else 1)
