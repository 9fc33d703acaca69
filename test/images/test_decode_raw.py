# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Raw pictures: every encoding against pixels written down by hand, and every way to be wrong."""

import array
import math
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_images import CASES, DUSK, LIMIT, RED, u16

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images.decode import check_raw, decode_raw
from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.sanitize import quoted


def decode(encoding, rows, *, pad=b"", tail=b"", big=False, **change):
    """The case's rows as one message would bring them, decoded."""
    picture = CASES[encoding][1]
    if big:
        rows = [np.frombuffer(row, ENCODINGS[encoding].dtype).byteswap().tobytes() for row in rows]
    fields = {
        "data": b"".join(row + pad for row in rows) + tail,
        "width": len(picture[0]),
        "height": len(picture),
        "encoding": encoding,
        "step": len(rows[0]) + len(pad),
        "is_bigendian": big,
        "max_pixels": LIMIT,
    }
    return decode_raw(**{**fields, **change})


def test_the_cases_are_complete():
    assert set(CASES) == set(ENCODINGS)


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(8, 9, 10, 11, 12)
def test_pixels_are_those_of_the_encoding(encoding):
    rows, expected = CASES[encoding]
    image = decode(encoding, rows)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.tolist() == [[list(pixel) for pixel in row] for row in expected]


@pytest.mark.parametrize("pad", [1, 2, 3, 4, 64])
@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(3)
def test_row_padding_is_skipped(encoding, pad):
    rows, expected = CASES[encoding]
    image = decode(encoding, rows, pad=b"\xee" * pad)
    assert image.flags.c_contiguous
    assert image.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(11)
def test_byte_order_is_honoured(encoding):
    rows, expected = CASES[encoding]
    assert decode(encoding, rows, big=True).tolist() == np.array(expected).tolist()
    padded = decode(encoding, rows, big=True, pad=b"\xee" * 3)
    assert padded.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(1, 2)
def test_a_tail_is_ignored_and_a_missing_byte_is_not(encoding):
    rows, expected = CASES[encoding]
    assert decode(encoding, rows, tail=b"\xee" * 5).tolist() == np.array(expected).tolist()
    data = b"".join(rows)
    with pytest.raises(ImageSizeError, match=f"{len(data) - 1} bytes of data.* have {len(data)}"):
        decode(encoding, rows, data=data[:-1])


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(4)
def test_a_step_shorter_than_a_row_is_refused(encoding):
    rows, _ = CASES[encoding]
    with pytest.raises(ImageSizeError, match=rf"step is {len(rows[0]) - 1} bytes.*{len(rows[0])}"):
        decode(encoding, rows, step=len(rows[0]) - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": 0},
        {"step": 0},
        {"data": b""},
        {"width": 0, "height": 0, "step": 0},
    ],
)
@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(5)
def test_nothing_is_no_picture(encoding, change):
    with pytest.raises(ImageSizeError):
        decode(encoding, CASES[encoding][0], **change)


@pytest.mark.parametrize("side", ["width", "height", "step"])
@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(6)
def test_the_largest_sides_are_refused(encoding, side):
    for value in (2**31 - 2, 2**32 - 2, 2**32 - 1):
        with pytest.raises(ImageSizeError):
            decode(encoding, CASES[encoding][0], **{side: value})
        with pytest.raises(ImageSizeError):
            decode(encoding, CASES[encoding][0], **{side: value}, max_pixels=2**70)


def test_the_pixel_limit_is_inclusive_and_named():
    assert decode_raw(bytes(100), 10, 10, "mono8", 10, False, 100).shape == (10, 10, 3)
    with pytest.raises(ImageSizeError, match="10 x 10 = 100 pixels; at most 99"):
        decode_raw(bytes(100), 10, 10, "mono8", 10, False, 99)


@pytest.mark.fault(6)
def test_a_refused_size_allocates_nothing():
    """Within 64 MiB beyond what is in use, no matter what the message promises."""
    code = """if True:
        import resource
        from kosmos_ros.errors import ImageSizeError
        from kosmos_ros.images.decode import decode_raw
        from kosmos_ros.images.encodings import ENCODINGS
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**26,) * 2)
        for encoding in ENCODINGS:
            for limit in (50_000_000, 2**70):
                try:
                    decode_raw(bytes(100), 60000, 60000, encoding, 2**32 - 1, False, limit)
                except ImageSizeError:
                    continue
                raise SystemExit(f"{encoding} was not refused")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["", "RGB8", "rgb8 ", "jpeg", "nv24", "8UC2", "é" * 10**6])
@pytest.mark.fault(7)
def test_an_unknown_encoding_is_named_once(encoding):
    with pytest.raises(EncodingError) as caught:
        decode_raw(bytes(12), 2, 2, encoding, 6, False, LIMIT)
    text = str(caught.value)
    assert text.count(quoted(encoding)) == 1
    assert "rgb8" in text and len(text) < 700


@pytest.mark.parametrize(
    ("encoding", "width", "height"),
    [
        ("uyvy", 3, 2),
        ("yuv422", 3, 2),
        ("yuyv", 3, 2),
        ("yuv422_yuy2", 1, 1),
        ("nv12", 3, 2),
        ("nv12", 2, 3),
        ("nv21", 2, 1),
        ("bayer_rggb8", 2, 8),
        ("bayer_gbrg16", 8, 2),
    ],
)
@pytest.mark.fault(9)
def test_sizes_that_an_encoding_cannot_have_are_refused(encoding, width, height):
    """Odd sides under chroma subsampling; too little to interpolate a mosaic from."""
    with pytest.raises(ImageSizeError, match=f"{width} x {height} pixels cannot be {encoding}"):
        decode_raw(bytes(1000), width, height, encoding, 16, False, LIMIT)


@pytest.mark.fault(10)
def test_a_mosaic_may_be_of_odd_size():
    """Cameras crop."""
    assert (
        decode_raw(bytes([9]) * 15, 5, 3, "bayer_grbg8", 5, False, LIMIT).tolist()
        == [[[9, 9, 9]] * 5] * 3
    )


def test_planes_may_share_the_step_of_the_whole_picture():
    """Image.msg: data is step * height bytes, so that a step of 3/2 width means no padding."""
    rows, expected = CASES["nv12"]
    assert decode("nv12", rows, step=6).tolist() == np.array(expected).tolist()


@pytest.mark.fault(12)
def test_depth_without_a_known_value_is_black_and_a_flat_one_too():
    unknown = struct.pack("<2f", math.nan, math.inf)
    assert not decode_raw(unknown, 2, 1, "32FC1", 8, False, LIMIT).any()
    assert not decode_raw(u16(0, 0), 2, 1, "16UC1", 4, False, LIMIT).any()
    assert not decode_raw(u16(70, 70), 2, 1, "16UC1", 4, False, LIMIT).any()


@pytest.mark.fault(12)
def test_depth_may_use_all_of_float32():
    largest = 3.4028234663852886e38
    data = struct.pack("<3f", -largest, 0.0, largest)
    assert decode_raw(data, 3, 1, "32FC1", 12, False, LIMIT)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("width,height", [(1, 1), (1, 4000), (8000, 1)])
@pytest.mark.fault(19)
def test_extreme_shapes_are_pictures(width, height):
    image = decode_raw(bytes(3 * width * height), width, height, "bgr8", 3 * width, False, LIMIT)
    assert image.shape == (height, width, 3)


class Wrapped:
    """Bytes behind an object without the buffer protocol."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


class Closed:
    """Bytes that cannot be had, as of a buffer on another device."""

    def __bytes__(self):
        raise RuntimeError("the buffer is on another device")


PIXELS = bytes([255, 0, 0, 10, 20, 30])


@pytest.mark.parametrize(
    "data",
    [
        PIXELS,
        bytearray(PIXELS),
        memoryview(PIXELS),
        array.array("B", PIXELS),
        array.array("H", PIXELS),
        np.frombuffer(PIXELS, np.uint8),
        np.frombuffer(PIXELS, np.uint8).reshape(1, 2, 3),
        np.repeat(np.frombuffer(PIXELS, np.uint8), 2)[::2],
        list(PIXELS),
        Wrapped(PIXELS),
    ],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.fault(69)
def test_data_may_be_any_kind_of_bytes(data):
    assert decode_raw(data, 2, 1, "rgb8", 6, False, LIMIT).tolist() == [[list(RED), list(DUSK)]]


@pytest.mark.parametrize(
    "data",
    [None, 10**12, "text", 1.5, [1, 300], object(), Closed()],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.fault(69)
def test_data_that_is_no_bytes_is_refused_by_its_type(data):
    with pytest.raises(ImageError, match=f"type {type(data).__name__} cannot be read"):
        decode_raw(data, 2, 1, "rgb8", 6, False, LIMIT)


def test_rgb8_is_a_view_and_other_pictures_leave_their_data_alone():
    data = np.arange(6, dtype=np.uint8)
    assert np.shares_memory(decode_raw(data, 2, 1, "rgb8", 6, False, LIMIT), data)
    for encoding in ("bgr8", "8UC3"):
        decode_raw(data, 2, 1, encoding, 6, False, LIMIT)
    assert data.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.fault(11)
def test_every_16_bit_value_is_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16)
    image = decode_raw(values, 256, 256, "mono16", 512, False, 65536)
    assert (image[..., 1].ravel() == np.rint(values * (255 / 65535))).all()


@given(
    encoding=st.sampled_from([name for name in CASES if "bayer" not in name]),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pad=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_picture_of_pictures_is_decoded_as_its_parts(encoding, blocks, pad, big, seed):
    """Any size, padding and byte order: pixels depend on their own bytes only."""
    layout = ENCODINGS[encoding]
    if layout.convert is ENCODINGS["16UC1"].convert:
        return  # depth depends on the whole picture
    width, height = blocks[0] * 2, blocks[1] * 2
    rows = height * layout.rows[0] // layout.rows[1]
    data = np.random.default_rng(seed).integers(0, 256, (rows, width * layout.pixel_bytes), "u1")
    padded = np.pad(data, ((0, 0), (0, pad)))
    whole = decode_raw(
        padded, width, height, encoding, padded.shape[1], big, max_pixels=width * height
    )
    for y in range(0, height, 2):
        for x in range(0, width, 2):
            across = slice(x * layout.pixel_bytes, (x + 2) * layout.pixel_bytes)
            part = data[y : y + 2, across]
            if rows != height:
                part = np.concatenate([part, data[height + y // 2, across][np.newaxis]])
            expected = decode_raw(part.copy(), 2, 2, encoding, part.shape[1], big, 4)
            assert (whole[y : y + 2, x : x + 2] == expected).all()


@given(
    data=st.binary(max_size=200),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    height=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    encoding=st.sampled_from(sorted(ENCODINGS)) | st.text(max_size=8),
    step=st.integers(0, 2**32 - 1) | st.integers(0, 64),
    big=st.booleans(),
)
def test_any_message_gives_a_picture_of_its_size_or_an_image_error(
    data, width, height, encoding, step, big
):
    try:
        image = decode_raw(data, width, height, encoding, step, big, LIMIT)
    except ImageError:
        return
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8


def test_the_check_stands_alone():
    assert check_raw(6, 2, 1, "rgb8", 6, LIMIT) is ENCODINGS["rgb8"]
    with pytest.raises(ImageSizeError):
        check_raw(5, 2, 1, "rgb8", 6, LIMIT)


def test_without_opencv_its_encodings_name_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for encoding, (rows, _) in CASES.items():
        if encoding.startswith(("bayer", "uyvy", "yuv", "yuyv", "nv")):
            with pytest.raises(EncodingError, match="python3-opencv.*opencv-python-headless"):
                decode(encoding, rows)
        else:
            decode(encoding, rows)


def test_large_pictures_cost_little_more_than_themselves():
    """A 4K frame of each 8-bit colour encoding within 64 MiB beyond its own 25 to 33 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for encoding, channels in (("rgb8", 3), ("bgr8", 3), ("rgba8", 4)):
        data = bytes(3840 * 2160 * channels)
        decode_raw(data, 3840, 2160, encoding, 3840 * channels, False, 3840 * 2160)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 160 * 1024  # KiB
