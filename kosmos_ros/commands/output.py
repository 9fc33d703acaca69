# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write results as JSON lines to standard output, and everything else to standard error.

Saves annotated images. Knows no model and no options.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kosmos_ros.entry import output_failed
from kosmos_ros.images.drawing import annotate
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.sanitize import one_line

STANDARD_INPUT = "stdin"  # name of the annotated image of standard input


def write_line(value: dict[str, Any], output: TextIO | None = None, failed: int = 1) -> None:
    """Write one JSON object as a line to `output`, or to standard output without it.

    Ends the program with exit code `failed` if that cannot be written.
    """
    # ASCII, because a path need not be UTF-8 and the output may have any encoding.
    write(json.dumps(value, allow_nan=False), output, failed)


def write(text: str, output: TextIO | None = None, failed: int = 1) -> None:
    """Write lines as `write_line` does."""
    from tqdm import tqdm

    output = output or sys.stdout
    try:
        with tqdm.external_write_mode(file=output):
            # One write for the text and its newline, so that another program on the same pipe
            # cannot write between them.
            output.write(f"{text}\n")
        output.flush()  # so that the reader of a pipe gets each line at once
    except OSError as exc:
        output_failed("kosmos", exc, failed)


def report(message: object) -> None:
    """Write an error as one line to standard error, above the progress bar."""
    from tqdm import tqdm

    tqdm.write(f"kosmos: {one_line(message)}", file=sys.stderr)


def save_annotated(
    folder: Path, name: str, image: np.ndarray, caption: Caption, value: dict[str, Any]
) -> bool:
    """Save the annotated image and put its path in `value`. Report a failure and return False."""
    stem = STANDARD_INPUT if name == "-" else Path(name).stem
    try:
        value["annotated"] = str(_save(folder, stem, annotate(image, caption)))
    except OSError as exc:
        report(f"cannot write {exc.filename}: {exc.strerror or exc}")
        return False
    return True


def _save(folder: Path, name: str, image: np.ndarray) -> Path:
    """Save an image as PNG; see save_new."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return save_new(folder, name, ".png", file.getvalue())


def save_new(folder: Path, name: str, suffix: str, data: bytes) -> Path:
    """Save a file under the first free name: NAME.png, NAME-2.png …

    Raises OSError with its filename.
    """
    for number in itertools.count(1):
        path = folder / f"{name}{'' if number == 1 else f'-{number}'}{suffix}"
        try:
            file = path.open("xb")
            break
        except FileExistsError:
            continue
    try:
        with file:
            file.write(data)
    except BaseException as exc:  # also Ctrl-C: leave no incomplete file
        path.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            exc.filename = str(path)
        raise
    return path
