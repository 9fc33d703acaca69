# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random inputs for whatever reads from outside; a module for each target, which has

    run(data)   takes any bytes, raises nothing but for a bug: errors that the code documents are
                caught, and what it gives otherwise is checked; true where it gave something
    SEEDS       inputs that mean something, to begin with
    WORDS       what such inputs are made of
    MEMORY      MiB that a process which runs it may hold, where 2048 are too many
    RUNS        inputs that are enough, where 100,000 take too long

`scripts/fuzz` feeds them with inputs that atheris finds by the code they reach (hunt.py);
test_fuzz.py with a few, and with those of corpus/, which once showed a bug. So that these still
mean what they meant, tables that bytes choose from grow at their end only.
"""

import importlib
from pathlib import Path

TARGETS = ("raw", "compressed", "files", "parse", "prompt", "request", "parameter", "model")
CORPUS = Path(__file__).parents[1] / "corpus"


def load(name):
    """The module of a target."""
    return importlib.import_module(f"{__name__}.{name}")
