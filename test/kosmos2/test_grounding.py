# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tagged text becomes the phrases and boxes that Hugging Face's own code finds in it."""

import math
import re
import sys
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.models.kosmos2.processing_kosmos2 import (
    clean_text_and_extract_entities_with_bboxes,
    coordinate_to_patch_index,
    patch_index_to_coordinate,
)

from kosmos_ros.errors import GenerationError, RegionError
from kosmos_ros.kosmos2 import grounding
from kosmos_ros.kosmos2.grounding import (
    GRID,
    NEIGHBOURS,
    TAGS,
    Box,
    Caption,
    Phrase,
    cell_box,
    enumerated,
    join_captions,
    neighbours,
    parse,
    point_box,
    read,
    refined,
    region_cells,
)
from kosmos_ros.kosmos2.query import Generation

SNOWMAN = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
    "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
    "<patch_index_0005><patch_index_0911></object>."
)

DELIMITER = "</delimiter_of_multi_objects/>"

indices = st.integers(0, GRID * GRID - 1)
places, sizes = st.integers(0, GRID - 1), st.integers(1, 8000)
words = st.text(alphabet="ab é中😀.,'", min_size=1, max_size=8)
cells = st.tuples(indices, indices).map(
    lambda pair: (
        min(pair[0] // 32, pair[1] // 32) * 32 + min(pair[0] % 32, pair[1] % 32),
        max(pair[0] // 32, pair[1] // 32) * 32 + max(pair[0] % 32, pair[1] % 32),
    )
)


def tagged(first, last):
    return f"<patch_index_{first:04d}><patch_index_{last:04d}>"


def location_tags(text):
    return len(re.findall(r"<patch_index_[0-9]+>", text))


@st.composite
def well_formed(draw):
    """Captions in which every phrase and every box is complete, as in KOSMOS-2's training."""
    parts = [draw(st.sampled_from(["<grounding>", "<grounding> ", "", " "]))]
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            parts.append(draw(words))
        phrase = draw(words.filter(str.strip))
        boxes = draw(st.lists(cells, max_size=3))
        parts.append(f"<phrase>{phrase}</phrase>")
        if boxes:
            inside = "</delimiter_of_multi_objects/>".join(tagged(*box) for box in boxes)
            parts.append(f"<object>{inside}</object>")
    parts.append(draw(st.sampled_from(["", ".", " .", "  "])))
    return "".join(parts)


fragments = st.one_of(
    st.sampled_from(TAGS),
    st.builds("<patch_index_{:04d}>".format, st.integers(0, 99999)),
    st.sampled_from(["<", ">", "</", "<object", "<patch_index_12", "<b>", "\x00", "\n", "\ud800"]),
    words,
)


def test_the_model_cards_example_gives_the_model_cards_boxes():
    text, phrases = parse(SNOWMAN, [0.5, 0.125, 1.0, 0.25])
    assert text == "An image of a snowman warming himself by a fire."
    assert [(p.text, p.start, p.end) for p in phrases] == [
        ("a snowman", 12, 21),
        ("a fire", 41, 47),
    ]
    assert phrases[0].boxes == (Box(0.390625, 0.046875, 0.984375, 0.828125, 0.25),)
    assert phrases[1].boxes == (Box(0.171875, 0.015625, 0.484375, 0.890625, 0.5),)


@settings(max_examples=3000)
@given(well_formed())
def test_well_formed_text_gives_the_phrases_and_boxes_of_hugging_face(text):
    expected_text, expected = clean_text_and_extract_entities_with_bboxes(text)
    caption, phrases = parse(text, [0.5] * location_tags(text))
    assert caption == expected_text
    found = [
        (p.text, (p.start, p.end), [(b.x_min, b.y_min, b.x_max, b.y_max) for b in p.boxes])
        for p in phrases
    ]
    assert found == expected


@settings(max_examples=2000)
@given(st.lists(fragments, max_size=40).map("".join))
@pytest.mark.fault(41, 42, 45)
def test_any_text_gives_a_valid_caption(text):
    caption, phrases = parse(text, [0.5] * location_tags(text))
    assert caption == caption.strip()
    assert not re.search("[\x00-\x08\ud800-\udfff]", caption)
    for phrase in phrases:
        assert 0 <= phrase.start <= phrase.end <= len(caption)
        assert caption[phrase.start : phrase.end] == phrase.text
        assert phrase.boxes
        for box in phrase.boxes:
            assert 0 <= box.x_min < box.x_max <= 1
            assert 0 <= box.y_min < box.y_max <= 1
            assert box.score == 0.5


@pytest.mark.parametrize(
    ("text", "caption", "phrases"),
    [
        ("<phrase> a cat", "a cat", []),
        (f"<phrase> a cat</phrase><object>{tagged(0, 33)}", "a cat", []),
        ("<phrase> a cat</phrase><object><patch_index_0003></object>.", "a cat.", []),
        ("<phrase> a cat</phrase><object></object>.", "a cat.", []),
        (f"<phrase> a cat</phrase><object>{tagged(5, 1024)}</object>", "a cat", []),
        (f"<phrase> a cat</phrase><object>{tagged(1, 2)}{tagged(3, 4)}</object>", "a cat", []),
        (f"<phrase> a cat</phrase><object>{tagged(1, 2)} on</object> it", "a cat on it", []),
        (f"<phrase> a <phrase> b</phrase><object>{tagged(0, 33)}</object>", "a  b", [("b", 3, 4)]),
        (f"see<object>{tagged(0, 33)}</object> here", "see here", [("", 3, 3)]),
        (f"<phrase> a</phrase> b<object>{tagged(0, 33)}</object>", "a b", [("", 3, 3)]),
        ("a < b > c <b>d", "a < b > c <b>d", []),
        (
            f"<phrase> a</phrase><object>{tagged(0, 33)}</delimiter_of_multi_objects/>"
            "<patch_index_0001></object>",
            "a",
            [("a", 0, 1)],
        ),
    ],
)
@pytest.mark.fault(41)
def test_malformed_text_keeps_its_words_and_drops_incomplete_boxes(text, caption, phrases):
    found = parse(text, [1.0] * location_tags(text))
    assert found[0] == caption
    assert [(p.text, p.start, p.end) for p in found[1]] == phrases
    assert all(len(p.boxes) == 1 for p in found[1])


@pytest.mark.fault(41)
def test_swapped_corners_are_put_in_order():
    _, phrases = parse(f"<phrase> a</phrase><object>{tagged(863, 44)}</object>", [1, 1])
    assert phrases[0].boxes == (Box(0.390625, 0.046875, 0.984375, 0.828125, 1),)


@pytest.mark.fault(42)
def test_ten_thousand_tags_are_read_in_one_pass():
    part = f"<phrase> a</phrase><object>{tagged(0, 33)}</object>"
    caption, phrases = parse(part * 10_000, [0.5] * 20_000)
    assert len(phrases) == 10_000
    assert len(caption) == 19_999


FAMILIES = (
    f"<phrase> a</phrase><object>{tagged(0, 33)}</object>",
    f"<phrase> a</phrase><object>{tagged(0, 33)}{DELIMITER}{tagged(0, 33)}{DELIMITER}</object>",
    "<phrase> a",
    "<phrase></phrase>",
    "<object>" + tagged(0, 33),
    DELIMITER,
    "<patch_index_00",
    "<patch_index_" + "7" * 50,
    "<",
    "a \x00 \n",
)


@pytest.mark.parametrize("part", FAMILIES)
@pytest.mark.parametrize("front", ["", "<phrase>", "<object>", "  "])
@pytest.mark.fault(42)
def test_the_work_is_proportional_to_the_text(monkeypatch, front, part):
    """Counts steps of the interpreter and characters that regular expressions read."""

    class Counting:
        def __init__(self, pattern):
            self.pattern = pattern

        def finditer(self, text):
            nonlocal searched
            searched += len(text)
            return self.pattern.finditer(text)

        def sub(self, new, text):
            nonlocal searched
            searched += len(text)
            return self.pattern.sub(new, text)

    def trace(frame, event, arg):
        nonlocal steps
        if frame.f_code.co_filename != grounding.__file__:
            return None  # for example, code that a garbage collection calls
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    monkeypatch.setattr(grounding, "TAG", Counting(grounding.TAG))
    monkeypatch.setattr(grounding, "_UNPRINTABLE", Counting(grounding._UNPRINTABLE))
    taken = []
    for times in (10, 10, 20, 30, 40):  # Python 3.12 may count no step of the first text
        text = front + part * times
        scores = [0.5] * location_tags(text)
        steps = searched = 0
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            caption, phrases = parse(text, scores)
        finally:
            sys.settrace(before)
        assert searched <= 2 * len(text)
        # No part of the caption is copied into two phrases.
        assert sum(len(phrase.text) for phrase in phrases) <= len(caption)
        taken.append(steps)
    del taken[0]
    assert taken[0] > 0
    assert len({after - before for before, after in pairwise(taken)}) == 1


@pytest.mark.fault(42)
def test_a_tag_has_one_angle_bracket_at_its_start():
    """So the search is linear: an attempt begins only at <, and no tag contains a second <."""
    assert all(tag.rfind("<") == 0 for tag in (*TAGS, "<patch_index_0000>"))


@pytest.mark.parametrize("points", [[(0.1, 0.1)], [(0.1, 0.1)] * 3])
def test_a_wrong_number_of_points_is_an_error(points):
    with pytest.raises(GenerationError, match=f"expected 2 location points.* got {len(points)}"):
        parse(f"<phrase> a</phrase><object>{tagged(0, 33)}</object>", [0.5, 0.5], points)


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5, 0.5]])
def test_a_wrong_number_of_scores_is_an_error(scores):
    with pytest.raises(
        GenerationError, match=f"expected 2 location probabilities.* got {len(scores)}"
    ):
        parse(f"<phrase> a</phrase><object>{tagged(0, 33)}</object>", scores)


def test_a_caption_begins_with_the_lead_of_its_prompt():
    generation = Generation("<phrase> a</phrase>.", (), 0.75, 5, True)
    caption = read(generation, "<grounding> An image of", "<grounding> An image of")
    assert caption.text == "An image of a."
    assert caption.raw_text == "<grounding> An image of<phrase> a</phrase>."
    assert (caption.score, caption.generated_tokens, caption.truncated) == (0.75, 5, True)
    assert read(generation, "<grounding> Question: x Answer:").text == "a."


@given(indices, indices)
def test_cells_give_the_boxes_of_hugging_face(first, last):
    (y1, x1), (y2, x2) = divmod(first, GRID), divmod(last, GRID)
    ordered = (min(y1, y2) * GRID + min(x1, x2), max(y1, y2) * GRID + max(x1, x2))
    assert cell_box(first, last) == patch_index_to_coordinate(*ordered, GRID)


@given(cells, st.integers(1, 8000), st.integers(1, 8000))
def test_the_box_of_two_cells_covers_these_cells_again(cell, width, height):
    box = Box(*cell_box(*cell)).scaled(width, height)
    assert region_cells(box, width, height) == cell


near = st.lists(st.floats(0, 1), min_size=9, max_size=9)


@given(indices)
def test_neighbours_are_at_most_one_cell_away_and_inside_the_grid(cell):
    y, x = divmod(cell, GRID)
    found = [divmod(other, GRID) for other in neighbours(cell) if other is not None]
    assert found[0] == (y, x)
    assert sorted(found) == [
        (row, column)
        for row in range(max(y - 1, 0), min(y + 2, GRID))
        for column in range(max(x - 1, 0), min(x + 2, GRID))
    ]


@given(indices)
def test_a_certain_corner_is_at_the_centre_of_its_cell(cell):
    y, x = divmod(cell, GRID)
    for probability in (1.0, 1e-30, 0.0, math.nan):
        point = refined(cell, [probability, *[0.0] * 8])
        assert point == ((x + 0.5) / GRID, (y + 0.5) / GRID)


def test_a_corner_moves_towards_the_likely_neighbours():
    """A quarter of a cell to the right and an eighth up."""
    weights = dict.fromkeys(NEIGHBOURS, 0.0) | {(0, 0): 5, (0, 1): 2, (-1, 0): 1}
    x, y = refined(17 * GRID + 9, [weight / 16 for weight in weights.values()])
    assert (x * GRID, y * GRID) == (9.75, 17.375)
    # Beyond the grid is no cell.
    assert refined(0, [0.5, *[0.5] * 8]) == (0.99 / GRID,) * 2


@given(cells, near, near)
@pytest.mark.fault(88)
def test_a_refined_box_covers_the_cells_that_the_model_wrote(cell, first, second):
    first[0], second[0] = max(first), max(second)
    box = Box(*point_box(refined(cell[0], first), refined(cell[1], second)))
    assert region_cells(box) == cell


@given(indices, indices, near, near, st.booleans())
def test_a_refined_box_has_width_and_height_inside_the_image(first, last, one, other, swapped):
    """The probabilities and the order of the corners are arbitrary."""
    points = refined(first, one), refined(last, other)
    box = point_box(*points)
    assert box == point_box(*points[::-1])
    assert 0 <= box[0] < box[2] <= 1
    assert 0 <= box[1] < box[3] <= 1
    for side, exact in zip(box, cell_box(first, last), strict=True):
        assert abs(side - exact) < 1 / GRID


@given(indices, indices)
def test_a_certain_box_differs_from_that_of_hugging_face_only_beside_a_single_cell(first, last):
    """Hugging Face widens both sides of a box that is one cell high or wide."""
    certain = [1.0, *[0.0] * 8]
    found = point_box(refined(first, certain), refined(last, certain))
    (y1, x1), (y2, x2) = divmod(first, GRID), divmod(last, GRID)
    if (x1 == x2) == (y1 == y2):
        assert found == cell_box(first, last)
    else:
        side = 0 if x1 == x2 else 1
        assert found[side::2] == cell_box(first, last)[side::2]


def test_parse_gives_each_box_its_own_points():
    text = f"see<phrase> a</phrase><object>{tagged(0, 99)}{DELIMITER}{tagged(33, 66)}</object>"
    points = [(0.01, 0.02), (0.12, 0.11), (0.04, 0.05), (0.07, 0.08)]
    _, (phrase,) = parse(text + "<patch_index_0001>", [0.25] * 5, [*points, (0.9, 0.9)])
    assert phrase.boxes == (
        Box(0.01, 0.02, 0.12, 0.11, 0.25),
        Box(0.04, 0.05, 0.07, 0.08, 0.25),
    )
    generation = Generation(text, (0.25,) * 4, 0.5, 9, False, (), tuple(points))
    assert read(generation, "").phrases[0].boxes == phrase.boxes


# Below 2**-53 of the image Hugging Face's rounding leaves the grid; ours does not.
@given(*[st.integers(0, 10**6).map(lambda millionths: millionths / 10**6) for _ in range(4)])
def test_regions_cover_the_cells_of_hugging_face(x1, y1, x2, y2):
    if x1 < x2 and y1 < y2:
        assert region_cells(Box(x1, y1, x2, y2)) == coordinate_to_patch_index(
            (x1, y1, x2, y2), GRID
        )


@given(*[st.floats(-1e9, 1e9) for _ in range(4)])
@pytest.mark.fault(48)
def test_every_region_covers_cells_of_the_grid_or_is_an_error(x1, y1, x2, y2):
    try:
        first, last = region_cells(Box(x1, y1, x2, y2), 640, 480)
    except RegionError:
        return
    assert 0 <= first <= last < GRID * GRID
    assert first % GRID <= last % GRID


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ((10, 10, 10, 20), "empty or inverted"),
        ((30, 10, 20, 20), "empty or inverted"),
        ((10, 10, math.nan, 20), "must have finite numbers"),
        ((-math.inf, 10, 20, 20), "must have finite numbers"),
        ((640, 0, 700, 20), "outside"),
        ((-20, -20, 0, 0), "outside"),
        (
            (0.1, 0.2, 0.5, 0.75),
            r"region \(0.1, 0.2, 0.5, 0.75\) must be in pixels of the image \(0, 0, 640, 480\), "
            "not in fractions of it; multiply x by 640 and y by 480",
        ),
        ((0, 0, 1, 1), "must be in pixels"),
    ],
)
@pytest.mark.fault(48, 100)
def test_impossible_regions_are_refused_with_the_reason(corners, reason):
    with pytest.raises(RegionError, match=reason):
        region_cells(Box(*corners), 640, 480)


def test_regions_are_clipped_to_the_image():
    assert region_cells(Box(-50, -50, 900, 900), 640, 480) == (0, 1023)


@given(
    st.integers(0, GRID - 1), st.integers(0, GRID - 1), st.integers(1, 8000), st.integers(1, 8000)
)
def test_a_box_with_the_edges_of_a_cell_covers_this_cell_alone(x, y, width, height):
    """Boxes are in units of cells, in which edges are exact. Images have any shape."""
    assert region_cells(Box(x, y, x + 1, y + 1), GRID, GRID) == (y * GRID + x,) * 2
    inside = Box((x + 0.25) / GRID, (y + 0.25) / GRID, (x + 0.75) / GRID, (y + 0.75) / GRID)
    inside = inside.scaled(width, height)
    assume(max(inside.x_max, inside.y_max) > 1)  # otherwise it is taken for fractions
    assert region_cells(inside, width, height) == (y * GRID + x,) * 2


@given(st.integers(1, GRID - 1))
def test_a_box_that_reaches_past_an_edge_covers_the_next_cell(edge):
    below, above = math.nextafter(edge, 0), math.nextafter(edge, GRID)
    assert region_cells(Box(0, 0, above, 1), GRID, GRID) == (0, edge)
    assert region_cells(Box(0, 0, edge, 1), GRID, GRID) == (0, edge - 1)
    assert region_cells(Box(edge, 0, GRID, 1), GRID, GRID) == (edge, GRID - 1)
    assert region_cells(Box(below, 0, GRID, 1), GRID, GRID) == (edge - 1, GRID - 1)
    assert region_cells(Box(0, 0, 1, above), GRID, GRID) == (0, edge * GRID)
    assert region_cells(Box(0, edge, 1, GRID), GRID, GRID) == (edge * GRID, (GRID - 1) * GRID)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 8000), (8000, 1), (10**6, 3), (0.5, 0.5)]
)
def test_images_of_extreme_shape_have_all_cells(width, height):
    assert region_cells(Box(0, 0, width, height), width, height) == (0, GRID * GRID - 1)
    last = Box(width * 31.5 / 32, height * 31.5 / 32, width * 2, height * 2)
    assert region_cells(last, width, height) == (GRID * GRID - 1,) * 2
    first = Box(-width, -height, width / 64, height / 64)
    assert region_cells(first, width, height) == (0, 0)


@pytest.mark.parametrize(
    "box", [Box(1, 0, 2, 1), Box(0, 1, 1, 2), Box(-1, 0, 0, 1), Box(0, -1, 1, 0)]
)
def test_a_box_that_only_touches_the_image_is_outside(box):
    with pytest.raises(RegionError, match="is outside the image"):
        region_cells(box)


@pytest.mark.parametrize("index", [0, 31, 32, 991, 992, 1023])
def test_a_box_of_one_cell_spans_the_whole_cell(index):
    y, x = divmod(index, GRID)
    assert cell_box(index, index) == (x / GRID, y / GRID, (x + 1) / GRID, (y + 1) / GRID)


@pytest.mark.parametrize(
    ("index", "boxes"), [(0, 1), (1023, 1), (1024, 0), (99999, 0), (10**60, 0)]
)
def test_the_last_index_of_the_grid_is_1023(index, boxes):
    text = f"<phrase> a</phrase><object><patch_index_0000><patch_index_{index}></object>"
    assert len(parse(text, [0.5, 0.5])[1]) == boxes


def caption_of(words, score, box_score=None, tokens=10, truncated=False, start=0):
    boxes = () if box_score is None else (Box(0, 0, 1, 1, box_score),)
    phrases = (Phrase(words, start, start + len(words), boxes),) if boxes else ()
    return Caption(words, phrases, f"raw {words}", score, tokens, truncated)


@pytest.mark.fault(99)
def test_a_joined_caption_names_only_the_phrases_that_have_boxes():
    """A program that speaks the text must not name what is not in view."""
    captions = [
        caption_of("a dog and more", 1.0, 0.5, tokens=30),
        caption_of("a cat", 0.6, 0.4999, tokens=10),
        caption_of("nothing", 0.0, None, tokens=0, truncated=True),
        caption_of("elsewhere", 0.0, 0.9, tokens=0, start=3),
    ]
    found = join_captions(["a dog", "a cat", "a cow", "a 猫"], captions, 0.5)
    assert found.text == "a dog"
    assert [(phrase.text, phrase.start, phrase.end) for phrase in found.phrases] == [
        ("a dog", 0, 5),
        ("a cat", 0, 0),
        ("a cow", 0, 0),
        ("a 猫", 0, 0),
    ]
    assert [len(phrase.boxes) for phrase in found.phrases] == [1, 0, 0, 0]
    assert (found.generated_tokens, found.truncated) == (40, True)
    assert found.score == pytest.approx(0.9)
    assert found.raw_text.splitlines() == [caption.raw_text for caption in captions]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a cat"], "a cat"),
        (["a cat", "a dog"], "a cat and a dog"),
        (["a cat", "a dog", "a 猫"], "a cat, a dog and a 猫"),
    ],
)
def test_names_are_listed_as_in_a_sentence(names, text):
    assert enumerated(names) == (text, [text.index(name) for name in names])


@given(st.lists(st.tuples(st.sampled_from(["a dog", "a cat", "a 猫", "a bird"]), st.booleans())))
@pytest.mark.fault(99)
def test_the_text_names_each_phrase_with_boxes_once_and_no_other(asked):
    names = [name for name, _ in asked]
    captions = [caption_of(name, 1.0, 0.9 if present else None) for name, present in asked]
    found = join_captions(names, captions, 0.5)
    assert [phrase.text for phrase in found.phrases] == names
    present = {name for name, seen in asked if seen}
    assert sorted(filter(None, re.split(", | and ", found.text))) == sorted(present)
    for phrase, (_, seen) in zip(found.phrases, asked, strict=True):
        assert bool(phrase.boxes) == seen
        assert found.text[phrase.start : phrase.end] == (phrase.text if seen else "")


def test_join_of_captions_without_tokens_has_score_0():
    found = join_captions(["a dog"], [caption_of("a dog", 0.0, tokens=0)], 0.0)
    assert (found.score, found.truncated) == (0.0, False)
