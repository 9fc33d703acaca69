# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's memory: what is described goes into the log, and ~/recall finds it there."""

import io
import json
import math
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, PoseStamped, Twist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kosmos_msgs.srv import Recall
from node_harness import FIRE_BOX, SNOWMAN_BOX
from PIL import Image as Pillow

from kosmos_ros.errors import ConfigError
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.record_json import phrases_from_json
from kosmos_ros.memory.recorder import MAX_IMAGES, Recorder
from kosmos_ros.memory.records import Observation, Pose
from kosmos_ros.ros import status_keys
from kosmos_ros.ros.pose_subscription import MAX_POSES, SPACING, PoseSubscription

SECOND = 10**9  # ns
CAPTION = "An image of a snowman warming himself by a fire."


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


def observations(path):
    with ObservationLog.read(path) as log:
        return log.get(log.search("", limit=1000))


def recall(harness, **request):
    client = harness.client.create_client(Recall, "kosmos/recall")
    response = harness.spinner.call(client, Recall.Request(**request))
    harness.client.destroy_client(client)
    return response


def remembered(harness, path, count=1):
    """Wait until `count` observations are in the log; return them, newest first."""
    harness.until(lambda: len(observations(path)) >= count, "an observation")
    return observations(path)


def test_a_frame_without_a_subscriber_is_described_and_written(start, path):
    harness = start(
        memory=str(path), max_rate=0.0, phrases=["a fire"], questions=["Is it cold?"],
        event_frames=1,
    )  # fmt: skip
    harness.engine.outputs = {
        "<phrase> a fire": (FIRE_BOX, (0.5, 0.5)),
        "Is it cold?": (f"yes,<phrase> snow</phrase>{SNOWMAN_BOX}", (0.5, 0.5)),
    }
    harness.send()
    (seen, *_) = remembered(harness, path)
    assert (seen.stamp, seen.camera, seen.caption) == (7 * SECOND, "", CAPTION)
    assert (seen.task, seen.frame_id) == ("brief_caption", "camera_optical_frame")
    assert (seen.width, seen.height, seen.score) == (640, 480, 0.75)
    assert [(p.text, p.start, p.end) for p in seen.phrases] == [
        ("a snowman", 12, 21), ("a fire", 41, 47), ("a fire", 0, 0),
    ]  # fmt: skip
    (box,) = seen.phrases[0].boxes
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (250.0, 22.5, 630.0, 397.5)
    (answer,) = seen.answers
    assert (answer.question, answer.text, answer.score) == ("Is it cold?", "yes, snow", 0.75)
    assert answer.phrases[0].boxes[0].x_min == 250.0
    assert seen.raw_text.startswith("<grounding> An image of<phrase> a snowman</phrase>")
    assert json.loads(seen.settings)["min_score"] == 0.1
    assert seen.model == harness.node.settings.model
    assert Pillow.open(io.BytesIO(seen.thumbnail)).size == (320, 240)
    assert seen.pose is None
    sql = "SELECT stamp, kind, subject, answer, since, phrases FROM event ORDER BY kind"
    with ObservationLog.read(path) as log:
        answered, appeared = log.connection.execute(sql)
    assert answered[1:4] == ("answered", "Is it cold?", "yes, snow")
    assert appeared[:-1] == (7 * SECOND, "appeared", "a fire", "", 7 * SECOND)
    (box,) = phrases_from_json(appeared[-1])[0].boxes
    assert box.x_max == seen.phrases[1].boxes[0].x_max


def test_answers_are_no_caption_and_requested_phrases_are_the_caption(start, path):
    harness = start(memory=str(path), max_rate=0.0, task="question", questions=["Is it cold?"])
    harness.engine.outputs = {"Is it cold?": ("yes", ())}
    harness.send()
    (seen, *_) = remembered(harness, path)
    assert (seen.task, seen.caption, seen.phrases) == ("question", "", ())
    assert [answer.text for answer in seen.answers] == ["yes"]
    harness.set_parameter("phrases", ["a dog", "a fire"])
    harness.set_parameter("task", "phrase_grounding")
    harness.engine.outputs |= {"a dog": (FIRE_BOX, (0.01, 0.01)), "a fire": (FIRE_BOX, (0.5, 0.5))}
    harness.send(sec=8)
    seen = next(o for o in remembered(harness, path, 2) if o.stamp == 8 * SECOND)
    assert (seen.task, seen.caption) == ("phrase_grounding", "a fire")
    assert [(p.text, p.start, p.end) for p in seen.phrases] == [("a fire", 0, 6)]


def test_recall_finds_a_frame_with_its_thumbnail_and_boxes(start, path):
    harness = start(memory=str(path), max_rate=0.0)
    harness.send()
    remembered(harness, path)
    response = recall(harness, query="where did you last see the snowman?")
    assert (response.success, response.message) == (True, "")
    result = response.results[0]
    assert (result.header.stamp.sec, result.header.frame_id) == (7, "camera_optical_frame")
    assert (result.caption, result.task, result.camera) == (CAPTION, "brief_caption", "")
    assert (result.image_width, result.image_height) == (640, 480)
    (phrase,) = result.phrases
    assert (phrase.text, phrase.start, phrase.end) == ("a snowman", 12, 21)
    assert phrase.boxes[0].x_min == 250.0
    assert result.thumbnail.format == "webp"
    assert result.thumbnail.header == result.header
    assert Pillow.open(io.BytesIO(result.thumbnail.data)).format == "WEBP"
    assert not result.has_pose
    assert abs(result.age.sec - (time.time() - 7)) < 100
    assert 0 < result.score <= 1


def test_what_was_not_seen_was_never_seen(start, path):
    harness = start(memory=str(path), max_rate=0.0)
    harness.send()
    remembered(harness, path)
    response = recall(harness, query="a giraffe")
    assert (response.success, response.message, response.results) == (True, "never seen", [])


def test_a_missing_wordnet_is_reported_once(start, path, monkeypatch):
    monkeypatch.setattr(wordnet, "find", lambda: None)
    harness = start(memory=str(path))
    for _ in range(2):
        assert recall(harness, query="a giraffe").message == "never seen"
    harness.until(lambda: harness.logs("install it with 'sudo apt-get install wordnet-base'"))
    recall(harness, query="a giraffe")
    assert sum("wordnet-base" in text for text in harness.logged) == 1


def test_wordnet_is_asked_for_words_of_the_same_meaning(start, path, monkeypatch):
    nets = []
    monkeypatch.setattr(wordnet, "find", lambda: "a WordNet")
    monkeypatch.setattr(
        "kosmos_ros.ros.recall_service.recall", lambda log, query, net: nets.append(net) or []
    )
    assert recall(start(memory=str(path)), query="a snow figure").success
    assert nets == ["a WordNet"]


def test_recall_selects_by_time_place_and_camera(start, path):
    with ObservationLog.open(path) as log:
        for second in range(10):
            pose = Pose("map", float(second), 0.0) if second % 2 else None
            camera = "left" if second < 5 else "right"
            log.add([Observation(second * SECOND, camera, "a red cup", score=0.5, pose=pose)])
    harness = start(memory=str(path))

    def seconds(**request):
        response = recall(harness, query="cup", max_results=100, newest_first=True, **request)
        assert response.success, response.message
        return [result.header.stamp.sec for result in response.results]

    assert seconds() == list(range(9, -1, -1))
    assert seconds(since=Time(sec=7)) == [9, 8, 7]
    assert seconds(until=Time(sec=2)) == [2, 1, 0]
    assert seconds(camera="left") == [4, 3, 2, 1, 0]
    assert seconds(near=Point(x=4.5), radius=2.0) == [5, 3]
    assert len(recall(harness, query="cup").results) == 5
    (result,) = recall(harness, query="cup", near=Point(x=7.1), radius=0.5).results
    assert result.has_pose
    assert (result.pose.header.frame_id, result.pose.pose.position.x) == ("map", 7.0)
    assert result.pose.pose.orientation.w == 1.0


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"max_results": 101}, "max_results must be 0 to 100, got 101"),
        ({"radius": -1.0}, "radius must be 0 (anywhere) or more, got -1 m"),
        ({"radius": float("nan")}, "near must be finite"),
        (
            {"since": Time(sec=5), "until": Time(sec=4)},
            "since must not be later than until, got since 5000000000 and until 4000000000 ns",
        ),
        ({"query": "x" * 1001}, "query must have at most 1000 characters, got 1001"),
        ({"camera": "rear"}, "camera must be one of"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(start, path, request_, reason):
    response = recall(start(memory=str(path), wait=False), **request_)
    assert not response.success
    assert reason in response.message
    assert response.results == []


times = st.builds(Time, sec=st.integers(-3, 12) | st.integers(-(2**31), 2**31 - 1))
places = st.builds(Point, x=st.floats(-3, 12) | st.floats(), y=st.floats(-3, 3) | st.floats())
requests = st.builds(
    Recall.Request,
    query=st.sampled_from(["", "cup", "a red cup, left of a bag?"])
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    camera=st.sampled_from(["", "left", "right", "rear"]),
    since=times,
    until=times,
    near=places,
    radius=st.just(0.0) | st.floats(0, 9) | st.floats(),
    newest_first=st.booleans(),
    max_results=st.integers(0, 12) | st.integers(0, 2**32 - 1),
)


def test_a_random_request_is_refused_or_answered_within_its_limits(start, path):
    with ObservationLog.open(path) as log:
        for second in range(10):
            pose = Pose("map", float(second), 0.0) if second % 2 else None
            camera = "left" if second < 5 else "right"
            log.add([Observation(second * SECOND, camera, "a red cup", score=0.5, pose=pose)])
    harness = start(memory=str(path), wait=False)
    client = harness.client.create_client(Recall, "kosmos/recall")

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(requests)
    def check(request):
        response = harness.spinner.call(client, request)
        if not response.success:
            assert response.message
            assert not response.results
            return
        assert (response.message == "never seen") == (not response.results)
        assert len(response.results) <= (request.max_results or 5)
        for result in response.results:
            assert request.camera in ("", result.camera)
            second = result.header.stamp.sec
            assert request.since.sec == 0 or second >= request.since.sec
            assert request.until.sec == 0 or second <= request.until.sec
            if request.radius:
                at = result.pose.pose.position
                assert result.has_pose
                assert math.dist((at.x, 0), (request.near.x, request.near.y)) <= request.radius

    check()


def test_without_a_memory_recall_names_the_parameter(start):
    response = recall(start(wait=False), query="a cup")
    assert not response.success
    assert response.message == (
        "there is no observation log: start the node with the parameter memory"
    )


def test_recall_answers_while_the_model_is_loading(start, path):
    with ObservationLog.open(path) as log:
        log.add([Observation(SECOND, "", "a red cup", score=0.5)])
    loaded = threading.Event()
    harness = start(load=lambda settings: loaded.wait(60) and harness.engine, memory=str(path))
    assert len(recall(harness, query="cup").results) == 1
    loaded.set()
    harness.wait_for_model()


def test_an_error_of_the_search_is_the_response(start, path, monkeypatch):
    harness = start(memory=str(path))
    recorder = harness.node.memory._recorder
    harness.until(lambda: recorder.state().file_bytes)  # the recorder has made its log
    path.unlink()
    response = recall(harness, query="a cup")
    assert (response.success, response.results) == (False, [])
    assert f"there is no observation log '{path}'" in response.message

    def fail(*args):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("kosmos_ros.ros.recall_service.recall", fail)
    path.touch()
    with ObservationLog.open(path):
        assert recall(harness, query="a cup").message == "ZeroDivisionError: a bug"
    harness.until(lambda: harness.logs("a request for ~/recall failed", "a bug"))


def test_a_request_that_is_searched_for_is_answered_at_shutdown(start, path, monkeypatch):
    harness = start(memory=str(path))
    begun, go = threading.Event(), threading.Event()

    def search(log, query, net):
        begun.set()
        assert go.wait(60)
        return []

    monkeypatch.setattr("kosmos_ros.ros.recall_service.recall", search)
    client = harness.client.create_client(Recall, "kosmos/recall")
    assert client.wait_for_service(60)
    future = client.call_async(Recall.Request(query="a cup"))
    harness.until(begun.is_set, "a search")
    threading.Timer(0.5, go.set).start()  # the node already ends
    assert harness.node.stop(60)
    assert harness.node.recall_service.waiting == 0
    harness.until(future.done, "a response")
    assert future.result().message == "never seen"


def test_a_request_after_the_end_of_the_search_is_refused(start, path):
    harness = start(memory=str(path), wait=False)
    harness.node.recall_service.close()
    response = recall(harness, query="a cup")
    assert (response.success, response.message) == (False, "the node is shutting down")


def test_too_many_requests_are_refused_at_once(start, path, monkeypatch):
    harness = start(memory=str(path), wait=False)
    monkeypatch.setattr("kosmos_ros.ros.recall_service.MAX_WAITING", 0)
    assert recall(harness, query="a cup").message == "0 requests wait already; try again later"


def test_a_disk_that_hangs_stops_neither_captions_nor_diagnostics(start, path, monkeypatch):
    go, waiting = threading.Event(), threading.Event()
    harness = start(memory=str(path), max_rate=0.0).subscribe_to_captions()

    def hang(*args):
        waiting.set()
        assert go.wait(60)

    with monkeypatch.context() as context:
        context.setattr(ObservationLog, "add", hang)
        for sec in range(20):
            harness.send(sec=sec)
            harness.until(lambda: len(harness.captions) > sec)  # noqa: B023
            if not sec:  # the writer hangs on the first observation
                assert waiting.wait(60)
        recorder = harness.node.memory._recorder
        harness.until(lambda: recorder.state().waiting == 20)
        states = harness.collect(DiagnosticArray, "/diagnostics")
        harness.until(lambda: states)
        values = {pair.key: pair.value for pair in states[-1].status[-1].values}
        assert values["waiting"] == "20"
        assert values["lost thumbnails"] == str(20 - 1 - MAX_IMAGES)
        go.set()
    harness.until(lambda: recorder.state().waiting == 0)


# Configuration and diagnostics --------------------------------------------------------------


def test_a_file_that_is_no_log_is_refused_at_start(start, path):
    path.write_text("text" * 1000)
    with pytest.raises(
        ConfigError, match=r"parameter memory: .*memory\.db' is not an SQLite database"
    ):
        start(memory=str(path))


def test_a_log_that_another_node_writes_is_refused_at_start(start, path):
    other = Recorder(path, print)
    with pytest.raises(ConfigError, match=r"parameter memory: another kosmos_node writes the obs"):
        start(memory=str(path), wait=False)
    assert other.close(60)


def test_a_size_without_room_to_work_is_refused(start, path):
    with pytest.raises(ConfigError, match=r"memory_max_size: must be 0 .* at least 16 MB, got 15"):
        start(memory=str(path), memory_max_size=15)


def test_a_home_folder_is_expanded(start, path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    harness = start(memory="~/mine.db", wait=False)
    assert harness.node.memory.path == str(path.parent / "mine.db")


def test_the_limits_are_those_of_the_parameters(start, path):
    with ObservationLog.open(path) as log:
        log.add([Observation(SECOND, "", "a cup"), Observation(time.time_ns(), "", "a bag")])
    start(memory=str(path), memory_max_age=3600.0, wait=False)
    end = time.monotonic() + 60
    while len(observations(path)) > 1:
        assert time.monotonic() < end
    assert [o.caption for o in observations(path)] == ["a bag"]


def test_diagnostics_have_a_status_of_the_memory(start, path):
    harness = start(memory=str(path), max_rate=0.0)
    harness.send()
    remembered(harness, path)
    states = harness.collect(DiagnosticArray, "/diagnostics")

    def memory():
        return states and states[-1].status[-1]

    harness.until(lambda: states and dict_of(memory())["written"] == "1")
    status = memory()
    assert status.name == "/kosmos: memory"
    assert (status.level, status.message) == (DiagnosticStatus.OK, "observations are written")
    assert [pair.key for pair in status.values] == list(status_keys.MEMORY)
    assert dict_of(status)["file"] == str(path)
    path.unlink()
    path.mkdir()
    harness.send(sec=8)
    harness.until(lambda: memory().level == DiagnosticStatus.WARN)
    assert "is a folder" in memory().message
    harness.until(
        lambda: harness.logs(
            "cannot write observations now; they stay in the queue", "is a folder"
        )
    )
    path.rmdir()
    harness.until(lambda: memory().level == DiagnosticStatus.OK)
    assert [o.stamp for o in observations(path)] == [8 * SECOND]


def dict_of(status):
    return {pair.key: pair.value for pair in status.values}


# Poses --------------------------------------------------------------------------------------


def posed(kind, stamp, x=1.5):
    message = kind()
    message.header.frame_id = "map"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    pose = message.pose if kind is PoseStamped else message.pose.pose
    pose.position.x, pose.position.y, pose.orientation.w = x, -2.0, 0.5
    return message


@pytest.mark.parametrize(
    "name",
    [
        "geometry_msgs/PoseStamped",
        "geometry_msgs/PoseWithCovarianceStamped",
        "nav_msgs/Odometry",
    ],
)
def test_an_observation_has_the_pose_of_its_stamp(start, path, name):
    package, _, kind = name.partition("/")
    messages = pytest.importorskip(f"{package}.msg", reason=f"{package} is not installed")
    kind = getattr(messages, kind)
    harness = start(memory=str(path), max_rate=0.0, pose_topic="robot/pose")
    publisher = harness.client.create_publisher(kind, "robot/pose", 10)
    harness.until(publisher.get_subscription_count, "a subscription")
    poses = harness.node.memory._poses
    for stamp, x in ((6 * SECOND, 1.0), (7 * SECOND - 3 * SPACING, 2.0), (8 * SECOND, 3.0)):
        publisher.publish(posed(kind, stamp, x))
    harness.until(lambda: poses.at(8 * SECOND) == Pose("map", 3.0, -2.0, qw=0.5), "poses")
    assert poses.age < 60
    harness.send()
    (seen, *_) = remembered(harness, path)
    assert seen.pose == Pose("map", 2.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.5)


def test_a_pose_of_another_time_is_no_pose(start, path):
    harness = start(memory=str(path), pose_topic="pose", wait=False)
    publisher = harness.client.create_publisher(PoseStamped, "pose", 10)
    harness.until(publisher.get_subscription_count, "a subscription")
    poses = harness.node.memory._poses
    assert (poses.at(0), poses.age) == (None, None)
    publisher.publish(posed(PoseStamped, 5 * SECOND))
    harness.until(lambda: poses.at(5 * SECOND))
    assert poses.at(6 * SECOND)
    assert poses.at(6 * SECOND + 1) is None
    assert poses.at(4 * SECOND)
    assert poses.at(4 * SECOND - 1) is None


def test_a_topic_of_another_type_is_named(start, path):
    harness = start(memory=str(path), pose_topic="speed", wait=False)
    harness.client.create_publisher(Twist, "speed", 10)
    harness.until(
        lambda: harness.logs(
            "observations have no pose: /speed has the type geometry_msgs/msg/Twist; expected "
            "one of geometry_msgs/msg/PoseStamped, geometry_msgs/msg/PoseWithCovarianceStamped, "
            "nav_msgs/msg/Odometry"
        )
    )


def test_poses_without_a_stamp_are_named(start, path):
    harness = start(memory=str(path), pose_topic="pose", wait=False)
    publisher = harness.client.create_publisher(PoseStamped, "pose", 10)
    harness.until(publisher.get_subscription_count, "a subscription")
    publisher.publish(posed(PoseStamped, 0))
    harness.until(
        lambda: harness.logs("observations have no pose: /pose has messages without a stamp")
    )


def test_an_invalid_topic_is_refused(start, path):
    with pytest.raises(ConfigError, match="parameter pose_topic: 'a topic': "):
        start(memory=str(path), pose_topic="a topic")


def test_a_pose_that_arrives_late_leaves_the_others(ros):
    from rclpy.node import Node

    poses = PoseSubscription(Node("robot"), "pose")
    stamps = [8 * SECOND, 9 * SECOND, 10 * SECOND]
    for stamp in (*stamps, 10 * SECOND - SECOND // 50):
        message = posed(PoseStamped, stamp, float(stamp))
        poses._on_pose(message.header, message.pose)
    assert [poses.at(stamp).x for stamp in stamps] == stamps


def test_few_poses_are_kept_and_a_recording_may_begin_again(ros):
    from rclpy.node import Node

    poses = PoseSubscription(Node("robot"), "pose")

    def receive(stamp):
        message = posed(PoseStamped, stamp, float(stamp))
        poses._on_pose(message.header, message.pose)

    receive(5 * SECOND)
    receive(5 * SECOND + SPACING - 1)  # too near to the one before
    assert poses.at(5 * SECOND + SPACING - 1).x == 5.0 * SECOND
    for number in range(2 * MAX_POSES):
        receive(6 * SECOND + number * SPACING)
    assert len(poses._stamps) == len(poses._poses) <= MAX_POSES
    newest = 6 * SECOND + (2 * MAX_POSES - 1) * SPACING
    assert poses.at(newest).x == newest
    receive(7 * SECOND)
    assert poses.at(7 * SECOND).x == 7.0 * SECOND
    assert poses.at(newest) is None
    assert poses.at(6 * SECOND).x == 7.0 * SECOND
