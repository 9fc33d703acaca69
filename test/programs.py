# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Programs of this package as processes, for tests that talk to them over DDS."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 60.0  # s
GRACE = 5.0  # s for a program to end by itself

CHILD = ("setpriv", "--pdeathsig", "TERM", "env", "--default-signal=INT")
"""Run a command that ends with its parent and obeys SIGINT.

A shell without job control, as in `scripts/test &`, starts its background commands with SIGINT
ignored, and children inherit that. Each of the two programs replaces itself with the next one, so
the process keeps its id.
"""


RUNNING = set()
"""Programs that have been started and not been left yet."""


class Program:
    """A program as a process in a process group of its own; keeps the lines of its output.

    `program` is a path, or the name of a module of kosmos_ros.ros, or of kosmos_ros with a dot.
    """

    def __init__(self, program, *arguments, **options):
        command = [str(program)]
        if isinstance(program, str):
            module = program if "." in program else f"ros.{program}"
            command = [sys.executable, "-u", "-m", f"kosmos_ros.{module}"]
        self.process = subprocess.Popen(
            [*CHILD, *command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        RUNNING.add(self)
        self.lines = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        RUNNING.discard(self)
        # SIGTERM first: Fast DDS fails on the shared memory of killed processes (Fast-DDS #6485).
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):  # no process of the group is left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def says(self, words, after=0, limit=PATIENCE):
        """Wait for a line with `words` after the first `after` lines; return the line."""
        end = time.monotonic() + limit
        with self._news:
            while True:
                if line := self.has(words, after):
                    return line
                left = end - time.monotonic()
                assert left > 0 and self._reader.is_alive(), f"no {words!r} in:\n{self.output}"
                self._news.wait(min(left, 1.0))

    def has(self, words, after=0):
        """Return the first line so far with `words` after the first `after` lines, or None."""
        return next((line for line in self.lines[after:] if words in line), None)

    def stop(self, sign=signal.SIGINT):
        """Send the signal, wait for the end and return the exit code."""
        self.process.send_signal(sign)
        return self.ends()

    def ends(self, limit=PATIENCE):
        """Wait for the end, at most `limit` seconds, and return the exit code."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {limit:g} s:\n{self.output}") from None
        self._reader.join(PATIENCE)
        return code

    @property
    def output(self):
        return "\n".join(self.lines)

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


def parameters(**values):
    """Return the command-line arguments that set ROS parameters."""
    return [
        "--ros-args",
        *(word for name, value in values.items() for word in ("-p", f"{name}:={value}")),
    ]
