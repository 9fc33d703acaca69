# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos bag on drawn scenes, with the embedded model."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")

import bags
from bags import BEGIN, PERIOD

from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import read
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.offline.bags.job import Run
from kosmos_ros.offline.bags.messages import IMAGE
from kosmos_ros.shapes.scenes import moving_scene
from training.evaluation import iou

SHAPES = ("--model", "shapes", "--device", "cpu")
SIZE = 320, 240


pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    frames = [
        ("/camera/image_raw", IMAGE, BEGIN + n * PERIOD,
         bags.raw(bags.frame(n, *SIZE), BEGIN + n * PERIOD))
        for n in range(10)
    ]  # fmt: skip
    return bags.write_bag(tmp_path_factory.mktemp("bag") / "in", frames)


def test_the_results_are_those_of_the_model_alone(kosmos, source, tmp_path):
    out = tmp_path / "out"
    code, (value,), err = kosmos("bag", source, out, *SHAPES, "--every", 2)
    assert (code, err) == (0, "")
    topics = "captions", "detections", "annotated/compressed", "annotations"
    assert value == {
        "bag": str(source), "out": str(out), "frames": 5, "failed": 0,
        "messages": {f"/kosmos/{topic}": 5 for topic in topics},
    }  # fmt: skip
    engine = Engine.load("shapes", device="cpu")
    asked = prompts.caption("brief_caption")
    for number, (_, message) in enumerate(bags.messages(out, "/kosmos/captions")):
        image = bags.frame(2 * number, *SIZE)
        expected = read(engine.generate(engine.encode(image), asked.text), asked.text, asked.lead)
        assert message.caption == expected.text
        assert message.raw_text == expected.raw_text
        assert message.score == pytest.approx(expected.score, abs=1e-4)
        for phrase, truth in zip(message.phrases, expected.phrases, strict=True):
            (box,), (true,) = phrase.boxes, truth.boxes
            true = true.scaled(*SIZE)
            assert [box.x_min, box.y_min, box.x_max, box.y_max] == pytest.approx(
                [true.x_min, true.y_min, true.x_max, true.y_max], abs=0.1
            )


def test_phrases_are_where_they_were_drawn(kosmos, source, tmp_path):
    name, box = moving_scene(1, 0.0, *SIZE).truth[0]
    code, _, err = kosmos("bag", source, tmp_path / "out", *SHAPES, "--phrase", name,
                          "--question", "How many shapes are there?", "--end", 0.35)  # fmt: skip
    assert (code, err) == (0, "")
    found = bags.messages(tmp_path / "out", "/kosmos/phrases")
    assert len(found) == 4 == len(bags.messages(tmp_path / "out", "/kosmos/answers"))
    (phrase,) = found[0][1].phrases
    (place,) = phrase.boxes
    drawn = [side * length for side, length in zip(box, SIZE * 2, strict=True)]
    assert iou((place.x_min, place.y_min, place.x_max, place.y_max), drawn) > 0.5


def test_a_broken_frame_is_reported_and_the_exit_code_is_1(kosmos, tmp_path):
    frames = [*bags.frames(1), ("/front/image_raw", IMAGE, BEGIN + PERIOD, b"short")]
    source = bags.write_bag(tmp_path / "in", frames)
    code, (value,), err = kosmos("bag", source, tmp_path / "out", *SHAPES)
    assert code == 1
    assert (value["frames"], value["failed"]) == (1, 1)
    assert re.fullmatch(
        r"kosmos: /front/image_raw at 1700000000\.100000000: its bytes are not a message of type "
        r"sensor_msgs/msg/Image: .*\n",
        err,
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--every", "often"), "--every must be a number of frames such as 10, or seconds such"),
        (("--start", "-1"), "--start must be seconds such as 2.5, got '-1'"),
        (("--end", "nan"), "--end must be seconds such as 2.5, got 'nan'"),
        (("--task", "prompt"), "--task must be one of brief_caption, detailed_caption, phrase_"),
        (("--task", "question"), "--task question needs at least one --question"),
        (("--phrase", "a cup", "--phrase", ""), "--phrase must not be empty"),
        (("--question", " "), "--question must not be empty"),
        (("--task", "phrase_grounding"), "--task phrase_grounding needs at least one --phrase"),
        (("--question", "</s>"), "--question"),
        (("--phrase", "<object>"), "--phrase"),
        (("--topic", "/x"), "the bag has no --topic '/x'; its image topics are"),
    ],
)
def test_an_invalid_option_is_named(kosmos, source, tmp_path, words, reason):
    code, lines, err = kosmos("bag", source, tmp_path / "out", *SHAPES, *words)
    assert (code, lines) == (2, [])
    assert reason in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_question_that_is_too_long_ends_the_command_at_once(kosmos, source, tmp_path):
    words = "--question", "? " * 499
    code, lines, err = kosmos("bag", source, tmp_path / "out", *SHAPES, *words)
    assert (code, lines) == (2, [])
    assert err.count("\n") == 1 and "tokens" in err


def test_an_existing_output_is_refused(kosmos, source, tmp_path):
    code, _, err = kosmos("bag", source, tmp_path, *SHAPES)
    assert code == 2
    assert err == f"kosmos: output {tmp_path} exists; choose another name, or remove it\n"


def test_a_full_disk_says_how_to_continue(kosmos, source, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("kosmos_ros.offline.bags.writing.write", full)
    code, _, err = kosmos("bag", source, tmp_path / "out", *SHAPES, "--every", 10)
    assert code == 1
    assert err.endswith("No space left on device; repeat the command to continue\n")
    monkeypatch.undo()
    code, (value,), err = kosmos("bag", source, tmp_path / "out", *SHAPES, "--every", 10)
    assert (code, value["frames"], err) == (0, 1, "")


@pytest.mark.process
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path):
    code = (
        "import sys; sys.modules['rosbags'] = None\n"
        "from kosmos_ros import cli; sys.exit(cli.main(['bag', 'in', 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=tmp_path, check=False)  # fmt: skip
    assert done.returncode == 7
    assert done.stderr.endswith(f"run '{sys.executable} -m pip install rosbags'\n")
    assert not np.any(list(tmp_path.iterdir()))


def test_the_frames_go_into_an_observation_log_once(kosmos, source, tmp_path):
    log = tmp_path / "memory.db"
    asked = (*SHAPES, "--every", 5, "--question", "How many shapes are there?", "--log", log)
    for name in ("first", "second"):  # the same frames again
        code, _, err = kosmos("bag", source, tmp_path / name, *asked)
        assert (code, err) == (0, "")
    captions, answers = (
        [message for _, message in bags.messages(tmp_path / "first", f"/kosmos/{topic}")]
        for topic in ("captions", "answers")
    )
    with ObservationLog.read(log) as memory:
        seen = memory.get(memory.search("")[::-1])
    assert [each.caption for each in seen] == [message.caption for message in captions]
    assert [each.answers[0].text for each in seen] == [message.answer for message in answers]
    for each, message in zip(seen, captions, strict=True):
        stamp = message.header.stamp
        assert each.stamp == stamp.sec * 10**9 + stamp.nanosec
        assert (each.width, each.height, each.frame_id) == (*SIZE, "camera")
        boxes = [box for phrase in each.phrases for box in phrase.boxes]
        expected = [box for phrase in message.phrases for box in phrase.boxes]
        assert [box.x_min for box in boxes] == pytest.approx([box.x_min for box in expected], 0.01)
        picture = np.asarray(Image.open(io.BytesIO(each.thumbnail)).convert("RGB"), float)
        number = 5 * seen.index(each)
        assert np.abs(picture - bags.frame(number, *SIZE)).mean() < 10
    shape = seen[0].phrases[0].text.removeprefix("a ").removeprefix("an ")
    code, (found, *_), _ = kosmos("recall", log, shape, "--last")
    assert code == 0
    assert shape in found["caption"]


def test_a_log_that_is_locked_leaves_results_that_the_next_run_adds(
    kosmos, source, tmp_path, monkeypatch
):
    monkeypatch.setattr("kosmos_ros.memory.database.LOCK_TIMEOUT", 0.01)
    asked = (source, tmp_path / "out", *SHAPES, "--every", 9, "--log", tmp_path / "memory.db")
    real = Run.add_to_log

    def locked(run, results):
        with ObservationLog.open(run.job.log) as other:
            other.connection.execute("BEGIN IMMEDIATE")
            real(run, results)

    with monkeypatch.context() as context:
        context.setattr(Run, "add_to_log", locked)
        code, lines, err = kosmos("bag", *asked)
    assert (code, lines) == (1, [])
    assert "database is locked; repeat the command to continue" in err
    assert kosmos("bag", *asked)[0] == 0
    with ObservationLog.read(tmp_path / "memory.db") as log:
        assert log.search("")


def test_a_file_that_is_no_log_is_refused_before_the_model_is_loaded(kosmos, source, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a log")
    code, lines, err = kosmos("bag", source, tmp_path / "out", *SHAPES, "--log", file)
    assert (code, lines) == (2, [])
    assert "notes.txt" in err
    assert not (tmp_path / "out.unfinished").exists()
