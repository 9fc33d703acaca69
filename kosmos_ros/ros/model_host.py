# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Load, watch and free the model, and keep its state.

Knows the worker and its thread; no topic, no service and no lifecycle state.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kosmos_ros.entry import BAD_PARAMETER, BROKEN, DEVICE_LOST, ENVIRONMENT, HUNG, trouble
from kosmos_ros.errors import ConfigError, DeviceLostError, KosmosError, UnreachableError
from kosmos_ros.kosmos2.importing import import_engine
from kosmos_ros.kosmos2.progress import IMPORTING, WARMING_UP, Report, unreported
from kosmos_ros.ros.bridge import ImageDecoder
from kosmos_ros.sanitize import format_error
from kosmos_ros.serving.availability import REASONS, Availability, Phase
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Scheduler
from kosmos_ros.serving.work import Deliver, Work
from kosmos_ros.serving.worker import CaptionEngine, Decode, Worker

RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds between attempts to load a model whose download failed. The last value repeats."""
REPORT_PERIOD = 0.5  # s between two reports of the same phase of loading
REPEAT_BUG = 5.0  # s between two log messages about unexpected errors
FREE_TIMEOUT = 30.0  # s for the worker to end; the model stops within one pass


def load_engine(settings: NodeSettings, report: Report = unreported) -> CaptionEngine:
    """Load the engine that the parameters name. Raises ConfigError or ModelLoadError."""
    # Importing torch takes seconds. Services already respond meanwhile that the model is loading.
    report(IMPORTING, 0, 0)
    return import_engine().load(
        settings.model,
        revision=settings.revision,
        local_files_only=settings.local_files_only,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        threads=settings.threads,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        location_grammar=settings.location_grammar,
        refine_boxes=settings.refine_boxes,
        ngrams=True,
        report=report,
    )


class Owner(Protocol):
    """The members of the node that the host uses, from any thread."""

    @property
    def settings(self) -> NodeSettings: ...

    starting: bool  # autostart is in progress

    def get_logger(self) -> Any: ...

    def longest_caption(self) -> int:
        """Return the largest max_new_tokens of all cameras."""

    def frame_work(self, camera: str) -> Work:
        """Return the work for a camera's newest frame."""

    def on_availability(self, availability: Availability) -> None:
        """Publish the state of the model. Called once for each change, in order."""

    def exit(self, code: int) -> None:
        """End the process with this exit code."""


class ModelHost:
    """The model of a node, from its loading to its end. `load` replaces `load_engine`."""

    def __init__(
        self,
        owner: Owner,
        load: Callable[[NodeSettings], CaptionEngine] | None,
        deliver: Deliver,
    ) -> None:
        self._owner = owner
        self._load = load or functools.partial(load_engine, report=self.report)
        self._reported = ("", float("-inf"))  # the phase of loading, and its time in s, monotonic
        self._deliver = deliver
        self.scheduler = Scheduler()
        self.worker: Worker | None = None
        self._engine: CaptionEngine | None = None  # while it is loaded, for `check_prompts`
        phase = Phase.LOADING if owner.settings.autostart else Phase.UNCONFIGURED
        self.availability = Availability(phase, REASONS[phase])
        self._lock = threading.Lock()  # keeps changes of `availability` in order
        self._loaded = False  # the model was there, even if an error has ended it
        self._settled = threading.Event()  # loading has succeeded or failed
        self._shutting_down = threading.Event()
        self._unreachable: UnreachableError | None = None  # why the last download failed
        self._attempts = 0  # retries of loading
        self._level = ""  # the level of the memory back-off that was last logged
        self._slow = False  # a warning about a slow model was logged
        self._given_up = False

    @property
    def settings(self) -> NodeSettings:
        """The node's parameters."""
        return self._owner.settings

    @property
    def settled(self) -> bool:
        """Whether loading has succeeded or failed."""
        return self._settled.is_set()

    @property
    def memory(self) -> int:
        """Bytes of device memory in use."""
        worker = self.worker
        return worker.memory if worker else 0

    @property
    def backoff_level(self) -> str:
        """The name of the limit that applies because memory was short; empty: none."""
        worker = self.worker
        return worker.backoff.level.name if worker else ""

    # Transitions, each in its own thread -----------------------------------------------------

    def configure(self) -> bool:
        """Load the model. Return whether it is loaded."""
        self._settled.clear()
        self._unreachable, self._level, self._loaded = None, "", False
        self._become(Phase.LOADING, info={})
        self._reported = ("", float("-inf"))
        self.scheduler = Scheduler(self.settings.queue_size)
        try:
            self.worker = Worker(self.scheduler, self, self._deliver)
        except RuntimeError as exc:  # the system cannot start a thread
            self.ended(exc)
            return False
        if self._shutting_down.is_set():  # `begin_shutdown` was called before there was a worker
            self.worker.close()
            self._settled.set()
        self._settled.wait()
        return self._loaded and self.availability.phase is not Phase.FAILED

    def activate(self) -> bool:
        """Start to accept requests and frames. Return False if no model is loaded."""
        if not (self.worker and self.worker.alive):
            return False
        return self._become(Phase.READY)

    def pause(self, phase: Phase) -> None:
        """Stop generation, and remove waiting frames and requests."""
        if phase is not Phase.INACTIVE:
            self._engine = None
        self._become(phase, info=None if phase is Phase.INACTIVE else {})
        self.scheduler.forget()

    def unload(self) -> bool:
        """Free the model and its memory. Return False if it does not stop in time."""
        if worker := self.worker:
            worker.close()
            if not worker.join(FREE_TIMEOUT):
                self._owner.get_logger().error(
                    f"the model has not stopped within {FREE_TIMEOUT:g} s, so its memory is "
                    "not freed; restart the node to free it"
                )
                return False
            self.worker = None
            self._owner.get_logger().info("the model is unloaded and its memory is freed")
        return True

    def wait_to_retry(self) -> bool:
        """Wait after a failed download. Return whether to load the model again."""
        error, self._unreachable = self._unreachable, None
        if error is None:
            return False
        pause = RETRY_PAUSES[min(self._attempts, len(RETRY_PAUSES) - 1)]
        self._attempts += 1
        reason = f"{REASONS[Phase.LOADING]}: {error}; next attempt in {pause:g} s"
        self._owner.get_logger().warning(reason)
        self._become(Phase.LOADING, reason)
        return not self._shutting_down.wait(pause)

    # Executor's thread ---------------------------------------------------------------------

    def check_prompts(self, field: dataclasses.Field[Any], value: Any) -> None:
        """Raise PromptError if `value` has a text that is too long for the loaded model."""
        engine, make_prompt = self._engine, field.metadata["prompt"]
        if engine and make_prompt:
            for text in (value,) if isinstance(value, str) else value:
                if text:
                    engine.check(make_prompt(text).text)

    def watch(self) -> None:
        """Log a model that is slow or short of memory; end the process if it hangs."""
        worker = self.worker
        if not worker:
            return
        stuck, limit = worker.stuck(), self.settings.hard_timeout
        text = f"the model has not responded for {stuck:.3g} s"
        slow = 0 < limit / 2 < stuck
        if slow and not self._slow:
            self._owner.get_logger().warning(
                f"{text}; this process exits after {limit:g} s (parameter hard_timeout)"
            )
        self._slow = slow
        if 0 < limit < stuck:
            self.give_up(HUNG, f"{text} (parameter hard_timeout)")
        if (level := self.backoff_level) != self._level:
            self._owner.get_logger().warning(
                f"memory is short; running at {level}"
                if level
                else "memory has recovered; running at full batch size again"
            )
        self._level = level

    def give_up(self, code: int, reason: str) -> None:
        """End the process because of a failure that only a restart repairs."""
        if self._given_up:
            return
        self._given_up = True
        self._become(Phase.FAILED, reason)
        self._owner.get_logger().fatal(f"{reason}; this process exits with code {code}")
        self._owner.exit(code)

    def begin_shutdown(self, reason: str) -> None:
        """Start to shut down: accept no more work, and stop the worker."""
        self._shutting_down.set()
        self._become(Phase.ENDED, reason)
        if worker := self.worker:  # a transition may set self.worker to None meanwhile
            worker.close()
        self._settled.set()  # a transition must not wait for the end of loading

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds. Return whether the worker has ended."""
        worker = self.worker
        return not worker or worker.join(timeout)

    # Worker's thread: see worker.Host ------------------------------------------------------

    def load(self) -> tuple[CaptionEngine, Decode]:
        """Load the engine and warm it up."""
        began = time.monotonic()
        engine = self._load(self.settings)
        if self.settings.warm_up:
            self.report(WARMING_UP, 0, 0)
            engine.warm_up(self.settings.max_batch_size, self._owner.longest_caption())
        decoder = ImageDecoder(self._owner.get_logger().warning)
        self._owner.get_logger().info(f"images are decoded by {decoder}")
        self._start_up = time.monotonic() - began
        return engine, lambda message, most: decoder.decode(
            message, most, self.settings.stretch_mono16
        )

    def report(self, phase: str, done: int, total: int) -> None:
        """Publish the phase of loading, and the bytes of a download. See progress.Report."""
        now, (known, reported_at) = time.monotonic(), self._reported
        if phase == known and now < reported_at + REPORT_PERIOD:
            return
        self._reported = phase, now
        progress = {"phase": phase}
        if total:
            progress["downloaded (MB)"] = f"{done / 1e6:.1f}"
            progress["download size (MB)"] = f"{total / 1e6:.1f}"
        self._replace(lambda before: before.at(progress))

    def loaded(self, engine: CaptionEngine) -> None:
        """Log and publish the details of the loaded engine."""
        info = {key: str(value) for key, value in dataclasses.asdict(engine.info).items()}
        info["start_up"] = f"{self._start_up:.1f} s"
        details = ", ".join(f"{key} {value}" for key, value in info.items() if value)
        self._owner.get_logger().info(f"model ready: {details}")
        self._engine, self._loaded = engine, True
        self._become(Phase.INACTIVE, info=info)
        self._settled.set()

    def frame_work(self, camera: str) -> Work:
        """Return the work for a camera's newest frame."""
        return self._owner.frame_work(camera)

    def paused(self) -> bool:
        """Return whether generation must stop."""
        return not self.availability.ready

    def log_bug(self, traceback: str) -> None:
        """Log an unexpected error."""
        self._owner.get_logger().error(traceback, throttle_duration_sec=REPEAT_BUG)

    def ended(self, error: Exception | None) -> None:
        """Publish why the worker has ended. End the process if only a restart helps."""
        self._engine = None
        if error is not None and not self._shutting_down.is_set():
            if isinstance(error, UnreachableError) and self._owner.starting:
                self._unreachable = error  # see wait_to_retry
            else:
                self._fail(error)
        self._settled.set()

    def _fail(self, error: Exception) -> None:
        ours = isinstance(error, KosmosError)
        reason = (not ours and trouble(error)) or format_error(error)
        if not self._loaded:
            reason = f"the model cannot be used: {reason}"
        self._owner.get_logger().error(reason)
        if self._owner.starting and (code := _final(error)):
            self._owner.exit(code)  # before others can react to a failed model
            return
        self._become(Phase.FAILED, reason)
        if isinstance(error, DeviceLostError):
            self._owner.exit(DEVICE_LOST)
        elif self._loaded and not isinstance(error, KosmosError):
            self._owner.exit(BROKEN)

    def _become(
        self, phase: Phase, reason: str = "", info: Mapping[str, str] | None = None
    ) -> bool:
        """Publish the next availability. Return whether it has changed."""
        return self._replace(lambda before: before.followed_by(phase, reason, info))

    def _replace(self, change: Callable[[Availability], Availability]) -> bool:
        """Replace and publish the availability. Return whether it has changed."""
        with self._lock:
            before = self.availability
            self.availability = change(before)
            if self.availability is not before:
                self._owner.on_availability(self.availability)
            return self.availability is not before


def _final(error: Exception) -> int:
    """Return the exit code if an error must end the node while it starts, otherwise 0.

    A ModelLoadError does not end the node, so that clients can read the reason.
    """
    if isinstance(error, ConfigError):
        return BAD_PARAMETER
    return ENVIRONMENT if trouble(error) and not isinstance(error, KosmosError) else 0
