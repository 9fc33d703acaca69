# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Define the settings of a program, each one once, with default, range and description.

A dataclass holds the settings. Each field made by `parameter` becomes a ROS parameter, a launch
argument or a command-line option of the same name. Knows no ROS and no command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kosmos_ros.errors import ConfigError, KosmosError
from kosmos_ros.sanitize import quoted

MAX_ENTRIES = 100
"""Largest number of entries in a list, in parameters and in requests."""

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a list of strings",
}
"""Names of the parameter types in error messages."""


def parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    check: Callable[[str], object] | None = None,
    prompt: Callable[[str], Any] | None = None,
    read_only: bool = False,
) -> Any:
    """Return a dataclass field that is a parameter.

    `limits` are inclusive. `check` raises KosmosError for an invalid string; it is called for a
    string that is not empty, or for each entry of a list. `prompt` makes the model's prompt of a
    string, and serves as its `check`.
    """
    metadata = {
        "description": description,
        "limits": limits,
        "choices": tuple(choices),
        "check": check or prompt,
        "prompt": prompt,
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def validated(field: dataclasses.Field[Any], value: Any, prefix: str = "") -> Any:
    """Check `value` and return it as the type of `field`.

    Accepts an integer for a float or a string. Removes empty strings from a list, because ROS
    cannot express an empty list of strings. Raises ConfigError, which names the parameter as
    `prefix` + its name, if the type is wrong or the value is out of range.
    """
    name = prefix + field.name
    kind: Any = type(field.default)
    if kind in (float, str) and type(value) is int:
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            value = kind(value)
    if kind is tuple and _are_strings(value):
        value = tuple(text for text in value if text)
    if type(value) is not kind:
        got = f"{quoted(value)} ({type(value).__name__})"
        raise ConfigError(f"parameter {name} must be {KINDS[kind]}, got {got}")
    if kind is tuple and len(value) > MAX_ENTRIES:
        raise ConfigError(
            f"parameter {name} must have at most {MAX_ENTRIES} entries, got {len(value)}"
        )
    limits, choices = field.metadata["limits"], field.metadata["choices"]
    if limits and not limits[0] <= value <= limits[1]:  # false for NaN, too
        raise ConfigError(f"parameter {name} must be {limits[0]} to {limits[1]}, got {value}")
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


def _are_strings(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(text, str) for text in value)
    )
