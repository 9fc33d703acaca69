# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: the structure of JPEG images, such as their scans, tables and metadata."""

import io
import re
import warnings

import numpy as np
from PIL import JpegImagePlugin

from fuzz.compressed import EXIF, LIMIT, check, picture
from fuzz.pieces import REPEAT, SET, assembled, seeds
from fuzz.source import Source
from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import _rgb, decode_compressed
from kosmos_ros.images.formats import pixels_of
from kosmos_ros.images.structure import jpeg

MEMORY = 256  # MiB

SIZES = (0xC0, 0xC2)  # the segments with width and height


def segments(file):
    """Return the segments of a JPEG from Pillow, each scan with its pixels."""
    starts = [found.start() for found in re.finditer(rb"\xff[\xc0-\xcf\xd8-\xfe]", file)]
    return [file[a:b] for a, b in zip(starts, [*starts[1:], len(file)], strict=True)]


FILES = [
    segments(picture("JPEG", mode, size=size, **options))
    for mode in ("RGB", "L", "CMYK")
    for size in ((20, 14), (1, 100))
    for options in ({}, {"progressive": True}, {"subsampling": 0, "restart_marker_blocks": 1})
]
MORE = (
    *(bytes([0xFF, marker]) for marker in (0x01, 0x02, 0xBF, 0xD0, 0xD7, 0xD8, 0xD9, 0xDA, 0xFF)),
    *(bytes([0xFF, marker, 0, 4, 0xFF, 0xDA]) for marker in (0xE0, 0xE1, 0xEE, 0xFE, 0xDC)),
    b"\xff\xe1\0\x40Exif\0\0" + EXIF.tobytes()[6:].ljust(56, b"\0"),
    b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1",
    b"\xff\xdd\0\4\0\1",
    b"\xff\xda\0\x08\1\1\0\x01\x3f\0\0\0",
    b"\xff\xfe\1\2" + b"\xff\xda" * 128,
)
PIECES = list(dict.fromkeys([piece for file in FILES for piece in file] + list(MORE)))

_SCANS = [
    [*file[:-1], file[-2], REPEAT, number, file[-1]] for file in FILES for number in (4, 255)
]
_SIDES = [
    [part for piece in file for part in ([piece, SET, 5, 4] if piece[1] in SIZES else [piece])]
    for file in FILES
]  # 1024 rows more
_TEXT = [[file[0], MORE[-1], REPEAT, number, *file[1:]] for file in FILES for number in (6, 255)]
SEEDS = seeds(PIECES, *FILES, *_SCANS, *_SIDES, *_TEXT)
WORDS = (bytes([REPEAT, 4]), bytes([REPEAT, 255]), bytes([SET, 5]), bytes([SET, 1]))


def run(data):
    file = b"".join(assembled(Source(data), PIECES))
    try:
        image = decode_compressed(file, "jpeg", LIMIT)
    except ImageError:
        return False
    check(image)
    reduced = jpeg(file)
    assert jpeg(reduced) == reduced
    assert len(reduced) <= len(file)
    same(image, JpegImagePlugin.JpegImageFile, file)
    return True


def same(image, read, file):
    """Compare an image with the one that Pillow reads from the whole file, if it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            plain = pixels_of(read(io.BytesIO(file)))
        except Exception:  # metadata that are left out may be broken
            return
    assert np.array_equal(image, _rgb(plain, "JPEG")), "the metadata change the pixels"
