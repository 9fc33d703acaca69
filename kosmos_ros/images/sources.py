# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sources of images for camera_node: drawn scenes, files, a video or a device.

`open_source(name)` returns an object with `read() -> View | None` and `close() -> bool`. Knows no
ROS.
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
SHAPES_SIZE = (640, 480)  # default width and height in pixels
SCENE_TIME = 5.0  # s, after which a new scene begins
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class View:
    """One image, and the shapes that are in it, if they are known."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    truth: tuple[tuple[str, Box], ...] | None = None  # (phrase, box in [0, 1]); None: unknown


class Source(Protocol):
    """A source of images for camera_node. It returns images one by one."""

    def read(self) -> View | None:
        """Return the next image, or None if there is no new one yet.

        Raises ImageError if an image cannot be read; the next one may be fine.
        """

    def close(self) -> bool:
        """Release the source; return False if a thread is still inside a driver."""


def open_source(name: str, *, size: tuple[int, int], rate: float, seed: int) -> Source:
    """Open "shapes", an image file, a folder of images, a video file or a device.

    Images are stretched to `size`, (width, height) in pixels; (0, 0) keeps their own size. `rate`
    is the number of reads per second; `seed` is the seed of the drawn scenes. Raises
    ConfigError if the source does not exist or cannot be read.
    """
    if name == "shapes":
        return Shapes(seed, size if all(size) else SHAPES_SIZE, rate)
    source: Source
    try:
        if name.isdecimal() or name.startswith("/dev/"):
            source = Device(name)
        elif os.path.isdir(name):  # not Path(name): Path("") is the current folder
            source = Files(_images_in(Path(name)))
        elif os.path.isfile(name):
            source = _file(Path(name))
        else:
            raise ConfigError(
                f"source {name!r} does not exist; it must be shapes, a file, a folder or a device"
            )
    except ImageError as exc:
        raise ConfigError(f"source {name!r} cannot be used: {exc}") from exc
    return Stretched(source, size) if all(size) else source


class Shapes:
    """Scenes of moving shapes, a new one every SCENE_TIME; seed and rate determine all of them."""

    def __init__(self, seed: int, size: tuple[int, int], rate: float) -> None:
        self._seed = seed
        self._size = size
        self._rate = rate
        self._frames = itertools.count()

    def read(self) -> View:
        number, time = divmod(next(self._frames) / self._rate, SCENE_TIME)
        # The shift keeps neighbouring seeds from sharing scenes.
        scene = moving_scene((self._seed << 20) + int(number), time, *self._size)
        return View(render(scene), tuple(scene.truth))

    def close(self) -> bool:
        return True


class Files:
    """Image files in turn, in a loop; a single file is read only once."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths: Iterator[Path] = itertools.cycle(paths)
        self._only = View(decode.load(paths[0], MAX_PIXELS)) if len(paths) == 1 else None

    def read(self) -> View:
        return self._only or View(decode.load(next(self._paths), MAX_PIXELS))

    def close(self) -> bool:
        return True


class Video:
    """Frames of a video file in a loop, one for each read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = open_capture(str(path))
        self._first: View | None = self._next()  # OpenCV also opens files that it cannot decode

    def read(self) -> View:
        view, self._first = self._first, None
        return view or self._next()

    def close(self) -> bool:
        self._capture.release()
        return True

    def _next(self) -> View:
        ok, bgr = self._capture.read()
        if not ok:
            self._capture.release()
            self._capture = open_capture(str(self._path))
            ok, bgr = self._capture.read()
        if not ok:
            raise ImageError(f"{self._path} has no frame that OpenCV can decode")
        return View(rgb(bgr))


class Device:
    """The newest image of a camera. A thread reads it, because drivers may block for seconds."""

    CLOSE_TIMEOUT = 1.0  # s
    DECODE_TIME = 1.0  # s after a read in which images are decoded

    def __init__(self, name: str) -> None:
        path = Path(f"/dev/video{name}" if name.isdecimal() else name)
        if not path.exists():
            raise ImageError(f"{path} does not exist")
        self._path = path
        self._capture = open_capture(int(name) if name.isdecimal() else name)
        self._newest: np.ndarray | None = None  # BGR; None once it was read
        self._read_at = float("-inf")  # s, monotonic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._grab, name="camera", daemon=True)
        self._thread.start()

    def read(self) -> View | None:
        self._read_at = time.monotonic()
        bgr, self._newest = self._newest, None
        if bgr is not None:
            return View(rgb(bgr))
        if not self._thread.is_alive():
            raise ImageError(f"{self._path} delivers no more images; is it still connected?")
        return None

    def close(self) -> bool:
        self._stopping.set()
        self._thread.join(self.CLOSE_TIMEOUT)
        return not self._thread.is_alive()

    def _grab(self) -> None:
        ok = True
        while ok and not self._stopping.is_set():
            ok, bgr = self._capture.grab(), None
            if ok and time.monotonic() - self._read_at < self.DECODE_TIME:
                ok, bgr = self._capture.retrieve()
            if ok:
                self._newest = bgr
        self._capture.release()


class Stretched:
    """Images of another source, stretched to one size."""

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


def _images_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(f"folder has no file that ends in {', '.join(SUFFIXES)}")
    return paths


def _file(path: Path) -> Source:
    try:
        return Files([path])
    except EncodingError:  # its first bytes are not those of an image
        return Video(path)


def open_capture(name: str | int) -> Any:
    """Return OpenCV's reader of a video file or device. Raises ImageError or EncodingError."""
    capture = import_cv2("videos and cameras").VideoCapture(name)
    if not capture.isOpened():
        raise ImageError(f"OpenCV cannot open {name} as a video or camera")
    return capture


def rgb(bgr: np.ndarray) -> np.ndarray:
    """Return the image of OpenCV (H, W, 3) uint8 as RGB."""
    return np.ascontiguousarray(bgr[..., ::-1])
