# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos_node: describe camera images and answer questions about them.

A lifecycle node: configure loads the model, activate starts the work, deactivate pauses it,
cleanup frees the device. The main thread runs a single-threaded executor whose callbacks only put
work into the scheduler. One thread owns the model, some decode images, and one publishes results.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long
    from kosmos_ros.entry import kosmos_node

    sys.exit(kosmos_node())

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from rclpy.validate_topic_name import validate_topic_name

from kosmos_ros.entry import CUT_OFF, HUNG
from kosmos_ros.errors import ConfigError
from kosmos_ros.ros import diagnostics, namesakes
from kosmos_ros.ros.camera import Camera
from kosmos_ros.ros.fastdds import FOLDER, Ports
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.ros.memory import Memory
from kosmos_ros.ros.model_host import ModelHost
from kosmos_ros.ros.namesakes import Namesakes
from kosmos_ros.ros.parameters import Group
from kosmos_ros.ros.process import run, spin_once
from kosmos_ros.ros.recall_service import RecallService
from kosmos_ros.ros.services import Services
from kosmos_ros.sanitize import format_traceback, quoted
from kosmos_ros.serving.availability import Availability, Phase
from kosmos_ros.serving.delivery import Delivery
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings
from kosmos_ros.serving.plan import check_task
from kosmos_ros.serving.scheduler import Scheduler
from kosmos_ros.serving.work import Work
from kosmos_ros.serving.worker import CaptionEngine

WATCH_PERIOD = 0.1  # s between two checks of cameras, deadlines and the worker
PORTS_PERIOD = 1.0  # s between two checks of Fast DDS's shared memory
MIN_PATIENCE = 30.0  # s for one callback of the executor, far more than a busy machine needs
LOADING_PATIENCE = 600.0  # s, while the import of torch from a slow disk blocks all threads
LAST_REQUESTS = 0.2  # s at shutdown, at least, in which new requests still get a refusal
LAST_SPINS = 20  # at least, because on a busy machine the time may pass before the first one ends
FLUSH_TIMEOUT = 1.0  # s for the results that wait to be published
RESULT_SPINS = 4  # callbacks of the executor until a goal's result is sent
SHUTTING_DOWN = "the node is shutting down"


class KosmosNode(ManagedNode):
    """Describe images of cameras and answer requests about them.

    `load` makes the engine, in the worker's thread; by default, as the parameters say. Raises
    ConfigError for an invalid parameter.
    """

    def __init__(
        self, load: Callable[[NodeSettings], CaptionEngine] | None = None, **options: Any
    ) -> None:
        super().__init__("kosmos", **options)
        self._node_values = self.declare(NodeSettings)
        self._delivery = Delivery(self._log_bug)
        self.host = ModelHost(self, load, self._delivery.post)
        # With named cameras, the common values are not those of any camera.
        check_all = (lambda *values: None) if self.settings.cameras else check_task
        self._camera_values = self.declare(
            CameraSettings, check=self.host.check_prompts, check_all=check_all
        )
        self.finished: Future = Future()
        self._model_info = self.create_publisher(
            DiagnosticStatus,
            "~/model_info",
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        cameras = _cameras(self.settings)
        self.memory = Memory(self, self.settings) if self.settings.memory else None
        self.cameras = {
            name: Camera(
                self,
                name,
                topic,
                self.settings.model,
                self._delivery,
                self._declare_camera(name),
                self.memory,
            )
            for name, topic in cameras
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.request_services = Services(self, self)
        self.recall_service = RecallService(self, self.memory.path if self.memory else "")
        self._ports = Ports()
        self._namesakes = Namesakes(self)
        # Simulated time may stop, but warnings and timeouts must go on.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH_PERIOD, self._watch, clock=steady)
        self.create_timer(diagnostics.PERIOD, self._diagnose, clock=steady)
        self.create_timer(PORTS_PERIOD, self._check_ports, clock=steady)
        self.create_timer(namesakes.PERIOD, self._namesakes.check, clock=steady)
        for text in (*self.unknown(), *self._unused_remapping()):
            self.get_logger().warning(text)
        self.on_availability(self.host.availability)
        if self.settings.autostart:
            self.autostart(self.host.wait_to_retry)

    def _declare_camera(self, name: str) -> Group[CameraSettings]:
        if not name:
            return self._camera_values
        return self.declare(CameraSettings, f"{name}.", self.host.check_prompts, check_task)

    @property
    def settings(self) -> NodeSettings:
        """The node's parameters."""
        return self._node_values.values

    def defaults(self) -> CameraSettings:
        """Return the parameters of a camera that has no values of its own."""
        return self._camera_values.values

    def _unused_remapping(self) -> list[str]:
        """Return a warning if `image` is remapped although no camera has this topic."""
        given = self.resolve_topic_name("image")
        topics = [topic for _, topic in _cameras(self.settings)]
        if "image" in topics or given == self.resolve_topic_name("image", only_expand=True):
            return []
        return [
            f"image is remapped to {given}, but no camera has the topic image: the topics are "
            f"{', '.join(topics)}; use the parameter image_topics instead"
        ]

    @property
    def scheduler(self) -> Scheduler:
        """The queue of requests and frames."""
        return self.host.scheduler

    @property
    def patience(self) -> float:
        """Seconds after which a callback of the executor counts as hung; 0: never."""
        limit = self.settings.hard_timeout
        return limit and max(limit, MIN_PATIENCE if self.host.settled else LOADING_PATIENCE)

    def destroy_node(self) -> None:
        """Destroy the node and its action server, which rclpy leaves to the garbage collector."""
        # rclpy also destroys a node whose constructor failed.
        if services := getattr(self, "request_services", None):
            services.destroy()
        if recall := getattr(self, "recall_service", None):
            recall.close()
        if delivery := getattr(self, "_delivery", None):
            delivery.close(FLUSH_TIMEOUT)
        if memory := getattr(self, "memory", None):
            memory.close(FLUSH_TIMEOUT)
        super().destroy_node()

    def stop(self, timeout: float) -> bool:
        """Respond to all waiting clients and end the threads. Return whether they have ended.

        Takes at most `timeout` seconds, apart from the last callbacks. Spins the executor, which
        sends the responses. Does not wait for a model that is loading: nothing can stop that.
        """
        end = time.monotonic() + timeout
        loading = not self.host.settled
        self.host.begin_shutdown(SHUTTING_DOWN)
        if self.context.ok():
            self.request_services.refuse_all(self.unavailable())
            self._diagnose()
            self._send_last_answers(end)
        worker_ended = self.host.join(0.0 if loading else end - time.monotonic())
        delivered = self._delivery.close(end - time.monotonic())
        written = self.memory is None or self.memory.close(end - time.monotonic())
        return worker_ended and delivered and written

    def _send_last_answers(self, end: float) -> None:
        goals = spins = 0
        last_request = time.monotonic() + LAST_REQUESTS
        while spins < LAST_SPINS or (
            (now := time.monotonic()) < end and (self._waiting or now < last_request)
        ):
            goals = max(goals, self.request_services.goals)
            spin_once(self, 0.01)
            spins += 1
        # rclpy sends a goal's result later than it is set.
        for spins in range(RESULT_SPINS * goals):
            if spins < LAST_SPINS or time.monotonic() < end:
                spin_once(self, 0.01)

    @property
    def _waiting(self) -> int:
        """Number of requests without a response."""
        return self.request_services.waiting + self.recall_service.waiting

    # Transitions, each in its own thread -----------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model."""
        return _returned(self.host.configure())

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to accept frames and requests."""
        for camera in self.cameras.values():
            camera.begin(self.scheduler)
        if not self.host.activate():
            for camera in self.cameras.values():
                camera.scheduler = None
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info("active: accepting frames and requests")
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Accept no more frames and requests, and stop the work in progress."""
        self._pause(Phase.INACTIVE)
        self.get_logger().info("not active: ignoring frames and refusing requests")
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory."""
        self._pause(Phase.UNCONFIGURED)
        return _returned(self.host.unload())

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model. The node cannot be configured again."""
        self._pause(Phase.ENDED)
        return _returned(self.host.unload())

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model, so that the node can be configured again."""
        return self.on_cleanup(state)

    def _pause(self, phase: Phase) -> None:
        for camera in self.cameras.values():
            camera.scheduler = None
        self.host.pause(phase)
        self.request_services.refuse_all(self.unavailable())
        self._delivery.flush(FLUSH_TIMEOUT)  # nothing is published after the transition

    # Executor's thread ---------------------------------------------------------------------

    def camera_settings(self) -> Mapping[str, CameraSettings]:
        """Return the parameters of each camera by its name."""
        return {name: camera.settings for name, camera in self.cameras.items()}

    def describe_sources(self, cameras: Sequence[str]) -> str:
        """Return the topics of cameras and their publishers, for a response without an image."""
        subscriptions = [self.cameras[camera].subscription for camera in cameras]
        return "".join(
            f" on {subscription.topic} ({subscription.describe_publishers()})"
            for subscription in subscriptions
        )

    def _watch(self) -> None:
        if reason := self.unavailable():  # requests may have arrived during the change
            self.request_services.refuse_all(reason)
        self.request_services.expire()
        self.host.watch()
        self._watch_delivery()
        for camera in self.cameras.values():
            camera.watch(loading=bool(reason))
        self.request_services.report_queue()

    def _watch_delivery(self) -> None:
        """End the process if publishing hangs, which blocks the model sooner or later."""
        stuck, limit = self._delivery.stuck(), self.settings.hard_timeout
        if 0 < limit < stuck:
            self.host.give_up(
                HUNG, f"publishing has not ended for {stuck:.3g} s (parameter hard_timeout)"
            )

    def _check_ports(self) -> None:
        """End the process if no data can reach it through shared memory any more."""
        if port := self._ports.lost():
            self.host.give_up(
                CUT_OFF,
                f"{FOLDER / port} has been replaced: nothing sent through Fast DDS's shared "
                "memory reaches this process any more",
            )

    def _diagnose(self) -> None:
        name, host = self.get_fully_qualified_name(), self.host
        model = diagnostics.model_status(
            name,
            host.availability,
            self.settings.model,
            self.scheduler.waiting(),
            host.memory,
            host.backoff_level,
            self._namesakes.count,
        )
        cameras = [
            diagnostics.camera_status(name, camera.state(), self.unavailable())
            for camera in self.cameras.values()
        ]
        memory = [self.memory.status()] if self.memory else []
        message = DiagnosticArray(status=[model, *cameras, *memory])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    # Any thread: see model_host.Owner and services.Server -----------------------------------

    def unavailable(self) -> str:
        """Return the reason why requests are refused; empty if they are accepted."""
        return self.host.availability.reason

    def longest_caption(self) -> int:
        """Return the largest max_new_tokens of all cameras."""
        return max(camera.settings.max_new_tokens for camera in self.cameras.values())

    def frame_work(self, camera: str) -> Work:
        """Return the work for a camera's newest frame."""
        return self.cameras[camera].work()

    def on_availability(self, availability: Availability) -> None:
        """Publish the state of the model."""
        try:
            name, model = self.get_fully_qualified_name(), self.settings.model
            self._model_info.publish(diagnostics.availability_status(name, availability, model))
        except RuntimeError:  # RCLError or InvalidHandle: the context has ended meanwhile
            if self.context.ok():
                raise

    def exit(self, code: int) -> None:
        """End the process with this exit code. Only the first call counts."""
        self.mailbox.post(self.finished, code)

    def _log_bug(self, error: Exception) -> None:
        if self.context.ok():
            self.get_logger().error(format_traceback(error), throttle_duration_sec=5.0)


def _cameras(settings: NodeSettings) -> list[tuple[str, str]]:
    """Return the name and the image topic of each camera. Raises ConfigError."""
    names, topics = settings.cameras, settings.image_topics
    if len(set(names)) < len(names):
        raise ConfigError(f"parameter cameras must not repeat a name, got {quoted(names)}")
    names = names or ("",)
    if topics and len(topics) != len(names):
        raise ConfigError(
            f"parameter image_topics must have one entry for each of the {len(names)} cameras, "
            f"or none, got {len(topics)}"
        )
    for name, topic in zip(names, topics, strict=False):
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as exc:
            reason = str(exc).partition(":\n")[0]
            raise ConfigError(
                f"parameter image_topics: {quoted(topic)} of camera {quoted(name)}: {reason}"
            ) from exc
    topics = topics or tuple(f"{name}/image" if name else "image" for name in names)
    return list(zip(names, topics, strict=True))


def _returned(success: bool) -> TransitionCallbackReturn:
    return TransitionCallbackReturn.SUCCESS if success else TransitionCallbackReturn.FAILURE


def main(args: list[str] | None = None) -> int:
    """Run kosmos_node until SIGINT or SIGTERM."""
    return run(KosmosNode, args)
