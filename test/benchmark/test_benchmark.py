# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The benchmark's figures are of what they say; none is looked at for its size."""

import json
import os

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")

from benchmark import engine_rows, node_rows, subjects
from benchmark.report import BOUND, Row, plot, table, write_json

ROWS = [
    Row("caption", 20.0, "ms", "generate", 50.0),
    Row("captions", 30.0, "captions/s", "generate", 10.0),
    Row("token", 3.0, "ms", BOUND, 2.0),
    Row("memory", 1.5, "GiB"),
]


def test_ratios_say_how_many_times_better():
    assert [row.ratio for row in ROWS] == [2.5, 3.0, 1.5, None]


def test_rows_are_a_table_json_and_a_plot(tmp_path):
    assert table(ROWS).splitlines()[2:] == [
        "| caption | 20 ms | generate 50 | 2.50 x |",
        "| captions | 30 captions/s | generate 10 | 3.00 x |",
        "| token | 3 ms | bandwidth bound 2 | 1.50 x |",
        "| memory | 1.5 GiB |  |  |",
    ]
    write_json(ROWS, {"processor": "x"}, tmp_path / "rows.json")
    found = json.loads((tmp_path / "rows.json").read_text())
    assert found["machine"] == {"processor": "x"}
    assert found["rows"][0] == {
        "name": "caption",
        "value": 20.0,
        "unit": "ms",
        "against": "generate",
        "baseline": 50.0,
        "ratio": 2.5,
    }
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: scripts/setup does")
    plot(ROWS, "title", tmp_path / "rows.png")
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def shapes():
    return subjects.embedded("cpu", threads=1)


@pytest.fixture(scope="module")
def small():
    """The full configuration with one layer in each tower."""
    return subjects.full("cpu", layers=1)


def test_every_part_of_the_embedded_model_is_measured(shapes):
    parts = [
        engine_rows.latency(shapes, 1),
        engine_rows.decode(shapes, 1),
        engine_rows.cameras(shapes, 1, most=2),
        engine_rows.phrases(shapes, 1, most=10),
        engine_rows.stages(shapes, 1),
        engine_rows.load(shapes, 2),
        node_rows.overhead(shapes, 1),
    ]
    rows = [row for part in parts for row in part]
    assert len({(row.name, row.against) for row in rows}) == len(rows) == 25
    # One more token is a difference of two times, which a delay in the shorter one makes negative.
    assert all(row.value > 0 for row in rows if "one more token" not in row.name)


@pytest.mark.skipif(
    not os.access(engine_rows.RESET_PEAK, os.W_OK), reason="the kernel does not reset its peak"
)
def test_eight_captions_take_memory_beside_the_weights(small):
    (row,) = engine_rows.memory(small)
    cache = 8 * small.engine.encode(subjects.frames(1)[0]).nbytes / 1e9
    assert 4 > row.value > cache
    assert 4 > row.baseline > 0


def test_quantized_weights_take_less(small):
    rows = list(engine_rows.quantized(small, 1))
    assert [row.name for row in rows] == [
        f"full size, {mode}: {what}"
        for mode in ("int8", "nf4")
        for what in ("memory of the weights", "one more token")
    ]
    int8, nf4 = rows[::2]
    assert (
        int8.baseline
        == nf4.baseline
        == pytest.approx(4e-9 * small.engine.info.parameters, rel=0.1)
    )
    assert int8.baseline > int8.value > nf4.value > 0.5  # the table of words stays as it is


def test_both_ways_write_as_many_tokens(shapes):
    for picture in engine_rows._long(shapes):
        count = engine_rows.TOKENS
        assert shapes.ours(picture, subjects.DETAILED, count).generated_tokens == count
        assert shapes.theirs(picture, subjects.DETAILED, count) == count


def test_token_ids_are_those_of_generate(shapes):
    (row,) = engine_rows.agreement(shapes, 120)
    assert (row.value, row.baseline) == (120, 120)


def test_token_ids_are_those_of_generate_in_the_full_width(small):
    assert small.engine.info.parameters > 200e6
    (row,) = engine_rows.agreement(small, 8)
    assert (row.value, row.baseline) == (8, 8)
