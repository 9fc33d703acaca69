# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Raw image encodings in one table: their memory layout and their conversion to RGB.

Every size follows from the table: row length, data length, and the views of the planes. To add an
encoding, add one entry to ENCODINGS and one case to test/raw_images.py. Knows no limits, no
compression, no files and no ROS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from kosmos_ros.errors import EncodingError, ImageError
from kosmos_ros.sanitize import one_line

Converter = Callable[..., np.ndarray]
"""One array for each plane, (rows, columns, values) in any byte order -> (H, W, 3) uint8 RGB.

A plane has one row and column for each of its blocks; see `Plane`."""


@dataclass(frozen=True)
class Plane:
    """One plane of an image: blocks of `width` x `height` pixels that share `values` numbers."""

    values: int
    width: int = 1  # pixels
    height: int = 1  # pixels


@dataclass(frozen=True)
class Encoding:
    """Memory layout of one encoding, and its conversion to RGB.

    The planes follow each other without a gap. Rows of any plane may be padded, in proportion to
    their length (V4L2, "Semi-planar YUV formats").
    """

    dtype: str  # NumPy's name of one value's type, without byte order
    planes: tuple[Plane, ...]
    convert: Converter
    smallest: int = 1  # pixels: least width and height

    @property
    def block(self) -> tuple[int, int]:
        """Width and height in pixels; the size of an image must be a multiple of them."""
        widths = (plane.width for plane in self.planes)
        heights = (plane.height for plane in self.planes)
        return math.lcm(*widths), math.lcm(*heights)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of the first plane."""
        return self.planes[0].values * np.dtype(self.dtype).itemsize

    def row_bytes(self, width: int) -> int:
        """Return the bytes of an unpadded row of the first plane: the least `step`."""
        return width // self.planes[0].width * self.block_bytes

    def size(self, height: int, step: int) -> int:
        """Return the bytes of an image whose first plane has rows of `step` bytes."""
        return sum(height // plane.height * self._step(plane, step) for plane in self.planes)

    def split(
        self, data: memoryview, width: int, height: int, step: int, big_endian: bool
    ) -> list[np.ndarray]:
        """Return a view (rows, columns, values) of each plane in `data`, in its byte order.

        `data` must have at least `size(height, step)` bytes.
        """
        dtype = np.dtype(self.dtype).newbyteorder(">" if big_endian else "<")
        views, start = [], 0
        for plane in self.planes:
            shape = height // plane.height, width // plane.width, plane.values
            row = self._step(plane, step)
            strides = row, plane.values * dtype.itemsize, dtype.itemsize
            views.append(np.ndarray(shape, dtype, data, start, strides))
            start += shape[0] * row
        return views

    def _step(self, plane: Plane, step: int) -> int:
        """Return the step of `plane` in bytes; `step` is that of the first plane."""
        first = self.planes[0]
        return step * plane.values * first.width // (first.values * plane.width)


BLOCK = 1 << 18
"""Pixels to convert at a time, if a conversion needs more memory than its result."""

_NARROW = ((np.arange(65536) + 128) // 257).astype(np.uint8)


def _forward(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else _pick(pixels, (0, 1, 2))


def _backward(pixels: np.ndarray) -> np.ndarray:
    return _pick(pixels, (2, 1, 0))


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W, 1) repeated in three channels."""
    return _pick(pixels, (0, 0, 0))


def _pick(pixels: np.ndarray, channels: tuple[int, int, int]) -> np.ndarray:
    # NumPy copies three strided channels several times faster than one array with short rows.
    rgb = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for target, source in enumerate(channels):
        rgb[..., target] = pixels[..., source]
    return rgb


def narrow(pixels: np.ndarray) -> np.ndarray:
    """Convert uint16 to uint8: round(value * 255 / 65535), as cv_bridge does with convertTo."""
    narrowed: np.ndarray = _NARROW[pixels]
    return narrowed


def depth(pixels: np.ndarray) -> np.ndarray:
    """Convert depth (H, W, 1), uint16 or float, to grey by the rule in ENCODINGS."""
    return _stretched(pixels, _measured)


def stretched(pixels: np.ndarray) -> np.ndarray:
    """Convert brightness (H, W, 1) to grey: the darkest value to 0 and the brightest to 255."""
    return _stretched(pixels, np.isfinite)


def _stretched(pixels: np.ndarray, known: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert (H, W, 1) to grey, from the smallest to the largest of the values that are `known`.

    `known` returns a mask of some values. All others become 0.
    """
    lowest, highest = math.inf, -math.inf
    for rows in rows_of(*pixels.shape[:2]):
        values = pixels[rows][known(pixels[rows])]
        if values.size:
            lowest = min(lowest, float(values.min()))
            highest = max(highest, float(values.max()))
    span = highest - lowest or 1.0

    def shown(pixels: np.ndarray) -> np.ndarray:
        mask = known(pixels)
        levels = np.zeros(pixels.shape, np.uint8)
        values = pixels[mask].astype(np.float64)
        levels[mask] = np.rint((values - lowest) * 255.0 / span)
        return grey(levels)

    return in_blocks(shown)(pixels)


def _measured(pixels: np.ndarray) -> np.ndarray:
    """Return a mask of the depths that are known."""
    known: np.ndarray = pixels != 0 if pixels.dtype.kind == "u" else np.isfinite(pixels)
    return known


def rows_of(height: int, width: int) -> Iterator[slice]:
    """Yield slices of whole rows with about BLOCK pixels each."""
    rows = max(1, BLOCK // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def in_blocks(convert: Converter) -> Converter:
    """Return a converter that calls `convert` for a few rows at a time, to save memory.

    Each pixel of the result must depend only on the same row of the planes.
    """

    def converted(*planes: np.ndarray) -> np.ndarray:
        height, width = planes[0].shape[:2]
        rgb = np.empty((height, width, 3), np.uint8)
        for rows in rows_of(height, width):
            rgb[rows] = convert(*(plane[rows] for plane in planes))
        return rgb

    return converted


def _chain(first: Converter, second: Converter) -> Converter:
    return lambda *planes: second(first(*planes))


def _opencv(code: str) -> Converter:
    """Return OpenCV's conversion COLOR_<code>, of one plane or two."""

    def convert(*planes: np.ndarray) -> np.ndarray:
        cv2 = import_cv2("Bayer and YUV images")
        call = cv2.cvtColor if len(planes) == 1 else cv2.cvtColorTwoPlane
        try:
            rgb: np.ndarray = call(
                *(np.ascontiguousarray(plane, plane.dtype.newbyteorder("=")) for plane in planes),
                getattr(cv2, f"COLOR_{code}"),
            )
        except cv2.error as exc:
            raise ImageError(
                f"OpenCV cannot convert the image with COLOR_{code}: {one_line(exc, 200)}"
            ) from exc
        return rgb

    return convert


def import_cv2(what: str) -> ModuleType:
    """Import OpenCV for `what`, a plural. Raises EncodingError if that fails."""
    try:
        import cv2
    except (ImportError, AttributeError) as exc:  # AttributeError: built for another NumPy
        raise EncodingError(
            f"{what} need OpenCV, which cannot be imported ({one_line(exc, 200)}); "
            "install python3-opencv (apt) or opencv-python-headless (pip)"
        ) from exc
    return cv2


def _pairs(blocks: np.ndarray) -> np.ndarray:
    """Return blocks of two pixels (H, W / 2, 4) as pixels (H, W, 2)."""
    return blocks.reshape(len(blocks), -1, 2)


_uyvy = _chain(_pairs, _opencv("YUV2RGB_UYVY"))
_yuyv = _chain(_pairs, _opencv("YUV2RGB_YUY2"))


def _nv24(luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    # OpenCV has no NV24. Convert each pixel as a UYVY block of two pixels, and keep the first.
    blocks = np.empty((*luma.shape[:2], 4), np.uint8)
    blocks[..., 0::2], blocks[..., 1::2] = chroma, luma
    return _uyvy(blocks)[:, ::2]


_BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}
"""ROS's names -> OpenCV's. OpenCV names a pattern by the second and third pixel of its second row,
ROS by the first two rows (cv_bridge.cpp, getConversionCodes)."""

_ONE, _THREE, _FOUR = (Plane(1),), (Plane(3),), (Plane(4),)
_YUV422 = (Plane(4, width=2),)  # two lumas and one pair of chromas for two pixels
_YUV420 = (Plane(1), Plane(2, width=2, height=2))  # luma; pairs of chromas
_YUV444 = (Plane(1), Plane(2))

ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("u1", _THREE, _forward),
    "rgba8": Encoding("u1", _FOUR, _forward),
    "bgr8": Encoding("u1", _THREE, _backward),
    "bgra8": Encoding("u1", _FOUR, _backward),
    "mono8": Encoding("u1", _ONE, grey),
    "8UC1": Encoding("u1", _ONE, grey),
    "8UC3": Encoding("u1", _THREE, _backward),
    "8UC4": Encoding("u1", _FOUR, _backward),
    "rgb16": Encoding("u2", _THREE, in_blocks(_chain(narrow, _forward))),
    "rgba16": Encoding("u2", _FOUR, in_blocks(_chain(narrow, _forward))),
    "bgr16": Encoding("u2", _THREE, in_blocks(_chain(narrow, _backward))),
    "bgra16": Encoding("u2", _FOUR, in_blocks(_chain(narrow, _backward))),
    "mono16": Encoding("u2", _ONE, in_blocks(_chain(narrow, grey))),
    "16UC1": Encoding("u2", _ONE, depth),
    "32FC1": Encoding("f4", _ONE, depth),
    **{
        f"bayer_{pattern}8": Encoding("u1", _ONE, _opencv(f"Bayer{name}2RGB"), smallest=3)
        for pattern, name in _BAYER.items()
    },
    **{
        f"bayer_{pattern}16": Encoding(
            "u2", _ONE, _chain(_opencv(f"Bayer{name}2RGB"), in_blocks(narrow)), smallest=3
        )
        for pattern, name in _BAYER.items()
    },
    "uyvy": Encoding("u1", _YUV422, _uyvy),
    "yuv422": Encoding("u1", _YUV422, _uyvy),
    "yuyv": Encoding("u1", _YUV422, _yuyv),
    "yuv422_yuy2": Encoding("u1", _YUV422, _yuyv),
    "nv12": Encoding("u1", _YUV420, _opencv("YUV2RGB_NV12")),
    "nv21": Encoding("u1", _YUV420, _opencv("YUV2RGB_NV21")),
    "nv24": Encoding("u1", _YUV444, in_blocks(_nv24)),
}
"""Every raw encoding, named as in sensor_msgs/image_encodings.hpp (and nv12).

| encoding | rule |
|---|---|
| rgb*, bgr*, 8UC3, 8UC4 | 8UC3 is read as bgr8 and 8UC4 as bgra8; alpha is dropped |
| mono*, 8UC1 | grey is repeated in the three channels |
| *16 | round(value * 255 / 65535), as in cv_bridge |
| 16UC1, 32FC1 | depth: round((value - min) * 255 / (max - min)) over the image's known values; |
| | 0 where the depth is unknown: 0 in 16UC1 (REP 118), not finite in 32FC1 |
| bayer_* | OpenCV's bilinear demosaicing, as in cv_bridge; 16 bits are narrowed afterwards |
| uyvy = yuv422, yuyv = yuv422_yuy2, nv* | ITU-R BT.601, limited range, by OpenCV |

An entry has the type of a value, the planes and the converter. nv24, for example, is YUV 4:4:4:
`(Plane(1), Plane(2))`, a luma for each pixel, then a pair of chromas for each pixel. nv12 has a
pair for each 2 x 2 pixels: `Plane(2, width=2, height=2)`. The least step, the length of the data,
valid image sizes and the trial frames of ros/bridge.py follow from the planes.
"""

STRETCHED: dict[str, Encoding] = {"mono16": Encoding("u2", _ONE, stretched)}
"""Entries that replace those of ENCODINGS if brightness is stretched. Sensors of 10, 12 or 14 bits
use a small part of the range of mono16, so their images are nearly black without it."""


def layout_of(encoding: str, stretch: bool = False) -> Encoding | None:
    """Return the entry of `encoding`, or None. `stretch`: prefer that of STRETCHED."""
    entry = STRETCHED.get(encoding) if stretch else None
    return entry or ENCODINGS.get(encoding)
