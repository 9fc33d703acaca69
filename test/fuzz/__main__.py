# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Search for inputs that break the code that reads external data; print a table."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import fuzz
from fuzz.findings import MARK

PATIENCE = 60  # s, far longer than one input takes


@dataclass(frozen=True)
class Result:
    """The result of one target."""

    target: str
    inputs: int
    seconds: float
    findings: int


def main():
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"any of {', '.join(fuzz.TARGETS)}; default: all",
    )
    parser.add_argument(
        "--runs", type=int, default=0, help="inputs for each; 0: the target's own number"
    )
    parser.add_argument("--seconds", type=int, default=0, help="limit for each; 0: none")
    parser.add_argument("--seed", type=int, default=1, help="seed, 1 or more")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(fuzz.TARGETS):
        parser.error(f"TARGET must be one of {', '.join(fuzz.TARGETS)}; got {', '.join(unknown)}")
    if options.runs < 0 or options.seed < 1 or options.seconds < 0:
        parser.error("--runs and --seconds must be at least 0, --seed at least 1")
    results = [hunt(target, options) for target in options.targets or fuzz.TARGETS]
    print("| target | inputs | a second | findings |\n|---|---|---|---|")
    for result in results:
        rate = result.inputs / max(result.seconds, 1e-9)
        print(f"| {result.target} | {result.inputs} | {rate:.0f} | {result.findings} |")
    sys.exit(any(result.findings for result in results))


def hunt(target, options):
    """Fuzz one target in a new process, which libFuzzer ends; return the Result."""
    corpus = fuzz.CORPUS / target
    module = fuzz.load(target)
    runs = options.runs or getattr(module, "RUNS", 100_000)
    with tempfile.TemporaryDirectory(dir=fuzz.SHARED) as folder:
        seeds, words = Path(folder, "seeds"), Path(folder, "words")
        seeds.mkdir()
        for number, seed in enumerate(module.SEEDS):
            (seeds / f"{number:03d}").write_bytes(seed)
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in module.WORDS))
        arguments = [
            f"-timeout={PATIENCE}", f"-report_slow_units={PATIENCE}",
            f"-rss_limit_mb={getattr(module, 'MEMORY', 2048)}",
            f"-runs={runs}", f"-max_total_time={options.seconds}",
            f"-seed={options.seed}", f"-dict={words}", f"-artifact_prefix={corpus}{os.sep}",
            "-print_final_stats=1", seeds, *([corpus] if corpus.exists() else []),
        ]  # fmt: skip
        corpus.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fuzz.hunt", target, corpus, *arguments]
        begun = time.monotonic()
        with subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            inputs, findings, tail = _follow(process.stderr, target, runs)
        if process.returncode:
            findings += 1
            print(*tail, sep="", file=sys.stderr)
        if not any(corpus.iterdir()):
            corpus.rmdir()
        return Result(target, inputs, time.monotonic() - begun, findings)


def _follow(lines, target, runs):
    """Show libFuzzer's progress; return counts of inputs and findings, and the last lines."""
    inputs = findings = 0
    tail = deque(maxlen=40)
    with tqdm(total=runs, desc=target, unit="input") as bar:
        for line in lines:
            tail.append(line)
            if line.startswith(MARK):
                findings += 1
                bar.write(line.rstrip(), file=sys.stderr)
            if found := re.match(r"#(\d+)\s|stat::number_of_executed_units: (\d+)", line):
                inputs = int(found[1] or found[2])
                bar.update(inputs - bar.n)
    return inputs, findings, tail


def _quoted(word):
    """Return the word as libFuzzer's dictionaries spell it."""
    return "".join(f"\\x{byte:02X}" for byte in word)


if __name__ == "__main__":
    main()
