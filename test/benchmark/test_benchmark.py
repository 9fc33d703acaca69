# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what its names say. No test checks how large a value is."""

import json
import os
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from unittest import mock

import pytest
import torch

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from benchmark import captions, engine, node, serving, streams, subjects, tiles
from benchmark.report import BANDWIDTH, Result, plot, table, write_json
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.kernels.tiles import BY_SHARED_MEMORY, OneRow
from kosmos_ros.kosmos2.kernels.tiles import tiles as find_tiles

ROOT = Path(__file__).parents[2]
RESULTS = [
    Result("caption", 20.0, "ms", "generate", 50.0),
    Result("captions", 30.0, "captions/s", "generate", 10.0),
    Result("token", 3.0, "ms", BANDWIDTH, 2.0),
    Result("memory", 1.5, "GiB"),
]


def test_a_ratio_says_how_many_times_better_a_value_is():
    assert [result.ratio for result in RESULTS] == [2.5, 3.0, 1.5, None]


def test_results_are_written_as_a_table_json_and_a_plot(tmp_path):
    assert table(RESULTS).splitlines()[2:] == [
        "| caption | 20 ms | generate 50 | 2.50 x |",
        "| captions | 30 captions/s | generate 10 | 3.00 x |",
        "| token | 3 ms | bandwidth bound 2 | 1.50 x |",
        "| memory | 1.5 GiB |  |  |",
    ]
    write_json(RESULTS, {"processor": "x"}, tmp_path / "results.json", complete=True)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["complete"] is True
    assert found["machine"] == {"processor": "x"}
    assert found["results"][0] == {
        "name": "caption",
        "value": 20.0,
        "unit": "ms",
        "against": "generate",
        "baseline": 50.0,
        "ratio": 2.5,
    }
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: run scripts/setup")
    plot(RESULTS, "title", tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def shapes():
    return subjects.embedded("cpu", threads=1)


@pytest.fixture(scope="module")
def small():
    """The full configuration with one layer in each tower."""
    return subjects.full("cpu", layers=1)


def test_every_part_of_the_embedded_model_is_measured(shapes):
    parts = [
        engine.latency(shapes, 1),
        engine.decode(shapes, 1),
        engine.additions(shapes, 1),
        engine.cameras(shapes, 1, most=2),
        engine.phrases(shapes, 1, most=10),
        engine.stages(shapes, 1),
        serving.load(shapes, 2),
        streams.streams(shapes, 1),
        streams.cameras(shapes, 1),
        node.overhead(shapes, 1),
    ]
    results = [result for part in parts for result in part]
    assert len({(result.name, result.against) for result in results}) == len(results) == 48
    # One more token is a difference of two times, so noise may make it negative.
    assert all(result.value > 0 for result in results if "one more token" not in result.name)


def test_cameras_at_full_speed_are_described_until_the_end_of_the_measurement(shapes):
    image = serving._jpeg(subjects.frames(1)[0])
    for pool in (None, serving._ModelsThread()):
        assert serving._rate(shapes, [image], 2, pool, 0.5) > 1.0


@pytest.mark.skipif(
    not os.access(engine.RESET_PEAK, os.W_OK), reason="the kernel cannot reset the peak of memory"
)
def test_eight_captions_take_more_memory_than_their_cache(small):
    (result,) = engine.memory(small)
    prefix = len(small.engine.token_ids(""))
    cache = 8 * prefix * engine.cache_bytes(small) / 1e9
    assert 4 > result.value > cache
    assert 4 > result.baseline > 0


def test_quantized_weights_take_less(shapes):
    results = list(engine.quantized(shapes, 1))
    assert [result.name for result in results] == [
        f"shapes, {mode}: {what}"
        for mode in ("int8", "nf4")
        for what in ("memory of the weights", "one more token")
    ]
    int8, nf4 = results[::2]
    before = int8.baseline
    assert before == nf4.baseline == pytest.approx(4e-9 * shapes.engine.info.parameters, rel=0.1)
    # Embeddings are not quantized.
    assert before > int8.value > nf4.value > before / 8


def test_a_model_of_16_bits_chooses_nearly_the_tokens_of_float32(shapes):
    assert not list(engine.closeness(shapes, engine.TOKENS))  # it runs in float32
    less = subjects.Subject(
        "shapes", Engine.load("shapes", device="cpu", dtype="bfloat16"), shapes.processor
    )
    results = list(engine.closeness(less, engine.TOKENS))
    parts = ["first pass", "step of 1 row", "step of 8 rows"]
    parts += [f"{part}, with torch's kernels" for part in parts]
    assert [result.name for result in results] == [
        f"shapes: tokens as in float32, {part}" for part in parts
    ]
    first, *steps = (result.value for result in results[:3])
    assert engine.TOKENS - 1 == results[0].baseline > first > 30
    assert all(first >= same > 30 for same in steps)
    # A CPU runs torch's kernels anyway.
    assert [first, *steps] == [result.value for result in results[3:]]


def test_describing_scenes_keeps_the_number_of_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    captions.described(1, 10)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_both_ways_write_as_many_tokens(shapes):
    described = [scene.frame for scene in captions.described(4, engine.TOKENS)]
    for frame in (*engine.long_frames(shapes), *described):
        count = engine.TOKENS
        assert shapes.ours(frame, captions.DETAILED, count).generated_tokens == count
        assert shapes.theirs(frame, captions.DETAILED, count) == count


def test_random_weights_write_a_given_text_in_the_engine_and_in_generate(small):
    text, count = captions.DETAILED.text, engine.TOKENS
    known, new = (scene.ids for scene in captions.described(1, count, others=1))
    frame = subjects.frames(1)[0]
    small.script.ids = new
    inputs = small.inputs(frame, captions.DETAILED)
    theirs = small.written(inputs, count)[0, inputs["input_ids"].shape[1] :]
    passes, launch = [], small.engine._decoder._launch
    image = small.engine.encode(frame)
    with (
        captions.Learning(small.engine, [known] * 4),
        mock.patch.object(
            small.engine._decoder, "_launch", lambda drafts: passes.append(1) or launch(drafts)
        ),
    ):
        ours = small.engine.generate(image, text, count)
    small.script.ids = ()
    assert tuple(theirs.tolist()) == ours.ids == new[:count]
    assert len(passes) < 0.9 * count  # some drafted tokens were right
    assert small.engine.generate(image, text, count).ids != ours.ids


def test_token_ids_are_those_of_generate(shapes):
    (result,) = engine.agreement(shapes, 120)
    assert (result.value, result.baseline) == (120, 120)


def test_token_ids_are_those_of_generate_in_the_full_width(small):
    assert small.engine.info.parameters > 200e6
    (result,) = engine.agreement(small, 8)
    assert (result.value, result.baseline) == (8, 8)


def test_the_search_finds_the_fastest_size_of_each_product():
    wanted = {"up": OneRow(4, 2048, 4), "down": OneRow(8, 1024, 2)}
    candidates = tiles.one_row_candidates()
    refused = candidates[0]
    timed = []

    def time(sizes):
        timed.append(sizes)
        if refused in sizes.values():
            raise RuntimeError("out of resources")
        return 1.0 + sum(
            value != best
            for name, size in sizes.items()
            for value, best in zip(astuple(size), astuple(wanted[name]), strict=True)
        )

    start = dict.fromkeys(wanted, candidates[-1])
    assert tiles.search(start, candidates, time) == wanted
    assert any(refused in sizes.values() for sizes in timed)
    assert tiles.sample(candidates, 5) == tiles.sample(candidates, 5) != candidates[:5]
    assert tiles.sample(candidates, 10**6)


@pytest.mark.parametrize("nf4", [True, False])
def test_the_sizes_of_the_table_are_candidates(nf4):
    for kilobytes in BY_SHARED_MEMORY:
        sizes = find_tiles(kilobytes * 1024, nf4)
        few = tiles.few_rows_candidates(kilobytes * 1024, nf4)
        assert 20 < len(few) < 200
        assert {sizes.few_rows[name] for name in ("out", "up", "down")} <= set(few)
        one = set(tiles.one_row_candidates())
        assert {size for name, size in sizes.one_row.items() if name != "head"} <= one


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--device", "tpu"), "device must be"),
        (("--json", "missing/rows.json"), "No such file or directory: 'missing/rows.json'"),
        (("--plots", "file/plots"), "Not a directory: 'file/plots'"),
    ],
)
def test_the_benchmark_refuses_wrong_options_before_it_measures(tmp_path, words, error):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "--engine", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert error in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and done.stdout == ""
