# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What `kosmos check` finds: comparisons, memory and speed, and the figures to expect.

Knows no model and no output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.loading import ModelInfo
    from kosmos_ros.kosmos2.reference import Difference, Speed

SCORE_TOLERANCE = 1e-4  # between mean probabilities in float32
FULL_SIZE = 1_000_000_000  # parameters; KOSMOS-2 has 1.66 billion


@dataclass(frozen=True)
class Expected:
    """Figures of docs/performance.md. Times are measured on the host."""

    machine: str
    weights: float = 0.0  # GB; 0: not measured
    first_token: float = 0.0  # ms
    next_token: float = 0.0  # ms


_H200, _CPU = "NVIDIA H200", "AMD EPYC, 2 cores"
EXPECTED = {
    ("full", "cuda", "bfloat16"): Expected(_H200, 3.34, 4.83, 0.947),
    ("full", "cuda", "int8"): Expected(_H200, 1.81),
    ("full", "cuda", "nf4"): Expected(_H200, 1.14),
    ("full", "cpu", "float32"): Expected(f"{_CPU}, 34 GB/s", 6.67, 1946, 180),
    ("full", "cpu", "int8"): Expected(_CPU, 2.09, next_token=81.7),
    ("full", "cpu", "nf4"): Expected(_CPU, 1.42, next_token=59.6),
    ("shapes", "cpu", "float32"): Expected(_CPU, first_token=6.78, next_token=0.47),
}
"""(size of the model, kind of device, number format or quantization): figures."""


@dataclass(frozen=True)
class Row:
    """One example in one number format. Everything but `to_float32` compares with Hugging Face."""

    title: str
    text: str  # prompt and answer with tags
    prompt_ids: bool  # equal
    boxes: bool  # equal, if both read the engine's tokens
    difference: Difference | None  # of the tokens; None: equal
    score: float | None  # difference of the mean probabilities; None: the tokens differ
    on_card: bool | None  # equal to the model card's output; None: it shows none
    ids: tuple[int, ...]
    to_float32: Difference | None = None  # of the tokens in this format and in float32

    def faults(self, exact: bool) -> list[str]:
        """Return what is wrong. `exact`: the number format is float32."""
        found = {
            "token ids of the prompt differ from Hugging Face's processor": not self.prompt_ids,
            "phrases and boxes differ from post_process_generation": not self.boxes,
            "token ids differ from generate": exact and self.difference is not None,
            f"the mean probability differs by more than {SCORE_TOLERANCE}": exact
            and self.score is not None
            and not self.score <= SCORE_TOLERANCE,
            f"the output differs from the model card: {self.text}": exact
            and self.on_card is False,
        }
        return [f"{self.title}: {text}" for text, wrong in found.items() if wrong]


@dataclass(frozen=True)
class Pass:
    """The results in one number format."""

    info: ModelInfo
    rows: list[Row]
    pixels: float  # largest difference from the processor's pixels, in grey levels of 255
    speed: Speed
    process: int  # bytes, peak of the process's memory so far

    @property
    def name(self) -> str:
        """The quantization, or the number format of weights that are not quantized."""
        info = self.info
        return info.dtype if info.quantization == "none" else info.quantization

    @property
    def exact(self) -> bool:
        """Whether token ids must be those of generate."""
        return self.name == "float32"

    @property
    def faults(self) -> list[str]:
        """The differences in this number format that are faults."""
        return [f"{self.name}: {fault}" for row in self.rows for fault in row.faults(self.exact)]

    @property
    def expected(self) -> Expected:
        """Figures to compare the speed with."""
        kind = self.info.device.partition(":")[0]
        size = "full" if self.info.parameters >= FULL_SIZE else self.info.model
        key = (size, kind, self.name)
        return EXPECTED.get(key, Expected(""))
