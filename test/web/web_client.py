# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A robot with two cameras, its web server, and a client of the websocket, for the tests."""

import contextlib
import http.client
import json
import socket
import time

import pytest
from PIL import Image as Pillow
from programs import Program, parameters

from kosmos_ros.images.sources import open_source

websockets = pytest.importorskip(
    "websockets.sync.client", reason="websockets is not installed: run scripts/setup"
)

PATIENCE = 60.0  # s
QUESTION = "How many shapes are there?"
PHRASE = "a red star"


class Server:
    """web_node as a process, on a free port."""

    def __init__(self, environment=None, **values):
        options = {"env": environment} if environment else {}
        self.program = Program("web.web_node", *parameters(port=0, **values), **options)
        line = self.program.says("is shown at ")
        self.address = line.rpartition(" ")[2]
        self.host = self.address.removeprefix("http://").partition("/")[0]

    def get(self, path, method="GET", **headers):
        """Return the response to a request, with its body in `data`. Header names have _ for -."""
        connection = http.client.HTTPConnection(self.host.replace("0.0.0.0", "127.0.0.1"))
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            response.data = response.read()
            return response

    def browser(self, **headers):
        """Connect a websocket, as a browser would. `Host` replaces the server's own name."""
        port = int(self.host.rpartition(":")[2])
        host = headers.pop("Host", f"127.0.0.1:{port}")
        return Browser(
            websockets.connect(
                f"ws://{host}/ws",
                sock=socket.create_connection(("127.0.0.1", port)),
                max_size=None,
                open_timeout=PATIENCE,
                close_timeout=1,  # a browser that has not read everything leaves as well
                additional_headers=headers,
            )
        )


class Browser:
    """A websocket that keeps what it has received. `connection` is a context manager."""

    def __init__(self, connection):
        self._connection = connection
        self.socket = None
        self.messages = []
        self._asked = 0

    def __enter__(self):
        self.socket = self._connection.__enter__()
        return self

    def __exit__(self, *details):
        self._connection.__exit__(*details)

    def send(self, **message):
        self.socket.send(json.dumps(message))

    def receive(self, timeout=PATIENCE):
        """Return the next message."""
        message = json.loads(self.socket.recv(timeout))
        self.messages.append(message)
        return message

    def until(self, type, matches=lambda message: True):
        """Return the next message of this type that matches."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = self.receive()
            if message["type"] == type and matches(message):
                return message
        raise AssertionError(f"no {type} in {[message['type'] for message in self.messages]}")

    def ask(self, **fields):
        """Send a question and return its id."""
        self._asked += 1
        name = f"question {self._asked}"
        self.send(type="ask", id=name, **fields)
        return name

    def answers(self, name):
        """Return all messages about a question, the last of which is done."""
        found = []
        while not (found and found[-1].get("done")):
            found.append(self.until("answer", lambda message: message["id"] == name))
        return found

    def wait_for_end(self, name):
        """Wait until a question has ended. It may have ended already."""

        def ends(message):
            return message.get("id") == name and message.get("done")

        if not any(map(ends, self.messages)):
            self.until("answer", ends)

    def set(self, camera, name, value):
        """Set a parameter, and return the node's response."""
        for _ in range(5):
            self._asked += 1
            key = f"set {self._asked}"
            self.send(type="set", id=key, camera=camera, name=name, value=value)
            response = self.until("set", lambda message: message["id"] == key)  # noqa: B023
            if not response["message"].endswith("try again"):  # the node was late
                break
        return response


class Robot:
    """kosmos_node and two cameras as processes. The image of `front` never changes."""

    def __init__(self, folder):
        view = open_source("shapes", size=(640, 480), rate=10.0, seed=3).read()
        self.truth = view.truth
        path = folder / "scene.png"
        Pillow.fromarray(view.image).save(path)
        self.image = view.image
        self.cameras = [
            Program("camera_node", *camera, "-r", f"__node:={name}")
            for name, camera in {
                "front": parameters(source=path, rate=10.0),
                "rear": parameters(seed=2, rate=10.0),
            }.items()
        ]
        self.node = self.start()
        self.server = Server(node="/kosmos")

    def start(self):
        """Start kosmos_node."""
        node = Program(
            "kosmos_node",
            *parameters(
                model="shapes",
                device="cpu",
                cameras="[front, rear]",
                image_topics="[front/image_raw, rear/image_raw]",
                max_rate=5.0,
                phrases=f"[{PHRASE}]",
                questions=f"['{QUESTION}']",
                event_frames=1,
                kept_frames=1000,  # a page may ask about a frame that was frozen long ago
            ),
        )
        node.says("active: accepting frames")
        return node
