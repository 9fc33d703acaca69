# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The queue of a browser is bounded, keeps the newest messages, and never blocks others."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.web.outbox import (
    EVENT,
    LOOK,
    MOST_EVENTS,
    MOST_LOOKS,
    MOST_MESSAGES,
    Outbox,
    encoded,
)


def emptied(outbox):
    """Return all messages that wait."""

    async def take_all():
        return [await outbox.take() for _ in range(len(outbox) + bool(outbox._skipped))]

    return asyncio.run(take_all())


def test_a_browser_that_never_reads_gets_only_the_newest_looks():
    outbox = Outbox()
    for index in range(1000):
        outbox.put(str(index), index, LOOK)
        assert len(outbox) <= MOST_LOOKS
    assert emptied(outbox) == [
        encoded({"type": "gap", "skipped": 1000 - MOST_LOOKS}),
        *map(str, range(1000 - MOST_LOOKS, 1000)),
    ]


def test_only_the_newest_state_waits():
    outbox = Outbox()
    for index in range(1000):
        outbox.put(f"health {index}", "health", "state")
        outbox.put(f"parameters {index}", "parameters", "state")
    assert emptied(outbox) == ["health 999", "parameters 999"]


def test_a_growing_answer_waits_once_and_before_its_end():
    outbox = Outbox()
    outbox.put("begun", ("1", "begun"))
    for index in range(100):
        outbox.put(f"text {index}", ("1", "text"))
    outbox.put("done", ("1", "done"))
    assert emptied(outbox) == ["begun", "text 99", "done"]


def test_a_hidden_browser_keeps_only_its_answers():
    outbox = Outbox()
    for index in range(MOST_LOOKS + 5):
        outbox.put("look", index, LOOK)
    outbox.put("event", None, EVENT)
    outbox.put("health", "health", "state")
    outbox.put("answer", ("1", "done"))
    outbox.clear("")
    assert emptied(outbox) == ["answer"]
    outbox.put("look", 1, LOOK)
    assert emptied(outbox) == ["look"]  # and no gap


def test_requests_are_not_read_while_too_many_messages_wait():
    async def run():
        outbox = Outbox()
        for _ in range(MOST_MESSAGES):
            outbox.put("answer")
        waiting = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        await outbox.take()
        await waiting

    asyncio.run(run())


def test_a_message_wakes_the_sender():
    async def run():
        outbox = Outbox()
        taking = asyncio.ensure_future(outbox.take())
        await asyncio.sleep(0)
        assert not taking.done()
        outbox.put("look", 1, LOOK)
        assert await taking == "look"

    asyncio.run(run())


ACTIONS = st.one_of(
    st.tuples(st.just(LOOK), st.integers(0, 60)),
    st.tuples(st.just(EVENT), st.integers(0, 200)),
    st.tuples(st.just("state"), st.sampled_from(["health", "state", "parameters"])),
    st.just("take"),
    st.just("clear"),
)


@given(st.lists(ACTIONS, max_size=400))
def test_every_look_is_sent_replaced_or_counted_in_a_gap(actions):
    """Put looks with numbers; those that arrive are in order, and all others are accounted for."""

    async def run():
        outbox, put, got, skipped, order = Outbox(), set(), [], 0, 0
        for action in actions:
            if action == "clear":
                outbox.clear("")
                put, got, skipped = set(), [], 0
            elif action == "take":
                if len(outbox):
                    text = json.loads(await outbox.take())
                    if "skipped" in text:
                        skipped += text["skipped"]
                    elif text["kind"] == LOOK:
                        got.append(text["order"])
            else:
                kind, key = action
                order += 1
                unique = (key, order) if kind == LOOK else key
                put |= {order} if kind == LOOK else set()
                outbox.put(json.dumps({"kind": kind, "order": order}), unique, kind)
            assert len(outbox) <= MOST_LOOKS + MOST_EVENTS + 3
        while len(outbox):
            text = json.loads(await outbox.take())
            skipped += text.get("skipped", 0)
            got += [text["order"]] if text.get("kind") == LOOK else []
        assert got == sorted(got)
        assert len(got) + skipped == len(put)

    asyncio.run(run())


def test_a_message_that_is_never_read_is_never_made():
    made = []
    outbox = Outbox()
    for index in range(100):
        outbox.put(lambda index=index: made.append(index) or f"hello {index}", "hello", "state")
    assert not made
    assert emptied(outbox) == ["hello 99"]
    assert made == [99]


def test_messages_have_only_ascii_and_no_number_that_json_lacks():
    assert encoded({"text": "\ud800é\u2028<"}) == '{"text":"\\ud800\\u00e9\\u2028<"}'
    with pytest.raises(ValueError, match="JSON"):
        encoded({"score": float("nan")})
