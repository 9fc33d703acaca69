# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command kosmos on drawn scenes, with the embedded model."""

import contextlib
import functools
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos_ros import cli
from kosmos_ros.errors import GenerationError
from kosmos_ros.images.decode import load
from kosmos_ros.images.drawing import annotate
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase, region_cells
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.records import Observation
from kosmos_ros.offline.batches import MAX_BATCH
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene
from training.evaluation import iou

MESSAGES = Path(__file__).parents[1] / "kosmos_msgs" / "msg"
WIDTH, HEIGHT = 480, 270
SCENES = {  # that the model gets right
    name: sample_scene(np.random.default_rng(seed), WIDTH, HEIGHT)
    for name, seed in (("first", 1), ("second", 4), ("third", 5))
}
TRUTH = {
    name: {
        phrase: (box[0] * WIDTH, box[1] * HEIGHT, box[2] * WIDTH, box[3] * HEIGHT)
        for phrase, box in scene.truth
    }
    for name, scene in SCENES.items()
}
SHAPES = ("--model", "shapes", "--device", "cpu")
PATIENCE = 60.0  # s


pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with a PNG of each scene, which no test may change."""
    folder = tmp_path_factory.mktemp("drawn")
    for name, scene in SCENES.items():
        Image.fromarray(render(scene)).save(folder / f"{name}.png")
    before = contents(folder)
    yield folder
    assert contents(folder) == before


@pytest.fixture
def caption(kosmos):
    """Return a function that captions images, which must succeed with no standard error."""

    def run(*words):
        code, values, err = kosmos("caption", *words, *SHAPES)
        assert (code, err) == (0, "")
        return values

    return run


def process(*words, **options):
    command = [sys.executable, "-m", "kosmos_ros.cli", *map(str, words), *SHAPES]
    # As in a user's shell: output to a pipe is buffered, and SIGINT has its default action, which
    # bash takes from the jobs that it starts in the background.
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def corners(box):
    return box["x_min"], box["y_min"], box["x_max"], box["y_max"]


def check(value, name):
    """Assert that `value` names the shapes of scene `name` and their places."""
    assert (value["image_width"], value["image_height"]) == (WIDTH, HEIGHT)
    assert sorted(phrase["text"] for phrase in value["phrases"]) == sorted(TRUTH[name])
    for phrase in value["phrases"]:
        assert value["caption"][phrase["start"] : phrase["end"]] == phrase["text"]
        (box,) = phrase["boxes"]
        assert iou(corners(box), TRUTH[name][phrase["text"]]) > 0.5
        assert 0 < box["score"] <= 1


def annotated(path, value):
    """Return the annotated image that belongs to a JSON line."""
    phrases = tuple(
        Phrase(
            phrase["text"],
            phrase["start"],
            phrase["end"],
            tuple(
                Box(
                    box["x_min"] / WIDTH,
                    box["y_min"] / HEIGHT,
                    box["x_max"] / WIDTH,
                    box["y_max"] / HEIGHT,
                    box["score"],
                )
                for box in phrase["boxes"]
            ),
        )
        for phrase in value["phrases"]
    )
    return annotate(load(path, WIDTH * HEIGHT), Caption(value["caption"], phrases))


# Captions --------------------------------------------------------------------------------------


def test_captions_name_the_drawn_shapes_and_their_places(caption, drawn):
    paths = [drawn / f"{name}.png" for name in SCENES]
    values = caption(*paths)
    assert [value["image"] for value in values] == [str(path) for path in paths]
    for value, name in zip(values, SCENES, strict=True):
        check(value, name)


def test_a_line_has_the_fields_of_the_message(caption, drawn):
    def fields(name):
        return set(re.findall(r"^[\w/\[\]]+ (\w+)", (MESSAGES / name).read_text(), re.MULTILINE))

    (value,) = caption(drawn / "first.png")
    of_a_camera = {"header", "camera", "latency", "inference_time", "frames_dropped"}
    assert set(value) == fields("GroundedCaption.msg") - of_a_camera | {"image"}
    assert set(value["phrases"][0]) == fields("GroundedPhrase.msg")
    assert set(value["phrases"][0]["boxes"][0]) == fields("BoundingBox.msg")
    assert (value["task"], value["model"], value["truncated"]) == (
        "brief_caption",
        "shapes",
        False,
    )
    assert value["prompt"] == prompts.caption("brief_caption").text
    assert value["raw_text"].startswith(value["prompt"] + "<phrase> a red star</phrase><object>")
    assert value["generated_tokens"] > 10
    assert 0 < value["score"] <= 1


def test_the_task_is_chosen(caption, drawn):
    (value,) = caption(drawn / "first.png", "--task", "detailed_caption")
    assert value["prompt"] == prompts.caption("detailed_caption").text
    assert value["task"] == "detailed_caption"


def test_plain_captions_have_no_boxes(caption, drawn):
    (value,) = caption(drawn / "first.png", "--plain")
    assert value["phrases"] == []
    assert "a red star" in value["caption"]
    assert "<" not in value["raw_text"]


@pytest.mark.fault(43)
def test_a_caption_of_too_many_tokens_is_cut_off(caption, drawn):
    (value,) = caption(drawn / "first.png", "--max-new-tokens", 3)
    assert (value["generated_tokens"], value["truncated"]) == (3, True)


@pytest.mark.parametrize("name", ["x.gif", "x.jpg", "x.bmp", "x.webp"])
def test_images_of_other_formats_are_captioned(caption, drawn, tmp_path, name):
    Image.open(drawn / "second.png").save(tmp_path / name)
    (value,) = caption(tmp_path / name)
    check(value, "second")


@pytest.fixture
def photo(drawn, tmp_path):
    """A photo that a camera held on its side took: stored turned, and shown upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn it by a quarter, clockwise
    path = tmp_path / "photo.jpg"
    stored = Image.open(drawn / "second.png").transpose(Image.Transpose.ROTATE_90)
    stored.save(path, exif=exif)
    return path


@pytest.mark.fault(18)
def test_boxes_are_in_the_pixels_of_a_rotated_photo_as_viewers_show_it(caption, photo, tmp_path):
    (value,) = caption(photo, "--out", tmp_path)
    check(value, "second")
    assert Image.open(value["annotated"]).width == WIDTH


def test_stored_pixels_are_used_if_asked_for(caption, photo):
    (value,) = caption(photo, "--stored-pixels")
    assert (value["image_width"], value["image_height"]) == (HEIGHT, WIDTH)


def test_16_bit_grey_gives_the_caption_of_8_bit_grey(caption, drawn, tmp_path):
    grey = Image.open(drawn / "first.png").convert("L")
    grey.save(tmp_path / "narrow.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "wide.png")
    narrow, wide = caption(tmp_path / "narrow.png", tmp_path / "wide.png")
    assert wide.pop("image") != narrow.pop("image")
    assert wide == narrow


@pytest.mark.parametrize("name", [b"\xff\xfe.png", "ünï 😀 \"q'\n.png".encode()])
def test_any_file_name_survives(caption, drawn, tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    shutil.copy(drawn / "third.png", path)
    (value,) = caption(path, "--out", tmp_path / "out")
    check(value, "third")
    assert value["image"] == str(path)
    assert os.listdir(os.fsencode(tmp_path / "out")) == [name]


# Failures among many ---------------------------------------------------------------------------


def test_images_after_a_bad_one_are_captioned(kosmos, drawn, tmp_path):
    (tmp_path / "broken.png").write_bytes((drawn / "first.png").read_bytes()[:500])
    (tmp_path / "words.txt").write_text("no picture")
    Image.new("RGB", (2000, 100)).save(tmp_path / "large.png")
    names = ["none.png", "", "broken.png", "words.txt", "large.png"]
    bad = [tmp_path / name for name in names]
    good = [drawn / "first.png", drawn / "second.png"]
    words = (good[0], *bad, good[1], "--max-image-pixels", WIDTH * HEIGHT)
    code, values, err = kosmos("caption", *words, *SHAPES)
    assert code == 1
    assert [value["image"] for value in values] == [str(path) for path in good]
    check(values[1], "second")
    lines = err.splitlines()
    reasons = [
        "No such file",
        "Is a directory",
        "broken or truncated PNG",
        "is not a JPEG",
        "at most",
    ]
    assert len(lines) == len(bad)
    for line, path, reason in zip(lines, bad, reasons, strict=True):
        assert line.startswith(f"kosmos: {path}")
        assert reason in line


def test_an_image_that_the_model_fails_on_is_named_and_skipped(kosmos, drawn, monkeypatch):
    generate, encode = Engine.generate_batch, Engine.encode_batch
    first = []

    def remember_first(engine, images):
        encoded = encode(engine, images)
        first.append(encoded[0])
        return encoded

    def fail_first(engine, queries):
        if any(query.image is first[0] for query in queries):
            raise GenerationError("out of memory")
        return generate(engine, queries)

    monkeypatch.setattr(Engine, "encode_batch", remember_first)
    monkeypatch.setattr(Engine, "generate_batch", fail_first)
    bad, good = drawn / "first.png", drawn / "second.png"
    code, (value,), err = kosmos("caption", bad, good, *SHAPES)
    assert (code, value["image"], err) == (1, str(good), f"kosmos: {bad}: out of memory\n")


@pytest.mark.parametrize("words", [("caption", "none.png"), ("ask", "none.png", "What is it?")])
def test_without_an_image_no_model_is_loaded(kosmos, monkeypatch, words):
    monkeypatch.setattr(Engine, "load", None)
    code, values, err = kosmos(*words)
    assert (code, values, err) == (1, [], "kosmos: none.png: No such file or directory\n")


def test_a_number_that_json_lacks_is_not_written(kosmos, drawn, monkeypatch, capsys):
    strange = Generation("", (), float("nan"), 1, False)
    monkeypatch.setattr(Engine, "generate_batch", lambda *_: [strange])
    with pytest.raises(ValueError, match="JSON"):
        kosmos("caption", drawn / "first.png", *SHAPES)
    assert capsys.readouterr().out == ""


# Annotated images ------------------------------------------------------------------------------


def test_annotated_images_show_the_caption(caption, drawn, tmp_path):
    out = tmp_path / "deep" / "out"
    paths = [drawn / "first.png", drawn / "second.png"]
    values = caption(*paths, "--out", out)
    assert sorted(contents(out)) == ["first.png", "second.png"]
    for path, value in zip(paths, values, strict=True):
        assert value["annotated"] == str(out / path.name)
        saved = load(value["annotated"], 10**6)
        assert saved.shape[0] > HEIGHT and saved.shape[1] == WIDTH
        assert np.array_equal(saved, annotated(path, value))
        assert not np.array_equal(saved[:HEIGHT], load(path, 10**6))


def test_annotated_images_of_the_same_name_are_all_kept(caption, drawn, tmp_path):
    for folder, scene, name in (("a", "first", "x.png"), ("b", "second", "x.jpg")):
        (tmp_path / folder).mkdir()
        Image.open(drawn / f"{scene}.png").save(tmp_path / folder / name)
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.jpg", tmp_path / "a" / "x.png"]
    out = tmp_path / "out"
    values = caption(*paths, "--out", out)
    names = ["x.png", "x-2.png", "x-3.png"]
    assert [value["annotated"] for value in values] == [str(out / name) for name in names]
    for path, value in zip(paths, values, strict=True):
        assert np.array_equal(load(value["annotated"], 10**6), annotated(path, value))
    before = contents(out)
    (value,) = caption(paths[1], "--out", out)
    assert value["annotated"] == str(out / "x-4.png")
    assert before.items() < contents(out).items()


def test_images_that_were_read_are_not_overwritten(caption, drawn, tmp_path):
    paths = [shutil.copy(drawn / f"{name}.png", tmp_path) for name in SCENES]
    before = contents(tmp_path)
    caption(*paths, "--out", tmp_path)
    after = contents(tmp_path)
    assert before.items() < after.items()
    assert after.keys() - before.keys() == {f"{name}-2.png" for name in SCENES}


def test_an_image_that_cannot_be_saved_is_still_captioned(kosmos, drawn, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        words = (drawn / "first.png", drawn / "second.png", "--out", tmp_path)
        code, values, err = kosmos("caption", *words, *SHAPES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert err.splitlines() == [
        f"kosmos: cannot write {tmp_path / name}.png: File too large"
        for name in ("first", "second")
    ]
    check(values[1], "second")
    assert "annotated" not in values[1]
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "reason"), [("file", "it is a file"), ("file/out", "Not a directory")]
)
def test_a_folder_that_cannot_be_made_is_named_at_once(kosmos, drawn, tmp_path, name, reason):
    (tmp_path / "file").touch()
    code, values, err = kosmos("caption", drawn / "first.png", "--out", tmp_path / name)
    assert (code, values) == (2, [])
    assert err == f"kosmos: --out: cannot create the folder {tmp_path / name}: {reason}\n"


# Questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENES)
def test_a_question_about_a_region_is_answered_with_its_shape(kosmos, drawn, name):
    for phrase, box in TRUTH[name].items():
        region = ",".join(f"{side:.1f}" for side in box)
        words = (drawn / f"{name}.png", "What is this?", "--region", region)
        code, (value,), err = kosmos("ask", *words, *SHAPES)
        assert (code, err, value["task"]) == (0, "", "question")
        assert phrase in value["caption"]


def test_a_question_and_its_regions_reach_the_model(kosmos, drawn):
    words = "Is the star left of the ring?"
    regions = [(0, 0, 240, 270), (-10, 0, 480.5, 100)]
    options = [f"--region={','.join(map(str, region))}" for region in regions]
    phrases = ["the ring", "the star"]
    for phrase in phrases:
        options += ["--region-phrase", phrase]
    cells = [region_cells(Box(*region), WIDTH, HEIGHT) for region in regions]
    code, (value,), _ = kosmos("ask", drawn / "second.png", words, *options, *SHAPES)
    assert (code, value["image"]) == (0, str(drawn / "second.png"))
    assert value["prompt"] == prompts.question(words, cells, phrases).text
    code, (value,), _ = kosmos("ask", drawn / "second.png", words, "--plain", *SHAPES)
    assert (code, value["prompt"]) == (0, prompts.question(words, grounded=False).text)


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (
            ["What is it?", "--region", "600,0,700,9"],
            1,
            r"first.png: --region \(600, 0, 700, 9\) is outside .*270",
        ),
        (
            ["What is it?", "--region", "9,0,5,9"],
            2,
            r"--region \(9, 0, 5, 9\) is empty or inverted: x_min must be less",
        ),
        (["What is it?", "--region", "nan,0,5,9"], 2, r"nan, 0, 5, 9\) must have finite numbers"),
        (["What is it?", "--region", "1,2,3"], 2, "--region must be four numbers .*, got '1,2,3'"),
        (
            ["What is it?", "--region", "a,b,c,d"],
            2,
            "four numbers x0,y0,x1,y1 in pixels, got 'a,b,c,d'",
        ),
        (
            ["What is it?", "--region", "0.1,0,0.5,1"],
            1,
            r"--region \(0.1, 0, 0.5, 1\) must be in pixels of the image \(0, 0, 480, 270\), not",
        ),
        (["What lies here?", "--region", "1,2,9,9"], 2, "'What lies here.' must refer to"),
        (
            ["Where?", "--region-phrase", "it"],
            2,
            "--region-phrase must have one entry for each of 0 regions or none, got 1",
        ),
        (["Is <grounding> it?"], 2, "contains the reserved tag <grounding>; remove it"),
        ([" "], 2, "question must not be empty"),
        (
            ["Where?", "--max-image-pixels", "100"],
            1,
            "first.png: image must have at most 100 pixels .--max-image-pixels., got ",
        ),
    ],
)
def test_an_invalid_question_is_refused_in_one_line(
    kosmos, drawn, monkeypatch, words, code, reason
):
    monkeypatch.setattr(Engine, "load", None)  # the model must not be loaded
    got, values, err = kosmos("ask", drawn / "first.png", *words)
    assert (got, values) == (code, [])
    assert re.fullmatch(f"kosmos.*: .*{reason}.*\n", err)


# Options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--max-new-tokens", "0"], 2, "--max-new-tokens must be 1 to 1024, got 0"),
        (["--max-new-tokens", "-5"], 2, "--max-new-tokens must be 1 to 1024, got -5"),
        (["--max-new-tokens", "many"], 2, "--max-new-tokens must be an integer.*, got 'many'"),
        (["--max-image-pixels", "0"], 2, "--max-image-pixels must be 1 to 1000000000, got 0"),
        (["--device", "cuda:99"], 2, "--device 'cuda:99' does not exist: torch .* finds"),
        (["--device", "gpu"], 2, "--device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (
            ["--dtype", "int4"],
            2,
            "--dtype must be one of auto, float32, bfloat16, float16, got 'int4'",
        ),
        (["--quantization", "q4"], 2, "--quantization must be one of none, int8, nf4, got 'q4'"),
        (["--model", "/no/such"], 1, "model '/no/such': directory /no/such does not exist"),
        (["--model", "nobody/nothing", "--local-files-only"], 1, "'nobody/nothing' is not in"),
        (
            ["--model", "nobody/nothing", "--revision", "v9", "--local-files-only"],
            1,
            "'nobody/nothing' of revision 'v9' is not in .*download it with",
        ),
        (["--revision"], 2, "--revision: expected one argument"),
        (
            ["--task", "sing"],
            2,
            "--task must be one of brief_caption, detailed_caption, got 'sing'",
        ),
        (["--tsak", "x"], 2, "unrecognized arguments: --tsak"),
    ],
)
def test_invalid_options_are_refused_in_one_line(kosmos, drawn, words, code, reason):
    got, values, err = kosmos("caption", drawn / "first.png", *words)
    assert (got, values) == (code, [])
    assert re.fullmatch(f"kosmos.*: .*{reason}.*\n", err)


def test_the_model_is_loaded_once_with_the_given_options(kosmos, drawn, monkeypatch):
    engine = Engine.load("shapes", device="cpu")
    asked = []
    monkeypatch.setattr(
        Engine, "load", lambda *given, **named: asked.append((given, named)) or engine
    )
    options = {
        "revision": "v9",
        "local_files_only": True,
        "device": "cuda:1",
        "dtype": "float16",
        "quantization": "nf4",
        "threads": 3,
        "no_repeat_ngram_size": -1,
        "refine_boxes": False,
    }
    words = ["--model", "some/model", "--local-files-only", "--no-refine-boxes"]
    for name in options.keys() - {"local_files_only", "refine_boxes"}:
        words += [f"--{name.replace('_', '-')}", str(options[name])]
    code, values, err = kosmos("caption", drawn / "first.png", drawn / "second.png", *words)
    assert (code, err) == (0, "")
    assert [value["model"] for value in values] == ["some/model"] * 2
    assert asked == [((), {"model": "some/model", **options})]


def test_boxes_are_those_of_hugging_face_on_request(caption, drawn):
    """Their corners are centres of cells; refined ones are nearer to the truth."""
    truth, overlaps = TRUTH["first"], {}
    for option in ("--refine-boxes", "--no-refine-boxes"):
        (value,) = caption(drawn / "first.png", option)
        boxes = {phrase["text"]: corners(phrase["boxes"][0]) for phrase in value["phrases"]}
        cells = np.array(list(boxes.values())) / [WIDTH, HEIGHT, WIDTH, HEIGHT] * 32
        assert np.allclose(cells % 1, 0.5, atol=1e-6) == (option == "--no-refine-boxes")
        overlaps[option] = np.mean([iou(box, truth[name]) for name, box in boxes.items()])
    assert overlaps["--refine-boxes"] > overlaps["--no-refine-boxes"]


@pytest.mark.parametrize("words", [[], ["sing"], ["caption"], ["ask", "first.png"]])
def test_an_incomplete_command_points_to_its_help(kosmos, words):
    code, _, err = kosmos(*words)
    assert code == 2
    assert re.fullmatch(
        "kosmos.*: .*(IMAGE|QUESTION|COMMAND|caption).*; see kosmos.* --help\n", err
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mcp", "--nodes", "x"], "kosmos mcp: unrecognized arguments: --nodes x; see kosmos mcp"),
        (
            ["fetch", "x", "--now"],
            "kosmos fetch: unrecognized arguments: x --now; see kosmos fetch",
        ),
        (["--nodes", "mcp"], "kosmos: unrecognized arguments: --nodes; see kosmos"),
    ],
)
def test_an_unknown_option_points_to_the_help_of_its_command(capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{said} --help\n"


def test_help_describes_the_options(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["caption", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert "NAME-3.png and so on if the name exists. No file is overwritten" in said
    assert "A box takes four tokens. Range: 1 to 1024. Default: 128." in said
    assert "--quantization {none,int8,nf4}" in said


# A terminal and pipes --------------------------------------------------------------------------


@pytest.mark.parametrize(("terminal", "count", "bar"), [(1, 2, 1), (1, 1, 0), (0, 2, 0)])
def test_a_progress_bar_is_shown_for_many_images_on_a_terminal(
    kosmos, drawn, monkeypatch, terminal, count, bar
):
    paths = [drawn / f"{name}.png" for name in SCENES][:count]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: bool(terminal))
    code, values, err = kosmos("caption", *paths, *SHAPES)
    assert code == 0
    assert [value["image"] for value in values] == [str(path) for path in paths]
    assert ("2/2" in err) == bool(bar)
    assert bar or err == ""


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(drawn):
    """`kosmos caption ... | head -1` does so."""
    # The last group is complete only when standard input has ended.
    paths = [*[drawn / "first.png"] * (2 * MAX_BATCH), "-"]
    short = ("--plain", "--max-new-tokens", 1)
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with process("caption", *paths, *short, **pipes) as running:
        line = running.stdout.readline()
        running.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # the command may have ended already
            running.stdin.buffer.write((drawn / "first.png").read_bytes())
            running.stdin.close()
        code = running.wait(PATIENCE)
        assert (code, running.stderr.read()) == (141, "")
    assert json.loads(line)["image"] == str(paths[0])
    # Otherwise Python would have flushed by itself.
    assert len(paths) * len(line) < io.DEFAULT_BUFFER_SIZE


def test_a_full_disk_is_named(drawn):
    with (
        open("/dev/full", "w") as full,
        process("ask", drawn / "first.png", "What is this?", stdout=full) as running,
    ):
        code = running.wait(PATIENCE)
        err = running.stderr.read()
    assert (code, err) == (1, "kosmos: standard output: No space left on device\n")


def test_a_full_disk_is_not_taken_for_never_seen(tmp_path):
    with ObservationLog.open(tmp_path / "memory.db") as log:
        log.add([Observation(1, "front", "a red cup")])
    command = [sys.executable, "-m", "kosmos_ros.cli", "recall", tmp_path / "memory.db", "red cup"]
    with open("/dev/full", "w") as full:
        for streams in ({"stderr": subprocess.PIPE}, {"stderr": full}):
            ended = subprocess.run(command, stdout=full, text=True, timeout=PATIENCE, **streams)
            assert ended.returncode == 2
            said = "kosmos: standard output: No space left on device\n"
            assert ended.stderr is None or ended.stderr.endswith(said)


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_that_cannot_be_written_is_an_error(word):
    command = [sys.executable, "-m", "kosmos_ros.cli", word]
    for unbuffered in "", "1":
        with open("/dev/full", "w") as full:
            ended = subprocess.run(
                command,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
                timeout=PATIENCE,
            )
        said = "kosmos: standard output: No space left on device\n"
        assert (ended.returncode, ended.stderr) == (1, said)


def test_each_line_is_one_write(tmp_path):
    """Otherwise another program on the same pipe could write between a line and its newline."""
    long = "a red cup" + " and a red cup" * 1000
    with ObservationLog.open(tmp_path / "memory.db") as log:
        log.add([Observation(1, "front", long), Observation(2, "front", "a red cup")])
    words = ["recall", tmp_path / "memory.db", "red cup", "--camera"]
    for camera, count in (("front", 2), ("rear", 1)):
        # A packet of this socket is what one call has written.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            subprocess.run(
                [sys.executable, "-m", "kosmos_ros.cli", *words, camera],
                stdout=theirs,
                stderr=theirs,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                timeout=PATIENCE,
            )
            theirs.close()
            packets = list(iter(functools.partial(ours.recv, 2**16), b""))
        assert [packet.count(b"\n") for packet in packets] == [1] * count
        assert all(packet.endswith(b"\n") for packet in packets)


def test_a_closed_standard_output_is_an_error(drawn):
    """`kosmos ... >&-` has one."""
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "kosmos_ros.cli"]
    words = ["caption", str(drawn / "first.png"), "--plain", "--max-new-tokens", "1", *SHAPES]
    ended = subprocess.run([*shell, *words], stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    said = "kosmos: standard output: Bad file descriptor\n"
    assert (ended.returncode, ended.stderr) == (1, said)


def test_ctrl_c_ends_the_command_between_whole_lines(drawn, tmp_path):
    paths = [drawn / "first.png"] * 500
    with process("caption", *paths, "--out", tmp_path, stdout=subprocess.PIPE) as running:
        first = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        limit = threading.Timer(PATIENCE, running.kill)
        limit.start()
        # Not `communicate`, which skips what `readline` has buffered.
        rest, err = running.stdout.read(), running.stderr.read()
        limit.cancel()
    assert (running.returncode, err) == (130, "")
    values = [json.loads(line) for line in (first + rest).splitlines()]
    assert 1 <= len(values) < 500
    for path in tmp_path.iterdir():
        assert load(path, 10**6).shape[1] == WIDTH
