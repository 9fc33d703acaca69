# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the memory that images of every kind take, in processes of their own.

python memory_of_images.py

prints a line of JSON for each kind: its name, bytes of the pixels, bytes of memory.
"""

import io
import json
import os
import resource
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
from PIL import Image

from kosmos_ros.images.decode import decode_compressed, decode_raw, load
from kosmos_ros.images.drawing import annotate
from kosmos_ros.images.encodings import ENCODINGS, import_cv2
from kosmos_ros.images.size import MAX_SIDE
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase

SIDE = 2000  # pixels
LIMIT = 10**9  # pixels

_random = np.random.default_rng(0)


def noise(channels=3, dtype=np.uint8):
    pixels = _random.integers(0, 64, (SIDE, SIDE, channels), np.uint8).astype(dtype)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def colours_of_16_bits():
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = b"".join(b"\0" + _random.bytes(SIDE * 6) for _ in range(SIDE))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


COMPRESSED = {
    "JPEG": lambda: saved(noise(), "JPEG", quality=90),
    "progressive JPEG": lambda: saved(noise(), "JPEG", progressive=True, subsampling=0),
    "grey JPEG": lambda: saved(noise(1), "JPEG"),
    "CMYK JPEG": lambda: saved(noise().convert("CMYK"), "JPEG"),
    "progressive CMYK JPEG": lambda: saved(noise().convert("CMYK"), "JPEG", progressive=True),
    "PNG": lambda: saved(noise(), "PNG", compress_level=1),
    "RGBA PNG": lambda: saved(noise(4), "PNG", compress_level=1),
    "grey PNG": lambda: saved(noise(1), "PNG", compress_level=1),
    "LA PNG": lambda: saved(noise().convert("LA"), "PNG", compress_level=1),
    "PNG of 1 bit": lambda: saved(noise(1).convert("1"), "PNG"),
    "grey PNG of 16 bits": lambda: saved(noise(1, np.uint16), "PNG", compress_level=1),
    "PNG of 16 bits": colours_of_16_bits,
    "P PNG": lambda: saved(noise(1).convert("P"), "PNG", transparency=bytes(range(64))),
    "lossless WebP": lambda: saved(noise(4), "WebP", lossless=True, quality=0, method=0),
    "lossy WebP": lambda: saved(noise(4), "WebP", method=0),
}
FILES = {
    "GIF": lambda: saved(noise(1).convert("P"), "GIF", transparency=1),
    "BMP": lambda: saved(noise(), "BMP"),
    "TIFF": lambda: saved(noise(), "TIFF"),
    "LZW TIFF": lambda: saved(noise().convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "float TIFF": lambda: saved(noise(1, np.float32), "TIFF"),
}


def raw(name, big):
    layout = ENCODINGS[name]
    step = layout.row_bytes(SIDE) + layout.block_bytes  # padded, so that OpenCV gets a copy
    size = layout.size(SIDE, step)

    def make():
        return _random.random(size // 4, np.float32).tobytes() if name == "32FC1" else bytes(size)

    return make, lambda data: decode_raw(data, SIDE, SIDE, name, step, big, LIMIT)


def from_file(data):
    file = os.memfd_create("picture")
    os.write(file, data)
    return load(f"/proc/self/fd/{file}", LIMIT)


def drawn(shape):
    box = Box(0.1, 0.1, 0.9, 0.9, 0.5)
    caption = Caption("a dog " * 2000, (Phrase("a dog", 0, 5, (box,)),))

    def draw(data):
        image = np.frombuffer(data, np.uint8).reshape(shape)
        file = io.BytesIO()
        Image.fromarray(annotate(image, caption)).save(file, "JPEG", quality=90)
        return image

    return lambda: bytes(np.prod(shape)), draw


def resized(shape):
    def resize(data):
        import torch

        from kosmos_ros.kosmos2.pixels import Pixels

        torch.set_num_threads(1)
        none = {"do_rescale": False, "do_normalize": False, "image_mean": (), "image_std": ()}
        steps = SimpleNamespace(resample=3, **none)  # bicubic
        pixels = Pixels(steps, 224, torch.device("cpu"), torch.float32)
        pixels(np.zeros((8, 8, 3), np.uint8))  # loads libraries
        image = np.frombuffer(data, np.uint8).reshape(shape)
        _begin()
        pixels(image)
        return image

    return lambda: bytes(np.prod(shape)), resize


SHAPES = ((SIDE, SIDE, 3), (MAX_SIDE, 1, 3), (1, MAX_SIDE, 3), (MAX_SIDE, 100, 3))


def kinds():
    """Return name -> the function that makes an image's data, and the one under test."""
    found = {}
    for name, layout in ENCODINGS.items():
        for big in {False, layout.dtype != "u1"}:
            found[f"raw {name}{' big-endian' if big else ''}"] = raw(name, big)
    for name, make in COMPRESSED.items():
        found[name] = make, lambda data: decode_compressed(data, "", LIMIT)
    for name, make in FILES.items():
        found[f"{name} file"] = make, from_file
    for shape in SHAPES:
        found[f"drawing {shape[1]} x {shape[0]}"] = drawn(shape)
    for shape in ((MAX_SIDE, 1, 3), (MAX_SIDE, 100, 3)):
        found[f"resizing {shape[1]} x {shape[0]}"] = resized(shape)
    return found


def _begin():
    global _before
    _before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _child(work):
    """Run `work` in a child process, whose peak of memory begins with what it has now."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as exc:
            print(repr(exc), file=sys.stderr, flush=True)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def _measure(name, make, run):
    file = os.memfd_create("data")
    _child(lambda: os.write(file, make()))

    def measured():
        os.lseek(file, 0, os.SEEK_SET)
        data = os.read(file, os.fstat(file).st_size)
        _begin()
        image = run(data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([name, image.nbytes, (peak - _before) * 1024]), flush=True)

    _child(measured)
    os.close(file)


if __name__ == "__main__":
    import_cv2("Bayer images").setNumThreads(1)
    for name, (make, run) in kinds().items():
        _measure(name, make, run)
