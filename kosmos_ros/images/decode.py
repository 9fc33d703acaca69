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
import sys
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
from kosmos_ros.images.encodings import ENCODINGS, Encoding, layout_of, rows_of
from kosmos_ros.sanitize import one_line, quoted

MAX_SIDE = 32_750
"""Largest width or height in pixels.

A drawn image with the strip below it must fit a JPEG. The strip is at most as tall as the image,
and libjpeg allows 65,500 pixels. The limit also bounds the memory of resizing, which first makes
an image of the same height and the model's width.
"""
METADATA = 64 << 20
"""Most bytes of an image in addition to 8 per pixel. A motion photo contains a film."""


def decode_raw(
    data: Any,
    width: int,
    height: int,
    encoding: str,
    step: int,
    is_bigendian: bool,
    max_pixels: int,
    stretch: bool = False,
) -> np.ndarray:
    """Decode a raw image of `width` x `height` pixels to RGB (H, W, 3) uint8.

    `data` is bytes or an object with their buffer; bytes after the image are ignored. `step` is
    the length of a row of the first plane in bytes. For planar encodings without padding, `step`
    may also be the length of the data divided by `height`, as sensor_msgs/Image defines it: 3/2
    of the width for nv12 and nv21; or twice the width, because sensor_msgs counts two channels.
    `stretch`: spread mono16 over the whole range, see STRETCHED. The result is C-contiguous and
    may be a read-only view of `data`.
    Raises EncodingError and ImageSizeError as `check_raw` does, and ImageError if OpenCV fails.
    """
    buffer = _bytes(data)
    layout = check_raw(len(buffer), width, height, encoding, step, max_pixels, stretch)
    step = _plane_step(layout, len(buffer), width, height, step)
    planes = layout.split(buffer, width, height, step, is_bigendian)
    return np.ascontiguousarray(layout.convert(*planes))


def check_raw(
    length: int,
    width: int,
    height: int,
    encoding: str,
    step: int,
    max_pixels: int,
    stretch: bool = False,
) -> Encoding:
    """Check all numbers of a raw image of `length` bytes, and return its layout.

    Raises EncodingError if `encoding` is not in ENCODINGS. Raises ImageSizeError if a side is 0,
    if the image has more than `max_pixels` pixels or a size that the encoding cannot have, if
    `step` is shorter than a row, or if the data are too short.
    """
    layout = layout_of(encoding, stretch)
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


def check_uncompressed(head: bytes, encoding: str) -> None:
    """Raise EncodingError if `head` is the start of a compressed image and not of a raw one.

    `head` has the first SNIFFED bytes of the data. Some drivers put the JPEG of a camera into an
    Image message, with any `encoding`.
    """
    for kind, signature in _NEVER_RAW.items():
        if re.match(signature, head, re.DOTALL):
            raise EncodingError(
                f"the data of an Image of encoding {quoted(encoding)} are a {kind} file; publish "
                "them as sensor_msgs/CompressedImage and set image_transport:=compressed, or send "
                "them in compressed_image of a request"
            )


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


def check_bytes(name: str, length: int, max_pixels: int) -> None:
    """Raise ImageSizeError if `length` bytes are more than an image of `max_pixels` can have.

    The limit is the same for raw and compressed images; no raw encoding has more than 8 bytes for
    each pixel. `name` is the name of the image in the error.
    """
    most = METADATA + 8 * max_pixels
    if length > most:
        raise ImageSizeError(
            f"{name} must have at most {most} bytes (8 for each of the {max_pixels} pixels of "
            f"max_image_pixels, and {METADATA} more), got at least {length}"
        )


def _plane_step(layout: Encoding, length: int, width: int, height: int, step: int) -> int:
    """Return the bytes from one row of the first plane to the next."""
    row = layout.row_bytes(width)
    # Some publishers take the channels of image_encodings::numChannels, which are 2 for nv*.
    by_channels = step == len(layout.planes) * row
    shared = by_channels or step * height == layout.size(height, row)
    return row if shared and length < layout.size(height, step) else step


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
_NEVER_RAW = {
    "JPEG": rb"\xff\xd8\xff(?:[\xe0\xe1]..(?:JFIF|Exif|AVI1)|\xdb\0[\x43\x84]\0)",
    "PNG": _FORMATS["PNG"].signature,
    "WebP": _FORMATS["WebP"].signature,
}
"""First bytes that no raw image has by chance. A JPEG begins with a segment APP0 or APP1, or with
its quantization table, as in the streams of many webcams."""
SNIFFED = 16  # bytes at the start that decide the format
MESSAGE_FORMATS = ("JPEG", "PNG", "WebP")
FILE_FORMATS = tuple(_FORMATS)

_PLANES: dict[str, tuple[str, str]] = {
    "L": ("u1", "mono8"),
    "I;16": ("u2", "mono16"),
    "I;16B": ("u2", "mono16"),
    "I": ("u2", "mono16"),  # clipped
    "F": ("f4", "32FC1"),
}
"""Pillow's modes of one value per pixel: the type of the value, and the encoding if the message
names none."""

_SIGNED_OR_FLOAT = r"(?:8S|16S|32S|32F|64F)C1"
"""Encodings of one value per pixel that JPEG, PNG and WebP cannot store (image_encodings.hpp)."""

POSITIONAL_REPUBLISH = ("humble", "iron")
"""Distributions whose `image_transport republish` takes transports as arguments and not as
parameters (image_common, republish.cpp of each branch)."""

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


def decode_compressed(
    data: Any, format: str, max_pixels: int, stretch: bool = False
) -> np.ndarray:
    """Decode a JPEG, PNG or WebP image to RGB (H, W, 3) uint8, which may be read-only.

    The first bytes decide the compression. If the image has one value per pixel, `format` may name
    the raw encoding of these values, such as 16UC1 or bayer_rggb8; see `stored_encoding`. They are
    then converted by the table of encodings.py. Otherwise grey is repeated in the three channels,
    and 16-bit grey is narrowed like mono16, or stretched if `stretch` is set. The size in the
    header is checked before decoding. The pixels are the stored ones: EXIF rotation is not
    applied, alpha is dropped. Pillow keeps the high byte of 16-bit colours and converts CMYK.
    Raises EncodingError for another compression, ImageSizeError if the image has more than
    `max_pixels`, and ImageError if it is truncated or broken.
    """
    view = _bytes(data)
    head = bytes(view[:SNIFFED])
    if not head:  # compressed_image_transport sends this for an image that it cannot compress
        raise ImageSizeError(
            f"the image of format {quoted(format)} has 0 bytes of data; "
            "its publisher could not compress it"
        )
    try:
        kind = _sniff(head, MESSAGE_FORMATS, quoted(format))
    except EncodingError as exc:
        raise EncodingError(f"{exc}; {_conversion(head, format)}") from exc
    values = _Values(stored_encoding(format), stretch)
    return _decode(view, kind, quoted(format), max_pixels, values)


def _conversion(head: bytes, format: str) -> str:
    """Return what turns a compression that begins with `head` into one of MESSAGE_FORMATS."""
    if re.match(_FORMATS["TIFF"].signature, head, re.DOTALL):
        return "set the parameter format of its compressed_image_transport to jpeg or png"
    transport = "compressedDepth" if "compressedDepth" in format else "TRANSPORT"
    transports = (
        f"{transport} raw --ros-args"
        if os.environ.get("ROS_DISTRO") in POSITIONAL_REPUBLISH
        else f"--ros-args -p in_transport:={transport} -p out_transport:=raw"
    )
    return (
        "convert other transports (compressedDepth, ffmpeg, theora) with "
        f"`ros2 run image_transport republish {transports} "
        f"-r in/{transport}:=TOPIC/{transport} -r out:=NEW_TOPIC`"
    )


def stored_encoding(format: str) -> str:
    """Return the encoding of the values in a compressed image by its `format`; "" if unknown.

    compressed_image_transport writes "ENCODING; png compressed TARGET" (compressed_publisher.cpp).
    It converts the image to TARGET first: always for JPEG, and for PNG if the image has colours.
    Without TARGET the PNG has the values of ENCODING: depth, or the mosaic of a Bayer pattern.
    compressed_depth_image_transport writes "ENCODING; compressedDepth png" (codec.cpp). Its PNG
    follows a header, but other publishers omit the header, and then it has the values of ENCODING.
    """
    encoding, _, rest = format.partition(";")
    compression, _, target = rest.partition("compressed")
    if target.startswith("Depth") and not compression.strip():
        return encoding.strip()
    return target.strip() or encoding.strip()


@dataclass(frozen=True)
class _Values:
    """How to convert the values of an image that has one value per pixel."""

    encoding: str = ""  # empty: the one of _PLANES
    stretch: bool = False  # see encodings.STRETCHED


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


def _decode(
    data: Any, format: str, name: str, max_pixels: int, values: _Values = _Values()
) -> np.ndarray:
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
            return _rgb(image, values)
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
    data = file.read(METADATA + 8 * max_pixels + 1)
    check_bytes("a compressed image", len(data), max_pixels)
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


def _rgb(image: Image.Image, values: _Values) -> np.ndarray:
    """Convert an image to RGB (H, W, 3) uint8."""
    image.load()
    if image.mode not in _PLANES:
        # Pillow warns if a palette with alpha is converted straight to RGB.
        first = "RGBA" if image.mode == "P" else "RGB"
        return _pixels(image, (3,), "u1", lambda part: part.convert(first).convert("RGB"))
    dtype, encoding = _PLANES[image.mode]
    if re.fullmatch(_SIGNED_OR_FLOAT, values.encoding) and dtype != "f4":
        raise EncodingError(
            f"the format names the encoding {quoted(values.encoding)}, but a {image.format} image "
            "has only unsigned values of 8 or 16 bits, so the original values are lost; publish "
            "the raw image and set image_transport:=raw, or convert the image to 16UC1 (depth) or "
            "mono8 before it is compressed"
        )
    layout = ENCODINGS.get(values.encoding)
    if layout and (layout.planes, layout.dtype) == (ENCODINGS[encoding].planes, dtype):
        encoding = values.encoding
    plane = _pixels(image, (), dtype, lambda part: part)
    width, height = image.size
    big_endian, step = sys.byteorder == "big", width * plane.itemsize
    pixels = width * height
    return decode_raw(plane, width, height, encoding, step, big_endian, pixels, values.stretch)


def _pixels(
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
    pixels = np.empty((height, width, *values), dtype)
    for rows in rows_of(height, width):
        part = np.asarray(convert(image.crop((0, rows.start, width, rows.stop))))
        pixels[rows] = part.clip(0, 65535) if image.mode == "I" else part
    return pixels
