# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command line of the benchmark: what is measured, in which order, and where it goes."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from benchmark import engine_rows, node_rows, subjects
from benchmark.report import Row, plot, table, write_json

Part = tuple[str, Callable[[], Iterable[Row]]]


def main() -> None:
    """Measure, print a table, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the embedded model alone, few runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="write pictures of them")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="of the processor, for both")
    options = parser.parse_args()
    rows: list[Row] = []
    try:
        for name, title in (("embedded", "Embedded model"), ("full", "Full size, random weights")):
            if name == "full" and options.quick:
                continue
            begun = len(rows)
            _measure(_embedded(options) if name == "embedded" else _full(options), rows)
            if options.plots:
                options.plots.mkdir(parents=True, exist_ok=True)
                where = _machine(options)["device" if options.device != "cpu" else "processor"]
                file = options.plots / f"benchmark-{name}.png"
                plot(rows[begun:], f"{title}: {where}", file)
    finally:  # what was measured before a part that fails, or Ctrl-C
        print(table(rows))
        if options.json:
            write_json(rows, _machine(options), options.json)


def _measure(parts: list[Part], rows: list[Row]) -> None:
    """Append to `rows` what each part gives."""
    bar = tqdm(parts, unit="part")
    for name, part in bar:
        bar.set_postfix_str(name)
        rows += part()


def _embedded(options: argparse.Namespace) -> list[Part]:
    subject = subjects.embedded(options.device, options.threads)
    runs = 7 if options.quick else 40
    return [
        ("latency", lambda: engine_rows.latency(subject, runs)),
        ("one more token", lambda: engine_rows.decode(subject, runs)),
        ("cameras", lambda: engine_rows.cameras(subject, max(3, runs // 5))),
        ("phrases", lambda: engine_rows.phrases(subject, max(3, runs // 8))),
        ("stages", lambda: engine_rows.stages(subject, runs)),
        ("load", lambda: engine_rows.load(subject, 10 if options.quick else 60)),
        ("agreement", lambda: engine_rows.agreement(subject, 40 if options.quick else 2000)),
        ("memory", lambda: engine_rows.memory(subject)),
        ("overhead", lambda: node_rows.overhead(subject, runs)),
        ("dropped frames", lambda: node_rows.dropped(4.0 if options.quick else 20.0)),
    ]


def _full(options: argparse.Namespace) -> list[Part]:
    torch.set_num_threads(options.threads)
    subject = subjects.full(options.device)
    on_gpu = subject.model.device.type == "cuda"
    runs = 30 if on_gpu else 3
    return [
        ("latency", lambda: engine_rows.latency(subject, runs)),
        ("one more token", lambda: engine_rows.decode(subject, runs)),
        ("Florence-2", lambda: engine_rows.peer(runs, subject)),
        ("cameras", lambda: engine_rows.cameras(subject, max(1, runs // 5), 16 if on_gpu else 1)),
        ("phrases", lambda: engine_rows.phrases(subject, max(1, runs // 5), 50 if on_gpu else 1)),
        ("stages", lambda: engine_rows.stages(subject, runs)),
        ("agreement", lambda: engine_rows.agreement(subject, 20)),
        ("memory", lambda: engine_rows.memory(subject)),
        ("quantized weights", lambda: engine_rows.quantized(subject, runs)),
    ]


def _machine(options: argparse.Namespace) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.partition(": ")[2] for line in lines if "model name" in line), "")
    cuda = options.device.startswith("cuda")
    return {
        "processor": processor or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(options.device) if cuda else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
