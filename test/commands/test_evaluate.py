# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommand evaluate, on drawn data sets in the published forms, with the embedded model."""

import errno
import functools
import io
import itertools
import json
import re
import statistics
from pathlib import Path

import drawn_data_sets
import numpy as np
import pytest
from PIL import Image

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.offline.evaluation import cider
from training.evaluation import iou

SHAPES = ("--model", "shapes", "--device", "cpu")
GRID = 32
SCENES = 10
VAL = functools.partial(drawn_data_sets.coco_name, subset="val2014")


pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with a data set in each form, which no test may change."""
    folder = tmp_path_factory.mktemp("sets")
    scenes = drawn_data_sets.draw(folder / "train2014", SCENES, seed=1)
    drawn_data_sets.refcoco(folder / "refcoco.json", scenes)
    scenes = drawn_data_sets.draw(folder / "flickr", SCENES, 2, drawn_data_sets.flickr_name)
    drawn_data_sets.flickr(folder / "flickr.json", scenes)
    scenes = drawn_data_sets.draw(folder / "val2014", SCENES, 3, VAL)
    drawn_data_sets.coco_captions(folder / "captions.json", scenes, VAL)
    drawn_data_sets.vqa(folder, scenes)
    return folder


@pytest.fixture
def evaluate(kosmos, tmp_path):
    """Return a function that evaluates: the exit code, the score, the details, the errors."""

    def run(dataset, task, images, *words):
        details = tmp_path / "details.jsonl"
        details.unlink(missing_ok=True)
        code, values, err = kosmos(
            "evaluate", dataset, "--task", task, "--images", images, "--details", details,
            *words, *SHAPES,
        )  # fmt: skip
        lines = details.read_text().splitlines() if details.exists() else []
        return code, *values, [json.loads(line) for line in lines], err

    return run


def changed(path, folder, change):
    """Write a changed copy of a JSON file, and return its path."""
    tree = json.loads(path.read_text())
    change(tree)
    copy = folder / path.name
    copy.write_text(json.dumps(tree))
    return copy


# Boxes -----------------------------------------------------------------------------------------


def box_of(text, phrase):
    """Return the first box of a phrase in the model's text [0, 1], read as Microsoft reads it."""
    for name, boxes in re.findall(r"<phrase>([^<]+)</phrase><object>(.*?)</object>", text):
        first = re.match(r"<patch_index_(\d+)><patch_index_(\d+)>", boxes)
        if name.strip() == phrase and first:
            (y1, x1), (y2, x2) = (divmod(int(index), GRID) for index in first.groups())
            near, far = (0, 1) if x1 == x2 or y1 == y2 else (0.5, 0.5)
            return (
                (x1 + near) / GRID, (y1 + near) / GRID, (x2 + far) / GRID, (y2 + far) / GRID
            )  # fmt: skip
    return None


def independent_score(tree, folder, prompt_of):
    """Return the share of right boxes, computed without the code that is tested.

    Each prompt runs alone, and its text is read by `box_of`.
    """
    engine = Engine.load(model="shapes", device="cpu", refine_boxes=False)
    annotations = {each["image_id"]: each for each in tree["annotations"]}
    right = []
    for image in tree["images"]:
        pixels = np.asarray(Image.open(folder / image["file_name"]))
        prompt = prompt_of(image["caption"])
        answer = engine.generate(engine.encode(pixels), prompt)
        found = box_of(prompt + answer.text, image["caption"])
        x, y, width, height = annotations[image["id"]]["bbox"]
        truth = (x, y, x + width, y + height)
        sides = (image["width"], image["height"]) * 2
        right.append(
            found is not None
            and iou([side * of for side, of in zip(found, sides, strict=True)], truth) >= 0.5
        )
    return statistics.fmean(right)


def make_harder(tree):
    """Move the truth of some expressions away, name others wrongly, and one by its place."""
    for number, (image, box) in enumerate(zip(tree["images"], tree["annotations"], strict=True)):
        if number % 4 == 1:
            box["bbox"][0] += 0.45 * box["bbox"][2]
        if number % 4 == 2:
            image["caption"] = "a shape that is not there"
        if number % 4 == 3:
            image["caption"] = "a red circle left of a blue star"


def test_the_accuracy_of_referring_expressions_is_that_of_an_independent_computation(
    evaluate, sets, tmp_path
):
    dataset = changed(sets / "refcoco.json", tmp_path, make_harder)
    code, value, lines, err = evaluate(dataset, "rec", sets / "train2014", "--no-refine-boxes")
    assert (code, err) == (0, "")
    tree = json.loads(dataset.read_text())
    expected = independent_score(
        tree, sets / "train2014", lambda text: f"<grounding><phrase> {text}</phrase>"
    )
    assert 0.2 < expected < 0.8  # some are right, some are wrong
    assert value["value"] == expected
    low, high = value["interval_95"]
    assert low < expected < high
    assert (value["samples"], value["images"], value["failed"]) == (len(lines), SCENES, 0)
    assert [line["id"] for line in lines] == [image["id"] for image in tree["images"]]
    assert statistics.fmean(line["score"] for line in lines) == expected
    for line, image, box in zip(lines, tree["images"], tree["annotations"], strict=True):
        x, y, width, height = box["bbox"]
        assert line["truth"] == [pytest.approx([x, y, x + width, y + height])]
        assert line["prompt"] == f"<grounding><phrase> {image['caption']}</phrase>"
        found = iou(line["prediction"], line["truth"][0]) if line["prediction"] else 0
        assert line["iou"] == pytest.approx(found)
        assert line["score"] == (found >= 0.5)


def test_the_model_finds_the_phrases_of_sentences(evaluate, sets):
    code, value, lines, err = evaluate(sets / "flickr.json", "grounding", sets / "flickr")
    assert (code, err) == (0, "")
    assert value["metric"] == "R@1 at IoU 0.5"
    assert value["value"] > 0.8
    assert lines[1]["prompt"].startswith("<grounding> An image of a")
    assert value["value"] == statistics.fmean(line["score"] for line in lines)


def test_one_of_several_true_boxes_is_enough(evaluate, sets, tmp_path):
    """Protocol ANY-BOX: a second box of each phrase, far away, changes nothing."""

    def more_boxes(tree):
        tree["annotations"] = [
            each | {"bbox": box} for each in tree["annotations"] for box in (far, each["bbox"])
        ]

    far = [0.0, 0.0, 1.0, 1.0]
    dataset = changed(sets / "flickr.json", tmp_path, more_boxes)
    _, value, lines, _ = evaluate(dataset, "grounding", sets / "flickr")
    _, before, _, _ = evaluate(sets / "flickr.json", "grounding", sets / "flickr")
    assert value["value"] == before["value"]
    assert {len(line["truth"]) for line in lines} == {2}


def test_boxes_are_scored_in_the_size_that_the_data_set_names(evaluate, sets, tmp_path):
    """An image of another resolution than the data set's gives the same score."""

    def double(tree):
        for image in tree["images"]:
            image["width"], image["height"] = 2 * image["width"], 2 * image["height"]
        for box in tree["annotations"]:
            box["bbox"] = [2 * side for side in box["bbox"]]

    dataset = changed(sets / "refcoco.json", tmp_path, double)
    _, value, lines, _ = evaluate(dataset, "rec", sets / "train2014")
    _, before, others, _ = evaluate(sets / "refcoco.json", "rec", sets / "train2014")
    assert value["value"] == before["value"] > 0.8
    for line, other in zip(lines, others, strict=True):
        assert line["iou"] == pytest.approx(other["iou"])
        assert line["prediction"] == pytest.approx([2 * side for side in other["prediction"]])


def test_boxes_are_those_of_the_stored_pixels(evaluate, sets, tmp_path):
    """An EXIF orientation, which viewers follow, changes nothing."""
    turned = Image.Exif()
    turned[0x0112] = 6  # rotate by a quarter
    for path in (sets / "train2014").iterdir():
        with Image.open(path) as image:
            image.save(tmp_path / path.name, quality=100, subsampling=0, exif=turned)
    _, value, _, _ = evaluate(sets / "refcoco.json", "rec", tmp_path)
    assert value["value"] > 0.8


# Questions and captions ------------------------------------------------------------------------


def test_answers_are_scored_against_those_of_people(evaluate, sets):
    questions = sets / "v2_OpenEnded_mscoco_val2014_questions.json"
    answers = ("--annotations", sets / "v2_mscoco_val2014_annotations.json")
    code, value, lines, err = evaluate(questions, "vqa", sets, *answers)
    assert (code, err) == (0, "")
    assert value["value"] == statistics.fmean(line["score"] for line in lines) > 0.8
    assert value["samples"] == 2 * SCENES
    for line in lines:
        question = re.fullmatch(r"Question: (.+\?) Answer:", line["prompt"])[1]
        known = "yes" if question.startswith("Is there") else line["truth"][0]
        assert line["score"] == (line["prediction"] == known)
        assert line["prediction"] in {"yes", "no", "zero", "one", "two", "three", "four"}


def test_without_known_answers_the_predictions_are_written(evaluate, sets):
    questions = sets / "v2_OpenEnded_mscoco_val2014_questions.json"
    code, value, lines, err = evaluate(questions, "vqa", sets)
    assert (code, err) == (0, "")
    assert (value["value"], value["interval_95"]) == (None, None)
    assert value["reason"] == "answers are not known; give them with --annotations"
    asked = json.loads(questions.read_text())["questions"]
    assert [line["id"] for line in lines] == [each["question_id"] for each in asked]
    assert all(line["prediction"] and line["score"] is None for line in lines)


def test_captions_are_scored_together(evaluate, sets, monkeypatch):
    given = {}

    def scores(captions, truths):
        given.update(captions=captions, truths=truths)
        return [number / 2 for number in range(len(captions))]

    monkeypatch.setattr(cider, "missing", lambda: "")
    monkeypatch.setattr(cider, "scores", scores)
    code, value, lines, err = evaluate(sets / "captions.json", "caption", sets)
    assert (code, err) == (0, "")
    assert value["value"] == statistics.fmean(number / 2 for number in range(SCENES))
    assert [line["score"] for line in lines] == [number / 2 for number in range(SCENES)]
    assert [line["prediction"] for line in lines] == given["captions"]
    assert all(line["prompt"] == "An image of" for line in lines)
    assert not any(line["prediction"].startswith("An image of") for line in lines)
    assert [tuple(line["truth"]) for line in lines] == given["truths"]
    names = [re.findall(r"\ban? \w+ \w+", line["truth"][0]) for line in lines]
    right = [
        all(name in line["prediction"] for name in own)
        for line, own in zip(lines, names, strict=True)
    ]
    assert statistics.fmean(right) > 0.5


def test_without_cider_the_captions_are_written_with_the_reason(evaluate, sets, monkeypatch):
    monkeypatch.setattr(cider, "missing", lambda: "Java is missing; run 'apt'")
    code, value, lines, err = evaluate(sets / "captions.json", "caption", sets)
    assert (code, value["value"]) == (0, None)
    assert value["reason"] == "Java is missing; run 'apt'"
    assert err == "kosmos: CIDEr will not be computed: Java is missing; run 'apt'\n"
    assert all(line["prediction"] for line in lines)
    assert len(lines) == SCENES


def test_a_tokenizer_that_fails_does_not_lose_the_captions(evaluate, sets, monkeypatch):
    def scores(captions, truths):
        raise ConfigError("CIDEr cannot be computed: no Java")

    monkeypatch.setattr(cider, "missing", lambda: "")
    monkeypatch.setattr(cider, "scores", scores)
    code, value, lines, err = evaluate(sets / "captions.json", "caption", sets, "--limit", 2)
    assert (code, value["value"], len(lines)) == (0, None, 2)
    assert err == "kosmos: CIDEr cannot be computed: no Java\n"


# Failures --------------------------------------------------------------------------------------


def test_a_broken_image_is_named_and_counts_as_wrong(evaluate, sets, tmp_path):
    images = tmp_path / "train2014"
    images.mkdir()
    broken, missing = (drawn_data_sets.coco_name(number) for number in (0, 1))
    for path in (sets / "train2014").iterdir():
        (images / path.name).symlink_to(path)
    (images / broken).unlink()
    (images / broken).write_bytes(b"no image")
    (images / missing).unlink()
    code, value, lines, err = evaluate(sets / "refcoco.json", "rec", images)
    assert code == 1
    first, second = err.splitlines()
    assert broken in first
    assert missing in second
    failed = [line for line in lines if line["image"] in {broken, missing}]
    assert value["failed"] == len(failed) >= 2
    for line in failed:
        assert (line["score"], line["prediction"]) == (0, None)
        assert line["error"]
    _, before, all_lines, _ = evaluate(sets / "refcoco.json", "rec", sets / "train2014")
    kept = [line["score"] for line in all_lines if line["image"] not in {broken, missing}]
    assert value["samples"] == before["samples"]
    assert value["value"] == sum(kept) / before["samples"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "a\nb", "."])
def test_an_image_with_a_name_that_no_file_has_is_a_missing_one(evaluate, sets, tmp_path, name):
    def rename(tree):
        tree["images"][0]["file_name"] = name

    dataset = changed(sets / "refcoco.json", tmp_path, rename)
    code, value, lines, err = evaluate(dataset, "rec", sets / "train2014", "--limit", 2)
    assert (code, value["failed"], len(err.splitlines())) == (1, 1, 1)
    assert [line["image"] for line in lines] == [name, drawn_data_sets.coco_name(0)]
    assert [line["score"] for line in lines] == [0, 1]


def test_a_broken_image_counts_as_an_empty_caption(evaluate, sets, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(cider, "missing", lambda: "")
    monkeypatch.setattr(cider, "scores", lambda said, _: given.append(said) or [0.0] * len(said))
    (tmp_path / VAL(0)).write_bytes(b"no image")
    (tmp_path / VAL(1)).symlink_to(sets / "val2014" / VAL(1))
    code, value, lines, err = evaluate(sets / "captions.json", "caption", tmp_path, "--limit", 2)
    assert (code, value["failed"], len(err.splitlines())) == (1, 1, 1)
    ((empty, said),) = given
    assert (empty, bool(said)) == ("", True)


def test_a_sample_that_cannot_be_asked_is_named_and_the_others_of_its_image_are_not(
    evaluate, sets, tmp_path
):
    def reserved(tree):
        tree["images"][0]["caption"] = "a </s> dog"

    dataset = changed(sets / "refcoco.json", tmp_path, reserved)
    code, value, (first, second, *_), err = evaluate(dataset, "rec", sets / "train2014")
    assert (code, value["failed"]) == (1, 1)
    assert first["image"] == second["image"]
    assert "contains the reserved tag </s>" in first["error"]
    assert (first["score"], second["score"]) == (0, 1)
    assert err == f"kosmos: sample 0 of {first['image']}: {first['error']}\n"


def test_expressions_of_one_image_need_not_be_in_a_row(evaluate, sets, tmp_path):
    """The image is read once, and each expression keeps its own truth."""

    def shuffle(tree):
        order = np.random.default_rng(0).permutation(len(tree["images"]))
        tree["images"] = [tree["images"][number] for number in order]

    dataset = changed(sets / "refcoco.json", tmp_path, shuffle)
    _, value, lines, _ = evaluate(dataset, "rec", sets / "train2014")
    _, before, others, _ = evaluate(sets / "refcoco.json", "rec", sets / "train2014")
    assert value["value"] == before["value"]
    scores = {other["id"]: other["score"] for other in others}
    assert {line["id"]: line["score"] for line in lines} == scores
    changes = sum(a["image"] != b["image"] for a, b in itertools.pairwise(lines))
    assert changes == SCENES - 1


# Options ---------------------------------------------------------------------------------------


def test_a_limit_takes_the_first_samples(evaluate, sets):
    _, value, lines, _ = evaluate(sets / "refcoco.json", "rec", sets / "train2014", "--limit", 3)
    assert (value["samples"], [line["id"] for line in lines]) == (3, [0, 1, 2])


def test_the_score_names_the_model_and_its_settings(evaluate, sets):
    _, value, _, _ = evaluate(
        sets / "refcoco.json", "rec", sets / "train2014", "--limit", 1, "--no-refine-boxes"
    )
    expected = {
        "task": "rec",
        "metric": "accuracy at IoU 0.5",
        "dataset": str(sets / "refcoco.json"),
        "model": "shapes",
        "device": "cpu",
        "dtype": "float32",
        "quantization": "none",
        "refine_boxes": False,
        "max_new_tokens": 128,
    }
    assert {name: value[name] for name in expected} == expected
    assert value["seconds"] > 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--limit", "0"), "--limit must be a whole number from 1 to 999999999, got '0'"),
        (("--limit", "²"), "--limit must be a whole number from 1 to 999999999, got '²'"),
        (("--limit", "9" * 5000), "--limit must be a whole number from 1 to 999999999, got '999"),
        (("--task", "ocr"), "--task must be one of rec, grounding, caption, vqa, got 'ocr'"),
        (("--annotations", "a.json"), "--annotations is for --task vqa only, got --task rec"),
        (("--task", "vqa"), "refcoco.json must have text as 'data_subtype'; it is missing"),
    ],
)
def test_an_invalid_option_is_refused(evaluate, sets, words, error):
    code, lines, err = evaluate(sets / "refcoco.json", "rec", sets / "train2014", *words)
    assert (code, lines) == (2, [])
    assert error in err


def test_a_folder_without_the_images_is_refused_at_once(evaluate, sets, tmp_path):
    code, _, err = evaluate(sets / "refcoco.json", "rec", tmp_path)
    assert code == 2
    assert err == (
        f"kosmos: --images must be the folder with the images of {sets / 'refcoco.json'}, such "
        f"as {drawn_data_sets.coco_name(0)}; {tmp_path} has none of them\n"
    )


def test_an_empty_data_set_is_refused(evaluate, sets, tmp_path):
    dataset = changed(sets / "refcoco.json", tmp_path, lambda tree: tree["images"].clear())
    code, _, err = evaluate(dataset, "rec", sets)
    assert (code, err) == (2, f"kosmos: {dataset} has no samples for --task rec\n")


def test_details_never_replace_a_file(kosmos, sets, tmp_path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    words = ("evaluate", sets / "refcoco.json", "--task", "rec", "--images", sets / "train2014")
    code, values, err = kosmos(*words, "--details", kept, *SHAPES)
    assert (code, values) == (2, [])
    assert err == f"kosmos: --details must be a new file, got {kept}: File exists\n"
    assert kept.read_text() == "mine"


def test_details_without_a_line_are_removed(kosmos, sets, tmp_path):
    details = tmp_path / "details.jsonl"
    words = ("evaluate", sets / "refcoco.json", "--task", "rec", "--images", sets / "train2014")
    code, values, _ = kosmos(*words, "--details", details, "--model", str(tmp_path / "no"))
    assert (code, values) == (1, [])
    assert not details.exists()


def test_a_full_disk_is_reported_and_the_score_is_written(evaluate, sets, monkeypatch):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        close = flush

    real = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *more, **options: (
            Full() if mode == "x" else real(path, mode, *more, **options)
        ),
    )
    code, value, _, err = evaluate(sets / "refcoco.json", "rec", sets / "train2014")
    assert (code, value["failed"]) == (1, 0)
    assert re.fullmatch("kosmos: cannot write .*/details.jsonl: No space left on device\n", err)
