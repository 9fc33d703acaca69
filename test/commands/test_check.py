# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos check with the embedded model: it agrees, and it notices each kind of difference."""

import json
import os
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kosmos_ros import cli
from kosmos_ros.commands import card, check
from kosmos_ros.commands.findings import EXPECTED, SCORE_TOLERANCE
from kosmos_ros.errors import GenerationError, ModelLoadError
from kosmos_ros.kosmos2 import loading
from kosmos_ros.kosmos2.answers import Row
from kosmos_ros.kosmos2.decoder import Decoder
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import parse
from kosmos_ros.kosmos2.reference import Reference
from kosmos_ros.kosmos2.tokens import Tokens

SHAPES = ("--model", "shapes", "--device", "cpu")
ROOT = Path(__file__).parents[2]
TITLES = [example.title for example in card.examples(of_card=True, known=True)]


@pytest.fixture
def checked(capsys):
    """Return a function that runs `kosmos check`: exit code, what --json writes."""

    def run(*words):
        code = cli.main(["check", *map(str, words), *SHAPES, "--json"])
        out, err = capsys.readouterr()
        assert err == ""
        return code, json.loads(out)

    return run


def rows(value, number=0):
    return {row["title"]: row for row in value["formats"][number]["examples"]}


def test_the_embedded_model_agrees_with_hugging_face_in_every_example(checked):
    code, value = checked()
    assert (code, value["agrees"], value["faults"]) == (0, True, [])
    assert [each["name"] for each in value["formats"]] == ["float32"]
    assert list(rows(value)) == TITLES
    for row in rows(value).values():
        assert row["prompt_ids"] and row["boxes"] and row["difference"] is None
        assert row["score"] < SCORE_TOLERANCE
        assert row["on_card"] is None
    assert "a red circle" in rows(value)["brief caption"]["text"]
    assert "a blue star" in rows(value)["brief caption"]["text"]


def test_memory_and_speed_are_measured(checked):
    _, value = checked()
    (each,) = value["formats"]
    parameters = value["parameters"]
    assert 4 * parameters <= each["speed"]["weights"] < 4.5 * parameters
    assert each["speed"]["first_token"] > 0
    assert each["speed"]["next_token"] >= 0  # a difference of two times
    assert each["process_bytes"] > each["speed"]["weights"]
    assert 0 <= each["pixel_difference"] < 2


@pytest.mark.parametrize("option", [("--dtype", "bfloat16"), ("--quantization", "int8")])
def test_another_format_is_compared_with_float32_and_not_failed(checked, option):
    code, value = checked(*option)
    assert (code, value["faults"]) == (0, [])
    assert [each["name"] for each in value["formats"]] == ["float32", option[1]]
    exact, rounded = (rows(value, number) for number in (0, 1))
    for title in TITLES:
        difference = rounded[title]["to_float32"]
        ours, theirs = rounded[title]["ids"], exact[title]["ids"]
        assert (difference is None) == (ours == theirs)
        assert exact[title]["to_float32"] is None
        if difference:
            at = difference["position"]
            assert ours[:at] == theirs[:at] and ours[at] != theirs[at]
            # Float32 chose the more probable token.
            assert difference["probability"] <= difference["reference_probability"]


def test_the_table_names_the_first_token_that_rounding_changes(capsys):
    assert cli.main(["check", *SHAPES, "--dtype", "bfloat16"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("shapes on cpu, torch ")
    assert "picture: drawn; not compared with the model card" in lines[1]
    for name in ("float32", "bfloat16"):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.split() == [name, *["prompt", "ids", "token", "ids", "boxes", "model", "card"]]
    assert re.search(r"^brief caption +equal +equal +equal +-$", out, re.MULTILINE)
    assert re.search(r"token \d+ is '.+' \(probability 0\.\d+\) instead of '.+' \(0\.\d+\)", out)
    assert re.fullmatch(
        r"all comparisons in float32 agree; rounding in bfloat16 changes \d of 7 answers",
        lines[-1],
    )


# Each kind of difference is noticed -------------------------------------------------------------


@pytest.mark.fault(104)
def test_other_tokens_than_those_of_generate_are_a_fault(checked, monkeypatch):
    step = Decoder.step

    def others(decoder, *arguments):
        first, *rest = step(decoder, *arguments)
        return [[(min(token + 1, 400), near) for token, near in first], *rest]

    monkeypatch.setattr(Decoder, "step", others)
    code, value = checked()
    assert code == 1
    assert "float32: brief caption: token ids differ from generate" in value["faults"]
    difference = rows(value)["brief caption"]["difference"]
    assert difference["position"] == 0
    assert difference["probability"] < difference["reference_probability"]


def test_an_answer_that_ends_early_is_a_fault(checked, monkeypatch):
    advance = Row.advance

    def early(row, written):
        advance(row, written)
        row._ended = row._ended or len(row._new) == 2

    monkeypatch.setattr(Row, "advance", early)
    code, value = checked()
    assert code == 1
    assert "float32: brief caption: token ids differ from generate" in value["faults"]
    difference = rows(value)["brief caption"]["difference"]
    assert (difference["position"], difference["token"]) == (2, "")
    assert difference["reference_token"]


def test_other_probabilities_are_a_fault(checked, monkeypatch):
    read = Row.read

    def wrong(row):
        answer = read(row)
        return type(answer)(**{**vars(answer), "score": answer.score - 0.001})

    monkeypatch.setattr(Row, "read", wrong)
    code, value = checked()
    assert code == 1
    assert len(value["faults"]) == len(TITLES)
    assert all("mean probability differs" in fault for fault in value["faults"])


def test_another_reading_of_the_prompt_is_a_fault(checked, monkeypatch):
    read = Tokens.ids

    def wrong(tokens, prompt):
        return read(tokens, f"{prompt} a" if "Question" in prompt else prompt)

    monkeypatch.setattr(Tokens, "ids", wrong)
    code, value = checked()
    assert code == 1
    assert "float32: question: token ids of the prompt differ from" in " ".join(value["faults"])
    assert rows(value)["brief caption"]["prompt_ids"]


def test_another_reading_of_boxes_is_a_fault_in_every_format(checked, monkeypatch):
    entities = Reference.entities
    monkeypatch.setattr(
        Reference, "entities", lambda reference, ids: entities(reference, ids)[:-1]
    )
    code, value = checked("--dtype", "bfloat16")
    assert code == 1
    for format in ("float32", "bfloat16"):
        assert f"{format}: phrase grounding: phrases and boxes differ" in " ".join(value["faults"])
    assert not rows(value)["brief caption"]["boxes"]


@pytest.fixture
def default_model(monkeypatch):
    """Let the embedded model count as the default one, and the drawn picture as the card's."""
    monkeypatch.setattr(check.NodeSettings, "model", "shapes")
    monkeypatch.setattr(card, "is_snowman", lambda image: True)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "snowman.png"
    Image.fromarray(card.drawn()).save(path)
    return path


@pytest.mark.usefixtures("default_model")
def test_other_outputs_than_those_of_the_model_card_are_a_fault(checked, picture):
    code, value = checked("--image", picture)
    assert (code, value["is_model_card_picture"]) == (1, True)
    assert all(not row["on_card"] and row["difference"] is None for row in rows(value).values())
    assert any(
        fault.startswith("float32: brief caption: the output differs from the model card: <groun")
        for fault in value["faults"]
    )


@pytest.mark.usefixtures("default_model")
def test_the_outputs_of_the_model_card_agree(checked, picture, monkeypatch):
    _, value = checked("--image", picture)
    known = {title: ("another", row["text"]) for title, row in rows(value).items()}
    monkeypatch.setattr(card, "KNOWN", known)
    code, value = checked("--image", picture)
    assert (code, value["faults"]) == (0, [])
    assert all(row["on_card"] for row in rows(value).values())


@pytest.mark.usefixtures("default_model")
def test_rounding_may_change_the_output_of_the_model_card(checked, picture, monkeypatch):
    _, value = checked("--image", picture)
    known = {title: (row["text"],) for title, row in rows(value).items()}
    monkeypatch.setattr(card, "KNOWN", known)
    code, value = checked("--image", picture, "--quantization", "int8")
    assert (code, value["faults"]) == (0, [])


def test_a_device_too_small_for_float32_is_named_and_its_own_format_is_shown(capsys, monkeypatch):
    load = loading.load

    def short(model, **options):
        if options["dtype"] == "float32":
            raise ModelLoadError("model 'shapes' cannot be loaded: cuda:0 has 1.0 GB free")
        return load(model, **options)

    monkeypatch.setattr(loading, "load", short)
    assert cli.main(["check", *SHAPES, "--dtype", "bfloat16"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("bfloat16 ") for line in lines)
    assert lines[-1] == (
        "DIFFERS: float32 cannot be checked: model 'shapes' cannot be loaded: cuda:0 has 1.0 GB "
        "free; try --device cpu"
    )


@pytest.mark.parametrize("name", ["encode_batch", "generate_batch"])
def test_an_error_of_the_model_is_one_line(capsys, monkeypatch, name):
    def fail(engine, items):
        raise GenerationError("generation failed: a reason")

    monkeypatch.setattr(Engine, name, fail)
    assert cli.main(["check", *SHAPES]) == 1
    assert capsys.readouterr() == ("", "kosmos: generation failed: a reason\n")


def test_the_weights_of_one_format_are_freed_before_those_of_the_next_are_loaded(monkeypatch):
    load, models = loading.load, []

    def remembered(model, **options):
        assert not any(each() for each in models)
        loaded, *rest = load(model, **options)
        models.append(weakref.ref(loaded))
        return loaded, *rest

    monkeypatch.setattr(loading, "load", remembered)
    assert cli.main(["check", *SHAPES, "--dtype", "bfloat16"]) == 0
    assert len(models) == 2


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--image", "none.png"), 1, "none.png: No such file or directory"),
        (("--device", "gpu"), 2, "--device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_an_error_of_an_option_is_one_line(capsys, words, code, line):
    assert cli.main(["check", *SHAPES, *words]) == code
    assert capsys.readouterr() == ("", f"kosmos: {line}\n")


# The model card --------------------------------------------------------------------------------


def test_the_prompts_are_those_of_the_model_card():
    asked = {each.title: each.prompt.text for each in card.examples(of_card=True, known=True)}
    assert list(asked.values()) == [
        "<grounding> An image of",
        "<grounding> Describe this image in detail:",
        "<grounding><phrase> a snowman</phrase>",
        "<grounding><phrase> a snowman next to a fire</phrase>",
        "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is",
        "<grounding> Question: What is special about this image? Answer:",
        "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005>"
        "<patch_index_0911></object> next to? Answer:",
    ]


def test_the_outputs_of_the_model_card_continue_their_prompts_and_have_its_boxes():
    snowman = (0.390625, 0.046875, 0.984375, 0.828125)
    boxes = {
        "a fire": (0.171875, 0.015625, 0.484375, 0.890625),
        "the fire": None,  # two different ones
        "a snowman": snowman,
        "the snowman": snowman,
        "a snowman next to a fire": snowman,
        "It": snowman,
        "a campfire": None,
        "a hat": (0.515625, 0.046875, 0.828125, 0.234375),
        "scarf": (0.515625, 0.234375, 0.890625, 0.578125),
        "gloves": (0.515625, 0.390625, 0.640625, 0.515625),
        "a pot": (0.078125, 0.609375, 0.265625, 0.859375),
        "a cup": (0.890625, 0.765625, 0.984375, 0.984375),
    }
    seen = set()
    for example in card.examples(of_card=True, known=True):
        for text in example.known:
            assert text.startswith(example.prompt.text)
            _, phrases = parse(text, [1.0] * text.count("<patch_index_"))
            for phrase in phrases:
                (box,) = phrase.boxes
                expected = boxes[phrase.text]
                got = (box.x_min, box.y_min, box.x_max, box.y_max)
                assert expected is None or got == expected
                seen.add(phrase.text)
    assert seen == set(boxes)


def test_other_models_and_pictures_have_no_known_outputs():
    for of_card, known in ((True, False), (False, True)):
        assert not any(each.known for each in card.examples(of_card, known))


def test_another_picture_is_not_the_model_cards():
    noise = np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)
    assert not card.is_snowman(card.drawn())
    assert not card.is_snowman(noise)


@pytest.mark.parametrize("size", [(1024, 1024), (300, 200)])
def test_the_model_cards_picture_is_recognised(size):
    folder = os.environ.get("KOSMOS_TOKENIZER_FILES", ROOT.parent / "shared" / "kosmos2")
    path = Path(folder) / "snowman.png"
    if not path.exists():
        pytest.skip(f"{path} does not exist; set KOSMOS_TOKENIZER_FILES to a folder that has it")
    assert card.is_snowman(np.asarray(Image.open(path).convert("RGB").resize(size)))


def test_expected_figures_are_those_of_the_document():
    text = (ROOT / "docs" / "performance.md").read_text().replace(",", "")
    for expected in EXPECTED.values():
        for figure in (expected.weights, expected.first_token, expected.next_token):
            assert not figure or re.search(rf"(?<![\d.]){figure:g}(?:[.]0+)?(?![\d.]*\d)", text), (
                figure
            )


def test_the_reference_is_hugging_faces_generate(monkeypatch):
    """A check that compared the engine with itself would always agree."""
    called = []
    generate = loading.Kosmos2ForConditionalGeneration.generate

    def counted(model, *arguments, **options):
        called.append(options["max_new_tokens"])
        return generate(model, *arguments, **options)

    monkeypatch.setattr(loading.Kosmos2ForConditionalGeneration, "generate", counted)
    assert cli.main(["check", *SHAPES]) == 0
    assert called == [card.TOKENS] * len(TITLES)
    assert torch.is_grad_enabled()
