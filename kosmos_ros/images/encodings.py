# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""How a raw picture's pixels lie in memory, and how they become RGB: one table, ENCODINGS.

Knows one pixel format at a time; no sizes, no limits, no compression and no ROS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from kosmos_ros.errors import EncodingError, ImageError
from kosmos_ros.sanitize import one_line

Converter = Callable[[np.ndarray], np.ndarray]
"""(rows, W, channels) in native byte order -> (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Encoding:
    """How the pixels of one encoding lie in memory, and how they become RGB."""

    dtype: str  # of one value, NumPy's name without byte order
    channels: int  # values of one pixel in its row
    convert: Converter
    unit: tuple[int, int] = (1, 1)  # width and height are multiples of it
    smallest: int = 1  # pixels, width and height
    rows: tuple[int, int] = (1, 1)  # rows of data, for so many rows of the picture

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel in its row."""
        return self.channels * np.dtype(self.dtype).itemsize


_NARROW = ((np.arange(65536) + 128) // 257).astype(np.uint8)


def _forward(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else _planes(pixels, (0, 1, 2))


def _backward(pixels: np.ndarray) -> np.ndarray:
    return _planes(pixels, (2, 1, 0))


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1) repeated in three colours."""
    return _planes(pixels, (0, 0, 0))


def _planes(pixels: np.ndarray, channels: tuple[int, int, int]) -> np.ndarray:
    # NumPy copies three strided planes several times faster than one array of short rows.
    rgb = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for target, source in enumerate(channels):
        rgb[..., target] = pixels[..., source]
    return rgb


def narrow(pixels: np.ndarray) -> np.ndarray:
    """uint16 to uint8: round(value * 255 / 65535), as OpenCV's convertTo rounds in cv_bridge."""
    narrowed: np.ndarray = _NARROW[pixels]
    return narrowed


def depth(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1) uint16 or float to grey: the rule of 16UC1 and 32FC1 in ENCODINGS."""
    known = np.isfinite(pixels)
    if pixels.dtype.kind == "u":
        known &= pixels != 0
    shown = np.zeros(pixels.shape, np.uint8)
    if known.any():
        values = pixels[known].astype(np.float64)
        low, high = values.min(), values.max()
        shown[known] = np.rint((values - low) * 255.0 / ((high - low) or 1.0))
    return grey(shown)


def _chain(first: Converter, second: Converter) -> Converter:
    return lambda pixels: second(first(pixels))


def _opencv(code: str) -> Converter:
    def convert(pixels: np.ndarray) -> np.ndarray:
        cv2 = import_cv2("Bayer and YUV pictures")
        try:
            rgb: np.ndarray = cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, code))
        except cv2.error as exc:
            raise ImageError(
                f"OpenCV cannot convert the picture by {code}: {one_line(exc, 200)}"
            ) from exc
        return rgb

    return convert


def import_cv2(what: str) -> ModuleType:
    """OpenCV, which nothing but `what` needs. Raises EncodingError where it cannot be imported."""
    try:
        import cv2
    except (ImportError, AttributeError) as exc:  # the latter from a build for another NumPy
        raise EncodingError(
            f"{what} need OpenCV, which cannot be imported ({one_line(exc, 200)}); "
            "install python3-opencv (apt) or opencv-python-headless (pip)"
        ) from exc
    return cv2


_BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}
"""OpenCV names a pattern by the second and third pixel of the second row, ROS by the first two
rows (cv_bridge.cpp, getConversionCodes)."""

_UYVY = Encoding("u1", 2, _opencv("COLOR_YUV2RGB_UYVY"), unit=(2, 1))
_YUYV = Encoding("u1", 2, _opencv("COLOR_YUV2RGB_YUY2"), unit=(2, 1))

ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("u1", 3, _forward),
    "rgba8": Encoding("u1", 4, _forward),
    "bgr8": Encoding("u1", 3, _backward),
    "bgra8": Encoding("u1", 4, _backward),
    "mono8": Encoding("u1", 1, grey),
    "8UC1": Encoding("u1", 1, grey),
    "8UC3": Encoding("u1", 3, _backward),
    "8UC4": Encoding("u1", 4, _backward),
    "rgb16": Encoding("u2", 3, _chain(narrow, _forward)),
    "rgba16": Encoding("u2", 4, _chain(narrow, _forward)),
    "bgr16": Encoding("u2", 3, _chain(narrow, _backward)),
    "bgra16": Encoding("u2", 4, _chain(narrow, _backward)),
    "mono16": Encoding("u2", 1, _chain(narrow, grey)),
    "16UC1": Encoding("u2", 1, depth),
    "32FC1": Encoding("f4", 1, depth),
    **{
        f"bayer_{pattern}8": Encoding("u1", 1, _opencv(f"COLOR_Bayer{name}2RGB"), smallest=3)
        for pattern, name in _BAYER.items()
    },
    **{
        f"bayer_{pattern}16": Encoding(
            "u2", 1, _chain(_opencv(f"COLOR_Bayer{name}2RGB"), narrow), smallest=3
        )
        for pattern, name in _BAYER.items()
    },
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
    "nv12": Encoding("u1", 1, _opencv("COLOR_YUV2RGB_NV12"), unit=(2, 2), rows=(3, 2)),
    "nv21": Encoding("u1", 1, _opencv("COLOR_YUV2RGB_NV21"), unit=(2, 2), rows=(3, 2)),
}
"""Every raw encoding, named as in sensor_msgs/image_encodings.hpp (and nv12).

| encoding | rule |
|---|---|
| rgb*, bgr*, 8UC3, 8UC4 | 8UC3 is taken as bgr8 and 8UC4 as bgra8; alpha is dropped |
| mono*, 8UC1 | grey repeated in the three colours |
| *16 | round(value * 255 / 65535), as in cv_bridge |
| 16UC1, 32FC1 | depth: round((value - min) * 255 / (max - min)) over the picture's known values |
| | 0 where it is not known: 0 in 16UC1 (REP 118), not finite in 32FC1 |
| bayer_* | OpenCV's bilinear demosaicing, as in cv_bridge; 16 bits are narrowed afterwards |
| uyvy = yuv422, yuyv = yuv422_yuy2, nv* | ITU-R BT.601, limited range, by OpenCV |
"""
