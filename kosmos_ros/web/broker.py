# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the newest state and results of the node, and send them to browsers and agents.

Runs in one event loop, so nothing here needs a lock. Knows no rclpy and no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kosmos_msgs.action import Generate

from kosmos_ros import __version__
from kosmos_ros.errors import NotReadyError, RequestError
from kosmos_ros.sanitize import quoted
from kosmos_ros.web import messages
from kosmos_ros.web.goals import GONE, Request
from kosmos_ros.web.live import LiveImage
from kosmos_ros.web.looks import (
    ANSWER,
    CAPTION,
    EVENTS,
    LOOKS,
    PHRASES,
    PICTURE,
    Json,
    Look,
    Looks,
)
from kosmos_ros.web.node_client import NodeClient
from kosmos_ros.web.outbox import EVENT, LOOK, Outbox, encoded
from kosmos_ros.web.pictures import Picture, Pictures

SAMPLES = 60  # points of each plot, one a second
MOST_EVENTS = 200  # kept for browsers that connect later
MOST_CLIENTS = 64  # browsers at a time
MOST_REQUESTS = 4  # requests of one browser at a time
MOST_CHANGES = 16  # parameters that one browser sets at a time
LIVE_TIMEOUT = 1.0  # s until the executor's thread responds whether there is a live image
MAX_ID = 64  # characters

CLIENT = ""  # kind of the messages that answer a browser's own requests
PRESENT = object()  # the news that the node is present
HEALTH = object()  # the news that diagnostics have arrived
STATE = "state"  # kind of messages; only the newest one of each type counts


class Happened(NamedTuple):
    """The news of an event, and when the node published it."""

    event: Json
    published: float  # s, monotonic


@dataclass(eq=False)
class Client:
    """One browser, or another program with a websocket."""

    outbox: Outbox = field(default_factory=Outbox)
    visible: bool = False
    requests: dict[str, Request] = field(default_factory=dict)
    changes: int = 0  # parameters that the node has not answered yet


class Broker:
    """The state of one node, named `node`, and the clients that see it.

    `node_client` must be set before use. The methods of node_client.Listener come first.
    """

    node_client: NodeClient

    def __init__(self, node: str, loop: asyncio.AbstractEventLoop) -> None:
        self.node, self._loop = node, loop
        self.cameras: dict[str, str] = {}  # name: image topic
        self.pictures = Pictures()
        self._numbers = itertools.count()  # of pictures
        self.looks = Looks(self._on_look, self._expected, loop.call_later, loop.time)
        self.node_state: Json = {"state": "gone", "message": GONE}
        self.camera_health: dict[str, Json] = {}
        self._parameters: dict[str, Json] = {}
        self._values: dict[str, Any] = {}
        self._model: Json | None = None
        self._samples: dict[str, deque[Json]] = {}
        self._events: dict[Hashable, Json] = {}
        self._clients: set[Client] = set()
        # For each kind of news: visible browsers, and agents that wait for it.
        self._watchers = {LOOKS: 0, EVENTS: 0}
        self._waiting: set[tuple[Callable[[Any], bool], asyncio.Future[Any]]] = set()

    # Messages of the node ---------------------------------------------------------------------

    def described(
        self, parameters: dict[str, Json], values: dict[str, Any], cameras: dict[str, str]
    ) -> None:
        """Take over the parameters and the cameras of a new node."""
        self._parameters, self._values, self.cameras = parameters, values, cameras
        self.camera_health, self._model = {}, None  # of the node before
        for client in self._visible():
            self._greet(client)
        self._wake_if_present()

    def changed(self, values: dict[str, Any]) -> None:
        """Take over new values of parameters."""
        self._values.update(values)
        self._broadcast({"type": "parameters", "values": self._sorted_values()}, STATE)

    def state(self, state: Json) -> None:
        """Take over the node's state."""
        self.node_state = state
        self._broadcast({"type": "state", **state}, STATE)
        self._wake_if_present()

    def health(self, model: Json, cameras: dict[str, Json]) -> None:
        """Take over the newest diagnostics."""
        self._model, self.camera_health = model, cameras
        for name, camera in cameras.items():
            # The full name, with the node's own remapping.
            self.cameras[name] = camera["values"].get("topic") or self.cameras[name]
            self._samples.setdefault(name, deque(maxlen=SAMPLES)).append(camera["sample"])
        for name in self._samples.keys() - cameras.keys():
            del self._samples[name]
        self._broadcast({"type": "health", "model": model, "cameras": cameras}, STATE)
        self._wake(HEALTH)

    def part(self, key: tuple[str, str], part: str, content: Any) -> None:
        """Take over a part of a look."""
        self.looks.add(key, part, content)

    def picture(self, key: tuple[str, str], picture: Picture) -> None:
        """Keep the picture of a described frame."""
        camera, stamp = key
        # Frames with equal stamps have pictures of their own, which browsers keep by their names.
        name = f"{stamp}-{next(self._numbers)}"
        self.pictures.put(camera, name, picture)
        self.looks.add(key, PICTURE, name)

    def event(self, event: Json, published: float) -> None:
        """Take over an event. `published`: when, in s, monotonic."""
        self._wake(Happened(event, published))
        # A bag that plays again has the same events, which the node sends at other times.
        key = tuple(event[name] for name in ("camera", "stamp", "kind", "subject", "sent"))
        if key in self._events:  # the node sends its last events to each new subscriber
            return
        self._events[key] = event
        while len(self._events) > MOST_EVENTS:
            del self._events[next(iter(self._events))]
        self._broadcast({"type": "event", **event}, EVENT, key)

    @property
    def present(self) -> bool:
        """Whether the node runs and its cameras are known."""
        return bool(self.cameras) and self.node_state["state"] != "gone"

    def check_camera(self, name: str) -> None:
        """Raise RequestError with the names of the cameras unless `name` is one."""
        if not self.cameras:
            raise RequestError(GONE)
        if name not in self.cameras:
            valid = f"one of {', '.join(self.cameras)}" if any(self.cameras) else "empty"
            raise RequestError(f"camera must be {valid}, got {quoted(name)}")

    # Browsers -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def joined(self) -> Iterator[Client]:
        """Provide a new client, visible at first. Raises NotReadyError if there are too many."""
        if len(self._clients) >= MOST_CLIENTS:
            raise NotReadyError(f"at most {MOST_CLIENTS} browsers may be connected; close some")
        client = Client()
        self._clients.add(client)
        try:
            self.show(client, True)
            yield client
        finally:
            self.show(client, False)
            self._clients.discard(client)
            for request in client.requests.values():
                self._cancel(request)

    def show(self, client: Client, visible: bool) -> None:
        """Start or stop sending news to a client."""
        if visible == client.visible:
            return
        client.visible = visible
        client.outbox.clear(CLIENT)
        for kind in self._watchers:
            self._watch(kind, 1 if visible else -1)
        if visible:
            self._greet(client)

    def request(self, client: Client, message: Json) -> None:
        """Pass a request of a client to the node. Raises RequestError for a wrong message."""
        name = _id(message)
        if name in client.requests:
            raise RequestError(
                f"id must differ from those of running requests, got {quoted(name)}"
            )
        request = Request(lambda answer: self._answer(client, name, request, answer))
        client.requests[name] = request
        try:
            if len(client.requests) > MOST_REQUESTS:
                raise RequestError(f"at most {MOST_REQUESTS} requests may run; cancel one")
            goal = messages.goal_from(message)
        except RequestError as exc:
            done = {"done": True, "success": False, "message": str(exc), "result": None}
            self._answer(client, name, request, done)
            return
        self.node_client.post(lambda: self.node_client.ask(request, goal))

    def cancel(self, client: Client, message: Json) -> None:
        """Cancel a request of a client, unless it has ended. Raises RequestError."""
        if request := client.requests.get(_id(message)):
            self._cancel(request)

    def change(self, client: Client, message: Json) -> None:
        """Set a parameter for a client. Raises RequestError for a wrong message."""
        name, parameter, camera = _id(message), message.get("name"), message.get("camera")
        if not isinstance(parameter, str) or not isinstance(camera, str):
            raise RequestError(
                f"camera and name must be texts, got {quoted(camera)} and {quoted(parameter)}"
            )

        def done(success: bool, reason: str) -> None:
            client.changes -= 1
            answer = {"type": "set", "id": name, "success": success, "message": reason}
            client.outbox.put(encoded(answer), kind=CLIENT)

        client.changes += 1
        if client.changes > MOST_CHANGES:
            done(False, f"at most {MOST_CHANGES} parameters may be set at a time; try again later")
            return
        full = f"{camera}.{parameter}" if camera else parameter
        value = message.get("value")
        self.node_client.post(lambda: self.node_client.set(full, value, done))

    # Agents -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching(self, kind: str) -> Iterator[None]:
        """Keep the node working for a kind of news, LOOKS or EVENTS, until the context ends."""
        self._watch(kind, 1)
        try:
            yield
        finally:
            self._watch(kind, -1)

    async def next(self, matches: Callable[[Any], bool], timeout: float) -> Any:
        """Return the next news that matches: a Look, an event (Happened), PRESENT or HEALTH.

        Raises asyncio.TimeoutError.
        """
        future = self._loop.create_future()
        entry = (matches, future)
        self._waiting.add(entry)
        try:
            return await asyncio.wait_for(future, timeout)
        finally:
            self._waiting.discard(entry)

    async def answer(self, goal: Generate.Goal, timeout: float) -> Json:
        """Return the result of a goal. Raises RequestError with the node's reason."""
        future = self._loop.create_future()

        def tell(message: Json) -> None:
            if message.get("done") and not future.done():
                future.set_result(message)

        request = Request(tell)
        self.node_client.post(lambda: self.node_client.ask(request, goal))
        try:
            message: Json = await asyncio.wait_for(future, timeout)
        finally:
            self._cancel(request)
        if not message["success"]:
            raise RequestError(message["message"])
        result: Json = message["result"]
        return result

    async def live(self, camera: str) -> LiveImage | None:
        """Return the camera's newest image; None: none has arrived yet."""
        future: asyncio.Future[LiveImage | None] = self._loop.create_future()

        def answer(image: LiveImage | None) -> None:
            if not future.done():
                future.set_result(image)

        self.node_client.post(lambda: self.node_client.live(camera, answer))
        try:
            return await asyncio.wait_for(future, LIVE_TIMEOUT)
        except asyncio.TimeoutError:
            return None

    def value(self, camera: str, name: str) -> Any:
        """Return the value of a camera's parameter, or None."""
        return self._values.get(f"{camera}.{name}" if camera else name)

    def look_json(self, look: Look) -> Json:
        """Return a look as the page receives it."""
        picture = look.picture if self.picture_of(look) else ""
        found = messages.look_json(look.camera, look.stamp, look.parts, picture)
        return {**found, "number": look.number}

    def picture_of(self, look: Look) -> Picture | None:
        """Return the picture of a look, or None if it has not arrived or is no longer kept."""
        return self.pictures.get(look.camera, look.picture)

    # --------------------------------------------------------------------------------------------

    def _visible(self) -> list[Client]:
        return [client for client in self._clients if client.visible]

    def _broadcast(self, message: Json, kind: str, key: Hashable = None) -> None:
        if clients := self._visible():
            text = encoded(message)
            for client in clients:
                client.outbox.put(text, key or message["type"], kind)

    def _greet(self, client: Client) -> None:
        client.outbox.put(self._hello, "hello", STATE)
        client.outbox.put(encoded({"type": "state", **self.node_state}), "state", STATE)

    def _hello(self) -> str:
        """Return all that is known, as text."""
        # Encoding 900 looks again for each browser would take long.
        looks = [look for look in self.looks if look.camera in self.cameras]
        texts = ",".join(map(self._look_text, looks))
        now = self._loop.time()
        hello = {
            "type": "hello",
            "node": self.node,
            "version": __version__,
            "cameras": [{"name": name, "topic": topic} for name, topic in self.cameras.items()],
            "parameters": self._parameters,
            "values": self._sorted_values(),
            "events": [e for e in self._events.values() if e["camera"] in self.cameras],
            "health": self._health_so_far(),
            "ages": [round(now - look.begun, messages.DIGITS) for look in looks],  # s
        }
        return f'{encoded(hello)[:-1]},"looks":[{texts}]}}'

    def _look_text(self, look: Look) -> str:
        """Return a look as text, which is kept until the look changes."""
        picture = self.picture_of(look) is not None
        if not look.text or picture != look.pictured:
            look.text, look.pictured = encoded({"type": "look", **self.look_json(look)}), picture
        return look.text

    def _health_so_far(self) -> Json:
        cameras = {
            name: {**camera, "samples": [*self._samples.get(name, ())]}
            for name, camera in self.camera_health.items()
        }
        return {"model": self._model, "cameras": cameras}

    def _sorted_values(self) -> dict[str, Json]:
        return messages.values_json(self._values, self.cameras)

    def _expected(self, camera: str) -> Mapping[str, int]:
        """Return how many parts of each kind a look of a camera has."""
        questions = len(self.value(camera, "questions") or ())
        prompts = questions if self.value(camera, "task") == "question" else 1
        return {
            CAPTION: max(1, prompts),
            PHRASES: 1 if self.value(camera, "phrases") else 0,
            ANSWER: questions,
            PICTURE: 1,
        }

    def _on_look(self, look: Look) -> None:
        if clients := self._visible():
            text = self._look_text(look)
            for client in clients:
                client.outbox.put(text, look.key, LOOK)
        self._wake(look)

    def _wake_if_present(self) -> None:
        if self.present:
            self._wake(PRESENT)

    def _wake(self, news: Any) -> None:
        for matches, future in [*self._waiting]:
            if not future.done() and matches(news):
                future.set_result(news)

    def _watch(self, kind: str, change: int) -> None:
        before = self._watchers[kind]
        self._watchers[kind] = after = before + change
        if bool(before) != bool(after):
            self.node_client.post(lambda: self.node_client.want(kind, bool(after)))

    def _cancel(self, request: Request) -> None:
        self.node_client.post(lambda: self.node_client.cancel(request))

    def _answer(self, client: Client, name: str, request: Request, answer: Json) -> None:
        # Only the newest text counts, and only the newest number of requests ahead.
        part = next((part for part in ("done", "begun", "text") if part in answer), "waiting")
        text = encoded({"type": "answer", "id": name, **answer})
        client.outbox.put(text, (request, part), CLIENT)
        if "done" in answer:
            client.requests.pop(name, None)


def _id(message: Json) -> str:
    name = message.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID:
        raise RequestError(f"id must be a text of 1 to {MAX_ID} characters, got {quoted(name)}")
    return name
