# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Differences between the supported versions of transformers. Knows no model."""

from __future__ import annotations

import transformers
from packaging.version import Version

_INSTALLED = Version(transformers.__version__)

DTYPE = "dtype" if Version("4.56") <= _INSTALLED else "torch_dtype"
"""Argument of `from_pretrained` for the type of the weights; 4.56 deprecates the old name."""
NF4_ON_CPU = Version("4.53") <= _INSTALLED
"""Whether nf4 works on a CPU. Older versions need Intel's extension of torch."""
