# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""How the supported versions of transformers differ, where it matters here. Knows no model."""

from __future__ import annotations

import transformers
from packaging.version import Version
from torch import Tensor

_INSTALLED = Version(transformers.__version__)

DTYPE = "dtype" if Version("4.56") <= _INSTALLED else "torch_dtype"
"""The argument of `from_pretrained` that gives the weights' type; 4.56 deprecates the old name."""
NF4_ON_CPU = Version("4.53") <= _INSTALLED
"""Whether bitsandbytes may have weights on a CPU: before, Intel's extension of torch had to."""
FLORENCE_2 = hasattr(transformers, "Florence2Config")
"""Whether it has the model of this name."""


def hidden_states(given: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a layer of the text model gives, (B, T, D): before version 5, the first of a tuple."""
    return given[0] if isinstance(given, tuple) else given
