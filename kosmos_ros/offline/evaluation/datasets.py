# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read data sets in the JSON forms in which they are published.

Each reader names the source of its form. Knows no model, no prompt and no pixels.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kosmos_ros.errors import ConfigError
from kosmos_ros.offline.evaluation.scores import Corners
from kosmos_ros.sanitize import first_line, quoted

Key = int | str
"""The id of an entry in its file."""

KARPATHY_SPLIT = "test"
"""The part of a Karpathy split that is read: the one that the paper evaluates."""


@dataclass(frozen=True)
class Sample:
    """One thing that the model is asked about an image, and the truth."""

    key: Key  # its id in the file
    file: str  # path of the image in the folder of images
    text: str = ""  # referring expression, phrase or question; empty for a caption
    before: str = ""  # words of the sentence before the phrase
    size: tuple[float, float] = (1.0, 1.0)  # width and height of the image to which boxes refer
    boxes: tuple[Corners, ...] = ()  # true boxes [pixels]
    texts: tuple[str, ...] = ()  # true captions or answers; empty: they are not published

    def __post_init__(self) -> None:
        """Raise ConfigError if the image would not be in the folder of images."""
        if Path(self.file).is_absolute() or ".." in Path(self.file).parts:
            raise ConfigError(
                f"sample {quoted(self.key)} must have an image in the folder of images, got "
                f"{quoted(self.file)}"
            )


def referring_expressions(path: Path) -> list[Sample]:
    """Read referring expressions of RefCOCO, RefCOCO+ or RefCOCOg, each with its one true box.

    The data sets themselves are distributed as pickles (https://github.com/lichengunc/refer).
    The JSON form is that of MDETR's annotations (https://zenodo.org/record/4729015, files such as
    finetune_refcoco_val.json), which Microsoft's evaluation of KOSMOS-2 reads, too
    (https://github.com/microsoft/unilm/tree/master/kosmos-2/evaluation/refcoco). Each expression
    has an entry of its own in `images`, and one in `annotations`.
    """
    root = _read(path)
    annotations = _by_image(root)
    samples = []
    for image in root.entries("images"):
        own = annotations.get(image.key("id"), [])
        if len(own) != 1:
            image.refuse(f"must have one entry in annotations, got {len(own)}")
        samples.append(
            Sample(
                image.key("id"),
                image.text("file_name"),
                image.text("caption"),
                size=(image.number("width"), image.number("height")),
                boxes=(own[0].box("bbox"),),
            )
        )
    return samples


def phrases(path: Path) -> list[Sample]:
    """Read phrases of sentences of Flickr30k Entities, each with its true boxes.

    Flickr30k Entities itself is distributed as text and XML files
    (https://github.com/BryanPlummer/flickr30k_entities). The JSON form is that of MDETR's
    annotations (https://zenodo.org/record/4729015), which Microsoft's evaluation of KOSMOS-2
    reads, too (https://github.com/microsoft/unilm/tree/master/kosmos-2/evaluation/flickr_entities).
    Each sentence has an entry in `images`, whose `tokens_positive_eval` are the places of its
    phrases. The boxes of a phrase are the `annotations` that have its place in `tokens_positive`:
    all of them in final_flickr_separateGT_*.json (protocol ANY-BOX, that of the paper), and the
    one around them in final_flickr_mergedGT_*.json (protocol MERGED-BOX).
    """
    root = _read(path)
    annotations = _by_image(root)
    samples = []
    for image in root.entries("images"):
        own = annotations.get(image.key("id"), [])
        places = [(each.spans("tokens_positive"), each.box("bbox")) for each in own]
        sentence, file = image.text("caption"), image.text("file_name")
        size = (image.number("width"), image.number("height"))
        for number, spans in enumerate(image.span_lists("tokens_positive_eval")):
            start, end = spans[0]
            if end > len(sentence):
                image.refuse(f"must have phrases inside its caption, got {quoted([start, end])}")
            boxes = tuple(box for among, box in places if (start, end) in among)
            if not boxes:
                image.refuse(f"must have a box for each phrase, got none for {[start, end]}")
            key = f"{image.key('id')}.{number}"
            text, before = sentence[start:end], sentence[:start]
            samples.append(Sample(key, file, text, before, size, boxes))
    return samples


def captions(path: Path) -> list[Sample]:
    """Read images with their true captions.

    Two forms: that of COCO (https://cocodataset.org/#format-data, files such as
    captions_val2014.json), of which all images are read, and that of Karpathy's splits of COCO and
    Flickr30k (https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip,
    dataset_coco.json and dataset_flickr30k.json), of which KARPATHY_SPLIT is read.
    """
    root = _read(path)
    images = root.entries("images")
    if "annotations" not in root.fields:
        return [_of_karpathy(image) for image in images if image.text("split") == KARPATHY_SPLIT]
    texts = {
        key: tuple(each.text("caption") for each in own) for key, own in _by_image(root).items()
    }
    for image in images:
        if image.key("id") not in texts:
            image.refuse("must have a caption in annotations, got none")
    return [
        Sample(image.key("id"), image.text("file_name"), texts=texts[image.key("id")])
        for image in images
    ]


def questions(path: Path, annotations: Path | None = None) -> list[Sample]:
    """Read questions of VQAv2, and their answers from the file `annotations`, if there is one.

    The form is that of https://visualqa.org/download.html (files such as
    v2_OpenEnded_mscoco_val2014_questions.json and v2_mscoco_val2014_annotations.json), which
    https://github.com/GT-Vision-Lab/VQA reads (PythonHelperTools/vqaTools/vqa.py). Names of
    images follow from image_id and data_subtype, as there. Answers of the test splits are not
    published.
    """
    root = _read(path)
    subset = root.text("data_subtype").replace("-dev", "")  # test-dev2015 has images of test2015
    answers: dict[Key, tuple[str, ...]] = {}
    if annotations:
        for entry in _read(annotations).entries("annotations"):
            own = entry.entries("answers")
            if len(own) < 2:
                entry.refuse(f"must have at least 2 answers, got {len(own)}")
            answers[entry.key("question_id")] = tuple(each.text("answer") for each in own)
    samples = []
    for question in root.entries("questions"):
        key = question.key("question_id")
        if annotations and key not in answers:
            question.refuse(f"must have an entry in {annotations}, got none for {quoted(key)}")
        file = f"COCO_{subset}_{question.whole('image_id'):012d}.jpg"
        samples.append(Sample(key, file, question.text("question"), texts=answers.get(key, ())))
    return samples


def find_image(folder: Path, file: str) -> Path:
    """Return the path of an image whose file name a data set gives.

    The folder may also be the one above COCO's train2014, val2014 and so on, or the one that a
    file name such as val2014/COCO_val2014_000000000042.jpg begins with. If the image is in none
    of them, the path is that in `folder`.
    """
    name = Path(file).name
    places = [folder / file, folder / name]
    if subset := re.match(r"COCO_(\w+)_", name):
        places.append(folder / subset[1] / name)
    # Path.is_file would raise for a name that is too long or a folder that cannot be read.
    return next((place for place in places if os.path.isfile(place)), places[0])


def _of_karpathy(image: _Entry) -> Sample:
    key = image.key("cocoid" if "cocoid" in image.fields else "imgid")
    folder = image.text("filepath") if "filepath" in image.fields else ""
    file = str(Path(folder) / image.text("filename"))
    return Sample(key, file, texts=tuple(each.text("raw") for each in image.entries("sentences")))


def _by_image(root: _Entry) -> dict[Key, list[_Entry]]:
    found: dict[Key, list[_Entry]] = {}
    for entry in root.entries("annotations"):
        found.setdefault(entry.key("image_id"), []).append(entry)
    return found


def _read(path: Path) -> _Entry:
    """Return the object in a JSON file. Raises ConfigError."""
    try:
        tree = json.loads(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} must be JSON: {first_line(exc)}") from exc
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must be a JSON object, got {quoted(tree)}")
    return _Entry(tree, str(path))


@dataclass(frozen=True)
class _Entry:
    """An object of a JSON file, and its place. All methods raise ConfigError for another type."""

    fields: Mapping[str, Any]
    place: str  # such as images[3] of refs.json

    def refuse(self, reason: str) -> NoReturn:
        raise ConfigError(f"{self.place} {reason}")

    def text(self, name: str) -> str:
        value: str = self._value(name, str, "text")
        return value

    def whole(self, name: str) -> int:
        value: int = self._value(name, int, "a whole number")
        return value

    def key(self, name: str) -> Key:
        value: Key = self._value(name, int | str, "a whole number or text")
        return value

    def number(self, name: str) -> float:
        """Return a positive number, which MDETR's files also write as text."""
        value = self._value(name, int | float | str, "a number")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not 0 < number < math.inf:
            self.refuse(f"must have a positive number as '{name}', got {quoted(value)}")
        return number

    def box(self, name: str) -> Corners:
        """Return the corners of a box that the file gives as x, y, width and height."""
        value = self._value(name, list, "a list")
        if not (len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0):
            self.refuse(f"must have x, y, width and height as '{name}', got {quoted(value)}")
        x, y, width, height = map(float, value)
        return x, y, x + width, y + height

    def entries(self, name: str) -> list[_Entry]:
        """Return a list of objects."""
        values = self._value(name, list, "a list")
        of = f"of {self.place}"
        for number, value in enumerate(values):
            if not isinstance(value, dict):
                raise ConfigError(f"{name}[{number}] {of} must be an object, got {quoted(value)}")
        return [_Entry(value, f"{name}[{number}] {of}") for number, value in enumerate(values)]

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Return places in a sentence: start and end, exclusive, in code points."""
        return self._spans(name, self._value(name, list, "a list"))

    def span_lists(self, name: str) -> list[list[tuple[int, int]]]:
        """Return lists of at least one place each."""
        values = self._value(name, list, "a list")
        if not all(isinstance(value, list) and value for value in values):
            self.refuse(f"must have lists of places as '{name}', got {quoted(values)}")
        return [self._spans(name, value) for value in values]

    def _spans(self, name: str, values: list[Any]) -> list[tuple[int, int]]:
        if not all(map(_is_span, values)):
            self.refuse(f"must have places (start, end) in '{name}', got {quoted(values)}")
        return [(start, end) for start, end in values]

    def _value(self, name: str, kind: Any, words: str) -> Any:
        if name not in self.fields:
            self.refuse(f"must have {words} as '{name}'; it is missing")
        value = self.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            self.refuse(f"must have {words} as '{name}', got {quoted(value)}")
        return value


def _is_number(value: object) -> bool:
    # A whole number of JSON may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9  # false for NaN


def _is_span(value: object) -> bool:
    if not (isinstance(value, list) and len(value) == 2):
        return False
    start, end = value
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    return whole and 0 <= start < end
