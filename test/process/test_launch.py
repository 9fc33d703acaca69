# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The launch files, run as `ros2 launch` and `launch_test` run them.

The files in test/launch are launch tests for `launch_test FILE`. The tests here that are not
wrappers of them are about launches that end by themselves, and about their exit codes.
"""

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PATIENCE
from programs import Program

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip(
    "launch_ros", reason="launch_ros is not installed: apt-get install ros-$ROS_DISTRO-launch-ros"
)
pytest.importorskip(
    "launch_testing",
    reason="launch_testing is not installed: apt-get install ros-$ROS_DISTRO-launch-testing",
)

import launch
from launch.actions import IncludeLaunchDescription, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnProcessIO, OnProcessStart
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch_testing import ActiveIoHandler, ActiveProcInfoHandler
from launch_testing.asserts import assertExitCodes
from PIL import Image as Pillow

FILES = Path(__file__).parents[2] / "launch"
TESTS = Path(__file__).parents[1] / "launch"
OTHERS = sorted({path.name for path in TESTS.glob("*.test.py")} - {"kosmos.test.py"})
LIMIT = 6 * PATIENCE  # s, for a whole demo
PATIENT = "sigterm_timeout:=30"  # s; the default of 5 is too early on busy cores


def launch_test(name):
    """Run a file of test/launch as its users do."""
    with Program(Path(sys.executable), "-m", "launch_testing.launch_test", TESTS / name) as run:
        assert run.ends(LIMIT) == 0, run.output


@pytest.mark.fault(60)
def test_topics_and_names_are_those_of_the_arguments():
    launch_test("kosmos.test.py")


@pytest.mark.parametrize("name", OTHERS)
def test_launch_tests_pass(name):
    launch_test(name)


class Launched:
    """A finished `ros2 launch kosmos_ros FILE ARGUMENT...`.

    With `interrupt` the launch is interrupted once its file has been read; otherwise it must end
    by itself.
    """

    def __init__(self, file, *arguments, interrupt=False):
        arguments = [*arguments, PATIENT]
        self.io = ActiveIoHandler()
        self.processes = ActiveProcInfoHandler()
        self._begun = threading.Event()
        self._service = launch.LaunchService(argv=arguments, noninteractive=True)
        self._service.include_launch_description(
            launch.LaunchDescription(
                [
                    RegisterEventHandler(OnProcessStart(on_start=self._keep)),
                    RegisterEventHandler(
                        OnProcessIO(on_stdout=self.io.append, on_stderr=self.io.append)
                    ),
                    OpaqueFunction(function=lambda _: self._begun.set()),
                    IncludeLaunchDescription(
                        AnyLaunchDescriptionSource(str(FILES / file)),
                        launch_arguments=[argument.split(":=", 1) for argument in arguments],
                    ),
                    # The last handler is called first, and the demo's own may raise.
                    RegisterEventHandler(OnProcessExit(on_exit=self._keep)),
                ]
            )
        )
        self.code = self._run(interrupt)

    @property
    def output(self):
        """The output of the processes without colours."""
        text = "".join(event.text.decode() for event in self.io)
        return re.sub(r"\x1b\[\d*m|\r", "", text)

    def _keep(self, event, _):
        self.processes.append(event)

    def _run(self, interrupt):
        # launch runs in the main thread only.
        limit = threading.Timer(LIMIT, self._service.shutdown)
        limit.start()
        with ThreadPoolExecutor(1) as pool:
            if interrupt:
                pool.submit(self._interrupt)
            code = self._service.run()
            assert limit.is_alive(), f"no end within {LIMIT:g} s:\n{self.output}"
            limit.cancel()
        return code

    def _interrupt(self):
        self._begun.wait(PATIENCE)
        self._service.shutdown()


@pytest.fixture
def errors(caplog):
    """Provide the log of launch itself."""
    logger = launch.logging.get_logger("launch")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def children():
    """Return the ids of the running processes that this process started."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


@pytest.mark.parametrize(
    "file, arguments, reason",
    [
        (
            "kosmos.launch.py",
            ["params_file:=/no/such"],
            "params_file must be a file, got '/no/such'",
        ),
        (
            "demo.launch.py",
            ["params_file:=/no/such"],
            "params_file must be a file, got '/no/such'",
        ),
        ("demo.launch.py", ["keep:=perhaps"], 'Argument "keep" provided value "perhaps"'),
        ("demo.launch.py", ["image:=a", "video:=b"], "image is 'a' and video 'b'"),
    ],
)
def test_invalid_arguments_are_named_and_start_nothing(errors, file, arguments, reason):
    before = children()
    assert Launched(file, *arguments, interrupt=True).code == 1
    assert reason in errors.text
    # launch leaves processes behind that it started just before an error.
    assert children() == before


def test_the_demo_shows_captions_asks_and_ends(tmp_path):
    out = tmp_path / "annotated frames"
    launched = Launched("demo.launch.py", f"out:={out}")
    assert launched.code == 0, launched.output
    assertExitCodes(launched.processes)
    assert len(launched.processes.process_names()) == 4
    for camera in ("front", "rear"):
        said = rf"^{camera}: An image of .*  \[\d+ ms\]$"
        assert len(re.findall(said, launched.output, re.M)) >= 3
    assert re.search(r"^event: .* came into view$", launched.output, re.M)
    assert re.search(r"^question: What is in this image\?$", launched.output, re.M)
    assert re.search(r"^question at \(.*\) px: What is this\?$", launched.output, re.M)
    assert len(re.findall(r"^answer: an? \w+ \w+", launched.output, re.M)) == 2
    pictures = sorted(out.glob("*.png"))
    assert pictures
    assert {Pillow.open(picture).width for picture in pictures} == {640}


@pytest.mark.parametrize(
    "argument, program, reason",
    [
        ("out:=/dev/null", "demo_node", "parameter out must be a folder, got '/dev/null'"),
        # This is text, although it looks like a number.
        ("video:=97", "camera_node", "source '97' cannot be used: /dev/video97 does not exist"),
        ("device:=cuda:99", "kosmos_node", "device 'cuda:99' does not exist"),
    ],
)
def test_a_failing_program_ends_the_demo_with_an_error(
    tmp_path, errors, argument, program, reason
):
    launched = Launched("demo.launch.py", f"out:={tmp_path}", argument)
    assert launched.code == 1, launched.output
    assert reason in launched.output
    assert re.search(rf"{program}-\d+ has ended with exit code 1", errors.text)
    codes = {info.process_name.rpartition("-")[0]: info.returncode for info in launched.processes}
    assert codes[program] == 1
    # The others may have been interrupted while Python was importing, so any code is allowed.
    assert codes.keys() == {"kosmos_node", "camera_node", "demo_node"}
