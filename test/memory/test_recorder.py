# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The recorder never waits for the disk, and nothing that happens to the file ends it."""

import contextlib
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory import recorder as module
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recorder import (
    MAX_IMAGES,
    MAX_RECORDS,
    MAX_THUMBNAILS,
    THUMBNAIL_SIDE,
    Recorder,
    thumbnail_of,
)
from kosmos_ros.memory.records import Event, Observation

PATIENCE = 60.0  # s
SECOND = 10**9  # ns
IMAGE = np.full((48, 64, 3), (200, 30, 10), np.uint8)


def seen(stamp, caption="a red circle"):
    return Observation(stamp=stamp, camera="", caption=caption)


def stamps(path):
    with ObservationLog.read(path) as log:
        return [row[0] for row in log.connection.execute("SELECT stamp FROM observation")]


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "WRITE_PERIOD", 0.02)
    monkeypatch.setattr(module, "RETRY_PERIOD", 0.02)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def recorder(path, warnings):
    recorder = Recorder(path, warnings.append)
    yield recorder
    assert recorder.close(PATIENCE)


def test_a_record_is_in_the_file_with_its_thumbnail_and_events(path, recorder, warnings):
    recorder.add(seen(5), IMAGE, [Event(5, "", "appeared", "a red circle")])
    until(lambda: recorder.state().written == 1)
    with ObservationLog.read(path) as log:
        (found,) = log.get([5])
        events = log.connection.execute("SELECT stamp, kind, subject FROM event").fetchall()
    assert events == [(5, "appeared", "a red circle")]
    picture = Image.open(io.BytesIO(found.thumbnail))
    assert (picture.format, picture.size) == ("WEBP", (64, 48))
    assert np.abs(np.asarray(picture).astype(int) - IMAGE).max() < 12
    assert recorder.close(PATIENCE)
    assert recorder.state().file_bytes == path.stat().st_size
    assert warnings == []


def test_the_file_is_there_from_the_start(path, recorder):
    until(path.exists)
    until(lambda: recorder.state().file_bytes)
    assert stamps(path) == []


def test_close_writes_what_waits(path, warnings, monkeypatch):
    monkeypatch.setattr(module, "WRITE_PERIOD", PATIENCE)
    recorder = Recorder(path, warnings.append)
    for stamp in range(50):
        recorder.add(seen(stamp), IMAGE if stamp > 45 else None)
    assert recorder.close(PATIENCE)
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]
    assert stamps(path) == list(range(50))
    assert warnings == []


def test_a_thumbnail_fits_into_its_limit_and_keeps_its_shape():
    for shape, size in (((1080, 1920, 3), (320, 180)), ((3000, 10, 3), (1, 320))):
        picture = Image.open(io.BytesIO(thumbnail_of(np.zeros(shape, np.uint8))))
        assert picture.size == size
        assert max(picture.size) <= THUMBNAIL_SIDE


def test_a_record_whose_thumbnail_cannot_be_made_is_written(path, recorder, warnings):
    for stamp in (1, 2):
        recorder.add(seen(stamp), IMAGE[:, :, :0])
    until(lambda: recorder.state().written == 2)
    assert stamps(path) == [1, 2]
    assert recorder.state().lost_thumbnails == 2
    (warning,) = warnings
    assert warning.startswith("cannot create a thumbnail: ")


def test_limits_are_kept(path, warnings):
    recorder = Recorder(path, warnings.append, max_age=10, now=lambda: 20 * 10**9)
    for second in range(20):
        recorder.add(seen(second * 10**9), None)
    assert recorder.close(PATIENCE)
    assert stamps(path) == [second * 10**9 for second in range(10, 20)]
    assert recorder.state().deleted == 10


# A slow disk --------------------------------------------------------------------------------


@pytest.fixture
def stuck(recorder, monkeypatch):
    """Let each write wait for the returned event."""
    go, waiting = threading.Event(), threading.Event()
    add = ObservationLog.add

    def wait(self, *args):
        waiting.set()
        assert go.wait(PATIENCE)
        return add(self, *args)

    monkeypatch.setattr(ObservationLog, "add", wait)
    recorder.add(seen(-1), None)
    assert waiting.wait(PATIENCE)
    yield go
    go.set()


def test_images_of_a_slow_disk_are_dropped_before_records(path, recorder, stuck):
    for stamp in range(50):
        recorder.add(seen(stamp), IMAGE)
    state = recorder.state()
    assert (state.waiting, state.lost, state.lost_thumbnails) == (51, 0, 50 - MAX_IMAGES)
    stuck.set()
    assert recorder.close(PATIENCE)
    with ObservationLog.read(path) as log:
        found = log.get(range(-1, 50))
    assert [o.stamp for o in found] == list(range(-1, 50))
    assert [o.stamp for o in found if o.thumbnail] == list(range(50 - MAX_IMAGES, 50))


def test_the_oldest_records_are_dropped_when_too_many_wait(path, recorder, stuck):
    for stamp in range(MAX_RECORDS + 30):
        recorder.add(seen(stamp), None)
    assert recorder.state().lost == 30
    stuck.set()
    assert recorder.close(PATIENCE)
    assert stamps(path) == [-1, *range(30, MAX_RECORDS + 30)]


def test_thumbnails_that_cannot_be_written_are_dropped_before_records(
    path, recorder, warnings, monkeypatch
):
    def full(self, *args):
        raise LogError("database or disk is full")

    monkeypatch.setattr(module, "thumbnail_of", lambda image: b"thumbnail")
    with monkeypatch.context() as context:
        context.setattr(ObservationLog, "add", full)
        for stamp in range(MAX_THUMBNAILS + 20):
            until(lambda: not recorder._new)
            recorder.add(seen(stamp), IMAGE)
        until(lambda: not recorder._new and recorder.state().error)
    assert recorder.close(PATIENCE)
    with ObservationLog.read(path) as log:
        found = log.get(range(MAX_THUMBNAILS + 20))
    assert [o.stamp for o in found] == list(range(MAX_THUMBNAILS + 20))
    assert [o.stamp for o in found if not o.thumbnail] == list(range(20))
    assert recorder.state().lost_thumbnails == 20
    assert warnings == [
        "cannot write observations now; they stay in the queue: database or disk is full",
        "writing observations works again; 0 were lost so far",
    ]


# What happens to files ----------------------------------------------------------------------


def test_a_removed_file_is_made_again(path, recorder, warnings):
    recorder.add(seen(1), None)
    until(lambda: recorder.state().written == 1)
    path.unlink()
    recorder.add(seen(2), None)
    until(lambda: recorder.state().written == 2)
    assert stamps(path) == [2]
    (warning,) = warnings
    assert "memory.db' was removed or replaced; opening it again" in warning


def test_a_replaced_file_is_not_mixed_with_the_old_one(tmp_path, path, recorder, warnings):
    with ObservationLog.open(tmp_path / "other.db") as other:
        other.add([seen(100), seen(101)])
    recorder.add(seen(1), None)
    until(lambda: recorder.state().written == 1)
    os.replace(tmp_path / "other.db", path)
    recorder.add(seen(2), None)
    until(lambda: recorder.state().written == 2)
    assert recorder.close(PATIENCE)
    assert sorted(stamps(path)) == [2, 100, 101]
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(warnings) == 1


def test_a_log_has_one_recorder(path, recorder):
    with pytest.raises(ConfigError, match=r"another kosmos_node writes .*memory\.db'; stop it"):
        Recorder(path, print)
    assert recorder.close(PATIENCE)
    second = Recorder(path, print)
    second.add(seen(1), None)
    assert second.close(PATIENCE)
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]
    assert stamps(path) == [1]


def test_records_that_waited_are_written_in_small_transactions(path, recorder, monkeypatch):
    sizes, add = [], ObservationLog.add

    def failing(self, *args):
        raise LogError("database or disk is full")

    def counted(self, observations, events):
        sizes.append(len(observations))
        return add(self, observations, events)

    monkeypatch.setattr(ObservationLog, "add", failing)
    for stamp in range(250):
        recorder.add(seen(stamp), None)
    until(lambda: not recorder._new and recorder.state().error)
    monkeypatch.setattr(ObservationLog, "add", counted)
    assert recorder.close(PATIENCE)
    assert sizes == [100, 100, 50]
    assert stamps(path) == list(range(250))


def test_a_removed_folder_is_reported_until_it_is_back(tmp_path, warnings):
    folder = tmp_path / "disk"
    folder.mkdir()
    recorder = Recorder(folder / "memory.db", warnings.append)
    recorder.add(seen(1), None)
    until(lambda: recorder.state().written == 1)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    recorder.add(seen(2), None)
    until(lambda: len(warnings) == 2)
    assert "create its folder" in warnings[1]
    folder.mkdir()
    until(lambda: recorder.state().written == 2)
    assert recorder.close(PATIENCE)
    assert stamps(folder / "memory.db") == [2]
    assert len(warnings) == 3


def test_a_locked_file_is_written_once_it_is_free(path, recorder, warnings, monkeypatch):
    monkeypatch.setattr("kosmos_ros.memory.database.LOCK_TIMEOUT", 0.01)
    until(lambda: recorder.state().file_bytes)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        recorder.add(seen(1), None)
        until(lambda: recorder.state().error)
        until(lambda: warnings)
        assert warnings == [
            f"cannot write observations now; they stay in the queue: observation log '{path}': "
            "database is locked"
        ]
        other.execute("ROLLBACK")
    until(lambda: len(warnings) == 2)
    assert warnings[1] == "writing observations works again; 0 were lost so far"
    assert stamps(path) == [1]
    assert (recorder.state().written, recorder.state().error) == (1, "")


def test_a_file_that_is_no_log_is_reported_and_kept(path, warnings):
    path.write_text("important" * 1000)
    recorder = Recorder(path, warnings.append)
    recorder.add(seen(1), None)
    until(lambda: warnings)
    assert recorder.close(PATIENCE)
    assert path.read_text() == "important" * 1000
    assert "is not an SQLite database, expected an observation log" in warnings[0]
    assert warnings[1] == "1 observations could not be written at shutdown"


LIMITED = """
import resource, signal, sys, threading, time
from kosmos_ros.memory import recorder as module
from kosmos_ros.memory.records import Observation
module.WRITE_PERIOD = module.RETRY_PERIOD = 0.02
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
warned = threading.Event()
def warn(text):  # in the recorder's thread, before its next attempt
    print(text, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    warned.set()
recorder = module.Recorder(sys.argv[1], warn)
add = lambda stamp: recorder.add(
    Observation(stamp=stamp, camera="", caption="a circle", raw_text="x" * 1000), None)
add(0)
while not recorder.state().written:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
stamp = 0
while not warned.wait(0.005):
    add(stamp := stamp + 1)
print(recorder.close(60), stamp)
"""


@pytest.mark.process
def test_a_full_disk_is_reported_once_and_nothing_is_lost_when_it_has_room_again(path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    full, again, end = done.stdout.splitlines()
    assert full.startswith(
        "cannot write observations now; they stay in the queue: observation log "
    )
    assert again == "writing observations works again; 0 were lost so far"
    closed, last = end.split()
    assert closed == "True"
    assert sorted(stamps(path)) == sorted({0, *range(int(last) + 1)})
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


KILLED = """
import sys, time
import numpy as np
from kosmos_ros.memory.recorder import Recorder
from kosmos_ros.memory.records import Observation
recorder = Recorder(sys.argv[1], print)
while not recorder.state().file_bytes:  # the log is complete
    time.sleep(0.01)
image = np.zeros((480, 640, 3), np.uint8)
while True:
    now = time.time_ns()
    recorder.add(Observation(stamp=now, camera="", caption="a circle"), image)
    print(now, flush=True)
    time.sleep(0.02)
"""


@pytest.mark.process
def test_kill_9_loses_at_most_one_second(path):
    """Three of at most ten rounds must keep the limit: the machine may be overloaded."""
    moments, in_time, before = random.Random(5), 0, set()
    for _ in range(10):
        if in_time == 3:
            break
        program = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        added = [int(program.stdout.readline())]
        time.sleep(moments.uniform(1.05, 2.0))  # a record older than a second must be in the file
        killed = time.time_ns()
        program.send_signal(signal.SIGKILL)
        added += [int(line) for line in program.stdout]
        assert program.wait() == -signal.SIGKILL
        program.stdout.close()
        written = set(stamps(path))
        assert before <= written
        lost = [stamp for stamp in added if stamp not in written]
        assert lost == added[len(added) - len(lost) :]  # the newest ones
        in_time += all(stamp >= killed - SECOND for stamp in lost)
        before = written
    assert in_time == 3
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
