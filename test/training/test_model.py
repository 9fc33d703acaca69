# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The embedded model: transformers can load it, and its captions name the drawn shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration

from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.shapes import MODEL_DIR
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene, Shape
from training import tokenizer
from training.evaluation import CHECKS, Evaluator, held_out_scene, iou
from training.results import metrics

SCENES = 300
FLOORS = {
    "phrase_f1": 0.96,
    "mean_iou": 0.85,
    "iou50": 0.985,
    "region_accuracy": 0.96,
    "question_accuracy": 0.96,
    "absent_accuracy": 0.97,
    "grounding_accuracy": 0.97,
    "reference_accuracy": 0.95,
}
SCENE = Scene(
    (Shape("circle", "red", (0.1, 0.2, 0.3, 0.5)), Shape("square", "blue", (0.6, 0.4, 0.9, 0.8))),
    320,
    240,
)


@pytest.fixture(scope="module")
def processor() -> AutoProcessor:
    return AutoProcessor.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("shapes", local_files_only=True, device="cpu")


def test_the_model_folder_is_small_and_contains_no_pickle() -> None:
    files = [path for path in Path(MODEL_DIR).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors"}


def test_the_tokenizer_file_matches_the_code() -> None:
    assert (MODEL_DIR / "tokenizer.json").read_text() == tokenizer.build().to_str(pretty=True)


def test_plain_transformers_captions_a_scene(processor: AutoProcessor) -> None:
    model = Kosmos2ForConditionalGeneration.from_pretrained(MODEL_DIR)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    inputs = processor(
        text="<grounding> An image of", images=Image.fromarray(render(SCENE)), return_tensors="pt"
    )
    written = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    text = processor.batch_decode(written, skip_special_tokens=True)[0]
    caption, entities = processor.post_process_generation(text)
    assert caption == "An image of a red circle and a blue square."
    assert [name for name, _, _ in entities] == ["a red circle", "a blue square"]
    for (_, _, boxes), (_, truth) in zip(entities, SCENE.truth, strict=True):
        assert iou(boxes[0], truth) > 0.5


def test_the_model_sees_the_whole_width_of_a_wide_frame(processor: AutoProcessor) -> None:
    frame = np.full((360, 640, 3), 128, dtype=np.uint8)
    frame[:, :20], frame[:, -20:] = (255, 0, 0), (0, 0, 255)
    seen = processor.image_processor(Image.fromarray(frame), return_tensors="np")["pixel_values"]
    red, _, blue = seen[0].mean(axis=1)  # (3, width)
    assert red[0] > 1.5 > -1.5 > blue[0]
    assert blue[-1] > 1.5 > -1.5 > red[-1]


def test_held_out_scenes_are_described_correctly(engine: Engine) -> None:
    """Each scene gets a third of the checks, so that many scenes fit into a minute."""
    evaluator, checks = Evaluator(engine), list(CHECKS)
    results = []
    for index in range(SCENES):
        scene, rng = held_out_scene(1, index)
        results.append(evaluator.evaluate(scene, rng, checks[index % 3 :: 3]))
    measured = metrics(results)
    too_low = {name: measured[name] for name, floor in FLOORS.items() if measured[name] < floor}
    assert not too_low
    placed = [box for result in results for box in result.placed]
    for task in ("caption", "grounding"):
        for small in (True, False):
            boxes = [box for box in placed if box.task == task and (box.cells < 6) == small]
            assert np.mean([box.iou - box.cell_iou for box in boxes]) > 0.01
