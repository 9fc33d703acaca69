# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node with the embedded model as a process over DDS: captions match the drawn scenes."""

import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from comparison import corners, in_pixels, iou, message_of
from conftest import Spinner
from PIL import Image as Pillow
from programs import Program, parameters

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticStatus
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene


class Robot:
    """The node as a process, and a client that acts as camera and user."""

    def __init__(self):
        arguments = parameters(model="shapes", device="cpu", max_rate=0)
        self.program = Program("kosmos_node", *arguments)
        self.client = Node("robot")
        self.spinner = Spinner(self.client)
        self.camera = self.client.create_publisher(Image, "image", 10)
        self.asking = self.client.create_client(Ask, "kosmos/ask")
        self.frames = 0
        self.captions = []
        self.client.create_subscription(
            GroundedCaption, "kosmos/captions", self.captions.append, 10
        )
        states = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.client.create_subscription(
            DiagnosticStatus, "kosmos/model_info", states.append, latched
        )
        self.spinner.until(lambda: states and states[-1].message == "ready", "a loaded model")
        self.info = states[-1]
        self.spinner.until(self.camera.get_subscription_count, "a subscribed node")

    def caption(self, message):
        """Publish a frame until it arrives, as a camera would, and return its caption."""
        self.frames += 1
        message.header.stamp.sec = self.frames
        timer = self.client.create_timer(0.3, lambda: self.camera.publish(message))
        self.camera.publish(message)
        caption = self.spinner.until(
            lambda: next((c for c in self.captions if c.header == message.header), None),
            "a caption",
        )
        self.client.destroy_timer(timer)
        return caption

    def ask(self, **request):
        return self.spinner.call(self.asking, Ask.Request(**request))


@pytest.fixture(scope="module")
def context():
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="module")
def robot(context):
    robot = Robot()
    with robot.program:
        yield robot
    robot.client.destroy_node()


@pytest.fixture(scope="module")
def scenes():
    """Return scenes in frames of several sizes."""
    rng = np.random.default_rng(20_261_124)
    sizes = [(640, 480), (480, 270), (320, 320), (1280, 720)]
    return [sample_scene(rng, *sizes[number % 4]) for number in range(16)]


class Tally:
    """Counts right phrases and boxes of captions."""

    def __init__(self):
        self.predicted = self.expected = self.right = self.placed = 0

    def add(self, caption, truth):
        """Count a caption; `truth` maps each drawn phrase to its box in pixels."""
        self.predicted += len(caption.phrases)
        self.expected += len(truth)
        for phrase in caption.phrases:
            assert caption.caption[phrase.start : phrase.end] == phrase.text
            assert phrase.boxes
            assert all(0 < box.score <= 1 for box in phrase.boxes)
            if phrase.text in truth:
                self.right += 1
                self.placed += iou(corners(phrase.boxes[0]), truth[phrase.text]) > 0.5

    def check(self):
        assert 2 * self.right / (self.predicted + self.expected) >= 0.9
        assert self.placed / self.right >= 0.9


def test_captions_name_and_locate_the_drawn_shapes(robot, scenes):
    tally = Tally()
    for number, scene in enumerate(scenes):
        encoding, padding = [("rgb8", 0), ("bgr8", 0), ("rgb8", 13), ("bgr8", 64)][number % 4]
        message = message_of(render(scene), encoding, padding)
        caption = robot.caption(message)
        assert caption.header == message.header
        assert (caption.image_width, caption.image_height) == (scene.width, scene.height)
        tally.add(
            caption,
            {phrase: in_pixels(box, scene.width, scene.height) for phrase, box in scene.truth},
        )
    tally.check()


def test_captions_of_camera_node_match_its_truth(context):
    """Three processes: camera_node, kosmos_node and this client."""
    client = Node("viewer")
    spinner = Spinner(client)
    truths, captions = {}, {}

    def keep_in(messages):
        return lambda message: messages.setdefault(
            (message.header.stamp.sec, message.header.stamp.nanosec), message
        )

    client.create_subscription(GroundedCaption, "camera/truth", keep_in(truths), 100)
    client.create_subscription(GroundedCaption, "viewed/captions", keep_in(captions), 100)
    camera = Program("camera_node", *parameters(seed=11, rate=4.0, width=320, height=240))
    node = Program(
        "kosmos_node",
        *parameters(model="shapes", max_rate=0),
        *("-r", "__node:=viewed", "-r", "image:=camera/image_raw"),
    )
    with camera, node:
        spinner.until(lambda: len(captions.keys() & truths.keys()) >= 12, "captions of the camera")
        assert (camera.stop(), node.stop()) == (0, 0)
    tally = Tally()
    for stamp in captions.keys() & truths.keys():
        caption, truth = captions[stamp], truths[stamp]
        assert caption.header == truth.header
        boxes = {phrase.text: corners(phrase.boxes[0]) for phrase in truth.phrases}
        tally.add(caption, boxes)
    client.destroy_node()
    tally.check()


def test_questions_about_a_region_are_answered_with_its_shape(robot, scenes):
    asked = right = 0
    for scene in scenes[:8]:
        for phrase, box in scene.truth:
            pixels = in_pixels(box, scene.width, scene.height)
            names = ("x_min", "y_min", "x_max", "y_max")
            region = BoundingBox(**dict(zip(names, map(float, pixels), strict=True)))
            response = robot.ask(
                question="What is this?", regions=[region], image=message_of(render(scene))
            )
            assert response.success, response.message
            assert response.result.header.frame_id == "front_optical_frame"
            asked += 1
            right += phrase in response.answer
    assert right / asked >= 0.9


def test_a_published_box_can_be_asked_about(robot, scenes):
    caption = robot.caption(message_of(render(scenes[0])))
    box = caption.phrases[0].boxes[0]
    response = robot.ask(question="What is it?", regions=[box])
    assert response.success, response.message
    assert caption.phrases[0].text in response.answer


def test_the_example_client_shows_captions_and_answers(robot, scenes):
    file = Path(__file__).parents[2] / "docs" / "client.py"
    with Program(Path(sys.executable), "-u", file) as client:
        message = message_of(render(scenes[0]))
        caption = robot.caption(message)
        phrase = caption.phrases[0]
        answer = f"  it is {phrase.text}."
        # The node may find the client later than the test does: it gets frames until it has.
        timer = robot.client.create_timer(0.3, lambda: robot.camera.publish(message))
        robot.spinner.until(lambda: client.has(answer), "an answer in the client")
        robot.client.destroy_timer(timer)
    assert client.has(caption.caption)
    box = phrase.boxes[0]
    assert client.has(f"  {phrase.text} at {box.x_min:.0f}, {box.y_min:.0f}, score 0.")


def test_the_readme_shows_what_the_example_client_prints_for_its_scene(robot):
    folder = Path(__file__).parents[2]
    scene = np.asarray(Pillow.open(folder / "docs" / "scene.jpg").convert("RGB"))
    caption = robot.caption(message_of(scene))
    shown = (folder / "README.md").read_text()
    assert f"\n{caption.caption}\n" in shown
    lines = re.findall(r"^  (an? [\w ]+) at (\d+), (\d+), score ([\d.]+)$", shown, re.MULTILINE)
    assert [text for text, *_ in lines] == [phrase.text for phrase in caption.phrases]
    for (_, *numbers), phrase in zip(lines, caption.phrases, strict=True):
        box = phrase.boxes[0]
        numbers = [float(number) for number in numbers]
        assert numbers[:2] == pytest.approx([box.x_min, box.y_min], abs=0.6)
        assert numbers[2] == pytest.approx(box.score, abs=0.01)


def test_model_info_names_model_device_and_dtype(robot):
    values = {pair.key: pair.value for pair in robot.info.values}
    assert robot.info.level == DiagnosticStatus.OK
    assert (values["model"], values["device"], values["dtype"]) == ("shapes", "cpu", "float32")


@pytest.mark.fault(1, 4, 5, 6, 7)
def test_bad_frames_are_reported_and_the_next_one_is_described(robot, scenes):
    short, narrow, empty, huge, unknown = (message_of(render(scenes[0])) for _ in range(5))
    short.data = short.data[:1000]
    narrow.step = 3
    empty.width = empty.height = 0
    huge.width = huge.height = 2**32 - 1
    unknown.encoding = "rgb7"
    for bad, reason in (
        (short, "1000 bytes of data; expected at least 921600 for 640 x 480 rgb8"),
        (narrow, "step must be at least 1920 bytes for 640 rgb8 pixels, got 3"),
        (empty, "image must have at least 1 x 1 pixels, got 0 x 0"),
        (huge, "at most 50000000"),
        (unknown, "encoding 'rgb7' is not supported"),
    ):
        response = robot.ask(question="What is in this image?", image=bad)
        assert not response.success
        assert reason in response.message
    timer = robot.client.create_timer(0.3, lambda: robot.camera.publish(short))
    robot.spinner.until(lambda: robot.program.has("1000 bytes of data"), "a warning")
    robot.client.destroy_timer(timer)
    assert robot.caption(message_of(render(scenes[0]))).phrases


@pytest.mark.parametrize("shape", [(1, 1), (4000, 1), (1, 8000)])
@pytest.mark.fault(19)
def test_boxes_stay_inside_a_frame_of_one_row_or_column(robot, shape):
    height, width = shape
    message = message_of(np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8))
    caption = robot.caption(message)
    assert (caption.image_width, caption.image_height) == (width, height)
    assert caption.caption.startswith("An image of")
    for box in (box for phrase in caption.phrases for box in phrase.boxes):
        assert 0 <= box.x_min < box.x_max <= width
        assert 0 <= box.y_min < box.y_max <= height


@pytest.mark.fault(22)
def test_a_publisher_of_another_message_type_is_reported():
    camera = Program("camera_node", *parameters(rate=5.0))
    arguments = parameters(model="shapes", stale_timeout=1.0)
    node = Program("kosmos_node", *arguments, "-r", "image:=camera/image_raw/compressed")
    with camera, node:
        line = node.says("/camera offers CompressedImage")
    assert "expected Image; set image_transport:=compressed" in line


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(54)
def test_a_signal_while_the_model_loads_ends_the_node_cleanly(sign):
    for _ in range(3):  # on a busy machine, the signal may come after loading
        with Program("kosmos_node", *parameters(model="shapes")) as program:
            program.says("images from /image")
            code = program.stop(sign)
        assert code == 0, program.output
        assert "Traceback" not in program.output
        assert "ERROR" not in program.output
        if "model ready" not in program.output:
            break
    assert "model ready" not in program.output


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(54)
def test_a_signal_while_the_model_works_ends_the_node_cleanly(context, scenes, sign):
    client = Node("busy_robot")
    spinner = Spinner(client)
    camera = client.create_publisher(Image, "busy", 1)
    frame = message_of(render(scenes[1]))
    captions = []
    with Program(
        "kosmos_node",
        *parameters(model="shapes", max_rate=0),
        *parameters(**{"qos_overrides./busy.subscription.reliability": "reliable"}),
        *("-r", "__node:=busy_kosmos", "-r", "image:=busy"),
    ) as program:
        client.create_subscription(GroundedCaption, "busy_kosmos/captions", captions.append, 10)
        client.create_timer(0.02, lambda: camera.publish(frame))
        spinner.until(lambda: len(captions) > 2)
        code = program.stop(sign)
    client.destroy_node()
    assert code == 0, program.output
    assert "Traceback" not in program.output
    assert "ERROR" not in program.output


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(54)
def test_a_signal_answers_waiting_requests(context, sign):
    client = Node("asker")
    spinner = Spinner(client)
    asking = client.create_client(Ask, "ending_kosmos/ask")
    with Program(
        "kosmos_node",
        *parameters(model="shapes", request_timeout=60.0),
        *("-r", "__node:=ending_kosmos", "-r", "image:=silent"),
    ) as program:
        program.says("active: ")
        assert asking.wait_for_service(60)
        answered = asking.call_async(Ask.Request(question="Is there an image?"))
        # The response to a second request shows that the first one has arrived.
        assert not spinner.call(asking, Ask.Request(question=" ")).success
        assert not answered.done()
        code = program.stop(sign)
        spinner.until(answered.done)
    client.destroy_node()
    assert answered.result().message == "the node is shutting down"
    assert code == 0, program.output


@pytest.mark.fault(34)
def test_a_missing_device_ends_the_node_and_is_named():
    with Program("kosmos_node", *parameters(model="shapes", device="cuda:99")) as program:
        assert program.ends() == 1
    assert program.has("device 'cuda:99' does not exist")
    assert "Traceback" not in program.output


@pytest.mark.fault(51)
def test_requests_beyond_the_queue_size_are_all_answered(robot):
    # The default queues of 10 would lose requests and responses.
    client = robot.client.create_client(Ask, "kosmos/ask", qos_profile=QoSProfile(depth=100))
    assert client.wait_for_service(60)
    # They wait for a frame that does not come.
    request = Ask.Request(question="Is there an image?", max_age=Duration(nanosec=1))
    answers = [client.call_async(request) for _ in range(50)]
    robot.spinner.until(lambda: all(answer.done() for answer in answers), "50 answers")
    messages = [answer.result().message for answer in answers]
    assert sum("8 requests wait, the most" in message for message in messages) == 50 - 8
    assert sum("no image not older than" in message for message in messages) == 8
    robot.client.destroy_client(client)


def test_an_argument_that_is_not_a_ros_argument_is_refused():
    with Program("kosmos_node", "--hlep") as program:
        assert program.ends() == 2
    assert program.lines == [
        "unknown argument --hlep; set parameters with --ros-args -p NAME:=VALUE"
    ]


@pytest.mark.fault(102)
def test_a_value_without_an_option_is_refused_with_the_option_to_use():
    with Program("kosmos_node", "--ros-args", "model:=shapes") as program:
        assert program.ends() == 2
    assert program.lines == [
        "unknown argument model:=shapes; set a parameter with -p model:=shapes, rename with "
        "-r model:=shapes"
    ]


@pytest.mark.fault(102)
def test_a_remap_rule_with_the_name_of_a_parameter_causes_a_warning():
    """Otherwise the node would load the default model of 6.7 GB without a word."""
    words = [*parameters(autostart="false"), "-r", "model:=shapes", "-r", "image:=/camera"]
    with Program("kosmos_node", *words) as program:
        program.says(
            "-r model:=shapes renames a topic, but model is a parameter and keeps its value; "
            "did you mean -p model:=shapes?"
        )
        assert program.stop() == 0
    assert "renames" not in program.output.replace("-r model:=shapes renames", "")


@pytest.mark.parametrize("name", ["kosmos_node", "camera_node", "demo_node"])
def test_help_of_a_node_is_its_usage(name):
    with Program(name, "--help") as program:
        assert program.ends() == 0
    assert program.lines[0].startswith(f"usage: {name} [--ros-args [-p NAME:=VALUE]")
    assert any("set a parameter, such as" in line for line in program.lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rate", "-2.0"),
        ("use_sim_time", "maybe"),
        ("qos_overrides./image.subscription.reliability", "perhaps"),
    ],
)
@pytest.mark.fault(57)
def test_a_bad_parameter_ends_the_node_and_is_named_with_its_value(name, value):
    with Program("kosmos_node", *parameters(model="shapes", **{name: value})) as program:
        assert program.ends() == 1
    assert value in program.has(name.rpartition(".")[2])
    assert "Traceback" not in program.output


@pytest.mark.fault(57)
def test_unknown_parameters_in_a_file_cause_a_warning(tmp_path):
    file = tmp_path / "kosmos.yaml"
    file.write_text("/**:\n  ros__parameters:\n    model: /no/such\n    max_rtae: 2.0\n")
    with Program("kosmos_node", "--ros-args", "--params-file", file) as program:
        program.says("parameter max_rtae is unknown; did you mean max_rate?")
        program.says("directory /no/such does not exist")
        code = program.stop()
    assert code == 0, program.output
