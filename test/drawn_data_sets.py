# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data sets of drawn scenes in the published JSON forms, with the names of published files.

Boxes are x, y, width and height in pixels, as COCO has them.
"""

import json

import numpy as np
from PIL import Image

from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene
from training.language import NUMBERS

WIDTH, HEIGHT = 320, 240
IMAGE_SIZE = {"width": WIDTH, "height": HEIGHT}
CATEGORIES = [{"supercategory": "object", "id": 1, "name": "object"}]
PEOPLE = 10  # who answer each question of VQAv2


def coco_name(number, subset="train2014"):
    return f"COCO_{subset}_{number:012d}.jpg"


def draw(folder, count, seed=0, name=coco_name):
    """Save `count` scenes as images in `folder`, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [
        sample_scene(np.random.default_rng([seed, number]), WIDTH, HEIGHT)
        for number in range(count)
    ]
    for number, scene in enumerate(scenes):
        # At the highest quality, so that the model sees what was drawn.
        Image.fromarray(render(scene)).save(folder / name(number), quality=100, subsampling=0)
    return scenes


def pixel_box(box):
    x_min, y_min, x_max, y_max = box
    sides = x_min * WIDTH, y_min * HEIGHT, (x_max - x_min) * WIDTH, (y_max - y_min) * HEIGHT
    return [round(side, 2) for side in sides]


def write(path, tree):
    path.write_text(json.dumps(tree))
    return path


def refcoco(path, scenes):
    """Write each shape's phrase as a referring expression, in the form of MDETR's annotations."""
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        for phrase, box in scene.truth:
            key = len(images)
            images.append(
                {
                    "file_name": coco_name(number),
                    **IMAGE_SIZE,
                    "id": key,
                    "original_id": number,
                    "caption": phrase,
                    "dataset_name": "refcoco",
                    "tokens_negative": [[0, len(phrase)]],
                }
            )
            annotations.append(
                {
                    "area": 1.0,
                    "iscrowd": 0,
                    "image_id": key,
                    "category_id": 1,
                    "id": key,
                    "bbox": pixel_box(box),
                    "original_id": key,
                    "tokens_positive": [[0, len(phrase)]],
                }
            )
    tree = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    return write(path, tree | {"categories": CATEGORIES})


def flickr(path, scenes):
    """Write a sentence about each scene, in the form of MDETR's annotations."""
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        sentence, spans = "An image of ", []
        for phrase, _ in scene.truth:
            sentence += ", " if spans else ""
            spans.append([len(sentence), len(sentence) + len(phrase)])
            sentence += phrase
        images.append(
            {
                "file_name": flickr_name(number),
                "height": str(HEIGHT),  # as MDETR's files have it
                "width": str(WIDTH),
                "id": number,
                "caption": f"{sentence} .",
                "dataset_name": "flickr",
                "tokens_negative": [[0, len(sentence)]],
                "sentence_id": 0,
                "original_img_id": number,
                "tokens_positive_eval": [[span] for span in spans],
            }
        )
        for span, (_, box) in zip(spans, scene.truth, strict=True):
            annotations.append(
                {
                    "area": 1.0,
                    "iscrowd": 0,
                    "image_id": number,
                    "category_id": 1,
                    "id": len(annotations),
                    "bbox": pixel_box(box),
                    "tokens_positive": [span],
                }
            )
    tree = {"info": [], "licenses": [], "images": images, "annotations": annotations}
    return write(path, tree | {"categories": CATEGORIES})


def flickr_name(number):
    return f"{1000 + number}.jpg"


def true_captions(scene):
    names = [phrase for phrase, _ in scene.truth]
    return [f"{', '.join(names)}.", f"There is {' and '.join(names)}."]


def coco_captions(path, scenes, name=coco_name):
    """Write two captions of each scene, in the form of COCO's captions_val2014.json."""
    images = [
        {"id": number, "file_name": name(number), **IMAGE_SIZE, "license": 1}
        for number in range(len(scenes))
    ]
    annotations = [
        {"image_id": number, "id": 10 * number + each, "caption": caption}
        for number, scene in enumerate(scenes)
        for each, caption in enumerate(true_captions(scene))
    ]
    return write(path, {"info": {}, "licenses": [], "images": images, "annotations": annotations})


def vqa(folder, scenes, subset="val2014"):
    """Write two questions about each scene and ten answers to each, in the form of VQAv2.

    Return the paths of the questions and of the answers.
    """
    questions, annotations = [], []
    for number, scene in enumerate(scenes):
        phrase = scene.truth[0][0]
        for each, (question, answer) in enumerate(
            [
                ("How many shapes are there?", NUMBERS[len(scene.shapes)]),
                (f"Is there {phrase}?", "yes"),
            ]
        ):
            key = 1000 * number + each
            questions.append({"image_id": number, "question": question, "question_id": key})
            said = [answer] * (PEOPLE - 1) + ["a shape"]
            annotations.append(
                {
                    "question_type": "how many",
                    "multiple_choice_answer": answer,
                    "answers": [
                        {"answer": text, "answer_confidence": "yes", "answer_id": person}
                        for person, text in enumerate(said, 1)
                    ],
                    "image_id": number,
                    "answer_type": "other",
                    "question_id": key,
                }
            )
    head = {
        "info": {"version": "2.0"},
        "data_type": "mscoco",
        "data_subtype": subset,
        "license": {},
    }
    asked = head | {"task_type": "Open-Ended", "questions": questions}
    return (
        write(folder / f"v2_OpenEnded_mscoco_{subset}_questions.json", asked),
        write(
            folder / f"v2_mscoco_{subset}_annotations.json", head | {"annotations": annotations}
        ),
    )
