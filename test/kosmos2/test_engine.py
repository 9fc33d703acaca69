# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The engine with the embedded model, held against Hugging Face's own processor and generate."""

import contextlib
import ctypes
import json
import re
import shutil
import weakref

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

from kosmos_ros import shapes
from kosmos_ros.errors import (
    CancelledError,
    ConfigError,
    DeviceLostError,
    GenerationError,
    ModelLoadError,
    OutOfMemoryError,
    PromptError,
)
from kosmos_ros.kosmos2 import compat, loading, prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.query import Query
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PROMPTS = [
    prompts.caption("brief_caption").text,
    prompts.caption("brief_caption", grounded=False).text,
    prompts.caption("detailed_caption").text,
    prompts.phrase_grounding("a red circle").text,
    prompts.region_description((44, 863)).text,
    prompts.question("What is it?", [(44, 863)]).text,
    prompts.question("Où est le 猫 😀?", grounded=False).text,
]

LIBC = ctypes.CDLL(None)
LIBC.malloc.argtypes, LIBC.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
LIBC.free.argtypes = [ctypes.c_void_p]
PIECE = 2**16  # bytes, few enough for glibc's heap
KEPT = 2**28  # bytes, far more than a model takes here


@pytest.fixture(scope="module")
def engine():
    return Engine.load("shapes", device="cpu")


@pytest.fixture(scope="module")
def reference():
    model = Kosmos2ForConditionalGeneration.from_pretrained(shapes.MODEL_DIR).eval()
    # Without this, transformers 4 takes it for causal; see vision.py.
    model.image_to_text_projection.x_attn.is_causal = False
    return Kosmos2Processor.from_pretrained(shapes.MODEL_DIR), model


@pytest.fixture(scope="module")
def picture():
    return render(sample_scene(np.random.default_rng(5), 480, 270))


@pytest.fixture
def copied(tmp_path):
    """A copy of the embedded model that a test may damage."""
    return shutil.copytree(shapes.MODEL_DIR, tmp_path / "model")


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_answers_are_those_of_hugging_face(engine, reference, picture, prompt):
    processor, model = reference
    inputs = processor(text=prompt, images=Image.fromarray(picture), return_tensors="pt")
    assert [engine.token_ids(prompt)] == inputs["input_ids"].tolist()
    inputs["pixel_values"] = engine.pixels(picture)
    ids = model.generate(
        pixel_values=inputs["pixel_values"],
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        image_embeds_position_mask=inputs["image_embeds_position_mask"],
        max_new_tokens=40,
        do_sample=False,
    )
    expected = processor.batch_decode(ids, skip_special_tokens=True)[0].split("</image>")[-1]
    generation = engine.generate(engine.encode(picture), prompt, 40)
    assert (prompt + generation.text).strip() == expected.strip()
    assert generation.tokens == ids.shape[1] - inputs["input_ids"].shape[1]


def test_scores_are_the_tokens_probabilities(engine, reference, picture):
    """By one teacher-forced pass, not by the steps that generated the tokens."""
    processor, model = reference
    prompt = PROMPTS[0]
    generation = engine.generate(engine.encode(picture), prompt, 64)
    assert not generation.truncated
    text = prompt + generation.text
    inputs = processor(text=text, images=Image.fromarray(picture), return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], torch.tensor([[2]])], dim=1)
    mask = torch.cat([inputs["image_embeds_position_mask"], torch.tensor([[0]])], dim=1)
    with torch.inference_mode():
        logits = model(
            pixel_values=engine.pixels(picture), input_ids=ids, image_embeds_position_mask=mask
        ).logits
    chosen = logits[0, :-1].softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    start = len(engine.token_ids(prompt))
    assert generation.score == pytest.approx(float(chosen[start - 1 :].mean()), abs=1e-4)
    names = processor.tokenizer.convert_ids_to_tokens(ids[0, start:].tolist())
    expected = [
        float(probability)
        for name, probability in zip(names, chosen[start - 1 :], strict=True)
        if name.startswith("<patch_index_")
    ]
    assert len(expected) >= 2
    assert generation.location_scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.fault(35)
def test_the_first_token_of_a_picture_reads_the_last_patch_too(engine):
    """Under transformers 4.57 it would not; pictures would be known by parts."""
    attention = engine._vision._attention
    tokens, width = engine._vision._queries.shape
    one = torch.randn(1, 3 * tokens, width, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:, -1] += 1
    with torch.inference_mode():
        first, second = (
            attention(one[:, :tokens], encoder_hidden_states=seen)[0] for seen in (one, other)
        )
    assert ((first - second).abs().amax(dim=-1) > 0).all()


@pytest.mark.fault(39)
def test_all_of_a_wide_frame_is_seen(engine):
    """A centre crop would lose the edges, and shift every box."""
    size = engine.info.image_size
    frame = np.zeros((270, 480, 3), np.uint8)
    frame[:, :24] = 255
    frame[:, -24:] = 255
    dark, light = engine.pixels(frame)[0, 0, size // 2, [size // 2, 0]].tolist()
    row = engine.pixels(frame)[0, 0, size // 2]
    band = round(24 / 480 * size)
    assert row[: band - 1].tolist() == pytest.approx([light] * (band - 1), abs=0.05)
    assert row[-band + 1 :].tolist() == pytest.approx([light] * (band - 1), abs=0.05)
    assert float(row[band + 2 : -band - 2].max()) == pytest.approx(dark, abs=0.05)
    assert light > dark + 1


@pytest.mark.parametrize("shape", [(270, 480), (480, 270), (31, 33), (60, 900), (900, 60)])
def test_pixels_are_those_of_the_image_processor(engine, reference, picture, shape):
    frame = np.asarray(Image.fromarray(picture).resize(shape[::-1]))
    expected = reference[0].image_processor(Image.fromarray(frame), return_tensors="pt")
    one_level = 1 / 255 / min(reference[0].image_processor.image_std)
    found = engine.pixels(frame)
    assert found.shape == expected["pixel_values"].shape
    # Both round between the two passes of a resize, and they begin with different ones.
    off = (found - expected["pixel_values"]).abs() / one_level
    assert float(off.max()) < 3.5
    assert float(off.mean()) < 0.3


@pytest.mark.parametrize("step", ["do_rescale", "do_normalize"])
def test_steps_that_the_image_processor_leaves_out_are_left_out(copied, picture, step):
    edit(copied / "preprocessor_config.json", **{step: False})
    frame = np.full((90, 160, 3), 77, np.uint8)
    expected = Kosmos2Processor.from_pretrained(copied).image_processor(
        Image.fromarray(frame), return_tensors="pt"
    )["pixel_values"]
    found = Engine.load(str(copied), device="cpu").pixels(frame)
    assert float((found - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (8000, 1)])
@pytest.mark.fault(19)
def test_frames_of_one_row_or_column_are_captioned(engine, shape):
    frame = np.full((*shape, 3), 128, np.uint8)
    assert engine.generate(engine.encode(frame), PROMPTS[0], 40).tokens > 0


def test_the_caller_may_stop_between_tokens(engine, picture):
    asked = []

    def stopped():
        asked.append(1)
        return len(asked) >= 3

    with pytest.raises(CancelledError):
        engine.generate(engine.encode(picture), PROMPTS[0], 64, stopped)
    assert len(asked) <= 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("CUDA error: an illegal memory access was encountered\nFor debugging", DeviceLostError),
        ("CUDA error: device-side assert triggered", DeviceLostError),
        ("CUDA error: out of memory", OutOfMemoryError),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", OutOfMemoryError),
        ("mat1 and mat2 shapes cannot be multiplied", GenerationError),
    ],
)
@pytest.mark.fault(30)
def test_what_the_device_says_is_translated(engine, picture, monkeypatch, text, error):

    def fail(*_, **__):
        raise RuntimeError(text)

    seen = engine.encode(picture)
    monkeypatch.setattr(engine._decoder, "step", fail)
    monkeypatch.setattr(engine, "_vision", fail)
    for call in (lambda: engine.encode(picture), lambda: engine.generate(seen, PROMPTS[0])):
        with pytest.raises(error) as raised:
            call()
        assert type(raised.value) is error
        assert str(raised.value).endswith(text.partition("\n")[0])


@pytest.mark.fault(32)
def test_a_lost_device_is_named_although_nothing_can_be_allocated(picture, monkeypatch):
    engine = Engine.load("shapes", device="cpu")

    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    seen = engine.encode(picture)
    for name in ("step", "_grow", "clear"):
        monkeypatch.setattr(engine._decoder, name, fail)
    for call in (lambda: engine.generate(seen, PROMPTS[0]), lambda: engine.warm_up(4)):
        with pytest.raises(DeviceLostError):
            call()


def near(one, other):
    """Whether two generations are the same up to rounding."""
    return (
        (one.text, one.tokens, one.truncated) == (other.text, other.tokens, other.truncated)
        and one.score == pytest.approx(other.score, abs=1e-4)
        and one.location_scores == pytest.approx(other.location_scores, abs=1e-4)
    )


def test_a_ragged_batch_answers_as_each_query_alone(engine, picture):
    other = render(sample_scene(np.random.default_rng(6), 320, 240))
    seen = engine.encode_batch([picture, other])
    for tokens, image in zip(seen, (picture, other), strict=True):
        assert torch.allclose(tokens, engine.encode(image), atol=1e-5)
    queries = [
        Query(tokens, prompt, limit)
        for prompt in PROMPTS
        for tokens, limit in zip(seen, (40, 7), strict=True)
    ]
    together = engine.generate_batch(queries)
    assert len({answer.text for answer in together}) > len(PROMPTS)
    for query, answer in zip(queries, together, strict=True):
        alone = engine.generate(query.image, query.prompt, query.max_new_tokens)
        assert near(answer, alone), (query.prompt, answer, alone)


@pytest.mark.fault(43)
def test_what_is_wrong_with_one_query_is_not_the_others_trouble(engine, picture):
    image = engine.encode(picture)
    broken = torch.full_like(image, float("nan"))
    answers = engine.generate_batch(
        [
            Query(image, PROMPTS[0], 40),
            Query(image, "long " * 3000, 40),
            Query(image, PROMPTS[2], 40, stopped=lambda: True),
            Query(broken, PROMPTS[0], 40),
            Query(image, PROMPTS[3], 40),
        ]
    )
    assert [type(answer) for answer in answers[1:4]] == [
        PromptError,
        CancelledError,
        GenerationError,
    ]
    for answer, prompt in ((answers[0], PROMPTS[0]), (answers[4], PROMPTS[3])):
        assert near(answer, engine.generate(image, prompt, 40))


def test_progress_grows_token_by_token_to_the_answer(engine, picture):
    image = engine.encode(picture)
    steps = []
    query = Query(image, PROMPTS[0], 40, progress=steps.append)
    answer, _ = engine.generate_batch([query, Query(image, PROMPTS[2], 40)])
    assert [step.tokens for step in steps] == list(range(1, answer.tokens + 1))
    assert all(answer.text.startswith(step.text) for step in steps)
    assert near(steps[-1], answer)


def test_nothing_is_written_behind_the_tag_that_ends_an_answer(engine, picture):
    image, caption = engine.encode(picture), PROMPTS[0]
    whole = engine.generate(image, caption, 64)
    assert whole.text.count("</object>") > 1
    (first,) = engine.generate_batch([Query(image, caption, 64, stop="</object>")])
    assert first.text == whole.text[: whole.text.index("</object>") + len("</object>")]
    assert not first.truncated
    assert first.ids == whole.ids[: first.tokens]


def test_words_that_end_an_answer_are_cut_off(engine, picture):
    """As " Question:", with which a model may go on when it has answered."""
    image, caption = engine.encode(picture), prompts.caption("brief_caption", grounded=False).text
    whole = engine.generate(image, caption, 64)
    kind = whole.text.split()[2]
    kind = kind.strip(".,")
    (cut,) = engine.generate_batch([Query(image, caption, 64, stop=f" {kind}")])
    assert (
        cut.text
        == whole.text[: whole.text.index(f" {kind}")]
        == " " + " ".join(whole.text.split()[:2])
    )
    assert (cut.truncated, len(cut.ids)) == (False, cut.tokens)


def test_a_warm_engine_answers_as_a_cold_one(engine, picture):
    cold = engine.generate(engine.encode(picture), PROMPTS[0], 64)
    engine.warm_up(8)
    assert not engine._rows
    assert near(engine.generate(engine.encode(picture), PROMPTS[0], 64), cold)


@pytest.mark.parametrize(
    ("threads", "environment", "used"), [(0, None, 1), (0, "3", 2), (2, None, 2), (3, "1", 3)]
)
def test_threads_are_as_many_as_were_asked_for(monkeypatch, threads, environment, used):
    before = torch.get_num_threads()
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    else:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    Engine.load("shapes", device="cpu", threads=threads)
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == used


@pytest.mark.fault(64)
def test_an_engine_that_is_unloaded_lets_go_of_its_weights(picture):
    engine = Engine.load("shapes", device="cpu")
    weights = weakref.ref(engine.model)
    assert engine.generate(engine.encode(picture), PROMPTS[0], 3).tokens == 3
    engine.unload()
    assert weights() is None
    assert engine.memory() == 0  # of a device of its own


@pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="the C library is not glibc")
@pytest.mark.fault(64)
def test_an_engine_that_is_unloaded_gives_back_what_the_c_library_keeps():
    """Free memory between pieces that are in use, which glibc itself gives back at an end only."""
    engine = Engine.load("shapes", device="cpu")
    pieces = [LIBC.malloc(PIECE) for _ in range(KEPT // PIECE)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE)
    used, pieces = pieces[::64], [piece for n, piece in enumerate(pieces) if n % 64]
    for piece in pieces:
        LIBC.free(piece)
    resident = psutil.Process().memory_info
    before = resident().rss
    engine.unload()
    given_back = before - resident().rss
    for piece in used:
        LIBC.free(piece)
    assert given_back > KEPT / 2


@pytest.mark.fault(43)
def test_a_cut_off_answer_says_so(engine, picture):
    generation = engine.generate(engine.encode(picture), PROMPTS[0], 3)
    assert (generation.tokens, generation.truncated) == (3, True)


def test_a_prompt_beyond_the_context_is_refused(engine, picture):
    with pytest.raises(PromptError, match="fewer than the model's context of 1024"):
        engine.generate(engine.encode(picture), "long " * 3000, 10)


def test_an_answer_ends_where_the_context_does(engine, picture):
    prompt = "<grounding>" * (1024 - 66 - 5)
    room = 1024 - len(engine.token_ids(prompt))
    assert 0 < room < 10
    generation = engine.generate(engine.encode(picture), prompt, 1000)
    assert generation.tokens <= room


def test_info_says_what_runs_where(engine):
    info = engine.info
    assert (info.model, info.device, info.dtype, info.quantization) == (
        "shapes",
        "cpu",
        "float32",
        "none",
    )
    assert info.parameters == sum(
        tensor.numel() for tensor in load_file(shapes.MODEL_DIR / "model.safetensors").values()
    )


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_weights_answer(copied, picture, quantization):
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
        if not compat.NF4_ON_CPU:
            pytest.skip("transformers is older than 4.53")
    engine = Engine.load(str(copied), device="cpu", quantization=quantization)
    generation = engine.generate(engine.encode(picture), PROMPTS[1], 8)
    assert re.match(r" an? \w+ \w+", generation.text), generation.text
    assert engine.info.quantization == quantization


def test_4_bits_that_transformers_is_too_old_for_are_refused_with_what_helps(monkeypatch):
    monkeypatch.setattr(compat, "NF4_ON_CPU", False)
    with pytest.raises(ConfigError, match="'nf4' on a CPU needs transformers 4.53 or newer"):
        Engine.load("shapes", device="cpu", quantization="nf4")
    assert Engine.load("shapes", device="cpu", quantization="int8").info.quantization == "int8"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda:99"}, "cuda:99.*does not exist"),
        ({"device": "gpu"}, "must be auto, cpu, cuda or cuda:n, got 'gpu'"),
        ({"device": "cpu:"}, "got 'cpu:'"),
        ({"device": "cpu:3"}, "got 'cpu:3'"),
        ({"device": "cuda:"}, "got 'cuda:'"),
        (
            {"dtype": "int4", "device": "cpu"},
            "dtype must be auto or one of float32, bfloat16, float16, got 'int4'",
        ),
        ({"quantization": "q4"}, "quantization must be one of none, int8, nf4, got 'q4'"),
        (
            {"revision": "v9"},
            "revision must be empty for model 'shapes', which is the embedded one, got 'v9'",
        ),
    ],
)
def test_impossible_options_are_refused_by_name(options, reason):
    with pytest.raises(ConfigError, match=reason):
        Engine.load("shapes", **options)


def pickled(model):
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def truncated(model):
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])


def one_weight_short(model):
    weights = load_file(model / "model.safetensors")
    weights.pop("image_to_text_projection.latent_query")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def another_kind(model):
    edit(model / "config.json", model_type="llava")


def another_size(model):
    edit(model / "preprocessor_config.json", size={"height": 200, "width": 200})


def another_resampling(model):
    edit(model / "preprocessor_config.json", resample=1)


def too_large(model):
    config = json.loads((model / "config.json").read_text())
    edit(model / "config.json", text_config=config["text_config"] | {"layers": 10**9})


def grey_only(model):
    edit(model / "preprocessor_config.json", image_mean=[0.5])


def without_spread(model):
    edit(model / "preprocessor_config.json", image_std=[0.25, 0, 0.25])


def without_scale(model):
    edit(model / "preprocessor_config.json", rescale_factor=None)


def without_end(model):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(model / name, eos_token=None)


def unknown_is_last(model):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(model / name, unk_token="<patch_index_1023>")


def short_context(model):
    config = json.loads((model / "config.json").read_text())
    edit(
        model / "config.json", text_config=config["text_config"] | {"max_position_embeddings": 67}
    )


def with_attention_of_others(model):
    edit(model / "config.json", text_config={"_attn_implementation": "somebody/attention"})


def without_tokenizer(model):
    (model / "tokenizer.json").unlink()


def broken_tokenizer(model):
    path = model / "tokenizer.json"
    path.write_text(path.read_text().replace('"vocab"', '"vocabulary"'))


def without_config(model):
    (model / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            with_attention_of_others,
            "_attn_implementation in its config must not be .* got 'somebody/attention'",
        ),
        (pickled, "cannot be loaded: .*safetensors"),
        (truncated, "cannot be loaded"),
        (one_weight_short, "lacks 1 weights, such as 'image_to_text_projection.latent_query'"),
        (another_kind, "must be of type 'kosmos-2', got 'llava'"),
        (another_size, "must make images of 120 pixels, got \\[200\\]"),
        (another_resampling, "resample must be one of .0, 2, 3., got 1"),
        (too_large, "its config has at least 196608\\d+ weights, too many for 8577472 bytes"),
        (grey_only, "image_mean must be three finite numbers, got .0.5,?.$"),
        (without_spread, "image_std must be greater than 0, got .0.25, 0, 0.25."),
        (without_scale, "rescale_factor must be a finite number, got None"),
        (without_end, "its tokenizer has no eos_token"),
        (unknown_is_last, "unk_token is token 1491 of 1492, but 64 tokens must follow it"),
        (short_context, "64 tokens of an image do not fit in a context of 67"),
        (without_tokenizer, "cannot be loaded"),
        (broken_tokenizer, "cannot be loaded"),
        (without_config, "config.json"),
    ],
)
@pytest.mark.fault(37, 38, 39)
def test_models_that_would_answer_nonsense_are_refused(copied, damage, reason):
    damage(copied)
    with pytest.raises(ModelLoadError, match=reason):
        Engine.load(str(copied), device="cpu")


def test_a_device_that_is_too_small_is_told_what_would_fit(monkeypatch):
    def fill(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Kosmos2ForConditionalGeneration, "from_pretrained", fill)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_500_000_000, 4_000_000_000))
    with pytest.raises(ModelLoadError) as raised:
        Engine.load("shapes", device="cpu")
    assert "has 1.5 GB free. The weights take 0.0 GB in float32, 0.0 GB in bfloat16" in str(
        raised.value
    )


def test_sizes_of_the_full_model_in_each_way(tmp_path):
    """1.66 G parameters, 1.52 G of them in products."""
    Kosmos2Config().save_pretrained(tmp_path)
    assert loading._sizes(tmp_path) == (
        "The weights take 6.7 GB in float32, 3.3 GB in bfloat16 or float16, 1.8 GB in int8, "
        "1.1 GB in nf4; images and answers take more"
    )


@pytest.mark.fault(38)
def test_code_beside_the_weights_never_runs(copied):
    marker = copied / "ran"
    (copied / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    edit(copied / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    edit(copied / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    edit(copied / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.P"})
    with contextlib.suppress(ModelLoadError):
        Engine.load(str(copied), device="cpu")
    assert not marker.exists()


@pytest.mark.fault(36)
def test_a_missing_model_is_named():
    with pytest.raises(ModelLoadError, match="there is no directory /no/such/model"):
        Engine.load("/no/such/model")
    with pytest.raises(ModelLoadError, match="'nobody/nothing' is not in"):
        Engine.load("nobody/nothing", local_files_only=True)
    with pytest.raises(ModelLoadError, match="'nobody/nothing' of revision 'v9' is not in"):
        Engine.load("nobody/nothing", revision="v9", local_files_only=True)
    with pytest.raises(ModelLoadError, match=f"there is no directory {__file__}"):
        Engine.load(__file__)
