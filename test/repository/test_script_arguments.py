# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scripts explain themselves and refuse unknown arguments before they set anything up."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = "#!/bin/sh\necho set-up was run >&2\nexit 77\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Provide a function that runs a script in a copy of the scripts without scripts/setup."""
    home = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "scripts", home / "scripts")
    (home / "scripts" / "setup").write_text(SETUP)

    def run(name, *arguments):
        return subprocess.run(
            [home / "scripts" / name, *arguments],
            env={**os.environ, "ROS_DISTRO": "jazzy"},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("name", ["check", "fuzz", "matrix", "soak", "test"])
def test_help_prints_the_usage_and_sets_nothing_up(run, name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"scripts/{name}" in done.stdout
    assert "set -euo" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("check", ["--mend"], "--fix or nothing"),
        ("check", ["--fix", "now"], "--fix or nothing"),
        ("fuzz", ["prompt", "--hours", "1"], "--runs, --seconds or --seed"),
        ("matrix", ["--only", "foxy-3.8"], "jazzy-3.10"),
        ("soak", ["--hours", "1"], "--minutes, --clients, --without, --frames, --seed or --json"),
    ],
)
def test_unknown_arguments_are_refused_with_the_valid_ones(run, name, arguments, expected):
    done = run(name, *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "set-up was run" not in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("check", ["--fix"]),
        ("fuzz", ["prompt", "--runs=5", "--seconds", "-1"]),
        ("soak", ["--minutes", "1", "--without", "images", "kills"]),
        ("test", ["-k", "scheduler"]),
        ("test", ["--fast", "-x"]),
    ],
)
def test_valid_arguments_lead_to_the_set_up(run, name, arguments):
    done = run(name, *arguments)
    assert done.returncode == 77
    assert "set-up was run" in done.stderr
