# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Whether Fast DDS's shared memory still leads to this process.

A process listens on ports, files in /dev/shm that others find by their names. Where processes are
killed and this one answers late, Fast DDS 2.14 may take a port for a dead one's and put another
file in its place (is_zombie and open_port_internal of SharedMemGlobal.hpp). The listener keeps the
old file, and all that is sent to it on this computer is lost from then on, without a word.
Knows files of Linux's /proc; no topic.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

LASTING = 5.0
"""Seconds after which a listener has not found the new file by itself: it looks after 1.3."""

FOLDER = Path("/dev/shm")
_LOCK = re.compile(rf"{FOLDER}/(fast(?:rtps|dds)_port\d+)_[es]l(?: \(deleted\))?")
_PORT = re.compile(rf" (\d+) +{FOLDER}/(fast(?:rtps|dds)_port\d+)(?: \(deleted\))?$", re.M)


class Ports:
    """Those that this process listens on."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # s, when each was seen to be replaced

    def lost(self, now: float) -> str:
        """The name of one that has been replaced for LASTING seconds; empty: there is none.

        `now` is in seconds; to be called every second or so.
        """
        self._since = {name: self._since.get(name, now) for name in replaced()}
        return next((name for name, since in self._since.items() if now - since >= LASTING), "")


def replaced() -> list[str]:
    """Names of ports that this process listens on, and of whose file it has another one."""
    try:
        locks = [_LOCK.fullmatch(link) for link in _links()]
        mapped: dict[str, set[int]] = defaultdict(set)
        for inode, name in _PORT.findall(Path("/proc/self/maps").read_text(encoding="utf-8")):
            mapped[name].add(int(inode))
    except OSError:  # no Linux
        return []
    listened = {lock[1] for lock in locks if lock}
    return sorted(name for name in listened & mapped.keys() if _inode(name) not in mapped[name])


def _links() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # such as that of the list itself
            yield os.readlink(f"/proc/self/fd/{number}")


def _inode(name: str) -> int | None:
    try:
        return (FOLDER / name).stat().st_ino
    except OSError:
        return None
