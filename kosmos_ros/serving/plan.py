# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is asked of every frame of a camera, and what the answers mean together.

Knows settings and prompts; no topic and no model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from kosmos_ros.errors import RequestError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption, Phrase, together
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, Prompt
from kosmos_ros.serving.events import Change, Event
from kosmos_ros.serving.node_settings import CameraSettings

Said = tuple[Prompt, Caption]
"""A prompt and what the model said to it."""

TASK = "task"
"""Name of the part of a plan that ~/captions shows, beside the names of STANDING."""


@dataclass(frozen=True)
class Finding:
    """What one frame says about one subject."""

    subject: str
    value: Hashable  # what events compare from frame to frame
    phrases: tuple[Phrase, ...] = ()  # with boxes, if the subject has been found


@dataclass(frozen=True)
class Standing:
    """A question that is asked of every frame, once for each subject that a parameter lists."""

    name: str  # of the parameter that lists the subjects, and of the plan's part
    task: str  # value of the parameter `task` under which the answers are the caption
    prompt: Callable[[str, CameraSettings], Prompt]
    said: Callable[[Sequence[Said], Sequence[str], CameraSettings], tuple[Said, ...]]
    """What is published of the answers to all subjects."""
    found: Callable[[Sequence[Said], Sequence[str]], tuple[Finding, ...]]
    """What `said` says about each subject."""
    first: Hashable  # a subject's value before the first frame
    event: Callable[[Change, Finding], Event]

    def subjects(self, settings: CameraSettings) -> tuple[str, ...]:
        """Return the subjects, each once."""
        return tuple(dict.fromkeys(getattr(settings, self.name)))


def _together(
    said: Sequence[Said], phrases: Sequence[str], settings: CameraSettings
) -> tuple[Said, ...]:
    captions = [caption for _, caption in said]
    joined = prompts.joined([prompt for prompt, _ in said])
    return ((joined, together(phrases, captions, settings.min_score)),)


def _phrases_found(said: Sequence[Said], phrases: Sequence[str]) -> tuple[Finding, ...]:
    ((_, caption),) = said
    return tuple(Finding(phrase.text, bool(phrase.boxes), (phrase,)) for phrase in caption.phrases)


def _answers_found(said: Sequence[Said], questions: Sequence[str]) -> tuple[Finding, ...]:
    return tuple(
        Finding(question, caption.text)
        for question, (_, caption) in zip(questions, said, strict=True)
    )


def _in_view(change: Change, finding: Finding) -> Event:
    kind, phrases = ("appeared", finding.phrases) if change.now else ("disappeared", ())
    return Event(kind, finding.subject, change.since, phrases)


def _answered(change: Change, finding: Finding) -> Event:
    return Event(
        "answered", finding.subject, change.since, answer=change.now, previous=change.before
    )


STANDING = (
    Standing(
        name="phrases",
        task="phrase_grounding",
        prompt=lambda phrase, settings: prompts.phrase_grounding(phrase),
        said=_together,
        found=_phrases_found,
        first=False,
        event=_in_view,
    ),
    Standing(
        name="questions",
        task="question",
        prompt=lambda question, settings: prompts.question(question, grounded=settings.grounded),
        said=lambda said, questions, settings: tuple(said),
        found=_answers_found,
        first="",
        event=_answered,
    ),
)
"""The standing questions, in the order in which they are asked."""


@dataclass(frozen=True)
class Findings:
    """What was said of a frame."""

    task: tuple[Said, ...]  # what ~/captions shows
    said: dict[str, tuple[Said, ...]]  # by the name of each standing question that was asked
    found: dict[str, tuple[Finding, ...]]  # the same, by subject


@dataclass(frozen=True)
class Plan:
    """The prompts for one frame: the caption's, then one for each subject.

    `parts` are TASK and the names of STANDING whose answers somebody subscribes to.
    """

    settings: CameraSettings
    parts: Collection[str]

    @functools.cached_property
    def asked(self) -> list[tuple[Standing, tuple[str, ...]]]:
        """The standing questions that are asked, with their subjects."""
        asked = [
            (standing, standing.subjects(self.settings))
            for standing in STANDING
            if standing.name in self.parts
            or (TASK in self.parts and standing.task == self.settings.task)
        ]
        return [(standing, subjects) for standing, subjects in asked if subjects]

    @functools.cached_property
    def prompts(self) -> list[Prompt]:
        """All prompts, in the order in which `read` expects the answers.

        Raises RequestError if the task needs a parameter that is empty.
        """
        return [
            *self._caption,
            *(
                standing.prompt(subject, self.settings)
                for standing, subjects in self.asked
                for subject in subjects
            ),
        ]

    @functools.cached_property
    def _caption(self) -> list[Prompt]:
        """The prompt of the task, if it is not a standing question's. Raises RequestError."""
        task, settings = self.settings.task, self.settings
        if TASK not in self.parts:
            return []
        if task in CAPTION_TASKS:
            return [prompts.caption(task, settings.grounded)]
        needed = next((s.name for s in STANDING if s.task == task), "prompt")
        if not getattr(settings, needed):
            raise RequestError(f"parameter task is {task}, but parameter {needed} is empty")
        return [prompts.raw(settings.prompt)] if needed == "prompt" else []

    def read(self, captions: Sequence[Caption]) -> Findings:
        """Sort the answers to `prompts`."""
        answers = list(zip(self.prompts, captions, strict=True))
        end = len(self._caption)
        task = tuple(answers[:end])
        said, found = {}, {}
        for standing, subjects in self.asked:
            start, end = end, end + len(subjects)
            own = standing.said(answers[start:end], subjects, self.settings)
            said[standing.name], found[standing.name] = own, standing.found(own, subjects)
            if TASK in self.parts and standing.task == self.settings.task:
                task = own
        return Findings(task, said, found)
