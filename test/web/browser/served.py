# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A server in the browser itself, which sends the page what a test wants."""

import json
import time

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
LONG_AGO = 1.0  # s since 1970
DAY = 24 * 3600  # s


def look(camera, number=0, at=LONG_AGO, text="", **more):
    """Return a described frame, `at` seconds since 1970."""
    box = [10, 10, 100, 100, 0.5]
    return {
        "type": "look",
        "camera": camera,
        "stamp": f"{int(at)}.{number:09d}",
        "time": at * 1000,
        "width": 640,
        "height": 480,
        "picture": None,
        "task": HOSTILE,
        "caption": {
            "text": text or f"{camera or HOSTILE} is here",
            "phrases": [{"text": HOSTILE, "start": 0, "end": 3, "boxes": [box]}],
            "score": 1,
            "tokens": 5,
            "truncated": False,
        },
        "phrases": [{"text": HOSTILE, "start": 0, "end": 0, "boxes": []}],
        "answers": [],
        "latency": 1,
        **more,
    }


def hello(names, state="ready", **more):
    """Return messages of a server whose node has these cameras, one look each.

    `more` replaces parts of the first message.
    """
    event = {"camera": names[0], "stamp": "1.000000000", "time": 1000, "kind": "answered"}
    status = {"level": "warn", "message": HOSTILE, "values": {HOSTILE: HOSTILE, "cause": HOSTILE}}
    looks = more.get("looks", [look(name, index) for index, name in enumerate(names)])
    # A look of a clock that stands still arrived just now.
    ages = [time.time() - each["time"] / 1000 for each in looks]
    first = {
        "type": "hello",
        "node": HOSTILE,
        "version": HOSTILE,
        "cameras": [{"name": name, "topic": HOSTILE} for name in names],
        "parameters": {},
        "values": values(phrases=[HOSTILE], questions=[HOSTILE]),
        "looks": looks,
        "ages": [age if age < DAY else 0 for age in ages],
        "events": [{**event, "subject": HOSTILE, "answer": HOSTILE, "previous": HOSTILE}],
        "health": {
            "model": {**status, "loading": None},
            "cameras": {name: {**status, "samples": []} for name in names},
        },
    }
    return [{**first, **more}, {"type": "state", "state": state, "message": HOSTILE}]


def values(**common):
    """Return the values of parameters for all cameras."""
    return {"": {"enabled": True, "phrases": [], "questions": [], **common}}


def health(names, camera=(), **figures):
    """Return a message with figures of the model and of each camera.

    `camera` replaces parts of the cameras' states.
    """
    sample = dict.fromkeys(("captions", "images", "p50", "p95", "lost", "memory"), 1.0)
    sample |= {"device": 0}
    status = {"level": "ok", "message": "images are described", "values": figures}
    return {
        "type": "health",
        "model": {**status, "loading": None},
        "cameras": {name: {**status, **dict(camera), "sample": sample} for name in names},
    }


def ago(seconds):
    """Return a time in seconds since 1970."""
    return time.time() - seconds


class Served:
    """Replaces the page's server; `Served(...)` is the argument `before` of `open_page`."""

    def __init__(self, messages, answer=lambda socket, message: None):
        self._messages, self._answer = messages, answer
        self.received = []
        self.socket = None

    def __call__(self, page):
        page.route_web_socket("**/ws", self._begin)

    def send(self, **message):
        """Send the page a message."""
        self.socket.send(json.dumps(message))

    def _begin(self, socket):
        self.socket = socket
        socket.on_message(self._take)
        for message in self._messages:
            self.send(**message)

    def _take(self, text):
        message = json.loads(text)
        self.received.append(message)
        self._answer(self, message)
