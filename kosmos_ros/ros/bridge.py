# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode image messages to RGB arrays, with ROS's cv_bridge where it works correctly.

kosmos_ros's own table (images/encodings.py) decodes the other encodings. A trial in a separate
process tests which encodings cv_bridge decodes correctly here: builds for NumPy 1, such as those
of Humble and Jazzy, end the process with a segmentation fault under NumPy 2. This module is also
the program of the trial. Knows messages and cv_bridge, and leaves pixels to images/.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import ImageError
from kosmos_ros.images.decode import (
    check_raw,
    check_uncompressed,
    decode_compressed,
    decode_message,
    stored_encoding,
)
from kosmos_ros.images.encodings import ENCODINGS, STRETCHED
from kosmos_ros.images.formats import SNIFFED
from kosmos_ros.sanitize import format_error, one_line

TRIAL_TIMEOUT = 60.0  # s; reading OpenCV from an SD card can take most of it
KIND_TIMEOUT = 5  # s, for the frames of one kind
DARK = 16  # of 255: the brightest value of a sensor with 12 bits in an image of 16 bits

Kind = tuple[str, bool]
"""(encoding, is_bigendian) of a frame."""

KINDS: tuple[Kind, ...] = tuple((name, big) for name in ENCODINGS for big in (False, True))

_FOREIGN = (RuntimeError, TypeError, ValueError, AttributeError)
"""Errors of cv_bridge: CvBridgeError is a TypeError, C++ exceptions are a RuntimeError, and under
NumPy 2 big-endian frames raise an AttributeError."""


class ImageDecoder:
    """Decode Image with cv_bridge or the table of encodings.py, and CompressedImage with Pillow.

    `served` has the kinds of frames that cv_bridge decodes correctly on this machine. The table
    decodes all others, and also rows that are padded by a part of a pixel, which cv_bridge would
    shear. `str()` describes this for the log. `hint` receives one text if images need `stretch`.
    Several threads may call `decode` at a time.
    """

    def __init__(self, hint: Callable[[str], object] = lambda text: None) -> None:
        self._hint: Callable[[str], object] | None = hint  # None: already given
        self._faults = _trial()
        self.served = frozenset(kind for kind, fault in self._faults.items() if not fault)
        if self.served:
            from cv_bridge import CvBridge

            self._bridge = CvBridge()

    def decode(
        self, message: Image | CompressedImage, max_pixels: int, stretch: bool = False
    ) -> np.ndarray:
        """Decode a message to RGB (H, W, 3) uint8, which may be read-only.

        `stretch`: spread mono16 over the whole range. Raises ImageError, EncodingError or
        ImageSizeError as images.decode_raw and images.decode_compressed do.
        """
        if isinstance(message, CompressedImage):
            encoding = stored_encoding(message.format)
            image = decode_compressed(message.data, message.format, max_pixels, stretch)
        else:
            encoding = message.encoding
            by_table = stretch and encoding in STRETCHED
            image = (
                decode_message(message, max_pixels, stretch)
                if by_table
                else self._decode(message, max_pixels)
            )
        hint = self._hint
        if hint and not stretch and encoding in STRETCHED and image.max() <= DARK:
            self._hint = None
            hint(
                f"an image of encoding {encoding} is nearly black; "
                "if its camera has fewer than 16 bits, set stretch_mono16 to true"
            )
        return image

    def _decode(self, message: Image, max_pixels: int) -> np.ndarray:
        if (message.encoding, bool(message.is_bigendian)) not in self.served:
            return decode_message(message, max_pixels)
        check_uncompressed(bytes(message.data[:SNIFFED]), message.encoding)
        layout = check_raw(
            len(message.data),
            message.width,
            message.height,
            message.encoding,
            message.step,
            max_pixels,
        )
        if message.step % layout.block_bytes:
            return decode_message(message, max_pixels)
        try:
            rgb: np.ndarray = self._bridge.imgmsg_to_cv2(message, "rgb8")
        except _FOREIGN as exc:
            raise ImageError(
                f"cv_bridge cannot decode {message.encoding}: {one_line(exc, 200)}"
            ) from exc
        return rgb

    def __str__(self) -> str:
        reasons: dict[str, dict[str, None]] = {}  # fault: names of kinds, as an ordered set
        for (encoding, big), fault in self._faults.items():
            if fault and not (big and self._faults[encoding, False]):
                # cv_bridge quotes the encoding in its errors.
                name = self._big_endian(encoding) if big else encoding
                reasons.setdefault(fault.replace(f"[{encoding}]", "[...]"), {})[name] = None
        if not self.served and len(reasons) == 1:
            return f"kosmos_ros's own table ({', '.join(reasons)})"
        rest = "; ".join(f"{', '.join(names)} ({fault})" for fault, names in reasons.items())
        if not self.served:
            return f"kosmos_ros's own table (cv_bridge decodes no encoding correctly: {rest})"
        return f"cv_bridge; kosmos_ros's own table decodes {rest}"

    def _big_endian(self, encoding: str) -> str:
        return f"big-endian {encoding if any(big for _, big in self.served) else 'frames'}"


# The trial --------------------------------------------------------------------------------------


def _trial() -> dict[Kind, str]:
    """Return cv_bridge's fault for each kind of frame; "" if it decodes that kind correctly."""
    if importlib.util.find_spec("cv_bridge") is None:
        return dict.fromkeys(KINDS, "cv_bridge is not installed")
    unfinished = f"cv_bridge did not load in {TRIAL_TIMEOUT:g} s"
    try:
        trial = subprocess.run(
            [sys.executable, "-m", "kosmos_ros.ros.bridge"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            timeout=TRIAL_TIMEOUT,
            check=False,
        )
        lines = trial.stdout
        if trial.returncode:
            last = trial.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            reason = one_line(last, 200) if trial.returncode == 1 else _ending(trial.returncode)
            unfinished = f"cv_bridge does not load with NumPy {np.__version__}: {reason}"
    except subprocess.TimeoutExpired as exc:
        lines = exc.stdout or b""
    faults = {}
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # printed by something else
            name, big, fault = json.loads(line)
            faults[name, big] = fault
    if faults:
        unfinished = "cv_bridge gave no result"
    return {kind: faults.get(kind, unfinished) for kind in KINDS}


def _try_all() -> None:
    """Try every kind of frame, and write a line of JSON for each: encoding, is_bigendian, fault.

    A child process decodes the frames of each kind, so that a crash affects only that kind.
    """
    report = os.dup(1)
    os.dup2(2, 1)  # so that output of libraries does not reach the report
    from cv_bridge import CvBridge

    bridge = CvBridge()
    for encoding, big in KINDS:
        child = os.fork()
        if not child:
            signal.alarm(KIND_TIMEOUT)
            _write(report, encoding, big, _fault(bridge, encoding, big))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if code := os.waitstatus_to_exitcode(status):
            _write(report, encoding, big, f"cv_bridge ends the process with {_ending(code)}")


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


def _write(report: int, *values: str | bool) -> None:
    os.write(report, json.dumps(values).encode() + b"\n")


def _fault(bridge: Any, encoding: str, big: bool) -> str:
    """Compare cv_bridge's pixels with those of the table. Return cv_bridge's fault, or ""."""
    for padding in (0, 3):
        frame = _frame(encoding, big, padding)
        expected = decode_message(frame, frame.width * frame.height)
        try:
            pixels = bridge.imgmsg_to_cv2(frame, "rgb8")
        except Exception as exc:  # cv_bridge is foreign code, which may raise anything
            return f"cv_bridge raises {one_line(format_error(exc), 150)}"
        if not np.array_equal(pixels, expected):
            return "cv_bridge returns wrong pixels"
    return ""


def _frame(encoding: str, big: bool, padding: int) -> Image:
    """Return a frame of 8 x 6 random pixels; `padding` blocks follow each row."""
    width, height = 8, 6
    layout = ENCODINGS[encoding]
    step = layout.row_bytes(width) + padding * layout.block_bytes
    data = np.random.default_rng(0).integers(0, 256, layout.size(height, step), np.uint8)
    return Image(
        width=width,
        height=height,
        encoding=encoding,
        step=step,
        is_bigendian=big,
        data=data.tobytes(),
    )


if __name__ == "__main__":
    _try_all()
