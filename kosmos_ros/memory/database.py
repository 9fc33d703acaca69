# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The SQLite file of an observation log: its schema, how it is opened, and its errors.

Knows no records.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.sanitize import first_line, quoted

APPLICATION_ID = 0x4B4F534D  # "KOSM": marks the file as an observation log
VERSION = 3  # of a new file; a file with a higher one is refused
OLD_RULES = 2  # last version whose texts were cut by the old rules: see words.parse
LOCK_TIMEOUT = 1.0  # s to wait for another program that writes the file
WAL_PAGES = 256  # pages in the -wal file before they are moved into the file: 1 MB
RESERVE = 4_000_000  # bytes below a size limit, for the -wal file and for the deletion of rows

SCHEMA = """
CREATE TABLE camera (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE model (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  settings TEXT NOT NULL, -- JSON object
  UNIQUE (name, settings)
);
CREATE TABLE observation (
  id INTEGER PRIMARY KEY, -- stamp, or the next free number after it
  stamp INTEGER NOT NULL, -- ns
  camera INTEGER NOT NULL REFERENCES camera,
  frame_id TEXT NOT NULL,
  width INTEGER NOT NULL, -- pixels
  height INTEGER NOT NULL, -- pixels
  model INTEGER NOT NULL REFERENCES model,
  task TEXT NOT NULL,
  caption TEXT NOT NULL,
  raw_text TEXT NOT NULL,
  score REAL NOT NULL,
  phrases TEXT, -- JSON: [{"text": ..., "start": ..., "end": ..., "boxes": [[...], ...]}, ...]
  answers TEXT, -- JSON: [{"question": ..., "text": ..., "score": ..., "phrases": ...}, ...]
  pose_frame TEXT, -- NULL: no pose
  x REAL, y REAL, z REAL, qx REAL, qy REAL, qz REAL, qw REAL,
  written INTEGER NOT NULL DEFAULT 0 -- 1, 2, ... in the order of writing; 0: by version 1
);
CREATE INDEX written ON observation (written);
CREATE TABLE thumbnail (id INTEGER PRIMARY KEY REFERENCES observation, webp BLOB NOT NULL);
CREATE TABLE event (
  id INTEGER PRIMARY KEY, -- stamp, or the next free number after it
  stamp INTEGER NOT NULL, -- ns
  camera INTEGER NOT NULL REFERENCES camera,
  kind TEXT NOT NULL, -- appeared, disappeared or answered
  subject TEXT NOT NULL,
  answer TEXT NOT NULL,
  previous TEXT NOT NULL,
  since INTEGER NOT NULL, -- ns
  phrases TEXT -- JSON, as in observation
);
CREATE TABLE word (
  stem TEXT PRIMARY KEY -- of each word of captions, answers and phrases; rows are never deleted
) WITHOUT ROWID;
CREATE VIRTUAL TABLE search USING fts5(
  tokens, -- of the observation whose id is the rowid: words, pairs of words, camera, cells
  content = '', columnsize = 0, detail = none, tokenize = "unicode61 tokenchars '_:-'"
);
"""
FROM_VERSION_1 = (
    "ALTER TABLE observation ADD COLUMN written INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX written ON observation (written)",
)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables of a new file, or upgrade a file of version 1."""
    if not is_log(connection, path):
        # Before the first table: the free pages of a file can be cut off later.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _set_journal_mode(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}").fetchall()
    connection.execute(f"PRAGMA journal_size_limit = {RESERVE // 4}").fetchall()
    with transaction(connection, path):
        new = not is_log(connection, path)  # another program may have made it meanwhile
        if not new and pragma(connection, "user_version") > 1:
            return
        for statement in SCHEMA.strip().split(";\n") if new else FROM_VERSION_1:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION if new else OLD_RULES}")


def _set_journal_mode(connection: sqlite3.Connection) -> None:
    """Write by means of a -wal file from now on.

    Waits while another program does the same. SQLite itself does not wait here, because this
    connection already has a read lock (sqlite3BtreeSetVersion of btree.c).
    """
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() >= end:
                raise
        time.sleep(0.01)


def is_log(connection: sqlite3.Connection, path: Path) -> bool:
    """Return False for an empty file. Raises ConfigError if the file is something else."""
    name = quoted(str(path), 200)
    tables = pragma(connection, "schema_version")  # first: another program may make them meanwhile
    if pragma(connection, "application_id") != APPLICATION_ID:
        if not tables:
            return False
        raise ConfigError(f"{name} is another SQLite database, expected an observation log")
    if not 1 <= (version := pragma(connection, "user_version")) <= VERSION:
        raise ConfigError(
            f"{name} has version {version} of the observation log, expected 1 to {VERSION}; "
            "update kosmos_ros"
        )
    # Fails if the beginning of the file is damaged.
    connection.execute("SELECT id FROM observation ORDER BY id DESC LIMIT 1").fetchall()
    return True


def is_marked(path: Path) -> bool:
    """Return whether the header says that the file is a log. That of a new log may not yet.

    Does not open the database. Source: the SQLite file format, section 1.3.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(72)[68:] == APPLICATION_ID.to_bytes(4, "big")
    return False


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return the number of a PRAGMA."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Write everything or nothing. Raises LogError."""
    with translated(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has ended it after some errors
                connection.execute("ROLLBACK")
            raise


def check_reachable(path: Path) -> None:
    """Raise ConfigError if a folder on the way to the file may not be entered."""
    try:
        path.stat()
    except PermissionError as exc:
        raise ConfigError(
            f"observation log {quoted(str(path), 200)}: {exc.strerror}; change the permissions of "
            "its folder"
        ) from exc
    except OSError:  # there is no such file, for example; the caller finds out
        return


def check_writable(path: Path) -> None:
    """Raise ConfigError if the file can never be written."""
    name, folder = quoted(str(path), 200), path.resolve().parent
    check_reachable(path)
    if path.is_dir():
        raise ConfigError(f"{name} is a folder, expected the path of an observation log")
    if not folder.is_dir():
        raise ConfigError(
            f"{name} cannot be created: create its folder {quoted(str(folder), 200)} first"
        )
    for place in (folder, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise ConfigError(f"{quoted(str(place), 200)} is not writable; change its permissions")


@contextlib.contextmanager
def opened(path: Path, uri: str) -> Iterator[sqlite3.Connection]:
    """Yield a new connection, which is closed after an error."""
    with translated(path):
        connection = sqlite3.connect(uri, timeout=LOCK_TIMEOUT, isolation_level=None, uri=True)
        try:
            # The file may come from elsewhere: its schema must not call functions.
            connection.execute("PRAGMA trusted_schema = OFF")
            yield connection
        except BaseException:
            connection.close()
            raise


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise LogError or ConfigError, with the file's name, for an error of SQLite."""
    name = quoted(str(path), 200)
    try:
        yield
    except (sqlite3.OperationalError, OverflowError) as exc:
        raise LogError(f"observation log {name}: {first_line(exc)}") from exc
    except sqlite3.DatabaseError as exc:
        if "not a database" in str(exc):
            raise ConfigError(
                f"{name} is not an SQLite database, expected an observation log"
            ) from exc
        if "malformed" in str(exc):
            raise ConfigError(
                f"observation log {name} is damaged: {first_line(exc)}; move it away to begin a "
                "new one"
            ) from exc
        raise LogError(f"observation log {name}: {first_line(exc)}") from exc


_INVALID = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


class understood:
    """Raise LogError if a row has invalid contents, such as broken JSON.

    A class, because a search opens it for each of some thousand rows: a generator takes longer.
    """

    __slots__ = ("path", "row")

    def __init__(self, path: Path, row: str) -> None:
        self.path, self.row = path, row

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, _INVALID):
            raise LogError(
                f"observation log {quoted(str(self.path), 200)}: {self.row} is damaged: "
                f"{first_line(exc)}"
            ) from exc


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that is kept beside a database, such as SQLite's -wal."""
    resolved = path.resolve()
    return resolved.with_name(resolved.name + suffix)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
