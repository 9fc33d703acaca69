# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos_node: camera images in, grounded captions and answers out.

A managed node: configure loads the model, activate begins to work, deactivate pauses, cleanup
frees the device. The main thread runs a single-threaded executor whose callbacks only hand work
to the scheduler; a worker thread owns the model and does everything slow.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
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

from kosmos_ros.errors import ConfigError, DeviceLostError, KosmosError, UnreachableError
from kosmos_ros.ros import diagnostics, parameters
from kosmos_ros.ros.bridge import ImageDecoder
from kosmos_ros.ros.camera import Camera
from kosmos_ros.ros.fastdds import FOLDER, Ports
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.ros.process import run, spin_once
from kosmos_ros.ros.services import Services
from kosmos_ros.sanitize import format_error, quoted
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings
from kosmos_ros.serving.scheduler import Scheduler
from kosmos_ros.serving.work import Task
from kosmos_ros.serving.worker import CaptionEngine, Decode, Worker

DEVICE_LOST, HUNG, BROKEN, CUT_OFF = 3, 4, 5, 6  # exit codes
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds between attempts to load a model that cannot be had now; the last again and again."""
LOADING = "the model is loading"
WATCH_PERIOD = 0.1  # s, in which silence and requests that waited too long are noticed
LISTEN_PERIOD = 1.0  # s, in which it is noticed that nothing can arrive
REPEAT_BUG = 5.0  # s, of what is logged about errors that are none of ours
LEAST_PATIENCE = 30.0  # s of a turn of the executor, far more than a busy machine takes for one
LOADING_PATIENCE = 600.0  # s of one while all threads wait for torch, perhaps from a slow disk
LAST_REQUESTS = 0.2  # s, in which requests that are on their way at the end are refused
RESULT_SPINS = 4  # of the executor until a goal's result is sent
FREE_TIMEOUT = 30.0  # s for the worker to leave the model, which stops within a token


def load_engine(settings: NodeSettings) -> CaptionEngine:
    """The engine that the parameters name. Raises ConfigError and ModelLoadError."""
    # Importing torch takes seconds, in which services already answer "loading".
    from kosmos_ros.kosmos2.engine import Engine

    return Engine.load(
        settings.model,
        revision=settings.revision,
        local_files_only=settings.local_files_only,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        threads=settings.threads,
        location_grammar=settings.location_grammar,
    )


class KosmosNode(ManagedNode):
    """Describes what cameras see and answers questions about it.

    `load` makes the engine, in the worker thread. Raises ConfigError for a bad parameter.
    """

    def __init__(
        self, load: Callable[[NodeSettings], CaptionEngine] = load_engine, **options: Any
    ) -> None:
        super().__init__("kosmos", **options)
        self.settings = parameters.declare(self, NodeSettings)
        parameters.declare(self, CameraSettings)
        self._load = load
        self.finished: Future = Future()
        self.scheduler = Scheduler()
        self._worker: Worker | None = None
        self._settled = threading.Event()  # loaded, or failed to
        # Why it cannot be asked; empty: it can.
        self._reason = LOADING if self.settings.autostart else "the node is unconfigured"
        self._info: dict[str, str] = {}
        self._level, self._message = DiagnosticStatus.WARN, "unconfigured"
        self._unreachable: UnreachableError | None = None  # why it could not be loaded now
        self._attempts = 0  # to load it
        self._leaving = threading.Event()
        self._rung = ""  # of the worker's ladder, as it was told
        self._slow = False  # the model takes long, as it was told

        self._model_info = self.create_publisher(
            DiagnosticStatus,
            "~/model_info",
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        self._streams = {
            name: Camera(self, name, topic, self.settings.model)
            for name, topic in _cameras(self.settings)
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._inquiries = Services(self, self)
        # Simulated time may stand still; warnings and limits must not.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._ports = Ports()
        self.create_timer(WATCH_PERIOD, self._on_timer, clock=steady)
        self.create_timer(diagnostics.PERIOD, self._diagnose, clock=steady)
        self.create_timer(LISTEN_PERIOD, self._listen, clock=steady)
        for text in parameters.unknown(self):
            self.get_logger().warning(text)
        if self.settings.autostart:
            self.autostart(self._try_again)

    @property
    def patience(self) -> float:
        """Seconds after which a turn of the executor hangs; 0: it may take any time."""
        limit = self.settings.hard_timeout
        loading = not self._settled.is_set()
        return limit and max(limit, LOADING_PATIENCE if loading else LEAST_PATIENCE)

    def destroy_node(self) -> None:
        """Destroy the action server, too, which rclpy leaves to the garbage collector."""
        # rclpy also destroys a node that could not be made, which has none yet.
        if inquiries := getattr(self, "_inquiries", None):
            inquiries.destroy()
        super().destroy_node()

    def stop(self, timeout: float) -> bool:
        """Answer all who wait and end the worker; False when it is still in the model.

        Takes at most `timeout` seconds, and spins the executor, which sends the answers.
        """
        end = time.monotonic() + timeout
        self._reason = "the node is shutting down"
        self._leaving.set()
        reachable = self.context.ok()  # else nobody can be told
        if reachable:
            self._inquiries.refuse_all(self._reason)
        worker = self._worker  # which a transition may free meanwhile
        if worker:
            worker.close()
        if reachable:
            self._take_leave(end)
        return not worker or worker.join(end - time.monotonic())

    def _take_leave(self, end: float) -> None:
        self._diagnose()
        goals = 0
        heard = min(end, time.monotonic() + LAST_REQUESTS)
        while time.monotonic() < (end if self._inquiries.waiting else heard):
            goals = max(goals, self._inquiries.goals)
            spin_once(self, 0.01)
        for _ in range(RESULT_SPINS * goals):  # rclpy sends a goal's result later than it is set
            if time.monotonic() < end:
                spin_once(self, 0.01)

    # Transitions, each in a thread of its own ----------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model."""
        self._reason = LOADING
        self._publish_info(DiagnosticStatus.WARN, "loading", {"model": self.settings.model})
        self._settled.clear()
        self._info, self._unreachable, self._rung = {}, None, ""
        self.scheduler = Scheduler(self.settings.queue_size)
        self._worker = Worker(self.scheduler, self)
        if self._leaving.is_set():  # `stop` came before there was one
            self._worker.close()
        self._settled.wait()
        return _returned(bool(self._info))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take frames and requests."""
        before, self._reason = self._reason, ""
        if not (self._worker and self._worker.alive):
            self._reason = self._reason or before  # the worker's, if it has just ended
            return TransitionCallbackReturn.FAILURE
        for stream in self._streams.values():
            stream.begin(self.scheduler)
        self._publish_info(DiagnosticStatus.OK, "ready", self._info)
        self.get_logger().info("active: frames and requests are taken")
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take nothing more; stop what is worked at."""
        self._pause("the node is not active")
        self._publish_info(DiagnosticStatus.WARN, "not active", self._info)
        self.get_logger().info("not active: frames are passed over, requests are refused")
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory."""
        return _returned(self._unload())

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, for good."""
        return _returned(self._unload("the node is shut down"))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, so that it can be configured again."""
        return _returned(self._unload())

    def _try_again(self) -> bool:
        """Whether the model is to be loaded once more, after a pause; in a thread of its own."""
        error, self._unreachable = self._unreachable, None
        if error is None:
            return False
        pause = PAUSES[min(self._attempts, len(PAUSES) - 1)]
        self._attempts += 1
        self._reason = f"{LOADING}: {error}; the next attempt is in {pause:g} s"
        self.get_logger().warning(self._reason)
        self._publish_info(DiagnosticStatus.WARN, self._reason, {"model": self.settings.model})
        return not self._leaving.wait(pause)

    def _pause(self, reason: str) -> None:
        self._reason = reason
        for stream in self._streams.values():
            stream.scheduler = None
        self.scheduler.forget()
        self._inquiries.refuse_all(reason)

    def _unload(self, reason: str = "the node is unconfigured") -> bool:
        self._pause(reason)
        if worker := self._worker:
            worker.close()
            if not worker.join(FREE_TIMEOUT):
                self.get_logger().error(f"the model does not stop within {FREE_TIMEOUT:g} s")
                return False
            self._worker, self._info = None, {}
            self._publish_info(
                DiagnosticStatus.WARN, "unconfigured", {"model": self.settings.model}
            )
            self.get_logger().info("the model and its memory are free")
        return True

    # Executor's thread ---------------------------------------------------------------------

    def stream_settings(self) -> Mapping[str, CameraSettings]:
        """Those of each camera by its name."""
        return {name: stream.settings for name, stream in self._streams.items()}

    def missing(self, cameras: Sequence[str]) -> str:
        """Where the cameras' frames should come from."""
        topics = (self._streams[camera] for camera in cameras)
        return "".join(
            f" on {stream.topic}, which has {stream.publishers()} publishers" for stream in topics
        )

    def defaults(self) -> CameraSettings:
        """Parameters that are no camera's own."""
        return parameters.read(self, CameraSettings)

    def _on_timer(self) -> None:
        self.settings = parameters.read(self, NodeSettings)
        self.scheduler.queue_size = self.settings.queue_size
        if reason := self._reason:  # of requests that came while it became unready
            self._inquiries.refuse_all(reason)
        self._inquiries.expire()
        if worker := self._worker:
            self._watch(worker)
        for stream in self._streams.values():
            stream.refresh()
            stream.check(loading=bool(self._reason))

    def _watch(self, worker: Worker) -> None:
        """Tell of a model that is slow or was made to do less; end with one that hangs."""
        stuck, limit = worker.stuck(), self.settings.hard_timeout
        said = f"the model has not answered for {stuck:.3g} s"
        slow = 0 < limit / 2 < stuck
        if slow and not self._slow:
            self.get_logger().warning(
                f"{said}; after {limit:g} s (hard_timeout) this process ends"
            )
        self._slow = slow
        if 0 < limit < stuck and not self.finished.done():
            self._give_up(HUNG, f"{said} (hard_timeout)")
        if (rung := worker.ladder.level.name) != self._rung:
            now = f"short of memory, the model does {rung}" if rung else "the model does all again"
            self.get_logger().warning(now)
        self._rung = rung

    def _give_up(self, code: int, reason: str) -> None:
        """End the process for what nothing else mends, and tell everybody."""
        self._reason = reason
        self.get_logger().fatal(f"{reason}; this process ends")
        self._publish_info(DiagnosticStatus.ERROR, reason, self._info)
        self._inquiries.refuse_all(reason)
        self.finished.set_result(code)

    def _listen(self) -> None:
        """End where nothing can arrive any more."""
        port = self._ports.lost()
        if port and not self.finished.done():
            self._give_up(
                CUT_OFF,
                f"{FOLDER / port} is not the file any more that this process listens on: nothing "
                "sent to it through Fast DDS's shared memory arrives",
            )

    def _diagnose(self) -> None:
        name, worker = self.get_fully_qualified_name(), self._worker
        model = diagnostics.model_status(
            name,
            self._level,
            self._message,
            self._info or {"model": self.settings.model},
            self.scheduler.waiting(),
            worker.memory if worker else 0,
            self._rung,
        )
        cameras = [
            diagnostics.camera_status(name, stream.state(), self._reason)
            for stream in self._streams.values()
        ]
        message = DiagnosticArray(status=[model, *cameras])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    # Worker's thread -----------------------------------------------------------------------

    def load(self) -> tuple[CaptionEngine, Decode]:
        """See worker.Host."""
        self._began = time.monotonic()
        engine = self._load(self.settings)
        if self.settings.warm_up:
            longest = max(stream.settings.max_new_tokens for stream in self._streams.values())
            engine.warm_up(self.settings.max_batch_size, longest)
        decoder = ImageDecoder()
        self.get_logger().info(f"images are decoded by {decoder}")
        return engine, decoder.decode

    def loaded(self, engine: CaptionEngine) -> None:
        """See worker.Host."""
        self._info = {key: str(value) for key, value in dataclasses.asdict(engine.info).items()}
        self._info["start_up"] = f"{time.monotonic() - self._began:.1f} s"
        details = ", ".join(f"{key} {value}" for key, value in self._info.items() if value)
        self.get_logger().info(f"model ready: {details}")
        if self._reason.startswith(LOADING):
            self._reason = "the node is not active"
        self._publish_info(DiagnosticStatus.WARN, "not active", self._info)
        self._settled.set()

    def standing(self, camera: str) -> Task:
        """See worker.Host."""
        return self._streams[camera].task()

    def bug(self, trace: str) -> None:
        """See worker.Host."""
        self.get_logger().error(trace, throttle_duration_sec=REPEAT_BUG)

    def paused(self) -> bool:
        """See worker.Host."""
        return bool(self._reason)

    def ended(self, error: Exception | None) -> None:
        """See worker.Host."""
        if error is None or self._leaving.is_set():
            self._settled.set()  # closed, perhaps while it was loading
            return
        if isinstance(error, UnreachableError) and self.starting:
            self._unreachable = error  # see _try_again
            self._settled.set()
            return
        reason = format_error(error)
        self._reason = reason if self._info else f"the model cannot be used: {reason}"
        self.get_logger().error(self._reason)
        if isinstance(error, ConfigError) and self.starting:
            self.mailbox.post(self.finished, 1)
        else:
            values = self._info or {"model": self.settings.model}
            self._publish_info(DiagnosticStatus.ERROR, reason, values)
        if isinstance(error, DeviceLostError):
            self.mailbox.post(self.finished, DEVICE_LOST)
        elif self._info and not isinstance(error, KosmosError):
            self.mailbox.post(self.finished, BROKEN)
        self._settled.set()

    # Any thread ----------------------------------------------------------------------------

    def unready(self) -> str:
        """Why nothing can be asked now; empty where it can."""
        return self._reason

    def _publish_info(self, level: bytes, message: str, values: dict[str, str]) -> None:
        self._level, self._message = level, message
        name, hardware = self.get_fully_qualified_name(), diagnostics.hardware(values)
        self._model_info.publish(diagnostics.status(level, name, message, hardware, values))


def _cameras(settings: NodeSettings) -> list[tuple[str, str]]:
    """Name and image topic of each camera. Raises ConfigError."""
    names, topics = settings.cameras, settings.image_topics
    if len(set(names)) < len(names):
        raise ConfigError(f"cameras {quoted(names)}: each name is needed once")
    names = names or ("",)
    if topics and len(topics) != len(names):
        raise ConfigError(
            f"{len(topics)} image_topics for {len(names)} cameras; one for each is needed, or none"
        )
    for name, topic in zip(names, topics, strict=False):
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as exc:
            reason = str(exc).partition(":\n")[0]
            raise ConfigError(
                f"image_topics: {quoted(topic)} of camera {quoted(name)}: {reason}"
            ) from exc
    topics = topics or tuple(f"{name}/image" if name else "image" for name in names)
    return list(zip(names, topics, strict=True))


def _returned(success: bool) -> TransitionCallbackReturn:
    return TransitionCallbackReturn.SUCCESS if success else TransitionCallbackReturn.FAILURE


def main(args: list[str] | None = None) -> int:
    """Run kosmos_node until SIGINT or SIGTERM."""
    return run(KosmosNode, args)


if __name__ == "__main__":
    sys.exit(main())
