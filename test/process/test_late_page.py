# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A page that connects late to a node with a compressed camera receives all that it shows.

The node is a process with the embedded model. The test draws the scene, so it knows the answers.
"""

import io

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from comparison import in_pixels, iou
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import Answer, Event
from PIL import Image as Pillow
from programs import Program, parameters
from rclpy.action import ActionClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, Shape

CIRCLE = Shape("circle", "red", (0.1, 0.2, 0.3, 0.5))
SCENE = Scene((CIRCLE, Shape("square", "blue", (0.6, 0.4, 0.9, 0.8))), 640, 480)
QUESTION = "What is in this image?"
FEEDBACK = QoSProfile(depth=100)
LATE = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def camera(client):
    """Publish the scene as PNG five times per second, with rising stamps."""
    file = io.BytesIO()
    Pillow.fromarray(render(SCENE)).save(file, "PNG")
    message = CompressedImage(format="rgb8; png compressed bgr8", data=file.getvalue())
    message.header.frame_id = "lens"
    publisher = client.create_publisher(CompressedImage, "image/compressed", 10)

    def send():
        message.header.stamp.sec += 1
        publisher.publish(message)

    client.create_timer(0.2, send)
    return message


def test_a_late_page_gets_events_frames_boxes_feedback_and_the_state(client, spinner, camera):
    def subscribe(kind, topic, qos=10):
        messages = []
        client.create_subscription(kind, topic, messages.append, qos)
        return messages

    values = {"phrases": "['a red circle']", "questions": f"['{QUESTION}']"}
    options = {"model": "shapes", "device": "cpu", "max_rate": 0, "always_on": "true"}
    with Program(
        "kosmos_node", *parameters(image_transport="compressed", **options, **values)
    ) as node:
        node.says("active: ")
        reports = subscribe(DiagnosticArray, "/diagnostics")

        def status():
            return {pair.key: pair.value for pair in reports[-1].status[1].values}

        # The events happen before anybody subscribes to them.
        spinner.until(lambda: reports and int(status()["described"]) > 5, "described frames")
        events = subscribe(Event, "kosmos/events", LATE)
        spinner.until(lambda: len(events) == 2, "the events of the past")
        kinds = {event.kind: event.subject for event in events}
        assert kinds == {Event.APPEARED: "a red circle", Event.ANSWERED: QUESTION}

        frames = subscribe(CompressedImage, "kosmos/frame/compressed")
        answers = subscribe(Answer, "kosmos/answers")

        def stamps_of(messages):
            return {message.header.stamp.sec for message in messages}

        # If frames arrive close together, only the newest is published.
        spinner.until(lambda: stamps_of(answers) & stamps_of(frames))
        assert (frames[0].format, bytes(frames[0].data)) == (camera.format, bytes(camera.data))
        phrase, _ = answers[0].phrases
        assert answers[0].answer[phrase.start : phrase.end] == phrase.text == "a red circle"
        (box,) = phrase.boxes
        found = (box.x_min, box.y_min, box.x_max, box.y_max)
        assert iou(found, in_pixels(CIRCLE.box, 640, 480)) > 0.5

        action = ActionClient(
            client, Generate, "kosmos/generate_stream", feedback_sub_qos_profile=FEEDBACK
        )
        spinner.until(action.server_is_ready)

        def send_goal():
            feedback = []
            sent = action.send_goal_async(
                Generate.Goal(task="brief_caption"),
                lambda message: feedback.append(message.feedback),
            )
            spinner.until(sent.done, "an accepted goal")
            return sent.result(), feedback

        # Feedback of the first goal may be lost, because its subscription is not connected yet.
        handle, _ = send_goal()
        spinner.until(handle.get_result_async().done, "a result")
        _, feedback = send_goal()
        spinner.until(lambda: feedback and feedback[-1].text, "a text")
        first, begun, *_ = feedback
        assert (first.text, first.header.frame_id) == ("", "")
        assert (begun.text, begun.header.frame_id, begun.requests_ahead) == ("", "lens", 0)
        assert {so_far.header.stamp.sec for so_far in feedback[1:]} == {begun.header.stamp.sec}

        now = status()
        assert (now["transport"], now["publishers"], now["cause"]) == ("compressed", "1", "")
        drops = [int(count) for key, count in now.items() if key.startswith("dropped: ")]
        assert (len(drops), sum(drops)) == (5, int(now["dropped"]))
        infos = subscribe(DiagnosticStatus, "kosmos/model_info", LATE)
        spinner.until(lambda: infos)
        assert infos[0].message == "ready"
