# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Metrics of an evaluation, from results written down by hand."""

import pytest

from training.evaluation import iou
from training.results import PredictedBox, Results, metrics


def test_the_iou_is_the_shared_area_over_the_common_one() -> None:
    assert iou((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5)) == 1.0
    assert iou((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5)) == 0.0
    assert iou((0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 1.0, 1.0)) == 0.0
    assert iou((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0)) == pytest.approx(1 / 3)


def test_nothing_is_measured_without_results() -> None:
    assert set(metrics([]).values()) == {None}


def test_metrics_add_up_the_results_of_all_scenes() -> None:
    first = Results(
        predicted=2,
        expected=3,
        correct=1,
        ious=(0.5, 0.75),
        detailed=(1, 1, 1),
        answers=(("count_question", True), ("absent", False)),
    )
    second = Results(
        predicted=1,
        expected=2,
        correct=1,
        ious=(1.0,),
        detailed=(3, 4, 1),
        answers=(("beside_question", False),),
    )
    measured = metrics([first, second])
    assert measured["phrase_f1"] == pytest.approx(2 * 2 / (3 + 5))
    assert measured["mean_iou"] == pytest.approx(0.75)
    assert measured["iou50"] == pytest.approx(2 / 3)  # 0.5 itself does not count
    assert measured["detailed_f1"] == pytest.approx(2 * 2 / (4 + 5))
    assert (measured["question_accuracy"], measured["absent_accuracy"]) == (0.5, 0.0)
    assert measured["region_accuracy"] is None


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    right = [PredictedBox(0.9, score) for score in (0.9, 0.5)]
    wrong = [PredictedBox(0.5, score) for score in (0.5, 0.1)]
    measured = metrics([Results(boxes=(*right, *wrong))])
    assert measured["score_auroc"] == pytest.approx(3.5 / 4)  # the tie counts half
    misnamed = PredictedBox(0.9, 0.95, named=False)
    measured = metrics([Results(boxes=(*right, *wrong, misnamed))])
    assert measured["score_auroc"] == pytest.approx(5.5 / 6)
    assert measured["named_auroc"] == pytest.approx(3.5 / 6)
    assert metrics([Results(boxes=tuple(right))])["score_auroc"] is None
