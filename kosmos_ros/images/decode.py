# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode images from cameras and files to RGB arrays.

Raw images go through the table of encodings.py; compressed images and files go through Pillow.
Every size is checked before memory of that size is allocated. Knows no ROS message and no
cv_bridge.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
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
from kosmos_ros.images.encodings import ENCODINGS, Converter, Encoding, depth, grey, narrow
from kosmos_ros.sanitize import one_line, quoted


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
    """Raise ImageSizeError if an image has no pixels or more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageSizeError(f"image must have at least 1 x 1 pixels, got {width} x {height}")
    if width * height > max_pixels:
        raise ImageSizeError(
            f"image must have at most {max_pixels} pixels (max_image_pixels), "
            f"got {width} x {height} = {width * height}"
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

# Image.open would try every format, and has pixel limits and warnings of its own.
_FORMATS: dict[str, tuple[bytes, Callable[[BinaryIO], ImageFile.ImageFile]]] = {
    "JPEG": (rb"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    "PNG": (rb"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    "WebP": (rb"RIFF....WEBP", WebPImagePlugin.WebPImageFile),
    "BMP": (rb"BM", BmpImagePlugin.BmpImageFile),
    "GIF": (rb"GIF8[79]a", GifImagePlugin.GifImageFile),
    "TIFF": (rb"II\*\0|MM\0\*", TiffImagePlugin.TiffImageFile),
}
MESSAGE_FORMATS = ("JPEG", "PNG", "WebP")
FILE_FORMATS = tuple(_FORMATS)

_MODES: dict[str, Converter] = {
    "I;16": lambda pixels: grey(narrow(pixels)),
    "I;16B": lambda pixels: grey(narrow(pixels)),
    "I": lambda pixels: grey(narrow(pixels.clip(0, 65535))),
    "F": depth,
}
"""Pillow's modes of one channel with more than 8 bits -> converter."""

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

_strict = threading.Lock()  # while ImageFile.LOAD_TRUNCATED_IMAGES is False


def decode_compressed(data: Any, format: str, max_pixels: int) -> np.ndarray:
    """Decode a JPEG, PNG or WebP image to RGB (H, W, 3) uint8, which may be read-only.

    The first bytes decide the format; `format` only appears in errors. The size in the header is
    checked before decoding. The pixels are the stored ones: EXIF rotation is not applied, alpha is
    dropped, grey is repeated in the three channels. 16-bit grey is narrowed like mono16. Pillow
    keeps the high byte of 16-bit colours and converts CMYK to RGB.
    Raises EncodingError for another compression, ImageSizeError if the image has more than
    `max_pixels`, and ImageError if it is truncated or broken.
    """
    try:
        return _decode(io.BytesIO(_bytes(data)), MESSAGE_FORMATS, quoted(format), max_pixels)
    except EncodingError as exc:
        raise EncodingError(
            f"{exc}; convert other transports (compressedDepth, theora, ffmpeg) with "
            "`ros2 run image_transport republish TRANSPORT raw`"
        ) from exc


def load(path: str | os.PathLike[str], max_pixels: int) -> np.ndarray:
    """Decode an image file of FILE_FORMATS to RGB (H, W, 3) uint8.

    Of an animation, only the first frame is decoded.
    The rules and errors are those of `decode_compressed`. Float grey is shown like 32FC1.
    Raises ImageError if the file cannot be read.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            return _decode(file, FILE_FORMATS, str(path), max_pixels)
    except ImageSizeError as exc:
        raise ImageSizeError(f"{os.fspath(path)}: {exc}") from exc
    except OSError as exc:
        raise ImageError(f"{os.fspath(path)}: {exc.strerror or exc}") from exc
    except ValueError as exc:  # a NUL in the path
        raise ImageError(f"{os.fspath(path)!r}: {exc}") from exc


def _open(path: str, flags: int) -> int:
    """Open a file, or a named pipe without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _decode(file: BinaryIO, formats: tuple[str, ...], name: str, max_pixels: int) -> np.ndarray:
    format = _sniff(file, formats, name)
    read = _FORMATS[format][1]
    # Other code in this process may have set Pillow to accept truncated files.
    with _strict:
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            if format == "WebP":  # its reader allocates two images before it knows the size
                check_size(*_webp_size(file), max_pixels)
            image = read(file)
            check_size(*image.size, max_pixels)
            if format == "PNG":
                image.verify()  # the chunks' checksums, which decoding ignores
                file.seek(0)
                image = read(file)
            return _rgb(image)
        except _BROKEN as exc:
            raise ImageError(
                f"{name} is a broken or truncated {format} image: {one_line(exc, 200)}"
            ) from exc
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _sniff(file: BinaryIO, formats: tuple[str, ...], name: str) -> str:
    head = file.read(16)
    file.seek(0)
    for format in formats:
        if re.match(_FORMATS[format][0], head, re.DOTALL):
            return format
    if not head:
        raise ImageSizeError("the image has 0 bytes of data")
    raise EncodingError(
        f"{name} is not a {', '.join(formats[:-1])} or {formats[-1]} image: "
        f"it begins with {head[:8].hex(' ')}"
    )


def _webp_size(file: BinaryIO) -> tuple[int, int]:
    """Read width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    head = file.read(30)
    file.seek(0)

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
    if convert := _MODES.get(image.mode):
        return convert(np.asarray(image)[..., np.newaxis])
    if image.mode == "P":
        # Pillow warns if a palette with alpha is converted straight to RGB.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
