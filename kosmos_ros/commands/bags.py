# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommand bags: do the job of `kosmos bag` for all bags below a folder.

`offline/bags/many.py` does the work; `offline/bags/cluster.py` gives it to the workers of a Ray
cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kosmos_ros.commands import bag, jobs
from kosmos_ros.commands import options as opts
from kosmos_ros.commands.output import report, write_line
from kosmos_ros.commands.tasks import Loader, message
from kosmos_ros.entry import ENVIRONMENT, OFFLINE_PACKAGES, RAY_PACKAGES, missing_package
from kosmos_ros.errors import ConfigError

if TYPE_CHECKING:
    from kosmos_ros.offline.bags.many import Many, Record


MAX_WORKERS = 10_000


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "bags",
        help="describe the images of all bags below a folder, also on many computers",
        description="Do the job of `kosmos bag` for every bag below a folder, one after the other "
        "or, with --ray, at the same time. Repeat the command to continue a run that was stopped. "
        "Writes one JSON object for each bag, in the order of their names. docs/offline.md has "
        "its fields.",
    )
    parser.add_argument(
        "folder", type=opts.path, metavar="DIR", help="Folder with bags, at any depth."
    )
    parser.add_argument(
        "out",
        type=opts.path,
        metavar="OUT",
        help="Folder for the results. The bag DIR/NAME becomes OUT/NAME, and OUT/NAME.json has "
        "its state.",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="Describe the bags on the workers of this Ray cluster, for example 10.0.0.1:6379. "
        "Without an address: start a cluster on this computer, which ends with the command.",
    )
    parser.add_argument(
        "--workers",
        type=opts.count("workers", MAX_WORKERS),
        default=0,
        metavar="N",
        help="Number of workers with --ray; each loads the model. Default: one per GPU. "
        "Without GPUs: one per CPU core, or per N cores with --threads N.",
    )
    bag.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Describe the bags, write a line for each, and return the exit code."""
    needed = OFFLINE_PACKAGES | (RAY_PACKAGES if options.ray else {})
    if missing := missing_package(needed):
        report(missing)
        return ENVIRONMENT
    if options.workers and not options.ray:
        raise ConfigError("--workers needs --ray; add --ray, or remove --workers")
    from kosmos_ros.offline.bags.many import Many, find, in_order

    # Workers have other working directories.
    folder, out = options.folder.absolute(), options.out.absolute()
    job = bag.job_of(options, folder, out)
    job = replace(job, log=job.log and job.log.absolute())
    model = {name: getattr(options, name) for name in opts.MODEL}
    if (weights := Path(options.model).expanduser()).is_dir() and options.model != "shapes":
        model["model"] = str(weights.absolute())
    many = Many(folder, out, job, model, message)
    many.check()
    jobs.check_log(job.log)
    hidden: list[OSError] = []
    names = find(folder, hidden.append)
    for error in hidden:
        report(f"{error.filename}: {error.strerror}; bags in it are not described")
    try:
        output, records = sys.stdout, in_order(many, names, _records(options, many, names))
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints its own messages
            faults = _written(records, output)
    except jobs.RESUMABLE as exc:
        return jobs.stopped(folder, out, exc)
    return 1 if faults or hidden else 0


def _written(records: Iterable[Record], output: TextIO) -> int:
    """Write a line for each bag. Return the number of frames and bags without results."""
    states: Counter[str] = Counter()
    faults = 0
    for record in records:
        for reason in record["reasons"]:
            report(reason if record["bag"] in reason else f"{record['name']}: {reason}")
        hidden = "name", "settings"
        write_line({key: record[key] for key in record if key not in hidden}, output)
        states[record["state"]] += 1
        faults += record["failed"] + (record["state"] != "done")
    numbers = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    report(f"{states.total()} bags: {numbers}")
    return faults


def _records(options: argparse.Namespace, many: Many, names: Sequence[str]) -> Iterator[Record]:
    """Yield the record of each bag: first of those that are done, then as they are described."""
    from tqdm import tqdm

    known = {name: many.settled(name) for name in names}
    left = [name for name, record in known.items() if not record]
    with tqdm(total=len(names), unit="bag", disable=not sys.stderr.isatty()) as bar:
        for record in filter(None, known.values()):
            bar.update()
            yield record
        if left:
            for record in _described(options, many, left):
                bar.update()
                yield record


def _described(options: argparse.Namespace, many: Many, names: Sequence[str]) -> Iterator[Record]:
    # Workers get this object, which must be without the command's functions.
    load = Loader(argparse.Namespace(**many.model))
    if not options.ray:
        from kosmos_ros.offline.bags.many import one_after_the_other

        load()  # its errors are not those of a bag
        yield from one_after_the_other(many, names, load)
        return
    from kosmos_ros.offline.bags.cluster import Cluster

    with Cluster(many, load, options.ray, options.workers, report) as cluster:
        yield from cluster.describe(names)
