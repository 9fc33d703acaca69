# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode images from cameras and files to RGB arrays.

Raw images go through the table of encodings.py; compressed images and files go through Pillow.
Every size is checked before memory of that size is allocated. Knows no ROS message and no
cv_bridge.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
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
from kosmos_ros.images import exif, structure
from kosmos_ros.images.encodings import ENCODINGS, Encoding, depth, grey, narrow, rows_of
from kosmos_ros.sanitize import one_line, quoted

MAX_SIDE = 32_750
"""Largest width or height in pixels.

A drawn image with the strip below it must fit a JPEG. The strip is at most as tall as the image,
and libjpeg allows 65,500 pixels. The limit also bounds the memory of resizing, which first makes
an image of the same height and the model's width.
"""
METADATA = 64 << 20
"""Most bytes of a compressed image in addition to 8 per pixel. A motion photo contains a film."""


def decode_raw(
    data: Any,
    width: int,
    height: int,
    encoding: str,
    step: int,
    is_bigendian: bool,
    max_pixels: int,
) -> np.ndarray:
    """Decode a raw image of `width` x `height` pixels to RGB (H, W, 3) uint8.

    `data` is bytes or an object with their buffer; bytes after the image are ignored. `step` is
    the length of a row of the first plane in bytes. For planar encodings without padding, `step`
    may also be the length of the data divided by `height`, as sensor_msgs/Image defines it: 3/2
    of the width for nv12 and nv21. The result is C-contiguous and may be a read-only view of
    `data`.
    Raises EncodingError and ImageSizeError as `check_raw` does, and ImageError if OpenCV fails.
    """
    buffer = _bytes(data)
    layout = check_raw(len(buffer), width, height, encoding, step, max_pixels)
    step = _plane_step(layout, len(buffer), width, height, step)
    planes = layout.split(buffer, width, height, step, is_bigendian)
    return np.ascontiguousarray(layout.convert(*planes))


def check_raw(
    length: int, width: int, height: int, encoding: str, step: int, max_pixels: int
) -> Encoding:
    """Check all numbers of a raw image of `length` bytes, and return its layout.

    Raises EncodingError if `encoding` is not in ENCODINGS. Raises ImageSizeError if a side is 0,
    if the image has more than `max_pixels` pixels or a size that the encoding cannot have, if
    `step` is shorter than a row, or if the data are too short.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise EncodingError(
            f"encoding {quoted(encoding)} is not supported; expected one of {', '.join(ENCODINGS)}"
        )
    check_size(width, height, max_pixels)
    across, down = layout.block
    if min(width, height) < layout.smallest or width % across or height % down:
        raise ImageSizeError(
            f"an image of {width} x {height} pixels cannot be {encoding}; its size must be at "
            f"least {layout.smallest} x {layout.smallest} and a multiple of {across} x {down}"
        )
    if step < layout.row_bytes(width):
        raise ImageSizeError(
            f"step must be at least {layout.row_bytes(width)} bytes "
            f"for {width} {encoding} pixels, got {step}"
        )
    expected = layout.size(height, _plane_step(layout, length, width, height, step))
    if length < expected:
        raise ImageSizeError(
            f"got {length} bytes of data; expected at least {expected} "
            f"for {width} x {height} {encoding} pixels with a step of {step} bytes"
        )
    return layout


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageSizeError if an image has no pixel, more than `max_pixels` or too long a side."""
    if width < 1 or height < 1:
        raise ImageSizeError(f"image must have at least 1 x 1 pixels, got {width} x {height}")
    if width * height > max_pixels:
        raise ImageSizeError(
            f"image must have at most {max_pixels} pixels (max_image_pixels), "
            f"got {width} x {height} = {width * height}"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageSizeError(
            f"each side of an image must have at most {MAX_SIDE} pixels, got {width} x {height}"
        )


def _plane_step(layout: Encoding, length: int, width: int, height: int, step: int) -> int:
    """Return the bytes from one row of the first plane to the next."""
    row = layout.row_bytes(width)
    of_all_planes = step * height == layout.size(height, row)
    return row if of_all_planes and length < layout.size(height, step) else step


def _bytes(data: Any) -> memoryview:
    try:
        return memoryview(data).cast("B")
    except TypeError:
        pass
    try:
        if isinstance(data, str | int):  # bytes(5) is five zeros
            raise TypeError("not a sequence of bytes")
        return memoryview(bytes(data))
    except (TypeError, ValueError, BufferError, RuntimeError) as exc:
        raise ImageError(
            f"data of type {type(data).__name__} cannot be read: {exc}; expected bytes"
        ) from exc


# Compressed images -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Format:
    """A compression: its first bytes, the function that removes metadata, and Pillow's reader."""

    signature: bytes
    reduce: Callable[[Any], bytes]
    read: Callable[[BinaryIO], ImageFile.ImageFile]


# Image.open would try every format, and has pixel limits and warnings of its own.
_FORMATS = {
    "JPEG": _Format(rb"\xff\xd8\xff", structure.jpeg, JpegImagePlugin.JpegImageFile),
    "PNG": _Format(rb"\x89PNG\r\n\x1a\n", structure.png, PngImagePlugin.PngImageFile),
    "WebP": _Format(rb"RIFF....WEBP", bytes, WebPImagePlugin.WebPImageFile),
    "BMP": _Format(rb"BM", structure.bmp, BmpImagePlugin.BmpImageFile),
    "GIF": _Format(rb"GIF8[79]a", structure.gif, GifImagePlugin.GifImageFile),
    "TIFF": _Format(rb"II\*\0|MM\0\*", structure.tiff, TiffImagePlugin.TiffImageFile),
}
SNIFFED = 16  # bytes at the start that decide the format
MESSAGE_FORMATS = ("JPEG", "PNG", "WebP")
FILE_FORMATS = tuple(_FORMATS)

_MODES: dict[str, Callable[[Image.Image], np.ndarray]] = {
    "I;16": lambda image: grey(narrow(_plane(image))),
    "I;16B": lambda image: grey(narrow(_plane(image))),
    "I": lambda image: grey(narrow(_plane(image).clip(0, 65535))),
    "F": lambda image: _plane(image),
    # Pillow warns if a palette with alpha is converted straight to RGB.
    "P": lambda image: np.asarray(image.convert("RGBA").convert("RGB")),
}
"""Pillow's modes that need more than `convert("RGB")` -> function from an image to its pixels."""

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

_pillow = threading.Lock()  # held while Pillow has the settings of `_settings`


def decode_compressed(data: Any, format: str, max_pixels: int) -> np.ndarray:
    """Decode a JPEG, PNG or WebP image to RGB (H, W, 3) uint8, which may be read-only.

    The first bytes decide the format; `format` only appears in errors. The size in the header is
    checked before decoding. The pixels are the stored ones: EXIF rotation is not applied, alpha is
    dropped, grey is repeated in the three channels. 16-bit grey is narrowed like mono16. Pillow
    keeps the high byte of 16-bit colours and converts CMYK to RGB.
    Raises EncodingError for another compression, ImageSizeError if the image has more than
    `max_pixels`, and ImageError if it is truncated or broken.
    """
    view = _bytes(data)
    try:
        kind = _sniff(bytes(view[:SNIFFED]), MESSAGE_FORMATS, quoted(format))
        return _decode(view, kind, quoted(format), max_pixels)
    except EncodingError as exc:
        raise EncodingError(
            f"{exc}; convert other transports (compressedDepth, theora, ffmpeg) with "
            "`ros2 run image_transport republish TRANSPORT raw`"
        ) from exc


def load(path: str | os.PathLike[str], max_pixels: int, stored: bool = False) -> np.ndarray:
    """Decode an image file of FILE_FORMATS to RGB (H, W, 3) uint8.

    Of an animation, only the first frame is decoded. The pixels are those that viewers show: they
    are turned as the EXIF orientation says, unless `stored`. All other rules and errors are those
    of `decode_compressed`. Float grey is shown like 32FC1.
    Raises ImageError if the file cannot be read.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(f"{os.fspath(path)} must be a regular file")
            return read(file, str(path), max_pixels, stored)
    except ImageSizeError as exc:
        raise ImageSizeError(f"{os.fspath(path)}: {exc}") from exc
    except OSError as exc:
        raise ImageError(f"{os.fspath(path)}: {exc.strerror or exc}") from exc
    except ValueError as exc:  # a NUL in the path
        raise ImageError(f"{os.fspath(path)!r}: {exc}") from exc


def read(file: BinaryIO, name: str, max_pixels: int, stored: bool = False) -> np.ndarray:
    """Decode an open image file at its start, as `load` does. `name` is for errors."""
    format = _sniff(file.read(SNIFFED), FILE_FORMATS, name)
    file.seek(0)
    data = [_whole(file, max_pixels)]
    orientation = 1 if stored else exif.orientation(data[0], format)
    # No reference is left here, so that the bytes are freed before the pixels are converted.
    image = _decode(data.pop(), format, name, max_pixels)
    return exif.upright(image, orientation)


def _open(path: str, flags: int) -> int:
    """Open a file. Does not wait for the writer of a named pipe, which `load` then refuses."""
    return os.open(path, flags | os.O_NONBLOCK)


def _decode(data: Any, format: str, name: str, max_pixels: int) -> np.ndarray:
    """Decode an image of a known format to RGB. `name` is for errors."""
    with _settings():
        try:
            if format == "WebP":  # its reader allocates two images before it knows the size
                check_size(*_webp_size(data), max_pixels)
            image = _FORMATS[format].read(io.BytesIO(_FORMATS[format].reduce(data)))
            del data  # the image keeps its bytes until the pixels are loaded
            check_size(*image.size, max_pixels)
            if any(tile[0] == "bmp_rle" for tile in image.tile):
                raise EncodingError(f"{name} is a run-length encoded BMP image; save it as PNG")
            return _rgb(image)
        except _BROKEN as exc:
            raise ImageError(
                f"{name} is a broken or truncated {format} image: {one_line(exc, 200)}"
            ) from exc


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Let Pillow refuse truncated files and accept images of any size, which `check_size` limits.

    Other code in this process may have chosen other settings.
    """
    with _pillow:
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = lenient, most


def _whole(file: BinaryIO, max_pixels: int) -> bytes:
    """Return all bytes of a file. Raises ImageSizeError if there are too many for `max_pixels`."""
    most = METADATA + 8 * max_pixels
    data = file.read(most + 1)
    if len(data) > most:
        raise ImageSizeError(
            f"a compressed image must have at most {most} bytes (8 for each of the "
            f"{max_pixels} pixels of max_image_pixels, and {METADATA} more), got more"
        )
    return data


def _sniff(head: bytes, formats: tuple[str, ...], name: str) -> str:
    for format in formats:
        if re.match(_FORMATS[format].signature, head, re.DOTALL):
            return format
    if not head:
        raise ImageSizeError("the image has 0 bytes of data")
    raise EncodingError(
        f"{name} is not a {', '.join(formats[:-1])} or {formats[-1]} image: "
        f"it begins with {head[:8].hex(' ')}"
    )


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


def _rgb(image: Image.Image) -> np.ndarray:
    """Convert an image to RGB (H, W, 3) uint8.

    Converts a few rows at a time, because Pillow needs 4 bytes for each RGB pixel and copies the
    image for each conversion.
    """
    image.load()
    convert = _MODES.get(image.mode, lambda part: np.asarray(part.convert("RGB")))
    width, height = image.size
    one = convert(image.crop((0, 0, 1, 1)))
    pixels = np.empty((height, width, one.shape[2]), one.dtype)
    for rows in rows_of(height, width):
        pixels[rows] = convert(image.crop((0, rows.start, width, rows.stop)))
    return depth(pixels) if image.mode == "F" else pixels


def _plane(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[..., np.newaxis]
