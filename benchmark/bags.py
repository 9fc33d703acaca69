# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compare the rate of `kosmos bag` with that of its engine alone, on the same frames.

    python -m benchmark.bags --frames 256
    python -m benchmark.bags --frames 16 --runs 2 --full

The engine alone gets decoded images in batches of the same size. `kosmos bag` also reads and
decodes the messages, draws the results and stores them. The final writing of the bag, which reads
the stored results once, is a figure of its own.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer

from benchmark import subjects
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.query import Query
from kosmos_ros.offline.bags.job import Job, Run
from kosmos_ros.offline.bags.messages import COMPRESSED, IMAGE, Types
from kosmos_ros.offline.bags.writing import VERSION
from kosmos_ros.offline.batches import MAX_BATCH
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import moving_scene

PERIOD = 100_000_000  # ns between frames
TOKENS = 40  # of the longest caption; random weights write as many


def main() -> None:
    """Measure both in turn, and print the rates and their ratio."""
    parser = argparse.ArgumentParser(prog="benchmark.bags", description=__doc__)
    parser.add_argument("--full", action="store_true", help="full size, random weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"))
    parser.add_argument("--raw", action="store_true", help="Image instead of CompressedImage")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    engine = (subjects.full if options.full else subjects.embedded)(options.device).engine
    images = [render(moving_scene(1, n * PERIOD * 1e-9, *options.size))
              for n in range(options.frames)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "in"
        write(bag, images, IMAGE if options.raw else COMPRESSED)
        _alone(engine, images[: 2 * MAX_BATCH])
        pairs = []
        for number in range(options.runs):
            alone = _alone(engine, images)
            described, share, written = _described(engine, bag, Path(f"{bag}-{number}"))
            pairs.append((described / alone, share))
            print(
                f"engine {alone:.3g} frames/s, kosmos bag {described:.3g} frames/s "
                f"({described / alone:.3f}), engine at work {share:.1%}, "
                f"writing {written:.0f} messages/s",
                flush=True,
            )
    for name, values in zip(("ratio", "share"), zip(*pairs, strict=True), strict=True):
        print(f"{name}: median {statistics.median(values):.3f}, lowest {min(values):.3f}")


def _alone(engine: Engine, images: list[np.ndarray]) -> float:
    """Return the frames per second of the engine alone."""
    prompt = prompts.caption("brief_caption")
    begun = time.perf_counter()
    for start in range(0, len(images), MAX_BATCH):
        encoded = engine.encode_batch(images[start : start + MAX_BATCH])
        engine.generate_batch(
            [Query(image, prompt.text, TOKENS, stop=prompt.stop) for image in encoded]
        )
    return len(images) / (time.perf_counter() - begun)


class _Timed:
    """An engine that measures the time of its calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.check = engine.check
        self.seconds = 0.0

    def encode_batch(self, images: Sequence[np.ndarray]) -> Any:
        return self._measured(self._engine.encode_batch, images)

    def generate_batch(self, queries: Sequence[Query]) -> Any:
        return self._measured(self._engine.generate_batch, queries)

    def _measured(self, call: Callable[..., Any], argument: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(argument)
        finally:
            self.seconds += time.perf_counter() - begun


def _described(engine: Engine, bag: Path, out: Path) -> tuple[float, float, float]:
    """Return rates: frames until all results are stored, and messages written, per second.

    Between them, the share of the first time in which the engine worked.
    """
    timed: Any = _Timed(engine)
    settings = CameraSettings(max_new_tokens=TOKENS)
    run = Run(Job(bag=bag, out=out, settings=settings, model="", max_image_pixels=50_000_000))
    with run.open({}) as results:
        begun = time.perf_counter()
        frames = sum(1 for _ in run.describe(results, lambda: timed))
        stored = time.perf_counter()
        messages = sum(1 for _ in run.write(results))
        written = time.perf_counter()
    run.clean()
    described = stored - begun
    return frames / described, timed.seconds / described, messages / (written - stored)


def write(path: Path, images: list[np.ndarray], kind: str) -> None:
    """Write a bag with `images` (H, W, 3) as messages of the type `kind`, PERIOD apart."""
    types = Types()
    with Writer(path, version=VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera/image", kind, typestore=types.store)
        for number, image in enumerate(images):
            message = _message(types, image, number * PERIOD, kind)
            writer.write(connection, number * PERIOD, types.data(message))


def _message(types: Types, image: np.ndarray, now: int, kind: str) -> Any:
    stamp = types.new("builtin_interfaces/msg/Time", sec=now // 10**9, nanosec=now % 10**9)
    header = types.new("std_msgs/msg/Header", stamp=stamp, frame_id="camera")
    if kind == COMPRESSED:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        data = np.frombuffer(file.getvalue(), np.uint8)
        return types.new(kind, header=header, format="jpeg", data=data)
    height, width, _ = image.shape
    return types.new(
        kind,
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=image.reshape(-1),
    )


if __name__ == "__main__":
    main()
