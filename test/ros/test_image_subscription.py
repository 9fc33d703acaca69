# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Warnings of an image subscription: topic, publishers, reliability, and what helps."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from conftest import Spinner
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import Image

from kosmos_ros.ros import image_subscription
from kosmos_ros.ros.image_subscription import (
    MAX_PUBLISHERS,
    NO_NUMBER,
    REPEAT_WARNING,
    RESUBSCRIBE_DELAY,
    ImageSubscription,
)
from kosmos_ros.serving.gate import LOOK_PERIOD


class Subscriber:
    """An image subscription whose publishers, time and log the test controls."""

    def __init__(self, monkeypatch, reliability="reliable", transport="raw", name="image", **qos):
        overrides = [
            Parameter(f"qos_overrides./image.subscription.{policy}", value=value)
            for policy, value in qos.items()
        ]
        self.node = Node("subscriber", parameter_overrides=overrides)
        self.now = 1000.0  # s, monotonic
        self.infos, self.warnings, self.news = [], [], []  # infos: of the subscribed topic
        self.others = {}  # topic: infos of another topic
        log = SimpleNamespace(warning=self.warnings.append, info=self.news.append)
        monkeypatch.setattr(
            "kosmos_ros.ros.image_subscription.time",
            SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now),
        )
        monkeypatch.setattr(self.node, "get_logger", lambda: log)
        self.images, self.ages = [], []
        self.needed = True
        self.subscription = ImageSubscription(
            self.node, name, transport, reliability, self._on_image, lambda: self.needed
        )
        monkeypatch.setattr(
            self.node,
            "get_publishers_info_by_topic",
            lambda topic: self.infos if topic == self.topic else self.others.get(topic, []),
        )
        monkeypatch.setattr(self.node, "count_publishers", lambda topic: len(self.infos))
        # A computer without a setting that helps.
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
        monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA?max_msg_size=4MB")

    def _on_image(self, message, age):
        self.images.append(message)
        self.ages.append(age)

    @property
    def topic(self):
        return self.subscription.topic

    def cause(self, stale_timeout=1.0):
        return self.subscription.cause(self.now, stale_timeout)

    def offer(
        self,
        name="camera",
        kind="sensor_msgs/msg/Image",
        reliability="RELIABLE",
        durability="VOLATILE",
        topic=None,
    ):
        infos = self.others.setdefault(topic, []) if topic else self.infos
        infos.append(
            SimpleNamespace(
                node_name=name,
                node_namespace="/",
                topic_type=kind,
                qos_profile=SimpleNamespace(
                    reliability=ReliabilityPolicy[reliability],
                    durability=DurabilityPolicy[durability],
                ),
            )
        )

    def receive(self, after, number=NO_NUMBER, waited=0.0):
        """Receive image `number` of its publisher, `after` seconds from now."""
        self.now += after
        received = round((self.now - waited) * 1e9)
        self.subscription._receive(
            Image(), {"publication_sequence_number": number, "received_timestamp": received}
        )

    def check(self, after, stale_timeout=1.0, loading=False, max_rate=0.0):
        """Check `after` seconds from now."""
        self.now += after
        return self.subscription.check(stale_timeout, loading, max_rate)


@pytest.fixture
def subscribe(ros, monkeypatch):
    subscribers = []

    def make(**options):
        subscribers.append(Subscriber(monkeypatch, **options))
        return subscribers[-1]

    yield make
    for subscriber in subscribers:
        subscriber.node.destroy_node()


def test_a_topic_without_a_publisher_is_reported(subscribe):
    subscriber = subscribe()
    assert subscriber.check(after=2.5)
    assert subscriber.warnings == [
        "no image on /image for 2.5 s: no publisher; "
        "check the topic's name, remap it or set image_topics"
    ]


def test_the_cause_of_silence_is_that_of_the_log_and_stays_the_same_while_it_lasts(subscribe):
    subscriber = subscribe()
    subscriber.offer(reliability="BEST_EFFORT")
    assert subscriber.cause() == ""
    subscriber.check(after=2.5)
    cause = subscriber.cause()
    assert subscriber.warnings == [f"no image on /image for 2.5 s: {cause}"]
    subscriber.check(after=0.5)  # the log repeats a warning after REPEAT_WARNING
    assert len(subscriber.warnings) == 1
    assert subscriber.cause() == cause
    assert "set image_reliability to best_effort" in subscriber.cause()
    subscriber.receive(after=0.0)
    assert subscriber.cause() == ""


def test_the_cause_of_loss_is_that_of_the_log_and_lasts_as_long_as_the_loss(subscribe):
    subscriber = subscribe()
    subscriber.offer()
    subscriber.check(after=0.0)
    for number in range(5):
        subscriber.receive(after=0.5, number=10 * number)
    assert subscriber.cause() == ""
    subscriber.check(after=0.0)
    assert subscriber.warnings == [subscriber.cause()]
    for number in range(50, 100):
        subscriber.receive(after=0.5, number=number)
    subscriber.check(after=0.0)
    assert subscriber.cause() == ""


def test_an_image_that_arrives_asks_for_no_publishers(subscribe, monkeypatch):
    subscriber = subscribe()
    subscriber.offer()
    subscriber.check(after=0.0)
    for name in ("count_publishers", "get_publishers_info_by_topic"):
        monkeypatch.setattr(subscriber.node, name, {}.__getitem__)
    for number in range(5):
        subscriber.receive(after=0.5, number=10 * number)
    assert len(subscriber.images) == 5


def test_silence_of_exactly_the_timeout_is_not_stale(subscribe):
    subscriber = subscribe()
    assert not subscriber.check(after=1.0)
    assert subscriber.check(after=0.25)


def test_a_timeout_of_0_never_warns(subscribe):
    subscriber = subscribe()
    assert not subscriber.check(after=1e6, stale_timeout=0.0)
    assert not subscriber.warnings


def test_a_publisher_of_another_type_is_named(subscribe):
    subscriber = subscribe()
    subscriber.offer("jpeg", "sensor_msgs/msg/CompressedImage")
    subscriber.check(after=2.0)
    assert subscriber.warnings == [
        "no image on /image for 2.0 s: this node requests RELIABLE; "
        "/jpeg offers CompressedImage with RELIABLE, expected Image; "
        "set image_transport:=compressed and remap /image/compressed:=/image"
    ]


COMPRESSED, RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"


@pytest.mark.parametrize(
    ("name", "transport", "kind", "remedy"),
    [
        ("image/compressed", "raw", COMPRESSED, "set image_transport:=compressed"),
        ("image", "compressed", RAW, "set image_transport:=raw"),
        ("image", "raw", "point_cloud_msgs/msg/Cloud", "check the topic's name"),
    ],
)
def test_a_publisher_of_another_type_is_named_with_its_remedy(
    subscribe, name, transport, kind, remedy
):
    subscriber = subscribe(name=name, transport=transport)
    subscriber.offer(kind=kind)
    subscriber.check(after=2.0)
    assert subscriber.warnings[0].endswith(f"; {remedy}")


@pytest.mark.parametrize(
    ("transport", "other", "kind", "remedy"),
    [
        (
            "raw",
            "/image/compressed",
            COMPRESSED,
            "CompressedImage: set image_transport:=compressed",
        ),
        ("compressed", "/image", RAW, "Image: set image_transport:=raw"),
        (
            "compressed",
            "/image",
            COMPRESSED,
            "CompressedImage: set image_transport:=compressed and remap /image/compressed:=/image",
        ),
    ],
)
def test_a_publisher_on_the_topic_of_another_transport_is_named(
    subscribe, transport, other, kind, remedy
):
    subscriber = subscribe(transport=transport)
    subscriber.offer(kind=kind, topic=other)
    subscriber.check(after=2.0)
    assert subscriber.warnings[0].endswith(f"no publisher; {other} has {remedy}")


@pytest.mark.parametrize("name", ["image", "image/compressed", "/image/compressed"])
def test_the_topic_of_a_transport_may_be_given_with_its_suffix_or_without(subscribe, name):
    """The name that `ros2 topic list` shows is the one that people copy."""
    subscriber = subscribe(name=name, transport="compressed")
    assert subscriber.topic == "/image/compressed"


def test_a_node_whose_name_is_unknown_is_described(subscribe):
    subscriber = subscribe()
    subscriber.offer(name="_NODE_NAME_UNKNOWN_")
    subscriber.check(after=2.0)
    (text,) = subscriber.warnings
    assert "; a node whose name is not known yet offers Image with RELIABLE; perhaps" in text
    assert "UNKNOWN" not in text


def test_publishers_are_counted_in_words(subscribe):
    subscriber = subscribe()
    counts = []
    for _ in range(3):
        counts.append(subscriber.subscription.describe_publishers())
        subscriber.offer()
    assert counts == ["0 publishers", "1 publisher", "2 publishers"]


def test_an_image_that_was_sent_before_the_subscription_is_named_as_the_cause(subscribe):
    subscriber = subscribe()
    subscriber.offer(durability="TRANSIENT_LOCAL")
    subscriber.check(after=2.0)
    (text,) = subscriber.warnings
    assert text.endswith(
        "; perhaps its only image was sent before this node subscribed: "
        "set qos_overrides./image.subscription.durability:=transient_local"
    )
    for _ in range(2):
        subscriber.receive(after=0.1)
    subscriber.check(after=2.0)
    assert subscriber.warnings[1].endswith("; perhaps the camera has stopped")


@pytest.mark.parametrize("durability", ["volatile", "transient_local"])
def test_a_latched_image_that_never_changes_is_no_silence(subscribe, durability):
    subscriber = subscribe(durability=durability)
    subscriber.offer(durability="TRANSIENT_LOCAL")
    subscriber.receive(after=0.0)
    assert not subscriber.check(after=3600.0)
    assert not subscriber.subscription.silent(subscriber.now, 1.0)
    assert not subscriber.warnings
    subscriber.infos.clear()  # nobody can change the image any more
    assert subscriber.check(after=1.0)
    assert "no publisher" in subscriber.warnings[0]


@pytest.mark.parametrize("durability", ["VOLATILE", "TRANSIENT_LOCAL"])
def test_a_camera_that_sent_several_images_can_fall_silent(subscribe, durability):
    subscriber = subscribe()
    subscriber.offer(durability=durability)
    for _ in range(3):
        subscriber.receive(after=0.1)
    assert subscriber.check(after=2.0)
    assert subscriber.subscription.silent(subscriber.now, 1.0)


def test_the_only_image_of_a_camera_that_keeps_none_is_followed_by_silence(subscribe):
    subscriber = subscribe()
    subscriber.offer(durability="TRANSIENT_LOCAL")
    subscriber.offer(name="other", durability="VOLATILE")
    subscriber.receive(after=0.0)
    assert subscriber.check(after=2.0)


def test_a_publisher_that_keeps_no_image_cannot_connect_to_a_latched_subscription(subscribe):
    subscriber = subscribe(durability="transient_local")
    subscriber.offer()
    subscriber.check(after=2.0)
    (text,) = subscriber.warnings
    assert text.endswith(
        "/camera offers Image with RELIABLE, which cannot connect; "
        "set qos_overrides./image.subscription.durability to volatile"
    )


def test_a_publisher_that_cannot_connect_is_named_with_the_parameter_that_helps(subscribe):
    subscriber = subscribe()
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.check(after=2.0)
    assert subscriber.warnings == [
        "no image on /image for 2.0 s: this node requests RELIABLE; "
        "/camera offers Image with BEST_EFFORT, which cannot connect; "
        "set image_reliability to best_effort"
    ]


@pytest.mark.parametrize("offered", ["RELIABLE", "BEST_EFFORT"])
def test_a_best_effort_subscription_fits_every_publisher(subscribe, offered):
    subscriber = subscribe(reliability="best_effort")
    subscriber.offer(reliability=offered)
    subscriber.check(after=2.0)
    assert subscriber.warnings == [
        "no image on /image for 2.0 s: this node requests BEST_EFFORT; "
        f"/camera offers Image with {offered}; perhaps large images are lost in transport; "
        "set image_reliability:=auto or set image_transport:=compressed or send smaller images"
    ]


def test_one_publisher_that_fits_among_others_may_lose_images(subscribe):
    subscriber = subscribe()
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.offer("second")
    subscriber.check(after=2.0)
    (text,) = subscriber.warnings
    assert "/camera offers Image with BEST_EFFORT, which cannot connect" in text
    assert "/second offers Image with RELIABLE; perhaps large images are lost" in text


def test_a_warning_names_five_publishers_and_the_number_of_all(subscribe):
    subscriber = subscribe()
    for number in range(MAX_PUBLISHERS):
        subscriber.offer(f"camera_{number}")
    subscriber.check(after=2.0)
    assert "publishers in all" not in subscriber.warnings[-1]
    subscriber.offer(f"camera_{MAX_PUBLISHERS}")
    subscriber.check(after=REPEAT_WARNING)
    text = subscriber.warnings[-1]
    assert f"/camera_{MAX_PUBLISHERS - 1} offers" in text
    assert f"/camera_{MAX_PUBLISHERS} offers" not in text
    assert "; 6 publishers in all; perhaps" in text


def test_names_of_other_nodes_cannot_write_control_characters(subscribe):
    subscriber = subscribe()
    subscriber.offer("camera\n\x1b[31m")
    subscriber.check(after=2.0)
    assert "/camera\\n\\x1b[31m offers" in subscriber.warnings[-1]


def test_a_warning_is_repeated_after_thirty_seconds(subscribe):
    subscriber = subscribe()
    subscriber.check(after=2.0)
    subscriber.check(after=REPEAT_WARNING - 0.25)
    assert len(subscriber.warnings) == 1
    subscriber.check(after=0.25)
    assert len(subscriber.warnings) == 2


def test_the_first_image_after_silence_is_reported_once(subscribe):
    subscriber = subscribe()
    subscriber.check(after=2.0)
    for _ in range(2):
        subscriber.subscription._receive(Image(), {})
    assert subscriber.news == ["images arrive on /image"]
    assert len(subscriber.images) == 2
    assert not subscriber.check(after=0.5)
    assert subscriber.check(after=1.0)
    assert len(subscriber.warnings) == 2  # no need to wait for thirty seconds


def test_auto_follows_the_publishers_and_waits_before_it_becomes_reliable(subscribe):
    subscriber = subscribe(reliability="auto")
    assert subscriber.subscription.reliability == "reliable"
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.check(after=0.0)
    assert subscriber.subscription.reliability == "best_effort"
    assert subscriber.subscription._subscription
    subscriber.infos.clear()
    subscriber.check(after=0.0)
    assert subscriber.subscription.reliability == "best_effort"  # nobody offers more
    subscriber.offer()
    subscriber.check(after=0.0)
    assert subscriber.subscription.reliability == "reliable"
    assert not subscriber.subscription._subscription
    subscriber.check(after=RESUBSCRIBE_DELAY - 0.25)
    assert not subscriber.subscription._subscription
    subscriber.check(after=0.25)
    assert subscriber.subscription._subscription
    assert subscriber.news == [
        "/image: requesting BEST_EFFORT; not all publishers offer RELIABLE",
        "/image: requesting RELIABLE; all publishers offer it",
    ]


def test_images_are_left_unread_while_nobody_needs_them(subscribe):
    subscriber = subscribe()
    taking = subscriber.subscription._taking
    subscriber.receive(after=0.0)
    assert taking()
    subscriber.needed = False
    assert taking()  # until the next image has arrived
    subscriber.receive(after=0.25)
    assert subscriber.subscription.sampling
    assert not taking()
    subscriber.now += LOOK_PERIOD
    assert taking()
    subscriber.receive(after=0.0)
    assert not taking()
    subscriber.needed = True
    assert taking()


@pytest.mark.parametrize(
    ("stale_timeout", "sampling"), [(0.0, True), (1.5, False), (2 * LOOK_PERIOD, True)]
)
def test_a_short_timeout_keeps_every_image_read(subscribe, stale_timeout, sampling):
    subscriber = subscribe()
    subscriber.needed = False
    subscriber.check(after=0.0, stale_timeout=stale_timeout)
    subscriber.receive(after=0.0)
    assert subscriber.subscription.sampling is sampling


def test_a_timeout_that_becomes_short_applies_at_once(subscribe):
    subscriber = subscribe()
    subscriber.needed = False
    subscriber.check(after=0.0, stale_timeout=5.0)
    subscriber.receive(after=0.0)
    assert not subscriber.subscription._taking()
    subscriber.check(after=0.1, stale_timeout=0.5)
    assert subscriber.subscription._taking()


def test_an_unread_image_is_passed_on_as_soon_as_it_is_taken(subscribe):
    """Otherwise the executor could pass on the next image before it."""
    subscriber = subscribe()
    subscriber.needed = False
    subscriber.receive(after=0.0)
    camera = subscriber.node.create_publisher(Image, "image", 1)
    spinner = Spinner(subscriber.node)
    spinner.until(camera.get_subscription_count, "a connection")
    camera.publish(Image(height=7))
    # The gate is closed, so the executor itself takes no image.
    spinner.until(lambda: subscriber.subscription._take() or subscriber.images[1:], "an image")
    assert subscriber.images[1].height == 7
    assert subscriber.subscription.sampling


def test_the_age_of_an_image_that_waited_unread_is_known(subscribe):
    subscriber = subscribe()
    subscriber.needed = False
    subscriber.receive(after=0.0, waited=0.5)  # the executor has taken it at once
    subscriber.receive(after=1.0, waited=0.75)
    subscriber.receive(after=1.0, waited=2.5)  # impossible: the clock has been set
    subscriber.receive(after=1.0, waited=-0.5)
    assert subscriber.ages == pytest.approx([0.0, 0.75, 0.0, 0.0])
    assert subscriber.subscription.arrivals.silence(subscriber.now) == 0.0


def test_the_rate_of_a_camera_is_known_from_the_images_that_it_numbers(subscribe):
    subscriber = subscribe()
    subscriber.needed = False
    subscriber.offer()
    for second in range(5):
        subscriber.check(after=0.0, stale_timeout=0.0)
        subscriber.receive(after=1.0, number=100 + 30 * second)
    assert subscriber.subscription.arrivals.rate(subscriber.now) == 30.0
    assert subscriber.subscription.missed == 0


@pytest.mark.parametrize("numbers", [[NO_NUMBER] * 3, [None] * 3, [100, 50, 20]])
def test_the_rate_is_unknown_without_useful_numbers(subscribe, numbers):
    subscriber = subscribe()
    subscriber.needed = False
    subscriber.offer()
    for number in numbers:
        subscriber.check(after=0.0, stale_timeout=0.0)
        subscriber.receive(after=1.0, number=number)
    assert subscriber.subscription.arrivals.rate(subscriber.now) == 0.0


def test_numbers_of_two_publishers_count_nothing(subscribe):
    subscriber = subscribe()
    for name in ("left", "right"):
        subscriber.offer(name)
    subscriber.check(after=0.0)
    for number in (1, 1000, 2, 1001):
        subscriber.receive(after=0.1, number=number)
    assert subscriber.subscription.missed == 0


def test_numbers_of_a_publisher_that_has_left_count_nothing(subscribe):
    subscriber = subscribe()
    for name in ("left", "right"):
        subscriber.offer(name)
    subscriber.check(after=0.0)
    subscriber.receive(after=0.1, number=1)
    del subscriber.infos[0]
    subscriber.check(after=0.0)
    for number in (1001, 1002, 1004):
        subscriber.receive(after=0.1, number=number)
    assert subscriber.subscription.missed == 1


def test_images_that_are_missing_between_numbers_are_lost(subscribe):
    subscriber = subscribe()
    subscriber.offer()
    subscriber.check(after=0.0)
    for number in (1, 2, 9, 10, 20):
        subscriber.receive(after=0.5, number=number)
    assert subscriber.subscription.missed == 15
    subscriber.check(after=0.0)
    (text,) = subscriber.warnings
    assert text.startswith(
        "75% of the images on /image are lost, or replaced by newer ones before this node reads "
        "them (2.0 images/s are read, 15 lost so far): "
    )
    assert subscriber.subscription.losing


@pytest.mark.parametrize(("max_rate", "losing"), [(0.0, True), (2.5, True), (2.0, False)])
def test_loss_is_no_fault_while_enough_images_arrive(subscribe, max_rate, losing):
    """The node describes no more than `max_rate` images per second."""
    subscriber = subscribe()
    subscriber.offer()
    subscriber.check(after=0.0)
    for number in range(5):
        subscriber.receive(after=0.5, number=10 * number)
    subscriber.check(after=0.0, max_rate=max_rate)
    assert subscriber.subscription.losing is losing
    assert bool(subscriber.warnings) is losing


def test_images_of_a_burst_that_replace_each_other_are_not_lost_with_best_effort(subscribe):
    """Fast DDS reports the images that it has lost, and no others."""
    subscriber = subscribe(reliability="best_effort")
    subscriber.offer(reliability="BEST_EFFORT")
    subscriber.check(after=0.0)
    for number in range(10):
        subscriber.receive(after=0.5, number=10 * number)
    assert not subscriber.subscription.missed
    for number in range(10, 20):
        subscriber.subscription._on_loss(SimpleNamespace(total_count_change=8))
        subscriber.receive(after=0.5, number=10 * number)
    subscriber.check(after=0.0)
    assert subscriber.subscription.missed == 80
    assert subscriber.warnings[0].startswith("80% of the images on /image are lost")


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
@pytest.mark.parametrize("publishers", [1, 2])
@pytest.mark.fault(94)
def test_pairs_of_images_and_two_publishers_raise_no_alarm(subscribe, reliability, publishers):
    """Stamps, and numbers of two publishers, look like those of a fast camera with much loss."""
    subscriber = subscribe(reliability=reliability)
    for _ in range(publishers):
        subscriber.offer(reliability=reliability.upper())
    subscriber.check(after=0.0)
    for pair in range(20):
        subscriber.receive(after=0.9, number=2 * pair)
        first = 1000 if publishers == 2 else 1
        subscriber.receive(after=0.02, number=first + 2 * pair)
        assert not subscriber.check(after=0.0)
    assert (subscriber.warnings, subscriber.subscription.missed) == ([], 0)


def test_a_slow_camera_is_silent_only_after_two_of_its_periods(subscribe):
    subscriber = subscribe()
    subscriber.offer()
    subscriber.receive(after=0.0)
    assert subscriber.check(after=9.9)  # its period is not known yet
    subscriber.receive(after=0.1)
    for _ in range(3):
        assert not subscriber.check(after=9.9)
        subscriber.receive(after=0.1)
    assert not subscriber.check(after=20.0)
    assert subscriber.check(after=0.5)
    assert len(subscriber.warnings) == 2


def test_images_that_the_middleware_has_lost_are_named_as_the_cause_of_silence(subscribe):
    subscriber = subscribe()
    subscriber.offer()
    for change in (3, 4):
        subscriber.subscription._on_loss(SimpleNamespace(total_count_change=change))
    subscriber.check(after=2.0)
    (text,) = subscriber.warnings
    assert "; 7 images have been lost since then: large images are lost in transport; set" in text
    assert subscriber.subscription.missed == 7
    subscriber.receive(after=0.0)
    subscriber.check(after=2.0)
    assert subscriber.warnings[1].endswith("; perhaps the camera has stopped")


def test_middleware_without_the_event_of_lost_messages_is_used_without_it(subscribe, monkeypatch):
    made = []

    class Callbacks(image_subscription.SubscriptionEventCallbacks):
        def create_event_handlers(self, *arguments):
            made.append(self.message_lost)
            if self.message_lost:
                raise image_subscription.UnsupportedEventTypeError("unsupported")
            return super().create_event_handlers(*arguments)

    monkeypatch.setattr(image_subscription, "SubscriptionEventCallbacks", Callbacks)
    subscriber = subscribe()
    assert made == [subscriber.subscription._on_loss, None]
    assert subscriber.subscription.topic == "/image"
