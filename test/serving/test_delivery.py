# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The order in which results are delivered, and how many may wait."""

import gc
import threading
import weakref

import pytest

from kosmos_ros.serving.delivery import CAPACITY, Delivery

WAIT = 20.0  # s, far longer than any test takes
SHORT = 0.05  # s, for a wait that must end without success


class Rig:
    """A delivery whose thread is held by a first call until `open` is called."""

    def __init__(self):
        self.done = []  # names of calls, in order
        self.errors = []
        self.delivery = Delivery(self.errors.append)
        self._gate, held = threading.Event(), threading.Event()

        def hold():
            held.set()
            assert self._gate.wait(WAIT)

        self.delivery.post(hold)
        assert held.wait(WAIT)

    def call(self, name):
        return lambda: self.done.append(name)

    def post(self, name, urgent=False):
        self.delivery.post(self.call(name), urgent)

    def latest(self, key, name):
        self.delivery.post_latest(key, self.call(name))

    def open(self):
        self._gate.set()

    def finish(self):
        self.open()
        assert self.delivery.flush(WAIT)
        return self.done

    def waiting_threads(self):
        return len(self.delivery._changed._waiters)


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.open()
    made.delivery.close(WAIT)
    made.delivery._thread.join(WAIT)
    assert not made.delivery._thread.is_alive()


def test_calls_run_in_their_order(rig):
    for name in "abc":
        rig.post(name)
    assert rig.finish() == ["a", "b", "c"]
    assert rig.errors == []


def test_urgent_calls_run_first_and_the_latest_of_each_key_last(rig):
    rig.latest("x", "latest")
    rig.post("a")
    rig.post("first", urgent=True)
    rig.post("b")
    rig.post("second", urgent=True)
    assert rig.finish() == ["first", "second", "a", "b", "latest"]


def test_an_urgent_call_runs_before_calls_that_waited_longer(rig):
    rig.delivery.post(lambda: rig.post("urgent", urgent=True))
    rig.post("a")
    assert rig.finish() == ["urgent", "a"]


def test_only_the_latest_call_of_a_key_runs_and_takes_the_last_place(rig):
    rig.latest("x", "x old")
    rig.latest("y", "y")
    rig.latest("x", "x new")
    assert rig.finish() == ["y", "x new"]


def test_a_key_may_be_used_again(rig):
    rig.latest("x", "first")
    rig.finish()
    rig.latest("x", "second")
    assert rig.finish() == ["first", "second"]


@pytest.mark.parametrize("urgent", [False, True])
def test_a_caller_waits_at_full_capacity_and_no_call_is_lost(rig, urgent):
    for number in range(CAPACITY[urgent]):
        rig.post(number, urgent)
    assert rig.waiting_threads() == 0
    posted = threading.Event()

    def post():
        rig.post("late", urgent)
        posted.set()

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    while thread.is_alive() and not rig.waiting_threads():
        thread.join(0.001)
    assert not posted.is_set()
    rig.post("other", not urgent)  # the other queue has room
    rig.open()
    assert posted.wait(WAIT)
    done = [name for name in rig.finish() if name != "other"]
    assert done == [*range(CAPACITY[urgent]), "late"]


def test_latest_calls_never_wait_for_room(rig):
    for number in range(CAPACITY[False]):
        rig.post(number)
    for number in range(CAPACITY[False] + 1):
        rig.latest(number, "latest")
    assert len(rig.finish()) == 2 * CAPACITY[False] + 1


def test_an_error_is_reported_and_the_next_call_runs(rig):
    error = RuntimeError("context is invalid")

    def broken():
        raise error

    rig.delivery.post(broken)
    rig.post("a")
    assert rig.finish() == ["a"]
    assert rig.errors == [error]


def test_flush_waits_for_the_running_call_too(rig):
    assert not rig.delivery.flush(SHORT)
    rig.open()
    assert rig.delivery.flush(WAIT)
    assert rig.delivery.flush(0.0)


@pytest.mark.parametrize("queue", ["urgent", "others", "latest"])
def test_flush_waits_for_each_queue(rig, queue):
    ran, held = threading.Event(), threading.Event()

    def slow():
        held.set()
        assert ran.wait(WAIT)
        rig.done.append("slow")

    if queue == "latest":
        rig.delivery.post_latest("x", slow)
    else:
        rig.delivery.post(slow, queue == "urgent")
    assert not rig.delivery.flush(0.0)
    rig.open()
    assert held.wait(WAIT)
    assert not rig.delivery.flush(SHORT)
    ran.set()
    assert rig.finish() == ["slow"]


def test_close_runs_everything_posted_and_ends_the_thread(rig):
    rig.post("a")
    rig.latest("x", "b")
    rig.open()
    assert rig.delivery.close(WAIT)
    rig.delivery._thread.join(WAIT)
    assert not rig.delivery._thread.is_alive()
    assert rig.done == ["a", "b"]


@pytest.mark.parametrize("timeout", [SHORT, 0.0, -1.0])
def test_close_gives_up_on_a_slow_call_and_drops_waiting_calls(timeout):
    rig = Rig()
    rig.post("a")
    rig.latest("x", "b")
    assert not rig.delivery.close(timeout)
    assert rig.delivery._thread.is_alive()
    rig.open()
    rig.delivery._thread.join(WAIT)
    assert not rig.delivery._thread.is_alive()
    assert rig.done == []


@pytest.mark.parametrize(("timeout", "waited"), [(2.5, 2.5), (0.0, 0.0), (-1.0, 0.0)])
def test_close_never_waits_for_a_negative_time(rig, monkeypatch, timeout, waited):
    timeouts = []
    monkeypatch.setattr(rig.delivery, "flush", timeouts.append)
    rig.delivery.close(timeout)
    assert timeouts == [waited]


def test_a_closed_delivery_drops_calls_and_never_blocks(rig):
    rig.open()
    assert rig.delivery.close(WAIT)
    for number in range(CAPACITY[False] + 1):
        rig.post(number)
        rig.post(number, urgent=True)
    rig.latest("x", "b")
    assert rig.delivery.flush(WAIT)
    assert rig.done == []


def test_a_closed_delivery_has_nothing_to_flush():
    rig = Rig()
    rig.post("a")
    rig.latest("x", "b")
    assert not rig.delivery.close(0.0)
    rig.open()
    assert rig.delivery.flush(WAIT)
    assert rig.done == []


def test_closing_releases_a_caller_that_waits():
    rig = Rig()
    for number in range(CAPACITY[False]):
        rig.post(number)
    thread = threading.Thread(target=lambda: rig.post("late"), daemon=True)
    thread.start()
    while thread.is_alive() and not rig.waiting_threads():
        thread.join(0.001)
    assert not rig.delivery.close(0.0)
    thread.join(WAIT)
    assert not thread.is_alive()
    rig.open()
    rig.delivery._thread.join(WAIT)
    assert rig.done == []


def test_a_call_that_has_run_is_released(rig):
    """It holds an image."""

    class Image: ...

    image = Image()
    alive = weakref.ref(image)
    rig.delivery.post(lambda image=image: None)
    del image
    assert alive() is not None
    rig.finish()
    gc.collect()
    assert alive() is None


def test_the_thread_never_keeps_a_process_alive(rig):
    assert rig.delivery._thread.daemon
    assert rig.delivery._thread.name == "delivery"
