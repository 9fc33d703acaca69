# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Declare and check a node's ROS parameters, from the fields of a dataclass.

settings.py describes the fields. Knows no effect of a parameter.

A parameter has the type of its field, whatever a client or a file sends: an integer becomes a
double, and any empty array an empty list of strings. rclpy stores only what has been checked here.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
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
from rclpy.node import Node
from rclpy.parameter import Parameter

from kosmos_ros.errors import ConfigError, KosmosError, RequestError
from kosmos_ros.ros import limits
from kosmos_ros.sanitize import MAX_VALUE, format_error, one_line, quoted
from kosmos_ros.settings import NULLS, validated

Values = TypeVar("Values")

REPEAT_WARNING = 5.0  # s between two warnings about refused requests
DEPTH_RECURSIVE = ListParameters.Request.DEPTH_RECURSIVE  # all names
TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple: Parameter.Type.STRING_ARRAY,
}
"""ROS types of the fields' types."""

KNOWN_TYPES = {kind.value for kind in Parameter.Type}
MAX_KEPT = 200  # characters of the names of parameters that do not follow a change
MAX_NAMES = 1000
"""Largest number of entries in a request for parameters.

A node with more parameters accepts as many entries as it has parameters. The time to set a
parameter grows with the number of cameras, and no other callback runs meanwhile.
"""
MAX_TEXTS = 1_000_000
"""Maximum number of characters of all values in a request for parameters. The node does nothing
else while it turns the prompts among them into tokens."""

Check = Callable[["dataclasses.Field[Any]", Any], object]
"""Raises KosmosError for a new value of a field that cannot be used."""

CheckAll = Callable[[Any, str], object]
"""Raises KosmosError for values of a dataclass that contradict each other; the text is the prefix
of the parameters' names."""


class Group(Generic[Values]):
    """The declared parameters of one dataclass with one prefix, and their values.

    `common` is the group of the same dataclass without a prefix; None: this group has none.
    """

    def __init__(
        self,
        kind: type[Values],
        prefix: str,
        check: Check,
        check_all: CheckAll,
        common: Group[Values] | None,
    ) -> None:
        self.fields = {prefix + field.name: field for field in _fields(kind)}
        self.common = common
        self.values: Values = common.values if common else kind()
        self._prefix, self._check, self._check_all = prefix, check, check_all

    def checked(self, name: str, value: Any) -> Any:
        """Return `value` as the type of the parameter's field. Raises ConfigError."""
        value = validated(self.fields[name], value, self._prefix)
        try:
            self._check(self.fields[name], value)
        except KosmosError as exc:
            raise ConfigError(f"parameter {name}: {exc}") from exc
        return value

    def default(self, name: str) -> Any:
        """Return the value of a parameter that is not set: the common one, or the field's."""
        field = self.fields[name]
        return getattr(self.common.values, field.name) if self.common else field.default

    def after(self, changes: dict[str, Any]) -> Values:
        """Return the values with those `changes` that belong to this group.

        Raises KosmosError if they contradict each other.
        """
        own = {field.name: changes[name] for name, field in self.fields.items() if name in changes}
        if not own:
            return self.values
        values: Values = dataclasses.replace(self.values, **own)  # type: ignore[type-var]
        self._check_all(values, self._prefix)
        return values


class ParameterNode(Node):
    """A node whose parameters come from dataclasses; see `declare`."""

    def __init__(self, name: str, **options: Any) -> None:
        self._groups: dict[str, Group[Any]] = {}  # by the name of each parameter
        self._own: set[str] = set()  # parameters with a prefix that do not follow the common one
        super().__init__(name, **options)
        for service in self.services:
            if refusal := REFUSALS.get(service.srv_type):
                respond = functools.partial(_respond, self, service.callback, refusal)
                service.callback = respond

    def declare(
        self,
        kind: type[Values],
        prefix: str = "",
        check: Check = lambda field, value: None,
        check_all: CheckAll = lambda values, prefix: None,
    ) -> Group[Values]:
        """Declare every field of `kind`. Return the group, which has the current values.

        A parameter with a `prefix`, which ends with a dot, has the value of the parameter without
        it until it is set. Null unsets a parameter. Raises ConfigError for an invalid value in a
        file or on the command line. `check` is called for changes only, `check_all` also for the
        first values.
        """
        common = self._groups[_fields(kind)[0].name] if prefix else None
        group = Group(kind, prefix, check, check_all, common)
        values = {}
        for name, field in group.fields.items():
            value, given_one = group.default(name), given(self).get(name)
            if given_one and given_one.value not in NULLS:
                # rclpy reads [] as no value.
                value = [] if given_one.value is None else given_one.value
                value = validated(field, value, prefix)
                if prefix:
                    self._own.add(name)
            values[name] = value
            self._declare_one(name, field, value)
        group.values = group.after(values)
        self._groups.update(dict.fromkeys(group.fields, group))
        return group

    def _declare_one(self, name: str, field: dataclasses.Field[Any], value: Any) -> None:
        descriptor = _descriptor(field)
        if value != ():
            stored = list(value) if isinstance(value, tuple) else value
            self.declare_parameter(name, stored, descriptor, ignore_override=True)
            return
        # rclpy takes an empty list for a list of bytes when it declares a parameter.
        changeable = ParameterDescriptor()
        self.declare_parameter(name, [""], changeable, ignore_override=True)
        super().set_parameters_atomically([_parameter(name, value)])
        self.set_descriptor(name, descriptor)

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set parameters one after the other; see `set_parameters_atomically`."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set all parameters, or none if one of them cannot be set.

        rclpy's parameter services call this. A reason in a successful result says which
        parameters with a prefix did not follow a change.
        """
        try:
            changes, own = self._resolved(parameter_list)
            groups = dict.fromkeys(self._groups.values())
            after = {group: group.after(changes) for group in groups}
        except Exception as exc:  # of any type, because it would end the node
            return SetParametersResult(successful=False, reason=format_error(exc))
        others = [each for each in parameter_list if each.name not in self._groups]
        stored = [_parameter(name, value) for name, value in changes.items()]
        result = super().set_parameters_atomically([*others, *stored])
        if result.successful:
            self._own = own
            for group, values in after.items():
                group.values = values
            result.reason = self._kept(parameter_list)
        return result

    def _resolved(self, parameters: Iterable[Parameter]) -> tuple[dict[str, Any], set[str]]:
        """Return all values that change, by name, and the parameters with their own value.

        Raises ConfigError for a parameter that is unknown, fixed or has an invalid value.
        """
        changes: dict[str, Any] = {}
        own = set(self._own)
        for parameter in parameters:
            name, group = parameter.name, self._groups.get(parameter.name)
            if group is None:
                if not self.has_parameter(name):
                    raise ConfigError(f"parameter {one_line(name, MAX_VALUE)} is unknown")
            elif group.fields[name].metadata["read_only"]:
                raise ConfigError(f"parameter {name} is read at start only; restart the node")
            elif parameter.value is None or parameter.value in NULLS:
                own.discard(name)
                changes[name] = group.default(name)
            else:
                changes[name] = group.checked(name, parameter.value)
                if group.common:
                    own.add(name)
        for name, group in self._groups.items():
            common_name = group.fields[name].name
            if group.common and name not in own and common_name in changes:
                changes[name] = changes[common_name]
        return changes, own

    def _kept(self, parameters: Iterable[Parameter]) -> str:
        """Return which parameters did not follow a change of the common ones; empty: all did."""
        changed = {parameter.name for parameter in parameters}
        kept = [
            name
            for name in sorted(self._own - changed)
            if self._groups[name].fields[name].name in changed
        ]
        names = one_line(", ".join(kept), MAX_KEPT)
        return (
            f"these keep their own values: {names}; set one to null to let it follow"
            if kept
            else ""
        )

    def unknown(self) -> list[str]:
        """Return a warning for each given parameter that the node has not declared."""
        names = list(self.get_parameters_by_prefix(""))
        lines = []
        for name in sorted(name for name in given(self) if not self.has_parameter(name)):
            close = difflib.get_close_matches(name, names, n=1)
            lines.append(
                f"parameter {one_line(name, MAX_VALUE)} is unknown"
                + (f"; did you mean {close[0]}?" if close else "")
            )
        return lines


def given(node: Node) -> dict[str, Parameter]:
    """Return the parameters of a file and the command line. rclpy has no public method for it."""
    return getattr(node, "_parameter_overrides", {})


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _parameter(name: str, value: Any) -> Parameter:
    stored = list(value) if isinstance(value, tuple) else value
    return Parameter(name, TYPES[type(value)], stored)


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    choices, limits = field.metadata["choices"], field.metadata["limits"]
    descriptor = ParameterDescriptor(
        type=TYPES[type(field.default)].value,
        description=field.metadata["description"],
        additional_constraints=f"one of {', '.join(choices)}" if choices else "",
        read_only=field.metadata["read_only"],
    )
    if limits and isinstance(field.default, float):
        low, high = map(float, limits)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif limits:
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1], step=1)]
    return descriptor


# Requests that are too large --------------------------------------------------------------------


def _respond(
    node: Node,
    respond: Callable[[Any, Any], Any],
    refusal: Callable[[Any, str], Any],
    request: Any,
    response: Any,
) -> Any:
    declared = len(node.list_parameters([], DEPTH_RECURSIVE).names)
    try:
        _check_sizes(request, max(MAX_NAMES, declared))
        _check_changes(getattr(request, "parameters", ()))
    except RequestError as exc:
        node.get_logger().warning(
            f"a request for parameters is refused: {exc}", throttle_duration_sec=REPEAT_WARNING
        )
        return refusal(request, str(exc))
    return respond(request, response)


def _check_sizes(request: Any, entries: int) -> None:
    """Raise RequestError for a text or list that is too long; the error names its parameter."""
    changes = getattr(request, "parameters", None)
    if changes is None or len(changes) > entries:
        limits.check(request, entries)
        return
    for change in changes:
        limits.check_parameter(change)


def _check_changes(changes: Sequence[Any]) -> None:
    """Raise RequestError for too much text, or an unknown type.

    For such a type rclpy would raise an error and send no response.
    """
    values = [change.value for change in changes]
    total = sum(
        len(text) for value in values for text in (value.string_value, *value.string_array_value)
    )
    if total > MAX_TEXTS:
        raise RequestError(
            f"all values together must have at most {MAX_TEXTS} characters, got {total}; send "
            "them in several requests"
        )
    for change in changes:
        if change.value.type not in KNOWN_TYPES:
            raise RequestError(
                f"parameter {quoted(change.name)} has the unknown type {change.value.type}; it "
                f"must be from {min(KNOWN_TYPES)} to {max(KNOWN_TYPES)}"
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
