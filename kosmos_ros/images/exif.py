# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rotate or mirror the image of a file according to its EXIF orientation, as viewers do.

Reads only the orientation, and accepts any bytes. With broken metadata the pixels stay as stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

MAX_PARTS = 10_000
"""Maximum number of segments or chunks that are searched, far more than a file has before its
metadata."""

_TAG, _SHORT = 0x0112, 3  # orientation, and its type (EXIF 3.0, section 4.6.5)
_PREFIX = b"Exif\0\0"  # before the metadata in a JPEG, and in some WebP files

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[:, ::-1],
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}
"""Orientation: function from the stored pixels (H, W, 3) to the shown ones."""


def orientation(data: Any, format: str) -> int:
    """Return the orientation, 1 to 8, of a file (any buffer of bytes); 1: as stored.

    `format` is the file's format, such as JPEG.
    """
    view = memoryview(data)
    try:
        if block := next(_BLOCKS[format](view), None) if format in _BLOCKS else None:
            return _orientation(block)
    except (struct.error, IndexError):  # broken or truncated
        pass
    return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels (H, W, 3) of an image as viewers show them. C-contiguous."""
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(image)) if turn else image


def _orientation(block: memoryview) -> int:
    """Read the orientation from the first directory of a TIFF structure (TIFF 6.0, section 2)."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None:
        return 1
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from(f"{order}HHIH", block, place)
        if tag == _TAG:
            return int(value) if (kind, number) == (_SHORT, 1) and value in _TURNS else 1
    return 1


def _in_jpeg(data: memoryview) -> Iterator[memoryview]:
    at = 2
    for _ in range(MAX_PARTS):
        if data[at] == data[at + 1] == 0xFF:  # a fill byte (ITU-T T.81, section B.1.1.2)
            at += 1
            continue
        if data[at] != 0xFF or data[at + 1] == 0xDA:  # pixels follow
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if data[at + 1] == 0xE1 and body[: len(_PREFIX)] == _PREFIX:
            yield body[len(_PREFIX) :]
        at += 2 + length


def _in_png(data: memoryview) -> Iterator[memoryview]:
    at = 8
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length


def _in_webp(data: memoryview) -> Iterator[memoryview]:
    at = 12
    for _ in range(MAX_PARTS):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            block = data[at + 8 : at + 8 + length]
            yield block[len(_PREFIX) :] if block[: len(_PREFIX)] == _PREFIX else block
        at += 8 + length + length % 2


_BLOCKS: dict[str, Callable[[memoryview], Iterator[memoryview]]] = {
    "JPEG": _in_jpeg,
    "PNG": _in_png,
    "WebP": _in_webp,
    "TIFF": lambda data: iter([data]),
}
"""Format: function that yields the TIFF structures of its metadata."""
