# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The managed node: what each state does, and what transitions leave behind."""

import gc
import threading
import weakref

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from desk import FakeEngine, picture
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.srv import Ask
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn

from kosmos_ros.errors import DeviceLostError, ModelLoadError
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.serving.availability import Phase


class Manager:
    """Changes and reads the state of a desk's node over DDS."""

    def __init__(self, desk):
        self.desk = desk
        self._change = desk.client.create_client(ChangeState, "kosmos/change_state")
        self._get = desk.client.create_client(GetState, "kosmos/get_state")

    def begin(self, label):
        self.desk.until(self._change.service_is_ready, "a managed node")
        return self._change.call_async(ChangeState.Request(transition=Transition(label=label)))

    def __call__(self, label):
        done = self.begin(label)
        self.desk.until(done.done, label)
        return done.result().success

    @property
    def state(self):
        return self.desk.bench.call(self._get, GetState.Request()).current_state.label


@pytest.fixture
def managed(start):
    def make(**options):
        desk = start(wait=False, autostart=False, **options)
        return desk, Manager(desk)

    return make


def ask(desk):
    return desk.ask(question="What is it?", image=picture())


@pytest.mark.fault(64)
def test_a_manager_leads_the_node_through_its_states(managed):
    desk, manager = managed()
    assert manager.state == "unconfigured"
    assert ask(desk).message == "the node is unconfigured"
    assert manager("configure")
    assert manager.state == "inactive"
    assert ask(desk).message == "the node is not active"
    assert manager("activate")
    assert manager.state == "active"
    assert ask(desk).success
    assert manager("deactivate")
    assert ask(desk).message == "the node is not active"
    assert not desk.engine.unloaded
    assert manager("cleanup")
    assert desk.engine.unloaded
    assert manager.state == "unconfigured"
    assert ask(desk).message == "the node is unconfigured"
    assert manager("configure")
    assert manager("activate")
    assert ask(desk).success
    assert manager("shutdown")
    assert manager.state == "finalized"
    assert not ask(desk).success


def test_diagnostics_name_no_device_once_the_model_is_free(managed):
    desk, manager = managed()
    reports = []

    def told(message):
        latest = reports[-1].status[0] if reports else DiagnosticStatus()
        return latest.message == message and {pair.key for pair in latest.values}

    desk.client.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    assert manager("configure")
    assert "device" in desk.until(lambda: told("not active"))
    assert manager("activate")
    assert "device" in desk.until(lambda: told("ready"))
    assert manager("deactivate")
    assert manager("cleanup")
    assert "device" not in desk.until(lambda: told("unconfigured"))


def test_a_transition_may_be_named_by_its_number(managed):
    desk, manager = managed()
    client = desk.client.create_client(ChangeState, "kosmos/change_state")
    configure = Transition(id=Transition.TRANSITION_CONFIGURE)
    assert desk.bench.call(client, ChangeState.Request(transition=configure)).success
    assert manager.state == "inactive"


@pytest.mark.parametrize("label", ["activate", "deactivate", "cleanup", "dance"])
@pytest.mark.fault(64)
def test_a_transition_that_the_state_does_not_allow_is_refused(managed, label):
    desk, manager = managed()
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

    desk, manager = managed(engine=engine, load=load)
    configured = manager.begin("configure")
    desk.until(lambda: ask(desk).message == "the model is loading")
    assert manager.state == "configuring"
    assert not configured.done()
    loaded.set()
    desk.until(configured.done)
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

    desk, manager = managed(engine=engine, load=load)
    assert not manager("configure")
    assert manager.state == "unconfigured"
    assert ask(desk).message == "the model cannot be used: no such model"
    assert manager("configure")
    assert manager("activate")
    assert ask(desk).success


@pytest.mark.fault(64)
def test_who_asks_for_a_transition_that_breaks_is_told_so(managed, monkeypatch):
    desk, manager = managed()
    monkeypatch.setattr(desk.node, "trigger_configure", {}.__getitem__)
    assert not manager("configure")
    desk.until(lambda: desk.logs("TypeError", "lifecycle.py"))
    monkeypatch.undo()
    assert manager("configure")


@pytest.mark.fault(64)
def test_a_bug_in_a_transition_is_logged_with_its_place(managed, monkeypatch):
    desk, manager = managed()
    assert manager("configure")
    monkeypatch.setattr(desk.camera, "begin", {}.__getitem__)
    assert not manager("activate")
    desk.until(lambda: desk.logs("KeyError", "node.py", "on_activate"))
    monkeypatch.undo()
    assert manager.state == "unconfigured"
    assert desk.engine.unloaded
    assert manager("configure")
    assert manager("activate")
    assert ask(desk).success


@pytest.mark.parametrize("label", ["deactivate", "shutdown"])
@pytest.mark.fault(64)
def test_a_transition_while_the_model_works_tells_who_waits(managed, label):
    desk, manager = managed()
    assert manager("configure")
    assert manager("activate")
    desk.engine.free.clear()
    assert desk.asking.wait_for_service(10)
    request = Ask.Request(question="What is it?", image=picture())
    waiting = [desk.asking.call_async(request) for _ in range(3)]
    desk.until(lambda: desk.engine.busy.is_set() and desk.node.request_services.waiting == 3)
    assert manager(label)
    desk.until(lambda: all(answer.done() for answer in waiting))
    reasons = {answer.result().message for answer in waiting}
    expected = "the node is not active" if label == "deactivate" else "the node is shut down"
    assert reasons == {expected}


def test_who_waits_hears_why_the_node_is_unready_also_where_the_model_stops_first(start):
    desk = start()
    desk.node.request_services.refuse_all = lambda reason: None  # too late
    desk.engine.free.clear()
    assert desk.asking.wait_for_service(10)
    waiting = desk.asking.call_async(Ask.Request(question="What?", image=picture()))
    desk.until(desk.engine.busy.is_set)
    desk.node.host._become(Phase.INACTIVE)
    desk.until(waiting.done)
    assert waiting.result().message == "the node is not active"


@pytest.mark.fault(64)
def test_a_hundred_cycles_leave_no_engine_and_no_thread(managed):
    engines = []

    def load(settings):
        engine = FakeEngine()
        engines.append(weakref.ref(engine))
        return engine

    desk, manager = managed(load=load)
    threads = []
    for _ in range(100):
        assert manager("configure")
        assert manager("activate")
        assert ask(desk).success
        assert manager("deactivate")
        assert manager("cleanup")
        threads.append(threading.active_count())
    gc.collect()
    assert len(engines) == 100
    assert not any(engine() for engine in engines)
    assert threads[-1] <= threads[1]


def test_an_answer_waits_for_no_wake_up_that_is_lost(managed):
    desk, manager = managed()

    class Deaf:
        def trigger(self):
            pass

    desk.node.mailbox._wake = Deaf()
    assert manager("configure")
    assert manager("activate")


def test_frames_from_before_a_pause_are_not_described_after_it(managed):
    desk, manager = managed(max_rate=0.001)
    assert manager("configure")
    assert manager("activate")
    desk.listen()
    desk.send()
    desk.until(lambda: desk.captions)
    desk.send()
    desk.until(lambda: desk.node.scheduler._slots[""].pending)
    assert manager("deactivate")
    assert manager("activate")
    assert not desk.node.scheduler._slots[""].pending
    desk.send()
    desk.until(lambda: desk.node.scheduler._slots[""].pending)


def test_the_queue_is_empty_after_a_pause(managed):
    desk, manager = managed(queue_size=2)
    assert manager("configure")
    assert manager("activate")
    assert desk.asking.wait_for_service(10)
    waiting = [desk.asking.call_async(Ask.Request(question="What?")) for _ in range(2)]
    desk.until(lambda: desk.node.scheduler.waiting() == 2)
    assert manager("deactivate")
    desk.until(lambda: all(answer.done() for answer in waiting))
    assert manager("activate")
    assert desk.node.scheduler.waiting() == 0
    assert ask(desk).success
    assert len(desk.engine.prompts) == 1


@pytest.mark.fault(32)
def test_a_node_whose_device_is_lost_cannot_be_activated_again(managed):
    desk, manager = managed()
    assert manager("configure")
    assert manager("activate")
    desk.engine.errors.append(DeviceLostError("CUDA error: gone"))
    assert ask(desk).message == "CUDA error: gone"
    assert manager("deactivate")
    assert not manager("activate")
    assert not ask(desk).success
    assert not desk.engine.unloaded  # the device is left alone


def test_a_request_that_comes_while_the_node_is_cleaned_up_is_refused(managed, monkeypatch):
    """It has passed the check of the state, and finds the scheduler closed or forgotten."""
    desk, manager = managed()
    assert manager("configure")
    assert manager("activate")
    submit = desk.node.scheduler.submit

    def late(request):
        desk.node._pause(Phase.INACTIVE)
        submit(request)

    monkeypatch.setattr(desk.node.scheduler, "submit", late)
    assert desk.ask(question="What?").message == "the node is not active"


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
