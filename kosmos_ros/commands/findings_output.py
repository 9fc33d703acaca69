# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Show what `kosmos check` found: a table for people, or JSON. Knows no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kosmos_ros.commands.findings import Pass
from kosmos_ros.sanitize import one_line


def table(
    model: str,
    picture: str,
    hint: str,
    passes: Sequence[Pass],
    faults: Sequence[str],
) -> list[str]:
    """Return the lines for people. `hint` says what was not compared."""
    info = passes[0].info
    place = f"{info.device} ({info.device_name})" if info.device_name else info.device
    lines = [
        f"{model} {info.revision}".rstrip() + f" on {place}, torch {info.torch}, "
        f"transformers {info.transformers}",
        f"picture: {one_line(picture)}" + (f"; {hint}" if hint else ""),
    ]
    for each in passes:
        lines += ["", *_rows(each), *_notes(each), "", *_figures(each)]
    differences = [f"DIFFERS: {one_line(fault)}" for fault in faults]
    return [*lines, "", *(differences or [f"all comparisons in float32 agree{_remark(passes)}"])]


def _remark(passes: Sequence[Pass]) -> str:
    """Return what other number formats change, for the last line."""
    found = [
        f"{each.name} changes {count} of {len(each.rows)} answers"
        for each in passes
        if (count := sum(row.to_float32 is not None for row in each.rows))
    ]
    return f"; rounding in {', '.join(found)}" if found else ""


def _rows(each: Pass) -> list[str]:
    lines = [f"{each.name:<22}prompt ids  token ids  boxes   model card"]
    for row in each.rows:
        card_says = "-" if row.on_card is None else _word(row.on_card)
        lines.append(
            f"{row.title:<22}{_word(row.prompt_ids):<12}{_word(not row.difference):<11}"
            f"{_word(row.boxes):<8}{card_says}"
        )
    return lines


def _word(equal: bool) -> str:
    return "equal" if equal else "differ"


def _notes(each: Pass) -> list[str]:
    """Return a line for each first token that differs."""
    lines = []
    for row in each.rows:
        for name, found in (("generate", row.difference), ("float32", row.to_float32)):
            if found:
                lines.append(
                    f"{row.title}: token {found.position + 1} is {found.token!r} "
                    f"(probability {found.probability:.3f}) instead of {found.reference_token!r} "
                    f"({found.reference_probability:.3f}) of {name}"
                )
    return lines


def _figures(each: Pass) -> list[str]:
    speed, expected = each.speed, each.expected
    rows = [
        ("memory of the weights", speed.weights / 1e9, expected.weights, "GB"),
        ("image to first token", speed.first_token * 1e3, expected.first_token, "ms"),
        ("one more token", speed.next_token * 1e3, expected.next_token, "ms"),
        ("GPU memory reserved", speed.device / 1e9, 0.0, "GB"),
        ("peak process memory", each.process / 1e9, 0.0, "GB"),
        ("largest pixel error", each.pixels, 0.0, "of 255, against Hugging Face's processor"),
    ]
    lines = []
    for name, value, usual, unit in rows:
        if value or usual:
            beside = f"   {expected.machine}: {usual:g} {unit}" if usual else ""
            shown = f"{value:.3g} {unit}" if value else "not measurable"
            lines.append(f"{name:<22}{shown}{beside}")
    return lines


def as_json(
    model: str, picture: str, snowman: bool, passes: Sequence[Pass], faults: Sequence[str]
) -> dict[str, Any]:
    """Return all results as one JSON object."""
    info = passes[0].info
    names = ("revision", "device", "device_name", "parameters", "torch", "transformers")
    return {
        "agrees": not faults,
        "faults": list(faults),
        "model": model,
        **{name: getattr(info, name) for name in names},
        "image": picture,
        "is_model_card_picture": snowman,
        "formats": [
            {
                "name": each.name,
                "examples": [dataclasses.asdict(row) for row in each.rows],
                "pixel_difference": each.pixels,
                "speed": dataclasses.asdict(each.speed),
                "process_bytes": each.process,
                "expected": dataclasses.asdict(each.expected),
            }
            for each in passes
        ],
    }
