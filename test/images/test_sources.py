# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Where a camera node's pictures come from: scenes with their truth, files, videos, devices."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos_ros.errors import ConfigError, ImageError
from kosmos_ros.images import sources
from kosmos_ros.images.sources import Device, open_source
from kosmos_ros.shapes.scenes import COLOURS

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
    """Three frames, red, green and blue."""
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


def test_shapes_move_and_are_others_after_some_seconds():
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


def test_shapes_have_a_size_of_their_own():
    assert source("shapes").read().image.shape == (480, 640, 3)


def test_a_picture_is_shown_again_and_again(tmp_path):
    camera = source(save(tmp_path / "one.png", RED))
    (tmp_path / "one.png").unlink()
    for _ in range(3):
        view = camera.read()
        assert view.image.shape == (24, 32, 3)
        assert colour_of(view) == RED
        assert view.truth is None
    assert camera.close()


def test_a_folder_is_played_in_order_and_from_the_start_again(tmp_path):
    save(tmp_path / "b.PNG", GREEN)
    save(tmp_path / "c.bmp", BLUE, (16, 16))
    save(tmp_path / "a.png", RED)
    (tmp_path / "a.txt").write_text("no picture")
    camera = source(tmp_path)
    assert [colour_of(camera.read()) for _ in range(4)] == [RED, GREEN, BLUE, RED]


def test_a_broken_picture_of_a_folder_does_not_stop_it(tmp_path):
    save(tmp_path / "a.png", RED)
    (tmp_path / "b.png").write_bytes(b"no picture")
    camera = source(tmp_path)
    assert colour_of(camera.read()) == RED
    with pytest.raises(ImageError, match=r"b\.png"):
        camera.read()
    assert colour_of(camera.read()) == RED


def test_a_video_starts_again_after_its_last_frame(video):
    camera = source(video)
    assert [nearest(camera.read()) for _ in range(5)] == [RED, GREEN, BLUE, RED, GREEN]
    assert camera.close()


def test_pictures_are_stretched_to_a_size_that_is_asked_for(tmp_path, video):
    for name in (save(tmp_path / "one.png", RED), video):
        assert source(name, (64, 20)).read().image.shape == (20, 64, 3)


def wait(read):
    """The first view of a source that has none at first."""
    pause = threading.Event()
    for _ in range(1000):
        if (view := read()) is not None:
            return view
        pause.wait(0.01)
    raise AssertionError("no picture came")


def test_a_device_gives_each_picture_once_and_says_when_it_is_gone(video, monkeypatch):
    """A video file stands in for the driver: it opens and reads in the same way."""
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

    capture = sources._capture
    monkeypatch.setattr(sources, "_capture", lambda name: Driver(capture(name)))
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
    with pytest.raises(ImageError, match="no more pictures"):
        camera.read()
    assert camera.close()


def test_a_device_that_nobody_reads_is_not_decoded(monkeypatch):
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

    monkeypatch.setattr(sources, "_capture", lambda name: Driver())
    camera = Device("/dev/null")
    assert grabbed.wait(10)
    assert not decoded
    assert wait(camera.read).image.shape == (2, 2, 3)
    monkeypatch.setattr(Device, "ATTENTION", 0.0)
    # What was decoded for the last reader is too old for the next one.
    while camera._newest is not None:
        grabbed.clear()
        assert grabbed.wait(10)
    assert camera.close()


def test_a_device_that_hangs_is_left_alone(video, monkeypatch):
    hang = threading.Event()

    class Driver:
        def grab(self):
            hang.wait(30)
            return False

        def release(self):
            pass

    monkeypatch.setattr(sources, "_capture", lambda name: Driver())
    monkeypatch.setattr(Device, "CLOSE_TIMEOUT", 0.05)
    camera = Device(str(video))
    assert not camera.close()
    hang.set()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_file.png", "no file, folder or device"),
        ("", "no file, folder or device"),
        ("circles", "shapes is needed"),
        ("/dev/video97", "/dev/video97 does not exist"),
        ("97", "/dev/video97 does not exist"),
        ("{tmp}", "no file that ends in .jpg"),
        ("{tmp}/notes.txt", "OpenCV cannot open it"),
        ("{tmp}/notes.png", "OpenCV can"),  # which opens it, and finds no frame
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


def test_without_opencv_a_video_names_the_package(video, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ConfigError, match="opencv-python-headless"):
        source(video)
