"""What a program can be told, each setting once: name, default, range, description.

A dataclass holds them; a field made by `parameter` is a ROS parameter, a launch argument or an
option of the same name. `Settings` are those of kosmos_node. Knows no ROS and no command line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kosmos_ros.errors import ConfigError
from kosmos_ros.prompts import CAPTION_TASKS


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
    image_reliability: str = parameter(
        "best_effort",
        "Delivery of images: best_effort connects to any camera; reliable to those that offer it, "
        "and loses none.",
        choices=("best_effort", "reliable"),
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


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
"""Those of Settings by name, for `checked`."""


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
