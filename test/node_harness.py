# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""KosmosNode in this process, with a fake engine and a client that talks to it over DDS."""

import dataclasses
import itertools
import re
import threading
import time
from array import array

import numpy as np
from conftest import Spinner
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from rcl_interfaces.msg import Log
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import CancelledError, GenerationError, PromptError
from kosmos_ros.kosmos2.query import Generation

SNOWMAN_BOX = "<object><patch_index_0044><patch_index_0863></object>"
FIRE_BOX = "<object><patch_index_0005><patch_index_0911></object>"
SNOWMAN = (
    f"<phrase> a snowman</phrase>{SNOWMAN_BOX} warming himself by"
    f"<phrase> a fire</phrase>{FIRE_BOX}."
)
"""Output of KOSMOS-2 for the image of its model card."""

IMAGES = itertools.count()
"""The numbers of the images that `plain_image` makes."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# Pixels of an image of 640 x 480: SNOWMAN_BOX, and a region beyond the image.
REGION = BoundingBox(x_min=250.0, y_min=22.5, x_max=630.0, y_max=397.5)
OUTSIDE = BoundingBox(x_min=700.0, y_min=0.0, x_max=800.0, y_max=100.0)


@dataclasses.dataclass(frozen=True)
class Info:
    model: str = "fake"
    device: str = "cpu"


class FakeEngine:
    """An engine without a model: it writes SNOWMAN for every query and records its calls.

    If the prompt contains a key of `outputs`, it writes that text with those scores instead.
    """

    info = Info()

    def __init__(self):
        self.outputs = {}  # part of a prompt: text and scores
        self.truncates = False
        # Calls
        self.mean_colours = []  # of each encoded image
        self.prompts = []
        self.limits = []  # max_new_tokens of each query
        self.batches = []  # number of queries in each step
        self.tidy_calls = 0
        self.unloaded = False
        self.context = 10_000  # characters of a prompt
        self.warmed_up = None  # arguments of `warm_up`
        # Faults
        self.errors = []  # each step raises the first one and removes it
        self.fails_in_batches_of = None  # this number of queries or more
        self.pauses_in_batches_of = None  # exactly this number of queries, until `resume` is set
        self.resume = threading.Event()
        self.stepping = threading.Event()  # a step has begun
        self.unblocked = threading.Event()  # steps wait for it
        self.unblocked.set()
        self.added = []  # queries for the next step

    def block(self):
        """Let every step wait until `unblock`."""
        self.unblocked.clear()

    def unblock(self):
        self.unblocked.set()

    def warm_up(self, batch_size, tokens):
        self.warmed_up = (batch_size, tokens)

    def check(self, prompt):
        if len(prompt) > self.context:
            raise PromptError(f"the prompt has {len(prompt)} tokens")

    def encode_batch(self, images):
        means = [tuple(image.mean(axis=(0, 1)).round().astype(int)) for image in images]
        self.mean_colours += means
        return means

    def compact(self, encoded):
        return encoded

    def add(self, queries):
        self.added += queries

    def clear(self):
        self.added = []

    def step(self):
        """Answer all added queries as one batch."""
        queries, self.added = self.added, []
        self.prompts += [query.prompt for query in queries]
        self.limits += [query.max_new_tokens for query in queries]
        self.batches.append(len(queries))
        self.stepping.set()
        while not self.unblocked.wait(0.01):
            if all(query.stopped() for query in queries):
                return [(query, CancelledError("generation was stopped")) for query in queries]
        if self.fails_in_batches_of and len(queries) >= self.fails_in_batches_of:
            raise GenerationError("out of memory")
        if len(queries) == self.pauses_in_batches_of:
            assert self.resume.wait(60)
        if self.errors:
            raise self.errors.pop(0)
        return [(query, self._generate(query)) for query in queries]

    def _generate(self, query):
        outputs = (output for key, output in self.outputs.items() if key in query.prompt)
        text, scores = next(outputs, (SNOWMAN, (0.5, 0.125, 1.0, 0.25)))
        tokens = re.findall(r"<[^>]*>|[^<\s]+|\s+", text)
        for count in range(1, len(tokens) + 2 if query.progress else 0):  # and the end token
            if query.stopped():
                return CancelledError("generation was stopped")
            so_far = "".join(tokens[:count])
            locations = so_far.count("<patch_index_")
            query.progress(Generation(so_far, scores[:locations], 0.5, count, False))
            time.sleep(0.005)  # as if the model computed a token
        return Generation(text, scores, np.float32(0.75), 20, self.truncates)

    def memory(self):
        return 3_000_000

    def tidy(self):
        self.tidy_calls += 1

    def unload(self):
        self.unloaded = True


class NodeHarness:
    """KosmosNode, its engine, and a client node with publishers, subscribers and a log."""

    def __init__(self, engine, node, client):
        self.engine, self.node, self.client = engine, node, client
        self.spinner = Spinner(node, client)
        self.until = self.spinner.until
        self.image_publisher = client.create_publisher(Image, "image", 10)
        self.compressed_publisher = client.create_publisher(
            CompressedImage, "image/compressed", 10
        )
        self.ask_client = client.create_client(Ask, "kosmos/ask")
        self.captions = []
        self.logged = []  # texts of the node's log
        client.create_subscription(Log, "/rosout", self._on_log, 100)
        # Text logged before the log is connected is lost.
        self.until(lambda: node.get_logger().info("a test begins") or self.logs("a test begins"))

    @property
    def camera(self):
        """The only camera, which has no name."""
        return self.node.cameras[""]

    def wait_for_model(self):
        host = self.node.host
        self.until(lambda: host.availability.ready and host.settled, "a loaded model")

    def has_subscriber(self, topic):
        """Return whether the camera's topic has a subscriber."""
        publishers = {output.topic: publisher for output, publisher in self.camera._outputs}
        return publishers[topic].get_subscription_count() > 0

    def _on_log(self, message):
        if message.name == "kosmos":
            self.logged.append(message.msg)

    def logs(self, *words):
        """Return the first text of the log that contains all words, or None."""
        return next((text for text in self.logged if all(word in text for word in words)), None)

    def collect(self, kind, topic, qos=10):
        """Subscribe to a topic and return the list that its messages are appended to."""
        messages = []
        self.client.create_subscription(kind, topic, messages.append, qos)
        return messages

    def subscribe_to_captions(self):
        """Collect captions in `captions`; return the harness."""
        self.captions = self.collect(GroundedCaption, "kosmos/captions")
        self.wait_for_image_connection()
        self.until(self.camera.wanted)
        return self

    def wait_for_image_connection(self):
        self.wait_for_connection(self.image_publisher, self.camera)

    def wait_for_connection(self, publisher, camera):
        """Wait until the camera receives from the publisher; if auto, with reliable delivery."""
        images = camera.subscription
        self.until(
            lambda: not images._auto or images.reliability == "reliable", "reliable delivery"
        )
        self.until(publisher.get_subscription_count, "a connection")

    def send(self, *args, **options):
        """Send the camera a plain image until it arrives; return the image."""
        message = plain_image(*args, **options)
        self.wait_for_image_connection()
        return self.deliver(self.image_publisher, message, self.camera)

    def deliver(self, publisher, message, camera):
        """Publish until the message arrives: the first one may precede the connection."""
        arrivals = camera.subscription.arrivals
        before, published_at = arrivals.last, 0.0

        def arrived():
            nonlocal published_at
            # Not sooner, because on a machine that stands still for seconds two would arrive.
            if arrivals.last == before and time.monotonic() > published_at + 10.0:
                published_at = time.monotonic()
                publisher.publish(message)
            return arrivals.last != before

        self.until(arrived, "an image that arrives")
        return message

    def set_parameter(self, name, value):
        (result,) = self.node.set_parameters([Parameter(name, value=value)])
        assert result.successful, result.reason

    def ask(self, **request):
        return self.spinner.call(self.ask_client, Ask.Request(**request))


def plain_image(colour=(10, 20, 30), width=640, height=480, sec=7):
    """Return an image of one colour, stamped `sec`.

    Its last pixel differs from that of the images before, because a frame with the pixels of the
    previous one needs no model.
    """
    message = Image(width=width, height=height, encoding="rgb8", step=3 * width)
    message.header.stamp.sec = sec
    message.header.frame_id = "camera_optical_frame"
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[-1, -1, 0] ^= next(IMAGES) % 15 + 1
    message.data = array("B", pixels.tobytes())  # rclpy checks other types byte by byte
    return message
