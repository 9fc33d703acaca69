# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write an observation log in a thread of its own, so that no other thread waits for the disk.

Knows records and images; no ROS. A record is in the file after at most WRITE_PERIOD and one write.
No fault of the file ends the thread: it reports each fault once and tries again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from kosmos_ros.errors import ConfigError, KosmosError
from kosmos_ros.memory.database import beside
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.records import Event, Observation
from kosmos_ros.sanitize import format_error, format_traceback, quoted

WRITE_PERIOD = 0.5  # s between two transactions
RETRY_PERIOD = 1.0  # s until the next attempt after a failed one
THUMBNAIL_SIDE = 320  # pixels, longest side of a thumbnail
THUMBNAIL_QUALITY = 60  # of WebP, 0 to 100
MAX_IMAGES = 8  # images that wait to become thumbnails; a Full HD image has 6 MB
MAX_THUMBNAILS = 256  # thumbnails that wait to be written, about 2 MB
MAX_RECORDS = 2000  # records that wait to be written, about 4 MB
LOCK = "-lock"  # end of the name of the file that a recorder locks
WRITE_RECORDS = 100  # records of one transaction, so that the -wal file stays small


@dataclass(frozen=True)
class RecorderState:
    """What a recorder has done since it was made."""

    written: int  # observations
    waiting: int  # observations
    lost: int  # observations that were dropped because the file could not be written
    lost_thumbnails: int  # thumbnails that could not be made or written in time
    deleted: int  # observations that were deleted because of a limit
    file_bytes: int  # size of the file
    error: str  # why the file cannot be written now; empty: writing works


@dataclass
class _Entry:
    """A described frame on its way to the file."""

    observation: Observation
    events: Sequence[Event]
    image: np.ndarray | None  # (H, W, 3) uint8 RGB; None: its thumbnail is made or dropped


class Recorder:
    """Writes the log `path` until `close`.

    `max_bytes` and `max_age` (s) limit the log as in ObservationLog.prune; `now` returns the time
    of the stamps in ns. `warn` receives a text when writing fails for a new reason, and when it
    works again. Raises ConfigError if another recorder writes this log: both would write the
    same frames, or each would delete those of the other.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        warn: Callable[[str], None],
        max_bytes: int = 0,
        max_age: float = 0.0,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = Path(path)
        self._lock = _locked(self._path)
        self._warn = warn
        self._limits = max_bytes, max_age
        self._now = now
        self._changed = threading.Condition()  # protects the following members
        self._new: deque[_Entry] = deque()
        self._closing = False
        self._lost = self._lost_thumbnails = 0
        # Only the thread uses these:
        self._ready: deque[_Entry] = deque()  # with thumbnails
        self._file: _File | None = None
        self._thumbnail_error = ""  # that was last reported
        # The thread writes these, and others read them:
        self._written = self._deleted = self._file_bytes = 0
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def add(
        self, observation: Observation, image: np.ndarray | None, events: Sequence[Event] = ()
    ) -> None:
        """Write a record soon. Returns at once; any thread may call this.

        `image` (H, W, 3) uint8 RGB becomes its thumbnail, and must not change.
        """
        with self._changed:
            self._new.append(_Entry(observation, events, image))
            images = [entry for entry in self._new if entry.image is not None]
            if len(images) > MAX_IMAGES:
                images[0].image = None
                self._lost_thumbnails += 1
            self._bound(self._new)
            self._changed.notify()

    def state(self) -> RecorderState:
        """Return what was done so far. Any thread may call this."""
        with self._changed:
            return RecorderState(
                self._written,
                len(self._new) + len(self._ready),
                self._lost,
                self._lost_thumbnails,
                self._deleted,
                self._file_bytes,
                self._error,
            )

    def close(self, timeout: float) -> bool:
        """Write what waits and close the file. Return whether this took at most `timeout` s."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _bound(self, entries: deque[_Entry]) -> None:
        """Drop the oldest of more than MAX_RECORDS entries."""
        if len(entries) > MAX_RECORDS:
            entries.popleft()
            self._lost += 1

    # The thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        while not ended:  # the first write makes the file
            due = time.monotonic() + (WRITE_PERIOD if self._write() else RETRY_PERIOD)
            ended = self._collect(due)
        if not self._write() and self._ready:
            self._warn(f"{len(self._ready)} observations could not be written at shutdown")
        self._close_file()
        _unlock(self._path, self._lock)

    def _collect(self, due: float) -> bool:
        """Prepare new entries until it is time to write. Return whether `close` ended this."""
        while entry := self._next(due):
            self._prepare(entry)
        with self._changed:
            return self._closing and not self._new

    def _next(self, due: float) -> _Entry | None:
        """Return the next new entry; None if it is time to write, or none is left at the end."""
        with self._changed:
            while not self._new and not self._closing:
                left = due - time.monotonic()
                if self._ready and left <= 0:
                    return None
                self._changed.wait(left if self._ready else None)
            late = self._ready and time.monotonic() >= due
            return self._new.popleft() if self._new and not late else None

    def _prepare(self, entry: _Entry) -> None:
        """Make the thumbnail of an entry, and let it wait to be written."""
        image, entry.image = entry.image, None
        thumbnail = None if image is None else self._thumbnail(image)
        entry.observation = dataclasses.replace(entry.observation, thumbnail=thumbnail)
        with self._changed:
            self._ready.append(entry)
            self._bound(self._ready)
            if len(self._ready) > MAX_THUMBNAILS:
                self._drop_thumbnail(self._ready[-1 - MAX_THUMBNAILS])

    def _thumbnail(self, image: np.ndarray) -> bytes | None:
        """Return the thumbnail of an image; None, with a warning, if it cannot be made."""
        try:
            return thumbnail_of(image)
        except Exception as exc:  # Pillow without WebP, or no memory: the record is kept
            text = format_error(exc)
            with self._changed:
                self._lost_thumbnails += 1
            if text != self._thumbnail_error:
                self._warn(f"cannot create a thumbnail: {text}")
            self._thumbnail_error = text
            return None

    def _drop_thumbnail(self, entry: _Entry) -> None:
        if entry.observation.thumbnail:
            entry.observation = dataclasses.replace(entry.observation, thumbnail=None)
            self._lost_thumbnails += 1

    def _write(self) -> bool:
        """Write the entries that are ready. Return False if they must wait."""
        try:
            self._write_to(self._opened())
        except Exception as exc:  # whatever happens to the file, the next attempt may succeed
            self._close_file()
            self._report(exc)
            return False
        self._report(None)
        return True

    def _write_to(self, file: _File) -> None:
        while True:
            entries = list(itertools.islice(self._ready, WRITE_RECORDS))
            if entries:
                file.log.check_room(self._limits[0])
                file.log.add(
                    [entry.observation for entry in entries],
                    [event for entry in entries for event in entry.events],
                )
            with self._changed:
                for _ in entries:
                    self._ready.popleft()
                self._written += len(entries)
            self._deleted += file.log.prune(*self._limits, self._now())
            self._file_bytes = file.log.file_bytes
            if not self._ready:
                return

    def _opened(self) -> _File:
        """Return the log, opened again if its file is gone. Raises ConfigError or LogError."""
        if self._file and not self._file.in_place():
            name = quoted(str(self._path), 200)
            self._close_file()
            self._warn(f"the observation log {name} was removed or replaced; opening it again")
        if self._file is None:
            self._file = _File(self._path)
        return self._file

    def _close_file(self) -> None:
        if file := self._file:
            self._file = None
            file.close()

    def _report(self, error: Exception | None) -> None:
        """Warn if writing fails for another reason than before, or works again."""
        text = format_error(error) if error else ""
        if error and not isinstance(error, KosmosError):
            text = format_traceback(error)
        before, self._error = self._error, text
        if text and text != before:
            self._warn(f"cannot write observations now; they stay in the queue: {text}")
        elif before and not text:
            self._warn(f"writing observations works again; {self._lost} were lost so far")


class _File:
    """An open log, and which files it uses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.log = ObservationLog.open(path)
        self._own = {file: _identity(file) for file in self._files()}

    def _files(self) -> list[Path]:
        return [beside(self._path, suffix) for suffix in ("", "-wal", "-shm")]

    def in_place(self) -> bool:
        """Return whether the file was neither removed nor replaced."""
        file, *_ = self._own
        return _identity(file) == self._own[file] is not None

    def close(self) -> None:
        """Close the log.

        If its file is gone, also remove the files beside it: SQLite would write their contents
        into another log that took its place.
        """
        gone = not self.in_place()
        with contextlib.suppress(Exception):  # its transaction has ended before
            self.log.close()
        if gone:
            _, *others = self._own.items()
            for file, identity in others:
                if identity and _identity(file) == identity:
                    file.unlink(missing_ok=True)


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return what distinguishes a file from all others; None if it does not exist."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _locked(log: Path) -> BinaryIO | None:
    """Return the locked file beside a log; None if the file system has no room or no locks.

    The system unlocks it when the process ends. Raises ConfigError if another recorder has it.
    """
    path = beside(log, LOCK)
    try:
        while True:
            file = path.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                file.close()
                raise
            if _identity(file.fileno()) == _identity(path):
                return file
            file.close()  # the other recorder has just ended and removed it
    except BlockingIOError as exc:
        raise ConfigError(
            f"another kosmos_node writes the observation log {quoted(str(log), 200)}; stop it, or "
            "choose another file"
        ) from exc
    except OSError:
        return None


def _unlock(log: Path, file: BinaryIO | None) -> None:
    if file:
        with contextlib.suppress(OSError):
            beside(log, LOCK).unlink()
        file.close()


def thumbnail_of(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) uint8 RGB as WebP of at most THUMBNAIL_SIDE pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=1)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=THUMBNAIL_QUALITY, method=2)
    return file.getvalue()
