# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Phrases, questions and tasks that apply to every frame, with a fake engine."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.msg import Answer, GroundedCaption
from node_harness import SNOWMAN_BOX


def test_phrases_and_questions_of_a_frame_form_one_batch(start):
    harness = start(
        phrases=["a dog", "a man"], questions=["Who is it?", "Is it warm?"], max_rate=0
    )
    harness.engine.outputs = {
        "a man": (SNOWMAN_BOX, (0.25, 1.0)),
        "a dog": ("", ()),
        "Who": (" a snowman.", ()),
        "warm": (" no.", ()),
    }
    phrases = harness.collect(GroundedCaption, "kosmos/phrases")
    answers = harness.collect(Answer, "kosmos/answers")
    harness.subscribe_to_captions()
    parts = {"task", "phrases", "questions"}
    harness.until(lambda: harness.camera._wanted_parts(harness.camera.settings) == parts)
    sent = harness.send()
    harness.until(lambda: harness.captions and phrases and len(answers) == 2)
    assert (harness.engine.batches, len(harness.engine.mean_colours)) == ([5], 1)
    assert [(p.text, len(p.boxes)) for p in phrases[0].phrases] == [("a dog", 0), ("a man", 1)]
    assert (phrases[0].header, phrases[0].task) == (sent.header, "phrase_grounding")
    assert [(a.question, a.answer) for a in answers] == [
        ("Who is it?", "a snowman."),
        ("Is it warm?", "no."),
    ]
    assert all(answer.header == sent.header for answer in answers)
    assert answers[0].score == pytest.approx(0.75)


def test_an_answer_has_its_phrases_with_boxes_in_pixels(start):
    harness = start(questions=["Who is it?"], max_rate=0)
    answers = harness.collect(Answer, "kosmos/answers")
    harness.until(lambda: harness.has_subscriber("answers"))
    harness.engine.outputs = {
        "<grounding> Question": (f" it is<phrase> a snowman</phrase>{SNOWMAN_BOX}.", (0.25, 1.0)),
        "Question": (" it is a snowman.", ()),
    }
    harness.send(width=320, height=240)
    harness.until(lambda: len(answers) == 1)
    ((phrase,),) = [answer.phrases for answer in answers]
    assert (answers[0].answer, phrase.text) == ("it is a snowman.", "a snowman")
    assert answers[0].answer[phrase.start : phrase.end] == phrase.text
    (box,) = phrase.boxes
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (125.0, 11.25, 315.0, 198.75)
    assert box.score == 0.5
    harness.set_parameter("grounded", False)
    harness.send()
    harness.until(lambda: len(answers) == 2)
    assert (answers[1].answer, answers[1].phrases) == ("it is a snowman.", [])


@pytest.mark.parametrize(
    ("values", "batch", "captions"),
    [
        (
            {"task": "phrase_grounding", "phrases": ["a man", "a dog"]},
            2,
            [("phrase_grounding", "a man")],
        ),
        (
            {"task": "question", "questions": ["Who?", "Why?"]},
            2,
            [("question", "a man."), ("question", "it is cold.")],
        ),
        ({"task": "prompt", "prompt": "It is"}, 1, [("prompt", "a man.")]),
    ],
)
def test_task_selects_the_captions(start, values, batch, captions):
    harness = start(max_rate=0, **values).subscribe_to_captions()
    harness.engine.outputs = {
        "a man": (SNOWMAN_BOX, (1, 1)),
        "a dog": ("", ()),
        "Why": (" it is cold.", ()),
        "": (" a man.", ()),
    }
    harness.send()
    harness.until(lambda: len(harness.captions) == len(captions))
    assert [(caption.task, caption.caption) for caption in harness.captions] == captions
    assert harness.engine.batches == [batch]


def test_frame_with_too_many_prompts_for_the_device_is_split(start):
    harness = start(
        phrases=["a dog", "a man", "a cat"], max_rate=0, task="phrase_grounding"
    ).subscribe_to_captions()
    harness.engine.fails_in_batches_of = 2
    harness.send()
    (caption,) = harness.until(lambda: harness.captions)
    assert [phrase.text for phrase in caption.phrases] == ["a dog", "a man", "a cat"]
    assert harness.engine.batches == [3, 1, 1, 1]
