# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Limits on the size of images, which are checked before memory of that size is allocated."""

from __future__ import annotations

from kosmos_ros.errors import ImageSizeError

MAX_SIDE = 32_750
"""Largest width or height in pixels.

A drawn image with the strip below it must fit a JPEG. The strip is at most as tall as the image,
and libjpeg allows 65,500 pixels. The limit also bounds the memory of resizing, which first makes
an image of the same height and the model's width.
"""
METADATA = 64 << 20
"""Maximum number of bytes of an image in addition to 8 per pixel. A motion photo contains a
film."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageSizeError if an image has no pixel, more than `max_pixels` or too long a side."""
    if width < 1 or height < 1:
        raise ImageSizeError(f"image must have at least 1 x 1 pixels, got {width} x {height}")
    if width * height > max_pixels:
        raise ImageSizeError(
            f"image must have at most {max_pixels} pixels (max_image_pixels), "
            f"got {width} x {height} = {width * height}"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageSizeError(
            f"each side of an image must have at most {MAX_SIDE} pixels, got {width} x {height}"
        )


def check_bytes(name: str, length: int, max_pixels: int) -> None:
    """Raise ImageSizeError if `length` bytes are more than an image of `max_pixels` can have.

    The limit is the same for raw and compressed images; no raw encoding has more than 8 bytes for
    each pixel. `name` is the name of the image in the error.
    """
    most = METADATA + 8 * max_pixels
    if length > most:
        raise ImageSizeError(
            f"{name} must have at most {most} bytes (8 for each of the {max_pixels} pixels of "
            f"max_image_pixels, and {METADATA} more), got at least {length}"
        )
