# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""References and places are used only where they are unambiguous."""

import numpy as np

from kosmos_ros.shapes.scenes import Scene, Shape
from training.relations import beside, names, sample_reference


def shape(kind: str, colour: str, x: float, y: float) -> Shape:
    return Shape(kind, colour, (x - 0.1, y - 0.1, x + 0.1, y + 0.1))


LEFT = shape("circle", "red", 0.2, 0.5)
STAR = shape("star", "blue", 0.5, 0.2)
RIGHT = shape("circle", "red", 0.8, 0.55)
SCENE = Scene((STAR, RIGHT, LEFT), 320, 240)


def test_a_name_fits_exactly_one_shape() -> None:
    assert names(STAR, SCENE) == ["the blue star", "the star"]
    assert names(LEFT, SCENE) == []
    assert names(LEFT, Scene((LEFT, STAR), 320, 240)) == ["the red circle", "the circle"]


def test_shapes_beside_another_are_listed_from_left_to_right() -> None:
    assert beside(STAR, "left of", SCENE) == [LEFT]
    assert beside(STAR, "below", SCENE) == [LEFT, RIGHT]
    assert beside(STAR, "above", SCENE) == []


def test_shapes_at_nearly_the_same_height_are_ambiguous() -> None:
    assert beside(LEFT, "above", SCENE) is None
    assert beside(LEFT, "right of", SCENE) == [STAR, RIGHT]


def test_a_reference_fits_exactly_one_shape() -> None:
    rng = np.random.default_rng(0)
    meant: dict[str, set[Shape]] = {}
    for _ in range(300):
        reference = sample_reference(SCENE, rng)
        assert reference is not None
        meant.setdefault(reference.text, set()).add(reference.target)
    assert all(len(targets) == 1 for targets in meant.values())
    assert meant["the red circle left of the star"] == {LEFT}
    assert meant["the circle right of the blue star"] == {RIGHT}
    assert "the circle below the star" not in meant


def test_a_single_shape_has_no_reference() -> None:
    assert sample_reference(Scene((STAR,), 320, 240), np.random.default_rng(0)) is None
