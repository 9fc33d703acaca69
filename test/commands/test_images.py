# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos images on drawn scenes, with the embedded model."""

import errno
import json
from pathlib import Path

import pytest
from PIL import Image

from kosmos_ros import cli
from kosmos_ros.commands import jobs
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import moving_scene
from training.evaluation import iou

SHAPES = ("--model", "shapes", "--device", "cpu")
SIZE = 320, 240

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "in"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(render(scene(number))).save(folder / f"{number}.png")
    return folder


def scene(number):
    return moving_scene(number, 0.0, *SIZE)


def test_coco_has_the_boxes_that_were_drawn(kosmos, source, tmp_path):
    out, log = tmp_path / "out.json", tmp_path / "memory.db"
    phrases = [scene(number).truth[0] for number in range(3)]
    words = [word for name, _ in phrases for word in ("--phrase", name)]
    question = "--question", "How many shapes are there?"
    code, (value,), err = kosmos("images", source, out, *SHAPES, *words, *question, "--log", log)
    assert (code, err) == (0, "")
    assert value == {"images": str(source), "out": str(out), "frames": 3, "failed": 0}
    found = json.loads(out.read_text())
    assert found["images"] == [
        {"id": n + 1, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]}
        for n in range(3)
    ]
    names = {each["id"]: each["name"] for each in found["categories"]}
    for number, (name, box) in enumerate(phrases):
        drawn = [side * length for side, length in zip(box, SIZE * 2, strict=True)]
        boxes = [
            each["bbox"]
            for each in found["annotations"]
            if each["image_id"] == number + 1 and names[each["category_id"]] == name
        ]
        assert any(iou((x, y, x + w, y + h), drawn) > 0.5 for x, y, w, h in boxes)
    for each in found["annotations"]:
        assert each["area"] == pytest.approx(each["bbox"][2] * each["bbox"][3])
        assert 0 < each["score"] <= 1
    for lists in (found["annotations"], found["categories"], found["captions"]):
        assert [each["id"] for each in lists] == [*range(1, len(lists) + 1)]
    assert [each["image_id"] for each in found["captions"]] == [1, 2, 3]
    assert {each["question"] for each in found["answers"]} == {question[1]}
    shape = phrases[1][0].split(" ", 1)[1]
    code, (seen, *_), _ = kosmos("recall", log, shape, "--last")
    assert code == 0
    assert (seen["camera"], shape in seen["caption"]) == ("in", True)
    assert cli.main(["report", str(log), str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize(
    ("images", "out", "log"),
    [("gone", "new/out.json", "m.db"), ("", "new/out.txt", "m.db"), ("", "out.json", "out.json")],
)
def test_a_command_that_is_refused_makes_no_files(kosmos, source, tmp_path, images, out, log):
    given = tmp_path / images if images else source
    code, lines, err = kosmos("images", given, tmp_path / out, *SHAPES, "--log", tmp_path / log)
    assert (code, lines, len(err.splitlines())) == (2, [], 1)
    assert [*tmp_path.iterdir()] == []


def test_lines_are_those_of_the_other_subcommands(kosmos, source, tmp_path):
    out = tmp_path / "out.jsonl"
    code, *_ = kosmos("images", source, out, *SHAPES)
    assert code == 0
    code, expected, _ = kosmos("caption", *sorted(source.iterdir()), *SHAPES)
    assert [json.loads(line) for line in out.read_text().splitlines()] == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; repeat the"),
        (
            PermissionError(errno.EACCES, "Permission denied", "in/a.png"),
            "in/a.png: Permission de",
        ),
        (OSError(errno.EROFS, "Read-only file system", "out"), "out: Read-only file system"),
    ],
)
def test_only_an_error_that_may_pass_asks_to_repeat_the_command(error, said, capsys):
    assert jobs.stopped(Path("in"), Path("out.json"), error) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"kosmos: in to out.json: {said}")
    assert ("repeat the command" in err) == ("repeat" in said)
