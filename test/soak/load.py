# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run kosmos_node among cameras, clients and a meddler, each in a process of its own.

Knows how processes are started, killed and watched; does not know what they do.
"""

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray
from kosmos_msgs.msg import GroundedCaption
from programs import PATIENCE, Program, parameters
from tqdm import tqdm

from soak import pictures
from soak.cameras import CAMERAS, COMPRESSED
from soak.ledger import Ledger
from soak.meddler import MOVES
from soak.player import Player
from soak.report import Row, slope

DISCOVERY = 5.0  # s for nodes of others
KILL_PERIOD = 4.0  # s between two kills of clients, on average
BURDENS = ("images", "kills", *MOVES)
"""Parts of the load that can be left out."""

COUNTS = ("described", "dropped", "failed")
"""Counts of frames in a camera's diagnostics."""

UNSENT = ("failed to send response (timeout)", "(the client may have gone away)")
"""Warnings of rclpy about clients that are gone or not discovered yet: services, actions."""

GOAL = re.compile(r"\[[\d ]+\]")
"""The name of a goal in reports of clients and in the log of rclpy's action server."""


class Member(Program):
    """A process of the soak and its reports, lines of JSON."""

    def __init__(self, module: str, *arguments: object) -> None:
        super().__init__(Path(sys.executable), "-u", "-m", f"soak.{module}", *arguments)
        self._read_so_far = 0
        self.noise: list[str] = []  # lines that are not JSON
        self.open = ""  # kind of the request that a client waits for

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield the reports since the last call."""
        while self._read_so_far < len(self.lines):
            line = self.lines[self._read_so_far]
            self._read_so_far += 1
            if not line.startswith("{"):
                self.noise.append(line)
                continue
            said = json.loads(line)
            if "playing" in said:
                continue
            if "sent" in said:
                self.open = said["kind"]
            elif said.keys() & {"answered", "refused", "lost", "wrong"}:
                self.open = ""
            yield said


class Watcher:
    """Captions and diagnostics that the node publishes."""

    def __init__(self, player: Player) -> None:
        self.captions = 0
        self.wrong: list[str] = []
        self.rates: list[float] = []  # Hz, arriving images of all cameras together
        self.counts: Counter[str] = Counter()
        self._last: dict[tuple[str, str], int] = {}
        for camera in CAMERAS:
            player.node.create_subscription(
                GroundedCaption, f"kosmos/{camera}/captions", self._on_caption, 10
            )
        player.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 10)

    def _on_caption(self, caption: GroundedCaption) -> None:
        self.captions += 1
        if fault := pictures.mistaken(caption, CAMERAS):
            self.wrong.append(fault)

    def _on_report(self, report: DiagnosticArray) -> None:
        rate = 0.0
        for status in report.status:
            values = {pair.key: pair.value for pair in status.values}
            if "described" not in values:
                continue
            known = values["image rate (Hz)"]
            rate += 0.0 if known == "unknown" else float(known)
            for name in COUNTS:
                self._count(status.name, name, int(values[name]))
        self.rates.append(rate)

    def _count(self, camera: str, name: str, value: int) -> None:
        """Add up a count that restarts with the model and is 0 while the node is inactive."""
        last = self._last.get((camera, name), 0)
        if value:
            self.counts[name] += value - last if value >= last else value
            self._last[camera, name] = value


class Body:
    """The resources of the node's process, sampled once a second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._begun = time.monotonic()
        # s, MB, MB of anonymous memory, threads, file descriptors
        self.samples: list[tuple[float, float, float, int, int]] = []

    def sample(self) -> None:
        """Take a sample if the last one is a second old. The process must be running."""
        now = time.monotonic() - self._begun
        if now < len(self.samples):
            return
        with self._process.oneshot():
            memory = self._process.memory_info()
            self.samples.append(
                (
                    now,
                    memory.rss / 1e6,
                    (memory.rss - memory.shared) / 1e6,
                    self._process.num_threads(),
                    self._process.num_fds(),
                )
            )

    def rows(self) -> Iterator[Row]:
        times, *columns = zip(*self.samples, strict=True)
        growth = slope(list(zip(times, columns[0], strict=True))) * 3600
        yield Row("memory, slope of the second half", growth, "MB/h")
        names = {"memory": "MB", "anonymous memory": "MB", "threads": "", "file descriptors": ""}
        for (name, unit), values in zip(names.items(), columns, strict=True):
            yield Row(f"{name}, first", values[0], unit)
            yield Row(f"{name}, last", values[-1], unit)
            yield Row(f"{name}, most", max(values), unit)


class Soak:
    """One run. `without` names the parts of the load to leave out."""

    def __init__(
        self, minutes: float, clients: int, seed: int, without: Collection[str] = ()
    ) -> None:
        self._without = without
        self._seconds = 60 * minutes
        self._rng = np.random.default_rng(seed)
        self._clients = clients
        self._ledger = Ledger()
        self._killed = self._born = 0
        self._noise: list[str] = []
        self._changes: Counter[str] = Counter()
        self._amiss: list[str] = []  # changes with another result than expected
        self._published: list[dict[str, Any]] = []
        self._members: list[Member] = []  # all running ones
        self._lasting: list[Member] = []  # clients that are never killed
        self._mortal: list[Member] = []  # clients that are killed one after the other
        self._next_death = time.monotonic() + KILL_PERIOD

    def run(self) -> Iterator[Row]:
        """Start all processes, wait, end them, and yield the rows of the table."""
        player = Player("soak")
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
        watcher = Watcher(player)
        _refuse_others(player, own=0)
        node = Program(
            "kosmos_node",
            *parameters(model="shapes", device="cpu", cameras=f"[{', '.join(CAMERAS)}]"),
            *("-p", f"{COMPRESSED[0]}.image_transport:=compressed"),
            *("--log-level", "kosmos.action_server:=debug"),
            env={**os.environ, "PYTHONWARNINGS": "always::RuntimeWarning"},
        )
        with node:
            try:
                node.says("active: ")
                # Nodes that were there before have been discovered when a new one has.
                player.until(lambda: _nodes(player), PATIENCE)
                _refuse_others(player, own=1)
                body = self._play(player, node)
                code = node.stop()
            finally:
                for member in self._members:
                    member.__exit__()
        yield Row("duration", body.samples[-1][0], "s")
        yield from self._frames(watcher)
        yield from self._ledger.rows()
        yield Row("clients killed while they waited", self._killed, "clients")
        for name in ("parameter", "invalid parameter", "state"):
            yield Row(f"changes: {name}", self._changes[name], "changes")
        yield Row("changes with a wrong result", len(self._amiss), "changes", True)
        yield from body.rows()
        yield Row("exit code at SIGINT", code, "", fault=True)
        tracebacks = sum("Traceback (most" in line for line in node.lines)
        unsent = sum(any(words in line for words in UNSENT) for line in node.lines)
        yield Row("responses to clients that were not connected", unsent, "responses")
        yield Row("tracebacks of the node", tracebacks, "", fault=True)
        broken = sum(line.startswith("Traceback") for line in self._noise)
        yield Row("tracebacks of other processes", broken, "", fault=True)
        self._tell(node, watcher)

    def _play(self, player: Player, node: Program) -> Body:
        *seeds, last = self._rng.integers(2**31, size=3)
        cameras = [
            self._start("cameras", seed, *names)
            for seed, names in zip(seeds, (CAMERAS[:2], CAMERAS[2:]), strict=True)
            if "images" not in self._without
        ]
        meddler = self._start("meddler", last, *MOVES.keys() & self._without)
        for number in range(self._clients):
            (self._mortal if number % 2 else self._lasting).append(self._client())
        for member in self._members:
            if not player.stopping:
                member.says('"playing"')
        body = Body(psutil.Process(node.process.pid))
        end = time.monotonic() + self._seconds
        with tqdm(total=round(self._seconds), unit="s", mininterval=1.0) as bar:
            while (left := end - time.monotonic()) > 0 and not player.stopping:
                player.pause(min(left, 0.2))
                if node.process.poll() is not None:
                    raise RuntimeError(f"the node ended early:\n{node.output[-3000:]}")
                body.sample()
                self._hear(meddler)
                self._cull()
                bar.update(min(round(self._seconds - left), bar.total) - bar.n)
                bar.set_postfix_str(
                    f"{self._ledger.answered.total()} answered, "
                    f"{self._ledger.refused.total()} refused, {body.samples[-1][1]:.0f} MB",
                    refresh=False,
                )
        # Clients end first: the node cannot respond to requests that it reads after its signal.
        self._end(meddler, *self._lasting, *self._mortal)
        self._hear(meddler)
        body.sample()
        self._end(*cameras)
        for camera in cameras:
            self._published += camera.news()
            self._noise += camera.noise
        return body

    def _hear(self, meddler: Member) -> None:
        for client in (*self._lasting, *self._mortal):
            self._account(client)
        for line in meddler.news():
            self._changes[line["changed"]] += 1
            if not line["fine"]:
                self._amiss.append(line["what"])
        self._noise += meddler.noise
        meddler.noise.clear()

    def _account(self, client: Member) -> None:
        for line in client.news():
            self._ledger.take(line)
        for line in client.noise:  # rclpy about a second response of an action
            if "Ignoring unexpected" in line:
                self._ledger.take({"twice": line})
        self._noise += client.noise
        client.noise.clear()

    def _cull(self) -> None:
        """Kill a waiting client at random times and start another one in its place."""
        waiting = [client for client in self._mortal if client.open]
        if "kills" in self._without or not waiting or time.monotonic() < self._next_death:
            return
        self._next_death = time.monotonic() + self._rng.exponential(KILL_PERIOD)
        client = pictures.one_of(waiting, self._rng)
        client.__exit__()
        self._account(client)  # its last report may be a response
        if client.open:
            self._ledger.forget(client.open)
            self._killed += 1
        self._members.remove(client)
        self._mortal[self._mortal.index(client)] = self._client()

    def _client(self) -> Member:
        self._born += 1
        return self._start("client", f"client_{self._born}", self._rng.integers(2**31))

    def _start(self, module: str, *arguments: object) -> Member:
        member = Member(module, *arguments)
        self._members.append(member)
        return member

    def _end(self, *members: Member) -> None:
        for member in members:
            member.says('"playing"')  # SIGINT during Python's start prints a traceback
            member.process.send_signal(signal.SIGINT)
        for member in members:
            if code := member.ends():
                self._noise.append(f"Traceback: {member.process.args} ended with {code}")

    def _frames(self, watcher: Watcher) -> Iterator[Row]:
        for line in self._published:
            yield Row(f"images published by {line['camera']}", line["published"], "images")
            yield Row(f"images a second of {line['camera']}", line["rate"], "Hz")
        yield Row("bad images published", sum(line["bad"] for line in self._published), "images")
        if watcher.rates:
            yield Row("images that arrive, all cameras", float(np.mean(watcher.rates)), "Hz")
        for name in COUNTS:
            yield Row(f"frames {name}", watcher.counts[name], "frames")
        yield Row("captions received", watcher.captions, "messages")
        yield Row("captions about a wrong frame", len(watcher.wrong), "messages", fault=True)

    def _tell(self, node: Program, watcher: Watcher) -> None:
        """Print the details of the faults to standard error."""
        for lines in (*self._ledger.faults.values(), watcher.wrong, self._amiss, self._noise):
            for line in lines[:20]:
                print(line, file=sys.stderr)
        for lost in self._ledger.faults["lost"]:
            for line in node.lines:
                if any(goal in line for goal in GOAL.findall(lost)):
                    print(line, file=sys.stderr)
        if any("Traceback (most" in line for line in node.lines):
            print(node.output[-5000:], file=sys.stderr)


def _nodes(player: Player) -> int:
    """Return how many nodes with the name of the node under test are discovered."""
    return player.node.get_node_names().count("kosmos")


def _refuse_others(player: Player, own: int) -> None:
    """Raise SystemExit if more than `own` nodes have the name of the node under test."""
    if player.until(lambda: _nodes(player) > own, 0.0 if own else DISCOVERY):
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        raise SystemExit(
            f"another node kosmos runs in ROS_DOMAIN_ID={domain}, and this run would disturb it; "
            "set ROS_DOMAIN_ID to a domain that nobody uses"
        )
