# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommand bag: describe the images of a bag, and write the results as a bag.

The folder `offline/bags` does the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmos_ros.commands import jobs
from kosmos_ros.commands import options as opts
from kosmos_ros.commands.output import report
from kosmos_ros.entry import ENVIRONMENT, OFFLINE_PACKAGES, missing_package

if TYPE_CHECKING:
    from kosmos_ros.offline.bags.job import Job


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "bag",
        help="describe the images of a bag",
        description="Describe the images of a bag as a running node would, and write its topics "
        "as a new bag, which `ros2 bag play` and Foxglove read. The messages have the frames' own "
        "headers. A run that was stopped continues where it was if the command is repeated. "
        "Writes one JSON object with the numbers of messages. docs/offline.md has the topics.",
    )
    parser.add_argument(
        "bag",
        type=opts.path,
        metavar="IN",
        help="Bag to read: a rosbag2 directory, or a file *.mcap or *.db3.",
    )
    parser.add_argument(
        "out",
        type=opts.path,
        metavar="OUT",
        help="Directory to write, which must not exist. OUT.unfinished has the results until all "
        "are complete.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the job, which `kosmos bags` has, too."""
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME",
        help="Topic with Image or CompressedImage messages. May be repeated. Default: all.",
    )
    jobs.add_choice(
        parser,
        "Describe every N-th frame of each topic, for example 10, or one frame per period, for "
        "example 0.5s. Default: 1, all frames.",
        "Begin this long after the first message of the bag (seconds), as `ros2 bag play "
        "--start-offset` does.",
        "End this long after the first message of the bag (seconds). Default: the end of the bag.",
    )
    jobs.add_questions(parser, "Result to write on the topic captions")
    parser.add_argument("--copy", action="store_true", help="Write the original messages, too.")
    jobs.add_log(parser)


def run(options: argparse.Namespace) -> int:
    """Describe the bag, write the results, and return the exit code."""
    if missing := missing_package(OFFLINE_PACKAGES):
        report(missing)
        return ENVIRONMENT
    from kosmos_ros.offline.bags.job import Run

    return jobs.complete(
        options, "bag", options.bag, lambda: Run(job_of(options, options.bag, options.out))
    )


def job_of(options: argparse.Namespace, bag: Path, out: Path) -> Job:
    """Return the job that describes `bag` with these options. Raises ConfigError."""
    from kosmos_ros.offline.bags.job import Job

    return Job(
        bag=bag,
        topics=tuple(options.topic),
        start=options.start,
        end=options.end,
        copy=options.copy,
        **jobs.asked(options, out),
    )
