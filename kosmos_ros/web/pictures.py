# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the pictures of described frames, and make smaller ones. Bounded in bytes.

Knows bytes and pixels; no message and no connection.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

from kosmos_ros.errors import EncodingError
from kosmos_ros.images.decode import decode_compressed

MOST_BYTES = 64_000_000  # of all kept pictures
MAX_PIXELS = 50_000_000  # of a picture that is made smaller; the node's default max_image_pixels
WIDTHS = (160, 320, 640)  # pixels, of smaller pictures
LARGEST = (32_750, 32_750)  # pixels, (width, height) of the largest image of kosmos_node
QUALITY = 85  # of JPEG
TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
"""First bytes of a file: its media type. WebP begins with RIFF, a length and WEBP."""


class Picture(NamedTuple):
    """A compressed image."""

    type: str  # media type
    data: bytes


def picture_of(data: bytes) -> Picture:
    """Return the picture of a JPEG, PNG or WebP file. Raises EncodingError."""
    for head, kind in TYPES.items():
        if data.startswith(head):
            return Picture(kind, data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Picture("image/webp", data)
    raise EncodingError("the picture is neither JPEG, PNG nor WebP")


def jpeg(image: np.ndarray, most: tuple[int, int] = LARGEST) -> Picture:
    """Return an RGB image (H, W, 3) uint8 as JPEG of at most `most` (width, height) pixels."""
    picture = Pillow.fromarray(np.ascontiguousarray(image))
    picture.thumbnail(most)  # does not enlarge
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return Picture("image/jpeg", file.getvalue())


def smaller(picture: Picture, most: tuple[int, int]) -> Picture:
    """Return a picture as JPEG of at most `most` (width, height) pixels. Raises ImageError."""
    return jpeg(decode_compressed(picture.data, "", MAX_PIXELS), most)


class Pictures:
    """The newest pictures by camera, name and width (0: as published). Any thread may use them.

    The oldest pictures are dropped when all together have more than `most` bytes.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._bytes = most, 0
        self._pictures: OrderedDict[tuple[str, str, int], Picture] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, camera: str, name: str, picture: Picture, width: int = 0) -> None:
        """Keep a picture."""
        key = (camera, name, width)
        with self._lock:
            self._drop(key)
            self._pictures[key] = picture
            self._bytes += len(picture.data)
            while self._bytes > self._most:
                self._drop(next(iter(self._pictures)))

    def get(self, camera: str, name: str, width: int = 0) -> Picture | None:
        """Return a picture, or None if it is no longer kept."""
        with self._lock:
            return self._pictures.get((camera, name, width))

    def _drop(self, key: tuple[str, str, int]) -> None:
        if picture := self._pictures.pop(key, None):
            self._bytes -= len(picture.data)
