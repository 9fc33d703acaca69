# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compare the engine and the node with Hugging Face's generate on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from benchmark import engine, serving, streams, subjects
from benchmark.report import Result, plot, table, write_json
from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2 import loading

Part = tuple[str, Callable[[], Iterable[Result]]]


def main() -> None:
    """Measure, print a table, and write the files that the options name."""
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__)
    parser.add_argument(
        "--engine", action="store_true", help="only the engine, few runs; needs no ROS"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only the embedded model, few runs and prompts"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="write plots of them")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="CPU threads of both models")
    options = parser.parse_args()
    options.few = options.quick or options.engine
    try:
        _check(options)
    except (KosmosError, OSError) as exc:
        parser.error(str(exc))
    results: list[Result] = []
    subjects_of = [("embedded", "Embedded model"), ("full", "Full size, random weights")]
    if options.engine:
        subjects_of.reverse()  # the more important one first, if the time on a GPU is short
    try:
        for name, title in subjects_of:
            if name == "full" and options.quick:
                continue
            begun = len(results)
            parts = _embedded(options) if name == "embedded" else _full(options)
            if name == "embedded" and not options.engine:
                parts += _node(options)
            _measure(parts, results, options)
            if options.plots:
                where = _machine(options)["device" if options.device != "cpu" else "processor"]
                file = options.plots / f"benchmark-{name}.png"
                plot(results[begun:], f"{title}: {where}", file)
        if options.json:
            write_json(results, _machine(options), options.json, complete=True)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:  # after a failure or Ctrl-C, print the results so far
        if results:
            print(table(results))


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError or OSError now, not after minutes, for a wrong device or output."""
    loading._device(options.device)
    if options.json:
        options.json.open("a", encoding="utf-8").close()
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots).close()


def _measure(parts: list[Part], results: list[Result], options: argparse.Namespace) -> None:
    """Run the parts and append their results to `results`, and to the JSON file if any."""
    bar = tqdm(parts, unit="part")
    for name, part in bar:
        bar.set_postfix_str(name)
        results += part()
        if options.json:  # now, because a later part may be killed
            write_json(results, _machine(options), options.json, complete=False)


def _embedded(options: argparse.Namespace) -> list[Part]:
    subject = subjects.embedded(options.device, options.threads)
    runs = 7 if options.few else 40
    return [
        ("agreement", lambda: engine.agreement(subject, 40 if options.few else 2000)),
        ("joins", lambda: engine.joins(subject, 40 if options.few else 300)),
        ("closeness", lambda: engine.closeness(subject, engine.TOKENS)),
        ("latency", lambda: engine.latency(subject, runs)),
        ("one more token", lambda: engine.decode(subject, runs)),
        ("additions to a step", lambda: engine.additions(subject, 10 * runs)),
        ("streams", lambda: streams.streams(subject, 8 if options.few else 48)),
        ("cameras", lambda: engine.cameras(subject, max(3, runs // 5))),
        ("streams of cameras", lambda: streams.cameras(subject, max(3, runs // 5))),
        ("phrases", lambda: engine.phrases(subject, max(3, runs // 8))),
        ("stages", lambda: engine.stages(subject, runs)),
        ("load", lambda: serving.load(subject, 10 if options.few else 60)),
        ("memory", lambda: engine.memory(subject)),
    ]


def _node(options: argparse.Namespace) -> list[Part]:
    from benchmark import node, page  # they need ROS

    subject = subjects.embedded(options.device, options.threads)
    seconds = 4.0 if options.few else 20.0
    return [
        ("overhead", lambda: node.overhead(subject, 7 if options.few else 40)),
        ("dropped frames", lambda: node.dropped(seconds)),
        ("idle node", lambda: node.idle(seconds)),
        ("page", lambda: page.page(10 if options.few else 40, seconds)),
        ("decoding", lambda: serving.decoding(subject, seconds)),
    ]


def _full(options: argparse.Namespace) -> list[Part]:
    torch.set_num_threads(options.threads)
    subject = subjects.full(options.device)
    on_gpu = subject.model.device.type == "cuda"
    runs = (7 if options.few else 30) if on_gpu else 3
    cameras, turns = (16, max(3, runs // 5)) if on_gpu else (1, 1)
    return [
        ("agreement", lambda: engine.agreement(subject, 20)),
        ("joins", lambda: engine.joins(subject, 60 if on_gpu else 4)),
        ("closeness", lambda: engine.closeness(subject, engine.TOKENS)),
        ("latency", lambda: engine.latency(subject, runs)),
        ("one more token", lambda: engine.decode(subject, runs)),
        ("additions to a step", lambda: engine.additions(subject, runs)),
        ("Florence-2", lambda: engine.peer(runs, subject)),
        ("streams", lambda: streams.streams(subject, runs)),
        ("cameras", lambda: engine.cameras(subject, turns, cameras)),
        *on_gpu * [("streams of cameras", lambda: streams.cameras(subject, runs))],
        ("phrases", lambda: engine.phrases(subject, turns, 50 if on_gpu else 1)),
        ("stages", lambda: engine.stages(subject, runs)),
        *on_gpu * [("load", lambda: serving.load(subject, 10 if options.few else 60))],
        ("memory", lambda: engine.memory(subject)),
        ("quantized weights", lambda: engine.quantized(subject, runs)),
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
