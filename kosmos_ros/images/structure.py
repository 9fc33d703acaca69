# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reduce JPEG, PNG, GIF and TIFF files to the parts that decide their pixels.

Decoders receive only these parts. Their time and memory grow with the size and with the number of
parts, so this number is limited. Parts that do not change a pixel (EXIF, profiles, text,
thumbnails, further frames) are left out: no reader parses or unpacks them. Knows no pixels.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

from kosmos_ros.errors import ImageSizeError

MAX_SCANS = 32
"""Maximum number of scans of a JPEG. Each one takes a pass over all pixels. libjpeg and MozJPEG
write about 10 scans for a progressive colour image by default."""
MAX_SEGMENTS = 1000
"""Maximum number of segments of a JPEG. A segment has up to 64 KiB, so the longest colour profile
takes 255 segments, as does a depth map or a thermal image of 16 MB."""
MAX_CHUNKS = 1000
"""Maximum number of chunks of a PNG, in addition to one chunk for each CHUNK_BYTES of the file."""
CHUNK_BYTES = 1024
"""Smallest average size of the chunks of a large PNG. libpng writes pixels in chunks of 8 KiB."""

MAX_BLOCKS = 10_000
"""Maximum number of blocks of a GIF before its first frame. A block has up to 255 bytes."""
MAX_VALUES = 1 << 18
"""Maximum number of values of one field of a TIFF. The largest field has one value for each row
and plane."""
BMP_HEADER = 124
"""Maximum number of bytes of a BMP's header after the first 14: those of BITMAPV5HEADER, the
longest one."""
TILE_SIDE = 1024
"""Longest side, in pixels, of a tile of a small TIFF. A tile may be larger than the image."""

# A marker is a byte of FF and a byte that is not 0 or FF. Between the pixels of a scan, restart
# markers (D0 to D7) have no meaning for the structure (ITU-T T.81, B.1.1.2 and E.1.4).
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN, _END = 0xDA, 0xD9
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD})  # DHT, DAC, DQT, DNL, DRI
_FRAMES = frozenset(range(0xC0, 0xD0)) - _TABLES  # also JPG (C8), which readers refuse
_COLOURS = frozenset({0xE0, 0xEE})  # JFIF and Adobe, which name the colour space
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE}) - _COLOURS  # APPn and COM
_WITH_LENGTH = _TABLES | _FRAMES | _COLOURS | _METADATA | {_SCAN}

_SIGNATURE = 8  # bytes
_PARTS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

_SCREEN = 13  # bytes of a GIF's header and screen descriptor
_EXTENSION, _CONTROL, _FRAME = 0x21, 0xF9, 0x2C
_DISPOSAL = 0b11100  # bits about the next frame; because of them Pillow allocates an image

_SIDES = {256: 322, 257: 323}  # width and length of the image -> of its tiles (TIFF 6.0)
_NUMBERS = {3: "H", 4: "I"}  # types SHORT and LONG of a field: format of struct
_FIELDS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324}
    | {325, 338, 339, 347, 529, 530, 531, 532, *range(512, 522)}
)
"""Fields that decide the pixels. The orientation is ignored, as in the other formats."""


def jpeg(data: Any) -> bytes:
    """Return a JPEG (any buffer of bytes) without the metadata before its first scan.

    Finds markers in the same way as libjpeg (jdmarker.c, next_marker), so that libjpeg finds no
    scan that was not counted here. Raises ImageSizeError if there are more than MAX_SCANS scans or
    MAX_SEGMENTS segments, and ValueError if there is no scan.
    """
    data = memoryview(data)
    parts, start, at = [data[:2]], 0, 2
    counts = {"scans": 0, "segments": 0}
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            break
        if marker in _WITH_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        _count(counts, "segments", MAX_SEGMENTS)
        if marker == _SCAN:
            _count(counts, "scans", MAX_SCANS)
            start = start or found.start()
        elif not start and marker not in _METADATA:
            parts.append(data[found.start() : at])
    if not start:
        raise ValueError("no scan")
    return b"".join([*parts, data[start:]])


def _count(counts: dict[str, int], name: str, most: int) -> None:
    counts[name] += 1
    if counts[name] > most:
        raise ImageSizeError(
            f"a JPEG image must have at most {most} {name}, got {counts[name]} or more; "
            "save the image again with a common program"
        )


def png(data: Any) -> bytes:
    """Return a PNG (any buffer of bytes) with only the chunks that decide the pixels.

    Compares all checksums up to the chunk IEND. Raises ImageSizeError if there are more than
    MAX_CHUNKS chunks and one for each CHUNK_BYTES, and ValueError if a chunk is broken.
    """
    data = memoryview(data)
    most = MAX_CHUNKS + len(data) // CHUNK_BYTES
    parts, at, kind = [data[:_SIGNATURE]], _SIGNATURE, b""
    for _ in range(most):
        kind = bytes(data[at + 4 : at + 8])
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise ValueError("the file ends within a chunk")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"wrong checksum in chunk {kind!r}")
        if kind in _PARTS:
            parts.append(data[at:end])
        if kind == b"IEND":
            return b"".join(parts)
        at = end
    raise ImageSizeError(
        f"a PNG image of {len(data)} bytes must have at most {most} chunks, got {most + 1} or "
        "more; save the image again with a common program"
    )


def gif(data: Any) -> bytes:
    """Return a GIF (any buffer of bytes) without the comments before its first frame.

    Raises ImageSizeError if there are more than MAX_BLOCKS blocks, and ValueError or IndexError if
    there is no frame.
    """
    data = memoryview(data)
    start = at = _SCREEN + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    control, blocks = bytearray(), 0
    while data[at] == _EXTENSION:
        begun, size = at, 1  # of the extension's kind
        at += 1
        while size:
            at += size
            size = 1 + data[at] if data[at] else 0
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise ImageSizeError(
                    f"a GIF image must have at most {MAX_BLOCKS} blocks before its first frame, "
                    f"got {blocks} or more; save the image again with a common program"
                )
        at += 1
        if data[begun + 1] == _CONTROL and data[begun + 2]:  # has the transparent colour
            control = bytearray(data[begun:at])
            control[3] &= ~_DISPOSAL
    if data[at] != _FRAME:
        raise ValueError("no frame")
    return b"".join([data[:start], control, data[at:]])


def tiff(data: Any) -> bytes:
    """Return a TIFF (any buffer of bytes) with only the fields that decide the first page.

    Raises ImageSizeError if a field has more than MAX_VALUES values or a tile is much larger than
    the image, and struct.error if the file is broken.
    """
    data = memoryview(data)
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    fields: dict[int, bytes] = {}
    sides: dict[int, int] = {}
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, number = struct.unpack_from(f"{order}HHI", data, place)
        if tag not in _FIELDS or tag in fields:
            continue
        if number > MAX_VALUES:
            raise ImageSizeError(
                f"a field of a TIFF image must have at most {MAX_VALUES} values, got {number} in "
                f"field {tag}; save the image again with a common program"
            )
        fields[tag] = bytes(data[place : place + 12])
        if tag in _SIDES or tag in _SIDES.values():
            sides[tag] = _side(data, order, place)
    for image, tile in _SIDES.items():
        most = max(TILE_SIDE, 2 * sides.get(image, 0))
        if sides.get(tile, 0) > most:
            raise ImageSizeError(
                f"each side of a tile of this TIFF image must have at most {most} pixels, "
                f"got {sides[tile]}"
            )
    page = struct.pack(f"{order}H", len(fields)) + b"".join(fields.values()) + bytes(4)
    rest, end = data[8:], len(data) + len(data) % 2
    return b"".join([data[:4], struct.pack(f"{order}I", end), rest, bytes(len(data) % 2), page])


def _side(data: memoryview, order: str, place: int) -> int:
    """Return the value of a TIFF's field. Raises ImageSizeError unless it is one number in it."""
    tag, kind, number = struct.unpack_from(f"{order}HHI", data, place)
    if kind not in _NUMBERS or number != 1:  # the value would be elsewhere in the file
        raise ImageSizeError(
            f"field {tag} of a TIFF image must have one number of the types "
            f"{', '.join(map(str, _NUMBERS))}, got {number} of type {kind}"
        )
    (side,) = struct.unpack_from(order + _NUMBERS[kind], data, place + 8)
    return int(side)


def bmp(data: Any) -> bytes:
    """Return a BMP (any buffer of bytes) unchanged.

    Raises ImageSizeError for a header that is longer than any known one: Pillow would copy it.
    """
    length = int.from_bytes(data[14:18], "little")
    if length > BMP_HEADER:
        raise ImageSizeError(
            f"the header of a BMP image must have at most {BMP_HEADER} bytes, got {length}"
        )
    return bytes(data)
