# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Figures of the node around the model: messages, pixels, and frames that are only dropped."""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from kosmos_msgs.msg import GroundedCaption
from PIL import Image as Pillow
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from benchmark.report import Row
from benchmark.subjects import BRIEF, Subject, frames
from kosmos_ros.kosmos2 import grounding
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.ros.bridge import ImageDecoder
from kosmos_ros.ros.conversions import caption_message

FULL_HD = (1920, 1080)  # pixels
RATE = 30.0  # Hz
SETTLE = 2.0  # s at a time in which a program that was started gets frames that do not count
PATIENCE = 60.0  # s
LISTENER = """
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


def overhead(subject: Subject, runs: int) -> Iterator[Row]:
    """What a 1080p frame costs beside the model: from its message to its caption's."""
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
        yield Row(f"1080p frame: {name}", median, "ms")
    rest = sum(median for name, median in medians.items() if "decode" not in name)
    for kind in ("raw", "JPEG"):
        whole = rest + medians[f"decode the image ({kind})"]
        yield Row(f"1080p frame: all but the model ({kind})", whole, "ms")


def dropped(seconds: float) -> Iterator[Row]:
    """Processor time of a frame that is received and dropped, beside that of a bare subscriber."""
    for message, kind in zip(_messages(), ("raw", "JPEG"), strict=True):
        node = _cost(message, seconds, *_node_command(kind))
        bare = _cost(message, seconds, *_listener_command(kind))
        name = f"dropped 1080p frame ({kind}), processor time"
        yield Row(name, node, "ms", "a bare subscriber", bare)


def _node_command(kind: str) -> list[str]:
    transport = "raw" if kind == "raw" else "compressed"
    values = {
        "model": "shapes",
        "always_on": "true",
        "max_rate": "0.001",  # Hz; the first frame is described, the others are dropped
        "image_transport": transport,
        "image_reliability": "reliable",  # as the bare subscriber's
    }
    parameters = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    return ["-m", "kosmos_ros.ros.kosmos_node", "--ros-args", *parameters]


def _listener_command(kind: str) -> list[str]:
    if kind == "raw":
        return ["-c", LISTENER, "raw", "image"]
    return ["-c", LISTENER, "compressed", "image/compressed"]


def _cost(message: Any, seconds: float, *command: str) -> float:
    """Milliseconds of processor time for each frame that reaches a program, which drops it."""
    rclpy.init()
    node = Node("camera")
    topic = "image" if isinstance(message, Image) else "image/compressed"
    publisher = node.create_publisher(type(message), topic, 1)
    reports: list[DiagnosticArray] = []
    node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        try:
            _until(publisher.get_subscription_count, f"a listener: {' '.join(command)[:60]}")
            process = psutil.Process(program.pid)
            # The model loads meanwhile, and its first frame, which is described, does not count.
            for _ in range(int(PATIENCE / SETTLE)):
                _send(publisher, message, SETTLE)
                if _dropped(node, reports):
                    break
            # What it does when nothing is sent is little beside what a frame takes.
            _until(lambda: process.cpu_percent(1.0) < 20, "a program at rest")
            had, before = _dropped(node, reports), _used(process)
            _send(publisher, message, seconds)
            used = _used(process) - before
            arrived = _dropped(node, reports) - had
        finally:
            program.kill()
    node.destroy_node()
    rclpy.try_shutdown()
    return used / arrived * 1e3


def _dropped(node: Node, reports: list[DiagnosticArray]) -> int:
    """How many frames a program says that it has dropped, in its second report from now."""
    rclpy.spin_once(node, timeout_sec=0.0)
    while reports:  # those that came meanwhile
        reports.clear()
        rclpy.spin_once(node, timeout_sec=0.0)

    def come() -> bool:
        rclpy.spin_once(node, timeout_sec=0.1)
        return len(reports) > 1

    _until(come, "a report")
    values = {pair.key: pair.value for status in reports[-1].status for pair in status.values}
    return int(values["dropped"])


def _until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come in {PATIENCE:g} s")
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
    width, height = FULL_HD
    raw = Image(width=width, height=height, encoding="rgb8", step=3 * width)
    raw.data = np.ascontiguousarray(pixels).tobytes()
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=90)
    assert serialize_message(raw)
    return raw, CompressedImage(format="rgb8; jpeg compressed", data=file.getvalue())


def _median(call: Callable[[int], object], runs: int) -> float:
    times = []
    for number in range(-1, runs):
        begun = time.perf_counter()
        call(number)
        if number >= 0:
            times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)
