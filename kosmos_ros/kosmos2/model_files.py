# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make a copy of a model's files that has only what KOSMOS-2 needs.

transformers obeys whatever a model's files say. A field may name code to run, another model, a
kernel or a file to load, and a size that nothing in the weights confirms. The copy has only the
fields that are listed here, within the limits that are listed here, and links to the weights.
Knows JSON and the headers of safetensors; knows neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from kosmos_ros.kosmos2 import tokenizer_file
from kosmos_ros.sanitize import first_line, quoted

JSON_BYTES = 4 << 20
"""Most bytes of a JSON file; those of KOSMOS-2 have less than a tenth of that."""
TOKENIZER_BYTES = 16 << 20
"""Most bytes of a tokenizer's file; the tokenizer of KOSMOS-2 takes a third of that."""
HEADER_BYTES = 8 << 20
"""Most bytes of a header of safetensors. KOSMOS-2 has about 900 weights of 120 bytes each."""
MAX_CONTEXT = 16_384
"""Most positions of the text model, whose table is not in the files. KOSMOS-2 has 2048."""
MAX_LAYERS = 256
"""Most layers of the text model, and of the vision model. KOSMOS-2 has 24 of each."""
MAX_SIZE = 1 << 20
"""Most of any other size. The files confirm these sizes; KOSMOS-2's largest is 65037."""

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
MODEL_TYPE = "kosmos-2"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Format of a weight in safetensors: bytes of a number."""
QUANTIZED = ("quantization_config", "compression_config")
"""Fields with which transformers loads another library for weights that are stored quantized."""
ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")


@dataclass(frozen=True)
class Rule:
    """The valid values of a field."""

    valid: str  # for messages
    accepts: Callable[[Any], bool]


def _whole(low: int, high: int) -> Rule:
    # A bool is an int, too.
    return Rule(
        f"a whole number from {low} to {high}", lambda v: type(v) is int and low <= v <= high
    )


def _one_of(*values: Any) -> Rule:
    return Rule(
        "one of " + ", ".join(map(json.dumps, values)) if values[1:] else json.dumps(values[0]),
        lambda value: any(type(value) is type(v) and value == v for v in values),
    )


SIZE = _whole(1, MAX_SIZE)
FLAG = _one_of(True, False)
EPSILON = Rule("a number from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1)
TOKEN = Rule(
    f"null or a whole number from 0 to {MAX_SIZE}",
    lambda v: v is None or (type(v) is int and 0 <= v <= MAX_SIZE),
)
ANY = Rule("JSON", lambda _: True)  # the loader or transformers checks the value

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
    "no_repeat_ngram_size": _whole(0, MAX_CONTEXT),
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
    "added_tokens_decoder": ANY,
    "additional_special_tokens": ANY,
    "model_max_length": ANY,
    "padding_side": _one_of("left", "right"),
}  # fmt: skip

_TEXT = ("text_config.vocab_size", "text_config.embed_dim")
_VISION = "vision_config.hidden_size"
SHAPES = {
    "text_model.model.embed_tokens.weight": _TEXT,
    "text_model.lm_head.weight": _TEXT,
    "text_model.model.layers.0.ffn.fc1.weight": ("text_config.ffn_dim", _TEXT[1]),
    "image_to_text_projection.latent_query": ("latent_query_num", _TEXT[1]),
    "vision_model.model.embeddings.class_embedding": (_VISION,),
    "vision_model.model.embeddings.patch_embedding.weight": (
        _VISION, "vision_config.num_channels",
        "vision_config.patch_size", "vision_config.patch_size",
    ),
    "vision_model.model.encoder.layers.0.mlp.fc1.weight": (
        "vision_config.intermediate_size", _VISION,
    ),
}  # fmt: skip
"""Weight: the field of config.json for each of its dimensions."""
POSITIONS = "vision_model.model.embeddings.position_embedding.weight"  # one for each patch, and 1
LAYERS = {
    "text_config.layers": re.compile(r"text_model\.model\.layers\.(\d+)\."),
    "vision_config.num_hidden_layers": re.compile(
        r"vision_model\.model\.encoder\.layers\.(\d+)\."
    ),
}
HEADS = {
    "text_config.attention_heads": "text_config.embed_dim",
    "vision_config.num_attention_heads": _VISION,
}
"""Field: the field that it must divide."""


@dataclass(frozen=True)
class Weights:
    """What the headers of a model's safetensors files say."""

    files: dict[str, Path]  # name: file
    shapes: dict[str, tuple[int, ...]]  # of each weight with a format in FLOATS
    places: dict[str, str]  # weight: name of its file
    numbers: int  # of all weights in `shapes`

    def check(self, config: Any) -> None:
        """Raise ValueError if a Kosmos2Config describes other sizes than those of the weights.

        transformers would allocate what the config describes, and make up the missing weights.
        """
        for weight, fields in SHAPES.items():
            for field, size in zip(fields, self.shapes.get(weight, ()), strict=False):
                if _read(config, field) != size:
                    _refuse(field, f"{size} as in the weight {weight}", _read(config, field))
        for field, pattern in LAYERS.items():
            count = len({m[1] for name in self.shapes if (m := pattern.match(name))})
            if _read(config, field) != count:
                _refuse(field, f"{count} as in the weights", _read(config, field))
        for field, width in HEADS.items():
            heads, whole = _read(config, field), _read(config, width)
            if whole % heads:
                _refuse(field, f"a divisor of {width}, which is {whole}", heads)
        self._check_patches(config.vision_config.image_size, config.vision_config.patch_size)
        self._check_total(config)

    def _check_patches(self, image: int, patch: int) -> None:
        rows = self.shapes.get(POSITIONS, (0,))[0]
        if image < patch or (image // patch) ** 2 + 1 != rows:
            side = math.isqrt(max(rows - 1, 0)) * patch
            _refuse("vision_config.image_size", f"{side} as in the weight {POSITIONS}", image)

    def _check_total(self, config: Any) -> None:
        text, vision = config.text_config, config.vision_config
        layer = 4 * text.embed_dim**2 + 2 * text.embed_dim * text.ffn_dim
        block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
        least = text.vocab_size * text.embed_dim + text.layers * layer
        least += vision.num_hidden_layers * block
        if least > self.numbers:
            raise ValueError(
                f"config.json describes at least {least} numbers, "
                f"but the weights have {self.numbers}"
            )


@contextlib.contextmanager
def reduced(folder: Path) -> Iterator[tuple[Path, Weights]]:
    """Yield a temporary copy of a model's folder with valid fields only, and its weights.

    Raises ValueError for a file that is missing, damaged or too large, or has an invalid field.
    """
    trees = list(_trees(folder))
    weights = _weights(folder)
    with tempfile.TemporaryDirectory(prefix="kosmos_model_") as made:
        copy = Path(made)
        for name, tree in trees:
            (copy / name).write_text(json.dumps(tree), encoding="utf-8")
        for name in _spm(folder):
            (copy / name).symlink_to((folder / name).resolve())
        for name, path in weights.files.items():
            (copy / name).symlink_to(path.resolve())
        if WHOLE not in weights.files:
            index = {"metadata": {}, "weight_map": weights.places}
            (copy / INDEX).write_text(json.dumps(index), encoding="utf-8")
        yield copy, weights


def _read(config: Any, field: str) -> int:
    return int(attrgetter(field)(config))


def _trees(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the valid content of each JSON file of the copy."""
    yield "config.json", _config(folder)
    yield (
        "preprocessor_config.json",
        _pixels(folder) | {"image_processor_type": "CLIPImageProcessor"},
    )
    for name, rules in (
        ("generation_config.json", GENERATION),
        ("tokenizer_config.json", TOKENIZER),
        ("special_tokens_map.json", SPECIAL),
    ):
        if (folder / name).is_file():
            yield name, _checked(name, _json(folder / name), rules)
    if (folder / "added_tokens.json").is_file():
        added = _json(folder / "added_tokens.json")
        yield "added_tokens.json", _checked("added_tokens.json", added, dict.fromkeys(added, SIZE))
    if (folder / "tokenizer.json").is_file():
        yield (
            "tokenizer.json",
            tokenizer_file.checked(_json(folder / "tokenizer.json", TOKENIZER_BYTES)),
        )


def _config(folder: Path) -> dict[str, Any]:
    tree = _json(folder / "config.json")
    if tree.get("model_type") != MODEL_TYPE:
        _refuse("model_type", repr(MODEL_TYPE), tree.get("model_type"))
    for name in QUANTIZED:
        if tree.get(name) is not None:
            raise ValueError(
                f"{name} in config.json is not supported, got {quoted(tree[name])}; take the "
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
        _refuse(name, "an object", part)
    return dict(part)


def _pixels(folder: Path) -> dict[str, Any]:
    """Return the fields of the image processor. transformers 5 saves them with the processor's."""
    name, part = "processor_config.json", None
    if (folder / name).is_file():
        part = _json(folder / name).get("image_processor")
    if not isinstance(part, dict):
        name = "preprocessor_config.json"
        part = _json(folder / name)
    return _checked(name, part, PIXELS)


def _spm(folder: Path) -> list[str]:
    """Return the name of the sentencepiece file, if it is there and needed."""
    name = "sentencepiece.bpe.model"
    path = folder / name
    if (folder / "tokenizer.json").is_file():
        return []  # has the same vocabulary
    if not path.is_file():
        raise ValueError(f"it has neither tokenizer.json nor {name}")
    _check_length(path, TOKENIZER_BYTES)
    return [name]


def _checked(file: str, tree: dict[str, Any], rules: dict[str, Rule]) -> dict[str, Any]:
    """Return the fields that have a rule. Raises ValueError for an invalid one."""
    known = {name: value for name, value in tree.items() if name in rules}
    for name, value in known.items():
        if not rules[name].accepts(value):
            _refuse(name, rules[name].valid, value, file)
    return known


def _refuse(name: str, valid: str, value: Any, file: str = "config.json") -> NoReturn:
    raise ValueError(f"{quoted(name)[1:-1]} in {file} must be {valid}, got {quoted(value)}")


def _check_length(path: Path, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path.name} must have at most {most} bytes, got {size}")


def _json(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    if not path.is_file():  # also a pipe or a device, which may have no end
        raise ValueError(f"it has no {path.name}")
    _check_length(path, most)
    with path.open("rb") as file:
        return _object(path.name, file.read(most))


def _object(name: str, data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{name} must be JSON: {first_line(exc)}") from exc
    if not isinstance(tree, dict):
        raise ValueError(f"{name} must be an object of JSON, got {quoted(tree)}")
    return tree


def _weights(folder: Path) -> Weights:
    """Read the headers of all files of weights."""
    files = {name: folder / name for name in _names(folder)}
    shapes: dict[str, tuple[int, ...]] = {}
    places: dict[str, str] = {}
    for file, path in files.items():
        for weight, shape in _header(path):
            if weight in places:
                raise ValueError(f"weight {quoted(weight)} is in {places[weight]} and in {file}")
            places[weight] = file
            if shape is not None:
                shapes[weight] = shape
    return Weights(files, shapes, places, sum(map(math.prod, shapes.values())))


def _names(folder: Path) -> list[str]:
    """Return the names of the files of weights, all of which exist."""
    names: Iterable[Any] = [WHOLE]
    if not (folder / WHOLE).is_file() and (folder / INDEX).is_file():
        index = _json(folder / INDEX).get("weight_map")
        names = {str(name) for name in index.values()} if isinstance(index, dict) else ()
        for name in names:
            if not WEIGHTS.fullmatch(name):
                _refuse(
                    "weight_map", "names such as model-00001-of-00002.safetensors", name, INDEX
                )
        if not names:
            _refuse("weight_map", "an object with names of files", index, INDEX)
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"it has no {name}; weights in other formats are not read")
    return sorted(names)


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yield each weight of a safetensors file with its shape; None if it has no float format.

    huggingface.co/docs/safetensors specifies: 8 bytes with the length of the header, the header
    in JSON, the numbers.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(HEADER_BYTES, size - 8):
            raise ValueError(
                f"{path.name} must have a header of at most {min(HEADER_BYTES, size - 8)} bytes, "
                f"got {length}; the file is damaged or incomplete"
            )
        tree = _object(f"header of {path.name}", file.read(length))
    metadata = tree.pop("__metadata__", {})
    if not isinstance(metadata, dict) or metadata.get("format", "pt") != "pt":
        _refuse("format", '"pt" or absent', metadata, path.name)
    for weight, entry in tree.items():
        yield weight, _shape(path.name, weight, entry, size - 8 - length)


def _shape(file: str, weight: str, entry: Any, most: int) -> tuple[int, ...] | None:
    try:
        size = FLOATS.get(entry["dtype"])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        valid = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and end <= most
        if size is not None:
            valid = valid and math.prod(shape) * size == end - begin
    except (LookupError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"weight {quoted(weight)} in {file} must have a shape and a place that fit its "
            f"{most} bytes, got {quoted(entry)}; the file is damaged or incomplete"
        )
    return None if size is None else shape
