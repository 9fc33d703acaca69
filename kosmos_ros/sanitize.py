# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make external text safe for logs and messages: one line, limited, no control characters.

Otherwise the sender of an image or a question, or the name of a node, could forge lines of a log,
control the terminal that shows the log, or fill the disk.
"""

from __future__ import annotations

import array
import traceback

from kosmos_ros.errors import KosmosError

MAX_VALUE = 60  # characters of a quoted value
MAX_LINE = 1000  # characters of a whole message


def quoted(value: object, most: int = MAX_VALUE) -> str:
    """Return the repr of `value`, cut to about `most` characters; escapes take more."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else value[: most - 3] + "...")
    text = repr(_shortened(value, most))
    return text if len(text) <= most else text[: most - 3] + "..."


def _shortened(value: object, most: int) -> object:
    """Return `value` with its texts and lists cut, so that its repr takes little memory."""
    if isinstance(value, list | tuple):
        return type(value)([_shortened(entry, most) for entry in value[:most]])
    if isinstance(value, str | bytes | array.array):
        return value[:most]
    return value


def one_line(text: object, most: int = MAX_LINE) -> str:
    """Return `text` in one line, cut to `most` characters; unprintable ones are escaped."""
    text = str(text)
    if len(text) > most:
        text = text[: most - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def format_error(error: BaseException) -> str:
    """Return the message of an error; its type comes first unless it is a KosmosError."""
    text = one_line(error)
    return text if isinstance(error, KosmosError) else f"{type(error).__name__}: {text}"


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its type if the error has no text."""
    return one_line(str(error).strip().partition("\n")[0] or type(error).__name__, 300)


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an error, with its message in one line."""
    calls = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{calls}{type(error).__name__}: {one_line(error)}"
