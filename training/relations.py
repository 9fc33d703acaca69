# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the shapes left of, right of, above or below a shape, if that is unambiguous.

Knows scenes and the words for places. Knows no prompts.
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
"""Relation: its axis (0: x, 1: y) and the direction along it."""

MARGIN = 0.08
"""Smallest distance of two centres along the axis for a clear relation, in shares of the frame."""

AMBIGUOUS_SHARE = 0.7  # share of references that need their relation, if the scene has both kinds


@dataclass(frozen=True)
class Reference:
    """Words that name one shape by its relation to another."""

    text: str  # "the red circle left of the star"
    target: Shape


def names(shape: Shape, scene: Scene) -> list[str]:
    """Return those of `the red star` and `the star` that fit no other shape of the scene."""
    return [
        words
        for words, fitting in _descriptions(shape, scene).items()
        if len(fitting) == 1  # the shape itself
    ]


def beside(anchor: Shape, relation: str, scene: Scene) -> list[Shape] | None:
    """Return the shapes in this relation to the anchor, left to right; None if it is ambiguous."""
    others = [shape for shape in scene.left_to_right if shape is not anchor]
    distances = [_distance(shape, anchor, relation) for shape in others]
    if any(abs(distance) < MARGIN for distance in distances):
        return None
    return [shape for shape, far in zip(others, distances, strict=True) if far > 0.0]


def sample_reference(scene: Scene, rng: np.random.Generator) -> Reference | None:
    """Return a reference to a shape; None if the scene allows none."""
    plain, ambiguous = _references(scene)
    use_ambiguous = ambiguous and (not plain or rng.random() < AMBIGUOUS_SHARE)
    choices = ambiguous if use_ambiguous else plain
    return choices[int(rng.integers(len(choices)))] if choices else None


def _references(scene: Scene) -> tuple[list[Reference], list[Reference]]:
    """Return references whose description alone would do, and those that need their relation."""
    plain: list[Reference] = []
    ambiguous: list[Reference] = []
    for target in scene.left_to_right:
        for words, fitting in _descriptions(target, scene).items():
            for anchor in scene.left_to_right:
                if anchor is target:
                    continue
                rivals = [s for s in fitting if s is not target and s is not anchor]
                found = [
                    Reference(f"{words} {relation} {name}", target)
                    for relation in RELATIONS
                    if _singles_out(target, rivals, anchor, relation)
                    for name in names(anchor, scene)
                ]
                (ambiguous if rivals else plain).extend(found)
    return plain, ambiguous


def _singles_out(target: Shape, rivals: list[Shape], anchor: Shape, relation: str) -> bool:
    """Return whether the target clearly is in this relation and its rivals are not."""
    return _distance(target, anchor, relation) >= MARGIN and all(
        _distance(rival, anchor, relation) <= -MARGIN for rival in rivals
    )


def _descriptions(shape: Shape, scene: Scene) -> dict[str, list[Shape]]:
    """Return words that fit the shape, and all shapes of the scene that they fit."""
    same_kind = [other for other in scene.shapes if other.kind == shape.kind]
    return {
        f"the {shape.colour} {shape.kind}": [s for s in same_kind if s.colour == shape.colour],
        f"the {shape.kind}": same_kind,
    }


def _distance(shape: Shape, anchor: Shape, relation: str) -> float:
    """Return how far the shape's centre lies from the anchor's in the relation's direction."""
    axis, sign = RELATIONS[relation]
    return sign * (_centre(shape, axis) - _centre(anchor, axis))


def _centre(shape: Shape, axis: int) -> float:
    return (shape.box[axis] + shape.box[axis + 2]) / 2.0
