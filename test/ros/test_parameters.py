# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters: defaults, types and ranges. test_docs.py compares the documentation with them."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from rclpy.parameter import Parameter

from kosmos_ros.errors import ConfigError
from kosmos_ros.serving.node_settings import FIELDS
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
