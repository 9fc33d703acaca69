# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Answer prompts with the code of KOSMOS-2's model card, on the weights of an engine.

Hugging Face's processor and `generate` are the reference of the engine. Also measures how fast
the engine is. Knows no prompt wording.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from PIL import Image

from kosmos_ros.kosmos2 import loading
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import parse
from kosmos_ros.kosmos2.torch_errors import translated

Entities = list[tuple[str, tuple[tuple[float, float, float, float], ...]]]
"""Phrases and their boxes in [0, 1]."""

LOCATION = "<patch_index_"  # beginning of each location tag
RUNS = 3  # of each measurement; the median counts


@dataclass(frozen=True)
class Difference:
    """The first token in which two answers differ."""

    position: int  # number of equal tokens before it
    token: str  # of the answer that was compared; empty: it has ended
    reference_token: str  # empty: the reference has ended
    probability: float  # the reference's, of `token` after the equal tokens
    reference_probability: float  # that of `reference_token`; both are 0 if an answer has ended


@dataclass(frozen=True, eq=False)
class Answer:
    """What Hugging Face's code writes after a prompt."""

    prompt_ids: list[int]
    ids: tuple[int, ...]  # of the written tokens
    probabilities: torch.Tensor  # (tokens, vocabulary) float32, before any rule

    @property
    def score(self) -> float:
        """The mean probability of the written tokens."""
        ids = torch.tensor(self.ids)
        return float(self.probabilities.gather(1, ids[:, None]).mean())


class Reference:
    """Hugging Face's own code on the weights of an engine."""

    def __init__(self, engine: Engine, processor: Any) -> None:
        self.engine = engine
        self._processor = processor
        # Otherwise transformers 4 records the vision tower for gradients.
        self._model = engine.model.requires_grad_(False)

    @torch.inference_mode()
    def answer(self, image: np.ndarray, prompt: str, max_new_tokens: int) -> Answer:
        """Return the answer to `prompt` about an image (H, W, 3) uint8 RGB.

        The model reads the engine's pixels, so that only the text model's path is compared.
        Raises GenerationError, or DeviceLostError if the device has failed.
        """
        inputs = self._inputs(image, prompt)
        inputs["pixel_values"] = self.engine.pixels(image)
        length = inputs["input_ids"].shape[1]
        with translated("Hugging Face's generate failed"):
            made = self._model.generate(
                **inputs,
                use_cache=True,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                no_repeat_ngram_size=self.engine.info.no_repeat_ngram_size,
                return_dict_in_generate=True,
                output_logits=True,
            )
            logits = torch.cat([step.float().softmax(-1) for step in made.logits])
        ids = made.sequences[0].tolist()
        return Answer(ids[:length], tuple(ids[length:]), logits.cpu())

    def entities(self, ids: Sequence[int]) -> Entities:
        """Return phrases and boxes as the processor reads them from ids of a prompt and answer.

        A box without a phrase, which the processor names by its tags, has an empty phrase.
        """
        (text,) = self._processor.batch_decode([list(ids)], skip_special_tokens=True)
        _, found = self._processor.post_process_generation(text)
        return [
            ("" if name.startswith(LOCATION) else name, tuple(map(tuple, boxes)))
            for name, _, boxes in found
        ]

    def read(self, ids: Sequence[int]) -> Entities:
        """Return phrases and boxes as the engine decodes and grounding.py parses the ids.

        The result has the form of `entities`. Corners of boxes are the centres of their cells.
        """
        text = self.engine.decode(ids).rpartition("</image>")[2]
        _, phrases = parse(text, [1.0] * text.count(LOCATION))
        return [
            (
                phrase.text,
                tuple((box.x_min, box.y_min, box.x_max, box.y_max) for box in phrase.boxes),
            )
            for phrase in phrases
        ]

    def pixel_difference(self, image: np.ndarray) -> float:
        """Return the largest difference of the engine's pixels from the processor's.

        In grey levels: 255 is the difference of black and white.
        """
        theirs = self._inputs(image, "")["pixel_values"].float()
        ours = self.engine.pixels(image).float()
        std = torch.tensor(self._processor.image_processor.image_std, device=ours.device)
        return float(((ours - theirs).abs() * std.view(1, 3, 1, 1)).max() * 255)

    def difference(self, ids: Sequence[int], answer: Answer) -> Difference | None:
        """Compare an answer's ids with those of the reference."""
        pairs = enumerate(zip_longest(ids, answer.ids))
        found = next((each for each in pairs if each[1][0] != each[1][1]), None)
        if found is None:
            return None
        at, tokens = found
        name = self._processor.tokenizer.convert_ids_to_tokens
        one, other = ("" if token is None else name(token) for token in tokens)
        mine, theirs = (
            0.0 if None in tokens else float(answer.probabilities[at, token]) for token in tokens
        )
        return Difference(at, one, other, mine, theirs)

    def _inputs(self, image: np.ndarray, prompt: str) -> dict[str, Any]:
        made = self._processor(text=prompt, images=Image.fromarray(image), return_tensors="pt")
        return {name: value.to(self._model.device) for name, value in made.items()}


def load(*, refine_boxes: bool, **options: Any) -> Reference:
    """Load a model with the options of Engine.load, for the engine and for Hugging Face's code.

    The engine has no grammar of locations, because `generate` has none.
    """
    model, processor, info = loading.load(**options)
    engine = Engine(model, processor, info, location_grammar=False, refine_boxes=refine_boxes)
    return Reference(engine, processor)


@dataclass(frozen=True)
class Speed:
    """How fast and how large the model is. Times in seconds, memory in bytes."""

    first_token: float  # from the image to the first token
    next_token: float  # one more token; 0: not measurable
    weights: int  # memory of the weights
    device: int  # GPU memory that torch has reserved; 0 on a CPU


def measure(engine: Engine, image: np.ndarray, prompt: str, max_new_tokens: int) -> Speed:
    """Measure an answer to `prompt` about an image (H, W, 3) uint8 RGB."""
    engine.warm_up(1, max_new_tokens)
    first = _median(engine, image, prompt, 1)[0]
    whole, tokens = _median(engine, image, prompt, max_new_tokens)
    weights = int(engine.model.get_memory_footprint())  # counts tied weights once
    following = (whole - first) / (tokens - 1) if tokens > 1 else 0.0
    return Speed(first, max(following, 0.0), weights, engine.memory())


def _median(engine: Engine, image: np.ndarray, prompt: str, tokens: int) -> tuple[float, int]:
    """Return the seconds of an answer of at most `tokens` tokens, and the number of its tokens."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        answer = engine.generate(engine.encode(image), prompt, tokens)
        times.append(time.perf_counter() - begun)
    return statistics.median(times), answer.tokens
