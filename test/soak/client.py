# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Send random requests as one client, in one process, and check the responses.

    python -m soak.client NAME SEED

Reports each request as `sent`, and then once as `answered`, `refused`, `lost` or `wrong`.
"""

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from kosmos_msgs.action import Generate as GenerateAction
from kosmos_msgs.msg import BoundingBox
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from rclpy.action import ActionClient
from rclpy.qos import QoSProfile
from unique_identifier_msgs.msg import UUID

from soak import pictures
from soak.cameras import CAMERAS
from soak.player import Player, say

LIMIT = 40.0  # s for a response: four times request_timeout
REST = 1.0  # s between a response and the next request, on average
BEGINNING = 60.0  # s until the node is discovered
CONNECTING = 5.0  # s until a first request is repeated
RESPONSES = QoSProfile(depth=1000)
"""With Fast DDS each client receives the responses to all clients and keeps the last `depth`."""

QUESTIONS = ("What is this?", "How many shapes are there?", "Is there a red circle?")
PHRASES = ("a red circle", "a blue square", "a green star", "a yellow ring")
PROMPTS = ("<grounding> An image of", "<grounding><phrase> a red circle</phrase>", "An image of")


@dataclass(frozen=True)
class Asked:
    """A request, and the properties that its response must have."""

    kind: str
    request: Any
    words: Sequence[str]  # in the prompt of each result
    phrases: Sequence[str] | None = None  # in the result; None: any
    scene: pictures.Scene | None = None  # in the image of the request; None: a camera's frame
    bad: bool = False  # the image of the request cannot be decoded
    captions: bool = False  # the response describes the whole image

    def fault(self, results: Sequence[Any]) -> str:
        """Return why `results` cannot be the response; empty if they can."""
        if len(results) != len(self.words):
            return f"{len(results)} results for {len(self.words)} prompts"
        for result, words in zip(results, self.words, strict=True):
            if fault := self._fault(result, words):
                return fault
        return ""

    def _fault(self, result: Any, words: str) -> str:
        if words not in result.prompt:
            return f"prompt {result.prompt!r} for {words!r}"
        if self.phrases and [phrase.text for phrase in result.phrases] != self.phrases:
            return f"phrases {[phrase.text for phrase in result.phrases]} for {self.phrases}"
        image = self.request.image
        if not self.scene:
            camera = self.request.camera
            return pictures.mistaken(result, (camera,) if camera else CAMERAS)
        size = (result.image_width, result.image_height)
        if (result.header, size, result.camera) != (image.header, (image.width, image.height), ""):
            return f"{result.header.frame_id!r} of {size} for {image.header.frame_id!r}"
        return f"a response about {image.header.frame_id!r}" if self.bad else ""

    def names(self, result: Any) -> bool:
        """Return whether the result names every drawn shape."""
        assert self.scene
        return all(f"{shape.colour} {shape.kind}" in result.caption for shape in self.scene.shapes)


def ask(rng: np.random.Generator, scene: pictures.Scene | None) -> Asked:
    question = pictures.one_of(QUESTIONS, rng)
    request = Ask.Request(question=question, grounded=bool(rng.integers(2)))
    return Asked("ask", request, [question], scene=scene)


def ground(rng: np.random.Generator, scene: pictures.Scene | None) -> Asked:
    phrases = [str(phrase) for phrase in rng.permutation(PHRASES)[: rng.integers(1, 5)]]
    return Asked(
        "ground",
        Ground.Request(phrases=phrases),
        ["\n".join(f"<grounding><phrase> {phrase}</phrase>" for phrase in phrases)],
        phrases,
        scene,
    )


def describe(rng: np.random.Generator, scene: pictures.Scene | None) -> Asked:
    if scene and rng.random() < 0.5:
        regions = [
            BoundingBox(
                x_min=x1 * scene.width,
                y_min=y1 * scene.height,
                x_max=x2 * scene.width,
                y_max=y2 * scene.height,
            )
            for _, (x1, y1, x2, y2) in scene.truth
        ]
        return Asked(
            "describe",
            Describe.Request(regions=regions),
            ["<phrase> It</phrase><object>"] * len(regions),
            scene=scene,
        )
    request = Describe.Request(grounded=bool(rng.integers(2)))
    return Asked("describe", request, ["An image of"], scene=scene, captions=True)


def generate(rng: np.random.Generator, scene: pictures.Scene | None) -> Asked:
    prompt = pictures.one_of(PROMPTS, rng)
    return Asked("generate", Generate.Request(prompt=prompt), [prompt], scene=scene)


def act(rng: np.random.Generator, scene: pictures.Scene | None) -> Asked:
    goal = GenerateAction.Goal(task="detailed_caption", grounded=True)
    return Asked("act", goal, ["Describe this image in detail:"], scene=scene, captions=True)


REQUESTS: dict[str, Callable[[np.random.Generator, pictures.Scene | None], Asked]] = {
    "ask": ask,
    "ground": ground,
    "describe": describe,
    "generate": generate,
    "act": act,
}
SERVICES = {"ask": Ask, "ground": Ground, "describe": Describe, "generate": Generate}


class Client:
    """Sends one request after the other."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self._rng = np.random.default_rng(seed)
        self._player = player = Player(name)
        self._services = {
            kind: player.node.create_client(service, f"kosmos/{kind}", qos_profile=RESPONSES)
            for kind, service in SERVICES.items()
        }
        for service in self._services.values():
            _report_unexpected(service)
        self._action = ActionClient(
            player.node,
            GenerateAction,
            "kosmos/generate_stream",
            goal_service_qos_profile=RESPONSES,
            result_service_qos_profile=RESPONSES,
            cancel_service_qos_profile=RESPONSES,
            feedback_sub_qos_profile=RESPONSES,
        )
        self._number = 0
        self._trail: list[str] = []  # steps that the current request has reached
        self._deck: list[str] = []  # kinds of the next requests; every kind has its turn
        say(playing=name)

    def run(self) -> None:
        """Send requests until SIGINT, then wait for the last response."""
        self._connect()
        while not self._player.stopping:
            self._ask(self._chosen())
            self._player.pause(self._rng.exponential(REST))

    def _connect(self) -> None:
        """Send empty requests until each service has refused one.

        The response to a client that the service has not discovered yet is lost: rmw_fastrtps
        waits 100 ms for discovery (rmw_response.cpp, __rmw_send_response), which takes longer on a
        busy computer.
        """
        services = [*self._services.values()]
        ready = [self._action.server_is_ready, *(service.service_is_ready for service in services)]
        self._player.until(lambda: all(one() for one in ready), BEGINNING)
        for service in services:
            self._repeat(partial(service.call_async, service.srv_type.Request()))
        goal = self._repeat(partial(self._action.send_goal_async, GenerateAction.Goal()))
        self._repeat(goal.get_result_async)

    def _repeat(self, call: Callable[[], Any]) -> Any:
        """Call until there is a result, return it, and report how many calls were lost."""
        end = time.monotonic() + BEGINNING
        futures = [call()]
        while not self._player.until(lambda: any(f.done() for f in futures), CONNECTING):
            if time.monotonic() > end:
                raise RuntimeError(f"the node did not respond within {BEGINNING:g} s")
            futures.append(call())
        # A slow response is not lost.
        self._player.until(lambda: all(f.done() for f in futures), CONNECTING)
        if lost := sum(not future.done() for future in futures):
            say(unconnected=lost)
        return next(future.result() for future in futures if future.done())

    def _chosen(self) -> Asked:
        """Return a request about a camera's newest frame, or with an image, which may be bad."""
        own = self._rng.random() < 0.5
        scene = pictures.draw(self._rng) if own else None
        self._deck = self._deck or [str(kind) for kind in self._rng.permutation(list(REQUESTS))]
        asked = REQUESTS[self._deck.pop()](self._rng, scene)
        self._number += 1
        if not scene:
            asked.request.camera = pictures.one_of((*CAMERAS, ""), self._rng)
            if self._rng.random() < 0.3:
                asked.request.max_age = Duration(nanosec=500_000_000)
            return asked
        image = pictures.raw(scene, pictures.one_of(list(pictures.RAW), self._rng))
        bad = self._rng.random() < pictures.BAD_SHARE
        if bad:
            image = pictures.spoilt(image, self._rng)
        pictures.label(image, self.name, self._number, scene, time.time_ns(), bad)
        asked.request.image = image
        return Asked(**{**vars(asked), "bad": bad})

    def _ask(self, asked: Asked) -> None:
        say(sent=self._number, kind=asked.kind)
        begun = time.monotonic()
        response = self._act(asked) if asked.kind == "act" else self._call(asked)
        wait = time.monotonic() - begun
        if response is None:
            say(lost=self._number, kind=asked.kind, trail=self._trail)
            return
        if not response.success:
            say(refused=self._number, kind=asked.kind, wait=wait, why=response.message)
            return
        results = response.results if asked.kind == "describe" else [response.result]
        if fault := asked.fault(results):
            say(wrong=self._number, kind=asked.kind, why=fault)
            return
        # The model misreads scenes in grey, in a Bayer mosaic or in few pixels.
        plain = (
            asked.request.image.encoding in ("rgb8", "bgr8") and asked.request.image.width > 100
        )
        told = asked.captions and plain
        named = asked.names(results[0]) if told else None
        say(answered=self._number, kind=asked.kind, wait=wait, named=named)

    def _call(self, asked: Asked) -> Any:
        self._trail = []
        future = self._services[asked.kind].call_async(asked.request)
        self._player.until(future.done, LIMIT)
        return future.result()

    def _act(self, asked: Asked) -> Any:
        """Send a goal. One in three is cancelled at once, one after its first words."""
        end = time.monotonic() + LIMIT
        feedback: list[Any] = []
        when = str(self._rng.choice(["never", "at once", "first words"]))
        number = uuid.uuid4().bytes
        goal = self._action.send_goal_async(
            asked.request, feedback_callback=feedback.append, goal_uuid=UUID(uuid=list(number))
        )
        self._trail = [goal_name(number), f"cancelled {when}"]
        if not self._player.until(goal.done, LIMIT):
            return None
        self._trail.append("accepted" if goal.result().accepted else "rejected")
        result = goal.result().get_result_async()
        if when == "first words":
            self._player.until(lambda: feedback or result.done(), end - time.monotonic())
        if when != "never" and not result.done():
            goal.result().cancel_goal_async()
        self._player.until(result.done, end - time.monotonic())
        say(feedback=len(feedback))
        if result.done():
            return result.result().result
        again = goal.result().get_result_async()
        self._player.until(again.done, CONNECTING)
        self._trail.append(f"requested again: {again.done() and again.result().status}")
        return None


def goal_name(number: bytes) -> str:
    """Return the name of a goal in the log of rclpy's action server."""
    return str(np.frombuffer(number, np.uint8))


def _report_unexpected(service: Any) -> None:
    """Report responses that nothing waits for, which rclpy drops silently."""
    pending = service.get_pending_request

    def pending_request(number: int) -> Any:
        try:
            return pending(number)
        except KeyError:
            say(twice=number, kind=service.srv_name)
            raise

    service.get_pending_request = pending_request


if __name__ == "__main__":
    Client(sys.argv[1], int(sys.argv[2])).run()
