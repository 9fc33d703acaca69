# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: JSON files of data sets. The first byte selects the reader."""

import json
import math
import os
from pathlib import Path

from kosmos_ros.errors import ConfigError, PromptError
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.offline.evaluation import datasets
from kosmos_ros.offline.evaluation.tasks import TASKS, failed

READERS = (
    ("rec", datasets.referring_expressions),
    ("grounding", datasets.phrases),
    ("caption", datasets.captions),
    ("vqa", datasets.questions),
    # Answers are read with the same bytes as their questions.
    ("vqa", lambda path: datasets.questions(path, path)),
)
BOXES = {
    "images": [
        {"id": 1, "file_name": "COCO_train2014_000000000001.jpg", "width": 64, "height": "48",
         "caption": "a red dog .", "tokens_positive_eval": [[[0, 9]]]},
    ],
    "annotations": [{"image_id": 1, "bbox": [1, 2.5, 30, 40], "tokens_positive": [[0, 9]]}],
}  # fmt: skip
CAPTIONS = {
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "annotations": [{"image_id": 1, "caption": "a dog"}],
}
KARPATHY = {
    "images": [
        {"filepath": "val2014", "filename": "1.jpg", "cocoid": 1, "split": "test",
         "sentences": [{"raw": "a dog"}]},
    ]
}  # fmt: skip
QUESTIONS = {
    "data_subtype": "test-dev2015",
    "questions": [{"question_id": 1, "image_id": 42, "question": "Is it red?"}],
    "annotations": [{"question_id": 1, "answers": [{"answer": "yes"}, {"answer": "2 dogs."}]}],
}
SEEDS = tuple(
    bytes([reader]) + json.dumps(tree).encode()
    for reader, tree in (
        (0, BOXES), (1, BOXES), (2, CAPTIONS), (2, KARPATHY), (3, QUESTIONS), (4, QUESTIONS),
    )
)  # fmt: skip
WORDS = (
    b'"id": ', b'"bbox": ', b'"width": ', b'"caption": ', b'"image_id": ', b'"answers": ', b"[]",
    b"{}", b"null", b"true", b"-1", b"0", b"1e308", b"1e999", b"NaN", b"Infinity", b'""', b'"nan"',
    b"[[0, 9]]", b"[[9, 0]]", b"[0, 0, 1, 1]", b'"</s>"', b'"\\ud800"', b'"\\u0000"', b"9" * 400,
    b"x" * 300,
)  # fmt: skip

_FILE = os.memfd_create("data set")
_PATH = Path(f"/proc/self/fd/{_FILE}")


def run(data):
    task, read = READERS[data[0] % len(READERS)] if data else READERS[0]
    os.truncate(_FILE, 0)
    os.pwrite(_FILE, data[1:], 0)
    try:
        samples = read(_PATH)
    except ConfigError:
        return False
    for sample in samples:
        check(TASKS[task], sample)
    return bool(samples)


def check(task, sample):
    """Answer a sample as a model may, and check the line of details."""
    try:
        prompt = task.prompt(sample).text
    except PromptError as exc:
        answer = failed(sample, exc)
    else:
        phrase = Phrase(sample.text, 0, len(sample.text), (Box(0.1, 0.2, 0.5, 0.7),))
        answer = task.answer(sample, prompt, Caption("Yes.", (phrase,)))
    json.dumps(answer.as_json(), allow_nan=False).encode("ascii")
    for box in sample.boxes:
        assert box[0] <= box[2], box
        assert box[1] <= box[3], box
        assert all(map(math.isfinite, box)), box
    assert answer.score is None or 0 <= answer.score <= 1
    datasets.find_image(Path("/nowhere"), sample.file)
