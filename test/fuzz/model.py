# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: a model directory with damaged or hostile files."""

import copy
import functools
import gc
import json
import os
import pickle
import resource
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np

from fuzz.source import Source
from kosmos_ros.errors import ConfigError, GenerationError, ModelLoadError
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.shapes import MODEL_DIR

RUNS = 1000  # an input takes a fraction of a second

WEIGHTS = "model.safetensors"
SETTINGS = (
    "config.json", "preprocessor_config.json", "generation_config.json", "tokenizer_config.json",
    "special_tokens_map.json", "tokenizer.json", WEIGHTS,
)  # fmt: skip
EXTRA = (
    "adapter_config.json", "processor_config.json", "added_tokens.json", "chat_template.json",
    "model.safetensors.index.json", "video_preprocessor_config.json",
)  # fmt: skip
# Code from the directory writes this file if it runs.
RAN = Path(tempfile.gettempdir()) / f"kosmos_fuzz_ran_{os.getpid()}"
EVIL = f"open({str(RAN)!r}, 'w')\n"
KEYS = (
    "auto_map", "model_type", "architectures", "quantization_config", "attn_implementation",
    "_attn_implementation", "torch_dtype", "dtype", "text_config", "vision_config", "size",
    "image_processor_type", "processor_class", "tokenizer_class", "trust_remote_code",
    "tie_word_embeddings", "custom_pipelines", "crop_size", "resample", "base_model_tp_plan",
    "bos_token", "eos_token", "unk_token", "pad_token", "image_mean", "do_resize", "rope_scaling",
    "max_position_embeddings", "layers", "embed_dim", "ffn_dim", "vocab_size", "attention_heads",
    "latent_query_num", "image_size", "patch_size", "num_channels", "num_hidden_layers",
    "pad_token_id", "add_cross_attention", "activation_function", "hidden_act", "normalizer",
    "pre_tokenizer", "decoder", "post_processor", "padding", "truncation", "unk_id",
    "added_tokens",
    "num_patch_index_tokens", "image_processor", "weight_map", "__metadata__", "data_offsets",
    "base_model_name_or_path", "transformers_weights", "use_kernels", "kernel_config",
    "_attn_implementation_internal", "_experts_implementation", "custom_generate", "chat_template",
    "tokenizer_file", "vocab_file", "init_inputs", "extra_special_tokens", "added_tokens_decoder",
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 31, 2**31, 2**64, 0.5, 1e308, "", "1", "evil", "evil.Class",
    "cuda", "float16", "sdpa", "flash_attention_2", "kernels-community/none", "kosmos-2", "<s>",
    [], [0], [0.5], [0, 0, 0], ["evil.Class"], {}, {"": 0}, {"height": 120}, "/etc/passwd",
    {"shortest_edge": 120}, {"AutoConfig": "evil.Class", "AutoModel": "evil.Class"},
    {"AutoImageProcessor": "evil.Class", "AutoTokenizer": ["evil.Class", "evil.Class"]},
    {"quant_method": "bitsandbytes", "load_in_8bit": True}, {"quant_method": "gptq", "bits": 4},
    20_000_000, 10**9, -(10**9), 1.5, "../model.safetensors", {"a": "../model.safetensors"},
    {"type": "Precompiled", "precompiled_charsmap": "AQ=="}, {"type": "Sequence"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "aa" * 1000},
    {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""},
    {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 1, "pad_type_id": 0,
     "pad_token": "<pad>", "pad_to_multiple_of": None},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
     "pair": [], "special_tokens": {}},
    {"format": "tf"}, {"image_processor_type": "Evil"}, {"0": {"content": "<s>"}},
)  # fmt: skip


MOST = 2**30  # bytes that a model may add to the peak memory of the process


class _Pickle:
    def __reduce__(self):
        return open, (str(RAN), "w")


def _seed(*edits):
    return bytes([len(edits) - 1]) + b"".join(edits)


# Each edit: file, kind of edit, then the bytes that `_edited` reads
SEEDS = (
    *(_seed(bytes([file, kind, at, 0, 0, value])) for file in range(len(SETTINGS))
      for kind in range(4) for at, value in ((1, 1), (3, 15), (5, 7))),
    *(_seed(bytes([file, 2, 0, key, value])) for file in range(5) for key, value in
      ((0, 34), (0, 35), (3, 36), (3, 37), (4, 21), (10, 31))),
    *(_seed(bytes([0, 1, 0, key, 0, 0, value])) for key in range(4) for value in (38, 39, 40)),
    *(_seed(bytes([5, 2, 0, key, KEYS.index(name), value])) for name in
      ("normalizer", "decoder", "padding") for key in (0, 7) for value in (44, 45, 46, 47, 48)),
    *(_seed(bytes([255, extra])) for extra in range(len(EXTRA) + 1)),
)  # fmt: skip
WORDS = (b"\xff", b"\0\xff", b"evil.Class", b'{"', b"[[[[", b"NaN", b"Infinity", b"1e999")


def run(data):
    source = Source(data)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        directory = Path(folder)
        for path in MODEL_DIR.glob("*.json*"):
            (directory / path.name).symlink_to(path)
        (directory / WEIGHTS).symlink_to(MODEL_DIR / WEIGHTS)
        (directory / "evil.py").write_text(EVIL)
        for _ in range(1 + source.byte() % 3):
            _damage(source, directory)
        return load(directory)


def load(directory):
    """Load and run the model in the directory; return whether that worked."""
    runs = False
    before = _peak()
    try:
        engine = Engine.load(str(directory), device="cpu", threads=1)
    except (ModelLoadError, ConfigError) as exc:
        assert str(exc).isprintable()
    else:
        runs = _caption(engine)
        engine.unload()
    gc.collect()  # models that were refused half-way
    assert _peak() - before < MOST
    ran = RAN.exists()
    RAN.unlink(missing_ok=True)
    assert not ran
    return runs


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _caption(engine):
    picture = engine.encode(np.zeros((48, 64, 3), np.uint8))
    try:
        generation = engine.generate(picture, "<grounding> An image of", 3)
    except GenerationError as exc:
        assert "not finite" in str(exc)
        return False
    assert 1 <= generation.tokens <= 3
    return True


def _damage(source, directory):
    number = source.byte()
    if number == 255:
        _add(source, directory)
        return
    path = directory / SETTINGS[number % len(SETTINGS)]
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    changed = _edited(source, path.name, content)
    if changed is not None:
        path.write_bytes(changed)


def _add(source, directory):
    """Add a file that other models have."""
    number = source.byte() % (len(EXTRA) + 1)
    if number < len(EXTRA):
        (directory / EXTRA[number]).write_text(json.dumps(source.choice(VALUES)))
    else:  # transformers would read this file if there is no safetensors file
        (directory / WEIGHTS).unlink(missing_ok=True)
        (directory / "pytorch_model.bin").write_bytes(pickle.dumps(_Pickle()))


def _edited(source, name, content):
    """Return the changed bytes of a file; None deletes it."""
    kind = source.byte() % 8
    if kind < 4:
        if name != WEIGHTS:
            return _dumped(_tree(name, content), source, kind)
        length = int.from_bytes(content[:8], "little")
        tree = _tree(name, content[8 : 8 + length])
        head = _dumped(tree, source, kind)
        return len(head).to_bytes(8, "little") + head + content[8 + length :]
    at = source.integer(0, len(content))
    if kind == 4:
        return content[:at]
    if kind == 5:
        return content[:at] + source.rest() + content[at:]
    if kind == 6:
        # Near the start, where the headers of safetensors and JSON are.
        at %= min(len(content), 4096) or 1
        new = source.bytes(1 + source.byte() % 8)
        return content[:at] + new + content[at + len(new) :]
    return None


def _tree(name, content):
    try:
        return copy.deepcopy(_parsed(content))
    except ValueError:  # an earlier edit damaged it
        return {}


@functools.lru_cache(maxsize=16)
def _parsed(content):
    return json.loads(content)


def _dumped(tree, source, kind):
    """Return JSON of `tree` with a value replaced, added, removed or moved at a random place."""
    node, parent, key = tree, None, None
    while isinstance(node, dict | list) and node:
        step = int.from_bytes(source.bytes(2), "big")
        if parent is not None and step % 7 == 0:
            break
        keys = list(node) if isinstance(node, dict) else range(len(node))
        parent, key = node, keys[step % len(keys)]
        node = parent[key]
    if parent is None:
        tree = source.choice(VALUES)
    elif kind == 0:
        parent[key] = source.choice((source.number, source.integer, source.text))()
    elif kind == 1:
        parent[key] = source.choice(VALUES)
    elif kind == 2:
        inside = parent if isinstance(parent, dict) else tree
        if isinstance(inside, dict):
            inside[source.choice(KEYS)] = copy.deepcopy(source.choice(VALUES))
    elif isinstance(parent, dict):
        parent[source.text() or "x"] = parent.pop(key)
    else:
        del parent[key]
    return json.dumps(tree).encode()


def _memory():
    """Return a folder in memory; None if there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
