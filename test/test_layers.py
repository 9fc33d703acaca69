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


def test_fault_35_a_missing_torch_is_named_with_the_command_that_installs_it():
    done = run(BLOCK.format(("torch",)) + "import kosmos_ros.engine")
    assert "ModelLoadError" in done.stderr
    assert f"{sys.executable} -m pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize("module", ["node", "camera", "demo", "cli"])
def test_programs_start_without_waiting_for_torch(module):
    if module != "cli":
        pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")
    done = run(f"import sys, kosmos_ros.{module}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
