# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run prompts about images through the model, several images at a time.

The results are those of one image at a time, in the same order. Knows no files, no bags and no
output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kosmos_ros.errors import GenerationError, KosmosError
from kosmos_ros.kosmos2.grounding import Caption, read
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.serving.node_settings import NodeSettings

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

MAX_BATCH = NodeSettings.max_batch_size
"""Maximum number of images that are encoded together, and of prompts that run together."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, and the prompts about it."""

    name: str  # for errors: of a file, or of a message
    image: np.ndarray  # (H, W, 3) uint8 RGB
    prompts: Sequence[Prompt]
    source: Any = None  # where the image came from, for the caller


@dataclass(frozen=True)
class Failure:
    """An image without a result, and the reason."""

    name: str
    error: KosmosError


Described = tuple[Picture, list[Caption]]
"""An image, and the captions that answer its prompts."""


def groups(
    pictures: Iterable[Picture | Failure], most_pixels: int
) -> Iterator[list[Picture | Failure]]:
    """Collect MAX_BATCH images, or fewer if they have `most_pixels` together."""
    group: list[Picture | Failure] = []
    pixels = 0
    for each in pictures:
        group.append(each)
        pixels += each.image.shape[0] * each.image.shape[1] if isinstance(each, Picture) else 0
        if len(group) == MAX_BATCH or pixels >= most_pixels:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def describe(
    group: Sequence[Picture | Failure], engine: Callable[[], Engine], max_new_tokens: int
) -> Iterator[Described | Failure]:
    """Yield the captions of each image of a group, or its failure, in the order of the group.

    Calls `engine` if the group has an image. Raises its errors, and DeviceLostError.
    """
    pictures = [each for each in group if isinstance(each, Picture)]
    results = iter(_captions(engine(), pictures, max_new_tokens) if pictures else ())
    for each in group:
        yield next(results) if isinstance(each, Picture) else each


def _captions(
    engine: Engine, pictures: Sequence[Picture], max_new_tokens: int
) -> Iterator[Described | Failure]:
    images = _in_parts(engine.encode_batch, [picture.image for picture in pictures])
    queries = [
        Query(image, prompt.text, max_new_tokens, stop=prompt.stop)
        for picture, image in zip(pictures, images, strict=True)
        for prompt in picture.prompts
        if not isinstance(image, KosmosError)
    ]
    answers: list[Any] = []
    for start in range(0, len(queries), MAX_BATCH):
        answers += _in_parts(engine.generate_batch, queries[start : start + MAX_BATCH])
    rest = iter(answers)
    for picture, image in zip(pictures, images, strict=True):
        if isinstance(image, KosmosError):
            yield Failure(picture.name, image)
        else:
            yield _read(picture, [next(rest) for _ in picture.prompts])


def _read(picture: Picture, answers: Sequence[Generation | KosmosError]) -> Described | Failure:
    captions = []
    for prompt, answer in zip(picture.prompts, answers, strict=True):
        if isinstance(answer, KosmosError):
            return Failure(picture.name, answer)
        try:
            captions.append(read(answer, prompt.text, prompt.lead))
        except GenerationError as exc:
            return Failure(picture.name, exc)
    return picture, captions


def _in_parts(run: Callable[[list[T]], Sequence[R]], items: Sequence[T]) -> list[Any]:
    """Return the results of `run` for all items together, with errors in their place.

    Items that fail together, for example because memory is short, are tried in halves.
    """
    try:
        return list(run(list(items)))
    except GenerationError as exc:
        if len(items) == 1:
            return [exc]
    half = len(items) // 2
    return _in_parts(run, items[:half]) + _in_parts(run, items[half:])
