# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every fault has a test or a reason, and docs/faults.md tells of the tests that there are."""

import re
from collections import Counter

import pytest
from fault_report import DOCUMENT, FOLDER, TEST, all_tests, named_of, row, rows
from faults import FAULTS

TESTS = all_tests()


def test_rows_are_numbered_from_one_on():
    assert [fault.number for fault in FAULTS] == list(range(1, 71))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.number:02}")
def test_every_row_has_a_test_or_a_reason(fault):
    assert named_of(fault, TESTS) or fault.note
    assert set(fault.also) <= TESTS.keys()
    assert not any(name.startswith(f"test_fault_{fault.number:02}_") for name in fault.also)


def test_no_test_bears_a_number_that_is_no_row():
    names = Counter(
        match.groups()
        for path in FOLDER.rglob("test_*.py")
        for match in TEST.finditer(path.read_text())
    )
    assert {int(number) for _, number in names} <= {fault.number for fault in FAULTS}
    assert [name for (name, _), count in names.items() if count > 1] == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.number:02}")
def test_the_document_has_every_row_with_its_tests_and_their_results(fault):
    told = {cells[0]: cells for cells in rows(DOCUMENT.read_text())}
    *expected, _ = row(fault, TESTS, lambda _: "")
    *cells, results = told.pop(str(fault.number))
    assert cells == expected
    results = list(filter(None, results.split("<br>")))
    assert len(results) == len(named_of(fault, TESTS))
    assert all(re.match("passed|skipped: .", result) for result in results), results


def test_the_document_has_no_other_rows():
    numbers = [cells[0] for cells in rows(DOCUMENT.read_text())]
    assert numbers == [str(fault.number) for fault in FAULTS]
