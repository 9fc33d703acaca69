# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The core stands without ROS, and the command line without torch until it needs it."""

import subprocess
import sys
from pathlib import Path

import pytest

import kosmos_ros

PACKAGE = Path(kosmos_ros.__file__).parent
SHELL = {
    "bridge", "camera", "conversions", "demo", "detections", "diagnostics", "feed",
    "mailbox", "managed", "node", "parameters", "process", "services", "stream",
}  # fmt: skip
CORE = sorted({path.stem for path in PACKAGE.glob("*.py")} - SHELL - {"__init__"})
BLOCK = "import sys; sys.modules.update(dict.fromkeys({!r}))\n"
ROS = ("rclpy", "sensor_msgs", "std_msgs", "kosmos_msgs", "cv_bridge")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_without_ros(module):
    done = run(BLOCK.format(ROS) + f"import kosmos_ros.{module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_fault_35_what_is_missing_is_named_with_the_command_that_installs_it(missing):
    done = run(BLOCK.format((missing,)) + "import kosmos_ros.engine")
    assert f"ModelLoadError: import of {missing} halted" in done.stderr
    assert f"{sys.executable} -m pip install -r requirements.txt" in done.stderr


def test_fault_35_transformers_of_before_kosmos_2_are_named(tmp_path):
    (tmp_path / "transformers.py").write_text("__version__ = '4.30.0'\n")
    done = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import kosmos_ros.engine")
    assert "ModelLoadError: cannot import name 'Kosmos2Config' from 'transformers'" in done.stderr
    assert f"{sys.executable} -m pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize("module", ["node", "camera", "demo", "cli"])
def test_programs_start_without_waiting_for_torch(module):
    if module != "cli":
        pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")
    done = run(f"import sys, kosmos_ros.{module}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
