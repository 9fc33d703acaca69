# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Join the results that the node publishes about one frame on several topics into a look.

The parts of a look have the same camera and stamp. A bag that plays again, and a camera whose
stamps do not change, have several looks of one stamp. Knows no message and no connection.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

PATIENCE = 0.05  # s from a part of a look until it is sent without the missing ones
LATEST = 5.0  # s from the first part of a look until a part belongs to another look of this stamp
KEPT = 900  # looks of all cameras: 15 minutes of one camera at 1 Hz

CAPTION, PHRASES, ANSWER, PICTURE = "caption", "phrases", "answer", "picture"
"""Parts of a look. There may be several captions and answers."""

LOOKS, EVENTS = "looks", "events"
"""Kinds of news. The node works for a kind only while a client wants it."""

Json = dict[str, Any]
"""A JSON object."""

Key = tuple[str, str]
"""Camera and stamp of a look."""


@dataclass(eq=False)
class Look:
    """The results of one described frame. `parts` has the contents of each part so far."""

    camera: str
    stamp: str
    number: int  # no other look has it
    begun: float  # s, when its first part arrived
    parts: dict[str, list[Any]] = field(default_factory=dict)
    timer: Any = None  # until the look is sent without its missing parts
    text: str = ""  # as JSON, which the broker keeps here; empty after each change
    pictured: bool = False  # `text` says that the picture is kept

    @property
    def key(self) -> Key:
        """The look's camera and stamp."""
        return self.camera, self.stamp

    @property
    def picture(self) -> str:
        """The name of the look's picture; empty: none has arrived."""
        return str(self.parts.get(PICTURE, [""])[0])

    def has(self, expected: Mapping[str, int]) -> bool:
        """Return whether all `expected` parts are there: a count for each kind of part."""
        return all(len(self.parts.get(part, ())) >= count for part, count in expected.items())


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Never make the call."""


class Looks:
    """The newest looks of all cameras, oldest first.

    `send` is called with each look when it is complete, or PATIENCE after one of its parts
    arrived. It is called again if more parts arrive later. `expected(camera)` returns the count
    of each part of a look. `later(seconds, call)` makes a call later, unless its result is
    cancelled. `now()` returns the time in s by the same clock.
    """

    def __init__(
        self,
        send: Callable[[Look], object],
        expected: Callable[[str], Mapping[str, int]],
        later: Callable[[float, Callable[[], None]], Timer],
        now: Callable[[], float],
    ) -> None:
        self._send, self._expected, self._later, self._now = send, expected, later, now
        self._numbers = itertools.count()
        self._looks: OrderedDict[Key, Look] = OrderedDict()

    def __iter__(self) -> Any:
        return iter([*self._looks.values()])

    def add(self, key: Key, part: str, content: Any) -> None:
        """Add a part to the newest look of `key`, or to a new one."""
        look = self._looks.get(key)
        expected = self._expected(key[0])
        most = max(1, expected.get(part, 1))  # 0: the parameters have changed meanwhile
        full = look is not None and len(look.parts.get(part, ())) >= most
        if look is None or self._now() - look.begun > LATEST or (full and part != PICTURE):
            look = self._begin(key)
        elif full:  # of two frames with one stamp, the first picture may come late
            look.parts.pop(part)
        look.parts.setdefault(part, []).append(content)
        look.text = ""
        if look.has(expected):
            self._flush(look)
        elif look.timer is None:
            look.timer = self._later(PATIENCE, lambda: self._flush(look))

    def _begin(self, key: Key) -> Look:
        """Return a new look, which takes the place of an earlier one of the same stamp."""
        if earlier := self._looks.pop(key, None):
            _stop(earlier)
        look = self._looks[key] = Look(*key, next(self._numbers), self._now())
        while len(self._looks) > KEPT:
            _stop(self._looks.popitem(last=False)[1])
        return look

    def _flush(self, look: Look) -> None:
        _stop(look)
        self._send(look)


def _stop(look: Look) -> None:
    if look.timer is not None:
        look.timer.cancel()
        look.timer = None
