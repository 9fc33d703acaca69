# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Batches to learn from: scenes rendered in other processes, prompts packed. No weights.

New pictures of step k depend on the run's seed and on k alone. Training draws from the seeds [0,
seed, k], evaluation from [1, seed]: no held-out scene is ever trained on.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from kosmos_ros.kosmos2.grounding import GRID
from kosmos_ros.shapes.rendering import ink, render
from kosmos_ros.shapes.scenes import COLOURS, KINDS, Scene, Shape, sample_frame, sample_scene
from training.language import Lesson, cells, sample_examples
from training.model import (
    ANYWHERE,
    CELLS,
    IGNORED,
    IMAGE_SIZE,
    NOTHING,
    SUMMARY,
    DenseTargets,
    Prompts,
)
from training.tokenizer import SPECIAL

COVERED = 0.12  # share of a cell that a shape's ink must cover to be asked for
EMPTY = 0.02  # share below which the cell counts as empty

PREFIX = 2 + CELLS**2 + 1  # <s> <image> (64 image tokens) </image>
ROOM = 117  # tokens of prompts and answers behind one picture
MOST = 9  # examples of one picture, as far as they find room


@dataclass(frozen=True)
class Step:
    number: int  # from 0, over all phases
    counts: tuple[int, ...]  # shapes per scene, evenly
    alike: float  # share of scenes with two shapes alike, among those of several shapes


@dataclass(frozen=True)
class Picture:
    scene: Scene
    pixels: np.ndarray  # (S, S, 3) uint8, the frame stretched to the square
    owners: np.ndarray  # (64,) index of the shape covering each cell, -1 none, IGNORED unclear

    def mirrored(self) -> "Picture":
        """Left and right exchanged; every kind of shape is its own mirror image up to its turn."""
        shapes = tuple(
            replace(s, box=(1.0 - s.box[2], s.box[1], 1.0 - s.box[0], s.box[3]), turn=-s.turn)
            for s in self.scene.shapes
        )
        owners = self.owners.reshape(CELLS, CELLS)[:, ::-1].reshape(-1)
        return Picture(replace(self.scene, shapes=shapes), self.pixels[:, ::-1], owners)


def take_picture(scene: Scene) -> Picture:
    frame = Image.fromarray(render(scene))
    small = frame.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return Picture(scene, np.asarray(small), _owners(scene))


def _owners(scene: Scene) -> np.ndarray:
    """`Picture.owners`; every shape owns at least the cell that it covers most."""
    fine = 8  # pixels of a cell's side for measuring
    side = CELLS * fine
    layers = np.zeros((len(scene.shapes), side, side), dtype=np.float32)
    for index, shape in enumerate(scene.shapes):
        layers[index] = ink(shape, side, side)
        layers[:index] *= 1.0 - layers[index]
    covered = layers.reshape(-1, CELLS, fine, CELLS, fine).mean((2, 4)).reshape(-1, CELLS**2)
    most = covered.max(axis=0)
    owners = np.where(most >= COVERED, covered.argmax(axis=0), np.where(most < EMPTY, -1, IGNORED))
    owners[covered.argmax(axis=1)] = np.arange(len(scene.shapes))
    return owners


def take_batch(seed: int, step: Step, size: int) -> list[Picture]:
    rng = np.random.default_rng([0, seed, step.number])
    scenes = (sample_scene(rng, *sample_frame(rng), step.counts, step.alike) for _ in range(size))
    return [take_picture(scene) for scene in scenes]


def batches(
    seed: int, steps: list[Step], start: int, size: int, fresh: int, kept: int, workers: int
) -> Iterator[list[Picture]]:
    """`size` pictures for each step from `start` on: `fresh` new ones, the rest from those kept.

    Kept are the last `kept`, rendered again where a run goes on. They come back mirrored half of
    the time, and only where their number of shapes is among the step's counts. There are fewer
    pictures at the start.
    """
    store: deque[Picture] = deque(maxlen=kept)
    with get_context("spawn").Pool(workers) as pool:

        def order(step: Step) -> AsyncResult[list[Picture]]:
            return pool.apply_async(take_batch, (seed, step, fresh))

        steps = steps[max(0, start - math.ceil(kept / fresh)) :]
        ahead = deque(order(step) for step in steps[: 4 * workers])
        for place, step in enumerate(steps):
            new = ahead.popleft().get()
            ahead.extend(order(later) for later in steps[place + 4 * workers :][:1])
            if step.number >= start:
                rng = np.random.default_rng([0, seed, step.number, 1])
                pictures = list(new)
                for pick in rng.integers(len(store), size=8 * size) if store else ():
                    if len(pictures) < size and len(store[pick].scene.shapes) in step.counts:
                        pictures.append(_again(store[pick], rng))
                yield pictures
            store.extend(new)


def _again(picture: Picture, rng: np.random.Generator) -> Picture:
    return picture.mirrored() if rng.random() < 0.5 else picture


def stack_pixels(pictures: list[Picture]) -> torch.Tensor:
    """(B, S, S, 3) uint8."""
    return torch.from_numpy(np.stack([picture.pixels for picture in pictures]))


def dense_targets(pictures: list[Picture]) -> DenseTargets:
    kinds, colours = np.full((2, len(pictures), CELLS**2), IGNORED)
    corners = np.zeros((len(pictures), CELLS**2, 4), dtype=np.int64)
    summary = np.full((len(pictures), CELLS**2, len(SUMMARY)), IGNORED)
    for index, picture in enumerate(pictures):
        kinds[index, picture.owners == -1] = NOTHING
        summary[index, :, -1] = len(picture.scene.shapes) - 1
        for owner, shape in enumerate(picture.scene.shapes):
            owned = picture.owners == owner
            kinds[index, owned] = KINDS.index(shape.kind)
            colours[index, owned] = list(COLOURS).index(shape.colour)
            first, last = cells(shape.box)
            corners[index, owned] = [first % GRID, first // GRID, last % GRID, last // GRID]
            summary[index, owned] = _summary(shape, picture.scene)
    arrays = kinds, colours, corners, summary
    return DenseTargets(*(torch.from_numpy(array) for array in arrays))


def _summary(shape: Shape, scene: Scene) -> tuple[int, ...]:
    """The shape's number of each of SUMMARY."""
    mentions = [group[0].phrase for group in scene.groups]
    return (
        mentions.index(shape.phrase),
        scene.left_to_right.index(shape),
        sum(other.phrase == shape.phrase for other in scene.shapes) - 1,
        sum(other.kind == shape.kind for other in scene.shapes) - 1,
        sum(other.colour == shape.colour for other in scene.shapes) - 1,
        len(scene.shapes) - 1,
    )


def pack_prompts(
    pictures: list[Picture], tokenizer: Tokenizer, rng: np.random.Generator, lesson: Lesson
) -> Prompts:
    """Examples of every picture behind its image tokens, as many as there is room for."""
    start_id, pad, end, _ = range(len(SPECIAL))
    examples = [e for p in pictures for e in sample_examples(p.scene, rng, MOST, lesson)]
    # The space is the one that Kosmos2Processor puts before the text; a tag swallows it.
    asked = tokenizer.encode_batch_fast([f" {example.prompt}" for example in examples])
    answered = tokenizer.encode_batch_fast([example.answer for example in examples])
    shape = (len(pictures), PREFIX + ROOM)
    ids, targets = np.full(shape, pad), np.full(shape, IGNORED)
    positions, blocks = np.full(shape, pad), np.full(shape, -1)
    ids[:, 0] = start_id
    ids[:, [1, PREFIX - 1]] = tokenizer.encode("<image></image>").ids
    positions[:, :PREFIX] = pad + 1 + np.arange(PREFIX)
    blocks[:, :PREFIX] = 0
    for row in range(len(pictures)):
        start = PREFIX
        for block in range(MOST):
            number = row * MOST + block
            question, answer = asked[number].ids, answered[number].ids
            placed = examples[number].placed
            text = [*question, *answer, end] if placed else [*question, *answer]
            right = text[len(question) :] if placed else ANYWHERE
            stop = start + len(text)
            if stop > shape[1]:
                continue
            ids[row, start:stop] = text
            targets[row, start + len(question) - 1 : stop - 1] = right
            positions[row, start:stop] = pad + 1 + PREFIX + np.arange(len(text))
            blocks[row, start:stop] = block + 1
            start = stop
    own = torch.from_numpy(blocks)
    seen = (own[:, :, None] == own[:, None, :]) | (own[:, None, :] == 0)
    seen &= torch.ones(shape[1], shape[1], dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]
    tensors = [torch.from_numpy(array) for array in (ids, positions, targets)]
    return Prompts(ids=tensors[0], positions=tensors[1], mask=mask, targets=tensors[2])
