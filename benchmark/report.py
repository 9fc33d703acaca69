# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rows of figures, as a table, JSON and plots. Measures nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 8.0, 0.32  # inches of a plot and of each of its bars


@dataclass(frozen=True)
class Row:
    """A figure, beside what it is held against in the same run."""

    name: str
    value: float
    unit: str
    against: str = ""  # what the baseline is
    baseline: float | None = None  # in `unit`

    @property
    def ratio(self) -> float | None:
        """How many times better than the baseline; of a bound, how many times as much."""
        if self.baseline is None or not self.value or not self.baseline:
            return None
        more_is_better = self.unit.endswith("/s") or self.against == BOUND
        return self.value / self.baseline if more_is_better else self.baseline / self.value


BOUND, GENERATE = "bandwidth bound", "generate"  # baselines


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = ["| what | figure | held against | ratio |", "|---|---|---|---|"]
    for row in rows:
        ratio = f"{row.ratio:.2f} x" if row.ratio else ""
        other = f"{row.against} {_number(row.baseline)}" if row.baseline is not None else ""
        lines.append(f"| {row.name} | {_number(row.value)} {row.unit} | {other} | {ratio} |")
    return "\n".join(lines)


def write_json(rows: Sequence[Row], machine: dict[str, str], file: Path) -> None:
    """All rows with what they were measured on."""
    content = {
        "machine": machine,
        "rows": [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows],
    }
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def plot(rows: Sequence[Row], title: str, file: Path) -> None:
    """Bars of the ratios of the rows that are held against generate, with a line at 1."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.against == GENERATE]
    figure = Figure((WIDTH, 1.2 + HEIGHT * len(shown)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    ratios = [row.ratio or 0.0 for row in shown]
    bars = axes.barh([row.name.partition(": ")[2] for row in shown], ratios, color="#4363d8")
    axes.bar_label(bars, [f"{ratio:.1f} x" for ratio in ratios], padding=3)
    axes.axvline(1.0, color="#141414", linewidth=1)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("times as good as generate")
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
