# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""When each topic of a camera is wanted, and its messages of one described frame."""

import dataclasses
import io

import numpy as np
import pytest

pytest.importorskip("kosmos_msgs", reason="kosmos_msgs is not built: run scripts/setup")

from builtin_interfaces.msg import Time
from kosmos_msgs.msg import Answer, Event, GroundedCaption
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from kosmos_ros.images.drawing import annotate
from kosmos_ros.images.size import MAX_SIDE
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase
from kosmos_ros.ros import outputs
from kosmos_ros.ros.conversions import Detection2DArray, seconds
from kosmos_ros.ros.outputs import OUTPUTS, DescribedFrame
from kosmos_ros.serving import events
from kosmos_ros.serving.node_settings import CameraSettings
from kosmos_ros.serving.plan import TASK, Plan
from kosmos_ros.serving.work import Observation

SETTINGS = CameraSettings(phrases=("a man", "a dog"), questions=("Is there snow?", "Where?"))
ALL = (TASK, "phrases", "questions")
HEADER = Header(frame_id="lens", stamp=Time(sec=10, nanosec=500_000_000))
IMAGE = np.zeros((100, 200, 3), np.uint8)
MAN = Box(0.25, 0.5, 0.75, 1.0, score=0.5)
ICE = Box(0.0, 0.0, 0.5, 0.5, score=0.25)
CAPTION = Caption("An image of ice", (Phrase("ice", 12, 15, (ICE,)),), "raw", score=0.75)
ANSWERS = {
    TASK: [CAPTION],
    "phrases": [
        Caption("a man", (Phrase("a man", 0, 5, (MAN,)),)),
        Caption("a dog", (Phrase("a dog", 0, 5, ()),)),
    ],
    "questions": [
        Caption("Yes", score=0.5),
        Caption("Here on ice", (Phrase("ice", 8, 11, (ICE,)),), score=0.25),
    ],
}

outputs_by_topic = {output.topic: output for output in OUTPUTS}
needs_vision_msgs = pytest.mark.skipif(
    Detection2DArray is None, reason="vision_msgs is not installed"
)


def described(*parts, settings=SETTINGS, happened=(), answers=None):
    """Return a frame that some parts of a plan describe."""
    plan = Plan(settings, parts)
    if answers is None:
        answers = [caption for part in ALL if part in parts for caption in ANSWERS[part]]
    observation = Observation(
        "front", HEADER, IMAGE, tuple(plan.prompts), 3, tuple(answers), inference_time=0.25
    )
    return DescribedFrame(observation, plan.read(answers), tuple(happened), "shapes", now=12.0)


def messages(topic, frame):
    made = list(outputs_by_topic[topic].make(frame))
    assert all(isinstance(message, outputs_by_topic[topic].type) for message in made)
    return made


def test_each_topic_has_its_type():
    assert {
        topic: output.type for topic, output in outputs_by_topic.items() if topic != "detections"
    } == {
        "captions": GroundedCaption,
        "text": String,
        "phrases": GroundedCaption,
        "answers": Answer,
        "events": Event,
        "annotated": Image,
        "annotated/compressed": CompressedImage,
        "frame/compressed": CompressedImage,
    }
    assert ("detections" in outputs_by_topic) == (Detection2DArray is not None)


def test_only_images_are_slow():
    slow = [output.topic for output in OUTPUTS if output.slow]
    assert slow == ["annotated", "annotated/compressed", "frame/compressed"]


@pytest.mark.parametrize(
    ("topic", "parts"),
    [
        ("captions", (TASK,)),
        ("text", (TASK,)),
        ("phrases", ("phrases",)),
        ("answers", ("questions",)),
        ("events", ("phrases", "questions")),
        ("annotated", (TASK,)),
        ("annotated/compressed", (TASK,)),
        ("frame/compressed", ()),
    ],
)
@pytest.mark.parametrize("settings", [CameraSettings(), SETTINGS])
def test_each_topic_wants_its_parts_of_the_plan(topic, parts, settings):
    assert outputs_by_topic[topic].when(settings) == parts


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (CameraSettings(), (TASK,)),
        (CameraSettings(questions=("Is there snow?",)), (TASK,)),
        (SETTINGS, ("phrases",)),
    ],
)
def test_detections_want_the_phrases_or_else_the_caption(settings, parts):
    assert outputs._boxes(settings) == parts


def test_the_caption_has_the_frames_header_and_its_latency():
    (message,) = messages("captions", described(*ALL))
    assert (message.header, message.camera, message.model) == (HEADER, "front", "shapes")
    assert (message.caption, message.raw_text, message.task) == (
        "An image of ice",
        "raw",
        "brief_caption",
    )
    assert (message.image_width, message.image_height, message.frames_dropped) == (200, 100, 3)
    assert (seconds(message.latency), seconds(message.inference_time)) == (1.5, 0.25)
    ((box,),) = [phrase.boxes for phrase in message.phrases]
    assert (box.x_max, box.y_max, box.score) == (100.0, 50.0, 0.25)


def test_the_text_is_that_of_the_caption():
    frame = described(*ALL)
    assert messages("text", frame) == [String(data="An image of ice")]
    assert frame.captions is frame.captions  # made once for all topics


def test_each_answer_to_the_task_has_a_caption_and_a_text():
    settings = dataclasses.replace(SETTINGS, task="question")
    frame = described(TASK, settings=settings, answers=ANSWERS["questions"])
    assert [message.caption for message in messages("captions", frame)] == ["Yes", "Here on ice"]
    assert [message.data for message in messages("text", frame)] == ["Yes", "Here on ice"]


def test_the_phrases_are_one_message():
    (message,) = messages("phrases", described(*ALL))
    assert (message.caption, message.task) == ("a man", "phrase_grounding")
    assert [(phrase.text, len(phrase.boxes)) for phrase in message.phrases] == [
        ("a man", 1),
        ("a dog", 0),
    ]
    assert seconds(message.latency) == 1.5


def test_each_question_has_an_answer():
    made = messages("answers", described(*ALL))
    assert [(answer.question, answer.answer, answer.score) for answer in made] == [
        ("Is there snow?", "Yes", 0.5),
        ("Where?", "Here on ice", 0.25),
    ]
    phrases = [[(phrase.text, phrase.start, phrase.end) for phrase in a.phrases] for a in made]
    assert phrases == [[], [("ice", 8, 11)]]
    assert made[1].phrases[0].boxes[0].x_max == 100.0
    assert all((answer.header, answer.camera) == (HEADER, "front") for answer in made)


def test_each_event_has_a_message():
    since = Time(sec=9)
    happened = [
        events.Event("appeared", "a man", since, (Phrase("a man", 0, 5, (MAN,)),)),
        events.Event("disappeared", "a dog", since),
        events.Event("answered", "Where?", since, answer="Here", previous="There"),
    ]
    made = messages("events", described(*ALL, happened=happened))
    assert [(event.kind, event.subject) for event in made] == [
        (Event.APPEARED, "a man"),
        (Event.DISAPPEARED, "a dog"),
        (Event.ANSWERED, "Where?"),
    ]
    assert [len(event.phrases) for event in made] == [1, 0, 0]
    assert made[0].phrases[0].boxes[0].x_max == 150.0
    assert (made[2].answer, made[2].previous) == ("Here", "There")
    assert all((event.header, event.since) == (HEADER, since) for event in made)
    assert messages("events", described(*ALL)) == []


@pytest.mark.parametrize("parts", [(TASK,), ("phrases",), ("questions",)])
def test_a_topic_whose_part_was_not_asked_has_no_messages(parts):
    frame = described(*parts)
    assert bool(messages("captions", frame)) == (TASK in parts)
    assert bool(messages("text", frame)) == (TASK in parts)
    assert bool(messages("phrases", frame)) == ("phrases" in parts)
    assert bool(messages("answers", frame)) == ("questions" in parts)
    assert bool(messages("annotated", frame)) == (TASK in parts)
    assert bool(messages("annotated/compressed", frame)) == (TASK in parts)
    assert len(messages("frame/compressed", frame)) == 1


def test_the_drawing_shows_the_boxes_of_the_caption():
    frame = described(*ALL)
    expected = annotate(IMAGE, CAPTION)
    (message,) = messages("annotated", frame)
    assert (message.header, message.encoding, message.width) == (HEADER, "rgb8", 200)
    pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    assert np.array_equal(pixels, expected)
    (compressed,) = messages("annotated/compressed", frame)
    assert (compressed.header, compressed.format) == (HEADER, "rgb8; jpeg compressed bgr8")
    image = Pillow.open(io.BytesIO(bytes(compressed.data)))
    assert image.size == (200, expected.shape[0])
    assert frame.annotated is frame.annotated  # drawn once for both topics


def frame_from(source):
    """Return the message of ~/frame/compressed for a frame whose image message is `source`."""
    frame = described(*ALL)
    observation = dataclasses.replace(frame.observation, source=source)
    (message,) = messages("frame/compressed", dataclasses.replace(frame, observation=observation))
    return message


@pytest.mark.parametrize(
    "format", ["jpeg", "rgb8; png compressed ", "bayer_rggb8; jpeg compressed bgr8"]
)
def test_the_frame_of_a_compressed_image_is_published_as_it_came(format):
    source = CompressedImage(header=HEADER, format=format, data=b"not even an image")
    assert frame_from(source) is source


@pytest.mark.parametrize(
    "source",
    [
        Image(header=HEADER, encoding="rgb8"),
        # Viewers show the values of these files and not the image that was described.
        CompressedImage(header=HEADER, format="16UC1; png compressed "),
        CompressedImage(header=HEADER, format="16UC1; compressedDepth png"),
        CompressedImage(header=HEADER, format="mono16; png compressed "),
        CompressedImage(header=HEADER, format="bayer_rggb8; png compressed "),
    ],
)
def test_the_frame_of_any_other_image_is_a_jpeg_without_drawing(source):
    message = frame_from(source)
    assert (message.header, message.format) == (HEADER, "rgb8; jpeg compressed bgr8")
    image = Pillow.open(io.BytesIO(bytes(message.data)))
    assert np.array_equal(np.asarray(image), IMAGE)


@pytest.mark.parametrize(
    ("parts", "phrase", "x_max"), [(ALL, "a man", 150), ((TASK,), "ice", 100)]
)
def test_detections_are_the_boxes_of_the_phrases_or_else_of_the_caption(
    monkeypatch, parts, phrase, x_max
):
    made = []
    monkeypatch.setattr(outputs, "detections_message", lambda *of: made.append(of))
    frame = described(*parts)
    outputs._detections(frame)
    ((observation, phrases),) = made
    assert observation is frame.observation
    boxes = [(found.text, box.scaled(200, 100).x_max) for found in phrases for box in found.boxes]
    assert boxes == [(phrase, x_max)]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"grounded": False}, "parameter grounded is false"),
        ({"grounded": False, "task": "question"}, "parameter grounded is false"),
        ({"grounded": False, "phrases": ("a dog",)}, ""),
        ({"grounded": False, "task": "phrase_grounding"}, ""),
        ({"grounded": False, "task": "prompt", "prompt": "<grounding> Hi"}, ""),
        ({"task": "prompt", "prompt": "Hi"}, "parameter prompt has no <grounding>"),
    ],
)
def test_detections_are_known_to_be_empty_if_no_prompt_asks_for_boxes(values, reason):
    assert outputs._no_boxes(CameraSettings(**values)) == reason


def test_the_first_answer_of_several_has_the_detections(monkeypatch):
    made = []
    monkeypatch.setattr(outputs, "detections_message", lambda *of: made.append(of))
    settings = CameraSettings(task="question", questions=SETTINGS.questions)
    outputs._detections(described(TASK, settings=settings, answers=ANSWERS["questions"]))
    assert len(made) == 1
    outputs._detections(described("questions", settings=settings, answers=ANSWERS["questions"]))
    assert len(made) == 1


@needs_vision_msgs
def test_detections_are_in_pixels_with_the_phrase_as_their_class():
    (message,) = messages("detections", described(*ALL))
    (detection,) = message.detections
    (result,) = detection.results
    assert (message.header, detection.header) == (HEADER, HEADER)
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("a man", 0.5)
    center = detection.bbox.center.position
    assert (center.x, center.y) == (100.0, 75.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (100.0, 50.0)


@pytest.mark.parametrize(
    ("width", "height"), [(1, MAX_SIDE), (60, MAX_SIDE), (MAX_SIDE, 1), (MAX_SIDE, 60)]
)
def test_the_longest_frames_can_be_drawn_and_published_as_a_jpeg(width, height):
    """The strip of text may be as tall as the frame; libjpeg's limit is 65,500 pixels."""
    caption = Caption("a dog " * 5000, (Phrase("a dog", 0, 5, (MAN,)),))
    plan = Plan(SETTINGS, (TASK,))
    image = np.zeros((height, width, 3), np.uint8)
    observation = Observation("front", HEADER, image, tuple(plan.prompts), 0, (caption,))
    frame = DescribedFrame(observation, plan.read([caption]), (), "shapes", now=12.0)
    (raw,) = messages("annotated", frame)
    (jpeg,) = messages("annotated/compressed", frame)
    drawn = Pillow.open(io.BytesIO(jpeg.data.tobytes()))
    assert drawn.size == (raw.width, raw.height) == frame.annotated[0].shape[1::-1]
    assert (raw.width, raw.height > height) == (width, True)
