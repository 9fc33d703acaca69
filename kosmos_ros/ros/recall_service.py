# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The service ~/recall: find described frames in the observation log.

A thread of its own reads the observation log, because a search may take longer than a callback of
the executor should. Knows messages and queries; not how a log is written.
"""

from __future__ import annotations

import contextlib
import queue
import threading

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from kosmos_msgs.msg import Recollection as RecollectionMessage
from kosmos_msgs.srv import Recall
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from kosmos_ros.errors import KosmosError, NotReadyError, QueueFullError, RequestError
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recall import DEFAULT_LIMIT, Query, Recollection, recall
from kosmos_ros.memory.records import Observation, Pose
from kosmos_ros.memory.wordnet import WordNet
from kosmos_ros.ros import limits
from kosmos_ros.ros.conversions import duration, nanoseconds, phrase_message
from kosmos_ros.ros.lifecycle import ManagedNode
from kosmos_ros.sanitize import format_error

BURST = 1000  # requests that may arrive at once; each gets a response or a refusal
MAX_WAITING = 100  # requests that wait for the thread
MAX_RESULTS = 100  # of a request; a result has about 10 kB
NEVER_SEEN = "never seen"
REPEAT_ERROR = 5.0  # s between two log messages about failed requests


class RecallService:
    """~/recall about the log `path`; empty: there is none, and requests are refused."""

    def __init__(self, node: ManagedNode, path: str) -> None:
        self._node = node
        self._path = path
        self._warned = False  # that WordNet is missing
        self._closed = False
        self.waiting = 0  # requests without a response
        self._asked: queue.Queue[tuple[Query, Future] | None] = queue.Queue(MAX_WAITING + 1)
        node.create_service(
            Recall,
            "~/recall",
            self._serve,
            qos_profile=QoSProfile(depth=BURST),
            callback_group=ReentrantCallbackGroup(),
        )
        if path:
            threading.Thread(target=self._run, name="recall", daemon=True).start()

    def close(self) -> None:
        """End the thread after the requests that wait for it. Later requests are refused."""
        self._closed = True
        with contextlib.suppress(queue.Full):  # then it was closed before
            self._asked.put_nowait(None)

    async def _serve(self, request: Recall.Request, response: Recall.Response) -> Recall.Response:
        try:
            limits.check(request)
            now = self._node.get_clock().now().nanoseconds
            query, future = query_of(request, now), Future()
            if not self._path:
                raise NotReadyError(
                    "there is no observation log: start the node with the parameter memory"
                )
            if self._closed:
                raise NotReadyError("the node is shutting down")
            if self.waiting >= MAX_WAITING:
                raise QueueFullError(f"{MAX_WAITING} requests wait already; try again later")
        except Exception as exc:  # every client gets a response
            return self._refusal(exc)
        self.waiting += 1
        self._asked.put_nowait((query, future))
        try:
            return await future
        finally:
            self.waiting -= 1

    def _refusal(self, error: Exception) -> Recall.Response:
        reason = format_error(error)
        if not isinstance(error, KosmosError):
            self._node.get_logger().error(
                f"a request for ~/recall failed: {reason}", throttle_duration_sec=REPEAT_ERROR
            )
        return Recall.Response(success=False, message=reason)

    # The thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while asked := self._asked.get():
            query, future = asked
            try:
                response = self._answer(query)
            except Exception as exc:  # every client gets a response
                response = self._refusal(exc)
            with contextlib.suppress(InvalidHandle):  # the node was destroyed meanwhile
                self._node.mailbox.post(future, response)

    def _answer(self, query: Query) -> Recall.Response:
        with ObservationLog.read(self._path) as log:
            found = recall(log, query, self._wordnet())
            ids = [result.observation.id for result in found if result.observation.id is not None]
            seen = {observation.id: observation for observation in log.get(ids)}
        now = self._node.get_clock().now().nanoseconds
        results = [
            recollection_message(result, seen.get(result.observation.id, result.observation), now)
            for result in found
        ]
        return Recall.Response(
            success=True, message="" if results else NEVER_SEEN, results=results
        )

    def _wordnet(self) -> WordNet | None:
        """Return WordNet; None, with a warning at the first search, if it is not installed."""
        net = wordnet.find()
        if net is None and not self._warned:
            self._node.get_logger().warning(wordnet.MISSING)
            self._warned = True
        return net


def query_of(request: Recall.Request, now: int) -> Query:
    """Return what a request asks for at the time `now` in ns. Raises RequestError."""
    if request.max_results > MAX_RESULTS:
        raise RequestError(f"max_results must be 0 to {MAX_RESULTS}, got {request.max_results}")
    if request.radius < 0:
        raise RequestError(f"radius must be 0 (anywhere) or more, got {request.radius:g} m")
    since, until = _limit(request.since), _limit(request.until)
    if since is not None and until is not None and since > until:
        raise RequestError(
            f"since must not be later than until, got since {since} and until {until} ns"
        )
    near = (request.near.x, request.near.y, request.radius) if request.radius != 0 else None
    return Query(
        text=request.query,
        now=now,
        camera=request.camera or None,
        since=since,
        until=until,
        near=near,
        last=request.newest_first,
        limit=request.max_results or DEFAULT_LIMIT,
    )


def _limit(stamp: Time) -> int | None:
    """Return a stamp in ns; None if it is 0, which sets no limit."""
    return nanoseconds(stamp) or None


def recollection_message(
    result: Recollection, observation: Observation, now: int
) -> RecollectionMessage:
    """Return the message of a result.

    `observation` is that of the result, with its thumbnail. `now` is the time in ns.
    """
    header = Header(stamp=_time(observation.stamp), frame_id=observation.frame_id)
    message = RecollectionMessage(
        header=header,
        camera=observation.camera,
        image_width=observation.width,
        image_height=observation.height,
        task=observation.task,
        caption=observation.caption,
        phrases=[phrase_message(phrase, phrase.boxes) for phrase in result.phrases],
        score=float(result.score),
        age=duration((now - observation.stamp) * 1e-9),
    )
    if pose := observation.pose:
        message.has_pose, message.pose = True, _pose_message(pose, header.stamp)
    if observation.thumbnail:
        message.thumbnail = CompressedImage(
            header=header, format="webp", data=observation.thumbnail
        )
    return message


def _pose_message(pose: Pose, stamp: Time) -> PoseStamped:
    message = PoseStamped(header=Header(stamp=stamp, frame_id=pose.frame_id))
    at, turned = message.pose.position, message.pose.orientation
    at.x, at.y, at.z = float(pose.x), float(pose.y), float(pose.z)
    turned.x, turned.y = float(pose.qx), float(pose.qy)
    turned.z, turned.w = float(pose.qz), float(pose.qw)
    return message


def _time(stamp: int) -> Time:
    sec, nanosec = divmod(stamp, 10**9)
    return Time(sec=sec, nanosec=nanosec)
