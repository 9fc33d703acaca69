# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write results of images as COCO JSON. Knows no files and no model.

`images`, `annotations` and `categories` have COCO's form of object detection; a category is a
phrase. Captions have COCO's form, too, but a list of their own, since most readers fail on an
entry of `annotations` without a category. `answers` are captions with a question.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kosmos_ros.kosmos2.prompts import CAPTION_TASKS
from kosmos_ros.offline.unfinished import Row

Image = tuple[int, str, list[dict[str, Any]]]
"""Id, name of the file, and results of an image."""


def lines(rows: Callable[[], Iterator[Row]]) -> Iterator[str]:
    """Yield the lines of the file. `rows` returns all results, image by image, once for each list.

    One list is written after the other, so that all of them need not be in memory.
    """
    categories: dict[str, int] = {}
    lists: dict[str, Iterable[dict[str, Any]]] = {
        "images": map(_image, _images(rows())),
        "annotations": _numbered(_boxes(_images(rows()), categories)),
        "categories": _categories(categories),  # complete when all annotations are written
        "captions": _numbered(_texts(_images(rows()), "caption")),
        "answers": _numbered(_texts(_images(rows()), "answer")),
    }
    start = "{"
    for name, entries in lists.items():
        yield f'{start}\n"{name}": ['
        start = "],"
        between = "\n"
        for entry in entries:
            yield between + json.dumps(entry, allow_nan=False)
            between = ",\n"
    yield "]\n}\n"


def _images(rows: Iterator[Row]) -> Iterator[Image]:
    groups = itertools.groupby(rows, lambda row: (row.topic, row.time))
    for number, ((name, _), own) in enumerate(groups, 1):
        yield number, json.loads(name), [json.loads(row.data) for row in own]


def _image(image: Image) -> dict[str, Any]:
    number, name, (first, *_) = image
    size = {"width": first["image_width"], "height": first["image_height"]}
    time = {"time": first["time"]} if "time" in first else {}
    return {"id": number, "file_name": name, **size, **time}


def _boxes(images: Iterator[Image], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the boxes of all phrases, and number the phrases in `categories`."""
    for number, _, found in images:
        for phrase in (phrase for each in found for phrase in each["phrases"]):
            for box in phrase["boxes"]:
                left, top = box["x_min"], box["y_min"]
                width, height = box["x_max"] - left, box["y_max"] - top
                yield {
                    "image_id": number,
                    "category_id": categories.setdefault(phrase["text"], len(categories) + 1),
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box["score"],
                }


def _categories(categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    for name, number in categories.items():
        yield {"id": number, "name": name, "supercategory": "phrase"}


def _texts(images: Iterator[Image], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the captions, or the answers with their questions."""
    for number, _, found in images:
        for each in found:
            text = {kind: each["caption"], "score": each["score"]}
            if kind == "answer" and "question" in each:
                yield {"image_id": number, "question": each["question"], **text}
            elif kind == "caption" and each["task"] in CAPTION_TASKS:
                yield {"image_id": number, **text}


def _numbered(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(entries, 1):
        yield {"id": number, **entry}
