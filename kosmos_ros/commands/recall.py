# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos recall: find frames in an observation log. Knows no model."""

from __future__ import annotations

import argparse
import dataclasses
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from kosmos_ros.commands.options import add_times, check_times, count, make_folder, path
from kosmos_ros.commands.output import report, save_new, write_line
from kosmos_ros.errors import ConfigError, LogError
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recall import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Query,
    Recollection,
    limited,
    recall,
    unknown_words,
)
from kosmos_ros.memory.wordnet import WordNet
from kosmos_ros.sanitize import quoted

NOT_FOUND, FAILED = 1, 2  # exit codes


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "recall",
        help="find frames in an observation log",
        description="Find the frames of an observation log that show what a question names, such "
        "as 'where did you last see the red cup?'. Writes one JSON object per line, with the "
        "phrases that match and their boxes in pixels of the source image. The best frame comes "
        "first, or the newest or oldest one if the question asks for it. Exit codes as those of "
        "grep: 0: found; 1: no frame fits; 2: an error.",
    )
    parser.add_argument("log", type=path, metavar="FILE", help="Observation log.")
    parser.add_argument("question", metavar="QUESTION", help="Question in plain words.")
    add_times(parser)
    parser.add_argument(
        "--camera", help="Name of the camera. Default: the one that the question names, or all."
    )
    parser.add_argument(
        "--near",
        type=_circle,
        metavar="X,Y,R",
        help="Circle in which the robot was: centre and radius in m. If X is negative, write "
        "--near=X,Y,R. Default: anywhere.",
    )
    parser.add_argument(
        "--last",
        action="store_true",
        help="Write the newest frame first, not the best one. A question such as 'where did you "
        "last see the red cup?' does the same.",
    )
    parser.add_argument(
        "--max-results",
        type=count("max-results", MAX_LIMIT),
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"Largest number of frames, up to {MAX_LIMIT}. Default: {DEFAULT_LIMIT}.",
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="Folder for thumbnails. Each is saved as CAMERA-STAMP.webp, or as "
        "CAMERA-STAMP-2.webp and so on if the name exists. No file is overwritten.",
    )
    parser.set_defaults(run=_recall)


def _recall(options: argparse.Namespace) -> int:
    try:
        return _search(options)
    except LogError as exc:  # 1 would mean that no frame fits
        report(exc)
        return FAILED


def _search(options: argparse.Namespace) -> int:
    query = Query(
        options.question,
        options.camera,
        options.since,
        options.until,
        options.near,
        options.last,
        options.max_results,
        now=time.time_ns(),
    )
    check_times(options)
    make_folder(options.out)
    net = wordnet.find()
    if net is None:
        report(wordnet.MISSING)
    with ObservationLog.read(options.log) as log:
        found = recall(log, query, net)
        failures = 0
        for result in found:
            value = value_of(result, time.time_ns())
            if options.out and not _save_thumbnail(log, options.out, result, value):
                failures += 1
            write_line(value, failed=FAILED)
        if not found:
            report(f"never seen: {quoted(options.question)}{_hint(log, query, net)}")
    if failures:
        return FAILED
    return 0 if found else NOT_FOUND


def _hint(log: ObservationLog, query: Query, net: WordNet | None) -> str:
    """Return the known reasons why no frame fits, and where and when the search looked."""
    plain = limited(log, query)
    hints = []
    if not log.search("", limit=1):
        hints.append("the log has no frame yet")
    elif query.near and not log.has_poses():
        hints.append("no frame of the log has a pose, as --near requires")
    elif words := ", ".join(map(quoted, unknown_words(log, plain.text, net))):
        hints.append(f"the log has no word for {words}")
    bounds = (("since", plain.since), ("until", plain.until))
    given = [(name, stamp) for name, stamp in bounds if stamp is not None]
    limits = [f"{name} {_iso(stamp) or f'{stamp} ns'}" for name, stamp in given]
    if plain.camera is not None:
        limits.insert(0, f"camera {quoted(plain.camera)}")
    if plain.near:
        limits.append(f"near {','.join(f'{value:g}' for value in plain.near)}")
    if limits:
        hints.append(f"searched {' '.join(limits)}")
    return "".join(f"; {hint}" for hint in hints)


def value_of(result: Recollection, now: int) -> dict[str, Any]:
    """Return the fields of kosmos_msgs/Recollection; `now` is the time in ns."""
    seen = result.observation
    return {
        "stamp": seen.stamp,
        "time": _iso(seen.stamp),
        "age": round((now - seen.stamp) * 1e-9, 3),
        "camera": seen.camera,
        "frame_id": seen.frame_id,
        "image_width": seen.width,
        "image_height": seen.height,
        "task": seen.task,
        "caption": seen.caption,
        "phrases": [
            {
                "text": phrase.text,
                "start": phrase.start,
                "end": phrase.end,
                "boxes": [
                    {key: vars(box)[key] for key in ("x_min", "y_min", "x_max", "y_max", "score")}
                    for box in phrase.boxes
                ],
            }
            for phrase in result.phrases
        ],
        "score": round(result.score, 4),
        "pose": None if seen.pose is None else dataclasses.asdict(seen.pose),
    }


def _save_thumbnail(
    log: ObservationLog, folder: Path, result: Recollection, value: dict[str, Any]
) -> bool:
    """Save the thumbnail, if there is one, and put its path in `value`."""
    seen = result.observation
    (stored,) = log.get([seen.id] if seen.id is not None else []) or [seen]
    if stored.thumbnail is None:
        value["thumbnail"] = None
        return True
    camera = "".join(letter if letter.isalnum() else "_" for letter in seen.camera) or "camera"
    try:
        value["thumbnail"] = str(
            save_new(folder, f"{camera}-{seen.stamp}", ".webp", stored.thumbnail)
        )
    except OSError as exc:
        report(f"cannot write {exc.filename}: {exc.strerror or exc}")
        return False
    return True


def _iso(stamp: int) -> str | None:
    """Return a stamp in ns as ISO 8601 in local time, to 1 ms, as --since reads it.

    None if datetime cannot represent it.
    """
    try:
        moment = datetime.fromtimestamp(stamp // 10**6 / 1e3).astimezone()
        return moment.isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return None


def _circle(text: str) -> tuple[float, float, float]:
    try:
        x, y, radius = map(float, text.split(","))
    except ValueError as exc:
        raise ConfigError(f"near must be three numbers x,y,r in m, got {quoted(text)}") from exc
    return x, y, radius
