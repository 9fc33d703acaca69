# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos bags gives the same results with Ray as without it, also if workers are lost."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")

import bags

from kosmos_ros.memory.log import ObservationLog

SHAPES = ("--model", "shapes", "--device", "cpu")

pytestmark = pytest.mark.usefixtures("loaded_once")


def fill(folder, **counts):
    """Write bags of as many frames. Their frames have equal stamps."""
    folder.mkdir()
    for name, count in counts.items():
        bags.write_bag(folder / name, bags.frames(count, seed=count))
    return folder


@pytest.mark.process
@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: run scripts/setup")
def test_ray_gives_the_results_of_one_process(kosmos, tmp_path):
    source = fill(tmp_path / "in", a=9, b=3, c=17)
    (source / "broken.mcap").write_bytes(b"no bag")
    found = {}
    for kind in ("serial", "ray"):
        words = "bags", source, tmp_path / kind, *SHAPES, "--log", tmp_path / f"{kind}.db"
        if kind == "serial":
            code, lines, err = kosmos(*words)
        else:
            # Ray changes the process that uses it.
            command = sys.executable, "-m", "kosmos_ros.cli", *words, "--ray", "--workers", "2"
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            code, err = done.returncode, done.stderr
        assert code == 1
        assert err.endswith("kosmos: 4 bags: 3 done, 1 skipped\n")
        assert "broken.mcap: ReaderError: File magic is invalid" in err
        with ObservationLog.read(tmp_path / f"{kind}.db") as log:
            observations = log.get(log.search(""))
        assert len(observations) == 9 + 3 + 17
        results = [bags.contents(tmp_path / kind / name) for name in "abc"]
        assert [len(each) for each in results] == [9 * 4, 3 * 4, 17 * 4]
        named = [{**each, "out": Path(each["out"]).name} for each in lines]
        assert [each["state"] for each in named] == ["done", "done", "skipped", "done"]
        found[kind] = named, results, observations
    assert found["ray"] == found["serial"]
    # Nothing is left, so neither a model nor a cluster is started.
    code, again, own = kosmos(*words, "--ray", "127.0.0.1:1")
    assert (code, again) == (1, lines)
    assert own.splitlines() == [
        each
        for each in err.splitlines()
        if each.startswith("kosmos: ") and "no worker is ready" not in each
    ]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--every", "often"), "--every must be a number of frames such as 10, or seconds such"),
        (
            ("--start", "2", "--end", "1"),
            "--start must be at least 0 and before --end, got 2 and 1",
        ),
        (("--phrase", "<object>"), "--phrase"),
        (("--workers", "2"), "--workers needs --ray; add --ray, or remove --workers"),
        (("--workers", "0", "--ray"), "--workers must be a whole number from 1 to 10000, got '0'"),
    ],
)
def test_an_option_that_fits_no_bag_is_named_once(kosmos, tmp_path, words, reason):
    source = fill(tmp_path / "in", a=1, b=1)
    code, lines, err = kosmos("bags", source, tmp_path / "out", *SHAPES, *words)
    assert (code, lines) == (2, [])
    assert reason in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_ray_is_named_with_the_command_that_installs_it(kosmos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = kosmos("bags", fill(tmp_path / "in", a=1), tmp_path / "out", "--ray")
    assert code == 7
    assert err.endswith(f"run '{sys.executable} -m pip install ray'\n")
