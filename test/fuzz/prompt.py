# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: external text in prompts, which must not become control tokens."""

from collections import Counter

from tokenizers import Tokenizer

from fuzz.source import Source, texts
from kosmos_ros.errors import ConfigError, PromptError, RegionError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import GRID, TAG, TAGS, Box, region_cells
from kosmos_ros.shapes import MODEL_DIR

TOKENIZER = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
NAMES = (*TAGS, *(f"<patch_index_{index:04d}>" for index in range(GRID * GRID)))
# <unk> is left out: it also stands for unknown characters.
IDS = {name: TOKENIZER.token_to_id(name) for name in NAMES if name != "<unk>"}
CONTROL = {IDS.get(tag) for tag in prompts.CONTROL_TAGS} - {None}
_TAG_OF = {number: name for name, number in IDS.items() if number is not None}

BOX = b"\1\x06\x04\x08\x07"  # Source.corners: 250, 22.5, 630, 397.5
PIECES = (
    *("What is", "it", "this", "that", "They", "the cat", "on", "a mat", "the", "cat", "?") * 2,
    *("is", "<", ">", "</", "/>", "phrase", "<patch_index_", "0044", "\u0085", "\u2028", "\u200b"),
    *("Question:", "Answer:", "＜/s＞", "\u0338"),
    *("＜phrase＞", "İ", "ſ", "ß", "é中😀", "\x07", "\ud800", "<s>", "<phrase>", "x" * 300, ""),
)
SEEDS = (
    b"\0\1" + texts("brief_caption"),
    b"\0\0" + texts("ocr"),
    b"\1" + texts("a snowman next to a fire"),
    b"\1" + texts("a <phrase> b"),
    b"\2\1" + texts("What is it?") + b"\1" + BOX + b"\0\0",
    b"\2\0" + texts("Is the cat on the mat?") + b"\2" + BOX * 2 + b"\2"
    + texts("the mat", "the cat") + b"\2" + texts("What is this?", "A cat."),
    b"\2\1" + texts("Is it?") + b"\2" + BOX * 2 + b"\2" + texts("it", "It") + b"\0",
    b"\3\1" + BOX,
    b"\4" + texts(f"<grounding> It is<phrase> a man</phrase><object>{NAMES[30]}{NAMES[900]}"
                  "</object> and<phrase> his hat</phrase>"),
    b"\4" + texts("An image of"),
)  # fmt: skip
WORDS = (
    *(name.encode() for name in NAMES[: len(TAGS) + 3]),
    *(b"<", b">", b"</", b"/>", b"<patch_index_", b"<patch_index_99999>", b"it", b"this", b"They"),
    *("＜phrase＞".encode(), "﹤s﹥".encode(), "İ".encode(), "ſ".encode(), b"\xcc\xb8"),
    *(b"\x00", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\x8b", b"\xed\xa0\x80", b"\xff", b" "),
)


def run(data):
    source = Source(data)
    try:
        prompt, ours = source.choice(KINDS)(source)
    except (ConfigError, PromptError, RegionError):
        return False
    assert prompt.task in prompts.TASKS
    assert prompt.text
    found = tags(prompt.text)
    assert not {IDS[tag] for tag in found} & CONTROL
    if ours is not None:
        assert Counter(found) == Counter(ours)
    # The tokenizer reads tags exactly where the text has them.
    said = [tag.group() for tag in TAG.finditer(prompt.text)]
    assert found == [tag for tag in said if IDS.get(tag) is not None]
    return True


def tags(text):
    """Return the tags among the tokens of a prompt, without those of the image."""
    ids = TOKENIZER.encode(f"<image></image> {text}", add_special_tokens=False).ids
    opening, closing, *found = [_TAG_OF[number] for number in ids if number in _TAG_OF]
    assert (opening, closing) == ("<image>", "</image>")
    return found


def _caption(source):
    grounded = source.flag()
    task = source.words(tuple(prompts.CAPTION_TASKS))
    return prompts.caption(task, grounded), ["<grounding>"] * grounded


def _phrase(source):
    prompt = prompts.phrase_grounding(source.words(PIECES))
    return prompt, ["<grounding>", "<phrase>", "</phrase>"]


def _question(source):
    grounded, asked = source.flag(), source.words(PIECES)
    regions = source.many(lambda: _cells(source), 3)
    words = source.many(lambda: source.words(PIECES), 3)
    history = source.many(lambda: source.words(PIECES), 4)
    prompt = prompts.question(asked, regions, words, grounded, history)
    # Regions with the same words, in upper or lower case, share a phrase.
    kinds = prompt.text.count("<object>")
    assert bool(regions) <= kinds <= len(regions)
    ours = ["<grounding>"] * grounded + ["<phrase>", "</phrase>", "<object>", "</object>"] * kinds
    ours += ["</delimiter_of_multi_objects/>"] * (len(regions) - kinds)
    return prompt, ours + [NAMES[len(TAGS) + cell] for region in regions for cell in region]


def _region(source):
    grounded, region = source.flag(), _cells(source)
    ours = ["<grounding>"] * grounded + ["<phrase>", "</phrase>", "<object>", "</object>"]
    ours += [NAMES[len(TAGS) + cell] for cell in region]
    return prompts.region_description(region, grounded), ours


def _raw(source):
    text, stop = source.words((*PIECES, *NAMES[:40])), source.words((*PIECES, *NAMES[:20]))
    regions = source.many(lambda: _cells(source), 3)
    text += " and<phrase> it</phrase> <object> </object>" * len(regions)
    prompt = prompts.raw_template(text, len(regions), stop).fill(regions)
    assert prompt.text == prompt.text.strip()
    assert not {tag.group() for tag in TAG.finditer(prompt.stop)} & {*prompts.CONTROL_TAGS}
    assert prompts.EMPTY_OBJECT not in prompt.text
    return prompt, None


def _cells(source):
    cells = region_cells(Box(*source.corners()), 640, 480)
    assert all(0 <= cell < GRID * GRID for cell in cells)
    return cells


KINDS = (_caption, _phrase, _question, _region, _raw, _question, _question, _question)
