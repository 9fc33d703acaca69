# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""demo_node: an example client of kosmos_node. It shows each interface once and ends.

It shows captions of the cameras, asks two questions, locates phrases, streams a detailed caption,
waits for an event and recalls what was seen: topics, services, the action and parameters. Knows no
model.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long
    from kosmos_ros.entry import demo_node

    sys.exit(demo_node())

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import BoundingBox, Event, GroundedCaption, GroundedPhrase
from kosmos_msgs.srv import Ask, Ground, Recall
from PIL import Image as Pillow
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from kosmos_ros.entry import output_failed
from kosmos_ros.errors import ConfigError, RequestError
from kosmos_ros.ros.parameters import ParameterNode
from kosmos_ros.ros.process import run
from kosmos_ros.sanitize import one_line
from kosmos_ros.settings import parameter

CAPTIONS = 3  # of each camera, before the requests
TIMEOUT = 120.0  # s, for each caption and response of a loaded model
POLL = 0.5  # s between looks at the state of the streamed goal
FIRST_POLLS = 10  # at most, until a phrase is shown: Fast DDS sends lost data again after 3 s
MAX_FILES = 100  # annotated frames in the folder; new ones replace old ones
WHOLE_QUESTION = "What is in this image?"
REGION_QUESTION = "What is this?"
TERMINAL = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED,
)  # fmt: skip
ABSENT = ("a white ring", "a black cross", "a purple star", "a yellow square", "a green triangle")
"""Phrases to locate. A scene has at most four shapes, so at least one phrase is absent."""


@dataclass(frozen=True)
class DemoSettings:
    """Parameters of demo_node."""

    cameras: tuple[str, ...] = parameter(
        ("front", "rear"),
        "Cameras of kosmos_node to show. Requests are about the first one.",
        read_only=True,
    )
    out: str = parameter(
        "kosmos_demo", "Folder in which annotated frames are saved.", read_only=True
    )
    keep: bool = parameter(False, "Continue until interrupted.", read_only=True)


class DemoNode(ParameterNode):
    """Print captions with their boxes, save annotated frames, then make each kind of request.

    Each method of the tour shows one way to use kosmos_node.
    """

    def __init__(self) -> None:
        super().__init__("kosmos_demo")
        self.finished: Future = Future()
        settings = self.declare(DemoSettings).values
        self._out, self._keep = Path(settings.out), settings.keep
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(
                f"parameter out must be a folder, got {settings.out!r}: {exc.strerror}"
            ) from exc
        self._cameras = settings.cameras
        self._captions = dict.fromkeys(self._cameras, 0)  # number of captions of each camera
        self._saved = 0
        self._touring = False
        self._complete = False
        self._image: Image | None = None  # the newest one of the first camera
        self._seen = ""  # the newest phrase of a caption of the first camera
        self._follows_captions = False  # look for the phrases of the newest caption
        self._event: Future = Future()  # the first event
        self._goal: Any = None  # the streamed goal, once it is accepted
        self._goal_over: Future = Future()
        self._silence = 0  # polls since the last feedback with a phrase
        self._said_of_model = ""  # the newest line about the model
        self._subscribe()
        self._ask = self.create_client(Ask, "kosmos/ask")
        self._ground = self.create_client(Ground, "kosmos/ground")
        self._recall = self.create_client(Recall, "kosmos/recall")
        self._set = self.create_client(SetParameters, "kosmos/set_parameters")
        self._stream = ActionClient(self, Generate, "kosmos/generate_stream")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL, self._on_poll, clock=steady)
        self._limit = self.create_timer(TIMEOUT, self._on_timeout, clock=steady)

    def _subscribe(self) -> None:
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

    def stop(self, timeout: float) -> bool:
        """Print the folder of the saved frames. An interrupted demo has exit code 1."""
        if not self._complete:
            self._finish(1)
        if self._saved:
            count = min(self._saved, MAX_FILES)
            _say(f"the newest {count} annotated frames are in {self._out.resolve()}")
        return True

    async def _tour(self, image: Image) -> None:
        """Make each kind of request about the same image; newer images may show other shapes."""
        seen = self._seen
        phrases = await self._ask_questions(image)
        located = await self._locate(phrases, image)
        _say("stream: a detailed caption, while the model writes it")
        await self._streamed(Generate.Goal(task="detailed_caption", grounded=True, image=image))
        if located:
            await self._wait_for_event(located)
        if seen:
            await self._remember(seen)

    async def _ask_questions(self, image: Image) -> list[str]:
        """Ask about the image and about a region; return the phrases of the first answer."""
        _say(f"question: {WHOLE_QUESTION}")
        whole = await self._answer(
            Ask.Request(question=WHOLE_QUESTION, image=image, grounded=True)
        )
        boxes = [box for phrase in whole.result.phrases for box in phrase.boxes]
        box = boxes[0] if boxes else _middle(image)
        _say(f"question at {_corners(box)}: {REGION_QUESTION}")
        await self._answer(Ask.Request(question=REGION_QUESTION, regions=[box], image=image))
        return [phrase.text for phrase in whole.result.phrases]

    async def _locate(self, phrases: list[str], image: Image) -> list[str]:
        """Locate `phrases` and an absent phrase in the image. Return the phrases with boxes."""
        phrases = [*phrases, next(phrase for phrase in ABSENT if phrase not in phrases)]
        _say(f"locate: {', '.join(phrases)}")
        response = await self._wait(
            self._ground.call_async(Ground.Request(phrases=phrases, image=image))
        )
        _check(response)
        for phrase in response.result.phrases:
            _show_phrase(phrase)
        return [phrase.text for phrase in response.result.phrases if phrase.boxes]

    async def _wait_for_event(self, phrases: list[str]) -> None:
        """Wait until two frames in a row of the first camera agree that a phrase is in view."""
        _say(f"event: waiting until two frames of {self._cameras[0]} in a row show the same")
        self._follows_captions = True
        await self._wait(self._set_parameters(event_frames=2, phrases=phrases))
        event = await self._wait(self._event)
        self._follows_captions = False
        _say(f"event: {event.subject} came into view")
        for phrase in event.phrases:
            _show_phrase(phrase)
        await self._wait(self._set_parameters(phrases=[]))

    async def _remember(self, thing: str) -> None:
        """Say where and when the cameras saw `thing` last."""
        request = Recall.Request(query=thing, newest_first=True, max_results=1)
        response = await self._wait(self._recall.call_async(request))
        _check(response)
        for seen in response.results:
            age = seen.age.sec + seen.age.nanosec * 1e-9
            # The caption and the parameter phrases may both have the thing.
            corners = {_corners(box): None for phrase in seen.phrases for box in phrase.boxes}
            place = f"{seen.camera}, {age:.1f} s ago, at {', '.join(corners)}"
            _say(f"recall: {thing} was last seen by {place}")
        if not response.results:
            _say(response.message)

    async def _wait(self, future: Future) -> Any:
        """Return the result of `future`, and restart the timeout for the next one."""
        result = await future
        self._limit.reset()
        return result

    async def _answer(self, request: Ask.Request) -> Ask.Response:
        response = await self._wait(self._ask.call_async(request))
        _check(response)
        _say(f"answer: {response.answer}")
        return response

    async def _streamed(self, goal: Generate.Goal) -> None:
        shown = 0

        def on_feedback(message: Any) -> None:
            nonlocal shown
            self._limit.reset()
            phrases = message.feedback.phrases
            if phrases:
                self._silence = 0
            if len(phrases) > shown:
                shown = len(phrases)
                _say(f"    … {message.feedback.text}")

        # rclpy drops feedback that is still on its way when the result arrives, so request the
        # result once the goal is over and no more feedback arrives.
        self._silence = -FIRST_POLLS
        accepted = self._stream.send_goal_async(goal, on_feedback)
        self._goal, self._goal_over = await self._wait(accepted), Future()
        await self._wait(self._goal_over)
        result = (await self._wait(self._goal.get_result_async())).result
        _check(result)
        _say(f"    {result.result.caption}")

    def _set_parameters(self, **values: Any) -> Future:
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
            _say(f"request failed: {exc}")
            self._finish(1)
            return
        except Exception:
            self._finish(1)
            raise
        self._complete = True
        if self._keep:
            _say("captions continue until Ctrl-C")
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
        phase = f" ({values['phase']})" if "phase" in values else ""
        text = f"model {values.get('model', '')}: {status.message}{phase}"
        if text != self._said_of_model:  # a download is reported twice a second
            self._said_of_model = text
            _say(text)
        self._limit.reset()
        if status.level == DiagnosticStatus.ERROR:
            self._finish(1)
        elif status.level == DiagnosticStatus.WARN:
            self._limit.cancel()  # loading may include a download

    def _on_caption(self, caption: GroundedCaption) -> None:
        if not any(self._captions.values()):
            _say("captions: camera, text, inference time; then each phrase with box and score")
        self._captions[caption.camera] += 1
        if caption.camera == self._cameras[0] and caption.phrases:
            self._seen = caption.phrases[0].text
        if not (self._limit.is_canceled() or self._touring):
            self._limit.reset()  # during the tour, responses restart it
        _show(caption)
        if self._follows_captions and caption.camera == self._cameras[0] and caption.phrases:
            # Shapes appear and disappear, so look for those of the newest caption.
            self._set_parameters(phrases=[phrase.text for phrase in caption.phrases])
        self._begin_tour()

    def _begin_tour(self) -> None:
        """Start the requests once each camera has been shown and kosmos_node can be reached."""
        if self._touring or min(self._captions.values()) < CAPTIONS or self._image is None:
            return
        if self._ask.service_is_ready() and self._stream.server_is_ready():
            self._touring = True
            self.executor.create_task(self._run, self._image)

    def _on_image(self, image: Image) -> None:
        self._image = image

    def _on_event(self, event: Event) -> None:
        if not self._event.done():
            self._event.set_result(event)

    def _on_annotated(self, image: Image) -> None:
        rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
        pixels = rows[:, : 3 * image.width].reshape(image.height, image.width, 3)
        path = self._out / f"frame_{self._saved % MAX_FILES:02d}.png"
        try:
            Pillow.fromarray(pixels).save(path)
        except OSError as exc:
            _say(f"cannot save {path}: {exc.strerror or exc}")
            self._finish(1)
            return
        self._saved += 1

    def _on_timeout(self) -> None:
        count = sum(self._captions.values())
        _say(f"no caption or response for {TIMEOUT:g} s; {count} captions arrived before")
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
        _say(f"    {phrase.text:<24} not found")


def _corners(box: BoundingBox) -> str:
    return f"({box.x_min:.0f}, {box.y_min:.0f}, {box.x_max:.0f}, {box.y_max:.0f}) px"


def _say(text: str) -> None:
    try:
        print(one_line(text), flush=True)
    except OSError as exc:
        output_failed("demo_node", exc)


def main(args: list[str] | None = None) -> int:
    """Run demo_node. Exit code 0: captions arrived and every request succeeded."""
    return run(DemoNode, args)
