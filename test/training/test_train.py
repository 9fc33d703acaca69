# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Batches, targets and schedules of training; the same seed repeats a run."""

from dataclasses import replace
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kosmos_ros.shapes.scenes import Scene, Shape
from training import data, language
from training.data import Step, batches, new_images, pack_prompts
from training.evaluation import held_out_scene
from training.model import ANYWHERE, IGNORED
from training.muon import orthogonal
from training.tokenizer import LOCATIONS, SPECIAL, build, vocabulary
from training.train import BASIC, PHASES, RATES, WITH_ABSENT_BOXES, Run

STEPS = [Step(number, (1, 2), 0.15 if number < 5 else 0.5) for number in range(6)]


def test_a_resumed_run_gets_the_images_of_an_uninterrupted_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Threads start at once; processes would import torch first.
    monkeypatch.setattr(data, "get_context", lambda kind: SimpleNamespace(Pool=ThreadPool))

    def seen(start: int) -> list[list[np.ndarray]]:
        found = batches(0, STEPS, start, size=3, fresh=2, stored=32, workers=1)
        return [[image.pixels for image in images] for images in found]

    whole, rest = seen(0), seen(4)
    assert len(rest) == 2
    for expected, images in zip(whole[4:], rest, strict=True):
        assert np.array_equal(expected, images)


def test_training_never_gets_a_held_out_scene() -> None:
    trained = {image.scene for image in new_images(0, Step(0, (1, 2, 3, 4), 0.15), 8)}
    assert not trained & {held_out_scene(0, index)[0] for index in range(8)}


def test_the_same_seed_repeats_a_step() -> None:
    images = new_images(0, Step(0, (1, 2), 0.15), 4)
    first, again, other = (
        Run(seed, torch.device("cpu")).learn(images, PHASES[-1], 1.0, 1.0) for seed in (0, 0, 1)
    )
    assert first == pytest.approx(again, rel=1e-5)  # the device chooses the order of sums
    assert first != pytest.approx(other, rel=1e-3)


def test_the_summary_of_a_cell_counts_the_shapes_like_its_own() -> None:
    twin = Shape("circle", "red", (0.7, 0.1, 0.95, 0.4))
    scene = Scene(
        (
            twin,
            Shape("square", "red", (0.35, 0.5, 0.65, 0.9)),
            replace(twin, box=(0.05, 0.1, 0.3, 0.4)),
            Shape("circle", "blue", (0.02, 0.6, 0.25, 0.9)),
        ),
        160,
        160,
    )
    image = data.label_image(scene)
    summary = data.dense_targets([image]).summary[0]
    expected = {  # mention, rank, alike, of its kind, of its colour, in all
        0: (1, 3, 1, 2, 2, 3),
        1: (2, 2, 0, 0, 2, 3),
        2: (1, 1, 1, 2, 2, 3),
        3: (0, 0, 0, 2, 0, 3),
    }
    for owner, numbers in expected.items():
        cells = summary[torch.from_numpy(image.owners == owner)]
        assert len(cells)
        assert (cells == torch.tensor(numbers)).all()
    background = summary[torch.from_numpy(image.owners == -1)]
    assert set(background[:, :-1].flatten().tolist()) == {IGNORED}
    assert set(background[:, -1].tolist()) == {3}


def test_prompts_of_one_image_do_not_see_each_other() -> None:
    tokens = build()
    images = new_images(0, Step(0, (3,), 0.15), 2)
    packed = pack_prompts(images, tokens, np.random.default_rng(0), BASIC)
    start = data.PREFIX
    text = tokens.decode(packed.ids[0, start:].tolist(), skip_special_tokens=False)
    examples = text.split("</s>")
    assert len(examples) > 3
    # The first token of a prompt sees only the image and itself.
    first = int((packed.ids[0, start:] == SPECIAL.index("</s>")).nonzero()[0]) + start + 1
    seen = packed.mask[0, 0, first] == 0
    assert seen.nonzero().flatten().tolist() == [*range(start), first]
    answers = packed.ids[0, 1:][packed.targets[0, :-1] != IGNORED]
    assert torch.equal(answers, packed.targets[0, :-1][packed.targets[0, :-1] != IGNORED])


def test_an_absent_box_has_no_right_location() -> None:
    images = new_images(0, Step(0, (3,), 0.15), 8)
    packed = pack_prompts(images, build(), np.random.default_rng(0), WITH_ABSENT_BOXES)
    rows, columns = (packed.targets == ANYWHERE).nonzero(as_tuple=True)
    assert len(rows) >= 4
    inputs = packed.ids[rows, columns + 1]
    assert (inputs >= len(vocabulary()) - LOCATIONS).all()
    for image in images:
        for seed in range(20):
            example = language.absent_box(image.scene, np.random.default_rng(seed))
            mentioned, _, phrase = example.prompt.removesuffix("</phrase><object>").rpartition(
                "<phrase> "
            )
            present = {shape.phrase for shape in image.scene.shapes}
            assert phrase not in present or f"<phrase> {phrase}</phrase>" in mentioned


def test_packed_prompts_fit_into_the_row_and_count_their_positions_alike() -> None:
    images = new_images(0, Step(0, (4,), 0.15), 6)
    packed = pack_prompts(images, build(), np.random.default_rng(0), BASIC)
    assert packed.ids.shape == (6, data.PREFIX + data.PROMPT_TOKENS)
    pad = SPECIAL.index("<pad>")
    first = data.PREFIX + pad + 1  # position right behind the image
    for ids, positions in zip(packed.ids, packed.positions, strict=True):
        prompts = positions[data.PREFIX :][ids[data.PREFIX :] != pad].tolist()
        assert prompts.count(first) > 1
        counted: list[int] = []
        for position in prompts:
            counted.append(first if position == first else counted[-1] + 1)
        assert prompts == counted


def test_a_mirrored_image_keeps_its_shapes_and_mirrors_their_cells() -> None:
    image = new_images(0, Step(0, (3,), 0.15), 1)[0]
    mirrored = image.mirrored()
    assert np.array_equal(mirrored.pixels, image.pixels[:, ::-1])
    cells = image.owners.reshape(8, 8)
    assert np.array_equal(mirrored.owners.reshape(8, 8), cells[:, ::-1])
    for before, after in zip(image.scene.shapes, mirrored.scene.shapes, strict=True):
        assert after.box == pytest.approx(
            (1 - before.box[2], before.box[1], 1 - before.box[0], before.box[3])
        )
        assert (after.kind, after.colour, after.turn) == (before.kind, before.colour, -before.turn)
    assert mirrored.mirrored().scene.shapes[0].box == pytest.approx(image.scene.shapes[0].box)


def test_the_learning_rate_falls_to_zero_at_the_end_of_the_last_phase() -> None:
    assert list(RATES) == sorted(RATES)
    assert list(RATES.items())[-1] == (sum(phase.steps for phase in PHASES), 0.0)


def test_the_shares_of_the_tasks_add_up_to_one() -> None:
    for table in (
        language.CAPTION_TASKS,
        language.BASIC_TASKS,
        language.PRESENCE_TASKS,
        language.WHOLE_SCENE_TASKS,
    ):
        assert abs(sum(table.values()) - 1.0) < 1e-9


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    for result in (orthogonal(matrices), orthogonal(matrices.mT)):
        values = torch.linalg.svdvals(result)
        assert 0.6 < values.min() <= values.max() < 1.3
