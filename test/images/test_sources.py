# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sources of camera_node: scenes with their truth, files, videos and devices."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos_ros.errors import ConfigError, ImageError
from kosmos_ros.images import sources
from kosmos_ros.images.sources import Device, open_source
from kosmos_ros.shapes.scenes import COLOURS, moving_scene

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def source(name, size=(0, 0), rate=10.0, seed=0):
    return open_source(str(name), size=size, rate=rate, seed=seed)


def save(path, colour, size=(32, 24)):
    Image.new("RGB", size, colour).save(path)
    return path


def colour_of(view):
    return tuple(int(value) for value in view.image.mean(axis=(0, 1)).round())


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Return a video of three frames: red, green and blue."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path_factory.mktemp("video") / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for colour in (RED, GREEN, BLUE):
        writer.write(np.full((24, 32, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def nearest(view):
    mean = view.image.mean(axis=(0, 1))
    return min((RED, GREEN, BLUE), key=lambda colour: np.abs(mean - colour).sum())


def test_shapes_are_where_the_truth_says():
    for seed in range(4):
        view = source("shapes", (320, 240), seed=seed).read()
        assert view.image.shape == (240, 320, 3)
        assert view.truth
        for phrase, (x1, y1, x2, y2) in view.truth:
            kind = phrase.split()[-1]
            if kind == "ring":
                continue  # nothing is in its middle
            colour = COLOURS[phrase.split()[1]]
            middle = view.image[round((y1 + y2) * 120), round((x1 + x2) * 160)].astype(int)
            assert min(COLOURS.values(), key=lambda c: np.abs(middle - c).sum()) == colour, phrase


def test_shapes_move_and_a_new_scene_begins_after_some_seconds():
    camera = source("shapes", (160, 120), rate=2.0)
    views = [camera.read() for _ in range(12)]
    phrases = [[phrase for phrase, _ in view.truth] for view in views]
    assert all(shown == phrases[0] for shown in phrases[:10])
    assert phrases[10] != phrases[0]
    assert views[0].truth != views[1].truth
    again = source("shapes", (160, 120), rate=2.0)
    assert (again.read().image == views[0].image).all()
    other = source("shapes", (160, 120), rate=2.0, seed=1).read()
    assert other.truth not in [view.truth for view in views]


def test_shapes_have_a_default_size():
    assert source("shapes").read().image.shape == (480, 640, 3)


def test_an_image_is_repeated(tmp_path):
    camera = source(save(tmp_path / "one.png", RED))
    (tmp_path / "one.png").unlink()
    for _ in range(3):
        view = camera.read()
        assert view.image.shape == (24, 32, 3)
        assert colour_of(view) == RED
        assert view.truth is None
    assert camera.close()


def test_a_folder_is_played_in_order_in_a_loop(tmp_path):
    save(tmp_path / "b.PNG", GREEN)
    save(tmp_path / "c.bmp", BLUE, (16, 16))
    save(tmp_path / "a.png", RED)
    (tmp_path / "a.txt").write_text("no picture")
    camera = source(tmp_path)
    assert [colour_of(camera.read()) for _ in range(4)] == [RED, GREEN, BLUE, RED]


def test_a_broken_image_in_a_folder_does_not_stop_it(tmp_path):
    save(tmp_path / "a.png", RED)
    (tmp_path / "b.png").write_bytes(b"no picture")
    camera = source(tmp_path)
    assert colour_of(camera.read()) == RED
    with pytest.raises(ImageError, match=r"b\.png"):
        camera.read()
    assert colour_of(camera.read()) == RED


def test_a_video_is_played_in_a_loop(video):
    camera = source(video)
    assert [nearest(camera.read()) for _ in range(5)] == [RED, GREEN, BLUE, RED, GREEN]
    assert camera.close()


def test_images_are_stretched_to_the_given_size(tmp_path, video):
    for name in (save(tmp_path / "one.png", RED), video):
        assert source(name, (64, 20)).read().image.shape == (20, 64, 3)


def wait(read):
    """Return the first view of a source that has none at first."""
    pause = threading.Event()
    for _ in range(1000):
        if (view := read()) is not None:
            return view
        pause.wait(0.01)
    raise AssertionError("no image arrived")


def test_a_device_returns_each_image_once_and_raises_when_it_is_gone(video, monkeypatch):
    """A video file stands in for the driver, which is opened and read in the same way."""
    shown, end = threading.Semaphore(0), threading.Event()

    class Driver:
        def __init__(self, capture):
            self.capture = capture

        def grab(self):
            shown.acquire()
            return not end.is_set() and self.capture.grab()

        def retrieve(self):
            return self.capture.retrieve()

        def release(self):
            self.capture.release()

    capture = sources.open_capture
    monkeypatch.setattr(sources, "open_capture", lambda name: Driver(capture(name)))
    monkeypatch.setattr(Device, "DECODE_TIME", 60.0)
    camera = Device(str(video))
    assert camera.read() is None
    shown.release()
    assert nearest(wait(camera.read)) == RED
    assert camera.read() is None
    shown.release()
    assert nearest(wait(camera.read)) == GREEN
    end.set()
    shown.release()
    camera._thread.join(10)
    with pytest.raises(ImageError, match="delivers no more images"):
        camera.read()
    assert camera.close()


def test_images_of_a_device_that_nobody_reads_are_not_decoded(monkeypatch):
    monkeypatch.setattr(Device, "CLOSE_TIMEOUT", 60.0)
    decoded, grabbed = [], threading.Event()

    class Driver:
        def grab(self):
            grabbed.set()
            return True

        def retrieve(self):
            decoded.append(1)
            return True, np.zeros((2, 2, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(sources, "open_capture", lambda name: Driver())
    camera = Device("/dev/null")
    assert grabbed.wait(10)
    assert not decoded
    assert wait(camera.read).image.shape == (2, 2, 3)
    monkeypatch.setattr(Device, "DECODE_TIME", 0.0)
    # An image that was decoded for the last reader is too old for the next one.
    while camera._newest is not None:
        grabbed.clear()
        assert grabbed.wait(10)
    assert camera.close()


def test_a_device_that_hangs_does_not_block_close(video, monkeypatch):
    hang = threading.Event()

    class Driver:
        def grab(self):
            hang.wait(30)
            return False

        def release(self):
            pass

    monkeypatch.setattr(sources, "open_capture", lambda name: Driver())
    monkeypatch.setattr(Device, "CLOSE_TIMEOUT", 0.05)
    camera = Device(str(video))
    assert not camera.close()
    hang.set()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_file.png", "does not exist"),
        ("", "must be shapes, a file, a folder or a device"),
        ("circles", "must be shapes"),
        ("/dev/video97", "/dev/video97 does not exist"),
        ("97", "/dev/video97 does not exist"),
        ("{tmp}", "no file that ends in .jpg"),
        ("{tmp}/notes.txt", "OpenCV cannot open "),
        ("{tmp}/notes.png", "OpenCV can"),  # OpenCV opens it and finds no frame
        ("{tmp}/half.png", "truncated"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(name, why, tmp_path):
    if "notes" in name:
        (tmp_path / Path(name).name).write_text("no picture")
    if "half" in name:
        whole = save(tmp_path / "half.png", RED, (500, 500)).read_bytes()
        (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    name = name.replace("{tmp}", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        source(name)
    assert repr(name) in str(caught.value)
    assert why in str(caught.value)


class Blind:
    """A driver that opens and delivers nothing."""

    def __init__(self, retrieve=(False, None)):
        self.grabs, self.retrieve_result, self.released = 0, retrieve, threading.Event()

    def isOpened(self):
        return True

    def grab(self):
        self.grabs += 1
        return self.grabs <= 1 or self.retrieve_result[0]

    def retrieve(self):
        return self.retrieve_result

    def release(self):
        self.released.set()


def test_a_device_has_no_image_at_first_and_is_released_at_its_end(monkeypatch):
    """No read has happened yet, so the first frame is not decoded."""
    driver = Blind()
    monkeypatch.setattr(sources, "open_capture", lambda name: driver)
    monkeypatch.setattr(driver, "retrieve", None)
    camera = Device("/dev/null")
    assert driver.released.wait(10)
    camera._thread.join(10)
    with pytest.raises(ImageError, match="/dev/null delivers no more images"):
        camera.read()
    assert driver.grabs == 2
    assert camera.close()


def test_a_device_that_cannot_decode_an_image_ends(monkeypatch):
    driver = Blind()
    driver.grab = lambda: True
    monkeypatch.setattr(sources, "open_capture", lambda name: driver)
    camera = Device("/dev/null")
    assert camera.read() is None
    assert driver.released.wait(10)
    camera._thread.join(10)
    with pytest.raises(ImageError, match="delivers no more images"):
        camera.read()


def test_the_first_view_of_shapes_is_that_of_time_0():
    """A new source starts at the beginning; each read is one step of 1 / rate."""
    for rate in (1.0, 240.0):
        first = source("shapes", (64, 48), rate=rate, seed=3).read()
        assert first.truth == tuple(moving_scene(3 << 20, 0.0, 64, 48).truth)
    camera = source("shapes", (64, 48), rate=4.0, seed=3)
    camera.read()
    assert camera.read().truth == tuple(moving_scene(3 << 20, 0.25, 64, 48).truth)


def test_half_a_size_keeps_the_images_own(tmp_path):
    """camera_node refuses half a size."""
    path = save(tmp_path / "one.png", RED)
    for size in ((0, 0), (64, 0), (0, 64)):
        assert source(path, size).read().image.shape == (24, 32, 3)
    assert source(path, (1, 1)).read().image.tolist() == [[list(RED)]]


@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_file_may_have_as_many_pixels_as_the_limit(tmp_path, monkeypatch, more, fits):
    monkeypatch.setattr(sources, "MAX_PIXELS", 32 * 24 - more)
    path = save(tmp_path / "one.png", RED)
    if fits:
        assert source(path).read().image.shape == (24, 32, 3)
    else:
        with pytest.raises(ConfigError, match="must have at most 767 pixels"):
            source(path)


def test_without_opencv_a_video_names_the_package(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="opencv-python-headless"):
        source(video)
