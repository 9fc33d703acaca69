"""What torch says of a device that fails, as errors of ours. Knows texts only.

The texts are those of PyTorch, of CUDA's libraries under it, and of Jetson's memory manager.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from kosmos_ros.errors import DeviceLostError, GenerationError, OutOfMemoryError
from kosmos_ros.quoting import line

KINDS: dict[type[GenerationError] | type[DeviceLostError], re.Pattern[str]] = {
    OutOfMemoryError: re.compile(
        "out of memory"  # torch's allocator, CUDA's driver
        "|can't allocate memory"  # torch's allocator of a CPU
        "|STATUS_ALLOC_FAILED"  # cuBLAS, cuDNN
        "|NVML_SUCCESS == r INTERNAL ASSERT"  # Jetson, whose driver cannot be asked what is free
        "|NvMapMemAlloc"
    ),
    # After any other CUDA error the process is in an inconsistent state (CUDA Runtime API,
    # cudaErrorIllegalAddress and its neighbours).
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
        text = str(exc)
        reason = line(text.partition("\n")[0], 300)  # torch appends advice to programmers
        kinds = (kind for kind, pattern in KINDS.items() if pattern.search(text))
        kind = OutOfMemoryError if isinstance(exc, MemoryError) else next(kinds, GenerationError)
        raise kind(f"{what}: {reason or 'out of memory'}") from exc
