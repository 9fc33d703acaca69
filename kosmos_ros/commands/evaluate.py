# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommand evaluate: measure the model on a published data set.

The folder `offline/evaluation` reads data sets and scores answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from kosmos_ros.commands import options as opts
from kosmos_ros.commands.batches import Limits, described
from kosmos_ros.commands.output import report, write_line
from kosmos_ros.commands.tasks import Loader, message
from kosmos_ros.errors import ConfigError, PromptError
from kosmos_ros.kosmos2.prompts import Prompt, PromptsOf
from kosmos_ros.offline.batches import Described, Failure
from kosmos_ros.offline.evaluation import cider, datasets
from kosmos_ros.offline.evaluation.datasets import Sample
from kosmos_ros.offline.evaluation.tasks import TASKS, Answer, Task, failed

Asked = list[tuple[Sample, Prompt | PromptError]]
"""The samples of one image and their prompts, or why there is none."""

MAX_SAMPLES = 999_999_999
_READERS = {
    "rec": datasets.referring_expressions,
    "grounding": datasets.phrases,
    "caption": datasets.captions,
}


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure the model on a published data set",
        description="Measure the model on RefCOCO, RefCOCO+, RefCOCOg, Flickr30k Entities, COCO "
        "captions, Karpathy's splits or VQAv2, with the prompts and scores of KOSMOS-2's paper. "
        "Writes one JSON object. docs/evaluation.md says where to find the data sets.",
    )
    parser.add_argument(
        "dataset",
        type=opts.path,
        metavar="DATASET",
        help="JSON file of the data set, as published.",
    )
    parser.add_argument(
        "--task",
        required=True,
        type=opts.one_of("task", tuple(TASKS)),
        help="rec: referring expressions (RefCOCO). grounding: phrases of sentences (Flickr30k "
        "Entities). caption: captions (COCO, Karpathy). vqa: questions (VQAv2).",
    )
    parser.add_argument(
        "--images", required=True, type=opts.path, metavar="DIR", help="Folder of the images."
    )
    parser.add_argument(
        "--annotations",
        type=opts.path,
        metavar="FILE",
        help="JSON file of the true answers; only for --task vqa. Default: none, and no score.",
    )
    parser.add_argument(
        "--details",
        type=opts.path,
        metavar="FILE",
        help="New file with one line per sample: a JSON object with prompt, prediction, truth "
        "and score.",
    )
    parser.add_argument(
        "--limit",
        type=opts.count("limit", MAX_SAMPLES),
        metavar="N",
        help="Number of samples to use, from the beginning of the data set. Default: all.",
    )
    for name in ("max_new_tokens", "max_image_pixels"):
        opts.add_setting(parser, name)
    opts.add_model(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask about all samples, write the score, and return 0 if nothing failed."""
    began = time.monotonic()
    images = _by_image(options)
    late = options.task == "caption"  # CIDEr needs the captions of all images
    reason = cider.missing() if late else ""
    if reason:
        report(f"CIDEr will not be computed: {reason}")
    load = Loader(options)
    answers: list[Answer] = []
    with _Details(options.details) as details:
        for group in _answers(options, images, load):
            answers += group
            if not late:
                details.write(group)
        if late:
            answers, reason = _with_cider(answers, reason)
            details.write(answers)
    value = _score(options.task, answers, reason)
    value |= {"dataset": str(options.dataset), "images": len(images), **_settings(options, load)}
    value["seconds"] = round(time.monotonic() - began, 3)
    write_line(value)
    return 1 if value["failed"] or details.failed else 0


def _by_image(options: argparse.Namespace) -> dict[str, Asked]:
    """Return what is asked about each image of the data set. Raises ConfigError."""
    samples = _samples(options)[: options.limit]
    if not samples:
        raise ConfigError(f"{options.dataset} has no samples for --task {options.task}")
    images: dict[str, Asked] = {}
    for sample in samples:
        images.setdefault(sample.file, []).append((sample, _prompt(options.task, sample)))
    if not any(os.path.isfile(datasets.find_image(options.images, file)) for file in images):
        raise ConfigError(
            f"--images must be the folder with the images of {options.dataset}, such as "
            f"{samples[0].file}; {options.images} has none of them"
        )
    return images


def _samples(options: argparse.Namespace) -> list[Sample]:
    if options.task == "vqa":
        return datasets.questions(options.dataset, options.annotations)
    if options.annotations:
        raise ConfigError(f"--annotations is for --task vqa only, got --task {options.task}")
    return _READERS[options.task](options.dataset)


def _prompt(task: str, sample: Sample) -> Prompt | PromptError:
    try:
        return TASKS[task].prompt(sample)
    except PromptError as exc:
        return exc


def _answers(
    options: argparse.Namespace, images: dict[str, Asked], load: Loader
) -> Iterator[list[Answer]]:
    """Yield the answers about each image. Report what failed."""
    from tqdm import tqdm

    # Boxes of data sets are in stored pixels.
    limits = Limits(options.max_image_pixels, options.max_new_tokens, stored=True)
    asked = (
        (str(datasets.find_image(options.images, file)), _prompts_of(own))
        for file, own in images.items()
    )
    bar = len(images) > 1 and sys.stderr.isatty()
    found = tqdm(described(asked, limits, load), unit="image", total=len(images), disable=not bar)
    for own, each in zip(images.values(), found, strict=True):
        if isinstance(each, Failure):
            report(message(each))
        yield list(_of_image(TASKS[options.task], own, each))


def _prompts_of(own: Asked) -> PromptsOf:
    prompts = [prompt for _, prompt in own if isinstance(prompt, Prompt)]
    return lambda width, height: prompts


def _of_image(task: Task, own: Asked, found: Described | Failure) -> Iterator[Answer]:
    """Yield the answers about one image, in the order of its samples."""
    captions = iter(() if isinstance(found, Failure) else found[1])
    for sample, prompt in own:
        if isinstance(prompt, PromptError):
            report(f"sample {sample.key} of {sample.file}: {prompt}")
            yield failed(sample, prompt)
        elif isinstance(found, Failure):
            yield failed(sample, found.error, prompt.text)
        else:
            yield task.answer(sample, prompt.text, next(captions))


def _with_cider(answers: list[Answer], reason: str) -> tuple[list[Answer], str]:
    """Return the captions with their scores; or without, and the reason."""
    if reason:
        return answers, reason
    said = ["" if answer.error else str(answer.prediction) for answer in answers]
    try:
        found = cider.scores(said, [answer.sample.texts for answer in answers])
    except ConfigError as exc:
        report(exc)
        return answers, str(exc)
    scored = zip(answers, found, strict=True)
    return [replace(answer, score=score) for answer, score in scored], ""


def _score(task: str, answers: Sequence[Answer], reason: str) -> dict[str, Any]:
    """Return the mean score with its interval, and counts. `reason`: why there is no score."""
    found = [answer.score for answer in answers if answer.score is not None]
    if len(found) < len(answers):
        reason = reason or "answers are not known; give them with --annotations"
    value = {
        "task": task,
        "metric": TASKS[task].metric,
        "value": None if reason else statistics.fmean(found),
        "interval_95": None if reason else TASKS[task].interval(found),
        "samples": len(answers),
        "failed": sum(answer.error is not None for answer in answers),
    }
    return value | {"reason": reason} if reason else value


def _settings(options: argparse.Namespace, load: Loader) -> dict[str, Any]:
    """Return the model and its settings: those in use, if it was loaded."""
    value = {name: getattr(options, name) for name in (*opts.MODEL, "max_new_tokens")}
    if load.engine:
        info = vars(load.engine.info)
        value |= {name: info[name] for name in value.keys() & info.keys()}
    return value


class _Details:
    """The file of --details, if it is given. Removed if nothing was written."""

    def __init__(self, path: Path | None) -> None:
        """Raise ConfigError if the file exists or cannot be created."""
        self.failed = False  # reported already
        self._path = path
        self._empty = True
        try:
            self._file = path.open("x") if path else None
        except OSError as exc:
            raise ConfigError(f"--details must be a new file, got {path}: {exc.strerror}") from exc

    def __enter__(self) -> _Details:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file and self._path:
            with contextlib.suppress(OSError):  # `write` has flushed, or reported why not
                self._file.close()
            if self._empty:
                self._path.unlink(missing_ok=True)

    def write(self, answers: Sequence[Answer]) -> None:
        """Write a line for each answer. A failure is reported once, and ends the writing."""
        if not self._file or self.failed:
            return
        try:
            for answer in answers:
                self._file.write(json.dumps(answer.as_json(), allow_nan=False) + "\n")
            self._file.flush()
            self._empty = False
        except OSError as exc:
            self.failed = True
            report(f"cannot write {self._path}: {exc.strerror}")
