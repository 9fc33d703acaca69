# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure captions of a stream of frames. Each caption is the draft of the next one."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.captions import BRIEF, DETAILED
from benchmark.engine import TOKENS, measured
from benchmark.report import GENERATE, Result
from benchmark.subjects import Subject
from kosmos_ros.kosmos2.answers import Answer
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Earlier, Generation, Query
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import moving_scene

MOTIONS = {"still": 0.0, "all moving, 10 Hz": 0.1, "all moving, 1 Hz": 1.0}
"""Seconds between the frames of a stream."""
SCENES, FRAMES = 8, 4  # frames of each scene
STREAMS = 8
SIZE = (640, 480)
NOISE = 3.0  # levels of sensor noise, which differs between all frames
WRONG = {"still": 0, "all moving, 10 Hz": 1, "all moving, 1 Hz": 6}
"""Number of wrong tokens in a draft of 40, for random weights, whose captions do not follow the
scene. With 0 and 1, a pass gives about as many tokens as with drawn scenes, and with 6 fewer."""


@dataclass(frozen=True)
class Stream:
    """Frames, and for each the caption of the frame before it."""

    prompt: Prompt
    frames: Sequence[np.ndarray]
    earlier: Sequence[Earlier]
    limit: int  # tokens of a caption


def streams(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure a caption with a draft, with the encoding of its frame.

    Compares it with generate, and with the same caption without a draft. As in a node, the engine
    knows the mean gain of the stream's drafts, and uses none if they do not pay.
    """
    for motion in MOTIONS:
        for stream in _random(subject, motion) if subject.random else _filmed(subject, motion):
            kind = "detailed" if stream.prompt is DETAILED else "brief"
            yield from _measure(
                subject, stream, runs, f"{subject.name}: {kind} caption of a stream, {motion}"
            )


def cameras(subject: Subject, runs: int) -> Iterator[Result]:
    """Measure captions per second of several streams at once, with and without drafts."""
    for motion in list(MOTIONS)[:2]:
        stream = next(_random(subject, motion) if subject.random else _filmed(subject, motion))
        stream = dataclasses.replace(stream, earlier=_with_gain(subject, stream))

        def ours(run: int, drafted: bool, stream: Stream = stream) -> None:
            numbers = [(run + camera) % len(stream.frames) for camera in range(STREAMS)]
            images = subject.engine.encode_batch([stream.frames[number] for number in numbers])
            earlier = [stream.earlier[number] if drafted else None for number in numbers]
            answers = subject.engine.generate_batch(
                [
                    Query(image, stream.prompt.text, stream.limit, earlier=draft)
                    for image, draft in zip(images, earlier, strict=True)
                ]
            )
            assert all(isinstance(answer, Generation) for answer in answers), answers

        times = measured(subject, runs, lambda run: ours(run, True), lambda run: ours(run, False))
        drafted, plain = (STREAMS / statistics.median(one) * 1e3 for one in times)
        name = f"{subject.name}: {STREAMS} cameras, streams, {motion}"
        yield Result(name, drafted, "captions/s", "without drafts", plain)


def _measure(subject: Subject, stream: Stream, runs: int, name: str) -> Iterator[Result]:
    stream = dataclasses.replace(stream, earlier=_with_gain(subject, stream))
    gains = []

    def ours(run: int, earlier: Earlier | None) -> None:
        image = subject.engine.encode(stream.frames[run % len(stream.frames)])
        query = Query(image, stream.prompt.text, stream.limit, earlier=earlier)
        (answer,) = subject.engine.generate_batch([query])
        assert isinstance(answer, Generation), answer
        gains.append(answer.gain)

    def theirs(run: int) -> None:
        subject.theirs(stream.frames[run % len(stream.frames)], stream.prompt, stream.limit)

    plain, generated, drafted = (
        statistics.fmean(times)  # frames differ, and so do the passes that they take
        for times in measured(
            subject,
            runs,
            lambda run: ours(run, None),
            theirs,
            lambda run: ours(run, stream.earlier[run % len(stream.frames)]),
        )
    )
    yield Result(name, drafted, "ms", GENERATE, generated)
    yield Result(name, drafted, "ms", "without drafts", plain)
    yield Result(f"{name}, tokens in a pass", statistics.fmean(gains[1::2]), "tokens")


def _filmed(subject: Subject, motion: str) -> Iterator[Stream]:
    """Return streams of moving scenes."""
    videos = [
        [_frame(scene, number, motion) for number in range(FRAMES)] for scene in range(SCENES)
    ]
    for prompt in (BRIEF, DETAILED):
        earlier = []
        for video in videos:
            images = subject.engine.encode_batch(video[:-1])
            queries = [Query(image, prompt.text) for image in images]
            earlier += [_earlier(answer) for answer in subject.engine.generate_batch(queries)]
        yield Stream(prompt, [view for video in videos for view in video[1:]], earlier, 128)


def _random(subject: Subject, motion: str) -> Iterator[Stream]:
    """Return a stream of one frame. Its draft is its own caption with some tokens replaced."""
    frame = _frame(0, 0, motion)
    image = subject.engine.encode(frame)
    (answer,) = subject.engine.generate_batch([Query(image, DETAILED.text, TOKENS)])
    ids, wrong = list(_earlier(answer).ids), WRONG[motion]
    for number in range(1, wrong + 1):
        ids[number * len(ids) // (wrong + 1)] += 1
    yield Stream(DETAILED, [frame], [Earlier(tuple(ids))], TOKENS)


def _with_gain(subject: Subject, stream: Stream) -> list[Earlier]:
    """Return the earlier captions of a stream with the mean gain of their drafts."""
    gains = []
    for frame, earlier in zip(stream.frames, stream.earlier, strict=True):
        image = subject.engine.encode(frame)
        query = Query(image, stream.prompt.text, stream.limit, earlier=earlier)
        (answer,) = subject.engine.generate_batch([query])
        assert isinstance(answer, Generation), answer
        gains.append(answer.gain)
    mean = statistics.fmean(gains)
    return [dataclasses.replace(earlier, gain=mean) for earlier in stream.earlier]


def _earlier(answer: Answer) -> Earlier:
    assert isinstance(answer, Generation), answer
    return Earlier(answer.ids)


def _frame(scene: int, number: int, motion: str) -> np.ndarray:
    """Return a frame (H, W, 3) uint8 of a video."""
    frame = render(moving_scene(scene, 3.0 + number * MOTIONS[motion], *SIZE))
    noise = np.random.default_rng([scene, number]).normal(0.0, NOISE, frame.shape)
    noisy: np.ndarray = (frame + noise).round().clip(0, 255).astype(np.uint8)
    return noisy
