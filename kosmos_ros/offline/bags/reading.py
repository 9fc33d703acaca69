# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read the messages of a bag: a rosbag2 directory, or a single file of MCAP or SQLite.

A file or message that cannot be read is reported in its place, and the others are read. Knows no
model and no output.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_ros.errors import ConfigError, ImageError
from kosmos_ros.sanitize import first_line, one_line, quoted

METADATA = "metadata.yaml"
STORAGES = (".mcap", ".db3")
"""Ends of the names of files with messages."""
COMPRESSED_FILE = ".zstd"
"""End of the name of a file that `ros2 bag record --compression-mode file` has compressed."""
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
"""System errors that may be gone when the user repeats the command."""
MAX_MESSAGE = 1_000_000_000  # bytes of a decompressed message; a few kB may expand to any size
RECOVER = "run `mcap recover FILE -o NEW_FILE` and read the new file"


@dataclass(frozen=True, eq=False)
class Message:
    """A message as it is stored."""

    topic: str
    type: str
    time: int  # ns, when it was recorded
    data: bytes  # CDR
    connection: Any  # of rosbags: definition, hash and QoS of the topic

    @property
    def name(self) -> str:
        """Topic and stamp, for errors. The stamp is that of its header, if it has one."""
        return f"{self.topic} at {_seconds(self._stamp())}"

    def _stamp(self) -> int:
        """Return the first field of an image message in nanoseconds."""
        if len(self.data) < 12:  # the CDR header, seconds and nanoseconds
            return self.time
        seconds, nanoseconds = struct.unpack_from("<iI" if self.data[1] else ">iI", self.data, 4)
        return int(seconds) * 10**9 + int(nanoseconds)


@dataclass(frozen=True)
class Unreadable:
    """A message, a file of the bag, or its rest, that cannot be read, and the reason."""

    name: str
    error: ImageError


class Bag:
    """The bag at `path`. Raises ConfigError if it is none, and ImageError if no file is readable.

    `topics` has the type of each topic, `counts` the number of its messages. `start` and `end`
    are the times of the first message and after the last one in nanoseconds; equal if there is
    none. All come from metadata.yaml if there is one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._information: dict[str, Any] | None = None
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.start, self.end = 2**63 - 1, 0
        if path.is_dir():
            self._open_folder()
        else:
            self._files = [path]
            self._check_file()
        if self._information is None:
            self._scan()
        self.start = min(self.start, self.end)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self._files if file.exists())

    def messages(
        self, topics: Collection[str], start: int, end: int
    ) -> Iterator[Message | Unreadable]:
        """Yield the messages of `topics` from `start` and before `end` (ns), file by file.

        Files are in the order of their recording, and messages of a file in the order of time.
        """
        for file in self._files:
            newest = ""
            try:
                unpack = self._unpack()
                with self._reader(file) as reader:
                    connections = [each for each in reader.connections if each.topic in topics]
                    found = reader.messages(connections, start, end) if connections else ()
                    for connection, time, data in found:
                        newest = f"; its messages after {_seconds(time)} are not read"
                        yield _message(connection, time, data, unpack)
            except Exception as exc:  # rosbags raises any error for a damaged file
                if isinstance(exc, OSError) and exc.errno in PASSING:
                    raise  # a run that continues must count the same messages
                yield Unreadable(str(file), ImageError(f"{file}: {_reason(exc)}{newest}"))
            if reason := _unmerged(file):
                yield Unreadable(str(file), ImageError(f"{file}: {reason}"))

    def _open_folder(self) -> None:
        self._information = _information(self.path / METADATA)
        if self._information is None:
            self._files = sorted(filter(is_storage, self.path.iterdir()), key=_number)
            name, first = recording_of([file.name for file in self._files])
            if len(self._files) > 1 and name != self.path.resolve().name and (not name or first):
                raise ConfigError(
                    f"{self.path} has files of several bags; run `kosmos bags` on the folder, "
                    "or `kosmos bag` on one of the files"
                )
        else:
            try:
                names = self._information["relative_file_paths"]
                self._files = [self.path / Path(name).name for name in names]
                self._describe(self._information)
            except (LookupError, TypeError, ValueError) as exc:
                raise _not_metadata(self.path / METADATA, exc) from exc
        if not self._files:
            raise ConfigError(
                f"{self.path} has no {METADATA} and no file *.mcap or *.db3; "
                "expected the directory of a bag, or a file of it; `kosmos bags` describes the "
                "bags of all folders below it"
            )

    def _check_file(self) -> None:
        if not self.path.exists():
            raise ConfigError(f"bag {quoted(str(self.path), 300)} does not exist")
        if self.path.suffix == ".bag":
            raise ConfigError(
                f"{self.path} is a bag of ROS 1; convert it with "
                f"`rosbags-convert --src {self.path} --dst NEW_DIRECTORY`"
            )
        if not is_storage(self.path):
            raise ConfigError(
                f"bag must be a directory, or a file named *.mcap or *.db3, got {self.path}"
            )

    def _describe(self, information: dict[str, Any]) -> None:
        """Take topics and times from metadata.yaml."""
        for each in information["topics_with_message_count"]:
            topic = each["topic_metadata"]["name"]
            self.topics[topic] = each["topic_metadata"]["type"]
            self.counts[topic] += int(each["message_count"])
        if information["message_count"]:
            self.start = int(information["starting_time"]["nanoseconds_since_epoch"])
            self.end = self.start + int(information["duration"]["nanoseconds"]) + 1

    def _scan(self) -> None:
        """Take topics and times from all files that can be read."""
        reasons = []
        for file in self._files:
            try:
                with self._reader(file) as reader:
                    for each in reader.connections:
                        self.topics[each.topic] = each.msgtype
                        self.counts[each.topic] += each.msgcount
                    if reader.message_count:
                        self.start = min(self.start, reader.start_time)
                        self.end = max(self.end, reader.end_time)
            except Exception as exc:  # rosbags raises any error for a damaged file
                reasons.append(f"{file}: {_reason(exc)}")
        if len(reasons) == len(self._files):
            raise ImageError(reasons[0])

    @contextlib.contextmanager
    def _reader(self, file: Path) -> Iterator[Any]:
        """Open one file of the bag.

        The reader of rosbags for directories opens all files at once, so a damaged one would
        prevent reading the others. It also skips topics whose QoS profiles are written in another
        form in the file than in metadata.yaml.
        """
        from rosbags.rosbag2 import Reader

        if file.suffix != COMPRESSED_FILE:
            with Reader(file) as reader:
                yield reader
            return
        with tempfile.TemporaryDirectory(prefix="kosmos-bag-") as folder:
            whole = Path(folder) / file.stem
            with _zstd().open(file, "rb") as packed, whole.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            with Reader(whole) as reader:
                yield reader

    def _unpack(self) -> Callable[[bytes], bytes]:
        """Return the function from a stored message to CDR. Raises ImageError if it is unknown."""
        information = self._information or {}
        mode = str(information.get("compression_mode") or "").lower()
        kind = str(information.get("compression_format") or "")
        if mode != "message":
            return bytes
        if kind != "zstd":
            raise ImageError(f"compression {quoted(kind)} is not supported; expected zstd")
        return _unpacked


def _message(
    connection: Any, time: int, data: bytes, unpack: Callable[[bytes], bytes]
) -> Message | Unreadable:
    topic = connection.topic
    try:
        return Message(topic, connection.msgtype, time, unpack(data), connection)
    except Exception as exc:  # the next message may be whole
        reason = first_line(exc)
        error = ImageError(f"its compressed bytes cannot be read: {reason}")
        return Unreadable(f"{topic} at {_seconds(time)}", error)


def _unpacked(data: bytes) -> bytes:
    """Return the CDR of a message that is compressed. Raises ImageError or zstd's error."""
    unpacking = _zstd().ZstdDecompressor()
    unpacked: bytes = unpacking.decompress(data, MAX_MESSAGE)
    if not unpacking.eof:
        raise ImageError(f"they are cut off, or expand to more than {MAX_MESSAGE / 1e6:.0f} MB")
    return unpacked


def _zstd() -> Any:
    """Return the module of Python's library, or its copy for older versions of Python."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


_ROOT = "rosbag2_bagfile_information"


def _information(path: Path) -> dict[str, Any] | None:
    """Return the contents of metadata.yaml; None if the recorder has not written it.

    Raises ConfigError if it is not that of a bag.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        return None
    try:
        return dict(YAML(typ="safe").load(path.read_text("utf-8"))[_ROOT])
    except (YAMLError, OSError, LookupError, TypeError, ValueError) as exc:
        raise _not_metadata(path, exc) from exc


def _not_metadata(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} is not the metadata of a bag: {type(error).__name__}: {first_line(error)}; run "
        f"`ros2 bag reindex {path.parent}`, or remove the file to read the bag without it"
    )


def is_storage(file: Path) -> bool:
    """Return whether a file has the name of one with messages."""
    name = file.with_suffix("") if file.suffix == COMPRESSED_FILE else file
    return name.suffix in STORAGES


def _number(file: Path) -> tuple[list[int], str]:
    """Return a key that sorts bag_2 before bag_10."""
    return [int(digits) for digits in re.findall(r"\d+", file.name)], file.name


def recording_of(files: Sequence[str]) -> tuple[str, int]:
    """Return the name of the recording whose numbered files these are, and the first number.

    rosbag2 numbers files from 0, after the name of the folder. The name is empty for other files.
    """
    parts = [re.fullmatch(r"(.+)_(\d+)\.(?:mcap|db3)(?:\.zstd)?", file) for file in files]
    names = {part[1] if part else "" for part in parts}
    if len(names) != 1:
        return "", 0
    return names.pop(), min(int(part[2]) if part else 0 for part in parts)


def _reason(error: Exception) -> str:
    text = one_line(f"{type(error).__name__}: {first_line(error)}", 300)
    if "magic is invalid" in text or "MCAP footer" in text:
        return f"{text.rstrip('.')}; if its recording was cut off, {RECOVER}"
    return text


def _unmerged(file: Path) -> str:
    """Return how to get messages of a database from its -wal file; empty: it has all."""
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size:
        return (
            f"its newest messages are in {log.name}, which is not read; "
            f"run `sqlite3 {file} 'PRAGMA wal_checkpoint(TRUNCATE)'`"
        )
    return ""


def _seconds(time: int) -> str:
    """Return nanoseconds as exact seconds."""
    whole, rest = divmod(time, 10**9)
    return f"{whole}.{rest:09d}"
