# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The number of parts of an image is limited, and the parts left out do not change a pixel."""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
from compressed_images import EXAMPLES, LIMIT, chunk, encoded, noise, picture, png
from PIL import Image, JpegImagePlugin, PngImagePlugin

from kosmos_ros.errors import EncodingError, ImageError, ImageSizeError
from kosmos_ros.images import structure
from kosmos_ros.images.decode import decode_compressed, load
from kosmos_ros.images.size import METADATA
from kosmos_ros.images.structure import (
    BMP_HEADER,
    CHUNK_BYTES,
    MAX_BLOCKS,
    MAX_CHUNKS,
    MAX_SCANS,
    MAX_SEGMENTS,
    MAX_VALUES,
    TILE_SIDE,
)

EXIF = Image.Exif()
EXIF[0x0112] = 6  # rotated


def segment(marker, data=b""):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def progressive(scans):
    """Return a JPEG of 64 x 48 pixels; its scans after the first are empty."""
    file = encoded(noise(), "JPEG", progressive=True)
    start = file.index(b"\xff\xda")
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0]))
    return (
        file[:start]
        + (file[start:-2].split(b"\xff\xda")[1].join([b"\xff\xda", b""]))
        + (scan * (scans - 1))
        + b"\xff\xd9"
    )


@pytest.mark.fault(76)
def test_a_jpeg_may_have_scans_up_to_the_limit():
    assert decode_compressed(progressive(MAX_SCANS), "", LIMIT).shape == (48, 64, 3)
    for scans in (MAX_SCANS + 1, 100_000):
        with pytest.raises(ImageSizeError, match=f"{MAX_SCANS} scans, got {MAX_SCANS + 1}"):
            decode_compressed(progressive(scans), "", LIMIT)


@pytest.mark.fault(76)
def test_scans_are_counted_wherever_libjpeg_finds_them(monkeypatch):
    """Fill bytes, restart markers, tables and metadata between scans hide none."""
    monkeypatch.setattr(structure, "MAX_SCANS", 3)
    start = progressive(1)[:-2]
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0]))
    assert structure.jpeg(start + scan * 2)
    for between in (
        b"",
        b"\xff\xff\xff",
        b"\xff\xd0\xff\xd7",
        b"\0\0\xff\0",
        b"\xff\x01",
        b"\xff\x02",
        segment(0xC4, b"\xff\xd9"),
        segment(0xFE, b"\xff\xd9"),
        segment(0xE5, b"\xff\xda"),
        segment(0xDC, b"\xff\xd9"),
    ):
        with pytest.raises(ImageSizeError, match="at most 3 scans"):
            structure.jpeg(start + (between + scan) * 3)


def test_scans_of_a_thumbnail_and_after_the_end_do_not_count():
    """A telephone's motion photo has a film after the image, and depth maps are whole JPEGs."""
    data = EXAMPLES["JPEG"]
    thumbnail = segment(0xE1, b"Exif\0\0" + data * 20)
    film = b"\xff\xda" * 100_000
    image = decode_compressed(data[:2] + thumbnail * 40 + data[2:] + film, "", LIMIT)
    assert np.array_equal(image, decode_compressed(data, "", LIMIT))


@pytest.mark.parametrize("marker", [0xC4, 0xDB, 0xE0, 0xE1, 0xFE, 0xDD])
@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.fault(76)
def test_a_jpeg_may_have_segments_up_to_the_limit(marker, place):
    data = EXAMPLES["JPEG"]
    at = 2 if place == "start" else len(data) - 2
    with pytest.raises(
        ImageSizeError, match=f"at most {MAX_SEGMENTS} segments, got {MAX_SEGMENTS + 1} or more"
    ):
        decode_compressed(data[:at] + segment(marker) * 1_000_000 + data[at:], "", LIMIT)
    few = data[:at] + segment(0xFE) * (MAX_SEGMENTS - 20) + data[at:]
    assert decode_compressed(few, "", LIMIT).shape == (48, 64, 3)


def test_no_reader_sees_the_metadata_of_a_jpeg(monkeypatch):
    """Those that name the colours stay: here Adobe's, for RGB without conversion."""
    seen = []
    monkeypatch.setattr(
        JpegImagePlugin.JpegImageFile, "getexif", lambda image: seen.append(image) or {}
    )
    profile = bytes(200_000)
    plain = Image.fromarray(picture())
    file = io.BytesIO()
    plain.save(file, "JPEG", exif=EXIF, icc_profile=profile, comment="a" * 60_000, keep_rgb=True)
    data = file.getvalue()
    assert len(structure.jpeg(data)) < len(data) - 260_000
    image = decode_compressed(data, "", LIMIT)
    assert not seen
    assert np.abs(image.astype(int) - picture()).mean() < 3


@pytest.mark.fault(76)
def test_a_large_png_may_have_a_chunk_for_each_kilobyte():
    rows = np.insert(noise(300, 300).reshape(300, 900), 0, 0, axis=1)  # a filter byte each
    file = png(300, 300, 8, 2, rows.tobytes())
    data = file[file.index(b"IDAT") + 4 : -16]
    start = file[: file.index(b"IDAT") - 4]

    def cut(size, extra=b""):
        parts = (chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size))
        return start + extra + b"".join(parts) + chunk(b"IEND", b"")

    assert decode_compressed(cut(CHUNK_BYTES), "", LIMIT).tolist() == noise(300, 300).tolist()
    assert len(data) > 200 * CHUNK_BYTES
    for small in (cut(100), cut(8192, chunk(b"tEXt", b"a\0b") * 10_000)):
        most = MAX_CHUNKS + len(small) // CHUNK_BYTES
        with pytest.raises(ImageSizeError, match=f"at most {most} chunks, got {most + 1} or more"):
            decode_compressed(small, "", LIMIT)


@pytest.mark.parametrize("kind", [b"tEXt", b"IDAT", b"fdAT", b"tRNS", b"abcd"])
@pytest.mark.fault(76)
def test_a_million_chunks_are_refused(kind):
    file = EXAMPLES["PNG"]
    at = file.index(b"IDAT") - 4
    with pytest.raises(ImageSizeError, match="chunks, got"):
        decode_compressed(file[:at] + chunk(kind, b"") * 1_000_000 + file[at:], "", LIMIT)


def test_no_reader_sees_the_metadata_of_a_png(monkeypatch):
    seen = []
    for name in ("iCCP", "tEXt", "zTXt", "eXIf", "acTL", "tRNS"):
        monkeypatch.setattr(PngImagePlugin.PngStream, f"chunk_{name}", lambda *_: seen.append(1))
    extra = b"".join(
        chunk(kind, b"name\0\0" + zlib.compress(b"x")) for kind in (b"iCCP", b"tEXt", b"zTXt")
    )
    file = EXAMPLES["PNG"]
    at = file.index(b"IDAT") - 4
    data = file[:at] + extra + chunk(b"eXIf", b"none") + file[at:-12] + extra + file[-12:]
    assert structure.png(data) == structure.png(file)
    assert decode_compressed(data, "", LIMIT).tolist() == noise().tolist()
    assert not seen


# Files -------------------------------------------------------------------------------------------


def saved(folder, data):
    path = folder / "picture"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("block", [b"", b"\1a", b"\xff" + b"a" * 255])
@pytest.mark.fault(76)
def test_a_gif_may_have_blocks_up_to_the_limit(block, tmp_path):
    data = encoded(picture(), "GIF")
    at = data.index(b",\0\0\0\0")
    few = data[:at] + b"!\xfe" + b"\1a" * 1000 + b"\0" + data[at:]
    assert load(saved(tmp_path, few), LIMIT).shape == (48, 64, 3)
    many = data[:at] + (b"!\xfe" + block + b"\0") * 100_000 + data[at:]
    with pytest.raises(ImageSizeError, match=f"picture: a GIF .* at most {MAX_BLOCKS} blocks"):
        load(saved(tmp_path, many), LIMIT)


@pytest.mark.parametrize("cut", [6, 12, 13, 20, -60])
def test_a_gif_without_a_frame_is_refused(cut, tmp_path):
    with pytest.raises(ImageError, match="broken or truncated GIF"):
        load(saved(tmp_path, encoded(picture(), "GIF")[:cut]), LIMIT)


def test_the_place_of_a_gifs_frame_shows_its_transparent_colour(tmp_path):
    """The frame covers a part of the screen; the rest has the colour that counts as nothing."""
    image = Image.fromarray(np.array([[1] * 4, [0, 0, 2, 2]], np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 255, 0, 0, 1, 2, 3])
    file = io.BytesIO()
    image.save(file, "GIF", transparency=2)
    data = bytearray(file.getvalue())
    data[6:10] = struct.pack("<HH", 8, 2)
    shown = load(saved(tmp_path, data), LIMIT)
    assert shown[0].tolist() == [[255, 0, 0]] * 4 + [[1, 2, 3]] * 4


@pytest.mark.parametrize("disposal", range(8))
def test_no_memory_is_taken_for_the_frame_after_a_gifs_first(disposal, tmp_path):
    """Pillow would allocate it before the size is known."""
    start = b"GIF89a" + struct.pack("<HHBBB", 5, 4, 0x80, 0, 0) + bytes(6)
    control = b"!\xf9\4" + bytes([disposal << 2 | 1, 0, 0, 0, 0])
    frame = b"," + struct.pack("<HHHHB", 0, 0, 40_000, 30_000, 0) + b"\2\0;"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageSizeError, match="got 40000 x 30000"):
        load(saved(tmp_path, start + control + frame), LIMIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


def tiff(order, fields, pixels=bytes(16 * 16 * 3)):
    """Return a TIFF of 16 x 16 RGB pixels; `fields`: number -> (type, values)."""
    common = {256: (3, [16]), 257: (3, [16]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2])}
    common |= {273: (4, [8]), 277: (3, [3]), 278: (3, [16]), 279: (4, [len(pixels)])}
    page, values, at = b"", b"", 8 + len(pixels)
    for number, (kind, entries) in sorted({**common, **fields}.items()):
        data = struct.pack(f"{order}{len(entries)}{'H' if kind == 3 else 'I'}", *entries)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place, values = struct.pack(f"{order}I", at + len(values)), values + data
        page += struct.pack(f"{order}HHI", number, kind, len(entries)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at + len(values))
    return head + pixels + values + struct.pack(f"{order}H", len(page) // 12) + page + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_keeps_its_pixels_and_loses_its_metadata(order, tmp_path):
    """Pillow would turn the image by its orientation."""
    pixels = noise(16, 16)
    plain = tiff(order, {}, pixels.tobytes())
    data = tiff(order, {274: (3, [6]), 34665: (4, [8]), 60000: (4, [7] * 5000)}, pixels.tobytes())
    for file in (plain, data, data + b"odd"):
        assert load(saved(tmp_path, file), LIMIT, stored=True).tolist() == pixels.tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("number", [258, 273, 279, 320])
@pytest.mark.fault(76)
def test_a_tiff_with_too_many_values_is_refused(order, number, tmp_path):
    data = tiff(order, {number: (4, [8] * (MAX_VALUES + 1))})
    with pytest.raises(
        ImageSizeError,
        match=f"picture: .* at most {MAX_VALUES} values, got {MAX_VALUES + 1} in field {number}",
    ):
        load(saved(tmp_path, data), LIMIT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("side", [322, 323])
def test_a_tiff_with_a_huge_tile_is_refused(order, kind, side, tmp_path):
    tiles = {322: (kind, [16]), 323: (kind, [16]), 324: (4, [8]), 325: (4, [768])}
    for number in (273, 278, 279):
        tiles[number] = (3, [0])
    tiles[side] = (kind, [TILE_SIDE + 16])
    with pytest.raises(ImageSizeError, match=f"at most {TILE_SIDE} pixels, got {TILE_SIDE + 16}"):
        load(saved(tmp_path, tiff(order, tiles)), LIMIT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "values"), [(16, [20, 0]), (16, [20]), (3, [16, 16]), (1, [16])])
@pytest.mark.parametrize("side", [256, 257, 322, 323])
@pytest.mark.fault(76)
def test_a_tiff_whose_sides_are_elsewhere_in_the_file_is_refused(
    order, kind, values, side, tmp_path
):
    """Libtiff would read the side from a place that was not checked."""
    reason = (
        f"field {side} of a TIFF image must have one number .* got {len(values)} of type {kind}"
    )
    with pytest.raises(ImageSizeError, match=reason):
        load(saved(tmp_path, tiff(order, {side: (kind, values)})), LIMIT)


def bmp(length):
    """Return a BMP of 8 x 8 pixels whose header claims and has `length` bytes."""
    fields = struct.pack("<IiiHHIIiiII", length, 8, 8, 1, 24, 0, 0, 0, 0, 0, 0).ljust(
        length, b"\0"
    )
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + length) + fields + bytes(192)


@pytest.mark.fault(76)
def test_a_bmp_may_have_a_header_up_to_the_longest_known(tmp_path):
    for length in (40, BMP_HEADER):
        assert load(saved(tmp_path, bmp(length)), LIMIT).shape == (8, 8, 3)
    with pytest.raises(ImageSizeError, match=f"at most {BMP_HEADER} bytes, got {BMP_HEADER + 1}"):
        load(saved(tmp_path, bmp(BMP_HEADER + 1)), LIMIT)


def test_a_run_length_encoded_bmp_is_refused(tmp_path):
    """Pillow decodes it in Python, a thousand times as slowly as other images."""
    header = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
    header += struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 256, 0)
    data = header + bytes(1024) + b"\x08\1" * 8 + b"\0\1"
    with pytest.raises(EncodingError, match="picture is a run-length encoded BMP image"):
        load(saved(tmp_path, data), LIMIT)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.fault(76)
def test_a_file_of_far_more_bytes_than_pixels_is_not_read(name, tmp_path, monkeypatch):
    path = saved(tmp_path, EXAMPLES[name])
    most = METADATA + 8 * LIMIT
    with open(path, "r+b") as file:
        file.truncate(most)
    assert load(path, LIMIT).shape == (48, 64, 3)
    with open(path, "r+b") as file:
        file.truncate(most + 1)
    with pytest.raises(ImageSizeError, match=f"picture: .* at most {most} bytes"):
        load(path, LIMIT)
