# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recovery from failures of memory, device, network and code, and exit codes where none helps."""

import signal
import sys
import threading
import weakref
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import rclpy
from conftest import Spinner
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hub_server import MODEL, Hub
from kosmos_msgs.srv import Ask
from node_harness import FakeEngine, plain_image
from programs import Program, parameters
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from stepper import Rig, Stepper

from kosmos_ros import shapes
from kosmos_ros.errors import (
    DeviceLostError,
    GenerationError,
    ModelLoadError,
    OutOfMemoryError,
    UnreachableError,
)
from kosmos_ros.kosmos2.torch_errors import translated
from kosmos_ros.ros import model_host, process
from kosmos_ros.ros import parameters as node_parameters
from kosmos_ros.serving import memory_backoff


def model_status(message):
    return next(status for status in message.status if status.name.endswith(": model"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), OutOfMemoryError),
        (RuntimeError("CUDA error: out of memory"), OutOfMemoryError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), GenerationError),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            OutOfMemoryError,
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            OutOfMemoryError,
        ),
        (RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at alloc.cpp"), OutOfMemoryError),
        (RuntimeError("NvMapMemAllocInternalTagged: 1075072515 error 12"), OutOfMemoryError),
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLostError),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLostError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLostError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), GenerationError),
    ],
)
@pytest.mark.fault(30, 31)
def test_device_errors_are_classified(error, kind):
    with (
        pytest.raises(GenerationError if kind is GenerationError else kind) as raised,
        translated("it failed"),
    ):
        raise error
    assert type(raised.value) is kind
    assert str(raised.value).startswith("it failed: ")


@pytest.mark.fault(30)
def test_batch_that_is_too_large_is_split_and_so_is_later_work():
    engine = Stepper()
    rig = Rig(engine, most=8)
    # The memory is full if a batch has more than three rows.
    engine.refuses = lambda prompts: OutOfMemoryError("full") if len(prompts) > 3 else None
    rig.ask("one", ["a", "b", "c", "d", "e", "f"], 2)

    engine.at[5] = lambda: rig.ask("two", ["g", "h", "i"], 1)
    assert rig.run(2) == ["one", "two"]
    assert rig.said == {"one": ["3"] * 6, "two": ["3"] * 3}
    sizes = [len(prompts) for prompts in engine.steps]
    assert sizes[0] == 6
    assert max(sizes[1:]) <= 4  # half of `most`, the next level of memory_backoff


@pytest.mark.fault(30)
def test_request_too_large_for_every_level_fails_and_the_next_one_succeeds():
    engine = Stepper()
    rig = Rig(engine, most=8)
    engine.refuses = lambda prompts: OutOfMemoryError("full") if "huge" in prompts else None
    rig.ask("one", ["huge"], 40)
    rig.ask("two", ["small"], 1)
    assert sorted(rig.run(2)) == ["one", "two"]
    assert rig.errors == {"one": "full"}
    assert rig.said == {"two": ["3"]}


@pytest.mark.fault(30)
def test_image_too_large_to_encode_fails_alone():
    engine = Stepper()
    rig = Rig(engine, most=4)
    engine.refuses_images = lambda images: (
        OutOfMemoryError("full") if any(image[0, 0, 0] == 9 for image in images) else None
    )
    rig.ask("huge", ["a"], 1, value=9)
    engine.at[1] = lambda: rig.ask("small", ["b"], 1)
    rig.offer("front", ["c"], 2)
    assert sorted(rig.run(3)) == ["front", "huge", "small"]
    assert rig.errors == {"huge": "full"}
    assert engine.encoded.count(1) >= 3  # each image alone, the large one twice


@pytest.mark.fault(30)
def test_interrupted_work_precedes_new_work():
    engine = Stepper()
    rig = Rig(engine, most=2)
    errors = [OutOfMemoryError("full")]
    engine.refuses = lambda prompts: errors.pop() if errors else None
    rig.ask("one", ["a"], 2)
    rig.ask("two", ["b"], 2)
    engine.at[1] = lambda: [rig.ask(name, [name], 2) for name in ("three", "four")]
    assert rig.run(4) == ["one", "two", "three", "four"]


@pytest.mark.fault(30)
def test_last_level_shortens_responses():
    engine = Stepper()
    rig = Rig(engine, most=2)
    errors = [OutOfMemoryError("full")] * 3
    engine.refuses = lambda prompts: errors.pop() if errors else None
    rig.ask("one", ["a"], 100)
    rig.run(1)
    assert rig.said == {"one": ["3"]}
    assert len(engine.steps) == 3 + memory_backoff.LEVELS[-1].tokens


@pytest.mark.fault(30)
def test_tidy_runs_after_the_error_is_released():
    """An exception keeps its stack frames alive, and they keep the tensors in memory."""

    class Tensor: ...

    held = []

    class Full(Stepper):
        def step(self):
            if not held:
                tensor = Tensor()
                held.append(weakref.ref(tensor))
                raise OutOfMemoryError("full")
            return super().step()

        def tidy(self):
            held.append(held[0]() is None)

    rig = Rig(Full())
    rig.ask("one", ["a"], 1)
    rig.run(1)
    assert held[1:] == [True]
    assert rig.said == {"one": ["3"]}


@pytest.mark.fault(30)
def test_memory_level_is_reported_and_left_after_a_quiet_time(start, monkeypatch):
    harness = start(max_rate=0)
    reports = harness.collect(DiagnosticArray, "/diagnostics")
    harness.engine.errors.append(OutOfMemoryError("generation failed: out of memory"))
    assert harness.ask(question="What is it?", image=plain_image()).success
    harness.until(lambda: harness.logs("memory is short; running at half of max_batch_size"))
    reports.clear()
    status = model_status(harness.until(lambda: reports)[0])
    assert (status.level, status.message) == (
        DiagnosticStatus.WARN,
        "memory is short: half of max_batch_size",
    )
    assert {pair.key: pair.value for pair in status.values}["short of memory"] == (
        "half of max_batch_size"
    )
    assert harness.engine.tidy_calls == 1
    monkeypatch.setattr(memory_backoff, "QUIET", 0.001)  # s; nothing else triggers the recovery
    harness.until(lambda: harness.logs("memory has recovered; running at full batch size again"))
    reports.clear()
    assert model_status(harness.until(lambda: reports)[0]).level == DiagnosticStatus.OK


@pytest.fixture
def start_broken(ros):
    """Provide a function that starts broken_node.py; it returns program, spinner, Ask client."""
    started = []

    def start(how, **values):
        program = Program(
            Path(sys.executable),
            "-u",
            Path(__file__).parents[1] / "broken_node.py",
            how,
            *parameters(**values),
        )
        client = Node("client_of_a_broken_node")
        started.append((program, client))
        spinner = Spinner(client)
        ask_client = client.create_client(Ask, "kosmos/ask")
        program.says("active: ")
        spinner.until(ask_client.service_is_ready)
        assert spinner.call(ask_client, Ask.Request(question="What?", image=plain_image())).success
        return program, spinner, ask_client

    yield start
    for program, client in started:
        with program:
            pass
        client.destroy_node()


@pytest.mark.parametrize(
    ("how", "hard_timeout", "code", "reason"),
    [
        ("lost", 60.0, 3, "CUDA error: an illegal memory access"),
        ("hangs", 5.0, 4, "the model has not responded for"),
    ],
)
@pytest.mark.fault(32, 33)
def test_broken_device_answers_every_request_and_ends_the_process(
    start_broken, how, hard_timeout, code, reason
):
    program, spinner, ask_client = start_broken(
        how, hard_timeout=hard_timeout, request_timeout=60.0
    )
    reports = []
    spinner.nodes[0].create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    spinner.until(lambda: reports)
    questions = ["What?", "Will it break?", "And now?"]
    answers = [
        ask_client.call_async(Ask.Request(question=question, image=plain_image()))
        for question in questions
    ]
    spinner.until(lambda: all(answer.done() for answer in answers))
    assert program.ends() == code, program.output
    assert not answers[1].result().success
    assert reason in answers[1].result().message
    spinner.until(lambda: model_status(reports[-1]).level == DiagnosticStatus.ERROR)
    assert reason in model_status(reports[-1]).message
    assert "Traceback" not in program.output
    if how == "hangs":
        program.says(f"this process exits after {hard_timeout:g} s (parameter hard_timeout)")


@pytest.mark.fault(33)
def test_sigalrm_ends_a_process_whose_threads_are_all_blocked(start_broken):
    program, spinner, ask_client = start_broken("holds", hard_timeout=0.0)
    ask_client.call_async(Ask.Request(question="Will it break?", image=plain_image()))
    spinner.executor.spin_once(timeout_sec=0.1)
    assert program.ends() == -signal.SIGALRM, program.output
    assert program.has("broken_node.py"), "no traceback of the threads"


@pytest.mark.parametrize(
    ("limit", "before", "patience"),
    [(0.0, 0.0, 0.0), (1.0, 600.0, 30.0), (500.0, 600.0, 500.0), (900.0, 900.0, 900.0)],
)
@pytest.mark.fault(33)
def test_patience_is_ten_minutes_while_loading_and_then_hard_timeout(
    start, limit, before, patience
):
    loaded = threading.Event()

    def load(settings):
        loaded.wait(60)
        return FakeEngine()

    harness = start(load=load, hard_timeout=limit)
    assert harness.node.patience == before
    loaded.set()
    harness.until(lambda: not harness.node.unavailable())
    assert harness.node.patience == patience


@pytest.mark.fault(33)
def test_hard_timeout_of_0_never_ends_the_process(start):
    harness = start(hard_timeout=0.0)
    harness.engine.block()
    future = harness.ask_client.call_async(Ask.Request(question="What?", image=plain_image()))
    harness.until(lambda: harness.node.host.worker.stuck() > 0.5)
    harness.engine.unblock()
    harness.until(future.done)
    assert future.result().success
    assert not harness.node.finished.done()
    harness.until(lambda: harness.node.host.worker.stuck() == 0)


@pytest.mark.fault(36)
def test_loading_is_retried_until_the_hub_responds(start, monkeypatch):
    monkeypatch.setattr(model_host, "RETRY_PAUSES", (0.3, 0.4))
    engine, online = FakeEngine(), threading.Event()

    def load(settings):
        if not online.is_set():
            raise UnreachableError("the hub does not answer")
        return engine

    harness = start(engine, load)
    prefix = "the model is loading: the hub does not answer; next attempt in"
    harness.until(lambda: harness.ask(question="What?").message.startswith(prefix))
    harness.until(lambda: harness.logs(prefix, "0.4 s"))
    online.set()
    harness.until(lambda: not harness.node.unavailable())
    assert harness.ask(question="What?", image=plain_image()).success


def test_model_info_has_the_bytes_of_a_download(client, spinner, tmp_path):
    hub = Hub()
    hub.stop_at = 1_000_000
    states = []
    every = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    client.create_subscription(DiagnosticStatus, "kosmos/model_info", states.append, every)

    def values():
        return {pair.key: pair.value for pair in states[-1].values} if states else {}

    with Program("kosmos_node", *parameters(model=MODEL), env=hub.environment(tmp_path)) as node:
        spinner.until(lambda: hub.stopped.is_set() and "downloaded (MB)" in values())
        assert values()["phase"] == "downloading"
        wanted = [path.name for path in shapes.MODEL_DIR.iterdir() if path.suffix != ".md"]
        size = sum(len(hub.files[name]) for name in wanted) / 1e6
        assert values()["download size (MB)"] == f"{size:.1f}"
        assert float(values()["downloaded (MB)"]) < size
        hub.go_on.set()
        spinner.until(lambda: states[-1].message == "ready", "a loaded model")
        node.says("model ready: ")
        assert node.output.count("model ready: ") == 1
    assert "phase" not in values()
    phases = {pair.value for state in states for pair in state.values if pair.key == "phase"}
    assert {"downloading", "warming up"} <= phases
    hub.close()


@pytest.mark.fault(36)
def test_node_can_be_shut_down_between_attempts_to_load(start, monkeypatch):
    monkeypatch.setattr(model_host, "RETRY_PAUSES", (60.0,))

    def load(settings):
        raise UnreachableError("the hub does not answer")

    harness = start(load=load)
    harness.until(lambda: "next attempt in 60 s" in harness.node.unavailable())
    assert harness.node._run_transition(harness.node.trigger_shutdown)
    assert harness.ask(question="What?").message == "the node is shut down"
    assert harness.node.stop(10)


@pytest.mark.fault(36)
def test_configure_by_a_manager_fails_without_retries(start):
    attempts = []

    def load(settings):
        attempts.append(1)
        raise UnreachableError("the hub does not answer")

    harness = start(load=load, autostart=False)
    assert not harness.node._run_transition(harness.node.trigger_configure)
    assert attempts == [1]
    response = harness.ask(question="What?")
    assert response.message == "the model cannot be used: the hub does not answer"


@pytest.mark.fault(36)
def test_configure_after_a_failed_start_fails_without_retries(start):
    errors = [UnreachableError("the hub does not answer"), ModelLoadError("the disk is full")]

    def load(settings):
        raise errors.pop()

    harness = start(load=load)
    prefix = "the model cannot be used: "
    harness.until(lambda: harness.ask(question="What?").message == f"{prefix}the disk is full")
    harness.until(lambda: not harness.node.starting)
    assert not harness.node._run_transition(harness.node.trigger_configure)
    assert harness.ask(question="What?").message == f"{prefix}the hub does not answer"


@pytest.mark.fault(59)
def test_bug_in_a_parameter_check_refuses_the_change(start, monkeypatch):
    harness = start()
    setting = harness.client.create_client(SetParameters, "kosmos/set_parameters")
    change = SetParameters.Request(
        parameters=[Parameter("max_rate", value=2.0).to_parameter_msg()]
    )
    validated = node_parameters.validated

    def bug(field, value, prefix=""):
        return 1 // 0 if value == 2.0 else validated(field, value, prefix)

    monkeypatch.setattr(node_parameters, "validated", bug)
    (result,) = harness.spinner.call(setting, change).results
    assert not result.successful
    assert result.reason.startswith("ZeroDivisionError: ")
    monkeypatch.undo()
    assert harness.spinner.call(setting, change).results[0].successful


@pytest.mark.fault(29)
def test_bug_in_a_request_is_returned_and_logged(start, monkeypatch):
    harness = start()

    def bug(*_):
        raise LookupError("a bug")

    monkeypatch.setattr(harness.node.request_services, "_message", bug)
    response = harness.ask(question="What?", image=plain_image())
    assert (response.success, response.message) == (False, "LookupError: a bug")
    harness.until(lambda: harness.logs("a request failed: LookupError: a bug"))
    monkeypatch.undo()
    assert harness.ask(question="What?", image=plain_image()).success


@pytest.mark.fault(29)
def test_bug_in_the_engine_is_logged_with_its_traceback(start):
    harness = start()
    harness.engine.errors.append(LookupError("a bug"))
    response = harness.ask(question="What?", image=plain_image())
    assert (response.success, response.message) == (False, "LookupError: a bug")
    harness.until(lambda: harness.logs("Traceback", "node_harness.py", "LookupError: a bug"))


@pytest.mark.fault(29)
def test_bug_in_the_worker_ends_the_node_with_exit_code_5(start, monkeypatch):
    harness = start()

    def bug(work, frame):
        raise LookupError("a bug")

    monkeypatch.setattr(harness.node.host.worker, "_begin", bug)
    response = harness.ask(question="What?", image=plain_image())
    assert not response.success
    harness.until(harness.node.finished.done)
    assert harness.node.finished.result() == 5
    assert harness.ask(question="And now?", image=plain_image()).message == "LookupError: a bug"


@pytest.mark.fault(29)
def test_bug_in_a_callback_does_not_end_the_process(ros, monkeypatch):
    """rclpy lets the exception of a callback leave the executor."""

    class Buggy(Node):
        def __init__(self):
            super().__init__("buggy")
            self.finished = Future()
            self.create_timer(0.01, self.tick)
            self.ticks = 0

        def tick(self):
            self.ticks += 1
            if self.ticks == 1:
                raise LookupError("a bug")
            if self.ticks == 20:
                self.finished.set_result(7)

        def stop(self, timeout):
            return True

    monkeypatch.setattr(process.rclpy, "init", lambda **_: None)
    monkeypatch.setattr(process.rclpy, "shutdown", lambda **_: None)
    monkeypatch.setattr(process, "_start_reading", lambda *_: None)
    for name in ("signal", "setitimer", "set_wakeup_fd"):
        monkeypatch.setattr(process.signal, name, lambda *_, **__: None)
    assert process.run(Buggy, []) == 7
    assert rclpy.ok()
