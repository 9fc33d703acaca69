# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags are read, described and written; unfinished runs continue. A fake engine describes."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="rosbags is not installed: run scripts/setup")

import bags
from bags import BEGIN, MCAP, PERIOD, SENT, SQLITE3
from hypothesis import given
from hypothesis import strategies as st
from mute_engine import MuteEngine
from rosbags.rosbag2 import CompressionMode

from kosmos_ros.errors import ConfigError, ImageError, PromptError
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.memory.records import Answer, Box, Observation, Phrase
from kosmos_ros.offline.bags import reading, writing
from kosmos_ros.offline.bags.job import Job, Run
from kosmos_ros.offline.bags.messages import COMPRESSED, IMAGE
from kosmos_ros.offline.bags.reading import Bag, Message
from kosmos_ros.offline.bags.selection import cameras
from kosmos_ros.offline.batches import MAX_BATCH, Failure, Picture
from kosmos_ros.offline.every import Every
from kosmos_ros.offline.unfinished import DATABASE, Unfinished
from kosmos_ros.serving.node_settings import CameraSettings, check_name

BOTH = sorted(
    [*bags.frames(11), *bags.frames(7, "/rear/image/compressed", COMPRESSED, seed=2)]
    + [bags.text(number) for number in range(11)],
    key=lambda each: each[2],
)


@pytest.fixture
def source(tmp_path):
    return bags.write_bag(tmp_path / "in", BOTH)


def make(source, out, engine=None, **values):
    """Run a job. Return the run, its results' numbers, and its failures."""
    settings = CameraSettings(**values.pop("settings", {}))
    run = Run(job(Path(source), Path(out), settings=settings, **values))
    engine = engine or MuteEngine()
    with run.open({"model": "fake"}) as results:
        found = list(run.describe(results, lambda: engine))
        for _ in run.write(results):
            pass
        numbers = results.frames, results.failures
    run.clean()
    return run, numbers, [str(each.error) for each in found if isinstance(each, Failure)]


def job(source, out, **values):
    values = {"settings": CameraSettings(), "model": "fake", "max_image_pixels": 10**6, **values}
    return Job(bag=source, out=out, **values)


def stamps(path, topic):
    """Return the stamps in nanoseconds of the headers of a topic."""
    return [
        each.header.stamp.sec * 10**9 + each.header.stamp.nanosec
        for _, each in bags.messages(path, topic)
    ]


def test_results_have_the_headers_and_times_of_their_frames(source, tmp_path):
    run, numbers, failures = make(source, tmp_path / "out")
    assert (numbers, failures) == ((18, 0), [])
    for camera, count in (("front", 11), ("rear", 7)):
        expected = [BEGIN + n * PERIOD for n in range(count)]
        for topic in ("captions", "detections", "annotated/compressed"):
            found = bags.messages(tmp_path / "out", f"/kosmos/{camera}/{topic}")
            assert [time for time, _ in found] == expected
            assert {each.header.frame_id for _, each in found} == {"camera"}
            assert stamps(tmp_path / "out", f"/kosmos/{camera}/{topic}") == [
                time - SENT for time in expected
            ]
    kinds = {topic for topic, *_ in bags.contents(tmp_path / "out")}
    assert kinds == run.outputs.keys()
    assert not run.partial.exists()


def test_each_result_is_that_of_its_own_frame(source, tmp_path):
    make(source, tmp_path / "out")
    found = bags.messages(tmp_path / "out", "/kosmos/front/captions")
    for number, (_, message) in enumerate(found):
        mean = bags.frame(number).mean()
        assert message.caption == f"An image of mean {mean:.4f}"
        assert (message.image_width, message.image_height) == (160, 120)
        assert (message.camera, message.model) == ("front", "fake")


def test_one_camera_has_no_name_as_in_the_node(source, tmp_path):
    make(source, tmp_path / "out", topics=("/front/image_raw",))
    assert {each.camera for _, each in bags.messages(tmp_path / "out", "/kosmos/captions")} == {""}


def test_phrases_and_questions_have_topics(source, tmp_path):
    asked = {"phrases": ("a cat", "a dog"), "questions": ("What?", "Where?"), "task": "question"}
    make(source, tmp_path / "out", topics=("/front/image_raw",), settings=asked)
    out = tmp_path / "out"
    answers = bags.messages(out, "/kosmos/answers")
    assert [each.question for _, each in answers[:4]] == ["What?", "Where?"] * 2
    assert len(answers) == 22 == len(bags.messages(out, "/kosmos/captions"))
    found = bags.messages(out, "/kosmos/phrases")
    assert [[phrase.text for phrase in each.phrases] for _, each in found] == [
        ["a cat", "a dog"]
    ] * 11


@pytest.mark.parametrize("storage", [MCAP, SQLITE3])
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.FILE,
                                  CompressionMode.MESSAGE, CompressionMode.STORAGE])  # fmt: skip
@pytest.mark.parametrize("version", [8, 9])
def test_every_kind_of_bag_gives_the_same_results(storage, mode, version, tmp_path, expected):
    if (storage, mode) == (SQLITE3, CompressionMode.STORAGE):
        pytest.skip("only MCAP compresses inside")
    path = bags.write_bag(tmp_path / "in", BOTH, storage, version, mode)
    make(path, tmp_path / "out", copy=True)
    assert bags.contents(tmp_path / "out") == expected


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    make(bags.write_bag(folder / "in", BOTH), folder / "out", copy=True)
    return bags.contents(folder / "out")


@pytest.mark.parametrize("storage", [MCAP, SQLITE3])
@pytest.mark.parametrize("metadata", ["single file", "no metadata.yaml"])
def test_files_without_metadata_are_read(storage, metadata, tmp_path, expected):
    path = bags.write_bag(tmp_path / "in", BOTH, storage)
    (path / "metadata.yaml").unlink()
    (file,) = path.iterdir()
    make(file if metadata == "single file" else path, tmp_path / "out", copy=True)
    assert bags.contents(tmp_path / "out") == expected


def test_copied_messages_are_the_original_ones(source, tmp_path):
    make(source, tmp_path / "out", copy=True, every="3")
    out = bags.contents(tmp_path / "out")
    originals = bags.contents(source)
    topics = {topic for topic, *_ in originals}
    assert [each for each in out if each[0] in topics] == originals
    times = [time for _, _, time, _ in out]
    assert times == sorted(times)


def test_topics_whose_names_the_results_need_are_not_copied(tmp_path):
    again = [("/kosmos/captions", *bags.text(1)[1:])]
    source = bags.write_bag(tmp_path / "in", [*bags.frames(2), *again])
    run, *_ = make(source, tmp_path / "out", copy=True)
    assert run.not_copied == ["/kosmos/captions"]
    assert {kind for topic, kind, *_ in bags.contents(tmp_path / "out")
            if topic == "/kosmos/captions"} == {"kosmos_msgs/msg/GroundedCaption"}  # fmt: skip


def test_start_and_end_count_from_the_first_message_of_the_bag(source, tmp_path):
    make(source, tmp_path / "out", start=0.2, end=0.5, copy=True)
    assert [time for time, _ in bags.messages(tmp_path / "out", "/kosmos/front/captions")] == [
        BEGIN + n * PERIOD for n in (2, 3, 4)
    ]
    assert len(bags.messages(tmp_path / "out", "/chatter")) == 3


# Selection -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "expected"), [("1", [0, 1, 2, 3, 4, 5, 6]), ("3", [0, 3, 6]), ("0.25s", [0, 3, 5]),
                            (".1s", [0, 1, 2, 3, 4, 5, 6]), ("1s", [0]), ("100", [0])]
)  # fmt: skip
def test_every_takes_frames_by_number_or_time(every, expected):
    choice = Every.parse(every)
    assert [n for n in range(7) if choice.takes("/a", BEGIN + n * PERIOD)] == expected


def test_every_counts_each_topic_by_itself():
    choice = Every.parse("2")
    taken = [topic for topic in ("a", "b", "a", "b", "a", "b") if choice.takes(topic, 0)]
    assert taken == ["a", "b", "a", "b"]


def test_a_clock_that_goes_back_starts_a_new_period():
    choice = Every.parse("10s")
    assert [choice.takes("/a", t * 10**9) for t in (100, 105, 3, 5, 14)] == [
        True, False, True, False, True
    ]  # fmt: skip


@given(times=st.lists(st.integers(0, 10**12), min_size=1).map(sorted), period=st.integers(1, 99))
def test_every_takes_at_most_one_frame_of_each_period(times, period):
    choice = Every.parse(f"{period}s")
    taken = [time for time in times if choice.takes("/a", time)]
    assert taken[0] == times[0]
    places = [(time - times[0]) // (period * 10**9) for time in taken]
    assert places == sorted({(time - times[0]) // (period * 10**9) for time in times})


@pytest.mark.parametrize("every", ["0", "0s", "-1", "x", "", "s", ".s", "1 s", "1m", "nan", "1e3"])
def test_an_invalid_choice_is_refused(every):
    with pytest.raises(ConfigError, match="--every must be a number of frames such as 10"):
        Every.parse(every)


@given(st.lists(st.text("ab/_1é ", min_size=1, max_size=8), unique=True, min_size=2))
def test_cameras_have_valid_and_different_names(topics):
    names = cameras(topics)
    assert len(set(names.values())) == len(topics)
    for name in names.values():
        check_name(name)


def test_cameras_are_named_by_their_topics():
    assert cameras(["/front/image_raw", "/rear/image/compressed", "/thermal"]) == {
        "/front/image_raw": "front", "/rear/image/compressed": "rear", "/thermal": "thermal"
    }  # fmt: skip
    assert cameras(["/cam/image", "/cam/image/compressed"]) == {
        "/cam/image": "cam_image", "/cam/image/compressed": "cam_image_compressed"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"topics": ("/nowhere",)}, "the bag has no --topic '/nowhere'; its image topics are "
         "'/front/image_raw', '/rear/image/compressed'"),
        ({"topics": ("/chatter",)}, "--topic '/chatter' has the type "
         "std_msgs/msg/String; expected one of"),
        ({"start": 5.0}, "--start must be less than the duration of the bag, 1.000 s, got 5"),
        ({"out": "."}, "output must be a new name, got ."),
        ({"start": 2.0, "end": 1.0}, "--start must be at least 0 and before --end, got 2 and 1"),
    ],
)  # fmt: skip
def test_what_the_bag_does_not_have_is_named(source, tmp_path, values, reason):
    with pytest.raises(ConfigError) as caught:
        make(source, values.pop("out", tmp_path / "out"), **values)
    assert reason in str(caught.value)
    assert not (tmp_path / "out.unfinished").exists()


def test_a_bag_without_images_names_its_topics(tmp_path):
    source = bags.write_bag(tmp_path / "in", [bags.text(1)])
    with pytest.raises(ConfigError, match="has no image topics; its topics are '/chatter'"):
        make(source, tmp_path / "out")


def test_a_task_without_its_phrases_is_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="parameter phrases is empty"):
        make(source, tmp_path / "out", settings={"task": "phrase_grounding"})


def test_a_prompt_that_the_model_cannot_read_ends_the_run_at_once(source, tmp_path):
    engine = MuteEngine()
    engine.refuses = "What"
    with pytest.raises(PromptError, match="too long"):
        make(source, tmp_path / "out", engine, settings={"questions": ("What?",)})
    assert not (tmp_path / "out").exists()


# Broken input ----------------------------------------------------------------------------------


def test_a_broken_message_is_named_counted_and_skipped(tmp_path):
    broken = [
        bags.raw(bags.frame(1), BEGIN + PERIOD, step=1),
        bags.TYPES.data(bags.raw(bags.frame(2), BEGIN + 2 * PERIOD))[:300],
        b"",
        bags.raw(bags.frame(4), BEGIN + 4 * PERIOD, encoding="none8"),
    ]
    frames = [
        bags.frames(1)[0],
        *(
            ("/front/image_raw", IMAGE, BEGIN + n * PERIOD, each)
            for n, each in enumerate(broken, 1)
        ),
        *bags.frames(1, first=5),
    ]
    run = Run(job(bags.write_bag(tmp_path / "in", frames), tmp_path / "out"))
    with run.open({}) as results:
        found = list(run.describe(results, MuteEngine))
        assert (results.frames, results.failures, results.position) == (2, 4, 6)
    failures = [each for each in found if isinstance(each, Failure)]
    assert [each.name for each in failures] == [
        f"/front/image_raw at 170000000{0}.{n}00000000" for n in (1, 2, 3, 4)
    ]
    assert [type(each.error).__mro__[-4] for each in failures] == [ImageError.__mro__[-4]] * 4
    for failure, reason in zip(
        failures, ["step must be", "its bytes are not", "its bytes are not", "'none8' is not"],
        strict=True,
    ):  # fmt: skip
        assert reason in str(failure.error)
    assert [isinstance(each, Picture) for each in found] == [True, *[False] * 4, True]


@given(
    cut=st.integers(0, 200),
    changes=st.lists(st.tuples(st.integers(0, 110), st.integers(0, 255)), max_size=4),
    compressed=st.booleans(),
)
def test_any_bytes_give_an_image_or_one_error(runner, cut, changes, compressed):
    image = bags.frame(0, 32, 24)
    message = bags.compressed(image, BEGIN) if compressed else bags.raw(image, BEGIN)
    data = bytearray(bags.TYPES.data(message))
    for place, value in changes:
        data[place] = value
    data = bytes(data[: len(data) - cut])
    kind = COMPRESSED if compressed else IMAGE
    (original,) = runner.frames(0)
    try:
        found, _ = runner.maker().decode(replace(original.stored, type=kind, data=data))
    except ImageError:
        assert cut or changes
        return
    assert found.dtype == np.uint8
    if not cut and not changes:
        assert found.shape == (24, 32, 3)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runner")
    path = bags.write_bag(folder / "in", bags.frames(1))
    return Run(job(path, folder / "out"))


@pytest.fixture
def parts(tmp_path):
    """Return a directory of three files."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(3):
        path = bags.write_bag(tmp_path / f"part{number}", bags.frames(4, first=4 * number))
        shutil.move(path / f"part{number}.mcap", folder / f"part_{number}.mcap")
    return folder


def test_a_broken_file_is_named_and_the_others_are_read(parts, tmp_path):
    file = parts / "part_1.mcap"
    file.write_bytes(file.read_bytes()[:-100])  # as a recorder leaves it that was killed
    _, numbers, failures = make(parts, tmp_path / "out")
    assert numbers == (8, 1)
    (failure,) = failures
    assert failure.startswith(f"{file}: ReaderError: File end magic is invalid")
    assert "run `mcap recover FILE -o NEW_FILE`" in failure


def test_a_file_that_is_broken_inside_is_read_to_that_place(parts, tmp_path):
    file = parts / "part_1.mcap"
    data = bytearray(file.read_bytes())
    data[200_000] ^= 1
    file.write_bytes(data)
    bag = Bag(parts)
    found = list(bag.messages(["/front/image_raw"], bag.start, bag.end))
    assert sum(isinstance(each, Message) for each in found) >= 8


def test_a_missing_file_is_named_and_the_others_are_read(tmp_path, parts):
    (parts / "metadata.yaml").write_text(METADATA)
    (parts / "part_2.mcap").unlink()
    _, numbers, failures = make(parts, tmp_path / "out")
    assert numbers == (8, 1)
    assert "part_2.mcap" in failures[0]


METADATA = f"""
rosbag2_bagfile_information:
  version: 5
  storage_identifier: mcap
  relative_file_paths: [part_0.mcap, part_1.mcap, part_2.mcap]
  duration: {{nanoseconds: {11 * PERIOD}}}
  starting_time: {{nanoseconds_since_epoch: {BEGIN}}}
  message_count: 12
  compression_format: ""
  compression_mode: ""
  topics_with_message_count:
    - message_count: 12
      topic_metadata:
        name: /front/image_raw
        type: sensor_msgs/msg/Image
        serialization_format: cdr
        offered_qos_profiles: ""
"""


def test_files_of_a_bag_are_read_in_order(parts, tmp_path):
    (parts / "part_2.mcap").rename(parts / "part_10.mcap")
    make(parts, tmp_path / "out")
    found = bags.messages(tmp_path / "out", "/kosmos/captions")
    assert [time for time, _ in found] == [BEGIN + n * PERIOD for n in range(12)]


def test_a_database_with_unmerged_messages_is_reported(tmp_path):
    path = bags.write_bag(tmp_path / "in", bags.frames(2), SQLITE3)
    (path / "in.db3-wal").write_bytes(b"newest messages")
    _, numbers, failures = make(path, tmp_path / "out")
    assert numbers == (2, 1)
    assert "its newest messages are in in.db3-wal" in failures[0]


@pytest.mark.parametrize(
    ("name", "contents", "error", "reason"),
    [
        ("gone", None, ConfigError, "does not exist"),
        ("old.bag", b"#ROSBAG V2.0", ConfigError, "is a bag of ROS 1; convert it with"),
        ("in.txt", b"text", ConfigError, "must be a directory, or a file named"),
        ("in.mcap", b"", ImageError, "seems to be empty"),
        ("in.mcap", b"nonsense" * 10, ImageError, "File magic is invalid"),
        ("in.db3", b"nonsense" * 10, ImageError, "in.db3"),
    ],
)
def test_what_is_no_bag_is_refused(name, contents, error, reason, tmp_path):
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(error) as caught:
        make(path, tmp_path / "out")
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_wrong_duration_in_the_metadata_hides_no_message(parts, tmp_path):
    (parts / "metadata.yaml").write_text(METADATA.replace(f"{11 * PERIOD}", "5"))
    _, numbers, _ = make(parts, tmp_path / "out")
    assert numbers == (12, 0)


@pytest.mark.parametrize("text", ["", "[", "a: b", "rosbag2_bagfile_information: {}",
                                  METADATA.replace("12\n", "many\n")])  # fmt: skip
def test_broken_metadata_is_named(parts, text):
    (parts / "metadata.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"metadata.yaml is not the metadata of a bag"):
        Bag(parts)


def test_qos_that_metadata_writes_in_another_form_loses_no_message(tmp_path):
    """As in the bags with which rosbag2 tests itself."""
    path = bags.write_bag(tmp_path / "in", bags.frames(3))
    metadata = path / "metadata.yaml"
    profile = "- history: 3\n  depth: 0\n  reliability: 1\n  durability: 2\n"
    profile += "".join(
        f"  {name}: {{sec: 9223372036, nsec: 854775807}}\n"
        for name in ("deadline", "lifespan", "liveliness_lease_duration")
    )
    profile += "  liveliness: 1\n  avoid_ros_namespace_conventions: false\n"
    empty, own = (f"offered_qos_profiles: {text}" for text in ("''", json.dumps(profile)))
    changed = metadata.read_text().replace(empty, own)
    assert changed != metadata.read_text()
    metadata.write_text(changed)
    _, numbers, _ = make(path, tmp_path / "out")
    assert numbers == (3, 0)


def test_a_message_that_is_not_cdr_is_named(tmp_path, monkeypatch):
    path = bags.write_bag(tmp_path / "in", bags.frames(1))
    file = path / "in.mcap"
    file.write_bytes(file.read_bytes().replace(b"\x03\x00\x00\x00cdr", b"\x03\x00\x00\x00xml"))
    _, numbers, failures = make(path, tmp_path / "out")
    assert (numbers, failures) == ((0, 1), ["its serialization format must be cdr, got 'xml'"])


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no metadata.yaml and no file"):
        Bag(tmp_path)


@pytest.mark.parametrize("mutation", range(40))
def test_a_changed_byte_never_ends_the_run(mutation, tmp_path_factory, small):
    rng = np.random.default_rng(mutation)
    path = tmp_path_factory.mktemp("changed") / "in.mcap"
    data = bytearray(small.read_bytes())
    for _ in range(3):
        data[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(data)
    try:
        bag = Bag(path)
    except ImageError as exc:
        assert str(path) in str(exc)
        return
    list(bag.messages(bag.topics, 0, 2**63 - 1))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "in"
    bags.write_bag(path, [bags.text(number) for number in range(3)])
    return path / "in.mcap"


# Continue --------------------------------------------------------------------------------------


def test_an_output_that_exists_is_not_touched(source, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out exists; choose another name, or remove it"):
        make(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("batches", range(3))
def test_a_run_that_failed_continues_after_its_last_stored_batch(source, tmp_path, batches):
    make(source, tmp_path / "whole", copy=True)
    engine = MuteEngine()
    engine.fails_after = batches
    with pytest.raises(RuntimeError):
        make(source, tmp_path / "out", engine, copy=True)
    again = MuteEngine()
    make(source, tmp_path / "out", again, copy=True)
    assert same(tmp_path / "out", tmp_path / "whole")
    stored = max(0, batches - 1)  # a batch is stored after the next one is described
    assert again.images == 18 - MAX_BATCH * stored


def same(one, other):
    """Return whether the files of two bags have the same bytes, apart from their names."""
    files = [sorted(path.iterdir()) for path in (one, other)]
    return [
        file.read_bytes().replace(one.name.encode(), other.name.encode())
        for file in files[0]
        if file.suffix != ".mcap"
    ] == [file.read_bytes() for file in files[1] if file.suffix != ".mcap"] and bags.contents(
        one
    ) == bags.contents(other)


@pytest.mark.parametrize(
    "other", [{"every": "2"}, {"topics": ("/front/image_raw",)}, {"copy": True}, {"end": 0.5},
              {"settings": {"questions": ("What?",)}}, {"settings": {"max_new_tokens": 5}}]
)  # fmt: skip
def test_results_of_another_command_are_not_continued(source, tmp_path, other):
    engine = MuteEngine()
    engine.fails_after = 1
    with pytest.raises(RuntimeError):
        make(source, tmp_path / "out", engine)
    with pytest.raises(ConfigError, match="has unfinished results with other settings or other "):
        make(source, tmp_path / "out", **other)


def test_a_question_that_is_missing_now_is_named(source, tmp_path):
    engine = MuteEngine()
    engine.fails_after = 1
    asked = {"settings": {"phrases": ("a cup",), "questions": ("What is this?",)}}
    with pytest.raises(RuntimeError):
        make(source, tmp_path / "out", engine, **asked)
    named = (
        r"other input: prompts: '<grounding> Question: What is this\? Answer:' is missing now, "
        r"'<grounding><phrase> a dog</phrase>' is new; repeat"
    )
    with pytest.raises(ConfigError, match=named):
        make(source, tmp_path / "out", settings={"phrases": ("a cup", "a dog")})


@pytest.mark.parametrize(
    ("names", "one"),
    [
        ("drive_3.mcap drive_4.mcap", True),  # the first files were deleted
        ("tour_0.db3 tour_1.db3.zstd tour_10.db3", True),
        ("any name.mcap", True),
        ("one_0.mcap one_1.mcap two_0.mcap", False),
        ("day_2026_06_01.mcap day_2026_06_02.mcap", False),
        ("run.1.mcap run.2.mcap", False),
        ("tour_0.mcap tour_0_recovered.mcap", False),
    ],
)
def test_files_of_several_bags_are_not_one_bag(tmp_path, names, one):
    folder = tmp_path / "drive"
    folder.mkdir()
    for name in names.split(" ") if " n" not in names else [names]:
        (folder / name).write_bytes(b"")
    with pytest.raises((ConfigError, ImageError)) as refused:
        make(folder, tmp_path / "out")
    several = "has files of several bags; run `kosmos bags` on the folder, or"
    assert (several in str(refused.value)) is not one


def test_two_processes_do_not_write_the_same_output(source, tmp_path):
    run = Run(job(source, tmp_path / "out"))
    with run.open({}), pytest.raises(ConfigError, match="another process writes to"):
        run.open({})


def test_failures_are_counted_over_all_runs(tmp_path):
    broken = [("/front/image_raw", IMAGE, BEGIN - PERIOD, b"")]
    source = bags.write_bag(tmp_path / "in", [*broken, *bags.frames(20)])
    engine = MuteEngine()
    engine.fails_after = 2
    with pytest.raises(RuntimeError):
        make(source, tmp_path / "out", engine)
    _, numbers, failures = make(source, tmp_path / "out")
    assert numbers == (20, 1)
    assert failures == []  # it was reported in the first run


@pytest.mark.parametrize(
    ("owner", "name"),
    [(writing, "_copy"), (Unfinished, "finish"), (Path, "rename"),
     (Run, "clean")],
)  # fmt: skip
def test_a_run_that_fails_while_it_writes_continues(source, tmp_path, monkeypatch, owner, name):
    make(source, tmp_path / "whole", copy=True)

    def fail(*arguments):
        raise OSError("the test ends this run")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the test ends"):
        patch.setattr(owner, name, fail)
        make(source, tmp_path / "out", copy=True)
    again = MuteEngine()
    make(source, tmp_path / "out", again, copy=True)
    assert again.images == 0
    assert same(tmp_path / "out", tmp_path / "whole")
    assert not (tmp_path / "out.unfinished").exists()


KILLS = 20
KILLED = """
import os, random, signal, sys, time
sys.path[:0] = [{test!r}, {here!r}]
from test_bag_job import KILLS, make
from mute_engine import MuteEngine

source, out = sys.argv[1:]
rng, kills, number, ended = random.Random(0), 0, 0, True
while kills < KILLS or not ended:
    child = os.fork()
    if not child:
        asked = {{"questions": ("What?",)}}
        make(source, f"{{out}}{{number}}", MuteEngine(0.005), copy=True, settings=asked)
        os._exit(0)
    time.sleep(rng.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    ended = code == 0
    kills += code != 0
    # Killed after its end, before the process ended.
    ended = ended or os.path.exists(f"{{out}}{{number}}") and not os.path.exists(
        f"{{out}}{{number}}.unfinished/results.db"
    )
    number += ended
print(number)
"""


@pytest.mark.process
@pytest.mark.slow
def test_a_run_that_is_killed_at_random_points_has_the_results_of_one_run(tmp_path):
    source = bags.write_bag(tmp_path / "in", [*bags.frames(80), *map(bags.text, range(80))])
    make(source, tmp_path / "whole", copy=True, settings={"questions": ("What?",)})
    here = Path(__file__).parent
    program = KILLED.format(test=str(here.parents[1]), here=str(here))
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    for number in range(int(done.stdout)):
        assert same(tmp_path / f"out{number}", tmp_path / "whole")
    left = [file for folder in tmp_path.glob("*.unfinished") for file in folder.iterdir()]
    assert not left


def test_a_run_that_ends_while_it_fills_the_log_adds_each_frame_once(source, tmp_path):
    settings = {"questions": ("What?",)}
    kinds = dict.fromkeys(MODEL_SETTINGS, "")
    values = {"log": tmp_path / "memory.db", "model_settings": kinds}
    run = Run(job(source, tmp_path / "out", settings=CameraSettings(**settings), **values))
    with run.open({}) as results:
        list(run.describe(results, MuteEngine))
        kept = list(results.observations())
        run.add_to_log(results)
    again = Run(run.job)
    with again.open({}) as results:
        assert list(again.describe(results, MuteEngine)) == []
        again.add_to_log(results)
    with ObservationLog.read(tmp_path / "memory.db") as log:
        seen = log.get(log.search("")[::-1])
    assert len(seen) == len(kept) == 18
    assert {(each.camera, each.stamp) for each in seen} == {
        (each.camera, each.stamp) for each in kept
    }


def test_a_compressed_message_that_is_damaged_or_huge_loses_no_other_one(tmp_path, monkeypatch):
    frames = bags.frames(5, "/camera/image/compressed", COMPRESSED)
    path = bags.write_bag(tmp_path / "in", frames, SQLITE3, mode=CompressionMode.MESSAGE)
    (file,) = path.glob("*.db3")
    with contextlib.closing(sqlite3.connect(file)) as bag, bag:
        bag.execute("UPDATE messages SET data = x'00ff' WHERE id = 2")
        bag.execute("UPDATE messages SET data = substr(data, 1, 40) WHERE id = 4")
    read = list(Bag(path).messages(["/camera/image/compressed"], 0, 2**63 - 1))
    assert [each.name.rpartition(" at ")[0] for each in read] == ["/camera/image/compressed"] * 5
    assert [isinstance(each, Message) for each in read] == [True, False, True, False, True]
    assert "its compressed bytes cannot be read: " in str(read[1].error)
    assert "they are cut off, or expand to more than 1000 MB" in str(read[3].error)
    monkeypatch.setattr(reading, "MAX_MESSAGE", 20)
    read = list(Bag(path).messages(["/camera/image/compressed"], 0, 2**63 - 1))
    assert [isinstance(each, Message) for each in read] == [False] * 5


def test_equal_frames_of_a_bag_without_stamps_are_all_in_the_log_once(source, tmp_path):
    job = Job(
        bag=source,
        out=tmp_path / "out",
        settings=CameraSettings(),
        model="fake",
        max_image_pixels=10**6,
        log=tmp_path / "log.db",
    )
    frames = [Observation(0, "", f"a cup{number // 2}.") for number in range(40)]
    results = SimpleNamespace(observations=lambda: iter(frames), rows=lambda topics: iter(()))
    for _ in range(2):  # the second run is that after an interruption
        Run(job).add_to_log(results)
    with ObservationLog.read(tmp_path / "log.db") as log:
        assert [each.caption for each in log.get(range(100))] == [each.caption for each in frames]


def test_an_output_may_have_the_name_of_the_unfinished_results(source, tmp_path):
    out = tmp_path / DATABASE
    make(source, out)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", DATABASE]
    assert bags.messages(out, "/kosmos/front/captions")


def test_observations_come_back_as_they_were_kept(tmp_path):
    boxes = (Box(1.0, 2.0, 3.0, 4.0, 0.5, track=7, position=(1.0, 2.0, 3.0)),)
    phrases = (Phrase("a cup", 0, 5, boxes),)
    kept = Observation(5, "front", "a cup.", phrases=phrases, thumbnail=b"webp",
                       answers=(Answer("What?", "a cup", 0.5, phrases),))  # fmt: skip
    with Unfinished(tmp_path / "out.unfinished", {}) as results:
        results.add([], [kept, replace(kept, thumbnail=None)], 2, [])
    with Unfinished(tmp_path / "out.unfinished", {}) as results:
        assert list(results.observations()) == [kept, replace(kept, thumbnail=None)]
