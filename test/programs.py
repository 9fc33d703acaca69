# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Programs of this package as processes, for tests that talk to them over DDS."""

import signal
import subprocess
import sys
import threading
import time

PATIENCE = 60.0  # s
GRACE = 5.0  # s for a program to end by itself


class Program:
    """A program as a process; its output is kept, line by line.

    `program` is a path, or the name of a module of kosmos_ros.
    """

    def __init__(self, program, *arguments, **options):
        command = [str(program)]
        if isinstance(program, str):
            command = [sys.executable, "-u", "-m", f"kosmos_ros.ros.{program}"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        self.lines = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Fast DDS stumbles over the shared memory of processes that were killed (Fast-DDS #6485).
        self.process.terminate()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def says(self, words, after=0):
        """Wait for a line with `words` among those behind the first `after`, and give it."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while True:
                if line := self.has(words, after):
                    return line
                left = end - time.monotonic()
                assert left > 0 and self._reader.is_alive(), f"no {words!r} in:\n{self.output}"
                self._news.wait(min(left, 1.0))

    def has(self, words, after=0):
        """The first line so far with `words`, behind the first `after` lines, or None."""
        return next((line for line in self.lines[after:] if words in line), None)

    def stop(self, sign=signal.SIGINT):
        """Send the signal, wait for the end and give the exit code."""
        self.process.send_signal(sign)
        return self.ends()

    def ends(self):
        """Wait for the end and give the exit code."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended:\n{self.output}") from None
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
    """Command-line arguments that set ROS parameters."""
    return [
        "--ros-args",
        *(word for name, value in values.items() for word in ("-p", f"{name}:={value}")),
    ]
