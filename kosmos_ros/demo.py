"""demo_node: shows what kosmos_node says, asks it two questions, and ends.

An example of a client: it uses topics and the service only. Knows no model and no camera.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from kosmos_ros.parameters import parameter
from kosmos_ros.process import run

CAPTIONS = 5  # before the questions
TIMEOUT = 120.0  # s, for the whole of it
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
        self._out.mkdir(parents=True, exist_ok=True)
        self._seen = 0
        self._saved = 0
        self._asked = False
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticStatus, "kosmos/model_info", self._on_info, latched)
        self.create_subscription(GroundedCaption, "kosmos/captions", self._on_caption, 10)
        self.create_subscription(Image, "kosmos/annotated", self._on_annotated, 10)
        self._ask = self.create_client(Ask, "kosmos/ask")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._limit = self.create_timer(TIMEOUT, self._on_timeout, clock=steady)

    def stop(self, timeout: float) -> bool:
        """Nothing runs beside the executor."""
        if self._saved:
            _say(f"{self._saved} annotated frames are in {self._out.resolve()}")
        return True

    def _on_info(self, status: DiagnosticStatus) -> None:
        values = {pair.key: pair.value for pair in status.values}
        _say(f"model {values.get('model', '')}: {status.message}")
        if status.level == DiagnosticStatus.ERROR:
            self._finish(1)

    def _on_caption(self, caption: GroundedCaption) -> None:
        self._seen += 1
        _show(caption)
        if self._seen >= CAPTIONS and not self._asked and self._ask.service_is_ready():
            self._asked = True
            boxes = [box for phrase in caption.phrases for box in phrase.boxes]
            self._question(WHOLE_QUESTION, [], lambda: self._about_region(boxes))

    def _about_region(self, boxes: list[BoundingBox]) -> None:
        if boxes:
            self._question(REGION_QUESTION, boxes[:1], self._done)
        else:
            _say("no box to ask about: nothing was located")
            self._done()

    def _question(self, question: str, regions: list[BoundingBox], then: Any) -> None:
        place = f" at {_corners(regions[0])}" if regions else ""
        _say(f"question{place}: {question}")
        request = Ask.Request(question=question, regions=regions, grounded=not regions)
        self._ask.call_async(request).add_done_callback(lambda done: self._on_answer(done, then))

    def _on_answer(self, done: Future, then: Any) -> None:
        response = done.result()
        if not response.success:
            _say(f"no answer: {response.message}")
            self._finish(1)
            return
        _say(f"answer: {response.answer}")
        then()

    def _on_annotated(self, image: Image) -> None:
        self._saved += 1
        rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
        pixels = rows[:, : 3 * image.width].reshape(image.height, image.width, 3)
        Pillow.fromarray(pixels).save(self._out / f"frame_{self._saved:04d}.png")

    def _done(self) -> None:
        if self._keep:
            _say("captions go on until Ctrl-C")
            self._limit.cancel()
        else:
            self._finish(0)

    def _on_timeout(self) -> None:
        _say(f"after {TIMEOUT:g} s there are {self._seen} captions and no answers")
        self._finish(1)

    def _finish(self, code: int) -> None:
        if not self.finished.done():
            self.finished.set_result(code)


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
