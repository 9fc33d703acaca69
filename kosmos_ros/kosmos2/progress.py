# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The phases of loading a model, and the function that receives them. Knows no model."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Receives a phase of loading, and for DOWNLOADING the bytes on this machine and the total.

For other phases both numbers are 0. It is called often, and must return at once.
"""

IMPORTING = "importing torch"
DOWNLOADING = "downloading"
READING = "reading weights"  # and moving them to the device; bitsandbytes also quantizes them
QUANTIZING = "quantizing"
WARMING_UP = "warming up"


def unreported(phase: str, done: int, total: int) -> None:
    """Ignore a report."""
