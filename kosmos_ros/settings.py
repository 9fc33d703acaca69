# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a program can be told, each setting once: name, default, range, description.

A dataclass holds them; a field made by `parameter` is a ROS parameter, a launch argument or an
option of the same name. Knows no ROS and no command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kosmos_ros.errors import ConfigError, KosmosError
from kosmos_ros.sanitize import quoted

MAX_ENTRIES = 100  # of each list, in parameters and in requests


def parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    check: Callable[[str], object] | None = None,
    read_only: bool = False,
) -> Any:
    """A field that is a parameter; `limits` are inclusive, `check` raises KosmosError."""
    metadata = {
        "description": description,
        "limits": limits,
        "choices": tuple(choices),
        "check": check,
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def validated(field: dataclasses.Field[Any], value: Any, prefix: str = "") -> Any:
    """`value` as the field's type; an integer serves where text or a float is needed.

    Of a list, empty texts are left out, since ROS has no empty list of texts.
    Raises ConfigError for another type or a value out of range, of the name behind `prefix`.
    """
    name = prefix + field.name
    kind: Any = type(field.default)
    if kind in (float, str) and type(value) is int:
        with contextlib.suppress(OverflowError):  # of what no float can hold
            value = kind(value)
    if kind is tuple and _are_texts(value):
        value = tuple(text for text in value if text)
    if type(value) is not kind:
        needed = "a list of texts" if kind is tuple else kind.__name__
        raise ConfigError(
            f"parameter {name} is {quoted(value)} ({type(value).__name__}); {needed} is needed"
        )
    if kind is tuple and len(value) > MAX_ENTRIES:
        raise ConfigError(f"parameter {name} has {len(value)} entries; {MAX_ENTRIES} is the most")
    limits, choices = field.metadata["limits"], field.metadata["choices"]
    if limits and not limits[0] <= value <= limits[1]:  # nor is NaN
        raise ConfigError(f"parameter {name} is {value}; {limits[0]} to {limits[1]} is needed")
    if choices and value not in choices:
        raise ConfigError(
            f"parameter {name} is {quoted(value)}; one of {', '.join(choices)} is needed"
        )
    if check := field.metadata["check"]:
        for text in value if kind is tuple else filter(None, [value]):
            try:
                check(text)
            except KosmosError as exc:
                raise ConfigError(f"parameter {name}: {exc}") from exc
    return value


def _are_texts(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(text, str) for text in value)
    )
