# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""demo_node: shows what kosmos_node says of its cameras, asks, looks, streams, waits, and ends.

An example of a client: topics, services, the action and parameters. Knows no model.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import BoundingBox, Event, GroundedCaption, GroundedPhrase
from kosmos_msgs.srv import Ask, Ground
from PIL import Image as Pillow
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from kosmos_ros.errors import ConfigError, RequestError
from kosmos_ros.ros import parameters
from kosmos_ros.ros.process import run
from kosmos_ros.sanitize import one_line
from kosmos_ros.settings import parameter

CAPTIONS = 3  # of each camera, before the tour
TIMEOUT = 120.0  # s, for each caption and answer of a loaded model
POLL = 0.5  # s, to see that a goal is over and nothing more is heard of it
LATE = 10  # of them for its first word: Fast DDS sends again after 3 s what was lost on the way
KEPT = 100  # annotated frames; newer ones replace older ones
WHOLE_QUESTION = "What is in this image?"
REGION_QUESTION = "What is this?"
TERMINAL = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED,
)  # fmt: skip
ABSENT = ("a white ring", "a black cross", "a purple star", "a yellow square", "a green triangle")
"""Phrases to look for of which one is not in a picture: it has four shapes at most."""


@dataclass(frozen=True)
class DemoSettings:
    """Parameters of demo_node."""

    cameras: tuple[str, ...] = parameter(
        ("front", "rear"), "Of kosmos_node; the tour is about the first one.", read_only=True
    )
    out: str = parameter("kosmos_demo", "Folder for annotated frames.", read_only=True)
    keep: bool = parameter(False, "Go on until interrupted.", read_only=True)


class DemoNode(Node):
    """Prints captions with their boxes and saves PNGs; then asks, grounds, streams and waits.

    Each part of the tour shows one way to talk to kosmos_node.
    """

    def __init__(self) -> None:
        super().__init__("kosmos_demo")
        self.finished: Future = Future()
        settings = parameters.declare(self, DemoSettings)
        self._out, self._keep = Path(settings.out), settings.keep
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"parameter out is {settings.out!r}: {exc.strerror}") from exc
        self._cameras = settings.cameras
        self._seen = dict.fromkeys(self._cameras, 0)  # captions of each camera
        self._saved = 0
        self._began = False
        self._waits = False  # for an event
        self._complete = False
        self._image: Image | None = None  # the newest of the first camera
        self._event: Future = Future()  # the first one
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticStatus, "kosmos/model_info", self._on_info, latched)
        for name in self._cameras:
            self.create_subscription(
                GroundedCaption, f"kosmos/{name}/captions", self._on_caption, 10
            )
            self.create_subscription(Image, f"kosmos/{name}/annotated", self._on_annotated, 10)
        first = self._cameras[0]
        self.create_subscription(Image, f"{first}/image_raw", self._on_image, 1)
        self.create_subscription(Event, f"kosmos/{first}/events", self._on_event, 10)
        self._ask = self.create_client(Ask, "kosmos/ask")
        self._ground = self.create_client(Ground, "kosmos/ground")
        self._set = self.create_client(SetParameters, "kosmos/set_parameters")
        self._stream = ActionClient(self, Generate, "kosmos/generate_stream")
        self._goal: Any = None  # the stream, once it is accepted
        self._goal_over: Future = Future()
        self._silence = 0  # polls since the stream's last word
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL, self._on_poll, clock=steady)
        self._limit = self.create_timer(TIMEOUT, self._on_timeout, clock=steady)

    def stop(self, timeout: float) -> bool:
        """Nothing runs beside the executor. A demo that is interrupted early has failed."""
        if not self._complete:
            self._finish(1)
        if self._saved:
            kept = min(self._saved, KEPT)
            _say(f"the newest {kept} annotated frames are in {self._out.resolve()}")
        return True

    async def _tour(self, image: Image) -> None:
        """All of it about one image: in the newest one things may have moved on."""
        _say(f"question: {WHOLE_QUESTION}")
        whole = await self._answer(
            Ask.Request(question=WHOLE_QUESTION, image=image, grounded=True)
        )
        boxes = [box for phrase in whole.result.phrases for box in phrase.boxes]
        box = boxes[0] if boxes else _middle(image)
        _say(f"question at {_corners(box)}: {REGION_QUESTION}")
        await self._answer(Ask.Request(question=REGION_QUESTION, regions=[box], image=image))

        said = [phrase.text for phrase in whole.result.phrases]
        absent = next(phrase for phrase in ABSENT if phrase not in said)
        _say(f"where is: {', '.join([*said, absent])}")
        request = Ground.Request(phrases=[*said, absent], image=image)
        grounded = await self._come(self._ground.call_async(request))
        _check(grounded)
        for phrase in grounded.result.phrases:
            _show_phrase(phrase)

        _say("stream: the same in detail, as it is written")
        await self._streamed(Generate.Goal(task="detailed_caption", grounded=True, image=image))

        found = [phrase.text for phrase in grounded.result.phrases if phrase.boxes]
        if found:
            _say(f"event: waiting for what {self._cameras[0]} sees to be seen twice on end")
            # Looking for what the newest caption named; see _on_caption.
            self._waits = True
            await self._come(self._look_for(event_frames=2, phrases=found))
            event = await self._come(self._event)
            self._waits = False
            _say(f"event: {event.subject} came into view")
            for phrase in event.phrases:
                _show_phrase(phrase)
            await self._come(self._look_for(phrases=[""]))

    async def _come(self, future: Future) -> Any:
        """Its result, for which there is as much time as for the one before."""
        result = await future
        self._limit.reset()
        return result

    async def _answer(self, request: Ask.Request) -> Ask.Response:
        response = await self._come(self._ask.call_async(request))
        _check(response)
        _say(f"answer: {response.answer}")
        return response

    async def _streamed(self, goal: Generate.Goal) -> None:
        shown = 0

        def on_feedback(message: Any) -> None:
            nonlocal shown
            self._limit.reset()
            self._silence = 0
            phrases = message.feedback.phrases
            if len(phrases) > shown:
                shown = len(phrases)
                _say(f"    … {message.feedback.text}")

        # rclpy drops feedback that has not been delivered when the result comes: ask for it when
        # the goal is over and no more is heard.
        self._silence = -LATE
        accepted = self._stream.send_goal_async(goal, on_feedback)
        self._goal, self._goal_over = await self._come(accepted), Future()
        await self._come(self._goal_over)
        result = (await self._come(self._goal.get_result_async())).result
        _check(result)
        _say(f"    {result.result.caption}")

    def _look_for(self, **values: Any) -> Future:
        """Set parameters of the first camera."""
        changes = [
            Parameter(f"{self._cameras[0]}.{name}", value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        return self._set.call_async(SetParameters.Request(parameters=changes))

    async def _run(self, image: Image) -> None:
        try:
            await self._tour(image)
        except RequestError as exc:
            _say(f"no answer: {exc}")
            self._finish(1)
            return
        except Exception:
            self._finish(1)
            raise
        self._complete = True
        if self._keep:
            _say("captions go on until Ctrl-C")
            self._limit.cancel()
        else:
            self._finish(0)

    def _on_poll(self) -> None:
        if self._goal and self._goal.status in TERMINAL and not self._goal_over.done():
            self._silence += 1
            if self._silence > 1:
                self._goal_over.set_result(None)

    def _on_info(self, status: DiagnosticStatus) -> None:
        values = {pair.key: pair.value for pair in status.values}
        _say(f"model {values.get('model', '')}: {status.message}")
        self._limit.reset()
        if status.level == DiagnosticStatus.ERROR:
            self._finish(1)
        elif status.level == DiagnosticStatus.WARN:
            self._limit.cancel()  # loading may take a download

    def _on_caption(self, caption: GroundedCaption) -> None:
        self._seen[caption.camera] += 1
        if not (self._limit.is_canceled() or self._began):
            self._limit.reset()  # during the tour answers do
        _show(caption)
        if self._waits and caption.camera == self._cameras[0] and caption.phrases:
            self._look_for(phrases=[phrase.text for phrase in caption.phrases])
        if self._began or min(self._seen.values()) < CAPTIONS or self._image is None:
            return
        if self._ask.service_is_ready() and self._stream.server_is_ready():
            self._began = True
            self.executor.create_task(self._run, self._image)

    def _on_image(self, image: Image) -> None:
        self._image = image

    def _on_event(self, event: Event) -> None:
        if not self._event.done():
            self._event.set_result(event)

    def _on_annotated(self, image: Image) -> None:
        rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
        pixels = rows[:, : 3 * image.width].reshape(image.height, image.width, 3)
        path = self._out / f"frame_{self._saved % KEPT:02d}.png"
        try:
            Pillow.fromarray(pixels).save(path)
        except OSError as exc:
            _say(f"{path}: {exc.strerror or exc}")
            self._finish(1)
            return
        self._saved += 1

    def _on_timeout(self) -> None:
        _say(f"nothing has come for {TIMEOUT:g} s, after {sum(self._seen.values())} captions")
        self._finish(1)

    def _finish(self, code: int) -> None:
        if not self.finished.done():
            self.finished.set_result(code)


def _check(response: Any) -> None:
    if not response.success:
        raise RequestError(response.message)


def _middle(image: Image) -> BoundingBox:
    width, height = image.width, image.height
    return BoundingBox(
        x_min=width / 4, y_min=height / 4, x_max=width * 3 / 4, y_max=height * 3 / 4
    )


def _show(caption: GroundedCaption) -> None:
    milliseconds = caption.inference_time.sec * 1000 + caption.inference_time.nanosec / 1e6
    _say(f"{caption.camera}: {caption.caption}  [{milliseconds:.0f} ms]")
    for phrase in caption.phrases:
        _show_phrase(phrase)


def _show_phrase(phrase: GroundedPhrase) -> None:
    for box in phrase.boxes:
        _say(f"    {phrase.text:<24} {_corners(box)}  score {box.score:.2f}")
    if not phrase.boxes:
        _say(f"    {phrase.text:<24} not seen")


def _corners(box: BoundingBox) -> str:
    return f"({box.x_min:.0f}, {box.y_min:.0f}, {box.x_max:.0f}, {box.y_max:.0f}) px"


def _say(text: str) -> None:
    print(one_line(text), flush=True)


def main(args: list[str] | None = None) -> int:
    """Run demo_node; 0 when captions came and all that was asked was answered."""
    return run(DemoNode, args)


if __name__ == "__main__":
    sys.exit(main())
