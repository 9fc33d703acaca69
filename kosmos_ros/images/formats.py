# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recognise the formats of compressed images and read their pixels with Pillow.

Knows no encodings: what an image with one value per pixel shows is for others to decide.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images import structure
from kosmos_ros.images.encodings import rows_of
from kosmos_ros.images.size import check_size
from kosmos_ros.sanitize import one_line


@dataclass(frozen=True)
class Format:
    """A compression: its first bytes, the function that removes metadata, and Pillow's reader."""

    signature: re.Pattern[bytes]
    reduce: Callable[[Any], bytes]
    read: Callable[[BinaryIO], ImageFile.ImageFile]


def _bytes(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


# Image.open would try every format, and has pixel limits and warnings of its own.
FORMATS = {
    "JPEG": Format(_bytes(rb"\xff\xd8\xff"), structure.jpeg, JpegImagePlugin.JpegImageFile),
    "PNG": Format(_bytes(rb"\x89PNG\r\n\x1a\n"), structure.png, PngImagePlugin.PngImageFile),
    "WebP": Format(_bytes(rb"RIFF....WEBP"), bytes, WebPImagePlugin.WebPImageFile),
    "BMP": Format(_bytes(rb"BM"), structure.bmp, BmpImagePlugin.BmpImageFile),
    "GIF": Format(_bytes(rb"GIF8[79]a"), structure.gif, GifImagePlugin.GifImageFile),
    "TIFF": Format(_bytes(rb"II\*\0|MM\0\*"), structure.tiff, TiffImagePlugin.TiffImageFile),
}
NEVER_RAW = {
    "JPEG": _bytes(rb"\xff\xd8\xff(?:[\xe0\xe1]..(?:JFIF|Exif|AVI1)|\xdb\0[\x43\x84]\0)"),
    "PNG": FORMATS["PNG"].signature,
    "WebP": FORMATS["WebP"].signature,
}
"""First bytes that no raw image has by chance. A JPEG begins with a segment APP0 or APP1, or with
its quantization table, as in the streams of many webcams."""
SNIFFED = 16  # bytes at the start that decide the format
MESSAGE_FORMATS = ("JPEG", "PNG", "WebP")
FILE_FORMATS = tuple(FORMATS)

_SINGLE = {"L": "u1", "I;16": "u2", "I;16B": "u2", "I": "u2", "F": "f4"}  # values of I are clipped
"""Pillow's modes of one value per pixel, and the type of the value."""

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Errors that Pillow's readers raise for invalid data."""


def sniff(head: bytes, formats: tuple[str, ...], name: str) -> str:
    """Return which of `formats` an image has that begins with `head`; `name` is for errors.

    `head` has its first SNIFFED bytes. Raises EncodingError if it has none of them, and
    ImageSizeError if `head` is empty.
    """
    for format in formats:
        if FORMATS[format].signature.match(head):
            return format
    if not head:
        raise ImageSizeError("the image has 0 bytes of data")
    raise EncodingError(
        f"{name} is not a {', '.join(formats[:-1])} or {formats[-1]} image: "
        f"it begins with {head[:8].hex(' ')}"
    )


def pixels(data: Any, format: str, name: str, max_pixels: int) -> np.ndarray:
    """Return the pixels of an image: RGB (H, W, 3) uint8, or (H, W) if they have one value each.

    Single values are uint8, uint16 or float32. `data` is bytes or an object with their buffer,
    `format` the result of `sniff`, and `name` is for errors. Several threads may read at once.
    Raises ImageSizeError if the image has more than `max_pixels`, ImageError if it is truncated
    or broken, and EncodingError for a BMP with run lengths.
    """
    with _pillow:
        try:
            if format == "WebP":  # its reader allocates two images before it knows the size
                check_size(*_webp_size(data), max_pixels)
            image = FORMATS[format].read(io.BytesIO(FORMATS[format].reduce(data)))
            del data  # the image keeps its bytes until the pixels are loaded
            check_size(*image.size, max_pixels)
            if any(tile[0] == "bmp_rle" for tile in image.tile):
                raise EncodingError(f"{name} is a run-length encoded BMP image; save it as PNG")
            return pixels_of(image)
        except _BROKEN as exc:
            raise ImageError(
                f"{name} is a broken or truncated {format} image: {one_line(exc, 200)}"
            ) from exc


class _Settings:
    """Let Pillow refuse truncated files and accept images of any size, which `check_size` limits.

    Other code in this process may have chosen other settings. The first thread that enters keeps
    them, and the last one that leaves restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0  # between `__enter__` and `__exit__`
        self._kept: tuple[bool, int | None] = (False, None)

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._kept = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = self._kept


_pillow = _Settings()


def _webp_size(data: Any) -> tuple[int, int]:
    """Read width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    head = bytes(data[:30])

    def number(start: int, end: int) -> int:
        return int.from_bytes(head[start:end], "little")

    match head[12:16]:
        case b"VP8X":
            return 1 + number(24, 27), 1 + number(27, 30)
        case b"VP8L":
            return 1 + (number(21, 25) & 0x3FFF), 1 + (number(21, 25) >> 14 & 0x3FFF)
        case _:
            return number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of an open image, as `pixels` does."""
    image.load()
    if dtype := _SINGLE.get(image.mode):
        return _converted(image, (), dtype, lambda part: part)
    # Pillow warns if a palette with alpha is converted straight to RGB.
    first = "RGBA" if image.mode == "P" else "RGB"
    return _converted(image, (3,), "u1", lambda part: part.convert(first).convert("RGB"))


def _converted(
    image: Image.Image,
    values: tuple[int, ...],
    dtype: str,
    convert: Callable[[Image.Image], Image.Image],
) -> np.ndarray:
    """Return the converted image, (H, W, *values).

    Converts a few rows at a time, because Pillow needs 4 bytes for each RGB pixel and copies the
    image for each conversion.
    """
    width, height = image.size
    converted = np.empty((height, width, *values), dtype)
    for rows in rows_of(height, width):
        part = np.asarray(convert(image.crop((0, rows.start, width, rows.stop))))
        converted[rows] = part.clip(0, 65535) if image.mode == "I" else part
    return converted
