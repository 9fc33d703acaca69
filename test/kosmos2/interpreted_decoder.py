# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A decoder with Triton's kernels writes the tokens of one without. test_kernels.py runs this.

It needs Triton's interpreter (TRITON_INTERPRET=1), which the whole process must use.
"""

import numpy as np
import pytest
import torch
from interpreted_kernels import tiles

from kosmos_ros.kosmos2 import kernels, prompts
from kosmos_ros.kosmos2.cuda_graphs import Graphs
from kosmos_ros.kosmos2.decoder import Decoder
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.query import Earlier, Query
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PROMPT = prompts.caption("brief_caption").text
TOKENS = 3
OPTIONS = {"device": "cpu", "dtype": "float16", "no_repeat_ngram_size": 3}


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch):
    """The interpreter takes as long for a small tile."""
    large = tiles((128, 128, 4), (128, 128, 1, 4, 2), 64)
    monkeypatch.setattr("kosmos_ros.kosmos2.kernels.tiles.tiles", lambda shared: large)


@pytest.fixture(scope="module")
def images():
    return Engine.load("shapes", **OPTIONS).encode_batch(
        [render(sample_scene(np.random.default_rng(seed), 320, 240)) for seed in (4, 5)]
    )


def of_one_layer(graphs=None):
    """An engine that takes the interpreter a third of the time."""
    engine = Engine.load("shapes", **OPTIONS)
    model, old = engine.model.text_model, engine._decoder
    model.model.layers = model.model.layers[:1]
    with torch.inference_mode():
        passes = old._passes
        engine._decoder = Decoder(
            model, old._prefix, passes._image, passes._rules, graphs, passes._neighbours
        )
    return engine


def test_rows_write_the_same_tokens_with_kernels(images, monkeypatch):
    """One row and two, with drafts and without, in passes of fixed shape."""
    queries = [Query(image, PROMPT, TOKENS) for image in images]
    monkeypatch.setattr(kernels, "available", lambda *_: False)
    without = of_one_layer()
    expected = [*without.generate_batch(queries), *without.generate_batch(queries[:1])]
    monkeypatch.undo()
    engine = of_one_layer(Graphs(fixed=True))
    assert without._decoder._passes.kernels is None and engine._decoder._passes.kernels is not None
    ran, call = [], type(engine._decoder._passes.kernels).__call__
    monkeypatch.setattr(
        type(engine._decoder._passes.kernels),
        "__call__",
        lambda self, state, count, window: (
            ran.append((count, window, done := call(self, state, count, window))) or done
        ),
    )
    found = [*engine.generate_batch(queries), *engine.generate_batch(queries[:1])]
    near(found, expected)
    assert {(1, 1, True), (2, 1, True)} == set(ran)
    ids = list(expected[0].ids)
    ids[0] += 1
    drafted = Query(images[0], PROMPT, TOKENS, earlier=Earlier(tuple(ids)))
    near(engine.generate_batch([drafted]), expected[:1])
    assert any(window > 1 and done for _, window, done in ran)


def near(found, expected):
    for answer, other in zip(found, expected, strict=True):
        assert answer.ids == other.ids
        assert answer.score == pytest.approx(other.score, abs=5e-3)
        assert np.allclose(answer.location_points, other.location_points, atol=5e-3)
