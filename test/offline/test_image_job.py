# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Folders and videos are read, described and written; unfinished runs continue."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos_ros.errors import ConfigError, ImageSizeError
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.offline.batches import MAX_BATCH, Failure
from kosmos_ros.offline.folders import job as jobs
from kosmos_ros.offline.folders import reading
from kosmos_ros.offline.folders.job import Job, Run
from kosmos_ros.offline.folders.reading import Folder
from kosmos_ros.serving.node_settings import CameraSettings

SIZE = 32, 24
BOX = "<object><patch_index_0264><patch_index_0759></object>"
TIME = 1_700_000_000 * 10**9  # ns


class GreyEngine:
    """An engine whose caption is the level of grey of the image."""

    def __init__(self, kill_at=None):
        self.kill_at = kill_at  # batch at which the process ends
        self.batches = 0

    def check(self, prompt):
        pass

    def encode_batch(self, images):
        if self.batches == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        return [round(image.mean()) for image in images]

    def generate_batch(self, queries):
        return [
            Generation(f"<phrase> grey {query.image}</phrase>{BOX}", (0.5, 0.25), 0.75, 7, False)
            for query in queries
        ]


def grey(level):
    return np.full((SIZE[1], SIZE[0], 3), level, np.uint8)


def folder(path):
    """Write images of the levels 12 to 19, then 0 to 11, in the order of their paths.

    One more is broken, and one name is not UTF-8.
    """
    (path / "b").mkdir(parents=True)
    for number in range(20):
        file = path / (f"b/{number}.png" if number >= 12 else f"b{number:02}.png")
        if number == 19:
            file = file.with_name(os.fsdecode(b"19\xff.png"))
        Image.fromarray(grey(number)).save(file)
        os.utime(file, ns=(TIME, TIME))
    (path / "notes.txt").write_text("no image")
    (path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    return path


def video(path, levels=range(0, 200, 8)):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, SIZE)
    for level in levels:
        writer.write(grey(level))
    writer.release()
    os.utime(path, ns=(TIME, TIME))
    return path


def make(source, out, engine=None, **values):
    """Run a job. Return its results' numbers, and its failures."""
    values = {"settings": CameraSettings(), "model": "fake", "max_image_pixels": 10**6, **values}
    run = Run(Job(source=Path(source), out=Path(out), **values))
    with run.open({}) as results:
        found = list(run.describe(results, lambda: engine or GreyEngine()))
        run.add_to_log(results)
        for _ in run.write(results):
            pass
        numbers = results.frames, results.failures
    run.clean()
    return numbers, [str(each.error) for each in found if isinstance(each, Failure)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def levels(path):
    return [int(each["caption"].split()[-1]) for each in lines(path)]


def test_images_of_all_folders_are_in_the_order_of_their_paths(tmp_path):
    source = folder(tmp_path / "in")
    numbers, (failure,) = make(source, tmp_path / "out.jsonl")
    assert numbers == (20, 1)
    assert failure.startswith(f"{source / 'a.jpg'} ")
    found = lines(tmp_path / "out.jsonl")
    assert levels(tmp_path / "out.jsonl") == [*range(12, 20), *range(12)]
    assert found[7]["image"] == os.fsdecode(bytes(source) + b"/b/19\xff.png")
    assert found[0]["image"] == str(source / "b" / "12.png")
    assert (found[0]["image_width"], found[0]["image_height"]) == SIZE
    assert list(tmp_path.glob("*.unfinished")) == []


def test_every_takes_images_by_number_and_frames_of_a_video_by_time(tmp_path):
    source = folder(tmp_path / "in")
    (source / "a.jpg").unlink()
    make(source, tmp_path / "out.jsonl", every="5")
    assert levels(tmp_path / "out.jsonl") == [12, 17, 2, 7]
    make(video(tmp_path / "v.avi"), tmp_path / "v.jsonl", every="0.5s", start=0.3, end=1.9)
    assert [each["time"] for each in lines(tmp_path / "v.jsonl")] == [0.3, 0.8, 1.3, 1.8]
    assert levels(tmp_path / "v.jsonl") == pytest.approx([24, 64, 104, 144], abs=1)


def test_a_folder_that_cannot_be_read_is_named_after_all_images(tmp_path, monkeypatch):
    """Its name shifts no image, so a run may continue although the folder can be read now."""
    for name in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    whole = Folder(tmp_path, 2)
    walk = os.walk

    def hiding(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "-")))
        return walk(folder, onerror=onerror)

    monkeypatch.setattr(os, "walk", hiding)
    hidden = Folder(tmp_path, 2)
    assert hidden.identity == whole.identity
    *images, failure = hidden.frames(0)
    assert [each.name for each in images] == [each.name for each in whole.frames(0)]
    assert (failure.name, str(failure.error)) == (str(tmp_path / "-"), "Permission denied")


def test_a_video_that_was_cut_off_is_named_and_read_to_its_end(tmp_path):
    path = video(tmp_path / "v.avi", range(100, 160))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (frames, failed), (failure,) = make(path, tmp_path / "out.jsonl")
    assert 0 < frames < 50 and failed == 1
    assert failure.startswith(f"{path}: OpenCV reads only {frames} of about 60 frames; ")


def test_damaged_frames_in_a_video_are_counted_and_the_others_described(tmp_path, monkeypatch):
    path, opened = video(tmp_path / "v.avi"), reading.open_capture

    class Damaged:
        """A capture that cannot read the frames 5, 6 and 7, as OpenCV does with some files."""

        def __init__(self, file):
            self._capture, self._number = opened(file), -1

        def grab(self):
            self._number += 1
            return self._capture.grab() and self._number not in (5, 6, 7)

        def __getattr__(self, name):
            return getattr(self._capture, name)

    monkeypatch.setattr(reading, "open_capture", Damaged)
    numbers, (failure,) = make(path, tmp_path / "out.jsonl")
    assert numbers == (22, 1)
    assert failure == f"{path}: OpenCV cannot read 3 frames before 0.800 s"
    times = [each["time"] for each in lines(tmp_path / "out.jsonl")]
    assert times == pytest.approx(
        [0.1 * number for number in range(25) if number not in (5, 6, 7)]
    )
    late = make(path, tmp_path / "late.jsonl", start=0.85)
    assert late == ((16, 0), [])


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("gone", {}, "does not exist; expected a folder of images or a video"),
        ("empty", {}, "has no file that ends in .jpg"),
        ("in", {"start": 1.0}, "--start is a time of a video; images have none: remove it"),
        ("in", {"every": "1s"}, "--every must be a number for images, such as 10, got 1s"),
        ("in", {"out": "out.csv"}, "output must end in .jsonl (JSON lines) or .json (COCO), got"),
    ],
)
def test_what_cannot_be_described_is_named(tmp_path, name, values, reason):
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "in")
    out = tmp_path / values.pop("out", "out.json")
    with pytest.raises(ConfigError) as caught:
        make(tmp_path / name, out, **values)
    assert reason in str(caught.value)
    assert not (tmp_path / "out.json.unfinished").exists()


def test_a_video_that_is_too_large_is_refused_with_its_name(tmp_path):
    path = video(tmp_path / "v.avi")
    with pytest.raises(ImageSizeError, match=f"^{path}: image must have at most 500 pixels"):
        make(path, tmp_path / "out.jsonl", max_image_pixels=500)


def test_the_log_has_the_folders_as_cameras_and_the_times_of_the_files(tmp_path):
    values = {"log": tmp_path / "memory.db", "model_settings": dict.fromkeys(MODEL_SETTINGS, "")}
    for out in ("first.json", "second.json"):  # the same images again
        source = tmp_path / "in" if (tmp_path / "in").exists() else folder(tmp_path / "in")
        make(source, tmp_path / out, **values)
    make(video(tmp_path / "v.avi"), tmp_path / "v.jsonl", every="12", **values)
    with ObservationLog.read(values["log"]) as log:
        found = log.get(log.search(""))
    seen = {(each.camera, each.frame_id): each for each in found}
    assert len(found) == 23
    assert seen["in", "b00.png"].stamp == TIME == seen["b", "b/12.png"].stamp
    assert seen["in", "b01.png"].stamp == TIME + 10**6  # equal times are 1 ms apart
    assert seen["b", "b/13.png"].caption == "An image of grey 13"
    stamps = [each.stamp for each in found if each.camera == "v.avi"]
    assert stamps == [TIME, TIME - 12 * 10**8, TIME - 24 * 10**8]  # the last frame has TIME
    assert seen["v.avi", "v.avi"].thumbnail


KILLED = """
import sys
sys.path[:0] = [{test!r}]
from test_image_job import CameraSettings, GreyEngine, make
source, out, batch = sys.argv[1:]
settings = CameraSettings(phrases=("a cat",), questions=("What?",))
make(source, out, GreyEngine(int(batch)), settings=settings, log=None)
"""


def test_a_video_that_claims_billions_of_frames_ends(tmp_path, monkeypatch):
    source = reading.Video(video(tmp_path / "v.avi"), "1", 0.0, math.inf, 10**6)
    grabs, opened = [], reading.open_capture

    class Counted:
        def __init__(self, file):
            self._capture = opened(file)

        def grab(self):
            grabs.append(1)
            return self._capture.grab()

        def __getattr__(self, name):
            return getattr(self._capture, name)

    monkeypatch.setattr(reading, "open_capture", Counted)
    source._count = 10**9
    *described, failure = source.frames(0)
    assert len(described) == 25 and len(grabs) <= 25 + reading.MAX_GAP + 1
    assert "OpenCV reads only 25 of about 1000000000 frames" in str(failure.error)


class Watching(GreyEngine):
    """Sees a cup in images of the levels of grey 77 to 180. Up to 124 it is day."""

    fails_after = None  # batches

    def encode_batch(self, images):
        if self.batches == self.fails_after:
            raise RuntimeError("the test ends this run")
        return super().encode_batch(images)

    def generate_batch(self, queries):
        return [
            Generation(text, (0.5, 0.25) if text == BOX else (), 0.75, 7, False)
            for text in map(self.text, queries)
        ]

    def text(self, query):
        if "<phrase> a cup</phrase>" in query.prompt:
            return BOX if 77 <= query.image <= 180 else ""
        if "Is it day?" in query.prompt:
            return "yes" if query.image <= 124 else "no"
        return "a room"


FRAMES = 31


def long_video(tmp_path):
    return video(tmp_path / "in.avi", range(0, 8 * FRAMES, 8))


def watched(tmp_path, source, engine=None, task="brief_caption", name="memory.db", **values):
    """Run a job with the engine; return the rows of the log's events."""
    settings = CameraSettings(
        task=task,
        phrases=("a cup", "a hat"),
        questions=("Is it day?",),
        event_frames=3,
        event_seconds=values.pop("event_seconds", 0.0),
    )
    values = {
        "model_settings": dict.fromkeys(MODEL_SETTINGS, ""),
        "settings": settings,
        "log": tmp_path / name,
        **values,
    }
    make(source, tmp_path / f"{name}.jsonl", engine or Watching(), **values)
    with ObservationLog.read(tmp_path / name) as reader:
        return reader.connection.execute(
            "SELECT kind, subject, answer, previous, stamp, since, name, phrases FROM event "
            "JOIN camera ON camera.id = camera ORDER BY stamp"
        ).fetchall()


def told(rows):
    """Return what events say: kind, subject, answers, numbers of the frames, camera."""
    number = {at: FRAMES - 1 - round((TIME - at) / 1e8) for row in rows for at in row[4:6]}
    return [(*row[:4], number[row[4]], number[row[5]], row[6]) for row in rows]


def test_events_of_a_video_follow_its_times_and_survive_a_continuation(tmp_path):
    source = long_video(tmp_path)
    # The period is 0.1 s, and 0.35 s pass between five frames.
    rows = watched(tmp_path, source, event_seconds=0.35)
    assert [row[:2] + row[4:6] for row in told(rows)] == [
        ("answered", "Is it day?", 4, 0),
        ("appeared", "a cup", 14, 10),
        ("answered", "Is it day?", 20, 16),
        ("disappeared", "a cup", 27, 23),
    ]
    part = watched(tmp_path, source, name="part.db", every="2", start=0.35)
    assert [row[:2] + row[4:6] for row in told(part)] == [
        ("answered", "Is it day?", 8, 4),
        ("appeared", "a cup", 14, 10),
        ("answered", "Is it day?", 20, 16),
        ("disappeared", "a cup", 28, 24),
    ]
    stopping = Watching()
    stopping.fails_after = 2
    with pytest.raises(RuntimeError, match="the test ends this run"):
        watched(tmp_path, source, stopping, name="again.db", event_seconds=0.35)
    assert watched(tmp_path, source, name="again.db", event_seconds=0.35) == rows


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("video", "phrase_grounding"),
        ("video", "question"),
        ("video", "brief_caption"),
        ("folder", "question"),
    ],
)
def test_the_log_has_the_events_of_a_video_and_none_of_a_folder(tmp_path, kind, task):
    source = folder(tmp_path / "in.avi") if kind == "folder" else long_video(tmp_path)
    rows = watched(tmp_path, source, task=task)
    assert told(rows) == (kind == "video") * [
        ("answered", "Is it day?", "yes", "", 2, 0, "in.avi"),
        ("appeared", "a cup", "", "", 12, 10, "in.avi"),
        ("answered", "Is it day?", "no", "yes", 18, 16, "in.avi"),
        ("disappeared", "a cup", "", "", 25, 23, "in.avi"),
    ]
    boxes = [each["boxes"] for row in rows for each in json.loads(row[7] or "[]")]
    assert boxes == (kind == "video") * [[[8.5, 6.38, 23.5, 17.62, 0.3536]]]  # centres of cells


@pytest.mark.process
@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_run_that_is_killed_has_the_bytes_of_one_run(tmp_path, kind):
    source = (folder if kind == "folder" else video)(tmp_path / "in.avi")
    settings = CameraSettings(phrases=("a cat",), questions=("What?",))
    make(source, tmp_path / "whole.json", settings=settings)
    program = KILLED.format(test=str(Path(__file__).parent))
    out = tmp_path / "out.json"
    for batch in (1, 2, 0):  # counted from the last stored batch
        words = [sys.executable, "-c", program, str(source), str(out), str(batch)]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        assert not out.exists()
    again = GreyEngine()
    make(source, out, again, settings=settings)
    whole = json.loads((tmp_path / "whole.json").read_text())
    count = {"folder": 20, "video": 25}[kind]
    assert len(whole["images"]) == count == len(whole["captions"]) == len(whole["answers"])
    names = {"folder": os.fsdecode(b"b/19\xff.png"), "video": "in.avi"}
    assert names[kind] in [each["file_name"] for each in whole["images"]]
    assert again.batches == count // MAX_BATCH  # the first of count // MAX_BATCH + 1 was stored
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_run_that_fails_while_it_writes_continues(tmp_path, monkeypatch):
    source = folder(tmp_path / "in")
    make(source, tmp_path / "whole.json")

    def fail(rows):
        yield "{"
        raise OSError("the test ends this run")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the test ends"):
        patch.setattr(jobs.coco, "lines", fail)
        make(source, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    again = GreyEngine()
    make(source, tmp_path / "out.json", again)
    assert again.batches == 0
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_the_stamp_of_an_image_does_not_depend_on_the_choice(tmp_path):
    values = {"log": tmp_path / "memory.db", "model_settings": dict.fromkeys(MODEL_SETTINGS, "")}
    source = folder(tmp_path / "in")
    (whole, _), _ = make(source, tmp_path / "all.json", **values)
    make(source, tmp_path / "some.json", every="3", **values)
    make(source / "b01.png", tmp_path / "one.json", **values)
    make(source / "b" / "13.png", tmp_path / "deep.json", **values)
    with ObservationLog.read(values["log"]) as log:
        found = log.get(log.search(""))
    assert "b01.png" in [each.frame_id for each in found]
    images = [(each.camera, each.stamp) for each in found]
    assert len(images) == len(set(images)) == whole


def test_other_files_are_not_continued(tmp_path, monkeypatch):
    source = folder(tmp_path / "in")
    monkeypatch.setattr(Run, "written", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(source, tmp_path / "out.json")
    Image.fromarray(grey(99)).save(source / "new.png")
    with pytest.raises(ConfigError, match="other settings or other input: set of files was"):
        make(source, tmp_path / "out.json")
