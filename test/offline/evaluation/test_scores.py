# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scores of boxes, and the intervals of mean scores."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.offline.evaluation.scores import iou, normal, wilson

GRID = 12  # cells


def box(least_side=0):
    """Return a strategy of boxes whose corners are whole numbers in a grid."""
    side = st.tuples(st.integers(0, GRID), st.integers(0, GRID)).filter(
        lambda ends: ends[1] - ends[0] >= least_side
    )
    return st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), side, side)


def cells(corners):
    """Return which cells of the grid a box covers."""
    x_min, y_min, x_max, y_max = corners
    covered = np.zeros((GRID, GRID), bool)
    covered[y_min:y_max, x_min:x_max] = True
    return covered


@given(box(), box())
def test_iou_is_the_share_of_covered_cells(one, other):
    both = np.logical_and(cells(one), cells(other)).sum()
    either = np.logical_or(cells(one), cells(other)).sum()
    assert iou(one, other) == pytest.approx(both / either if either else 0)


@given(box(1), box(1), st.floats(0.01, 100), st.floats(0.01, 100))
def test_iou_is_the_same_in_any_unit_and_order(one, other, width, height):
    scaled = [
        (x_min * width, y_min * height, x_max * width, y_max * height)
        for x_min, y_min, x_max, y_max in (one, other)
    ]
    assert iou(*scaled) == pytest.approx(iou(one, other))
    assert iou(other, one) == iou(one, other)
    assert iou(one, one) == 1


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilsons_interval_ends_where_the_mean_is_z_standard_errors_away(right, count):
    right = min(right, count)
    mean = right / count
    for end in wilson([1.0] * right + [0.0] * (count - right)):
        error = math.sqrt(end * (1 - end) / count)
        assert abs(mean - end) == pytest.approx(1.959964 * error, abs=1e-6)


def test_wilsons_interval_has_the_known_values():
    assert wilson([0.0] * 10) == pytest.approx((0, 0.2775), abs=5e-5)
    assert wilson([1.0] * 5 + [0.0] * 5) == pytest.approx((0.2366, 0.7634), abs=5e-5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_wilsons_interval_contains_the_mean_and_stays_in_range(scores):
    low, high = wilson(scores)
    mean = statistics.fmean(scores)
    assert 0 <= low <= mean <= high <= 1
    assert low < high
    again = wilson(scores * 4)
    assert again[1] - again[0] < high - low


@given(st.lists(st.floats(0, 10), min_size=2, max_size=50))
def test_the_interval_of_other_scores_is_around_their_mean(scores):
    low, high = normal(scores)
    assert low <= statistics.fmean(scores) <= high
    assert (low + high) / 2 == pytest.approx(statistics.fmean(scores))


def test_the_interval_of_other_scores_is_two_standard_errors_wide():
    low, high = normal([1.0, 3.0])  # mean 2, standard error 1
    assert (low, high) == pytest.approx((2 - 1.96, 2 + 1.96), abs=1e-3)
    assert normal([1.0]) is None


def test_there_is_no_interval_without_scores():
    with pytest.raises(ValueError, match="must not be empty"):
        wilson([])
