# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommand bag: describe the images of a bag, and write the results as a bag.

The folder `offline/bags` does the work.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmos_ros.commands import options as opts
from kosmos_ros.commands.output import report, write_line
from kosmos_ros.commands.tasks import Loader, message
from kosmos_ros.entry import ENVIRONMENT, OFFLINE_PACKAGES, missing_package
from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.offline.batches import Failure
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving.node_settings import FIELDS, FRAME_TASKS, CameraSettings
from kosmos_ros.settings import validated

if TYPE_CHECKING:
    from kosmos_ros.offline.bags.job import Run

TASKS = tuple(task for task in FRAME_TASKS if task != "prompt")
NEEDED = {"phrase_grounding": "phrase", "question": "question"}
"""Option without which a task has no prompt."""


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
        type=Path,
        metavar="IN",
        help="Bag to read: a rosbag2 directory, or a file *.mcap or *.db3.",
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="Directory to write, which must not exist. OUT.unfinished has the results until all "
        "are complete.",
    )
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME",
        help="Topic with Image or CompressedImage messages. May be repeated. Default: all.",
    )
    parser.add_argument(
        "--every",
        default="1",
        metavar="N|SECONDS",
        help="Describe every N-th frame of each topic, for example 10, or one frame per period, "
        "for example 0.5s. Default: 1, all frames.",
    )
    for name, default, text in (
        ("start", 0.0, "Begin this long after the first message of the bag (seconds), as "
         "`ros2 bag play --start-offset` does."),
        ("end", float("inf"), "End this long after the first message of the bag (seconds). "
         "Default: the end of the bag."),
    ):  # fmt: skip
        parser.add_argument(
            f"--{name}", type=_seconds(name), default=default, metavar="SECONDS", help=text
        )
    task = FIELDS["task"].default
    parser.add_argument(
        "--task",
        type=opts.one_of("task", TASKS),
        default=task,
        help=f"Messages of the topic captions: {', '.join(TASKS)}. Default: {task}.",
    )
    for name, text in (
        ("phrase", "Phrase to locate in every frame. May be repeated."),
        ("question", "Question to answer for every frame. May be repeated."),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="WORDS", help=text)
    parser.add_argument("--copy", action="store_true", help="Write the original messages, too.")
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="Add the frames to this observation log, too, for `kosmos recall` and `kosmos "
        "report`. It is made if it does not exist.",
    )
    opts.add_plain(parser)
    for name in ("min_score", "max_new_tokens", "max_image_pixels"):
        opts.add_setting(parser, name)
    opts.add_model(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Describe the bag, write the results, and return the exit code."""
    if missing := missing_package(OFFLINE_PACKAGES):
        report(missing)
        return ENVIRONMENT
    from kosmos_ros.offline.bags.job import Job, Run

    job = Job(
        options.bag,
        options.out,
        _settings(options),
        options.model,
        options.max_image_pixels,
        tuple(options.topic),
        options.every,
        options.start,
        options.end,
        options.copy,
        options.log,
        {name: getattr(options, name, FIELDS[name].default) for name in MODEL_SETTINGS},
    )
    try:
        return _run(options, Run(job))
    except (OSError, sqlite3.Error, LogError) as exc:
        again = "; repeat the command to continue"
        report(f"{options.bag} to {options.out}: {getattr(exc, 'strerror', '') or exc}{again}")
        return 1


def _settings(options: argparse.Namespace) -> CameraSettings:
    """Return the settings of the node. Raises ConfigError."""
    needed = NEEDED.get(options.task)
    if needed and not getattr(options, needed):
        raise ConfigError(f"--task {options.task} needs at least one --{needed}")
    return CameraSettings(
        task=options.task,
        phrases=validated(FIELDS["phrases"], tuple(options.phrase)),
        questions=validated(FIELDS["questions"], tuple(options.question)),
        min_score=options.min_score,
        grounded=not options.plain,
        max_new_tokens=options.max_new_tokens,
    )


def _run(options: argparse.Namespace, run: Run) -> int:
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    for topic in run.not_copied:
        report(f"topic {quoted(topic, 200)} is not copied, because the results have its name")
    with run.open({name: getattr(options, name) for name in opts.MODEL}) as results:
        found = run.describe(results, Loader(options))
        bar = {"unit": "frame", "total": run.expected, "initial": results.frames}
        reported = set()
        for each in tqdm(found, disable=quiet, **bar):
            if isinstance(each, Failure):
                reported.add(each.name)
                report(message(each))
        run.add_to_log(results)
        for _ in tqdm(run.write(results), desc="write", unit="message", disable=quiet):
            pass
        lost = [each for each in run.lost if each.name not in reported]
        for each in lost:
            report(message(each))
        failures = results.failures + len(lost)
        write_line(
            {
                "bag": str(options.bag),
                "out": str(options.out),
                "frames": results.frames,
                "failed": failures,
                "messages": results.counts(run.outputs),
            }
        )
    run.clean()
    return 1 if failures else 0


def _seconds(name: str) -> Any:
    """Return a converter of argparse for a time of the bag."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e9:  # false for NaN, too
            raise ConfigError(f"--{name} must be seconds such as 2.5, got {quoted(text)}")
        return value

    return convert
