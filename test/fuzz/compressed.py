# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: compressed images, intact, broken and hostile."""

import io
import zlib

import numpy as np
from PIL import Image

from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import decode_compressed

LIMIT = 4096  # pixels
MEMORY = 256  # MiB
PNG = b"\x89PNG\r\n\x1a\n"


def picture(format, mode="RGB", size=(5, 4), **options):
    """Return an image file that Pillow writes."""
    file = io.BytesIO()
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3) * 5
    Image.fromarray(pixels).convert(mode).save(file, format, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6  # rotated

_PICTURES = (
    picture("JPEG"),
    picture("JPEG", "L", progressive=True),
    picture("JPEG", "CMYK", exif=EXIF),
    picture("PNG"),
    picture("PNG", "P", transparency=0),
    picture("PNG", "I;16"),
    picture("PNG", "1"),
    picture("PNG", "LA", icc_profile=b"none", dpi=(72, 72)),
    picture("PNG", save_all=True, append_images=[Image.new("RGB", (5, 4))]),
    picture("WebP", lossless=True),
    picture("WebP", "RGBA", exif=EXIF),
    picture("WebP", save_all=True, append_images=[Image.new("RGB", (5, 4))]),
)
# First byte 1: `mended` corrects the checksums of a PNG.
SEEDS = (
    *(b"\1" + file for file in _PICTURES),
    *(bytes([2 * number + 1]) + _PICTURES[5] for number in range(1, 6)),  # values of 16 bits
)
WORDS = (
    *(b"\xff" + bytes([marker]) for marker in (0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xE1)),
    *(b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"iTXt", b"eXIf"),
    *(b"acTL", b"fcTL", b"fdAT", b"pHYs", b"cHRM", b"sRGB"),
    *(b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"EXIF"),
    b"Exif\0\0",
)


FORMATS = (
    "jpeg",
    *(f"{name}; png compressed " for name in ("16UC1", "mono16", "bayer_rggb8", "bayer_gbrg16")),
    "32FC1; compressedDepth png",
)


def run(data):
    format = FORMATS[(data[0] >> 1) % len(FORMATS) if data else 0]
    try:
        image = decode_compressed(mended(data), format, LIMIT, stretch=len(data) % 2 == 1)
    except ImageError:
        return False
    check(image)
    return True


def check(image):
    height, width, channels = image.shape
    assert (channels, image.dtype) == (3, np.uint8)
    assert 1 <= width * height <= LIMIT


def mended(data):
    """Return the file after the first byte; if that byte is odd, correct a PNG's checksums."""
    file, at = bytearray(data[1:]), len(PNG)
    if not data or data[0] % 2 == 0 or file[:at] != PNG:
        return bytes(file)
    while at + 12 <= len(file):  # length, name, content, checksum
        end = at + 8 + int.from_bytes(file[at : at + 4], "big")
        if end + 4 <= len(file):
            file[end : end + 4] = zlib.crc32(file[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(file)
