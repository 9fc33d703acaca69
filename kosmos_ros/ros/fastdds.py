# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Whether Fast DDS's shared memory still leads to this process.

A process listens on ports, files in /dev/shm that others find by their names. Where processes are
killed and this one answers late, Fast DDS may take a port for a dead one's and put another file in
its place (is_zombie and open_port_internal of SharedMemGlobal.hpp). The listener keeps the old
file, and all that is sent to it on this computer is lost from then on, without a word.
Knows files of Linux's /proc; no topic.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

LOOKS = 10
"""On end that find a port replaced. A listener that hears of it has the new one sooner."""

FOLDER = Path("/dev/shm")
# Of ports that one process has to itself: those of many carry what goes by UDP as well.
_LOCK = re.compile(rf"{FOLDER}/(fast(?:rtps|dds)_port\d+)_el(?: \(deleted\))?")
_PORT = re.compile(rf" (\d+) +{FOLDER}/(fast(?:rtps|dds)_port\d+)(?: \(deleted\))?$", re.M)


class Ports:
    """Those that this process listens on, and no other."""

    def __init__(self) -> None:
        self._sound: dict[str, int | None] = {}  # inode of each that is mapped
        self._looks: dict[str, int] = {}  # that found each replaced

    def lost(self) -> str:
        """The name of one that the last LOOKS calls found replaced; empty: there is none.

        To be called every second or so.
        """
        found: dict[str, int | None] = {}
        with contextlib.suppress(OSError):  # no Linux
            found = {name: _inode(name) for name in _listened()}
            if found != self._sound:
                mapped = _mapped()
                self._sound = {
                    name: inode for name, inode in found.items() if (name, inode) in mapped
                }
        replaced = sorted(found.keys() - self._sound.keys())
        self._looks = {name: self._looks.get(name, 0) + 1 for name in replaced}
        return next((name for name, looks in self._looks.items() if looks >= LOOKS), "")


def _listened() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # such as that of the list itself
            if lock := _LOCK.fullmatch(os.readlink(f"/proc/self/fd/{number}")):
                yield lock[1]


def _mapped() -> set[tuple[str, int | None]]:
    """Name and inode of the ports that are in this process's memory."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return {(name, int(inode)) for inode, name in _PORT.findall(maps)}


def _inode(name: str) -> int | None:
    try:
        return (FOLDER / name).stat().st_ino
    except FileNotFoundError:
        return None
