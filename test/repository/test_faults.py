# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The table of faults, the marks of the tests and docs/faults.md agree."""

import re
from collections import Counter

import pytest
from fault_report import DOCUMENT, FaultReport, MarkedTest, marked_for, marked_tests, row, rows
from faults import FAULTS

TESTS = marked_tests()
NUMBERS = {fault.number for fault in FAULTS}
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.number:02}")


def test_rows_are_numbered_without_gaps():
    assert [fault.number for fault in FAULTS] == list(range(1, 1 + len(FAULTS)))


@each_fault
def test_every_row_has_a_test_or_a_note(fault):
    assert marked_for(fault, TESTS) or fault.note


def test_marks_name_only_rows_of_the_table():
    assert [str(test) for test in TESTS if not set(test.rows) <= NUMBERS] == []


def test_a_mark_names_a_row_once():
    assert [str(test) for test in TESTS if len(set(test.rows)) < len(test.rows)] == []


def test_names_of_marked_tests_are_unique_in_their_file():
    assert [name for name, count in Counter(map(str, TESTS)).items() if count > 1] == []


@each_fault
def test_the_document_has_the_tests_and_results_of_every_row(fault):
    documented = {cells[0]: cells for cells in rows(DOCUMENT.read_text())}
    *expected, _ = row(fault, TESTS, lambda _: "")
    *cells, results = documented[str(fault.number)]
    assert cells == expected
    results = list(filter(None, results.split("<br>")))
    assert len(results) == len(marked_for(fault, TESTS))
    assert all(re.match("passed|skipped.*: .", result) for result in results), results
    assert not any(re.search(r"\bfailed\b( \d+)?(, |$)", result) for result in results), results


def test_the_document_has_no_other_rows():
    numbers = [cells[0] for cells in rows(DOCUMENT.read_text())]
    assert numbers == [str(fault.number) for fault in FAULTS]


MARKED = """
import pytest

@pytest.mark.parametrize("case", [1, 2])
@pytest.mark.fault(3, 5)
def test_same_name(case):
    assert case

@pytest.mark.skipif(True, reason="no camera")
@pytest.mark.fault(3)
def test_skipped(): ...

def test_without_a_mark(): ...
"""


def test_marks_are_read_without_importing_the_file(tmp_path):
    (tmp_path / "ros").mkdir()
    (tmp_path / "ros" / "test_it.py").write_text("import no_such_package\n" + MARKED)
    assert marked_tests(tmp_path) == [
        MarkedTest("ros/test_it.py", "test_same_name", (3, 5)),
        MarkedTest("ros/test_it.py", "test_skipped", (3,)),
    ]


class Report:
    """The part of a pytest report that FaultReport reads."""

    def __init__(self, nodeid, outcome="passed", reason="", when="call"):
        self.nodeid, self.outcome, self.when = nodeid, outcome, when
        self.passed, self.skipped = outcome == "passed", outcome == "skipped"
        self.longrepr = ("file", 1, f"Skipped: {reason}")


def test_tests_of_the_same_name_in_two_files_have_results_of_their_own(tmp_path):
    report = FaultReport(tmp_path / "faults.md")
    report.pytest_runtest_logreport(Report("test/ros/test_a.py::test_it[1]"))
    report.pytest_runtest_logreport(Report("test/ros/test_a.py::test_it[2]"))
    report.pytest_runtest_logreport(Report("test/ros/test_b.py::test_it", "failed"))
    report.pytest_collectreport(Report("test/ros/test_c.py", "skipped", "no rclpy"))
    results = [
        report._result(MarkedTest(f"ros/test_{letter}.py", "test_it", (1,))) for letter in "abcd"
    ]
    assert results == ["passed 2", "failed", "skipped: no rclpy", "not run"]


def test_sections_after_the_table_stay(tmp_path):
    document = tmp_path / "faults.md"
    document.write_text("# Old\n\n| 1 | former text |\n\n## By hand\n\ntext\n")
    FaultReport(document).pytest_sessionfinish()
    assert document.read_text().endswith(" |\n\n## By hand\n\ntext\n")
    assert "former text" not in document.read_text()
