# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read the frames of a folder of images, or of a video. Knows no model and no output.

A file or frame that cannot be read is reported in its place, and the others are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kosmos_ros.errors import ConfigError, ImageError, ImageSizeError
from kosmos_ros.images.encodings import import_cv2
from kosmos_ros.images.size import check_size
from kosmos_ros.images.sources import SUFFIXES, open_capture, rgb
from kosmos_ros.offline.batches import Failure
from kosmos_ros.offline.every import Every, check_window
from kosmos_ros.offline.run import JPEG_RATIO, Frame
from kosmos_ros.sanitize import quoted

APART = 1_000_000
"""ns between the stamps of files with the same modification time. An archive or a checkout gives
one time to all of its files, and an observation log compares the frames of one stamp in turn."""


MAX_GAP = 1000
"""Frames in a row that OpenCV cannot read, after which a video ends. A damaged file may claim to
have billions of frames."""


@dataclass(frozen=True)
class Origin:
    """Where a frame comes from."""

    path: str  # of the file
    name: str  # of the file, relative to the folder
    camera: str  # name in an observation log
    stamp: int  # ns
    bytes: int  # of the file, or of the frame of a video
    time: float | None = None  # s after the first frame of a video


class Reading(Protocol):
    """A folder or a video. `identity` changes if its files do."""

    identity: str
    expected: int  # frames, about

    def frames(self, position: int) -> Iterator[Frame | Failure]:
        """Yield the chosen frames and the failures from `position` on, in order."""


def open_reading(
    path: Path, every: str, start: float, end: float, max_image_pixels: int
) -> Reading:
    """Open a folder of images, an image or a video.

    Raises ConfigError if it does not exist or has no image, or for an option that does not fit it,
    and ImageError or EncodingError if OpenCV cannot read the video.
    """
    choice = Every.parse(every)
    check_window(start, end)
    if not path.exists():
        raise ConfigError(
            f"{quoted(str(path), 300)} does not exist; expected a folder of images or a video"
        )
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        return Video(path, every, start, end, max_image_pixels)
    for name, given in (("start", start > 0), ("end", end < math.inf)):
        if given:
            raise ConfigError(f"--{name} is a time of a video; images have none: remove it")
    if choice.period:
        raise ConfigError(f"--every must be a number for images, such as 10, got {every}")
    return Folder(path, choice.number)


class Folder:
    """The images in a folder and in all folders below it, in the order of their paths.

    Links to folders are not followed.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self._path = path
        found = sorted(self._found(), key=lambda each: Path(each.name).parts)
        images = list(_apart([each for each in found if isinstance(each, Origin)]))
        if path.is_file():
            images = [each for each in images if each.path == str(path)]
        failures = [each for each in found if isinstance(each, Failure)]
        if not images:
            if failures:
                raise ConfigError(f"{failures[0].name}: {failures[0].error}")
            raise ConfigError(
                f"{quoted(str(path), 300)} has no file that ends in {', '.join(SUFFIXES)}"
            )
        self.identity = _digest(images)
        # Failures come last, because they may differ between a run and its continuation.
        self._chosen: list[Origin | Failure] = [*images[::every], *failures]
        self.expected = len(self._chosen)

    def frames(self, position: int) -> Iterator[Frame | Failure]:
        for each in self._chosen[position:]:
            if isinstance(each, Failure):
                yield each
            else:
                yield Frame(each.path, each, each.bytes * JPEG_RATIO)

    def _found(self) -> Iterator[Origin | Failure]:
        """Yield the images in any order, and the folders that cannot be read."""
        if self._path.is_file():  # its stamp depends on the files beside it
            beside: set[Path] = set()
            with contextlib.suppress(OSError):  # such a folder cannot be described, either
                beside = {file for file in self._path.parent.iterdir() if file.is_file()}
            for file in beside | {self._path}:
                if file.suffix.lower() in SUFFIXES:
                    yield self._origin(file, self._path.parent)
            return
        errors: list[OSError] = []
        for folder, _, names in os.walk(self._path, onerror=errors.append):
            for name in names:
                file = Path(folder, name)
                if file.suffix.lower() in SUFFIXES:
                    yield self._origin(file, self._path)
        for error in errors:
            yield Failure(str(error.filename), ImageError(error.strerror or str(error)))

    def _origin(self, file: Path, top: Path) -> Origin:
        """Return an image. The camera is its folder: relative to `top`, or the name of `top`."""
        name = file.relative_to(top)
        folder = name.parent.as_posix() if name.parent.parts else top.resolve().name
        try:
            status = file.stat()
            stamp, size = status.st_mtime_ns, status.st_size
        except OSError:  # a link to nowhere, whose reading fails
            stamp = size = 0
        return Origin(str(file), name.as_posix(), folder, stamp, size)


def _digest(images: Sequence[Origin]) -> str:
    digest = hashlib.sha256()
    for each in images:
        digest.update(f"{each.name!r} {each.stamp} {each.bytes}\n".encode())
    return digest.hexdigest()[:16]


def _apart(images: Sequence[Origin]) -> Iterator[Origin]:
    """Yield the images with different stamps, as far as APART allows it."""
    taken: Counter[tuple[str, int]] = Counter()
    for each in images:
        key = each.camera, each.stamp
        yield replace(each, stamp=each.stamp + APART * taken[key])
        taken[key] += 1


class Video:
    """The frames of a video file, in the order of time.

    They are read one after the other: a seek may lead to another frame than reading does. The last
    frame has the modification time of the file as its stamp.
    """

    def __init__(
        self, path: Path, every: str, start: float, end: float, max_image_pixels: int
    ) -> None:
        cv2 = import_cv2("videos")
        self.name = path.name  # also the camera
        self._path = path
        self._every = every
        self._start, self._end = start, end
        capture = open_capture(str(path))
        try:
            self._rate = float(capture.get(cv2.CAP_PROP_FPS))
            self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            width, height = (
                int(capture.get(each))
                for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
            if not capture.grab():
                raise ImageError(f"{path} has no frame that OpenCV can decode")
        finally:
            capture.release()
        try:
            check_size(width, height, max_image_pixels)
        except ImageSizeError as exc:
            raise ImageSizeError(f"{path}: {exc}") from exc
        if not 0 < self._rate < math.inf:
            self._rate = 25.0  # the file does not say
        duration = self._count / self._rate
        if self._count and start >= duration:
            raise ConfigError(
                f"--start must be less than the duration of the video, {duration:.3f} s, "
                f"got {start:g}"
            )
        status = path.stat()
        self.identity = f"{status.st_size} bytes of {status.st_mtime_ns}"
        self._begin = status.st_mtime_ns - round(max(0, self._count - 1) / self._rate * 1e9)
        share = max(0.0, min(end, duration) - start) / duration if duration else 0.0
        choice = Every.parse(every)
        self.expected = choice.expected(self._count, round(duration * 1e9), share)

    def frames(self, position: int) -> Iterator[Frame | Failure]:
        for number, each in enumerate(self._chosen()):
            if number >= position:
                yield each if isinstance(each, Failure) else self._frame(*each)

    def _chosen(self) -> Iterator[tuple[Any, float] | Failure]:
        """Yield the capture at each chosen frame with its time (s), and what cannot be read."""
        every = Every.parse(self._every)
        capture = open_capture(str(self._path))
        try:
            number, damaged, time = 0, 0, -1.0  # damaged: unreadable ones since the last frame
            while not damaged or damaged <= min(MAX_GAP, self._count - number):
                if not capture.grab():
                    damaged += 1
                    continue
                number += damaged
                time = max(self._time(capture, number), time + 1e-6)  # no two are equal
                number += 1
                if time >= self._end:
                    return
                if damaged and time >= self._start:
                    count = f"{damaged} frame{'s' * (damaged > 1)}"
                    yield self._unreadable(f"cannot read {count} before {time:.3f} s")
                damaged = 0
                if time >= self._start and every.takes("", round(time * 1e9)):
                    yield capture, time
        finally:
            capture.release()
        if self._count - number > self._rate:  # the number of frames may be an estimate
            yield self._unreadable(
                f"reads only {number} of about {self._count} frames; if not the last ones are "
                "missing, later times are too early"
            )

    def _unreadable(self, reason: str) -> Failure:
        return Failure(str(self._path), ImageError(f"{self._path}: OpenCV {reason}"))

    def _time(self, capture: Any, number: int) -> float:
        """Return the time (s) of the frame at which the capture is, the `number`-th from 0."""
        time = float(capture.get(import_cv2("videos").CAP_PROP_POS_MSEC)) * 1e-3
        return time if 0 < time < math.inf else number / self._rate

    def _frame(self, capture: Any, time: float) -> Frame | Failure:
        name = f"{self._path} at {time:.3f} s"
        ok, bgr = capture.retrieve()
        if not ok:
            return Failure(name, ImageError("OpenCV cannot decode this frame"))
        stamp = self._begin + round(time * 1e9)
        path, own = str(self._path), self.name
        origin = Origin(path, own, own, stamp, bgr.nbytes, round(time, 6))
        return Frame(name, origin, bgr.nbytes, rgb(bgr))
