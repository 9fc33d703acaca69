# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reduce JPEG and PNG files to the parts that decide their pixels, before they are decoded.

The time and memory of a decoder grow with the number of parts as well as with the size. So the
parts are counted here, and those that do not change a pixel (EXIF, profiles, text, thumbnails,
further frames) are left out: no reader ever sees or unpacks them. Knows no pixel.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from kosmos_ros.errors import ImageError

MAX_SCANS = 32
"""Most scans of a JPEG. Each one takes a pass over all pixels. Without options, libjpeg writes 10
scans for a progressive colour image and MozJPEG about as many."""
MAX_SEGMENTS = 1000
"""Most segments of a JPEG, of up to 64 KiB. The longest colour profile takes 255 of them, and so
does a depth map or a thermal image of 16 MB."""
MAX_CHUNKS = 1000
"""Most chunks of a small PNG; one of more bytes may also have one for each CHUNK_BYTES."""
CHUNK_BYTES = 1024
"""Least average size of the chunks of a large PNG. libpng writes the pixels in chunks of 8 KiB."""

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


def jpeg(data: Any) -> bytes:
    """Return a JPEG (any buffer of bytes) without metadata before its first scan.

    Markers are found as libjpeg finds them (jdmarker.c, next_marker), so that it sees no scan that
    was not counted here. Raises ImageError if there are more than MAX_SCANS scans or MAX_SEGMENTS
    segments, and ValueError if there is no scan.
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
        raise ImageError(
            f"a JPEG image must have at most {most} {name}, got {counts[name]} or more; "
            "save the image again with a common program"
        )


def png(data: Any) -> bytes:
    """Return a PNG (any buffer of bytes) with only the chunks that decide the pixels.

    All checksums are compared, up to the chunk IEND. Raises ImageError if there are more chunks
    than MAX_CHUNKS and one for each CHUNK_BYTES, and ValueError if a chunk is broken.
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
    raise ImageError(
        f"a PNG image of {len(data)} bytes must have at most {most} chunks, got {most + 1} or "
        "more; save the image again with a common program"
    )
