# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_ros.ros.environment import warn_of_missing_profiles, wrong_variable


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("ROS_DOMAIN_ID", "233", "a number from 0 to 232"),
        ("RMW_IMPLEMENTATION", "rmw_none_cpp", "an installed middleware (rmw_"),
        ("RCUTILS_LOGGING_USE_STDOUT", "yes", "0 or 1"),
        ("RCUTILS_LOGGING_BUFFERED_STREAM", "2", "0 or 1"),
        ("RCUTILS_COLORIZED_OUTPUT", "true", "0 or 1"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_the_valid_ones(
    monkeypatch, name, value, expected
):
    monkeypatch.setenv(name, value)
    assert wrong_variable().startswith(f"{name} must be {expected}")
    assert f"got '{value}'" in wrong_variable()


@pytest.mark.parametrize(
    "name", ["ROS_DOMAIN_ID", "RMW_IMPLEMENTATION", "RCUTILS_COLORIZED_OUTPUT"]
)
def test_an_empty_variable_counts_as_unset(monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert wrong_variable() == ""


def test_enforced_security_needs_a_keystore(monkeypatch):
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    monkeypatch.delenv("ROS_SECURITY_KEYSTORE", raising=False)
    assert wrong_variable().startswith("ROS_SECURITY_KEYSTORE must be the folder of the keys")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", "/keys")
    assert wrong_variable() == ""


def test_a_missing_file_of_profiles_is_named(monkeypatch, capsys):
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/no/such.xml")
    warn_of_missing_profiles()
    assert capsys.readouterr().err == (
        "FASTRTPS_DEFAULT_PROFILES_FILE must be a file, got /no/such.xml; "
        "Fast DDS uses its defaults\n"
    )


@pytest.mark.parametrize(
    "values, warned",
    [({}, False), ({"cameras": ["front"]}, True), ({"image_topics": ["image"]}, False)],
)
def test_a_remapping_of_image_that_no_camera_uses_is_reported(start, values, warned):
    arguments = ["--ros-args", "-r", "image:=/front/image_raw"]
    texts = start(cli_args=arguments, **values).node._unused_remapping()
    assert bool(texts) is warned
    assert not warned or "image is remapped to /front/image_raw" in texts[0]
