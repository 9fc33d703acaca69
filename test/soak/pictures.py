# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Draw scenes as image messages, good and bad ones. Knows no topic.

The frame_id identifies a frame: "<camera> <number> <width>x<height> <stamp>", with " bad" at the
end if it cannot be decoded. So a response's header shows which frame it claims to be about, and
whether that is possible.
"""

import copy
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, sample_scene

SIZES = ((192, 144), (256, 144), (160, 160), (128, 96), (320, 240), (64, 48))  # pixels
BAD_SHARE = 0.1
LARGEST = 65_500  # pixels, the longest side that a JPEG can have


def _nv12(pixels: np.ndarray) -> np.ndarray:
    height, width, _ = pixels.shape
    planes = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    chroma = planes[height:].reshape(2, -1).T.reshape(height // 2, width)
    return np.concatenate([planes[:height], chroma])


def _bayer(pixels: np.ndarray) -> np.ndarray:
    mosaic = pixels[..., 1].copy()
    mosaic[::2, ::2] = pixels[::2, ::2, 0]
    mosaic[1::2, 1::2] = pixels[1::2, 1::2, 2]
    return mosaic


RAW: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rgb8": lambda pixels: pixels,
    "bgr8": lambda pixels: pixels[..., ::-1],
    "mono8": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY),
    "yuv422_yuy2": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_YUY2),
    "uyvy": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_UYVY),
    "nv12": _nv12,
    "bayer_rggb8": _bayer,
}
"""Encoding: function from RGB (H, W, 3) to rows of data."""

FORMATS = {"jpeg": {"quality": 90}, "png": {}, "webp": {"quality": 90}}
"""Compression: options for Pillow."""


def draw(rng: np.random.Generator) -> Scene:
    """Return a random scene in one of SIZES."""
    return sample_scene(rng, *SIZES[rng.integers(len(SIZES))])


def raw(scene: Scene, encoding: str) -> Image:
    """Return the scene in an encoding of RAW, without a header."""
    rows = np.ascontiguousarray(RAW[encoding](render(scene)))
    message = Image(width=scene.width, height=scene.height, encoding=encoding)
    message.step = rows[0].nbytes
    message.data = rows.tobytes()
    return message


def compressed(scene: Scene, kind: str) -> CompressedImage:
    """Return the scene in a compression of FORMATS, without a header."""
    file = io.BytesIO()
    Pillow.fromarray(render(scene)).save(file, kind, **FORMATS[kind])
    return CompressedImage(format=kind, data=file.getvalue())


def _huge(jpeg: bytes) -> bytes:
    """Return the file with LARGEST as width and height (ITU T.81, B.2.2: frame header)."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + LARGEST.to_bytes(2, "big") * 2 + jpeg[at + 4 :]


BAD_RAW: dict[str, Callable[[Image], dict[str, Any]]] = {
    "short data": lambda image: {"data": image.data[: len(image.data) // 2]},
    "wrong step": lambda image: {"step": image.step // 2},
    "unknown encoding": lambda image: {"encoding": "rgb9"},
    "no size": lambda image: {"width": 0},
    "huge": lambda image: {"width": LARGEST, "height": LARGEST, "step": 3 * LARGEST},
}
"""Fault: changed fields of a good frame."""

BAD_COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda file: file[: len(file) // 2],
    "not an image": lambda file: b"no image at all",
    "empty": lambda file: b"",
    "huge": _huge,
}
"""Fault: function from a good JPEG to a bad file."""


def spoilt(message: Any, rng: np.random.Generator) -> Any:
    """Return a bad frame made from a good one; a compressed one must be a JPEG."""
    bad = copy.copy(message)
    if isinstance(message, CompressedImage):
        bad.data = one_of(BAD_COMPRESSED, rng)(bytes(message.data))
        return bad
    for name, value in one_of(BAD_RAW, rng)(message).items():
        setattr(bad, name, value)
    return bad


def label(message: Any, camera: str, number: int, scene: Scene, now: int, bad: bool) -> Any:
    """Set the header of a frame that was taken at `now`, in nanoseconds; return the message."""
    seconds, nanoseconds = divmod(now, 10**9)
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    name = f"{camera} {number} {scene.width}x{scene.height} {seconds}.{nanoseconds}"
    message.header.frame_id = f"{name} bad" if bad else name
    return message


def mistaken(result: Any, cameras: tuple[str, ...]) -> str:
    """Return why a GroundedCaption cannot be about a frame of `cameras`; empty if it can."""
    stamp, words = result.header.stamp, result.header.frame_id.split()
    size = f"{result.image_width}x{result.image_height}"
    if words[:1] != [result.camera] or result.camera not in cameras:
        return f"camera {result.camera!r} for {result.header.frame_id!r}, of {cameras}"
    if words[2:] != [size, f"{stamp.sec}.{stamp.nanosec}"]:
        return f"{size} at {stamp.sec}.{stamp.nanosec} for {result.header.frame_id!r}"
    return ""


def one_of(table: Any, rng: np.random.Generator) -> Any:
    """Return a random value of a dictionary, or a random item of a sequence."""
    values = list(table.values()) if isinstance(table, dict) else table
    return values[int(rng.integers(len(values)))]
