# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Text from outside as it may stand in a message: in one line, harmless to terminals, bounded.

Who sends an image, a question or a node's name must not be able to forge lines of a log, to
steer the terminal that shows it, or to fill the disk.
"""

from __future__ import annotations

import traceback

from kosmos_ros.errors import KosmosError

MAX_VALUE = 60  # characters of a value in quotes
MAX_LINE = 1000  # characters of a whole message


def quoted(value: object, most: int = MAX_VALUE) -> str:
    """`value` as Python writes it, shortened: about `most` characters, more for escapes."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else value[: most - 3] + "...")
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def one_line(text: object, most: int = MAX_LINE) -> str:
    """`text` without quotes; what is not printable is escaped as Python does it."""
    text = str(text)
    if len(text) > most:
        text = text[: most - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def format_error(error: Exception) -> str:
    """What an error says; with its type, where it is none that is raised on purpose."""
    text = one_line(error)
    return text if isinstance(error, KosmosError) else f"{type(error).__name__}: {text}"


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, or its type; advice follows it often."""
    return one_line(str(error).strip().partition("\n")[0] or type(error).__name__, 300)


def format_traceback(error: BaseException) -> str:
    """An error's traceback, in which what it says stands in one line."""
    calls = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{calls}{type(error).__name__}: {one_line(error)}"
