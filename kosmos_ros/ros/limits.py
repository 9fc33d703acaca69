# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Limit texts and lists in messages from outside before the node keeps or copies them.

DDS delivers strings and lists of any size. Knows the fields of messages, but not their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kosmos_ros.errors import RequestError
from kosmos_ros.kosmos2.prompts import MAX_PROMPT, MAX_TEXT
from kosmos_ros.sanitize import MAX_VALUE, one_line
from kosmos_ros.settings import MAX_ENTRIES

MAX_CHARACTERS = {
    "frame_id": 255,
    "prompt": MAX_PROMPT,  # of Generate.srv
    "text": MAX_PROMPT,  # of Generate.action: a prompt, or a question, which has a lower limit
    "string_value": MAX_PROMPT,  # of ParameterValue: the parameter prompt
}
"""Name of a field: its longest text. Other fields have MAX_TEXT.

Every result, and each detection in it, contains the frame_id of the image. Names of frames are
short, such as camera_optical_frame (REP 105, tf2).
"""

DATA = "sequence<uint8>"
"""Type of fields that contain the bytes of an image. The decoder checks their number."""


def check(message: Any, entries: int = MAX_ENTRIES, prefix: str = "") -> None:
    """Check every text and list in `message` and in the messages that it contains.

    Lists in `message` itself may have up to `entries` entries, other lists up to MAX_ENTRIES.
    `prefix` precedes the names of fields in errors. Raises RequestError, which names the field,
    its size and the limit. An entry of a list is named with its index, such as history[1].
    """
    for name, kind in message.get_fields_and_field_types().items():
        if kind != DATA:
            most = MAX_CHARACTERS.get(name, MAX_TEXT)
            _check_value(prefix + name, getattr(message, name), entries, most)


def check_parameter(change: Any) -> None:
    """Check a Parameter of a request; errors name it as the user does. Raises RequestError."""
    _check_value("the name of a parameter", change.name, MAX_ENTRIES, MAX_TEXT)
    name = f"parameter {one_line(change.name, MAX_VALUE)}"
    for kind in change.value.get_fields_and_field_types():
        most = MAX_CHARACTERS.get(kind, MAX_TEXT)
        _check_value(name, getattr(change.value, kind), MAX_ENTRIES, most)


def clear(message: Any) -> None:
    """Set every field of `message` to its default value, which frees memory."""
    empty = type(message)()
    for name in message.get_fields_and_field_types():
        setattr(message, name, getattr(empty, name))


def _check_value(name: str, value: Any, entries: int, characters: int) -> None:
    if isinstance(value, str):
        if len(value) > characters:
            raise RequestError(
                f"{name} must have at most {characters} characters, got {len(value)}"
            )
    elif hasattr(value, "get_fields_and_field_types"):
        check(value, prefix=f"{name}.")
    elif hasattr(value, "__len__") and len(value) > entries:
        raise RequestError(f"{name} has {len(value)} entries; it must have at most {entries}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for index, entry in enumerate(value):
            _check_value(f"{name}[{index}]", entry, MAX_ENTRIES, characters)
