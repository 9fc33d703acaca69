# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommand images: describe a folder of images or a video, and write the results as a file.

The folder `offline/folders` does the work.
"""

from __future__ import annotations

import argparse
from typing import Any

from kosmos_ros.commands import jobs
from kosmos_ros.commands import options as opts


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "images",
        help="describe a folder of images or a video",
        description="Describe the images of a folder and of all folders below it, or the frames "
        "of a video, and write the results as one file. A run that was stopped continues where it "
        "was if the command is repeated. Writes one JSON object with the numbers of frames. "
        "docs/offline.md has the forms of the output.",
    )
    parser.add_argument(
        "source",
        type=opts.path,
        metavar="IN",
        help="Folder of images, image file, or video file.",
    )
    parser.add_argument(
        "out",
        type=opts.path,
        metavar="OUT",
        help="File to write, which must not exist: NAME.jsonl has JSON lines as the other "
        "subcommands print them, NAME.json is COCO JSON. OUT.unfinished has the results until all "
        "are complete.",
    )
    jobs.add_choice(
        parser,
        "Describe every N-th image or frame, for example 10, or one frame of a video per period, "
        "for example 0.5s. Default: 1, all.",
        "Begin this long after the first frame of the video (seconds).",
        "End this long after the first frame of the video (seconds). Default: the end of the "
        "video.",
    )
    jobs.add_questions(parser, "Result for each frame")
    jobs.add_log(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Describe the images, write the results, and return the exit code."""
    from kosmos_ros.offline.folders.job import Job, Run

    def begin() -> Run:
        job = Job(
            source=options.source,
            start=options.start,
            end=options.end,
            **jobs.asked(options, options.out),
        )
        return Run(job)

    return jobs.complete(options, "images", options.source, begin)
