# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tools for agents: look, ask, find, describe, wait.

No tool publishes, sets or moves anything. Knows the broker; no rclpy and no connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any

from kosmos_msgs.action import Generate
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, TextContent
from pydantic import AfterValidator, Field

from kosmos_ros.errors import KosmosError, RequestError
from kosmos_ros.sanitize import one_line, quoted
from kosmos_ros.settings import MAX_ENTRIES
from kosmos_ros.web import messages
from kosmos_ros.web.broker import HEALTH, PRESENT, Broker, Happened
from kosmos_ros.web.goals import GONE
from kosmos_ros.web.looks import CAPTION, EVENTS, LOOKS, PICTURE, Json, Look
from kosmos_ros.web.pictures import smaller
from kosmos_ros.web.tool_results import (
    Answer,
    Camera,
    Cameras,
    Corners,
    Event,
    Sight,
    Waited,
    phrases_of,
    sight_of,
)

LONGEST_SIDE = 1024  # pixels of the picture of a look
FIND_TIMEOUT = 15.0  # s until kosmos_node has been found, on a busy machine
HEALTH_TIMEOUT = 2.0  # s until the first diagnostics, which the node publishes once a second
LOOK_TIMEOUT = 30.0  # s until the next described frame
PICTURE_TIMEOUT = 2.0  # s from a described frame to its picture
ANSWER_TIMEOUT = 120.0  # s for an answer, including the wait for other requests
LONGEST_WAIT = 300.0  # s for an event
MOST_SUBJECTS = 600  # characters of the subjects that an answer lists
MOST_CALLS = 8  # calls that run at a time; further ones are refused

UNDIAGNOSED = (
    "no diagnostics of this camera have arrived yet; call cameras again: the node publishes them "
    "once a second when it has started"
)

CameraName = Annotated[
    str,
    Field(max_length=100, description="name of the camera; may be empty if there is only one"),
]
Stamp = Annotated[
    str,
    Field(max_length=32, description="stamp of an earlier result; empty: the newest frame"),
]
Number = Annotated[float, Field(strict=True)]  # otherwise true and "5" are numbers, too
Region = Annotated[
    list[Number],
    Field(
        min_length=4,
        max_length=4,
        description="x_min, y_min, x_max and y_max in pixels of the image, to which it is cut",
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(messages.transferable)]


class Tools:
    """The tools, for one broker. Each method whose name does not begin with _ is a tool."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._running = 0

    async def cameras(self) -> Cameras:
        """List the cameras with their state, and the state of the node.

        While nobody subscribes to its results, a camera is idle, which is no fault: its frames are
        not described, so captions_per_second is 0. look, ask, find and describe work all the same.
        """
        with self._call():
            with contextlib.suppress(RequestError):
                await self._present()
                await self._diagnosed()
            cameras = self._broker.cameras.items()
            found = [self._camera_state(name, topic) for name, topic in cameras]
            return Cameras(**self._broker.node_state, cameras=found)

    async def look(self, camera: CameraName = "") -> Annotated[CallToolResult, Sight]:
        """Wait for the next described frame. Return its picture, caption, phrases and answers."""
        with self._call():
            name = await self._camera(camera)
            with self._broker.watching(LOOKS):
                look = await self._next_look(name)
            sight = sight_of(self._broker.look_json(look))
            content: list[Any] = [TextContent(type="text", text=sight.model_dump_json())]
            if picture := self._broker.picture_of(look):
                small = await asyncio.to_thread(smaller, picture, (LONGEST_SIDE, LONGEST_SIDE))
                data = base64.b64encode(small.data).decode()
                content.append(ImageContent(type="image", data=data, mime_type=small.type))
            return CallToolResult(content=content, structured_content=sight.model_dump())

    async def ask(
        self,
        question: Text,
        camera: CameraName = "",
        region: Region | Corners | None = None,
        history: Annotated[
            list[Text],
            Field(
                max_length=40,
                description="earlier questions and answers, alternately, the oldest first",
            ),
        ] = [],  # noqa: B006  pydantic copies it
        stamp: Stamp = "",
    ) -> Answer:
        """Answer a question about a frame, or about a region of it ("What is it?")."""
        request = {"task": "question", "text": question, "history": history}
        return await self._answer(camera, stamp, region, request)

    async def find(
        self,
        phrases: Annotated[list[Text], Field(min_length=1, max_length=MAX_ENTRIES)],
        camera: CameraName = "",
        stamp: Stamp = "",
    ) -> Answer:
        """Locate phrases such as "a red cup". A phrase without boxes is not in view."""
        request = {"task": "phrase_grounding", "phrases": phrases}
        return await self._answer(camera, stamp, None, request)

    async def describe(
        self,
        camera: CameraName = "",
        region: Region | Corners | None = None,
        detailed: Annotated[
            bool, Field(strict=True, description="true: describe the whole frame at length")
        ] = False,
        stamp: Stamp = "",
    ) -> Answer:
        """Describe a region of a frame, or the whole frame, briefly or in detail."""
        if region and detailed:
            raise ToolError(
                "detailed describes the whole frame only; leave out region or detailed"
            )
        whole = "detailed_caption" if detailed else "brief_caption"
        task = "region_description" if region else whole
        return await self._answer(camera, stamp, region, {"task": task})

    async def wait_for_event(
        self,
        camera: Annotated[
            str, Field(max_length=100, description="name of the camera; empty: any")
        ] = "",
        subject: Annotated[
            str, Field(max_length=1000, description="the phrase or the question; empty: any")
        ] = "",
        timeout: Annotated[
            Number, Field(gt=0, le=LONGEST_WAIT, description="seconds to wait")
        ] = 60.0,
    ) -> Waited:
        """Wait until a phrase appears or disappears, or the answer to a question changes.

        Events exist only for the parameters `phrases` and `questions` of the node. With an empty
        camera, an event of any camera counts. A subject that these parameters do not contain ends
        the wait at once, and the reason names those that they contain.
        """
        called = time.monotonic()

        def matches(news: Any) -> bool:
            return (
                isinstance(news, Happened)
                and news.published >= called  # the node repeats its last events to new subscribers
                and camera in ("", news.event["camera"])
                and subject in ("", news.event["subject"])
            )

        with self._call():
            await self._present()
            await self._diagnosed()  # the clocks of two machines can be compared from then on
            if camera:
                await self._camera(camera)
            if reason := self._no_subject(camera, subject):
                return Waited(event=None, reason=reason)
            try:
                with self._broker.watching(EVENTS):
                    event = (await self._broker.next(matches, timeout)).event
            except asyncio.TimeoutError:
                return Waited(event=None, reason=f"no event within {timeout:g} s")
            found = Event(**{**event, "phrases": phrases_of(event["phrases"])})
            return Waited(event=found, reason="")

    # --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """Count a running call, and turn the project's errors into those of MCP."""
        if self._running >= MOST_CALLS:
            raise ToolError(
                f"at most {MOST_CALLS} calls may run at a time; try again when one has ended"
            )
        self._running += 1
        try:
            yield
        except KosmosError as exc:
            raise ToolError(str(exc)) from exc
        finally:
            self._running -= 1

    async def _present(self) -> None:
        """Wait until the node is found: an agent may have just started this server."""
        if not self._broker.present:
            try:
                await self._broker.next(lambda news: news is PRESENT, FIND_TIMEOUT)
            except asyncio.TimeoutError:
                raise RequestError(GONE) from None

    async def _diagnosed(self) -> None:
        """Wait for the first diagnostics of a node that has just been found, but not long."""
        if not self._broker.camera_health:
            with contextlib.suppress(asyncio.TimeoutError):
                await self._broker.next(
                    lambda news: news is HEALTH and bool(self._broker.camera_health),
                    HEALTH_TIMEOUT,
                )

    def _camera_state(self, name: str, topic: str) -> Camera:
        here = self._broker.present
        health = self._broker.camera_health.get(name) if here else None
        if health is None:
            message = UNDIAGNOSED if here else self._broker.node_state["message"]
            health = {"level": "unknown", "message": message, "sample": {}, "values": {}}
        return Camera(
            name=name,
            topic=topic,
            level=health["level"],
            message=health["message"],
            images_per_second=messages.known(health["values"], messages.IMAGE_RATE),
            captions_per_second=health["sample"].get("captions", 0.0),
        )

    async def _camera(self, name: str) -> str:
        """Return the name of a camera; empty means the only one. Raises RequestError."""
        await self._present()
        names = [*self._broker.cameras]
        if not name and len(names) == 1:
            return names[0]
        self._broker.check_camera(name)
        return name

    def _no_subject(self, camera: str, subject: str) -> str:
        """Return why no event can have this subject; empty: one can. Without a camera: of any."""
        subjects = {
            entry.strip("\r\n"): None  # as the node reads it
            for name in ([camera] if camera else self._broker.cameras)
            for parameter in ("phrases", "questions")
            for entry in self._broker.value(name, parameter) or ()
        }
        if not subject or subject in subjects:
            return ""
        known = one_line(", ".join(map(quoted, subjects)), MOST_SUBJECTS)
        have = f"have only {known}" if subjects else "are empty"
        return (
            f"no event can have the subject {quoted(subject)}, because the parameters phrases and "
            f"questions {have}; leave subject empty to wait also for entries that are added later"
        )

    async def _next_look(self, camera: str) -> Look:
        def described(news: Any) -> bool:
            return isinstance(news, Look) and news.camera == camera and CAPTION in news.parts

        try:
            look: Look = await self._broker.next(described, LOOK_TIMEOUT)
        except asyncio.TimeoutError:
            health = self._broker.camera_health.get(camera, {})
            raise RequestError(
                f"no frame was described within {LOOK_TIMEOUT:g} s: "
                f"{health.get('message') or self._broker.node_state['message']}"
            ) from None
        if PICTURE not in look.parts:
            with contextlib.suppress(asyncio.TimeoutError):
                await self._broker.next(
                    lambda news: news is look and PICTURE in look.parts, PICTURE_TIMEOUT
                )
        return look

    async def _answer(
        self, camera: str, stamp: str, region: Region | Corners | None, request: Json
    ) -> Answer:
        if isinstance(region, Corners):
            region = [region.x_min, region.y_min, region.x_max, region.y_max]
        with self._call():
            goal: Generate.Goal = messages.goal_from(
                {
                    **request,
                    "camera": await self._camera(camera),
                    "stamp": stamp or None,
                    "regions": [region] if region else [],
                    "grounded": True,
                }
            )
            try:
                result = await self._broker.answer(goal, ANSWER_TIMEOUT)
            except asyncio.TimeoutError:
                raise RequestError(
                    f"no answer within {ANSWER_TIMEOUT:g} s; the tool cameras says whether the "
                    "node is ready"
                ) from None
            return Answer(**{**result, "phrases": phrases_of(result["phrases"])})


TOOLS = ("cameras", "look", "ask", "find", "describe", "wait_for_event")
"""Names of the tools, which are methods of Tools."""
