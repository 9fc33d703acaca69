# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Give bags to the workers of a Ray cluster, each of which has one model.

Each worker is a Ray actor that gets one bag at a time. If Ray loses a worker or a whole computer,
the bag goes to another worker, which continues its unfinished results. Knows no command line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kosmos_ros.errors import ConfigError, DeviceLostError, KosmosError, ModelLoadError
from kosmos_ros.offline.bags.many import BUSY, LOCK_WAIT, Many, Record
from kosmos_ros.sanitize import one_line, quoted

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

LOCAL = "local"
"""Address that means a cluster on this computer, which ends with the command."""
MAX_TRIES = 3
"""Number of workers that end with the same bag before the bag fails, or while they load the model
before the command fails."""
NOTICE = 60.0  # s without a ready worker, before a message says what each worker needs
CONNECT_TIMEOUT = 10.0  # s
STORE = 100 << 20  # bytes of shared memory of a local cluster; records are small


class Cluster:
    """A connection to the cluster at `address`, with up to `count` workers (0: see `share`).

    Use it as a context manager. Raises ConfigError if there is no cluster at `address`.
    """

    def __init__(
        self,
        many: Many,
        load: Callable[[], Engine],
        address: str = LOCAL,
        count: int = 0,
        report: Callable[[str], None] = print,
    ) -> None:
        self._many, self._load, self._report = many, load, report
        self._ray = _connected(address)
        try:
            self._count, self._share = share(
                self._ray.cluster_resources(), many.model["device"], many.model["threads"], count
            )
        except ConfigError:
            self._ray.shutdown()
            raise
        self._waiting: deque[tuple[str, float]] = deque()  # bag, time to wait for its lock (s)
        self._idle: list[Any] = []  # workers
        self._running: dict[Any, tuple[Any, str, float]] = {}
        """By reference to its result: worker, bag or "" while it starts, time to wait."""
        self._ends: Counter[str] = Counter()  # by bag: workers that ended; "": while they started

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def describe(self, names: Sequence[str]) -> Iterator[Record]:
        """Yield the records of the bags as they come, the largest bags first.

        Raises the errors of `Many.describe`, except DeviceLostError: another worker continues.
        """
        self._waiting.extend(
            (name, 0.0) for name in sorted(names, key=self._many.size, reverse=True)
        )
        for _ in range(min(self._count, len(names))):
            self._start()
        left = len(names)
        while left:
            while self._idle and self._waiting:
                name, wait = self._waiting.popleft()
                worker = self._idle.pop()
                self._running[worker.describe.remote(name, wait)] = worker, name, wait
            done, _ = self._ray.wait([*self._running], timeout=NOTICE)
            if not done and not any(name for _, name, _ in self._running.values()):
                needed = ", ".join(f"{amount} {name}" for name, amount in self._share.items())
                self._report(
                    f"no worker is ready yet; each needs {needed} on one computer, and then "
                    "loads the model"
                )
            for each in done:
                if record := self._result(each):
                    left -= 1
                    yield record

    def _start(self) -> None:
        amounts = {f"num_{name.lower()}s": amount for name, amount in self._share.items()}
        worker = self._ray.remote(**amounts)(Worker).remote(self._many, self._load)
        # A worker has no bag until it has a place, a process and a model.
        self._running[worker.start.remote()] = worker, "", 0.0

    def _result(self, reference: Any) -> Record | None:
        """Return the record of a bag that needs no worker any more."""
        worker, name, wait = self._running.pop(reference)
        try:
            record: Record | None = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as exc:
            cause = exc.cause if isinstance(exc.cause, BaseException) else exc
            if isinstance(cause, KosmosError) and not isinstance(cause, DeviceLostError):
                raise cause from None
            return self._replace(worker, name, cause)
        except self._ray.exceptions.RayError as exc:
            return self._replace(worker, name, exc)
        self._idle.append(worker)
        if not name:
            self._ends[name] = 0
        if record and record["state"] == BUSY and not wait:
            self._waiting.append((name, LOCK_WAIT))
            return None
        return record

    def _replace(self, worker: Any, name: str, error: BaseException) -> Record | None:
        """Start another worker, and give it the bag. Return the record of a bag that failed."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker)  # it may still live; the lock of the bag keeps others away
        self._ends[name] += 1
        # Ray's errors have many lines; the last one is the cause.
        reason = one_line(str(error).strip().rpartition("\n")[2], 200)
        if self._ends[name] == MAX_TRIES:
            if not name:
                raise ModelLoadError(
                    f"{MAX_TRIES} workers ended before they had a model: {reason}"
                )
            record: Record | None = self._many.give_up(
                name, f"{MAX_TRIES} workers ended while they described it; the last: {reason}"
            )
        else:
            record = None
            if name:
                self._report(f"{name}: its worker ended, another one continues: {reason}")
                self._waiting.appendleft((name, 0.0))
        if self._waiting:
            self._start()
        return record


class Worker:
    """One model, in a process of its own. Ray starts it."""

    def __init__(self, many: Many, load: Callable[[], Engine]) -> None:
        self._many, self._load = many, load

    def start(self) -> None:
        """Load the model. Raises its errors."""
        self._load()

    def describe(self, name: str, wait: float) -> Record:
        """Return the record of a bag; see Many.describe."""
        return self._many.describe(name, self._load, wait)


def share(
    resources: dict[str, float], device: str, threads: int, count: int
) -> tuple[int, dict[str, int]]:
    """Return the number of workers and the resources of each.

    Each gets one GPU and one CPU if the cluster has GPUs and `device` allows one. Otherwise each
    gets `threads` CPUs, at least one. `count`, if it is not 0, is the number of workers.
    Raises ConfigError if the cluster has too little for one.
    """
    gpus = int(resources.get("GPU", 0))
    if device.startswith("cuda:"):
        raise ConfigError(f"--device must be auto, cpu or cuda with --ray, got {device}")
    if device != "cpu" and gpus:
        return count or gpus, {"CPU": 1, "GPU": 1}
    if device == "cuda":
        raise ConfigError("the cluster has no GPU for --device cuda; expected auto or cpu")
    cores, all_cores = max(1, threads), int(resources.get("CPU", 0))
    if cores > all_cores:
        raise ConfigError(
            f"a worker needs {cores} CPU cores, the cluster has {all_cores}; lower --threads, or "
            "add computers"
        )
    return count or all_cores // cores, {"CPU": cores}


def _connected(address: str) -> Any:
    """Return the module ray, connected to a cluster. Raises ConfigError."""
    # Ray reads the environment when it is imported and when its processes start.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    local: dict[str, Any] = {}
    if address == LOCAL:
        # Ray listens on all network addresses, and whoever reaches it runs code.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once
        cores = len(os.sched_getaffinity(0))
        local = {"include_dashboard": False, "num_cpus": cores, "object_store_memory": STORE}
    else:
        _check_reachable(address)
    import ray

    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as exc:
        reason = one_line(exc, 300)
        if local:
            raise ConfigError(f"Ray does not start on this computer: {reason}") from exc
        raise ConfigError(f"no Ray cluster answers at --ray {address}: {reason}") from exc
    return ray


def _check_reachable(address: str) -> None:
    """Raise ConfigError if nothing listens at `address`. Ray would try for ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
    except ValueError as exc:
        raise ConfigError(
            f"--ray must be HOST:PORT of the head node of a cluster, got {quoted(address)}"
        ) from exc
    except OSError as exc:
        raise ConfigError(
            f"no Ray cluster answers at --ray {address}: {exc.strerror or exc}; start it with "
            f"`ray start --head --port {port}`, or leave the address out"
        ) from exc
