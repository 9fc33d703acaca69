# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe every bag below a folder, each as `kosmos bag` does. Several processes may share it.

The file OUT/NAME.json has the state of a bag. A process locks it before it touches the bag,
and keeps the lock until it has written the state, so two processes never write the same bag. The
operating system removes the lock when the process ends, on a shared folder also when its computer
is gone. Knows no command line and no Ray.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kosmos_ros.errors import ConfigError, ImageError
from kosmos_ros.offline.bags.job import Job, Run
from kosmos_ros.offline.bags.reading import METADATA, is_storage, recording_of
from kosmos_ros.offline.batches import Failure
from kosmos_ros.offline.every import Every, check_window
from kosmos_ros.offline.unfinished import DATABASE, difference
from kosmos_ros.sanitize import one_line

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

BEGUN, DESCRIBED, DONE, SKIPPED, FAILED = "begun", "described", "done", "skipped", "failed"
"""States of a bag, in this order: a process works on it or was stopped; only the observation log
lacks it; it is complete; it cannot be read; it failed otherwise, and the next call tries again."""
BUSY = "busy"
"""Another process has the lock. Never in a file."""
ROS1 = ".bag"
"""Suffix of a ROS 1 bag, which is reported as unreadable."""
MAX_REASONS = 20  # errors of frames that a record lists
LOCK_WAIT = 120.0
"""Seconds to wait for a locked bag after all other bags. An NFS server keeps the locks of a
computer that is gone for 90 s by default."""
LOCK_PERIOD = 0.5  # s between two attempts

Record = dict[str, Any]
"""State of a bag as in OUT/NAME.json."""


@dataclass(frozen=True)
class Many:
    """What `kosmos bags` does. All paths are absolute."""

    folder: Path
    out: Path
    job: Job  # of each bag; its `bag` and `out` are replaced
    model: Mapping[str, Any]  # options of the model, which must be the same in all runs
    error: Callable[[Failure], str] = lambda failure: f"{failure.name}: {failure.error}"

    def check(self) -> None:
        """Raise ConfigError for options that are wrong for every bag."""
        Every.parse(self.job.every)
        check_window(self.job.start, self.job.end)
        if self.out.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(
                f"output {self.out} must not be in {self.folder}, whose bags are described"
            )

    def record(self, name: str) -> Record:
        """Return the state of a bag. Raises ConfigError if another command has described it."""
        try:
            return self._own(name, self._file(name).read_bytes())
        except FileNotFoundError:
            return {}

    def _own(self, name: str, text: bytes) -> Record:
        """Return the record in a file. Raises ConfigError if another command has written it."""
        record = _parsed(text)
        now = self._settings | {"bag": str(self.folder / name)}
        before = record.get("settings", {}) | {"bag": record.get("bag")}
        if found := difference(before, now) if record else "":
            raise ConfigError(
                f"{self.out / name} was written with other settings: {found}; repeat the earlier "
                "command, or choose another output"
            )
        return record

    def settled(self, name: str) -> Record | None:
        """Return the record of a bag that needs no model, because it is done or cannot be read.

        Raises ConfigError as `record`, and RequestError for a prompt that is not valid.
        """
        record = self.record(name)
        if record.get("state") != SKIPPED:
            return self._done(name, record)
        try:
            Run(self._job(name))
        except (ConfigError, ImageError, OSError) as exc:
            return record | {"reasons": [_reason(exc)]}
        return None  # it was repaired

    def _done(self, name: str, record: Record) -> Record | None:
        """Return the record of a bag that needs no model any more; otherwise None."""
        state, kept = record.get("state"), (self._partial(name) / DATABASE).exists()
        if not (self.out / name).exists():
            return None
        if state == DESCRIBED and kept:
            return record
        if state != DONE or kept:  # it was stopped while the unfinished results were removed
            return None
        if record["bytes"] == (now := self.size(name)):
            return record
        reason = (
            f"the bag had {record['bytes']} bytes when it was described and has {now} now; remove "
            f"{self.out / name} to describe it again"
        )
        return {**record, "state": FAILED, "reasons": [reason]}

    def describe(self, name: str, engine: Callable[[], Engine], wait: float = 0.0) -> Record:
        """Describe the bag `name`, continue it, or find out that it is done. Return its record.

        The state is BUSY if another process has the lock for longer than `wait` seconds. With an
        observation log it is DESCRIBED until `add_to_log` is called. Raises the errors of
        `engine`, RequestError for a prompt that is not valid or that the model cannot read, and
        DeviceLostError.
        """
        with _locked(self._file(name), wait) as file:
            if file is None:
                return self._new(name, BUSY, reasons=[self._owner(name)])
            if done := self._done(name, self._own(name, file.read())):
                return done
            try:
                run = Run(self._job(name))
            except (ConfigError, ImageError, OSError) as exc:
                return _noted(file, self._new(name, SKIPPED, reasons=[_reason(exc)]))
            by = {"host": socket.gethostname(), "process": os.getpid()}
            try:
                _written(file, self._new(name, BEGUN) | by)
                return self._described(name, run, engine, file)
            except (ConfigError, OSError, sqlite3.Error) as exc:
                return _noted(file, self._new(name, FAILED, reasons=[_reason(exc)]))

    def _described(
        self, name: str, run: Run, engine: Callable[[], Engine], file: IO[bytes]
    ) -> Record:
        size = self.size(name)
        with run.open(dict(self.model)) as results:
            for _ in run.describe(results, engine):
                pass
            for _ in run.write(results):
                pass
            failures = [Failure(name, ImageError(why)) for name, why in results.reasons()]
            record = self._new(
                name,
                DESCRIBED if self.job.log else DONE,
                bytes=size,
                frames=results.frames,
                failed=len(failures),
                **run.counts(results),
                reasons=[
                    *run.warnings,
                    *(one_line(self.error(each)) for each in failures[:MAX_REASONS]),
                ],
            )
            _written(file, record)
        if not self.job.log:
            run.clean()
        return record

    def add_to_log(self, record: Record) -> Record:
        """Add a bag whose state is DESCRIBED to the observation log. Return its new record.

        One process does this for all bags, because SQLite must not be written by several computers
        on a network folder. Raises ConfigError and LogError.
        """
        name = record["name"]
        with _locked(self._file(name), LOCK_WAIT) as file:
            if file is None:
                return self._new(name, BUSY, reasons=[self._owner(name)])
            known = self._done(name, self._own(name, file.read()))
            if known and known["state"] == DONE:  # another process has added it
                return known
            try:
                run = Run(self._job(name))
                results = run.open(dict(self.model))
            except (ConfigError, ImageError, OSError, sqlite3.Error) as exc:
                return _noted(file, self._new(name, FAILED, reasons=[_reason(exc)]))
            with results:
                run.add_to_log(results)
                _written(file, record | {"state": DONE})
            run.clean()
        return record | {"state": DONE}

    def give_up(self, name: str, reason: str) -> Record:
        """Record that the bag `name` failed, unless another process works on it or it is done."""
        record = self._new(name, FAILED, reasons=[reason])
        with _locked(self._file(name), 0.0) as file:
            if file is None:
                return record
            return self._done(name, _parsed(file.read())) or _noted(file, record)

    def size(self, name: str) -> int:
        """Return the bytes of the files of a bag that have messages; a file that is gone has 0."""
        bag = self.folder / name
        files = [file for file in bag.iterdir() if is_storage(file)] if bag.is_dir() else [bag]
        return sum(file.stat().st_size for file in files if file.exists())

    def _job(self, name: str) -> Job:
        return replace(self.job, bag=self.folder / name, out=self.out / name)

    def _file(self, name: str) -> Path:
        return self.out / f"{name}.json"

    def _partial(self, name: str) -> Path:
        return self.out / f"{name}.unfinished"

    def _owner(self, name: str) -> str:
        """Return who has the lock of a bag; the file says so without it."""
        try:
            owner = _parsed(self._file(name).read_bytes())
        except OSError:
            owner = {}
        who = f"process {owner['process']} on {owner['host']}" if "host" in owner else ""
        return (
            f"another process ({who or 'unknown'}) is describing it; repeat the command when that "
            "process has ended"
        )

    @property
    def _settings(self) -> Record:
        """The settings that all runs with this output must have, as JSON stores them."""
        settings: Record = json.loads(json.dumps({**self.model, **self.job.fixed()}))
        return settings

    def _new(self, name: str, state: str, **values: Any) -> Record:
        record = {
            "name": name,
            "state": state,
            "bag": str(self.folder / name),
            "out": str(self.out / name),
            "frames": 0,
            "failed": 0,
            "messages": {},
            "reasons": [],
        }
        return record | values | {"settings": self._settings}


def find(folder: Path, error: Callable[[OSError], None]) -> list[str]:
    """Return the sorted paths of all bags below `folder`, relative to it.

    A bag is a directory with metadata.yaml, or whose files are numbered as rosbag2 does it; every
    other file *.mcap, *.db3 or *.bag is a bag of its own. Folders behind symbolic links are
    searched, too. Calls `error` for a folder that cannot be read. Raises ConfigError.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} must be a folder with bags; it does not exist, or is a file")
    found, seen = [], set()
    hidden: list[OSError] = []
    for name, folders, files in os.walk(folder, followlinks=True, onerror=hidden.append):
        folders.sort()  # so that a folder with two names has the same one on every computer
        path = Path(name)
        stored = [file for file in files if is_storage(Path(file)) or file.endswith(ROS1)]
        if (real := path.resolve()) in seen:  # a link to a folder above it
            folders.clear()
        elif METADATA in files or recording_of(stored)[0] == path.name != "":
            folders.clear()
            found.append(path)
        else:
            found += [path / file for file in stored]
        seen.add(real)
    if found == [folder]:
        raise ConfigError(
            f"{folder} is a bag; describe it with `kosmos bag`, or give the folder that has it"
        )
    if hidden and not found:
        raise ConfigError(f"{hidden[0].filename}: {hidden[0].strerror}")
    for each in hidden:
        error(each)
    if not found:
        raise ConfigError(f"{folder} has no bags: no {METADATA} and no file *.mcap or *.db3")
    return sorted(path.relative_to(folder).as_posix() for path in found)


def one_after_the_other(
    many: Many, names: Sequence[str], engine: Callable[[], Engine]
) -> Iterator[Record]:
    """Describe the bags in this process. Yields their records; locked bags come last.

    Raises the errors of `Many.describe`.
    """
    busy = []
    for name in names:
        record = many.describe(name, engine)
        if record["state"] == BUSY:
            busy.append(name)
        else:
            yield record
    for name in busy:
        yield many.describe(name, engine, LOCK_WAIT)


def in_order(many: Many, names: Sequence[str], records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records, which come in any order, in the order of `names`.

    Bags are added to the observation log in this order, so that it is the same whatever worker is
    faster. Raises ConfigError and LogError.
    """
    waiting: dict[str, Record] = {}
    left = deque(names)
    for each in records:
        waiting[each["name"]] = each
        while left and left[0] in waiting:
            record = waiting.pop(left.popleft())
            yield many.add_to_log(record) if record["state"] == DESCRIBED else record


@contextlib.contextmanager
def _locked(path: Path, wait: float) -> Iterator[IO[bytes] | None]:
    """Open and lock the file of a bag, after at most `wait` seconds; None: another has the lock.

    The lock belongs to the process: closing the file anywhere in it ends the lock, and a child
    process does not have it. The file is never removed, because a process that waits for the lock
    of a removed file would not exclude one that makes a new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + wait
    # Without a buffer: on a full disk, closing the file would try to write it once more.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: locked
                if time.monotonic() >= end:
                    yield None
                    return
            time.sleep(LOCK_PERIOD)
        yield file


def _written(file: IO[bytes], record: Record) -> Record:
    """Write the state of a bag to its locked file, before anything relies on it."""
    # A new file in its place would not be locked. A half-written record counts as none, and the
    # unfinished results, which are removed later, still say what is done.
    file.seek(0)
    file.truncate()
    text = (json.dumps(record) + "\n").encode()
    while text:
        text = text[file.write(text) :]
    os.fsync(file.fileno())
    return record


def _noted(file: IO[bytes], record: Record) -> Record:
    """Write the state of a bag with an error; the cause may be a full disk."""
    with contextlib.suppress(OSError):
        _written(file, record)
    return record


def _parsed(text: bytes) -> Record:
    try:
        record = json.loads(text or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return one_line(f"{error.filename or ''} {error.strerror or error}".strip())
    return one_line(error)
