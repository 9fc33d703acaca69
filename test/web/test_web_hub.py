# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The hub passes news to browsers and requests to the node, each with its limits."""

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from kosmos_msgs.msg import GroundedCaption

from kosmos_ros.errors import NotReadyError, RequestError
from kosmos_ros.web import server
from kosmos_ros.web.hub import MOST_CHANGES, MOST_CLIENTS, MOST_REQUESTS, PRESENT, Hub
from kosmos_ros.web.looks import CAPTION, EVENTS, LOOKS, PICTURE
from kosmos_ros.web.pictures import Picture, Pictures
from kosmos_ros.web.server import Site


class FakeContract:
    """Takes the place of the client of the node, and records its commands."""

    def __init__(self):
        self.wanted, self.asked, self.cancelled, self.changes = [], [], [], []

    def post(self, call):
        call()

    def want(self, kind, wanted):
        self.wanted.append((kind, wanted))

    def ask(self, request, goal):
        self.asked.append((request, goal))

    def cancel(self, request):
        self.cancelled.append(request)

    def set(self, name, value, done):
        self.changes.append((name, value, done))


def run(test):
    """Run `test(hub)` in an event loop, with a hub of the cameras front and rear."""

    async def main():
        hub = Hub("/kosmos", asyncio.get_running_loop())
        hub.contract = FakeContract()
        cameras = {"front": "/front/image", "rear": "/rear/image"}
        hub.described({}, {"max_rate": 1.0, "front.max_rate": 2.0}, cameras)
        hub.state({"state": "ready", "message": "ready"})
        await test(hub)

    asyncio.run(main())


def looking(wanted):
    """Return what a browser wants from the node while it is visible, or no longer."""
    return [(LOOKS, wanted), (EVENTS, wanted)]


async def read(client):
    """Return all messages that wait for a client."""
    return [json.loads(await client.outbox.take()) for _ in range(len(client.outbox))]


DONE = {"done": True, "success": True, "message": "", "result": {}}


def test_the_node_works_only_while_somebody_looks():
    async def test(hub):
        with hub.joined() as one:
            with hub.joined():
                pass
            hub.show(one, False)
            hub.show(one, False)
            hub.show(one, True)
            with hub.watching(EVENTS):  # a browser looks already
                pass
        with hub.watching(EVENTS):
            pass
        browser = [*looking(True), *looking(False)]
        assert hub.contract.wanted == [*browser, *browser, (EVENTS, True), (EVENTS, False)]

    run(test)


def test_a_browser_beyond_the_limit_is_refused():
    async def test(hub):
        with contextlib.ExitStack() as browsers:
            for _ in range(MOST_CLIENTS):
                browsers.enter_context(hub.joined())
            with pytest.raises(NotReadyError, match="at most 64 browsers"):
                browsers.enter_context(hub.joined())
        with hub.joined():
            pass

    run(test)


def test_a_browser_that_leaves_cancels_its_questions():
    async def test(hub):
        with hub.joined() as client:
            for name in ("1", "2"):
                hub.request(client, {"id": name, "task": "brief_caption"})
            (first, _), (second, _) = hub.contract.asked
            first.tell(DONE)
        assert hub.contract.cancelled == [second]

    run(test)


def test_one_browser_has_at_most_four_questions():
    async def test(hub):
        with hub.joined() as client:
            await read(client)
            for index in range(MOST_REQUESTS + 1):
                hub.request(client, {"id": str(index), "task": "brief_caption"})
            assert len(hub.contract.asked) == MOST_REQUESTS
            (refused,) = await read(client)
            assert refused["id"] == "4"
            assert refused["done"]
            assert refused["message"] == "at most 4 requests may run; cancel one"
            hub.contract.asked[0][0].tell(DONE)
            hub.request(client, {"id": "5", "task": "brief_caption"})
            assert len(hub.contract.asked) == MOST_REQUESTS + 1

    run(test)


def test_an_id_is_used_by_one_question_at_a_time():
    async def test(hub):
        with hub.joined() as client:
            hub.request(client, {"id": "1", "task": "brief_caption"})
            with pytest.raises(RequestError, match="those of running requests, got '1'"):
                hub.request(client, {"id": "1", "task": "brief_caption"})
            hub.contract.asked[0][0].tell(DONE)
            hub.request(client, {"id": "1", "task": "brief_caption"})

    run(test)


@pytest.mark.parametrize("name", [None, 1, "", "x" * 65, ["1"]])
def test_a_wrong_id_is_refused(name):
    async def test(hub):
        with hub.joined() as client:
            for call in (hub.request, hub.cancel, hub.change):
                with pytest.raises(RequestError, match="id must be a text of 1 to 64 characters"):
                    call(client, {"id": name, "camera": "", "name": "task"})

    run(test)


def test_one_browser_sets_at_most_16_parameters_at_a_time():
    async def test(hub):
        with hub.joined() as client:
            await read(client)
            message = {"id": "1", "camera": "front", "name": "max_rate", "value": 2.0}
            for _ in range(MOST_CHANGES + 1):
                hub.change(client, message)
            (refused,) = await read(client)
            assert not refused["success"]
            assert "at most 16 parameters" in refused["message"]
            name, value, done = hub.contract.changes[0]
            assert (name, value) == ("front.max_rate", 2.0)
            done(True, "words of the node")
            (answer,) = await read(client)
            assert answer == {
                "type": "set", "id": "1", "success": True, "message": "words of the node",
            }  # fmt: skip
            hub.change(client, message)
            assert len(hub.contract.changes) == MOST_CHANGES + 1

    run(test)


@pytest.mark.parametrize("first", ["described", "state"])
def test_an_agent_that_waits_for_the_node_learns_that_it_is_there(first):
    async def main():
        hub = Hub("/kosmos", asyncio.get_running_loop())
        waiting = asyncio.ensure_future(hub.next(lambda news: news is PRESENT, 60))
        await asyncio.sleep(0)
        calls = [
            lambda: hub.described({}, {}, {"front": "/front/image"}),
            lambda: hub.state({"state": "loading", "message": "loading"}),
        ]
        for call in calls if first == "described" else reversed(calls):
            assert not waiting.done()
            call()
            await asyncio.sleep(0)
        assert await waiting is PRESENT
        assert hub.present

    asyncio.run(main())


EVENT = {
    "camera": "front", "stamp": "1.000000000", "time": 1000.0, "kind": "appeared",
    "subject": "a cat", "answer": "", "previous": "", "phrases": [], "since": 1000.0,
}  # fmt: skip


def test_an_event_is_sent_once_and_kept_for_later_browsers():
    async def test(hub):
        with hub.joined() as client:
            await read(client)
            hub.event(EVENT, past=False)
            assert await read(client) == [{"type": "event", **EVENT}]
            hub.event(EVENT, past=True)  # the node sends it again to a new subscriber
            assert await read(client) == []
        with hub.joined() as later:
            hello, _ = await read(later)
            assert hello["events"] == [EVENT]

    run(test)


def test_a_hidden_browser_gets_no_news():
    async def test(hub):
        with hub.joined() as client:
            hub.show(client, False)
            hub.event(EVENT, past=False)
            hub.changed({"max_rate": 2.0})
            hub.state({"state": "gone", "message": "it has ended"})
            hub.health({}, {})
            hub.part(("front", "1.000000000"), CAPTION, GroundedCaption())
            hub.picture(("front", "1.000000000"), Picture("image/jpeg", b"jpeg"))
            assert await read(client) == []
            hub.show(client, True)
            hello, state = await read(client)
            assert hello["values"][""]["max_rate"] == 2.0
            assert len(hello["looks"]) == len(hello["events"]) == 1
            assert state["message"] == "it has ended"

    run(test)


def test_a_past_event_ends_no_wait():
    async def test(hub):
        waiting = asyncio.ensure_future(hub.next(lambda news: isinstance(news, dict), 60))
        await asyncio.sleep(0)
        hub.event(EVENT, past=True)
        await asyncio.sleep(0)
        assert not waiting.done()
        hub.event({**EVENT, "stamp": "2.000000000"}, past=False)
        assert (await waiting)["stamp"] == "2.000000000"
        assert not hub._waiting

    run(test)


def test_a_look_is_sent_with_its_picture_and_kept():
    async def test(hub):
        key = ("front", "1.000000000")
        with hub.joined() as client:
            await read(client)
            hub.picture(key, Picture("image/jpeg", b"jpeg"))
            hub.part(key, CAPTION, GroundedCaption(caption="a cat"))
            (look,) = await read(client)
            assert look["picture"] == "/picture/front/1.000000000.jpg"
            assert look["caption"]["text"] == "a cat"
        assert hub.looks.newest("front").parts.keys() == {CAPTION, PICTURE}
        assert hub.looks.newest("rear") is None
        with hub.joined() as later:
            hello, state = await read(later)
            assert [look["stamp"] for look in hello["looks"]] == ["1.000000000"]
            assert hello["values"] == {
                "": {"max_rate": 1.0}, "front": {"max_rate": 2.0}, "rear": {},
            }  # fmt: skip
            assert state["state"] == "ready"

    run(test)


def test_a_later_browser_learns_that_a_picture_is_no_longer_kept():
    async def test(hub):
        hub.pictures = Pictures(most=100)
        pictures = []
        for index in range(3):
            key = ("front", f"{index}.000000000")
            hub.part(key, CAPTION, GroundedCaption(caption=f"cat {index}"))
            hub.picture(key, Picture("image/jpeg", b"x" * 60))
            with hub.joined() as browser:
                hello, _ = await read(browser)
                pictures.append([look["picture"] for look in hello["looks"]])
                assert [look["caption"]["text"] for look in hello["looks"]] == [
                    f"cat {number}" for number in range(index + 1)
                ]
        assert pictures == [
            ["/picture/front/0.000000000.jpg"],
            [None, "/picture/front/1.000000000.jpg"],
            [None, None, "/picture/front/2.000000000.jpg"],
        ]

    run(test)


def test_an_answer_for_an_agent_is_the_result_or_the_nodes_reason():
    async def test(hub):
        for message, expected in (
            ({**DONE, "result": {"text": "a cat"}}, {"text": "a cat"}),
            ({**DONE, "success": False, "message": "the queue is full"}, None),
        ):
            waiting = asyncio.ensure_future(hub.answer(None, 60))
            await asyncio.sleep(0)
            hub.contract.asked[-1][0].tell({"text": "a"})
            hub.contract.asked[-1][0].tell(message)
            if expected:
                assert await waiting == expected
            else:
                with pytest.raises(RequestError, match="the queue is full"):
                    await waiting

    run(test)


def test_an_agent_that_stops_waiting_cancels_its_question():
    async def test(hub):
        waiting = asyncio.ensure_future(hub.answer(None, 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert hub.contract.cancelled == [hub.contract.asked[0][0]]

    run(test)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
FIELDS = st.dictionaries(
    st.sampled_from(["id", "camera", "name", "value", "visible", "text"]), JSON
)
MESSAGES = JSON | st.builds(
    lambda kind, fields: {**fields, "type": kind},
    st.sampled_from(["ask", "cancel", "set", "visible"]) | JSON,
    FIELDS,
)


@given(st.lists(MESSAGES, max_size=5))
def test_no_message_of_a_browser_can_break_the_server(sent):
    async def test(hub):
        site = Site(hub)
        with hub.joined() as client:
            for message in sent:
                with contextlib.suppress(RequestError):
                    site._handle(client, json.dumps(message))
            for text in (await read(client))[1:]:
                assert text["type"] in ("answer", "set", "state", "hello")

    run(test)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 10_000, "NaN", '"\ud800"', "{" * 9, '{"a":1,}', "\0", None]
)
def test_a_text_that_is_no_json_object_is_refused(text):
    async def test(hub):
        with hub.joined() as client, pytest.raises(RequestError, match="a message must be"):
            Site(hub)._handle(client, text)

    run(test)


def test_a_browser_that_does_not_read_for_too_long_is_disconnected(monkeypatch):
    monkeypatch.setattr(server, "SEND_TIMEOUT", 0.01)

    class Stuck:
        async def accept(self):
            pass

        async def send_text(self, text):
            await asyncio.Event().wait()

        async def receive(self):
            await asyncio.Event().wait()

    async def test(hub):
        await Site(hub)._socket(Stuck())
        assert hub.contract.wanted == [*looking(True), *looking(False)]
        assert not hub._clients

    run(test)
