# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Text with KOSMOS-2's tags in, a caption with phrases and boxes out.

Knows the tag language and the 32 x 32 location grid; knows no model, no prompt wording and no ROS.
Whatever a model writes gives a valid caption: a tag sequence that makes no box is dropped, its
words stay, and no box ever leaves the picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kosmos_ros.errors import GenerationError, RegionError
from kosmos_ros.kosmos2.query import Generation

GRID = 32
"""Cells along each side of the location grid (KOSMOS-2, arXiv 2306.14824, section 2.1)."""

TAGS = (
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "</doc>",
    "<image>",
    "</image>",
    "</chunk>",
    "</line>",
    "<phrase>",
    "</phrase>",
    "<object>",
    "</object>",
    "</delimiter_of_multi_objects/>",
    "<grounding>",
)
"""Tags of KOSMOS-2's tokenizer beside the location tokens `<patch_index_0000>` to `_1023`."""

BOX_TAGS = ("<object>", "</object>", "</delimiter_of_multi_objects/>")
"""Tags that begin and end a phrase's boxes, and that part them."""

TAG = re.compile("|".join(map(re.escape, TAGS)) + r"|<patch_index_(?P<index>[0-9]+)>")

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: x right, y down, origin at the picture's top-left corner."""

    x_min: float  # all four in [0, 1] of the picture's width or height, or in pixels
    y_min: float
    x_max: float  # >= x_min
    y_max: float  # >= y_min
    score: float = 0.0  # [0, 1], geometric mean of the two location tokens' probabilities

    def scaled(self, width: float, height: float) -> Box:
        """The same box with x multiplied by `width` and y by `height`."""
        return Box(
            self.x_min * width,
            self.y_min * height,
            self.x_max * width,
            self.y_max * height,
            self.score,
        )


@dataclass(frozen=True)
class Phrase:
    """Words of a caption and where they are seen."""

    text: str  # caption[start:end]; empty for a box that belongs to no words
    start: int  # code points from the start of the caption
    end: int  # code points, exclusive
    boxes: tuple[Box, ...]  # in [0, 1]; none where a phrase that was looked for is not seen


@dataclass(frozen=True)
class Caption:
    """What the model said about one picture."""

    text: str  # without tags, no white space at either end
    phrases: tuple[Phrase, ...] = ()
    raw_text: str = ""  # prompt and generated text with tags
    score: float = 0.0  # [0, 1], mean probability of the generated tokens
    generated_tokens: int = 0
    truncated: bool = False  # stopped by the token limit, not by the model


def read(generation: Generation, prompt: str, lead: str = "") -> Caption:
    """Caption of what a model wrote after `prompt`; its text begins with `lead`.

    `lead` is the part of the prompt that the caption repeats: tags, but no location tags.
    """
    text, phrases = parse(lead + generation.text, generation.location_scores)
    return Caption(
        text,
        phrases,
        _clean(prompt + generation.text),
        generation.score,
        generation.tokens,
        generation.truncated,
    )


def together(phrases: Sequence[str], captions: Sequence[Caption], min_score: float) -> Caption:
    """One caption of `phrases` from what the model said to the grounding prompt of each.

    Its text is a list of them. Boxes whose score is under `min_score` are left out, and so is
    whatever else the model said.
    """
    text = ""
    found = []
    for phrase, caption in zip(phrases, captions, strict=True):
        text += ", " if text else ""
        first = caption.phrases[:1]
        boxes = first[0].boxes if first and first[0].start == 0 else ()
        kept = tuple(box for box in boxes if box.score >= min_score)
        found.append(Phrase(phrase, len(text), len(text) + len(phrase), kept))
        text += phrase
    tokens = sum(caption.generated_tokens for caption in captions)
    certain = sum(caption.score * caption.generated_tokens for caption in captions)
    return Caption(
        text,
        tuple(found),
        "\n".join(caption.raw_text for caption in captions),
        certain / max(tokens, 1),
        tokens,
        any(caption.truncated for caption in captions),
    )


def parse(text: str, location_scores: Sequence[float]) -> tuple[str, tuple[Phrase, ...]]:
    """Split tagged `text` into plain text and its grounded phrases.

    `location_scores` holds one probability for each location tag of `text`, in order; a box's
    score is the geometric mean of its two. Where `text` is well formed, words, spans and boxes
    equal those of Hugging Face's `Kosmos2Processor.post_process_generation`. Where it is not:
    boxes with other than two location tags, with an index beyond the grid, with text inside or
    without a closing tag are dropped; swapped corners are put in order; a box after no phrase
    gets an empty phrase; unknown text in angle brackets stays text.

    Raises GenerationError when the number of scores is not the number of location tags.
    """
    plain: list[str] = []  # the caption's pieces
    length = 0  # of `plain`, in code points
    phrase_start: int | None = None  # inside <phrase>
    span: tuple[int, int] | None = None  # of a phrase that closed just before
    corners: list[list[tuple[int, float]]] | None = None  # inside <object>: one list a box
    found: list[tuple[int, int, tuple[Box, ...]]] = []
    scores = iter(location_scores)
    position = 0
    for tag in TAG.finditer(text):
        words = _clean(text[position : tag.start()])
        position = tag.end()
        if words:
            plain.append(words)
            length += len(words)
            if phrase_start is None:
                span = None
            corners = None
        match tag.group():
            case "<phrase>":
                phrase_start, span, corners = length, None, None
            case "</phrase>":
                span = None if phrase_start is None else (phrase_start, length)
                phrase_start, corners = None, None
            case "<object>":
                phrase_start, corners = None, [[]]
            case "</delimiter_of_multi_objects/>":
                if corners is not None:
                    corners.append([])
            case "</object>":
                boxes = _boxes(corners or [])
                if boxes:
                    found.append((*(span or (length, length)), boxes))
                span, corners = None, None
            case _ if tag["index"] is not None:
                score = next(scores, None)
                if score is None:
                    raise GenerationError(
                        f"{len(location_scores)} location probabilities for more location tags"
                    )
                if corners is not None:
                    corners[-1].append((int(tag["index"][:9]), score))
            case _:
                span, corners = None, None
    if next(scores, None) is not None:
        raise GenerationError(f"{len(location_scores)} location probabilities for fewer tags")
    plain.append(_clean(text[position:]))
    return _strip("".join(plain), found)


def cell_box(upper_left: int, lower_right: int) -> tuple[float, float, float, float]:
    """Box in [0, 1] of two grid indices (row * 32 + column), corners in any order.

    Corners are cell centres; a box of one row, one column or one cell spans whole cells
    (`patch_index_to_coordinate` of Hugging Face's processing_kosmos2.py).
    """
    (y1, x1), (y2, x2) = divmod(upper_left, GRID), divmod(lower_right, GRID)
    x1, x2 = min(x1, x2), max(x1, x2)
    y1, y2 = min(y1, y2), max(y1, y2)
    near, far = (0.0, 1.0) if x1 == x2 or y1 == y2 else (0.5, 0.5)
    return (x1 + near) / GRID, (y1 + near) / GRID, (x2 + far) / GRID, (y2 + far) / GRID


def region_cells(box: Box, width: float = 1.0, height: float = 1.0) -> tuple[int, int]:
    """Grid indices (upper left, lower right) that cover `box`, clipped to the picture.

    `box` is in the unit of `width` and `height`: pixels, or [0, 1] by default. Floor of the
    upper-left corner, ceiling - 1 of the lower-right one (`coordinate_to_patch_index` of Hugging
    Face's processing_kosmos2.py), so the box of two indices gives these indices again.
    Raises RegionError for a box that is not finite, empty, inverted or outside the picture.
    """
    check_region(box)
    x1, x2 = (min(max(x / width, 0.0), 1.0) for x in (box.x_min, box.x_max))
    y1, y2 = (min(max(y / height, 0.0), 1.0) for y in (box.y_min, box.y_max))
    if x1 >= x2 or y1 >= y2:
        raise RegionError(
            f"region {_shown(box)} lies outside the picture (0, 0, {width:g}, {height:g})"
        )
    upper_left = math.floor(y1 * GRID) * GRID + math.floor(x1 * GRID)
    lower_right = (math.ceil(y2 * GRID) - 1) * GRID + math.ceil(x2 * GRID) - 1
    return upper_left, lower_right


def check_region(box: Box) -> None:
    """Raise RegionError for a box that no picture has: not finite, empty or inverted."""
    if not all(map(math.isfinite, (box.x_min, box.y_min, box.x_max, box.y_max))):
        raise RegionError(f"region {_shown(box)} is not finite")
    if box.x_min >= box.x_max or box.y_min >= box.y_max:
        raise RegionError(
            f"region {_shown(box)} is empty or inverted: "
            "x_min < x_max and y_min < y_max are needed"
        )


def _shown(box: Box) -> str:
    return f"({box.x_min:g}, {box.y_min:g}, {box.x_max:g}, {box.y_max:g})"


def _boxes(corners: list[list[tuple[int, float]]]) -> tuple[Box, ...]:
    return tuple(
        Box(*cell_box(pair[0][0], pair[1][0]), score=math.sqrt(pair[0][1] * pair[1][1]))
        for pair in corners
        if len(pair) == 2 and all(index < GRID * GRID for index, _ in pair)
    )


def _clean(words: str) -> str:
    # A NUL ends a ROS string and a lone surrogate cannot be encoded in one.
    return _UNPRINTABLE.sub(" ", words)


def _strip(
    text: str, found: list[tuple[int, int, tuple[Box, ...]]]
) -> tuple[str, tuple[Phrase, ...]]:
    leading = len(text) - len(text.lstrip())
    stripped = text.strip()
    phrases = []
    for start, end, boxes in found:
        words = text[start:end]
        text_of_phrase = words.strip()
        start += len(words) - len(words.lstrip()) - leading
        start = min(max(start, 0), len(stripped))
        phrases.append(Phrase(text_of_phrase, start, start + len(text_of_phrase), boxes))
    return stripped, tuple(phrases)
