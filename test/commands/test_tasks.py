# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommands that mirror the node's services, on drawn scenes with the embedded model."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos_ros import __version__, cli
from kosmos_ros.errors import OutOfMemoryError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import Box, region_cells
from kosmos_ros.offline.batches import MAX_BATCH
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene
from training.evaluation import iou

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 480, 270
SCENE = sample_scene(np.random.default_rng(1), WIDTH, HEIGHT)  # that the model gets right
TRUTH = {
    phrase: (box[0] * WIDTH, box[1] * HEIGHT, box[2] * WIDTH, box[3] * HEIGHT)
    for phrase, box in SCENE.truth
}
SHAPES = ("--model", "shapes", "--device", "cpu")
REGIONS = [",".join(f"{side:.1f}" for side in box) for box in TRUTH.values()]


pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "picture.png"
    Image.fromarray(render(SCENE)).save(path)
    return path


@pytest.fixture
def lines(kosmos):
    """Return a function that runs the command, which must succeed: JSON lines."""

    def run(*words):
        code, values, err = kosmos(*words, *SHAPES)
        assert (code, err) == (0, "")
        return values

    return run


def corners(box):
    return box["x_min"], box["y_min"], box["x_max"], box["y_max"]


# One subcommand for each service ---------------------------------------------------------------


def test_ground_locates_each_phrase_and_says_which_are_absent(lines, picture):
    phrases = [*TRUTH, "a purple cross"]
    assert "a purple cross" not in TRUTH
    words = [word for phrase in phrases for word in ("--phrase", phrase)]
    (value,) = lines("ground", picture, *words)
    assert value["task"] == "phrase_grounding"
    assert [phrase["text"] for phrase in value["phrases"]] == phrases
    *found, absent = value["phrases"]
    for phrase in found:
        (box,) = phrase["boxes"]
        assert iou(corners(box), TRUTH[phrase["text"]]) > 0.5
    assert absent["boxes"] == []


def test_ground_leaves_out_boxes_below_the_lowest_score(lines, picture):
    phrase = next(iter(TRUTH))
    (kept,) = lines("ground", picture, "--phrase", phrase, "--min-score", 0.1)
    (none,) = lines("ground", picture, "--phrase", phrase, "--min-score", 1)
    assert len(kept["phrases"][0]["boxes"]) == 1
    assert none["phrases"][0]["boxes"] == []


def test_describe_writes_one_line_for_each_region(lines, picture):
    words = [word for region in REGIONS for word in ("--region", region)]
    values = lines("describe", picture, *words)
    assert [value["region"] for value in values] == [
        [float(side) for side in region.split(",")] for region in REGIONS
    ]
    for value, phrase in zip(values, TRUTH, strict=True):
        assert value["task"] == "region_description"
        assert phrase in value["caption"]


@pytest.mark.parametrize(
    ("words", "task"), [([], "brief_caption"), (["--detailed"], "detailed_caption")]
)
def test_describe_without_a_region_is_a_caption(lines, picture, words, task):
    (value,) = lines("describe", picture, *words)
    assert value == lines("caption", picture, "--task", task)[0]


def test_a_long_description_of_a_region_is_refused(kosmos, picture):
    code, values, err = kosmos("describe", picture, "--detailed", "--region", REGIONS[0])
    assert (code, values) == (2, [])
    assert err == "kosmos: --detailed describes the whole image only; remove it or --region\n"


def test_generate_completes_a_prompt_and_puts_regions_in_their_places(lines, picture):
    prompt = "<grounding><phrase> It</phrase><object></object> is"
    (value,) = lines("generate", picture, prompt, "--region", REGIONS[0])
    cells = region_cells(Box(*map(float, REGIONS[0].split(","))), WIDTH, HEIGHT)
    assert value["prompt"] == prompts.region_description(cells).text
    assert value["task"] == "prompt"
    assert next(iter(TRUTH)) in value["raw_text"]


def test_generate_ends_at_the_stop_text(lines, picture):
    prompt = prompts.caption("brief_caption").text
    (value,) = lines("generate", picture, prompt, "--stop", "</object>")
    assert value["raw_text"].endswith("</object>")
    assert value["raw_text"].count("</object>") == 1


def test_a_prompt_needs_a_region_for_each_empty_object(kosmos, picture):
    code, values, err = kosmos("generate", picture, "a dog", "--region", REGIONS[0], *SHAPES)
    assert (code, values) == (2, [])
    assert "must have one <object></object> for each of 1 regions, got 0" in err


def test_earlier_questions_and_answers_are_before_the_question(lines, picture):
    history = ["Is there a star?", "Yes."]
    words = [word for text in history for word in ("--history", text)]
    (value,) = lines("ask", picture, "What is this?", *words)
    assert value["prompt"] == prompts.question("What is this?", history=history).text


def test_one_question_is_asked_about_each_image(lines, picture, tmp_path):
    other = tmp_path / "other.png"
    Image.open(picture).rotate(180).save(other)
    values = lines("ask", picture, other, "What is this?")
    assert [value["image"] for value in values] == [str(picture), str(other)]
    assert len({value["prompt"] for value in values}) == 1


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"kosmos {__version__}\n"


def test_the_version_is_that_of_the_package():
    assert f"version = {__version__}\n" in (ROOT / "setup.cfg").read_text()
    assert f"<version>{__version__}</version>" in (ROOT / "package.xml").read_text()


# Errors name the option as typed ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--min-score", "2"], 2, "--min-score must be 0 to 1, got 2.0"),
        (["--min-score", "nan"], 2, "--min-score must be 0 to 1, got nan"),
        (["--min-score", "high"], 2, "--min-score must be a number"),
        (["--max-new-tokens", "0"], 2, "--max-new-tokens must be 1 to 1024, got 0"),
        (["--phrase", " "], 2, "--phrase must not be empty"),
        (["--phrase", "<s> min_score"], 2, "--phrase '<s> min_score' contains the reserved tag"),
        (["--device", "gpu"], 2, "--device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["--model", "none"], 2, "--model must be shapes, a directory, or"),
        (["--model", "/none"], 1, "--model '/none': directory /none does not exist"),
        (["--revision", "/", "--model", "a/b"], 2, "--revision must be a branch, tag or"),
    ],
)
def test_an_error_names_the_option_as_typed(kosmos, picture, words, code, line):
    got, values, err = kosmos("ground", picture, "--phrase", "a dog", *words)
    assert (got, values) == (code, [])
    assert err.startswith(f"kosmos: {line}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ask", "What?", "--history", "Who?"], "--history must have questions and answers"),
        (["ask", "A. Question: B?"], "send earlier questions and answers as --history"),
        (["ask", "What?", "--region", "0,0,9,9"], "or give words of the question as --region-phr"),
        (["generate", "An", "--stop", "</object> x"], "--stop '</object> x' must be one tag"),
        (["generate", "<object></object>"], "must have one <object></object> for each of 0"),
        (["generate", ""], "prompt must not be empty"),
    ],
)
def test_an_invalid_argument_ends_as_wrong_use(kosmos, picture, monkeypatch, words, line):
    monkeypatch.setattr(Engine, "load", None)  # the model must not be loaded
    code, values, err = kosmos(words[0], picture, *words[1:])
    assert (code, values) == (2, [])
    assert line in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["history.png", "device.tar.gz", "phrase", "max_image_pixels.x"])
def test_a_file_with_the_name_of_an_option_keeps_it(kosmos, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("x")
    code, _, err = kosmos("caption", name)
    assert code == 1
    assert err.startswith(f"kosmos: {name} is not a JPEG")


def test_an_empty_file_name_is_wrong_use(kosmos, picture):
    code, values, err = kosmos("caption", picture, "", *SHAPES)
    assert (code, values) == (2, [])
    assert err == "kosmos: IMAGE must be the path of a file or - (standard input), got ''\n"


def test_a_missing_phrase_is_named(kosmos, picture):
    code, _, err = kosmos("ground", picture)
    assert code == 2
    assert "--phrase" in err


# Many images at a time -------------------------------------------------------------------------


def approximate(value):
    """Return a JSON value whose floats, which depend on the batch, may differ a little."""
    if isinstance(value, dict):
        return {key: approximate(each) for key, each in value.items()}
    if isinstance(value, list):
        return [approximate(each) for each in value]
    return pytest.approx(value, abs=2e-3) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """More images than run together, of several sizes, with a broken one among them."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MAX_BATCH + 3):
        size = ((192, 144), (256, 144), (160, 160))[number % 3]
        scene = sample_scene(np.random.default_rng([7, number]), *size)
        Image.fromarray(render(scene)).save(folder / f"{number:02}.png")
    (folder / "04.png").write_bytes(b"broken")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["caption"],
        ["describe", "--region", "10,10,80,90", "--region", "40,30,150,140"],
        ["ground", "--phrase", "a red circle", "--phrase", "a star", "--phrase", "a ring"],
    ],
    ids=lambda words: words[0],
)
def test_a_batch_gives_the_lines_of_one_image_at_a_time(kosmos, many, monkeypatch, words):
    code, together, err = kosmos(*words, *many, *SHAPES)
    alone = [kosmos(*words, path, *SHAPES) for path in many]
    assert (code, err) == (1, "".join(err for _, _, err in alone))
    assert "04.png" in err
    expected = [value for _, values, _ in alone for value in values]
    assert together == approximate(expected)


@pytest.fixture
def sizes(monkeypatch):
    """Return a list that receives the number of images of each run of the encoder."""
    sizes, encode = [], Engine.encode_batch
    monkeypatch.setattr(
        Engine,
        "encode_batch",
        lambda engine, images: sizes.append(len(images)) or encode(engine, images),
    )
    return sizes


def test_images_run_together(kosmos, many, sizes):
    kosmos("caption", *many, *SHAPES)
    assert sizes == [MAX_BATCH - 1, len(many) - MAX_BATCH]  # one of the first group is broken


def test_large_images_run_in_smaller_groups(kosmos, picture, sizes):
    kosmos("caption", *[picture] * 5, "--max-image-pixels", 2 * WIDTH * HEIGHT, *SHAPES)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("stage", ["encode_batch", "generate_batch"])
def test_a_batch_that_does_not_fit_in_memory_is_split(kosmos, lines, many, monkeypatch, stage):
    run = getattr(Engine, stage)

    def short(engine, items):
        if len(items) > 1:
            raise OutOfMemoryError("generation failed: out of memory")
        return run(engine, items)

    expected = lines("caption", *many[:3])
    monkeypatch.setattr(Engine, stage, short)
    assert lines("caption", *many[:3]) == approximate(expected)


# Standard input --------------------------------------------------------------------------------


@pytest.fixture
def piped(monkeypatch):
    """Return a function that sets the bytes of standard input."""

    def pipe(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return pipe


def test_an_image_is_read_from_standard_input(lines, picture, piped, tmp_path):
    (expected,) = lines("caption", picture)
    piped(picture.read_bytes())
    (value,) = lines("caption", "-", "--out", tmp_path)
    assert value.pop("annotated") == str(tmp_path / "stdin.png")
    assert value == expected | {"image": "-"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "standard input: the image has 0 bytes of data"),
        (b"words", "standard input is not a JPEG, PNG, WebP, BMP, GIF or TIFF image"),
    ],
)
def test_a_broken_standard_input_is_named(kosmos, piped, data, reason):
    piped(data)
    code, values, err = kosmos("caption", "-", *SHAPES)
    assert (code, values) == (1, [])
    assert err.startswith(f"kosmos: {reason}")


def test_standard_input_is_read_once(kosmos):
    code, values, err = kosmos("caption", "-", "-", *SHAPES)
    assert (code, values) == (2, [])
    assert err == "kosmos: image - (standard input) can be given only once\n"
