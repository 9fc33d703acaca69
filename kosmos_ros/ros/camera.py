# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its images, its parameters, its work for the model, its results.

Its topics are `~/captions` and so on for the only camera, `~/<name>/captions` for one of several.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from kosmos_ros.errors import CancelledError, ImageError, RequestError
from kosmos_ros.ros import limits
from kosmos_ros.ros.conversions import latency, seconds
from kosmos_ros.ros.diagnostics import CameraState
from kosmos_ros.ros.image_subscription import ImageSubscription
from kosmos_ros.ros.memory import Memory
from kosmos_ros.ros.outputs import OUTPUTS, DescribedFrame, Output
from kosmos_ros.ros.parameters import Group
from kosmos_ros.ros.stamps import Stamps
from kosmos_ros.sanitize import format_error, one_line
from kosmos_ros.serving.delivery import Delivery
from kosmos_ros.serving.events import Event, Watchlist
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import STANDING, TASK, FrameResult, Plan
from kosmos_ros.serving.scheduler import Drop, Limits, Scheduler
from kosmos_ros.serving.throughput import Throughput
from kosmos_ros.serving.work import Observation, Work

DEPTH = 10  # results that wait for a reliable subscriber
REPEAT_ERROR = 5.0  # s between two log lines about the same kind of error
MAX_ERROR_KINDS = 10
"""Maximum number of kinds that are logged within REPEAT_ERROR; a camera has far fewer."""
REPEAT_CUT = 60.0  # s between two warnings about truncated texts


class Camera:
    """The camera `name`, with images on `topic`."""

    def __init__(
        self,
        node: Node,
        name: str,
        topic: str,
        model: str,
        delivery: Delivery,
        parameters: Group[CameraSettings],
        memory: Memory | None = None,
    ) -> None:
        self.name = name
        self.scheduler: Scheduler | None = None  # while the node is active
        self._counting: Scheduler | None = None  # the newest one, which counts dropped frames
        self._node = node
        self._model = model
        self._delivery = delivery
        self._memory = memory
        self._prefix = f"{name}." if name else ""
        self._parameters = parameters
        self._plan = Plan(self.settings, frozenset())
        self._wanted = False  # the latest result of `wanted`, which is slow
        self._empty: dict[str, str] = {}  # topic with a subscriber: why its messages are empty
        # The newest image, with the time of its arrival, if no other may follow it.
        self._latched: tuple[Image | CompressedImage, float] | None = None
        self._outputs = [(output, self._publisher(output)) for output in OUTPUTS]
        self._watchlists = {standing.name: Watchlist(standing.first) for standing in STANDING}
        self.throughput = Throughput()
        self._errors = _Throttle()
        self.subscription = ImageSubscription(
            node,
            topic,
            self.settings.image_transport,
            self.settings.image_reliability,
            self._on_image,
            self._needs_frames,
        )
        # First words of its log lines.
        self._label = f"camera {name}: " if name else f"{self.subscription.topic}: "
        self._stamps = Stamps(node, self._label)
        owner = f" of camera {name}" if name else ""
        node.get_logger().info(f"images{owner} from {self.subscription.topic}")
        node.create_service(SetBool, self._resolved("enable"), self._on_enable)

    @property
    def settings(self) -> CameraSettings:
        """The camera's parameters."""
        return self._parameters.values

    def begin(self, scheduler: Scheduler) -> None:
        """Start to offer frames to `scheduler`."""
        self._restart_events()
        self._limit(scheduler)
        self.scheduler = self._counting = scheduler
        self._offer_latched()

    def watch(self, loading: bool) -> None:
        """Apply changed limits. Warn about missing and lost images, but not at every call."""
        if self._look_for_listeners():
            self._offer_latched()
        self._warn_of_empty_results()
        if scheduler := self.scheduler:
            self._limit(scheduler)
        settings = self.settings
        if self.subscription.check(settings.stale_timeout, loading, settings.max_rate):
            self._restart_events()

    def _limit(self, scheduler: Scheduler) -> None:
        limits = Limits(self.settings.max_rate, self.settings.max_image_age)
        scheduler.set_limits(self.name, limits)

    def _warn_of_empty_results(self) -> None:
        """Warn once of a topic with a subscriber whose messages cannot have content."""
        before, self._empty = self._empty, {}
        for output, publisher in self._outputs:
            reason = output.empty(self.settings)
            if reason and publisher.get_subscription_count():
                self._empty[output.topic] = reason
                if before.get(output.topic) != reason:
                    self._node.get_logger().warning(
                        f"{self._label}{publisher.topic_name} has a subscriber, but its messages "
                        f"are empty: {reason}"
                    )

    def _restart_events(self) -> None:
        """Start counting again, because frames before and after a gap are not consecutive."""
        for watchlist in self._watchlists.values():
            watchlist.restart()

    def state(self) -> CameraState:
        """Return the camera's state for diagnostics."""
        scheduler = self._counting
        return CameraState(
            self.name,
            self.subscription,
            self.throughput,
            self.settings.enabled,
            self.wanted(),
            self.settings.stale_timeout,
            scheduler.drops(self.name) if scheduler else dict.fromkeys(Drop, 0),
        )

    # Executor's thread ---------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage, age: float = 0.0) -> None:
        self._look_for_listeners()
        if self.subscription.latched:
            self._latched = message, time.monotonic() - age
        self._offer(message, age)

    def _offer_latched(self) -> None:
        """Offer the latched image again. It came before the node was active or had a listener."""
        if latched := self._latched:
            message, arrived = latched
            self._offer(message, time.monotonic() - arrived)

    def _offer(self, message: Image | CompressedImage, age: float) -> None:
        scheduler = self.scheduler
        if scheduler is None:
            return
        try:
            limits.check(message)
        except RequestError as exc:
            if self._wanted:
                scheduler.drop(self.name, Drop.UNREADABLE)
            self._on_error(ImageError(str(exc)))
        else:
            sampling = self.subscription.sampling
            scheduler.offer(self.name, message, self._wanted, age, sampling)

    def _look_for_listeners(self) -> bool:
        """Return whether the first listener has come."""
        before, self._wanted = self._wanted, self.wanted()
        if not self._wanted:
            self._restart_events()
        return self._wanted and not before

    def _needs_frames(self) -> bool:
        """Return whether every frame must be read. The executor calls this before each wait."""
        scheduler = self.scheduler
        return scheduler is not None and (self._wanted or scheduler.awaited(self.name))

    def wanted(self) -> bool:
        """Return whether the model should describe frames."""
        return self.settings.enabled and bool(self._wanted_parts(self.settings))

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        parameter = Parameter(self._prefix + "enabled", value=bool(request.data))
        (result,) = self._node.set_parameters([parameter])
        response.success, response.message = result.successful, result.reason
        return response

    # Worker's thread -----------------------------------------------------------------------

    def work(self) -> Work:
        """Return the work for the newest frame."""
        settings = self.settings
        parts = self._wanted_parts(settings)
        plan = self._plan
        if (plan.settings, plan.parts) != (settings, parts):  # otherwise keep the built prompts
            plan = self._plan = Plan(settings, parts)
        return Work(
            prompts=lambda width, height: plan.prompts,
            done=lambda observation: self._publish(observation, plan),
            failed=self._on_failure,
            max_new_tokens=settings.max_new_tokens,
            urgent=False,
        )

    # Delivery's thread ---------------------------------------------------------------------

    def _publish(self, observation: Observation, plan: Plan) -> None:
        if self.scheduler is None:
            raise CancelledError("the node was deactivated")
        result = plan.read(observation.captions)
        now = self._node.get_clock().now().nanoseconds * 1e-9
        events = tuple(self._events(observation, result, plan.settings))
        described = DescribedFrame(observation, result, events, self._model, now)
        due = [
            (output, publisher)
            for output, publisher in self._outputs
            if output.kept or publisher.get_subscription_count()
        ]
        for output, publisher in due:
            if not output.slow:
                _send(publisher, output, described)
        if self._memory:
            self._memory.record(described, plan.settings)
        slow = [(output, publisher) for output, publisher in due if output.slow]
        if slow:
            self._delivery.post_latest(self.name, functools.partial(self._draw, slow, described))
        self._warn_of_truncation(observation, plan.settings)
        self._stamps.check(seconds(observation.header.stamp), now)
        self.throughput.described(
            time.monotonic(), latency(observation, now), observation.gain, observation.unchanged
        )

    def _draw(self, outputs: list[tuple[Output, Any]], described: DescribedFrame) -> None:
        if self.scheduler is None:
            return
        for output, publisher in outputs:
            _send(publisher, output, described)

    def _events(
        self, observation: Observation, result: FrameResult, settings: CameraSettings
    ) -> Iterator[Event]:
        """Yield the events that this frame confirms."""
        stamp = observation.header.stamp
        latched = self.subscription.latched
        moment = self._stamps.time(seconds(stamp), time.monotonic(), latched)
        details = (moment, stamp, settings.event_frames, settings.event_seconds)
        for standing in STANDING:
            watchlist = self._watchlists[standing.name]
            watchlist.keep(standing.subjects(settings))
            found = result.findings.get(standing.name, ())
            if not found:  # this frame had no such prompts
                watchlist.restart()
            for finding in found:
                if change := watchlist.update(finding.subject, finding.value, *details):
                    yield standing.event(change, finding)

    def _warn_of_truncation(self, observation: Observation, settings: CameraSettings) -> None:
        lengths = [c.generated_tokens for c in observation.captions if c.truncated]
        if not lengths:
            return
        full = lengths[0] >= settings.max_new_tokens
        why = "raise the parameter max_new_tokens" if full else "memory is short: see /diagnostics"
        self._node.get_logger().warning(
            f"{self._label}a text is cut off after {lengths[0]} tokens; {why}",
            throttle_duration_sec=REPEAT_CUT,
        )

    # Any thread ----------------------------------------------------------------------------

    def _on_failure(self, error: Exception) -> None:
        if scheduler := self._counting:
            scheduler.drop(self.name, _reason(error))
        if not isinstance(error, CancelledError):
            self._on_error(error)

    def _on_error(self, error: Exception) -> None:
        """Report an error, but not each time if it repeats."""
        self.throughput.missed(time.monotonic(), one_line(error))
        text = f"{self._label}{format_error(error)}"
        if not self._errors.allows(text, time.monotonic()):
            return
        if isinstance(error, ImageError | RequestError):
            self._node.get_logger().warning(text)
        else:
            self._node.get_logger().error(text)

    def _wanted_parts(self, settings: CameraSettings) -> set[str]:
        """Return the parts of the plan with a subscriber; all with `always_on` or a memory."""
        always = settings.always_on or self._memory is not None
        needs = [
            output.when(settings)
            for output, publisher in self._outputs
            if always or publisher.get_subscription_count()
        ]
        parts = {part for parts in needs for part in parts}
        wanted = {part for part in parts if part == TASK or getattr(settings, part)}
        any_part = not all(needs)  # an output needs no particular part
        return wanted or ({TASK} if any_part else set())

    def _publisher(self, output: Output) -> Any:
        qos = QoSProfile(depth=DEPTH)
        policies = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY]
        if output.kept:
            qos = QoSProfile(depth=output.kept, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            policies.append(QoSPolicyKind.DURABILITY)
        return self._node.create_publisher(
            output.type,
            self._resolved(output.topic),
            qos,
            qos_overriding_options=QoSOverridingOptions(policies),
        )

    def _resolved(self, name: str) -> str:
        return f"~/{self.name}/{name}" if self.name else f"~/{name}"


class _Throttle:
    """Allow one log line per REPEAT_ERROR for each kind of error, and MAX_ERROR_KINDS in all.

    Texts that differ only in numbers are of one kind. rclpy's own throttle counts per line of
    code, so one error would hide another. Any thread may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: dict[str, float] = {}  # kind: s, monotonic, of its latest log line

    def allows(self, text: str, now: float) -> bool:
        """Return whether `text` may be logged at `now`, and remember that it was."""
        kind = re.sub(r"\d+", "0", text)
        with self._lock:
            recent = {k: at for k, at in self._logged.items() if now - at < REPEAT_ERROR}
            allowed = kind not in recent and len(recent) < MAX_ERROR_KINDS
            self._logged = {**recent, kind: now} if allowed else recent
        return allowed


def _reason(error: Exception) -> Drop:
    """Return why a frame with this error is dropped."""
    if isinstance(error, CancelledError):
        return Drop.CANCELLED
    return Drop.UNREADABLE if isinstance(error, ImageError) else Drop.FAILED


def _send(publisher: Any, output: Output, described: DescribedFrame) -> None:
    for message in output.make(described):
        publisher.publish(message)
