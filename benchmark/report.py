# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Results as a table, JSON and plots. Measures nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 8.0, 0.32  # inches of a plot and of each of its bars


@dataclass(frozen=True)
class Result:
    """A measured value and the baseline that was measured in the same run."""

    name: str
    value: float
    unit: str
    against: str = ""  # name of the baseline
    baseline: float | None = None  # in `unit`

    @property
    def ratio(self) -> float | None:
        """How many times better than the baseline. For BOUNDS: how many times as large."""
        if self.baseline is None or not self.value or not self.baseline:
            return None
        more_is_better = self.unit.endswith("/s") or self.against in BOUNDS
        return self.value / self.baseline if more_is_better else self.baseline / self.value


GENERATE, BANDWIDTH, ARITHMETIC = "generate", "bandwidth bound", "arithmetic bound"  # baselines
BOUNDS = (BANDWIDTH, ARITHMETIC)
"""Shortest times that this machine allows, if only memory or only arithmetic limits it."""


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table."""
    lines = ["| what | value | baseline | ratio |", "|---|---|---|---|"]
    for one in results:
        ratio = f"{one.ratio:.2f} x" if one.ratio else ""
        baseline = "" if one.baseline is None else f"{one.against} {_number(one.baseline)}"
        lines.append(f"| {one.name} | {_number(one.value)} {one.unit} | {baseline} | {ratio} |")
    return "\n".join(lines)


def write_json(
    results: Sequence[Result], machine: dict[str, str], file: Path, complete: bool
) -> None:
    """Write the results, and the machine. `complete`: no part of the benchmark is missing."""
    content = {
        "complete": complete,
        "machine": machine,
        "results": [{**dataclasses.asdict(result), "ratio": result.ratio} for result in results],
    }
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def plot(results: Sequence[Result], title: str, file: Path) -> None:
    """Draw the ratios of the results whose baseline is generate, with a line at 1."""
    from matplotlib.figure import Figure

    shown = [result for result in results if result.against == GENERATE]
    figure = Figure((WIDTH, 1.2 + HEIGHT * len(shown)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    ratios = [result.ratio or 0.0 for result in shown]
    bars = axes.barh([result.name.partition(": ")[2] for result in shown], ratios, color="#4363d8")
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
