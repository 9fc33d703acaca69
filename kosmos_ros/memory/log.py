# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""An observation log: one SQLite file with what cameras have shown. See docs/memory.md.

Knows records and SQL; no thread, no image and no query language. A program may write the file
while others read it. The id of an observation is its stamp in ns, or the next free number after
it, so the order of ids is the order of time.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory.database import (
    OLD_RULES,
    RESERVE,
    beside,
    check_reachable,
    check_writable,
    is_log,
    is_marked,
    opened,
    pragma,
    prepare,
    size_of,
    transaction,
    translated,
    understood,
)
from kosmos_ros.memory.places import cell_tokens
from kosmos_ros.memory.record_json import (
    SCORE_DIGITS,
    Centre,
    answers_from_json,
    answers_to_json,
    centres_from_json,
    finite,
    phrases_from_json,
    phrases_to_json,
    rounded,
    text_of,
)
from kosmos_ros.memory.records import Event, Observation, Pose
from kosmos_ros.memory.words import tokens
from kosmos_ros.sanitize import quoted

PRUNE_ROWS = 100  # observations that are deleted in one transaction
PRUNE_STEPS = 20  # transactions of one `prune`; the next one continues
VACUUM_PAGES = 2000  # free pages that are cut off at a time, if the file is too large
WAL_ROOM = RESERVE // 2  # bytes of the -wal file, beyond which nothing more may be added

MIN_ID, MAX_ID = -(2**63), 2**63 - 1  # of SQLite's integers
SAME_STAMP = 100_000  # frames that may have the same stamp; their ids are the numbers from it on

_COLUMNS = (
    "id, stamp, camera, frame_id, width, height, model, task, caption, raw_text, score, "
    "phrases, answers, pose_frame, x, y, z, qx, qy, qz, qw"
)
_DELETIONS = (
    "DELETE FROM event WHERE id IN (SELECT event.id FROM observation AS o JOIN event "
    "ON event.id BETWEEN o.stamp AND o.stamp + :same AND event.stamp = o.stamp "
    "AND event.camera = o.camera WHERE o.id = :id)",
    "DELETE FROM thumbnail WHERE id = :id",
    "DELETE FROM observation WHERE id = :id",
)
_NEXT = "(SELECT ifnull(max(written), 0) + 1 FROM observation)"


class ObservationLog:
    """An open observation log. Only the thread that opened it may use it.

    `ObservationLog.open` makes one for writing, `ObservationLog.read` one for reading.
    `connection` is the SQLite connection, for queries. All methods that raise LogError raise
    ConfigError if the file is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path
        # Whether texts are cut by the old rules: see words.parse.
        self.old = pragma(connection, "user_version") <= OLD_RULES
        self._cameras: dict[int, str] = {}
        self._models: dict[int, tuple[str, str]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ObservationLog:
        """Open a log for writing. Make it if the file does not exist or is empty.

        Raises ConfigError if the file can never be used: it has other contents or is damaged, a
        newer version wrote it, or its folder is missing or not writable. Raises LogError for a
        fault that may pass: the file is locked or the disk is full.
        """
        path = Path(path)
        check_writable(path)
        with opened(path, path.resolve().as_uri()) as connection:
            prepare(connection, path)
        return cls(connection, path)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ObservationLog:
        """Open a log for reading. Another process may write it meanwhile.

        If a process that wrote it was killed, SQLite completes the file with the -wal file.
        Raises ConfigError if there is no such file, it is no log or it is damaged, and LogError if
        it cannot be read now.
        """
        path = Path(path)
        check_reachable(path)
        if not path.is_file():
            raise ConfigError(f"there is no observation log {quoted(str(path), 200)}")
        # SQLite leaves its -wal and -shm files if the connection may not write. Those of this
        # user would then stop another user's node.
        writable = all(os.access(each, os.W_OK) for each in (path, path.resolve().parent))
        mode = "rw" if writable and is_marked(path) else "ro"
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        written = size_of(beside(path, "-wal")) or beside(path, "-shm").exists()
        if mode == "ro" and not written:
            uri += "&immutable=1"  # makes no such files, and needs none
        with opened(path, uri) as connection:
            connection.execute("PRAGMA query_only = ON")
            if not is_log(connection, path):
                raise ConfigError(
                    f"{quoted(str(path), 200)} is empty, expected an observation log"
                )
        return cls(connection, path)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> ObservationLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Writing -------------------------------------------------------------------------------

    def add(self, observations: Iterable[Observation], events: Iterable[Event] = ()) -> list[int]:
        """Add records in one transaction. Return the ids of the observations.

        Pixels are kept to 0.01, scores to 0.0001 and positions of boxes to 1 mm; those that are
        not finite become 0. A pose that is not finite is left out. Raises LogError; then nothing
        was added.
        """
        with self._transaction():
            ids = [self._add(observation) for observation in observations]
            for event in events:
                self._add_event(event)
        return ids

    def add_missing(
        self, observations: Callable[[], Iterable[Observation]], events: Iterable[Event]
    ) -> None:
        """Add the records that the log lacks, in one transaction. Raises LogError.

        `observations` is called twice and must return the same ones. Equal ones among them are all
        added, because frames of a bag whose stamps are 0 may be equal. An event is added only with
        the frame that confirmed it: the events of other frames of the same video would contradict
        those that the log has.
        """
        with self._transaction():  # around the look, too: no other process adds in between
            known = [self.has(each) for each in observations()]
            new = [event for event in events if not self.has_event(event)]
            added = set()
            for each, has in zip(observations(), known, strict=True):
                if not has:
                    self._add(each)
                    added.add((each.camera, each.stamp))
            for event in new:
                if (event.camera, event.stamp) in added:
                    self._add_event(event)

    def prune(self, max_bytes: int, max_age: float, now: int) -> int:
        """Delete observations beyond the limits. Return how many were deleted.

        `max_bytes` limits the size of the file, with its -wal file; those that were written first
        are deleted first. `max_age` is the largest age in s at the time `now` in ns. 0: no limit.
        An observation is deleted with its thumbnail and its events. One call deletes at most
        PRUNE_STEPS * PRUNE_ROWS of them. Raises LogError.
        """
        deleted = 0
        oldest = now - round(max_age * 1e9) if max_age else None
        for _ in range(PRUNE_STEPS):
            if not (ids := self._superfluous(max_bytes, oldest)):
                break
            with self._transaction():
                self._delete(ids)
            deleted += len(ids)
        if oldest is not None:
            with self._transaction():
                self.connection.execute("DELETE FROM event WHERE id < ?", (oldest,))
        if max_bytes and self.file_bytes > max_bytes - RESERVE:  # the limit was lowered
            with translated(self.path):  # `execute` stops after the first page
                self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        return deleted

    def check_room(self, max_bytes: int) -> None:
        """Raise LogError if the -wal file leaves no room for more within a limit of the size.

        SQLite can only empty it while no other program is in the middle of reading the log.
        """
        room = max(max_bytes - self.file_bytes - WAL_ROOM, WAL_ROOM)
        wal = beside(self.path, "-wal")
        if not max_bytes or size_of(wal) <= room:
            return
        with translated(self.path):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if (size := size_of(wal)) > room:
            raise LogError(
                f"{quoted(str(wal), 200)} has {size / 1e6:.1f} MB and cannot be emptied, because "
                "another program keeps a read transaction open; end that transaction"
            )

    @property
    def used_bytes(self) -> int:
        """Bytes of the file that contain data. The file grows only if all contain data."""
        with translated(self.path):
            pages = pragma(self.connection, "page_count")
            free = pragma(self.connection, "freelist_count")
            return (pages - free) * pragma(self.connection, "page_size")

    @property
    def file_bytes(self) -> int:
        """Size of the file in bytes, without its -wal file."""
        with translated(self.path):
            pages = pragma(self.connection, "page_count")
            return pages * pragma(self.connection, "page_size")

    def _superfluous(self, max_bytes: int, oldest: int | None) -> list[int]:
        """Return the ids of some observations that are beyond a limit."""
        if max_bytes and self.used_bytes > max(max_bytes - RESERVE, 0):
            # Stamps do not tell what is new: the clock may have gone back.
            first = "SELECT id FROM observation ORDER BY written, id LIMIT ?"
            return self._ids(first, PRUNE_ROWS)
        if oldest is not None:
            first = "SELECT id FROM observation WHERE id < ? ORDER BY id LIMIT ?"
            return self._ids(first, oldest, PRUNE_ROWS)
        return []

    def _delete(self, ids: Sequence[int]) -> None:
        """Delete the observations with these ids, their thumbnails and their events."""
        for number in ids:
            # The words of a damaged row are unknown and stay in the index. Searches still work:
            # `get` skips ids that no longer exist.
            with contextlib.suppress(LogError):
                for observation in self.get([number], thumbnails=False):
                    with understood(self.path, f"observation {number}"):
                        self._index(observation, delete=True)
            for statement in _DELETIONS:
                self.connection.execute(statement, {"id": number, "same": SAME_STAMP})

    def _add(self, observation: Observation) -> int:
        number = self._free_id("observation", observation.stamp)
        pose = _pose_to_row(observation.pose)
        row = (
            number,
            observation.stamp,
            self._number("camera", "name", observation.camera),
            observation.frame_id,
            observation.width,
            observation.height,
            self._number("model", "name, settings", observation.model, observation.settings),
            observation.task,
            observation.caption,
            observation.raw_text,
            rounded(observation.score, SCORE_DIGITS),
            phrases_to_json(observation.phrases),
            answers_to_json(observation.answers),
            *pose,
        )
        sql = f"INSERT INTO observation ({_COLUMNS}, written) VALUES ({_marks(row)}, {_NEXT})"
        self._insert(sql, row)
        if observation.thumbnail:
            self._insert("INSERT INTO thumbnail VALUES (?, ?)", (number, observation.thumbnail))
        (stored,) = self.get([number], thumbnails=False)  # deletion must see the same texts
        self._index(stored)
        return number

    def _index(self, observation: Observation, delete: bool = False) -> None:
        """Add an observation to the full-text index, or delete it there."""
        said = tokens((text for text, _ in observation.said), self.old)
        camera = self._number("camera", "name", observation.camera)
        text = " ".join([*sorted(said), camera_token(camera), *cell_tokens(observation.pose)])
        if delete:
            sql = "INSERT INTO search (search, rowid, tokens) VALUES ('delete', ?, ?)"
        else:
            sql = "INSERT INTO search (rowid, tokens) VALUES (?, ?)"
            words = [(token,) for token in said if "_" not in token]
            self.connection.executemany("INSERT OR IGNORE INTO word VALUES (?)", words)
        self.connection.execute(sql, (observation.id, text))

    def _add_event(self, event: Event) -> None:
        row = (
            self._free_id("event", event.stamp),
            event.stamp,
            self._number("camera", "name", event.camera),
            event.kind,
            event.subject,
            event.answer,
            event.previous,
            event.since,
            phrases_to_json(event.phrases),
        )
        self._insert("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _insert(self, sql: str, row: Sequence[Any]) -> None:
        self.connection.execute(sql, [_encodable(value) for value in row])

    def _free_id(self, table: str, stamp: int) -> int:
        """Return `stamp`, or a free id after it; the next one if no other stamp is near.

        Takes few steps even if a camera always sends the same stamp.
        """
        if not self._taken(table, stamp):
            return stamp
        step = 1
        while self._taken(table, stamp + step):
            step *= 2
        taken, free = stamp + step // 2, stamp + step
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if self._taken(table, middle) else (taken, middle)
        return free

    def _taken(self, table: str, number: int) -> bool:
        return bool(self._ids(f"SELECT id FROM {table} WHERE id = ?", number))

    def _number(self, table: str, columns: str, *values: str) -> int:
        """Return the id of a row of a small table. Add the row if there is none."""
        texts = [_encodable(value) for value in values]
        marks = ", ".join("?" * len(texts))
        found = f"SELECT id FROM {table} WHERE ({columns}) = ({marks})"
        if not (ids := self._ids(found, *texts)):
            self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", texts)
            ids = self._ids(found, *texts)
        return ids[0]

    # Reading -------------------------------------------------------------------------------

    def get(self, ids: Sequence[int], thumbnails: bool = True) -> list[Observation]:
        """Return the observations with these ids, in this order; those that exist.

        If `thumbnails` is false, their thumbnails are None. Raises LogError.
        """
        found = {}
        with translated(self.path):
            for some in _groups(ids):
                where = f"id IN ({_marks(some)})"
                images = f"SELECT id, webp FROM thumbnail WHERE {where}"
                webp = dict(self.connection.execute(images, some)) if thumbnails else {}
                rows = f"SELECT {_COLUMNS} FROM observation WHERE {where}"
                for row in self.connection.execute(rows, some):
                    with understood(self.path, f"observation {row[0]}"):
                        found[row[0]] = self._observation(row, webp.get(row[0]))
        return [found[number] for number in ids if number in found]

    def centres(self, ids: Sequence[int]) -> dict[int, tuple[int, int, list[Centre]]]:
        """Return the width, the height and the centres of the boxes of these observations.

        Raises LogError.
        """
        found = {}
        with translated(self.path):
            for some in _groups(ids):
                rows = (
                    "SELECT id, width, height, phrases, answers FROM observation WHERE id IN "
                    f"({_marks(some)})"
                )
                for number, width, height, *texts in self.connection.execute(rows, some):
                    with understood(self.path, f"observation {number}"):
                        found[number] = int(width), int(height), centres_from_json(*texts)
        return found

    def has(self, observation: Observation) -> bool:
        """Return whether the log has this frame of this camera with the same result and model."""
        sql = (
            "SELECT observation.id FROM observation JOIN camera ON camera.id = camera "
            "JOIN model ON model.id = model WHERE observation.id BETWEEN ? AND ? AND stamp = ? "
            "AND (camera.name, task, model.name, settings, caption, raw_text) = "
            "(?, ?, ?, ?, ?, ?) AND phrases IS ? AND answers IS ? LIMIT 1"
        )
        one = observation
        texts = (one.camera, one.task, one.model, one.settings, one.caption, one.raw_text)
        ids = (one.stamp, min(one.stamp + SAME_STAMP, MAX_ID), one.stamp)
        found = phrases_to_json(one.phrases), answers_to_json(one.answers)
        with translated(self.path):
            return bool(self._ids(sql, *ids, *map(_encodable, texts), *found))

    def has_event(self, event: Event) -> bool:
        """Return whether the log has this event of this camera."""
        sql = (
            "SELECT event.id FROM event JOIN camera ON camera.id = camera "
            "WHERE event.id BETWEEN ? AND ? AND stamp = ? "
            "AND (camera.name, kind, subject, answer, previous, since) = (?, ?, ?, ?, ?, ?) "
            "LIMIT 1"
        )
        texts = (event.camera, event.kind, event.subject, event.answer, event.previous)
        ids = (event.stamp, min(event.stamp + SAME_STAMP, MAX_ID), event.stamp)
        with translated(self.path):
            return bool(self._ids(sql, *ids, *map(_encodable, texts), event.since))

    def events(self, observations: Sequence[Observation]) -> list[list[Event]]:
        """Return the events that each observation confirmed: those of its camera and stamp.

        Observations with the same camera and stamp have the same events. Raises LogError.
        """
        stamps = [each.stamp for each in observations]
        first, last = min(stamps, default=0), max(stamps, default=0)
        sql = (
            "SELECT id, stamp, camera, kind, subject, answer, previous, since, phrases FROM event "
            "WHERE id BETWEEN ? AND ? AND stamp BETWEEN ? AND ? ORDER BY id"
        )
        values = (first, min(last + SAME_STAMP, MAX_ID), first, last)
        found: dict[tuple[str, int], list[Event]] = {}
        with translated(self.path):
            for number, *row in self.connection.execute(sql, values):
                with understood(self.path, f"event {number}"):
                    event = self._event(row)
                found.setdefault((event.camera, event.stamp), []).append(event)
        return [found.get((each.camera, each.stamp), []) for each in observations]

    def search(
        self,
        match: str,
        first: int | None = None,
        last: int | None = None,
        limit: int = 100,
        around: tuple[float, float, float] | None = None,
        oldest: bool = False,
    ) -> list[int]:
        """Return the ids of the newest observations that a query of the index matches.

        `match` is in FTS5's query language; empty: all observations. `first` and `last` limit the
        ids; None: no limit. `around` has x, y and half the side of a square in m that contains the
        pose; None: anywhere. The newest id comes first; if `oldest`, the oldest ones are returned,
        the oldest first. Raises LogError.
        """
        table, column, where = "observation", "id", ""
        limits = (MIN_ID if first is None else first, MAX_ID if last is None else last)
        values: list[Any] = [min(max(each, MIN_ID), MAX_ID) for each in limits]
        if match:
            table, column, where = "search", "rowid", " AND search MATCH ?"
            values.append(match)
        if around:
            where += (
                " AND (SELECT x BETWEEN ? AND ? AND y BETWEEN ? AND ? FROM observation AS o "
                f"WHERE o.id = {table}.{column})"
            )
            x, y, half = around
            values += [x - half, x + half, y - half, y + half]
        sql = (
            f"SELECT {column} FROM {table} WHERE {column} BETWEEN ? AND ?{where} "
            f"ORDER BY {column} {'ASC' if oldest else 'DESC'} LIMIT ?"
        )
        with translated(self.path):
            return self._ids(sql, *values, limit)

    def words(self) -> set[str]:
        """Return the stems of all words of all observations, also of deleted ones.

        Raises LogError.
        """
        with translated(self.path):
            return {row[0] for row in self.connection.execute("SELECT stem FROM word")}

    def has_poses(self) -> bool:
        """Return whether any observation has a pose. Raises LogError."""
        with translated(self.path):
            return bool(self._ids("SELECT id FROM observation WHERE x IS NOT NULL LIMIT 1"))

    def cameras(self) -> dict[str, int]:
        """Return the id of each camera by its name. Raises LogError."""
        with translated(self.path):
            return dict(self.connection.execute("SELECT name, id FROM camera"))

    def _observation(self, row: Sequence[Any], thumbnail: bytes | None) -> Observation:
        number, stamp, camera, frame_id, width, height, model, task, caption, raw = row[:10]
        score, phrases, answers, *pose = row[10:]
        name, settings = self._model(model)
        return Observation(  # SQLite stores values of any type in any column
            stamp=int(stamp),
            camera=self._camera(camera),
            caption=text_of(caption),
            task=text_of(task),
            phrases=phrases_from_json(phrases),
            answers=answers_from_json(answers),
            raw_text=text_of(raw),
            score=finite(score)[0],
            frame_id=text_of(frame_id),
            width=int(width),
            height=int(height),
            model=name,
            settings=settings,
            pose=None if pose[0] is None else Pose(text_of(pose[0]), *finite(*pose[1:])),
            thumbnail=thumbnail,
            id=number,
        )

    def _event(self, row: Sequence[Any]) -> Event:
        stamp, camera, kind, subject, answer, previous, since, phrases = row
        return Event(
            stamp=int(stamp),
            camera=self._camera(camera),
            kind=text_of(kind),
            subject=text_of(subject),
            answer=text_of(answer),
            previous=text_of(previous),
            since=int(since),
            phrases=phrases_from_json(phrases),
        )

    def _camera(self, number: int) -> str:
        if number not in self._cameras:
            self._cameras = dict(self.connection.execute("SELECT id, name FROM camera"))
        return text_of(self._cameras.get(number, ""))

    def _model(self, number: int) -> tuple[str, str]:
        if number not in self._models:
            rows = self.connection.execute("SELECT id, name, settings FROM model")
            self._models = {row[0]: (row[1], row[2]) for row in rows}
        name, settings = self._models.get(number, ("", "{}"))
        return text_of(name), text_of(settings)

    def _ids(self, sql: str, *values: Any) -> list[int]:
        return [row[0] for row in self.connection.execute(sql, values)]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write everything or nothing. Raises LogError."""
        try:
            with transaction(self.connection, self.path):
                yield
        except BaseException:
            self._cameras, self._models = {}, {}  # they may have ids that do not exist now
            raise


def camera_token(number: int) -> str:
    """Return the index's token of the camera with this id. No word has a colon."""
    return f"camera:{number}"


def _pose_to_row(pose: Pose | None) -> Sequence[Any]:
    """Return the columns of a pose; NULLs for one that is not finite."""
    frame_id, *numbers = vars(pose).values() if pose else (None,)
    if not numbers or not all(map(math.isfinite, numbers)):
        return (None,) * len(fields(Pose))
    return (frame_id, *numbers)


def _encodable(value: Any) -> Any:
    """Return a text that UTF-8 can encode; half of a surrogate pair becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _marks(values: Sequence[object]) -> str:
    """Return the marks of these values in a statement: "?, ?, ?"."""
    return ", ".join("?" * len(values))


def _groups(ids: Sequence[int], most: int = 500) -> Iterator[Sequence[int]]:
    """Yield the ids in groups that fit into one statement: SQLite's limit was once 999."""
    return (ids[start : start + most] for start in range(0, len(ids), most))
