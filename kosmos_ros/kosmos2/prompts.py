# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write the prompt for a task or a question: the text that KOSMOS-2 reads after the image.

Only this module knows prompt wording. The forms are those of the model card of
microsoft/kosmos-2-patch14-224. External text is checked here: KOSMOS-2's tokenizer also reads tags
in a question, so a tag would change the prompt. The engine checks the tokens once more. Knows no
images, only their sizes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

from kosmos_ros.errors import ConfigError, PromptError
from kosmos_ros.kosmos2.grounding import BOX_TAGS, TAG, Box, region_cells
from kosmos_ros.sanitize import MAX_VALUE, quoted

MAX_TEXT = 1000
"""Longest question or phrase in code points; the engine counts tokens against its context."""

MAX_PROMPT = 2048 * 30
"""Longest raw prompt in code points. KOSMOS-2's context has 2048 tokens, and its longest token,
</delimiter_of_multi_objects/>, has 30 characters. The engine counts the tokens."""

MAX_MARKS = 30
"""Largest number of combining marks in a row: that of the Stream-Safe Text Format (UAX #15, 13).

Python takes seconds to normalize a long run of them, and no other thread runs meanwhile.
"""

CONTROL_TAGS = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>", "</image>")
"""Tags that mark where a prompt or the image begins and ends; no prompt may contain them."""

CAPTION_TASKS = {  # task: (words of the prompt, whether the caption begins with them)
    "brief_caption": ("An image of", True),
    "detailed_caption": ("Describe this image in detail:", False),
}

TASKS = (*CAPTION_TASKS, "phrase_grounding", "region_description", "question", "prompt")
"""All tasks. The parameter, the action and the command each accept some of them."""

_LOCATION = re.compile(r"<patch_index_(?:0[0-9]{3}|10[01][0-9]|102[0-3])>")
"""Location tags of the tokenizer; TAG also finds others."""

EMPTY_OBJECT = "<object></object>"
"""Tags in a raw prompt that the next region replaces."""

REGION_WORDS = ("it", "this", "that", "these", "those", "them", "they")
"""Words of a question that refer to its regions if `region_phrases` is empty. The first counts."""

_LABEL = re.compile(r"\b(?:Question|Answer):")
"""Words before each question and answer of a prompt."""
_OUTER_LABELS = re.compile(r"^(?:Question|Answer):\s*|\s*\bAnswer:$", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """The text that the model reads, and how its answer begins and ends."""

    task: str  # one of TASKS
    text: str  # with tags, without the image tokens
    lead: str  # the part of `text` that the caption repeats before the generated text
    stop: str = ""  # text that ends the answer; see Query.stop


@dataclass(frozen=True)
class Template:
    """A checked prompt about regions whose grid cells are not known yet."""

    task: str  # one of TASKS
    pieces: tuple[str, ...]  # the prompt's text around the boxes
    regions: tuple[tuple[int, ...], ...]  # for each gap between pieces, the indices of its regions
    lead: str  # as in Prompt
    stop: str = ""  # as in Prompt

    def fill(self, cells: Sequence[tuple[int, int]]) -> Prompt:
        """Return the prompt. `cells[i]` are the two grid indices of region i (region_cells)."""
        first, *rest = self.pieces
        boxes = (object_tags([cells[number] for number in numbers]) for numbers in self.regions)
        text = first + "".join(tags + piece for tags, piece in zip(boxes, rest, strict=True))
        return Prompt(self.task, text, self.lead, self.stop)


PromptsOf = Callable[[int, int], Sequence[Prompt]]
"""Makes the prompts about an image of (width, height) pixels. Raises RegionError."""


def in_regions(templates: Sequence[Template], regions: Sequence[Sequence[Box]]) -> PromptsOf:
    """Return a function that fills each template with its own regions, in pixels of the image."""

    def fill(width: int, height: int) -> list[Prompt]:
        return [
            template.fill([region_cells(box, width, height) for box in own])
            for template, own in zip(templates, regions, strict=True)
        ]

    return fill


def caption(task: str, grounded: bool = True) -> Prompt:
    """Return the prompt for a caption of the image. Raises ConfigError for an unknown task."""
    if task not in CAPTION_TASKS:
        raise ConfigError(f"task must be one of {', '.join(CAPTION_TASKS)}, got {quoted(task)}")
    words, repeated = CAPTION_TASKS[task]
    text = _grounding(grounded) + words
    return Prompt(task, text, text if repeated else "")


def phrase_grounding(phrase: str, before: str = "") -> Prompt:
    """Return the prompt for the boxes of a noun phrase or referring expression.

    `before` are the words of a sentence before the phrase, which tell more about it: section 4.1.1
    of https://arxiv.org/abs/2306.14824. Raises PromptError; see plain_text.
    """
    asked = f"<phrase> {plain_text('phrase', phrase)}</phrase>"
    words = f" {plain_text('sentence', before)}" if before.strip() else ""
    text, lead = f"<grounding>{words}{asked}", f"<grounding>{asked}"
    return Prompt("phrase_grounding", text, lead, stop=BOX_TAGS[1])


def joined(asked: Sequence[Prompt]) -> Prompt:
    """Join the prompts of one task for a message, one per line. The model does not read it."""
    return Prompt(asked[0].task, "\n".join(prompt.text for prompt in asked), "")


def region_description(region: tuple[int, int], grounded: bool = True) -> Prompt:
    """Return the prompt for a description of `region`, a pair of grid indices (region_cells)."""
    return region_template(grounded).fill([region])


def region_template(grounded: bool = True) -> Template:
    """Return the template of a description of one region."""
    start = "<grounding>" if grounded else ""
    return Template(
        "region_description", (f"{start}<phrase> It</phrase>", " is"), ((0,),), "It is"
    )


def question(
    question: str,
    regions: Sequence[tuple[int, int]] = (),
    region_phrases: Sequence[str] = (),
    grounded: bool = True,
    history: Sequence[str] = (),
) -> Prompt:
    """Return the prompt of a question about the image or about regions (pairs of grid indices).

    See question_template for the other arguments and the errors.
    """
    template = question_template(question, len(regions), region_phrases, grounded, history)
    return template.fill(regions)


def question_template(
    text: str,
    region_count: int,
    region_phrases: Sequence[str] = (),
    grounded: bool = True,
    history: Sequence[str] = (),
) -> Template:
    """Return the template of a question about the image or about `region_count` regions.

    `region_phrases[i]` are the words of the question that refer to region i; the same words may
    refer to several regions. If empty, the first of REGION_WORDS in the question refers to all.
    `history` contains earlier questions and their answers in turn, the oldest first.

    The prompt adds the words "Question:" and "Answer:"; in `text` and `history` they are removed
    at either end. Raises PromptError for these words elsewhere, for text that is not plain (see
    plain_text), for phrases that overlap or are not in the question, for a wrong number of
    phrases, and for a history that does not end with an answer.
    """
    words = _without_labels("question", text)
    earlier = _earlier(history)
    if region_phrases and len(region_phrases) != region_count:
        raise PromptError(
            f"region_phrases must have one entry for each of {region_count} regions or none, "
            f"got {len(region_phrases)}"
        )
    if region_count and not region_phrases:
        region_phrases = [_region_word(words)] * region_count
    meant: dict[tuple[int, int], list[int]] = {}
    for number, phrase in enumerate(region_phrases):
        meant.setdefault(_find(plain_text("region phrase", phrase), words), []).append(number)
    spans = sorted(meant)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise PromptError(f"region phrases must not overlap in question {quoted(words)}")
    pieces, position = [], 0
    for start, end in spans:
        pieces.append(f"{words[position:start].rstrip()}<phrase> {words[start:end]}</phrase>")
        position = end
    pieces.append(f"{words[position:]} Answer:")
    space = "" if pieces[0].startswith("<phrase>") else " "
    pieces[0] = f"{_grounding(grounded)}{earlier}Question:{space}{pieces[0]}"
    regions = tuple(tuple(meant[span]) for span in spans)
    return Template("question", tuple(pieces), regions, "", stop=" Question:")


def raw(text: str) -> Prompt:
    """Return `text`, with tags, as a prompt without regions. See raw_template."""
    return raw_template(text, 0).fill([])


def raw_template(text: str, region_count: int, stop: str = "") -> Template:
    """Return the template of `text`, a prompt with tags.

    Each EMPTY_OBJECT of `text` takes the next of `region_count` regions. The answer ends at
    `stop`, which is one tag or text without tags; empty: it ends where the model ends it. White
    space at either end and before a tag is removed, as Hugging Face's processor and tokenizer do.
    If `text` ends with a phrase, which may be open or have `<object>` after it, the caption
    repeats the phrase.

    Raises PromptError if `text` has no visible character, is longer than MAX_PROMPT (also in NFKC
    form, which the tokenizer makes) or not Unicode text, contains one of CONTROL_TAGS, a location
    beyond the grid, a control character or more than MAX_MARKS combining marks in a row, or has
    another number of EMPTY_OBJECT than regions, or if `stop` is not as above.
    """
    text = _without_spaces(text)
    if not text:
        raise PromptError("prompt must not be empty")
    _check_text("prompt", text, MAX_PROMPT)
    _check_visible("prompt", text)
    # NFKC can turn one character into 18: a second of work and much memory for the tokenizer.
    _check_length("prompt in NFKC form", unicodedata.normalize("NFKC", text), MAX_PROMPT)
    _check_tags("prompt", text)
    pieces = tuple(text.split(EMPTY_OBJECT))
    if len(pieces) - 1 != region_count:
        raise PromptError(
            f"prompt {quoted(text)} must have one {EMPTY_OBJECT} for each of {region_count} "
            f"regions, got {len(pieces) - 1}"
        )
    phrase = re.search(rf"<phrase>[^<]*(</phrase>({BOX_TAGS[0]})?)?$", pieces[-1])
    regions = tuple((number,) for number in range(region_count))
    return Template("prompt", pieces, regions, phrase.group() if phrase else "", _stop(stop))


def plain_text(name: str, text: str) -> str:
    """Return `text` with one space in place of each run of white space.

    Raises PromptError, which calls the text `name`, if it has no visible character, is longer than
    MAX_TEXT or not Unicode text, or contains a control character, more than MAX_MARKS combining
    marks in a row or a tag. KOSMOS-2's tokenizer normalizes text (NFKC), so a tag of full-width or
    other compatible characters is also refused.
    """
    text = " ".join(text.split())
    if not text:
        raise PromptError(f"{name} must not be empty")
    _check_text(name, text, MAX_TEXT)
    _check_visible(name, text)
    if tag := next(_tags(text), None):
        raise PromptError(
            f"{name} {quoted(text)} contains the reserved tag {tag.group()[:MAX_VALUE]}; remove it"
        )
    return text


def object_tags(regions: Sequence[tuple[int, int]]) -> str:
    """Return the tags of one phrase's boxes, given as pairs of grid indices."""
    boxes = (f"<patch_index_{first:04d}><patch_index_{last:04d}>" for first, last in regions)
    opening, closing, delimiter = BOX_TAGS
    return f"{opening}{delimiter.join(boxes)}{closing}"


def _check_length(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise PromptError(f"{name} must have at most {most} characters, got {len(text)}")


def _check_text(name: str, text: str, most: int) -> None:
    _check_length(name, text, most)
    odd = re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)
    if odd:
        raise PromptError(
            f"{name} {quoted(text)} contains the control character U+{ord(odd.group()):04X}; "
            "remove it"
        )
    marks = {char for char in set(text) if _is_mark(char)}
    runs = (len(list(run)) for is_mark, run in groupby(text, marks.__contains__) if is_mark)
    if (longest := max(runs, default=0)) > MAX_MARKS:
        raise PromptError(
            f"{name} must have at most {MAX_MARKS} combining marks in a row, got {longest}"
        )


def _check_visible(name: str, text: str) -> None:
    """Refuse a text of zero-width and other invisible characters, which says nothing."""
    if not any(char.isprintable() and not char.isspace() for char in text):
        raise PromptError(f"{name} must contain a visible character, got {quoted(text)}")


def _is_mark(char: str) -> bool:
    """Return whether a character in normalized form has only combining marks."""
    return all(map(unicodedata.combining, unicodedata.normalize("NFKD", char)))


def _tags(text: str) -> Iterator[re.Match[str]]:
    """Return the tags of `text` and those of its normalized form, which may have more or fewer."""
    return chain(TAG.finditer(text), TAG.finditer(unicodedata.normalize("NFKC", text)))


def _check_tags(name: str, text: str) -> None:
    """Refuse tags that no prompt may contain, and locations beyond the grid."""
    for found in _tags(text):
        tag = found.group()
        if tag in CONTROL_TAGS:
            raise PromptError(f"{name} {quoted(text)} contains the reserved tag {tag}; remove it")
        if found["index"] and not _LOCATION.fullmatch(tag):
            raise PromptError(
                f"{name} {quoted(text)} contains {tag[:MAX_VALUE]}, but locations are "
                "<patch_index_0000> to <patch_index_1023>"
            )


def _without_spaces(text: str) -> str:
    """Return `text` without the white space at either end and before each tag."""
    pieces, position = [], 0
    for tag in TAG.finditer(text):
        pieces += [text[position : tag.start()].rstrip(), tag.group()]
        position = tag.end()
    return "".join([*pieces, text[position:]]).strip()


def _stop(text: str) -> str:
    """Return the checked stop text of a raw prompt."""
    _check_text("stop", text, MAX_TEXT)
    _check_tags("stop", text)
    if next(_tags(text), None) and not TAG.fullmatch(text):
        raise PromptError(
            f"stop {quoted(text)} must be one tag, such as {BOX_TAGS[1]}, or text without tags"
        )
    return text


def _grounding(grounded: bool) -> str:
    # The model card has the space. KOSMOS-2's tokenizer makes the same tokens without it.
    return "<grounding> " if grounded else ""


def _earlier(history: Sequence[str]) -> str:
    if len(history) % 2:
        raise PromptError(
            "history must have questions and answers in turn and end with an answer, "
            f"but it has {len(history)}, an odd number of entries"
        )
    turns = zip(history[::2], history[1::2], strict=True)
    return "".join(
        f"Question: {_without_labels('history', asked)} "
        f"Answer: {_without_labels('history', answer)} "
        for asked, answer in turns
    )


def _without_labels(name: str, text: str) -> str:
    """Return the plain words of a question or answer, without the labels at either end."""
    words = plain_text(name, _OUTER_LABELS.sub("", plain_text(name, text)))
    label = _LABEL.search(unicodedata.normalize("NFKC", words))
    if label:
        raise PromptError(
            f"{name} {quoted(words)} contains {label.group()!r}, which begins another question or "
            "answer; remove it, and send earlier questions and answers as history"
        )
    return words


def _region_word(words: str) -> str:
    for word in REGION_WORDS:
        if re.search(rf"\b{word}\b", words, re.IGNORECASE):
            return word
    raise PromptError(
        f"question {quoted(words)} must refer to the region: use one of "
        f"{', '.join(REGION_WORDS)}, or give words of the question as region phrases"
    )


def _find(phrase: str, words: str) -> tuple[int, int]:
    found = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", words, re.IGNORECASE)
    if not found:
        raise PromptError(f"region phrase {quoted(phrase)} is not in question {quoted(words)}")
    return found.span()
