# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command line of the soak: which run, its table, and where the figures go."""

import argparse
import os
import platform
import sys
from pathlib import Path

from soak.report import failed, table, write_json


def main() -> int:
    """Run, print a table, and write what was asked for; 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the run over DDS")
    parser.add_argument("--clients", type=int, default=20, help="of the run over DDS")
    parser.add_argument(
        "--without", nargs="+", default=[], help="burdens to leave out of the run over DDS"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="so many in process instead")
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
