# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Translate torch's errors to those of kosmos_ros. Knows only the texts of errors.

The texts are from PyTorch, CUDA's libraries and Jetson's memory manager.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from kosmos_ros.errors import DeviceLostError, GenerationError, OutOfMemoryError
from kosmos_ros.sanitize import first_line

KINDS: dict[type[GenerationError] | type[DeviceLostError], re.Pattern[str]] = {
    OutOfMemoryError: re.compile(
        "out of memory"  # torch's allocator, CUDA's driver
        "|CUBLAS_STATUS_NOT_INITIALIZED"  # cuBLAS finds no room for its work space
        "|can't allocate memory"  # torch's CPU allocator
        "|STATUS_ALLOC_FAILED"  # cuBLAS, cuDNN
        "|NVML_SUCCESS == r INTERNAL ASSERT"  # Jetson, whose driver does not report free memory
        "|NvMapMemAlloc"
    ),
    # Most of these leave the process in an inconsistent state (CUDA Runtime API,
    # cudaErrorIllegalAddress and its neighbours). The texts do not show which ones do not.
    DeviceLostError: re.compile("CUDA error|STATUS_EXECUTION_FAILED|CUDA driver error"),
}
"""Error class: pattern of the text. The first match counts; the default is GenerationError."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise torch's errors as GenerationError, OutOfMemoryError or DeviceLostError.

    Their messages begin with `what`, such as "generation failed".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        raise kind_of(exc)(f"{what}: {first_line(exc)}") from exc


def kind_of(error: BaseException) -> type[GenerationError] | type[DeviceLostError]:
    """Return the class that `translated` raises for `error`."""
    if isinstance(error, MemoryError):
        return OutOfMemoryError
    matches = (kind for kind, pattern in KINDS.items() if pattern.search(str(error)))
    return next(matches, GenerationError)
