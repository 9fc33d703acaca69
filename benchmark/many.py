# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compare the rate of `kosmos bags --ray` for several numbers of workers with one process.

    python -m benchmark.many --bags 8 --frames 64 --workers 1 2

Each run describes the same bags with the embedded model on the CPU. A model computes with one
thread. "0 workers" is one process without Ray. The rate of n workers is n times the frames,
divided by the sum of the times that each had from its loaded model to the end of the last bag.
Ratios are those to the process without Ray in the same round. If other programs use the computer,
the CPU time says more than the rate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.bags import PERIOD, write
from kosmos_ros.commands import options as opts
from kosmos_ros.commands.tasks import Loader
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.offline.bags.cluster import Cluster
from kosmos_ros.offline.bags.job import Job
from kosmos_ros.offline.bags.many import Many, Record, find, one_after_the_other
from kosmos_ros.offline.bags.messages import COMPRESSED
from kosmos_ros.serving.node_settings import FIELDS, CameraSettings
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import moving_scene


def main() -> None:
    """Measure all numbers of workers in turn, and print the rates and their ratios."""
    parser = argparse.ArgumentParser(prog="benchmark.many", description=__doc__)
    parser.add_argument("--bags", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64, help="of each bag")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model: dict[str, Any] = {name: FIELDS[name].default for name in opts.MODEL}
    model |= {"model": "shapes", "device": "cpu", "threads": 1}
    wanted = argparse.Namespace(**model)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for number in range(options.bags):
            images = [render(moving_scene(number, n * PERIOD * 1e-9, *options.size))
                      for n in range(options.frames)]  # fmt: skip
            write(source / f"bag_{number}", images, COMPRESSED)
        job = Job(
            bag=source,
            out=source,
            settings=CameraSettings(),
            model="shapes",
            max_image_pixels=50_000_000,
        )
        many = _Many(source, source, job, model)
        ratios: dict[int, list[tuple[float, float]]] = {}
        for number in range(options.rounds):
            for count in (0, *options.workers):
                own = replace(many, out=Path(folder) / f"out_{number}_{count}")
                found = _measured(own, wanted, count)
                if not count:
                    alone = found
                ratio = found.rate / alone.rate, found.cpu / alone.cpu
                ratios.setdefault(count, []).append(ratio)
                print(
                    f"{count} workers: {found.rate:.3g} frames/s ({ratio[0]:.3f}), "
                    f"{1000 * found.cpu:.1f} ms of a core per frame ({ratio[1]:.3f}), "
                    f"models loaded after {found.start:.1f} s",
                    flush=True,
                )
    for count, values in ratios.items():
        for name, each in zip(("rate", "CPU time"), zip(*values, strict=True), strict=True):
            print(
                f"{count} workers, {name}: median {statistics.median(each):.3f} of one process, "
                f"{min(each):.3f} to {max(each):.3f}"
            )


class Measured(NamedTuple):
    """The figures of one run."""

    rate: float  # frames/s
    cpu: float  # s of a core for each frame, in the workers
    start: float  # s until each worker had its model


class _Loader(Loader):
    """Writes when it has loaded the model, in seconds of the computer's clock."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        super().__init__(options)
        self._folder = folder

    def __call__(self) -> Engine:
        if self.engine is None:
            super().__call__()
            (self._folder / f"{os.getpid()}.loaded").write_text(str(time.time()))
            (self._folder / f"{os.getpid()}.idle").write_text(str(time.process_time()))
        assert self.engine
        return self.engine


class _Many(Many):
    """Writes the CPU time of its process after each bag, in seconds."""

    def describe(self, name: str, engine: Callable[[], Engine], wait: float = 0.0) -> Record:
        record = super().describe(name, engine, wait)
        (self.out / f"{os.getpid()}.busy").write_text(str(time.process_time()))
        return record


def _measured(many: Many, options: argparse.Namespace, count: int) -> Measured:
    """Describe all bags with `count` workers of Ray, or with a count of 0 in this process."""
    many.out.mkdir()
    load, names, begun = _Loader(options, many.out), find(many.folder, print), time.time()
    if count:
        with Cluster(many, load, count=count) as cluster:
            found = list(cluster.describe(names))
            end = time.time()
    else:
        load()
        found = list(one_after_the_other(many, names, load))
        end = time.time()
    assert all(each["state"] == "done" for each in found), found
    frames = sum(each["frames"] for each in found)
    loaded, idle, busy = (
        [float(file.read_text()) for file in many.out.glob(f"*.{name}")]
        for name in ("loaded", "idle", "busy")
    )
    rate = len(loaded) * frames / sum(end - each for each in loaded)
    return Measured(rate, (sum(busy) - sum(idle)) / frames, max(loaded) - begun)


if __name__ == "__main__":
    main()
