# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: image files, in more formats than messages have."""

import os

from PIL import Image

from fuzz.compressed import LIMIT, check, mended, picture
from fuzz.compressed import SEEDS as COMPRESSED
from fuzz.compressed import WORDS as CHUNKS
from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import load

MEMORY = 256  # MiB

SEEDS = (
    *COMPRESSED,
    *(b"\1" + picture("BMP", mode) for mode in ("RGB", "1", "P")),
    *(b"\1" + picture("GIF", mode) for mode in ("RGB", "L")),
    b"\1" + picture("GIF", "P", save_all=True, append_images=[Image.new("P", (5, 4))]),
    *(b"\1" + picture("TIFF", mode) for mode in ("RGB", "I;16", "F", "1", "CMYK")),
    *(
        b"\1" + picture("TIFF", compression=name)
        for name in ("tiff_lzw", "packbits", "tiff_deflate", "jpeg")
    ),
)
WORDS = (*CHUNKS, b"BM", b"GIF89a", b"\x21\xf9\x04", b"II*\0", b"MM\0*")

_FILE = os.memfd_create("picture")
_PATH = f"/proc/self/fd/{_FILE}"


def run(data):
    data = mended(data)
    os.truncate(_FILE, 0)
    os.pwrite(_FILE, data, 0)
    try:
        image = load(_PATH, LIMIT)
    except ImageError:
        return False
    check(image)
    return True
