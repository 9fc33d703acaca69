# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The order of a goal's feedback: the queue, then the frame, then the text."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("kosmos_msgs", reason="kosmos_msgs is not built: run scripts/setup")

from hypothesis import given
from hypothesis import strategies as st
from kosmos_msgs.action import Generate
from kosmos_msgs.msg import BoundingBox, GroundedCaption, GroundedPhrase
from std_msgs.msg import Header

from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.ros.feedback import Feedback
from kosmos_ros.serving.work import Observation

HEADER = Header(frame_id="lens")
IMAGE = np.zeros((1, 1, 3), np.uint8)
BEGUN = Generate.Feedback(header=HEADER, camera="front")


def observed(text=""):
    return Observation("front", HEADER, IMAGE, (), 0, (Caption(text),))


def made():
    """Return the feedback of a goal, and the list of its published messages."""
    published = []
    feedback = Feedback(
        published.append, lambda so_far: GroundedCaption(caption=so_far.captions[0].text)
    )
    return feedback, published


def queued(ahead):
    return Generate.Feedback(requests_ahead=ahead)


def test_the_first_feedback_is_about_the_queue_even_if_the_model_begins_at_once():
    feedback, published = made()
    feedback.begun(observed())
    feedback.waiting(3)  # too late
    assert published == [queued(0), BEGUN]


def test_only_changes_are_published():
    feedback, published = made()
    for ahead in (2, 2, 1, 1):
        feedback.waiting(ahead)
    feedback.begun(observed())
    for text in ("", "a", "a", "a b"):
        feedback.progress(observed(text))
    texts = [message.text for message in published[3:]]
    assert (published[:3], texts) == ([queued(2), queued(1), BEGUN], ["a", "a b"])
    assert {(message.header.frame_id, message.camera) for message in published[3:]} == {
        ("lens", "front")
    }


def test_only_phrases_with_boxes_are_published():
    published = []
    phrases = [GroundedPhrase(text="a"), GroundedPhrase(text="b", boxes=[BoundingBox()])]
    feedback = Feedback(published.append, lambda _: GroundedCaption(phrases=phrases))
    feedback.progress(observed())
    assert [phrase.text for phrase in published[0].phrases] == ["b"]


@given(
    st.lists(st.integers(0, 3)),
    st.lists(st.integers(0, 3)),
    st.lists(st.text("ab", max_size=2)),
)
def test_feedback_goes_from_the_queue_to_the_frame_to_the_text(before, late, texts):
    feedback, published = made()
    for ahead in before:
        feedback.waiting(ahead)
    feedback.begun(observed())
    for ahead in late:  # the executor's thread may be late
        feedback.waiting(ahead)
    for text in texts:
        feedback.progress(observed(text))
    begun = published.index(BEGUN)
    assert begun >= 1
    assert all(message.header == Header() and not message.text for message in published[:begun])
    assert all(message.header == HEADER for message in published[begun:])
    assert all(message.requests_ahead == 0 for message in published[begun:])
    assert all(after != former for former, after in pairwise(published))
