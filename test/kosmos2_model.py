# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Models of KOSMOS-2's classes with its tokenizer and the small files of its hub page.

The weights are few and random. KOSMOS-2's own vocabulary is read from `sentencepiece.bpe.model`
and `dict.txt` of github.com/microsoft/unilm, folder kosmos-2. They must be in the folder of
$KOSMOS_TOKENIZER_FILES, or in shared/kosmos2 beside the repository. A small vocabulary of the same
structure needs no files. Its ids differ.
"""

import json
import os
import struct
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import Unigram
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

ROOT = Path(__file__).resolve().parents[1]
FILES = Path(os.environ.get("KOSMOS_TOKENIZER_FILES", ROOT.parent / "shared" / "kosmos2"))
MISSING = f"KOSMOS-2's vocabulary is not in {FILES}; set KOSMOS_TOKENIZER_FILES to its folder"

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
TAGS = (
    *("</doc>", "<image>", "</image>", "</chunk>", "</line>", "<phrase>", "</phrase>"),
    *("<object>", "</object>", "</delimiter_of_multi_objects/>", "<grounding>"),
    *(f"<patch_index_{index:04d}>" for index in range(1024)),
)
"""Tokens that KOSMOS-2's processor adds behind the vocabulary, in its order."""
WORDS = (
    "An image of a the snowman warming himself by fire Describe this in detail It is Question "
    "Answer What special about Where next to puppies Two sit field grass dog cat red hat and on"
)
NORMAL = 1
"""Type of the pieces of a sentencepiece model that are ordinary text."""


def save(folder, kind):
    """Write a model with the vocabulary `kind`, "small" or "kosmos2", and return its folder.

    "small metaspace" has the pre-tokenizer of later converters, which keeps trailing spaces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces, normalizer = _published() if kind == "kosmos2" else _small()
    tokenizer = _tokenizer(pieces, normalizer)
    if kind == "small metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme="always"
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in HUB_FILES.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    torch.manual_seed(0)
    model = Kosmos2ForConditionalGeneration(_config(tokenizer.get_vocab_size()))
    for weight in model.parameters():  # different outputs for different inputs
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return folder


def _tokenizer(pieces, normalizer):
    """Return a tokenizer of (piece, score), as transformers converts that of KOSMOS-2."""
    vocabulary = [*((name, 0.0) for name in SPECIAL), *pieces, ("<mask>", 0.0)]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizer, spaces])
    words = {"replacement": "▁", "prepend_scheme": "always"}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**words)]
    )
    tokenizer.decoder = decoders.Metaspace(**words)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))],
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    )
    tokenizer.add_special_tokens(
        [AddedToken("<mask>", lstrip=True, special=True, normalized=False)]
    )
    tokenizer.add_tokens([AddedToken(name, lstrip=True, normalized=False) for name in TAGS])
    return tokenizer


def _small():
    """Return ASCII characters and a few words, with scores by which the longer piece wins."""
    characters = [chr(code) for code in range(0x21, 0x7F)]
    words = dict.fromkeys(f"▁{word}" for word in WORDS.split())
    pieces = ["▁", *characters, *words]
    return [(piece, -10 - 1 / len(piece)) for piece in pieces], normalizers.NFKC()


def _published():
    """Return the pieces and the normalizer of KOSMOS-2's sentencepiece model."""
    pieces, charsmap = [], b""
    # github.com/google/sentencepiece, sentencepiece_model.proto: ModelProto has pieces (1) and
    # a normalizer_spec (3); a piece has text (1), score (2) and type (3).
    for field, value in _fields((FILES / "sentencepiece.bpe.model").read_bytes()):
        if field == 1:
            piece = dict(_fields(value))
            if piece.get(3, NORMAL) == NORMAL:
                pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0]))
        elif field == 3:
            charsmap = dict(_fields(value))[2]
    lines = (FILES / "dict.txt").read_text("utf-8").splitlines()
    assert [piece for piece, _ in pieces] == [line.rpartition(" ")[0] for line in lines]
    return pieces, normalizers.Precompiled(charsmap)


def _fields(data):
    """Yield (number, value) of the fields of a message of protocol buffers."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
        else:
            length, place = _varint(data, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = data[place : place + length], place + length
        yield key >> 3, value


def _varint(data, place):
    """Return the number at `place`, seven bits in each byte, and the place behind it."""
    end = place
    while data[end] & 0x80:
        end += 1
    bytes_ = data[place : end + 1]
    return sum((byte & 0x7F) << 7 * number for number, byte in enumerate(bytes_)), end + 1


def _config(vocabulary):
    width = {"attention_dropout": 0.0, "dropout": 0.0}
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "embed_dim": 32,
        "layers": 2,
        "ffn_dim": 64,
        "attention_heads": 4,
        "activation_dropout": 0.0,
        "layerdrop": 0.0,
        **width,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 14,
        "attention_dropout": 0.0,
    }
    return Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=64)


_NAMES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}
_MASK = {
    "content": "<mask>",
    "lstrip": True,
    "normalized": True,
    "rstrip": False,
    "single_word": False,
}
HUB_FILES = {
    "special_tokens_map.json": {**_NAMES, "mask_token": _MASK},
    "tokenizer_config.json": {
        **_NAMES,
        "clean_up_tokenization_spaces": True,
        "mask_token": {**_MASK, "__type": "AddedToken"},
        "model_max_length": 10**30,
        "processor_class": "Kosmos2Processor",
        "tokenizer_class": "XLMRobertaTokenizer",
    },
    "preprocessor_config.json": {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "Kosmos2Processor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 224},
        "use_square_size": True,
    },
}
"""Contents of the small files of microsoft/kosmos-2-patch14-224, by name."""
