# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The managed node: what each state does, and what transitions leave behind."""

import gc
import threading
import weakref

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.srv import Ask
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_harness import FakeEngine, plain_image
from rclpy.lifecycle import TransitionCallbackReturn

from kosmos_ros.errors import DeviceLostError, ModelLoadError
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.serving.availability import Phase


class Manager:
    """Changes and reads the state of a harness's node over DDS."""

    def __init__(self, harness):
        self.harness = harness
        self._change = harness.client.create_client(ChangeState, "kosmos/change_state")
        self._get = harness.client.create_client(GetState, "kosmos/get_state")

    def begin(self, label):
        self.harness.until(self._change.service_is_ready, "a managed node")
        return self._change.call_async(ChangeState.Request(transition=Transition(label=label)))

    def __call__(self, label):
        done = self.begin(label)
        self.harness.until(done.done, label)
        return done.result().success

    @property
    def state(self):
        return self.harness.spinner.call(self._get, GetState.Request()).current_state.label


@pytest.fixture
def managed(start):
    def make(**options):
        harness = start(wait=False, autostart=False, **options)
        return harness, Manager(harness)

    return make


def ask(harness):
    return harness.ask(question="What is it?", image=plain_image())


@pytest.mark.fault(64)
def test_a_manager_leads_the_node_through_its_states(managed):
    harness, manager = managed()
    assert manager.state == "unconfigured"
    assert ask(harness).message == "the node is unconfigured"
    assert manager("configure")
    assert manager.state == "inactive"
    assert ask(harness).message == "the node is not active"
    assert manager("activate")
    assert manager.state == "active"
    assert ask(harness).success
    assert manager("deactivate")
    assert ask(harness).message == "the node is not active"
    assert not harness.engine.unloaded
    assert manager("cleanup")
    assert harness.engine.unloaded
    assert manager.state == "unconfigured"
    assert ask(harness).message == "the node is unconfigured"
    assert manager("configure")
    assert manager("activate")
    assert ask(harness).success
    assert manager("shutdown")
    assert manager.state == "finalized"
    assert not ask(harness).success


def test_diagnostics_name_no_device_once_the_model_is_free(managed):
    harness, manager = managed()

    def told(message):
        latest = reports[-1].status[0] if reports else DiagnosticStatus()
        return latest.message == message and {pair.key for pair in latest.values}

    reports = harness.collect(DiagnosticArray, "/diagnostics")
    assert manager("configure")
    assert "device" in harness.until(lambda: told("not active"))
    assert manager("activate")
    assert "device" in harness.until(lambda: told("ready"))
    assert manager("deactivate")
    assert manager("cleanup")
    assert "device" not in harness.until(lambda: told("unconfigured"))


def test_a_transition_may_be_named_by_its_number(managed):
    harness, manager = managed()
    client = harness.client.create_client(ChangeState, "kosmos/change_state")
    configure = Transition(id=Transition.TRANSITION_CONFIGURE)
    assert harness.spinner.call(client, ChangeState.Request(transition=configure)).success
    assert manager.state == "inactive"


@pytest.mark.parametrize("label", ["activate", "deactivate", "cleanup", "dance"])
@pytest.mark.fault(64)
def test_a_transition_that_the_state_does_not_allow_is_refused(managed, label):
    harness, manager = managed()
    assert not manager(label)
    assert manager.state == "unconfigured"
    assert manager("configure")


@pytest.mark.fault(49)
def test_services_answer_while_the_model_loads(managed):
    loaded = threading.Event()
    engine = FakeEngine()

    def load(settings):
        assert loaded.wait(60)
        return engine

    harness, manager = managed(engine=engine, load=load)
    configured = manager.begin("configure")
    harness.until(lambda: ask(harness).message == "the model is loading")
    assert manager.state == "configuring"
    assert not configured.done()
    loaded.set()
    harness.until(configured.done)
    assert configured.result().success
    assert manager.state == "inactive"


@pytest.mark.fault(64)
def test_a_model_that_cannot_be_loaded_can_be_tried_again(managed):
    engine = FakeEngine()
    errors = [ModelLoadError("no such model")]

    def load(settings):
        if errors:
            raise errors.pop()
        return engine

    harness, manager = managed(engine=engine, load=load)
    assert not manager("configure")
    assert manager.state == "unconfigured"
    assert ask(harness).message == "the model cannot be used: no such model"
    assert manager("configure")
    assert manager("activate")
    assert ask(harness).success


@pytest.mark.fault(64)
def test_who_asks_for_a_transition_that_breaks_is_told_so(managed, monkeypatch):
    harness, manager = managed()
    monkeypatch.setattr(harness.node, "trigger_configure", {}.__getitem__)
    assert not manager("configure")
    harness.until(lambda: harness.logs("TypeError", "lifecycle.py"))
    monkeypatch.undo()
    assert manager("configure")


@pytest.mark.fault(64)
def test_a_bug_in_a_transition_is_logged_with_its_place(managed, monkeypatch):
    harness, manager = managed()
    assert manager("configure")
    monkeypatch.setattr(harness.camera, "begin", {}.__getitem__)
    assert not manager("activate")
    harness.until(lambda: harness.logs("KeyError", "node.py", "on_activate"))
    monkeypatch.undo()
    assert manager.state == "unconfigured"
    assert harness.engine.unloaded
    assert manager("configure")
    assert manager("activate")
    assert ask(harness).success


@pytest.mark.parametrize("label", ["deactivate", "shutdown"])
@pytest.mark.fault(64)
def test_a_transition_while_the_model_works_tells_who_waits(managed, label):
    harness, manager = managed()
    assert manager("configure")
    assert manager("activate")
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    request = Ask.Request(question="What is it?", image=plain_image())
    waiting = [harness.ask_client.call_async(request) for _ in range(3)]
    harness.until(
        lambda: harness.engine.stepping.is_set() and harness.node.request_services.waiting == 3
    )
    assert manager(label)
    harness.until(lambda: all(answer.done() for answer in waiting))
    reasons = {answer.result().message for answer in waiting}
    expected = "the node is not active" if label == "deactivate" else "the node is shut down"
    assert reasons == {expected}


def test_who_waits_hears_why_the_node_is_unready_also_where_the_model_stops_first(start):
    harness = start()
    harness.node.request_services.refuse_all = lambda reason: None  # too late
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    waiting = harness.ask_client.call_async(Ask.Request(question="What?", image=plain_image()))
    harness.until(harness.engine.stepping.is_set)
    harness.node.host._become(Phase.INACTIVE)
    harness.until(waiting.done)
    assert waiting.result().message == "the node is not active"


@pytest.mark.fault(64)
def test_a_hundred_cycles_leave_no_engine_and_no_thread(managed):
    engines = []

    def load(settings):
        engine = FakeEngine()
        engines.append(weakref.ref(engine))
        return engine

    harness, manager = managed(load=load)
    threads = []
    for _ in range(100):
        assert manager("configure")
        assert manager("activate")
        assert ask(harness).success
        assert manager("deactivate")
        assert manager("cleanup")
        threads.append(threading.active_count())
    gc.collect()
    assert len(engines) == 100
    assert not any(engine() for engine in engines)
    assert threads[-1] <= threads[1]


def test_an_answer_waits_for_no_wake_up_that_is_lost(managed):
    harness, manager = managed()

    class Deaf:
        def trigger(self):
            pass

    harness.node.mailbox._wake = Deaf()
    assert manager("configure")
    assert manager("activate")


def test_frames_from_before_a_pause_are_not_described_after_it(managed):
    harness, manager = managed(max_rate=0.001)
    assert manager("configure")
    assert manager("activate")
    harness.subscribe_to_captions()
    harness.send()
    harness.until(lambda: harness.captions)
    harness.send()
    harness.until(lambda: harness.node.scheduler._slots[""].pending)
    assert manager("deactivate")
    assert manager("activate")
    assert not harness.node.scheduler._slots[""].pending
    harness.send()
    harness.until(lambda: harness.node.scheduler._slots[""].pending)


def test_the_queue_is_empty_after_a_pause(managed):
    harness, manager = managed(queue_size=2)
    assert manager("configure")
    assert manager("activate")
    assert harness.ask_client.wait_for_service(10)
    waiting = [harness.ask_client.call_async(Ask.Request(question="What?")) for _ in range(2)]
    harness.until(lambda: harness.node.scheduler.waiting() == 2)
    assert manager("deactivate")
    harness.until(lambda: all(answer.done() for answer in waiting))
    assert manager("activate")
    assert harness.node.scheduler.waiting() == 0
    assert ask(harness).success
    assert len(harness.engine.prompts) == 1


@pytest.mark.fault(32)
def test_a_node_whose_device_is_lost_cannot_be_activated_again(managed):
    harness, manager = managed()
    assert manager("configure")
    assert manager("activate")
    harness.engine.errors.append(DeviceLostError("CUDA error: gone"))
    assert ask(harness).message == "CUDA error: gone"
    assert manager("deactivate")
    assert not manager("activate")
    assert not ask(harness).success
    assert not harness.engine.unloaded  # the device is left alone


def test_a_request_that_comes_while_the_node_is_cleaned_up_is_refused(managed, monkeypatch):
    """It has passed the check of the state, and finds the scheduler closed or forgotten."""
    harness, manager = managed()
    assert manager("configure")
    assert manager("activate")
    submit = harness.node.scheduler.submit

    def late(request):
        harness.node._pause(Phase.INACTIVE)
        submit(request)

    monkeypatch.setattr(harness.node.scheduler, "submit", late)
    assert harness.ask(question="What?").message == "the node is not active"


def test_a_node_destroyed_amid_a_transition_lets_it_end(ros, monkeypatch):
    begun, end, raised = threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    class Slow(ManagedNode):
        def on_configure(self, state):
            begun.set()
            end.wait()
            return TransitionCallbackReturn.SUCCESS

    node = Slow("slow")
    node.autostart(lambda: False)
    assert begun.wait(10)
    threading.Timer(0.1, end.set).start()
    node.destroy_node()
    for thread in threading.enumerate():
        if thread.name == "autostart":
            thread.join(10)
    assert not raised
