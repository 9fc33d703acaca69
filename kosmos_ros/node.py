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
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from rclpy.time import Time
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
    ImageError,
    KosmosError,
    NotReadyError,
    RequestError,
)
from kosmos_ros.grounding import Caption, Generation, read, region_cells
from kosmos_ros.parameters import Settings
from kosmos_ros.process import run
from kosmos_ros.prompts import Prompt
from kosmos_ros.scheduler import Frame, Job, Limits, Request, Scheduler
from kosmos_ros.watch import InputWatch

CAMERA = ""  # name of the one camera
WATCH_PERIOD = 0.5  # s
REPEAT_WARNING = 30.0  # s
LOST_SHARE = 0.5  # of the camera's frames, above which the input is reported


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
        self.settings = parameters.declare(self)
        self._load = load
        self.finished: Future = Future()
        self._stopping = threading.Event()
        self._unready = "the model is loading"
        self._results: deque[tuple[Future, Any]] = deque()
        self._decoder = ImageDecoder()
        self._scheduler = Scheduler(_limits(self.settings))
        self._watch = InputWatch(time.monotonic())
        self._warned = float("-inf")
        self._stale = False

        self._captions = self._output(GroundedCaption, "~/captions")
        self._text = self._output(String, "~/text")
        self._annotated = self._output(Image, "~/annotated")
        self._model_info = self.create_publisher(
            DiagnosticStatus,
            "~/model_info",
            QoSProfile(
                depth=1,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            ),
        )
        self._subscribe()
        # An async handler in the default group would stop every other callback while it waits.
        self.create_service(Ask, "~/ask", self._on_ask, callback_group=ReentrantCallbackGroup())
        self._wake = self.create_guard_condition(self._hand_over)
        # Simulated time may stand still; warnings and limits must not.
        self._timer = self.create_timer(
            WATCH_PERIOD, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        for line in parameters.unknown(self):
            self.get_logger().warning(line)
        self._publish_info(DiagnosticStatus.WARN, "loading", {"model": self.settings.model})
        self._worker = threading.Thread(target=self._work, name="model", daemon=True)
        self._worker.start()

    def stop(self, timeout: float) -> bool:
        """End the worker; False when it is still in the model after `timeout` seconds."""
        self._stopping.set()
        for request in self._scheduler.close():
            self._refuse(request, "the node is shutting down")
        self._worker.join(timeout)
        return not self._worker.is_alive()

    # Executor thread -----------------------------------------------------------------------

    def _output(self, kind: Any, topic: str) -> Any:
        return self.create_publisher(
            kind, topic, 10, qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )

    def _subscribe(self) -> None:
        # image_transport's convention: remapping `image` moves `image/compressed` with it.
        topic = self.resolve_topic_name("image")
        compressed = self.settings.image_transport == "compressed"
        self._image_topic = f"{topic}/compressed" if compressed else topic
        # rclpy writes what qos_overrides say into this object.
        self._qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscription = self.create_subscription(
            CompressedImage if compressed else Image,
            self._image_topic,
            self._on_image,
            self._qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.get_logger().info(f"images from {self._image_topic}, decoded by {self._decoder}")

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._refresh()
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self._watch.arrived(time.monotonic(), stamp)
        if self._stale:
            self._stale, self._warned = False, float("-inf")
            self.get_logger().info(f"images arrive on {self._image_topic}")
        self._scheduler.offer(CAMERA, message, wanted=self._wanted())

    async def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        self._refresh()
        try:
            if self._unready:
                raise NotReadyError(self._unready)
            prompts.checked("question", request.question)
            if request.camera != CAMERA:
                raise RequestError(
                    f"camera {request.camera!r} is unknown; the only camera has an empty name"
                )
            answered: Future = Future()
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
            response.message = str(exc)
            return response
        return await answered  # type: ignore[no-any-return]

    def _hand_over(self) -> None:
        while self._results:
            future, result = self._results.popleft()
            future.set_result(result)

    def _refresh(self) -> None:
        settings = parameters.read(self)
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
        now = time.monotonic()
        stale = 0 < self.settings.stale_timeout < self._watch.silence(now)
        self._stale = stale
        lost = self._watch.lost()
        if now - self._warned < REPEAT_WARNING or not (stale or lost > LOST_SHARE):
            return
        self._warned = now
        if stale:
            self.get_logger().warning(self._why_stale(now))
        else:
            self.get_logger().warning(
                f"about {lost:.0%} of the images on {self._image_topic} are lost before this "
                f"node; {self._watch.rate():.1f} a second arrive. Large images over best effort "
                "need FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA in all processes, a reliable "
                "subscription, or image_transport:=compressed"
            )

    def _why_stale(self, now: float) -> str:
        publishers = self.get_publishers_info_by_topic(self._image_topic)
        asked = self._qos.reliability
        text = (
            f"no image on {self._image_topic} for {self._watch.silence(now):.1f} s: "
            f"{len(publishers)} publishers, this node asks for {asked.name} delivery"
        )
        if not publishers:
            return text + "; is the topic's name right? Set it by remapping image"
        kind = self._subscription.msg_type.__name__
        for publisher in publishers:
            offered = publisher.qos_profile.reliability
            text += (
                f"; {publisher.node_namespace.rstrip('/')}/{publisher.node_name} offers "
                f"{publisher.topic_type.rpartition('/')[2]} with {offered.name} delivery"
            )
            if publisher.topic_type.rpartition("/")[2] != kind:
                text += f", but {kind} is needed: see the parameter image_transport"
            elif (asked, offered) == (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT):
                text += (
                    f", which never connects: set qos_overrides.{self._image_topic}"
                    ".subscription.reliability to best_effort"
                )
        return text

    # Worker thread -------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            engine = self._load(self.settings)
        except ConfigError as exc:
            self._log_unless_stopping(str(exc))
            self._post(self.finished, 1)
            return
        except KosmosError as exc:
            self._unready = f"the model cannot be used: {exc}"
            self._log_unless_stopping(self._unready)
            self._publish_info(DiagnosticStatus.ERROR, str(exc), {"model": self.settings.model})
            return
        values = {key: str(value) for key, value in dataclasses.asdict(engine.info).items()}
        self._unready = ""
        self._publish_info(DiagnosticStatus.OK, "ready", values)
        if not self._stopping.is_set():
            self.get_logger().info(
                "model ready: "
                + ", ".join(f"{key} {value}" for key, value in values.items() if value)
            )
        while (job := self._scheduler.take()) is not None:
            try:
                self._do(engine, job)
            except Exception as exc:  # the outermost border of the thread: the node lives on
                self._failed(job, exc)

    def _do(self, engine: CaptionEngine, job: Job) -> None:
        if job.request is None:
            assert job.frame is not None
            self._caption(engine, job.frame)
        elif job.late:
            self._refuse(job.request, self._why_late(job.request))
        else:
            self._answer(engine, job.request, job.frame)

    def _caption(self, engine: CaptionEngine, frame: Frame) -> None:
        settings = self.settings
        prompt = prompts.caption(settings.task, settings.grounded)
        image = self._decoder.decode(frame.image, settings.max_image_pixels)
        message, caption = self._run(
            engine, image, prompt, settings.max_new_tokens, frame.image.header, frame.dropped
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
        dropped = self._scheduler.dropped(CAMERA)
        message, _ = self._run(engine, image, prompt, limit, source.header, dropped)
        response = Ask.Response(success=True, answer=message.caption, result=message)
        self._respond(request, response)

    def _run(
        self,
        engine: CaptionEngine,
        image: np.ndarray,
        prompt: Prompt,
        max_new_tokens: int,
        header: Any,
        dropped: int,
    ) -> tuple[GroundedCaption, Caption]:
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
        stamp = Time.from_msg(header.stamp, clock_type=self.get_clock().clock_type)
        message.latency = duration((self.get_clock().now() - stamp).nanoseconds * 1e-9)
        return message, caption

    def _failed(self, job: Job, exc: Exception) -> None:
        if self._stopping.is_set() or not self.context.ok():
            return
        if job.request is not None:
            self._refuse(job.request, str(exc) or type(exc).__name__)
        if isinstance(exc, ImageError | RequestError):
            self.get_logger().warning(str(exc), throttle_duration_sec=5.0)
        else:
            self.get_logger().error(f"{type(exc).__name__}: {exc}", throttle_duration_sec=5.0)

    def _why_late(self, request: Request) -> str:
        waited = f"within {self.settings.request_timeout:g} s"
        if request.camera is None:
            return f"the model was not free {waited}; try again later"
        age = f" not older than {request.max_age:g} s" if request.max_age else ""
        return (
            f"no image{age} came on {self._image_topic} {waited}, "
            f"which has {self.count_publishers(self._image_topic)} publishers"
        )

    def _refuse(self, request: Request, reason: str) -> None:
        self._respond(request, Ask.Response(success=False, message=reason))

    def _respond(self, request: Request, response: Ask.Response) -> None:
        self._post(request.content.answered, response)

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
        try:
            self._model_info.publish(status)
        except RuntimeError:  # rclpy's RCLError, once the context has ended
            if self.context.ok():
                raise

    def _log_unless_stopping(self, text: str) -> None:
        if not self._stopping.is_set():
            self.get_logger().error(text)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_rate, settings.max_image_age, settings.queue_size)


def main(args: list[str] | None = None) -> int:
    """Run kosmos_node until SIGINT or SIGTERM."""
    return run(KosmosNode, args)


if __name__ == "__main__":
    sys.exit(main())
