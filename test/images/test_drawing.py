# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Annotated images: boxes and labels are in place and legible, and nothing else changes."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from kosmos_ros.images import drawing
from kosmos_ros.images.drawing import PALETTE, PAPER, annotate, colours_of, ink_on
from kosmos_ros.kosmos2.grounding import Box, Caption, Phrase

SIZES = [(320, 240), (640, 480), (1920, 1080), (3840, 2160)]


def caption(*marks, text="An image."):
    """`marks` are (phrase, x_min, y_min, x_max, y_max)."""
    return Caption(text, tuple(Phrase(words, 0, 0, (Box(*box, 0.5),)) for words, *box in marks))


def blank(width, height, colour=0):
    return np.full((height, width, 3), colour, np.uint8)


def of_colour(image, colour):
    return (image == np.array(colour, np.uint8)).all(axis=2)


@pytest.mark.parametrize("size", SIZES)
def test_the_image_stays_on_top_and_the_caption_goes_below(size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    given = image.copy()
    result = annotate(image, caption(text="An image of a dog."))
    assert result.dtype == np.uint8
    assert result.shape[1] == size[0]
    assert (result[: size[1]] == given).all()
    assert (image == given).all()
    strip = result[size[1] :]
    written = ~of_colour(strip, PAPER)
    rows = np.flatnonzero(written.any(axis=1))
    assert 7 <= np.ptp(rows) <= size[1] / 20  # one line of text of a legible height
    assert np.ptp(np.flatnonzero(written.any(axis=0))) > 8 * np.ptp(rows)
    assert strip.max() == 255


@pytest.mark.parametrize("size", SIZES)
def test_a_box_is_drawn_on_its_edges_and_nowhere_else(size):
    width, height = size
    result = annotate(blank(*size, 128), caption(("a dog", 0.25, 0.5, 0.75, 0.875)))[:height]
    colour = colours_of(["a dog"])["a dog"]
    left, top, right, bottom = width // 4, height // 2, width * 3 // 4, height * 7 // 8
    painted = ~of_colour(result, (128, 128, 128))
    line = max(2, height // 60)
    inside = np.zeros((height, width), bool)
    inside[top + line : bottom - line, left + line : right - line] = True
    assert not painted[inside].any()
    assert not painted[:, :left].any()
    assert not painted[:, right:].any()
    assert not painted[bottom:].any()
    coloured = of_colour(result, colour)[top:bottom, left:right]
    for edge in (coloured[:line], coloured[-line:], coloured[:, :line].T, coloured[:, -line:].T):
        assert edge.mean(axis=1).max() > 0.95


def test_the_label_has_phrase_and_score():
    plain = annotate(blank(640, 480), caption(("a dog", 0.2, 0.5, 0.8, 0.8)))
    for other in (
        caption(("a cat", 0.2, 0.5, 0.8, 0.8)),
        Caption("An image.", (Phrase("a dog", 0, 0, (Box(0.2, 0.5, 0.8, 0.8, 0.75),)),)),
    ):
        label = annotate(blank(640, 480), other)[200:240]
        assert (label != plain[200:240]).any()
    assert of_colour(plain[200:240], ink_on(colours_of(["a dog"])["a dog"])).any()


def test_labels_of_boxes_at_one_place_do_not_cover_each_other():
    marks = [(f"thing number {n}", 0.4, 0.45, 0.6, 0.55) for n in range(12)]
    result = annotate(blank(640, 480, 128), caption(*marks))[:480]
    for words, colour in colours_of(mark[0] for mark in marks).items():
        label = drawing._label(words, "0.50", colour, 640, 16)
        paper = of_colour(label, colour).sum()
        assert of_colour(result, colour).sum() >= paper


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("x,y", [(0, 0), (0.97, 0), (0, 0.97), (0.97, 0.97)])
def test_a_label_in_a_corner_is_whole(size, x, y):
    box = (x, y, x + 0.03, y + 0.03)
    result = annotate(blank(*size, 128), caption(("a dog", *box)))[: size[1]]
    colour = colours_of(["a dog"])["a dog"]
    label = drawing._label("a dog", "0.50", colour, size[0], max(12, round(size[1] / 30)))
    found = [
        (top, left)
        for top, left in np.argwhere(of_colour(result, label[0, 0]))
        if (result[top : top + label.shape[0], left : left + label.shape[1]].shape == label.shape)
        and (result[top : top + label.shape[0], left : left + label.shape[1]] == label).all()
    ]
    assert len(found) == 1


@pytest.mark.parametrize(("height", "line", "rim"), [(240, 2, 1), (720, 3, 1), (1260, 6, 2)])
def test_a_line_has_a_black_rim_on_both_sides(height, line, rim):
    size = height * 2, height
    result = annotate(blank(*size, 128), caption(("a dog", 0.25, 0.25, 0.75, 0.75)))
    colour = colours_of(["a dog"])["a dog"]
    expected = [(0, 0, 0)] * rim + [colour] * line + [(0, 0, 0)] * rim + [(128, 128, 128)] * 3
    middle = result[height // 2, height // 2 :][: len(expected)]
    assert [tuple(pixel) for pixel in middle.tolist()] == expected


@pytest.mark.parametrize(
    ("box", "taken", "place"),
    [
        ((100, 50, 200, 90), [], (100, 30)),  # above
        ((100, 20, 200, 90), [], (100, 0)),  # above, at the edge of the image
        ((100, 19, 200, 90), [], (100, 19)),  # inside: there is no room above
        ((100, 50, 200, 90), [(90, 30, 110, 50)], (150, 30)),  # above, at the right
        ((100, 50, 200, 90), [(90, 30, 200, 50)], (100, 50)),  # inside, at the top
        ((100, 50, 200, 90), [(90, 30, 200, 60)], (100, 70)),  # inside, at the bottom
        ((100, 50, 200, 90), [(90, 30, 200, 80)], (100, 90)),  # below
        ((100, 50, 200, 90), [(90, 30, 200, 110)], (200, 50)),  # beside, at the right
        ((100, 50, 200, 90), [(100, 30, 300, 110)], (50, 50)),  # beside, at the left
        ((100, 50, 200, 90), [(0, 30, 300, 110)], (100, 10)),  # two labels higher
        ((100, 50, 200, 90), [(0, 0, 300, 100)], (100, 100)),  # lower, moved into the image
        ((100, 50, 280, 90), [(0, 10, 250, 110)], (250, 50)),  # at the right, moved into the image
        ((100, 50, 200, 90), [(0, 0, 300, 120), (0, 0, 120, 120)], (150, 30)),  # least covered
    ],
)
def test_a_label_takes_the_first_free_place(box, taken, place):
    """Labels of 50 x 20 pixels in an image of 300 x 120."""
    areas = [drawing._Area(*area) for area in taken]
    left, top, right, bottom = drawing._place(drawing._Area(*box), 50, 20, 300, 120, areas)
    assert (right - left, bottom - top) == (50, 20)
    assert (left, top) == place


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        ((10, 10, 20, 20), 100),
        ((15, 12, 30, 14), 10),
        ((0, 0, 100, 100), 100),
        ((20, 10, 30, 20), 0),
        ((19, 19, 30, 30), 1),
        ((0, 0, 10, 100), 0),
        ((30, 30, 40, 40), 0),
    ],
)
def test_the_overlap_of_two_labels_is_counted_in_pixels(other, shared):
    area = drawing._Area(10, 10, 20, 20)
    assert drawing._shared(area, drawing._Area(*other)) == shared
    assert drawing._shared(drawing._Area(*other), area) == shared


def test_a_phrase_longer_than_the_image_keeps_its_score():
    colour = PALETTE[0]
    first, second = (
        drawing._label("a long phrase " * 40, score, colour, 640, 16) for score in ("0.50", "0.75")
    )
    assert first.shape == second.shape
    assert first.shape[1] <= 640
    changed = np.flatnonzero((first != second).any(axis=(0, 2)))
    assert len(changed) > 5
    assert changed[0] > first.shape[1] - 40


def test_a_phrase_keeps_its_colour_from_frame_to_frame():
    alone = colours_of(["a dog"])["a dog"]
    others = [
        words for words in ("a cat", "a bus", "a car") if colours_of([words])[words] != alone
    ]
    assert others
    assert colours_of([*others, "a dog"])["a dog"] == alone
    assert colours_of(["a dog", "a dog", *others]) == colours_of([*others, "a dog"])


@given(st.sets(st.text(max_size=12), max_size=len(PALETTE)))
def test_no_two_phrases_of_an_image_share_a_colour(texts):
    colours = colours_of(texts)
    assert set(colours) == texts
    assert len(set(colours.values())) == len(texts)


def test_colours_are_the_same_in_every_process():
    """Python orders a set of strings differently in each process."""
    code = (
        "from kosmos_ros.images.drawing import colours_of\n"
        "print(sorted(colours_of('abcdefghijklmn').items()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in "123"
    }
    assert len(outputs) == 1


def test_more_phrases_than_colours_get_colours():
    assert len(colours_of(str(n) for n in range(50))) == 50


def luminance(colour):
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in np.divide(colour, 255)
    ]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("paper", [*PALETTE, PAPER])
def test_text_stands_out_from_its_background(paper):
    """WCAG 2, level AA: a contrast of at least 4.5."""
    light, dark = sorted((luminance(paper), luminance(ink_on(paper))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_only_long_captions_make_the_strip_higher_up_to_a_limit():
    heights = [
        annotate(blank(640, 480), caption(text="word " * count)).shape[0]
        for count in (0, 1, 20, 60, 200, 10_000)
    ]
    assert heights[0] == heights[1] == heights[2] < heights[3] < heights[4]
    assert heights[5] <= 2 * 480


FONTS = ["DejaVu Sans", "Pillow's own"]


@pytest.fixture
def font(request, monkeypatch):
    """Make only one of the two fonts available."""

    truetype = ImageFont.truetype

    def no_file(font, *args, **options):
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return truetype(font, *args, **options)

    drawing._font.cache_clear()
    if request.param == "Pillow's own":
        monkeypatch.setattr(ImageFont, "truetype", no_file)
    yield request.param
    drawing._font.cache_clear()


@pytest.mark.parametrize("font", FONTS, indirect=True)
@pytest.mark.parametrize("size", SIZES)
def test_text_is_legible_with_every_font(font, size):
    pixels = max(12, round(size[1] / 30))
    line = drawing._written("A dog", pixels, PAPER)
    ink = ~of_colour(line, PAPER)
    rows = np.flatnonzero(ink.any(axis=1))
    assert 0.5 * pixels <= np.ptp(rows) < 1.35 * pixels
    assert rows[0] > 0
    assert rows[-1] < len(line) - 1
    assert line.max() > 250


@pytest.mark.parametrize("font", FONTS, indirect=True)
@pytest.mark.parametrize(
    "text",
    ["Straße, éàü", "Привет", "你好", "שלום", "😀", "a\nb\tc", "\ud800", "\u202e", "x" * 3000],
)
def test_text_of_any_language_is_drawn(font, text):
    result = annotate(blank(320, 240), caption((text, 0.1, 0.1, 0.9, 0.9), text=text))
    assert result.shape[1] == 320


@given(
    st.text(max_size=300) | st.text("ab ", max_size=300),
    st.integers(20, 400),
)
def test_wrapped_lines_hold_every_word_and_fit(text, width):
    lines = drawing._wrapped(text, width, 12, 10_000)
    if lines:
        assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(drawing._length(line, 12) <= width for line in lines)


def test_an_ellipsis_ends_a_caption_that_is_cut_off():
    lines = drawing._wrapped("one two three four five six seven " * 9, 100, 12, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert drawing._length(lines[-1], 12) <= 100


box = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(
    lambda v: Box(*map(min, v[:2], v[2:]), *map(max, v[:2], v[2:]), 0.5)
)


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.lists(st.tuples(st.text(max_size=20), st.lists(box, min_size=1, max_size=3)), max_size=5),
    st.text(max_size=200),
)
@pytest.mark.fault(19)
def test_any_image_and_caption_can_be_drawn(width, height, phrases, text):
    marks = tuple(Phrase(words, 0, 0, tuple(boxes)) for words, boxes in phrases)
    result = annotate(blank(width, height), Caption(text, marks))
    assert result.dtype == np.uint8
    assert result.shape[1:] == (width, 3)
    assert height < result.shape[0] <= height + max(height, 3 * 17 + 8)


EDGES = {
    "left": (0, 0.25, 0, 0.75),
    "top": (0.25, 0, 0.75, 0),
    "right": (1, 0.25, 1, 0.75),
    "bottom": (0.25, 1, 0.75, 1),
    "first corner": (0, 0, 0, 0),
    "last corner": (1, 1, 1, 1),
    "whole image": (0, 0, 1, 1),
}


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (8000, 1), (2, 3), (320, 240)])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.fault(19)
def test_a_box_on_an_edge_of_any_image_is_drawn_inside_it(size, edge):
    """Even a box without area covers a pixel, whose rim is black."""
    width, height = size
    result = annotate(blank(*size, 128), caption(("a dog", *EDGES[edge]), text="a dog " * 50))
    assert result.shape[1] == width
    assert height < result.shape[0] <= height + max(height, 3 * 17 + 8)
    painted = ~of_colour(result[:height], (128, 128, 128))
    x_min, y_min, x_max, y_max = EDGES[edge]
    left, top = min(round(x_min * width), width - 1), min(round(y_min * height), height - 1)
    right, bottom = max(round(x_max * width), left + 1), max(round(y_max * height), top + 1)
    for row, column in itertools.product((top, bottom - 1), (left, right - 1)):
        assert painted[row, column]
    if size != (320, 240):  # too small for a label
        inside = np.zeros((height, width), bool)
        inside[top:bottom, left:right] = True
        assert not painted[~inside].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (8000, 1)])
@pytest.mark.fault(19)
def test_extreme_shapes_keep_their_pixels_without_boxes(size):
    image = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    result = annotate(image, caption(text="a dog " * 50))
    assert (result[: size[1]] == image).all()
