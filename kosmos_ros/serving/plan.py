# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plan the prompts for each frame of a camera, and combine their answers.

Knows settings and prompts; no topic and no model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption, Phrase, join_captions
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, Prompt
from kosmos_ros.serving.events import Change, Event
from kosmos_ros.serving.node_settings import CameraSettings

PromptCaption = tuple[Prompt, Caption]
"""A prompt and the model's answer to it."""

TASK = "task"
"""Name of the part of a plan for ~/captions. The other parts have the names of STANDING."""


@dataclass(frozen=True)
class Finding:
    """The result of one frame for one subject: a phrase or a question."""

    subject: str
    value: Hashable  # compared from frame to frame to detect events
    phrases: tuple[Phrase, ...] = ()  # with boxes, if the subject is in the image


@dataclass(frozen=True)
class Standing:
    """A kind of prompt for every frame: one prompt for each subject in a parameter."""

    name: str  # of the parameter with the subjects, and of the part of the plan
    task: str  # value of the parameter `task` that publishes the answers on ~/captions
    prompt: Callable[[str, CameraSettings], Prompt]
    combine: Callable[
        [Sequence[PromptCaption], Sequence[str], CameraSettings], tuple[PromptCaption, ...]
    ]
    """Combines the answers to all subjects for publication."""
    to_findings: Callable[[Sequence[PromptCaption], Sequence[str]], tuple[Finding, ...]]
    """Returns one finding for each subject from the result of `combine`."""
    first: Hashable  # a subject's value before the first frame
    event: Callable[[Change, Finding], Event]

    def subjects(self, settings: CameraSettings) -> tuple[str, ...]:
        """Return the subjects, each once."""
        return tuple(dict.fromkeys(getattr(settings, self.name)))


def _combine_phrases(
    answers: Sequence[PromptCaption], phrases: Sequence[str], settings: CameraSettings
) -> tuple[PromptCaption, ...]:
    captions = [caption for _, caption in answers]
    joined = prompts.joined([prompt for prompt, _ in answers])
    return ((joined, join_captions(phrases, captions, settings.min_score)),)


def _phrase_findings(
    answers: Sequence[PromptCaption], phrases: Sequence[str]
) -> tuple[Finding, ...]:
    ((_, caption),) = answers
    return tuple(Finding(phrase.text, bool(phrase.boxes), (phrase,)) for phrase in caption.phrases)


def _answer_findings(
    answers: Sequence[PromptCaption], questions: Sequence[str]
) -> tuple[Finding, ...]:
    return tuple(
        Finding(question, caption.text)
        for question, (_, caption) in zip(questions, answers, strict=True)
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
        combine=_combine_phrases,
        to_findings=_phrase_findings,
        first=False,
        event=_in_view,
    ),
    Standing(
        name="questions",
        task="question",
        prompt=lambda question, settings: prompts.question(question, grounded=settings.grounded),
        combine=lambda answers, questions, settings: tuple(answers),
        to_findings=_answer_findings,
        first="",
        event=_answered,
    ),
)
"""All kinds of prompts for every frame, in the order of the plan."""

NEEDS = {"prompt": "prompt", **{standing.task: standing.name for standing in STANDING}}
"""Task: the parameter that it needs."""


def check_task(settings: CameraSettings, prefix: str = "") -> None:
    """Raise ConfigError if the parameter that the task needs is empty.

    `prefix` comes before the names of the parameters in the error.
    """
    task, needed = settings.task, NEEDS.get(settings.task, "")
    if needed and not getattr(settings, needed):
        raise ConfigError(
            f"parameter {prefix}task is {task}, but parameter {prefix}{needed} is empty; set "
            f"{prefix}{needed} before {prefix}task, or choose another task first"
        )


@dataclass(frozen=True)
class FrameResult:
    """The results of one frame."""

    task: tuple[PromptCaption, ...]  # for ~/captions
    captions: dict[str, tuple[PromptCaption, ...]]  # by the name of each Standing in the plan
    findings: dict[str, tuple[Finding, ...]]  # the same, one finding for each subject


@dataclass(frozen=True)
class Plan:
    """The prompts for one frame: the caption's, then one for each subject.

    `parts` are TASK and the names of STANDING whose answers somebody subscribes to.
    """

    settings: CameraSettings
    parts: Collection[str]

    @functools.cached_property
    def queries(self) -> list[tuple[Standing, tuple[str, ...]]]:
        """Each Standing of the plan with its subjects, if it has any."""
        queries = [
            (standing, standing.subjects(self.settings))
            for standing in STANDING
            if standing.name in self.parts
            or (TASK in self.parts and standing.task == self.settings.task)
        ]
        return [(standing, subjects) for standing, subjects in queries if subjects]

    @functools.cached_property
    def prompts(self) -> list[Prompt]:
        """All prompts, in the order in which `read` expects the answers.

        Raises ConfigError if the task needs a parameter that is empty.
        """
        return [
            *self._caption,
            *(
                standing.prompt(subject, self.settings)
                for standing, subjects in self.queries
                for subject in subjects
            ),
        ]

    @functools.cached_property
    def _caption(self) -> list[Prompt]:
        """The prompt of the parameter task; none if a Standing makes it. Raises ConfigError."""
        task, settings = self.settings.task, self.settings
        if TASK not in self.parts:
            return []
        if task in CAPTION_TASKS:
            return [prompts.caption(task, settings.grounded)]
        check_task(settings)
        return [prompts.raw(settings.prompt)] if NEEDS[task] == "prompt" else []

    def read(self, captions: Sequence[Caption]) -> FrameResult:
        """Return the results of the frame from the answers to `prompts`."""
        answers = list(zip(self.prompts, captions, strict=True))
        end = len(self._caption)
        task = tuple(answers[:end])
        combined, findings = {}, {}
        for standing, subjects in self.queries:
            start, end = end, end + len(subjects)
            own = standing.combine(answers[start:end], subjects, self.settings)
            combined[standing.name] = own
            findings[standing.name] = standing.to_findings(own, subjects)
            if TASK in self.parts and standing.task == self.settings.task:
                task = own
        return FrameResult(task, combined, findings)
