# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The parameters that say how the model decodes reach the engine."""

import numpy as np
import pytest

from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.query import Query
from kosmos_ros.ros.model_host import load_engine
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene


@pytest.fixture(scope="module")
def picture():
    return render(sample_scene(np.random.default_rng(5), 480, 270))


def answer(picture, **parameters):
    engine = load_engine(NodeSettings(model="shapes", device="cpu", **parameters))
    text = prompts.caption("detailed_caption").text
    return engine.generate(engine.encode(picture), text, 64)


def repeated(ids, size):
    sequences = list(zip(*(ids[start:] for start in range(size)), strict=False))
    return len(sequences) - len(set(sequences))


def test_a_node_refines_boxes_unless_it_is_told_not_to(picture):
    refined, cells = answer(picture), answer(picture, refine_boxes=False)
    assert refined.ids == cells.ids
    assert len(refined.location_points) == len(refined.location_scores) > 0
    assert cells.location_points == ()


def test_a_node_learns_what_usually_follows(picture):
    engine = load_engine(NodeSettings(model="shapes", device="cpu"))
    image, text, passes = engine.encode(picture), prompts.caption("detailed_caption").text, []
    for _ in range(5):
        steps = []
        engine.generate_batch([Query(image, text, 64, progress=steps.append)])
        passes.append(len(steps))
    assert passes[0] == steps[-1].tokens
    assert passes[-1] < 0.7 * passes[0]


@pytest.mark.parametrize(("size", "expected"), [(-1, False), (0, False), (3, True), (2, True)])
def test_the_parameter_overrides_the_models_limit_of_repetition(picture, size, expected):
    """The embedded model has no limit of its own, because its captions repeat phrases."""
    ids = answer(picture, no_repeat_ngram_size=size).ids
    assert (repeated(ids, abs(size) or 3) == 0) == expected or repeated(ids, 3) == 0
