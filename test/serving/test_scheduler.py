# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The order, the rates and the limits of work, by a clock that stands still."""

import dataclasses
import gc
import math
import threading
import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos_ros.errors import CancelledError, QueueFullError
from kosmos_ros.serving.scheduler import CATCH_UP, Drop, Frame, Limits, Scheduler
from kosmos_ros.serving.work import Work


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


CAMERAS = ("left", "right", "rear")


def asked(name, deadline, cameras=(), max_age=0.0, at=math.inf):
    """Return a request with a name in place of an image, made at this time."""
    nothing = (lambda *_: (), print, print, 1)
    limits = {"deadline": deadline, "max_age": max_age, "asked": at}
    return Work(*nothing, image=name, cameras=cameras, **limits)


def new_scheduler(queue_size=8, **limits):
    """Return a clock and a scheduler of three cameras, by default without a limit of the rate."""
    clock = Clock()
    scheduler = Scheduler(queue_size, clock=clock)
    for camera in CAMERAS:
        scheduler.set_limits(camera, Limits(**{"max_rate": 0.0, **limits}))
    return clock, scheduler


def taken(scheduler, now):
    item, _ = scheduler.next(now)
    return item


@pytest.mark.fault(20)
def test_newest_frame_wins_and_older_ones_are_counted():
    clock, scheduler = new_scheduler()
    for image in "abc":
        scheduler.offer("left", image)
    item = taken(scheduler, clock.now)
    assert (item.frame.image, item.frame.camera, scheduler.dropped("left")) == ("c", "left", 2)
    assert taken(scheduler, clock.now) is None


@pytest.mark.fault(20)
def test_only_the_newest_of_a_thousand_frames_is_kept():
    _, scheduler = new_scheduler()
    frames = [weakref.ref(image) for image in map(offered(scheduler), range(1000))]
    gc.collect()
    assert [frame() is not None for frame in frames] == [False] * 999 + [True]
    assert scheduler.dropped("left") == 999


def offered(scheduler):
    """Return a call that offers an image that nobody else holds, and returns it."""

    class Image: ...

    def offer(_):
        image = Image()
        scheduler.offer("left", image)
        return image

    return offer


def test_an_unwanted_frame_is_neither_described_nor_counted():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a", wanted=False)
    scheduler.offer("left", "b", wanted=False)
    assert scheduler.next(clock.now) == (None, None)
    assert scheduler.dropped("left") == 0


def test_requests_go_before_frames_and_in_the_order_of_their_arrival():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "frame")
    first, second = (asked(name, deadline=200.0) for name in "ab")
    scheduler.submit(first)
    scheduler.submit(second)
    assert [taken(scheduler, clock.now).request for _ in range(2)] == [first, second]
    assert taken(scheduler, clock.now).frame.image == "frame"


def test_a_request_gets_the_newest_frame_even_if_it_was_described():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a")
    assert taken(scheduler, clock.now).frame.image == "a"
    scheduler.submit(asked("q", deadline=200.0, cameras=("left",)))
    item = taken(scheduler, clock.now)
    assert (item.request.image, item.frame.image) == ("q", "a")


def test_a_request_that_waits_for_a_new_frame_does_not_block_others():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "old", wanted=False)
    clock.now += 5
    waiting = asked("waiting", deadline=110.0, cameras=("left",), max_age=1.0)
    scheduler.submit(waiting)
    scheduler.submit(asked("passing", deadline=200.0))
    assert taken(scheduler, clock.now).request.image == "passing"
    assert scheduler.next(clock.now) == (None, None)
    scheduler.offer("left", "new", wanted=False)
    assert taken(scheduler, clock.now).frame.image == "new"


def test_a_request_expires_at_its_deadline_and_not_before():
    clock, scheduler = new_scheduler()
    requests = [asked(0, deadline=110.0), asked(1, deadline=120.0, cameras=("left",))]
    for request in requests:
        scheduler.submit(request)
    clock.now = 109.9
    assert scheduler.expired() == []
    clock.now = 110.0
    assert taken(scheduler, clock.now) is None
    assert scheduler.expired() == [(requests[0], True)]
    scheduler.offer("left", "a", wanted=False)
    assert taken(scheduler, clock.now).request is requests[1]
    assert scheduler.expired() == []


def test_a_full_queue_refuses_a_request_and_serves_the_others():
    _, scheduler = new_scheduler(queue_size=2)
    for name in "ab":
        scheduler.submit(asked(name, deadline=200.0))
    with pytest.raises(QueueFullError, match="2 requests"):
        scheduler.submit(asked("c", deadline=200.0))
    assert taken(scheduler, 100.0).request.image == "a"
    scheduler.submit(asked("d", deadline=200.0))


def test_frames_over_the_age_limit_are_dropped_and_counted():
    clock, scheduler = new_scheduler(max_image_age=2.0)
    scheduler.offer("left", "a")
    assert taken(scheduler, clock.now + 2.5) is None
    assert scheduler.dropped("left") == 1
    scheduler.offer("left", "b")
    assert taken(scheduler, clock.now + 1.5).frame.image == "b"


def test_a_frame_over_the_rate_waits_until_its_turn():
    clock, scheduler = new_scheduler(max_rate=2.0)
    scheduler.offer("left", "a")
    assert taken(scheduler, 100.0).frame.image == "a"
    scheduler.offer("left", "b")
    assert scheduler.next(100.1) == (None, 100.5)
    assert taken(scheduler, 100.5).frame.image == "b"


def test_new_limits_apply_to_the_next_frame():
    clock, scheduler = new_scheduler(max_rate=0.1)
    scheduler.offer("left", "a")
    taken(scheduler, 100.0)
    scheduler.offer("left", "b")
    assert taken(scheduler, 101.0) is None
    scheduler.set_limits("left", Limits(max_rate=1.0))
    assert taken(scheduler, 101.0).frame.image == "b"


@pytest.mark.parametrize("requested", [False, True])
def test_take_wakes_for_a_frame_from_another_thread(requested):
    scheduler = Scheduler()
    if requested:  # a frame that is not wanted serves it, too
        scheduler.submit(asked("q", float("inf"), ("left",)))
    items = []
    thread = threading.Thread(target=lambda: items.extend(scheduler.take()), daemon=True)
    thread.start()
    while thread.is_alive() and not scheduler._changed._waiters:
        thread.join(0.01)
    scheduler.offer("left", "a", wanted=not requested)
    thread.join(30)
    assert items[0].frame.image == "a"


@pytest.mark.parametrize("rate", [0.001, 1e-9, 5e-324])
@pytest.mark.fault(70)
def test_take_sleeps_at_a_tiny_rate_and_wakes_for_a_higher_one(rate):
    scheduler = Scheduler()
    scheduler.set_limits("left", Limits(max_rate=rate))
    scheduler.offer("left", "a")
    assert scheduler.take()[0].frame.image == "a"
    scheduler.offer("left", "b")
    items = []
    thread = threading.Thread(target=lambda: items.extend(scheduler.take()), daemon=True)
    thread.start()
    while not scheduler._changed._waiters:  # the pause is a thousand seconds, or years
        thread.join(0.01)
    scheduler.set_limits("left", Limits(max_rate=0.0))
    thread.join(30)
    assert items[0].frame.image == "b"


def test_a_frame_that_cannot_be_described_is_counted():
    _, scheduler = new_scheduler()
    scheduler.offer("left", "a")
    assert taken(scheduler, 100.0).frame.image == "a"
    scheduler.drop("left", Drop.UNREADABLE)
    assert scheduler.dropped("left") == scheduler.drops("left")[Drop.UNREADABLE] == 1


def test_a_frame_is_replaced_by_a_wanted_frame_and_cancelled_by_an_unwanted_one():
    _, scheduler = new_scheduler()
    for image, wanted in (("a", True), ("b", True), ("c", False), ("d", False)):
        scheduler.offer("left", image, wanted)
    drops = {reason: count for reason, count in scheduler.drops("left").items() if count}
    assert drops == {Drop.REPLACED: 1, Drop.CANCELLED: 1}


def test_an_expired_request_had_a_frame_or_waited_for_one():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a")
    waits = {
        asked("none", deadline=101.0, cameras=("right",)): False,
        asked("old", deadline=101.0, cameras=("left",), max_age=0.5): False,
        asked("any", deadline=101.0, cameras=("left",)): True,
    }
    for request in waits:
        scheduler.submit(request)
    clock.now = 101.0
    assert dict(scheduler.expired()) == waits


@pytest.mark.parametrize("max_age", [1e-9, 0.005])
def test_the_next_frame_is_young_enough_for_a_request_of_the_smallest_age(max_age):
    """Otherwise it would wait for ever: each frame is older when it can be taken."""
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "before", wanted=False)
    clock.now = 100.01  # the frame is older, though not by much
    request = asked("now", deadline=110.0, cameras=("left",), max_age=max_age, at=clock.now)
    scheduler.submit(request)
    assert taken(scheduler, 100.01) is None
    clock.now = 105.0
    scheduler.offer("left", "after", wanted=False)
    item = taken(scheduler, 105.0 + CATCH_UP)
    assert (item.request, item.frame.image) == (request, "after")


def test_a_frame_that_has_waited_for_the_model_is_too_old_for_a_request_of_a_small_age():
    clock, scheduler = new_scheduler()
    scheduler.submit(asked("now", 110.0, cameras=("left",), max_age=0.05, at=clock.now))
    scheduler.offer("left", "after", wanted=False)
    assert taken(scheduler, 100.0 + CATCH_UP + 0.001) is None


def test_close_ends_take_and_every_waiting_request():
    scheduler = Scheduler()
    request = asked("q", deadline=float("inf"), cameras=("left",))
    scheduler.submit(request)
    items = []
    thread = threading.Thread(target=lambda: items.append(scheduler.take()), daemon=True)
    thread.start()
    scheduler.close()
    scheduler.offer("left", "a", wanted=False)
    thread.join(30)
    assert items == [[]]
    assert scheduler.next(100.0) == (None, None)
    with pytest.raises(CancelledError, match="the model has stopped"):
        scheduler.submit(request)


moves = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(["left", "right", "rear"])),
        st.tuples(st.just("ask"), st.sampled_from([(), ("left",), ("right",), CAMERAS])),
        st.tuples(st.just("wait"), st.floats(0.01, 3.0)),
        st.tuples(st.just("take"), st.integers(1, 4)),
    ),
    max_size=120,
)


@settings(max_examples=400)
@given(moves, st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.0, 1.0]))
def test_the_rules_hold_in_any_order_of_events(steps, rate, age):
    clock, scheduler = new_scheduler(max_rate=rate, max_image_age=age, queue_size=3)
    newest = {}
    starts = {}

    def servable(request):
        return not request.cameras or any(camera in newest for camera in request.cameras)

    described = set()
    waiting = []
    for number, (step, value) in enumerate(steps):
        if step == "offer":
            newest[value] = (number, clock.now)
            scheduler.offer(value, number)
        elif step == "ask":
            request = asked(number, deadline=clock.now + 2.0, cameras=value)
            try:
                scheduler.submit(request)
                waiting.append(request)
            except QueueFullError:
                assert sum(servable(other) == servable(request) for other in waiting) >= 3
        elif step == "wait":
            clock.now += value
            late = [r for r in waiting if r.deadline <= clock.now]
            assert scheduler.expired() == [(r, servable(r)) for r in late]
            waiting = [r for r in waiting if r not in late]
        for _ in range(value if step == "take" else 0):
            item, due = scheduler.next(clock.now)
            if item is None:
                assert due is None or due > clock.now
                assert not any(servable(r) for r in waiting)
                continue
            if item.request is not None:
                assert item.request is next(filter(servable, waiting))
                if item.frame is not None:
                    arrivals = [newest[c] for c in item.request.cameras if c in newest]
                    assert item.frame.arrived == max(moment for _, moment in arrivals)
                    assert (item.frame.image, item.frame.arrived) in arrivals
                waiting.remove(item.request)
                continue
            assert not any(servable(r) for r in waiting)
            camera, image = item.frame.camera, item.frame.image
            assert image == newest[camera][0], "newest wins"
            assert image not in described, "never twice"
            described.add(image)
            if rate:
                assert clock.now - starts.get(camera, -1e9) >= 1 / rate - 1e-9, "never over rate"
            if age:
                assert clock.now - newest[camera][1] <= age, "never too old"
            starts[camera] = clock.now


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["left", "right", "rear"]), min_size=1, max_size=60))
def test_no_camera_starves_while_others_send_more_often(offers):
    clock, scheduler = new_scheduler()
    pending_since = {}
    for turn, camera in enumerate(offers):
        scheduler.offer(camera, turn)
        pending_since.setdefault(camera, turn)
        clock.now += 1
        item = taken(scheduler, clock.now)
        served = item.frame.camera
        assert turn - pending_since.pop(served) < 3
        assert all(turn - since < 3 for since in pending_since.values())


def test_all_waiting_work_is_taken_together_requests_first():
    _, scheduler = new_scheduler()
    for camera in CAMERAS:
        scheduler.offer(camera, camera)
        scheduler.offer(camera, camera.upper())
    scheduler.submit(asked("q", deadline=200.0, cameras=("rear",)))
    items = scheduler.take(3)
    assert [(item.request and item.request.image, item.frame.image) for item in items] == [
        ("q", "REAR"),
        (None, "LEFT"),
        (None, "RIGHT"),
    ]
    assert [item.frame.image for item in scheduler.take(3)] == ["REAR"]


def test_each_camera_has_its_own_limits():
    clock, scheduler = new_scheduler()
    scheduler.set_limits("left", Limits(max_rate=0.1))
    scheduler.set_limits("right", Limits(max_rate=0.0, max_image_age=1.0))
    for _ in range(2):
        for camera in ("left", "right"):
            scheduler.offer(camera, camera)
        clock.now += 0.5
        served = [item.frame.camera for item in scheduler.take(9)]
    assert served == ["right"]
    scheduler.offer("right", "old")
    clock.now += 2.0
    assert taken(scheduler, clock.now) is None
    assert (scheduler.dropped("left"), scheduler.dropped("right")) == (0, 1)


def test_a_request_for_several_cameras_gets_the_newest_frame():
    clock, scheduler = new_scheduler()
    for camera in ("rear", "left"):
        clock.now += 1
        scheduler.offer(camera, camera, wanted=False)
    scheduler.submit(asked("q", deadline=200.0, cameras=CAMERAS))
    assert taken(scheduler, clock.now).frame.camera == "left"


def test_a_withdrawn_request_is_never_taken():
    _, scheduler = new_scheduler()
    first, second = (asked(name, deadline=200.0) for name in "ab")
    scheduler.submit(first)
    scheduler.submit(second)
    scheduler.withdraw(first)
    assert [item.request for item in scheduler.take(9)] == [second]
    scheduler.withdraw(first)
    scheduler.withdraw(second)


def test_a_forgotten_frame_serves_no_request():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a")
    scheduler.forget()
    scheduler.submit(asked("q", deadline=200.0, cameras=("left",)))
    assert scheduler.next(clock.now) == (None, None)
    assert scheduler.dropped("left") == scheduler.drops("left")[Drop.CANCELLED] == 1


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.sampled_from(CAMERAS), st.booleans()),
            st.tuples(st.just("wait"), st.floats(0.01, 3.0)),
            st.tuples(st.just("take"), st.integers(1, 4)),
            st.tuples(st.just("end"), st.sampled_from([None, *Drop])),
            st.tuples(st.just("forget")),
        ),
        max_size=80,
    )
)
def test_every_wanted_frame_is_described_dropped_for_one_reason_or_pending(steps):
    clock, scheduler = new_scheduler(max_image_age=1.0)
    offered, described, dropped = Counter(), Counter(), Counter()
    in_progress = []
    newest = {}  # camera: the pending frame and its arrival

    def drop(camera, reason):
        if newest.pop(camera, None):
            dropped[camera, reason] += 1

    for step, *values in steps:
        if step == "offer":
            camera, wanted = values
            drop(camera, Drop.REPLACED if wanted else Drop.CANCELLED)
            offered[camera] += wanted
            if wanted:
                newest[camera] = clock.now
            scheduler.offer(camera, "image", wanted)
        elif step == "wait":
            clock.now += values[0]
        elif step == "take":
            for camera, arrived in list(newest.items()):
                if clock.now - arrived > 1.0:
                    drop(camera, Drop.TOO_OLD)
            for item in scheduler.take(values[0], wait=False):
                in_progress.append(item.frame.camera)
                del newest[item.frame.camera]
        elif step == "end" and in_progress:
            camera, (reason,) = in_progress.pop(), values
            described[camera] += reason is None
            if reason:
                dropped[camera, reason] += 1
                scheduler.drop(camera, reason)
        elif step == "forget":
            for camera in list(newest):
                drop(camera, Drop.CANCELLED)
            scheduler.forget()
        for camera in CAMERAS:
            drops = scheduler.drops(camera)
            assert drops == {reason: dropped[camera, reason] for reason in Drop}
            assert sum(drops.values()) == scheduler.dropped(camera)
            pending = in_progress.count(camera) + (camera in newest)
            assert described[camera] + scheduler.dropped(camera) + pending == offered[camera]


def test_only_requests_that_could_begin_go_before_another():
    clock, scheduler = new_scheduler()
    names = {"a": (), "left": ("left",), "b": (), "c": ()}
    requests = {name: asked(name, 200.0, cameras) for name, cameras in names.items()}
    for request in requests.values():
        scheduler.submit(request)

    def ahead():
        return [scheduler.ahead(request) for request in requests.values()]

    assert ahead() == [0, 1, 1, 2]
    scheduler.offer("left", "image", wanted=False)
    assert ahead() == [0, 1, 2, 3]
    assert taken(scheduler, clock.now).request is requests["a"]
    scheduler.withdraw(requests["b"])
    assert ahead() == [None, 0, None, 1]
    scheduler.close()
    assert ahead() == [None] * 4


def test_take_can_return_requests_only_and_can_return_at_once():
    scheduler = Scheduler(clock=lambda: 0.0)
    assert scheduler.take(3, wait=False) == []
    scheduler.offer("front", "a")
    assert scheduler.take(3, wait=False, frames=0) == []
    request = asked("q", 1.0)
    scheduler.submit(request)
    assert [item.request for item in scheduler.take(3, frames=0)] == [request]
    assert [item.frame.image for item in scheduler.take(3, wait=False)] == ["a"]


# Exact boundaries --------------------------------------------------------------------------------


def test_a_new_scheduler_has_no_work_and_no_limits_but_a_rate_of_one_frame_per_second():
    scheduler = Scheduler(clock=Clock())
    assert (scheduler.waiting(), scheduler.expired(), scheduler.queue_size) == (0, [], 8)
    assert scheduler.next(100.0) == (None, None)
    assert scheduler.dropped("left") == 0
    scheduler.offer("left", "a")
    assert taken(scheduler, 1e6).frame.image == "a"
    scheduler.offer("left", "b")
    assert scheduler.next(1e6 + 0.75) == (None, 1e6 + 1.0)
    assert taken(scheduler, 1e6 + 1.0).frame.image == "b"


def test_the_first_frame_is_taken_at_any_time_of_the_clock():
    _, scheduler = new_scheduler(max_rate=0.001)
    scheduler.offer("left", "a")
    assert taken(scheduler, -1e9).frame.image == "a"


@pytest.mark.parametrize(("age", "served"), [(1.0, True), (1.0001, False)])
def test_a_frame_of_exactly_the_greatest_age_still_serves_a_request(age, served):
    clock, scheduler = new_scheduler()
    clock.now = 0.0
    scheduler.offer("left", "a", wanted=False)
    clock.now = age
    request = asked("q", deadline=200.0, cameras=("left",), max_age=1.0)
    scheduler.submit(request)
    item = taken(scheduler, clock.now)
    assert (item is not None and item.request is request) == served


@pytest.mark.parametrize(("age", "dropped"), [(2.0, 0), (2.0001, 1)])
def test_a_frame_of_exactly_the_greatest_age_is_still_described(age, dropped):
    clock, scheduler = new_scheduler(max_image_age=2.0)
    clock.now = 0.0
    scheduler.offer("left", "a")
    assert (taken(scheduler, age) is None) == bool(dropped)
    assert scheduler.dropped("left") == dropped
    assert taken(scheduler, age) is None
    assert scheduler.dropped("left") == dropped  # counted once


def test_a_frame_of_any_age_is_described_and_serves_requests_without_limits():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a")
    clock.now += 1e6
    request = asked("q", deadline=float("inf"), cameras=("left",))
    scheduler.submit(request)
    assert taken(scheduler, clock.now).request is request
    assert taken(scheduler, clock.now).frame.image == "a"


@pytest.mark.parametrize(("now", "expired"), [(109.9999, False), (110.0, True), (111.0, True)])
def test_a_request_whose_deadline_is_now_is_expired_and_never_begins(now, expired):
    clock, scheduler = new_scheduler()
    request = asked("q", deadline=110.0)
    scheduler.submit(request)
    clock.now = now
    assert (taken(scheduler, now) is None) == expired
    assert scheduler.waiting() == expired
    assert scheduler.expired() == ([(request, True)] if expired else [])
    assert scheduler.waiting() == 0


def test_several_requests_expire_together_in_the_order_of_their_arrival():
    clock, scheduler = new_scheduler()
    requests = [asked(str(deadline), deadline) for deadline in (110, 200, 105)]
    for request in requests:
        scheduler.submit(request)
    clock.now = 110.0
    assert scheduler.expired() == [(requests[0], True), (requests[2], True)]
    assert scheduler.waiting() == 1


@pytest.mark.parametrize("queue_size", [1, 2, 3])
@pytest.mark.parametrize("cameras", [(), ("left",)])
def test_exactly_the_size_of_the_queue_may_wait_for_the_model_and_as_many_for_a_frame(
    queue_size, cameras
):
    _, scheduler = new_scheduler(queue_size)
    others = ("left",) if not cameras else ()
    for name in range(queue_size):
        scheduler.submit(asked(name, deadline=200.0, cameras=cameras))
    full = f"the queue is full: {queue_size} requests wait, the most that queue_size allows; "
    full += "try again later"
    with pytest.raises(QueueFullError) as raised:
        scheduler.submit(asked("late", deadline=200.0, cameras=cameras))
    assert str(raised.value) == full
    for name in range(queue_size):
        scheduler.submit(asked(name, deadline=200.0, cameras=others))
    assert scheduler.waiting() == 2 * queue_size
    with pytest.raises(QueueFullError):
        scheduler.submit(asked("late", deadline=200.0, cameras=others))


def test_a_request_for_several_cameras_begins_with_the_first_frame_of_any():
    clock, scheduler = new_scheduler()
    request = asked("q", deadline=200.0, cameras=CAMERAS)
    scheduler.submit(request)
    assert scheduler.next(clock.now) == (None, None)
    scheduler.offer("rear", "a", wanted=False)
    item = taken(scheduler, clock.now)
    assert (item.request, item.frame.camera, item.frame.arrived) == (request, "rear", 100.0)


def test_a_request_with_its_own_image_takes_no_frame():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a", wanted=False)
    request = asked("q", deadline=200.0)
    scheduler.submit(request)
    assert scheduler.next(clock.now) == ((request, None), None)


def test_an_unwanted_frame_replaces_a_wanted_one_which_is_counted():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "a")
    scheduler.offer("left", "b", wanted=False)
    assert scheduler.dropped("left") == 1
    assert scheduler.next(clock.now) == (None, None)
    scheduler.offer("left", "c")
    assert scheduler.dropped("left") == 1
    assert taken(scheduler, clock.now).frame.image == "c"


def test_cameras_take_turns():
    clock, scheduler = new_scheduler()
    served = []
    for _ in range(3):
        for camera in CAMERAS:
            scheduler.offer(camera, camera)
        served.append(taken(scheduler, clock.now).frame.camera)
    assert served == ["left", "right", "rear"]


def test_the_next_frame_is_due_when_the_first_camera_may_go_on():
    _, scheduler = new_scheduler()
    for camera, rate in zip(CAMERAS, (1.0, 4.0, 2.0), strict=True):
        scheduler.set_limits(camera, Limits(max_rate=rate))
        scheduler.offer(camera, camera)
        assert taken(scheduler, 100.0).frame.camera == camera
        scheduler.offer(camera, camera)
    assert scheduler.next(100.2) == (None, 100.25)
    assert taken(scheduler, 100.25).frame.camera == "right"
    assert scheduler.next(100.25) == (None, 100.5)


def test_next_can_leave_frames_out():
    clock, scheduler = new_scheduler(max_rate=2.0)
    scheduler.offer("left", "a")
    assert scheduler.next(clock.now, frames=False) == (None, None)
    assert taken(scheduler, clock.now).frame.image == "a"


@pytest.mark.parametrize(
    ("most", "frames", "expected"),
    [
        (1, None, ["p"]),
        (2, None, ["p", "q"]),
        (3, None, ["p", "q", "left"]),
        (9, None, ["p", "q", "left", "right", "rear"]),
        (9, 0, ["p", "q"]),
        (9, 1, ["p", "q", "left"]),
        (9, 2, ["p", "q", "left", "right"]),
        (3, 2, ["p", "q", "left"]),
        (9, 9, ["p", "q", "left", "right", "rear"]),
    ],
)
def test_take_returns_at_most_the_requested_number(most, frames, expected):
    _, scheduler = new_scheduler()
    for camera in CAMERAS:
        scheduler.offer(camera, camera)
    for name in "pq":
        scheduler.submit(asked(name, deadline=200.0))
    items = scheduler.take(most, frames, wait=False)
    assert [i.request.image if i.request else i.frame.image for i in items] == expected


def test_take_returns_one_item_by_default():
    _, scheduler = new_scheduler()
    for name in "ab":
        scheduler.submit(asked(name, deadline=200.0))
    assert [item.request.image for item in scheduler.take()] == ["a"]


def test_take_waits_until_the_next_frame_is_due():
    """It waits again for the rest if something else wakes it early."""
    clock, scheduler = new_scheduler(max_rate=0.5)
    scheduler.offer("left", "a")
    scheduler.take()
    scheduler.offer("left", "b")
    clock.now += 1.0
    pauses = []

    def wait(pause):
        pauses.append(pause)
        clock.now += pause / 2 if len(pauses) < 3 else pause

    scheduler._changed.wait = wait
    assert [item.frame.image for item in scheduler.take()] == ["b"]
    assert pauses == [1.0, 0.5, 0.25]


def test_new_limits_wake_the_worker_and_equal_ones_do_not():
    _, scheduler = new_scheduler()
    woken = []
    scheduler._changed.notify = lambda: woken.append("woken")
    scheduler.set_limits("left", Limits(max_rate=0.0))
    assert woken == []
    scheduler.set_limits("left", Limits(max_rate=3.0))
    assert woken == ["woken"]


def test_only_a_frame_that_may_begin_something_wakes_the_worker():
    _, scheduler = new_scheduler()
    woken = []
    scheduler._changed.notify = lambda: woken.append("woken")

    def wakes(image, wanted):
        woken.clear()
        scheduler.offer("left", image, wanted)
        return bool(woken)

    assert not wakes("a", wanted=False)
    assert wakes("b", wanted=True)
    assert not wakes("c", wanted=True)  # the worker knows when the camera's turn comes
    assert not wakes("d", wanted=False)
    scheduler.submit(asked("q", deadline=200.0, cameras=("right",)))
    assert wakes("e", wanted=False)


def test_forget_drops_requests_and_counts_nothing():
    clock, scheduler = new_scheduler()
    scheduler.submit(asked("q", deadline=200.0))
    for camera in CAMERAS:
        scheduler.offer(camera, camera)
    scheduler.forget()
    assert scheduler.waiting() == 0
    assert scheduler.next(clock.now) == (None, None)
    for camera in CAMERAS:
        scheduler.offer(camera, camera)
        assert scheduler.dropped(camera) == scheduler.drops(camera)[Drop.CANCELLED] == 1
    assert len(scheduler.take(9)) == 3


def test_a_closed_scheduler_has_no_requests_and_takes_nothing():
    _, scheduler = new_scheduler()
    scheduler.submit(asked("q", deadline=200.0))
    scheduler.offer("left", "a")
    scheduler.close()
    assert scheduler.waiting() == 0
    assert scheduler.take(9, wait=False) == []
    assert scheduler.take() == []


def test_close_wakes_every_thread_that_waits():
    scheduler = Scheduler()
    threads = [threading.Thread(target=scheduler.take, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(scheduler._changed._waiters) < 2:
        threads[0].join(0.001)
    scheduler.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_request_wakes_a_thread_that_waits():
    scheduler = Scheduler()
    request = asked("q", deadline=float("inf"))
    items = []
    thread = threading.Thread(target=lambda: items.extend(scheduler.take()), daemon=True)
    thread.start()
    while thread.is_alive() and not scheduler._changed._waiters:
        thread.join(0.001)
    scheduler.submit(request)
    thread.join(30)
    assert items == [(request, None)]


def test_frames_and_limits_are_immutable_and_a_frame_is_equal_only_to_itself():
    frame, limits = Frame("left", "a", 100.0), Limits()
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.image = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.max_rate = 2.0
    assert frame != dataclasses.replace(frame)  # images are arrays, which have no truth value
    assert limits == Limits(max_rate=1.0, max_image_age=0.0)


def test_a_request_waits_for_a_newer_frame_of_a_camera_that_is_read_rarely():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "old", wanted=False, sampled=True)
    request = asked("?", 1e6, ("left",))
    scheduler.submit(request)
    assert scheduler.awaited("left") and not scheduler.awaited("right")
    assert scheduler.next(clock.now) == (None, clock.now + CATCH_UP)
    assert scheduler.next(clock.now, frames=False) == (None, clock.now + CATCH_UP)
    scheduler.offer("left", "new", wanted=False, sampled=True)
    item = taken(scheduler, clock.now)
    assert (item.request, item.frame.image) == (request, "new")
    assert not scheduler.awaited("left")


def test_a_request_uses_the_newest_frame_if_no_newer_one_comes():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "old", wanted=False, sampled=True)
    scheduler.submit(asked("?", 1e6, ("left",)))
    assert taken(scheduler, clock.now + CATCH_UP / 2) is None
    assert taken(scheduler, clock.now + CATCH_UP).frame.image == "old"


def test_many_requests_cannot_extend_the_time_in_which_they_wait_for_a_newer_frame():
    clock, scheduler = new_scheduler()
    begun = clock.now
    scheduler.offer("left", "old", wanted=False, sampled=True)
    for _ in range(8):
        scheduler.submit(asked("?", 1e6, ("left",)))
        clock.now += CATCH_UP / 8
    clock.now = begun + CATCH_UP
    assert taken(scheduler, clock.now).frame.image == "old"


def test_a_request_does_not_wait_for_the_cameras_of_others():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "old", wanted=False, sampled=True)
    scheduler.offer("right", "new", wanted=False)
    for cameras, image in (((), None), (("right",), "new")):
        scheduler.submit(asked("?", 1e6, cameras))
        item = taken(scheduler, clock.now)
        assert (item.frame and item.frame.image) == image


def test_a_frame_to_describe_does_not_wait_for_the_request_that_catches_up():
    clock, scheduler = new_scheduler(max_rate=1.0)
    scheduler.offer("right", "first")
    assert taken(scheduler, clock.now).frame.image == "first"
    scheduler.offer("right", "second")
    scheduler.offer("left", "old", wanted=False, sampled=True)
    scheduler.submit(asked("?", 1e6, ("left",)))
    assert scheduler.next(clock.now) == (None, clock.now + CATCH_UP)
    clock.now += 1.0
    assert taken(scheduler, clock.now).request
    assert taken(scheduler, clock.now).frame.image == "second"


def test_the_age_of_a_frame_counts_from_its_arrival():
    clock, scheduler = new_scheduler()
    scheduler.offer("left", "old", wanted=False, age=3.0)
    scheduler.submit(asked("?", 1e6, ("left",), max_age=2.0))
    assert taken(scheduler, clock.now) is None
    scheduler.offer("left", "new", wanted=False, age=1.5)
    item = taken(scheduler, clock.now)
    assert (item.frame.image, item.frame.arrived) == ("new", clock.now - 1.5)
