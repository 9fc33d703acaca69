# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What torch says of a device that fails, as errors of ours. Knows texts only.

The texts are those of PyTorch, of CUDA's libraries under it, and of Jetson's memory manager.
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
        "|CUBLAS_STATUS_NOT_INITIALIZED"  # it has no room for its own work space
        "|can't allocate memory"  # torch's allocator of a CPU
        "|STATUS_ALLOC_FAILED"  # cuBLAS, cuDNN
        "|NVML_SUCCESS == r INTERNAL ASSERT"  # Jetson, whose driver cannot be asked what is free
        "|NvMapMemAlloc"
    ),
    # After most of these the process is in an inconsistent state (CUDA Runtime API,
    # cudaErrorIllegalAddress and its neighbours); of none can we know that it is not.
    DeviceLostError: re.compile("CUDA error|STATUS_EXECUTION_FAILED|CUDA driver error"),
}
"""By what the text holds; the first that fits. Any other is a GenerationError."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise what torch raises as GenerationError, OutOfMemoryError or DeviceLostError.

    Their messages begin with `what`.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        raise kind_of(exc)(f"{what}: {first_line(exc)}") from exc


def kind_of(error: BaseException) -> type[GenerationError] | type[DeviceLostError]:
    """Which error of ours it is."""
    if isinstance(error, MemoryError):
        return OutOfMemoryError
    kinds = (kind for kind, pattern in KINDS.items() if pattern.search(str(error)))
    return next(kinds, GenerationError)
