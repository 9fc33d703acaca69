# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Options and progress of the subcommands that describe many frames: bag, bags and images.

Knows no source and no output.
"""

from __future__ import annotations

import argparse
import errno
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmos_ros.commands import options as opts
from kosmos_ros.commands.output import report, write_line
from kosmos_ros.commands.tasks import Loader, message
from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.offline.batches import Failure
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving.node_settings import FIELDS, FRAME_TASKS, CameraSettings
from kosmos_ros.settings import validated

if TYPE_CHECKING:
    from kosmos_ros.offline.run import Run

TASKS = tuple(task for task in FRAME_TASKS if task != "prompt")
NEEDED = {"phrase_grounding": "phrase", "question": "question"}
"""Option without which a task has no prompt."""
RESUMABLE = (OSError, sqlite3.Error, LogError)
"""Errors after which a run can be continued."""
LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT}
"""Errors of the system that last: the same command fails again."""


def add_choice(parser: argparse.ArgumentParser, every: str, begin: str, end: str) -> None:
    """Add the options that choose frames; the texts say what each of them means."""
    parser.add_argument("--every", default="1", metavar="N|SECONDS", help=every)
    for name, default, text in (("start", 0.0, begin), ("end", float("inf"), end)):
        parser.add_argument(
            f"--{name}", type=_seconds(name), default=default, metavar="SECONDS", help=text
        )


def add_questions(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options of what is asked about each frame; `what` says what --task makes."""
    task = FIELDS["task"].default
    parser.add_argument(
        "--task",
        type=opts.one_of("task", TASKS),
        default=task,
        help=f"{what}: {', '.join(TASKS)}. Default: {task}.",
    )
    for name, text in (
        ("phrase", "Phrase to locate in every frame. May be repeated."),
        ("question", "Question to answer for every frame. May be repeated."),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="WORDS", help=text)


def add_log(parser: argparse.ArgumentParser) -> None:
    """Add the observation log and the options of the model."""
    parser.add_argument(
        "--log",
        type=opts.path,
        metavar="FILE",
        help="Add the frames to this observation log, too, for `kosmos recall` and `kosmos "
        "report`, and the events of a bag or a video. The file is created if it does not exist.",
    )
    opts.add_plain(parser)
    for name in ("min_score", "max_new_tokens", "max_image_pixels"):
        opts.add_setting(parser, name)
    opts.add_model(parser)


def asked(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Return the fields of offline.run.Job. Raises ConfigError."""
    if options.log and options.log.resolve() == out.resolve():
        raise ConfigError(
            f"--log must be another file than the output, got {quoted(str(out), 300)}"
        )
    return {
        "out": out,
        "settings": _settings(options),
        "model": options.model,
        "max_image_pixels": options.max_image_pixels,
        "every": options.every,
        "log": options.log,
        "model_settings": {
            name: getattr(options, name, FIELDS[name].default) for name in MODEL_SETTINGS
        },
    }


def check_log(log: Path | None) -> None:
    """Raise ConfigError or LogError now, not after hours, if frames cannot be added to `log`."""
    if log:
        ObservationLog.open(log).close()


def _settings(options: argparse.Namespace) -> CameraSettings:
    """Return the settings of the node. Raises ConfigError."""
    for name in NEEDED.values():
        if not all(map(str.strip, getattr(options, name))):
            raise ConfigError(f"--{name} must not be empty")
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


def complete(
    options: argparse.Namespace, kind: str, source: Path, begin: Callable[[], Run]
) -> int:
    """Do a run, write one JSON object with its numbers, and return the exit code.

    `kind` is the name of the source in the object.
    """
    try:
        run = begin()
        check_log(options.log)  # after what may be refused, because it makes the file
        return _complete(options, kind, source, run)
    except RESUMABLE as exc:
        return stopped(source, options.out, exc)


def stopped(source: Path, out: Path, error: Exception) -> int:
    """Report an error of RESUMABLE, and return the exit code."""
    reason = getattr(error, "strerror", "") or error
    remedy = "; repeat the command to continue"
    if getattr(error, "errno", 0) in LASTING:
        file = getattr(error, "filename", None)
        reason, remedy = f"{file}: {reason}" if file else reason, ""
    report(f"{source} to {out}: {reason}{remedy}")
    return 1


def _complete(options: argparse.Namespace, kind: str, source: Path, run: Run) -> int:
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    for warning in run.warnings:
        report(warning)
    with run.open({name: getattr(options, name) for name in opts.MODEL}) as results:
        found = run.describe(results, Loader(options))
        bar = {"unit": "frame", "total": run.expected, "initial": results.frames}
        for each in tqdm(found, disable=quiet, **bar):
            if isinstance(each, Failure):
                report(message(each))
        run.add_to_log(results)
        for _ in tqdm(run.write(results), desc="write", unit="result", disable=quiet):
            pass
        for each in run.lost:
            report(message(each))
        write_line(
            {
                kind: str(source),
                "out": str(options.out),
                "frames": results.frames,
                "failed": results.failures,
                **run.counts(results),
            }
        )
    run.clean()
    return 1 if results.failures else 0


def _seconds(name: str) -> Any:
    """Return a converter of argparse for a time of the source."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e9:  # false for NaN, too
            raise ConfigError(f"--{name} must be seconds such as 2.5, got {quoted(text)}")
        return value

    return convert
