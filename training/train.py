# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Train `shapes` from random weights: phases, schedules, checkpoints. Knows no layers.

The first phase trains the image tokens alone with auxiliary heads (see model.py). The others add
prompts, on scenes of one shape at first, then up to two, three and four. The saved weights are a
running average of the trained ones.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import GenerationConfig

from kosmos_ros.shapes import MODEL_DIR
from kosmos_ros.shapes.scenes import ALIKE, COUNTS
from training import tokenizer
from training.data import LabelledImage, Step, batches, dense_targets, pack_prompts, stack_pixels
from training.language import BASIC_TASKS, PRESENCE_TASKS, WHOLE_SCENE_TASKS, TaskMix
from training.model import IMAGE_SIZE, MEAN, STD, DenseTargets, Learner, Prompts, make_config
from training.muon import Muon

Batch = TypeVar("Batch", DenseTargets, Prompts)

LOCATIONS_FIRST: dict[str, float] = {
    "kind": 2.0, "colour": 1.0, "corner": 3.0, "summary": 4.0,
    "word": 3.0, "row": 2.0, "column": 2.0,
}  # fmt: skip
WORDS_FIRST: dict[str, float] = {
    "kind": 3.0, "colour": 2.0, "corner": 2.0, "summary": 4.0,
    "word": 6.0, "row": 2.0, "column": 2.0,
}  # fmt: skip
"""Weights of the losses: first mainly locations, later mainly words and kinds."""


@dataclass(frozen=True)
class Phase:
    """A part of the training: its steps, scenes, losses and prompts."""

    name: str
    steps: int
    counts: tuple[int, ...]  # shapes per scene, equally often
    weights: dict[str, float]  # of the losses
    mix: TaskMix | None = None  # tasks of the prompts; None: no prompts
    alike: float = ALIKE  # share of scenes with two equal shapes, among those of several shapes


BASIC = TaskMix(BASIC_TASKS)
WITH_ABSENT_BOXES = TaskMix(BASIC_TASKS, absent_boxes=0.15)
PHASES: tuple[Phase, ...] = (
    Phase("image only", 1800, COUNTS, LOCATIONS_FIRST, alike=0.35),
    Phase("one", 100, (1,), LOCATIONS_FIRST, BASIC),
    Phase("two", 100, (1, 2), LOCATIONS_FIRST, BASIC, alike=0.25),
    Phase("three", 100, (1, 2, 3), LOCATIONS_FIRST, BASIC, alike=0.25),
    Phase("all", 1200, COUNTS, LOCATIONS_FIRST, BASIC, alike=0.25),
    Phase("absent boxes", 1000, COUNTS, WORDS_FIRST, WITH_ABSENT_BOXES, alike=0.25),
    Phase("presence", 1000, COUNTS, WORDS_FIRST, TaskMix(PRESENCE_TASKS, 0.1)),
    Phase("whole scene", 1000, COUNTS, WORDS_FIRST, TaskMix(WHOLE_SCENE_TASKS, 0.1)),
    Phase("equal shapes", 600, COUNTS, WORDS_FIRST, TaskMix(WHOLE_SCENE_TASKS, 0.15), alike=0.5),
    Phase("final", 2400, COUNTS, WORDS_FIRST, TaskMix(WHOLE_SCENE_TASKS, 0.1), alike=0.35),
)

IMAGES = 48  # per step
SHARDS = 2  # parts of a step's images, each with its own thread and core
FRESH = 16  # new images per step; the others are repeated
STORED = 16000  # newest images to repeat from; 43 kB each

MUON_RATE = 6e-3  # learning rate of the layers' matrices
ADAM_RATE = 2e-3  # learning rate of all other parameters
WARMUP = 50  # steps, at the start and again where prompts begin
RATES = {0: 1.0, 4200: 1.0, 6300: 0.0, 6320: 0.35, 6900: 0.0, 6940: 0.6, 9300: 0.0}
"""Step: share of the full learning rates; interpolated linearly."""
BLUR = 1.2  # grid cells: width of the Gaussian around target locations at step 0; falls linearly
BLUR_UNTIL = 2800  # step where the blur is 0
AVERAGE = 0.995  # decay of the running average per step

CHECKPOINT_EVERY = 100  # steps
LOG_EVERY = 50  # steps


class Run:
    """The model, its running average and the optimisers after `step` steps."""

    def __init__(self, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.seed = seed
        self.device = device
        self.step = 0
        self.learner = Learner(make_config()).to(device)
        self.average = AveragedModel(self.learner, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
        matrices, rest = _split(self.learner)
        self.parameters = [*matrices, *rest]
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=MUON_RATE, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
        )
        self.tokenizer = tokenizer.build()
        # One core for each shard: cores that share a layer would wait for each other, and so for
        # other programs, at every layer.
        torch.set_num_threads(1)
        self.threads = ThreadPoolExecutor(SHARDS, initializer=torch.set_num_threads, initargs=(1,))

    def learn(
        self, images: list[LabelledImage], phase: Phase, rate: float, blur: float
    ) -> dict[str, float]:
        """Take one step and return the losses in nats.

        `rate` scales the learning rates; `blur` is in grid cells.
        """
        for optimiser, full in zip(self.optimisers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = full * rate

        def gradients(shard: int) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
            return self._gradients(images[shard::SHARDS], shard, phase, blur)

        done = list(self.threads.map(gradients, range(SHARDS)))
        for parameter, *parts in zip(self.parameters, *(parts for parts, _ in done), strict=True):
            given = [part for part in parts if part is not None]
            parameter.grad = torch.stack(given).sum(dim=0) / SHARDS if given else None
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.average.update_parameters(self.learner)
        self.step += 1
        losses = [losses for _, losses in done]
        return {name: float(np.mean([part[name] for part in losses])) for name in losses[0]}

    def _gradients(
        self, images: list[LabelledImage], shard: int, phase: Phase, blur: float
    ) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        """Return the total loss's gradient by each of `parameters`, and the losses."""
        tokens = self.learner.encode(stack_pixels(images).to(self.device))
        targets = dense_targets(images)
        losses = self.learner.dense_loss(tokens, _moved(targets, self.device), blur)
        if phase.mix:
            rng = np.random.default_rng([0, self.seed, self.step, 2, shard])
            prompts = pack_prompts(images, self.tokenizer, rng, phase.mix)
            losses |= self.learner.language_loss(tokens, _moved(prompts, self.device), blur)
        total = torch.stack(
            [w * losses[name] for name, w in phase.weights.items() if name in losses]
        ).sum()
        gradients = torch.autograd.grad(total, self.parameters, allow_unused=True)
        return gradients, {name: float(loss.detach()) for name, loss in losses.items()}

    def save_checkpoint(self, path: Path) -> None:
        """Write the whole state of the run. An interrupted write keeps the old file."""
        state = {
            "step": self.step,
            "learner": self.learner.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load_checkpoint(self, path: Path) -> None:
        """Continue from the state in a file that `save_checkpoint` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.learner.load_state_dict(state["learner"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def write_model(self, folder: Path) -> None:
        """Write the averaged weights and all other files that `from_pretrained` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        kosmos = cast(Learner, self.average.module).finish()
        start, pad, end, _ = range(len(tokenizer.SPECIAL))
        kosmos.generation_config = GenerationConfig(
            bos_token_id=start, pad_token_id=pad, eos_token_id=end, max_new_tokens=128
        )
        kosmos.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)
        tokenizer.save(folder)
        # No `use_square_size`: with it transformers 5 ignores `size` and uses 224 pixels.
        preprocessor = {
            "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            "do_center_crop": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_processor_type": "CLIPImageProcessor",
            "image_std": STD,
            "processor_class": "Kosmos2Processor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        }
        text = json.dumps(preprocessor, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def train(run: Run, checkpoint: Path, log: Path, workers: int) -> None:
    """Train from the run's step to the end of the last phase."""
    plan = [phase for phase in PHASES for _ in range(phase.steps)]
    first_prompts = next(step for step, phase in enumerate(plan) if phase.mix)
    steps = [Step(number, phase.counts, phase.alike) for number, phase in enumerate(plan)]
    bar = tqdm(total=len(plan), initial=run.step, unit="step", smoothing=0.05)
    recent: list[dict[str, float]] = []
    for images in batches(run.seed, steps, run.step, IMAGES, FRESH, STORED, workers):
        phase = plan[run.step]
        warmed_up = (run.step - (first_prompts if phase.mix else 0) + 1) / WARMUP
        rate = min(float(np.interp(run.step, list(RATES), list(RATES.values()))), warmed_up)
        losses = run.learn(images, phase, rate, BLUR * max(0.0, 1.0 - run.step / BLUR_UNTIL))
        recent.append(losses)
        bar.update()
        if run.step % LOG_EVERY == 0 or run.step == len(plan):
            means = {name: _mean_of(name, recent) for name in losses}
            recent.clear()
            bar.set_postfix_str(
                f"{phase.name}: " + ", ".join(f"{k} {v}" for k, v in means.items())
            )
            with log.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": run.step, "phase": phase.name, **means}) + "\n")
        if run.step % CHECKPOINT_EVERY == 0 or run.step == len(plan):
            run.save_checkpoint(checkpoint)
    bar.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="train-shapes", description="Train the model `shapes`.")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that render scenes")
    parser.add_argument(
        "--work", type=Path, default=Path("build/shapes"), help="checkpoint and log"
    )
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder of the finished model")
    parser.add_argument(
        "--write-now", action="store_true", help="write the model of the latest checkpoint"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    checkpoint = options.work / "checkpoint.pt"
    run = Run(options.seed, torch.device(options.device))
    if checkpoint.exists():
        run.load_checkpoint(checkpoint)
    if not options.write_now:
        train(run, checkpoint, options.work / "log.jsonl", options.workers)
    run.write_model(options.out)
    print(f"{options.out}: the model after {run.step} steps")


def _mean_of(name: str, losses: list[dict[str, float]]) -> float:
    return round(float(np.mean([loss[name] for loss in losses if name in loss])), 3)


def _split(learner: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices between hidden states, and all other trained parameters."""
    named = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    inner = {
        name
        for name, p in named.items()
        if p.ndim == 2 and (".layers." in name or name.endswith(("_proj.weight", "dense.weight")))
    }
    return [named[name] for name in named if name in inner], [
        named[name] for name in named if name not in inner
    ]


def _moved(batch: Batch, device: torch.device) -> Batch:
    return type(batch)(**{name: value.to(device) for name, value in vars(batch).items()})


if __name__ == "__main__":
    main()
