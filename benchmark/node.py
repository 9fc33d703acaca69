# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the node around the model: messages, pixels, frames that it drops, and idle time."""

from __future__ import annotations

import contextlib
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from kosmos_msgs.msg import GroundedCaption
from PIL import Image as Pillow
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from benchmark.captions import BRIEF
from benchmark.report import Result
from benchmark.subjects import Subject, frames
from kosmos_ros.kosmos2 import grounding
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.ros.bridge import ImageDecoder
from kosmos_ros.ros.conversions import caption_message

FULL_HD, HD = (1920, 1080), (1280, 720)  # pixels
RATE = 30.0  # Hz
SETTLE = 2.0  # s of frames before each check that the node drops them
PATIENCE = 60.0  # s
SHARE = "% of a core"
SUBSCRIBER = """
import sys, rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
rclpy.init()
node = rclpy.create_node("listener")
kind = CompressedImage if sys.argv[1] == "compressed" else Image
count = 0
def arrived(message):
    global count
    count += 1
def report():
    values = [KeyValue(key="dropped", value=str(count))]
    reports.publish(DiagnosticArray(status=[DiagnosticStatus(values=values)]))
reports = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
node.create_subscription(kind, sys.argv[2], arrived, QoSProfile(depth=1))
node.create_timer(1.0, report)
rclpy.spin(node)
"""


def overhead(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure the time of a 1080p frame without the model, from its message to its caption's."""
    decode = ImageDecoder().decode
    raw, jpeg = _messages()
    pixels = decode(raw, 10**8)
    engine = subject.engine
    (generation,) = engine.generate_batch([Query(engine.encode(pixels), BRIEF.text, 128)])
    assert isinstance(generation, Generation)
    caption = grounding.read(generation, BRIEF.text, BRIEF.lead)

    def convert(_: int) -> GroundedCaption:
        return caption_message(
            caption,
            header=raw.header,
            camera="",
            size=FULL_HD,
            prompt=BRIEF,
            model="shapes",
            inference_time=0.0,
            frames_dropped=0,
        )

    message = convert(0)
    rclpy.init()
    node = Node("benchmark")
    publisher = node.create_publisher(GroundedCaption, "benchmark/captions", 10)
    parts: dict[str, Callable[[int], object]] = {
        "decode the image (raw)": lambda _: decode(raw, 10**8),
        "decode the image (JPEG)": lambda _: decode(jpeg, 10**8),
        "preprocess": lambda _: engine.pixels(pixels),
        "parse": lambda _: grounding.read(generation, BRIEF.text, BRIEF.lead),
        "make the message": convert,
        "publish": lambda _: publisher.publish(message),
    }
    medians = {name: _median(call, runs) for name, call in parts.items()}
    node.destroy_node()
    rclpy.try_shutdown()
    for name, median in medians.items():
        yield Result(f"1080p frame: {name}", median, "ms")
    rest = sum(median for name, median in medians.items() if "decode" not in name)
    for kind in ("raw", "JPEG"):
        whole = rest + medians[f"decode the image ({kind})"]
        yield Result(f"1080p frame: everything except the model ({kind})", whole, "ms")


def dropped(seconds: float) -> Iterator[Result]:
    """Compare the CPU time of a frame that the node drops with that of a bare subscriber."""
    for message, kind in zip(_messages(), ("raw", "JPEG"), strict=True):
        node = _cost(message, seconds, *_node_command(kind))
        bare = _cost(message, seconds, *_subscriber_command(kind))
        name = f"dropped 1080p frame ({kind}), CPU time"
        yield Result(name, node, "ms", "a bare subscriber", bare)


def idle(seconds: float) -> Iterator[Result]:
    """Measure the CPU time of a node without subscribers, without a camera and with one."""
    command = _command({"model": "shapes"})
    alone = _share(None, seconds, *command)
    yield Result("idle node without a camera, CPU time", alone, SHARE)
    image = _raw(HD)
    node = _share(image, seconds, *command)
    bare = _share(image, seconds, *_subscriber_command("raw"))
    name = f"idle node with a 720p camera (raw, {RATE:g} Hz), CPU time"
    yield Result(name, node, SHARE, "a bare subscriber", bare)


def _node_command(kind: str) -> list[str]:
    transport = "raw" if kind == "raw" else "compressed"
    values = {
        "model": "shapes",
        "always_on": "true",
        "max_rate": "0.001",  # Hz; the node describes the first frame and drops the others
        "image_transport": transport,
        "image_reliability": "reliable",  # like the bare subscriber
    }
    return _command(values)


def _command(values: Mapping[str, str]) -> list[str]:
    """Return the command that runs kosmos_node with these parameters."""
    parameters = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    return ["-m", "kosmos_ros.ros.kosmos_node", "--ros-args", *parameters]


def _subscriber_command(kind: str) -> list[str]:
    if kind == "raw":
        return ["-c", SUBSCRIBER, "raw", "image"]
    return ["-c", SUBSCRIBER, "compressed", "image/compressed"]


@contextlib.contextmanager
def _running(*command: str) -> Iterator[tuple[Node, list[DiagnosticArray], psutil.Process]]:
    """Run a program. Yield a node, the program's messages on /diagnostics, and its process."""
    rclpy.init()
    node = Node("camera")
    reports: list[DiagnosticArray] = []
    node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        try:
            yield node, reports, psutil.Process(program.pid)
        finally:
            program.kill()
    node.destroy_node()
    rclpy.try_shutdown()


def _share(message: Image | None, seconds: float, *command: str) -> float:
    """Return the percentage of a core that a program uses while images arrive (None: no image)."""
    with _running(*command) as (node, reports, process):

        def ready() -> bool:  # the first status is that of the model
            rclpy.spin_once(node, timeout_sec=0.1)
            return bool(reports and reports[-1].status[0].level == DiagnosticStatus.OK)

        _until(ready, "a program that is ready")
        if message is not None:
            publisher = node.create_publisher(Image, "image", 1)
            _until(publisher.get_subscription_count, "a subscriber")
        for duration in (SETTLE, seconds):
            before, begun = _used(process), time.monotonic()
            if message is None:
                time.sleep(duration)
            else:
                _send(publisher, message, duration)
            share = (_used(process) - before) / (time.monotonic() - begun) * 100
    return share


def _cost(message: Any, seconds: float, *command: str) -> float:
    """Return the milliseconds of CPU time for each frame that a program receives and drops."""
    with _running(*command) as (node, reports, process):
        topic = "image" if isinstance(message, Image) else "image/compressed"
        publisher = node.create_publisher(type(message), topic, 1)
        _until(publisher.get_subscription_count, f"a subscriber ({' '.join(command)[:60]})")
        # Wait until the model has loaded and described its first frame.
        for _ in range(int(PATIENCE / SETTLE)):
            _send(publisher, message, SETTLE)
            if _dropped(node, reports):
                break
        # An idle program uses little time beside that of the frames.
        _until(lambda: process.cpu_percent(1.0) < 20, "an idle program")
        had, before = _dropped(node, reports), _used(process)
        _send(publisher, message, seconds)
        used = _used(process) - before
        arrived = _dropped(node, reports) - had
    return used / arrived * 1e3


def _dropped(node: Node, reports: list[DiagnosticArray]) -> int:
    """Return the number of dropped frames in the second report from now."""
    rclpy.spin_once(node, timeout_sec=0.0)
    while reports:  # discard reports from before this call
        reports.clear()
        rclpy.spin_once(node, timeout_sec=0.0)

    def arrived() -> bool:
        rclpy.spin_once(node, timeout_sec=0.1)
        return len(reports) > 1

    _until(arrived, "a report")
    values = {pair.key: pair.value for status in reports[-1].status for pair in status.values}
    return int(values["dropped"])


def _until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"expected {what} within {PATIENCE:g} s")
        time.sleep(0.01)


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _send(publisher: Any, message: Any, seconds: float) -> None:
    sent, begun = 0, time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        publisher.publish(message)
        sent += 1
        time.sleep(max(0.0, begun + sent / RATE - now))


def _messages() -> tuple[Image, CompressedImage]:
    (pixels,) = frames(1, size=FULL_HD)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=90)
    return _raw(FULL_HD), CompressedImage(format="rgb8; jpeg compressed", data=file.getvalue())


def _raw(size: tuple[int, int]) -> Image:
    (pixels,) = frames(1, size=size)
    width, height = size
    raw = Image(width=width, height=height, encoding="rgb8", step=3 * width)
    raw.data = np.ascontiguousarray(pixels).tobytes()
    assert serialize_message(raw)
    return raw


def _median(call: Callable[[int], object], runs: int) -> float:
    times = []
    for number in range(-1, runs):
        begun = time.perf_counter()
        call(number)
        if number >= 0:
            times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)
