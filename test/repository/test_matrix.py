# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""scripts/matrix: the versions of a combination, the result of a run, and the table."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def matrix():
    path = ROOT / "scripts" / "matrix"
    module = ModuleType("matrix")
    module.__file__ = str(path)
    # A loader would leave a __pycache__ among the scripts.
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return module


def versions(constraints):
    """Return the pins of each package in the text of a constraints file."""
    lines = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        name, _, rest = line.partition("==")
        found.setdefault(name, []).append(rest)
    return found


def test_versions_of_a_combination_replace_only_their_own_pins(matrix):
    ours = (ROOT / "requirements" / "constraints.txt").read_text()
    for combination in matrix.COMBINATIONS:
        pins = versions(matrix.pinned(ours, combination.pins))
        wanted = {name: [version] for name, version in combination.pins.items()}
        assert pins == versions(ours) | wanted, combination


def test_a_copy_has_the_files_of_the_clone_and_keeps_its_environment(matrix, tmp_path):
    (tmp_path / ".env" / "jazzy").mkdir(parents=True)
    (tmp_path / "left_over").mkdir()
    matrix.copy_tree(tmp_path, {"numpy": "1.26.4"})
    files = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {path.name for path in tmp_path.iterdir()} == files | {".env"}
    assert (tmp_path / ".env" / "jazzy").is_dir()
    assert (tmp_path / "scripts" / "setup").stat().st_mode & 0o111
    name = "kosmos_ros/kosmos2/engine.py"
    assert (tmp_path / name).read_text() == (ROOT / name).read_text()


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement numpy==9 (from …)\n"
            "ERROR: No matching distribution found for numpy==9\n\n"
            "scripts/setup: 'torch' failed; all of its output is in setup.log\n",
            "No matching distribution found for numpy==9",
        ),
        (
            "ERROR: Cannot install a==1 and b==2 because of conflicting dependencies.\n"
            "ERROR: ResolutionImpossible: for help visit …\n",
            "Cannot install a==1 and b==2 because of conflicting dependencies.",
        ),
        (
            "scripts/setup: python3.10 does not run\nscripts/setup: Install one\n",
            "python3.10 does not run",
        ),
    ],
)
def test_a_failed_installation_is_reported_with_its_reason(matrix, log, reason):
    assert matrix.reason(log) == reason


@pytest.mark.parametrize(
    ("body", "code", "counts"),
    [
        ("def test_a(): pass\ndef test_b(): pass", 0, "2 passed, 0 failed, 0 skipped"),
        ("def test_a(): pass\ndef test_b(): assert 0", 1, "1 passed, 1 failed, 0 skipped"),
        ("import pytest\ndef test_a(): pytest.skip('x')", 0, "0 passed, 0 failed, 1 skipped"),
        ("def test_a(missing): pass", 1, "0 passed, 1 failed, 0 skipped"),
        ("", 5, "0 passed, 0 failed, 0 skipped; pytest ended with 5"),
        ("import os\ndef test_a(): os._exit(7)", 7, "pytest ended with exit code 7 and no report"),
    ],
)
def test_outcomes_of_a_run_are_counted(matrix, tmp_path, body, code, counts):
    (tmp_path / "test_it.py").write_text(body)
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-p", "no:launch_testing", "-p", "no:launch_pytest", "-p", "no:launch_ros"]
    ended = subprocess.run([*command, "test_it.py"], cwd=tmp_path, capture_output=True)
    assert ended.returncode == code
    assert matrix.counted(report, code) == counts


def test_written_rows_replace_old_ones_of_the_same_tests(matrix, tmp_path, monkeypatch):
    document = tmp_path / "compatibility.md"
    document.write_text(f"# A\n{matrix.BEGIN}{matrix.END}\nb\n")
    monkeypatch.setattr(matrix, "DOCUMENT", document)
    old = ("jazzy", "3.10.13", "4.45.2", "1.26.4", "2.13.0", "1 passed, 1 failed, 0 skipped")
    new = (*old[:-1], "2 passed, 0 failed, 0 skipped")
    other = ("humble", "3.10", "", "", "", "not installed: x")

    def after(arguments, rows):
        matrix.write(arguments, rows)
        text = document.read_text()
        assert text.startswith(f"# A\n{matrix.BEGIN}") and text.endswith(f"{matrix.END}\nb\n")
        assert f"`python -m pytest {' '.join(arguments)}`" in text
        return matrix.read(text)

    assert after(["-x"], {"jazzy-3.10": old}) == {"jazzy-3.10": old}
    both = {"humble-3.10": other, "jazzy-3.10": old}
    assert after(["-x"], {"humble-3.10": other}) == both
    assert after(["-x"], {"jazzy-3.10": new}) == both | {"jazzy-3.10": new}
    assert after(["-v"], {"humble-3.10": other}) == {"humble-3.10": other}
