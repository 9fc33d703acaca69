# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The observation log keeps what it was given, stays within its limits and refuses other files."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import shutil
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory.database import OLD_RULES, RESERVE, VERSION, pragma
from kosmos_ros.memory.log import WAL_ROOM, ObservationLog, camera_token
from kosmos_ros.memory.places import CELL_SIZES, MAX_CELLS, cell_tokens, cells_near
from kosmos_ros.memory.record_json import phrases_from_json
from kosmos_ros.memory.records import Answer, Box, Event, Observation, Phrase, Pose
from kosmos_ros.memory.words import tokens

SECOND = 10**9  # ns
RED = Phrase("a red circle", 12, 24, (Box(1.25, 2, 30.5, 40, 0.75),))
CUP = Phrase("a cup", 0, 0, (Box(0, 0, 10, 10, 0.5, 7, (1.5, -2.0, 0.25)),))
FULL = Observation(
    stamp=1_700_000_000_123_456_789,
    camera="front",
    caption="An image of a red circle.",
    task="brief_caption",
    phrases=(RED, CUP),
    answers=(Answer("What is left?", "a blue square", 0.5, (Phrase("square", 7, 13, ()),)),),
    raw_text="<grounding> An image of<phrase> a red circle</phrase>",
    score=0.875,
    frame_id="front_optical",
    width=640,
    height=480,
    model="shapes",
    settings='{"dtype": "float32"}',
    pose=Pose("map", 1.5, -2.5, 0, 0, 0, 0.5, 0.5),
    thumbnail=b"RIFF....WEBP",
)


def seen(stamp=0, caption="a red circle", camera="", **fields):
    return Observation(stamp=stamp, camera=camera, caption=caption, **fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


@pytest.fixture
def log(path):
    with ObservationLog.open(path) as log:
        yield log


def indexed(log):
    """Return the ids that the full-text index knows, and its terms."""
    log.connection.execute("CREATE VIRTUAL TABLE temp.v USING fts5vocab(main, search, instance)")
    rows = log.connection.execute("SELECT doc, term FROM temp.v").fetchall()
    log.connection.execute("DROP TABLE temp.v")
    log.connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
    return {doc for doc, _ in rows}, {term for _, term in rows}


def count(log, table="observation"):
    return log.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def event_stamps(log):
    return {row[0] for row in log.connection.execute("SELECT stamp FROM event")}


def matching(log, *terms):
    return log.search(" AND ".join(f'"{term}"' for term in terms))


def test_an_observation_comes_back_as_it_was_written(log):
    (number,) = log.add([FULL])
    assert number == FULL.stamp
    assert log.get([number]) == [dataclasses.replace(FULL, id=number)]
    assert log.get([number], thumbnails=False)[0].thumbnail is None
    assert log.get([number + 1]) == []


def test_an_event_is_a_row_of_its_table(log):
    event = Event(5 * SECOND, "front", "appeared", "a red circle", since=4, phrases=(RED,))
    answer = Event(5 * SECOND, "", "answered", "Is it red?", answer="yes", previous="no", since=5)
    log.add([], [event, answer])
    sql = (
        "SELECT event.id, stamp, name, kind, subject, answer, previous, since, phrases FROM event "
        "JOIN camera ON camera.id = camera ORDER BY event.id"
    )
    first, second = log.connection.execute(sql)
    assert first[:-1] == (5 * SECOND, 5 * SECOND, "front", "appeared", "a red circle", "", "", 4)
    assert phrases_from_json(first[-1]) == (RED,)
    at = (5 * SECOND + 1, 5 * SECOND)
    assert second == (*at, "", "answered", "Is it red?", "yes", "no", 5, None)


def test_events_come_back_with_the_observations_that_confirmed_them(log):
    at = FULL.stamp
    appeared = Event(at, FULL.camera, "appeared", "a red circle", since=4, phrases=(RED,))
    answered = Event(at, FULL.camera, "answered", "Is it red?", "yes", "no", since=at)
    later = Event(at + 1, FULL.camera, "disappeared", "a red circle", since=at)
    other = Event(at, "rear", "appeared", "a dog")
    seen = [
        FULL,
        dataclasses.replace(FULL, caption="again"),
        dataclasses.replace(FULL, stamp=at + 1),
    ]
    log.add(seen, [appeared, answered, later, other])
    assert log.events(seen) == [[appeared, answered], [appeared, answered], [later]]
    assert log.events(seen[1:2]) == [[appeared, answered]]
    assert log.events([]) == []
    log.connection.execute("UPDATE event SET phrases = 'no JSON' WHERE subject = 'a dog'")
    with pytest.raises(LogError, match=r"memory\.db.*event"):
        log.events(seen)


def test_another_process_reads_what_is_written(path, log):
    log.add([FULL])
    with ObservationLog.read(path) as reader:
        assert reader.search("") == [FULL.stamp]
        log.add([seen(FULL.stamp + 5)])
        assert reader.search("") == [FULL.stamp + 5, FULL.stamp]
        assert count(reader, "thumbnail") == 1
        assert reader.cameras() == {"front": 1, "": 2}
        with pytest.raises(LogError, match=r"memory\.db.*readonly"):
            reader.add([seen()])


def test_a_reader_leaves_no_files_and_writes_nothing(path):
    with ObservationLog.open(path) as log:
        log.add([FULL])
    content, files = path.read_bytes(), sorted(path.parent.iterdir())
    with ObservationLog.read(path) as reader:
        assert reader.search("") == [FULL.stamp]
        with pytest.raises(LogError, match=r"memory\.db.*readonly"):
            reader.add([seen()])
    assert sorted(path.parent.iterdir()) == files == [path]
    assert path.read_bytes() == content


def test_a_reopened_log_goes_on(path):
    for stamp in (5, 6):
        with ObservationLog.open(path) as log:
            log.add([seen(stamp, camera="a", model="m")])
    with ObservationLog.read(path) as log:
        assert [o.stamp for o in log.get([5, 6])] == [5, 6]
        assert log.connection.execute("SELECT count(*) FROM model").fetchone() == (1,)


@given(st.lists(st.integers(-3, 12), max_size=60))
@pytest.mark.slow
def test_ids_are_unique_and_the_next_free_numbers_after_the_stamps(stamps):
    with tempfile.TemporaryDirectory() as folder, ObservationLog.open(f"{folder}/log") as log:
        for stamp in stamps:
            before = set(log._ids("SELECT id FROM observation"))
            (number,) = log.add([seen(stamp)])
            assert number >= stamp
            assert number not in before
            assert set(range(stamp, number)) <= before or number - 1 in before
            assert (number == stamp) == (stamp not in before)


def test_a_camera_that_always_sends_the_same_stamp_gets_consecutive_ids(log):
    assert log.add([seen(0, f"frame {n}") for n in range(100)]) == list(range(100))
    assert [o.caption for o in log.get([3, 99])] == ["frame 3", "frame 99"]


def test_a_failed_transaction_adds_nothing(log):
    with pytest.raises(LogError, match="memory.db"):
        log.add([seen(1), seen(2**63)])
    with pytest.raises(LogError):
        log.add([seen(1), seen(2, width=2**63)])
    assert count(log) == 0
    assert indexed(log) == (set(), set())
    assert log.add([seen(1)]) == [1]


def test_half_of_a_surrogate_pair_becomes_a_question_mark(log):
    (number,) = log.add([seen(1, "a \ud800 cup", "cam\udfff", frame_id="\ud800")])
    (found,) = log.get([number])
    assert (found.caption, found.camera, found.frame_id) == ("a ? cup", "cam?", "?")


def test_numbers_that_are_not_finite_become_0(log):
    nan, inf = float("nan"), float("inf")
    phrase = Phrase("a", 0, 1, (Box(nan, 0, inf, 1, nan, 1, (nan, 0, 1)),))
    (number,) = log.add([seen(1, score=nan, phrases=(phrase,), answers=(Answer("?", "", inf),))])
    (found,) = log.get([number])
    assert (found.score, found.answers[0].score) == (0, 0)
    assert found.phrases[0].boxes == (Box(0, 0, 0, 1, 0, 1, (0, 0, 1)),)


def test_a_pose_that_is_not_finite_is_left_out(log):
    (number,) = log.add([seen(1, pose=Pose("map", float("nan"), 0))])
    assert log.get([number])[0].pose is None


# Words and places ---------------------------------------------------------------------------


def test_words_of_captions_phrases_and_answers_are_found_by_their_stem(log):
    (number,) = log.add([FULL])
    for stem in ("red", "circl", "circl_red", "cup", "blue_squar"):
        assert matching(log, stem) == [number]
    assert matching(log, "yellow") == []
    assert log.words() == {"red", "circl", "cup", "blue", "squar"}


def test_words_of_different_chunks_are_no_pair(log):
    log.add([seen(caption="An image of a red chair and a blue cup.")])
    assert matching(log, "red", "cup") != []
    assert matching(log, "cup_red") == []


def test_a_phrase_that_is_not_in_view_is_not_found(log):
    log.add([seen(phrases=(Phrase("a cup", 0, 0),))])
    assert matching(log, "cup") == []


def test_camera_place_and_words_are_one_query_in_the_order_of_time(log):
    poses = [Pose("map", x, -20.5) for x in (0.5, 3.5, -900.0)]
    for stamp, (camera, pose) in enumerate(itertools.product(("a", "b"), [*poses, None])):
        log.add([seen(stamp, pose=pose, camera=camera)])
    camera = camera_token(log.cameras()["b"])
    cells = " OR ".join(f'"{cell}"' for cell in cells_near(1.0, -20.0, 4.0))
    query = f'circl_red AND "{camera}" AND ({cells})'
    assert log.search(query) == [5, 4]
    assert log.search(query, last=4) == [4]
    assert log.search(query, first=5) == [5]
    assert log.search(query, limit=1) == [5]
    assert log.search("", first=3, last=6, limit=3) == [6, 5, 4]


def test_no_word_is_a_camera_or_a_cell(log):
    log.add([seen(caption=" ".join(["camera:1 p:0:0 camera1"]), pose=Pose("map", 500, 500))])
    assert len(matching(log, camera_token(1))) == 1
    assert matching(log, "p:0:0") == []


def test_the_tokens_of_a_text_are_those_of_older_logs():
    """A deletion repeats the tokens of its observation: other ones need a new VERSION."""
    text = "An image of two cats' toys, a well-lit café and 3 boxes with no lid."
    assert sorted(tokens([text])) == [
        "3", "3_box", "box", "cafe", "cafe_lit", "cafe_well", "cat", "cat_toi", "cat_two", "lit",
        "lit_well", "toi", "toi_two", "two", "well",
    ]  # fmt: skip


@given(
    st.floats(-1000, 1000), st.floats(-1000, 1000), st.floats(0, 500), st.floats(0, 1),
    st.floats(0, 6.2832),
)  # fmt: skip
@pytest.mark.slow
def test_the_cells_of_a_circle_contain_every_pose_in_it(x, y, radius, share, angle):
    cells = cells_near(x, y, radius)
    assert len(cells) <= MAX_CELLS
    r = radius * share * 0.999
    pose = Pose("map", x + r * math.cos(angle), y + r * math.sin(angle))
    if cells:
        assert set(cell_tokens(pose)) & set(cells)
    else:
        assert radius > 2 * max(CELL_SIZES.values())


# Limits -------------------------------------------------------------------------------------


def fill(log, start, count, **fields):
    log.add(
        [
            seen(n * SECOND, f"frame {n} of a circle", **fields)
            for n in range(start, start + count)
        ],
        [Event(n * SECOND, "", "appeared", "a circle") for n in range(start, start + count)],
    )


def test_the_oldest_observations_are_deleted_by_age(log):
    fill(log, 0, 250, thumbnail=b"x", pose=Pose("map", 1, 2))
    assert log.prune(0, 50.0, 250 * SECOND) == 200
    kept = {n * SECOND for n in range(200, 250)}
    assert {o.id for o in log.get(range(0, 250 * SECOND, SECOND))} == kept
    assert event_stamps(log) == kept
    assert count(log, "thumbnail") == 50
    ids, terms = indexed(log)
    assert ids == kept
    words = {"frame", "circl", "camera:1", "p:1:2", "q:0:0", "r:0:0"}
    assert terms == words | {
        form for n in range(200, 250) for form in (f"{n}", f"{n}_frame", f"{n}_circl")
    }


def test_without_limits_nothing_is_deleted(log):
    fill(log, 0, 10)
    assert log.prune(0, 0.0, 10**6 * SECOND) == 0
    assert count(log) == 10


def test_the_file_stays_within_its_size_and_keeps_the_newest(path, log):
    most = RESERVE + 2_000_000
    for start in range(0, 2000, 20):
        fill(log, start, 20, thumbnail=os.urandom(5000))
        log.prune(most, 0.0, 0)
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        assert size <= most
    assert 200 < count(log) < 500
    kept = {n * SECOND for n in range(2000 - count(log), 2000)}
    ids, _ = indexed(log)
    assert ids == kept
    assert event_stamps(log) == kept


def test_a_lower_limit_makes_the_file_smaller(path, log):
    fill(log, 0, 1000, thumbnail=os.urandom(10_000))
    assert path.stat().st_size > 8_000_000
    assert log.prune(RESERVE + 1_000_000, 0.0, 0) >= 900
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < RESERVE + 1_000_000


def test_after_the_clock_went_back_the_frames_that_were_written_first_are_deleted(log):
    """The new frames have the lowest stamps, and are not the ones to delete."""
    most = RESERVE + 2_000_000
    for start in range(100_000, 100_200, 20):
        fill(log, start, 20, thumbnail=os.urandom(5000))
    for start in range(0, 1000, 20):
        fill(log, start, 20, thumbnail=os.urandom(5000))
        log.prune(most, 0.0, start * SECOND)
    stamps = {each // SECOND for each in log.search("", limit=2000)}
    assert stamps == set(range(1000 - len(stamps), 1000))
    assert 200 < len(stamps) < 500
    assert event_stamps(log) == {each * SECOND for each in stamps}


def test_a_long_reader_stops_what_is_added_at_the_limit_of_the_size(path, log):
    most = RESERVE + 2_000_000

    def size():
        return sum(file.stat().st_size for file in path.parent.glob("memory.db*[bl]"))

    fill(log, 0, 300, thumbnail=os.urandom(5000))
    with ObservationLog.read(path) as reader:
        reader.connection.execute("BEGIN")
        reader.search("")
        with pytest.raises(LogError, match=r"memory\.db-wal' has .* keeps a read transaction"):
            for start in range(300, 3000, 20):
                log.check_room(most)
                fill(log, start, 20, thumbnail=os.urandom(5000))
                log.prune(most, 0.0, 0)
                assert size() <= most
    log.check_room(most)
    assert size() < most - WAL_ROOM
    fill(log, 5000, 1)


def test_two_writers_add_the_same_records_once(path, monkeypatch):
    monkeypatch.setattr("kosmos_ros.memory.database.LOCK_TIMEOUT", 60.0)
    seen = [dataclasses.replace(FULL, stamp=stamp) for stamp in (0, 0, 1, 2, 3)]
    events = [Event(stamp, FULL.camera, "appeared", "a red circle") for stamp in (0, 1)]
    ObservationLog.open(path).close()
    start = threading.Barrier(4, timeout=60.0)

    def write():
        with ObservationLog.open(path) as log:
            start.wait()
            log.add_missing(lambda: iter(seen), iter(events))

    with ThreadPoolExecutor(4) as writers:
        for done in [writers.submit(write) for _ in range(4)]:
            done.result()
    with ObservationLog.read(path) as log:
        assert [each.stamp for each in log.get(log.search(""))] == [3, 2, 1, 0, 0]
        assert count(log, "event") == len(events)


def test_a_frame_with_other_answers_or_phrases_is_another_one_and_has_events(path):
    more = [
        FULL,
        dataclasses.replace(FULL, answers=()),
        dataclasses.replace(FULL, phrases=()),
        dataclasses.replace(FULL, phrases=(*FULL.phrases, *FULL.phrases)),
    ]
    with ObservationLog.open(path) as log:
        for number, each in enumerate(more):
            event = Event(FULL.stamp, FULL.camera, "appeared", f"circle {number}")
            for subject in ("", " again"):  # of a frame that the log has
                later = dataclasses.replace(event, subject=event.subject + subject)
                log.add_missing(lambda each=each: iter([each]), iter([later]))
        assert count(log, "observation") == len(more)
        found = log.connection.execute("SELECT subject FROM event ORDER BY id").fetchall()
        assert found == [(f"circle {number}",) for number in range(len(more))]


def test_a_log_of_version_1_goes_on_and_its_oldest_frames_are_deleted_first(path):
    with ObservationLog.open(path) as log:
        fill(log, 100, 260, thumbnail=os.urandom(10_000))
        for statement in (
            "DROP INDEX written",
            "ALTER TABLE observation DROP COLUMN written",
            "PRAGMA user_version = 1",
        ):
            log.connection.execute(statement)
    with ObservationLog.read(path) as reader:
        assert len(reader.search("circl", limit=1000)) == 260
    with ObservationLog.open(path) as log:
        fill(log, 0, 10)
        log.prune(RESERVE + 1_000_000, 0.0, 0)
        stamps = {each // SECOND for each in log.search("", limit=1000)}
        assert set(range(10)) <= stamps
        assert stamps - set(range(10)) == set(range(370 - len(stamps), 360))
        assert 10 < len(stamps) < 200
        assert pragma(log.connection, "user_version") == OLD_RULES


def test_a_log_of_version_2_keeps_its_rules(path):
    caption = "a trash can and a bottle of water"
    with ObservationLog.open(path) as log:
        log.add([seen(1, caption)])
        assert indexed(log)[1] > {"can", "can_trash", "bottl_water"}
        log.prune(0, 1.0, 10 * SECOND)
        log.connection.execute(f"PRAGMA user_version = {OLD_RULES}")
    with ObservationLog.open(path) as log:
        log.add([seen(2, caption), seen(3 * SECOND, "a table")])
        assert indexed(log)[1] == {"trash", "bottl", "water", "tabl", "camera:1"}
        assert pragma(log.connection, "user_version") == OLD_RULES
        log.prune(0, 1.0, 3 * SECOND)  # with the tokens that were added
        assert indexed(log) == ({3 * SECOND}, {"tabl", "camera:1"})


# Files --------------------------------------------------------------------------------------


def test_a_file_that_is_no_log_is_refused_and_kept(path):
    path.write_bytes(b"important text, and more of it than a header has" * 100)
    before = path.read_bytes()
    for attempt in (ObservationLog.open, ObservationLog.read):
        with pytest.raises(
            ConfigError, match=r"memory\.db' is not an SQLite database, expected an obs"
        ):
            attempt(path)
    assert path.read_bytes() == before


def test_a_damaged_log_is_named_with_the_remedy(path):
    with ObservationLog.open(path) as log:
        log.add([FULL])
    content = bytearray(path.read_bytes())
    content[100:4096] = bytes(3996)  # of the first page, which has the schema
    path.write_bytes(content)
    for attempt in (ObservationLog.open, ObservationLog.read):
        with pytest.raises(ConfigError, match=r"memory\.db' is damaged: .*; move it away to"):
            attempt(path)
    assert path.read_bytes() == content


def test_another_database_is_refused_and_kept(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE observation (id)")
    for attempt in (ObservationLog.open, ObservationLog.read):
        with pytest.raises(ConfigError, match=r"memory\.db' is another SQLite database"):
            attempt(path)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_another_database_is_not_completed_with_its_wal_file(path):
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE observation (id)")
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    files = copy.read_bytes(), Path(f"{copy}-wal").read_bytes()
    with pytest.raises(ConfigError, match=r"copy\.db' is another SQLite database"):
        ObservationLog.read(copy)
    assert (copy.read_bytes(), Path(f"{copy}-wal").read_bytes()) == files


@pytest.mark.parametrize("version", [VERSION + 1, 0, -1])
def test_a_log_of_a_newer_or_no_version_is_refused(path, version):
    with ObservationLog.open(path) as log:
        log.connection.execute(f"PRAGMA user_version = {version}")
    for attempt in (ObservationLog.open, ObservationLog.read):
        with pytest.raises(
            ConfigError, match=rf"has version {version} of .*, expected 1 to 3; update"
        ):
            attempt(path)


def test_an_empty_file_becomes_a_log(path):
    path.touch()
    with pytest.raises(ConfigError, match="is empty, expected an observation log"):
        ObservationLog.read(path)
    with ObservationLog.open(path) as log:
        assert log.add([seen(3)]) == [3]


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no observation log '.*none\.db'"):
        ObservationLog.read(tmp_path / "none.db")
    with pytest.raises(ConfigError, match=r"created: create its folder '.*nowhere' first"):
        ObservationLog.open(tmp_path / "nowhere" / "memory.db")
    with pytest.raises(ConfigError, match="is a folder"):
        ObservationLog.open(tmp_path)


def test_a_read_only_folder_is_named(tmp_path, path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(ConfigError, match="is not writable; change its permissions"):
        ObservationLog.open(path)


@pytest.mark.parametrize("attempt", [ObservationLog.open, ObservationLog.read])
def test_a_folder_that_may_not_be_entered_is_named(path, monkeypatch, attempt):
    def stat(place, **_):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "exists", lambda place: stat(place))
    with pytest.raises(
        ConfigError, match=r"memory\.db': Permission denied; change the permissions"
    ):
        attempt(path)


def test_a_log_in_a_read_only_folder_can_be_read(path, monkeypatch):
    with ObservationLog.open(path) as log:
        log.add([seen(1)])
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with ObservationLog.read(path) as reader:
        assert reader.get([1])[0].caption == "a red circle"
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]


@pytest.mark.parametrize("allowed", [(), ("folder",), ("file",), ("folder", "file")])
def test_a_reader_leaves_no_files_whatever_it_may_write(path, monkeypatch, allowed):
    with ObservationLog.open(path) as log:
        log.add([seen(1)])
    may = {path.parent: "folder" in allowed, path: "file" in allowed}
    uris, connect = [], sqlite3.connect
    monkeypatch.setattr(os, "access", lambda place, mode: may[place])
    monkeypatch.setattr(
        sqlite3, "connect", lambda name, **more: uris.append(name) or connect(name, **more)
    )
    with ObservationLog.read(path) as reader:
        assert reader.get([1])[0].caption == "a red circle"
    assert [*path.parent.iterdir()] == [path]
    mode = "mode=rw" if len(allowed) == 2 else "mode=ro&immutable=1"
    assert [uri.partition("?")[2] for uri in uris] == [mode]


def test_what_a_killed_process_wrote_is_read_and_completed(path, log):
    log.add([seen(1)])
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.add([seen(2)])
    copy = path.with_name("copy.db")  # as after a kill -9: with a -wal file, and not open
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    with ObservationLog.read(copy) as reader:
        assert reader.search("") == [2, 1]
    assert sorted(path.parent.glob("copy.db*")) == [copy]
    with ObservationLog.read(copy) as reader:
        assert reader.search("") == [2, 1]


def test_what_another_user_writes_in_a_read_only_folder_is_seen(path, log, monkeypatch):
    log.add([seen(1)])
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with ObservationLog.read(path) as reader:
        log.add([seen(2)])
        assert reader.search("") == [2, 1]


def test_a_name_with_characters_of_a_url_is_a_name(tmp_path):
    path = tmp_path / "a?mode=ro#%41 b.db"
    with ObservationLog.open(path) as log:
        log.add([seen(1)])
    assert path.is_file()
    with ObservationLog.read(path) as reader:
        assert count(reader) == 1


def test_a_locked_log_is_named(path, log, monkeypatch):
    monkeypatch.setattr("kosmos_ros.memory.database.LOCK_TIMEOUT", 0.01)
    with ObservationLog.open(path) as second:
        log.connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogError, match=r"memory\.db': database is locked"):
            second.add([seen(1)])
        log.connection.execute("ROLLBACK")
        assert second.add([seen(1)]) == [1]


def test_two_programs_can_make_a_log_at_the_same_time(path, monkeypatch):
    """SQLite itself does not wait for this lock, to avoid a deadlock."""
    ObservationLog.open(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE").fetchall()
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("time.sleep", lambda _: other.execute("ROLLBACK"))
        with ObservationLog.open(path) as log:
            assert log.connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_several_writers_share_a_log(path, monkeypatch):
    """Both make the file, and both use the same names of cameras."""
    monkeypatch.setattr("kosmos_ros.memory.database.LOCK_TIMEOUT", 60.0)

    def write(start):
        with ObservationLog.open(path) as log:
            for n in range(20):
                log.add([seen(start, f"{start} {n}", camera="both")])

    threads = [threading.Thread(target=write, args=(0,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ObservationLog.read(path) as log:
        assert count(log) == 40
        assert log.cameras() == {"both": 1}
        assert [o.id for o in log.get(range(40))] == list(range(40))


@given(st.data())
@settings(max_examples=200)
@pytest.mark.slow
def test_a_damaged_file_gives_a_log_error_and_nothing_else(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db"
        with ObservationLog.open(path) as log:
            log.add([dataclasses.replace(FULL, stamp=n) for n in range(20)])
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 30))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        with contextlib.suppress(LogError, ConfigError), ObservationLog.read(path) as log:
            for number in log.search("", limit=30):
                with contextlib.suppress(LogError):
                    log.get([number])
            log.search("red")
        with contextlib.suppress(LogError, ConfigError), ObservationLog.open(path) as log:
            log.add([dataclasses.replace(FULL, stamp=100)])
            log.prune(0, 1.0, 10 * SECOND)


def test_damaged_contents_are_named(log):
    log.add([FULL])
    log.connection.execute("UPDATE observation SET phrases = '[{}]'")
    with pytest.raises(LogError, match=rf"memory\.db': observation {FULL.stamp} is damaged: "):
        log.get([FULL.stamp])
    log.connection.execute("UPDATE observation SET phrases = 'no json', score = 'none'")
    assert log.prune(0, 1.0, FULL.stamp + 2 * SECOND) == 1
    assert count(log) == 0
    assert log.search("red") == [FULL.stamp]
    assert log.get([FULL.stamp]) == []


@pytest.mark.parametrize(
    "damage",
    [
        "observation SET caption = x'00ff'",
        "observation SET score = 'high'",
        "observation SET score = 9e999",  # infinite
        "observation SET width = 'wide'",
        "observation SET y = -9e999",
        """observation SET phrases = replace(phrases, '30.5', 'Infinity')""",
        """observation SET phrases = replace(phrases, '30.5', '1' || hex(zeroblob(200)))""",
        "observation SET x = NULL",
        "observation SET raw_text = 7.5, caption = x'41'",
        """observation SET phrases = '[{"text": 7, "start": 0, "end": 1, "boxes": []}]'""",
        """observation SET phrases = '[{"text": "", "start": 0, "end": 1, "boxes": ["abcde"]}]'""",
        """observation SET answers = '[{"question": [], "text": "", "score": 0}]'""",
        "camera SET name = x'41'",
        "model SET settings = x'41'",
    ],
)
def test_values_of_another_type_are_named_when_they_are_read(path, log, damage):
    log.add([FULL])
    log.connection.execute(f"UPDATE {damage}")
    named = pytest.raises(LogError, match=rf"observation {FULL.stamp} is damaged: ")
    with ObservationLog.read(path) as reader, named:
        reader.get([FULL.stamp])


def test_the_centres_of_boxes_can_be_read_alone(log):
    plain = dataclasses.replace(FULL, stamp=FULL.stamp + 1, phrases=(), answers=())
    first, second = log.add([FULL, plain])
    (observation,) = log.get([first])
    assert observation.shown
    assert log.centres([second, 7, first]) == {
        first: (
            FULL.width,
            FULL.height,
            [
                (phrase.text, (box.x_min + box.x_max) / 2.0, (box.y_min + box.y_max) / 2.0)
                for phrase in observation.shown
                for box in phrase.boxes
            ],
        ),
        second: (FULL.width, FULL.height, []),
    }


@pytest.mark.parametrize(
    "phrases",
    [
        "[{}]",
        '[{"text": "a", "boxes": [[0, 0, 1]]}]',
        '[{"text": 1, "boxes": [[0, 0, 1, 1, 1]]}]',
        '[{"text": "a", "boxes": [["", 0, "", 1, 1]]}]',
        '[{"text": "a", "boxes": [[0, 0, NaN, 1, 1]]}]',
    ],
)
def test_damaged_phrases_are_named_when_their_centres_are_read(log, phrases):
    log.add([FULL])
    log.connection.execute("UPDATE observation SET phrases = ?", (phrases,))
    with pytest.raises(LogError, match=rf"observation {FULL.stamp} is damaged: "):
        log.centres([FULL.stamp])


def test_json_columns_can_be_queried_by_sql(log):
    log.add([FULL])
    sql = (
        "SELECT value->>'text' FROM observation, json_each(phrases)"
        if sqlite3.sqlite_version_info >= (3, 38)
        else "SELECT json_extract(value, '$.text') FROM observation, json_each(phrases)"
    )
    assert [row[0] for row in log.connection.execute(sql)] == ["a red circle", "a cup"]
    (text,) = log.connection.execute("SELECT phrases FROM observation").fetchone()
    assert json.loads(text)[1]["boxes"] == [[0, 0, 10, 10, 0.5, 7, [1.5, -2.0, 0.25]]]


@pytest.mark.parametrize("circle", [(0.0, 0.0, 1e300), (1e300, -1e300, 1.0), (0.0, 0.0, 1e5)])
def test_a_huge_circle_has_no_cells(circle):
    assert cells_near(*circle) == []


def test_a_log_has_a_frame_among_many_of_its_stamp_and_not_another_result_of_it(tmp_path):
    frames = [Observation(0, "front", f"a cup number {number}.") for number in range(150)]
    with ObservationLog.open(tmp_path / "memory.db") as log:
        log.add(frames)
        assert all(log.has(each) for each in frames)
        assert not log.has(Observation(0, "front", "a cup number 150."))


@pytest.mark.parametrize(
    "damage",
    [
        "caption = x'00ff'",
        """phrases = '[{"text": 7, "start": 0, "end": 1, "boxes": [[0,0,1,1,1]]}]'""",
    ],
)
def test_a_row_whose_words_cannot_be_read_can_be_deleted(log, damage):
    log.add([FULL, seen(FULL.stamp + SECOND, "a blue cup")])
    log.connection.execute(f"UPDATE observation SET {damage} WHERE id = {FULL.stamp}")
    assert log.prune(0, 1.0, FULL.stamp + 2 * SECOND) == 1
    assert log.search("") == [FULL.stamp + SECOND]


def test_a_camera_whose_first_frame_was_rolled_back_leaves_no_name(log):
    def failing():
        yield seen(1, camera="front")
        raise sqlite3.OperationalError("disk full")

    with pytest.raises(LogError):
        log.add(failing())
    log.add([seen(2, camera="rear")])
    assert [each.camera for each in log.get(log.search(""))] == ["rear"]
    assert log.search(f'"camera:{log.cameras()["rear"]}"') == [2]
