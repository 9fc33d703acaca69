# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Valid JPEG, PNG and WebP files, and functions that make invalid ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

LIMIT = 100_000


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour_type, rows, *extra):
    """Return a PNG; `rows` are its bytes, with a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def encoded(image, format, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return file.getvalue()


def picture(width=64, height=48):
    """Return an image: left half red, right half (10, 20, 30), lowest quarter white."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = (255, 0, 0), (10, 20, 30)
    image[height * 3 // 4 :] = 255
    return image


def noise(width=64, height=48):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


EXAMPLES = {
    "JPEG": encoded(picture(), "JPEG", quality=95),
    "progressive JPEG": encoded(noise(), "JPEG", progressive=True),
    "PNG": encoded(noise(), "PNG"),
    "WebP": encoded(noise(), "WEBP", lossless=True),
    "lossy WebP": encoded(noise(), "WEBP"),
}
