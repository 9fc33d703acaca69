# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Order, rates and limits, by a clock that the tests hold in their hands."""

import gc
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos_ros.errors import CancelledError, QueueFullError
from kosmos_ros.serving.scheduler import Limits, Scheduler
from kosmos_ros.serving.work import Work


class Hand:
    """A clock that stands where it is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


CAMERAS = ("left", "right", "rear")


def asked(name, deadline, cameras=(), max_age=0.0):
    """A request with a name in place of an image."""
    nothing = (lambda *_: (), print, print, 1)
    return Work(*nothing, image=name, deadline=deadline, cameras=cameras, max_age=max_age)


def scheduler(queue_size=8, **limits):
    hand = Hand()
    plan = Scheduler(queue_size, clock=hand)
    for camera in CAMERAS:
        plan.set_limits(camera, Limits(**{"max_rate": 0.0, **limits}))
    return hand, plan


def taken(plan, now):
    job, _ = plan.next(now)
    return job


@pytest.mark.fault(20)
def test_newest_frame_wins_and_older_ones_are_counted():
    hand, plan = scheduler()
    for image in "abc":
        plan.offer("left", image)
    job = taken(plan, hand.now)
    assert (job.frame.image, job.frame.camera, plan.dropped("left")) == ("c", "left", 2)
    assert taken(plan, hand.now) is None


@pytest.mark.fault(20)
def test_of_a_thousand_frames_one_is_kept():
    _, plan = scheduler()
    frames = [weakref.ref(image) for image in map(offered(plan), range(1000))]
    gc.collect()
    assert [frame() is not None for frame in frames] == [False] * 999 + [True]
    assert plan.dropped("left") == 999


def offered(plan):
    """Offers a picture that nobody else holds, and gives it."""

    class Picture: ...

    def offer(_):
        picture = Picture()
        plan.offer("left", picture)
        return picture

    return offer


def test_an_unwanted_frame_is_neither_captioned_nor_counted():
    hand, plan = scheduler()
    plan.offer("left", "a", wanted=False)
    plan.offer("left", "b", wanted=False)
    assert plan.next(hand.now) == (None, None)
    assert plan.dropped("left") == 0


def test_requests_go_before_frames_and_in_order():
    hand, plan = scheduler()
    plan.offer("left", "frame")
    first, second = (asked(name, deadline=200.0) for name in "ab")
    plan.submit(first)
    plan.submit(second)
    assert [taken(plan, hand.now).request for _ in range(2)] == [first, second]
    assert taken(plan, hand.now).frame.image == "frame"


def test_a_request_gets_the_newest_frame_even_if_it_was_captioned():
    hand, plan = scheduler()
    plan.offer("left", "a")
    assert taken(plan, hand.now).frame.image == "a"
    plan.submit(asked("q", deadline=200.0, cameras=("left",)))
    job = taken(plan, hand.now)
    assert (job.request.image, job.frame.image) == ("q", "a")


def test_a_request_waits_for_a_frame_young_enough_while_others_pass():
    hand, plan = scheduler()
    plan.offer("left", "old", wanted=False)
    hand.now += 5
    waiting = asked("waiting", deadline=110.0, cameras=("left",), max_age=1.0)
    plan.submit(waiting)
    plan.submit(asked("passing", deadline=200.0))
    assert taken(plan, hand.now).request.image == "passing"
    assert plan.next(hand.now) == (None, None)
    plan.offer("left", "new", wanted=False)
    assert taken(plan, hand.now).frame.image == "new"


def test_a_request_expires_at_its_deadline_and_not_before():
    hand, plan = scheduler()
    requests = [asked(0, deadline=110.0), asked(1, deadline=120.0, cameras=("left",))]
    for request in requests:
        plan.submit(request)
    hand.now = 109.9
    assert plan.expired() == []
    hand.now = 110.0
    assert taken(plan, hand.now) is None
    assert plan.expired() == [(requests[0], True)]
    plan.offer("left", "a", wanted=False)
    assert taken(plan, hand.now).request is requests[1]
    assert plan.expired() == []


def test_a_full_queue_refuses_and_serves_on():
    _, plan = scheduler(queue_size=2)
    for name in "ab":
        plan.submit(asked(name, deadline=200.0))
    with pytest.raises(QueueFullError, match="2 requests"):
        plan.submit(asked("c", deadline=200.0))
    assert taken(plan, 100.0).request.image == "a"
    plan.submit(asked("d", deadline=200.0))


def test_frames_over_the_age_limit_are_dropped_and_counted():
    hand, plan = scheduler(max_image_age=2.0)
    plan.offer("left", "a")
    assert taken(plan, hand.now + 2.5) is None
    assert plan.dropped("left") == 1
    plan.offer("left", "b")
    assert taken(plan, hand.now + 1.5).frame.image == "b"


def test_a_rate_limited_frame_says_when_to_ask_again():
    hand, plan = scheduler(max_rate=2.0)
    plan.offer("left", "a")
    assert taken(plan, 100.0).frame.image == "a"
    plan.offer("left", "b")
    assert plan.next(100.1) == (None, 100.5)
    assert taken(plan, 100.5).frame.image == "b"


def test_new_limits_hold_from_the_next_job():
    hand, plan = scheduler(max_rate=0.1)
    plan.offer("left", "a")
    taken(plan, 100.0)
    plan.offer("left", "b")
    assert taken(plan, 101.0) is None
    plan.set_limits("left", Limits(max_rate=1.0))
    assert taken(plan, 101.0).frame.image == "b"


@pytest.mark.parametrize("requested", [False, True])
def test_take_wakes_for_a_frame_from_another_thread(requested):
    plan = Scheduler()
    if requested:  # then also for one that is not wanted
        plan.submit(asked("what", float("inf"), ("left",)))
    jobs = []
    thread = threading.Thread(target=lambda: jobs.extend(plan.take()), daemon=True)
    thread.start()
    while thread.is_alive() and not plan._changed._waiters:
        thread.join(0.01)
    plan.offer("left", "a", wanted=not requested)
    thread.join(30)
    assert jobs[0].frame.image == "a"


@pytest.mark.parametrize("rate", [0.001, 1e-9, 5e-324])
@pytest.mark.fault(70)
def test_take_sleeps_at_a_tiny_rate_and_wakes_for_a_higher_one(rate):
    plan = Scheduler()
    plan.set_limits("left", Limits(max_rate=rate))
    plan.offer("left", "a")
    assert plan.take()[0].frame.image == "a"
    plan.offer("left", "b")
    jobs = []
    thread = threading.Thread(target=lambda: jobs.extend(plan.take()), daemon=True)
    thread.start()
    while not plan._changed._waiters:  # it sleeps for a thousand seconds, or years
        thread.join(0.01)
    plan.set_limits("left", Limits(max_rate=0.0))
    thread.join(30)
    assert jobs[0].frame.image == "b"


def test_a_frame_that_could_not_be_captioned_is_counted():
    _, plan = scheduler()
    plan.offer("left", "a")
    assert taken(plan, 100.0).frame.image == "a"
    plan.drop("left")
    assert plan.dropped("left") == 1


def test_an_expired_request_tells_if_it_waited_for_a_frame():
    hand, plan = scheduler()
    plan.offer("left", "a")
    waits = {
        asked("none", deadline=101.0, cameras=("right",)): False,
        asked("old", deadline=101.0, cameras=("left",), max_age=0.5): False,
        asked("any", deadline=101.0, cameras=("left",)): True,
    }
    for request in waits:
        plan.submit(request)
    hand.now = 101.0
    assert dict(plan.expired()) == waits


def test_close_ends_take_and_every_waiting_request():
    plan = Scheduler()
    request = asked("q", deadline=float("inf"), cameras=("left",))
    plan.submit(request)
    jobs = []
    thread = threading.Thread(target=lambda: jobs.append(plan.take()), daemon=True)
    thread.start()
    plan.close()
    plan.offer("left", "a", wanted=False)
    thread.join(30)
    assert jobs == [[]]
    assert plan.next(100.0) == (None, None)
    with pytest.raises(CancelledError, match="the model has stopped"):
        plan.submit(request)


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
def test_in_any_order_of_events_the_rules_hold(steps, rate, age):
    hand, plan = scheduler(max_rate=rate, max_image_age=age, queue_size=3)
    newest = {}
    starts = {}

    def servable(request):
        return not request.cameras or any(camera in newest for camera in request.cameras)

    captioned = set()
    waiting = []
    for number, (step, value) in enumerate(steps):
        if step == "offer":
            newest[value] = (number, hand.now)
            plan.offer(value, number)
        elif step == "ask":
            request = asked(number, deadline=hand.now + 2.0, cameras=value)
            try:
                plan.submit(request)
                waiting.append(request)
            except QueueFullError:
                assert sum(servable(other) == servable(request) for other in waiting) >= 3
        elif step == "wait":
            hand.now += value
            late = [r for r in waiting if r.deadline <= hand.now]
            assert plan.expired() == [(r, servable(r)) for r in late]
            waiting = [r for r in waiting if r not in late]
        for _ in range(value if step == "take" else 0):
            job, due = plan.next(hand.now)
            if job is None:
                assert due is None or due > hand.now
                assert not any(servable(r) for r in waiting)
                continue
            if job.request is not None:
                assert job.request is next(filter(servable, waiting))
                if job.frame is not None:
                    arrivals = [newest[c] for c in job.request.cameras if c in newest]
                    assert job.frame.arrived == max(moment for _, moment in arrivals)
                    assert (job.frame.image, job.frame.arrived) in arrivals
                waiting.remove(job.request)
                continue
            assert not any(servable(r) for r in waiting)
            camera, image = job.frame.camera, job.frame.image
            assert image == newest[camera][0], "newest wins"
            assert image not in captioned, "never twice"
            captioned.add(image)
            if rate:
                assert hand.now - starts.get(camera, -1e9) >= 1 / rate - 1e-9, "never over rate"
            if age:
                assert hand.now - newest[camera][1] <= age, "never too old"
            starts[camera] = hand.now


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["left", "right", "rear"]), min_size=1, max_size=60))
def test_no_camera_starves_however_often_others_send(offers):
    hand, plan = scheduler()
    pending_since = {}
    for turn, camera in enumerate(offers):
        plan.offer(camera, turn)
        pending_since.setdefault(camera, turn)
        hand.now += 1
        job = taken(plan, hand.now)
        served = job.frame.camera
        assert turn - pending_since.pop(served) < 3
        assert all(turn - since < 3 for since in pending_since.values())


def test_what_waits_together_is_taken_together_requests_first():
    _, plan = scheduler()
    for camera in CAMERAS:
        plan.offer(camera, camera)
        plan.offer(camera, camera.upper())
    plan.submit(asked("q", deadline=200.0, cameras=("rear",)))
    jobs = plan.take(3)
    assert [(job.request and job.request.image, job.frame.image) for job in jobs] == [
        ("q", "REAR"),
        (None, "LEFT"),
        (None, "RIGHT"),
    ]
    assert [job.frame.image for job in plan.take(3)] == ["REAR"]


def test_each_camera_has_limits_of_its_own():
    hand, plan = scheduler()
    plan.set_limits("left", Limits(max_rate=0.1))
    plan.set_limits("right", Limits(max_rate=0.0, max_image_age=1.0))
    for _ in range(2):
        for camera in ("left", "right"):
            plan.offer(camera, camera)
        hand.now += 0.5
        served = [job.frame.camera for job in plan.take(9)]
    assert served == ["right"]
    plan.offer("right", "old")
    hand.now += 2.0
    assert taken(plan, hand.now) is None
    assert (plan.dropped("left"), plan.dropped("right")) == (0, 1)


def test_a_request_for_any_camera_gets_the_freshest_frame():
    hand, plan = scheduler()
    for camera in ("rear", "left"):
        hand.now += 1
        plan.offer(camera, camera, wanted=False)
    plan.submit(asked("q", deadline=200.0, cameras=CAMERAS))
    assert taken(plan, hand.now).frame.camera == "left"


def test_a_withdrawn_request_is_never_taken():
    _, plan = scheduler()
    first, second = (asked(name, deadline=200.0) for name in "ab")
    plan.submit(first)
    plan.submit(second)
    assert plan.withdraw(first)
    assert [job.request for job in plan.take(9)] == [second]
    assert not plan.withdraw(first)
    assert not plan.withdraw(second)


def test_forgotten_frames_serve_nothing():
    hand, plan = scheduler()
    plan.offer("left", "a")
    plan.forget()
    plan.submit(asked("q", deadline=200.0, cameras=("left",)))
    assert plan.next(hand.now) == (None, None)
    assert plan.dropped("left") == 0


def test_take_may_be_asked_for_requests_alone_and_not_to_wait():
    plan = Scheduler(clock=lambda: 0.0)
    assert plan.take(3, wait=False) == []
    plan.offer("front", "a")
    assert plan.take(3, wait=False, frames=0) == []
    request = asked("q", 1.0)
    plan.submit(request)
    assert [job.request for job in plan.take(3, frames=0)] == [request]
    assert [job.frame.image for job in plan.take(3, wait=False)] == ["a"]
