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
from kosmos_msgs.msg import GroundedCaption
from PIL import Image as Pillow
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros import grounding
from kosmos_ros.benchmark.report import Row
from kosmos_ros.benchmark.subjects import BRIEF, Subject, frames
from kosmos_ros.bridge import ImageDecoder
from kosmos_ros.conversions import caption_message
from kosmos_ros.grounding import Query

FULL_HD = (1920, 1080)  # pixels
RATE = 30.0  # Hz
SETTLE = 3.0  # s until a program that was started only receives
LISTENER = """
import sys, rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
rclpy.init()
node = rclpy.create_node("listener")
kind = CompressedImage if sys.argv[1] == "compressed" else Image
node.create_subscription(kind, sys.argv[2], lambda message: None, QoSProfile(depth=1))
rclpy.spin(node)
"""


def overhead(subject: Subject, runs: int) -> Iterator[Row]:
    """What a 1080p frame costs beside the model: from its message to its caption's."""
    decode = ImageDecoder().decode
    raw, jpeg = _messages()
    pixels = decode(raw, 10**8)
    engine = subject.engine
    (generation,) = engine.generate_batch([Query(engine.encode(pixels), BRIEF.text, 128)])
    assert isinstance(generation, grounding.Generation)
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
        "image_reliability": "reliable",  # for both: each frame that is sent arrives
    }
    parameters = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    return ["-m", "kosmos_ros.node", "--ros-args", *parameters]


def _listener_command(kind: str) -> list[str]:
    if kind == "raw":
        return ["-c", LISTENER, "raw", "image"]
    return ["-c", LISTENER, "compressed", "image/compressed"]


def _cost(message: Any, seconds: float, *command: str) -> float:
    """Milliseconds of processor time for each frame that is sent to a program."""
    rclpy.init()
    node = Node("camera")
    topic = "image" if isinstance(message, Image) else "image/compressed"
    publisher = node.create_publisher(type(message), topic, 1)
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        try:
            end = time.monotonic() + 60
            while not publisher.get_subscription_count():
                if program.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{' '.join(command)[:60]} does not listen")
                time.sleep(0.1)
            process = psutil.Process(program.pid)
            _send(publisher, message, 2 * SETTLE)  # the model loads meanwhile
            _quiet(process)
            before = _used(process)
            sent = _send(publisher, message, seconds)
            used = _used(process) - before
        finally:
            program.kill()
    node.destroy_node()
    rclpy.try_shutdown()
    return used / sent * 1e3


def _quiet(process: psutil.Process) -> None:
    """Wait until a program that was started does nothing but wait."""
    end = time.monotonic() + 60
    while process.cpu_percent(1.0) > 20:
        if time.monotonic() > end:
            raise RuntimeError("a program that nothing is sent to does not come to rest")


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _send(publisher: Any, message: Any, seconds: float) -> int:
    sent, begun = 0, time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        publisher.publish(message)
        sent += 1
        time.sleep(max(0.0, begun + sent / RATE - now))
    return sent


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
