# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""CIDEr by pycocoevalcap, and the errors if it cannot be computed."""

import importlib.machinery
import importlib.util
import shutil
import sys
import types

import pytest

from kosmos_ros.errors import ConfigError
from kosmos_ros.offline.evaluation import cider

TRUTHS = [
    ["A red circle.", "There is a red circle!"],
    ["A blue star."],
    ["Two small green squares."],
    ["A white ring and a cross."],
]


class Package:
    """A stand-in for pycocoevalcap with the same interface, which splits at white space."""

    def __init__(self):
        self.lost = 0  # captions that the tokenizer does not return
        self.error = None

    def modules(self):
        tokenizer = types.SimpleNamespace(tokenize=self.tokenize)
        scorer = types.SimpleNamespace(compute_score=self.compute_score)
        found = {name: types.ModuleType(name) for name in self.names()}
        found["pycocoevalcap.tokenizer.ptbtokenizer"].PTBTokenizer = lambda: tokenizer
        found["pycocoevalcap.cider.cider"].Cider = lambda: scorer
        found["pycocoevalcap"].__spec__ = importlib.machinery.ModuleSpec("pycocoevalcap", None)
        return found

    def names(self):
        whole = ("pycocoevalcap.tokenizer.ptbtokenizer", "pycocoevalcap.cider.cider")
        return {name.rsplit(".", up)[0] for name in whole for up in range(3)}

    def tokenize(self, texts):
        if self.error:
            raise self.error
        lines = [(key, line["caption"]) for key, own in texts.items() for line in own]
        found = {}
        for key, line in lines[: len(lines) - self.lost]:
            assert "\n" not in line
            assert line
            found.setdefault(key, []).append(" ".join(line.lower().split()))
        return found

    def compute_score(self, references, candidates):
        assert references.keys() == candidates.keys()
        each = [float(own[0] in references[key]) for key, own in candidates.items()]
        return sum(each) / len(each), each


@pytest.fixture
def package(monkeypatch):
    stand_in = Package()
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cider.missing() == (
        "the package pycocoevalcap is not installed; "
        f"run '{sys.executable} -m pip install pycocoevalcap'"
    )


def test_missing_java_is_named(package, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cider.missing() == (
        "the tokenizer of pycocoevalcap needs Java; install a package such as default-jre"
    )


def test_each_image_has_the_score_of_its_caption(package):
    said = ["a red\n circle.", "", "Two small green squares.", "a dog"]
    assert cider.scores(said, TRUTHS) == [1, 0, 1, 0]
    assert cider.scores(["", " ", "", ""], TRUTHS) == [0, 0, 0, 0]


def test_a_tokenizer_that_loses_captions_gives_no_score(package):
    package.lost = 1
    with pytest.raises(ConfigError, match="CIDEr cannot be computed: .* check that 'java"):
        cider.scores(["x"] * 4, TRUTHS)


def test_a_tokenizer_that_cannot_write_gives_no_score(package):
    package.error = PermissionError(13, "Permission denied", "/usr/lib")
    with pytest.raises(ConfigError, match="the tokenizer failed: .*Permission denied: '/usr/lib'"):
        cider.scores(["x"] * 4, TRUTHS)


@pytest.mark.slow  # Java starts twice
@pytest.mark.skipif(bool(cider.missing()), reason=cider.missing())
def test_the_real_package_scores_equal_captions_highest():
    said = ["a red circle", "", "two small green squares", "blue star"]
    right, empty, exact, other = cider.scores(said, TRUTHS)
    assert empty == other == 0
    assert exact == pytest.approx(10, abs=1e-6)  # CIDEr's largest value, for the only caption
    assert 3 < right < 10
