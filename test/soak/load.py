# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos_node as a process among cameras, clients and a meddler, each a process of its own.

Knows how they are started, killed and watched; what they do is theirs.
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
from programs import Program, parameters
from tqdm import tqdm

from soak import pictures
from soak.cameras import CAMERAS, COMPRESSED
from soak.ledger import Ledger
from soak.meddler import MOVES
from soak.player import Player
from soak.report import Row, slope

LOOK = 2.0  # s, for nodes of others
KILL_PERIOD = 4.0  # s between two clients that are killed, on average
BURDENS = ("images", "kills", *MOVES)
"""What can be left out, to see what the rest does."""

COUNTS = ("described", "dropped", "failed")
"""Counts of frames in a camera's diagnostics."""

UNSENT = ("failed to send response (timeout)", "(the client may have gone away)")
"""What rclpy warns of where a client is gone, or not known yet: of services, of actions."""

GOAL = re.compile(r"\[[\d ]+\]")
"""The name of a goal, in what a client and rclpy's action server say."""

ALONE = {"start_new_session": True}
"""Of each process, so that Ctrl-C reaches the soak alone, which then ends it in order."""


class Member(Program):
    """A process of the soak, and the lines of JSON that it says."""

    def __init__(self, module: str, *arguments: object) -> None:
        super().__init__(Path(sys.executable), "-u", "-m", f"soak.{module}", *arguments, **ALONE)
        self._read_so_far = 0
        self.noise: list[str] = []  # lines that are no JSON
        self.open = ""  # kind of a client's request that waits

    def news(self) -> Iterator[dict[str, Any]]:
        """Lines that have come since the last call."""
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
    """What the node says by itself: captions of its frames, and counts of them."""

    def __init__(self, player: Player) -> None:
        self.captions = 0
        self.wrong: list[str] = []
        self.rates: list[float] = []  # Hz, images that arrive, over all cameras
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
            rate += float(values["image rate (Hz)"])
            for name in COUNTS:
                self._count(status.name, name, int(values[name]))
        self.rates.append(rate)

    def _count(self, camera: str, name: str, value: int) -> None:
        """Of a count that begins again with the model, and reads 0 while the node pauses."""
        last = self._last.get((camera, name), 0)
        if value:
            self.counts[name] += value - last if value >= last else value
            self._last[camera, name] = value


class Body:
    """What the node's process takes, each second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._begun = time.monotonic()
        # s, MB, MB of it that is anonymous, threads, descriptors
        self.samples: list[tuple[float, float, float, int, int]] = []

    def sample(self) -> None:
        """Once a second, however often it is called; not after its end."""
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
    """One run, without the burdens of BURDENS that are named."""

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
        self._amiss: list[str] = []  # changes that did not come as they should
        self._published: list[dict[str, Any]] = []
        self._members: list[Member] = []  # all that are there
        self._lasting: list[Member] = []  # clients
        self._mortal: list[Member] = []  # clients that are killed, one after the other
        self._next_death = time.monotonic() + KILL_PERIOD

    def run(self) -> Iterator[Row]:
        """Start all, wait, end all, and give the figures."""
        player = Player("soak")
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
        watcher = Watcher(player)
        player.pause(LOOK)
        if "kosmos" in player.node.get_node_names():
            raise SystemExit(
                "there is a node kosmos already, which this would disturb: "
                f"ROS_DOMAIN_ID={os.environ.get('ROS_DOMAIN_ID', '0')} must be this run's own"
            )
        node = Program(
            "kosmos_node",
            *parameters(model="shapes", device="cpu", cameras=f"[{', '.join(CAMERAS)}]"),
            *("-p", f"{COMPRESSED[0]}.image_transport:=compressed"),
            *("--log-level", "kosmos.action_server:=debug"),
            env={**os.environ, "PYTHONWARNINGS": "always::RuntimeWarning"},
            **ALONE,
        )
        with node:
            try:
                node.says("active: ")
                body = Body(psutil.Process(node.process.pid))
                self._play(player, node, body)
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
        yield Row("changes that did not come as they should", len(self._amiss), "changes", True)
        yield from body.rows()
        yield Row("exit code at SIGINT", code, "", fault=True)
        tracebacks = sum("Traceback (most" in line for line in node.lines)
        unsent = sum(any(words in line for words in UNSENT) for line in node.lines)
        yield Row("responses to clients that were not connected", unsent, "responses")
        yield Row("tracebacks of the node", tracebacks, "", fault=True)
        broken = sum(line.startswith("Traceback") for line in self._noise)
        yield Row("tracebacks of the others", broken, "", fault=True)
        self._tell(node, watcher)

    def _play(self, player: Player, node: Program, body: Body) -> None:
        *seeds, last = self._rng.integers(2**31, size=3)
        cameras = [
            self._start("cameras", seed, *names)
            for seed, names in zip(seeds, (CAMERAS[:2], CAMERAS[2:]), strict=True)
            if "images" not in self._without
        ]
        meddler = self._start("meddler", last, *MOVES.keys() & self._without)
        for number in range(self._clients):
            (self._mortal if number % 2 else self._lasting).append(self._client())
        end = time.monotonic() + self._seconds
        with tqdm(total=round(self._seconds), unit="s", mininterval=1.0) as bar:
            while (left := end - time.monotonic()) > 0 and not player.stopping:
                player.pause(min(left, 0.2))
                if node.process.poll() is not None:
                    raise RuntimeError(f"the node ended:\n{node.output[-3000:]}")
                body.sample()
                self._hear(meddler)
                self._cull()
                bar.update(min(round(self._seconds - left), bar.total) - bar.n)
                bar.set_postfix_str(
                    f"{self._ledger.answered.total()} answered, "
                    f"{self._ledger.refused.total()} refused, {body.samples[-1][1]:.0f} MB",
                    refresh=False,
                )
        # Requests that the node has not read when its signal comes have no answer.
        self._end(meddler, *self._lasting, *self._mortal)
        self._hear(meddler)
        body.sample()
        self._end(*cameras)
        for camera in cameras:
            self._published += camera.news()
            self._noise += camera.noise

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
        for line in client.noise:  # a second response of an action's service
            if "Ignoring unexpected" in line:
                self._ledger.take({"twice": line})
        self._noise += client.noise
        client.noise.clear()

    def _cull(self) -> None:
        """Now and then kill a client while it waits, and start another one in its place."""
        waiting = [client for client in self._mortal if client.open]
        if "kills" in self._without or not waiting or time.monotonic() < self._next_death:
            return
        self._next_death = time.monotonic() + self._rng.exponential(KILL_PERIOD)
        client = pictures.one_of(waiting, self._rng)
        client.__exit__()
        self._account(client)  # its last words may be an answer
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
            member.says('"playing"')  # before, SIGINT is a traceback of Python's start
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
            yield Row("images that arrive, of all cameras", float(np.mean(watcher.rates)), "Hz")
        for name in COUNTS:
            yield Row(f"frames {name}", watcher.counts[name], "frames")
        yield Row("captions heard", watcher.captions, "messages")
        yield Row("captions about a wrong frame", len(watcher.wrong), "messages", fault=True)

    def _tell(self, node: Program, watcher: Watcher) -> None:
        """On standard error, what the faults are about."""
        for lines in (*self._ledger.faults.values(), watcher.wrong, self._amiss, self._noise):
            for line in lines[:20]:
                print(line, file=sys.stderr)
        for lost in self._ledger.faults["lost"]:
            for line in node.lines:
                if any(goal in line for goal in GOAL.findall(lost)):
                    print(line, file=sys.stderr)
        if any("Traceback (most" in line for line in node.lines):
            print(node.output[-5000:], file=sys.stderr)
