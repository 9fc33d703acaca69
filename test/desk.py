# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node in process with literal KOSMOS-2 output in place of a model, for tests of the shell."""

import dataclasses
import re
import threading
import time

import numpy as np
from conftest import Bench
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from rcl_interfaces.msg import Log
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.errors import CancelledError, GenerationError, PromptError
from kosmos_ros.kosmos2.query import Generation

SNOWMAN = (
    "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming "
    "himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
)


REGION = BoundingBox(x_min=250.0, y_min=22.5, x_max=630.0, y_max=397.5)
FAR = BoundingBox(x_min=700.0, y_min=0.0, x_max=800.0, y_max=100.0)


@dataclasses.dataclass(frozen=True)
class Info:
    model: str = "fake"
    device: str = "cpu"


class FakeEngine:
    """Says SNOWMAN of every picture, and remembers what it saw and was asked.

    Where `says` has an entry whose key is in the prompt, it says that, with these scores.
    """

    info = Info()

    def __init__(self):
        self.seen = []  # mean colour of each picture
        self.prompts = []
        self.limits = []  # max_new_tokens of each call
        self.errors = []  # raised one after the other
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()
        self.says = {}
        self.added = []  # queries
        self.batches = []  # queries in each step
        self.unloaded = False
        self.truncates = False
        self.tidied = 0
        self.context = 10_000  # characters of a prompt
        self.warmed_up = None  # for so many prompts of so many tokens
        self.errors_in_batches_of = None  # so many queries
        self.hold_in_batches_of = None  # until `held` is set
        self.held = threading.Event()

    def warm_up(self, most, tokens):
        self.warmed_up = (most, tokens)

    def check(self, prompt):
        if len(prompt) > self.context:
            raise PromptError(f"the prompt has {len(prompt)} tokens")

    def encode_batch(self, images):
        means = [tuple(image.mean(axis=(0, 1)).round().astype(int)) for image in images]
        self.seen += means
        return means

    def add(self, queries):
        self.added += queries

    def clear(self):
        self.added = []

    def step(self):
        """All that was added since the last one, as a batch."""
        queries, self.added = self.added, []
        self.prompts += [query.prompt for query in queries]
        self.limits += [query.max_new_tokens for query in queries]
        self.batches.append(len(queries))
        self.busy.set()
        while not self.free.wait(0.01):
            if all(query.stopped() for query in queries):
                return [(query, CancelledError("generation was stopped")) for query in queries]
        if self.errors_in_batches_of and len(queries) >= self.errors_in_batches_of:
            raise GenerationError("out of memory")
        if len(queries) == self.hold_in_batches_of:
            assert self.held.wait(60)
        if self.errors:
            raise self.errors.pop(0)
        return [(query, self._say(query)) for query in queries]

    def _say(self, query):
        known = (said for key, said in self.says.items() if key in query.prompt)
        text, scores = next(known, (SNOWMAN, (0.5, 0.125, 1.0, 0.25)))
        pieces = re.findall(r"<[^>]*>|[^<\s]+|\s+", text)
        for number in range(1, len(pieces) + 2 if query.progress else 0):  # and the end token
            if query.stopped():
                return CancelledError("generation was stopped")
            so_far = "".join(pieces[:number])
            places = so_far.count("<patch_index_")
            query.progress(Generation(so_far, scores[:places], 0.5, number, False))
            time.sleep(0.005)  # the time that a token takes
        return Generation(text, scores, np.float32(0.75), 20, self.truncates)

    def memory(self):
        return 3_000_000

    def tidy(self):
        self.tidied += 1

    def unload(self):
        self.unloaded = True


class Desk:
    """The node, its fake engine, a client with everything to talk to it, and a log."""

    def __init__(self, engine, node, client):
        self.engine, self.node, self.client = engine, node, client
        self.bench = Bench(node, client)
        self.until = self.bench.until
        self.images = client.create_publisher(Image, "image", 10)
        self.compressed = client.create_publisher(CompressedImage, "image/compressed", 10)
        self.asking = client.create_client(Ask, "kosmos/ask")
        self.logged = []
        client.create_subscription(Log, "/rosout", self._on_log, 100)
        self.captions = []
        # What is logged before both ends are connected is lost.
        self.until(lambda: node.get_logger().info("a test begins") or self.logs("a test begins"))

    @property
    def camera(self):
        return self.node.cameras[""]

    def heard(self, topic):
        """Whether the camera's topic has a subscriber."""
        publishers = {output.topic: publisher for output, publisher in self.camera._outputs}
        return publishers[topic].get_subscription_count() > 0

    def _on_log(self, message):
        if message.name == "kosmos":
            self.logged.append(message.msg)

    def listen(self):
        self.client.create_subscription(
            GroundedCaption, "kosmos/captions", self.captions.append, 10
        )
        self.connected()
        self.until(self.camera.wanted)
        return self

    def connected(self):
        self.connect(self.images, self.camera)

    def connect(self, publisher, camera):
        """Wait until the camera has found that this publisher is reliable, and both are linked."""
        images = camera.subscription
        self.until(
            lambda: not images._auto or images.reliability == "reliable", "reliable delivery"
        )
        self.until(publisher.get_subscription_count, "a connection")

    def send(self, *args, **options):
        message = picture(*args, **options)
        self.connected()
        return self.deliver(self.images, message, self.camera)

    def deliver(self, publisher, message, camera):
        """Publish until it arrives: the first image may be sent before both ends are connected."""
        arrivals = camera.subscription.arrivals
        before, sent = arrivals.last, 0.0

        def arrived():
            nonlocal sent
            if arrivals.last == before and time.monotonic() > sent + 2.0:
                sent = time.monotonic()
                publisher.publish(message)
            return arrivals.last != before

        self.until(arrived, "an image that arrives")
        return message

    def ask(self, **request):
        return self.bench.call(self.asking, Ask.Request(**request))

    def logs(self, *words):
        return next((text for text in self.logged if all(word in text for word in words)), None)


def picture(colour=(10, 20, 30), width=640, height=480, sec=7):
    message = Image(width=width, height=height, encoding="rgb8", step=3 * width)
    message.header.stamp.sec = sec
    message.header.frame_id = "camera_optical_frame"
    message.data = np.full((height, width, 3), colour, np.uint8).tobytes()
    return message
