# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pass many frames through the node in one process, with an engine that responds at once.

Frames go to the callbacks of the cameras and requests to the services; no message crosses DDS.
Each image has one colour, and the engine names it, so a response about a wrong image is detected.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import rclpy
from kosmos_msgs.srv import Ask
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.ros import requests
from kosmos_ros.ros.kosmos_node import KosmosNode
from soak import pictures
from soak.report import Row, slope

CAMERAS = ("front", "rear", "left", "right")
SIZE = 16  # pixels, width and height
ASK_EVERY = 5  # rounds of frames
TWO_SHARE = 0.1  # share of the frames that a second one follows at once
SAMPLES = 200  # measurements of memory
PATIENCE = 60.0  # s


@dataclass(frozen=True)
class Info:
    model: str = "echo"
    device: str = "cpu"


class Echo:
    """Generates the red value of each image's first pixel, in one token."""

    info = Info()

    def __init__(self) -> None:
        self.stepped = threading.Event()
        self._queries: list[Query] = []

    def warm_up(self, most: int, tokens: int) -> None: ...

    def check(self, prompt: str) -> None: ...

    def encode_batch(self, images: Sequence[np.ndarray]) -> list[int]:
        return [int(image[0, 0, 0]) for image in images]

    def compact(self, encoded: int) -> int:
        return encoded

    def add(self, queries: Sequence[Query]) -> None:
        self._queries += queries

    def step(self) -> list[tuple[Query, Generation | KosmosError]]:
        queries, self._queries = self._queries, []
        self.stepped.set()
        return [(query, Generation(f" {query.image}", (), 1.0, 1, False)) for query in queries]

    def clear(self) -> None:
        self._queries = []

    def memory(self) -> int:
        return 0

    def unload(self) -> None: ...


class Run:
    """Frames and requests, and their results."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._engine = Echo()
        # stale_timeout 0: no message crosses DDS, so a warning about it would be noise.
        overrides = {
            "cameras": list(CAMERAS),
            "always_on": True,
            "max_rate": 0.0,
            "stale_timeout": 0.0,
        }
        self.node = KosmosNode(
            load=lambda settings: self._engine,
            parameter_overrides=[Parameter(name, value=of) for name, of in overrides.items()],
        )
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.cameras = self.node.cameras.values()
        for camera in self.cameras:
            outputs = {output.topic: publisher for output, publisher in camera._outputs}
            self._listen(outputs["captions"])
        self.offered = self.bad = self.wrong = 0
        self.requests: Counter[str] = Counter()  # by result
        self._asked: list[tuple[Any, int | None]] = []  # future, red of its image
        self._album = [self._picture(red) for red in range(256)]

    def through(self) -> int:
        """Return how many frames the worker has finished."""
        return sum(camera.throughput.count + camera.throughput.failed for camera in self.cameras)

    def dropped(self) -> int:
        """Return how many frames were replaced by newer ones or failed."""
        return sum(self.node.scheduler.dropped(camera.name) for camera in self.cameras)

    def described(self) -> int:
        return sum(camera.throughput.count for camera in self.cameras)

    def round(self, number: int) -> None:
        """Offer a frame of each camera, sometimes a request, and wait for the engine."""
        self._engine.stepped.clear()
        for camera in self.cameras:
            for _ in range(1 + (self._rng.random() < TWO_SHARE)):
                image = self._album[int(self._rng.integers(256))]
                if self._rng.random() < pictures.BAD_SHARE:
                    image = pictures.spoilt(image, self._rng)
                    image.header = Header(frame_id="bad")
                    self.bad += 1
                camera._on_image(image)
                self.offered += 1
        if not number % ASK_EVERY:
            self._ask()
        self._engine.stepped.wait(0.1)  # no step follows if all frames were bad
        self.executor.spin_once(timeout_sec=0.0)
        self._judge()

    def settle(self) -> bool:
        """Return whether every frame and request is finished."""
        self.executor.spin_once(timeout_sec=0.01)
        self._judge()
        return not self._asked and self.described() + self.dropped() == self.offered

    def _ask(self) -> None:
        red = int(self._rng.integers(256)) if self._rng.random() < 0.5 else None
        request = Ask.Request(question="What is this?")
        if red is not None:
            request.image = self._album[red]
        serve = self.node.request_services._serve
        future = self.executor.create_task(serve, requests.ask, request, Ask.Response())
        self._asked.append((future, red))

    def _judge(self) -> None:
        for future, red in self._asked:
            if not future.done():
                continue
            response = future.result()
            if not response.success:
                self.requests["refused"] += 1
            elif response.answer == (response.result.header.frame_id if red is None else str(red)):
                self.requests["answered"] += 1
            else:
                self.requests["wrong"] += 1
        self._asked = [asked for asked in self._asked if not asked[0].done()]

    def _listen(self, captions: Any) -> None:
        """Count captions that do not name the colour of their frame."""
        publish = captions.publish

        def check(caption: Any) -> None:
            self.wrong += caption.caption.split()[-1] != caption.header.frame_id
            publish(caption)

        captions.publish = check

    @staticmethod
    def _picture(red: int) -> Image:
        message = Image(width=SIZE, height=SIZE, encoding="rgb8", step=3 * SIZE)
        message.data = np.full((SIZE, SIZE, 3), red, np.uint8).tobytes()
        message.header.stamp.sec = 1
        message.header.frame_id = str(red)
        return message


def run(frames: int, seed: int) -> Iterator[Row]:
    """Pass `frames` frames through the worker and yield the rows of the table."""
    rclpy.init()
    run = Run(seed)
    process = psutil.Process()
    cameras = run.node.cameras.values()
    _until(run, lambda: all(camera.scheduler for camera in cameras), "active node")
    begun = time.monotonic()
    samples: list[tuple[float, float]] = []  # frames, MB
    threads = process.num_threads()
    number = 0
    with tqdm(total=frames, unit="frame", mininterval=1.0) as bar:
        while (through := run.through()) < frames:
            run.round(number)
            number += 1
            if through >= len(samples) * frames / SAMPLES:
                samples.append((through, process.memory_info().rss / 1e6))
            bar.update(through - bar.n)
        bar.update(frames - bar.n)
    seconds, through = time.monotonic() - begun, run.through()
    _until(run, run.settle, "end of all frames and requests")
    failed = run.through() - run.described()
    replaced = run.dropped() - failed  # dropped() counts failed frames, too
    lost = run.offered - run.described() - replaced - failed
    yield Row("frames offered", run.offered, "frames")
    yield Row("frames described", run.described(), "frames")
    yield Row("frames dropped for newer ones", replaced, "frames")
    yield Row("frames failed", failed, "frames")
    yield Row("bad frames offered", run.bad, "frames")
    yield Row("frames lost", lost, "frames", fault=True)
    yield Row("good frames failed", max(0, failed - run.bad), "frames", fault=True)
    yield Row("captions about a wrong frame", run.wrong, "captions", fault=True)
    yield Row("requests answered", run.requests["answered"], "requests")
    yield Row("requests refused", run.requests["refused"], "requests")
    yield Row("requests answered about a wrong frame", run.requests["wrong"], "requests", True)
    yield Row("frames through the model a second", through / seconds, "frames/s")
    growth = slope(samples) * 1e5
    yield Row("memory, slope of the second half", growth, "MB/100k frames")
    yield Row("memory, first", samples[0][1], "MB")
    yield Row("memory, last", samples[-1][1], "MB")
    yield Row("threads, first", threads, "")
    yield Row("threads, last", process.num_threads(), "")
    ended = run.node.stop(PATIENCE)
    yield Row("workers that did not stop", not ended, "", fault=True)
    run.node.destroy_node()
    rclpy.shutdown()


def _until(run: Run, condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"no {what} within {PATIENCE:g} s")
        run.executor.spin_once(timeout_sec=0.01)
