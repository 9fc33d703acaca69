# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The broker passes news to browsers and requests to the node, each with its limits."""

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from kosmos_msgs.msg import GroundedCaption, GroundedPhrase

from kosmos_ros.errors import NotReadyError, RequestError
from kosmos_ros.web import server
from kosmos_ros.web.broker import (
    MOST_CHANGES,
    MOST_CLIENTS,
    MOST_REQUESTS,
    PRESENT,
    Broker,
    Happened,
)
from kosmos_ros.web.looks import ANSWER, CAPTION, EVENTS, LOOKS, PHRASES, PICTURE
from kosmos_ros.web.pictures import Picture, Pictures
from kosmos_ros.web.server import Site


class FakeNodeClient:
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
    """Run `test(broker)` in an event loop, with a broker of the cameras front and rear."""

    async def main():
        broker = Broker("/kosmos", asyncio.get_running_loop())
        broker.node_client = FakeNodeClient()
        cameras = {"front": "/front/image", "rear": "/rear/image"}
        broker.described({}, {"max_rate": 1.0, "front.max_rate": 2.0}, cameras)
        broker.state({"state": "ready", "message": "ready"})
        await test(broker)

    asyncio.run(main())


def looking(wanted):
    """Return what a browser wants from the node while it is visible, or no longer."""
    return [(LOOKS, wanted), (EVENTS, wanted)]


async def read(client):
    """Return all messages that wait for a client."""
    return [json.loads(await client.outbox.take()) for _ in range(len(client.outbox))]


DONE = {"done": True, "success": True, "message": "", "result": {}}


def test_the_node_works_only_while_somebody_looks():
    async def test(broker):
        with broker.joined() as one:
            with broker.joined():
                pass
            broker.show(one, False)
            broker.show(one, False)
            broker.show(one, True)
            with broker.watching(EVENTS):  # a browser looks already
                pass
        with broker.watching(EVENTS):
            pass
        browser = [*looking(True), *looking(False)]
        assert broker.node_client.wanted == [*browser, *browser, (EVENTS, True), (EVENTS, False)]

    run(test)


def test_a_browser_beyond_the_limit_is_refused():
    async def test(broker):
        with contextlib.ExitStack() as browsers:
            for _ in range(MOST_CLIENTS):
                browsers.enter_context(broker.joined())
            with pytest.raises(NotReadyError, match="at most 64 browsers"):
                browsers.enter_context(broker.joined())
        with broker.joined():
            pass

    run(test)


def test_a_browser_that_leaves_cancels_its_questions():
    async def test(broker):
        with broker.joined() as client:
            for name in ("1", "2"):
                broker.request(client, {"id": name, "task": "brief_caption"})
            (first, _), (second, _) = broker.node_client.asked
            first.tell(DONE)
        assert broker.node_client.cancelled == [second]

    run(test)


def test_one_browser_has_at_most_four_questions():
    async def test(broker):
        with broker.joined() as client:
            await read(client)
            for index in range(MOST_REQUESTS + 1):
                broker.request(client, {"id": str(index), "task": "brief_caption"})
            assert len(broker.node_client.asked) == MOST_REQUESTS
            (refused,) = await read(client)
            assert refused["id"] == "4"
            assert refused["done"]
            assert refused["message"] == "at most 4 requests may run; cancel one"
            broker.node_client.asked[0][0].tell(DONE)
            broker.request(client, {"id": "5", "task": "brief_caption"})
            assert len(broker.node_client.asked) == MOST_REQUESTS + 1

    run(test)


def test_an_id_is_used_by_one_question_at_a_time():
    async def test(broker):
        with broker.joined() as client:
            broker.request(client, {"id": "1", "task": "brief_caption"})
            with pytest.raises(RequestError, match="those of running requests, got '1'"):
                broker.request(client, {"id": "1", "task": "brief_caption"})
            broker.node_client.asked[0][0].tell(DONE)
            broker.request(client, {"id": "1", "task": "brief_caption"})

    run(test)


@pytest.mark.parametrize("name", [None, 1, "", "x" * 65, ["1"]])
def test_a_wrong_id_is_refused(name):
    async def test(broker):
        with broker.joined() as client:
            for call in (broker.request, broker.cancel, broker.change):
                with pytest.raises(RequestError, match="id must be a text of 1 to 64 characters"):
                    call(client, {"id": name, "camera": "", "name": "task"})

    run(test)


def test_one_browser_sets_at_most_16_parameters_at_a_time():
    async def test(broker):
        with broker.joined() as client:
            await read(client)
            message = {"id": "1", "camera": "front", "name": "max_rate", "value": 2.0}
            for _ in range(MOST_CHANGES + 1):
                broker.change(client, message)
            (refused,) = await read(client)
            assert not refused["success"]
            assert "at most 16 parameters" in refused["message"]
            name, value, done = broker.node_client.changes[0]
            assert (name, value) == ("front.max_rate", 2.0)
            done(True, "words of the node")
            (answer,) = await read(client)
            assert answer == {
                "type": "set", "id": "1", "success": True, "message": "words of the node",
            }  # fmt: skip
            broker.change(client, message)
            assert len(broker.node_client.changes) == MOST_CHANGES + 1

    run(test)


@pytest.mark.parametrize("first", ["described", "state"])
def test_an_agent_that_waits_for_the_node_learns_that_it_is_there(first):
    async def main():
        broker = Broker("/kosmos", asyncio.get_running_loop())
        waiting = asyncio.ensure_future(broker.next(lambda news: news is PRESENT, 60))
        await asyncio.sleep(0)
        calls = [
            lambda: broker.described({}, {}, {"front": "/front/image"}),
            lambda: broker.state({"state": "loading", "message": "loading"}),
        ]
        for call in calls if first == "described" else reversed(calls):
            assert not waiting.done()
            call()
            await asyncio.sleep(0)
        assert await waiting is PRESENT
        assert broker.present

    asyncio.run(main())


EVENT = {
    "camera": "front", "stamp": "1.000000000", "time": 1000.0, "kind": "appeared",
    "subject": "a cat", "answer": "", "previous": "", "phrases": [], "sent": "5",
}  # fmt: skip


def test_an_event_is_sent_once_and_kept_for_later_browsers():
    async def test(broker):
        with broker.joined() as client:
            await read(client)
            broker.event(EVENT, 1.0)
            assert await read(client) == [{"type": "event", **EVENT}]
            broker.event(EVENT, 1.0)  # the node sends it again to a new subscriber
            assert await read(client) == []
        with broker.joined() as later:
            hello, _ = await read(later)
            assert hello["events"] == [EVENT]
            again = {**EVENT, "sent": "6"}  # of a bag that plays again
            broker.event(again, 2.0)
            assert await read(later) == [{"type": "event", **again}]

    run(test)


def test_a_later_browser_learns_nothing_of_cameras_that_are_gone():
    async def test(broker):
        broker.event(EVENT, 1.0)
        broker.part(("front", "1.000000000"), CAPTION, GroundedCaption())
        broker.described({}, {}, {"rear": "/rear/image"})
        with broker.joined() as later:
            hello, _ = await read(later)
            assert (hello["events"], hello["looks"]) == ([], [])

    run(test)


def test_a_hidden_browser_gets_no_news():
    async def test(broker):
        with broker.joined() as client:
            broker.show(client, False)
            broker.event(EVENT, 1.0)
            broker.changed({"max_rate": 2.0})
            broker.state({"state": "gone", "message": "it has ended"})
            broker.health({}, {})
            broker.part(("front", "1.000000000"), CAPTION, GroundedCaption())
            broker.picture(("front", "1.000000000"), Picture("image/jpeg", b"jpeg"))
            assert await read(client) == []
            broker.show(client, True)
            hello, state = await read(client)
            assert hello["values"][""]["max_rate"] == 2.0
            assert len(hello["looks"]) == len(hello["events"]) == 1
            assert state["message"] == "it has ended"

    run(test)


def test_those_who_wait_learn_when_an_event_was_published():
    async def test(broker):
        waiting = asyncio.ensure_future(broker.next(lambda news: isinstance(news, Happened), 60))
        await asyncio.sleep(0)
        broker.event(EVENT, 7.0)
        assert await waiting == (EVENT, 7.0)
        assert not broker._waiting

    run(test)


def test_a_look_is_sent_with_its_picture_and_kept():
    async def test(broker):
        key = ("front", "1.000000000")
        with broker.joined() as client:
            await read(client)
            broker.picture(key, Picture("image/jpeg", b"jpeg"))
            broker.part(key, CAPTION, GroundedCaption(caption="a cat"))
            (look,) = await read(client)
            assert look["picture"] == "/picture/front/1.000000000-0.jpg"
            assert look["caption"]["text"] == "a cat"
        (kept,) = broker.looks
        assert kept.key == key
        assert kept.parts.keys() == {CAPTION, PICTURE}
        with broker.joined() as later:
            hello, state = await read(later)
            assert [look["stamp"] for look in hello["looks"]] == ["1.000000000"]
            assert hello["values"] == {
                "": {"max_rate": 1.0}, "front": {"max_rate": 2.0}, "rear": {},
            }  # fmt: skip
            assert state["state"] == "ready"

    run(test)


def test_a_later_browser_learns_that_a_picture_is_no_longer_kept():
    async def test(broker):
        broker.pictures = Pictures(most=100)
        pictures = []
        for index in range(3):
            key = ("front", f"{index}.000000000")
            broker.part(key, CAPTION, GroundedCaption(caption=f"cat {index}"))
            broker.picture(key, Picture("image/jpeg", b"x" * 60))
            with broker.joined() as browser:
                hello, _ = await read(browser)
                pictures.append([look["picture"] for look in hello["looks"]])
                assert [look["caption"]["text"] for look in hello["looks"]] == [
                    f"cat {number}" for number in range(index + 1)
                ]
        assert pictures == [
            ["/picture/front/0.000000000-0.jpg"],
            [None, "/picture/front/1.000000000-1.jpg"],
            [None, None, "/picture/front/2.000000000-2.jpg"],
        ]

    run(test)


def test_looks_of_equal_stamps_have_their_own_results_and_pictures():
    """A bag plays again: the first time without answers, the second time without phrases."""

    async def test(broker):
        key = ("front", "1.000000000")
        seen = []
        with broker.joined() as client:
            await read(client)
            for index in range(2):
                broker.part(key, CAPTION, GroundedCaption(caption=f"cat {index}"))
                if index:
                    broker.part(key, ANSWER, {"question": "Who?"})
                else:
                    broker.part(key, PHRASES, GroundedCaption(phrases=[GroundedPhrase(text="it")]))
                broker.picture(key, Picture("image/jpeg", bytes([index])))
                seen.append((await read(client))[-1])
        first, second = seen
        assert first["number"] != second["number"]
        assert [phrase["text"] for phrase in first["phrases"]] == ["it"]
        assert (first["answers"], second["answers"]) == ([], [{"question": "Who?"}])
        assert second["phrases"] == []
        names = [look["picture"].rpartition("/")[2][:-4] for look in seen]
        pictures = [broker.pictures.get("front", name).data for name in names]
        assert pictures == [b"\0", b"\1"]

    run(test)


def test_a_browser_learns_how_long_ago_each_look_arrived():
    async def test(broker):
        now = broker.looks._now = lambda: 100.0
        broker.part(("front", "1.000000000"), CAPTION, GroundedCaption())
        broker._loop = type("Loop", (), {"time": staticmethod(lambda: now() + 600)})
        with broker.joined() as browser:
            hello, _ = await read(browser)
            assert hello["ages"] == [600.0]

    run(test)


def test_an_answer_for_an_agent_is_the_result_or_the_nodes_reason():
    async def test(broker):
        for message, expected in (
            ({**DONE, "result": {"text": "a cat"}}, {"text": "a cat"}),
            ({**DONE, "success": False, "message": "the queue is full"}, None),
        ):
            waiting = asyncio.ensure_future(broker.answer(None, 60))
            await asyncio.sleep(0)
            broker.node_client.asked[-1][0].tell({"text": "a"})
            broker.node_client.asked[-1][0].tell(message)
            if expected:
                assert await waiting == expected
            else:
                with pytest.raises(RequestError, match="the queue is full"):
                    await waiting

    run(test)


def test_an_agent_that_stops_waiting_cancels_its_question():
    async def test(broker):
        waiting = asyncio.ensure_future(broker.answer(None, 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert broker.node_client.cancelled == [broker.node_client.asked[0][0]]

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
    async def test(broker):
        site = Site(broker)
        with broker.joined() as client:
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
    async def test(broker):
        with broker.joined() as client, pytest.raises(RequestError, match="a message must be"):
            Site(broker)._handle(client, text)

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

    async def test(broker):
        await Site(broker)._socket(Stuck())
        assert broker.node_client.wanted == [*looking(True), *looking(False)]
        assert not broker._clients

    run(test)
