# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is asked of every frame of a camera, and what the answers mean together.

Knows settings and prompts; no topic and no model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from kosmos_ros.errors import RequestError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption, together
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, Prompt
from kosmos_ros.serving.node_settings import CameraSettings

_NEEDED = {"phrase_grounding": "phrases", "question": "questions", "prompt": "prompt"}
"""Parameters that tasks are about."""


@dataclass(frozen=True)
class Findings:
    """What was said of a frame."""

    said: tuple[tuple[Prompt, Caption], ...]  # by the task
    phrases: tuple[Prompt, Caption] | None  # all together; see grounding.together
    answers: tuple[tuple[str, Caption], ...]  # questions with their answers


@dataclass(frozen=True)
class Plan:
    """Prompts for one frame: the task's, then one for each phrase and for each question."""

    settings: CameraSettings
    task: str  # empty where nobody listens to what it says
    caption: tuple[Prompt, ...]  # none or one
    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    lacks: str = ""  # parameter that the task needs and that is empty

    @functools.cached_property
    def prompts(self) -> list[Prompt]:
        """In the order in which `read` wants their answers. Raises RequestError: see `lacks`."""
        if self.lacks:
            raise RequestError(f"task is {self.task}, but parameter {self.lacks} is empty")
        return [
            *self.caption,
            *(prompts.phrase_grounding(phrase) for phrase in self.phrases),
            *(
                prompts.question(question, grounded=self.settings.grounded)
                for question in self.questions
            ),
        ]

    def read(self, captions: Sequence[Caption]) -> Findings:
        """Sort the answers to `prompts`."""
        answered = list(zip(self.prompts, captions, strict=True))
        first = len(self.caption)
        second = first + len(self.phrases)
        phrases = None
        if self.phrases:
            found = together(self.phrases, captions[first:second], self.settings.min_score)
            phrases = prompts.joined(self.prompts[first:second]), found
        said = answered[:first]
        if self.task == "phrase_grounding" and phrases:
            said = [phrases]
        elif self.task == "question":
            said = answered[second:]
        questions = zip(self.questions, captions[second:], strict=True)
        return Findings(tuple(said), phrases, tuple(questions))


def plan(
    settings: CameraSettings, said: bool = True, phrases: bool = True, answers: bool = True
) -> Plan:
    """The plan of a camera; somebody listens to what is `said`, to `phrases`, to `answers`."""
    task = settings.task
    needed = _NEEDED.get(task, "")
    lacks = needed if said and needed and not getattr(settings, needed) else ""
    caption: tuple[Prompt, ...] = ()
    if said and task in CAPTION_TASKS:
        caption = (prompts.caption(task, settings.grounded),)
    elif said and task == "prompt" and settings.prompt:
        caption = (prompts.raw(settings.prompt),)
    return Plan(
        settings,
        task if said else "",
        caption,
        _each(settings.phrases if phrases or (said and task == "phrase_grounding") else ()),
        _each(settings.questions if answers or (said and task == "question") else ()),
        lacks,
    )


def _each(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Without repetitions, which would count twice in every frame."""
    return tuple(dict.fromkeys(texts))
