# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command line of the soak: which run, its table, and where the figures go."""

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
            raise argparse.ArgumentTypeError(f"{text} is not {least} or more")
        return value

    return number


def main() -> int:
    """Run, print a table, and write what was asked for; 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=_number(float, 0.1), default=60.0, help="of the run over DDS"
    )
    parser.add_argument("--clients", type=_number(int, 0), default=20, help="of the run over DDS")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="BURDEN",
        help="left out of the run over DDS: images, kills, parameters, pauses, reloads",
    )
    parser.add_argument(
        "--frames", type=_number(int, 1), metavar="N", help="so many in process instead"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    options = parser.parse_args()
    # Each takes a few seconds to import.
    if options.frames:
        from soak.frames import run

        rows = list(run(options.frames, options.seed))
    else:
        from soak.load import BURDENS, Soak

        if unknown := set(options.without).difference(BURDENS):
            parser.error(f"{', '.join(unknown)} cannot be left out; {', '.join(BURDENS)} can")
        rows = list(Soak(options.minutes, options.clients, options.seed, options.without).run())
    print(table(rows))
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        called = {name: value for name, value in vars(options).items() if name != "json"}
        write_json(rows, {**called, **machine}, options.json)
    return int(failed(rows))


if __name__ == "__main__":
    sys.exit(main())
