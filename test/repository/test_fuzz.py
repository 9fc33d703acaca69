# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Inputs that once broke something, a few random ones for each target, and a short fuzz run."""

import random
import re
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from fuzz.findings import Findings
from transformers import Kosmos2Processor

from kosmos_ros.images import decode
from kosmos_ros.kosmos2 import grounding
from kosmos_ros.shapes import MODEL_DIR

ROS = {"request": "rclpy"}
CORPUS = sorted(path for path in fuzz.CORPUS.glob("*/*") if path.is_file())
COUNTS = {"request": 1500, "model": 12}  # inputs
COUNT = 4000  # inputs of the other targets


def load(target):
    if target in ROS:
        pytest.importorskip(ROS[target], reason="rclpy is not installed: run scripts/setup")
    return fuzz.load(target)


def changed(rng, seed, words):
    """Return `seed` with random changes: bytes, words, and pieces removed or repeated."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.randint(0, 8))
        new = rng.choice((rng.randbytes(1), rng.choice(words), data[start:end] * 2, b""))
        data[start:end] = new
    return bytes(data)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.fault(42)
def test_inputs_that_once_broke_something_break_nothing(path):
    load(path.parent.name).run(path.read_bytes())


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("target", fuzz.TARGETS)
@pytest.mark.fault(42)
def test_random_inputs_break_nothing(target):
    module, rng = load(target), random.Random(target)
    accepted = 0
    for number in range(COUNTS.get(target, COUNT)):
        seed = rng.choice(module.SEEDS)
        data = changed(rng, seed, module.WORDS) if number % 8 else seed
        try:
            accepted += module.run(data)
        except Exception as exc:
            raise AssertionError(f"target {target}, input {data!r}") from exc
    assert accepted, "every input was refused, so the target tests only refusals"


def outside(*args):
    """Return a caption with a box that leaves the image."""
    return "a", (grounding.Phrase("a", 0, 1, (grounding.Box(0.5, 0.5, 1.5, 1.0),)),)


BROKEN = (
    ("raw", "fuzz.raw.decode_raw", lambda *args: decode.np.zeros((1, 1, 3), decode.np.uint8)),
    ("compressed", "fuzz.compressed.decode_compressed", lambda *args: decode.np.zeros((2, 2))),
    ("files", "fuzz.files.load", lambda *args: decode.np.zeros((99, 99, 3), decode.np.uint8)),
    ("parse", "fuzz.parse.parse", outside),
    ("prompt", "kosmos_ros.kosmos2.prompts.plain_text", lambda name, text: text),
    ("request", "kosmos_ros.ros.requests.check", lambda *args: 1 / 0),
    ("parameter", "fuzz.parameter.validated", lambda field, value: value),
    ("hub", "kosmos_ros.kosmos2.cache.Snapshot._put", lambda _, path, __: path.write_text("")),
    ("model", "fuzz.model.Engine.load", lambda *args, **options: 1 / 0),
    ("data_set", "kosmos_ros.offline.evaluation.tasks.iou", lambda *args: 2.0 / 0),
)


@pytest.mark.parametrize(("target", "name", "fake"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_target_detects_broken_code(monkeypatch, tmp_path, target, name, fake):
    module = load(target)
    monkeypatch.setattr(name, fake)
    findings = Findings(module.run, tmp_path / target)
    for seed in module.SEEDS:
        findings(seed)
    assert list((tmp_path / target).iterdir())


def test_the_prompt_target_has_the_tokenizer_of_the_engine():
    tokenizer = Kosmos2Processor.from_pretrained(MODEL_DIR).tokenizer
    module, rng = load("prompt"), random.Random(0)
    for _ in range(300):
        text = changed(rng, rng.choice(module.SEEDS), module.WORDS).decode("utf-8", "replace")
        text = f"<image></image> {text}"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == module.TOKENIZER.encode(text, add_special_tokens=False).ids


def test_one_finding_is_kept_for_each_place_in_the_code(tmp_path, capsys):
    def run(data):
        if data.startswith(b"a"):
            raise KeyError(data)
        assert data != b"b"

    findings = Findings(run, tmp_path)
    for data in (b"", b"a1", b"b", b"a2"):
        findings(data)
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"a1", b"b"]
    assert capsys.readouterr().err.count("finding: ") == 2


def test_a_fuzz_run_prints_a_table():
    pytest.importorskip("atheris", reason="atheris is not installed: run scripts/setup")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "prompt", "parameter", "--runs", "3000", "--seed", "7"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (\w+) \| (\d+) \| \d+ \| (\d+) \|$", done.stdout, re.M)
    assert [(name, int(count) >= 3000, found) for name, count, found in rows] == [
        ("prompt", True, "0"),
        ("parameter", True, "0"),
    ]
