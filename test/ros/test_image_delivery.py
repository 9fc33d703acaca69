# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Silence, reliability and loss of images in the running node.

test_image_subscription.py tests the warnings with publishers, time and a log that the test sets.
"""

import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_harness import LATCHED, FakeEngine, plain_image
from programs import Program
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.serving import gate

LARGE_AND_LOSSY = """
import array, time, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = rclpy.create_node("large").create_publisher(Image, "image", qos)
image = Image(height=1, width=10**7, step=3 * 10**7, encoding="rgb8")
image.data = array.array("B", bytes(image.step))
while True:
    publisher.publish(image)
    time.sleep(0.2)
"""

OLD, NEW = (10, 20, 30), (200, 100, 50)  # colours


@pytest.mark.fault(21, 22)
def test_silence_and_its_end_are_logged(start):
    harness = start(stale_timeout=0.1)
    text = harness.until(lambda: harness.logs("no image on /image"))
    assert "this node requests RELIABLE" in text
    harness.send()
    harness.until(lambda: harness.logs("images arrive on /image"))


@pytest.mark.fault(22)
def test_topic_without_a_publisher_is_named(start):
    harness = start(stale_timeout=0.0)
    harness.client.destroy_publisher(harness.image_publisher)
    harness.client.destroy_publisher(harness.compressed_publisher)
    count = harness.node.count_publishers
    harness.until(lambda: not count("/image") and not count("/image/compressed"))
    harness.node.set_parameters([Parameter("stale_timeout", value=0.5)])
    text = harness.until(lambda: harness.logs("no image on /image"))
    assert "no publisher" in text
    assert "remap it" in text


@pytest.mark.fault(23)
def test_incompatible_reliability_is_named_with_its_remedy(start):
    override = {"qos_overrides./image.subscription.reliability": "reliable"}
    harness = start(stale_timeout=0.0, **override)
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    harness.client.destroy_publisher(harness.image_publisher)
    harness.until(lambda: harness.camera.subscription.publishers() == 0)
    harness.client.create_publisher(Image, "image", lossy)
    harness.until(lambda: harness.camera.subscription.publishers() == 1)
    harness.node.set_parameters([Parameter("stale_timeout", value=0.5)])
    harness.until(lambda: harness.logs("no image on /image"))
    assert harness.logs(
        "offers Image with BEST_EFFORT",
        "set qos_overrides./image.subscription.reliability to best_effort",
    )
    assert sum("no image on /image" in text for text in harness.logged) == 1
    statuses = harness.collect(DiagnosticArray, "/diagnostics")
    harness.until(
        lambda: any(
            status.level == DiagnosticStatus.STALE
            for message in statuses
            for status in message.status
        )
    )


@pytest.mark.fault(23)
def test_subscription_requests_what_all_publishers_offer(start):
    """It requests reliable delivery, which loses no large image, if all publishers offer it."""
    harness = start()
    subscription = harness.camera.subscription
    harness.until(lambda: subscription.reliability == "reliable")
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    second = harness.client.create_publisher(Image, "image", lossy)
    harness.until(lambda: subscription.reliability == "best_effort")
    for publisher in (second, harness.image_publisher):
        harness.until(publisher.get_subscription_count)
        harness.deliver(publisher, plain_image(), harness.camera)
    harness.client.destroy_publisher(second)
    # The old subscription must disappear from the publishers before the new one is made.
    harness.until(lambda: subscription._subscription is None)
    assert subscription.reliability == "reliable"
    assert subscription.arrivals.started == subscription._resubscribe_at
    harness.until(lambda: subscription._subscription)
    harness.send()
    # The number of publishers stays the same; only the reliability changes.
    harness.client.destroy_publisher(harness.image_publisher)
    harness.client.create_publisher(Image, "image", lossy)
    harness.until(lambda: subscription.reliability == "best_effort")
    assert not harness.node.has_parameter("qos_overrides./image.subscription.reliability")
    assert harness.until(
        lambda: harness.logs("/image: requesting BEST_EFFORT; not all publishers")
    )
    assert not harness.logs("incompatible")  # rclpy's own warning, which would be wrong here


def test_publisher_of_another_type_does_not_change_the_reliability(start):
    harness = start()
    subscription = harness.camera.subscription
    harness.until(lambda: subscription.reliability == "reliable")
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    context = Context()  # within one context, DDS allows only one type per topic
    context.init()
    other = Node("other", context=context)
    other.create_publisher(CompressedImage, "image", lossy)
    harness.until(lambda: subscription.publishers() == 2)
    subscription.check(stale_timeout=0, loading=False)
    assert subscription.reliability == "reliable"
    other.destroy_node()
    context.shutdown()


@pytest.mark.parametrize("override", ["best_effort", "reliable"])
def test_qos_override_wins_over_the_parameter(start, override):
    harness = start(**{"qos_overrides./image.subscription.reliability": override})
    subscription = harness.camera.subscription
    if override == "reliable":  # auto would choose best effort for a lossy publisher
        lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        harness.client.create_publisher(Image, "image", lossy)
    harness.until(lambda: subscription.publishers() == (2 if override == "reliable" else 1))
    for _ in range(3):
        subscription.check(stale_timeout=0, loading=False)
    assert subscription.reliability == override
    if override == "best_effort":
        assert "remove qos_overrides./image.subscription.reliability" in subscription._cures()


def test_compressed_topic_can_be_remapped(start):
    harness = start(
        cli_args=["--ros-args", "-r", "image/compressed:=/front/jpeg"],
        image_transport="compressed",
    )
    assert harness.camera.subscription.topic == "/front/jpeg"


@pytest.mark.parametrize(
    ("local", "transports", "image_transport", "named"),
    [
        (True, "", "raw", ["compressed", "FASTDDS", "without LOCALHOST"]),
        (
            True,
            "LARGE_DATA?max_msg_size=4MB",
            "raw",
            ["compressed", "FASTDDS", "without LOCALHOST"],
        ),
        (False, "", "raw", ["compressed", "FASTDDS"]),
        (False, "LARGE_DATA", "raw", ["compressed", "FASTDDS"]),
        (False, "LARGE_DATA?max_msg_size=4MB", "raw", ["compressed"]),
        (False, "UDPv4", "compressed", ["FASTDDS"]),
        (False, "LARGE_DATA?max_msg_size=4MB", "compressed", []),
    ],
)
def test_warning_of_loss_names_only_remedies_that_are_not_set(
    start, monkeypatch, local, transports, image_transport, named
):
    subscription = start(image_transport=image_transport).camera.subscription
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST" if local else "SUBNET")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", transports)
    words = {
        "compressed": "image_transport:=compressed",
        "FASTDDS": "FASTDDS_BUILTIN_TRANSPORTS='LARGE_DATA?max_msg_size",
        "without LOCALHOST": "without ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
    }
    text = subscription._cures()
    assert [name for name, word in words.items() if word in text] == named
    assert text.endswith("smaller images")


@pytest.mark.parametrize("ready", [True, False])
def test_loss_is_logged_with_remedies_only_after_loading(start, ready):
    engine = FakeEngine()

    def load(settings):
        engine.unblocked.wait()
        return engine

    engine.block()
    harness = start(engine, None if ready else load, image_reliability="best_effort")
    arrivals = harness.camera.subscription.arrivals
    if ready:
        arrivals.forget(float("-inf"))  # as if loading had ended long ago
    now = time.monotonic()
    for second in range(10):
        arrivals.arrived(now - 9.5 + second, lost=4)
    if ready:
        text = harness.until(lambda: harness.logs("of the images on /image are lost, or"))
        assert (
            "set image_reliability:=auto or set image_transport:=compressed or set FASTDDS_"
            in text
        )
        assert "'LARGE_DATA?max_msg_size=4MB&sockets_size=4MB' in all processes" in text
    else:
        harness.until(lambda: not arrivals.lost(time.monotonic()), "arrivals that are forgotten")
        assert not harness.logs("are lost")


@pytest.fixture
def idle(start, monkeypatch):
    """Return a node that nobody listens to, and that does not look at another image by itself."""
    monkeypatch.setattr(gate, "LOOK_PERIOD", 1e6)
    harness = start(max_rate=0)
    harness.send(OLD)
    assert harness.camera.subscription.sampling
    return harness


def test_images_that_nobody_needs_are_not_read(idle):
    arrivals = idle.camera.subscription.arrivals
    looked = arrivals.last
    sent = []

    def send():
        sent.append(idle.image_publisher.publish(plain_image(NEW)))

    idle.client.create_timer(0.02, send)
    statuses = idle.collect(DiagnosticArray, "/diagnostics")
    idle.until(lambda: len(sent) > 20 and len(statuses) > 1)
    assert arrivals.last == looked
    (values,) = (
        {pair.key: pair.value for pair in status.values}
        for status in statuses[-1].status
        if status.name == "/kosmos: camera"
    )
    assert values["images read"] == "one every 1 s (idle)"
    assert (values["image rate (Hz)"], values["lost share"]) == ("unknown", "unknown")
    assert values["lost"] == "0"


def test_a_request_uses_the_newest_image_though_nobody_has_read_it(idle, monkeypatch):
    monkeypatch.setattr("kosmos_ros.serving.scheduler.CATCH_UP", 60.0)
    idle.image_publisher.publish(plain_image(NEW))
    assert idle.ask(question="What is it?").success
    assert idle.engine.mean_colours == [NEW]
    idle.until(lambda: not idle.camera._needs_frames())
    idle.send(OLD)  # the gate stays open for one more image
    assert idle.camera.subscription.sampling


def test_a_request_uses_the_last_image_of_a_camera_that_has_stopped(idle):
    for _ in range(2):
        assert idle.ask(question="What is it?").success
    assert idle.engine.mean_colours == [OLD, OLD]


def test_requests_that_wait_for_the_model_use_the_newest_image_when_they_begin(idle):
    idle.engine.block()
    own = idle.ask_client.call_async(Ask.Request(question="0?", image=plain_image(OLD)))
    idle.until(idle.engine.stepping.is_set)
    waiting = [idle.ask_client.call_async(Ask.Request(question="1?")) for _ in range(8)]
    idle.until(lambda: idle.node.scheduler.waiting())
    idle.send(OLD)
    idle.send(NEW)
    idle.engine.unblock()
    idle.until(lambda: own.done() and all(future.done() for future in waiting))
    assert idle.engine.mean_colours[-1] == NEW


def test_the_newest_image_is_described_as_soon_as_somebody_listens(idle):
    idle.image_publisher.publish(plain_image(NEW, sec=8))
    captions = idle.collect(GroundedCaption, "kosmos/captions")
    idle.until(lambda: captions)
    assert captions[0].header.stamp.sec == 8
    assert idle.engine.mean_colours == [NEW]
    for sec in (9, 10):  # from now on every image is read
        idle.send(OLD, sec=sec)
        idle.until(lambda sec=sec: captions[-1].header.stamp.sec == sec)


def test_switching_a_camera_off_stops_reading_its_images(idle):
    captions = idle.collect(GroundedCaption, "kosmos/captions")
    idle.until(idle.camera.wanted)
    idle.send(NEW)
    idle.until(lambda: captions)
    idle.set_parameter("enabled", False)
    idle.until(lambda: not idle.camera._needs_frames())
    idle.send(NEW)  # after the last image that was needed, one more is read
    assert idle.camera.subscription.sampling


def test_an_idle_camera_follows_the_reliability_of_its_publishers(idle):
    subscription = idle.camera.subscription
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    second = idle.client.create_publisher(Image, "image", lossy)
    idle.until(lambda: subscription.reliability == "best_effort")
    idle.client.destroy_publisher(second)
    idle.until(lambda: subscription._subscription is None)
    idle.until(lambda: subscription._subscription)
    idle.wait_for_image_connection()
    idle.image_publisher.publish(plain_image(NEW))
    idle.until(lambda: idle.ask(question="?").success and idle.engine.mean_colours[-1] == NEW)


def test_a_latched_image_is_described_for_each_first_listener_and_serves_requests(start):
    """No other image may follow it, so it must not be lost while the node is not active."""
    harness = start(
        autostart=False,
        wait=False,
        max_rate=0,
        **{"qos_overrides./image.subscription.durability": "transient_local"},
    )
    publisher = harness.client.create_publisher(Image, "image", LATCHED)
    harness.client.destroy_publisher(harness.image_publisher)
    harness.deliver(publisher, plain_image(NEW), harness.camera)
    changing = harness.client.create_client(ChangeState, "kosmos/change_state")
    for label in ("configure", "activate"):
        change = ChangeState.Request(transition=Transition(label=label))
        assert harness.spinner.call(changing, change).success
    assert harness.ask(question="What is it?").success
    for _ in range(2):
        captions = harness.collect(GroundedCaption, "kosmos/captions")
        subscription = list(harness.client.subscriptions)[-1]
        harness.until(lambda captions=captions: captions, "a caption")
        harness.client.destroy_subscription(subscription)
        harness.until(lambda: not harness.camera._wanted)
    # For the second listener, the pixels are those of the first one's caption.
    assert harness.engine.mean_colours == [NEW] * 2
    harness.until(lambda: harness.camera.throughput.unchanged == 1)
    assert harness.node.scheduler.dropped("") == 0


@pytest.mark.parametrize("malformed", [b"", b"\0", b"\0\1\0\0", b"\xff" * 64])
@pytest.mark.fault(83)
def test_images_that_cannot_be_read_count_as_lost(start, malformed):
    """rclpy shows nothing of them, but the next image tells that one is missing."""
    harness = start(max_rate=0).subscribe_to_captions()
    harness.until(lambda: harness.camera.subscription._single)
    harness.send()
    before = harness.camera.subscription.missed
    harness.image_publisher.publish(malformed)
    harness.image_publisher.publish(serialize_message(plain_image())[:-100])
    harness.send()
    assert harness.camera.subscription.missed >= before + 2
    harness.until(lambda: harness.captions)


@pytest.mark.fault(83)
def test_images_that_are_too_large_to_arrive_are_named_as_lost(start, tmp_path):
    harness = start(stale_timeout=0.0, image_reliability="best_effort")
    script = tmp_path / "large.py"
    script.write_text(LARGE_AND_LOSSY)
    harness.client.destroy_publisher(harness.image_publisher)
    with Program(Path(sys.executable), script):
        harness.until(lambda: harness.camera.subscription.missed)
        publishers = harness.node.get_publishers_info_by_topic
        harness.until(lambda: [end.node_name for end in publishers("/image")] == ["large"])
        harness.set_parameter("stale_timeout", 0.1)
        text = harness.until(
            lambda: harness.logs("no image on /image", "images have been lost since")
        )
    assert "/large offers Image with BEST_EFFORT" in text
    assert "large images are lost in transport; set" in text
