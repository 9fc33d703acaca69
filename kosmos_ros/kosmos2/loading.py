# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Load a model from its files, and refuse one that would give wrong answers.

Knows files, devices and number formats; runs no model.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kosmos_ros.errors import ConfigError, ModelLoadError
from kosmos_ros.kosmos2.progress import QUANTIZING, READING, Report, unreported
from kosmos_ros.sanitize import first_line, quoted

try:
    import torch as torch  # exported, so that other modules also raise the error below
    import transformers
    from safetensors import safe_open
    from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

    from kosmos_ros.kosmos2 import compat, hub, model_files, tokenizer_file
    from kosmos_ros.kosmos2.weight_files import EMBEDDING, HEAD, Weights
except ImportError as exc:
    if "failed to map segment" in str(exc):  # there is too little memory for torch's libraries
        raise
    raise ModelLoadError(
        f"{exc}: {sys.executable} needs torch and transformers; "
        f"install them with '{sys.executable} -m pip install -r requirements.txt'"
    ) from exc

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL_MODEL = 50_000_000
"""Number of parameters below which threads wait for each other longer than they compute."""
PANIC = "PanicException"
"""Name of the BaseException that a Rust library raises for its own bug. It cannot be imported."""
QUANTIZATIONS = ("none", "int8", "nf4")
NO_REPEAT_NGRAM_SIZE = 3
"""Value for the default model, if its files name none: that of KOSMOS-2's converter
(convert_kosmos2_original_pytorch_checkpoint_to_pytorch.py of transformers)."""
RESAMPLING = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""PIL.Image.Resampling: mode of torch's interpolate."""


@dataclass(frozen=True)
class ModelInfo:
    """The model, and how and where it runs."""

    model: str  # "shapes", directory or Hugging Face id, as requested
    revision: str  # commit of the weights; empty for a directory
    device: str  # cpu or cuda:N
    device_name: str  # such as NVIDIA H200; empty for a CPU
    dtype: str
    quantization: str
    parameters: int
    image_size: int  # pixels, side of the model's square input
    no_repeat_ngram_size: int  # tokens in a sequence that is written only once; 0: no limit
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
    no_repeat_ngram_size: int = -1,
    report: Report = unreported,
) -> tuple[Any, Any, ModelInfo]:
    """Load `model` and its processor.

    `model` is "shapes" (embedded), a directory or a Hugging Face id; hub.find describes where
    its files come from. `device` is auto, cpu, cuda or cuda:N. `dtype` is auto, float32, bfloat16
    or float16; auto is float32 on a CPU, bfloat16 on a GPU whose hardware supports it (compute
    capability 8.0 and above), otherwise float16. `quantization` is none, int8 or nf4. int8.py
    quantizes to int8 on a CPU, and bitsandbytes does it in all other cases. `threads` is the
    number of CPU threads of this process; 0 is one for a model below SMALL_MODEL, otherwise
    torch's default. `no_repeat_ngram_size` is -1 for the model's own value, 0 for none, or a
    number of tokens; see repetition.py. `report` receives each phase of loading.
    Reads only safetensors, and never runs code from the model's files.
    Raises ConfigError for any other value, a device that does not exist, or nf4 on a CPU with too
    old a version of transformers; ModelLoadError if the files are missing,
    damaged or not a KOSMOS-2 model.
    """
    chosen = _device(device)
    _check_quantization(quantization, chosen)
    kind = _dtype(dtype, chosen, quantization)
    files = hub.find(model, revision, local_files_only, report)
    report(READING, 0, 0)
    try:
        loaded, processor, size = _read(model, files.folder, chosen, DTYPES[kind], quantization)
    except ModelLoadError:
        raise
    except BaseException as exc:  # tokenizers raises plain Exceptions and panics
        if not isinstance(exc, Exception) and type(exc).__name__ != PANIC:
            raise
        reason = first_line(exc)
        if files.commit:
            reason += f"; repair its files in {files.folder} with {hub.command(model, revision)!r}"
        raise ModelLoadError(f"model {model!r} cannot be loaded: {reason}") from exc
    loaded.eval()
    parameters = loaded.num_parameters()
    if threads or (parameters < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ):
        torch.set_num_threads(threads or 1)
    if _ours(quantization, chosen):
        from kosmos_ros.kosmos2 import int8  # imports torch

        report(QUANTIZING, 0, 0)
        int8.quantize(loaded, keep=loaded.text_model.lm_head)
    info = ModelInfo(
        model=model,
        revision=files.commit,
        device=str(chosen),
        device_name=torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "",
        dtype=kind,
        quantization=quantization,
        parameters=parameters,
        image_size=int(loaded.config.vision_config.image_size),
        no_repeat_ngram_size=size if no_repeat_ngram_size < 0 else no_repeat_ngram_size,
        transformers=transformers.__version__,
        torch=torch.__version__,
    )
    return loaded, processor, info


def _read(
    model: str, folder: Path, device: torch.device, dtype: torch.dtype, quantization: str
) -> tuple[Any, Any, int]:
    """Return the checked model and processor in `folder`, and its no_repeat_ngram_size."""
    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    options: dict[str, Any] = {
        "use_safetensors": True,
        "device_map": {"": device},
        compat.DTYPE: dtype,
    }
    if quantization != "none" and not _ours(quantization, device):
        options["quantization_config"] = _bitsandbytes(quantization, dtype)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # its warnings quote the files unescaped
    with model_files.reduced(folder) as (copy, weights):
        config = Kosmos2Config.from_pretrained(str(copy), **own)
        weights.check(config)
        size = model_files.no_repeat_ngram_size(copy)
        processor = Kosmos2Processor.from_pretrained(str(copy), **own)
        # A tokenizer from a sentencepiece file has not been checked yet.
        tokenizer_file.checked(json.loads(processor.tokenizer.backend_tokenizer.to_str()))
        try:
            loaded, report = Kosmos2ForConditionalGeneration.from_pretrained(
                str(copy), **own, **options, output_loading_info=True
            )
            _restore_padding(loaded, weights)
        except torch.OutOfMemoryError as exc:
            free = torch.cuda.mem_get_info(device)[0] / 1e9
            raise ModelLoadError(
                f"model {model!r} cannot be loaded: {device} has {free:.1f} GB free. "
                f"{_sizes(config)}"
            ) from exc
    _check_weights(model, report)
    _check_pixels(model, processor.image_processor, int(loaded.config.vision_config.image_size))
    _check_tokens(model, processor.tokenizer, loaded.config)
    if size is None:
        size = NO_REPEAT_NGRAM_SIZE if model in hub.COMMITS else 0
    return loaded, processor, size


def _restore_padding(model: Any, weights: Weights) -> None:
    """Set the weights of the padding token as in the files. transformers 5.20 sets them to 0."""
    name = EMBEDDING if EMBEDDING in weights.shapes else HEAD
    embedding = model.text_model.model.embed_tokens
    token = embedding.padding_idx
    with safe_open(weights.files[weights.locations[name]], "pt") as file:
        embedding.weight.data[token] = file.get_slice(name)[token : token + 1][0]


def _sizes(config: Kosmos2Config) -> str:
    """Return a sentence with the memory of the weights in each format."""
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(config)
    model.tie_weights()  # transformers 5.0 ties them only when it loads weights
    head = model.text_model.lm_head  # bitsandbytes does not quantize it
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
    return f"The weights take {sizes}; images and answers take more"


def _device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = "cuda:0"
    if not re.fullmatch("cpu|cuda:[0-9]+", device):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    if device != "cpu" and int(device[5:]) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} does not exist: torch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(device)


def _check_quantization(quantization: str, device: torch.device) -> None:
    if quantization not in QUANTIZATIONS:
        raise ConfigError(
            f"quantization must be one of {', '.join(QUANTIZATIONS)}, got {quantization!r}"
        )
    if quantization == "nf4" and device.type == "cpu" and not compat.NF4_ON_CPU:
        raise ConfigError(
            "quantization 'nf4' on a CPU needs transformers 4.53 or newer, got "
            f"{transformers.__version__}; update it, or use int8 or none"
        )


def _dtype(dtype: str, device: torch.device, quantization: str) -> str:
    if dtype == "auto":
        if device.type == "cpu":
            return "float32"
        if quantization == "int8":
            return "float16"  # bitsandbytes' int8 product casts every other type to it
        # torch.cuda.is_bf16_supported() is also true for emulated bfloat16.
        native = torch.cuda.get_device_capability(device) >= (8, 0)
        return "bfloat16" if native else "float16"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {dtype!r}")
    return dtype


def _ours(quantization: str, device: torch.device) -> bool:
    """Return whether int8.py quantizes the weights, and not bitsandbytes."""
    return quantization == "int8" and device.type == "cpu"


def _bitsandbytes(quantization: str, dtype: torch.dtype) -> Any:
    if quantization == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _check_weights(model: str, report: dict[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"model {model!r} lacks {len(missing)} weights, such as {quoted(missing[0])}"
        )


def _check_pixels(model: str, steps: Any, size: int) -> None:
    """Refuse an image processor with steps that Engine.pixels does not perform."""
    made = set(dict(steps.size).values())
    if made != {size}:
        raise ModelLoadError(
            f"model {model!r}: its image processor must make images of {size} pixels, "
            f"got {quoted(sorted(made))}"
        )
    if int(steps.resample) not in RESAMPLING:
        raise ModelLoadError(
            f"model {model!r}: resample must be one of {sorted(RESAMPLING)}, "
            f"got {steps.resample:d}"
        )
    if steps.do_rescale and not _finite(steps.rescale_factor):
        _refuse_pixels(model, "rescale_factor", "a finite number", steps.rescale_factor)
    if not steps.do_normalize:
        return
    for name in ("image_mean", "image_std"):
        value = getattr(steps, name)
        if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_finite, value)):
            _refuse_pixels(model, name, "three finite numbers", value)
    if min(steps.image_std) <= 0:
        _refuse_pixels(model, "image_std", "greater than 0", steps.image_std)


def _refuse_pixels(model: str, name: str, valid: str, value: Any) -> NoReturn:
    raise ModelLoadError(f"model {model!r}: {name} must be {valid}, got {quoted(value)}")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_tokens(model: str, tokenizer: Any, config: Any) -> None:
    vocabulary = config.text_config.vocab_size
    if len(tokenizer) > vocabulary:
        raise ModelLoadError(
            f"model {model!r}: its weights have {vocabulary} tokens, "
            f"but its tokenizer has {len(tokenizer)}"
        )
    for name in ("bos_token", "eos_token", "unk_token"):
        if getattr(tokenizer, f"{name}_id") is None:
            raise ModelLoadError(f"model {model!r}: its tokenizer has no {name}")
    tags = ["<image>", "</image>"]
    ids = tokenizer("".join(tags), add_special_tokens=False, verbose=False)["input_ids"]
    expected = tokenizer.convert_tokens_to_ids(tags)
    if ids != expected:
        raise ModelLoadError(
            f"model {model!r}: its tokenizer must read {''.join(tags)} as {expected}, got {ids}"
        )
    image, context = config.latent_query_num, config.text_config.max_position_embeddings
    if tokenizer.unk_token_id + image >= vocabulary:
        raise ModelLoadError(
            f"model {model!r}: unk_token is token {tokenizer.unk_token_id} of {vocabulary}, "
            f"but {image} tokens must follow it to stand for the image"
        )
    if image + 3 >= context:
        raise ModelLoadError(
            f"model {model!r}: the {image} tokens of an image do not fit in a context of {context}"
        )
