# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""scripts/demo as a user starts it: its output, its files and its exit code."""

import os
import re
import signal
import socket
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from programs import Program

from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, Shape

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "demo"

pytestmark = pytest.mark.skipif(
    not Path(os.environ.get("VIRTUAL_ENV", "/")).is_relative_to(ROOT / ".env"),
    reason="scripts/demo would make another environment; run scripts/test",
)

LIMIT = 300.0  # s, for a whole demo
BOX = re.compile(r"^    (.+?) +\((\d+), (\d+), (\d+), (\d+)\) px  score (0\.\d\d)$")


@pytest.fixture
def demo(tmp_path):
    """Start the demo in a folder of its own."""
    started = []

    def start(*arguments):
        program = Program(SCRIPT, "--out", "frames", *arguments, cwd=tmp_path)
        started.append(program)
        return program

    yield start
    for program in started:
        # The script ends its nodes on SIGTERM, but not on SIGKILL.
        with program:
            if program.process.poll() is None:
                program.stop(signal.SIGTERM)


def boxes(program):
    """Return (phrase, corners in pixels) of each printed box."""
    found = (BOX.match(line) for line in program.lines)
    return [(match[1], tuple(map(int, match.groups()[1:5]))) for match in found if match]


def test_the_demo_shows_captions_answers_and_frames_and_ends(demo, tmp_path):
    program = demo()
    assert program.ends(LIMIT) == 0, program.output
    for camera in ("front", "rear"):
        said = [line for line in program.lines if line.startswith(f"{camera}: An image of ")]
        assert len(said) >= 3, camera
    assert len(boxes(program)) >= 5
    assert all(
        0 <= x1 < x2 <= 640 and 0 <= y1 < y2 <= 480 for _, (x1, y1, x2, y2) in boxes(program)
    )
    states = [line for line in program.lines if line.startswith("model shapes: ")]
    assert states[-1] == "model shapes: ready"
    assert len(states) == len(set(states))  # the progress of a download repeats no line
    questions = [n for n, line in enumerate(program.lines) if line.startswith("question")]
    answers = [n for n, line in enumerate(program.lines) if line.startswith("answer: ")]
    assert len(questions) == len(answers) == 2
    assert program.lines[questions[0]] == "question: What is in this image?"
    assert re.match(r"question at \(\d+, \d+, \d+, \d+\) px: ", program.lines[questions[1]])
    whole, region = (program.lines[n].removeprefix("answer: ").rstrip(".") for n in answers)
    assert all((whole, region))
    asked = program.has("locate: ").removeprefix("locate: ").split(", ")
    found = program.lines[program.lines.index(program.has("locate: ")) :]
    assert any(line.strip().startswith(asked[-1]) for line in found[1:])
    detailed = next(line for line in found if line.startswith("    The image shows "))
    grown = [line for line in found if line.startswith("    … ")]
    assert grown, program.output
    assert all(detailed.strip().startswith(line.removeprefix("    … ")) for line in grown)
    event = program.has(" came into view")
    assert re.match(r"event: .+ came into view", event)
    recalled = program.has("recall: ")
    assert re.match(r"recall: .+ was last seen by (front|rear), \d+\.\d s ago, at \(", recalled)
    with ObservationLog.read(tmp_path / "frames" / "memory.db") as log:
        assert log.cameras().keys() == {"front", "rear"}
    assert program.has(f"annotated frames are in {tmp_path / 'frames'}")
    frames = sorted((tmp_path / "frames").glob("*.png"))
    assert len(frames) >= 5
    pixels = np.asarray(Image.open(frames[0]))
    assert pixels.shape[0] > 480  # the image, and a strip with its caption
    assert pixels.shape[1:] == (640, 3)
    assert "Traceback" not in program.output


def test_an_image_of_the_user_is_described(demo, tmp_path):
    shapes = (Shape("circle", "red", (0.1, 0.2, 0.35, 0.6)),)
    Image.fromarray(render(Scene(shapes, 400, 240))).save(tmp_path / "my picture.png")
    program = demo("--image", "my picture.png")
    assert program.ends(LIMIT) == 0, program.output
    assert program.has("An image of a red circle.")
    ((phrase, corners), *_) = boxes(program)
    assert phrase == "a red circle"
    assert [line for line in program.lines if line.startswith("answer: ")] == [
        "answer: a red circle."
    ] * 2
    asked = program.has("locate: ").removeprefix("locate: ")
    assert asked.startswith("a red circle, ")
    assert re.search(rf"^ +{asked.rpartition(', ')[2]} +not found$", program.output, re.M)
    assert program.has("event: a red circle came into view")
    assert program.has("recall: a red circle was last seen by front, ")
    assert np.allclose(corners, (40, 48, 140, 144), atol=400 / 16)


def test_with_keep_the_demo_continues_until_it_is_interrupted(demo):
    program = demo("--keep")
    program.says("captions continue until Ctrl-C", limit=LIMIT)
    said = len(program.lines)
    program.says("An image of", after=said)
    assert program.stop(signal.SIGINT) == 0, program.output
    assert program.has("annotated frames are in")
    assert "Traceback" not in program.output


def test_with_web_the_demo_prints_an_address_and_continues_until_it_is_interrupted(demo):
    program = demo("--web", "--port", "0")
    address = program.says("is shown at ").rpartition(" ")[2]
    program.says("active: accepting frames and requests")
    with urllib.request.urlopen(address) as page:
        assert "text/html" in page.headers["Content-Type"]
    assert program.stop(signal.SIGINT) == 0, program.output
    assert "Traceback" not in program.output


def test_a_port_that_is_taken_is_answered_with_the_option_that_helps(demo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = demo("--web", "--port", port)
        assert program.ends(LIMIT) == 1, program.output
    assert program.has(f"cannot listen at 127.0.0.1, port {port}: Address already in use")
    assert program.has(
        "if the port is taken, choose another with --port NUMBER (0: any free port)"
    )


def test_a_demo_that_is_interrupted_before_its_end_has_failed(demo):
    program = demo("--keep")
    program.says("model shapes: loading")
    assert program.stop(signal.SIGINT) == 1, program.output
    assert "Traceback" not in program.output


def test_a_node_that_hangs_is_killed(demo):
    program = demo("--keep")
    program.says("active: accepting frames and requests")
    children = psutil.Process(program.process.pid).children(recursive=True)
    (hangs,) = (child for child in children if "kosmos_node" in " ".join(child.cmdline()))
    hangs.suspend()
    assert program.stop(signal.SIGINT) == 1, program.output
    assert program.has(f"process {hangs.pid} did not end within 10 s and is killed")
    assert not hangs.is_running()


def test_the_demo_ends_with_an_image_of_nothing(demo, tmp_path):
    """It has no box to ask about, and a file name that needs quotes in shells and YAML."""
    Image.new("RGB", (64, 48), (120, 120, 120)).save(tmp_path / "it's grey.png")
    program = demo("--image", "it's grey.png", "--out", "it's out")
    assert program.ends(LIMIT) == 0, program.output
    assert program.has("question at (16, 12, 48, 36) px: What is this?") or boxes(program)
    assert list((tmp_path / "it's out").glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--image", __file__], 1, "OpenCV"),
        (["--out", "/proc"], 1, "/proc/frame_00.png: No such file or directory"),
        (["--imgae", "x.png"], 2, "--imgae is unknown"),
        (["--video"], 2, "--video needs a value"),
        (["--image", "no/such.png"], 1, "source 'no/such.png' does not exist"),
        (["--model", "./nothing"], 1, "does not exist"),
    ],
)
def test_a_wrong_argument_is_named(demo, arguments, code, words):
    program = demo(*arguments)
    assert program.ends(LIMIT) == code, program.output
    assert program.has(words), program.output
    assert "Traceback" not in program.output
