# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Image messages to RGB arrays: ROS's own cv_bridge where it is right, the table where it is not.

Knows messages and cv_bridge; pixels are images.py's. cv_bridge is tried first in a process of its
own: builds for NumPy 1, as those of Humble and Jazzy are, end the process with a
segmentation fault under NumPy 2. Run as a program, this module is that trial.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import check_raw, decode_compressed, decode_raw
from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.sanitize import one_line

TRIAL_TIMEOUT = 60.0  # s; reading OpenCV from a cold SD card takes many

_FOREIGN = (RuntimeError, TypeError, ValueError, AttributeError)
"""What cv_bridge raises: CvBridgeError is a TypeError, C++ exceptions are a RuntimeError, and on
big-endian frames NumPy 2 gives an AttributeError."""


class ImageDecoder:
    """Decodes Image by cv_bridge or the table of encodings.py, and CompressedImage by Pillow.

    `served` holds (encoding, is_bigendian) of the frames that cv_bridge decodes here. The table
    decodes the others, and rows padded by other than whole pixels, at which cv_bridge shears the
    picture. `str()` says for the log which serves.
    """

    def __init__(self) -> None:
        self.served, self._why = _trial()
        if self.served:
            from cv_bridge import CvBridge

            self._bridge = CvBridge()

    def decode(self, message: Image | CompressedImage, max_pixels: int) -> np.ndarray:
        """RGB pixels (H, W, 3) uint8; the array may be read-only.

        Raises ImageError, EncodingError or ImageSizeError as images.decode_raw and
        images.decode_compressed do.
        """
        if isinstance(message, CompressedImage):
            return decode_compressed(message.data, message.format, max_pixels)
        if (message.encoding, bool(message.is_bigendian)) not in self.served:
            return _by_table(message, max_pixels)
        layout = check_raw(
            len(message.data),
            message.width,
            message.height,
            message.encoding,
            message.step,
            max_pixels,
        )
        if message.step % layout.block_bytes:
            return _by_table(message, max_pixels)
        try:
            rgb: np.ndarray = self._bridge.imgmsg_to_cv2(message, "rgb8")
        except _FOREIGN as exc:
            raise ImageError(
                f"cv_bridge cannot decode {message.encoding}: {one_line(exc, 200)}"
            ) from exc
        return rgb

    def __str__(self) -> str:
        if not self.served:
            return f"kosmos_ros's own table ({self._why})"
        rest = [name for name in ENCODINGS if (name, False) not in self.served]
        if not any(big for _, big in self.served):
            rest.append("big-endian frames")
        return f"cv_bridge (kosmos_ros's own table: {', '.join(rest)})"


def agreeing() -> Iterator[tuple[str, bool]]:
    """Each (encoding, is_bigendian) of which cv_bridge gives exactly the table's pixels.

    Whatever cv_bridge raises on a frame leaves that kind out.
    """
    from cv_bridge import CvBridge

    bridge = CvBridge()
    for encoding in ENCODINGS:
        for big in (False, True):
            try:
                if all(
                    np.array_equal(bridge.imgmsg_to_cv2(frame, "rgb8"), _by_table(frame, 48))
                    for frame in (_frame(encoding, big, 0), _frame(encoding, big, 3))
                ):
                    yield encoding, big
            except _FOREIGN:
                continue


def _by_table(message: Image, max_pixels: int) -> np.ndarray:
    return decode_raw(
        message.data,
        message.width,
        message.height,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
        max_pixels,
    )


def _frame(encoding: str, big: bool, padding: int) -> Image:
    """8 x 6 random pixels, each row followed by `padding` pixels."""
    layout = ENCODINGS[encoding]
    step = layout.row_bytes(8) + padding * layout.block_bytes
    data = np.random.default_rng(0).integers(0, 256, layout.size(6, step), np.uint8)
    return Image(
        width=8, height=6, encoding=encoding, step=step, is_bigendian=big, data=data.tobytes()
    )


def _trial() -> tuple[frozenset[tuple[str, bool]], str]:
    """What `agreeing` gives in a process of its own, or why it gives nothing."""
    if importlib.util.find_spec("cv_bridge") is None:
        return frozenset(), "cv_bridge is not installed"
    try:
        trial = subprocess.run(
            [sys.executable, "-m", "kosmos_ros.ros.bridge"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=TRIAL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return frozenset(), f"cv_bridge did not load in {TRIAL_TIMEOUT:g} s"
    if trial.returncode:
        ended = (
            signal.Signals(-trial.returncode).name
            if trial.returncode < 0
            else trial.stderr.strip().rpartition("\n")[2]
        )
        return frozenset(), f"cv_bridge fails with NumPy {np.__version__}: {one_line(ended, 200)}"
    kinds = frozenset(
        (encoding, big)
        for encoding in ENCODINGS
        for big in (False, True)
        if f"{encoding} {big}" in trial.stdout.splitlines()
    )
    return kinds, "" if kinds else "cv_bridge gives other pixels"


if __name__ == "__main__":
    for kind in agreeing():
        print(*kind)
