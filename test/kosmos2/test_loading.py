# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A model's files run no code, use no terminal or network and allocate only their own sizes."""

import base64
import json
import math
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

from kosmos_ros import shapes
from kosmos_ros.errors import ModelLoadError
from kosmos_ros.kosmos2 import hub, loading, model_files, tokenizer_file, weight_files
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.hub import MAX_PARTS
from kosmos_ros.kosmos2.weight_files import TIED
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

HANG = 120  # s; the command takes a few
RESIDENT = 1.5e9  # bytes; the command takes 0.7 GB

CPU = ("--device", "cpu")

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG, PIXELS, TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer.json"
PROMPT = "<grounding> An image of"
FULL = {
    "text_model.model.embed_tokens.weight": (65037, 2048),
    "image_to_text_projection.latent_query": (64, 2048),
    "vision_model.model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
    "vision_model.model.embeddings.position_embedding.weight": (257, 1024),
}
"""Some weights of KOSMOS-2."""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("libtorch_cpu.so: failed to map segment from shared object", "ImportError"),
        ("libtorch_cpu.so: cannot open shared object file", "ModelLoadError"),
    ],
)
@pytest.mark.fault(84)
def test_a_lack_of_memory_is_no_missing_package(tmp_path, text, kind):
    (tmp_path / "torch.py").write_text(f"raise ImportError({text!r})")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import kosmos_ros.kosmos2.loading"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.removeprefix("kosmos_ros.errors.").startswith(f"{kind}: {text}")
    assert ("pip install" in last) == (kind == "ModelLoadError")


@pytest.fixture
def copied(tmp_path):
    """A copy of the embedded model that a test may damage."""
    return shutil.copytree(shapes.MODEL_DIR, tmp_path / "model")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(render(sample_scene(np.random.default_rng(5), 160, 120))).save(path)
    return path


def edit(path, **values):
    """Set fields of a JSON file; a name may have a dot."""
    tree = json.loads(path.read_text()) if path.exists() else {}
    for name, value in values.items():
        *parents, last = name.split(".")
        inside = tree
        for parent in parents:
            inside = inside[parent]
        inside[last] = value
    path.write_text(json.dumps(tree))


def refused(folder):
    """Return the message with which a model is refused; it has one line."""
    with pytest.raises(ModelLoadError) as raised:
        Engine.load(str(folder), device="cpu")
    message = str(raised.value)
    assert message.isprintable()
    assert message.startswith(f"model {str(folder)!r}")
    return message


def answers(folder):
    """Load a model and return its caption of a grey image."""
    engine = Engine.load(str(folder), device="cpu")
    return engine.generate(engine.encode(np.full((48, 64, 3), 99, np.uint8)), PROMPT, 12)


@pytest.fixture(scope="module")
def caption():
    """The answer of the embedded model."""
    return answers(shapes.MODEL_DIR)


def hostile(folder, marker):
    """Name code of the folder wherever transformers looks for it."""
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    evil = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForImageTextToText": "evil.Model",
        "AutoImageProcessor": "evil.P",
        "AutoProcessor": "evil.P",
        "AutoTokenizer": ["evil.T", "evil.T"],
    }
    edit(folder / PIXELS, image_processor_type="EvilProcessor")  # so that there is no other class
    for name in (CONFIG, PIXELS, "tokenizer_config.json", "processor_config.json"):
        edit(folder / name, auto_map=evil, trust_remote_code=True)
    edit(folder / "generation_config.json", custom_generate="evil", auto_map=evil)
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")


MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
"""Runs a command and prints the peak of its memory in KiB. The peak of a process begins with the
memory of the process that started it, and that of a test run may be large."""


def run(folder, picture, **options):
    """Caption a picture in a process; return its exit code, output, errors and peak memory."""
    command = [sys.executable, "-m", "kosmos_ros.cli", "caption", picture, "--model", folder, *CPU]
    with subprocess.Popen(
        [sys.executable, "-c", MEASURED, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    ) as process:
        timer = threading.Timer(HANG, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        out, err = process.stdout.read(), process.stderr.read()
        timer.cancel()
    *lines, peak = err.splitlines(keepends=True)
    return process.returncode, out, "".join(lines), int(peak) * 1024


@pytest.mark.process
@pytest.mark.fault(38)
def test_the_command_runs_no_code_of_a_model_and_asks_nobody(copied, picture):
    """transformers would ask on the terminal whether to run the code."""
    marker = copied / "ran"
    hostile(copied, marker)
    terminal, stdin = pty.openpty()
    code, out, err, _ = run(copied, picture, stdin=stdin)
    os.close(terminal)
    os.close(stdin)
    assert code == 0, err
    assert "custom code" not in err
    (line,) = out.splitlines()
    assert json.loads(line)["phrases"]
    assert not marker.exists()


@pytest.mark.fault(38)
def test_code_beside_the_weights_never_runs(copied, caption, monkeypatch):
    marker = copied / "ran"
    hostile(copied, marker)

    def fail(*_, **__):
        raise AssertionError("the network was reached")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr("builtins.input", fail)
    assert answers(copied) == caption
    assert not marker.exists()
    assert "evil" not in sys.modules


IGNORED = [
    (CONFIG, {"text_config._attn_implementation": "somebody/attention"}),
    (CONFIG, {"attn_implementation": "kernels-community/attention"}),
    (CONFIG, {"_attn_implementation_internal": "kernels-community/attention"}),
    (CONFIG, {"vision_config._experts_implementation": "kernels-community/experts"}),
    (CONFIG, {"use_kernels": True, "kernel_config": {"RMSNorm": "somebody/kernels:RMSNorm"}}),
    (CONFIG, {"fusion_config": {"patch_embeddings": True}}),
    (CONFIG, {"transformers_weights": "../other.safetensors"}),
    (CONFIG, {"text_config.model_type": "llama", "vision_config.model_type": "evil"}),
    (CONFIG, {"dtype": "evil", "torch_dtype": "os.system", "text_config.dtype": "float8"}),
    (CONFIG, {"name_or_path": "somebody/model", "_name_or_path": "somebody/model"}),
    (CONFIG, {"distributed_config": {"tp_size": 2}, "base_model_tp_plan": {"*": "evil"}}),
    ("adapter_config.json", {"base_model_name_or_path": "somebody/model", "peft_type": "LORA"}),
    ("processor_config.json", {"processor_class": "EvilProcessor"}),
    ("processor_config.json", {"num_patch_index_tokens": 2000}),
    ("chat_template.json", {"chat_template": "{{ evil }}"}),
    (PIXELS, {"image_processor_type": "EvilProcessor", "processor_class": "Evil"}),
    ("tokenizer_config.json", {"tokenizer_file": "/etc/passwd", "vocab_file": "/etc/passwd"}),
    ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.json"]}),
    ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"], "chat_template": "{{ evil }}"}),
    ("tokenizer_config.json", {"processor_class": "Evil", "name_or_path": "somebody/model"}),
    (TOKENIZER, {"padding": {"strategy": {"Fixed": 5000}, "pad_id": 1, "pad_token": "<pad>"}}),
    (TOKENIZER, {"truncation": {"max_length": 1, "stride": 0, "strategy": "LongestFirst"}}),
]


@pytest.mark.fault(38)
@pytest.mark.parametrize(("name", "values"), IGNORED, ids=[str(v)[1:40] for _, v in IGNORED])
def test_fields_that_the_model_does_not_need_change_nothing(copied, caption, name, values):
    edit(copied / name, **values)
    assert answers(copied) == caption


@pytest.mark.fault(38)
@pytest.mark.parametrize("name", ["quantization_config", "compression_config"])
def test_stored_quantization_is_refused_with_the_parameter_to_set(copied, name):
    edit(copied / CONFIG, **{name: {"quant_method": "gptq", "bits": 4}})
    message = refused(copied)
    assert f"{name} in config.json is not supported, got {{'quant_method': 'gptq'" in message
    assert f"remove {name}, and set the parameter quantization to nf4 or int8 instead" in message


LIES = [
    ("text_config.max_position_embeddings", 16_385, "a whole number from 1 to 16384"),
    ("text_config.max_position_embeddings", -1, "a whole number from 1 to 16384"),
    ("text_config.layers", 257, "a whole number from 1 to 256"),
    ("text_config.layers", 4, "3 as in the weights"),
    ("text_config.layers", True, "a whole number from 1 to 256"),
    ("text_config.vocab_size", 10_000, "1492 as in the weight text_model.model.embed_tokens.wei"),
    ("text_config.embed_dim", 256, "128 as in the weight"),
    ("text_config.embed_dim", 128.0, "a whole number from 1 to 1048576"),
    ("text_config.ffn_dim", 1024, "512 as in the weight text_model.model.layers.0.ffn.fc1.wei"),
    ("text_config.attention_heads", 3, "a divisor of text_config.embed_dim, which is 128"),
    ("text_config.attention_heads", 0, "a whole number from 1 to 1048576"),
    ("text_config.pad_token_id", -(10**9), "a whole number from 0 to 16384"),
    ("text_config.eos_token_id", [2], "null or a whole number from 0 to 1048576"),
    ("text_config.layer_norm_eps", "1e-5", "a number from 0 to 1"),
    ("text_config.layer_norm_eps", float("nan"), "a number from 0 to 1"),
    ("text_config.activation_function", "xielu", 'one of "gelu", '),
    ("text_config.add_cross_attention", True, "false"),
    ("text_config.scale_embedding", 1, "one of true, false"),
    ("text_config", 5, "an object"),
    ("latent_query_num", 1000, "64 as in the weight image_to_text_projection.latent_query"),
    ("latent_query_num", "64", "a whole number from 1 to 1048576"),
    ("vision_config.hidden_size", 64, "128 as in the weight vision_model.model.embeddings.class"),
    ("vision_config.intermediate_size", 1024, "512 as in the weight"),
    ("vision_config.num_hidden_layers", 7, "6 as in the weights"),
    ("vision_config.num_attention_heads", 5, "a divisor of vision_config.hidden_size"),
    ("vision_config.num_channels", 4, "3"),
    ("vision_config.image_size", 240, "120 as in the weight vision_model.model.embeddings.pos"),
    ("vision_config.image_size", 1, "120 as in the weight"),
    ("vision_config.image_size", [120, 120], "a whole number from 1 to 1048576"),
    ("vision_config.patch_size", 1, "12 as in the weight"),
]


@pytest.mark.fault(75)
@pytest.mark.parametrize(("name", "value", "valid"), LIES)
def test_a_config_that_lies_is_refused_with_the_field_and_the_valid_value(
    copied, name, value, valid
):
    edit(copied / CONFIG, **{name: value})
    assert f"cannot be loaded: {name} in config.json must be {valid}" in refused(copied)
    assert f"got {value!r}" in refused(copied)


@pytest.mark.process
@pytest.mark.fault(75)
def test_the_command_allocates_no_more_than_the_files_hold(copied, picture):
    """transformers would make a table of 4 GB."""
    edit(copied / CONFIG, **{"text_config.max_position_embeddings": 2_000_000})
    code, out, err, resident = run(copied, picture, stdin=subprocess.DEVNULL)
    assert (code, out) == (1, "")
    assert err == (
        f"kosmos: --model {str(copied)!r} cannot be loaded: text_config.max_position_embeddings "
        "in config.json must be a whole number from 1 to 16384, got 2000000\n"
    )
    assert resident < RESIDENT


CASES = [  # text_config, generation_config.json, parameter: the size
    (None, None, -1, 0),
    (3, None, -1, 3),
    (3, 2, -1, 3),
    (0, 3, -1, 0),
    (None, 2, -1, 2),
    (None, 0, -1, 0),
    (3, 2, 0, 0),
    (0, None, 4, 4),
]


@pytest.mark.parametrize(("config", "generation", "parameter", "expected"), CASES)
@pytest.mark.fault(87)
def test_the_limit_of_repetition_is_that_of_the_models_files_unless_it_is_set(
    copied, config, generation, parameter, expected
):
    edit(copied / CONFIG, **{"text_config.no_repeat_ngram_size": config})
    edit(copied / "generation_config.json", no_repeat_ngram_size=generation)
    engine = Engine.load(str(copied), device="cpu", no_repeat_ngram_size=parameter)
    assert engine.info.no_repeat_ngram_size == expected
    grey = engine.encode(np.full((48, 64, 3), 99, np.uint8))
    same = Engine.load("shapes", device="cpu", no_repeat_ngram_size=expected)
    prompt = PROMPT + " a red circle" * 3 + " and a"
    assert engine.generate(grey, prompt, 12).ids == same.generate(grey, prompt, 12).ids


def test_the_default_model_repeats_nothing_although_its_files_may_not_say_so(copied, monkeypatch):
    """Files that transformers 5 has saved do not say so."""
    (copied / "generation_config.json").unlink()
    monkeypatch.setattr(hub, "find", lambda *_: hub.Files(copied, "1" * 40))
    for model, size in ((NodeSettings.model, 3), ("someone/kosmos-2", 0)):
        assert Engine.load(model, device="cpu").info.no_repeat_ngram_size == size


@pytest.mark.parametrize("size", [-1, 1.5, True, "3", 10**9])
@pytest.mark.parametrize("name", [CONFIG, "generation_config.json"])
def test_an_invalid_limit_of_repetition_is_refused(copied, name, size):
    field = "text_config.no_repeat_ngram_size" if name == CONFIG else "no_repeat_ngram_size"
    edit(copied / name, **{field: size})
    valid = "must be null or a whole number from 0 to 16384"
    assert f"{field} in {name} {valid}, got {size!r}" in refused(copied)


def test_config_of_kosmos_2_is_valid(tmp_path):
    """The files of this test have the shapes of its weights and no numbers."""
    Kosmos2Config(dtype="float32").save_pretrained(tmp_path)
    config = Kosmos2Config(**model_files._config(tmp_path))
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(config)
    sizes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert sizes.items() >= FULL.items()
    numbers = sum(weight.numel() for weight in model.parameters())
    weight_files.Weights({}, sizes, {}, numbers).check(config)
    with pytest.raises(ValueError, match="describes at least 16\\d+ numbers, but"):
        weight_files.Weights({}, sizes, {}, numbers // 2).check(config)


def test_defaults_of_a_config_are_those_of_transformers(copied, caption):
    """The embedded model differs from KOSMOS-2, so a field that is missing is refused by name."""
    for name in ("layer_norm_eps", "activation_function", "scale_embedding", "bos_token_id"):
        tree = json.loads((copied / CONFIG).read_text())
        del tree["text_config"][name]
        (copied / CONFIG).write_text(json.dumps(tree))
    assert answers(copied) == caption
    del tree["text_config"]["layers"]
    (copied / CONFIG).write_text(json.dumps(tree))
    assert "text_config.layers in config.json must be 3 as in the weights, got 24" in refused(
        copied
    )


def header(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def written(path, tree, numbers):
    head = json.dumps(tree).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + numbers)


def long_header(model):
    (model / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + b"{}")


def deep_header(model):
    head = b"[" * 10**6
    (model / WEIGHTS).write_bytes(len(head).to_bytes(8, "little") + head)


def empty_weights(model):
    (model / WEIGHTS).write_bytes(b"")


def large_shape(model):
    tree, numbers = header(model / WEIGHTS)
    tree["image_to_text_projection.latent_query"]["shape"] = [64, 2**50]
    written(model / WEIGHTS, tree, numbers)


def negative_shape(model):
    tree, numbers = header(model / WEIGHTS)
    tree["image_to_text_projection.latent_query"]["shape"] = [-64, -128]
    written(model / WEIGHTS, tree, numbers)


def far_away(model):
    tree, numbers = header(model / WEIGHTS)
    tree["image_to_text_projection.latent_query"]["data_offsets"] = [2**40, 2**40 + 32768]
    written(model / WEIGHTS, tree, numbers)


def no_latent_query(model):
    """transformers would allocate 8 GB for a weight that config.json alone describes."""
    tree, numbers = header(model / WEIGHTS)
    tree["another"] = tree.pop("image_to_text_projection.latent_query")
    written(model / WEIGHTS, tree, numbers)
    edit(model / CONFIG, latent_query_num=2**20)


def flat_latent_query(model):
    tree, numbers = header(model / WEIGHTS)
    entry = tree["image_to_text_projection.latent_query"]
    entry["shape"] = [math.prod(entry["shape"])]
    written(model / WEIGHTS, tree, numbers)


def flat_positions(model):
    tree, numbers = header(model / WEIGHTS)
    entry = tree["vision_model.model.embeddings.position_embedding.weight"]
    entry["shape"] = [math.prod(entry["shape"])]
    written(model / WEIGHTS, tree, numbers)


def many_dimensions(model):
    tree, numbers = header(model / WEIGHTS)
    tree["many"] = {"dtype": "F32", "shape": [9] * 10**5 + [0], "data_offsets": [0, 0]}
    written(model / WEIGHTS, tree, numbers)


def other_framework(model):
    save_file(load_file(model / WEIGHTS), model / WEIGHTS, {"format": "tf"})


def only_names_of_layers(model):
    """The files name each layer, but hold only a part of it, which is large."""
    tree, numbers = header(model / WEIGHTS)
    for number in range(3, 20):
        tree[f"text_model.model.layers.{number}.x"] = {
            "dtype": "F32", "shape": [0], "data_offsets": [0, 0],
        }  # fmt: skip
    written(model / WEIGHTS, tree, numbers)
    edit(model / CONFIG, **{"text_config.layers": 20})


def weights_elsewhere(model):
    (model / WEIGHTS).rename(model.parent / "model-00001-of-00001.safetensors")
    edit(model / INDEX, weight_map={"a": "../model-00001-of-00001.safetensors"})


def weights_in_pickle(model):
    torch.save(load_file(model / WEIGHTS), model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()
    edit(model / INDEX, weight_map={"a": "pytorch_model.bin"})


def pipe(model):
    (model / CONFIG).unlink()
    os.mkfifo(model / CONFIG)


def endless(model):
    (model / "tokenizer_config.json").unlink()
    (model / PIXELS).unlink()
    (model / PIXELS).symlink_to("/dev/zero")


def huge_config(model):
    (model / CONFIG).write_bytes(b" " * 2**23)


def deep_config(model):
    (model / CONFIG).write_bytes(b'{"a":' * 2**17)


def deep_tokenizer(model):
    (model / TOKENIZER).write_bytes(b'{"a":' * 2**17)


def list_config(model):
    (model / CONFIG).write_text("[]")


def huge_tokenizer(model):
    os.truncate(model / TOKENIZER, 2**25)


def many_tokens(model):
    edit(model / "tokenizer_config.json", additional_special_tokens=["a"] * 5000)


def many_added_tokens(model):
    edit(model / "added_tokens.json", **{str(n): n for n in range(5000)})


def long_token(model):
    edit(model / "tokenizer_config.json", added_tokens_decoder={"1491": {"content": "a" * 1000}})


def no_class(model):
    edit(model / "tokenizer_config.json", tokenizer_class="evil.Tokenizer")


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            long_header,
            "must have a header of at most 2 bytes, got 1099511627776",
        ),
        (deep_header, "header of model.safetensors must be JSON: "),
        (empty_weights, "the file is damaged or incomplete"),
        (large_shape, "'image_to_text_projection.latent_query' in model.safetensors must have"),
        (negative_shape, "'image_to_text_projection.latent_query' in model.safetensors must have"),
        (far_away, "'image_to_text_projection.latent_query' in model.safetensors must have"),
        (no_latent_query, "it has no weight image_to_text_projection.latent_query of a floating"),
        (flat_latent_query, "image_to_text_projection.latent_query must have 2 dimensions, got 1"),
        (flat_positions, "position_embedding.weight must have 2 dimensions, got 1"),
        (many_dimensions, "weight 'many' in model.safetensors must have a shape and offsets"),
        (other_framework, "format in model.safetensors must be \"pt\" or absent, got {'format'"),
        (
            only_names_of_layers,
            "config.json describes at least 5302784 numbers, but the weights have",
        ),
        (weights_elsewhere, "got '../model-00001-of-00001.safetensors'"),
        (weights_in_pickle, "got 'pytorch_model.bin'"),
        (pipe, "it has no config.json"),
        (endless, "it has no preprocessor_config.json"),
        (huge_config, "config.json must have at most 2097152 bytes, got 8388608"),
        (deep_config, "config.json must be JSON: "),
        (deep_tokenizer, "tokenizer.json must be JSON: "),
        (list_config, "config.json must be a JSON object, got []"),
        (huge_tokenizer, "tokenizer.json must have at most 16777216 bytes, got 33554432"),
        (
            many_tokens,
            "additional_special_tokens in tokenizer_config.json must be null or at",
        ),
        (many_added_tokens, "added_tokens.json must have at most 4096 tokens, got 5000"),
        (long_token, "must have tokens of at most 256 characters, got 1000"),
        (no_class, "tokenizer_class in tokenizer_config.json must be one of "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_that_lie_about_their_content_are_refused(copied, damage, reason):
    damage(copied)
    assert reason in refused(copied)


@pytest.mark.parametrize("name", ["text_model.model.embed_tokens", "text_model.lm_head"])
def test_either_of_two_tied_weights_is_enough(copied, caption, name):
    weights = load_file(copied / WEIGHTS)
    (numbers,) = (weights.pop(tied) for tied in TIED if tied in weights)
    save_file(weights | {f"{name}.weight": numbers}, copied / WEIGHTS, {"format": "pt"})
    assert answers(copied) == caption


def test_the_padding_token_has_the_weights_of_the_file(copied):
    """transformers 5.20 sets them to 0, and the token's logit with them."""
    model = Engine.load(str(copied), device="cpu").model
    stored = load_file(copied / WEIGHTS)["text_model.model.embed_tokens.weight"]
    token = model.config.text_config.pad_token_id
    assert stored[token].any()
    assert torch.equal(model.text_model.lm_head.weight[token], stored[token])


def test_weights_in_several_files_are_loaded(copied, caption):
    weights = load_file(copied / WEIGHTS)
    names = sorted(weights)
    parts = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, copied / file, {"format": "pt"})
    (copied / WEIGHTS).unlink()
    weight_map = {name: file for file, part in parts.items() for name in part}
    edit(copied / INDEX, metadata={"total_size": 1}, weight_map=weight_map)
    assert answers(copied) == caption
    save_file(weights, copied / "model-00002-of-00002.safetensors", {"format": "pt"})
    reason = refused(copied)
    assert "must be in one file, got model-00001-of-00002.safetensors and model-00002" in reason


def test_an_index_may_name_files_up_to_the_limit(copied):
    files = [f"model-{n:05}-of-00101.safetensors" for n in range(MAX_PARTS + 1)]
    for file in files:
        save_file({}, copied / file)
    (copied / WEIGHTS).unlink()
    edit(copied / INDEX, weight_map=dict(enumerate(files[:-1])))
    assert f"at most {MAX_PARTS} files" not in refused(copied)
    edit(copied / INDEX, weight_map=dict(enumerate(files)))
    valid = f"an object with at most {MAX_PARTS} files"
    assert f"weight_map in {INDEX} must be {valid}, got 101" in refused(copied)


@pytest.mark.process
def test_names_of_weights_never_reach_the_log(copied, picture):
    """transformers would list unknown weights as they are."""
    weights = load_file(copied / WEIGHTS)
    forged = {f"{n}\n[FATAL] forged \x1b[31m": torch.zeros(1) for n in range(100)}
    save_file(weights | forged, copied / WEIGHTS, {"format": "pt"})
    code, out, err, _ = run(copied, picture)
    assert code == 0, err
    assert out
    assert "forged" not in err


def test_an_image_processor_saved_by_transformers_5_is_read(copied, caption):
    steps = json.loads((copied / PIXELS).read_text())
    (copied / PIXELS).unlink()
    edit(
        copied / "processor_config.json", image_processor=steps, processor_class="Kosmos2Processor"
    )
    assert answers(copied) == caption


def test_tokenizer_and_image_processor_equal_those_of_hugging_face():
    loaded = Kosmos2Processor.from_pretrained(shapes.MODEL_DIR)
    with model_files.reduced(shapes.MODEL_DIR) as (copy, _):
        found = Kosmos2Processor.from_pretrained(copy)
    tags = "".join(f"<patch_index_{n:04d}>" for n in range(1024))
    for text in (f"<image></image> {PROMPT}", tags, "Où est le 猫 😀?", "a  b\t</s><unk>"):
        ids = loaded.tokenizer(text)["input_ids"]
        assert found.tokenizer(text)["input_ids"] == ids
        assert found.tokenizer.decode(ids) == loaded.tokenizer.decode(ids)
    assert len(found.tokenizer) == len(loaded.tokenizer)
    assert found.tokenizer.special_tokens_map == loaded.tokenizer.special_tokens_map
    assert type(found.image_processor) is type(loaded.image_processor)
    steps, expected = (dict(one.image_processor.to_dict()) for one in (found, loaded))
    for name in ("processor_class", "_processor_class"):  # only for saving
        steps.pop(name, None), expected.pop(name, None)
    assert steps == expected


def table(*units, texts=b"a\0"):
    """A table of sentencepiece with these units of its trie; the others are unused."""
    trie = [*units, *([0] * (256 - len(units)))]
    return {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(
            struct.pack("<I", 4 * len(trie)) + struct.pack(f"<{len(trie)}I", *trie) + texts
        ).decode(),
    }


def valid_table(text=b"a\0"):
    """A table that replaces A by a text."""
    units = [0] * 256
    units[0] = 1 << 10  # the children of the start are at 1 ^ byte
    units[1 ^ ord("A")] = ord("A") | 1 << 8 | (128 ^ 1 ^ ord("A")) << 10  # its leaf is at 128
    units[128] = 1 << 31  # the text at 0
    return table(*units, texts=text)


def double(count):
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [step] * count}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


TABLE = "precompiled_charsmap in tokenizer.json must be a table of sentencepiece"
BOMBS = [
    ("normalizer", double(8), "must replace a text by a shorter one"),
    ("normalizer", replace({"String": ""}, ""), "must replace a text by a shorter one"),
    ("normalizer", replace({"Regex": "(a*)*b"}, ""), "must replace a text by a shorter one"),
    ("normalizer", sequence(*[{"type": "NFC"}] * 9), "must have at most 8 steps"),
    ("normalizer", sequence(sequence()), "must have steps of the types NFC"),
    ("normalizer", {"type": "Prepend", "prepend": "a" * 10**6}, "got 'Prepend'"),
    ("normalizer", 7, "got 7"),
    ("normalizer", valid_table(b"a" * 100 + b"\0"), TABLE),
    ("normalizer", sequence(valid_table(), valid_table()), "at most one step of type Precompiled"),
    ("normalizer", table(1 << 20), TABLE),
    ("normalizer", table(1 << 8 | 1 << 10, 1 << 30), TABLE),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AQ=="}, TABLE),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": None}, TABLE),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "a"}}, "got 'Split'"),
    ("decoder", {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}, "shorter one"),
    ("model.type", "BPE", "model in tokenizer.json must be of type Unigram, got 'BPE'"),
    ("model.unk_id", None, "model.unk_id in tokenizer.json must be a whole number, got None"),
    ("model.vocab", [["a" * 1000, 0.0]], "must have tokens of at most 256 characters, got 1000"),
    ("model.vocab", {"a": 1}, "model.vocab in tokenizer.json must be a list of tokens"),
    ("added_tokens", [{"id": 0, "content": "a" * 1000}], "at most 256 characters, got 1000"),
    ("model.vocab", [["a", 0]] * (2**18 + 1), "must have at most 262144 tokens, got 262145"),
    ("added_tokens", [{"content": "a"}] * 4097, "must have at most 4096 tokens, got 4097"),
    ("added_tokens", [7], "added_tokens in tokenizer.json must be a list of tokens, got 7"),
]


@pytest.mark.fault(75)
@pytest.mark.parametrize(("part", "value", "reason"), BOMBS)
def test_a_tokenizer_that_could_make_much_of_little_is_refused(copied, part, value, reason):
    edit(copied / TOKENIZER, **{part: value})
    assert reason in refused(copied)


def test_steps_of_the_tokenizer_of_kosmos_2_are_accepted(copied):
    space = replace({"Regex": " {2,}"}, " ")
    edit(copied / TOKENIZER, normalizer=sequence(valid_table(), space))
    engine = Engine.load(str(copied), device="cpu")
    assert engine.token_ids("<phrase>A  A") == engine.token_ids("<phrase>a a")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    steps = {
        "normalizer": valid_table(),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        "decoder": metaspace,
    }
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0]]}
    tree = tokenizer_file.checked({"version": "1.0", "added_tokens": [], **steps, "model": model})
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tree))
    assert tokenizer.encode(" A  a").ids == [1, 1]
    assert tokenizer.decode([1, 1]) == "a a"


@pytest.mark.fault(75)
def test_a_panic_of_a_library_is_a_model_that_cannot_be_loaded(monkeypatch):
    """It is no Exception, and would end a node."""
    tree = json.loads((shapes.MODEL_DIR / TOKENIZER).read_text())
    tree["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AQ=="}

    def panic(*_, **__):
        tokenizers.Tokenizer.from_str(json.dumps(tree))

    monkeypatch.setattr(Kosmos2Processor, "from_pretrained", panic)
    assert "Cannot parse precompiled_charsmap" in refused(shapes.MODEL_DIR)


@pytest.mark.parametrize(
    ("quantization", "phases"),
    [("none", ["reading weights"]), ("int8", ["reading weights", "quantizing"])],
)
def test_loading_reports_its_phases(quantization, phases):
    reports = []
    loading.load(
        "shapes",
        device="cpu",
        quantization=quantization,
        report=lambda *report: reports.append(report),
    )
    assert reports == [(phase, 0, 0) for phase in phases]


def test_an_interrupt_while_a_model_is_loaded_is_not_caught(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Kosmos2Processor, "from_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Engine.load("shapes", device="cpu")


def test_a_tokenizer_of_sentencepiece_is_checked_after_its_conversion(monkeypatch):
    """Its file has no JSON that could be checked before."""
    found = Kosmos2Processor.from_pretrained(shapes.MODEL_DIR)
    tree = json.loads(found.tokenizer.backend_tokenizer.to_str()) | {"normalizer": double(8)}
    backend = SimpleNamespace(to_str=lambda: json.dumps(tree))
    monkeypatch.setattr(type(found.tokenizer), "backend_tokenizer", backend)
    with pytest.raises(ModelLoadError, match="must replace a text by a shorter one"):
        Engine.load("shapes", device="cpu")
