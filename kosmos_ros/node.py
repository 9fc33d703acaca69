"""kosmos_node: camera images in, grounded captions and answers out.

The main thread runs a single-threaded executor whose callbacks only hand work to the scheduler.
One worker thread loads the model, owns it and does everything slow: decoding, inference,
drawing, publishing. It hands results to the executor through a guard condition.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from kosmos_ros import parameters, prompts
from kosmos_ros.bridge import ImageDecoder
from kosmos_ros.conversions import (
    box_from,
    caption_message,
    duration,
    image_message,
    seconds,
)
from kosmos_ros.drawing import annotate
from kosmos_ros.errors import (
    ConfigError,
    DeviceLostError,
    ImageError,
    KosmosError,
    NotReadyError,
    RequestError,
)
from kosmos_ros.feed import ImageFeed
from kosmos_ros.grounding import Caption, Generation, check_region, read, region_cells
from kosmos_ros.process import run
from kosmos_ros.prompts import Prompt
from kosmos_ros.scheduler import Frame, Job, Limits, Request, Scheduler
from kosmos_ros.settings import FIELDS, Settings, checked

CAMERA = ""  # name of the one camera
DEVICE_LOST = 3  # exit code
BURST = 1000  # requests at once that are answered, if only with a refusal
WATCH_PERIOD = 0.1  # s, in which silence and requests that waited too long are noticed


class CaptionEngine(Protocol):
    """What the node needs of an engine; see engine.Engine."""

    info: Any  # dataclass of what runs where

    def encode(self, image: np.ndarray) -> Any: ...

    def generate(
        self, image: Any, prompt: str, max_new_tokens: int, stopped: Callable[[], bool]
    ) -> Generation: ...


def load_engine(settings: Settings) -> CaptionEngine:
    """The engine that the parameters name. Raises ConfigError and ModelLoadError."""
    # Importing torch takes seconds, in which services already answer "loading".
    from kosmos_ros.engine import Engine

    return Engine.load(
        settings.model,
        revision=settings.revision,
        local_files_only=settings.local_files_only,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
    )


@dataclass(frozen=True, eq=False)
class _Question:
    """An Ask call that waits for its answer."""

    request: Ask.Request
    answered: Future


class KosmosNode(Node):
    """Captions one camera and answers questions about it.

    `load` makes the engine, in the worker thread. Raises ConfigError for a bad parameter.
    """

    def __init__(
        self, load: Callable[[Settings], CaptionEngine] = load_engine, **options: Any
    ) -> None:
        super().__init__("kosmos", **options)
        self.settings = parameters.declare(self, Settings)
        self._load = load
        self.finished: Future = Future()
        self._stopping = threading.Event()
        self._unready = "the model is loading"
        self._results: deque[tuple[Future, Any]] = deque()
        self._unanswered: set[Future] = set()
        self._scheduler = Scheduler(_limits(self.settings))

        self._captions = self._output(GroundedCaption, "~/captions")
        self._text = self._output(String, "~/text")
        self._annotated = self._output(Image, "~/annotated")
        self._model_info = self.create_publisher(
            DiagnosticStatus,
            "~/model_info",
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        self._feed = ImageFeed(
            self,
            "image",
            self.settings.image_transport,
            self.settings.image_reliability,
            self._on_image,
        )
        self.create_service(
            Ask,
            "~/ask",
            self._on_ask,
            # Of the default depth of 10, more requests at once are lost without an answer.
            qos_profile=QoSProfile(depth=BURST),
            # In the default group an async handler stops every other callback while it waits.
            callback_group=ReentrantCallbackGroup(),
        )
        self._wake = self.create_guard_condition(self._hand_over)
        # Simulated time may stand still; warnings and limits must not.
        self._timer = self.create_timer(
            WATCH_PERIOD, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        for line in parameters.unknown(self, Settings):
            self.get_logger().warning(line)
        self._publish_info(DiagnosticStatus.WARN, "loading", {"model": self.settings.model})
        self._worker = threading.Thread(target=self._work, name="model", daemon=True)
        self._worker.start()

    def stop(self, timeout: float) -> bool:
        """Answer all who wait and end the worker; False when it is still in the model.

        Takes at most `timeout` seconds, and spins the executor, which sends the answers.
        """
        end = time.monotonic() + timeout
        self._stopping.set()
        self._scheduler.close()
        for answered in [future for future in self._unanswered if not future.done()]:
            answered.set_result(_refusal("the node is shutting down"))
        while self._unanswered and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)
        self._worker.join(max(0.0, end - time.monotonic()))
        return not self._worker.is_alive()

    # Executor thread -----------------------------------------------------------------------

    def _output(self, kind: Any, topic: str) -> Any:
        return self.create_publisher(
            kind, topic, 10, qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._refresh()
        self._scheduler.offer(CAMERA, message, wanted=self._wanted())

    async def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        self._refresh()
        answered: Future = Future()
        try:
            if self._unready:
                raise NotReadyError(self._unready)
            _check(request)
            given = request.image.width or request.image.height or len(request.image.data)
            self._scheduler.submit(
                Request(
                    _Question(request, answered),
                    deadline=time.monotonic() + self.settings.request_timeout,
                    camera=None if given else CAMERA,
                    max_age=seconds(request.max_age),
                )
            )
        except KosmosError as exc:
            return _refusal(str(exc))
        self._unanswered.add(answered)
        response = await answered
        self._unanswered.remove(answered)
        return response

    def _hand_over(self) -> None:
        while self._results:
            future, result = self._results.popleft()
            if not future.done():  # stop may have been first
                future.set_result(result)

    def _refresh(self) -> None:
        settings = parameters.read(self, Settings)
        if settings != self.settings:
            self.settings = settings
            self._scheduler.set_limits(_limits(settings))

    def _wanted(self) -> bool:
        listeners = (self._captions, self._text, self._annotated)
        return self.settings.always_on or any(
            publisher.get_subscription_count() for publisher in listeners
        )

    def _on_timer(self) -> None:
        self._refresh()
        self._feed.check(self.settings.stale_timeout, loading=bool(self._unready))
        for request, had_frame in self._scheduler.expired():
            request.content.answered.set_result(_refusal(self._why_late(request, had_frame)))

    def _why_late(self, request: Request, had_frame: bool) -> str:
        waited = f"within {self.settings.request_timeout:g} s"
        if had_frame:
            return f"the model was not free {waited}; try again later"
        age = f" not older than {request.max_age:g} s" if request.max_age else ""
        return (
            f"no image{age} came on {self._feed.topic} {waited}, "
            f"which has {self._feed.publishers()} publishers"
        )

    # Worker thread -------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._decoder = ImageDecoder()
            self.get_logger().info(f"images from {self._feed.topic}, decoded by {self._decoder}")
            engine = self._load(self.settings)
        except ConfigError as exc:
            self.get_logger().error(str(exc))
            self._post(self.finished, 1)
            return
        except Exception as exc:  # whatever it is, the node stays and says so
            reason = str(exc) if isinstance(exc, KosmosError) else f"{type(exc).__name__}: {exc}"
            self._unready = f"the model cannot be used: {reason}"
            self.get_logger().error(self._unready)
            self._publish_info(DiagnosticStatus.ERROR, reason, {"model": self.settings.model})
            return
        if self._stopping.is_set():
            return
        values = {key: str(value) for key, value in dataclasses.asdict(engine.info).items()}
        self._unready = ""
        self._publish_info(DiagnosticStatus.OK, "ready", values)
        shown = ", ".join(f"{key} {value}" for key, value in values.items() if value)
        self.get_logger().info(f"model ready: {shown}")
        while (job := self._scheduler.take()) is not None:
            try:
                self._do(engine, job)
            except DeviceLostError as exc:
                self._unready = str(exc)
                self._failed(job, exc)
                self._publish_info(DiagnosticStatus.ERROR, str(exc), values)
                self._post(self.finished, DEVICE_LOST)
                return
            except Exception as exc:  # the outermost border of the thread: the node lives on
                self._failed(job, exc)

    def _do(self, engine: CaptionEngine, job: Job) -> None:
        if job.request is None:
            assert job.frame is not None
            self._caption(engine, job.frame)
        else:
            self._answer(engine, job.request, job.frame)

    def _caption(self, engine: CaptionEngine, frame: Frame) -> None:
        settings = self.settings
        prompt = prompts.caption(settings.task, settings.grounded)
        image = self._decoder.decode(frame.image, settings.max_image_pixels)
        message, caption = self._run(
            engine, image, prompt, settings.max_new_tokens, frame.image.header
        )
        self._captions.publish(message)
        self._text.publish(String(data=message.caption))
        if self._annotated.get_subscription_count():
            self._annotated.publish(image_message(annotate(image, caption), message.header))

    def _answer(self, engine: CaptionEngine, request: Request, frame: Frame | None) -> None:
        asked: Ask.Request = request.content.request
        settings = self.settings
        source = asked.image if frame is None else frame.image
        image = self._decoder.decode(source, settings.max_image_pixels)
        height, width, _ = image.shape
        prompt = prompts.question(
            asked.question,
            [region_cells(box_from(box), width, height) for box in asked.regions],
            asked.region_phrases,
            asked.grounded,
        )
        limit = asked.max_new_tokens or settings.max_new_tokens
        message, _ = self._run(engine, image, prompt, limit, source.header)
        response = Ask.Response(success=True, answer=message.caption, result=message)
        self._post(request.content.answered, response)

    def _run(
        self,
        engine: CaptionEngine,
        image: np.ndarray,
        prompt: Prompt,
        max_new_tokens: int,
        header: Any,
    ) -> tuple[GroundedCaption, Caption]:
        dropped = self._scheduler.dropped(CAMERA)
        begun = time.monotonic()
        generation = engine.generate(
            engine.encode(image), prompt.text, max_new_tokens, self._stopping.is_set
        )
        caption = read(generation, prompt.text, prompt.lead)
        message = caption_message(
            caption,
            header=header,
            camera=CAMERA,
            size=(image.shape[1], image.shape[0]),
            prompt=prompt,
            model=self.settings.model,
            inference_time=time.monotonic() - begun,
            frames_dropped=dropped,
        )
        taken = header.stamp.sec + header.stamp.nanosec * 1e-9
        message.latency = duration(self.get_clock().now().nanoseconds * 1e-9 - taken)
        return message, caption

    def _failed(self, job: Job, exc: Exception) -> None:
        if self._stopping.is_set():
            return
        if job.request is not None:
            self._post(job.request.content.answered, _refusal(str(exc) or type(exc).__name__))
        else:
            self._scheduler.drop(CAMERA)
        if isinstance(exc, ImageError | RequestError):
            self.get_logger().warning(str(exc), throttle_duration_sec=5.0)
        else:
            self.get_logger().error(f"{type(exc).__name__}: {exc}", throttle_duration_sec=5.0)

    def _post(self, future: Future, result: Any) -> None:
        self._results.append((future, result))
        self._wake.trigger()

    def _publish_info(self, level: bytes, message: str, values: dict[str, str]) -> None:
        status = DiagnosticStatus(
            level=level,
            name=self.get_fully_qualified_name(),
            message=message,
            hardware_id=values.get("device_name") or values.get("device") or "none",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        self._model_info.publish(status)


def _check(request: Ask.Request) -> None:
    """Raise RequestError for what cannot be asked of any image."""
    if request.camera != CAMERA:
        raise RequestError(
            f"camera {request.camera!r} is unknown; the only camera has an empty name"
        )
    if request.max_new_tokens:
        try:
            checked(FIELDS["max_new_tokens"], request.max_new_tokens)
        except ConfigError as exc:
            raise RequestError(str(exc)) from exc
    if seconds(request.max_age) < 0:
        raise RequestError(f"max_age is {seconds(request.max_age):g} s; 0 or more is needed")
    regions = [box_from(box) for box in request.regions]
    for region in regions:
        check_region(region)
    anywhere = [(0, 0)] * len(regions)
    prompts.question(request.question, anywhere, request.region_phrases)


def _refusal(reason: str) -> Ask.Response:
    return Ask.Response(success=False, message=reason)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_rate, settings.max_image_age, settings.queue_size)


def main(args: list[str] | None = None) -> int:
    """Run kosmos_node until SIGINT or SIGTERM."""
    return run(KosmosNode, args)


if __name__ == "__main__":
    sys.exit(main())
