# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files are shown as viewers show them; the reference is Pillow's exif_transpose."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kosmos_ros.images import exif
from kosmos_ros.images.decode import load
from kosmos_ros.images.sources import open_source

LIMIT = 10**6
PIXELS = np.random.default_rng(3).integers(0, 256, (6, 10, 3), np.uint8)
SAVED = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WebP": {"lossless": True},
    "TIFF": {},
}


def data_of(format, orientation):
    """Return a file whose metadata also have other fields."""
    tags = Image.Exif()
    tags[0x010F] = "a maker"
    tags[0x0112] = orientation
    tags[0x0131] = "a program"
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format, exif=tags, **SAVED[format])
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", SAVED)
@pytest.mark.fault(18)
def test_a_file_is_turned_as_its_orientation_says(format, orientation, tmp_path):
    data = data_of(format, orientation)
    path = tmp_path / "picture"
    path.write_bytes(data)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert exif.orientation(data, format) == orientation
    image = load(path, LIMIT)
    assert image.shape == shown.shape and image.flags.c_contiguous
    assert np.abs(image.astype(int) - shown).max() <= (2 if format == "JPEG" else 0)
    assert load(path, LIMIT, stored=True).shape == PIXELS.shape


@pytest.mark.parametrize("fill", [1, 2, 100])
def test_fill_bytes_before_a_segment_do_not_hide_the_orientation(fill, tmp_path):
    data = data_of("JPEG", 6)
    at = data.index(b"\xff\xe1")
    data = data[:at] + b"\xff" * fill + data[at:]
    assert exif.orientation(data, "JPEG") == 6
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert load(path, LIMIT).shape == (10, 6, 3)


@pytest.mark.parametrize("format", ["GIF", "BMP"])
def test_a_format_without_orientation_is_as_stored(format):
    assert exif.orientation(b"BM anything", format) == 1


def test_a_picture_of_camera_node_is_as_viewers_show_it(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(data_of("PNG", 6))
    source = open_source(str(path), size=(0, 0), rate=1.0, seed=0)
    assert np.array_equal(source.read().image, np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"XX*\0\x08\0\0\0\1\0",
        b"II*\0\xff\xff\xff\xff",  # the directory is beyond the end
        b"II*\0\x08\0\0\0\xff\xff",  # more fields than there are bytes
        b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x0112, 3, 1, 9, 0),  # no such orientation
        b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x0112, 4, 1, 6, 0),  # another type
        b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x0112, 3, 2, 6, 6),  # two values
    ],
)
@pytest.mark.parametrize("format", SAVED)
def test_broken_metadata_mean_the_stored_pixels(format, block):
    wrapped = {
        "JPEG": b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block,
        "PNG": bytes(8) + struct.pack(">I4s", len(block), b"eXIf") + block + bytes(4),
        "WebP": bytes(12) + struct.pack("<4sI", b"EXIF", len(block)) + block,
        "TIFF": block,
    }
    assert exif.orientation(wrapped[format], format) == 1


@given(st.sampled_from(list(SAVED)), st.integers(1, 8), st.data())
def test_any_bytes_have_an_orientation(format, orientation, draw):
    data = bytearray(data_of(format, orientation))
    for _ in range(draw.draw(st.integers(0, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))
    assert exif.orientation(bytes(data[:cut]), format) in range(1, 9)
