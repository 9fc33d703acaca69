# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run one target under atheris, which ends this process.

    python -m fuzz.hunt TARGET FOLDER [libFuzzer's options and folders of inputs]

The run writes findings to FOLDER and continues. If the process crashes, hangs or takes too much
memory, libFuzzer writes the input to FOLDER and ends the run.
"""

import contextlib
import gc
import sys
from pathlib import Path

import atheris

import fuzz
from fuzz.findings import Findings

# Targets without guidance. With atheris 3.0, instrumented code keeps parts of the compared models,
# a megabyte for each input.
BLIND = ("model",)


def main():
    target, folder, *options = sys.argv[1:]
    # Other packages are not under test, and torch is slow when instrumented.
    guided = atheris.instrument_imports(include=["kosmos_ros"])
    with contextlib.nullcontext() if target in BLIND else guided:
        run = fuzz.load(target).run
    findings = Findings(run, Path(folder))
    findings(b"")
    gc.freeze()  # leaves out imported modules: with torch a collection takes 0.2 s
    atheris.Setup([sys.argv[0], *options], findings)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
