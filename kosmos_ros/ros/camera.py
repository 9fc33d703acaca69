# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""One camera: its images, its parameters, what is asked of its frames, and its outputs.

`~/captions` and so on for the only camera, `~/<name>/captions` for one of several.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

from kosmos_msgs.msg import Answer, Event, GroundedCaption
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

from kosmos_ros.errors import CancelledError, ImageError, RequestError
from kosmos_ros.images.drawing import annotate
from kosmos_ros.ros import parameters
from kosmos_ros.ros.conversions import (
    Detection2DArray,
    answer_event,
    answer_message,
    compressed_message,
    detections_message,
    image_message,
    phrase_event,
    said_message,
    seconds,
)
from kosmos_ros.ros.diagnostics import CameraState
from kosmos_ros.ros.image_subscription import ImageSubscription
from kosmos_ros.sanitize import format_error, one_line
from kosmos_ros.serving import plan
from kosmos_ros.serving.events import Watchlist
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import Findings, Plan
from kosmos_ros.serving.scheduler import Limits, Scheduler
from kosmos_ros.serving.throughput import Throughput
from kosmos_ros.serving.work import Seen, Task

REPEAT_ERROR = 5.0  # s, of warnings about frames
REPEAT_CUT = 60.0  # s, of the warning that texts are cut off

OUTPUTS: dict[str, Any] = {
    "captions": GroundedCaption,
    "text": String,
    "annotated": Image,
    "annotated/compressed": CompressedImage,
    "phrases": GroundedCaption,
    "answers": Answer,
    "events": Event,
}
"""Topics and their types."""

if Detection2DArray is not None:
    OUTPUTS["detections"] = Detection2DArray


DRAWN = {"annotated": image_message, "annotated/compressed": compressed_message}
"""Those of the annotated frame, and what makes their messages of it."""


class Camera:
    """A camera called `name`, whose images are on `topic`. Raises ConfigError."""

    def __init__(self, node: Node, name: str, topic: str, model: str) -> None:
        self.name = name
        self.scheduler: Scheduler | None = None  # while the node is active
        self._node = node
        self._model = model
        self._prefix = f"{name}." if name else ""
        self._of = f"camera {name}: " if name else ""  # before what is logged of its frames
        if name:
            self.settings = parameters.declare(node, CameraSettings, self._prefix)
        else:
            self.settings = parameters.read(node, CameraSettings)
        self._outputs = {topic: self._output(kind, topic) for topic, kind in OUTPUTS.items()}
        self._in_view = Watchlist(first=False)
        self._answered = Watchlist(first="")
        self._meter = Throughput()
        self._feed = ImageSubscription(
            node,
            topic,
            self.settings.image_transport,
            self.settings.image_reliability,
            self._on_image,
        )
        self.topic = self._feed.topic
        of = f" of camera {name}" if name else ""
        node.get_logger().info(f"images{of} from {self.topic}")
        node.create_service(SetBool, self._name_of("enable"), self._on_enable)

    def refresh(self) -> None:
        """Take up what the parameters say now."""
        self.settings = parameters.read(self._node, CameraSettings, self._prefix)
        if scheduler := self.scheduler:
            self._limit(scheduler)

    def begin(self, scheduler: Scheduler) -> None:
        """Give frames to this scheduler from now on."""
        self._restart_events()
        self._limit(scheduler)
        self.scheduler = scheduler

    def _limit(self, scheduler: Scheduler) -> None:
        limits = Limits(self.settings.max_rate, self.settings.max_image_age)
        scheduler.set_limits(self.name, limits)

    def check(self, loading: bool) -> None:
        """Warn, now and then, of silence and loss."""
        if self._feed.check(self.settings.stale_timeout, loading):
            self._restart_events()

    def _restart_events(self) -> None:
        """What is seen after a gap says nothing about what was before it."""
        self._in_view.restart()
        self._answered.restart()

    def state(self) -> CameraState:
        """For diagnostics."""
        scheduler = self.scheduler
        return CameraState(
            self.name,
            self._feed,
            self._meter,
            self.settings.enabled,
            self.wanted(),
            self.settings.stale_timeout,
            scheduler.dropped(self.name) if scheduler else 0,
        )

    def publishers(self) -> int:
        """How many publishers the images' topic has."""
        return self._feed.publishers()

    # Executor's thread ---------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.refresh()
        wanted = self.wanted()
        if not wanted:
            self._restart_events()
        if scheduler := self.scheduler:
            scheduler.offer(self.name, message, wanted)

    def wanted(self) -> bool:
        """Whether frames are to be described."""
        settings = self.settings
        return settings.enabled and (settings.always_on or any(self._listened(settings)))

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        parameter = Parameter(self._prefix + "enabled", value=bool(request.data))
        (result,) = self._node.set_parameters([parameter])
        response.success, response.message = result.successful, result.reason
        return response

    # Worker's thread -----------------------------------------------------------------------

    def task(self) -> Task:
        """What is asked of the newest frame."""
        settings = self.settings
        listened = self._listened(settings)
        standing = plan.plan(settings, *(settings.always_on or heard for heard in listened))
        return Task(
            prompts=lambda width, height: standing.prompts,
            done=lambda seen: self._publish(seen, standing),
            failed=self._failed,
            max_new_tokens=settings.max_new_tokens,
        )

    def _publish(self, seen: Seen, plan: Plan) -> None:
        if self.scheduler is None:  # the node was deactivated meanwhile
            return
        findings = plan.read(seen.captions)
        now = self._node.get_clock().now().nanoseconds * 1e-9
        message = functools.partial(said_message, seen, model=self._model, now=now)
        for prompt, caption in findings.said:
            said = message(prompt, caption)
            self._outputs["captions"].publish(said)
            self._outputs["text"].publish(String(data=said.caption))
        if findings.phrases:
            self._outputs["phrases"].publish(message(*findings.phrases))
        for question, answer in findings.answers:
            self._outputs["answers"].publish(answer_message(seen, question, answer))
        for event in self._changes(seen, findings, plan.settings):
            self._outputs["events"].publish(event)
        placed = findings.phrases or next(iter(findings.said), None)
        if placed and "detections" in self._outputs:
            self._outputs["detections"].publish(detections_message(seen, placed[1].phrases))
        if findings.said and self._heard(*DRAWN):
            drawn = annotate(seen.image, findings.said[0][1])
            for topic, message_of in DRAWN.items():
                if self._heard(topic):
                    self._outputs[topic].publish(message_of(drawn, seen.header))
        cut = [caption.generated_tokens for caption in seen.captions if caption.truncated]
        if cut:
            full = cut[0] >= plan.settings.max_new_tokens
            why = "see the parameter max_new_tokens" if full else "see /diagnostics"
            self._node.get_logger().warning(
                f"{self._of}a text is cut off after {cut[0]} tokens; {why}",
                throttle_duration_sec=REPEAT_CUT,
            )
        self._meter.described(time.monotonic(), now - seconds(seen.header.stamp))

    def _changes(
        self, seen: Seen, findings: Findings, settings: CameraSettings
    ) -> Iterator[Event]:
        """What this picture settles."""
        stamp = seen.header.stamp
        moment = (
            seconds(stamp),
            stamp,
            settings.event_frames,
            settings.event_seconds,
        )
        found = findings.phrases[1].phrases if findings.phrases else ()
        self._in_view.keep(settings.phrases)
        self._answered.keep(settings.questions)
        # Pictures of which it was not asked say nothing about it.
        if not found:
            self._in_view.restart()
        if not findings.answers:
            self._answered.restart()
        for phrase in found:
            if change := self._in_view.update(phrase.text, bool(phrase.boxes), *moment):
                yield phrase_event(seen, phrase, change.now, change.since)
        for question, answer in findings.answers:
            if change := self._answered.update(question, answer.text, *moment):
                yield answer_event(seen, question, change.now, change.before, change.since)

    def _failed(self, exc: Exception) -> None:
        if scheduler := self.scheduler:
            scheduler.drop(self.name)
        if isinstance(exc, CancelledError):
            return
        self._meter.missed(time.monotonic(), one_line(exc))
        text = f"{self._of}{format_error(exc)}"
        # Two calls: rclpy throttles by place and wants one severity at each.
        if isinstance(exc, ImageError | RequestError):
            self._node.get_logger().warning(text, throttle_duration_sec=REPEAT_ERROR)
        else:
            self._node.get_logger().error(text, throttle_duration_sec=REPEAT_ERROR)

    # Both ----------------------------------------------------------------------------------

    def _listened(self, settings: CameraSettings) -> tuple[bool, bool, bool]:
        """Whether somebody listens to what is said, to phrases, and to answers."""
        phrases, questions = bool(settings.phrases), bool(settings.questions)
        detections = self._heard("detections")
        return (
            self._heard("captions", "text", *DRAWN) or (detections and not phrases),
            phrases and (detections or self._heard("phrases", "events")),
            questions and self._heard("answers", "events"),
        )

    def _heard(self, *topics: str) -> bool:
        """Whether somebody listens to one of them."""
        outputs = (self._outputs[topic] for topic in topics if topic in self._outputs)
        return any(output.get_subscription_count() for output in outputs)

    def _output(self, kind: Any, topic: str) -> Any:
        return self._node.create_publisher(
            kind,
            self._name_of(topic),
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _name_of(self, what: str) -> str:
        return f"~/{self.name}/{what}" if self.name else f"~/{what}"
