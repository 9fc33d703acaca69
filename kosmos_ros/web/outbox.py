# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Queue the messages for one browser. The queue is bounded, and drops its oldest looks and events.

So a browser that reads slowly gets fewer looks, and nothing else waits for it. Knows no connection
and no ROS.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Hashable

from kosmos_ros.web.looks import Json

MOST_LOOKS = 32  # looks that wait for one browser; older ones are left out
MOST_EVENTS = 100  # events that wait for one browser; older ones are left out
MOST_MESSAGES = 256  # messages that wait for one browser; with more, its requests are not read

LOOK, EVENT = "look", "event"
Text = str | Callable[[], str]
"""A message, or a function that makes it when the browser has read all messages before it."""

MOST = {LOOK: MOST_LOOKS, EVENT: MOST_EVENTS}


def encoded(message: Json) -> str:
    """Return a message as JSON. It has only ASCII, so no text can be invalid UTF-8."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


class Outbox:
    """Messages for one browser, as text. `put` never waits, `take` waits for the next one.

    A message replaces the waiting one with the same key. Used by one event loop.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, Hashable], Text] = OrderedDict()
        self._counts = dict.fromkeys(MOST, 0)
        self._skipped = 0  # looks that were left out since the last message "gap"
        self._numbers = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, text: Text, key: Hashable = None, kind: str = "") -> None:
        """Add a message. `key` None: it replaces no other. Only LOOK and EVENT have a limit."""
        if key is None:
            self._numbers += 1
            key = self._numbers
        whole = (kind, key)
        if whole not in self._waiting and kind in MOST:
            self._counts[kind] += 1
            if self._counts[kind] > MOST[kind]:
                self._leave_out(kind)
        self._waiting[whole] = text
        self._changed.set()
        if len(self._waiting) >= MOST_MESSAGES:
            self._room.clear()

    def clear(self, kept: str) -> None:
        """Drop all messages but those of the kind `kept`."""
        for whole in [whole for whole in self._waiting if whole[0] != kept]:
            del self._waiting[whole]
        self._counts = dict.fromkeys(MOST, 0)
        self._skipped = 0
        self._make_room()

    async def take(self) -> str:
        """Return the next message, and wait for one if there is none."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        if self._skipped:
            skipped, self._skipped = self._skipped, 0
            return encoded({"type": "gap", "skipped": skipped})
        whole, text = self._waiting.popitem(last=False)
        if (kind := whole[0]) in MOST:
            self._counts[kind] -= 1
        self._make_room()
        return text if isinstance(text, str) else text()

    async def room(self) -> None:
        """Wait until the queue has room for the answer to another request."""
        await self._room.wait()

    def _make_room(self) -> None:
        if len(self._waiting) < MOST_MESSAGES:
            self._room.set()

    def _leave_out(self, kind: str) -> None:
        oldest = next(key for key in self._waiting if key[0] == kind)
        del self._waiting[oldest]
        self._counts[kind] -= 1
        self._skipped += kind == LOOK
