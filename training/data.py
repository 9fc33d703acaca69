# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make training batches: render scenes in other processes and pack prompts. Knows no weights.

The new images of step k depend on the run's seed and on k alone. Training uses random seeds
[0, seed, k], evaluation [1, seed, ...], so training never sees a held-out scene.
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
from torch import Tensor

from kosmos_ros.kosmos2.grounding import GRID
from kosmos_ros.shapes.rendering import ink, render
from kosmos_ros.shapes.scenes import COLOURS, KINDS, Scene, Shape, sample_frame, sample_scene
from training.language import Example, TaskMix, cells, sample_examples
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

COVERED = 0.12  # share of a cell that a shape must cover to own it
EMPTY = 0.02  # covered share below which a cell counts as empty

PREFIX = 2 + CELLS**2 + 1  # tokens: <s> <image> (64 image tokens) </image>
PROMPT_TOKENS = 117  # of all prompts and answers of one image
MAX_EXAMPLES = 9  # of one image, as far as they fit


@dataclass(frozen=True)
class Step:
    """The scenes of a training step."""

    number: int  # from 0, over all phases
    counts: tuple[int, ...]  # shapes per scene, evenly
    alike: float  # share of scenes with two equal shapes, among those of several shapes


@dataclass(frozen=True)
class LabelledImage:
    """A rendered scene with the targets of its cells."""

    scene: Scene
    pixels: np.ndarray  # (S, S, 3) uint8, the frame stretched to the square
    owners: np.ndarray  # (64,) shape that covers each cell; -1: none, IGNORED: unclear

    def mirrored(self) -> "LabelledImage":
        """Return the mirror image. Every kind of shape is symmetric, so only its turn changes."""
        shapes = tuple(
            replace(s, box=(1.0 - s.box[2], s.box[1], 1.0 - s.box[0], s.box[3]), turn=-s.turn)
            for s in self.scene.shapes
        )
        owners = self.owners.reshape(CELLS, CELLS)[:, ::-1].reshape(-1)
        return LabelledImage(replace(self.scene, shapes=shapes), self.pixels[:, ::-1], owners)


def label_image(scene: Scene) -> LabelledImage:
    """Render a scene as the model sees it, with its labels."""
    frame = Image.fromarray(render(scene))
    small = frame.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return LabelledImage(scene, np.asarray(small), _owners(scene))


def _owners(scene: Scene) -> np.ndarray:
    """Return `LabelledImage.owners`. Every shape owns at least the cell that it covers most."""
    fine = 8  # pixels along a cell's side, to measure how much of it is covered
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


def new_images(seed: int, step: Step, size: int) -> list[LabelledImage]:
    """Return `size` new images for a step."""
    rng = np.random.default_rng([0, seed, step.number])
    scenes = (sample_scene(rng, *sample_frame(rng), step.counts, step.alike) for _ in range(size))
    return [label_image(scene) for scene in scenes]


def batches(
    seed: int, steps: list[Step], start: int, size: int, fresh: int, stored: int, workers: int
) -> Iterator[list[LabelledImage]]:
    """Yield `size` images for each step from `start` on: `fresh` new ones, the rest repeated.

    The repeated images are among the last `stored` new ones. A resumed run renders these again.
    Half of the repeated images are mirrored. Their number of shapes is among the step's counts.
    The first batches are smaller.
    """
    store: deque[LabelledImage] = deque(maxlen=stored)
    with get_context("spawn").Pool(workers) as pool:

        def render_ahead(step: Step) -> AsyncResult[list[LabelledImage]]:
            return pool.apply_async(new_images, (seed, step, fresh))

        steps = steps[max(0, start - math.ceil(stored / fresh)) :]
        ahead = deque(render_ahead(step) for step in steps[: 4 * workers])
        for index, step in enumerate(steps):
            new = ahead.popleft().get()
            ahead.extend(render_ahead(later) for later in steps[index + 4 * workers :][:1])
            if step.number >= start:
                rng = np.random.default_rng([0, seed, step.number, 1])
                images = list(new)
                for pick in rng.integers(len(store), size=8 * size) if store else ():
                    if len(images) < size and len(store[pick].scene.shapes) in step.counts:
                        mirror = rng.random() < 0.5
                        images.append(store[pick].mirrored() if mirror else store[pick])
                yield images
            store.extend(new)


def stack_pixels(images: list[LabelledImage]) -> Tensor:
    """Return the pixels (B, S, S, 3) uint8."""
    return torch.from_numpy(np.stack([image.pixels for image in images]))


def dense_targets(images: list[LabelledImage]) -> DenseTargets:
    """Return the targets of the auxiliary heads."""
    kinds, colours = np.full((2, len(images), CELLS**2), IGNORED)
    corners = np.zeros((len(images), CELLS**2, 4), dtype=np.int64)
    summary = np.full((len(images), CELLS**2, len(SUMMARY)), IGNORED)
    for index, image in enumerate(images):
        kinds[index, image.owners == -1] = NOTHING
        summary[index, :, -1] = len(image.scene.shapes) - 1
        for owner, shape in enumerate(image.scene.shapes):
            owned = image.owners == owner
            kinds[index, owned] = KINDS.index(shape.kind)
            colours[index, owned] = list(COLOURS).index(shape.colour)
            first, last = cells(shape.box)
            corners[index, owned] = [first % GRID, first // GRID, last % GRID, last // GRID]
            summary[index, owned] = _summary(shape, image.scene)
    arrays = kinds, colours, corners, summary
    return DenseTargets(*(torch.from_numpy(array) for array in arrays))


def _summary(shape: Shape, scene: Scene) -> tuple[int, ...]:
    """Return the shape's values of SUMMARY."""
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
    images: list[LabelledImage], tokenizer: Tokenizer, rng: np.random.Generator, mix: TaskMix
) -> Prompts:
    """Pack examples of every image after its image tokens, as many as fit."""
    start_id, pad, _, _ = range(len(SPECIAL))
    shape = (len(images), PREFIX + PROMPT_TOKENS)
    ids, targets = np.full(shape, pad), np.full(shape, IGNORED)
    positions, blocks = np.full(shape, pad), np.full(shape, -1)  # block 0: the image
    ids[:, 0] = start_id
    ids[:, [1, PREFIX - 1]] = tokenizer.encode("<image></image>").ids
    positions[:, :PREFIX] = pad + 1 + np.arange(PREFIX)
    blocks[:, :PREFIX] = 0
    examples = [e for i in images for e in sample_examples(i.scene, rng, MAX_EXAMPLES, mix)]
    for number, (prompt, answer, expected) in enumerate(_tokenize(examples, tokenizer)):
        row, block = divmod(number, MAX_EXAMPLES)
        start = int((blocks[row] >= 0).sum())
        stop = start + len(prompt) + len(answer)
        if stop > shape[1]:
            continue
        ids[row, start:stop] = [*prompt, *answer]
        targets[row, start + len(prompt) - 1 : stop - 1] = expected
        positions[row, start:stop] = pad + 1 + PREFIX + np.arange(stop - start)
        blocks[row, start:stop] = block + 1
    tensors = [torch.from_numpy(array) for array in (ids, positions, targets)]
    mask = _attention_mask(torch.from_numpy(blocks))
    return Prompts(ids=tensors[0], positions=tensors[1], mask=mask, targets=tensors[2])


def _tokenize(
    examples: list[Example], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Yield the ids of each example's prompt and answer, and the targets of its answer."""
    end = SPECIAL.index("</s>")
    # Kosmos2Processor puts this space before the text; a tag at the start removes it.
    prompts = tokenizer.encode_batch_fast([f" {example.prompt}" for example in examples])
    answers = tokenizer.encode_batch_fast([example.answer for example in examples])
    for example, prompt, answer in zip(examples, prompts, answers, strict=True):
        if example.any_location:
            yield prompt.ids, answer.ids, [ANYWHERE] * len(answer.ids)
        else:
            ids = [*answer.ids, end]
            yield prompt.ids, ids, ids


def _attention_mask(blocks: Tensor) -> Tensor:
    """Return the mask (B, 1, T, T): each token sees its own block and the image, up to itself.

    `blocks` (B, T) holds the number of each token's block; the image is block 0.
    """
    seen = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == 0)
    seen &= torch.ones(blocks.shape[1], blocks.shape[1], dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]
