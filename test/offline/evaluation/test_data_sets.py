# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The readers of data sets, on short files in the published forms. The content is invented."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.errors import ConfigError
from kosmos_ros.offline.evaluation import datasets
from kosmos_ros.offline.evaluation.datasets import Sample

REFCOCO = """
{"info": {"year": 2014}, "licenses": [{"id": 1}],
 "images": [
  {"file_name": "COCO_train2014_000000123456.jpg", "height": 427, "width": 640, "id": 0,
   "original_id": 123456, "caption": "left dog", "dataset_name": "refcoco",
   "tokens_negative": [[0, 4]]},
  {"file_name": "COCO_train2014_000000123456.jpg", "height": 427, "width": 640, "id": 1,
   "original_id": 123456, "caption": "the dog that looks at you", "dataset_name": "refcoco",
   "tokens_negative": []}],
 "annotations": [
  {"area": 100.5, "iscrowd": 0, "image_id": 1, "category_id": 18, "id": 1,
   "bbox": [10, 20.5, 30, 40], "original_id": 77, "tokens_positive": [[4, 7]]},
  {"area": 100.5, "iscrowd": 0, "image_id": 0, "category_id": 18, "id": 0,
   "bbox": [200.0, 20.0, 31.25, 42.0], "original_id": 78, "tokens_positive": [[5, 8]]}],
 "categories": [{"supercategory": "animal", "id": 18, "name": "dog"}]}
"""
FLICKR = """
{"info": [], "licenses": [],
 "images": [
  {"file_name": "4711.jpg", "height": "375", "width": "500", "id": 7,
   "caption": "Two men in hats feed a dog .", "dataset_name": "flickr",
   "tokens_negative": [[0, 28]], "sentence_id": 3, "original_img_id": 4711,
   "tokens_positive_eval": [[[0, 7]], [[11, 15]], [[21, 26]]]}],
 "annotations": [
  {"area": 4, "iscrowd": 0, "image_id": 7, "category_id": 1, "id": 0,
   "bbox": [1.0, 2.0, 100.0, 200.0], "tokens_positive": [[0, 7]]},
  {"area": 4, "iscrowd": 0, "image_id": 7, "category_id": 1, "id": 1,
   "bbox": [201.0, 2.0, 100.0, 200.0], "tokens_positive": [[0, 7]]},
  {"area": 4, "iscrowd": 0, "image_id": 7, "category_id": 1, "id": 2,
   "bbox": [21.0, 2.0, 10.0, 20.0], "tokens_positive": [[11, 15], [21, 26]]}],
 "categories": [{"supercategory": "object", "id": 1, "name": "object"}]}
"""
COCO = """
{"info": {"description": "COCO 2014 Dataset"},
 "images": [
  {"license": 5, "file_name": "COCO_val2014_000000000042.jpg", "coco_url": "http://images/42.jpg",
   "height": 478, "width": 640, "date_captured": "2013-11-18 09:08:09", "id": 42},
  {"license": 5, "file_name": "COCO_val2014_000000000073.jpg", "height": 478, "width": 640,
   "id": 73}],
 "licenses": [],
 "annotations": [
  {"image_id": 73, "id": 1, "caption": "A motorcycle in a yard."},
  {"image_id": 42, "id": 2, "caption": "A dog on shoes."},
  {"image_id": 73, "id": 3, "caption": "Someone parked a motorcycle"}]}
"""
KARPATHY_COCO = """
{"images": [
  {"filepath": "val2014", "sentids": [770337], "filename": "COCO_val2014_000000000042.jpg",
   "imgid": 0, "split": "test", "cocoid": 42,
   "sentences": [{"tokens": ["a", "dog", "on", "shoes"], "raw": "A dog on shoes.", "imgid": 0,
                  "sentid": 770337}]},
  {"filepath": "val2014", "sentids": [1], "filename": "COCO_val2014_000000000073.jpg",
   "imgid": 1, "split": "restval", "cocoid": 73,
   "sentences": [{"tokens": ["x"], "raw": "x", "imgid": 1, "sentid": 1}]}],
 "dataset": "coco"}
"""
KARPATHY_FLICKR = """
{"images": [
  {"sentids": [0, 1], "imgid": 6, "split": "test", "filename": "1000092795.jpg",
   "sentences": [{"tokens": ["two", "men"], "raw": "Two men.", "imgid": 6, "sentid": 0},
                 {"tokens": ["men"], "raw": "Men outside .", "imgid": 6, "sentid": 1}]},
  {"sentids": [2], "imgid": 7, "split": "train", "filename": "10002456.jpg",
   "sentences": [{"tokens": ["x"], "raw": "x", "imgid": 7, "sentid": 2}]}],
 "dataset": "flickr30k"}
"""
QUESTIONS = """
{"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco",
 "license": {"name": "CC"}, "data_subtype": "val2014",
 "questions": [
  {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
  {"image_id": 42, "question": "Is it red?", "question_id": 42001}]}
"""
ANSWERS = """
{"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": "val2014", "license": {},
 "annotations": [
  {"question_type": "is it", "multiple_choice_answer": "yes", "image_id": 42,
   "answer_type": "yes/no", "question_id": 42001,
   "answers": [{"answer": "yes", "answer_confidence": "maybe", "answer_id": 1},
               {"answer": "no", "answer_confidence": "yes", "answer_id": 2}]},
  {"question_type": "where is", "multiple_choice_answer": "down", "image_id": 262148,
   "answer_type": "other", "question_id": 262148000,
   "answers": [{"answer": "down", "answer_confidence": "yes", "answer_id": 1},
               {"answer": "at table", "answer_confidence": "yes", "answer_id": 2}]}]}
"""


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(text, name="data.json"):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    return write


def test_a_referring_expression_has_the_box_of_its_entry(written):
    image, size = "COCO_train2014_000000123456.jpg", (640, 427)
    assert datasets.referring_expressions(written(REFCOCO)) == [
        Sample(0, image, "left dog", size=size, boxes=((200, 20, 231.25, 62),)),
        Sample(1, image, "the dog that looks at you", size=size, boxes=((10, 20.5, 40, 60.5),)),
    ]


def test_a_phrase_has_the_words_before_it_and_all_its_boxes(written):
    men, hats, dog = datasets.phrases(written(FLICKR))
    assert (men.text, men.before) == ("Two men", "")
    assert men.boxes == ((1, 2, 101, 202), (201, 2, 301, 202))
    assert (hats.text, hats.before) == ("hats", "Two men in ")
    assert (dog.text, dog.before) == ("a dog", "Two men in hats feed ")
    assert dog.boxes == hats.boxes == ((21, 2, 31, 22),)  # one box is that of two phrases
    assert {each.file for each in (men, hats, dog)} == {"4711.jpg"}
    assert {each.size for each in (men, hats, dog)} == {(500, 375)}
    assert len({each.key for each in (men, hats, dog)}) == 3


def test_an_image_of_coco_has_all_its_captions(written):
    assert datasets.captions(written(COCO)) == [
        Sample(42, "COCO_val2014_000000000042.jpg", texts=("A dog on shoes.",)),
        Sample(
            73,
            "COCO_val2014_000000000073.jpg",
            texts=("A motorcycle in a yard.", "Someone parked a motorcycle"),
        ),
    ]


def test_the_test_part_of_karpathys_splits_is_read(written):
    assert datasets.captions(written(KARPATHY_COCO)) == [
        Sample(42, "val2014/COCO_val2014_000000000042.jpg", texts=("A dog on shoes.",))
    ]
    assert datasets.captions(written(KARPATHY_FLICKR)) == [
        Sample(6, "1000092795.jpg", texts=("Two men.", "Men outside ."))
    ]


def test_a_question_has_the_answers_with_its_id(written):
    asked = written(QUESTIONS)
    answers = written(ANSWERS, "answers.json")
    looking, red = datasets.questions(asked, answers)
    assert (looking.key, looking.text) == (262148000, "Where is he looking?")
    assert looking.file == "COCO_val2014_000000262148.jpg"
    assert looking.texts == ("down", "at table")
    assert (red.texts, red.file) == (("yes", "no"), "COCO_val2014_000000000042.jpg")
    assert [each.texts for each in datasets.questions(asked)] == [(), ()]


def test_questions_of_test_dev_are_about_the_test_images(written):
    (first, _) = datasets.questions(written(QUESTIONS.replace("val2014", "test-dev2015")))
    assert first.file == "COCO_test2015_000000262148.jpg"


NAME = "COCO_val2014_000000000042.jpg"


@pytest.mark.parametrize(
    ("stored", "file"),
    [
        (NAME, NAME),
        (f"val2014/{NAME}", NAME),
        (f"val2014/{NAME}", f"val2014/{NAME}"),
        (NAME, f"val2014/{NAME}"),
    ],
)
def test_an_image_is_found_in_its_folder_or_in_the_one_above(tmp_path, stored, file):
    path = tmp_path / stored
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert datasets.find_image(tmp_path, file) == path


@pytest.mark.parametrize("name", [NAME, "x" * 300, "a\0b", "\ud800"])
def test_an_image_that_is_nowhere_is_looked_for_in_the_folder(tmp_path, name):
    assert datasets.find_image(tmp_path, name) == tmp_path / name


# Files that are not as published ---------------------------------------------------------------


def changed(text, *keys, value):
    """Return a JSON text with another value at a place; None: without the entry."""
    tree = json.loads(text)
    *most, last = keys
    place = tree
    for key in most:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg"])
def test_an_image_outside_the_folder_of_images_is_refused(written, name):
    for read, text, *keys in (
        (datasets.referring_expressions, REFCOCO, "images", 0, "file_name"),
        (datasets.captions, KARPATHY_COCO, "images", 0, "filename"),
        (datasets.captions, KARPATHY_COCO, "images", 0, "filepath"),
    ):
        with pytest.raises(ConfigError, match="must have an image in the folder of images, got"):
            read(written(changed(text, *keys, value=name)))


@pytest.mark.parametrize(
    ("read", "text", "error"),
    [
        ("referring_expressions", "{", "must be JSON: "),
        ("referring_expressions", "\x80", "must be JSON: "),
        ("referring_expressions", "[" * 100_000, "must be JSON: "),
        ("referring_expressions", "[]", "must be a JSON object, got []"),
        ("referring_expressions", QUESTIONS, "must have a list as 'annotations'; it is missing"),
        (
            "referring_expressions",
            FLICKR,
            "images[0] of FILE must have one entry in annotations, got 3",
        ),
        (
            "referring_expressions",
            changed(REFCOCO, "images", 1, "caption", value=5),
            "images[1] of FILE must have text as 'caption', got 5",
        ),
        (
            "referring_expressions",
            changed(REFCOCO, "images", 1, "width", value=0),
            "images[1] of FILE must have a positive number as 'width', got 0",
        ),
        (
            "referring_expressions",
            changed(REFCOCO, "images", 0, value="x"),
            "images[0] of FILE must be an object, got 'x'",
        ),
        (
            "referring_expressions",
            changed(REFCOCO, "annotations", 0, "bbox", value=[1, 2, -3, 4]),
            "annotations[0] of FILE must have x, y, width and height as 'bbox', got [1, 2, -3, 4]",
        ),
        (
            "phrases",
            REFCOCO,
            "images[0] of FILE must have a list as 'tokens_positive_eval'; it is missing",
        ),
        (
            "phrases",
            changed(FLICKR, "images", 0, "tokens_positive_eval", 0, value=[[0, 29]]),
            "images[0] of FILE must have phrases inside its caption, got [0, 29]",
        ),
        (
            "phrases",
            changed(FLICKR, "images", 0, "tokens_positive_eval", 0, value=[[0, 8]]),
            "images[0] of FILE must have a box for each phrase, got none for [0, 8]",
        ),
        (
            "phrases",
            changed(FLICKR, "images", 0, "tokens_positive_eval", 0, value=[]),
            "images[0] of FILE must have lists of places as 'tokens_positive_eval', got [[], ",
        ),
        (
            "phrases",
            changed(FLICKR, "annotations", 0, "tokens_positive", value=[[7, 0]]),
            "of FILE must have places (start, end) in 'tokens_positive', got [[7, 0]]",
        ),
        (
            "captions",
            changed(COCO, "annotations", 1, value=None),
            "images[0] of FILE must have a caption in annotations, got none",
        ),
        ("captions", QUESTIONS, "FILE must have a list as 'images'; it is missing"),
        (
            "captions",
            changed(KARPATHY_FLICKR, "images", 0, "sentences", 0, "raw", value=None),
            "sentences[0] of images[0] of FILE must have text as 'raw'; it is missing",
        ),
        ("questions", COCO, "FILE must have text as 'data_subtype'; it is missing"),
        (
            "questions",
            changed(QUESTIONS, "questions", 0, "image_id", value=True),
            "questions[0] of FILE must have a whole number as 'image_id', got True",
        ),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(written, read, text, error):
    path = written("")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as refused:
        getattr(datasets, read)(path)
    assert error.replace("FILE", str(path)) in str(refused.value)


def test_a_question_without_answers_is_refused(written):
    answers = written(changed(ANSWERS, "annotations", 0, value=None), "answers.json")
    with pytest.raises(ConfigError, match=r"questions\[1\] of .* got none for 42001"):
        datasets.questions(written(QUESTIONS), answers)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match="cannot read /no/file.json: No such file"):
        datasets.captions(Path("/no/file.json"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
PLACES = {
    "referring_expressions": (REFCOCO, [("images", 0, "width"), ("annotations", 0, "bbox"),
                                        ("annotations", 0, "image_id"), ("images",)]),
    "phrases": (FLICKR, [("images", 0, "tokens_positive_eval"), ("annotations", 0, "bbox"),
                         ("annotations", 0, "tokens_positive"), ("images", 0, "caption")]),
    "captions": (COCO, [("images", 0, "id"), ("annotations", 0), ("annotations",)]),
    "questions": (QUESTIONS, [("questions", 0, "image_id"), ("data_subtype",), ("questions",)]),
}  # fmt: skip


@given(st.data())
def test_any_json_in_any_place_is_read_or_refused(tmp_path_factory, data):
    read, (text, places) = data.draw(st.sampled_from(sorted(PLACES.items())))
    tree = json.loads(changed(text, *data.draw(st.sampled_from(places)), value="here"))
    path = tmp_path_factory.getbasetemp() / "any.json"
    value = json.dumps(data.draw(JSON))
    path.write_text(json.dumps(tree).replace('"here"', value))
    try:
        samples = getattr(datasets, read)(path)
    except ConfigError as exc:
        assert str(path) in str(exc)
    else:
        assert all(isinstance(sample, Sample) for sample in samples)
