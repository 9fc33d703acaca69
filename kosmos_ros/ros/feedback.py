# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The feedback of one goal: its place in the queue, then its frame, then its text so far.

Knows messages; no queue and no model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kosmos_msgs.action import Generate
from kosmos_msgs.msg import GroundedCaption

from kosmos_ros.serving.work import Observation


class Feedback:
    """Publish feedback of a goal with `publish` if it differs from the latest one.

    `message` makes the message of the text so far. Any thread may call the methods.
    """

    def __init__(
        self,
        publish: Callable[[Generate.Feedback], Any],
        message: Callable[[Observation], GroundedCaption],
    ) -> None:
        self._publish = publish
        self._message = message
        self._lock = threading.Lock()  # keeps the messages in order
        self._begun = False
        self._sent: Generate.Feedback | None = None

    def waiting(self, ahead: int) -> None:
        """Report the number of requests that go before the goal, until the model begins."""
        with self._lock:
            if not self._begun:
                self._send(Generate.Feedback(requests_ahead=ahead))

    def begun(self, observation: Observation) -> None:
        """Report the image when the model begins."""
        with self._lock:
            self._begun = True
            if self._sent is None:  # the first feedback is always about the queue
                self._send(Generate.Feedback())
            self._send(_of(observation))

    def progress(self, so_far: Observation) -> None:
        """Report the text so far, and the phrases that have boxes."""
        message = self._message(so_far)
        feedback = _of(so_far)
        feedback.text = message.caption
        feedback.phrases = [phrase for phrase in message.phrases if phrase.boxes]
        with self._lock:
            self._send(feedback)

    def _send(self, feedback: Generate.Feedback) -> None:
        if feedback != self._sent:  # a token may add no text, such as one of a box
            self._sent = feedback
            self._publish(feedback)


def _of(observation: Observation) -> Generate.Feedback:
    return Generate.Feedback(header=observation.header, camera=str(observation.camera))
