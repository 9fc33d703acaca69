# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detect that data in Fast DDS's shared memory no longer reaches this process.

A process listens on ports, which are files in /dev/shm that other processes find by name. If
another process is killed and this one responds late, Fast DDS may mistake one of its ports for a
dead process's port and replace the file (is_zombie and open_port_internal of SharedMemGlobal.hpp).
The listener keeps the old file, and all data sent to it on this computer is lost without an error.
Knows Linux's /proc; knows no topics.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

LOOKS = 10
"""Consecutive calls that must find a port replaced.

A listener that Fast DDS notifies opens the new file sooner.
"""

FOLDER = Path("/dev/shm")
# Ports of one process only: everything sent to a shared port also goes by UDP.
_LOCK = re.compile(rf"{FOLDER}/(fast(?:rtps|dds)_port\d+)_el(?: \(deleted\))?")
_PORT = re.compile(rf" (\d+) +{FOLDER}/(fast(?:rtps|dds)_port\d+)(?: \(deleted\))?$", re.M)


class Ports:
    """The shared-memory ports on which only this process listens."""

    def __init__(self) -> None:
        self._intact: dict[str, int | None] = {}  # port's name: inode of the file that is mapped
        self._looks: dict[str, int] = {}  # port's name: consecutive calls that found it replaced

    def lost(self) -> str:
        """Return a port that the last LOOKS calls found replaced; empty if there is none.

        Call this about once a second.
        """
        found: dict[str, int | None] = {}
        with contextlib.suppress(OSError):  # not Linux
            found = {name: _inode(name) for name in _listened()}
            if found != self._intact:
                mapped = _mapped()
                self._intact = {
                    name: inode for name, inode in found.items() if (name, inode) in mapped
                }
        replaced = sorted(found.keys() - self._intact.keys())
        self._looks = {name: self._looks.get(name, 0) + 1 for name in replaced}
        return next((name for name, looks in self._looks.items() if looks >= LOOKS), "")


def _listened() -> Iterator[str]:
    """Yield the names of the ports whose lock files this process has open."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, such as that of listdir
            if lock := _LOCK.fullmatch(os.readlink(f"/proc/self/fd/{number}")):
                yield lock[1]


def _mapped() -> set[tuple[str, int | None]]:
    """Return the names and inodes of the ports that are mapped into this process's memory."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return {(name, int(inode)) for inode, name in _PORT.findall(maps)}


def _inode(name: str) -> int | None:
    try:
        return (FOLDER / name).stat().st_ino
    except FileNotFoundError:
        return None
