# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subjects of the benchmark: an engine, and Hugging Face's own code on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

from benchmark.captions import DETAILED, Script
from kosmos_ros import shapes
from kosmos_ros.kosmos2 import grounding, loading
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.kosmos2.prompts import Prompt
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

FLORENCE_2 = hasattr(transformers, "Florence2Config")
"""Whether transformers has Florence-2."""

STD = 0.02  # of random weights, as KOSMOS-2 initialises them


class Subject:
    """An engine, and the code of KOSMOS-2's model card on the same weights."""

    def __init__(self, name: str, engine: Engine, processor: Any) -> None:
        self.name = name
        self.engine = engine
        self.processor = processor
        self.script: Script | None = None  # of random weights on a CPU
        # Otherwise transformers 4 records the vision tower for gradients.
        self.model = engine.model.requires_grad_(False)

    @property
    def random(self) -> bool:
        """Whether the weights are random. Random weights hardly ever write the end token."""
        return self.engine.info.model == "random"

    def ours(self, frame: np.ndarray, prompt: Prompt, tokens: int) -> Caption:
        """Return the caption, with boxes, that the engine writes."""
        engine = self.engine
        query = Query(engine.encode(frame), prompt.text, tokens)
        (answer,) = engine.generate_batch([query])
        assert isinstance(answer, Generation), answer
        return grounding.read(answer, prompt.text, prompt.lead)

    def theirs(self, frame: np.ndarray, prompt: Prompt, tokens: int) -> int:
        """Do the same with the model card's code; return the number of written tokens."""
        inputs = self.inputs(frame, prompt)
        ids = self.written(inputs, tokens)
        text = self.processor.batch_decode(ids, skip_special_tokens=True)[0]
        self.processor.post_process_generation(text)
        return int(ids.shape[1] - inputs["input_ids"].shape[1])

    def written(self, inputs: dict[str, Any], tokens: int) -> Any:
        """Return the ids (1, L) of the prompt and of at most `tokens` that generate adds."""
        return self.model.generate(
            **inputs,
            use_cache=True,
            max_new_tokens=tokens,
            do_sample=False,
            # transformers 5 does not read it from the model's configuration.
            no_repeat_ngram_size=self.engine.info.no_repeat_ngram_size,
            logits_processor=[self.script] if self.script else [],
        )

    def inputs(self, frame: np.ndarray, prompt: Prompt) -> dict[str, Any]:
        """Return the processor's inputs for a frame and a prompt, on the model's device."""
        made = self.processor(text=prompt.text, images=Image.fromarray(frame), return_tensors="pt")
        pixels = made["pixel_values"].to(self.model.dtype)
        return {name: value.to(self.model.device) for name, value in made.items()} | {
            "pixel_values": pixels.to(self.model.device)
        }

    def save(self, folder: str) -> None:
        """Write the weights and the processor's files, from which an engine can be loaded."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def embedded(device: str, threads: int = 0) -> Subject:
    """Return the embedded model."""
    processor = Kosmos2Processor.from_pretrained(shapes.MODEL_DIR)
    return Subject("shapes", Engine.load("shapes", device=device, threads=threads), processor)


def full(device: str, layers: int | None = None) -> Subject:
    """Return a model of KOSMOS-2's size with random weights: float32, or bfloat16 on a GPU.

    The tokenizer is the embedded model's, because the cost of a token does not depend on which
    one it is. Tests pass a smaller number of `layers` for each tower.
    """
    config = Kosmos2Config()
    if layers is not None:
        config.text_config.layers = config.vision_config.num_hidden_layers = layers
    place = torch.device(device)
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    model = _random(config, place, dtype)
    processor = Kosmos2Processor.from_pretrained(shapes.MODEL_DIR)
    image_processor = copy.deepcopy(processor.image_processor)
    size = config.vision_config.image_size
    image_processor.size = {"height": size, "width": size}
    image_processor.crop_size = image_processor.size
    processor.image_processor = image_processor
    info = loading.ModelInfo(
        model="random",
        revision="",
        device=str(place),
        device_name=torch.cuda.get_device_name(place) if place.type == "cuda" else "",
        dtype=str(dtype).removeprefix("torch."),
        quantization="none",
        parameters=model.num_parameters(),
        image_size=size,
        no_repeat_ngram_size=loading.NO_REPEAT_NGRAM_SIZE,
        transformers=transformers.__version__,
        torch=torch.__version__,
    )
    subject = Subject(
        "full size", Engine(model, processor, info, location_grammar=False), processor
    )
    if place.type == "cpu":
        subject.script = Script(len(subject.engine.token_ids(DETAILED.text)))
        passes = subject.engine._decoder._passes
        passes._rules = (*passes._rules, subject.script)
    return subject


def florence(place: torch.device, dtype: torch.dtype) -> Callable[[int], int]:
    """Return a function with which Florence-2 base writes tokens about a 768 x 768 image.

    The weights are random, the sizes from config.json of microsoft/Florence-2-base, and its task
    prompt has 10 tokens. Raises ImportError if transformers lacks it (FLORENCE_2).
    """
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    text = {
        "model_type": "bart",
        "vocab_size": 51290,  # 51289 and the image token
        "d_model": 768,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
    }
    config = Florence2Config(text_config=text, vision_config={"projection_dim": 768})
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(config).to(place, dtype).eval()
    side = 768  # pixels
    pixels = torch.zeros(1, 3, side, side, device=place, dtype=dtype)
    # One token for each of 24 x 24 patches and one for the whole image.
    ids = torch.tensor([[config.image_token_id] * 577 + [5] * 10], device=place)

    def write(tokens: int) -> int:
        ends = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        made = model.generate(
            input_ids=ids, pixel_values=pixels, do_sample=False, num_beams=1, **ends
        )
        return int(made.shape[1])

    return write


def frames(count: int, shapes_in_each: int = 4, size: tuple[int, int] = (640, 480)) -> list[Any]:
    """Return frames (H, W, 3) uint8, the same ones in every run."""
    return [render(scene) for scene in _scenes(count, shapes_in_each, size)]


def _scenes(count: int, shapes_in_each: int, size: tuple[int, int]) -> Iterator[Any]:
    for number in range(count):
        rng = np.random.default_rng([3, number])
        yield sample_scene(rng, *size, counts=(shapes_in_each,))


def _random(config: Kosmos2Config, device: torch.device, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
            parameter.normal_(std=STD, generator=generator)
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
    model.tie_weights()
    # The tables of positions are not weights, so they are still empty.
    text, vision = model.text_model.model.embed_positions, model.vision_model.model.embeddings
    positions = len(text.weights)
    text.weights = torch.empty(0, dtype=dtype, device=device)
    text.make_weights(positions, text.embedding_dim, text.padding_idx)
    vision.position_ids = torch.arange(vision.num_positions, device=device)[None]
    model.generation_config.update(bos_token_id=0, pad_token_id=1, eos_token_id=2)
    return model.eval()
