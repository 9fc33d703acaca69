# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write the figures of a run as a table and as JSON. Measures nothing."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """A figure; the value of a `fault` must be 0."""

    name: str
    value: float
    unit: str
    fault: bool = False


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table that marks faults."""
    lines = ["| what | figure |", "|---|---|"]
    for row in rows:
        value = f"{row.value:,.0f}" if abs(row.value) >= 1000 else f"{row.value:.4g}"
        mark = " (must be 0)" if row.fault and row.value else ""
        lines.append(f"| {row.name} | {value} {row.unit}{mark} |")
    return "\n".join(lines)


def failed(rows: Sequence[Row]) -> bool:
    """Return whether there was a fault."""
    return any(row.fault and row.value for row in rows)


def write_json(rows: Sequence[Row], run: dict[str, object], file: Path) -> None:
    """Write all rows and the options of the run."""
    content = {"run": run, "rows": [dataclasses.asdict(row) for row in rows]}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through the second half of (x, y)."""
    x, y = np.asarray(points[len(points) // 2 :], float).T
    away = x - x.mean()
    spread = float(away @ away)
    return float(away @ (y - y.mean())) / spread if spread else 0.0
