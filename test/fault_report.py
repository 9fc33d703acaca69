# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write docs/faults.md: the rows of faults.py with the tests that are marked for them.

Knows pytest's reports, the marks and the table; knows no fault.
"""

import ast
import os
import platform
import re
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from faults import FAULTS

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER.parent / "docs" / "faults.md"
COLUMNS = ("", "Fault", "Behaviour", "Tests", "Result")

HEAD = """# Faults

This page lists what can go wrong around a camera, a model and a network, what the node does
then, and the tests that show it. The test of a fault has the mark `fault` with the row's number.
Parametrized cases of a test are counted in one line.

This command writes the table:

    scripts/test -n 0 -m fault --faults=docs/faults.md

The results are from {where}.
"""


@dataclass(frozen=True)
class MarkedTest:
    """A test with the mark `fault`."""

    file: str  # relative to FOLDER
    name: str
    rows: tuple[int, ...]  # arguments of the mark

    def __str__(self):
        return f"{self.file}::{self.name}"


def marked_tests(folder=FOLDER):
    """Return the MarkedTest of each marked function in the test files of `folder`.

    The files are parsed, not imported: some need packages that are not installed everywhere.
    """
    return [
        MarkedTest(str(path.relative_to(folder)), function.name, rows)
        for path in sorted(folder.rglob("test_*.py"))
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef) and (rows := _marked_rows(function))
    ]


def _marked_rows(function):
    """Return the numbers in the mark `fault` of a parsed function; empty if it has no mark."""
    calls = (node for node in function.decorator_list if isinstance(node, ast.Call))
    return tuple(
        ast.literal_eval(argument)
        for call in calls
        if ast.unparse(call.func) == "pytest.mark.fault"
        for argument in call.args
    )


def marked_for(fault, tests):
    """Return the tests that are marked for a row, in the order of `tests`."""
    return [test for test in tests if fault.number in test.rows]


def rows(text):
    """Return the cells of each row of a document."""
    lines = re.findall(r"^\| \d+ \|.*$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def row(fault, tests, result_of):
    """Return the cells of a row. `result_of` returns the text about one test's result."""
    own = marked_for(fault, tests)
    return [
        str(fault.number),
        fault.fault,
        " ".join(filter(None, (fault.behaviour, fault.note))),
        "<br>".join(f"`{test}`" for test in own),
        "<br>".join(map(result_of, own)),
    ]


def rendered(tests, result_of):
    """Return the document up to the end of the table."""
    table = [COLUMNS, ["---"] * len(COLUMNS), *(row(fault, tests, result_of) for fault in FAULTS)]
    lines = ("| " + " | ".join(cells) + " |" for cells in table)
    return HEAD.format(where=_where()) + "\n" + "\n".join(lines) + "\n"


class FaultReport:
    """A pytest plugin that writes the document at `path` when the run ends."""

    def __init__(self, path):
        self._path = Path(path)
        self._outcomes = {}  # (file, test name): (outcome, reason) of each case
        self._skipped = {}  # file: reason

    def pytest_collectreport(self, report):
        if report.skipped:
            self._skipped[_file(report.nodeid)] = _reason(report)

    def pytest_runtest_logreport(self, report):
        file, _, name = report.nodeid.partition("[")[0].partition("::")
        if report.when == "call" or not report.passed:
            reason = _reason(report) if report.skipped else ""
            outcomes = self._outcomes.setdefault((_file(file), name), [])
            outcomes.append((report.outcome, reason))

    def pytest_sessionfinish(self):
        text = rendered(marked_tests(), self._result)
        # The sections after the table are written by hand.
        before = self._path.read_text() if self._path.exists() else ""
        _, section, rest = before.partition("\n## ")
        self._path.write_text(text + section + rest)

    def _result(self, test):
        if outcomes := self._outcomes.get((test.file, test.name)):
            counts = Counter(outcomes)
            several = len(outcomes) > 1
            return ", ".join(
                outcome + (f" {count}" if several else "") + (f": {reason}" if reason else "")
                for (outcome, reason), count in counts.items()
            )
        reason = self._skipped.get(test.file)
        return f"skipped: {reason}" if reason else "not run"


def _file(nodeid):
    """Return the file of a test's id, relative to FOLDER."""
    return nodeid.removeprefix(f"{FOLDER.name}/")


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
