# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The requirements exclude versions with known vulnerabilities that matter here."""

import configparser
import re
from pathlib import Path

import pytest

pytest.importorskip("packaging", reason="packaging is not installed: run scripts/setup")

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOUND = {
    "pillow": "12.2",  # CVE-2026-40192: decompression bomb, in a format that is not read here
    "torch": "2.6",  # CVE-2025-32434: torch.load(weights_only=True) runs code; training calls it
}
"""First fixed versions; scripts/audit looks for newer vulnerabilities."""


def requirements(text):
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


REQUIRED = requirements((ROOT / "requirements.txt").read_text())
PINNED = requirements((ROOT / "requirements" / "constraints.txt").read_text())


@pytest.mark.parametrize(("name", "version"), SOUND.items())
def test_no_vulnerable_version_is_allowed_or_pinned(name, version):
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


def test_setup_cfg_requires_the_same_versions():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    installed = requirements(config["options"]["install_requires"])
    required = {each.name: each.specifier for each in REQUIRED}
    for each in installed:
        if each.name in required:
            assert each.specifier == required[each.name], each
