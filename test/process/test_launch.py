# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Both launch files, run as `ros2 launch` runs them: names, parameters, errors, exit codes."""

import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import PATIENCE, Bench

pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")
pytest.importorskip(
    "launch_ros", reason="launch_ros is not installed: apt-get install ros-$ROS_DISTRO-launch-ros"
)
pytest.importorskip(
    "launch_testing",
    reason="launch_testing is not installed: apt-get install ros-$ROS_DISTRO-launch-testing",
)

import launch
from diagnostic_msgs.msg import DiagnosticStatus
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from launch.actions import IncludeLaunchDescription, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnProcessIO, OnProcessStart
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch_testing import ActiveIoHandler, ActiveProcInfoHandler
from launch_testing.asserts import assertExitCodes
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from PIL import Image as Pillow
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from kosmos_ros.ros.conversions import image_message
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

FILES = Path(__file__).parents[2] / "launch"
LIMIT = 3 * PATIENCE  # s, for a whole demo
PATIENT = "sigterm_timeout:=30"  # s; 5 are few where the cores are busy with something else


class Launched:
    """`ros2 launch kosmos_ros FILE ARGUMENT...`, with `beside(self)` in a thread of its own.

    It is interrupted when `beside` ends; without `beside` it has to end by itself.
    """

    def __init__(self, file, *arguments, beside=None):
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
                    # The last handler is the first to be asked, and the demo's own may raise.
                    RegisterEventHandler(OnProcessExit(on_exit=self._keep)),
                ]
            )
        )
        self.code = self._run(beside)

    def says(self, words):
        """Wait for a process to print `words`."""
        assert self.io.waitFor(words, timeout=LIMIT, stream="stdout"), self.output

    @property
    def output(self):
        """What the processes printed, without colours."""
        text = "".join(event.text.decode() for event in self.io)
        return re.sub(r"\x1b\[\d*m|\r", "", text)

    def _keep(self, event, _):
        self.processes.append(event)

    def _run(self, beside):
        # launch runs in the main thread only.
        limit = threading.Timer(2 * LIMIT, self._service.shutdown)
        limit.start()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(self._beside, beside) if beside else None
            code = self._service.run()
            assert limit.is_alive(), f"no end after {2 * LIMIT} s:\n{self.output}"
            limit.cancel()
            if done:
                done.result()
        return code

    def _beside(self, beside):
        self._begun.wait(PATIENCE)
        try:
            beside(self)
        finally:
            self._service.shutdown()


@pytest.fixture
def errors(caplog):
    """What launch itself logs."""
    logger = launch.logging.get_logger("launch")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def bench(ros):
    client = ros.create_node("robot")
    yield Bench(client)
    client.destroy_node()


@pytest.fixture
def scene():
    return sample_scene(np.random.default_rng(20_261_124), 640, 480)


def ready(bench, node):
    """The model_info of a node whose model is loaded."""
    states = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    bench.nodes[0].create_subscription(
        DiagnosticStatus, f"{node}/model_info", states.append, latched
    )
    bench.until(lambda: states and states[-1].message == "ready", "a loaded model")
    return {pair.key: pair.value for pair in states[-1].values}


def children():
    """Ids of the processes that this one has started and that have not ended."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


def names(pairs):
    return {name for name, _ in pairs}


@pytest.mark.fault(60)
def test_topics_and_names_are_those_asked_for(bench, scene):
    client = bench.nodes[0]
    camera = client.create_publisher(Image, "/front/image_raw", 10)
    header = Header(frame_id="front_optical_frame")
    header.stamp.sec = 7
    picture = image_message(render(scene), header)
    captions = []

    def look(launched):
        assert ready(bench, "/robot/eyes")["model"] == "shapes"
        node = ("eyes", "/robot")
        assert "/front/image_raw" in names(client.get_subscriber_names_and_types_by_node(*node))
        assert {f"/robot/eyes/{name}" for name in ("captions", "text", "annotated")} <= names(
            client.get_publisher_names_and_types_by_node(*node)
        )
        client.create_subscription(GroundedCaption, "/robot/eyes/captions", captions.append, 10)
        timer = client.create_timer(0.3, lambda: camera.publish(picture))
        bench.until(lambda: captions, "a caption")
        client.destroy_timer(timer)
        asking = client.create_client(Ask, "/robot/eyes/ask")
        answer = bench.call(asking, Ask.Request(question="What is in this image?"))
        assert answer.success, answer.message
        assert answer.result.header == header

    launched = Launched(
        "kosmos.launch.py",
        *("model:=shapes", "image:=/front/image_raw", "namespace:=robot", "name:=eyes"),
        f"prefix:={sys.executable} -u",
        beside=look,
    )
    assert captions[0].header == header
    assert scene.truth[0][0] in captions[0].caption
    # Neither a crash nor a death by SIGTERM, which launch sends when SIGINT does not help.
    assertExitCodes(launched.processes)
    assert launched.code == 0
    command = launched.processes["kosmos_node"].cmd
    assert command[:2] == [sys.executable, "-u"]
    assert any(word.endswith("config/kosmos.yaml") for word in command)


def test_a_node_that_died_is_started_again_and_one_that_is_stopped_is_not(bench):
    before = children()

    def kill(launched):
        for number in (2, 3):
            ready(bench, "/kosmos")
            (node,) = children() - before
            os.kill(int(node), signal.SIGKILL)
            bench.until(lambda node=node: children() - before - {node}, f"start {number}")
        ready(bench, "/kosmos")

    launched = Launched("kosmos.launch.py", "model:=shapes", beside=kill)
    assert launched.code == 0, launched.output
    assert launched.output.count("model ready: ") == 3
    assert children() == before


def test_cameras_and_phrases_are_lists_and_a_manager_may_lead(bench):
    found = {}

    def look(launched):
        changing = bench.nodes[0].create_client(ChangeState, "/kosmos/change_state")
        for label in ("configure", "activate"):
            request = ChangeState.Request(transition=Transition(label=label))
            assert bench.call(changing, request).success
        asking = bench.nodes[0].create_client(GetParameters, "/kosmos/get_parameters")
        wanted = ["cameras", "phrases"]
        response = bench.call(asking, GetParameters.Request(names=wanted))
        found["parameters"] = list(map(parameter_value_to_python, response.values))
        found["topics"] = names(
            bench.nodes[0].get_publisher_names_and_types_by_node("kosmos", "/")
        )

    launched = Launched(
        "kosmos.launch.py",
        *(
            "model:=shapes",
            "autostart:=false",
            "cameras:=[front, rear]",
            "phrases:=[a dog, a cat]",
        ),
        beside=look,
    )
    assert found["parameters"] == [["front", "rear"], ["a dog", "a cat"]]
    assert {"/kosmos/front/captions", "/kosmos/rear/events"} <= found["topics"]
    assertExitCodes(launched.processes)


def test_arguments_win_over_a_params_file_and_the_file_over_defaults(bench, tmp_path):
    file = tmp_path / "my parameters.yaml"
    file.write_text(
        # By its full name, which would win over /**.
        "/kosmos:\n  ros__parameters:\n"
        "    {model: /no/such, use_sim_time: false, max_rate: 7.5, task: detailed_caption}\n"
    )
    found = {}

    def look(launched):
        found.update(ready(bench, "/kosmos"))
        asking = bench.nodes[0].create_client(GetParameters, "/kosmos/get_parameters")
        wanted = ["model", "use_sim_time", "max_rate", "task", "queue_size"]
        response = bench.call(asking, GetParameters.Request(names=wanted))
        found["parameters"] = list(map(parameter_value_to_python, response.values))

    launched = Launched(
        "kosmos.launch.py",
        *(f"params_file:={file}", "model:=shapes", "use_sim_time:=true", "max_rate:=2"),
        beside=look,
    )
    assert found["model"] == "shapes"
    assert found["parameters"] == ["shapes", True, 2, "detailed_caption", 8]
    assertExitCodes(launched.processes)


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
def test_bad_arguments_are_named_and_start_nothing(errors, file, arguments, reason):
    before = children()
    assert Launched(file, *arguments, beside=lambda _: None).code == 1
    assert reason in errors.text
    # launch leaves behind what it started just before an error.
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


def test_the_demo_shows_a_picture_until_it_is_interrupted(tmp_path, scene):
    file = tmp_path / "my picture.png"
    Pillow.fromarray(render(scene)).save(file)
    launched = Launched(
        "demo.launch.py",
        *(f"image:={file}", f"out:={tmp_path}", "keep:=true"),
        beside=lambda launched: launched.says("captions go on until Ctrl-C"),
    )
    assert launched.code == 0, launched.output
    assertExitCodes(launched.processes)
    assert f"{file} on /front/image_raw" in launched.output
    answers = re.findall(r"^answer: (.*)$", launched.output, re.M)
    assert scene.truth[0][0] in answers[0]


@pytest.mark.parametrize(
    "argument, program, reason",
    [
        ("out:=/dev/null", "demo_node", "parameter out must be a folder, got '/dev/null'"),
        # Text, although it looks like a number.
        ("video:=97", "camera_node", "source '97' cannot be used: /dev/video97 does not exist"),
        ("device:=cuda:99", "kosmos_node", "device 'cuda:99' is not there"),
    ],
)
def test_a_program_that_fails_ends_the_demo_with_an_error(
    tmp_path, errors, argument, program, reason
):
    launched = Launched("demo.launch.py", f"out:={tmp_path}", argument)
    assert launched.code == 1, launched.output
    assert reason in launched.output
    assert re.search(rf"{program}-\d+ has ended with exit code 1", errors.text)
    codes = {info.process_name.rpartition("-")[0]: info.returncode for info in launched.processes}
    assert codes[program] == 1
    # An interrupt so early, while Python imports, need not give exit code 0.
    assert codes.keys() == {"kosmos_node", "camera_node", "demo_node"}
