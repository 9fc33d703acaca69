# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Draw a caption on its image: boxes and labels in the image, the text on a strip below it.

Knows pixels and text; no messages and no model. Only labels and the strip go through Pillow: the
image itself is copied once and never converted.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kosmos_ros.kosmos2.grounding import Box, Caption

Rgb = tuple[int, int, int]

PALETTE: tuple[Rgb, ...] = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (67, 99, 216),
    (245, 130, 49),
    (145, 30, 180),
    (66, 212, 244),
    (240, 50, 230),
    (191, 239, 69),
    (250, 190, 212),
    (70, 153, 144),
    (220, 190, 255),
    (154, 99, 36),
    (170, 255, 195),
)
"""Colours that differ clearly (sashamaps.net, "20 simple, distinct colors")."""

BLACK: Rgb = (0, 0, 0)
WHITE: Rgb = (255, 255, 255)
PAPER: Rgb = (24, 24, 24)  # background of the strip

TEXT_SIZE = 1 / 30  # height of the text, as a share of the image's shorter side
SMALLEST_TEXT = 12  # pixels
JPEG_QUALITY = 90
STRIP_LINES = 2  # least height of the strip, so that frames of a video rarely change their height


class _Area(NamedTuple):
    """Whole pixels [left, right) x [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int


def annotate(image: np.ndarray, caption: Caption) -> np.ndarray:
    """Return RGB (H', W, 3) uint8: `image` (H, W, 3) uint8 with its caption drawn.

    The first H rows are the image with an outline for each box, labelled with phrase and score.
    The rows below are a strip with the text, of at most H rows or three lines, whichever is more.
    A phrase has the same colour in every image, unless two phrases of one image would share it.
    """
    height, width, _ = image.shape
    size = text_size(width, height)
    result = np.concatenate([image, _strip(caption.text, width, height, size)])
    canvas = result[:height]
    colours = colours_of(phrase.text for phrase in caption.phrases)
    marks = []
    for phrase in caption.phrases:
        for box in phrase.boxes:
            area = _pixels(box.scaled(width, height), width, height)
            marks.append((area, f"{box.score:.2f}", phrase.text))
    for area, _, text in marks:
        _outline(canvas, area, colours[text], line_width(size))
    taken: list[_Area] = []
    for area, score, text in marks:
        label = _label(text, score, colours[text], width, size)
        if label.shape[0] <= height and label.shape[1] <= width:
            place = _place(area, label.shape[1], label.shape[0], width, height, taken)
            canvas[place.top : place.bottom, place.left : place.right] = label
            taken.append(place)
    return result


def jpeg(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) uint8 RGB as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def text_size(width: int, height: int) -> int:
    """Return the height in pixels of the text on an image of this size."""
    return max(SMALLEST_TEXT, round(min(width, height) * TEXT_SIZE))


def line_width(size: int) -> int:
    """Return the width in pixels of the outlines beside text of `size` pixels."""
    return max(2, size // 7)


def colours_of(texts: Iterable[str]) -> dict[str, Rgb]:
    """Return a colour for each text, chosen by its hash; the next free one if it is taken."""
    colours: dict[str, Rgb] = {}
    for text in sorted(set(texts)):
        first = zlib.crc32(text.encode("utf-8", "replace")) % len(PALETTE)
        order = PALETTE[first:] + PALETTE[:first]
        colours[text] = next((c for c in order if c not in colours.values()), order[0])
    return colours


def ink_on(paper: Rgb) -> Rgb:
    """Return black or white, whichever contrasts more (relative luminance of WCAG 2)."""
    linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 if c > 10 else c / 3295 for c in paper]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


# Boxes -----------------------------------------------------------------------------------------


def _pixels(box: Box, width: int, height: int) -> _Area:
    left, top = min(round(box.x_min), width - 1), min(round(box.y_min), height - 1)
    right, bottom = max(round(box.x_max), left + 1), max(round(box.y_max), top + 1)
    return _Area(left, top, min(right, width), min(bottom, height))


def _outline(canvas: np.ndarray, area: _Area, colour: Rgb, line: int) -> None:
    # A dark rim keeps the line visible on a background of its own colour.
    _frame(canvas, area, BLACK, line + 2 * max(1, line // 3))
    rim = max(1, line // 3)
    inner = _Area(area.left + rim, area.top + rim, area.right - rim, area.bottom - rim)
    _frame(canvas, inner, colour, line)


def _frame(canvas: np.ndarray, area: _Area, colour: Rgb, line: int) -> None:
    left, top, right, bottom = area
    if left >= right or top >= bottom:
        return
    canvas[top : min(top + line, bottom), left:right] = colour
    canvas[max(bottom - line, top) : bottom, left:right] = colour
    canvas[top:bottom, left : min(left + line, right)] = colour
    canvas[top:bottom, max(right - line, left) : right] = colour


# Labels ----------------------------------------------------------------------------------------


def _label(text: str, score: str, colour: Rgb, width: int, size: int) -> np.ndarray:
    words = " ".join([*text.split(), score])
    if _length(words, size) > width - size:
        space = width - size - _length(f"… {score}", size)
        words = f"{_fitting(' '.join(text.split()), space, size)}… {score}"
    return _written(words, size, colour)


def _place(
    box: _Area, across: int, down: int, width: int, height: int, taken: list[_Area]
) -> _Area:
    """Return the place where a label of `across` x `down` pixels covers other labels least."""
    best, least = None, float("inf")
    for left, top in _corners(box, across, down, height):
        left, top = min(max(left, 0), width - across), min(max(top, 0), height - down)
        area = _Area(left, top, left + across, top + down)
        covered = sum(_shared(area, other) for other in taken)
        if covered < least:
            best, least = area, covered
        if not covered:
            break
    assert best is not None
    return best


def _corners(box: _Area, across: int, down: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield upper-left corners for a label, best first: above, inside, below, then beside."""
    if box.top >= down:
        yield box.left, box.top - down
        yield box.right - across, box.top - down
    yield box.left, box.top
    yield box.right - across, box.top
    yield box.left, box.bottom - down
    yield box.right - across, box.bottom - down
    if box.bottom + down <= height:
        yield box.left, box.bottom
        yield box.right - across, box.bottom
    for step in range(height // down):
        for top in (box.top - step * down, box.top + step * down):
            yield box.left, top
            yield box.right, top
            yield box.left - across, top


def _shared(a: _Area, b: _Area) -> int:
    across = min(a.right, b.right) - max(a.left, b.left)
    down = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(across, 0) * max(down, 0)


# Text ------------------------------------------------------------------------------------------


def _strip(text: str, width: int, height: int, size: int) -> np.ndarray:
    line = _line_height(size)
    lines = _wrapped(text, width - size, size, max(STRIP_LINES + 1, height // line - 1))
    margin = size // 3
    rows = max(STRIP_LINES, len(lines)) * line + 2 * margin
    strip = np.full((rows, width, 3), PAPER, np.uint8)
    for number, words in enumerate(lines):
        written = _written(words, size, PAPER)[:, :width]
        strip[margin + number * line :][:line, : written.shape[1]] = written
    return strip


def _wrapped(text: str, width: int, size: int, most: int) -> list[str]:
    """Return at most `most` lines of `width` pixels; an ellipsis ends a text that is cut off."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most:
        line = words[0]
        if _length(line[: width + 1], size) > width:  # break a word that is longer than a line
            line = _fitting(line, width, size)
            if not line:
                break
            words[0] = words[0][len(line) :]
        else:
            words.pop(0)
            while words and _length(f"{line} {words[0][:width]}", size) <= width:
                line += f" {words.pop(0)}"
        lines.append(line)
    if words and lines:
        lines[-1] = _fitting(lines[-1], width - _length("…", size), size) + "…"
    return lines


def _fitting(text: str, width: float, size: int) -> str:
    """Return the longest beginning of `text` that is at most `width` pixels long."""
    low, high = 0, min(len(text), max(int(width), 0))  # no letter is narrower than a pixel
    while low < high:
        middle = (low + high + 1) // 2
        if _length(text[:middle], size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip()


def _written(text: str, size: int, paper: Rgb) -> np.ndarray:
    """Return a line of text (line height, length, 3) uint8 on `paper`, in black or white."""
    font = _font(size)
    shape = round(_length(text, size)) + size, _line_height(size)
    image = Image.new("RGB", shape, paper)
    place = size // 2, (image.height - sum(font.getmetrics())) // 2
    ImageDraw.Draw(image).text(place, _drawable(text), fill=ink_on(paper), font=font)
    return np.asarray(image)


def _length(text: str, size: int) -> float:
    return float(_RULER.textlength(_drawable(text), font=_font(size)))


def _line_height(size: int) -> int:
    return round(size * 1.35)


def _drawable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans in `size` pixels, or Pillow's own font, which has far fewer letters."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font


_RULER = ImageDraw.Draw(Image.new("RGB", (1, 1)))
