# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scripts print their usage and refuse wrong arguments before they set anything up."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "benchmark": ("benchmark",),
    "compile-kernels": ("compiled_kernels",),
    "evaluate-shapes": ("training.evaluation",),
    "fetch-weights": ("kosmos_ros.cli", "fetch"),
    "fuzz": ("fuzz",),
    "soak": ("soak",),
    "train-shapes": ("training.train",),
}
"""Module and arguments that each script runs."""


@pytest.fixture
def clone(tmp_path):
    """Return a folder with the scripts alone."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path


def run(clone, script, *arguments, **environment):
    done = subprocess.run(
        [f"scripts/{script}", *arguments],
        cwd=clone,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )
    assert [path.name for path in clone.iterdir()] == ["scripts"]
    return done


def options(text):
    return set(re.findall(r"--[a-z][a-z-]*", text))


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize(
    "script", [*PROGRAMS, "audit", "check", "matrix", "page-pictures", "setup", "test"]
)
def test_help_is_the_header_and_sets_nothing_up(clone, script, flag):
    done = run(clone, script, flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"scripts/{script}" in done.stdout
    assert "Copyright" not in done.stdout and "set -euo" not in done.stdout


@pytest.mark.parametrize("script", PROGRAMS)
def test_an_unknown_option_is_refused_with_the_valid_ones(clone, script):
    for wrong in ("--wrong", "--wrong=1", "-w"):
        done = run(clone, script, wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"scripts/{script}: unknown argument {wrong}; valid: --" in done.stderr


@pytest.mark.parametrize("script", PROGRAMS)
def test_the_usage_names_the_options_of_the_program(clone, script):
    pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
    module, *arguments = PROGRAMS[script]
    program = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'test'}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=True,
    )
    usage, _, _ = program.stdout.partition("\n\n")
    assert options(run(clone, script, "--help").stdout) == options(usage)


@pytest.mark.parametrize("arguments", [["--mend"], ["--fix", "now"], ["now"]])
def test_check_takes_only_fix(clone, arguments):
    done = run(clone, "check", *arguments)
    assert done.returncode == 2
    assert re.search("unknown argument .*; valid: .*--fix", done.stderr)


def test_matrix_names_the_combinations(clone):
    done = run(clone, "matrix", "--only", "foxy-3.8")
    assert done.returncode == 2
    assert "jazzy-3.10" in done.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("check", ["--fix"]),
        ("fuzz", ["prompt", "--runs=5", "--seconds", "1"]),
        ("soak", ["--minutes", "1", "--without", "images", "kills"]),
        ("test", ["-k", "scheduler"]),
        ("test", ["--fast", "-x"]),
    ],
)
def test_valid_arguments_lead_to_the_set_up(clone, script, arguments):
    (clone / "scripts" / "setup").write_text("#!/bin/sh\necho set-up was run >&2\nexit 77\n")
    done = run(clone, script, *arguments)
    assert done.returncode == 77
    assert "set-up was run" in done.stderr


def test_an_audit_without_network_fails_and_says_that_nothing_was_checked(clone):
    with socket.socket() as closed:  # bound, but it does not listen: connections are refused
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run(clone, "audit", HTTPS_PROXY=proxy, https_proxy=proxy)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("scripts/audit: no version was checked, because https://pypi.org/")
    assert "Connection refused" in line and "set HTTPS_PROXY" in line


@pytest.mark.parametrize(
    "script", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name
)
def test_no_function_hides_a_command_that_is_searched(script):
    """`command -v` finds functions, too, so set-up once took its own function for Chromium."""
    text = script.read_text()
    searched = set(re.findall(r"command -v (\w+)", text))
    assert not searched.intersection(re.findall(r"^(\w+)\(\)", text, re.MULTILINE))
    assert script.name != "setup" or {"chromium", "make"} <= searched


def test_setup_takes_no_arguments(clone):
    done = run(clone, "setup", "kilted")
    assert done.returncode == 1
    assert "unknown argument kilted; valid: --help" in done.stderr
    assert "ROS_DISTRO (jazzy, kilted) and PYTHON" in done.stderr


def test_setup_refuses_a_distribution_that_pypi_does_not_have(clone):
    done = run(clone, "setup", ROS_DISTRO="humble")
    assert done.returncode == 1
    assert "ROS_DISTRO=humble must be jazzy or kilted" in done.stderr


@pytest.mark.parametrize("options", [[], ["--web"]])
@pytest.mark.parametrize(
    ("ends", "title"), [("kosmos_node", "kosmos_node"), ("__node:=rear", "the camera_node rear")]
)
def test_the_demo_names_the_node_that_has_ended(clone, ends, title, options):
    """The programs are stand-ins, which run until they are interrupted, apart from one."""
    (clone / "scripts" / "setup").write_text("#!/bin/sh\n")
    programs = clone / ".env" / "jazzy"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    for name in ("kosmos_node", "camera_node", "demo_node", "web_node"):
        program = programs / name
        program.write_text(f'#!/bin/sh\ncase "$0 $*" in *{ends}*) exit 3 ;; esac\nexec sleep 60\n')
        program.chmod(0o755)
    done = subprocess.run(
        [clone / "scripts" / "demo", *options],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr == f"scripts/demo: {title} has ended, so the demo ends, too\n"
