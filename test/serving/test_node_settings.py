# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
import pytest

from kosmos_ros.errors import ConfigError
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import validated


@pytest.mark.parametrize("model", ["shapes", "microsoft/kosmos-2", "/no/such", ".", "folder"])
def test_a_model_is_shapes_an_id_or_a_directory(model, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert validated(FIELDS["model"], model) == model


@pytest.mark.parametrize("model", ["burger", "Shapes", "robot.urdf", "./robot.urdf"])
def test_the_name_of_a_robot_or_a_file_is_no_model(model, tmp_path, monkeypatch):
    (tmp_path / "robot.urdf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=f"parameter model: .* such as OWNER/NAME, got '{model}'"
    ):
        validated(FIELDS["model"], model)
