# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A task or a question in, the text that KOSMOS-2 reads after the picture out.

The only place that knows prompt wording; the forms are those of the model card of
microsoft/kosmos-2-patch14-224, white space included, since it changes what the model answers.
Text from outside is checked here: KOSMOS-2's tags are ordinary text to its tokenizer, so a
question that holds one would speak to the model in the prompt's own voice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kosmos_ros.errors import ConfigError, PromptError
from kosmos_ros.kosmos2.grounding import BOX_TAGS, TAG
from kosmos_ros.sanitize import MAX_VALUE, quoted

MAX_TEXT = 1000
"""Longest question or phrase in code points; the engine counts tokens against its context."""

CONTROL_TAGS = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>", "</image>")
"""Tags that say where a prompt or the picture begins and ends; never a part of a prompt."""

CAPTION_TASKS = {  # task: (words of the prompt, whether the caption begins with them)
    "brief_caption": ("An image of", True),
    "detailed_caption": ("Describe this image in detail:", False),
}

TASKS = (*CAPTION_TASKS, "phrase_grounding", "region_description", "question", "prompt")

REGION_WORDS = ("it", "this", "that", "these", "those", "them", "they")
"""Words of a question that stand for its regions when the caller names none, in this order."""


@dataclass(frozen=True)
class Prompt:
    """What the model reads, and how its answer begins."""

    task: str  # one of TASKS
    text: str  # with tags, without the image tokens
    lead: str  # the part of `text` that the caption repeats before the generated text
    stop: str = ""  # text after which nothing is written that was asked for


def caption(task: str, grounded: bool = True) -> Prompt:
    """Caption of the whole picture. Raises ConfigError for a task not in CAPTION_TASKS."""
    if task not in CAPTION_TASKS:
        raise ConfigError(
            f"task {quoted(task)} is unknown; one of {', '.join(CAPTION_TASKS)} is needed"
        )
    words, repeated = CAPTION_TASKS[task]
    text = _grounding(grounded) + words
    return Prompt(task, text, text if repeated else "")


def phrase_grounding(phrase: str) -> Prompt:
    """Boxes of `phrase`, a noun phrase or a referring expression. Raises PromptError."""
    text = f"<grounding><phrase> {checked('phrase', phrase)}</phrase>"
    return Prompt("phrase_grounding", text, text, stop=BOX_TAGS[1])


def joined(asked: Sequence[Prompt]) -> Prompt:
    """Prompts of one task as a single one for a message, a line each; the model never reads it."""
    return Prompt(asked[0].task, "\n".join(prompt.text for prompt in asked), "")


def region_description(region: tuple[int, int], grounded: bool = True) -> Prompt:
    """What is in `region`, given as two grid indices (see grounding.region_cells)."""
    text = ("<grounding>" if grounded else "") + f"<phrase> It</phrase>{object_tags([region])} is"
    return Prompt("region_description", text, "It is")


def question(
    question: str,
    regions: Sequence[tuple[int, int]] = (),
    region_phrases: Sequence[str] = (),
    grounded: bool = True,
    history: Sequence[str] = (),
) -> Prompt:
    """A question about the picture or about regions of it (pairs of grid indices).

    `history` holds earlier questions and their answers by turns, oldest first.

    `region_phrases[i]` are the words of the question that mean `regions[i]`; the same words may
    mean several regions. Without them, the first of REGION_WORDS in the question means all
    regions. Raises PromptError for text that cannot be asked, for phrases that are not in the
    question or not one for each region, and for a history that does not end with an answer.
    """
    words = checked("question", question)
    if len(history) % 2:
        raise PromptError(
            f"history has {len(history)} entries; questions and answers by turns are needed, "
            "the last one an answer"
        )
    earlier = "".join(
        f"Question: {checked('history', asked)} Answer: {checked('history', answered)} "
        for asked, answered in zip(history[::2], history[1::2], strict=True)
    )
    if region_phrases and len(region_phrases) != len(regions):
        raise PromptError(
            f"{len(region_phrases)} region_phrases for {len(regions)} regions; "
            "one for each region is needed, or none at all"
        )
    if regions and not region_phrases:
        region_phrases = [_region_word(words)] * len(regions)
    meant: dict[str, list[tuple[int, int]]] = {}
    for phrase, region in zip(region_phrases, regions, strict=True):
        meant.setdefault(checked("region phrase", phrase).lower(), []).append(region)
    spans = sorted((*_find(phrase, words), cells) for phrase, cells in meant.items())
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start < end:
            raise PromptError(f"region phrases overlap in question {quoted(words)}")
    for start, end, cells in reversed(spans):
        tagged = f"<phrase> {words[start:end]}</phrase>{object_tags(cells)}"
        words = words[:start].rstrip() + tagged + words[end:]
    space = "" if words.startswith("<phrase>") else " "
    text = f"{_grounding(grounded)}{earlier}Question:{space}{words} Answer:"
    return Prompt("question", text, "", stop=" Question:")


def raw(text: str) -> Prompt:
    """A prompt in the model's own language. A phrase that it ends with is a part of the caption.

    That phrase may be followed by the tag that begins its boxes.

    Raises PromptError when it is empty, longer than MAX_TEXT, not Unicode text, or holds one of
    CONTROL_TAGS or a control character.
    """
    if not text.strip():
        raise PromptError("prompt is empty; words or tags are needed")
    _check_text("prompt", text)
    for tag in CONTROL_TAGS:
        if tag in text:
            raise PromptError(f"prompt {quoted(text)} holds {tag}, which it cannot speak")
    phrase = re.search(rf"<phrase>[^<]*</phrase>({BOX_TAGS[0]})?$", text)
    return Prompt("prompt", text, phrase.group() if phrase else "")


def checked(name: str, text: str) -> str:
    """`text` with runs of white space as one space each.

    Raises PromptError when it is empty, longer than MAX_TEXT, not Unicode text, or holds a tag or
    a control character.
    """
    text = " ".join(text.split())
    if not text:
        raise PromptError(f"{name} is empty; words are needed")
    _check_text(name, text)
    tag = TAG.search(text)
    if tag:
        raise PromptError(
            f"{name} {quoted(text)} holds the model's own tag {tag.group()[:MAX_VALUE]}; "
            "plain words are needed"
        )
    return text


def _check_text(name: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise PromptError(f"{name} has {len(text)} characters; {MAX_TEXT} is the most")
    odd = re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)
    if odd:
        raise PromptError(
            f"{name} {quoted(text)} holds the control character U+{ord(odd.group()):04X}"
        )


def _grounding(grounded: bool) -> str:
    # The space is the model card's: "<grounding>An image of" answers other words.
    return "<grounding> " if grounded else ""


def object_tags(regions: Sequence[tuple[int, int]]) -> str:
    """The tags of one phrase's boxes, pairs of grid indices."""
    boxes = (f"<patch_index_{first:04d}><patch_index_{last:04d}>" for first, last in regions)
    opening, closing, delimiter = BOX_TAGS
    return f"{opening}{delimiter.join(boxes)}{closing}"


def _region_word(words: str) -> str:
    for word in REGION_WORDS:
        if re.search(rf"\b{word}\b", words, re.IGNORECASE):
            return word
    raise PromptError(
        f"question {quoted(words)} does not say which words mean the region: use one of "
        f"{', '.join(REGION_WORDS)}, or name its words in region_phrases"
    )


def _find(phrase: str, words: str) -> tuple[int, int]:
    found = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", words, re.IGNORECASE)
    if not found:
        raise PromptError(f"region phrase {quoted(phrase)} is not in question {quoted(words)}")
    return found.span()


@dataclass(frozen=True)
class Template:
    build: object

    def fill(self, cells):
        return self.build(cells)


def question_template(text, region_count, region_phrases=(), grounded=True, history=()):
    question(text, [(0, 0)] * region_count, region_phrases, grounded, history)
    return Template(lambda cells: question(text, cells, region_phrases, grounded, history))


def region_template(grounded=True):
    return Template(lambda cells: region_description(cells[0], grounded))


plain_text = checked
