# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The launch files, run as `ros2 launch` and `launch_test` run them.

The files in test/launch are launch tests for `launch_test FILE`. The tests here that are not
wrappers of them are about launches that end by themselves, and about their exit codes.
"""

import itertools
import json
import re
import sys
import threading
from pathlib import Path

import pytest
import yaml
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
from launch.actions import (
    GroupAction,
    IncludeLaunchDescription,
    RegisterEventHandler,
    SetEnvironmentVariable,
    SetLaunchConfiguration,
    Shutdown,
)
from launch.event_handlers import OnProcessExit, OnProcessIO, OnProcessStart
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter, SetRemap
from launch_testing import ActiveIoHandler, ActiveProcInfoHandler
from launch_testing.asserts import assertExitCodes
from PIL import Image as Pillow

from kosmos_ros.serving.node_settings import FIELDS

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


def include(file, *arguments):
    """Return the action that includes one of the project's launch files."""
    return IncludeLaunchDescription(
        AnyLaunchDescriptionSource(str(FILES / file)),
        launch_arguments=[argument.split(":=", 1) for argument in arguments],
    )


class Launched:
    """A finished launch.

    With `interrupt` the launch is shut down once its actions have run; otherwise it must end by
    itself.
    """

    def __init__(self, *actions, arguments=(), interrupt=False):
        self.io = ActiveIoHandler()
        self.processes = ActiveProcInfoHandler()
        self._service = launch.LaunchService(argv=list(arguments), noninteractive=True)
        self._service.include_launch_description(
            launch.LaunchDescription(
                [
                    RegisterEventHandler(OnProcessStart(on_start=self._keep)),
                    RegisterEventHandler(
                        OnProcessIO(on_stdout=self.io.append, on_stderr=self.io.append)
                    ),
                    *actions,
                    *([Shutdown(reason="the test is over")] if interrupt else []),
                    # The last handler is called first, and the demo's own may raise.
                    RegisterEventHandler(OnProcessExit(on_exit=self._keep)),
                ]
            )
        )
        self.code = self._run()

    @property
    def output(self):
        """The output of the processes without colours."""
        text = "".join(event.text.decode() for event in self.io)
        return re.sub(r"\x1b\[\d*m|\r", "", text)

    @classmethod
    def of(cls, file, *arguments, **options):
        """Run `ros2 launch kosmos_ros FILE ARGUMENT...`."""
        arguments = [*arguments, PATIENT]
        return cls(include(file, *arguments), arguments=arguments, **options)

    def _keep(self, event, _):
        self.processes.append(event)

    def _run(self):
        # launch runs in the main thread only.
        limit = threading.Timer(LIMIT, self._service.shutdown)
        limit.start()
        code = self._service.run()
        assert limit.is_alive(), f"no end within {LIMIT:g} s:\n{self.output}"
        limit.cancel()
        limit.join()
        return code


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


# Commands of the node -----------------------------------------------------------------------

RECORDER = """
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[1])
number = len(list(folder.iterdir()))
files = [Path(word).read_text() for word in sys.argv if "launch_params_" in word]
(folder / f"{number}.json").write_text(json.dumps([sys.argv[2:], files, dict(os.environ)]))
sys.exit(int(sys.argv[0].rpartition("_")[2]) if number == 0 else 0)
"""


class Recorder:
    """A program that takes the place of the node, and keeps its command and its environment.

    The first run ends with `code`, and the second one with 0.
    """

    def __init__(self, folder, code=5):
        self.folder = folder / "runs"
        self.folder.mkdir(parents=True)
        script = folder / f"record_{code}"
        script.write_text(RECORDER)
        self.argument = f"prefix:={sys.executable} {script} {self.folder}"

    def runs(self):
        """Return the words, the parameters and the environment of each run."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.iterdir())]

    def words(self):
        """Return the command of the only run."""
        ((words, _, _),) = self.runs()
        return words


@pytest.fixture
def recorders(tmp_path):
    """Provide a function that makes a Recorder."""
    return lambda name="node", **options: Recorder(tmp_path / name, **options)


def after(words, word):
    """Return the words that follow `word`."""
    return [follower for first, follower in itertools.pairwise(words) if first == word]


@pytest.mark.fault(105)
def test_a_restarted_node_has_the_same_command_and_environment(recorders):
    """Its names are those of its own include, although other ones have run since."""
    first, second = recorders("first"), recorders("second")
    launched = Launched(
        SetParameter("use_sim_time", True),
        GroupAction(
            [
                PushRosNamespace("fleet"),
                SetRemap("image", "/elsewhere"),
                SetEnvironmentVariable("KOSMOS_PLACE", "kitchen"),
                include(
                    "kosmos.launch.py",
                    "namespace:=left",
                    "name:=eye",
                    "image:=/left/image_raw",
                    "phrases:=[a cat, '2']",
                    first.argument,
                ),
            ]
        ),
        include(
            "kosmos.launch.py", "namespace:=right", "image:=/right/image_raw", second.argument
        ),
        SetLaunchConfiguration("namespace", "nowhere"),
    )
    assert launched.code == 0
    for recorder in (first, second):
        before, again = recorder.runs()
        assert again == before
    words, (content,), environment = first.runs()[1]
    assert {"__node:=eye", "__ns:=/fleet/left", "image:=/left/image_raw"} <= set(words)
    assert {"image:=/elsewhere", "use_sim_time:=True", "fleet.left.eye:=info"} <= set(words)
    assert yaml.safe_load(content) == {
        "/fleet/left/eye": {"ros__parameters": {"phrases": ["a cat", "2"]}}
    }
    assert environment["KOSMOS_PLACE"] == "kitchen"
    words, _, environment = second.runs()[1]
    assert {"__node:=kosmos", "__ns:=/right", "image:=/right/image_raw"} <= set(words)
    assert "KOSMOS_PLACE" not in environment


def test_a_restart_raises_no_alarm_about_two_nodes_of_one_name(recorders, capfd):
    recorder = recorders()
    Launched(include("kosmos.launch.py", recorder.argument))
    assert len(recorder.runs()) == 2
    assert "nodes with the name" not in capfd.readouterr().out


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_node_that_would_end_again_is_not_restarted(recorders, code):
    recorder = recorders(code=code)
    Launched(include("kosmos.launch.py", recorder.argument))
    assert len(recorder.runs()) == 1


def test_respawn_false_starts_the_node_once(recorders):
    recorder = recorders()
    Launched(include("kosmos.launch.py", "respawn:=False", recorder.argument))
    assert len(recorder.runs()) == 1


def test_set_parameter_overrides_the_defaults_and_not_a_file_or_an_argument(recorders, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("/**: {ros__parameters: {max_rate: 2.0}}")
    default, own = recorders("default", code=0), recorders("own", code=0)
    Launched(
        SetParameter("max_rate", 5.0),
        GroupAction([include("kosmos.launch.py", "task:=question", default.argument)]),
        GroupAction([include("kosmos.launch.py", f"params_file:={file}", own.argument)]),
    )

    def order(words):
        """Return the places of the parameters in the command; later ones count."""
        return [
            word
            for word in words
            if "max_rate" in word or word.endswith(".yaml") or "launch_params_" in word
        ]

    file_of_defaults, value, argument = order(default.words())
    assert file_of_defaults.endswith("config/kosmos.yaml")
    assert value == "max_rate:=5.0"
    assert "launch_params_" in argument
    value, own_file = order(own.words())
    assert (value, own_file) == ("max_rate:=5.0", str(file))


@pytest.mark.parametrize(
    "arguments, logger",
    [
        ([], "kosmos:=info"),
        (["namespace:=/", "log_level:=DEBUG"], "kosmos:=debug"),
        (["namespace:=/a/b", "name:=eye", "log_level:=error"], "a.b.eye:=error"),
    ],
)
def test_the_log_level_is_that_of_the_nodes_own_logger(recorders, arguments, logger):
    recorder = recorders(code=0)
    Launched(include("kosmos.launch.py", *arguments, recorder.argument))
    assert after(recorder.words(), "--log-level") == [logger]


@pytest.mark.fault(106)
def test_arguments_of_another_launch_file_stay_out_of_a_group_without_forwarding(recorders):
    recorder = recorders(code=0)
    parent = {"model": "burger", "task": "patrol", "max_rate": "10"}
    launched = Launched(
        *(SetLaunchConfiguration(*pair) for pair in parent.items()),
        GroupAction(
            [include("kosmos.launch.py", "model:=shapes", recorder.argument)], forwarding=False
        ),
    )
    assert launched.code == 0
    ((_, (content,), _),) = recorder.runs()
    assert yaml.safe_load(content) == {"/kosmos": {"ros__parameters": {"model": "shapes"}}}


@pytest.mark.parametrize(
    "name, value", [("model", "burger"), ("task", "patrol"), ("log_level", "9")]
)
@pytest.mark.fault(106)
def test_an_argument_that_cannot_be_meant_for_the_node_is_refused_with_the_remedy(
    errors, name, value
):
    launched = Launched(SetLaunchConfiguration(name, value), include("kosmos.launch.py"))
    assert launched.code == 1
    assert name in errors.text and f"got '{value}'" in errors.text
    assert "GroupAction(forwarding=False)" in errors.text


def test_parameters_of_arguments_are_logged(recorders, errors):
    """So a value that another launch file passes on by accident can be seen."""
    recorder = recorders(code=0)
    Launched(
        SetLaunchConfiguration("max_rate", "10"), include("kosmos.launch.py", recorder.argument)
    )
    assert "kosmos_node gets parameters from arguments: max_rate:=10" in errors.text


def test_show_args_has_defaults_choices_and_forms():
    description = AnyLaunchDescriptionSource(str(FILES / "kosmos.launch.py"))
    shown = {
        argument.name: (argument.default_value[0].describe(), argument.description)
        for argument in description.get_launch_description(
            launch.LaunchContext()
        ).get_launch_arguments()
    }
    for name, field in FIELDS.items():
        default, text = shown[name]
        value = yaml.safe_load(default.partition(", unless params_file")[0])
        assert (tuple(value) if isinstance(value, list) else value) == field.default
        assert field.metadata["description"] in text
        assert all(choice in text for choice in field.metadata["choices"])
    assert 'Form: "[first, second]".' in shown["cameras"][1]
    assert "Range: 0 to 1000." in shown["max_rate"][1]


# Whole launches -----------------------------------------------------------------------------


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
        ("kosmos.launch.py", ["phrases:=[a"], "argument phrases must be YAML, got '[a'"),
        ("kosmos.launch.py", ["respawn:=perhaps"], "respawn must be one of true, false"),
        ("kosmos.launch.py", ["web:=yes"], "web must be one of true, false, got 'yes'"),
        ("kosmos.launch.py", ["web_port:=http"], "web_port must be 0 to 65535, got 'http'"),
        ("kosmos.launch.py", ["web_port:=65536"], "web_port must be 0 to 65535, got '65536'"),
        (
            "kosmos.launch.py",
            ["image:=/a", "cameras:=[front]"],
            "give one topic for each camera in image_topics",
        ),
    ],
)
def test_invalid_arguments_are_named_and_start_nothing(errors, file, arguments, reason):
    before = children()
    assert Launched.of(file, *arguments, interrupt=True).code == 1
    assert reason in errors.text
    # launch leaves processes behind that it started just before an error.
    assert children() == before


def test_the_demo_shows_captions_asks_and_ends(tmp_path):
    out = tmp_path / "annotated frames"
    launched = Launched.of("demo.launch.py", f"out:={out}")
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
    launched = Launched.of("demo.launch.py", f"out:={tmp_path}", argument)
    assert launched.code == 1, launched.output
    assert reason in launched.output
    assert re.search(rf"{program}-\d+ has ended with exit code 1", errors.text)
    codes = {info.process_name.rpartition("-")[0]: info.returncode for info in launched.processes}
    assert codes[program] == 1
    # The others may have been interrupted while Python was importing, so any code is allowed.
    assert codes.keys() == {"kosmos_node", "camera_node", "demo_node"}
