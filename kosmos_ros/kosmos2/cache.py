# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the files of one commit of a model in the cache of huggingface_hub.

`blobs` contains the files, named by hash. `snapshots/COMMIT` links to them. `refs` contains the
commits of branches. Writes only there and removes only blobs and links, whatever a hub lists and
whatever links the cache contains. Knows no names of models and no lists of a hub.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from kosmos_ros.errors import ModelLoadError, UnreachableError
from kosmos_ros.kosmos2 import download

COMMIT = re.compile("[0-9a-f]{40}")
HASHES = {"SHA-256": re.compile("[0-9a-f]{64}"), "SHA-1 of git": COMMIT}
HASH_CHUNK = 1 << 20  # bytes that are hashed at a time
PROGRESS = 1 << 20  # bytes that a lost connection must have delivered for a download to reconnect


@dataclass(frozen=True)
class Entry:
    """A file as the hub lists it."""

    name: str
    size: int  # bytes
    hash: str  # hexadecimal
    kind: str  # kind of the hash, a key of HASHES: SHA-256 of the file, or git's SHA-1


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model in the cache.

    Methods raise ModelLoadError and UnreachableError like `download.append`, and OSError if the
    disk fails.
    """

    repo: Path  # the folder of the model
    commit: str  # 40 hexadecimal digits

    @property
    def folder(self) -> Path:
        """The folder with links to the files of this commit."""
        return self.repo / "snapshots" / self.commit

    def complete(self, entry: Entry, path: str, here: Callable[[int], object]) -> None:
        """Download a file from a path on the hub if it is missing or damaged, and link to it.

        Calls `here` with the number of its bytes on this machine whenever a piece arrives.
        """
        link = self._make("snapshots", self.commit) / entry.name
        blob = self._make("blobs") / entry.hash
        if _sound(link, entry):
            return
        part = blob.with_name(f"{entry.hash}.part")
        with _locked(part) as file:
            if not blob.is_symlink() and _sound(blob, entry):
                part.unlink()
            else:
                blob.unlink(missing_ok=True)
                self._download(path, file, part, entry, here)
                part.rename(blob)
        try:
            self._put(link, lambda new: new.symlink_to(f"../../blobs/{entry.hash}"))
        except OSError:  # FAT and some network shares have no links
            blob.replace(link)

    def name(self, revision: str) -> None:
        """Record that a branch or tag refers to this commit."""
        *above, name = revision.split("/")
        path = self._make("refs", *above) / name
        self._put(path, lambda new: new.write_text(self.commit))

    def _make(self, *names: str) -> Path:
        """Return a folder of the cache; make it if it is missing."""
        folder = self.repo
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder = folder / name
            if folder.is_symlink():
                raise ModelLoadError(f"{folder} must be a folder, got a link; remove it")
            folder.mkdir(exist_ok=True)
        return folder

    def _download(
        self,
        path: str,
        file: io.FileIO,
        part: Path,
        entry: Entry,
        here: Callable[[int], object],
    ) -> None:
        """Complete the file at `part` and check it. Resumes where a killed process stopped."""
        expected = {"etag": entry.hash, "x-repo-commit": self.commit}
        if file.seek(0, os.SEEK_END) > entry.size:
            file.truncate(0)
        with _bar(entry.name, entry.size) as bar:

            def count(piece: int) -> None:
                bar.update(piece)
                here(file.tell())

            while (size := file.seek(0, os.SEEK_END)) < entry.size:
                bar.update(size - bar.n)
                here(size)
                try:
                    download.append(path, file, entry.size, expected, count)
                except UnreachableError:
                    if file.tell() - size < PROGRESS:
                        raise
        got = _hash(part, entry)
        if got != entry.hash:
            part.unlink()
            raise ModelLoadError(
                f"{entry.name} must have the {entry.kind} {entry.hash}, got {got}; it was removed"
            )

    def _put(self, path: Path, make: Callable[[Path], object]) -> None:
        """Replace a file or link by the one that `make` creates. Does not follow the old link."""
        with tempfile.TemporaryDirectory(dir=self.repo / "blobs") as folder:
            new = Path(folder, "new")
            make(new)
            new.replace(path)


@contextmanager
def _locked(part: Path) -> Iterator[io.FileIO]:
    """Open a file for one process at a time. A file that has a second hard link is replaced."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    while True:
        with open(os.open(part, flags, 0o666), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink > 1:
                part.unlink(missing_ok=True)
            elif _same(part, file):  # the process that held the lock may have renamed the file
                yield file
                return


def _same(path: Path, file: io.FileIO) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sound(path: Path, entry: Entry) -> bool:
    """Return whether a file has the listed contents."""
    return (
        path.is_file() and path.stat().st_size == entry.size and _hash(path, entry) == entry.hash
    )


def _hash(path: Path, entry: Entry) -> str:
    # git also hashes a header: git-scm.com/book, "Git Internals - Git Objects".
    header = b"blob %d\0" % entry.size
    digest = hashlib.sha256() if entry.kind == "SHA-256" else hashlib.sha1(header)
    with path.open("rb") as file, _bar(f"check {entry.name}", entry.size) as bar:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _bar(name: str, size: int) -> tqdm:
    # None: show the bar only in a terminal.
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None)
