# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The same seed gives the same run, whether it was interrupted or not."""

from dataclasses import replace
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kosmos_ros.shapes.scenes import Scene, Shape
from training import data, language
from training.data import Step, batches, pack_prompts, take_batch
from training.evaluation import held_out_scene
from training.model import ANYWHERE, IGNORED
from training.muon import orthogonal
from training.tokenizer import LOCATIONS, SPECIAL, build, vocabulary
from training.train import DOUBTFUL, PHASES, PLAIN, RATES, Run

STEPS = [Step(number, (1, 2), 0.15 if number < 5 else 0.5) for number in range(6)]


def test_a_run_that_goes_on_sees_the_pictures_it_would_have_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Threads start at once, processes import torch first.
    monkeypatch.setattr(data, "get_context", lambda kind: SimpleNamespace(Pool=ThreadPool))

    def seen(start: int) -> list[list[np.ndarray]]:
        found = batches(0, STEPS, start, size=3, fresh=2, kept=32, workers=1)
        return [[picture.pixels for picture in pictures] for pictures in found]

    whole, rest = seen(0), seen(4)
    assert len(rest) == 2
    for expected, pictures in zip(whole[4:], rest, strict=True):
        assert np.array_equal(expected, pictures)


def test_training_never_sees_a_held_out_scene() -> None:
    trained = {picture.scene for picture in take_batch(0, Step(0, (1, 2, 3, 4), 0.15), 8)}
    assert not trained & {held_out_scene(0, index)[0] for index in range(8)}


def test_the_same_seed_takes_the_same_step() -> None:
    pictures = take_batch(0, Step(0, (1, 2), 0.15), 4)
    first, again, other = (
        Run(seed, torch.device("cpu")).learn(pictures, PHASES[-1], 1.0, 1.0) for seed in (0, 0, 1)
    )
    assert first == pytest.approx(again, rel=1e-5)  # the order of sums is the device's own
    assert first != pytest.approx(other, rel=1e-3)


def test_each_cell_knows_how_its_shape_stands_among_the_others() -> None:
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
    picture = data.take_picture(scene)
    summary = data.dense_targets([picture]).summary[0]
    expected = {  # mention, rank, alike, of its kind, of its colour, in all
        0: (1, 3, 1, 2, 2, 3),
        1: (2, 2, 0, 0, 2, 3),
        2: (1, 1, 1, 2, 2, 3),
        3: (0, 0, 0, 2, 0, 3),
    }
    for owner, numbers in expected.items():
        cells = summary[torch.from_numpy(picture.owners == owner)]
        assert len(cells)
        assert (cells == torch.tensor(numbers)).all()
    background = summary[torch.from_numpy(picture.owners == -1)]
    assert set(background[:, :-1].flatten().tolist()) == {IGNORED}
    assert set(background[:, -1].tolist()) == {3}


def test_prompts_behind_one_picture_are_blind_to_each_other() -> None:
    tokens = build()
    pictures = take_batch(0, Step(0, (3,), 0.15), 2)
    packed = pack_prompts(pictures, tokens, np.random.default_rng(0), PLAIN)
    start = data.PREFIX
    text = tokens.decode(packed.ids[0, start:].tolist(), skip_special_tokens=False)
    examples = text.split("</s>")
    assert len(examples) > 3
    # Where a prompt begins, nothing is seen but the picture and itself.
    begins = int((packed.ids[0, start:] == SPECIAL.index("</s>")).nonzero()[0]) + start + 1
    seen = packed.mask[0, 0, begins] == 0
    assert seen.nonzero().flatten().tolist() == [*range(start), begins]
    answers = packed.ids[0, 1:][packed.targets[0, :-1] != IGNORED]
    assert torch.equal(answers, packed.targets[0, :-1][packed.targets[0, :-1] != IGNORED])


def test_doubts_are_of_what_is_not_there_and_have_no_right_place() -> None:
    pictures = take_batch(0, Step(0, (3,), 0.15), 8)
    packed = pack_prompts(pictures, build(), np.random.default_rng(0), DOUBTFUL)
    rows, columns = (packed.targets == ANYWHERE).nonzero(as_tuple=True)
    assert len(rows) >= 4
    inputs = packed.ids[rows, columns + 1]
    assert (inputs >= len(vocabulary()) - LOCATIONS).all()
    for picture in pictures:
        for seed in range(20):
            made = language.doubt(picture.scene, np.random.default_rng(seed))
            said, _, phrase = made.prompt.removesuffix("</phrase><object>").rpartition("<phrase> ")
            there = {shape.phrase for shape in picture.scene.shapes}
            assert phrase not in there or f"<phrase> {phrase}</phrase>" in said


def test_the_rates_end_with_the_last_phase() -> None:
    assert list(RATES) == sorted(RATES)
    assert list(RATES.items())[-1] == (sum(phase.steps for phase in PHASES), 0.0)


def test_every_task_has_its_share() -> None:
    for table in (language.CAPTIONS, language.QUESTIONS, language.HARD, language.SPOKEN):
        assert abs(sum(table.values()) - 1.0) < 1e-9


def test_an_orthogonal_matrix_has_singular_values_of_about_one() -> None:
    matrices = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    for made in (orthogonal(matrices), orthogonal(matrices.mT)):
        values = torch.linalg.svdvals(made)
        assert 0.6 < values.min() <= values.max() < 1.3
