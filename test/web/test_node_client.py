# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The client of kosmos_node passes on what the node publishes, and when it did."""

import time
from unittest.mock import Mock

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from kosmos_msgs.msg import Event
from rcl_interfaces.msg import (
    Parameter,
    ParameterDescriptor,
    ParameterEvent,
    ParameterType,
    ParameterValue,
)
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from kosmos_ros.web import node_client
from kosmos_ros.web.looks import EVENTS, LOOKS
from kosmos_ros.web.node_client import SILENCE, NodeClient

INFORMED = hasattr(Subscription, "CallbackType")  # Humble is not
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Listening:
    """A NodeClient, and the events that it tells: subject and time."""

    def __init__(self, node, camera=""):
        self.listener = Mock()
        self.client = NodeClient(node, "/kosmos", self.listener, lambda call, *args: call(*args))
        self.client._cameras = {camera: "/image"}

    @property
    def events(self):
        return {call.args[0]["subject"]: call.args[1] for call in self.listener.event.mock_calls}


def test_events_of_before_and_after_a_call_are_told_apart_when_they_arrive_late(client, spinner):
    publisher = client.create_publisher(Event, "/kosmos/events", LATCHED)
    publisher.publish(Event(subject="before"))
    listening = Listening(client)
    called = time.monotonic()
    publisher.publish(Event(subject="after"))
    listening.client.want(EVENTS, True)  # both are latched ones of this subscription
    spinner.until(lambda: len(listening.events) == 2, "two events")
    assert listening.events["before"] < called <= listening.events["after"]


def test_a_node_is_gone_if_it_is_silent_but_not_if_this_process_paused(
    client, spinner, monkeypatch
):
    monkeypatch.setattr(node_client, "WATCH_PERIOD", 1000.0)  # only this test calls `_watch`
    listening = Listening(client)
    watched, clock = listening.client, time.monotonic()
    client.create_publisher(DiagnosticStatus, "/kosmos/model_info", LATCHED)
    spinner.until(watched._find_publisher, "the node")
    monkeypatch.setattr(node_client, "WATCH_PERIOD", 0.25)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    watched._watch()
    watched._values = {"max_rate": 1.0}

    def states():
        return [call.args[0]["state"] for call in listening.listener.state.mock_calls]

    def become(state):
        values = [KeyValue(key="state", value=state)]
        watched._on_model_info(DiagnosticStatus(values=values))

    def hear():
        status = DiagnosticStatus(name="/kosmos: model")
        watched._on_diagnostics(DiagnosticArray(status=[status]), None)

    responses = []
    watched._call(Mock(), None, responses.append, lambda: responses.append("late"))
    become("ready")
    hear()
    clock += 1000.0  # a pause
    watched._watch()
    assert (states()[-1], responses) == ("ready", [])
    for _ in range(round(SILENCE / 0.25)):
        watched._watch()
    assert (states()[-1], responses) == ("gone", ["late"])
    hear()
    watched._watch()
    assert states()[-1] == "ready"
    become("loading")
    for _ in range(2 * round(SILENCE / 0.25)):
        watched._watch()
    become("ready")  # before the next diagnostics
    watched._watch()
    assert states()[-1] == "ready"


@pytest.mark.skipif(not INFORMED, reason="rclpy tells no times of messages")
def test_an_event_that_is_sent_again_to_a_subscriber_is_the_same_one(client, spinner):
    publisher = client.create_publisher(Event, "/kosmos/events", LATCHED)
    for _ in range(2):  # a bag that plays again has two equal events
        publisher.publish(Event(subject="a cat"))
    listening = Listening(client)
    calls = listening.listener.event.mock_calls
    for count in (2, 4):
        listening.client.want(EVENTS, True)
        spinner.until(lambda count=count: len(calls) == count, "events")
        listening.client._unsubscribe(EVENTS)
    sent = [call.args[0]["sent"] for call in calls]
    assert len(set(sent)) == 2
    assert sent[:2] == sent[2:]


def test_the_clock_of_another_machine_does_not_matter(client):
    listening = Listening(client)
    ours = time.time_ns()
    day = 24 * 3600 * 10**9
    status = DiagnosticStatus(name="/kosmos: model")
    before = time.monotonic()
    listening.client._on_diagnostics(
        DiagnosticArray(status=[status]), {"source_timestamp": ours + day}
    )
    after = time.monotonic()
    second = 10**9
    for subject, sent in (("before", -second), ("after", second)):
        info = {"source_timestamp": ours + day + sent}
        listening.client._on_event("", Event(subject=subject), info)
    assert before - 1.001 < listening.events["before"] < after - 0.999
    assert before + 0.999 < listening.events["after"] < after + 1.001


def test_the_stamps_of_the_headers_count_if_the_middleware_has_none(client):
    listening = Listening(client)
    array = DiagnosticArray(status=[DiagnosticStatus(name="/kosmos: model")])
    array.header.stamp.sec = 1000  # of a simulated clock
    before = time.monotonic()
    listening.client._on_diagnostics(array, None)
    after = time.monotonic()
    event = Event(subject="before")
    event.header.stamp.sec = 990
    listening.client._on_event("", event, None)
    assert before - 10.001 < listening.events["before"] < after - 9.999


def test_a_page_that_opens_between_two_nodes_sees_the_cameras_of_the_second(client, spinner):
    listening = Listening(client, "old")
    listening.client._lose()  # the first node has ended
    listening.client.want(LOOKS, True)
    parameters = DescribeParameters.Response(descriptors=[ParameterDescriptor(name="cameras")])
    value = ParameterValue(
        type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=["new", "newer"]
    )
    listening.client._on_description(
        listening.client._publisher, parameters, GetParameters.Response(values=[value])
    )
    for topic in ("/kosmos/new/captions", "/kosmos/newer/frame/compressed"):
        spinner.until(lambda topic=topic: client.count_subscribers(topic), topic)
    assert not client.count_subscribers("/kosmos/old/captions")


def test_a_parameter_that_changes_while_all_are_read_has_its_new_value(client):
    listening = Listening(client)

    def rate(value):
        return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)

    for node, value in (("/kosmos", 2.0), ("/other", 3.0)):
        changed = [Parameter(name="max_rate", value=rate(value))]
        event = ParameterEvent(node=node, changed_parameters=changed)
        listening.client._on_parameter_event(event)
    names = DescribeParameters.Response(
        descriptors=[ParameterDescriptor(name=name) for name in ("max_rate", "min_score")]
    )
    late = GetParameters.Response(values=[rate(1.0), rate(0.5)])  # sent before the change
    listening.client._on_description(b"", names, late)
    _, values, _ = listening.listener.described.call_args.args
    assert values == {"max_rate": 2.0, "min_score": 0.5}
    listening.client._lose()
    listening.client._on_description(b"", names, late)  # of the next node
    _, values, _ = listening.listener.described.call_args.args
    assert values["max_rate"] == 1.0
