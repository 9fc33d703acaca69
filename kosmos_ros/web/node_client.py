# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Be an ordinary client of one kosmos_node: of its topics, services, action and parameters.

Everything here runs in the thread of the client's executor, except `NodeClient.post`. A `Listener`
in another thread receives the node's messages. Knows no browser and keeps no results.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import Answer, Event, GroundedCaption
from rcl_interfaces.msg import ParameterEvent, SetParametersResult
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    qos_profile_parameter_events,
)
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage

from kosmos_ros.errors import EncodingError, RequestError
from kosmos_ros.sanitize import one_line
from kosmos_ros.web import messages
from kosmos_ros.web.goals import DEPTH, GONE, Goals, Request, Tell
from kosmos_ros.web.live import LiveImage, LiveImages
from kosmos_ros.web.looks import ANSWER, CAPTION, EVENTS, LOOKS, PHRASES, Json
from kosmos_ros.web.pictures import Picture, picture_of

WATCH_PERIOD = 0.25  # s between two checks of the graph and the deadlines
SILENCE = 5.0  # s without /diagnostics, which come once a second, until a node counts as gone
RESPONSE_TIMEOUT = 5.0  # s for a parameter service
DESCRIBE_PERIOD = 1.0  # s between two attempts to read the parameters of a new node
LINGER = 2.0  # s until the subscriptions end when no client wants news any more
EVENTS_KEPT = 100  # events that the node keeps for late subscribers
LATCHED = DurabilityPolicy.TRANSIENT_LOCAL
STEADY = Clock(clock_type=ClockType.STEADY_TIME)

Info = Mapping[str, int] | None
"""What the middleware knows about a message; None on Humble."""


class Listener(Protocol):
    """Receives the node's messages, in a thread of its own."""

    def described(
        self, parameters: dict[str, Json], values: dict[str, Any], cameras: dict[str, str]
    ) -> None:
        """Take the descriptions and values of a new node's parameters, and topics by camera."""

    def changed(self, values: dict[str, Any]) -> None:
        """Take new values of some parameters."""

    def state(self, state: Json) -> None:
        """Take the node's state: ready, loading, error, inactive or gone."""

    def health(self, model: Json, cameras: dict[str, Json]) -> None:
        """Take the newest diagnostics of the model and of each camera."""

    def part(self, key: tuple[str, str], part: str, content: Any) -> None:
        """Take a part of a look: a GroundedCaption, or the JSON of an answer."""

    def picture(self, key: tuple[str, str], picture: Picture) -> None:
        """Take the picture of a described frame."""

    def event(self, event: Json, published: float) -> None:
        """Take an event of a camera, and when it was published: s, by this monotonic clock."""


class NodeClient:
    """The client of the node with the full name `name`. `node` is the client's own rclpy node."""

    def __init__(self, node: Node, name: str, listener: Listener, tell: Tell) -> None:
        self._node, self._name, self._listener, self._tell = node, name, listener, tell
        self._posted: deque[Callable[[], object]] = deque()
        self._wake = node.create_guard_condition(self._deliver)
        self._publisher = b""  # identity of the node's publisher of ~/model_info
        # Time in s that a pause of this process stops. After a pause, messages that arrived
        # meanwhile are still unread, so no message is late yet.
        self._awake = 0.0
        self._heard = 0.0  # when the newest diagnostics arrived, in s awake
        self._described_at = 0.0  # monotonic time of the newest attempt to read parameters
        self._state: Json = {"state": "gone", "message": GONE}
        self._model_state: Json = self._state  # from ~/model_info
        self._values: dict[str, Any] = {}
        self._early: dict[str, Any] = {}  # values that changed before `_values` are known
        self._cameras: dict[str, str] = {}
        # For each kind of news: until when it is wanted, in s, monotonic; and its subscriptions.
        self._wanted_until = {LOOKS: -math.inf, EVENTS: -math.inf}
        self._subscriptions: dict[str, list[Any]] = {LOOKS: [], EVENTS: []}
        # The node's clock (see `_sent`) minus the monotonic clock here, in ns. Until the first
        # diagnostics, the node counts as one of this machine.
        self._ahead = time.time_ns() - time.monotonic_ns()
        self._goals = Goals(node, name, tell)
        self._live = LiveImages(node)
        self._calls: dict[Any, tuple[float, Callable[[], object]]] = {}
        """Calls of services by their futures: the deadline in s awake, and what to do after it."""
        client = functools.partial(self._client, QoSProfile(depth=DEPTH))
        self._list = client(ListParameters, "list_parameters")
        self._describe = client(DescribeParameters, "describe_parameters")
        self._get = client(GetParameters, "get_parameters")
        self._set = client(SetParameters, "set_parameters")
        self._subscribe_to_state()
        node.create_timer(WATCH_PERIOD, self._watch, clock=STEADY)

    def post(self, call: Callable[[], object]) -> None:
        """Run a call soon in the executor's thread. Any thread may use this."""
        self._posted.append(call)
        with contextlib.suppress(InvalidHandle):  # the node was destroyed meanwhile
            self._wake.trigger()

    def destroy(self) -> None:
        """End all requests."""
        self._goals.destroy()

    # Commands; call them with `post` ---------------------------------------------------------

    def want(self, kind: str, wanted: bool) -> None:
        """Subscribe to a kind of news, or end its subscriptions LINGER seconds later."""
        self._wanted_until[kind] = math.inf if wanted else time.monotonic() + LINGER
        self._subscribe(kind)

    def set(self, name: str, value: Any, done: Callable[[bool, str], None]) -> None:
        """Set a parameter. `done` receives whether it is set, and otherwise the reason."""
        try:
            request = SetParameters.Request(parameters=[messages.parameter_from(name, value)])
        except RequestError as exc:
            self._tell(done, False, str(exc))
            return
        if self._state["state"] == "gone":
            self._tell(done, False, GONE)
            return

        def answered(response: SetParameters.Response) -> None:
            none = SetParametersResult(
                reason="kosmos_node did not say whether it set it; try again"
            )
            result = next(iter(response.results), none)
            self._tell(done, result.successful, result.reason)

        late = f"kosmos_node did not respond within {RESPONSE_TIMEOUT:g} s; try again"
        self._call(self._set, request, answered, lambda: self._tell(done, False, late))

    def ask(self, request: Request, goal: Generate.Goal) -> None:
        """Send a goal of the action."""
        if self._state["state"] == "gone":
            self._goals.end(request, GONE)
        else:
            self._goals.send(request, goal)

    def cancel(self, request: Request) -> None:
        """Cancel a request."""
        self._goals.cancel(request)

    def live(self, camera: str, answer: Callable[[LiveImage | None], None]) -> None:
        """Pass the camera's newest image to `answer`; see LiveImages."""
        topic = self._cameras.get(camera)
        self._tell(answer, self._live.newest(camera, topic) if topic else None)

    # Subscriptions ---------------------------------------------------------------------------

    def _client(self, qos: QoSProfile, kind: Any, service: str) -> Any:
        return self._node.create_client(kind, f"{self._name}/{service}", qos_profile=qos)

    def _subscribe_to_state(self) -> None:
        subscribe, name = self._node.create_subscription, self._name
        subscribe(
            DiagnosticStatus,
            f"{name}/model_info",
            self._on_model_info,
            QoSProfile(depth=1, durability=LATCHED),
        )
        subscribe(DiagnosticArray, "/diagnostics", _informed(self._on_diagnostics), 10)
        subscribe(
            ParameterEvent,
            "/parameter_events",
            self._on_parameter_event,
            qos_profile_parameter_events,
        )

    def _topic(self, camera: str, topic: str) -> str:
        return "/".join(part for part in (self._name, camera, topic) if part)

    def _subscribe(self, kind: str) -> None:
        """Subscribe to a kind of news, if it is wanted and the cameras are known."""
        subscriptions = self._subscriptions[kind]
        if subscriptions or time.monotonic() > self._wanted_until[kind]:
            return
        latched = QoSProfile(depth=EVENTS_KEPT, durability=LATCHED)
        topics: dict[str, tuple[Any, Callable[..., None], Any]] = {
            "captions": (GroundedCaption, functools.partial(self._on_caption, CAPTION), 10),
            "phrases": (GroundedCaption, functools.partial(self._on_caption, PHRASES), 10),
            "answers": (Answer, self._on_answer, 10),
            "frame/compressed": (CompressedImage, self._on_frame, 10),
        }
        if kind == EVENTS:
            topics = {"events": (Event, self._on_event, latched)}
        for camera in self._cameras:
            for topic, (message, callback, qos) in topics.items():
                call: Callable[..., None] = functools.partial(callback, camera)
                if kind == EVENTS:
                    call = _informed(call)
                name = self._topic(camera, topic)
                subscriptions.append(self._node.create_subscription(message, name, call, qos))

    def _unsubscribe(self, kind: str) -> None:
        subscriptions = self._subscriptions[kind]
        while subscriptions:
            self._node.destroy_subscription(subscriptions.pop())

    # Messages of the node --------------------------------------------------------------------

    def _on_model_info(self, status: DiagnosticStatus) -> None:
        self._model_state = messages.state_json(status)
        if self._publisher:
            self._tell_state(self._model_state)

    def _on_diagnostics(self, array: DiagnosticArray, info: Info) -> None:
        begin = f"{self._name}: "
        ours = {
            status.name.removeprefix(begin): status
            for status in array.status
            if status.name.startswith(begin)
        }
        if "model" not in ours:
            return
        self._heard = self._awake
        self._ahead = _sent(array, info) - time.monotonic_ns()
        model = messages.model_json(ours.pop("model"))
        cameras = {}
        for title, status in ours.items():
            name = title.removeprefix("camera").strip()
            if name not in self._cameras:  # any node may publish diagnostics
                continue
            camera = messages.camera_json(status)
            camera["sample"] = messages.sample_json(camera["values"], model["values"])
            cameras[name] = camera
            # The full name of the topic, with the node's own remapping.
            if topic := camera["values"].get("topic"):
                self._cameras[name] = topic
        self._tell(self._listener.health, model, cameras)

    def _on_parameter_event(self, event: ParameterEvent) -> None:
        if event.node != self._name:
            return
        changes = {
            parameter.name: messages.value_of(parameter.value)
            for parameter in (*event.new_parameters, *event.changed_parameters)
        }
        if not self._values:
            self._early.update(changes)
            return
        known = {name: value for name, value in changes.items() if name in self._values}
        if known:
            self._values.update(known)
            self._tell(self._listener.changed, known)

    def _on_event(self, camera: str, event: Event, info: Info) -> None:
        sent = _sent(event, info)
        content = {**messages.event_json(event), "camera": camera, "sent": str(sent)}
        self._tell(self._listener.event, content, (sent - self._ahead) / 1e9)

    def _on_caption(self, part: str, camera: str, caption: GroundedCaption) -> None:
        key = camera, messages.stamp_text(caption.header.stamp)
        self._tell(self._listener.part, key, part, caption)

    def _on_answer(self, camera: str, answer: Answer) -> None:
        key = camera, messages.stamp_text(answer.header.stamp)
        self._tell(self._listener.part, key, ANSWER, messages.answer_json(answer))

    def _on_frame(self, camera: str, frame: CompressedImage) -> None:
        try:
            picture = picture_of(bytes(frame.data))
        except EncodingError as exc:
            self._node.get_logger().warning(
                f"{self._topic(camera, 'frame/compressed')}: {one_line(exc)}",
                throttle_duration_sec=RESPONSE_TIMEOUT,
            )
            return
        key = camera, messages.stamp_text(frame.header.stamp)
        self._tell(self._listener.picture, key, picture)

    # Watching --------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def _watch(self) -> None:
        self._deliver()  # if the wake-up was lost
        now = time.monotonic()
        self._awake += WATCH_PERIOD
        self._watch_node(now)
        for future, (deadline, late) in [*self._calls.items()]:
            if self._awake > deadline:
                del self._calls[future]
                late()
        self._goals.watch(now)
        self._live.watch(now)
        for kind, until in self._wanted_until.items():
            if now > until:
                self._unsubscribe(kind)

    def _watch_node(self, now: float) -> None:
        """Check whether the node runs, and whether it has been started again."""
        publisher = self._find_publisher()
        if self._model_state["state"] == "loading":
            self._heard = self._awake  # imports may block all threads of the node for seconds
        if publisher != self._publisher:
            self._lose()
            self._publisher, self._heard = publisher, self._awake
        elif publisher and self._awake - self._heard > SILENCE:
            self._tell_state({"state": "gone", "message": GONE})
            self._goals.fail(GONE)
        elif publisher and self._values:
            self._tell_state(self._model_state)
        # Fast DDS may lose a response to a client that has just found the service.
        if publisher and not self._values and now - self._described_at > DESCRIBE_PERIOD:
            self._begin_description(now)

    def _find_publisher(self) -> bytes:
        """Return the identity of the node's publisher of ~/model_info; empty: it has none."""
        offers = self._node.get_publishers_info_by_topic(f"{self._name}/model_info")
        known = sorted(bytes(offer.endpoint_gid) for offer in offers)
        # If two nodes have the same name, stay with the one that is known already.
        return self._publisher if self._publisher in known else (known or [b""])[-1]

    def _lose(self) -> None:
        """Forget a node that has ended."""
        self._values, self._early, self._cameras, self._described_at = {}, {}, {}, 0.0
        for kind in self._subscriptions:
            self._unsubscribe(kind)
        self._live.clear()
        self._goals.fail(GONE)
        self._tell_state({"state": "gone", "message": GONE})

    def _tell_state(self, state: Json) -> None:
        if state != self._state:
            self._state = state
            self._tell(self._listener.state, state)

    # Parameters ------------------------------------------------------------------------------

    def _call(
        self,
        client: Any,
        request: Any,
        answered: Callable[[Any], None],
        late: Callable[[], object] = lambda: None,
    ) -> None:
        """Send a request, and call `answered` with the response or `late` without one."""
        future = client.call_async(request)

        def give_up() -> None:
            client.remove_pending_request(future)
            late()

        self._calls[future] = self._awake + RESPONSE_TIMEOUT, give_up

        def end(future: Any) -> None:
            if self._calls.pop(future, None):
                answered(future.result())

        future.add_done_callback(end)

    def _begin_description(self, now: float) -> None:
        if not all(
            client.service_is_ready() for client in (self._list, self._describe, self._get)
        ):
            return
        self._described_at = now
        publisher = self._publisher
        request = ListParameters.Request(depth=ListParameters.Request.DEPTH_RECURSIVE)

        def listed(response: ListParameters.Response) -> None:
            names = list(response.result.names)
            self._call(
                self._describe,
                DescribeParameters.Request(names=names),
                lambda described: self._call(
                    self._get,
                    GetParameters.Request(names=names),
                    functools.partial(self._on_description, publisher, described),
                ),
            )

        self._call(self._list, request, listed)

    def _on_description(
        self,
        publisher: bytes,
        described: DescribeParameters.Response,
        got: GetParameters.Response,
    ) -> None:
        """Subscribe to the topics of a new node, whose parameters are known now."""
        late = publisher != self._publisher or self._values  # an earlier attempt succeeded
        if late or len(described.descriptors) != len(got.values):
            return
        # The response may have been sent before a change, and arrive after it.
        self._values = {
            descriptor.name: self._early.get(descriptor.name, messages.value_of(value))
            for descriptor, value in zip(described.descriptors, got.values, strict=True)
        }
        self._cameras = self._topics(self._values)
        parameters = {
            descriptor.name: messages.description_json(descriptor)
            for descriptor in described.descriptors
            if not messages.split(descriptor.name, self._cameras)[0]
        }
        for kind in self._subscriptions:
            self._subscribe(kind)
        self._tell(self._listener.described, parameters, dict(self._values), dict(self._cameras))
        self._tell_state(self._model_state)

    def _topics(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the image topic of each camera, by name, according to the parameters."""
        names = values.get("cameras") or [""]
        topics = values.get("image_topics") or [
            f"{name}/image" if name else "image" for name in names
        ]
        namespace = self._name.rpartition("/")[0]
        return {
            name: topic if topic.startswith("/") else f"{namespace}/{topic}"
            for name, topic in zip(names, topics, strict=False)
        }


def _informed(callback: Callable[..., None]) -> Callable[..., None]:
    """Return a callback that also receives the Info of its messages."""
    has_info = hasattr(Subscription, "CallbackType")  # Humble has not
    return callback if has_info else functools.partial(callback, info=None)


def _sent(message: Any, info: Info) -> int:
    """Return when the node sent a message, in ns by a clock of the node's machine.

    Without the middleware's stamp, it is the stamp of the header. The header of an event is that
    of a frame, which was taken a little earlier.
    """
    stamp = message.header.stamp
    return (info or {}).get("source_timestamp") or stamp.sec * 10**9 + stamp.nanosec
