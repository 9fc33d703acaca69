"""demo_node: shows what kosmos_node says, asks it two questions, and ends.

An example of a client: it uses topics and the service only. Knows no model and no camera.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from PIL import Image as Pillow
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from kosmos_ros import parameters
from kosmos_ros.errors import ConfigError
from kosmos_ros.process import run
from kosmos_ros.settings import parameter

CAPTIONS = 5  # before the questions
TIMEOUT = 120.0  # s, for each caption and answer of a loaded model
KEPT = 100  # annotated frames; newer ones replace older ones
WHOLE_QUESTION = "What is in this image?"
REGION_QUESTION = "What is this?"


@dataclass(frozen=True)
class DemoSettings:
    """Parameters of demo_node."""

    out: str = parameter("kosmos_demo", "Folder for annotated frames.", read_only=True)
    keep: bool = parameter(False, "Go on until interrupted.", read_only=True)


class DemoNode(Node):
    """Prints captions with their boxes, asks about the picture and about one box, saves PNGs."""

    def __init__(self) -> None:
        super().__init__("kosmos_demo")
        self.finished: Future = Future()
        settings = parameters.declare(self, DemoSettings)
        self._out, self._keep = Path(settings.out), settings.keep
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"parameter out is {settings.out!r}: {exc.strerror}") from exc
        self._seen = 0
        self._saved = 0
        self._asked = False
        self._complete = False  # both questions were answered
        self._image: Image | None = None  # the newest one
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticStatus, "kosmos/model_info", self._on_info, latched)
        self.create_subscription(GroundedCaption, "kosmos/captions", self._on_caption, 10)
        self.create_subscription(Image, "kosmos/annotated", self._on_annotated, 10)
        self.create_subscription(Image, "camera/image_raw", self._on_image, 1)
        self._ask = self.create_client(Ask, "kosmos/ask")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._limit = self.create_timer(TIMEOUT, self._on_timeout, clock=steady)

    def stop(self, timeout: float) -> bool:
        """Nothing runs beside the executor. A demo that is interrupted early has failed."""
        if not self._complete:
            self._finish(1)
        if self._saved:
            kept = min(self._saved, KEPT)
            _say(f"the newest {kept} annotated frames are in {self._out.resolve()}")
        return True

    def _on_info(self, status: DiagnosticStatus) -> None:
        values = {pair.key: pair.value for pair in status.values}
        _say(f"model {values.get('model', '')}: {status.message}")
        self._limit.reset()
        if status.level == DiagnosticStatus.ERROR:
            self._finish(1)
        elif status.level == DiagnosticStatus.WARN:
            self._limit.cancel()  # loading may take a download

    def _on_caption(self, caption: GroundedCaption) -> None:
        self._seen += 1
        if not self._limit.is_canceled():
            self._limit.reset()
        _show(caption)
        if self._seen < CAPTIONS or self._asked:
            return
        if self._image is not None and self._ask.service_is_ready():
            self._asked = True
            self._about_picture(self._image)

    def _about_picture(self, image: Image) -> None:
        def then(response: Ask.Response) -> None:
            boxes = [box for phrase in response.result.phrases for box in phrase.boxes]
            self._about_region(image, boxes[0] if boxes else _middle(image))

        _say(f"question: {WHOLE_QUESTION}")
        self._question(Ask.Request(question=WHOLE_QUESTION, image=image, grounded=True), then)

    def _about_region(self, image: Image, box: BoundingBox) -> None:
        _say(f"question at {_corners(box)}: {REGION_QUESTION}")
        # Of the same image: in the newest one things may have moved on.
        request = Ask.Request(question=REGION_QUESTION, regions=[box], image=image)
        self._question(request, self._done)

    def _question(self, request: Ask.Request, then: Callable[[Ask.Response], None]) -> None:
        def answered(done: Future) -> None:
            self._limit.reset()
            response = done.result()
            if not response.success:
                _say(f"no answer: {response.message}")
                self._finish(1)
                return
            _say(f"answer: {response.answer}")
            then(response)

        self._ask.call_async(request).add_done_callback(answered)

    def _on_image(self, image: Image) -> None:
        self._image = image

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

    def _done(self, _: Ask.Response) -> None:
        self._complete = True
        if self._keep:
            _say("captions go on until Ctrl-C")
            self._limit.cancel()
        else:
            self._finish(0)

    def _on_timeout(self) -> None:
        _say(f"nothing has come for {TIMEOUT:g} s, after {self._seen} captions")
        self._finish(1)

    def _finish(self, code: int) -> None:
        if not self.finished.done():
            self.finished.set_result(code)


def _middle(image: Image) -> BoundingBox:
    width, height = image.width, image.height
    return BoundingBox(
        x_min=width / 4, y_min=height / 4, x_max=width * 3 / 4, y_max=height * 3 / 4
    )


def _show(caption: GroundedCaption) -> None:
    milliseconds = caption.inference_time.sec * 1000 + caption.inference_time.nanosec / 1e6
    _say(f"{caption.caption}  [{milliseconds:.0f} ms]")
    for phrase in caption.phrases:
        for box in phrase.boxes:
            _say(f"    {phrase.text:<24} {_corners(box)}  score {box.score:.2f}")


def _corners(box: BoundingBox) -> str:
    return f"({box.x_min:.0f}, {box.y_min:.0f}, {box.x_max:.0f}, {box.y_max:.0f}) px"


def _say(text: str) -> None:
    print(text, flush=True)


def main(args: list[str] | None = None) -> int:
    """Run demo_node; 0 when captions came and both questions were answered."""
    return run(DemoNode, args)


if __name__ == "__main__":
    sys.exit(main())
