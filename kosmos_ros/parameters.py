"""A node's parameters, each stated once: name, default, range, description.

A dataclass holds them; a field made by `parameter` is a ROS parameter of the same name.
`Settings` are those of kosmos_node. Declares, reads and checks; knows nothing of what they do.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
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
from kosmos_ros.prompts import CAPTION_TASKS

Values = TypeVar("Values")


def parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    read_only: bool = False,
) -> Any:
    """A field that is a parameter; `limits` are inclusive."""
    metadata = {
        "description": description,
        "limits": limits,
        "choices": tuple(choices),
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Values of all parameters at one moment."""

    model: str = parameter(
        "microsoft/kosmos-2-patch14-224",
        'Hugging Face id, directory, or "shapes" for the small embedded model.',
        read_only=True,
    )
    revision: str = parameter(
        "", "Commit or tag of a Hugging Face id; empty: its main branch.", read_only=True
    )
    local_files_only: bool = parameter(
        False, "Never download: the model must be on disk.", read_only=True
    )
    device: str = parameter("auto", "auto, cpu, cuda or cuda:n.", read_only=True)
    dtype: str = parameter(
        "auto",
        "Of the weights; auto: bfloat16 or float16 on a GPU, float32 on a CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        read_only=True,
    )
    quantization: str = parameter(
        "none",
        "Of the weights, by bitsandbytes.",
        choices=("none", "int8", "nf4"),
        read_only=True,
    )
    image_transport: str = parameter(
        "raw",
        "raw: Image on the topic image; compressed: CompressedImage on image/compressed.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    max_image_pixels: int = parameter(
        50_000_000,
        "Larger pictures are refused before they are decoded (pixels).",
        limits=(1, 1_000_000_000),
    )
    always_on: bool = parameter(False, "Caption also when nobody subscribes to the results.")
    task: str = parameter("brief_caption", "What is said of each frame.", choices=CAPTION_TASKS)
    grounded: bool = parameter(True, "Give phrases boxes; without, captions are plain and faster.")
    max_new_tokens: int = parameter(
        128, "Longest caption or answer (tokens; a box takes four).", limits=(1, 1024)
    )
    max_rate: float = parameter(
        1.0, "Captions per second of one camera; 0: as fast as the model goes.", limits=(0, 1000)
    )
    max_image_age: float = parameter(
        0.0,
        "Frames that arrived longer ago are not captioned (seconds); 0: any age.",
        limits=(0, 3600),
    )
    queue_size: int = parameter(8, "Requests that may wait; more are refused.", limits=(1, 1000))
    request_timeout: float = parameter(
        10.0,
        "Longest that a request waits for the model or for an image (seconds).",
        limits=(0.1, 3600),
    )
    stale_timeout: float = parameter(
        5.0, "Warn when no image has come for so long (seconds); 0: never.", limits=(0, 3600)
    )


def declare(node: Node, kind: type[Values]) -> Values:
    """Declare every field of `kind` on `node` and give their values. Raises ConfigError."""
    for field in _fields(kind):
        try:
            node.declare_parameter(field.name, field.default, _descriptor(field))
        except (InvalidParameterTypeException, InvalidParameterValueException) as exc:
            raise ConfigError(f"parameter {field.name}: {exc}") from exc
    values = read(node, kind)
    fields = {field.name: field for field in _fields(kind)}

    def on_set(changes: list[Parameter]) -> SetParametersResult:
        try:
            for change in changes:
                if change.name in fields:
                    checked(fields[change.name], change.value)
        except ConfigError as exc:
            return SetParametersResult(successful=False, reason=str(exc))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)
    return values


def read(node: Node, kind: type[Values]) -> Values:
    """Values of the declared parameters. Raises ConfigError."""
    return kind(
        **{
            field.name: checked(field, node.get_parameter(field.name).value)
            for field in _fields(kind)
        }
    )


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the field's type; an integer serves where text or a float is needed.

    Raises ConfigError for another type or a value out of range.
    """
    name: str = field.name
    kind: Any = type(field.default)
    if kind in (float, str) and type(value) is int:
        value = kind(value)
    if type(value) is not kind:
        raise ConfigError(
            f"parameter {name} is {value!r} ({type(value).__name__}); {kind.__name__} is needed"
        )
    limits, choices = field.metadata["limits"], field.metadata["choices"]
    if limits and not (math.isfinite(value) and limits[0] <= value <= limits[1]):
        raise ConfigError(f"parameter {name} is {value}; {limits[0]} to {limits[1]} is needed")
    if choices and value not in choices:
        raise ConfigError(f"parameter {name} is {value!r}; one of {', '.join(choices)} is needed")
    return value


def unknown(node: Node, kind: type) -> list[str]:
    """A line for each parameter given to `node` (file or command line) that it does not have."""
    given = getattr(node, "_parameter_overrides", {})  # rclpy has no public name for them
    names = [field.name for field in _fields(kind)]
    lines = []
    for name in sorted(name for name in given if not node.has_parameter(name)):
        close = difflib.get_close_matches(name, names, n=1)
        lines.append(f"parameter {name} is unknown" + (f"; is {close[0]} meant?" if close else ""))
    return lines


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    choices, limits = field.metadata["choices"], field.metadata["limits"]
    descriptor = ParameterDescriptor(
        description=field.metadata["description"],
        additional_constraints=f"one of {', '.join(choices)}" if choices else "",
        read_only=field.metadata["read_only"],
        # With static typing `max_rate:=1` ends the node: an integer is not a double.
        dynamic_typing=isinstance(field.default, float | str),
    )
    if limits and isinstance(field.default, float):
        low, high = map(float, limits)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif limits:
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1], step=1)]
    return descriptor


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)
