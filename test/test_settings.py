# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every limit and every choice of the parameters, at and beyond its ends."""

import dataclasses
import math

import pytest

from kosmos_ros.errors import ConfigError
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import validated

LIMITED = [field for field in FIELDS.values() if field.metadata["limits"]]
WITH_CHOICES = [field for field in FIELDS.values() if field.metadata["choices"]]
NUMBERS = [field for field in FIELDS.values() if type(field.default) in (int, float)]


def name(field):
    return field.name


def check_limits(field):
    """Check that a parameter accepts exactly the values from its least to its greatest one."""
    kind = type(field.default)
    least, greatest = field.metadata["limits"]
    for value in (least, greatest):
        accepted = validated(field, kind(value))
        assert (accepted, type(accepted)) == (value, kind)
    outside = [least - 1, greatest + 1]
    if kind is float:
        outside += [math.nextafter(least, -math.inf), math.nextafter(greatest, math.inf)]
        outside += [-math.inf, math.inf, math.nan]
    for value in map(kind, outside):
        with pytest.raises(ConfigError) as raised:
            validated(field, value)
        assert str(raised.value) == (
            f"parameter {field.name} must be {least} to {greatest}, got {value}"
        )


def check_choices(field):
    """Check that a parameter accepts exactly its choices."""
    choices = field.metadata["choices"]
    for choice in choices:
        assert validated(field, choice) == choice
    for value in ("", "other", choices[0].upper(), f"{choices[0]} "):
        with pytest.raises(ConfigError) as raised:
            validated(field, value)
        assert str(raised.value) == (
            f"parameter {field.name} must be one of {', '.join(choices)}, got {value!r}"
        )


def test_every_number_has_limits():
    assert NUMBERS == LIMITED


@pytest.mark.parametrize("field", LIMITED, ids=name)
@pytest.mark.fault(57)
def test_number_is_accepted_only_within_its_limits(field):
    check_limits(field)


@pytest.mark.parametrize("field", WITH_CHOICES, ids=name)
@pytest.mark.fault(57)
def test_choice_is_accepted_only_if_it_is_listed(field):
    check_choices(field)


@pytest.mark.fault(57)
def test_limits_and_choices_of_camera_node_hold(ros):
    from kosmos_ros.ros.camera_node import CameraNodeSettings

    fields = dataclasses.fields(CameraNodeSettings)
    limited = [field for field in fields if field.metadata["limits"]]
    assert limited == [field for field in fields if type(field.default) in (int, float)]
    with_choices = [field for field in fields if field.metadata["choices"]]
    assert limited and with_choices
    for field in limited:
        check_limits(field)
    for field in with_choices:
        check_choices(field)


@pytest.mark.parametrize("field", LIMITED, ids=name)
@pytest.mark.fault(57)
def test_error_names_the_camera_of_the_parameter(field):
    value = type(field.default)(field.metadata["limits"][1] + 1)
    with pytest.raises(ConfigError, match=rf"^parameter front\.{field.name} must be "):
        validated(field, value, prefix="front.")


@pytest.mark.parametrize(
    "field", [field for field in FIELDS.values() if type(field.default) in (str, tuple)], ids=name
)
def test_a_null_character_is_refused(field):
    text = "~~\0shapes"  # as the name of a user, it would be an error of the operating system
    with pytest.raises(ConfigError, match=rf"parameter {field.name} must not contain null char"):
        validated(field, text if type(field.default) is str else ["fine", text])
