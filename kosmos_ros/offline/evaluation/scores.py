# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Score boxes, and compute confidence intervals of mean scores. Knows no data set and no model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Corners = tuple[float, float, float, float]
"""A box: x_min, y_min, x_max, y_max."""

CONFIDENCE = 0.95  # of all intervals
Z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # 1.96, standard errors


def iou(one: Corners, other: Corners) -> float:
    """Return the intersection over union, 0 to 1, of two boxes.

    Two boxes without area have 0.
    """
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0.0) * max(down, 0.0)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def wilson(found: Sequence[float]) -> tuple[float, float]:
    """Return Wilson's interval at CONFIDENCE of the mean of scores, each 0 or 1.

    Scores between 0 and 1 vary less, so the interval is wider than needed for them. Raises
    ValueError if there are none. Source: E. B. Wilson, "Probable inference, the law of
    succession, and statistical inference", 1927.
    """
    if not found:
        raise ValueError("scores must not be empty")
    mean, share = statistics.fmean(found), Z * Z / len(found)
    centre = (mean + share / 2) / (1 + share)
    half = math.sqrt(share * (mean * (1 - mean) + share / 4)) / (1 + share)
    # Rounding would leave the mean itself outside, if it is 0 or 1.
    return min(max(centre - half, 0.0), mean), max(min(centre + half, 1.0), mean)


def normal(found: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval at CONFIDENCE of the mean of scores of any size; None for fewer than 2.

    It is the mean plus or minus Z standard errors.
    """
    if len(found) < 2:
        return None
    mean = statistics.fmean(found)
    half = Z * statistics.stdev(found) / math.sqrt(len(found))
    return mean - half, mean + half
