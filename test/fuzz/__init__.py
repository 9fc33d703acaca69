# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random inputs for the code that reads external data. Each target is a module, which has

    run(data)   run the target on any bytes; return whether it accepted them. Documented errors are
                caught and results are checked, so every exception is a bug.
    SEEDS       meaningful inputs to start from
    WORDS       parts of such inputs
    MEMORY      memory limit of the process in MiB, if less than 2048
    RUNS        default number of inputs, if other than 100,000

`scripts/fuzz` runs the targets with inputs that atheris mutates towards code not yet reached
(hunt.py). test_fuzz.py runs them with a few random inputs and with those of corpus/, each of which
once showed a bug. To keep the meaning of these inputs, append to tables that bytes select from.
"""

import importlib
import os
from pathlib import Path

TARGETS = (
    "raw",
    "compressed",
    "jpeg",
    "png",
    "files",
    "parse",
    "prompt",
    "request",
    "parameter",
    "hub",
    "model",
    "data_set",
)
SHARED = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a folder in memory
CORPUS = Path(__file__).parents[1] / "corpus"


def load(name):
    """Return the module of a target."""
    return importlib.import_module(f"{__name__}.{name}")
