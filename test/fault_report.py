# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/faults.md: the table of faults.py with the tests of each row and their results.

Knows pytest's reports and the table; no fault.
"""

import os
import platform
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from faults import FAULTS

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER.parent / "docs" / "faults.md"
TEST = re.compile(r"^def (test_fault_(\d\d)_\w+)\(", re.MULTILINE)
COLUMNS = ("", "Fault", "What happens", "Tests", "Result")

HEAD = """# Faults

What goes wrong around a camera, a model and a network, what the node does about it, and the
test that shows it. The table is made by

    scripts/test -n 0 -k test_fault_ --faults=docs/faults.md

and was so on {where}.
Cases of one test are counted in one line.
"""


def all_tests():
    """The module of each test of a fault, as the files have them."""
    return {
        match[1]: path.stem
        for path in sorted(FOLDER.rglob("test_*.py"))
        for match in TEST.finditer(path.read_text())
    }


def named_of(fault, tests):
    """Names of the tests of a row, its own first."""
    own = [name for name in tests if name.startswith(f"test_fault_{fault.number:02}_")]
    return [*own, *fault.also]


def rows(text):
    """The cells of each row of a document."""
    lines = re.findall(r"^\| \d+ \|.*$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def row(fault, tests, result_of):
    """The cells of a row."""
    names = named_of(fault, tests)
    return [
        str(fault.number),
        fault.fault,
        " ".join(filter(None, (fault.behaviour, fault.note))),
        "<br>".join(f"`{name}`" for name in names),
        "<br>".join(map(result_of, names)),
    ]


def rendered(tests, result_of):
    """The document."""
    table = [COLUMNS, ["---"] * len(COLUMNS), *(row(fault, tests, result_of) for fault in FAULTS)]
    lines = ("| " + " | ".join(cells) + " |" for cells in table)
    return HEAD.format(where=_where()) + "\n" + "\n".join(lines) + "\n"


class FaultReport:
    """A plugin of pytest that writes the document at `path` when the run is over."""

    def __init__(self, path):
        self._path = Path(path)
        self._outcomes = {}  # name: (outcome, reason) of each case
        self._skipped = {}  # module: reason

    def pytest_collectreport(self, report):
        if report.skipped:
            self._skipped[Path(report.nodeid).stem] = _reason(report)

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.partition("[")[0].rpartition("::")[2]
        if report.when == "call" or not report.passed:
            reason = _reason(report) if report.skipped else ""
            self._outcomes.setdefault(name, []).append((report.outcome, reason))

    def pytest_sessionfinish(self):
        tests = all_tests()
        text = rendered(tests, lambda name: self._result(name, tests.get(name)))
        # Sections behind the table are others'.
        before = self._path.read_text() if self._path.exists() else ""
        _, section, rest = before.partition("\n## ")
        self._path.write_text(text + section + rest)

    def _result(self, name, module):
        if outcomes := self._outcomes.get(name):
            counts = Counter(outcomes)
            several = len(outcomes) > 1
            return ", ".join(
                outcome + (f" {count}" if several else "") + (f": {reason}" if reason else "")
                for (outcome, reason), count in counts.items()
            )
        reason = self._skipped.get(module)
        return f"skipped: {reason}" if reason else "not run"


def _reason(report):
    return report.longrepr[2].removeprefix("Skipped: ")


def _where():
    import torch

    packages = ("numpy", "pillow", "torch", "transformers")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return ", ".join(
        (
            f"ROS {os.environ.get('ROS_DISTRO', 'unknown')}",
            f"Python {platform.python_version()}",
            *(f"{name} {version(name)}" for name in packages),
            f"{platform.system()} {platform.machine()}",
            device,
        )
    )
