# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos report: show an observation log as a web page. Knows no model."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kosmos_ros.commands import options as opts
from kosmos_ros.commands.output import report, write
from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.log import SAME_STAMP, ObservationLog
from kosmos_ros.offline.report import BLOCK, Frame, write_report

BEGIN = b"<!doctype html>"  # of a page
MAX_FRAMES = 100_000  # more would not fit in the memory of a browser


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "report",
        help="show an observation log as a web page",
        description="Show an observation log as one web page: the frames with their captions, "
        "boxes and events, the times at which each phrase was seen, and a search. The page opens "
        "from disk, without a server or a network. Writes the number of frames and the path of "
        "the page to standard output.",
    )
    parser.add_argument("log", type=opts.path, metavar="FILE", help="Observation log.")
    parser.add_argument(
        "page",
        type=opts.path,
        metavar="OUT",
        help="File of the page. An existing file is replaced.",
    )
    opts.add_times(parser)
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    _check_page(options.page)
    opts.check_times(options)
    with ObservationLog.read(options.log) as log:
        until = None if options.until is None else options.until + SAME_STAMP
        ids = log.search("", options.since, until, MAX_FRAMES + 1)[::-1]
        if len(ids) > MAX_FRAMES:
            raise ConfigError(
                f"a report may have at most {MAX_FRAMES} frames, got more; select a time with "
                "--since and --until"
            )
        try:
            frames = _frames(log, ids, options.until)
            written = write_report(frames, Path(options.log).stem, options.page)
        except OSError as exc:
            report(f"cannot write {options.page}: {exc.strerror or exc}")
            return 1
    write(f"{written} {'frame' if written == 1 else 'frames'}: {options.page}")
    return 0


def _check_page(page: Path) -> None:
    """Raise ConfigError if the page would replace a folder or a file that is no page."""
    if page.is_dir():
        raise ConfigError(f"{page} is a folder; choose a file for the report")
    try:
        with page.open("rb") as file:
            begin = file.read(len(BEGIN))
    except OSError:
        return  # there is no such file; others show when it is written
    if begin.lower() != BEGIN:
        raise ConfigError(
            f"{page} exists and is not a web page; choose another file for the report"
        )


def _frames(log: ObservationLog, ids: Iterable[int], until: int | None) -> Iterator[Frame]:
    """Read the observations with these ids that are not later than `until`, and their events.

    Of those with the same camera and stamp, only the first has the events.
    """
    rest, given = iter(ids), set()
    while some := list(itertools.islice(rest, BLOCK)):
        seen = [each for each in log.get(some) if until is None or each.stamp <= until]
        for each, events in zip(seen, log.events(seen), strict=True):
            key = each.camera, each.stamp
            yield each, () if key in given else events
            given.add(key)
