"""One target under atheris, in this process, which ends with it.

    python -m fuzz.hunt TARGET FOLDER [libFuzzer's options and folders of inputs]

Findings go to FOLDER, and the hunt goes on. libFuzzer itself ends it, with a file there, where the
process dies, hangs or takes too much memory.
"""

import contextlib
import gc
import sys
from pathlib import Path

import atheris

import fuzz
from fuzz.findings import Findings

# Targets whose inputs are random only. Instrumented code of atheris 3.0 keeps parts of the models
# that it compares: a megabyte for each input.
BLIND = ("model",)


def main():
    target, folder, *options = sys.argv[1:]
    # torch, transformers and the rest are not what is tested, and slow when instrumented.
    guided = atheris.instrument_imports(include=["kosmos_ros"])
    with contextlib.nullcontext() if target in BLIND else guided:
        run = fuzz.load(target).run
    findings = Findings(run, Path(folder))
    findings(b"")
    gc.freeze()  # what is imported by now: a collection takes a fifth of a second with torch
    atheris.Setup([sys.argv[0], *options], findings)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
