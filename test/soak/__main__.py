# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run the node under load for a long time; print a table and write it as JSON."""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from soak.report import failed, table, write_json


def _number(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        if not least <= (value := kind(text)) < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return number


def main() -> int:
    """Run, print the table and write the JSON file; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=_number(float, 0.1), default=60.0, help="duration of the run over DDS"
    )
    parser.add_argument("--clients", type=_number(int, 0), default=20, help="clients over DDS")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="PART",
        help="parts of the load to leave out over DDS: images, kills, parameters, pauses, reloads",
    )
    parser.add_argument(
        "--frames",
        type=_number(int, 1),
        metavar="N",
        help="pass N frames through one process",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    options = parser.parse_args()
    # Each import takes a few seconds.
    if options.frames:
        from soak.frames import run

        rows = list(run(options.frames, options.seed))
    else:
        from soak.load import BURDENS, Soak

        if unknown := set(options.without).difference(BURDENS):
            parser.error(f"--without must name {', '.join(BURDENS)}; got {', '.join(unknown)}")
        rows = list(Soak(options.minutes, options.clients, options.seed, options.without).run())
    print(table(rows))
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        called = {name: value for name, value in vars(options).items() if name != "json"}
        write_json(rows, {**called, **machine}, options.json)
    return int(failed(rows))


if __name__ == "__main__":
    sys.exit(main())
