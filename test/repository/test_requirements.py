# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The requirements allow no version of which a vulnerability that matters here is known."""

import configparser
import re
from pathlib import Path

import pytest

pytest.importorskip("packaging", reason="packaging is not installed: scripts/setup does")

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOUND = {
    "pillow": "12.2",  # CVE-2026-40192: a bomb of a few bytes, in a format that is not read here
    "torch": "2.6",  # CVE-2025-32434: torch.load(weights_only=True) runs code; training calls it
}
"""First versions without it; scripts/audit asks for those that are not known here yet."""


def requirements(text):
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


REQUIRED = requirements((ROOT / "requirements.txt").read_text())
PINNED = requirements((ROOT / "requirements" / "constraints.txt").read_text())


@pytest.mark.parametrize(("name", "version"), SOUND.items())
def test_no_version_with_a_known_hole_is_allowed_or_installed(name, version):
    (required,) = [each for each in REQUIRED if each.name == name]
    (lowest,) = [Version(each.version) for each in required.specifier if each.operator == ">="]
    assert lowest >= Version(version)
    pins = [each for each in PINNED if each.name == name]
    assert pins
    for pin in pins:
        (only,) = pin.specifier
        assert only.operator == "=="
        assert Version(only.version) >= Version(version)


def test_the_pins_satisfy_the_requirements():
    for required in REQUIRED:
        name = re.sub("[-_.]+", "-", required.name).lower()
        pins = [pin for pin in PINNED if re.sub("[-_.]+", "-", pin.name).lower() == name]
        assert pins, required
        for pin in pins:
            (only,) = pin.specifier
            assert only.version in required.specifier, (required, pin)


def test_setup_cfg_asks_for_the_same_versions():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    installed = requirements(config["options"]["install_requires"])
    asked = {each.name: each.specifier for each in REQUIRED}
    for each in installed:
        if each.name in asked:
            assert each.specifier == asked[each.name], each
