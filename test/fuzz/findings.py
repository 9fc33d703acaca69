# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the first input that makes a target raise at each place in the code.

Knows no fuzzer. The caller continues with the next input.
"""

import hashlib
import sys
import traceback

MARK = "finding: "  # start of the line about a finding


class Findings:
    """Runs a target and keeps the inputs that make it raise."""

    def __init__(self, run, folder):
        self._run = run
        self._folder = folder
        self._places = set()

    def __call__(self, data):
        try:
            self._run(data)
        except Exception as exc:  # targets catch documented errors, so all others are bugs
            frames = traceback.extract_tb(exc.__traceback__)
            ours = [frame for frame in frames if "kosmos_ros" in frame.filename] or frames
            place = type(exc), ours[-1].filename, ours[-1].lineno
            if place not in self._places:
                self._places.add(place)
                self._keep(data, exc)

    def _keep(self, data, exc):
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / hashlib.sha1(data).hexdigest()[:16]
        file.write_bytes(data)
        traceback.print_exception(exc)
        print(f"{MARK}{file}: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
