# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""JPEG, PNG and WebP images, and files: the right pixels, or a named error before decoding."""

import array
import contextlib
import errno
import functools
import io
import os
import resource
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from compressed_images import EXAMPLES, LIMIT, chunk, encoded, noise, picture, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, JpegImagePlugin, WebPImagePlugin

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images import decode
from kosmos_ros.images.decode import decode_compressed, decode_raw, load
from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.images.formats import FILE_FORMATS, MESSAGE_FORMATS

WAIT = 20.0  # s, far longer than a small image takes


@pytest.mark.parametrize("format", ["PNG", "WebP"])
def test_lossless_images_keep_every_pixel(format):
    assert decode_compressed(EXAMPLES[format], "", LIMIT).tolist() == noise().tolist()


def test_a_jpeg_keeps_places_and_colours():
    image = decode_compressed(EXAMPLES["JPEG"], "rgb8; jpeg compressed bgr8", LIMIT)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.shape == (48, 64, 3)
    error = np.abs(image.astype(int) - picture())
    assert error.mean() < 3


@pytest.mark.parametrize(
    "hint",
    ["", "jpeg", "png", "webp", "bgr8; png compressed", "16UC1; compressedDepth", "x" * 9999],
)
@pytest.mark.fault(16)
def test_the_first_bytes_decide_the_format(hint):
    for data in EXAMPLES.values():
        assert decode_compressed(data, hint, LIMIT).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<iff", 0, 100.0, 0.0) + EXAMPLES["PNG"],  # compressedDepth
        b"\x00theora" * 9,
        b"\x00\x00\x00\x01\x67\x42",  # H.264
        encoded(picture(), "GIF"),
        encoded(picture(), "BMP"),
    ],
)
@pytest.mark.fault(17)
def test_other_transports_are_refused_with_a_command_that_converts_them(data):
    with pytest.raises(EncodingError, match=r"'of some kind'.*begins with.*republish"):
        decode_compressed(data, "of some kind", LIMIT)


REPUBLISH = {
    "humble": "republish compressedDepth raw --ros-args -r in/compressedDepth:=TOPIC",
    "jazzy": "republish --ros-args -p in_transport:=compressedDepth -p out_transport:=raw -r in/",
    "": "republish --ros-args -p in_transport:=compressedDepth -p out_transport:=raw -r in/",
}


@pytest.mark.parametrize("distribution", REPUBLISH)
def test_the_command_is_that_of_the_running_distribution(distribution, monkeypatch):
    """Since Jazzy, republish takes the transports as parameters and ignores arguments."""
    monkeypatch.setenv("ROS_DISTRO", distribution)
    data = struct.pack("<iff", 0, 100.0, 0.0) + EXAMPLES["PNG"]
    with pytest.raises(EncodingError) as caught:
        decode_compressed(data, "16UC1; compressedDepth png", LIMIT)
    assert f"`ros2 run image_transport {REPUBLISH[distribution]}" in str(caught.value)


def test_a_tiff_is_refused_with_the_parameter_that_chooses_another_format():
    with pytest.raises(EncodingError, match="set the parameter format of its compressed_image_"):
        decode_compressed(encoded(picture(), "TIFF"), "mono8; tiff compressed ", LIMIT)


def test_an_empty_image_is_refused_with_its_format():
    """compressed_image_transport sends one for depth if its parameter format is jpeg."""
    with pytest.raises(ImageSizeError) as caught:
        decode_compressed(b"", "16UC1; jpeg compressed mono8", LIMIT)
    assert str(caught.value) == (
        "the image of format '16UC1; jpeg compressed mono8' has 0 bytes of data; "
        "its publisher could not compress it"
    )


# compressed_image_transport converts colours, and everything for a JPEG, to a target that the
# format names. Otherwise a PNG has the raw values (compressed_publisher.cpp).
MOSAIC = [name for name in ENCODINGS if name.startswith("bayer")]
SINGLE = ["mono8", "8UC1", "mono16", "16UC1", *MOSAIC]


def values_of(encoding, width=12, height=8):
    """Return random values (H, W) of a raw image with one value per pixel."""
    dtype = np.dtype(ENCODINGS[encoding].dtype)
    return np.random.default_rng(1).integers(0, 256**dtype.itemsize, (height, width), dtype)


@pytest.mark.parametrize(
    "format", ["{}; png compressed ", "{}; png compressed", "{};png compressed {}"]
)
@pytest.mark.parametrize("encoding", SINGLE)
@pytest.mark.fault(91)
def test_a_png_of_raw_values_gives_the_pixels_of_the_raw_message(encoding, format):
    """Depth would be nearly black and a Bayer mosaic a grey pattern."""
    values = values_of(encoding)
    step = values.strides[0]
    raw = decode_raw(values.tobytes(), 12, 8, encoding, step, False, LIMIT)
    for hint in (format.format(encoding, encoding), encoding):
        assert decode_compressed(encoded(values, "PNG"), hint, LIMIT).tolist() == raw.tolist()


@pytest.mark.parametrize(
    "format",
    ["bayer_rggb8; jpeg compressed mono8", "16UC1; jpeg compressed mono8", "mono8", "jpeg", ""],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_stays_grey_if_the_publisher_has_converted_it(format, kind):
    """For a JPEG, compressed_image_transport turns a mosaic into grey."""
    image = decode_compressed(encoded(picture()[..., 0], kind), format, LIMIT)
    assert np.abs(image[..., 1].astype(int) - picture()[..., 0]).mean() < 3
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize(
    "format",
    [
        "rgba8; png compressed bgr8",
        "bayer_rggb8; png compressed ",  # colours in a file that should have one value per pixel
        "16UC1; png compressed ",
        "8UC3; png compressed ",
    ],
)
def test_colours_stay_colours_whatever_the_format_says(format):
    assert decode_compressed(EXAMPLES["PNG"], format, LIMIT).tolist() == noise().tolist()


@pytest.mark.parametrize("encoding", ["16UC1", "bayer_rggb16", "rgb8", "nonsense"])
def test_values_of_8_bits_are_grey_if_the_format_names_another_type(encoding):
    values = values_of("mono8")
    image = decode_compressed(encoded(values, "PNG"), f"{encoding}; png compressed ", LIMIT)
    assert image[..., 2].tolist() == values.tolist()


@pytest.mark.parametrize("values", ["mono8", "mono16"])
@pytest.mark.parametrize(
    "format", ["{}; png compressed ", "{}; jpeg compressed", "{}; compressedDepth png", "{}"]
)
@pytest.mark.parametrize("encoding", ["8SC1", "16SC1", "32SC1", "32FC1", "64FC1"])
def test_values_that_a_png_cannot_store_are_refused_with_their_encoding(values, format, encoding):
    data = encoded(values_of(values), "PNG")
    with pytest.raises(EncodingError, match=f"encoding '{encoding}', but a PNG image"):
        decode_compressed(data, format.format(encoding), LIMIT)


@pytest.mark.parametrize("format", ["16UC1; compressedDepth png", "16UC1; compressedDepth"])
def test_a_compressed_depth_image_without_a_header_is_depth(format):
    data = encoded(np.array([[0, 500, 1500]], np.uint16), "PNG")
    assert decode_compressed(data, format, LIMIT)[0, :, 0].tolist() == [0, 0, 255]


def test_a_mosaic_that_is_too_small_is_refused_like_the_raw_one():
    data = encoded(values_of("mono8", 2, 2), "PNG")
    with pytest.raises(ImageSizeError, match="2 x 2 pixels cannot be bayer_rggb8"):
        decode_compressed(data, "bayer_rggb8; png compressed ", LIMIT)


@pytest.mark.parametrize("format", ["mono16; png compressed ", "png"])
def test_16_bit_grey_of_a_sensor_with_fewer_bits_can_be_stretched(format):
    data = encoded(np.array([[100, 2147, 4195]], np.uint16), "PNG")
    assert decode_compressed(data, format, LIMIT)[0, :, 0].tolist() == [0, 8, 16]
    assert decode_compressed(data, format, LIMIT, True)[0, :, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.fault(13)
def test_a_truncated_image_is_refused(name, share, lenient, monkeypatch):
    """Also if another module has told Pillow to accept truncated files."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = EXAMPLES[name]
    with pytest.raises(ImageError, match="truncated"):
        decode_compressed(data[: int(len(data) * share)], "jpeg", LIMIT)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.fault(14)
def test_a_wrong_checksum_is_refused(lenient, monkeypatch):
    """The header, the pixels and any other chunk have one."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    rows = b"\x00\x01\x02\x03" * 2
    good = png(3, 2, 8, 0, rows, chunk(b"tEXt", b"Title\0a title"))
    assert decode_compressed(good, "", LIMIT)[0, :, 0].tolist() == [1, 2, 3]
    for kind in (b"IHDR", b"IDAT", b"tEXt"):
        at = good.index(kind)
        length = int.from_bytes(good[at - 4 : at], "big")
        bad = bytearray(good)
        bad[at + 4 + length] ^= 1
        with pytest.raises(ImageError, match="broken"):
            decode_compressed(bad, "", LIMIT)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"])
@pytest.mark.fault(14)
def test_a_few_bytes_are_refused(data):
    with pytest.raises(ImageError):
        decode_compressed(data, "jpeg", LIMIT)


@functools.cache
def bombs():
    """Return files of 30000 x 30000 pixels in a few bytes; the JPEG and WebP only claim them."""
    rows = zlib.compressobj(9)
    line = bytes(30001)
    packed = b"".join(rows.compress(line) for _ in range(30000)) + rows.flush()
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    jpeg = bytearray(encoded(picture(8, 8), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 30000, 30000)
    lossless = bytearray(EXAMPLES["WebP"])
    lossless[21:25] = (16382 | 16382 << 14).to_bytes(4, "little")
    lossy = bytearray(EXAMPLES["lossy WebP"])
    lossy[26:30] = struct.pack("<HH", 16383, 16383)
    canvas = struct.pack("<IBxxx", 10, 0) + (16382).to_bytes(3, "little") * 2
    extended = b"RIFF\xff\x00\x00\x00WEBPVP8X" + canvas + EXAMPLES["WebP"][12:]
    return {
        "PNG": (start + chunk(b"IDAT", packed) + chunk(b"IEND", b""), 30000),
        "JPEG": (bytes(jpeg), 30000),
        "WebP": (bytes(lossless), 16383),
        "lossy WebP": (bytes(lossy), 16383),
        "extended WebP": (extended, 16383),
    }


@pytest.mark.parametrize("limit", [50_000_000, 178_956_971])
@pytest.mark.fault(15)
def test_a_bomb_is_refused_by_its_header(limit, monkeypatch):
    """No pixel is decoded, no memory is taken, and Pillow's own limits do not apply."""

    def never(self, *args):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    for name, (data, side) in bombs().items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageSizeError, match=f"at most {limit} .* {side} x {side} = "):
                decode_compressed(data, name, limit)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.fault(15)
def test_a_bomb_in_another_chunk_is_never_unpacked(kind, first):
    """A chunk of text or colours would unpack to 100 MB, before or after the pixels."""
    name = b"name\0\1\0\0\0" if kind == b"iTXt" else b"name\0\0"
    bomb = chunk(kind, name + zlib.compress(bytes(100_000_000), 9))
    pixels = chunk(b"IDAT", zlib.compress(bytes(8 * 9)))
    parts = [bomb, pixels] if first else [pixels, bomb]
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = start + b"".join(parts) + chunk(b"IEND", b"")
    assert decode_compressed(data, "", LIMIT).shape == (8, 8, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


@pytest.mark.fault(15)
def test_only_our_own_limit_applies(monkeypatch):
    """Pillow warns above its own limit and raises an error above twice that."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("JPEG", "PNG"):
            assert decode_compressed(EXAMPLES[name], "", 64 * 48).shape == (48, 64, 3)
    for data in EXAMPLES.values():
        with pytest.raises(ImageSizeError, match="at most 3071"):
            decode_compressed(data, "", 64 * 48 - 1)


@pytest.mark.fault(18)
def test_an_exif_rotation_is_not_applied():
    """Boxes are in the pixels of the camera, as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG", "WEBP"):
        image = decode_compressed(encoded(picture(), format, exif=exif), "", LIMIT)
        assert image.shape == (48, 64, 3)
        assert np.abs(image[10, 10].astype(int) - (255, 0, 0)).max() < 10


def palette(*extra):
    return png(2, 1, 8, 3, bytes([0, 1, 0]), chunk(b"PLTE", bytes([9, 9, 9, 255, 0, 0])), *extra)


PNG_MODES = {
    "one bit": (png(2, 1, 1, 0, bytes([0, 0b10000000])), [[255] * 3, [0] * 3]),
    "two bits": (png(2, 1, 2, 0, bytes([0, 0b01100000])), [[85] * 3, [170] * 3]),
    "grey": (png(2, 1, 8, 0, bytes([0, 7, 200])), [[7] * 3, [200] * 3]),
    "grey of 16 bits": (
        png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 128, 129, 65407)),
        [[0] * 3, [1] * 3, [255] * 3],
    ),
    "grey with alpha": (png(2, 1, 8, 4, bytes([0, 7, 0, 200, 128])), [[7] * 3, [200] * 3]),
    "colour with alpha": (
        png(2, 1, 8, 6, bytes([0, 1, 2, 3, 0, 4, 5, 6, 128])),
        [[1, 2, 3], [4, 5, 6]],
    ),
    "colour of 16 bits": (
        png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x01FF, 0x8000, 0xFFFF)),
        [[1, 128, 255]],
    ),
    "palette": (palette(), [[255, 0, 0], [9, 9, 9]]),
    "palette with alpha": (palette(chunk(b"tRNS", b"\x80\x00")), [[255, 0, 0], [9, 9, 9]]),
    "one colour transparent": (
        png(1, 1, 8, 2, bytes([0, 1, 2, 3]), chunk(b"tRNS", bytes([0, 1, 0, 2, 0, 3]))),
        [[1, 2, 3]],
    ),
}


@pytest.mark.parametrize("name", PNG_MODES)
def test_every_kind_of_png_becomes_rgb_by_its_rule(name):
    data, expected = PNG_MODES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_compressed(data, "", LIMIT)
    assert image.dtype == np.uint8
    assert image.tolist() == [expected]


def test_a_cmyk_jpeg_becomes_rgb():
    file = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(file, "JPEG", quality=100)
    assert (
        np.abs(decode_compressed(file.getvalue(), "", LIMIT)[8, 8] - np.array([255, 0, 0])).max()
        < 6
    )


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: array.array("B", data)]
)
def test_data_may_be_any_kind_of_bytes(kind):
    assert decode_compressed(kind(EXAMPLES["PNG"]), "png", LIMIT).tolist() == noise().tolist()


@pytest.mark.fault(69)
def test_data_of_another_type_is_refused():
    with pytest.raises(ImageError, match="type NoneType cannot be read"):
        decode_compressed(None, "png", LIMIT)


ERRORS = [
    OSError("cannot\nread"),
    SyntaxError("not a file"),
    struct.error("unpack requires 4 bytes"),
    zlib.error("Error -3"),
    Image.DecompressionBombError("image size exceeds limit"),
    EOFError(),
    OverflowError("too large"),
    KeyError("tag"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("step", ["load", "convert"])
def test_any_error_of_a_reader_is_an_image_error(name, step, error, monkeypatch):
    """Pillow stays strict only while it reads."""

    def fail(*arguments, **options):
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        raise error

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image.Image, step, fail)
    monkeypatch.setattr(ImageFile.ImageFile, step, fail)
    if name == "WebP":
        monkeypatch.setattr(WebPImagePlugin.WebPImageFile, step, fail)
    with pytest.raises(ImageError, match=f"'x' is a broken or truncated {name} image: ") as caught:
        decode_compressed(EXAMPLES[name], "x", LIMIT)
    assert str(caught.value).isprintable()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("fails", [(), (0,), (1,), (0, 1)])
def test_images_are_decoded_in_two_threads_at_once(fails, monkeypatch):
    """Pillow stays strict until the last of them ends, also if one fails."""
    both = threading.Barrier(2, timeout=WAIT)
    first_ended = threading.Event()
    load_pixels, images, seen = JpegImagePlugin.JpegImageFile.load, [], []

    def load(image):
        if any(image is other for other in images):  # Pillow calls this often
            return load_pixels(image)
        images.append(image)
        number = both.wait()  # the other image is being decoded, too
        if number:
            assert first_ended.wait(WAIT)
        seen.append((ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS))
        if number in fails:
            raise OSError(f"image {number}")
        return load_pixels(image)

    def decode_one():
        try:
            return decode_compressed(EXAMPLES["JPEG"], "", LIMIT)
        finally:
            first_ended.set()

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    expected = decode_compressed(EXAMPLES["JPEG"], "", LIMIT)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(decode_one) for _ in range(2)]
    errors = [str(run.exception()) for run in runs if run.exception()]
    assert len(errors) == len(fails)
    for number, error in zip(fails, sorted(errors), strict=True):
        assert error == f"'' is a broken or truncated JPEG image: image {number}"
    for run in runs:
        assert run.exception() or np.array_equal(run.result(), expected)
    assert seen == [(False, None)] * 2
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 10)


def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(decode, "open", fail, raising=False)
    with pytest.raises(ImageError, match=r"picture\.png: Input/output error$"):
        load(tmp_path / "picture.png", LIMIT)


@given(width=st.integers(1, 40), height=st.integers(1, 40))
def test_the_pixel_limit_is_that_of_the_header(width, height):
    data = encoded(noise(width, height), "PNG")
    for limit in (width * height, width * height + 1):
        assert decode_compressed(data, "", limit).shape == (height, width, 3)
    with pytest.raises(ImageSizeError, match=f"at most {width * height - 1} .*{width} x {height}"):
        decode_compressed(data, "", width * height - 1)


def test_16_bit_grey_in_32_bits_is_clipped(tmp_path):
    path = tmp_path / "wide.tiff"
    Image.fromarray(np.array([[-5, 0, 128, 129, 65535, 65536, 2**31 - 1]], np.int32)).save(path)
    assert load(path, LIMIT)[0, :, 2].tolist() == [0, 0, 0, 1, 255, 255, 255]


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP"]),
    st.binary(),
)
@pytest.mark.fault(14)
def test_random_bytes_raise_nothing_but_image_errors(start, data):
    with pytest.raises(ImageError):
        decode_compressed(start + data, "", LIMIT)


@settings(max_examples=400)
@given(
    st.sampled_from(sorted(EXAMPLES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
)
@pytest.mark.fault(14)
def test_damaged_images_raise_nothing_but_image_errors(name, damage):
    data = bytearray(EXAMPLES[name])
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    try:
        image = decode_compressed(data, "", LIMIT)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_files_of_every_format_are_loaded(format, tmp_path):
    path = tmp_path / "picture"
    Image.fromarray(picture()).save(path, format)
    image = load(path, LIMIT)
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - picture()).mean() < 10
    with pytest.raises(ImageSizeError):
        load(str(path), 64 * 48 - 1)


def test_the_first_frame_of_an_animation_is_loaded(tmp_path):
    path = tmp_path / "moving.gif"
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second])
    assert load(path, LIMIT)[4, 4].tolist() == [255, 0, 0]


def test_a_file_of_float_values_is_shown_like_depth(tmp_path):
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.array([[1.0, 1.5, 3.5, np.nan]], np.float32)).save(path)
    assert load(path, LIMIT)[0, :, 1].tolist() == [0, 51, 255, 0]


@pytest.mark.parametrize("name", ["missing.png", ".", "nul\0.png", "text.txt"])
def test_a_file_that_cannot_be_loaded_is_named(name, tmp_path):
    (tmp_path / "text.txt").write_text("no picture")
    with pytest.raises(ImageError) as caught:
        load(f"{tmp_path}/{name}", LIMIT)
    assert str(tmp_path) in str(caught.value)


def test_message_formats_are_part_of_the_file_formats():
    assert set(MESSAGE_FORMATS) < set(FILE_FORMATS)


@pytest.mark.parametrize("written", [None, b"", b"\xff\xd8\xff"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path, written):
    """The pipe has no writer, one that has written nothing, or one that has begun."""
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    with contextlib.ExitStack() as writer:
        if written is not None:
            pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            writer.callback(os.close, pipe)
            os.write(pipe, written)
        with pytest.raises(ImageError, match="pipe.jpg must be a regular file"):
            load(path, LIMIT)
