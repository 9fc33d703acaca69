# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights in, a model that can run out. Refuses what would run and answer nonsense.

Knows files, devices and number formats; runs nothing.
"""

from __future__ import annotations

import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_ros.errors import ConfigError, ModelLoadError
from kosmos_ros.sanitize import first_line, quoted

try:
    import torch as torch  # for others too: a missing one is named here
    import transformers
    from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

    from kosmos_ros.kosmos2 import compat, hub
except ImportError as exc:
    raise ModelLoadError(
        f"{exc}: {sys.executable} needs torch and transformers; "
        f"'{sys.executable} -m pip install -r requirements.txt' installs them"
    ) from exc

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 50_000_000
"""Parameters below which threads wait for each other longer than they compute."""
QUANTIZATIONS = ("none", "int8", "nf4")
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling: torch's mode


@dataclass(frozen=True)
class ModelInfo:
    """What runs where."""

    model: str  # directory or Hugging Face id as asked for
    revision: str  # commit of the weights; empty for a directory
    device: str  # cpu or cuda:n
    device_name: str  # such as NVIDIA H200; empty for a CPU
    dtype: str
    quantization: str
    parameters: int
    image_size: int  # pixels, side of the square that the model sees
    transformers: str  # version
    torch: str  # version


def load(
    model: str,
    *,
    revision: str = "",
    local_files_only: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    threads: int = 0,
) -> tuple[Any, Any, ModelInfo]:
    """`model`, which is "shapes" (embedded), a directory or a Hugging Face id, with its processor.

    The files of a Hugging Face id are looked for on this machine first; see hub.find.
    `device` is auto, cpu, cuda or cuda:n. `dtype` is auto, float32, bfloat16 or float16; auto
    is float32 on a CPU, bfloat16 on a GPU that computes in it (compute capability 8.0 on),
    else float16. `quantization` is none, int8 or nf4, by bitsandbytes but for int8 on a CPU, which
    is int8.py's. `threads` of the processor compute, in this process; 0: one for a model below
    SMALL, else as many as torch finds right.
    Only safetensors are read and no code of the model's own is ever run.
    Raises ConfigError for a value that is not one of these, a device that is not there, or nf4 on
    a CPU with a transformers too old for it; ModelLoadError when the files are missing, damaged or
    not a KOSMOS-2 model.
    """
    place = _device(device)
    if quantization not in QUANTIZATIONS:
        raise ConfigError(
            f"quantization {quantization!r} is unknown; one of {', '.join(QUANTIZATIONS)}"
        )
    if quantization == "nf4" and place.type == "cpu" and not compat.NF4_ON_CPU:
        raise ConfigError(
            "quantization 'nf4' on a CPU needs transformers 4.53 or newer; "
            f"{transformers.__version__} is installed, with which int8 and none work"
        )
    kind = _dtype(dtype, place, quantization)
    files = hub.find(model, revision, local_files_only)
    path = str(files.folder)
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "device_map": {"": place},
        compat.DTYPE: DTYPES[kind],
    }
    ours = quantization == "int8" and place.type == "cpu"
    if quantization != "none" and not ours:
        options["quantization_config"] = _quantization(quantization, DTYPES[kind])
    transformers.utils.logging.disable_progress_bar()
    try:
        values, _ = Kosmos2Config.get_config_dict(path, local_files_only=True)
        if not values:
            raise ModelLoadError(f"model {model!r} has no config.json")
        if values.get("model_type") != Kosmos2Config.model_type:
            raise ModelLoadError(
                f"model {model!r} is of type {quoted(values.get('model_type'))}; "
                f"{Kosmos2Config.model_type!r} is needed"
            )
        _check_attention(model, values)
        config = Kosmos2Config.from_pretrained(path, local_files_only=True)
        _check_size(model, files.folder, config)
        processor = Kosmos2Processor.from_pretrained(path, local_files_only=True)
        loaded, report = Kosmos2ForConditionalGeneration.from_pretrained(
            path, **options, output_loading_info=True
        )
        _check(model, loaded, processor, report)
    except ModelLoadError:
        raise
    except Exception as exc:  # tokenizers raises Exception itself, safetensors one of its own
        reason = first_line(exc)
        if isinstance(exc, torch.OutOfMemoryError):
            free = torch.cuda.mem_get_info(place)[0] / 1e9
            reason = f"{place} has {free:.1f} GB free. {_sizes(path)}"
        elif files.commit:
            reason += f"; {hub.command(model, revision)!r} mends its files in {path}"
        raise ModelLoadError(f"model {model!r} cannot be loaded: {reason}") from exc
    loaded.eval()
    parameters = loaded.num_parameters()
    if threads or (parameters < SMALL and "OMP_NUM_THREADS" not in os.environ):
        torch.set_num_threads(threads or 1)
    if ours:
        from kosmos_ros.kosmos2 import int8  # which needs torch itself

        int8.quantize(loaded, keep=loaded.text_model.lm_head)
    info = ModelInfo(
        model=model,
        revision=files.commit,
        device=str(place),
        device_name=torch.cuda.get_device_name(place) if place.type == "cuda" else "",
        dtype=kind,
        quantization=quantization,
        parameters=parameters,
        image_size=int(loaded.config.vision_config.image_size),
        transformers=transformers.__version__,
        torch=torch.__version__,
    )
    return loaded, processor, info


def _sizes(path: str) -> str:
    """What the weights take, in each way that they can be held."""
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(Kosmos2Config.from_pretrained(path))
    model.tie_weights()  # transformers 5.0 does not before weights are loaded
    head = model.text_model.lm_head  # bitsandbytes leaves it as it is
    products = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    rest = model.num_parameters() - products
    # nf4: 4 bits and a float32 scale for each 64 weights (QLoRA, arXiv 2305.14314, section 3)
    gigabytes = {
        "float32": 4 * (products + rest) / 1e9,
        "bfloat16 or float16": 2 * (products + rest) / 1e9,
        "int8": (products + 2 * rest) / 1e9,
        "nf4": (0.5625 * products + 2 * rest) / 1e9,
    }
    sizes = ", ".join(f"{size:.1f} GB in {name}" for name, size in gigabytes.items())
    return f"The weights take {sizes}; the pictures and answers take more"


def _device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = "cuda:0"
    if not re.fullmatch("cpu|cuda:[0-9]+", device):
        raise ConfigError(f"device {device!r} is unknown; auto, cpu, cuda or cuda:n is needed")
    if device != "cpu" and int(device[5:]) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(device)


def _dtype(dtype: str, device: torch.device, quantization: str) -> str:
    if dtype == "auto":
        if device.type == "cpu":
            return "float32"
        if quantization == "int8":
            return "float16"  # bitsandbytes' int8 product casts anything else to it, every time
        # torch.cuda.is_bf16_supported() is true for emulated bfloat16 as well.
        native = torch.cuda.get_device_capability(device) >= (8, 0)
        return "bfloat16" if native else "float16"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; auto or one of {', '.join(DTYPES)}")
    return dtype


def _quantization(quantization: str, dtype: torch.dtype) -> Any:
    if quantization == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _check_attention(model: str, values: Any) -> None:
    """Refuse a config whose attention is a repository, of which transformers would run code."""
    for name, value in values.items():
        if isinstance(value, dict):
            _check_attention(model, value)
        elif "attn_implementation" in name and "/" in str(value):
            raise ModelLoadError(
                f"model {model!r}: its config wants {name} {quoted(value)}, "
                "which is code of others"
            )


def _check_size(model: str, directory: Path, config: Any) -> None:
    """Refuse a config of more weights than the files hold, as transformers makes up the others."""
    text, vision = config.text_config, config.vision_config
    layer = 4 * text.embed_dim**2 + 2 * text.embed_dim * text.ffn_dim
    block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    patches = (vision.image_size // vision.patch_size) ** 2
    weights = (
        (text.vocab_size + config.latent_query_num) * text.embed_dim
        + text.layers * layer
        + vision.num_hidden_layers * block
        + patches * vision.hidden_size
    )
    held = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    if held and weights > 2 * held:  # 4 bits each are the fewest
        raise ModelLoadError(
            f"model {model!r}: its config has {weights} weights or more, "
            f"too many for {held} bytes of safetensors"
        )


def _check(model: str, loaded: Any, processor: Any, report: dict[str, Any]) -> None:
    """Refuse what would run and answer nonsense, or load and not run."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"model {model!r} lacks {len(missing)} weights, such as {quoted(missing[0])}"
        )
    _check_pictures(model, processor.image_processor, int(loaded.config.vision_config.image_size))
    _check_tokens(model, processor.tokenizer, loaded.config)


def _check_pictures(model: str, pixels: Any, size: int) -> None:
    seen = set(dict(pixels.size).values())
    if seen != {size}:
        raise ModelLoadError(
            f"model {model!r}: its image processor makes pictures of {quoted(sorted(seen))} "
            f"pixels, its vision model needs {size}"
        )
    if int(pixels.resample) not in RESAMPLING:
        raise ModelLoadError(
            f"model {model!r}: resample {pixels.resample:d} is not supported; "
            f"one of {sorted(RESAMPLING)} is needed"
        )
    colours = ("image_mean", "image_std") if pixels.do_normalize else ()
    for name in (*colours, *(("rescale_factor",) if pixels.do_rescale else ())):
        value = getattr(pixels, name)
        if not _finite(value, 3 if name in colours else None):
            needed = "three finite numbers are" if name in colours else "a finite number is"
            raise ModelLoadError(f"model {model!r}: {name} is {quoted(value)}; {needed} needed")
    if colours and min(pixels.image_std) <= 0:
        raise ModelLoadError(
            f"model {model!r}: image_std is {quoted(pixels.image_std)}; more than 0 is needed"
        )


def _finite(value: Any, count: int | None = None) -> bool:
    """Whether it is a finite number, or `count` of them."""
    if count is None:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, list | tuple) and len(value) == count and all(map(_finite, value))


def _check_tokens(model: str, tokenizer: Any, config: Any) -> None:
    vocabulary = config.text_config.vocab_size
    if len(tokenizer) > vocabulary:
        raise ModelLoadError(
            f"model {model!r}: its tokenizer has {len(tokenizer)} tokens, its weights {vocabulary}"
        )
    for name in ("bos_token", "eos_token", "unk_token"):
        if getattr(tokenizer, f"{name}_id") is None:
            raise ModelLoadError(f"model {model!r}: its tokenizer has no {name}")
    tags = ["<image>", "</image>"]
    ids = tokenizer("".join(tags), add_special_tokens=False, verbose=False)["input_ids"]
    if ids != tokenizer.convert_tokens_to_ids(tags):
        raise ModelLoadError(f"model {model!r}: its tokenizer reads {''.join(tags)} as {ids}")
    picture, places = config.latent_query_num, config.text_config.max_position_embeddings
    if tokenizer.unk_token_id + picture >= vocabulary:
        raise ModelLoadError(
            f"model {model!r}: unk_token is token {tokenizer.unk_token_id} of {vocabulary}; "
            f"the {picture} behind it stand for the picture"
        )
    if picture + 3 >= places:
        raise ModelLoadError(
            f"model {model!r}: {picture} tokens of a picture do not fit in a context of {places}"
        )
