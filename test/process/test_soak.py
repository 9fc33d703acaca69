# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Short soaks run without a fault, and the soak detects faults."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import Spinner
from programs import Program

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from soak import client, pictures
from soak.__main__ import main
from soak.ledger import Ledger, reason
from soak.load import BURDENS
from soak.report import Row, failed, slope, table

from kosmos_ros.errors import ImageError
from kosmos_ros.ros import bridge

LIMIT = 300.0  # s, far longer than a short soak takes
MAX_PIXELS = 50_000_000


def environment():
    """The environment of a soak; without shared memory, as in scripts/soak."""
    paths = [str(Path(__file__).parents[1]), *sys.path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
    }


def soak(tmp_path, *arguments):
    """Run the soak; return the value of each row by its name. The exit code must be 0."""
    file = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "soak", "--json", file, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    rows = json.loads(file.read_text())["rows"]
    assert all(row.keys() >= {"name", "value", "unit"} for row in rows)
    assert not any(row["value"] for row in rows if row["fault"])
    return {row["name"]: row["value"] for row in rows}


@pytest.mark.fault(65)
def test_under_load_no_response_is_lost_mixed_up_or_repeated(tmp_path):
    rows = soak(tmp_path, "--minutes", "0.75", "--clients", "6", "--seed", "3")
    for kind in client.REQUESTS:
        assert rows[f"requests sent: {kind}"] > 0
    assert rows["requests answered"] > 0
    assert rows["bad images published"] > 0
    assert rows["clients killed while they waited"] > 0
    for kind in ("parameter", "invalid parameter", "state"):
        assert rows[f"changes: {kind}"] > 0
    for camera in ("front", "rear", "left", "right"):
        assert rows[f"images published by {camera}"] > 0
    assert rows["frames described"] > 0
    assert rows["captions received"] > 0
    for fault in ("lost", "answered twice", "answered about a wrong frame"):
        assert rows[f"requests {fault}"] == 0
    assert rows["exit code at SIGINT"] == rows["tracebacks of the node"] == 0
    assert rows["memory, last"] > 0 and rows["threads, last"] > 0


def test_burdens_can_be_left_out(tmp_path):
    without = ("images", "kills", "pauses", "reloads")
    rows = soak(tmp_path, "--minutes", "0.5", "--clients", "4", "--without", *without)
    assert rows["changes: parameter"] > 0
    assert rows["requests sent by surviving clients"] > 0
    assert rows["changes: state"] == rows["clients killed while they waited"] == 0
    assert not any(name.startswith("images published") for name in rows)


@pytest.mark.fault(65)
def test_no_frame_of_many_is_lost(tmp_path):
    rows = soak(tmp_path, "--frames", "20000")
    ends = [rows[f"frames {end}"] for end in ("described", "dropped for newer ones", "failed")]
    assert sum(ends) == rows["frames offered"] >= 20_000
    assert all(ends)
    assert rows["requests answered"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--minutes", "0"], "--minutes: must be at least 0.1, got 0"),
        (["--clients", "-1"], "--clients: must be at least 0, got -1"),
        (["--frames", "0"], "--frames: must be at least 1, got 0"),
        (["--frames", "many"], "--frames: invalid number value: 'many'"),
        (
            ["--without", "rain"],
            "--without must name images, kills, parameters, ",
        ),
    ],
)
def test_invalid_arguments_are_named(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr("sys.argv", ["soak", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert words in capsys.readouterr().err


def test_a_running_node_is_not_disturbed(ros):
    ros.create_node("kosmos")
    with Program(Path(sys.executable), "-m", "soak", "--minutes", "1", env=environment()) as run:
        assert run.ends() == 1
    assert run.has("another node kosmos runs in ROS_DOMAIN_ID="), run.output


def test_the_help_lists_the_burdens(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["soak", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert ", ".join(BURDENS) in " ".join(capsys.readouterr().out.split())


def test_a_terminated_soak_leaves_no_process(tmp_path):
    python = Path(sys.executable)
    with Program(python, "-m", "soak", "--clients", "2", env=environment()) as run:
        run.says("answered", limit=LIMIT)
        players = psutil.Process(run.process.pid).children(recursive=True)
        assert len(players) >= 5
        run.process.send_signal(signal.SIGTERM)
        assert run.ends(LIMIT) == 0, run.output
    assert run.has("| requests answered |")
    assert not [player for player in players if player.is_running()]


@pytest.fixture
def scene():
    return pictures.draw(np.random.default_rng(0))


def messages(scene):
    """A raw message and a JPEG."""
    return pictures.raw(scene, "rgb8"), pictures.compressed(scene, "jpeg")


def test_good_images_are_decoded(scene):
    decode = bridge.ImageDecoder().decode
    made = [pictures.raw(scene, encoding) for encoding in pictures.RAW]
    made += [pictures.compressed(scene, kind) for kind in pictures.FORMATS]
    first = decode(made[0], MAX_PIXELS).astype(int)
    for message in made:
        pixels = decode(message, MAX_PIXELS)
        assert pixels.shape == (scene.height, scene.width, 3)
        if getattr(message, "encoding", "") != "mono8":
            assert abs(pixels - first).mean() < 16


def test_bad_images_cannot_be_decoded(scene):
    decode = bridge.ImageDecoder().decode
    raw, jpeg = messages(scene)
    for seed in range(40):
        for message in (raw, jpeg):
            with pytest.raises(ImageError):
                decode(pictures.spoilt(message, np.random.default_rng(seed)), MAX_PIXELS)


def caption_of(message, scene, camera):
    return GroundedCaption(
        header=message.header, camera=camera, image_width=scene.width, image_height=scene.height
    )


def test_a_result_about_another_frame_is_detected(scene):
    message, _ = messages(scene)
    pictures.label(message, "rear", 7, scene, 5_000_000_009, bad=False)
    good = caption_of(message, scene, "rear")
    assert not pictures.mistaken(good, ("front", "rear"))
    assert "front" in pictures.mistaken(good, ("front",))
    assert "left" in pictures.mistaken(caption_of(message, scene, "left"), ("left",))
    good.image_width += 1
    assert f"{scene.width + 1}x" in pictures.mistaken(good, ("rear",))
    good.image_width -= 1
    good.header.stamp.sec += 1
    assert pictures.mistaken(good, ("rear",)).startswith(f"{scene.width}x{scene.height} at 6.9")
    pictures.label(message, "rear", 7, scene, 5_000_000_009, bad=True)
    assert "bad" in pictures.mistaken(caption_of(message, scene, "rear"), ("rear",))


def test_a_response_to_another_request_is_detected(scene):
    image, _ = messages(scene)
    pictures.label(image, "client", 1, scene, 5, bad=False)
    asked = client.Asked("ask", Ask.Request(image=image), ["What is this?"], scene=scene)
    answer = caption_of(image, scene, "")
    answer.prompt = "Question: What is this? Answer:"
    assert not asked.fault([answer])
    assert asked.fault([]) == "0 results for 1 prompts"
    answer.camera = "rear"
    assert "client 1" in asked.fault([answer])
    answer.camera, answer.prompt = "", "Question: What is that? Answer:"
    assert "What is that?" in asked.fault([answer])
    spoilt = client.Asked("ask", asked.request, ["What is that?"], scene=scene, bad=True)
    assert "a response about" in spoilt.fault([answer])


def test_a_second_response_is_reported(ros, capsys):
    asking = ros.create_node("asking")
    service = asking.create_client(Ask, "kosmos/ask")
    servers = [ros.create_node(name) for name in ("one", "another")]
    for server in servers:
        server.create_service(Ask, "kosmos/ask", lambda request, response: response)
    client._report_unexpected(service)
    spinner = Spinner(asking, *servers)
    spinner.until(lambda: asking.count_services("kosmos/ask") == 2)
    spinner.call(service, Ask.Request())
    spinner.until(lambda: '"twice"' in "".join(capsys.readouterr()), "a second response")


def test_the_ledger_accounts_for_every_request():
    ledger = Ledger()
    for number in range(6):
        ledger.take({"sent": number, "kind": "ask"})
    ledger.take({"answered": 0, "kind": "ask", "wait": 0.5, "named": True})
    ledger.take({"refused": 1, "kind": "ask", "wait": 1.0, "why": "the queue is full: 8"})
    ledger.take({"lost": 2, "kind": "ask"})
    ledger.take({"wrong": 3, "kind": "ask", "why": "another picture"})
    ledger.take({"twice": 0, "kind": "ask"})
    ledger.forget("ask")
    rows = {row.name: row for row in ledger.rows()}
    values = {name: row.value for name, row in rows.items()}
    assert values["requests sent by surviving clients"] == 5
    assert values["requests answered: ask"] == values["requests refused: queue full"] == 1
    assert values["wait p50"] == 0.5
    assert {name: row.value for name, row in rows.items() if row.fault} == {
        "requests lost": 1,
        "requests without a reported result": 1,
        "requests answered twice": 1,
        "requests answered about a wrong frame": 1,
    }


def test_an_unknown_refusal_is_counted_by_its_message():
    assert reason("the node is not active") == "not active"
    assert reason("17 dogs bark at 3") == "# dogs bark at #"


def test_a_fault_is_marked_and_fails_the_run():
    rows = [Row("answers", 3, "answers"), Row("lost", 0, "requests", fault=True)]
    assert not failed(rows)
    rows.append(Row("twice", 1, "requests", fault=True))
    assert failed(rows)
    assert table(rows).splitlines()[2:] == [
        "| answers | 3 answers |",
        "| lost | 0 requests |",
        "| twice | 1 requests (must be 0) |",
    ]


def test_the_slope_is_of_the_second_half():
    assert slope([(0, 9), (1, 50), (2, 4), (3, 6), (4, 8)]) == pytest.approx(2)
