# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of `shapes` and its tokenizer files. Knows words, and no scenes.

A piece includes its leading space (" red"), so text is the concatenation of its pieces and
decoding returns every character. Each word of the vocabulary is one piece. Other text becomes
single characters and, outside printable ASCII, UTF-8 bytes, so nothing becomes `<unk>`.
"""

import json
import string
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import Unigram

from kosmos_ros.shapes.scenes import COLOURS, KINDS, plural
from training.language import NUMBERS

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3, as in KOSMOS-2. `Kosmos2Processor` uses the next 64 ids for the image tokens."""

TAGS = (
    "</doc>", "<image>", "</image>", "</chunk>", "</line>", "<phrase>", "</phrase>", "<object>",
    "</object>", "</delimiter_of_multi_objects/>", "<grounding>",
)  # fmt: skip
"""`Kosmos2Processor.tag_tokens`, in its order."""

LOCATIONS = 1024  # tokens <patch_index_0000> .. <patch_index_1023>, a grid of 32 x 32

WORDS = (
    *COLOURS, *KINDS, *NUMBERS, *map(plural, KINDS),
    "a", "an", "the", "An", "A", "The", "It", "it", "this", "This", "that", "is", "are", "there",
    "Is", "image", "picture", "of", "Describe", "in", "detail", "Question", "Answer", "What",
    "How", "many", "shape", "shapes", "colour", "color", "object", "objects", "where", "Where",
    "and", "or", "with", "on", "at", "to", "next", "shows", "small", "large", "big", "top",
    "bottom", "left", "right", "middle", "centre", "upper", "lower", "above", "below", "near",
    "between", "under", "over", "behind", "front", "yes", "no", "not", "none", "which", "Which",
    "does", "do", "much", "nothing", "left-most", "biggest", "smallest", "see", "you", "can",
)  # fmt: skip
"""Words that are one piece. Those that no answer uses are for future questions."""


def vocabulary() -> list[str]:
    """Return all pieces by id: specials, printable ASCII, words, bytes, tags, locations."""
    words = [f" {word}" for word in dict.fromkeys(WORDS)]
    characters = [character for character in string.printable if character.isprintable()]
    return [*SPECIAL, *characters, *words, *_byte_pieces(), *TAGS, *location_pieces()]


def location_pieces() -> list[str]:
    """Return the location tokens in the order of their grid cells."""
    return [f"<patch_index_{index:04d}>" for index in range(LOCATIONS)]


def build() -> Tokenizer:
    """Return the tokenizer with all its tokens; ids are indices into `vocabulary()`."""
    pieces = vocabulary()[: -len(TAGS) - LOCATIONS]
    # Fewer pieces win. The piece of a byte loses even against its own spelling typed by a user.
    scores = [-1000.0 if _is_byte(piece) else -10.0 - 1.0 / len(piece) for piece in pieces]
    model = Unigram(list(zip(pieces, scores, strict=True)), unk_id=3, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in SPECIAL])
    tokenizer.add_tokens(
        [AddedToken(piece, lstrip=True, normalized=False) for piece in (*TAGS, *location_pieces())]
    )
    return tokenizer


def save(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    build().save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    config = {
        **names,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1024,
        "padding_side": "left",
        "processor_class": "Kosmos2Processor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write(folder / "tokenizer_config.json", config)
    _write(folder / "special_tokens_map.json", names)


def _write(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _byte_pieces() -> list[str]:
    return [f"<0x{value:02X}>" for value in range(256)]


def _is_byte(piece: str) -> bool:
    return piece.startswith("<0x")
