# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures are kept as they were published, bounded in bytes, and can be made smaller."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from kosmos_ros.errors import EncodingError, ImageError
from kosmos_ros.web.pictures import LARGEST, Picture, Pictures, jpeg, picture_of, smaller


def file_of(format, size=(64, 48)):
    file = io.BytesIO()
    Pillow.new("RGB", size, (200, 30, 30)).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_published_file_is_kept_byte_by_byte(format):
    data = file_of(format)
    assert picture_of(data) == Picture(f"image/{format.lower()}", data)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg onload=alert(1)>", b"RIFF1234WAVE"])
def test_other_files_are_no_pictures(data):
    with pytest.raises(EncodingError, match="neither JPEG, PNG nor WebP"):
        picture_of(data)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((640, 480), (160, LARGEST[1]), (160, 120)),
        ((480, 640), (160, LARGEST[1]), (160, 213)),
        ((100, 80), (160, LARGEST[1]), (100, 80)),  # never larger
        ((2000, 1000), (1024, 1024), (1024, 512)),
        ((1000, 2000), (1024, 1024), (512, 1024)),
    ],
)
def test_a_smaller_picture_keeps_its_shape_and_colour(size, most, expected):
    made = smaller(picture_of(file_of("PNG", size)), most)
    assert made.type == "image/jpeg"
    image = Pillow.open(io.BytesIO(made.data))
    assert image.size == expected
    assert np.abs(np.asarray(image).mean((0, 1)) - (200, 30, 30)).max() < 4


def test_a_broken_picture_is_an_image_error():
    with pytest.raises(ImageError):
        smaller(picture_of(file_of("JPEG")[:100]), (160, 160))


def test_an_array_becomes_a_jpeg_of_its_own_size():
    made = jpeg(np.full((48, 64, 3), 77, np.uint8)[:, ::-1])
    assert Pillow.open(io.BytesIO(made.data)).size == (64, 48)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_kept_pictures_never_have_more_bytes_than_allowed(puts):
    pictures = Pictures(most=100)
    newest = {}
    for stamp, size in puts:
        picture = Picture("image/jpeg", b"x" * size)
        pictures.put("front", str(stamp), picture)
        newest[str(stamp)] = picture
        kept = {stamp: pictures.get("front", stamp) for stamp in newest}
        assert sum(len(one.data) for one in kept.values() if one) <= 100
        assert kept[str(stamp)] == picture  # the newest is there
        assert all(one in (None, newest[stamp]) for stamp, one in kept.items())


def test_a_picture_that_is_larger_than_all_may_be_is_not_kept():
    pictures = Pictures(most=100)
    pictures.put("front", "1", Picture("image/jpeg", b"x" * 101))
    assert pictures.get("front", "1") is None
    pictures.put("front", "2", Picture("image/jpeg", b"x" * 100))
    assert pictures.get("front", "2")
