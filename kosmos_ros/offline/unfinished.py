# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the results of an unfinished run in a database, so that the next run continues it.

Each transaction has the results of one batch of frames together with the place that was reached.
Therefore the database is right at whatever point the process ends. Knows no source and no model.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.record_json import (
    answers_from_json,
    answers_to_json,
    phrases_from_json,
    phrases_to_json,
)
from kosmos_ros.memory.records import Observation
from kosmos_ros.offline.batches import Failure
from kosmos_ros.sanitize import quoted

DATABASE = "results.db"
SCHEMA = """
CREATE TABLE IF NOT EXISTS run (settings TEXT, frames INTEGER, written INTEGER);
CREATE TABLE IF NOT EXISTS failure (number INTEGER PRIMARY KEY, name TEXT, reason TEXT);
CREATE TABLE IF NOT EXISTS message (number INTEGER PRIMARY KEY, topic TEXT, time INTEGER,
    data BLOB);
CREATE TABLE IF NOT EXISTS observation (number INTEGER PRIMARY KEY, record TEXT, thumbnail BLOB);
"""
"""`frames`: those that have results. `failure`: frames without a result, and what could not be
copied, as JSON, because the name of a file need not be UTF-8. `written`: the output is
complete."""


@dataclass(frozen=True)
class Row:
    """A result of a frame: a message, or a JSON object."""

    topic: str  # of the message, or name of the frame's file as JSON
    time: int  # ns, record time or stamp of the frame
    data: bytes  # CDR, or JSON in ASCII


class Unfinished:
    """The results so far in `folder`, which is created. Use it as a context manager.

    Raises ConfigError if the folder has the results of a command with other `settings`, or if
    another process uses it, and sqlite3.Error or OSError if the disk fails.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / DATABASE, isolation_level=None, timeout=0)
        try:
            self._open(settings)
        except BaseException:
            self._database.close()
            raise

    def _open(self, settings: Mapping[str, Any]) -> None:
        run = self._database.execute
        try:
            run("PRAGMA locking_mode = EXCLUSIVE")
            run("PRAGMA journal_mode = WAL")
            run("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc):
                raise
            raise ConfigError(
                f"another process writes to {self._folder}; wait until it ends, or choose "
                "another output"
            ) from exc
        for statement in filter(str.strip, SCHEMA.split(";")):
            run(statement)
        if not run("SELECT * FROM run").fetchall():
            run("INSERT INTO run VALUES (?, 0, 0)", (json.dumps(settings),))
        run("COMMIT")
        row = run("SELECT settings, frames, written FROM run").fetchone()
        self._check(json.loads(row[0]), json.loads(json.dumps(settings)))
        self.frames, self.written = map(int, row[1:])
        (self.failures,) = run("SELECT COUNT(*) FROM failure").fetchone()

    @property
    def position(self) -> int:
        """Number of frames of the source that are done before `finish`, also without a result."""
        return self.frames + self.failures

    def _check(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        if found := difference(before, now):
            raise ConfigError(
                f"{self._folder} has unfinished results with other settings or other input: "
                f"{found}; repeat the earlier command with the earlier input, choose another "
                "output, or remove the folder"
            )

    def add(
        self,
        rows: Iterable[Row],
        observations: Iterable[Observation],
        frames: int,
        failures: Collection[Failure],
    ) -> None:
        """Add the results of a batch, at once. `frames` is the number of those with results."""
        with self._transaction() as run:
            for row in rows:
                run(
                    "INSERT INTO message (topic, time, data) VALUES (?, ?, ?)",
                    (row.topic, row.time, row.data),
                )
            for each in observations:
                run(
                    "INSERT INTO observation (record, thumbnail) VALUES (?, ?)",
                    (_to_json(each), each.thumbnail),
                )
            self._fail(failures)
            run("UPDATE run SET frames = ?", (self.frames + frames,))
        self.frames += frames
        self.failures += len(failures)

    def finish(self, lost: Iterable[Failure]) -> list[Failure]:
        """Record that the output is complete. Store the failures `lost`; return the new ones."""
        known = {name for name, _ in self.reasons()}
        new = [each for each in lost if each.name not in known]
        with self._transaction() as run:
            self._fail(new)
            run("UPDATE run SET written = 1")
        self.written = 1
        self.failures += len(new)
        return new

    def _fail(self, failures: Iterable[Failure]) -> None:
        for each in failures:
            self._database.execute(
                "INSERT INTO failure (name, reason) VALUES (?, ?)",
                (json.dumps(each.name), json.dumps(str(each.error))),
            )

    def reasons(self) -> list[tuple[str, str]]:
        """Return the name and the reason of each failure."""
        found = self._database.execute("SELECT name, reason FROM failure ORDER BY number")
        return [(json.loads(name), json.loads(reason)) for name, reason in found]

    def rows(self, topics: Collection[str] | None = None) -> Iterator[Row]:
        """Yield the results, or those of some topics, in the order of `add`."""
        where = "" if topics is None else f"WHERE topic IN ({', '.join('?' * len(topics))})"
        sql = f"SELECT topic, time, data FROM message {where} ORDER BY number"
        for topic, time, data in self._database.execute(sql, tuple(topics or ())):
            yield Row(topic, time, data)

    def observations(self) -> Iterator[Observation]:
        """Yield all observations in the order of `add`."""
        for record, thumbnail in self._database.execute(
            "SELECT record, thumbnail FROM observation ORDER BY number"
        ):
            yield _from_json(record, thumbnail)

    def counts(self, topics: Collection[str]) -> dict[str, int]:
        """Return the number of results of each topic."""
        found = self._database.execute("SELECT topic, COUNT(*) FROM message GROUP BY topic")
        return {**dict.fromkeys(topics, 0), **dict(found.fetchall())}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database.execute
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first value that differs between the settings of two commands; empty: none."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            was, is_now = before.get(name), now.get(name)
            if isinstance(was, list) and isinstance(is_now, list):
                gone = [f"{quoted(each)} is missing now" for each in was if each not in is_now]
                new = [f"{quoted(each)} is new" for each in is_now if each not in was]
                if gone or new:
                    return f"{name}: {', '.join(gone[:1] + new[:1])}"
            return f"{name} was {quoted(was)}, now it is {quoted(is_now)}"
    return ""


def _to_json(observation: Observation) -> str:
    """Return all of an observation but its thumbnail. No source has poses."""
    record = vars(observation) | {
        "phrases": phrases_to_json(observation.phrases),
        "answers": answers_to_json(observation.answers),
    }
    del record["thumbnail"]
    return json.dumps(record)


def _from_json(text: str, thumbnail: bytes | None) -> Observation:
    record = json.loads(text)
    record["phrases"] = phrases_from_json(record["phrases"])
    record["answers"] = answers_from_json(record["answers"])
    return Observation(**record, thumbnail=thumbnail)
