# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Phrases and answers of a record as JSON, as docs/memory.md describes it. Knows no file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from kosmos_ros.memory.records import Answer, Box, Phrase
from kosmos_ros.sanitize import quoted

PIXEL_DIGITS, SCORE_DIGITS, METRE_DIGITS = 2, 4, 3  # decimals that are kept


Centre = tuple[str, float, float]
"""A phrase, and the x and y of the centre of one of its boxes in pixels."""


def phrases_to_json(phrases: Iterable[Phrase]) -> str | None:
    """Return the phrases as JSON; None if there are none."""
    return _to_json([_phrase_to_dict(phrase) for phrase in phrases])


def answers_to_json(answers: Iterable[Answer]) -> str | None:
    """Return the answers as JSON; None if there are none."""
    return _to_json(
        [
            {
                "question": answer.question,
                "text": answer.text,
                "score": rounded(answer.score, SCORE_DIGITS),
                "phrases": [_phrase_to_dict(phrase) for phrase in answer.phrases],
            }
            for answer in answers
        ]
    )


def rounded(value: float, digits: int) -> float:
    """Return a number rounded to `digits` decimals; 0 if it is not finite, as JSON requires."""
    return round(value, digits) if math.isfinite(value) else 0.0


def text_of(value: object) -> str:
    """Return a value that is a text. Raises TypeError for another one."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {quoted(value)}")
    return value


def finite(*values: float) -> tuple[float, ...]:
    """Return finite numbers. Raises TypeError, ValueError or OverflowError for other values."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"expected finite numbers, got {quoted(values)}")
    return values


def _to_json(value: list[Any]) -> str | None:
    if not value:
        return None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _phrase_to_dict(phrase: Phrase) -> dict[str, Any]:
    boxes = [_box_to_list(box) for box in phrase.boxes]
    return {"text": phrase.text, "start": phrase.start, "end": phrase.end, "boxes": boxes}


def _box_to_list(box: Box) -> list[Any]:
    """Return [x_min, y_min, x_max, y_max, score], with track and position if one is known."""
    corners = (box.x_min, box.y_min, box.x_max, box.y_max)
    numbers = [*(rounded(v, PIXEL_DIGITS) for v in corners), rounded(box.score, SCORE_DIGITS)]
    if box.track is None and box.position is None:
        return numbers
    position = box.position and [rounded(value, METRE_DIGITS) for value in box.position]
    return [*numbers, box.track, position]


def phrases_from_json(text: str | None) -> tuple[Phrase, ...]:
    """Return what `phrases_to_json` wrote. Raises the errors of json and of wrong fields."""
    return tuple(map(_phrase, json.loads(text))) if text else ()


def answers_from_json(text: str | None) -> tuple[Answer, ...]:
    """Return what `answers_to_json` wrote. Raises the errors of json and of wrong fields."""
    return tuple(
        Answer(
            text_of(entry["question"]),
            text_of(entry["text"]),
            finite(entry["score"])[0],
            tuple(_phrase(phrase) for phrase in entry["phrases"]),
        )
        for entry in (json.loads(text) if text else ())
    )


def centres_of(phrases: Iterable[Phrase]) -> list[Centre]:
    """Return what `centres_from_json` returns of these phrases."""
    return [
        (each.text, (box.x_min + box.x_max) / 2.0, (box.y_min + box.y_max) / 2.0)
        for each in phrases
        for box in each.boxes
    ]


def centres_from_json(phrases: str | None, answers: str | None) -> list[Centre]:
    """Return the text of each phrase with the centre of each of its boxes in pixels.

    Making records would take three times as long. Raises the errors of json and of wrong
    fields.
    """
    entries = json.loads(phrases) if phrases else []
    for answer in json.loads(answers) if answers else ():
        entries += answer["phrases"]
    centres = [
        (text_of(entry["text"]), (box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0)
        for entry in entries
        for box in entry["boxes"]
    ]
    for _, x, y in centres:
        finite(x, y)
    return centres


def _phrase(entry: dict[str, Any]) -> Phrase:
    boxes = tuple(_box(*numbers) for numbers in entry["boxes"])
    return Phrase(text_of(entry["text"]), int(entry["start"]), int(entry["end"]), boxes)


def _box(
    x_min: float,
    y_min: float,
    x_max: float,
    y_max: float,
    score: float,
    track: int | None = None,
    position: Sequence[float] | None = None,
) -> Box:
    finite(x_min, y_min, x_max, y_max, score)
    at = None if position is None else _point(*position)
    return Box(x_min, y_min, x_max, y_max, score, track, at)


def _point(x: float, y: float, z: float) -> tuple[float, float, float]:
    finite(x, y, z)
    return x, y, z
