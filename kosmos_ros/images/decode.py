# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode images from cameras and files to RGB arrays.

Raw images go through the table of encodings.py; compressed images and files go through Pillow.
Every size is checked before memory of that size is allocated. Imports no ROS message and no
cv_bridge.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import Any, BinaryIO, Protocol

import numpy as np

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images import exif, formats
from kosmos_ros.images.encodings import ENCODINGS, Encoding, layout_of
from kosmos_ros.images.formats import FILE_FORMATS, FORMATS, MESSAGE_FORMATS, NEVER_RAW, SNIFFED
from kosmos_ros.images.size import METADATA, check_bytes, check_size
from kosmos_ros.sanitize import quoted

POSITIONAL_REPUBLISH = ("humble", "iron")
"""Distributions whose `image_transport republish` takes transports as arguments and not as
parameters (image_common, republish.cpp of each branch)."""

_GREY = {"u1": "mono8", "u2": "mono16", "f4": "32FC1"}
"""Encoding of a compressed image with one value per pixel, if the message names none: by the type
of the values."""

_SIGNED_OR_FLOAT = r"(?:8S|16S|32S|32F|64F)C1"
"""Encodings of one value per pixel that JPEG, PNG and WebP cannot store (image_encodings.hpp)."""


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


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that `decode_raw` needs."""

    data: Any
    width: int
    height: int
    encoding: str
    step: int
    is_bigendian: Any


def decode_message(message: RawImage, max_pixels: int, stretch: bool = False) -> np.ndarray:
    """Decode an image message to RGB (H, W, 3) uint8, as `decode_raw` does.

    Raises EncodingError also if the data are a compressed image.
    """
    check_uncompressed(bytes(message.data[:SNIFFED]), message.encoding)
    return decode_raw(
        message.data,
        message.width,
        message.height,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
        max_pixels,
        stretch,
    )


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
    for kind, signature in NEVER_RAW.items():
        if signature.match(head):
            raise EncodingError(
                f"the data of an Image of encoding {quoted(encoding)} are a {kind} file; publish "
                "them as sensor_msgs/CompressedImage and set image_transport:=compressed, or send "
                "them in compressed_image of a request"
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
        kind = formats.sniff(head, MESSAGE_FORMATS, quoted(format))
    except EncodingError as exc:
        raise EncodingError(f"{exc}; {_conversion(head, format)}") from exc
    pixels = formats.pixels(view, kind, quoted(format), max_pixels)
    return _rgb(pixels, kind, stored_encoding(format), stretch)


def _conversion(head: bytes, format: str) -> str:
    """Return what turns a compression that begins with `head` into one of MESSAGE_FORMATS."""
    if FORMATS["TIFF"].signature.match(head):
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
    format = formats.sniff(file.read(SNIFFED), FILE_FORMATS, name)
    file.seek(0)
    data = [_whole(file, max_pixels)]
    orientation = 1 if stored else exif.orientation(data[0], format)
    # No reference is left here, so that the bytes are freed before the pixels are converted.
    pixels = formats.pixels(data.pop(), format, name, max_pixels)
    return exif.upright(_rgb(pixels, format), orientation)


def _open(path: str, flags: int) -> int:
    """Open a file. Does not wait for the writer of a named pipe, which `load` then refuses."""
    return os.open(path, flags | os.O_NONBLOCK)


def _whole(file: BinaryIO, max_pixels: int) -> bytes:
    """Return all bytes of a file. Raises ImageSizeError if there are too many for `max_pixels`."""
    data = file.read(METADATA + 8 * max_pixels + 1)
    check_bytes("a compressed image", len(data), max_pixels)
    return data


def _rgb(pixels: np.ndarray, format: str, encoding: str = "", stretch: bool = False) -> np.ndarray:
    """Return what `formats.pixels` returned as RGB (H, W, 3) uint8.

    `encoding` is the one that the message names for an image with one value per pixel; see
    `decode_compressed`. Raises EncodingError if such an image cannot have values of it.
    """
    if pixels.ndim == 3:
        return pixels
    grey = pixels.dtype.str[1:]
    if re.fullmatch(_SIGNED_OR_FLOAT, encoding) and grey != "f4":
        raise EncodingError(
            f"the format names the encoding {quoted(encoding)}, but a {format} image "
            "has only unsigned values of 8 or 16 bits, so the original values are lost; publish "
            "the raw image and set image_transport:=raw, or convert the image to 16UC1 (depth) or "
            "mono8 before it is compressed"
        )
    layout, usual = ENCODINGS.get(encoding), ENCODINGS[_GREY[grey]]
    if not layout or (layout.planes, layout.dtype) != (usual.planes, grey):
        encoding = _GREY[grey]
    height, width = pixels.shape
    big_endian, step = sys.byteorder == "big", width * pixels.itemsize
    return decode_raw(pixels, width, height, encoding, step, big_endian, width * height, stretch)
