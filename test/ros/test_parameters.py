# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters: defaults, types, ranges and changes at run time. test_docs.py checks their docs."""

import contextlib
import dataclasses
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterEvent, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file

from kosmos_ros.errors import ConfigError
from kosmos_ros.ros.parameters import ParameterNode
from kosmos_ros.serving.node_settings import FIELDS, CameraSettings, NodeSettings
from kosmos_ros.settings import NULLS, validated

ROOT = Path(__file__).parents[2]
YAML = ROOT / "config" / "kosmos.yaml"


def test_the_parameter_file_has_every_parameter_with_its_default():
    values = yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"]
    assert values.keys() == FIELDS.keys()
    for name, field in FIELDS.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert (values[name], type(values[name])) == (default, type(default)), name


@pytest.mark.parametrize("name", FIELDS)
def test_defaults_are_in_range(name):
    assert validated(FIELDS[name], FIELDS[name].default) == FIELDS[name].default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rate", 1000.1),
        ("max_rate", float("inf")),
        ("max_rate", 10**400),
        ("min_score", float("nan")),
        ("queue_size", 0),
        ("queue_size", 10**400),
        ("queue_size", 2.0),
        ("queue_size", True),
        ("always_on", 1),
        ("task", "ocr"),
        ("phrases", "a dog"),
        ("phrases", ["a dog", 1]),
        ("phrases", b"a dog"),
        ("model", None),
        ("model", 1e70),
    ],
)
@pytest.mark.fault(57)
def test_wrong_types_and_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"parameter {name} must be .*, got "):
        validated(FIELDS[name], value)


@pytest.mark.parametrize("value", [5e-324, 0.001, 0.999])
def test_a_hard_timeout_that_no_model_can_keep_is_refused(value):
    with pytest.raises(ConfigError, match=r"hard_timeout: must be 0 \(never\) or at least 1 s"):
        validated(FIELDS["hard_timeout"], value)


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0, 86400.0])
def test_a_hard_timeout_of_0_or_at_least_a_second_is_accepted(value):
    assert validated(FIELDS["hard_timeout"], value) == value


def test_a_list_with_too_many_entries_is_refused():
    assert len(validated(FIELDS["phrases"], ["a dog"] * 100)) == 100
    with pytest.raises(ConfigError, match="phrases must have at most 100 entries, got 101"):
        validated(FIELDS["phrases"], ["a dog"] * 101)


@pytest.mark.parametrize("value", [1e9, 1000.1, -5e-324, -0.1, float("inf"), float("nan")])
@pytest.mark.fault(70)
def test_a_rate_out_of_range_is_refused(value):
    assert [validated(FIELDS["max_rate"], rate) for rate in (0, 5e-324, 1000)] == [0, 5e-324, 1000]
    with pytest.raises(ConfigError, match="parameter max_rate must be 0 to 1000, got "):
        validated(FIELDS["max_rate"], value)


@pytest.mark.parametrize("name", ["phrases", "front.questions", "prompt"])
def test_a_text_that_is_too_long_for_the_loaded_model_is_refused(start, name):
    harness = start(cameras=["front"])
    harness.engine.context = 500
    fits, too_long = "a" * 300, "a" * 600
    for text, expected in ((fits, True), (too_long, False)):
        value = text if name == "prompt" else ["a dog", text]
        (result,) = harness.node.set_parameters([Parameter(name, value=value)])
        assert result.successful == expected
    assert result.reason.startswith(f"parameter {name}: the prompt has 6")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_rate", -1.0, "0"),
        ("max_rate", float("nan"), "nan"),
        ("max_rate", "fast", "must be a number such as 1.0, got 'fast'"),
        ("max_rate", [], "must be a number such as 1.0, got []"),
        ("phrases", "a cat", "must be a list of strings such as [a cat, a dog], got 'a cat'"),
        ("phrases", [1, 2], "must be a list of strings such as [a cat, a dog], got [1, 2]"),
        (
            "questions",
            "What is this?",
            'must be a list of strings such as ["What is this?", "Is the door open?"], '
            "got 'What is this?'",
        ),
        ("phrases", ["</phrase>"], "phrases: phrase '</phrase>' contains the reserved tag"),
        ("prompt", 1.5, "must be a string in quotes, got 1.5"),
        ("task", "ocr", "one of brief_caption, detailed_caption"),
        ("max_new_tokens", 0, "0"),
        ("model", "shapes", "read"),
        ("grounded", 1, ""),
    ],
)
@pytest.mark.fault(57, 70)
def test_invalid_change_is_refused_with_the_reason(start, name, value, reason):
    harness = start()

    def values():
        stored = harness.node.get_parameters_by_prefix("").values()
        described = harness.node.describe_parameters([each.name for each in stored])
        return (
            [(each.name, each.type_, each.value) for each in stored],
            [descriptor.type for descriptor in described],
            (harness.node.settings, harness.node.defaults()),
        )

    before = values()
    result = harness.node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert reason in result.reason
    assert values() == before


@pytest.mark.fault(58)
def test_changed_task_applies_from_the_next_frame(start):
    harness = start(max_rate=0).subscribe_to_captions()
    harness.engine.block()
    harness.send()
    harness.until(harness.engine.stepping.is_set)
    changes = [Parameter("task", value="detailed_caption"), Parameter("grounded", value=False)]
    assert harness.node.set_parameters_atomically(changes).successful
    harness.send()
    harness.engine.unblock()
    harness.until(lambda: len(harness.captions) == 2)
    assert [caption.task for caption in harness.captions] == ["brief_caption", "detailed_caption"]
    assert harness.engine.prompts == ["<grounding> An image of", "Describe this image in detail:"]
    invalid = [Parameter("task", value="brief_caption"), Parameter("max_rate", value=-1.0)]
    assert not harness.node.set_parameters_atomically(invalid).successful
    assert harness.node.defaults().task == "detailed_caption"


@pytest.mark.fault(57, 97)
def test_integer_is_accepted_for_a_float(start):
    """Otherwise a client that reads `double_value` would get 0."""
    harness = start(max_rate=2)

    def stored():
        parameter = harness.node.get_parameter("max_rate")
        described = harness.node.describe_parameter("max_rate").type
        return parameter.type_, parameter.value, described, harness.camera.settings.max_rate

    double = Parameter.Type.DOUBLE
    assert stored() == (double, 2.0, double.value, 2.0)
    harness.set_parameter("max_rate", 3)
    assert stored() == (double, 3.0, double.value, 3.0)


@pytest.mark.fault(57)
def test_warning_of_an_unknown_parameter_suggests_the_likely_name(start):
    harness = start(max_rat=1.0, zzz=True)
    assert harness.node.unknown() == [
        "parameter max_rat is unknown; did you mean max_rate?",
        "parameter zzz is unknown",
    ]


def test_empty_lists_are_accepted_on_the_command_line(start):
    arguments = ["cameras:=[left, right]", "phrases:=[a dog]", "left.phrases:=[]", "questions:=[]"]
    harness = start(cli_args=["--ros-args", *(word for a in arguments for word in ("-p", a))])
    settings = [camera.settings for camera in harness.node.cameras.values()]
    assert [s.phrases for s in settings] == [(), ("a dog",)]
    assert [s.questions for s in settings] == [(), ()]


@pytest.fixture
def declare(ros):
    """Provide a function that declares the parameters of the node's camera `left`.

    It returns the node and the group of parameters. `text` is the part of a parameter file.
    """
    with contextlib.ExitStack() as ends:

        def make(text=""):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(f"/**:\n  ros__parameters:\n    cameras: [left]\n    {text}\n")
                file.flush()
                arguments = ["--ros-args", "--params-file", file.name]
                node = ParameterNode("kosmos", cli_args=arguments)
            ends.callback(node.destroy_node)
            node.declare(NodeSettings)
            node.declare(CameraSettings)
            return node, node.declare(CameraSettings, "left.")

        yield make


def test_every_parameter_is_described_with_its_type(declare):
    """A list that is empty at the start, too."""
    node, _ = declare()
    types = {
        bool: Parameter.Type.BOOL,
        int: Parameter.Type.INTEGER,
        float: Parameter.Type.DOUBLE,
        str: Parameter.Type.STRING,
        tuple: Parameter.Type.STRING_ARRAY,
    }
    names = [*FIELDS, *(f"left.{field.name}" for field in dataclasses.fields(CameraSettings))]
    for name in names:
        field, descriptor = FIELDS[name.removeprefix("left.")], node.describe_parameter(name)
        assert descriptor.name == name
        assert descriptor.type == types[type(field.default)].value
        assert descriptor.description == field.metadata["description"]
        assert descriptor.read_only == field.metadata["read_only"]
        ranges = len(descriptor.integer_range) + len(descriptor.floating_point_range)
        assert ranges == bool(field.metadata["limits"])


EMPTY = [kind for kind in Parameter.Type if kind.name.endswith("_ARRAY")]


@pytest.mark.fault(97)
def test_an_empty_array_of_any_type_is_an_empty_list(declare):
    """`ros2 param set` sends a BOOL_ARRAY for []."""
    node, left = declare()
    for name in ("phrases", "left.phrases"):
        for kind in EMPTY:
            for setting in (node.set_parameters_atomically, lambda ps: node.set_parameters(ps)[0]):
                assert setting([Parameter(name, value=["a dog"])]).successful
                assert left.values.phrases == ("a dog",)
                assert setting([Parameter(name, kind, [])]).successful
                stored = node.get_parameter(name)
                assert (stored.type_, stored.value) == (Parameter.Type.STRING_ARRAY, [])
                assert left.values.phrases == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("phrases: []", ()),
        ("phrases: ['']", ()),
        ("phrases: null", ()),
        ("phrases: ~", ()),
        ("phrases: [null, a dog]", ("a dog",)),
        ("phrases:\n      - |\n        a dog\n", ("a dog",)),
        ("prompt: null", ""),
        ("prompt: |\n      a dog\n", "a dog"),
        ("prompt: >\n      a\n      dog\n", "a dog"),
        ("task: Null", "brief_caption"),
        ("task: |\n      question\n", "question"),
        ("min_score: NULL", FIELDS["min_score"].default),
        ("max_rate: null", 1.0),
        ("max_rate: 2", 2.0),
        ("grounded: ~", True),
    ],
)
@pytest.mark.parametrize("prefix", ["", "left."])
@pytest.mark.fault(97)
def test_values_of_a_file_mean_what_they_mean_in_yaml(declare, prefix, text, expected):
    node, left = declare(prefix + text)
    name = text.partition(":")[0]
    assert getattr(left.values, name) == expected
    stored = node.get_parameter(prefix + name)
    assert stored.value == (list(expected) if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("max_rate", 4.0, 1.0),
        ("task", "question", "brief_caption"),
        ("prompt", "a dog", ""),
        ("phrases", ["a dog"], []),
        ("event_frames", 7, 3),
        ("enabled", False, True),
    ],
)
@pytest.mark.fault(97)
def test_null_restores_the_default(declare, name, value, default):
    node, left = declare()
    for null in (*NULLS, None):  # None: `ros2 param delete`
        for new, expected in ((value, value), (null, default)):
            assert node.set_parameters([Parameter(name, value=new)])[0].successful
            assert node.get_parameter(name).value == expected
            assert node.get_parameter(f"left.{name}").value == expected


@pytest.mark.fault(98)
def test_a_camera_without_an_own_value_follows_the_common_one(start):
    harness = start(cameras=["left", "right"], **{"right.max_rate": 9.0})

    def rates():
        values = [harness.node.get_parameter(f"{name}.max_rate").value for name in CAMERAS]
        assert values == [harness.node.cameras[name].settings.max_rate for name in CAMERAS]
        return values

    CAMERAS = ("left", "right")
    assert rates() == [1.0, 9.0]
    events = harness.collect(ParameterEvent, "/parameter_events")
    harness.until(lambda: harness.node.count_subscribers("/parameter_events"))
    result = harness.node.set_parameters([Parameter("max_rate", value=4.0)])[0]
    assert result.successful
    assert result.reason == (
        "these keep their own values: right.max_rate; set one to null to let it follow"
    )
    assert rates() == [4.0, 9.0]
    harness.until(lambda: any(event.changed_parameters for event in events))
    changed = [change for event in events for change in event.changed_parameters]
    assert {change.name: change.value.double_value for change in changed} == {
        "max_rate": 4.0,
        "left.max_rate": 4.0,
    }
    harness.set_parameter("left.max_rate", 2)
    harness.set_parameter("right.max_rate", "null")
    assert rates() == [2.0, 4.0]
    together = [Parameter("left.max_rate", value="null"), Parameter("max_rate", value=6.0)]
    assert harness.node.set_parameters_atomically(together).reason == ""
    assert rates() == [6.0, 6.0]
    refused = [Parameter("left.max_rate", value=3.0), Parameter("max_rate", value=-1.0)]
    assert not harness.node.set_parameters_atomically(refused).successful
    harness.set_parameter("max_rate", 5.0)
    assert rates() == [5.0, 5.0]


def test_a_task_whose_parameter_is_empty_is_refused(start):
    cameras = {"cameras": ["left", "right"], "left.questions": ["Who?"]}
    with pytest.raises(ConfigError) as raised:
        start(task="question", **cameras)
    missing = (
        "parameter right.task is question, but parameter right.questions is empty; set "
        "right.questions before right.task, or choose another task first"
    )
    assert str(raised.value) == missing
    harness = start(**cameras)
    node = harness.node
    together = [
        Parameter("task", value="question"),
        Parameter("right.questions", value=["Why?"]),
    ]
    assert node.set_parameters_atomically(together[:1]).reason == missing
    assert node.get_parameter("left.task").value == "brief_caption"  # all or none
    assert node.set_parameters_atomically(together).successful
    assert node.set_parameters_atomically([Parameter("right.questions", value=[])]).reason == (
        missing
    )
    harness.set_parameter("task", "brief_caption")
    harness.set_parameter("right.questions", [])
    harness.set_parameter("right.questions", ["Why?"])
    harness.set_parameter("right.task", "question")
    assert node.cameras["right"].settings.task == "question"


names_and_values = st.tuples(
    st.sampled_from(["", "left.", "right."]), st.one_of(st.none(), st.integers(0, 3))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(batches=st.lists(st.lists(names_and_values, min_size=1, max_size=3), max_size=6))
@pytest.mark.fault(98)
def test_every_camera_has_its_own_rate_or_the_common_one(declare, batches):
    node, left = declare()
    groups = {"": left.common, "left.": left, "right.": node.declare(CameraSettings, "right.")}
    expected: dict[str, float | None] = {"": None, "left.": None, "right.": None}
    for batch in batches:
        changes = [Parameter(f"{prefix}max_rate", value=value) for prefix, value in batch]
        assert node.set_parameters_atomically(changes).successful
        expected |= dict(batch)
        common = 1.0 if expected[""] is None else expected[""]
        for prefix, group in groups.items():
            rate = common if expected[prefix] is None else expected[prefix]
            stored = node.get_parameter(f"{prefix}max_rate")
            assert (stored.type_, stored.value) == (Parameter.Type.DOUBLE, rate)
            assert group.values.max_rate == rate


@pytest.mark.fault(98)
def test_a_dump_of_all_parameters_restores_them(start, tmp_path):
    """`ros2 param dump` writes what GetParameters returns, as nested names."""
    harness = start(cameras=["left", "right"], phrases=["a dog"], max_rate=2, prompt="null")
    harness.set_parameter("left.phrases", [])
    harness.set_parameter("right.max_rate", 5.0)

    def values(node):
        return {name: each.value for name, each in node.get_parameters_by_prefix("").items()}

    def is_own(name):
        return not name.startswith("qos_overrides")

    before = {name: value for name, value in values(harness.node).items() if is_own(name)}
    assert None not in before.values()
    dump: dict = {}
    for name, value in before.items():
        *folders, last = name.split(".")
        place = dump
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    file = tmp_path / "dump.yaml"
    file.write_text(yaml.safe_dump({"/kosmos": {"ros__parameters": dump}}))
    again = start(cli_args=["--ros-args", "--params-file", str(file)])
    after = {name: value for name, value in values(again.node).items() if is_own(name)}
    assert after == before
    changes = [
        parameter
        for name, parameter in parameter_dict_from_yaml_file(
            str(file), target_nodes=["/kosmos"]
        ).items()
        if name not in ("use_sim_time", "start_type_description_service")
        and not harness.node.describe_parameter(name).read_only
    ]
    setting = harness.client.create_client(SetParameters, "kosmos/set_parameters")
    results = harness.spinner.call(setting, SetParameters.Request(parameters=changes)).results
    assert [result.reason for result in results if not result.successful] == []
    assert {n: v for n, v in values(harness.node).items() if is_own(n)} == before


def test_an_unknown_parameter_is_refused_by_name(start):
    (result,) = start().node.set_parameters([Parameter("max_rat", value=1.0)])
    assert (result.successful, result.reason) == (False, "parameter max_rat is unknown")


@pytest.fixture
def request_parameters(start):
    """Provide a node and a function that requests parameters over DDS."""
    harness = start()

    def call(kind, **fields):
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__)[1:]
        client = harness.client.create_client(kind, f"kosmos/{name}")
        return harness.spinner.call(client, kind.Request(**fields))

    return harness, call


def change(name, value):
    return Parameter(name, value=value).to_parameter_msg()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            "x" * 100_000,
            1,
            "the name of a parameter must have at most 1000 characters, got 100000",
        ),
        (
            "prompt",
            "x" * 100_000,
            "parameter prompt must have at most 61440 characters, got 100000",
        ),
        # White space at its ends is not part of the phrase, but rclpy keeps it.
        (
            "phrases",
            ["a cat", "a dog" + " " * 1000],
            "parameter phrases[1] must have at most 1000 characters, got 1005",
        ),
        (
            "phrases",
            [""] * 101,
            "parameter phrases has 101 entries; it must have at most 100",
        ),
        (
            "x\n\x1b" + "y" * 900,
            ["x" * 1001],
            f"parameter x\\n\\x1b{'y' * 54}...[0] must have at most 1000 characters, got 1001",
        ),
    ],
)
@pytest.mark.fault(79)
def test_parameters_that_are_too_large_are_refused_and_not_kept(
    request_parameters, name, value, reason
):
    harness, call = request_parameters
    before = harness.node.get_parameters_by_prefix("")
    changes = [change("max_rate", 7.0), change(name, value)]
    response = call(SetParameters, parameters=changes)
    assert [result.successful for result in response.results] == [False, False]
    result = call(SetParametersAtomically, parameters=changes).result
    assert not result.successful
    for refused in (*response.results, result):
        assert refused.reason == reason
    after = harness.node.get_parameters_by_prefix("")
    assert {n: p.value for n, p in after.items()} == {n: p.value for n, p in before.items()}
    harness.until(lambda: harness.logs("a request for parameters is refused: "))


@pytest.mark.parametrize("count", [1001, 20_000])
@pytest.mark.fault(79)
def test_request_with_too_many_parameters_is_refused_at_once(request_parameters, count):
    """A hundred thousand valid changes would block the executor until SIGALRM ends the process."""
    harness, call = request_parameters
    results = call(SetParameters, parameters=[change("max_rate", 7.0)] * count).results
    assert len(results) == count
    reason = f"parameters has {count} entries; it must have at most 1000"
    assert {(result.successful, result.reason) for result in results} == {(False, reason)}
    assert harness.node.defaults().max_rate == 1.0
    names = ["max_rate"] * count
    assert not call(GetParameters, names=names).values
    assert not call(GetParameterTypes, names=names).types
    assert not call(DescribeParameters, names=names).descriptors
    assert not call(ListParameters, prefixes=names).result.names


def test_parameters_with_too_much_text_in_all_are_refused_at_once(request_parameters):
    """The tokenizer would take minutes for a thousand of the longest prompts."""
    harness, call = request_parameters
    long = "x" * 50_000
    before = harness.node.defaults().prompt
    for parameters, total in (
        ([change("prompt", long)] * 21, 1_050_000),
        ([change("questions", ["x" * 1000] * 100)] * 11, 1_100_000),
    ):
        results = call(SetParameters, parameters=parameters).results
        assert len(results) == len(parameters)
        reason = f"all values together must have at most 1000000 characters, got {total}; send "
        assert all(
            not result.successful and result.reason.startswith(reason) for result in results
        )
    assert harness.node.defaults().prompt == before
    some = [change("questions", ["x" * 1000] * 100)] * 10
    assert all(result.successful for result in call(SetParameters, parameters=some).results)


@pytest.mark.fault(79)
def test_a_parameter_of_an_unknown_type_is_refused(request_parameters):
    """rclpy alone raises an exception, and the client waits for ever."""
    harness, call = request_parameters
    unknown = ParameterMessage(name="max_rate", value=ParameterValue(type=200))
    response = call(SetParameters, parameters=[change("max_rate", 7.0), unknown])
    result = call(SetParametersAtomically, parameters=[unknown]).result
    for refused in (*response.results, result):
        assert not refused.successful
        assert refused.reason == (
            "parameter 'max_rate' has the unknown type 200; it must be from 0 to 9"
        )
    assert len(response.results) == 2
    assert harness.node.defaults().max_rate == 1.0


def test_a_whole_parameter_file_can_be_set_at_once(start):
    """A dump has every parameter of every camera."""
    names = [f"camera_{number}" for number in range(60)]
    harness = start(cameras=names)
    client = harness.client.create_client(SetParameters, "kosmos/set_parameters")
    fields = [f for f in FIELDS.values() if not f.metadata["read_only"] and f.default != ()]
    fields = [f for f in fields if f.name in {f.name for f in dataclasses.fields(CameraSettings)}]
    changes = [change(f"{name}.{field.name}", field.default) for name in names for field in fields]
    assert len(changes) > 600
    request = SetParameters.Request(parameters=changes)
    assert all(result.successful for result in harness.spinner.call(client, request).results)


def test_empty_strings_of_a_changed_list_are_not_kept(start):
    harness = start()
    harness.set_parameter("phrases", [""] * 99 + ["a dog"])
    assert harness.node.get_parameter("phrases").value == ["a dog"]
    assert harness.camera.settings.phrases == ("a dog",)
