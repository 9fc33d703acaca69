# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""All bags below a folder are described, by one process or several. A fake engine describes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")

import bags
from lost_workers import many_of
from mute_engine import MuteEngine

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.offline.bags.cluster import Cluster, share
from kosmos_ros.offline.bags.many import find, in_order, one_after_the_other
from kosmos_ros.offline.batches import MAX_BATCH

NAMES = ["a", "broken.mcap", "deep/b", "deep/c", "ros1.bag"]


@pytest.fixture
def many(tmp_path):
    """Three bags whose frames have equal stamps, and two that cannot be read."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name, count in (("a", 20), ("deep/b", 12), ("deep/c", 3)):
        bags.write_bag(folder / name, bags.frames(count, seed=count))
    for name in ("broken.mcap", "ros1.bag"):
        (folder / name).write_bytes(b"no bag")
    return many_of(folder, tmp_path / "out")


def workers(*words):
    """Start lost_workers.py."""
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", "lost_workers", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Without a token, Ray writes one to the user's folder.
        env=os.environ | {"PYTHONPATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "test"},
    )


def records(many, engine, names=NAMES):
    return {
        each["name"]: each
        for each in in_order(many, names, one_after_the_other(many, names, lambda: engine))
    }


def test_a_folder_that_cannot_be_read_is_named(many, monkeypatch):
    walk = os.walk

    def failing(folder, onerror, **options):
        onerror(PermissionError(errno.EACCES, "Permission denied", f"{folder}/secret"))
        yield from walk(folder, onerror=onerror, **options)

    monkeypatch.setattr(os, "walk", failing)
    hidden = []
    assert find(many.folder, hidden.append) == sorted(NAMES)
    assert [error.filename for error in hidden] == [f"{many.folder}/secret"]
    (many.folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="in/empty/secret: Permission denied"):
        find(many.folder / "empty", hidden.append)


def test_all_bags_below_a_folder_are_found(many):
    cut_off = many.folder / "cut_off"  # its recorder wrote no metadata.yaml
    cut_off.mkdir()
    files = bags.write_bag(many.folder / "other", bags.frames(1)).glob("*.mcap")
    for number, file in enumerate(files):
        file.rename(cut_off / f"cut_off_{number}.mcap")
        (cut_off / f"cut_off_{number}.mcap").with_name("cut_off_1.mcap").write_bytes(b"")
    (many.folder / "deep" / "single.db3.zstd").write_bytes(b"")
    (many.folder / "deep" / "notes.txt").write_bytes(b"")
    (many.folder / "deep" / "up").symlink_to(many.folder)
    expected = sorted([*NAMES, "cut_off", "other", "deep/single.db3.zstd"])
    assert find(many.folder, pytest.fail) == expected
    with pytest.raises(ConfigError, match="in/a is a bag; describe it with `kosmos bag`"):
        find(many.folder / "a", pytest.fail)
    with pytest.raises(ConfigError, match="must not be in"):
        replace(many, out=many.folder / "out").check()


def test_a_second_call_does_what_is_left(many):
    engine = MuteEngine()
    found = records(many, engine)
    states = {name: each["state"] for name, each in found.items()}
    assert states == dict.fromkeys(NAMES, "done") | {
        "broken.mcap": "skipped",
        "ros1.bag": "skipped",
    }
    assert {name: each["frames"] for name, each in found.items() if each["frames"]} == {
        "a": 20, "deep/b": 12, "deep/c": 3,
    }  # fmt: skip
    assert "File magic is invalid" in found["broken.mcap"]["reasons"][0]
    assert "rosbags-convert" in found["ros1.bag"]["reasons"][0]
    assert engine.images == 35
    assert len(bags.messages(many.out / "deep" / "b", "/kosmos/captions")) == 12
    assert sorted(each.name for each in many.out.iterdir()) == [
        "a", "a.json", "broken.mcap.json", "deep", "ros1.bag.json",
    ]  # fmt: skip
    assert {name: many.settled(name) for name in NAMES} == found
    assert records(many, engine) == found
    assert engine.images == 35
    bags.write_bag(many.folder / "new", bags.frames(2))
    (many.folder / "broken.mcap").write_bytes(
        next((many.folder / "new").glob("*.mcap")).read_bytes()
    )
    assert many.settled("broken.mcap") is None
    assert records(many, engine)["broken.mcap"]["frames"] == 2
    shutil.rmtree(many.folder / "a")
    bags.write_bag(many.folder / "a", bags.frames(21))
    assert many.settled("a")["state"] == "failed"
    assert "bytes when it was described" in many.settled("a")["reasons"][0]
    shutil.rmtree(many.out / "a")
    assert records(many, engine)["a"]["frames"] == 21
    assert many.settled("a")["state"] == "done"
    other = replace(many, model={**many.model, "device": "cuda"})
    with pytest.raises(ConfigError, match="device was 'cpu', now it is 'cuda'"):
        other.settled("deep/c")
    with pytest.raises(ConfigError, match="device was 'cpu', now it is 'cuda'"):
        other.describe("deep/c", MuteEngine)
    moved = shutil.copytree(many.folder, many.folder.with_name("tuesday"))
    with pytest.raises(ConfigError, match="bag was '"):
        replace(many, folder=moved).settled("deep/c")


def test_a_link_to_nowhere_is_a_bag_that_cannot_be_read(many):
    (many.folder / "gone.mcap").symlink_to("nowhere")
    assert "gone.mcap" in find(many.folder, pytest.fail)
    assert many.size("gone.mcap") == 0
    assert many.describe("gone.mcap", MuteEngine)["state"] == "skipped"
    assert many.settled("gone.mcap")["state"] == "skipped"


def test_a_note_beside_the_messages_changes_no_bag(many):
    done = many.describe("a", MuteEngine)
    (many.folder / "a" / "notes.txt").write_text("of Monday")
    assert many.settled("a") == done


def test_a_bag_that_is_done_has_not_failed_because_its_worker_ended(many):
    done = many.describe("a", MuteEngine)
    assert many.give_up("a", "its worker ended") == done
    assert many.settled("a") == done
    assert many.give_up("deep/b", "its worker ended")["reasons"] == ["its worker ended"]


def test_topics_that_cannot_be_copied_are_named(many):
    frames = [*bags.frames(2), ("/kosmos/captions", bags.IMAGE, bags.BEGIN, b"")]
    bags.write_bag(many.folder / "taken", frames)
    own = replace(many, job=replace(many.job, copy=True, topics=("/front/image_raw",)))
    record = own.describe("taken", MuteEngine)
    (reason,) = record["reasons"]
    assert reason == "topic '/kosmos/captions' is not copied, because the results have its name"
    assert (record["state"], record["frames"], record["failed"]) == ("done", 2, 0)


def test_a_bag_that_only_the_log_lacks_needs_no_model(many, tmp_path):
    own = replace(many, job=replace(many.job, log=tmp_path / "log.db"))
    described = own.describe("a", MuteEngine)
    assert described["state"] == "described"
    assert own.settled("a") == described
    assert own.describe("a", pytest.fail) == described
    done = own.add_to_log(described)
    assert (done["state"], own.add_to_log(described)) == ("done", done)
    assert own.settled("a") == done


def test_a_bag_that_is_gone_when_the_log_takes_it_is_named(many, tmp_path):
    own = replace(many, job=replace(many.job, log=tmp_path / "log.db"))
    described = own.describe("a", MuteEngine)
    shutil.rmtree(own.folder / "a")
    failed = own.add_to_log(described)
    assert failed["state"] == "failed"
    assert "a" in failed["reasons"][0]


def test_the_state_of_a_bag_that_a_full_disk_refuses_is_still_returned(many, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert many.describe("broken.mcap", MuteEngine)["state"] == "skipped"
    record = many.describe("a", MuteEngine)
    assert (record["state"], record["reasons"]) == ("failed", ["No space left on device"])


def test_errors_of_frames_are_listed_also_those_of_a_run_that_was_stopped(many):
    broken = [
        ("/front/image_raw", bags.IMAGE, bags.BEGIN + n, b"short") for n in (1, 30 * bags.PERIOD)
    ]
    frames = sorted([*broken, *bags.frames(30)], key=lambda each: each[2])
    bags.write_bag(many.folder / "faulty", frames)
    engine = MuteEngine()
    engine.fails_after = 3
    with pytest.raises(RuntimeError):
        many.describe("faulty", lambda: engine)
    assert many.record("faulty")["state"] == "begun"
    record = many.describe("faulty", MuteEngine)
    assert (record["state"], record["frames"], record["failed"]) == ("done", 30, 2)
    assert len(record["reasons"]) == 2
    assert all("are not a message of type sensor_msgs" in each for each in record["reasons"])


def test_the_log_is_the_same_in_whatever_order_bags_are_described(many, tmp_path):
    contents = []
    for name, order in (("one", NAMES), ("two", NAMES[::-1])):
        log = tmp_path / f"{name}.db"
        own = replace(many, out=tmp_path / name, job=replace(many.job, log=log))
        described = [own.describe(each, MuteEngine) for each in order]
        assert (own.out / "a.unfinished").exists()
        found = list(in_order(own, NAMES, described))
        assert [each["name"] for each in found] == NAMES
        assert [each["state"] for each in found].count("done") == 3
        assert not list(own.out.rglob("*.unfinished"))
        with ObservationLog.read(log) as read:
            contents.append(read.get(read.search("")))
    assert contents[0] == contents[1]
    assert len(contents[0]) == 35


@pytest.mark.parametrize(
    ("resources", "device", "threads", "count", "expected"),
    [
        ({"CPU": 64.0, "GPU": 4.0}, "auto", 0, 0, (4, {"CPU": 1, "GPU": 1})),
        ({"CPU": 64.0, "GPU": 4.0}, "cuda", 0, 2, (2, {"CPU": 1, "GPU": 1})),
        ({"CPU": 64.0, "GPU": 4.0}, "cpu", 0, 0, (64, {"CPU": 1})),
        ({"CPU": 6.0}, "auto", 4, 0, (1, {"CPU": 4})),
        ({"CPU": 6.0}, "auto", 2, 0, (3, {"CPU": 2})),
    ],
)
def test_each_worker_has_a_gpu_or_a_share_of_the_cores(
    resources, device, threads, count, expected
):
    assert share(resources, device, threads, count) == expected


def test_a_device_that_no_worker_can_have_is_refused():
    with pytest.raises(ConfigError, match="the cluster has no GPU for --device cuda"):
        share({"CPU": 6.0}, "cuda", 0, 0)
    with pytest.raises(ConfigError, match="a worker needs 4 CPU cores, the cluster has 2"):
        share({"CPU": 2.0}, "auto", 4, 0)
    with pytest.raises(ConfigError, match="must be auto, cpu or cuda with --ray, got cuda:1"):
        share({"CPU": 6.0, "GPU": 2.0}, "cuda:1", 0, 0)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("head", "--ray must be HOST:PORT of the head node of a cluster, got 'head'"),
        ("127.0.0.1:1", "no Ray cluster answers at --ray 127.0.0.1:1: Connection refused; start"),
    ],
)
def test_an_address_without_a_cluster_is_named_at_once(many, address, reason):
    with pytest.raises(ConfigError, match=reason):
        Cluster(many, MuteEngine, address)


@pytest.mark.process
@pytest.mark.parametrize("end", ["lives", "killed"])
def test_two_processes_never_write_the_same_bag(many, end):
    """A worker that was believed dead may live; the lock ends only with its process."""
    with workers("hold", many.folder, many.out, "a") as other:
        assert other.stdout.readline() == "third batch\n"
        engine = MuteEngine()
        record = many.describe("a", lambda: engine)
        assert record["state"] == "busy"
        assert f"process {other.pid} on " in record["reasons"][0]
        assert records(many, engine, ["deep/c"])["deep/c"]["state"] == "done"
        assert engine.images == 3
        if end == "killed":
            other.send_signal(signal.SIGKILL)
        out, _ = other.communicate("go on\n")
    engine = MuteEngine()
    record = many.describe("a", lambda: engine)
    assert (record["state"], record["frames"]) == ("done", 20)
    assert engine.images in (range(1, 20) if end == "killed" else [0])
    assert (json.loads(out or "{}") == record) == (end == "lives")
    alone = replace(many, out=many.out.with_name("alone"))
    alone.describe("a", MuteEngine)
    assert bags.contents(many.out / "a") == bags.contents(alone.out / "a")


@pytest.mark.process
@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: run scripts/setup")
def test_a_killed_worker_and_a_removed_node_lose_and_repeat_nothing(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name, count in (("a", 48), ("b", 47), ("c", 5)):
        bags.write_bag(source / name, bags.frames(count, seed=count))
    black = bags.raw(np.zeros((12, 16, 3), np.uint8), bags.BEGIN)
    bags.write_bag(source / "dark", [("/front/image_raw", bags.IMAGE, bags.BEGIN, black)])
    with workers("cluster", source, tmp_path / "out") as process:
        out, _ = process.communicate()
    found = json.loads(out.splitlines()[-1])
    states = {each["name"]: (each["state"], each["frames"]) for each in found["records"]}
    assert states == {
        "a": ("done", 48),
        "b": ("done", 47),
        "c": ("done", 5),
        "dark": ("failed", 0),
    }
    (dark,) = (each for each in found["records"] if each["name"] == "dark")
    assert dark["reasons"][0].startswith("3 workers ended while they described it; the last: ")
    assert many_of(source, tmp_path / "out").record("dark") == dark
    assert sorted(each.partition(" ended")[0] for each in found["reports"]) == [
        "a: its worker", "b: its worker", "dark: its worker", "dark: its worker",
    ]  # fmt: skip
    alone = many_of(source, tmp_path / "alone")
    for name in "abc":
        assert alone.describe(name, MuteEngine)["state"] == "done"
        assert bags.contents(tmp_path / "out" / name) == bags.contents(tmp_path / "alone" / name)
    # Of each lost worker, at most the batches that were not stored are described again.
    assert 100 < found["described"] <= 100 + 2 * 2 * MAX_BATCH
