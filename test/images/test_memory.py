# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every accepted image takes memory of a small multiple of its pixels."""

import json
import subprocess
import sys

import memory_of_images
import pytest

DECODING = 5 << 20  # bytes, for a few rows at a time
TALL = 24 << 20  # bytes, for the rows of an image of MAX_SIDE, of the model's width


def most(name, pixels):
    """Return the largest memory for an image whose decoded pixels take `pixels` bytes."""
    kind, *_ = name.split()
    if kind in ("drawing", "resizing"):
        return 6 * pixels + TALL
    if kind == "raw":
        return (4 if "bayer" in name else 2) * pixels + DECODING  # OpenCV makes 16-bit colours
    return (7 if "WebP" in name or "float" in name else 5) * pixels + DECODING


@pytest.fixture(scope="module")
def measured():
    """Return name -> bytes of the pixels, bytes of memory."""
    program = subprocess.run(
        [sys.executable, memory_of_images.__file__], capture_output=True, text=True, timeout=300
    )
    assert program.returncode == 0, program.stderr
    lines = map(json.loads, program.stdout.splitlines())
    return {name: (pixels, memory) for name, pixels, memory in lines}


@pytest.mark.fault(15, 77)
@pytest.mark.parametrize("name", memory_of_images.kinds())
def test_an_image_takes_a_small_multiple_of_its_pixels(name, measured):
    pixels, memory = measured[name]
    assert memory <= most(name, pixels)
