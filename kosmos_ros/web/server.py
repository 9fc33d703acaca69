# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Serve the routes of the web server: the page, pictures, live images and the websocket.

Knows HTTP and the broker; no rclpy. Everything runs in one event loop, and pixels in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sensor_msgs.msg import CompressedImage, Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from kosmos_ros.errors import EncodingError, ImageError, NotReadyError, RequestError
from kosmos_ros.images.decode import decode_compressed, decode_message
from kosmos_ros.sanitize import one_line, quoted
from kosmos_ros.web import messages
from kosmos_ros.web.broker import CLIENT, Broker, Client
from kosmos_ros.web.looks import Json
from kosmos_ros.web.outbox import encoded
from kosmos_ros.web.pictures import LARGEST, MAX_PIXELS, WIDTHS, Picture, jpeg, picture_of, smaller

PAGE = Path(__file__).parent / "page"
SEND_TIMEOUT = 10.0  # s for one message to a browser
MAX_MESSAGE = 256 * 1024  # bytes of a message from a browser
MAX_WRONG = 10  # wrong messages in a row
POLICY, TRY_LATER = 1008, 1013  # codes that close a websocket
DRAWING = 2  # pictures that are made at a time
LIVE_PERIOD = 1 / 15  # s between two live images of a camera
KEEP = {"Cache-Control": "private, max-age=3600, immutable"}  # a described frame never changes
NUMBER_HEADER = "X-Number"  # of a live image
NOT_KEPT = (
    "this picture is not kept; the server keeps only the newest pictures of described frames"
)
FRESH = {"Cache-Control": "no-store"}

# The system may have other types for these files, with which browsers refuse modules.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("image/svg+xml", ".svg")


class Page(StaticFiles):
    """The files of the page. Browsers check each time whether a file has changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or the page for the empty path."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Site:
    """The routes, for one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._drawing = asyncio.Semaphore(DRAWING)
        self._live: dict[str, _LivePicture] = {}

    def app(self, *more: BaseRoute) -> Starlette:
        """Return the application, with `more` routes."""
        return Starlette(
            routes=[
                Route("/picture/{camera}/{name}", self._picture),
                Route("/live/{name}", self._live_image),
                WebSocketRoute("/ws", self._socket),
                *more,
                Mount("/", Page(directory=PAGE, html=True, check_dir=False)),
            ]
        )

    # Pictures -----------------------------------------------------------------------------------

    async def _picture(self, request: Request) -> Response:
        """Return the picture of a described frame, as published or smaller."""
        camera = _camera(request.path_params["camera"])
        name, kind = request.path_params["name"][:-4], request.path_params["name"][-4:]
        width = request.query_params.get("width", "")
        if width and width not in map(str, WIDTHS):
            widths = ", ".join(map(str, WIDTHS))
            return _refusal(400, f"width must be one of {widths}, got {quoted(width)}")
        whole = self._broker.pictures.get(camera, name) if kind == ".jpg" else None
        if whole is None:
            return self._no_camera(camera) or _refusal(404, NOT_KEPT)
        if not width:
            return _response(whole, KEEP)
        kept = self._broker.pictures.get(camera, name, int(width))
        try:
            made = kept or await self._drawn(lambda: smaller(whole, (int(width), LARGEST[1])))
        except ImageError as exc:
            return _refusal(415, str(exc))
        if not kept:
            self._broker.pictures.put(camera, name, made, int(width))
        return _response(made, KEEP)

    async def _live_image(self, request: Request) -> Response:
        """Return the newest image of a camera's own topic, unless its number is `after`.

        Its stamp does not tell images apart: some cameras send none.
        """
        name = request.path_params["name"]
        camera = _camera(name.removesuffix(".jpg"))
        if not name.endswith(".jpg"):
            return _refusal(404, f"the path must be /live/CAMERA.jpg, got {quoted(name)}")
        if refusal := self._no_camera(camera):
            return refusal
        live = self._live.setdefault(camera, _LivePicture())
        async with live.lock:
            image = await self._broker.live(camera)
            # An earlier request may have decoded this image already.
            old = image is None or image.number == live.number
            if image and not old and time.monotonic() - live.made > LIVE_PERIOD:
                stretch = bool(self._broker.value("", "stretch_mono16"))
                try:
                    live.picture = await self._drawn(lambda: _decoded(image.read(), stretch))
                except ImageError as exc:
                    return _refusal(415, str(exc))
                live.number, live.made = image.number, time.monotonic()
        number = str(live.number)
        if not image or live.picture is None or number == request.query_params.get("after"):
            return Response(status_code=204, headers=FRESH)
        return _response(live.picture, {**FRESH, NUMBER_HEADER: number})

    def _no_camera(self, camera: str) -> Response | None:
        """Return the refusal of a camera that the node does not have; None: it has this one."""
        try:
            self._broker.check_camera(camera)
        except RequestError as exc:
            return _refusal(404, str(exc))
        return None

    async def _drawn(self, make: Callable[[], Any]) -> Any:
        async with self._drawing:
            return await asyncio.to_thread(make)

    # The websocket ------------------------------------------------------------------------------

    async def _socket(self, socket: WebSocket) -> None:
        """Serve one browser until it disconnects or no longer reads."""
        await socket.accept()
        try:
            with self._broker.joined() as client:
                tasks = [
                    asyncio.ensure_future(self._send(socket, client)),
                    asyncio.ensure_future(self._receive(socket, client)),
                ]
                try:
                    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                for task in ended:
                    task.result()  # raises an unexpected error, for the log
        except NotReadyError as exc:
            await socket.close(TRY_LATER, str(exc))

    async def _send(self, socket: WebSocket, client: Client) -> None:
        with contextlib.suppress(WebSocketDisconnect, asyncio.TimeoutError):
            while True:
                text = await client.outbox.take()
                await asyncio.wait_for(socket.send_text(text), SEND_TIMEOUT)

    async def _receive(self, socket: WebSocket, client: Client) -> None:
        wrong = 0
        while wrong < MAX_WRONG:
            await client.outbox.room()
            frame = await socket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            try:
                self._handle(client, frame.get("text"))
                wrong = 0
            except RequestError as exc:
                wrong += 1
                error = {"type": "error", "message": one_line(exc)}
                client.outbox.put(encoded(error), kind=CLIENT)
        await socket.close(POLICY, f"{MAX_WRONG} wrong messages in a row")

    def _handle(self, client: Client, text: str | None) -> None:
        """Carry out a message of the page. Raises RequestError for a wrong one."""
        message = _message(text)
        kinds = {
            "ask": self._broker.request,
            "cancel": self._broker.cancel,
            "set": self._broker.change,
            "visible": self._show,
        }
        kind = message.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            raise RequestError(f"type must be one of {', '.join(kinds)}, got {quoted(kind)}")
        kinds[kind](client, message)

    def _show(self, client: Client, message: Json) -> None:
        visible = message.get("visible")
        if not isinstance(visible, bool):
            raise RequestError(f"visible must be true or false, got {quoted(visible)}")
        self._broker.show(client, visible)


class _LivePicture:
    """The newest live image of one camera, as a picture."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.made = 0.0  # monotonic time
        self.number = -1  # of the image
        self.picture: Picture | None = None


def _decoded(message: Image | CompressedImage, stretch: bool) -> Picture:
    """Return the picture of a live image, as the node would read it. Raises ImageError."""
    if not isinstance(message, CompressedImage):
        return jpeg(decode_message(message, MAX_PIXELS, stretch))
    try:
        return picture_of(bytes(message.data))
    except EncodingError:
        return jpeg(decode_compressed(message.data, message.format, MAX_PIXELS, stretch))


def _message(text: str | None) -> Json:
    """Return the JSON object of a message. Raises RequestError."""
    if text is None or len(text.encode(errors="replace")) > MAX_MESSAGE:
        raise RequestError(f"a message must be text of at most {MAX_MESSAGE} bytes")
    try:
        message = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"a message must be JSON: {one_line(exc, 100)}") from exc
    if not isinstance(message, dict):
        raise RequestError(f"a message must be a JSON object, got {quoted(message)}")
    return message


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _camera(name: str) -> str:
    return "" if name == messages.NO_NAME else name


def _response(picture: Picture, headers: dict[str, str]) -> Response:
    return Response(picture.data, media_type=picture.type, headers=headers)


def _refusal(status: int, reason: str) -> Response:
    return PlainTextResponse(f"{one_line(reason)}\n", status, headers=FRESH)
