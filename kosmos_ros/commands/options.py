# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The options of the command kosmos. Some are also parameters of the node.

Knows no image and no model.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from kosmos_ros.errors import ConfigError, ImageError, KosmosError
from kosmos_ros.kosmos2.grounding import Box, check_region
from kosmos_ros.sanitize import quoted
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import validated

MODEL = (
    "model", "revision", "local_files_only", "device", "dtype", "quantization", "threads",
    "no_repeat_ngram_size", "refine_boxes",
)  # fmt: skip
"""Settings of the node with which Engine.load is called."""

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_OTHER_NAMES = {
    "region_phrases": "--region-phrase",
    "region phrases": "--region-phrase",
    "region phrase": "--region-phrase",
    "phrases": "--phrase",
    "phrase": "--phrase",
    "questions": "--question",
}
"""Names in errors, and their options, which have other names."""
_SINGLE = (
    "model", "revision", "device", "dtype", "quantization", "threads", "task", "region", "stop",
    "history", "camera", "near", "since", "until",
)  # fmt: skip
"""Options that are ordinary words. An error means the option if it begins with the word or with
'parameter' and the word, or if 'as' comes before the word."""


def as_typed(error: KosmosError) -> str:
    """Return the message of an error, with the names of options as the user types them.

    Quoted text and names of files are left unchanged.
    """
    names = {name: f"--{name.replace('_', '-')}" for name in (*FIELDS, *_SINGLE)} | _OTHER_NAMES
    # Errors of images begin with the name of a file, which may be any word.
    first = "(?!)" if isinstance(error, ImageError) else "|".join([*_OTHER_NAMES, *_SINGLE])
    anywhere = "|".join(name for name in names if "_" in name or " " in name)
    pattern = (
        rf"'[^']*'|(?:^(?:parameter )?|\bas )({first})(?!\.?[\w/-])(?::(?= must))?"
        rf"|(?<![\w/.-])(?:parameter )?({anywhere})(?!\.?[\w/-])"
    )

    def replaced(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not name:
            return found[0]
        return ("as " if found[0].startswith("as ") else "") + names[name]

    return re.sub(pattern, replaced, str(error))


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options of the model and of how it runs."""
    for name in MODEL:
        add_setting(parser, name)


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the image files, and the options of how they are read and shown."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="Image file. -: read it from standard input."
    )
    parser.add_argument(
        "--stored-pixels",
        action="store_true",
        help="Use the pixels as the file stores them. Default: rotate the image "
        "according to its EXIF orientation, as viewers do. Boxes and regions are in the pixels "
        "that are used.",
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="Folder for annotated images. Each is saved as NAME.png, or as NAME-2.png, "
        "NAME-3.png and so on if the name exists. No file is overwritten.",
    )
    for name in ("max_new_tokens", "max_image_pixels"):
        add_setting(parser, name)


def path(text: str) -> Path:
    """Return an argument as a path. Raises ArgumentTypeError if it is empty."""
    if not text:  # Path("") is the current folder
        raise argparse.ArgumentTypeError("a path must not be empty")
    return Path(text)


def make_folder(out: Path | None) -> None:
    """Make the folder of --out, if it is given. Raises ConfigError."""
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        reason = "it is a file" if isinstance(exc, FileExistsError) else exc.strerror
        raise ConfigError(f"--out: cannot create the folder {out}: {reason}") from exc


def add_plain(parser: argparse.ArgumentParser) -> None:
    """Add the option for text without boxes."""
    parser.add_argument(
        "--plain",
        action="store_true",
        help="Generate plain text without boxes, which takes less time.",
    )


def add_regions(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option --region; `text` says what a region is for."""
    parser.add_argument(
        "--region",
        type=_region,
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help=f"Region in pixels of the image: {text} May be repeated. A negative X0 needs "
        "--region=X0,Y0,X1,Y1.",
    )


def add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option that sets field `name` of the node's settings."""
    field = FIELDS[name]
    option, text = f"--{name.replace('_', '-')}", field.metadata["description"]
    if isinstance(field.default, bool):
        action: Any = argparse.BooleanOptionalAction if field.default else "store_true"
        parser.add_argument(option, action=action, default=field.default, help=text)
        return
    if limits := field.metadata["limits"]:
        text += f" Range: {limits[0]} to {limits[1]}."
    if field.default:
        text += f" Default: {field.default}."
    parser.add_argument(
        option,
        type=lambda given: validated(field, _number(type(field.default), given)),
        default=field.default,
        choices=field.metadata["choices"] or None,
        metavar="N" if limits else None,
        help=text,
    )


def add_times(parser: argparse.ArgumentParser) -> None:
    """Add the options of the time that is read from an observation log, in ns."""
    for name, which in (("since", "oldest"), ("until", "newest")):
        parser.add_argument(
            f"--{name}",
            type=functools.partial(_stamp, name),
            metavar="TIME",
            help=f"Stamp of the {which} frame: in ISO 8601, such as 2026-05-31T14:00 (local time) "
            "or 2026-05-31T12:00Z, or an integer in ns. A date alone means the "
            f"{'start' if name == 'since' else 'end'} of that day. Default: no limit.",
        )


def check_times(options: argparse.Namespace) -> None:
    """Raise ConfigError if no frame can be in the time of `add_times`."""
    since, until = options.since, options.until
    if since is not None and until is not None and since > until:
        raise ConfigError(
            f"--since must not be later than --until, got --since {since} and --until {until} ns"
        )


def count(name: str, most: int) -> Any:
    """Return a converter of argparse that accepts only whole numbers from 1 to `most`."""

    def convert(text: str) -> int:
        # Not isdecimal: that also accepts digits of other scripts.
        if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= most:
            return int(text)
        raise ConfigError(f"--{name} must be a whole number from 1 to {most}, got {quoted(text)}")

    return convert


def one_of(name: str, values: Sequence[str]) -> Any:
    """Return a converter of argparse that accepts only `values`."""

    def convert(text: str) -> str:
        if text not in values:
            raise ConfigError(f"{name} must be one of {', '.join(values)}, got {quoted(text)}")
        return text

    return convert


def _number(kind: type, text: str) -> Any:
    """Return the number that `text` is, if the setting is one; otherwise the text."""
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _region(text: str) -> Box:
    try:
        x_min, y_min, x_max, y_max = map(float, text.split(","))
    except ValueError as exc:
        raise ConfigError(
            f"region must be four numbers x0,y0,x1,y1 in pixels, got {quoted(text)}"
        ) from exc
    box = Box(x_min, y_min, x_max, y_max)
    try:
        check_region(box)
    except KosmosError as exc:
        raise ConfigError(str(exc)) from exc
    return box


def _stamp(name: str, text: str) -> int:
    """Return a time in ns."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        # Python 3.10 reads no Z.
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if name == "until" and re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            moment += timedelta(days=1) - timedelta(microseconds=1)  # the whole day
        moment = moment.astimezone()
    except (ValueError, OverflowError, OSError) as exc:
        raise ConfigError(
            f"{name} must be a time such as 2026-05-31T14:00 or an integer in ns, "
            f"got {quoted(text)}"
        ) from exc
    since = moment - EPOCH
    return ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000
