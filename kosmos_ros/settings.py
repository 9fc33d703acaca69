# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Define the settings of a program, each one once, with default, range and description.

A dataclass holds the settings. Each field made by `parameter` becomes a ROS parameter, a launch
argument or a command-line option of the same name. Knows no ROS and no command line.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kosmos_ros.errors import ConfigError, KosmosError
from kosmos_ros.sanitize import quoted

MAX_ENTRIES = 100
"""Largest number of entries in a list, in parameters and in requests."""

NULLS = ("null", "Null", "NULL", "~", "None")
"""Texts that ROS makes of YAML's null: rcl of a file, `ros2 param load` of a value."""

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string in quotes",
    tuple: "a list of strings",
}
"""Names of the parameter types in error messages."""


def parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    check: Callable[[Any], object] | None = None,
    prompt: Callable[[str], Any] | None = None,
    example: str = "",
    read_only: bool = False,
) -> Any:
    """Return a dataclass field that is a parameter.

    `limits` are inclusive. `check` raises KosmosError for an invalid value; it is called for a
    string that is not empty, a number other than 0, or for each entry of a list. `prompt` makes
    the model's prompt of a string, and serves as its `check`. `example` is a value as YAML, for
    error messages; empty: the default.
    """
    metadata = {
        "description": description,
        "limits": limits,
        "choices": tuple(choices),
        "check": check or prompt,
        "prompt": prompt,
        "example": example,
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def validated(field: dataclasses.Field[Any], value: Any, prefix: str = "") -> Any:
    """Check `value` and return it as the type of `field`.

    Accepts an integer for a float or a string, and any empty array for a list. Removes line feeds
    at the ends of strings, which a block of YAML has, and empty strings and nulls from lists.
    Raises ConfigError, which names the parameter as `prefix` + its name, if the type is wrong or
    the value is out of range.
    """
    name = prefix + field.name
    kind: Any = type(field.default)
    value = _converted(kind, value)
    if type(value) is not kind:
        shown = list(value) if isinstance(value, array.array) else value
        raise ConfigError(f"parameter {name} must be {_form(field)}, got {quoted(shown)}")
    if kind is tuple and len(value) > MAX_ENTRIES:
        raise ConfigError(
            f"parameter {name} must have at most {MAX_ENTRIES} entries, got {len(value)}"
        )
    texts = value if kind is tuple else [value] if kind is str else []
    if null := next((text for text in texts if "\0" in text), None):
        raise ConfigError(f"parameter {name} must not contain null characters, got {quoted(null)}")
    limits, choices = field.metadata["limits"], field.metadata["choices"]
    if limits and not limits[0] <= value <= limits[1]:  # false for NaN, too
        raise ConfigError(
            f"parameter {name} must be {limits[0]} to {limits[1]}, got {quoted(value)}"
        )
    if choices and value not in choices:
        raise ConfigError(
            f"parameter {name} must be one of {', '.join(choices)}, got {quoted(value)}"
        )
    if check := field.metadata["check"]:
        for text in value if kind is tuple else filter(None, [value]):
            try:
                check(text)
            except KosmosError as exc:
                raise ConfigError(f"parameter {name}: {exc}") from exc
    return value


def _converted(kind: type, value: Any) -> Any:
    """Return `value` as `kind` if that loses nothing, otherwise unchanged."""
    if kind in (float, str) and type(value) is int:
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            return kind(value)
    if kind is str and isinstance(value, str):
        return _text(value)
    if kind is tuple and _are_strings(value):
        return tuple(text for text in map(_text, value) if text and text not in NULLS)
    return value


def _text(value: str) -> str:
    return value.strip("\r\n")


def _form(field: dataclasses.Field[Any]) -> str:
    """Return which values a parameter may have, for an error message."""
    if choices := field.metadata["choices"]:
        return f"one of {', '.join(choices)}"
    example = field.metadata["example"]
    if isinstance(field.default, int | float) and not isinstance(field.default, bool):
        example = str(field.default)
    elif isinstance(field.default, tuple) and field.default:
        example = f"[{', '.join(field.default)}]"
    return KINDS[type(field.default)] + (f" such as {example}" if example else "")


def _are_strings(value: Any) -> bool:
    return (
        isinstance(value, Sequence | array.array)
        and not isinstance(value, str | bytes)
        and all(isinstance(text, str) for text in value)
    )
