# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which shape lies left of, right of, above or below which, where that is beyond doubt.

Knows scenes and the words for such places, and no prompts.
"""

from dataclasses import dataclass

import numpy as np

from kosmos_ros.shapes.scenes import Scene, Shape

RELATIONS: dict[str, tuple[int, float]] = {
    "left of": (0, -1.0),
    "right of": (0, 1.0),
    "above": (1, -1.0),
    "below": (1, 1.0),
}
"""Axis, 0 across and 1 down, and direction."""

MARGIN = 0.08
"""Least distance of two centres along the axis, as a fraction of the frame, that is spoken of."""

HARD_SHARE = 0.7  # of references, where the scene has one: those whose relation is needed


@dataclass(frozen=True)
class Reference:
    """Words that mean one shape by its place beside another."""

    text: str  # "the red circle left of the star"
    target: Shape


def names(shape: Shape, scene: Scene) -> list[str]:
    """`the red star` and `the star`, as far as they mean this shape and no other of the scene."""
    return [
        words
        for words, fitting in _descriptions(shape, scene).items()
        if len(fitting) == 1  # the shape itself
    ]


def beside(anchor: Shape, relation: str, scene: Scene) -> list[Shape] | None:
    """Shapes that lie in this relation to the anchor, left to right; None where it is in doubt."""
    others = [shape for shape in scene.left_to_right if shape is not anchor]
    distances = [_distance(shape, anchor, relation) for shape in others]
    if any(abs(distance) < MARGIN for distance in distances):
        return None
    return [shape for shape, far in zip(others, distances, strict=True) if far > 0.0]


def sample_reference(scene: Scene, rng: np.random.Generator) -> Reference | None:
    """A reference to a shape; None where the scene allows none."""
    plain, hard = _references(scene)
    choice = hard if hard and (not plain or rng.random() < HARD_SHARE) else plain
    return choice[int(rng.integers(len(choice)))] if choice else None


def _references(scene: Scene) -> tuple[list[Reference], list[Reference]]:
    """References whose description alone would do, and those that need their relation."""
    plain: list[Reference] = []
    hard: list[Reference] = []
    for target in scene.left_to_right:
        for words, fitting in _descriptions(target, scene).items():
            for anchor in scene.left_to_right:
                anchors = names(anchor, scene)
                if anchor is target or not anchors:
                    continue
                rivals = [s for s in fitting if s is not target and s is not anchor]
                for relation in RELATIONS:
                    if _distance(target, anchor, relation) < MARGIN:
                        continue
                    if any(_distance(s, anchor, relation) > -MARGIN for s in rivals):
                        continue
                    found = [Reference(f"{words} {relation} {a}", target) for a in anchors]
                    (hard if rivals else plain).extend(found)
    return plain, hard


def _descriptions(shape: Shape, scene: Scene) -> dict[str, list[Shape]]:
    """Words that fit the shape, and all shapes of the scene that they fit."""
    same_kind = [other for other in scene.shapes if other.kind == shape.kind]
    return {
        f"the {shape.colour} {shape.kind}": [s for s in same_kind if s.colour == shape.colour],
        f"the {shape.kind}": same_kind,
    }


def _distance(shape: Shape, anchor: Shape, relation: str) -> float:
    """How far the shape's centre lies from the anchor's in the relation's direction."""
    axis, sign = RELATIONS[relation]
    return sign * (_centre(shape, axis) - _centre(anchor, axis))


def _centre(shape: Shape, axis: int) -> float:
    return (shape.box[axis] + shape.box[axis + 2]) / 2.0
