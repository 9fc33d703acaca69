# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parse text with KOSMOS-2's tags into a caption with phrases and boxes.

Knows the tag language and the 32 x 32 location grid; knows no model, no prompt wording and no ROS.
Any text gives a valid caption: tags that form no valid box are dropped, the words stay, and every
box is inside the image.
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
"""Tags of KOSMOS-2's tokenizer, except the location tags `<patch_index_0000>` to `_1023`."""

BOX_TAGS = ("<object>", "</object>", "</delimiter_of_multi_objects/>")
"""The tags before, after and between the boxes of a phrase."""

NEIGHBOURS = ((0, 0), *((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x))
"""(y, x) offsets from a cell to itself and to its eight neighbours."""

MAX_OFFSET = 0.49
"""Largest offset of a corner from its cell's centre along each axis, in cells.

The corner stays inside its cell, so region_cells returns the cells that the model wrote.
"""

TAG = re.compile("|".join(map(re.escape, TAGS)) + r"|<patch_index_(?P<index>[0-9]+)>")

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: x right, y down, origin at the image's top-left corner."""

    x_min: float  # all four in [0, 1] of the image's width or height, or in pixels
    y_min: float
    x_max: float  # >= x_min
    y_max: float  # >= y_min
    score: float = 0.0  # [0, 1], geometric mean of the two location tokens' probabilities

    def scaled(self, width: float, height: float) -> Box:
        """Return the box with x multiplied by `width` and y by `height`."""
        return Box(
            self.x_min * width,
            self.y_min * height,
            self.x_max * width,
            self.y_max * height,
            self.score,
        )


@dataclass(frozen=True)
class Phrase:
    """Words of a caption, and the boxes of what they mean."""

    text: str  # caption[start:end] if there are boxes; empty for a box without words
    start: int  # code points from the start of the caption; 0 without boxes
    end: int  # code points, exclusive; 0 without boxes
    boxes: tuple[Box, ...]  # in [0, 1]; none if a requested phrase is not in the image


@dataclass(frozen=True)
class Caption:
    """The model's text about one image, and its grounded phrases."""

    text: str  # without tags, and without white space at either end
    phrases: tuple[Phrase, ...] = ()
    raw_text: str = ""  # prompt and generated text with tags
    score: float = 0.0  # [0, 1], mean probability of the generated tokens
    generated_tokens: int = 0
    truncated: bool = False  # ended by the token limit


def read(generation: Generation, prompt: str, lead: str = "") -> Caption:
    """Return the caption of the text that a model wrote after `prompt`.

    The caption begins with `lead`, the part of the prompt that it repeats. `lead` may contain
    tags, but no location tags.
    """
    text, phrases = parse(
        lead + generation.text, generation.location_scores, generation.location_points
    )
    return Caption(
        text,
        phrases,
        _clean(prompt + generation.text),
        generation.score,
        generation.tokens,
        generation.truncated,
    )


def join_captions(
    phrases: Sequence[str], captions: Sequence[Caption], min_score: float
) -> Caption:
    """Join the captions of several grounding prompts, one for each of `phrases`, into one.

    It contains the boxes whose score is at least `min_score`. Its text names the phrases that have
    boxes, each once: "a cat, a dog and a bird". Its phrases are all of `phrases` in order; one
    without boxes has start and end 0.
    """
    boxes = [_located(caption, min_score) for caption in captions]
    present = dict.fromkeys(phrase for phrase, own in zip(phrases, boxes, strict=True) if own)
    text, starts = enumerated(list(present))
    spans = {
        phrase: (start, start + len(phrase)) for phrase, start in zip(present, starts, strict=True)
    }
    found = [
        Phrase(phrase, *(spans[phrase] if own else (0, 0)), own)
        for phrase, own in zip(phrases, boxes, strict=True)
    ]
    tokens = sum(caption.generated_tokens for caption in captions)
    weighted = sum(caption.score * caption.generated_tokens for caption in captions)
    return Caption(
        text,
        tuple(found),
        "\n".join(caption.raw_text for caption in captions),
        weighted / max(tokens, 1),
        tokens,
        any(caption.truncated for caption in captions),
    )


def enumerated(names: Sequence[str]) -> tuple[str, list[int]]:
    """Return `names` as "a, b and c", and the index at which each begins."""
    text, starts = "", []
    for number, name in enumerate(names):
        if number:
            text += " and " if number == len(names) - 1 else ", "
        starts.append(len(text))
        text += name
    return text, starts


def _located(caption: Caption, min_score: float) -> tuple[Box, ...]:
    """Return the boxes of the phrase with which the answer to a grounding prompt begins."""
    first = caption.phrases[:1]
    boxes = first[0].boxes if first and first[0].start == 0 else ()
    return tuple(box for box in boxes if box.score >= min_score)


def parse(
    text: str,
    location_scores: Sequence[float],
    location_points: Sequence[tuple[float, float]] = (),
) -> tuple[str, tuple[Phrase, ...]]:
    """Split tagged `text` into plain text and its grounded phrases.

    `location_scores` contains one probability for each location tag of `text`, in order; a box's
    score is the geometric mean of its two. `location_points` contains the corner (x, y) in [0, 1]
    of each, as `refined` returns it; empty: the corners are cell centres. If `text` is well
    formed, words, spans and, without points, boxes equal those of Hugging Face's
    `Kosmos2Processor.post_process_generation`. Otherwise: a box is
    dropped if it has more or fewer than two location tags, an index beyond the grid, text inside
    or no closing tag; swapped corners are put in order; a box without a phrase gets an empty
    phrase; unknown text in angle brackets stays text.

    Raises GenerationError unless there is one score, and one point if any, for each location tag.
    """
    parser = _Parser(location_scores, location_points)
    position = 0
    for tag in TAG.finditer(text):
        parser.words(text[position : tag.start()])
        position = tag.end()
        if tag["index"] is None:
            parser.tag(tag.group())
        else:
            parser.location(int(tag["index"][:9]))  # 9 digits are beyond any grid
    parser.words(text[position:])
    return parser.result()


@dataclass(frozen=True)
class _Corner:
    """A location tag of a box."""

    index: int  # in the grid; may be beyond it
    score: float  # probability
    point: tuple[float, float] | None  # (x, y) in [0, 1]; None: the centre of its cell


class _Parser:
    """The words and boxes that `parse` has read so far."""

    def __init__(
        self,
        location_scores: Sequence[float],
        location_points: Sequence[tuple[float, float]],
    ) -> None:
        self._scores = location_scores
        self._points = location_points
        self._locations = 0  # location tags so far
        self._pieces: list[str] = []  # of the caption
        self._length = 0  # of the caption, in code points
        self._found: list[tuple[int, int, tuple[Box, ...]]] = []  # start, end, boxes
        self._phrase_start: int | None = None  # of a phrase that is open
        self._span: tuple[int, int] | None = None  # of a phrase that has just closed
        self._corners: list[list[_Corner]] | None = None  # of each box of an open <object>

    def words(self, text: str) -> None:
        if not text:
            return
        text = _clean(text)
        self._pieces.append(text)
        self._length += len(text)
        if self._phrase_start is None:
            self._span = None
        self._corners = None

    def location(self, index: int) -> None:
        number = self._locations
        if self._corners is not None and number < len(self._scores):
            point = self._points[number] if number < len(self._points) else None
            self._corners[-1].append(_Corner(index, self._scores[number], point))
        self._locations += 1

    def tag(self, tag: str) -> None:
        match tag:
            case "<phrase>":
                self._phrase_start, self._span, self._corners = self._length, None, None
            case "</phrase>":
                start = self._phrase_start
                self._span = None if start is None else (start, self._length)
                self._phrase_start, self._corners = None, None
            case "<object>":
                self._phrase_start, self._corners = None, [[]]
            case "</delimiter_of_multi_objects/>":
                if self._corners is not None:
                    self._corners.append([])
            case _:
                if tag == "</object>":
                    self._close_object()
                self._span, self._corners = None, None

    def _close_object(self) -> None:
        boxes = _boxes(self._corners or [])
        if boxes:
            self._found.append((*(self._span or (self._length, self._length)), boxes))

    def result(self) -> tuple[str, tuple[Phrase, ...]]:
        for kind, values in (("probabilities", self._scores), ("points", self._points)):
            if self._locations != len(values) and (values or values is self._scores):
                raise GenerationError(
                    f"expected {self._locations} location {kind}, one for each location tag, "
                    f"got {len(values)}"
                )
        return _strip("".join(self._pieces), self._found)


def cell_box(upper_left: int, lower_right: int) -> tuple[float, float, float, float]:
    """Return the box in [0, 1] of two grid indices (y * 32 + x), corners in any order.

    Corners are cell centres. A box that is one cell high or wide spans whole cells
    (`patch_index_to_coordinate` of Hugging Face's processing_kosmos2.py).
    """
    (y1, x1), (y2, x2) = divmod(upper_left, GRID), divmod(lower_right, GRID)
    x1, x2 = min(x1, x2), max(x1, x2)
    y1, y2 = min(y1, y2), max(y1, y2)
    near, far = (0.0, 1.0) if x1 == x2 or y1 == y2 else (0.5, 0.5)
    return (x1 + near) / GRID, (y1 + near) / GRID, (x2 + far) / GRID, (y2 + far) / GRID


def neighbours(cell: int) -> list[int | None]:
    """Return the grid indices of `cell` and its neighbours, in the order of NEIGHBOURS.

    A neighbour beyond the edge of the grid is None.
    """
    y, x = divmod(cell, GRID)
    return [
        (y + down) * GRID + x + right if 0 <= y + down < GRID and 0 <= x + right < GRID else None
        for down, right in NEIGHBOURS
    ]


def refined(cell: int, probabilities: Sequence[float]) -> tuple[float, float]:
    """Return the expected position (x, y) in [0, 1] of a corner for which the model wrote `cell`.

    `probabilities` are those of the cell and its neighbours, in the order of NEIGHBOURS. Only
    their ratios count. The position is inside the cell.
    """
    inside = [
        (offset, probability)
        for offset, index, probability in zip(
            NEIGHBOURS, neighbours(cell), probabilities, strict=True
        )
        if index is not None
    ]
    total = sum(probability for _, probability in inside)
    moved = [0.0, 0.0]  # y, x
    if total > 0:  # false for NaN, too
        for axis in (0, 1):
            mean = sum(offset[axis] * probability for offset, probability in inside) / total
            moved[axis] = min(max(mean, -MAX_OFFSET), MAX_OFFSET)
    y, x = divmod(cell, GRID)
    return (x + 0.5 + moved[1]) / GRID, (y + 0.5 + moved[0]) / GRID


def point_box(
    one: tuple[float, float], other: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return the box in [0, 1] of two opposite corners (x, y) in [0, 1] from `refined`.

    If both corners are in one column (or row) of cells, the box spans that column (or row).
    """
    (x1, x2), (y1, y2) = (_side(*sorted(ends)) for ends in zip(one, other, strict=True))
    return x1, y1, x2, y2


def _side(low: float, high: float) -> tuple[float, float]:
    cell = math.floor(low * GRID)
    return (low, high) if high * GRID >= cell + 1 else (cell / GRID, (cell + 1) / GRID)


def region_cells(box: Box, width: float = 1.0, height: float = 1.0) -> tuple[int, int]:
    """Return the grid indices (upper left, lower right) of the cells that cover `box`.

    `box` is in the unit of `width` and `height`: pixels, or [0, 1] by default. It is clipped to
    the image. The indices are the floor of the upper-left corner and the ceiling - 1 of the
    lower-right one (`coordinate_to_patch_index` of Hugging Face's processing_kosmos2.py), so
    the box that `cell_box` returns for two indices gives these indices again.
    Raises RegionError for a box that is not finite, empty, inverted or outside the image, and for
    a box whose numbers are probably fractions of the image (check_region).
    """
    check_region(box, width, height)
    x1, x2 = (min(max(x / width, 0.0), 1.0) for x in (box.x_min, box.x_max))
    y1, y2 = (min(max(y / height, 0.0), 1.0) for y in (box.y_min, box.y_max))
    if x1 >= x2 or y1 >= y2:
        raise RegionError(
            f"region {_shown(box)} is outside the image (0, 0, {width:g}, {height:g})"
        )
    upper_left = math.floor(y1 * GRID) * GRID + math.floor(x1 * GRID)
    lower_right = (math.ceil(y2 * GRID) - 1) * GRID + math.ceil(x2 * GRID) - 1
    return upper_left, lower_right


def check_region(box: Box, width: float = 1.0, height: float = 1.0) -> None:
    """Raise RegionError for a box that is not finite, empty or inverted.

    `width` and `height` are the size of the image in pixels. If they are given, a box inside the
    first pixel is also refused, because its numbers are probably fractions of the image. Images
    of at most GRID pixels per side are exempt: there the first pixel can contain a whole cell.
    """
    if not all(map(math.isfinite, (box.x_min, box.y_min, box.x_max, box.y_max))):
        raise RegionError(f"region {_shown(box)} must have finite numbers")
    if box.x_min >= box.x_max or box.y_min >= box.y_max:
        raise RegionError(
            f"region {_shown(box)} is empty or inverted: "
            "x_min must be less than x_max, and y_min less than y_max"
        )
    if (
        min(box.x_min, box.y_min) >= 0
        and max(box.x_max, box.y_max) <= 1
        and (max(width, height) > GRID)
    ):
        raise RegionError(
            f"region {_shown(box)} must be in pixels of the image (0, 0, {width:g}, {height:g}), "
            f"not in fractions of it; multiply x by {width:g} and y by {height:g}"
        )


def _shown(box: Box) -> str:
    return f"({box.x_min:g}, {box.y_min:g}, {box.x_max:g}, {box.y_max:g})"


def _boxes(corners: list[list[_Corner]]) -> tuple[Box, ...]:
    return tuple(
        _box(*pair)
        for pair in corners
        if len(pair) == 2 and all(corner.index < GRID * GRID for corner in pair)
    )


def _box(one: _Corner, other: _Corner) -> Box:
    if one.point and other.point:
        sides = point_box(one.point, other.point)
    else:
        sides = cell_box(one.index, other.index)
    return Box(*sides, score=math.sqrt(one.score * other.score))


def _clean(words: str) -> str:
    # A NUL ends a ROS string and a lone surrogate cannot be encoded in one.
    return _UNPRINTABLE.sub(" ", words)


def join_punctuation(text: str) -> str:
    """Return `text` without the spaces before English punctuation and contractions.

    Equals `clean_up_tokenization` of Hugging Face's tokenizers, which not every supported version
    of transformers has. Tags do not change it: `</object> 's` becomes `</object>'s`.
    """
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text


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
