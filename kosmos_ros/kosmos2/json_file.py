# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Read JSON objects of a limited size, and refuse invalid fields.

Knows no model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from kosmos_ros.sanitize import first_line, quoted

JSON_BYTES = 2 << 20
"""Largest size of a JSON file in bytes. KOSMOS-2's files have less than a tenth of it."""


def read(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """Return the object in a file. Raises ValueError if there is none or the file is too large."""
    if not path.is_file():  # missing, or a pipe or device that may be endless
        raise ValueError(f"it has no {path.name}")
    check_length(path, most)
    with path.open("rb") as file:
        return parsed(path.name, file.read(most))


def parsed(name: str, data: bytes) -> dict[str, Any]:
    """Return the object in `data`. Raises ValueError, whose message contains `name`."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{name} must be JSON: {first_line(exc)}") from exc
    if not isinstance(tree, dict):
        raise ValueError(f"{name} must be a JSON object, got {quoted(tree)}")
    return tree


def check_length(path: Path, most: int) -> None:
    """Raise ValueError if a file has more than `most` bytes."""
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path.name} must have at most {most} bytes, got {size}")


def refuse(name: str, valid: str, value: Any, file: str = "config.json") -> NoReturn:
    """Raise ValueError for an invalid field. `valid` describes its valid values."""
    raise ValueError(f"{quoted(name)[1:-1]} in {file} must be {valid}, got {quoted(value)}")
