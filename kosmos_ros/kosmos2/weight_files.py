# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compare a model's configuration with the headers of its weights.

transformers allocates memory for the sizes in the configuration. Knows the headers of safetensors
and the names of KOSMOS-2's weights; reads no numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from kosmos_ros.kosmos2 import json_file
from kosmos_ros.kosmos2.hub import INDEX, MAX_PARTS, WEIGHTS
from kosmos_ros.sanitize import quoted

HEADER_BYTES = 2 << 20
"""Largest header of safetensors in bytes. KOSMOS-2 has about 900 weights of 120 bytes each."""
WHOLE = "model.safetensors"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Number format in safetensors: bytes of a number."""
MAX_RANK = 8
"""Largest number of dimensions of a weight. KOSMOS-2's have 1 to 4. To multiply many sizes takes
quadratic time."""

EMBEDDING, HEAD = "text_model.model.embed_tokens.weight", "text_model.lm_head.weight"
_TEXT = ("text_config.vocab_size", "text_config.embed_dim")
_VISION = "vision_config.hidden_size"
SHAPES = {
    EMBEDDING: _TEXT,
    HEAD: _TEXT,
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
TIED = {EMBEDDING: HEAD, HEAD: EMBEDDING}
"""Weights that share their numbers, so that a file may have only one of them."""
POSITIONS = "vision_model.model.embeddings.position_embedding.weight"  # (patches + 1, width)
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
"""Field with a number of heads: the field with the width that this number must divide."""


@dataclass(frozen=True)
class Weights:
    """The contents of the headers of a model's safetensors files."""

    files: dict[str, Path]  # name: file
    shapes: dict[str, tuple[int, ...]]  # weight with a format in FLOATS: its shape
    locations: dict[str, str]  # weight: name of its file
    numbers: int  # total of the numbers in the weights of `shapes`

    def check(self, config: Any) -> None:
        """Raise ValueError if the sizes in a Kosmos2Config differ from those of the weights.

        transformers would allocate memory for the sizes in the config, and choose missing weights
        at random.
        """
        for weight, fields in SHAPES.items():
            for field, size in zip(fields, self._shape(weight, len(fields)), strict=True):
                _check_equal(config, field, size, f"the weight {weight}")
        for field, pattern in LAYERS.items():
            count = len({m[1] for name in self.shapes if (m := pattern.match(name))})
            _check_equal(config, field, count, "the weights")
        for field, width in HEADS.items():
            heads, whole = _field(config, field), _field(config, width)
            if whole % heads:
                json_file.refuse(field, f"a divisor of {width}, which is {whole}", heads)
        self._check_patches(config.vision_config.image_size, config.vision_config.patch_size)
        self._check_total(config)

    def _shape(self, weight: str, rank: int) -> tuple[int, ...]:
        """Return the shape of a weight. Raises ValueError unless it has `rank` dimensions."""
        shape = self.shapes.get(weight, self.shapes.get(TIED.get(weight, "")))
        if shape is None:
            raise ValueError(f"it has no weight {weight} of a floating-point format")
        if len(shape) != rank:
            raise ValueError(f"the weight {weight} must have {rank} dimensions, got {len(shape)}")
        return shape

    def _check_patches(self, image: int, patch: int) -> None:
        rows, _ = self._shape(POSITIONS, 2)
        if image < patch or (image // patch) ** 2 + 1 != rows:
            side = math.isqrt(max(rows - 1, 0)) * patch
            json_file.refuse(
                "vision_config.image_size", f"{side} as in the weight {POSITIONS}", image
            )

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


def _check_equal(config: Any, field: str, size: int, source: str) -> None:
    got = _field(config, field)
    if got != size:
        json_file.refuse(field, f"{size} as in {source}", got)


def _field(config: Any, field: str) -> int:
    return int(attrgetter(field)(config))


def read(folder: Path) -> Weights:
    """Read the headers of all files of weights. Raises ValueError if a file is not valid."""
    files = {name: folder / name for name in _names(folder)}
    shapes: dict[str, tuple[int, ...]] = {}
    locations: dict[str, str] = {}
    for file, path in files.items():
        for weight, shape in _header(path):
            if weight in locations:
                other = locations[weight]
                name = quoted(weight)
                raise ValueError(f"weight {name} must be in one file, got {other} and {file}")
            locations[weight] = file
            if shape is not None:
                shapes[weight] = shape
    return Weights(files, shapes, locations, sum(map(math.prod, shapes.values())))


def _names(folder: Path) -> list[str]:
    """Return the names of the files of weights. Raises ValueError if one is missing."""
    whole = (folder / WHOLE).is_file() or not (folder / INDEX).is_file()
    names = [WHOLE] if whole else _indexed(folder)
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"it has no {name}; weights in other formats are not read")
    return names


def _indexed(folder: Path) -> list[str]:
    """Return the names of the files in the index."""
    index = json_file.read(folder / INDEX).get("weight_map")
    if not index or not isinstance(index, dict):
        json_file.refuse("weight_map", "an object with names of files", index, INDEX)
    names = {str(name) for name in index.values()}
    for name in names:
        if not WEIGHTS.fullmatch(name):
            valid = "names such as model-00001-of-00002.safetensors"
            json_file.refuse("weight_map", valid, name, INDEX)
    if len(names) > MAX_PARTS:
        valid = f"an object with at most {MAX_PARTS} files"
        json_file.refuse("weight_map", valid, len(names), INDEX)
    return sorted(names)


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yield each weight of a safetensors file with its shape, or None if it has no float format.

    The file contains the length of the header in 8 bytes, the header in JSON, and the numbers:
    huggingface.co/docs/safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(HEADER_BYTES, size - 8):
            raise ValueError(
                f"{path.name} must have a header of at most {min(HEADER_BYTES, size - 8)} bytes, "
                f"got {length}; the file is damaged or incomplete"
            )
        tree = json_file.parsed(f"header of {path.name}", file.read(length))
    metadata = tree.pop("__metadata__", {})
    if not isinstance(metadata, dict) or metadata.get("format", "pt") != "pt":
        json_file.refuse("format", '"pt" or absent', metadata, path.name)
    for weight, entry in tree.items():
        yield weight, _shape(path.name, weight, entry, size - 8 - length)


def _shape(file: str, weight: str, entry: Any, most: int) -> tuple[int, ...] | None:
    try:
        size = FLOATS.get(entry["dtype"])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        valid = len(shape) <= MAX_RANK and end <= most
        valid = valid and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        if size is not None:
            valid = valid and math.prod(shape) * size == end - begin
    except (LookupError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"weight {quoted(weight)} in {file} must have a shape and offsets that fit the "
            f"{most} bytes of data, got {quoted(entry)}; the file is damaged or incomplete"
        )
    return None if size is None else shape
