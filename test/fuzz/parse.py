# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: output of the model, with any tags in any order and text between them."""

import re

from fuzz.source import Source
from kosmos_ros.errors import GenerationError
from kosmos_ros.kosmos2.grounding import TAGS, parse

SNOWMAN = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
    "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
    "<patch_index_0005><patch_index_0911></object>."
)
PLACE = "<patch_index_0044><patch_index_0863>"

# Excess or lack of scores, first score, then text; or a byte that is not ASCII, then pieces.
SEEDS = tuple(
    head + text.encode()
    for head in (b"\0\0", b"\0\x09", b"\1\2", b"\2\3")
    for text in (
        SNOWMAN,
        f"<phrase> a</phrase><object>{PLACE}</delimiter_of_multi_objects/>{PLACE}</object>",
        f" <object>{PLACE}</object> \n<phrase>\u3000é中😀 </phrase><object>{PLACE}</object> ",
        f"<phrase> a<phrase> b</phrase> c</phrase><object>{PLACE}{PLACE}</object>",
        "<object><patch_index_9999><patch_index_0000></object><patch_index_01",
    )
)
WORDS = (
    *(tag.encode() for tag in TAGS),
    *(b"<patch_index_0000>", b"<patch_index_1023>", b"<patch_index_1024>", PLACE.encode()),
    *(f"<phrase> a</phrase><object>{PLACE}</object>".encode(), b"<object>" + PLACE.encode()),
    *(b"\x00", b"\x85", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80"),
)
PIECES = (
    *(" a cat", " ", "\n", "<", "\x00", ".", "é中😀", "\ud800", "<patch_index_01", "<b>"),
    *("<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>") * 3,
    *(f"<phrase> a</phrase><object>{PLACE}</object>", f"<object>{PLACE}", f"{PLACE}</object>"),
    *(PLACE, "<patch_index_0000>", "<patch_index_1023>", "<patch_index_1024>") * 2,
    *TAGS,
)
SCORES = (0.5, 0.0, 1.0, 5e-324, 1 - 2**-53, 0.125)


def run(data):
    source = Source(data)
    wrong, first = source.choice((0, 1, -1)), source.byte()
    data = source.rest()
    if data < b"\x80":
        text = data.decode("utf-8", "surrogateescape")
    else:
        text = "".join(PIECES[byte % len(PIECES)] for byte in data[1:65])
    places = len(re.findall("<patch_index_[0-9]+>", text))
    count = max(places + wrong, 0)
    scores = [SCORES[(first + number * 5) % len(SCORES)] for number in range(count)]
    try:
        caption, phrases = parse(text, scores)
    except GenerationError:
        assert count != places
        return False
    assert count == places
    check(caption, phrases)
    return True


def check(caption, phrases):
    assert caption == caption.strip()
    caption.encode()  # the text of a message has no lone surrogates
    assert "\0" not in caption
    end = 0
    for phrase in phrases:
        assert end <= phrase.start <= phrase.end <= len(caption)
        assert caption[phrase.start : phrase.end] == phrase.text
        end = phrase.end
        assert phrase.boxes
        for box in phrase.boxes:
            assert 0 <= box.x_min < box.x_max <= 1
            assert 0 <= box.y_min < box.y_max <= 1
            assert 0 <= box.score <= 1
