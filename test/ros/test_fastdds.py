# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A shared-memory port whose file was replaced is found, and only after several looks."""

import mmap
import os
from pathlib import Path

import pytest

from kosmos_ros.ros.fastdds import FOLDER, LOOKS, Ports

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this is not Linux")


class Port:
    """A port of this process as Fast DDS makes it: a mapped file, and an open lock file."""

    def __init__(self, name):
        self.name = name
        self.file, self.lock = FOLDER / name, FOLDER / f"{name}_el"
        self.map = self._map()
        self.descriptor = os.open(self.lock, os.O_CREAT | os.O_RDWR)

    def _map(self):
        self.file.write_bytes(bytes(mmap.PAGESIZE))
        with self.file.open("r+b") as file:
            return mmap.mmap(file.fileno(), 0)

    def replace(self):
        """Put another file in its place, as another process would."""
        self.file.unlink()
        self.file.write_bytes(bytes(mmap.PAGESIZE))

    def reopen(self):
        self.map.close()
        self.map = self._map()

    def close(self):
        self.map.close()
        os.close(self.descriptor)
        self.file.unlink(missing_ok=True)
        self.lock.unlink(missing_ok=True)


@pytest.fixture(params=["fastdds", "fastrtps"])
def port(request):
    port = Port(f"{request.param}_port{10_000_000 + os.getpid()}")
    yield port
    port.close()


def test_an_intact_port_is_not_lost(port):
    ports = Ports()
    assert [ports.lost() for _ in range(2 * LOOKS)] == [""] * (2 * LOOKS)


def test_a_replaced_port_is_lost_after_ten_looks(port):
    ports = Ports()
    assert ports.lost() == ""
    port.replace()
    assert [ports.lost() for _ in range(LOOKS)] == [""] * (LOOKS - 1) + [port.name]


def test_a_deleted_port_is_lost_too(port):
    ports = Ports()
    port.file.unlink()
    assert [ports.lost() for _ in range(LOOKS)] == [""] * (LOOKS - 1) + [port.name]


def test_a_port_that_is_opened_again_in_time_is_not_lost(port):
    ports = Ports()
    port.replace()
    assert [ports.lost() for _ in range(LOOKS - 1)] == [""] * (LOOKS - 1)
    port.reopen()
    assert ports.lost() == ""
    port.replace()
    assert [ports.lost() for _ in range(LOOKS - 1)] == [""] * (LOOKS - 1)


def test_without_proc_no_port_is_lost(port, monkeypatch):
    def missing(_):
        raise FileNotFoundError("/proc/self/fd")

    ports = Ports()
    monkeypatch.setattr(os, "listdir", missing)
    assert [ports.lost() for _ in range(LOOKS)] == [""] * LOOKS
