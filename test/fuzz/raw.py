# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: raw images whose fields and data may contradict each other."""

import array

import numpy as np

from fuzz.source import Source
from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import decode_raw
from kosmos_ros.images.encodings import ENCODINGS

LIMIT = 4096  # pixels
MEMORY = 256  # MiB
NAMES = tuple(ENCODINGS)
FORMS = (bytes, bytearray, memoryview, lambda data: array.array("B", data), list)
MOST = 1 << 16  # bytes of data


def _seed(number, pad):
    # width, height, encoding, step, byte order, form, data; see `run`
    return bytes([4, 4, number, 1 + pad, pad, 0x80]) + bytes(range(7, 250, 37))


SEEDS = tuple(_seed(number, pad) for number in range(len(NAMES)) for pad in (0, 3))
WORDS = (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\xff\xff")


def run(data):
    source = Source(data)
    # A byte if it is not 0, otherwise any number that a message can hold.
    width, height = (source.byte() or source.integer(0, 2**32 - 1) for _ in range(2))
    name = NAMES[number] if (number := source.byte()) < len(NAMES) else source.text()
    row = ENCODINGS[name].row_bytes(width) if name in ENCODINGS else 0
    pad = source.byte()
    step = row + pad - 1 if pad else source.integer(0, 2**32 - 1)
    big, form = source.flag(), source.byte()
    pixels = source.rest()
    if form >= 128:  # as many bytes as needed
        needed = min(step * height, MOST)
        pixels = (pixels * (needed // max(len(pixels), 1) + 1))[:needed]
    pixels = FORMS[form % len(FORMS)](pixels)
    try:
        image = decode_raw(pixels, width, height, name, step, big, LIMIT)
    except ImageError:
        return False
    assert width * height <= LIMIT
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert image.flags.c_contiguous
    return True
