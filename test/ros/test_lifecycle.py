# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lifecycle states and transitions of the running node, with a fake engine."""

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
from rclpy.qos import QoSProfile

from kosmos_ros.errors import DeviceLostError, ModelLoadError
from kosmos_ros.ros.lifecycle import MAX_WAITING, ManagedNode
from kosmos_ros.serving.availability import Phase


class Manager:
    """A lifecycle manager: it changes and reads the state of the node over DDS."""

    def __init__(self, harness):
        self.harness = harness
        self._change = harness.client.create_client(
            ChangeState, "kosmos/change_state", qos_profile=QoSProfile(depth=1000)
        )
        self._get = harness.client.create_client(GetState, "kosmos/get_state")

    def request(self, label):
        self.harness.until(self._change.service_is_ready, "the service change_state")
        return self._change.call_async(ChangeState.Request(transition=Transition(label=label)))

    def __call__(self, label):
        future = self.request(label)
        self.harness.until(future.done, label)
        return future.result().success

    @property
    def state(self):
        return self.harness.spinner.call(self._get, GetState.Request()).current_state.label


@pytest.fixture
def start_managed(start):
    def make(**options):
        harness = start(wait=False, autostart=False, **options)
        return harness, Manager(harness)

    return make


def ask(harness):
    return harness.ask(question="What is it?", image=plain_image())


@pytest.mark.fault(64)
def test_manager_leads_the_node_through_all_states(start_managed):
    harness, manager = start_managed()
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


def test_diagnostics_name_no_device_after_cleanup(start_managed):
    harness, manager = start_managed()

    def keys(message):
        """Return the keys of the latest status if it has this message."""
        latest = reports[-1].status[0] if reports else DiagnosticStatus()
        return latest.message == message and {pair.key for pair in latest.values}

    reports = harness.collect(DiagnosticArray, "/diagnostics")
    assert manager("configure")
    assert "device" in harness.until(lambda: keys("not active"))
    assert manager("activate")
    assert "device" in harness.until(lambda: keys("ready"))
    assert manager("deactivate")
    assert manager("cleanup")
    assert "device" not in harness.until(lambda: keys("unconfigured"))


def test_transition_may_be_requested_by_its_id(start_managed):
    harness, manager = start_managed()
    client = harness.client.create_client(ChangeState, "kosmos/change_state")
    configure = Transition(id=Transition.TRANSITION_CONFIGURE)
    assert harness.spinner.call(client, ChangeState.Request(transition=configure)).success
    assert manager.state == "inactive"


@pytest.mark.parametrize("label", ["activate", "deactivate", "cleanup", "dance"])
@pytest.mark.fault(64)
def test_invalid_transition_is_refused(start_managed, label):
    harness, manager = start_managed()
    assert not manager(label)
    assert manager.state == "unconfigured"
    assert manager("configure")


@pytest.mark.fault(49)
def test_services_respond_while_the_model_loads(start_managed):
    loaded = threading.Event()
    engine = FakeEngine()

    def load(settings):
        assert loaded.wait(60)
        return engine

    harness, manager = start_managed(engine=engine, load=load)
    configured = manager.request("configure")
    harness.until(lambda: ask(harness).message == "the model is loading")
    assert manager.state == "configuring"
    assert not configured.done()
    loaded.set()
    harness.until(configured.done)
    assert configured.result().success
    assert manager.state == "inactive"


@pytest.mark.fault(64)
def test_configure_can_be_repeated_after_loading_fails(start_managed):
    engine = FakeEngine()
    errors = [ModelLoadError("no such model")]

    def load(settings):
        if errors:
            raise errors.pop()
        return engine

    harness, manager = start_managed(engine=engine, load=load)
    assert not manager("configure")
    assert manager.state == "unconfigured"
    assert ask(harness).message == "the model cannot be used: no such model"
    assert manager("configure")
    assert manager("activate")
    assert ask(harness).success


@pytest.mark.fault(64)
def test_transition_that_raises_is_reported_as_failed(start_managed, monkeypatch):
    harness, manager = start_managed()
    monkeypatch.setattr(harness.node, "trigger_configure", {}.__getitem__)
    assert not manager("configure")
    harness.until(lambda: harness.logs("TypeError", "lifecycle.py"))
    monkeypatch.undo()
    assert manager("configure")


@pytest.mark.fault(64)
def test_exception_in_a_transition_is_logged_with_its_traceback(start_managed, monkeypatch):
    harness, manager = start_managed()
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
def test_transition_answers_every_waiting_request(start_managed, label):
    harness, manager = start_managed()
    assert manager("configure")
    assert manager("activate")
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    request = Ask.Request(question="What is it?", image=plain_image())
    futures = [harness.ask_client.call_async(request) for _ in range(3)]
    harness.until(
        lambda: harness.engine.stepping.is_set() and harness.node.request_services.waiting == 3
    )
    assert manager(label)
    harness.until(lambda: all(future.done() for future in futures))
    reasons = {future.result().message for future in futures}
    expected = "the node is not active" if label == "deactivate" else "the node is shut down"
    assert reasons == {expected}


def test_request_gets_the_reason_even_if_the_model_stops_first(start):
    harness = start()
    harness.node.request_services.refuse_all = lambda reason: None  # as if it came too late
    harness.engine.block()
    assert harness.ask_client.wait_for_service(10)
    future = harness.ask_client.call_async(Ask.Request(question="What?", image=plain_image()))
    harness.until(harness.engine.stepping.is_set)
    harness.node.host._become(Phase.INACTIVE)
    harness.until(future.done)
    assert future.result().message == "the node is not active"


@pytest.mark.fault(64)
def test_hundred_cycles_leave_no_engine_and_no_thread(start_managed):
    engines = []

    def load(settings):
        engine = FakeEngine()
        engines.append(weakref.ref(engine))
        return engine

    harness, manager = start_managed(load=load)
    for cycle in range(100):
        assert manager("configure")
        assert manager("activate")
        assert ask(harness).success
        assert manager("deactivate")
        assert manager("cleanup")
        if cycle == 1:
            threads = threading.active_count()
    gc.collect()
    assert len(engines) == 100
    assert not any(engine() for engine in engines)
    harness.until(lambda: threading.active_count() <= threads, "the end of the threads")


def test_lost_wake_up_delays_no_response(start_managed):
    harness, manager = start_managed()

    class LostWakeUp:
        def trigger(self):
            pass

    harness.node.mailbox._wake = LostWakeUp()
    assert manager("configure")
    assert manager("activate")


def test_frames_from_before_a_pause_are_dropped(start_managed):
    harness, manager = start_managed(max_rate=0.001)
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


def test_queue_is_empty_after_a_pause(start_managed):
    harness, manager = start_managed(queue_size=2)
    assert manager("configure")
    assert manager("activate")
    assert harness.ask_client.wait_for_service(10)
    futures = [harness.ask_client.call_async(Ask.Request(question="What?")) for _ in range(2)]
    harness.until(lambda: harness.node.scheduler.waiting() == 2)
    assert manager("deactivate")
    harness.until(lambda: all(future.done() for future in futures))
    assert manager("activate")
    assert harness.node.scheduler.waiting() == 0
    assert ask(harness).success
    assert len(harness.engine.prompts) == 1


@pytest.mark.fault(32)
def test_node_with_a_lost_device_cannot_be_activated(start_managed):
    harness, manager = start_managed()
    assert manager("configure")
    assert manager("activate")
    harness.engine.errors.append(DeviceLostError("CUDA error: gone"))
    assert ask(harness).message == "CUDA error: gone"
    harness.until(lambda: not harness.node.host.worker.alive)
    assert manager("deactivate")
    assert not manager("activate")
    assert not ask(harness).success
    assert not harness.engine.unloaded  # a lost device is not used again


def test_request_during_a_transition_is_refused(start_managed, monkeypatch):
    """The request passes the check of the state; then the scheduler closes."""
    harness, manager = start_managed()
    assert manager("configure")
    assert manager("activate")
    submit = harness.node.scheduler.submit

    def late(request):
        harness.node._pause(Phase.INACTIVE)
        submit(request)

    monkeypatch.setattr(harness.node.scheduler, "submit", late)
    assert harness.ask(question="What?").message == "the node is not active"


@pytest.fixture
def slow(ros, monkeypatch):
    """Provide a node, and the events of the begin and the end of its on_configure."""
    begun, end, crashes = threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", crashes.append)

    class Slow(ManagedNode):
        def on_configure(self, state):
            begun.set()
            end.wait()
            return TransitionCallbackReturn.SUCCESS

    yield Slow("slow"), begun, end
    assert not crashes


def test_destroying_the_node_lets_a_transition_end(slow):
    node, begun, end = slow
    node.autostart(lambda: False)
    assert begun.wait(10)
    threading.Timer(0.1, end.set).start()
    node.destroy_node()
    for thread in threading.enumerate():
        if thread.name == "autostart":
            thread.join(10)


@pytest.fixture
def loading(start_managed):
    """Provide a node that loads until `end.set()`: harness, manager, end."""
    end, engine = threading.Event(), FakeEngine()

    def load(settings):
        assert end.wait(60)
        return engine

    harness, manager = start_managed(engine=engine, load=load)
    yield harness, manager, end
    end.set()


@pytest.mark.fault(80)
def test_flood_of_transitions_makes_one_thread(loading):
    """Each request that waits for the running transition could have its own thread."""
    harness, manager, end = loading
    configured = manager.request("configure")
    harness.until(lambda: manager.state == "configuring")
    harness.until(lambda: harness.node.host.worker, "the thread of the model")
    before = threading.active_count()
    waiting = [manager.request("cleanup") for _ in range(MAX_WAITING)]
    harness.until(lambda: len(harness.node._requested) == MAX_WAITING)
    assert not any(manager("cleanup") for _ in range(200))
    assert harness.until(
        lambda: harness.logs("the transition cleanup is refused: configure is running")
    ).endswith("and 8 others wait; try again later")
    assert threading.active_count() <= before
    end.set()
    harness.until(lambda: all(future.done() for future in (configured, *waiting)))
    assert configured.result().success
    assert sum(future.result().success for future in waiting) == 1  # one cleanup has an effect
    assert manager.state == "unconfigured"
    assert manager("configure")


def test_transitions_run_in_the_order_of_their_requests(loading):
    harness, manager, end = loading
    order = ["configure", "activate", "deactivate", "activate", "deactivate", "cleanup"]
    requested = [manager.request(label) for label in order]
    harness.until(lambda: len(harness.node._requested) == len(order) - 1)
    end.set()
    harness.until(lambda: all(future.done() for future in requested))
    assert all(future.result().success for future in requested)
    assert manager.state == "unconfigured"


@pytest.mark.fault(84)
def test_a_lack_of_threads_refuses_one_transition_and_not_the_next_ones(
    start_managed, monkeypatch
):
    def start(thread):
        raise RuntimeError("can't start new thread")

    harness, manager = start_managed()
    monkeypatch.setattr(threading.Thread, "start", start)
    assert not manager("configure")
    harness.until(lambda: harness.logs("configure is refused: can't start new thread; try again"))
    monkeypatch.undo()
    assert manager("configure")


@pytest.mark.fault(80)
def test_shutdown_has_its_own_place_behind_a_flood_of_transitions(loading):
    harness, manager, end = loading
    manager.request("configure")
    harness.until(lambda: manager.state == "configuring")
    for _ in range(MAX_WAITING):
        manager.request("activate")
    harness.until(lambda: len(harness.node._requested) == MAX_WAITING)
    assert not manager("activate")
    shutdown, late = manager.request("shutdown"), manager.request("shutdown")
    harness.until(late.done)
    assert not late.result().success
    assert not shutdown.done()
    end.set()
    harness.until(shutdown.done)
    assert shutdown.result().success
    assert manager.state == "finalized"


@pytest.mark.parametrize("label", ["x" * 1_000_000, "state_machine", "__class__"])
def test_only_transitions_can_be_requested(start_managed, label):
    harness, manager = start_managed()
    assert not manager(label)
    assert manager.state == "unconfigured"


def test_destroying_the_node_ends_the_waiting_transitions(slow):
    node, begun, end = slow
    waiting = [node._enqueue(label) for label in ("configure", "activate", "cleanup")]
    assert all(waiting)
    assert begun.wait(10)
    (thread,) = [each for each in threading.enumerate() if each.name == "transitions"]
    threading.Timer(0.1, end.set).start()
    node.destroy_node()
    thread.join(10)
    assert not thread.is_alive()
