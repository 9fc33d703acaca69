# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: the structure of PNG images, such as their chunks, modes and frames."""

import struct
import zlib

from PIL import Image, PngImagePlugin

from fuzz.compressed import LIMIT, PNG, check, mended, picture
from fuzz.jpeg import same
from fuzz.pieces import REPEAT, SET, assembled, seeds
from fuzz.source import Source
from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import decode_compressed
from kosmos_ros.images.structure import png

MEMORY = 256  # MiB


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def chunks(file):
    """Return the signature and the chunks of a PNG."""
    parts, at = [file[: len(PNG)]], len(PNG)
    while at < len(file):
        end = at + 12 + int.from_bytes(file[at : at + 4], "big")
        parts.append(file[at:end])
        at = end
    return parts


def header(width, height, bits=8, colours=0, interlaced=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced))


FRAME = Image.new("RGB", (5, 4))
FILES = [
    *(chunks(picture("PNG", mode)) for mode in ("RGB", "RGBA", "L", "LA", "1", "P", "I;16")),
    chunks(picture("PNG", "P", transparency=bytes(range(200)))),
    chunks(picture("PNG", "L", transparency=7, dpi=(72, 72), icc_profile=b"none")),
    chunks(picture("PNG", save_all=True, append_images=[FRAME, FRAME])),
    [PNG, header(7, 5, interlaced=1), chunk(b"IDAT", zlib.compress(bytes(200))), chunk(b"IEND")],
    [PNG, header(1, 4000), chunk(b"IDAT", zlib.compress(bytes(8000), 9)), chunk(b"IEND")],
]
BOMB = zlib.compress(bytes(1 << 17), 9)
MORE = (
    *(header(*size) for size in ((4000, 1), (65535, 1), (1, 2**31 - 1), (0, 1))),
    *(header(5, 4, *kind) for kind in ((16, 2), (16, 6), (1, 3), (2, 0), (8, 4), (8, 2, 1))),
    chunk(b"IDAT"),
    chunk(b"IDAT", BOMB),
    chunk(b"zTXt", b"name\0\0" + BOMB),
    chunk(b"iTXt", b"name\0\1\0\0\0" + BOMB),
    chunk(b"iCCP", b"name\0\0" + BOMB),
    chunk(b"tEXt", b"name\0value"),
    chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
    chunk(b"tRNS", b"\0\0\0\1\0\2"),
    chunk(b"gAMA", b"\0\0\xb1\x8f"),
    chunk(b"CgBI", b"\0\0\0\1"),
    chunk(b"IEND", b"more"),
)
PIECES = list(dict.fromkeys([piece for file in FILES for piece in file] + list(MORE)))

_MANY = [
    [*file[:2], part, REPEAT, number, *file[2:]]
    for file in FILES[:3]
    for part in MORE[10:]
    for number in (6, 178, 255)
]
SEEDS = tuple(b"\1" + seed for seed in seeds(PIECES, *FILES, *_MANY))
WORDS = (bytes([REPEAT, 1]), bytes([REPEAT, 255]), bytes([SET, 11]), bytes([SET, 15]))


def run(data):
    source = Source(data)
    mend = source.bytes(1)  # if odd, `mended` corrects the checksums
    file = mended(mend + b"".join(assembled(source, PIECES)))
    try:
        image = decode_compressed(file, "png", LIMIT)
    except ImageError:
        return False
    check(image)
    reduced = png(file)
    assert {part[4:8] for part in chunks(reduced)[1:]} <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    assert len(reduced) <= len(file)
    # Pillow composes the frames of an animation, and is slow with many bombs.
    if b"acTL" not in file and len(file) < 4096:
        same(image, PngImagePlugin.PngImageFile, file)
    return True
