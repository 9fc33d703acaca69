# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Declare, read and check a node's ROS parameters, from the fields of a dataclass.

settings.py describes the fields. Knows no effect of a parameter.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from kosmos_ros.errors import ConfigError, KosmosError, RequestError
from kosmos_ros.ros import limits
from kosmos_ros.sanitize import MAX_VALUE, format_error, one_line, quoted
from kosmos_ros.settings import MAX_ENTRIES, validated

Values = TypeVar("Values")

REPEAT_WARNING = 5.0  # s between two warnings about refused requests
DEPTH_RECURSIVE = ListParameters.Request.DEPTH_RECURSIVE  # all names
NOT_SET = Parameter.Type.NOT_SET
TYPES = {kind.value for kind in Parameter.Type}
MAX_NAMES = 1000
"""Largest number of entries in a request for parameters.

A node with more parameters accepts as many entries as it has parameters. The time to set a
parameter grows with the number of cameras, and no other callback runs meanwhile.
"""

NULL = "null"  # rcl also reads null in a parameter file as this text
UNSET = (None, NULL)


def declare(
    node: Node,
    kind: type[Values],
    prefix: str = "",
    check: Callable[[dataclasses.Field[Any], Any], object] = lambda field, value: None,
) -> Values:
    """Declare every field of `kind` on `node` and return the values. Raises ConfigError.

    A parameter with a `prefix`, which ends with a dot, has no value until it is set to one other
    than null. `ros2 param dump` writes null for a parameter without a value. `check` raises
    KosmosError for a new value that cannot be used.
    """
    for field in _fields(kind):
        name = prefix + field.name
        # With static typing `max_rate:=1` would end the node: an integer is not a double.
        descriptor = _descriptor(field, bool(prefix) or isinstance(field.default, float | str))
        value = given(node).get(name)
        # rclpy reads [] in a file or on the command line as no value.
        empty = isinstance(field.default, tuple) and value and value.type_ is NOT_SET
        unset = prefix and value and value.value in UNSET and not empty
        default = None if prefix and not empty else _shown(field)
        try:
            node.declare_parameter(name, default, descriptor, bool(empty or unset))
        except (InvalidParameterTypeException, InvalidParameterValueException) as exc:
            raise ConfigError(f"parameter {name}: {one_line(exc)}") from exc
    values = read(node, kind, prefix)
    fields = {prefix + field.name: field for field in _fields(kind)}

    def check_change(change: Parameter) -> None:
        field = fields.get(change.name)
        if field is None or (prefix and change.value == NULL):
            return
        if prefix and change.value is None:  # rclpy would undeclare the parameter
            raise ConfigError(
                f"parameter {change.name} must have a value; "
                "set it to the string 'null' to unset it"
            )
        if isinstance(change.value, list) and len(change.value) > MAX_ENTRIES:
            # `validated` does not count empty strings, but rclpy keeps them.
            raise ConfigError(
                f"parameter {change.name} must have at most {MAX_ENTRIES} entries, "
                f"got {len(change.value)}"
            )
        value = validated(field, change.value, prefix)
        try:
            check(field, value)
        except KosmosError as exc:
            raise ConfigError(f"parameter {change.name}: {exc}") from exc

    def on_set(changes: list[Parameter]) -> SetParametersResult:
        try:
            for change in changes:
                check_change(change)
        except Exception as exc:  # of any type, because it would end the node
            return SetParametersResult(successful=False, reason=format_error(exc))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)
    return values


def read(node: Node, kind: type[Values], prefix: str = "") -> Values:
    """Return the values of the declared parameters. Raises ConfigError.

    A parameter without a value uses that of the parameter without `prefix`.
    """
    values = {}
    for field in _fields(kind):
        value, used = node.get_parameter(prefix + field.name).value, prefix
        if prefix and value in UNSET:
            value, used = node.get_parameter(field.name).value, ""
        values[field.name] = validated(field, value, used)
    return kind(**values)


class Current(Generic[Values]):
    """The values of declared parameters, read again only after a change.

    Reading and checking all of them takes longer than the rest of the image callback.
    """

    def __init__(self, node: Node, kind: type[Values], prefix: str = "") -> None:
        self._node, self._kind, self._prefix = node, kind, prefix
        self._changed = False
        names = [field.name for field in _fields(kind)]
        self._names = {*names, *(prefix + name for name in names)}
        self.values = read(node, kind, prefix)
        # Before Iron, rclpy calls back only before it stores a change, not after.
        after = getattr(node, "add_post_set_parameters_callback", None)
        if after:
            after(self._read)
        else:
            node.add_on_set_parameters_callback(self._note_change)

    def refresh(self) -> Values:
        """Read the values again if a parameter has changed. Call from the executor's thread."""
        if self._changed:
            self._changed = False
            self.values = read(self._node, self._kind, self._prefix)
        return self.values

    def _read(self, changes: list[Parameter]) -> None:
        if any(change.name in self._names for change in changes):
            self.values = read(self._node, self._kind, self._prefix)

    def _note_change(self, changes: list[Parameter]) -> SetParametersResult:
        self._changed = True
        return SetParametersResult(successful=True)


def limit_requests(node: Node) -> None:
    """Let rclpy's parameter services refuse requests whose texts or lists are too long."""
    for service in node.services:
        if refusal := REFUSALS.get(service.srv_type):
            service.callback = functools.partial(_respond, node, service.callback, refusal)


def _respond(
    node: Node,
    respond: Callable[[Any, Any], Any],
    refusal: Callable[[Any, str], Any],
    request: Any,
    response: Any,
) -> Any:
    declared = len(node.list_parameters([], DEPTH_RECURSIVE).names)
    try:
        limits.check(request, entries=max(MAX_NAMES, declared))
        _check_types(request)
    except RequestError as exc:
        node.get_logger().warning(
            f"a request for parameters is refused: {exc}", throttle_duration_sec=REPEAT_WARNING
        )
        return refusal(request, str(exc))
    return respond(request, response)


def _check_types(request: Any) -> None:
    """Raise RequestError for an unknown type. rclpy would raise an error and send no response."""
    for change in getattr(request, "parameters", ()):
        if change.value.type not in TYPES:
            raise RequestError(
                f"parameter {quoted(change.name)} has the unknown type {change.value.type}; it "
                f"must be from {min(TYPES)} to {max(TYPES)}"
            )


def _no_change(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)


REFUSALS: dict[Any, Callable[[Any, str], Any]] = {
    SetParameters: lambda request, reason: SetParameters.Response(
        results=[_no_change(reason)] * len(request.parameters)
    ),
    SetParametersAtomically: lambda request, reason: SetParametersAtomically.Response(
        result=_no_change(reason)
    ),
    # The same response as for undeclared names.
    GetParameters: lambda request, reason: GetParameters.Response(),
    GetParameterTypes: lambda request, reason: GetParameterTypes.Response(),
    DescribeParameters: lambda request, reason: DescribeParameters.Response(),
    ListParameters: lambda request, reason: ListParameters.Response(),
}
"""Parameter service: its response to a request that it refuses."""


def unknown(node: Node) -> list[str]:
    """Return a warning for each given parameter that `node` has not declared."""
    names = list(node.get_parameters_by_prefix(""))
    lines = []
    for name in sorted(name for name in given(node) if not node.has_parameter(name)):
        close = difflib.get_close_matches(name, names, n=1)
        lines.append(
            f"parameter {one_line(name, MAX_VALUE)} is unknown"
            + (f"; did you mean {close[0]}?" if close else "")
        )
    return lines


def given(node: Node) -> dict[str, Parameter]:
    """Return the parameters of a file and the command line. rclpy has no public method for it."""
    return getattr(node, "_parameter_overrides", {})


def _shown(field: dataclasses.Field[Any]) -> Any:
    # rclpy takes an empty list for bytes; see settings.validated.
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
