# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The renderer draws what the scene describes."""

import numpy as np
import pytest
from PIL import Image

from kosmos_ros.shapes.rendering import ink, render
from kosmos_ros.shapes.scenes import (
    APART,
    COLOURS,
    KINDS,
    Background,
    Light,
    Scene,
    Shape,
    moving_scene,
    sample_scene,
)

GREY = Background("plain", ((120, 120, 120), (120, 120, 120)), 0)


def extent(painted: np.ndarray) -> tuple[float, float, float, float]:
    """Return (x1, y1, x2, y2) in pixels around the true values of (H, W)."""
    rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), [(160, 120), (640, 360), (1920, 1080)])
@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_a_box_is_tight_around_the_drawn_pixels(
    kind: str, width: int, height: int, turn: float
) -> None:
    box = (0.213, 0.34, 0.527, 0.71)
    drawn = render(Scene((Shape(kind, "red", box, turn),), width, height, GREY))
    painted = np.abs(drawn.astype(int) - 120).sum(-1) > 0
    expected = np.array(box) * (width, height, width, height)
    assert np.abs(np.array(extent(painted)) - expected).max() <= 1.0


@pytest.mark.parametrize("colour", COLOURS)
def test_a_shape_is_drawn_in_its_colour(colour: str) -> None:
    drawn = render(Scene((Shape("square", colour, (0.2, 0.2, 0.8, 0.8)),), 160, 120, GREY))
    assert tuple(drawn[60, 80]) == COLOURS[colour]


def test_a_ring_has_a_hole() -> None:
    covered = ink(Shape("ring", "red", (0.0, 0.0, 1.0, 1.0)), 100, 100)
    assert covered[50, 50] == 0.0
    assert covered[50, 10] == 1.0


def test_the_same_seed_gives_the_same_pixels() -> None:
    first, second = (render(sample_scene(np.random.default_rng(5), 192, 144)) for _ in range(2))
    other = render(sample_scene(np.random.default_rng(6), 192, 144))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_scene_looks_the_same_at_every_resolution() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        sampled = sample_scene(rng, 192, 144)
        small, large = (
            render(Scene(sampled.shapes, 192 * scale, 144 * scale, sampled.background, Light()))
            for scale in (1, 4)
        )
        reduced = np.asarray(Image.fromarray(large).reduce(4))
        assert np.abs(small.astype(int) - reduced).mean() < 4.0


def test_sampled_scenes_are_valid() -> None:
    rng = np.random.default_rng(8)
    for _ in range(200):
        scene = sample_scene(rng, 256, 144)
        assert 1 <= len(scene.shapes) <= 4
        phrases = [phrase for phrase, _ in scene.truth]
        assert len(set(phrases)) == len(phrases)
        assert [box[0] for _, box in scene.truth] == sorted(box[0] for _, box in scene.truth)
        for _, (x1, y1, x2, y2) in scene.truth:
            assert 0.0 <= x1 < x2 <= 1.0
            assert 0.0 <= y1 < y2 <= 1.0
        assert render(scene).shape == (144, 256, 3)


def test_alike_is_the_share_of_scenes_with_two_shapes_alike() -> None:
    rng = np.random.default_rng(9)
    sizes = []
    for _ in range(300):
        scene = sample_scene(rng, 256, 144, (2, 3, 4), alike=0.3)
        sizes.append(sorted(len(group) for group in scene.groups)[-1])
        assert [group[0] for group in scene.groups] == [
            shape
            for place, shape in enumerate(scene.left_to_right)
            if shape.phrase not in [other.phrase for other in scene.left_to_right[:place]]
        ]
    assert set(sizes) == {1, 2}
    assert 0.2 < sizes.count(2) / len(sizes) < 0.4


def test_the_order_from_left_to_right_is_clear() -> None:
    rng = np.random.default_rng(10)
    for _ in range(200):
        boxes = np.array([box for _, box in sample_scene(rng, 256, 144).truth])
        for side in (0, 2):
            edges = np.sort(boxes[:, side])
            assert (np.diff(edges) >= APART).all()


def test_a_phrase_has_the_right_article() -> None:
    assert Shape("star", "orange", (0.0, 0.0, 1.0, 1.0)).phrase == "an orange star"
    assert Shape("ring", "blue", (0.0, 0.0, 1.0, 1.0)).phrase == "a blue ring"


@pytest.mark.parametrize("seed", range(6))
def test_a_moving_scene_moves_smoothly_and_keeps_its_cast(seed: int) -> None:
    step = 0.1
    scenes = [moving_scene(seed, index * step, 320, 240) for index in range(200)]
    assert len({tuple(phrase for phrase, _ in scene.truth) for scene in scenes}) == 1
    boxes = np.array([[shape.box for shape in scene.shapes] for scene in scenes])
    assert boxes.min() >= 0.0
    assert boxes.max() <= 1.0
    assert np.abs(np.diff(boxes, axis=0)).max() <= 0.25 * step
    assert np.ptp(boxes, axis=0).max() > 0.1
    assert moving_scene(seed, 1.0, 320, 240) == moving_scene(seed, 1.0, 320, 240)
    assert len({scene.background for scene in scenes}) == 1
