# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Raw images: every encoding against pixels written by hand, and every invalid message."""

import array
import math
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
from compressed_images import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st
from raw_images import CASES, DUSK, LIMIT, RED, message_data, u16

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images.decode import check_raw, check_uncompressed, decode_raw
from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.images.formats import SNIFFED
from kosmos_ros.images.size import MAX_SIDE
from kosmos_ros.sanitize import quoted


def decode(encoding, rows, *, pad=b"", tail=b"", big=False, **change):
    """Decode the rows of a case as the data of one message."""
    image = CASES[encoding][1]
    if big:
        rows = [np.frombuffer(row, ENCODINGS[encoding].dtype).byteswap().tobytes() for row in rows]
    fields = {
        "data": message_data(rows, pad) + tail,
        "width": len(image[0]),
        "height": len(image),
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
    with pytest.raises(
        ImageSizeError, match=f"got {len(data) - 1} bytes of data; expected at least {len(data)} "
    ):
        decode(encoding, rows, data=data[:-1])


@pytest.mark.parametrize("encoding", CASES)
@pytest.mark.fault(4)
def test_a_step_shorter_than_a_row_is_refused(encoding):
    rows, _ = CASES[encoding]
    with pytest.raises(
        ImageSizeError, match=rf"step must be at least {len(rows[0])} .* {len(rows[0]) - 1}$"
    ):
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
def test_an_image_of_no_size_is_refused(encoding, change):
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
    for limit in (100, 101):
        assert decode_raw(bytes(100), 10, 10, "mono8", 10, False, limit).shape == (10, 10, 3)
    with pytest.raises(ImageSizeError, match="at most 99 pixels .*, got 10 x 10 = 100"):
        decode_raw(bytes(100), 10, 10, "mono8", 10, False, 99)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (MAX_SIDE, 1), (1, MAX_SIDE), (MAX_SIDE, MAX_SIDE)]
)
def test_sides_of_one_pixel_and_the_longest_sides_follow_the_limit(width, height):
    """The check allocates nothing, so it can pass an image of 1 GB."""
    pixels = width * height
    assert check_raw(pixels, width, height, "mono8", width, pixels) is ENCODINGS["mono8"]
    with pytest.raises(ImageSizeError, match=f"at most {pixels - 1} pixels .*, got .* = {pixels}"):
        check_raw(pixels, width, height, "mono8", width, pixels - 1)
    with pytest.raises(ImageSizeError, match=f"expected at least {pixels} "):
        check_raw(pixels - 1, width, height, "mono8", width, pixels)


@pytest.mark.parametrize(
    ("width", "height"), [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (1, 2**32 - 1)]
)
@pytest.mark.fault(15)
def test_a_longer_side_is_refused_however_few_pixels_the_image_has(width, height):
    with pytest.raises(
        ImageSizeError, match=f"each side .* at most {MAX_SIDE} pixels, got {width} x {height}"
    ):
        check_raw(width * height, width, height, "mono8", width, width * height)


# Rows of the first plane's length that all planes together have, for each row of the image.
ROWS = {"nv12": 1.5, "nv21": 1.5, "nv24": 3}


@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    width=st.integers(1, 50),
    height=st.integers(1, 50),
    pad=st.integers(0, 40),
)
def test_the_check_needs_each_byte_of_the_size_and_no_more(encoding, width, height, pad):
    rows, image = CASES[encoding]
    width, height = width * len(image[0]), height * len(image)  # sizes that the encoding can have
    step = width // len(image[0]) * len(rows[0]) + pad
    length = int(step * height * ROWS.get(encoding, 1))
    for more in (0, 1):
        assert check_raw(length + more, width, height, encoding, step, width * height)
    if encoding not in ROWS:  # whose step may be that of all planes together
        with pytest.raises(ImageSizeError, match=f"got {length - 1} bytes of data; .*{length} "):
            check_raw(length - 1, width, height, encoding, step, width * height)
    with pytest.raises(ImageSizeError):
        check_raw(length // 2 - 1, width, height, encoding, step, width * height)
    with pytest.raises(ImageSizeError, match=rf"step must be .* {step - pad} .*{step - pad - 1}$"):
        check_raw(length, width, height, encoding, step - pad - 1, width * height)
    with pytest.raises(ImageSizeError, match="must have at most"):
        check_raw(length, width, height, encoding, step, width * height - 1)


@pytest.mark.fault(6)
def test_a_refused_size_allocates_nothing():
    """The check stays within 64 MiB beyond the memory in use, whatever the message claims."""
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


@pytest.mark.parametrize("encoding", ["", "RGB8", "rgb8 ", "jpeg", "nv42", "8UC2", "é" * 10**6])
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
    """Chroma subsampling needs even sides; a mosaic needs neighbours to interpolate from."""
    with pytest.raises(ImageSizeError, match=f"{width} x {height} pixels cannot be {encoding}"):
        decode_raw(bytes(1000), width, height, encoding, 16, False, LIMIT)


@pytest.mark.fault(10)
def test_a_mosaic_may_have_odd_sides():
    """Cameras crop images."""
    assert (
        decode_raw(bytes([9]) * 15, 5, 3, "bayer_grbg8", 5, False, LIMIT).tolist()
        == [[[9, 9, 9]] * 5] * 3
    )


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
def test_planes_may_share_the_step_of_the_whole_image(encoding):
    """Image.msg: the data have step * height bytes; 3/2 of the width is nv12 without padding."""
    rows, expected = CASES[encoding]
    step = len(message_data(rows)) // len(expected)
    assert decode(encoding, rows, step=step).tolist() == np.array(expected).tolist()
    # sensor_msgs counts two channels of one byte (image_encodings::numChannels).
    shared = 2 * len(expected[0])
    assert decode(encoding, rows, step=shared).tolist() == np.array(expected).tolist()
    for other in (step - 1, step + 1):
        with pytest.raises(ImageSizeError, match="bytes of data; expected at least"):
            decode(encoding, rows, step=other)


@pytest.mark.fault(12)
def test_depth_without_known_values_or_of_one_value_is_black():
    unknown = struct.pack("<2f", math.nan, math.inf)
    assert not decode_raw(unknown, 2, 1, "32FC1", 8, False, LIMIT).any()
    assert not decode_raw(u16(0, 0), 2, 1, "16UC1", 4, False, LIMIT).any()
    assert not decode_raw(u16(70, 70), 2, 1, "16UC1", 4, False, LIMIT).any()


@pytest.mark.fault(12)
def test_depth_may_span_the_range_of_float32():
    largest = 3.4028234663852886e38
    data = struct.pack("<3f", -largest, 0.0, largest)
    assert decode_raw(data, 3, 1, "32FC1", 12, False, LIMIT)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("width,height", [(1, 1), (1, 4000), (8000, 1)])
@pytest.mark.fault(19)
def test_extreme_shapes_are_decoded(width, height):
    image = decode_raw(bytes(3 * width * height), width, height, "bgr8", 3 * width, False, LIMIT)
    assert image.shape == (height, width, 3)


class Wrapped:
    """A sequence of bytes without the buffer protocol."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


class Closed:
    """Bytes that cannot be read, like a buffer on another device."""

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
def test_data_of_another_type_is_refused_by_name(data):
    with pytest.raises(ImageError, match=f"type {type(data).__name__} cannot be read"):
        decode_raw(data, 2, 1, "rgb8", 6, False, LIMIT)


def test_rgb8_is_a_view_and_other_encodings_leave_their_data_alone():
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


@pytest.mark.parametrize("big", [False, True])
def test_a_sensor_of_12_bits_can_be_stretched_from_its_darkest_to_its_brightest_value(big):
    rows = [u16(0, 100), u16(2048, 4095)]
    usual, wide = (
        decode("mono16", rows, big=big, width=2, stretch=stretch)[..., 0]
        for stretch in (False, True)
    )
    assert usual.tolist() == [[0, 0], [8, 16]]
    assert wide.tolist() == [[0, 6], [128, 255]]


@pytest.mark.parametrize("encoding", [name for name in CASES if name != "mono16"])
def test_stretching_changes_mono16_only(encoding):
    rows, expected = CASES[encoding]
    assert decode(encoding, rows, stretch=True).tolist() == np.array(expected).tolist()


def test_a_stretched_image_of_one_value_is_black():
    assert not decode("mono16", [u16(700, 700), u16(700, 700)], width=2, stretch=True).any()


@pytest.mark.parametrize("encoding", ["jpeg", "rgb8", "mono8"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_in_a_raw_image_is_named(name, encoding):
    """As rgb8 it would be noise, if it is long enough."""
    with pytest.raises(EncodingError) as caught:
        check_uncompressed(EXAMPLES[name][:SNIFFED], encoding)
    kind = name.rpartition(" ")[2]
    assert f"encoding '{encoding}' are a {kind} file; publish them as " in str(caught.value)
    assert "image_transport:=compressed" in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        "ffd8ffe000104a46494600010101",  # JFIF
        "ffd8ffe100e04578696600004d4d",  # Exif
        "ffd8ffe0002141564931000101",  # Motion-JPEG in AVI
        "ffd8ffdb00840006040506050406",  # tables first, as many webcams write them
        "ffd8ffdb00430006040506050406",
    ],
)
def test_a_jpeg_of_any_camera_is_recognized(head):
    with pytest.raises(EncodingError, match="are a JPEG file"):
        check_uncompressed(bytes.fromhex(head), "rgb8")


@pytest.mark.parametrize("colour", [(255, 216, 255), (137, 80, 78), (82, 73, 70)])
def test_pixels_that_begin_like_a_file_are_pixels(colour):
    check_uncompressed((bytes(colour) * SNIFFED)[:SNIFFED], "rgb8")
    check_uncompressed(bytes(colour), "rgb8")


@given(
    encoding=st.sampled_from([name for name in CASES if "bayer" not in name]),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pad=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_image_is_decoded_like_its_parts(encoding, blocks, pad, big, seed):
    """With any size, padding and byte order, a pixel depends on its own bytes only."""
    layout = ENCODINGS[encoding]
    if encoding in ("16UC1", "32FC1"):
        return  # depth depends on the whole image
    width, height = blocks[0] * 2, blocks[1] * 2
    rng = np.random.default_rng(seed)
    planes = []
    for plane in layout.planes:
        shape = height // plane.height, width // plane.width, plane.values
        planes.append(rng.integers(0, 256, (*shape, np.dtype(layout.dtype).itemsize), "u1"))
    padding = [pad * plane[0].size // planes[0][0].size for plane in planes]
    data = b"".join(
        np.pad(plane.reshape(len(plane), -1), ((0, 0), (0, after))).tobytes()
        for plane, after in zip(planes, padding, strict=True)
    )
    step = planes[0][0].size + pad
    whole = decode_raw(data, width, height, encoding, step, big, max_pixels=width * height)
    for y in range(0, height, 2):
        for x in range(0, width, 2):
            part = b"".join(
                values[
                    y // plane.height : (y + 2) // plane.height,
                    x // plane.width : (x + 2) // plane.width,
                ].tobytes()
                for plane, values in zip(layout.planes, planes, strict=True)
            )
            expected = decode_raw(part, 2, 2, encoding, layout.row_bytes(2), big, 4)
            assert (whole[y : y + 2, x : x + 2] == expected).all()


@given(
    data=st.binary(max_size=200),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    height=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    encoding=st.sampled_from(sorted(ENCODINGS)) | st.text(max_size=8),
    step=st.integers(0, 2**32 - 1) | st.integers(0, 64),
    big=st.booleans(),
)
def test_any_message_gives_an_image_of_its_size_or_an_image_error(
    data, width, height, encoding, step, big
):
    try:
        image = decode_raw(data, width, height, encoding, step, big, LIMIT)
    except ImageError:
        return
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8


def test_nv24_with_each_chroma_repeated_is_nv12():
    """Both hold the same colours, so both become the same pixels."""
    rng = np.random.default_rng(5)
    luma = rng.integers(0, 256, (40, 60), np.uint8)
    chroma = rng.integers(0, 256, (20, 30, 2), np.uint8)
    half = luma.tobytes() + chroma.tobytes()
    full = luma.tobytes() + chroma.repeat(2, axis=0).repeat(2, axis=1).tobytes()
    first, second = (
        decode_raw(data, 60, 40, encoding, 60, False, LIMIT)
        for data, encoding in ((half, "nv12"), (full, "nv24"))
    )
    assert (first == second).all()


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_gbrg16", "yuyv", "nv12", "nv24"])
def test_an_error_of_opencv_is_an_image_error(encoding, monkeypatch):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

    def fail(*arguments):
        raise cv2.error("no\nmemory")

    monkeypatch.setattr(cv2, "cvtColor", fail)
    monkeypatch.setattr(cv2, "cvtColorTwoPlane", fail)
    with pytest.raises(ImageError, match=r"with COLOR_(Bayer|YUV)\w+: .*no\\nmemory") as caught:
        decode(encoding, CASES[encoding][0])
    assert type(caught.value) is ImageError


def test_the_check_stands_alone():
    assert check_raw(6, 2, 1, "rgb8", 6, LIMIT) is ENCODINGS["rgb8"]
    with pytest.raises(ImageSizeError):
        check_raw(5, 2, 1, "rgb8", 6, LIMIT)


class BuiltForAnotherNumPy:
    """An importer of an OpenCV that fails as builds for NumPy 1 do under NumPy 2."""

    def find_spec(self, name, *_):
        if name == "cv2":
            raise AttributeError("_ARRAY_API not found")


@pytest.mark.parametrize("missing", [True, False])
def test_without_opencv_its_encodings_name_the_package(monkeypatch, missing):
    if missing:
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        monkeypatch.delitem(sys.modules, "cv2", raising=False)
        monkeypatch.setattr(sys, "meta_path", [BuiltForAnotherNumPy(), *sys.meta_path])
    for encoding, (rows, _) in CASES.items():
        if encoding.startswith(("bayer", "uyvy", "yuv", "yuyv", "nv")):
            with pytest.raises(EncodingError, match="python3-opencv.*opencv-python-headless"):
                decode(encoding, rows)
        else:
            decode(encoding, rows)


def test_large_images_take_little_more_memory_than_their_pixels():
    """A 4K frame of 25 to 33 MiB is decoded within 160 MiB in all."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for encoding, channels in (("rgb8", 3), ("bgr8", 3), ("rgba8", 4)):
        data = bytes(3840 * 2160 * channels)
        decode_raw(data, 3840, 2160, encoding, 3840 * channels, False, 3840 * 2160)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 160 * 1024  # KiB


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name.startswith("bayer_")])
def test_a_mosaic_has_at_least_3_x_3_pixels(encoding):
    row = 3 * ENCODINGS[encoding].block_bytes
    data = bytes(3 * row)
    assert decode_raw(data, 3, 3, encoding, row, False, LIMIT).shape == (3, 3, 3)
    with pytest.raises(ImageSizeError):
        decode_raw(data, 2, 3, encoding, row, False, LIMIT)
