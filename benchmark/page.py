# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the page: from a drawn region to the answer, and what its clients cost the node.

The node, its cameras and the web server run as processes. The browser is Chromium.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rclpy
from kosmos_msgs.msg import BoundingBox, GroundedCaption
from kosmos_msgs.srv import Ask
from rclpy.node import Node

from benchmark.report import Result

sys.path.append(str(Path(__file__).parents[1] / "test"))

PATIENCE = 60.0  # s
QUESTION = "What is it?"
RATE = 10.0  # Hz, of the camera, whose frames are all described
CLIENTS = 20
ASK = """
() => new Promise((done) => {
  const answered = () => document.querySelectorAll(".turn[data-state=done]").length;
  const before = answered(), begun = performance.now();
  new MutationObserver((_, observer) => {
    if (answered() === before) return;
    observer.disconnect();
    requestAnimationFrame(() => done(performance.now() - begun));
  }).observe(document.querySelector("#answers"), { subtree: true, attributes: true });
  const buttons = [...document.querySelectorAll("#quick button")];
  buttons.find((button) => button.textContent === "What is it?").click();
})
"""
"""Asks about the region. Returns the milliseconds until the answer is drawn."""


class _Client:
    """A client of the node over ROS, for comparison. Also counts captions."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = Node("benchmark")
        self.captions: list[GroundedCaption] = []
        self.node.create_subscription(
            GroundedCaption, "/kosmos/captions", self.captions.append, 10
        )
        self.ask = self.node.create_client(Ask, "/kosmos/ask")

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self.node, timeout_sec=left)

    def wait_for_caption(self) -> GroundedCaption:
        end = time.monotonic() + PATIENCE
        count = len(self.captions)
        while len(self.captions) == count and time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.1)
        return self.captions[-1]

    def answer(self, box: BoundingBox) -> float:
        """Ask about a region of the newest frame; return the milliseconds to the answer."""
        request = Ask.Request(question=QUESTION, regions=[box], grounded=True)
        begun = time.perf_counter()
        future = self.ask.call_async(request)
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=PATIENCE)
        assert future.result().success, future.result().message
        return (time.perf_counter() - begun) * 1e3

    def close(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()


def page(runs: int, seconds: float) -> Iterator[Result]:
    """Measure the page with the embedded model. Yields nothing without Chromium."""
    programs = importlib.import_module("programs")  # of the tests
    program, parameters = programs.Program, programs.parameters
    scene = Path(__file__).parents[1] / "docs" / "scene.jpg"
    with contextlib.ExitStack() as stack:
        run = stack.enter_context
        run(program("camera_node", *parameters(source=scene, rate=RATE), "-r", "__node:=camera"))
        settings = parameters(model="shapes", device="cpu", max_rate=RATE)
        kosmos = run(program("kosmos_node", *settings, "-r", "image:=camera/image_raw"))
        kosmos.says("active: accepting frames")
        server = run(program("web.web_node", *parameters(port=0)))
        address = server.says("is shown at ").rpartition(" ")[2]
        client = _Client()
        stack.callback(client.close)
        yield from _clients(client, address, seconds)
        yield from _answers(client, address, runs)


def _clients(client: _Client, address: str, seconds: float) -> Iterator[Result]:
    """Measure the node's rate beside CLIENTS websockets and one that never reads."""
    from websockets.sync.client import connect

    socket = f"ws://{address.split('//')[1]}ws"

    def rate() -> float:
        client.wait_for_caption()
        before, begun = len(client.captions), time.monotonic()
        client.spin(seconds)
        return (len(client.captions) - before) / (time.monotonic() - begun)

    def read(connection: Any) -> None:
        with contextlib.suppress(Exception):  # the end of the connection
            for _ in connection:
                pass

    alone = rate()
    with contextlib.ExitStack() as stack:
        stack.enter_context(connect(socket, max_size=None, close_timeout=0.1))
        for _ in range(CLIENTS):
            connection = stack.enter_context(connect(socket, max_size=None, close_timeout=0.1))
            threading.Thread(target=read, args=(connection,), daemon=True).start()
        with_clients = rate()
    name = f"captions beside {CLIENTS} browsers and one that never reads"
    yield Result(name, with_clients, "captions/s", "no browser", alone)


def _answers(client: _Client, address: str, runs: int) -> Iterator[Result]:
    """Compare the answer in the browser with that of the service ~/ask, in turn."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if not path:
        return
    caption = client.wait_for_caption()
    box = caption.phrases[0].boxes[0]
    seen, answered = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1440, "height": 900})
        window.goto(address)
        for _ in range(runs + 1):
            window.keyboard.press("Escape")
            window.wait_for_selector(".mark")
            mark = window.locator(".mark .fill").first.bounding_box()
            assert mark
            window.mouse.move(mark["x"] - 6, mark["y"] - 6)
            window.mouse.down()
            window.mouse.move(mark["x"] + 9, mark["y"] + 9)
            window.mouse.move(mark["x"] + mark["width"] + 6, mark["y"] + mark["height"] + 6)
            window.mouse.up()
            window.wait_for_selector("#quick button")
            seen.append(float(window.evaluate(ASK)))
            answered.append(client.answer(box))
        browser.close()
    ours, service = (statistics.median(times[1:]) for times in (seen, answered))
    name = "from the question about a drawn region to its answer on the screen, p50"
    yield Result(name, ours, "ms", "the service ~/ask", service)
