# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The default of `min_score` separates phrases in view from absent ones."""

import pytest

from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.serving.node_settings import FIELDS
from training.evaluation import Evaluator
from training.min_score import Scores, measure


def test_shares_count_the_scores_from_the_least_one_on() -> None:
    scores = Scores(right=(0.05, 0.1, 0.5, 1.0), shapes=(-1.0, 0.0), things=(-1.0,))
    assert scores.shares(0.0) == (1.0, 0.5, 0.0)
    assert scores.shares(0.1) == (0.75, 0.0, 0.0)
    assert Scores((), (), ()).shares(0.1) == (0.0, 0.0, 0.0)


@pytest.mark.slow
def test_the_default_keeps_right_boxes_and_drops_those_of_absent_things() -> None:
    engine = Engine.load("shapes", local_files_only=True, device="cpu", threads=1)
    scores = measure(Evaluator(engine), scenes=50)
    kept, shapes, things = scores.shares(FIELDS["min_score"].default)
    assert len(scores.right) > 100
    assert kept > 0.99
    assert shapes == 0
    assert things < 0.5 * scores.shares(0.0)[2]
