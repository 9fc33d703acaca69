# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A node's ROS parameters, from the fields of a dataclass; see settings.py.

Declares, reads and checks them; knows nothing of what they do.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from kosmos_ros.errors import ConfigError
from kosmos_ros.sanitize import MAX_VALUE, format_error, one_line
from kosmos_ros.settings import validated

Values = TypeVar("Values")

NOT_SET = Parameter.Type.NOT_SET
NULL = "null"  # which is text for rcl in a file of parameters, too
UNSET = (None, NULL)


def declare(node: Node, kind: type[Values], prefix: str = "") -> Values:
    """Declare every field of `kind` on `node` and give their values. Raises ConfigError.

    With a `prefix`, which ends with a dot, they have no values of their own until they are set,
    nor when they are set to null, which is what `ros2 param dump` writes of them.
    """
    for field in _fields(kind):
        name = prefix + field.name
        # With static typing `max_rate:=1` ends the node: an integer is not a double.
        descriptor = _descriptor(field, bool(prefix) or isinstance(field.default, float | str))
        value = given(node).get(name)
        # rclpy takes [] in a file or on the command line for no value at all.
        empty = isinstance(field.default, tuple) and value and value.type_ is NOT_SET
        unset = prefix and value and value.value in UNSET and not empty
        default = None if prefix and not empty else _shown(field)
        try:
            node.declare_parameter(name, default, descriptor, bool(empty or unset))
        except (InvalidParameterTypeException, InvalidParameterValueException) as exc:
            raise ConfigError(f"parameter {name}: {one_line(exc)}") from exc
    values = read(node, kind, prefix)
    fields = {prefix + field.name: field for field in _fields(kind)}

    def on_set(changes: list[Parameter]) -> SetParametersResult:
        try:
            for change in changes:
                if change.name not in fields or (prefix and change.value == NULL):
                    continue
                if prefix and change.value is None:  # rclpy would undeclare it
                    raise ConfigError(f"parameter {change.name} has no value; null unsets it")
                validated(fields[change.name], change.value, prefix)
        except Exception as exc:  # rclpy would let it end the node
            return SetParametersResult(successful=False, reason=format_error(exc))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)
    return values


def read(node: Node, kind: type[Values], prefix: str = "") -> Values:
    """Values of the declared parameters; one that has none has that without `prefix`.

    Raises ConfigError.
    """
    values = {}
    for field in _fields(kind):
        value, of = node.get_parameter(prefix + field.name).value, prefix
        if prefix and value in UNSET:
            value, of = node.get_parameter(field.name).value, ""
        values[field.name] = validated(field, value, of)
    return kind(**values)


def unknown(node: Node) -> list[str]:
    """A line for each parameter given to `node` (file or command line) that it does not have."""
    names = list(node.get_parameters_by_prefix(""))
    lines = []
    for name in sorted(name for name in given(node) if not node.has_parameter(name)):
        close = difflib.get_close_matches(name, names, n=1)
        lines.append(
            f"parameter {one_line(name, MAX_VALUE)} is unknown"
            + (f"; is {close[0]} meant?" if close else "")
        )
    return lines


def given(node: Node) -> dict[str, Parameter]:
    """Parameters of a file and the command line; rclpy has no public name for them."""
    return getattr(node, "_parameter_overrides", {})


def _shown(field: dataclasses.Field[Any]) -> Any:
    # rclpy takes an empty list for bytes; see settings.checked.
    return field.default or [""] if isinstance(field.default, tuple) else field.default


def _descriptor(field: dataclasses.Field[Any], dynamic: bool) -> ParameterDescriptor:
    choices, limits = field.metadata["choices"], field.metadata["limits"]
    descriptor = ParameterDescriptor(
        description=field.metadata["description"],
        additional_constraints=f"one of {', '.join(choices)}" if choices else "",
        read_only=field.metadata["read_only"],
        dynamic_typing=dynamic,
    )
    if limits and isinstance(field.default, float):
        low, high = map(float, limits)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif limits:
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1], step=1)]
    return descriptor


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)
