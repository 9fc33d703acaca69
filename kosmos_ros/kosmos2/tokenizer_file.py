# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check the steps and the tokens of a tokenizer.json.

A tokenizer's steps could turn a short question into gigabytes of text, or run a regular expression
for ever. Only the steps that KOSMOS-2's tokenizer needs are accepted, and the length of each token
is limited. Knows only that file.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from kosmos_ros.sanitize import quoted

MAX_VOCABULARY = 1 << 18
"""Largest number of tokens in the vocabulary. KOSMOS-2 has 64,000 and XLM-RoBERTa 250,000."""
MAX_ADDED = 4096
"""Largest number of tokens beside the vocabulary. The time to add them grows with the square of
their number. KOSMOS-2 has 1040."""
TOKEN_LENGTH = 256
"""Largest number of characters of a token.

Tokens of sentencepiece have up to 16, tags of KOSMOS-2 up to 30.
"""
EXPANSION = 64
"""Largest number of bytes by which a normalizer may replace a character.

Unicode's NFKC needs up to 33.
"""
STEPS = 8
"""Largest number of steps of a normalizer, a pre-tokenizer or a decoder. KOSMOS-2 has 1 or 2."""
BLOCK = 256
"""Number of units in a block of a trie.

Their indices differ in the last byte only. A trie consists of whole blocks.
"""
INNER = {bytes([byte]) for byte in range(0x80, 0xC0)}
"""Bytes of UTF-8 that do not start a character."""
SPACES = {"Regex": " {2,}"}
"""The only accepted regular expression: sentencepiece's own, for repeated spaces."""

TYPES = {
    "normalizer": ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Precompiled", "Replace", "Strip"),
    "pre_tokenizer": ("Metaspace", "Whitespace", "WhitespaceSplit"),
    "decoder": ("ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"),
}
"""Part of the tokenizer: the types of its steps."""
LISTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "decoder": "decoders",
}
"""Part: the field with the steps of a Sequence."""


def checked(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a tokenizer.json that the engine uses. Raises ValueError.

    Leaves out truncation, padding and the post-processor. The engine does not need them, and they
    could repeat a text.
    """
    model = tree.get("model")
    if not isinstance(model, dict) or model.get("type") != "Unigram":
        got = model.get("type") if isinstance(model, dict) else model
        raise ValueError(f"model in tokenizer.json must be of type Unigram, got {quoted(got)}")
    unknown = model.get("unk_id")
    if type(unknown) is not int:  # text with other characters would raise an error
        raise ValueError(
            f"model.unk_id in tokenizer.json must be a whole number, got {quoted(unknown)}"
        )
    added = tree.get("added_tokens") or []
    _check_tokens("model.vocab", model.get("vocab"), 0, MAX_VOCABULARY)
    _check_tokens("added_tokens", added, "content", MAX_ADDED)
    parts = {name: tree.get(name) for name in TYPES}
    for name, part in parts.items():
        _check_part(name, part)
    return {
        "version": tree.get("version"),
        "added_tokens": added,
        **parts,
        "model": model,
        **dict.fromkeys(("truncation", "padding", "post_processor")),
    }


def _check_tokens(name: str, tokens: Any, key: int | str, most: int) -> None:
    """Check the number of tokens and the length of each text, which is `token[key]`."""
    tokens = tokens if isinstance(tokens, list) else [tokens]
    if len(tokens) > most:
        raise ValueError(
            f"{name} in tokenizer.json must have at most {most} tokens, got {len(tokens)}"
        )
    for token in tokens:
        try:
            length = len(token[key])
        except (LookupError, TypeError):
            raise ValueError(
                f"{name} in tokenizer.json must be a list of tokens, got {quoted(token)}"
            ) from None
        if length > TOKEN_LENGTH:
            raise ValueError(
                f"{name} in tokenizer.json must have tokens of at most {TOKEN_LENGTH} "
                f"characters, got {length}: {quoted(token[key])}"
            )


def _check_part(name: str, part: Any) -> None:
    """Check a normalizer, a pre-tokenizer or a decoder."""
    steps = _steps(name, part)
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else step
        if kind not in TYPES[name]:
            raise ValueError(
                f"{name} in tokenizer.json must have steps of the types {', '.join(TYPES[name])}, "
                f"got {quoted(kind)}"
            )
        if kind == "Replace":
            _check_replace(name, step)
        elif kind == "Precompiled":
            _check_table(step.get("precompiled_charsmap"))
    if sum(step["type"] == "Precompiled" for step in steps) > 1:
        raise ValueError(
            f"{name} in tokenizer.json must have at most one step of type Precompiled"
        )


def _steps(name: str, part: Any) -> list[Any]:
    if not isinstance(part, dict):
        steps = [] if part is None else [part]
    elif part.get("type") == "Sequence":
        steps = part.get(LISTS[name], [])
    else:
        steps = [part]
    if not isinstance(steps, list) or len(steps) > STEPS:
        raise ValueError(
            f"{name} in tokenizer.json must have at most {STEPS} steps, got {quoted(steps)}"
        )
    return steps


def _check_replace(name: str, step: dict[str, Any]) -> None:
    """Refuse a step that makes a text longer or runs a regular expression."""
    pattern, content = step.get("pattern"), step.get("content")
    if isinstance(pattern, dict) and isinstance(content, str):
        text = pattern.get("String")
        if pattern == SPACES and len(content) <= 1:
            return
        if isinstance(text, str) and 0 < len(text) >= len(content):
            return
    raise ValueError(
        f"{name} in tokenizer.json must replace a text by a shorter one, "
        f"got {quoted(pattern)} and {quoted(content)}"
    )


def _check_table(text: Any) -> None:
    """Refuse a table of sentencepiece that is damaged or makes a text much longer.

    The table contains the length of a trie in 4 bytes, the trie, and the texts that replace
    others. A zero ends each text.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        data = b""
    length = int.from_bytes(data[:4], "little")
    trie, texts = data[4 : 4 + length], data[4 + length :]
    longest = max(map(len, texts.split(b"\0")))
    if not trie or len(trie) < length or longest > EXPANSION or not _inside(trie, texts):
        raise ValueError(
            "precompiled_charsmap in tokenizer.json must be a table of sentencepiece that "
            f"replaces a character by at most {EXPANSION} bytes, got {quoted(text)}"
        )


def _inside(trie: bytes, texts: bytes) -> bool:
    """Return whether all indices in a trie of darts-clone are within the trie and the texts.

    The byte b leads from unit i to unit i ^ offset ^ b. The tokenizers library does not check
    these indices and would panic. github.com/s-yata/darts-clone, darts.h, DoubleArrayUnit.
    """
    if len(trie) % (4 * BLOCK):
        return False
    units = [unit for (unit,) in struct.iter_unpack("<I", trie)]
    starts = {index for index in range(len(texts) + 1) if texts[index : index + 1] not in INNER}
    for index, unit in enumerate(units):
        if unit >> 31:  # a leaf
            continue
        base = index ^ ((unit >> 10) << ((unit & 1 << 9) >> 6))
        if base >= len(units):
            return False
        if unit >> 8 & 1 and units[base] & ~(1 << 31) not in starts:
            return False
    return True
