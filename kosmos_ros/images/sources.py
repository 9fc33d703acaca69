# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Where the pictures of a camera node come from: drawn scenes, files, a video or a device.

`open_source(name)` gives an object with `read() -> View` and `close() -> bool`. Knows no ROS.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kosmos_ros.errors import ConfigError, EncodingError, ImageError
from kosmos_ros.images import decode
from kosmos_ros.images.encodings import import_cv2
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Box, moving_scene

MAX_PIXELS = 50_000_000
SHAPES_SIZE = (640, 480)  # width, height in pixels, unless asked for
SCENE_TIME = 5.0  # s, after which other shapes are drawn
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class View:
    """One picture, and what is known to be in it."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    truth: tuple[tuple[str, Box], ...] | None = None  # (phrase, box in [0, 1]); None: not known


class Source(Protocol):
    """A camera's pictures."""

    def read(self) -> View | None:
        """The next picture; None while there is no new one.

        Raises ImageError for a picture that cannot be had; the one after it may be fine.
        """

    def close(self) -> bool:
        """End; False where a thread is still inside a driver."""


def open_source(name: str, *, size: tuple[int, int], rate: float, seed: int) -> Source:
    """The source called `name`: "shapes", a picture, a folder of pictures, a video or a device.

    `size` is (width, height) in pixels to which pictures are stretched, (0, 0) for their own.
    `rate` is the number of pictures a second that will be read, `seed` that of drawn scenes.
    Raises ConfigError where the source is missing or cannot be read.
    """
    if name == "shapes":
        return Shapes(seed, size if all(size) else SHAPES_SIZE, rate)
    source: Source
    try:
        if name.isdecimal() or name.startswith("/dev/"):
            source = Device(name)
        elif os.path.isdir(name):  # Path makes the empty name a folder
            source = Pictures(_pictures_in(Path(name)))
        elif os.path.isfile(name):
            source = _file(Path(name))
        else:
            raise ConfigError(
                f"source {name!r} is no file, folder or device; one of those or shapes is needed"
            )
    except ImageError as exc:
        raise ConfigError(f"source {name!r} cannot be used: {exc}") from exc
    return Stretched(source, size) if all(size) else source


class Shapes:
    """Scenes of moving shapes, new ones every SCENE_TIME; the same for the same seed and rate."""

    def __init__(self, seed: int, size: tuple[int, int], rate: float) -> None:
        self._seed = seed
        self._size = size
        self._rate = rate
        self._frames = itertools.count()

    def read(self) -> View:
        number, time = divmod(next(self._frames) / self._rate, SCENE_TIME)
        # Far apart, so that neighbouring seeds share no scene.
        scene = moving_scene((self._seed << 20) + int(number), time, *self._size)
        return View(render(scene), tuple(scene.truth))

    def close(self) -> bool:
        return True


class Pictures:
    """Picture files in turn, again and again; a single one is read once."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths: Iterator[Path] = itertools.cycle(paths)
        self._only = View(decode.load(paths[0], MAX_PIXELS)) if len(paths) == 1 else None

    def read(self) -> View:
        return self._only or View(decode.load(next(self._paths), MAX_PIXELS))

    def close(self) -> bool:
        return True


class Video:
    """Frames of a video file, one for each read, from the beginning again after the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = _capture(str(path))
        self._first: View | None = self._next()  # OpenCV opens files that it cannot decode

    def read(self) -> View:
        view, self._first = self._first, None
        return view or self._next()

    def close(self) -> bool:
        self._capture.release()
        return True

    def _next(self) -> View:
        there, bgr = self._capture.read()
        if not there:
            self._capture.release()
            self._capture = _capture(str(self._path))
            there, bgr = self._capture.read()
        if not there:
            raise ImageError(f"{self._path} has no frame that OpenCV can decode")
        return View(_rgb(bgr))


class Device:
    """The newest picture of a camera. A thread reads it, as drivers wait for seconds."""

    CLOSE_TIMEOUT = 1.0  # s
    ATTENTION = 1.0  # s after a read, in which pictures are decoded

    def __init__(self, name: str) -> None:
        path = Path(f"/dev/video{name}" if name.isdecimal() else name)
        if not path.exists():
            raise ImageError(f"{path} does not exist")
        self._path = path
        self._capture = _capture(int(name) if name.isdecimal() else name)
        self._newest: np.ndarray | None = None  # BGR, not yet read
        self._read_at = float("-inf")  # s, monotonic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._grab, name="camera", daemon=True)
        self._thread.start()

    def read(self) -> View | None:
        self._read_at = time.monotonic()
        bgr, self._newest = self._newest, None
        if bgr is not None:
            return View(_rgb(bgr))
        if not self._thread.is_alive():
            raise ImageError(f"{self._path} gives no more pictures; is it still connected?")
        return None

    def close(self) -> bool:
        self._stopping.set()
        self._thread.join(self.CLOSE_TIMEOUT)
        return not self._thread.is_alive()

    def _grab(self) -> None:
        there = True
        while there and not self._stopping.is_set():
            there, bgr = self._capture.grab(), None
            if there and time.monotonic() - self._read_at < self.ATTENTION:
                there, bgr = self._capture.retrieve()
            if there:
                self._newest = bgr
        self._capture.release()


class Stretched:
    """The pictures of another source, each of one size."""

    def __init__(self, source: Source, size: tuple[int, int]) -> None:
        self._source = source
        self._size = size

    def read(self) -> View | None:
        view = self._source.read()
        if view is None:
            return None
        image = Image.fromarray(view.image).resize(self._size, Image.Resampling.BILINEAR)
        return View(np.asarray(image), view.truth)

    def close(self) -> bool:
        return self._source.close()


def _pictures_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(f"the folder has no file that ends in {', '.join(SUFFIXES)}")
    return paths


def _file(path: Path) -> Source:
    try:
        return Pictures([path])
    except EncodingError:  # no picture by its first bytes
        return Video(path)


def _capture(name: str | int) -> Any:
    capture = import_cv2("videos and cameras").VideoCapture(name)
    if not capture.isOpened():
        raise ImageError("OpenCV cannot open it: no picture, video or camera that it knows")
    return capture


def _rgb(bgr: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bgr[..., ::-1])
