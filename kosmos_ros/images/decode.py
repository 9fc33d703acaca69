# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pixels as a camera sends them in, RGB arrays out.

Raw frames go by the table of encodings.py; compressed ones and files through Pillow. Every size
is checked before anything of that size is allocated. Knows no ROS message and no cv_bridge.
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
    """RGB pixels (H, W, 3) uint8 of a raw picture of `width` x `height` pixels.

    `data` is bytes or anything that has their buffer; more than the picture needs is ignored.
    `step` is the length of a row in bytes; for nv12 and nv21 of a row of each plane, or 3/2 of
    the width for planes without padding, as Image has step * height bytes of data. The array is
    C-contiguous; it may be a read-only view of `data`.
    Raises EncodingError and ImageSizeError as `check_raw` does, and ImageError where OpenCV
    fails.
    """
    buffer = _bytes(data)
    layout = check_raw(len(buffer), width, height, encoding, step, max_pixels)
    dtype = np.dtype(layout.dtype).newbyteorder(">" if is_bigendian else "<")
    pixels: np.ndarray = np.ndarray(
        (_rows(layout, height), width, layout.channels),
        dtype,
        buffer,
        strides=(
            _stride(layout, width, height, step, len(buffer)),
            layout.pixel_bytes,
            dtype.itemsize,
        ),
    )
    if not dtype.isnative:
        pixels = pixels.astype(dtype.newbyteorder("="))
    return np.ascontiguousarray(layout.convert(pixels))


def check_raw(
    length: int, width: int, height: int, encoding: str, step: int, max_pixels: int
) -> Encoding:
    """The layout of a raw picture of `length` bytes whose numbers agree with each other.

    Raises EncodingError for an encoding that is not in ENCODINGS, and ImageSizeError for a size
    of 0, of more than `max_pixels` pixels or that the encoding cannot have, a row longer than
    `step`, or data that is too short.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise EncodingError(
            f"encoding {quoted(encoding)} is not supported; "
            f"one of {', '.join(ENCODINGS)} is needed"
        )
    check_size(width, height, max_pixels)
    if min(width, height) < layout.smallest or width % layout.unit[0] or height % layout.unit[1]:
        across, down = layout.unit
        raise ImageSizeError(
            f"a picture of {width} x {height} pixels cannot be {encoding}: at least "
            f"{layout.smallest} x {layout.smallest} and multiples of {across} x {down} are needed"
        )
    if step < width * layout.pixel_bytes:
        raise ImageSizeError(
            f"step is {step} bytes, but a row of {width} {encoding} pixels has "
            f"{width * layout.pixel_bytes}"
        )
    needed = _rows(layout, height) * _stride(layout, width, height, step, length)
    if length < needed:
        raise ImageSizeError(
            f"{length} bytes of data, but {width} x {height} {encoding} pixels with a step of "
            f"{step} bytes have {needed}"
        )
    return layout


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageSizeError for a picture of no pixels or of more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageSizeError(f"a picture of {width} x {height} pixels; at least 1 x 1 is needed")
    if width * height > max_pixels:
        raise ImageSizeError(
            f"a picture of {width} x {height} = {width * height} pixels; "
            f"at most {max_pixels} are allowed"
        )


def _rows(layout: Encoding, height: int) -> int:
    return height * layout.rows[0] // layout.rows[1]


def _stride(layout: Encoding, width: int, height: int, step: int, length: int) -> int:
    """Bytes from one row of data to the next."""
    rows, of = layout.rows
    packed = rows != of and step * of == width * rows and length < step * _rows(layout, height)
    return width if packed else step


def _bytes(data: Any) -> memoryview:
    try:
        return memoryview(data).cast("B")
    except TypeError:
        pass
    try:
        if isinstance(data, str | int):  # bytes(5) is five zeros
            raise TypeError("neither bytes nor a sequence of them")
        return memoryview(bytes(data))
    except (TypeError, ValueError, BufferError, RuntimeError) as exc:
        raise ImageError(
            f"data of type {type(data).__name__} cannot be read: {exc}; bytes are needed"
        ) from exc


# Compressed pictures ---------------------------------------------------------------------------

# The classes themselves, as Image.open has pixel limits of its own, warns, and tries every format.
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
"""Pillow's modes of one channel of more than 8 bits. Older versions give a PNG's 16 bits as I."""

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
"""What Pillow's readers raise for data that is no picture."""

_strict = threading.Lock()


def decode_compressed(data: Any, format: str, max_pixels: int) -> np.ndarray:
    """RGB pixels (H, W, 3) uint8 of a JPEG, PNG or WebP picture.

    `format` is only shown in errors: what the data begins with counts. The size is read from the
    header and checked before decoding. Pixels are those stored: an EXIF rotation is not applied,
    alpha is dropped, grey is repeated. Grey of 16 bits is narrowed as mono16; of 16 bits a colour
    Pillow keeps the high byte. CMYK goes to RGB by Pillow's formula.
    Raises EncodingError for another compression, ImageSizeError for a picture of more than
    `max_pixels`, ImageError for one that is truncated or broken. The array may be read-only.
    """
    try:
        return _decode(io.BytesIO(_bytes(data)), MESSAGE_FORMATS, quoted(format), max_pixels)
    except EncodingError as exc:
        raise EncodingError(
            f"{exc}; for compressedDepth, theora, ffmpeg and others run "
            "`ros2 run image_transport republish TRANSPORT raw`"
        ) from exc


def load(path: str | os.PathLike[str], max_pixels: int) -> np.ndarray:
    """RGB pixels (H, W, 3) uint8 of a picture file of FILE_FORMATS, its first frame if it moves.

    By the rules of `decode_compressed`; grey values in float are shown as 32FC1 is.
    Raises the same errors, and ImageError for a file that cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return _decode(file, FILE_FORMATS, str(path), max_pixels)
    except ImageSizeError as exc:
        raise ImageSizeError(f"{os.fspath(path)}: {exc}") from exc
    except OSError as exc:
        raise ImageError(f"{os.fspath(path)}: {exc.strerror or exc}") from exc
    except ValueError as exc:  # a NUL in the path
        raise ImageError(f"{os.fspath(path)!r}: {exc}") from exc


def _decode(file: BinaryIO, formats: tuple[str, ...], name: str, max_pixels: int) -> np.ndarray:
    format = _sniff(file, formats, name)
    read = _FORMATS[format][1]
    # Another user of Pillow in this process may have asked it to fill in what is missing.
    with _strict:
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            if format == "WebP":  # whose reader allocates two pictures before it tells the size
                check_size(*_webp_size(file), max_pixels)
            picture = read(file)
            check_size(*picture.size, max_pixels)
            if format == "PNG":
                picture.verify()  # the chunks' checksums, which decoding does not look at
                file.seek(0)
                picture = read(file)
            return _rgb(picture)
        except _BROKEN as exc:
            raise ImageError(
                f"{name} is a broken or truncated {format} picture: {one_line(exc, 200)}"
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
        raise ImageSizeError("a picture of 0 bytes")
    raise EncodingError(
        f"{name} is no {', '.join(formats)} picture: it begins with {head[:8].hex(' ')}"
    )


def _webp_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height by the first chunk (RFC 9649, sections 2.5 to 2.7)."""
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


def _rgb(picture: Image.Image) -> np.ndarray:
    if convert := _MODES.get(picture.mode):
        return convert(np.asarray(picture)[..., np.newaxis])
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # straight to RGB, Pillow warns of a palette with alpha
    return np.asarray(picture.convert("RGB"))
