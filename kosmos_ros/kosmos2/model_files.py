# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make a copy of a model's files with only the fields that KOSMOS-2 needs.

transformers trusts a model's files. A field may name code to run, another model, a kernel or a
file to load, or a size that the weights do not have. The copy contains only the fields that are
listed here, within their limits, and links to the weights. Knows JSON and the headers of
safetensors; knows neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_ros.kosmos2 import json_file, tokenizer_file, weight_files
from kosmos_ros.kosmos2.hub import INDEX
from kosmos_ros.kosmos2.weight_files import WHOLE, Weights
from kosmos_ros.sanitize import quoted

TOKENIZER_BYTES = 16 << 20
"""Largest size of a tokenizer's file in bytes. KOSMOS-2's has a third of it."""
MAX_CONTEXT = 16_384
"""Largest number of positions of the text model. The files have no weights for them that would
confirm it. KOSMOS-2 has 2048."""
MAX_LAYERS = 256
"""Largest number of layers of the text model and of the vision model. KOSMOS-2 has 24 in each."""
MAX_SIZE = 1 << 20
"""Largest value of other sizes. The weights confirm most of them. KOSMOS-2's largest is 65037."""

MODEL_TYPE = "kosmos-2"
QUANTIZED = ("quantization_config", "compression_config")
"""Fields for quantized weights. transformers would load another library for them."""
ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")


@dataclass(frozen=True)
class Values:
    """The valid values of a field."""

    valid: str  # for messages
    accepts: Callable[[Any], bool]


def _whole(low: int, high: int) -> Values:
    # type, because isinstance also accepts a bool.
    return Values(
        f"a whole number from {low} to {high}", lambda v: type(v) is int and low <= v <= high
    )


def _one_of(*values: Any) -> Values:
    return Values(
        "one of " + ", ".join(map(json.dumps, values)) if values[1:] else json.dumps(values[0]),
        lambda value: any(type(value) is type(v) and value == v for v in values),
    )


SIZE = _whole(1, MAX_SIZE)
FLAG = _one_of(True, False)
EPSILON = Values("a number from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1)
TOKEN = Values(
    f"null or a whole number from 0 to {MAX_SIZE}",
    lambda v: v is None or (type(v) is int and 0 <= v <= MAX_SIZE),
)
REPETITION = Values(
    f"null or a whole number from 0 to {MAX_CONTEXT}",
    lambda v: v is None or (type(v) is int and 0 <= v <= MAX_CONTEXT),
)
ADDED = Values(
    f"null or at most {tokenizer_file.MAX_ADDED} tokens",
    lambda v: v is None or (type(v) in (list, dict) and len(v) <= tokenizer_file.MAX_ADDED),
)
ANY = Values("JSON", lambda _: True)  # the loader or transformers checks the value

CONFIG = {
    "model_type": _one_of(MODEL_TYPE),
    "latent_query_num": SIZE,
    "tie_word_embeddings": FLAG,
    "text_config.vocab_size": SIZE,
    "text_config.max_position_embeddings": _whole(1, MAX_CONTEXT),
    "text_config.embed_dim": SIZE,
    "text_config.layers": _whole(1, MAX_LAYERS),
    "text_config.ffn_dim": SIZE,
    "text_config.attention_heads": SIZE,
    "text_config.activation_function": _one_of(*ACTIVATIONS),
    "text_config.layer_norm_eps": EPSILON,
    "text_config.scale_embedding": FLAG,
    "text_config.tie_word_embeddings": FLAG,
    "text_config.add_cross_attention": _one_of(False),
    "text_config.pad_token_id": _whole(0, MAX_CONTEXT),
    "text_config.bos_token_id": TOKEN,
    "text_config.eos_token_id": TOKEN,
    "text_config.no_repeat_ngram_size": REPETITION,
    "vision_config.hidden_size": SIZE,
    "vision_config.intermediate_size": SIZE,
    "vision_config.num_hidden_layers": _whole(1, MAX_LAYERS),
    "vision_config.num_attention_heads": SIZE,
    "vision_config.num_channels": _one_of(3),
    "vision_config.image_size": SIZE,
    "vision_config.patch_size": SIZE,
    "vision_config.hidden_act": _one_of(*ACTIVATIONS),
    "vision_config.layer_norm_eps": EPSILON,
}
"""Field of config.json: its valid values. All other fields are ignored."""
GENERATION = {
    "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
    "pad_token_id": TOKEN,
    "no_repeat_ngram_size": REPETITION,
    "max_new_tokens": SIZE,
}
PIXELS = dict.fromkeys(
    ("do_resize", "size", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
     "do_normalize", "image_mean", "image_std", "do_convert_rgb", "resample", "use_square_size"),
    ANY,
)  # fmt: skip
SPECIAL = dict.fromkeys(
    ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"),
    ANY,
)
TOKENIZER = SPECIAL | {
    "tokenizer_class": _one_of(
        "XLMRobertaTokenizer", "XLMRobertaTokenizerFast",
        "PreTrainedTokenizerFast", "TokenizersBackend",
    ),
    "add_prefix_space": FLAG,
    "clean_up_tokenization_spaces": FLAG,
    "added_tokens_decoder": ADDED,
    "additional_special_tokens": ADDED,
    "model_max_length": ANY,
    "padding_side": _one_of("left", "right"),
}  # fmt: skip


@contextlib.contextmanager
def reduced(folder: Path) -> Iterator[tuple[Path, Weights]]:
    """Yield a temporary copy of a model's folder with valid fields only, and its weights.

    Raises ValueError for a file that is missing, damaged or too large, or has an invalid field.
    """
    trees = list(_trees(folder))
    weights = weight_files.read(folder)
    with tempfile.TemporaryDirectory(prefix="kosmos_model_") as made:
        copy = Path(made)
        for name, tree in trees:
            (copy / name).write_text(json.dumps(tree), encoding="utf-8")
        for name in _spm(folder):
            (copy / name).symlink_to((folder / name).resolve())
        for name, path in weights.files.items():
            (copy / name).symlink_to(path.resolve())
        if WHOLE not in weights.files:
            index = {"metadata": {}, "weight_map": weights.locations}
            (copy / INDEX).write_text(json.dumps(index), encoding="utf-8")
        yield copy, weights


def no_repeat_ngram_size(copy: Path) -> int | None:
    """Return the size that the files of a `reduced` copy name; None if they name none.

    transformers 4 reads it from text_config, where the converter of KOSMOS-2 wrote it. Models
    that transformers 5 saved have it in generation_config.json.
    """
    named = json_file.read(copy / "config.json")["text_config"].get("no_repeat_ngram_size")
    path = copy / "generation_config.json"
    if named is None and path.is_file():
        named = json_file.read(path).get("no_repeat_ngram_size")
    return named


def _trees(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the valid content of each JSON file of the copy."""
    yield "config.json", _config(folder)
    yield (
        "preprocessor_config.json",
        _pixels(folder) | {"image_processor_type": "CLIPImageProcessor"},
    )
    for name, fields in (
        ("generation_config.json", GENERATION),
        ("tokenizer_config.json", TOKENIZER),
        ("special_tokens_map.json", SPECIAL),
    ):
        if (folder / name).is_file():
            yield name, _checked(name, json_file.read(folder / name), fields)
    if (folder / "added_tokens.json").is_file():
        yield "added_tokens.json", _added(folder)
    if (folder / "tokenizer.json").is_file():
        yield (
            "tokenizer.json",
            tokenizer_file.checked(json_file.read(folder / "tokenizer.json", TOKENIZER_BYTES)),
        )


def _added(folder: Path) -> dict[str, Any]:
    name = "added_tokens.json"
    tree = json_file.read(folder / name)
    if not ADDED.accepts(tree):
        raise ValueError(
            f"{name} must have at most {tokenizer_file.MAX_ADDED} tokens, got {len(tree)}"
        )
    return _checked(name, tree, dict.fromkeys(tree, _whole(0, MAX_SIZE)))


def _config(folder: Path) -> dict[str, Any]:
    tree = json_file.read(folder / "config.json")
    if tree.get("model_type") != MODEL_TYPE:
        json_file.refuse("model_type", repr(MODEL_TYPE), tree.get("model_type"))
    for name in QUANTIZED:
        if tree.get(name) is not None:
            raise ValueError(
                f"{name} in config.json is not supported, got {quoted(tree[name])}; use "
                f"weights that are not quantized, remove {name}, and set the parameter "
                "quantization to nf4 or int8 instead"
            )
    parts = {name: _part(tree, name) for name in ("text_config", "vision_config")}
    flat = {name: value for name, value in tree.items() if "." not in name}
    for part, fields in parts.items():
        flat |= {f"{part}.{name}": value for name, value in fields.items()}
    made: dict[str, Any] = {part: {} for part in parts}
    for name, value in _checked("config.json", flat, CONFIG).items():
        part, dot, field = name.partition(".")
        (made[part] if dot else made)[field or part] = value
    return made


def _part(tree: dict[str, Any], name: str) -> dict[str, Any]:
    part = tree.get(name, {})
    if not isinstance(part, dict):
        json_file.refuse(name, "an object", part)
    return dict(part)


def _pixels(folder: Path) -> dict[str, Any]:
    """Return the fields of the image processor. transformers 5 saves them in the processor's."""
    name, part = "processor_config.json", None
    if (folder / name).is_file():
        part = json_file.read(folder / name).get("image_processor")
    if not isinstance(part, dict):
        name = "preprocessor_config.json"
        part = json_file.read(folder / name)
    return _checked(name, part, PIXELS)


def _spm(folder: Path) -> list[str]:
    """Return the name of the sentencepiece file, if it is needed, in a list."""
    name = "sentencepiece.bpe.model"
    path = folder / name
    if (folder / "tokenizer.json").is_file():
        return []  # has the same vocabulary
    if not path.is_file():
        raise ValueError(f"it has neither tokenizer.json nor {name}")
    json_file.check_length(path, TOKENIZER_BYTES)
    return [name]


def _checked(file: str, tree: dict[str, Any], fields: dict[str, Values]) -> dict[str, Any]:
    """Return those of `fields` that a file has. Raises ValueError for an invalid one."""
    known = {name: value for name, value in tree.items() if name in fields}
    for name, value in known.items():
        if not fields[name].accepts(value):
            json_file.refuse(name, fields[name].valid, value, file)
    return known
