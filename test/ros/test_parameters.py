# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters: defaults, types, ranges and changes at run time. test_docs.py checks their docs."""

import dataclasses
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter

from kosmos_ros.errors import ConfigError
from kosmos_ros.ros import parameters
from kosmos_ros.serving.node_settings import FIELDS, CameraSettings, NodeSettings
from kosmos_ros.settings import validated

ROOT = Path(__file__).parents[2]
YAML = ROOT / "config" / "kosmos.yaml"


def test_the_parameter_file_has_every_parameter_with_its_default():
    values = yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"]
    assert values.keys() == FIELDS.keys()
    for name, field in FIELDS.items():
        default = field.default or [""] if isinstance(field.default, tuple) else field.default
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
        ("model", None),
    ],
)
@pytest.mark.fault(57)
def test_wrong_types_and_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"parameter {name} must be .*, got "):
        validated(FIELDS[name], value)


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
        ("max_rate", "fast", "must be a number, got 'fast' (str)"),
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
        return [parameters.read(harness.node, kind) for kind in (NodeSettings, CameraSettings)]

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
    assert parameters.read(harness.node, CameraSettings).task == "detailed_caption"


@pytest.mark.fault(57)
def test_integer_is_accepted_for_a_float(start):
    harness = start(max_rate=2)
    assert harness.camera.settings.max_rate == 2.0
    assert harness.node.set_parameters([Parameter("max_rate", value=3)])[0].successful
    assert parameters.read(harness.node, CameraSettings).max_rate == 3.0


@pytest.mark.fault(57)
def test_warning_of_an_unknown_parameter_suggests_the_likely_name(start):
    harness = start(max_rat=1.0, zzz=True)
    assert parameters.unknown(harness.node) == [
        "parameter max_rat is unknown; did you mean max_rate?",
        "parameter zzz is unknown",
    ]


def test_empty_lists_are_accepted_on_the_command_line(start):
    arguments = ["cameras:=[left, right]", "phrases:=[a dog]", "left.phrases:=[]", "questions:=[]"]
    harness = start(cli_args=["--ros-args", *(word for a in arguments for word in ("-p", a))])
    settings = [camera.settings for camera in harness.node.cameras.values()]
    assert [s.phrases for s in settings] == [(), ("a dog",)]
    assert [s.questions for s in settings] == [(), ()]


def test_null_restores_the_common_value_of_a_camera(start):
    harness = start(cli_args=["--ros-args", "-p", "cameras:=[left]", "-p", "left.max_rate:=null"])
    (camera,) = harness.node.cameras.values()

    def rate(name, value):
        done = harness.node.set_parameters([Parameter(name, value=value)])
        assert done[0].successful, done[0].reason
        camera.refresh()
        return camera.settings.max_rate

    assert rate("max_rate", 4.0) == 4.0
    assert rate("left.max_rate", 2.0) == 2.0
    assert rate("left.max_rate", "null") == 4.0
    # rclpy would undeclare the parameter, and the node would end when it reads it.
    unset = Parameter("left.max_rate", Parameter.Type.NOT_SET)
    (refused,) = harness.node.set_parameters([unset])
    assert refused.reason == (
        "parameter left.max_rate must have a value; set it to the string 'null' to unset it"
    )
    assert rate("max_rate", 3.0) == 3.0
    refused = harness.node.set_parameters([Parameter("max_rate", value="null")])[0]
    assert refused.reason == "parameter max_rate must be a number, got 'null' (str)"


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
        ("x" * 100_000, 1, "name must have at most 1000 characters, got 100000"),
        ("prompt", "x" * 100_000, "string_value must have at most 61440 characters, got 100000"),
        # White space at its ends is not part of the phrase, but rclpy keeps it.
        ("phrases", ["a dog" + " " * 1000], "must have at most 1000 characters, got 1005"),
        ("phrases", [""] * 101, "string_array_value has 101 entries; it must have at most 100"),
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
        assert refused.reason.startswith("parameters.")
        assert refused.reason.endswith(reason)
        assert len(refused.reason) < 200
    after = harness.node.get_parameters_by_prefix("")
    assert {n: p.value for n, p in after.items()} == {n: p.value for n, p in before.items()}
    harness.until(lambda: harness.logs("a request for parameters is refused: parameters."))


@pytest.mark.parametrize("count", [1001, 20_000])
@pytest.mark.fault(79)
def test_request_with_too_many_parameters_is_refused_at_once(request_parameters, count):
    """A hundred thousand valid changes would block the executor until SIGALRM ends the process."""
    harness, call = request_parameters
    results = call(SetParameters, parameters=[change("max_rate", 7.0)] * count).results
    assert len(results) == count
    reason = f"parameters has {count} entries; it must have at most 1000"
    assert {(result.successful, result.reason) for result in results} == {(False, reason)}
    assert parameters.read(harness.node, CameraSettings).max_rate == 1.0
    names = ["max_rate"] * count
    assert not call(GetParameters, names=names).values
    assert not call(GetParameterTypes, names=names).types
    assert not call(DescribeParameters, names=names).descriptors
    assert not call(ListParameters, prefixes=names).result.names


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
    assert parameters.read(harness.node, CameraSettings).max_rate == 1.0


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


def test_empty_strings_count_as_entries_of_a_changed_list(start):
    harness = start()
    (result,) = harness.node.set_parameters([Parameter("phrases", value=[""] * 101)])
    assert result.reason == "parameter phrases must have at most 100 entries, got 101"
    (result,) = harness.node.set_parameters([Parameter("phrases", value=[""] * 99 + ["a dog"])])
    assert result.successful
    assert harness.camera.settings.phrases == ("a dog",)


def test_a_change_of_one_camera_is_read_by_that_camera_only(start, monkeypatch):
    """Reading the parameters of all cameras takes long if there are many."""
    harness = start(cameras=["left", "right"])
    cameras, reads, read = harness.node.cameras, [], parameters.read

    def note(node, kind, prefix=""):
        reads.append(prefix)
        return read(node, kind, prefix)

    monkeypatch.setattr(parameters, "read", note)
    harness.set_parameter("left.max_rate", 3.0)
    assert reads == ["left."]
    harness.set_parameter("max_rate", 5.0)
    assert sorted(reads[1:]) == ["", "left.", "right."]
    rates = [camera.settings.max_rate for camera in cameras.values()]
    assert (rates, harness.node.defaults().max_rate) == ([3.0, 5.0], 5.0)
