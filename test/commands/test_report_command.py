# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos report, up to the file that it writes. The page has tests of its own."""

import json
import re

import pytest

from kosmos_ros import cli
from kosmos_ros.commands import report
from kosmos_ros.errors import LogError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.records import Box, Event, Observation, Phrase, Pose

BEGIN = 1_700_000_000_000_000_000  # ns


def observation(number, stamp=None):
    phrase = Phrase("a red cup", 0, 9, (Box(1.0, 2.0, 30.0, 40.0, 0.5),))
    return Observation(
        BEGIN + number * 10**9 if stamp is None else stamp,
        "front",
        f"a red cup number {number}.",
        phrases=(phrase,),
        width=64,
        height=48,
        thumbnail=b"picture %d" % number,
        pose=Pose("map", 1.5, -2.0),
    )


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "office.db"
    with ObservationLog.open(path) as log:
        log.add(observation(number) for number in (2, 0, 1))
    return path


def frames(page):
    blocks = re.findall(r'class="frames">\n(.*)\n</script>', page.read_text())
    return [frame for block in blocks for frame in json.loads(block)]


def test_all_frames_are_written_the_oldest_first(log, tmp_path, capsys):
    page = tmp_path / "office.html"
    assert cli.main(["report", str(log), str(page)]) == 0
    assert capsys.readouterr().out == f"3 frames: {page}\n"
    assert [frame["caption"][:-1][-1] for frame in frames(page)] == ["0", "1", "2"]
    assert frames(page)[0] == {
        "time": BEGIN // 10**6,
        "camera": "front",
        "frame_id": "",
        "width": 64,
        "height": 48,
        "task": "brief_caption",
        "caption": "a red cup number 0.",
        "score": 0.0,
        "pose": {"frame_id": "map", "x": 1.5, "y": -2.0},
        "phrases": [{"text": "a red cup", "start": 0, "end": 9, "boxes": [[1, 2, 30, 40, 0.5]]}],
        "answers": [],
        "events": [],
    }
    assert "<title>office</title>" in page.read_text()


def test_events_are_written_with_the_frames_that_confirmed_them(log, tmp_path):
    with ObservationLog.open(log) as writing:
        second = BEGIN + 2 * 10**9
        appeared = Event(second, "front", "appeared", "a red cup", since=BEGIN)
        elsewhere = Event(second, "rear", "appeared", "a dog")
        answered = Event(second, "front", "answered", "Is it full?", answer="yes", previous="no")
        writing.add([], [appeared, elsewhere, answered])
    page = tmp_path / "office.html"
    assert cli.main(["report", str(log), str(page)]) == 0
    cup = {"kind": "appeared", "subject": "a red cup", "answer": "", "previous": ""}
    full = {"kind": "answered", "subject": "Is it full?", "answer": "yes", "previous": "no"}
    assert [frame["events"] for frame in frames(page)] == [[], [], [cup, full]]


def test_events_of_frames_with_one_stamp_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "BLOCK", 2)
    log, page = tmp_path / "office.db", tmp_path / "office.html"
    with ObservationLog.open(log) as writing:
        writing.add(
            [observation(number, stamp=0) for number in range(5)],
            [Event(0, "front", "appeared", "a red cup")],
        )
    assert cli.main(["report", str(log), str(page)]) == 0
    assert [len(frame["events"]) for frame in frames(page)] == [1, 0, 0, 0, 0]


def test_a_folder_is_no_page(log, tmp_path, capsys):
    assert cli.main(["report", str(log), str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"kosmos: {tmp_path} is a folder; choose a file for the report\n"
    )


def test_a_time_selects_frames_also_those_of_equal_stamps(log, tmp_path):
    with ObservationLog.open(log) as writing:
        writing.add([observation(7, stamp=BEGIN + 10**9)])  # its id is later than its stamp
    page = tmp_path / "office.html"
    times = ["--since", str(BEGIN + 1), "--until", str(BEGIN + 10**9)]
    assert cli.main(["report", str(log), str(page), *times]) == 0
    assert [frame["caption"][:-1][-1] for frame in frames(page)] == ["1", "7"]


def test_too_many_frames_are_refused_before_anything_is_written(
    log, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(report, "MAX_FRAMES", 2)
    page = tmp_path / "office.html"
    assert cli.main(["report", str(log), str(page)]) == 2
    assert (
        "at most 2 frames, got more; select a time with --since and --until"
        in capsys.readouterr().err
    )
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["missing.db", "a.html"], "there is no observation log 'missing.db'"),
        (
            ["{log}", "no/folder/a.html"],
            "cannot write no/folder/a.html: No such file or directory",
        ),
    ],
)
def test_what_is_missing_is_named(log, tmp_path, capsys, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *(each.format(log=log) for each in arguments)]) != 0
    assert error in capsys.readouterr().err


def test_an_empty_log_is_a_report_without_frames(tmp_path, capsys):
    log, page = tmp_path / "new.db", tmp_path / "new.html"
    ObservationLog.open(log).close()
    assert cli.main(["report", str(log), str(page)]) == 0
    assert frames(page) == []
    assert capsys.readouterr().out == f"0 frames: {page}\n"


def test_a_log_that_cannot_be_read_leaves_the_old_page(log, tmp_path, monkeypatch, capsys):
    page = tmp_path / "office.html"
    page.write_text("<!DOCTYPE html>old")

    def broken(self, ids):
        raise LogError("the observation log is damaged")

    monkeypatch.setattr(ObservationLog, "get", broken)
    assert cli.main(["report", str(log), str(page)]) == 1
    assert "the observation log is damaged" in capsys.readouterr().err
    assert page.read_text() == "<!DOCTYPE html>old"
    assert [each.name for each in tmp_path.glob("*.html*")] == ["office.html"]


@pytest.mark.parametrize("name", ["office.db", "office.db-wal", "notes.txt"])
def test_a_report_replaces_no_file_but_a_page(log, tmp_path, capsys, name):
    page = tmp_path / name
    if not page.exists():
        page.write_text("something else")
    before = page.read_bytes()
    assert cli.main(["report", str(log), str(page)]) == 2
    assert f"{page} exists and is not a web page; choose another file" in capsys.readouterr().err
    assert page.read_bytes() == before


def test_a_time_that_ends_before_it_begins_is_refused(log, tmp_path, capsys):
    page = tmp_path / "office.html"
    assert cli.main(["report", str(log), str(page), "--since", "5", "--until", "4"]) == 2
    assert "--since must not be later than --until" in capsys.readouterr().err
    assert not page.exists()
