# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read image files and run prompts about them through the model. Knows no task and no output."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kosmos_ros.errors import ImageError, RequestError
from kosmos_ros.images import decode
from kosmos_ros.images.size import METADATA
from kosmos_ros.kosmos2.prompts import PromptsOf
from kosmos_ros.offline.batches import Described, Failure, Picture, describe, groups

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine


@dataclass(frozen=True)
class Limits:
    """How images are read and how long answers may be."""

    max_image_pixels: int
    max_new_tokens: int
    stored: bool  # read the stored pixels; otherwise, as the EXIF orientation says


def described(
    asked: Iterable[tuple[str, PromptsOf]], limits: Limits, engine: Callable[[], Engine]
) -> Iterator[Described | Failure]:
    """Yield the captions of each image, or its failure, in the order of `asked`.

    `asked` has the path of each image and the prompts about it. Calls `engine` when the first
    image has been read. Raises its errors, and DeviceLostError.
    """
    for group in groups(_pictures(asked, limits), limits.max_image_pixels):
        yield from describe(group, engine, limits.max_new_tokens)


def _pictures(
    asked: Iterable[tuple[str, PromptsOf]], limits: Limits
) -> Iterator[Picture | Failure]:
    for name, prompts in asked:
        try:
            image = _load(name, limits)
            height, width, _ = image.shape
            yield Picture(name, image, prompts(width, height))
        except (ImageError, RequestError) as exc:
            yield Failure(name, exc)


def _load(name: str, limits: Limits) -> np.ndarray:
    if name != "-":
        return decode.load(name, limits.max_image_pixels, limits.stored)
    most = METADATA + 8 * limits.max_image_pixels + 1  # then `read` refuses it
    file = io.BytesIO(sys.stdin.buffer.read(most))
    return decode.read(file, "standard input", limits.max_image_pixels, limits.stored)
