# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""With KOSMOS-2's tokenizer, prompts and texts are those of Hugging Face's processor.

Every test runs with KOSMOS-2's own vocabulary, if it is on this machine, and with small ones of
the same structure.
"""

import sys
import unicodedata

import kosmos2_model
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Kosmos2Processor

from kosmos_ros.errors import KosmosError, PromptError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.kosmos2.grounding import (
    TAG,
    TAGS,
    Box,
    join_punctuation,
    parse,
    read,
    region_cells,
)
from kosmos_ros.kosmos2.prompts import CONTROL_TAGS
from kosmos_ros.kosmos2.query import Query

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 160, 3), np.uint8)
BOX = "<object><patch_index_0044><patch_index_0863></object>"
DOG = "<phrase> a dog</phrase>"
FIRE = "<object><patch_index_0005><patch_index_0911></object>"
DOGS, MORE, GRASS = (79, 1016), (135, 1008), (480, 1023)


@pytest.fixture(scope="module", params=["small", "small metaspace", "kosmos2"])
def kind(request):
    if request.param == "kosmos2" and not (kosmos2_model.FILES / "dict.txt").is_file():
        pytest.skip(kosmos2_model.MISSING)
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return kosmos2_model.save(tmp_path_factory.mktemp(kind), kind)


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def processor(folder):
    return Kosmos2Processor.from_pretrained(folder)


def ids_of(processor, text, **options):
    picture = Image.fromarray(PICTURE)
    return processor(text=text, images=picture, **options)["input_ids"]


def decoded(processor, ids):
    """Return the text that Hugging Face decodes, with spaces cleaned up as on the hub."""
    text = processor.batch_decode([ids], skip_special_tokens=True)[0].rpartition("</image>")[2]
    # transformers 5.0 leaves the spaces.
    return (
        text if hasattr(processor.tokenizer, "clean_up_tokenization") else join_punctuation(text)
    )


def ids_after(engine, prompt, text):
    """Return the ids of `text` after `prompt`."""
    return engine.token_ids(prompt + text)[len(engine.token_ids(prompt)) :]


def write(engine, monkeypatch, prompt, text, stop="", end=True):
    """Return the engine's answer, and its steps, if the model writes `text` after `prompt`."""
    ids = ids_after(engine, prompt, text)
    script = iter([*ids, *[engine._tokens._tokenizer.eos_token_id] * end])
    step = type(engine._decoder).step

    def scripted(drafts, last):
        ((_, near),) = step(engine._decoder, drafts)[0]
        return [[(next(script), near)]]

    steps = []
    image = engine.encode(PICTURE)
    query = Query(image, prompt, len(ids) + end, progress=steps.append, stop=stop)
    with monkeypatch.context() as patch:
        patch.setattr(engine._decoder, "step", scripted)
        (answer,) = engine.generate_batch([query])
    assert not isinstance(answer, KosmosError)
    return answer, steps


PROMPTS = [
    *(prompts.caption(task, grounded) for task in prompts.CAPTION_TASKS for grounded in (0, 1)),
    prompts.phrase_grounding("a snowman next to a fire"),
    prompts.region_description((44, 863)),
    prompts.region_description((44, 863), grounded=False),
    prompts.question("What is special about this image?"),
    prompts.question("Où est le 猫 😀?", grounded=False),
    prompts.question("Where is the fire next to?", [(5, 911)], ["the fire"]),
    prompts.question("Are they alike?", [(0, 33), (5, 911)]),
    prompts.question("It is what?", [(5, 911)], history=["What is it?", "A dog."]),
    prompts.raw(f"<grounding> An image of<phrase> a snowman</phrase>{BOX} and<phrase> a"),
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.text[:40])
def test_prompts_have_the_ids_of_the_processor(engine, processor, prompt):
    assert engine.token_ids(prompt.text) == ids_of(processor, prompt.text)


def test_a_prompt_begins_with_the_start_and_the_image(engine, processor):
    vocabulary = processor.tokenizer.get_vocab()
    ids = engine.token_ids("<grounding> An image of")
    assert ids[0] == vocabulary["<s>"] == 0
    assert ids[1] == vocabulary["<image>"]
    assert ids[2:66] == list(range(4, 68))
    assert ids[66:68] == [vocabulary["</image>"], vocabulary["<grounding>"]]
    assert vocabulary["</s>"] not in ids
    assert engine._tokens.prefix == ids[:67]


def test_the_space_after_grounding_changes_no_token(engine):
    spaced, joined = (engine.token_ids(f"<grounding>{space}An image of") for space in (" ", ""))
    assert spaced == joined


@given(text=st.text(max_size=60), grounded=st.booleans())
def test_any_question_has_the_ids_of_the_processor(engine, processor, text, grounded):
    try:
        prompt = prompts.question(text, grounded=grounded).text
        ids = engine.token_ids(prompt)
    except PromptError:
        return
    assert ids == ids_of(processor, prompt)


PUPPIES = (
    "<grounding> <phrase> Two puppies </phrase>{} sit in a field of <phrase> grass </phrase>{}."
)


@pytest.mark.parametrize(
    ("text", "boxes", "regions"),
    [
        (PUPPIES.format("", ""), None, ()),
        (PUPPIES.format("", ""), [None, []], ()),
        (PUPPIES.format("<object></object>", ""), [DOGS, None], [DOGS]),
        (PUPPIES.format("<object></object>", ""), [[DOGS], []], [DOGS]),
        (PUPPIES.format("", " <object> </object>"), [None, GRASS], [GRASS]),
        (PUPPIES.format("<object></object>", "<object></object>"), [DOGS, GRASS], [DOGS, GRASS]),
        (
            PUPPIES.format("<object></object>", "<object></object>"),
            [(0.46875, 0.0625, 0.78125, 1.0), (0.0, 0.46875, 1.0, 1.0)],
            [(0.46875, 0.0625, 0.78125, 1.0), (0.0, 0.46875, 1.0, 1.0)],
        ),
        (
            PUPPIES.format(
                " <object> <patch_index_0079> <patch_index_1016> </delimiter_of_multi_objects/> "
                "<patch_index_0135> <patch_index_1008> </object>",
                "<object></object>",
            ),
            [[DOGS, MORE], GRASS],
            [GRASS],
        ),
    ],
)
def test_regions_of_a_raw_prompt_are_boxes_of_the_processor(
    engine, processor, text, boxes, regions
):
    cells = [region if len(region) == 2 else region_cells(Box(*region)) for region in regions]
    prompt = prompts.raw_template(text, len(cells)).fill(cells)
    bare = PUPPIES.format("", "")  # the processor inserts boxes after the phrases
    assert engine.token_ids(prompt.text) == ids_of(processor, bare, bboxes=boxes)


def test_several_regions_of_one_phrase_are_boxes_of_the_processor(engine, processor):
    asked = prompts.question("Are the dogs here?", [DOGS, MORE], ["the dogs"] * 2)
    text = "<grounding> Question: Are<phrase> the dogs</phrase> here? Answer:"
    assert engine.token_ids(asked.text) == ids_of(processor, text, bboxes=[[DOGS, MORE]])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (
            "<grounding> Two puppies sit in a field of grass.",
            [64012, 1264, 17772, 1357, 12, 10, 770, 9, 4464, 4],
        ),
        (
            PUPPIES.format(f" {prompts.object_tags([DOGS, MORE])}", prompts.object_tags([GRASS])),
            [
                *(64012, 64007, 1264, 17772, 64008, 64009, 64092, 65029, 64011, 64148, 65021),
                *(64010, 1357, 12, 10, 770, 9, 64007, 4464, 64008, 64009, 64493, 65036, 64010),
                *(106, 4),
            ],
        ),
    ],
)
def test_kosmos2s_own_vocabulary_has_the_ids_of_hugging_faces_tests(engine, kind, text, ids):
    if kind != "kosmos2":
        pytest.skip("the small vocabulary has other ids")
    assert engine.token_ids(prompts.raw(text).text)[67:] == ids


@pytest.mark.parametrize(
    "text",
    [
        "<grounding> An image of ",
        "  <grounding> An image of",
        "<grounding> An image of\n",
        "<grounding><phrase> a dog</phrase> <object>",
        "<grounding> <phrase> a dog </phrase> <object> ",
        f"<grounding><phrase> It</phrase> {BOX.replace('><', '> <')} is ",
        "Question: Where is it? Answer: ",
        " <phrase> a fire </phrase>",
    ],
)
def test_white_space_of_a_raw_prompt_is_read_as_by_the_processor(engine, processor, text):
    prompt = prompts.raw(text).text
    assert engine.token_ids(prompt) == ids_of(processor, text)
    assert prompt == prompt.strip()
    assert " <object>" not in prompt


@pytest.mark.parametrize("tail", ["", " ", " <object>", " <object> ", "<object>"])
@pytest.mark.fault(89)
def test_a_raw_prompt_keeps_its_box_whatever_its_white_space(engine, monkeypatch, tail):
    asked = prompts.raw_template(f"<grounding><phrase> a dog</phrase>{tail}", 0, "</object>")
    prompt = asked.fill([])
    text = BOX[len("<object>") if "<object>" in tail else 0 :]
    answer, _ = write(engine, monkeypatch, prompt.text, text, prompt.stop, end=False)
    caption = read(answer, prompt.text, prompt.lead)
    assert caption.text == "a dog"
    assert [(phrase.text, len(phrase.boxes)) for phrase in caption.phrases] == [("a dog", 1)]


def test_a_prompt_with_many_examples_fits_into_the_context(engine):
    text = f"<grounding> An image of<phrase> a snowman</phrase>{BOX} by<phrase> a fire</phrase>"
    example = f"{text}{FIRE}."
    engine.check(prompts.raw(example * 50 + text).text)
    assert len(example) * 50 > 5 * prompts.MAX_TEXT
    with pytest.raises(PromptError, match="fewer tokens than the model's context of 2048"):
        engine.check(prompts.raw(example * 150 + text).text)


WRITTEN = [
    f" a snowman warming himself by<phrase> a fire</phrase>{FIRE}.",
    f"<phrase> a snowman</phrase>{BOX} warming himself by<phrase> a fire</phrase>{FIRE}.",
    f"<phrase> a snowman</phrase>{BOX} 's hat , and<phrase> a fire</phrase>{FIRE} .",
    f"<phrase> the dogs</phrase>{prompts.object_tags([DOGS, MORE])} do n't sit , is it ?",
    " it 's a dog ! They 've a hat . I 'm here , we 're there ' s",
    f" ' .{BOX} ,",
    "",
]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize(
    "prompt", [PROMPTS[1], PROMPTS[7], PROMPTS[9]], ids=["caption", "question", "region"]
)
def test_answers_are_read_as_by_the_processor(engine, processor, monkeypatch, prompt, written):
    answer, steps = write(engine, monkeypatch, prompt.text, written)
    before = engine.token_ids(prompt.text)
    head = decoded(processor, before)
    assert len(steps) == answer.tokens
    for step in steps:  # streamed text is the text of the tokens so far
        assert head + step.text == decoded(processor, [*before, *step.ids])
    # Corners of the grid, as Hugging Face returns them.
    text, phrases = parse(prompt.lead + answer.text, answer.location_scores)
    assert read(answer, prompt.text, prompt.lead).text == text
    whole = decoded(processor, [*before, *answer.ids])
    expected, entities = processor.post_process_generation(whole)
    skipped = "" if prompt.lead else processor.post_process_generation(head)[0]
    assert text == expected[len(skipped) :].strip()
    start = expected.index(text, len(skipped))
    found = [
        (phrase.text, (phrase.start + start, phrase.end + start), boxes(phrase))
        for phrase in phrases
        if phrase.text
    ]
    # Hugging Face also reads the boxes of the prompt, and invents names for boxes without words.
    others = [entity for entity in entities if not entity[0].startswith("<")]
    assert found == others[len(others) - len(found) :]


def boxes(phrase):
    return [(box.x_min, box.y_min, box.x_max, box.y_max) for box in phrase.boxes]


@settings(max_examples=60, deadline=None)
@given(prompt=st.sampled_from(PROMPTS), data=st.data())
def test_the_text_of_an_answer_is_that_after_the_whole_prompt(engine, prompt, data):
    """Only the prompt's last tokens are decoded with the answer."""
    read = engine._tokens.of_prompt(prompt.text)
    assert read.ids[-len(read.tail) :] == read.tail
    most = len(engine._tokens._tokenizer) - 1
    new = data.draw(st.lists(st.integers(0, most), max_size=12))
    whole, before = engine.decode(read.ids + new), engine.decode(read.ids)
    assert engine.decode(read.tail + new)[len(read.head) :] == whole[len(before) :]


def test_punctuation_after_a_box_joins_the_word_before_it(engine, monkeypatch):
    prompt = prompts.caption("brief_caption")
    answer, _ = write(engine, monkeypatch, prompt.text, WRITTEN[2])
    caption = read(answer, prompt.text, prompt.lead)
    assert caption.text == "An image of a snowman's hat, and a fire."
    assert [caption.text[phrase.start : phrase.end] for phrase in caption.phrases] == [
        "a snowman",
        "a fire",
    ]


@pytest.mark.parametrize("clean", [True, False])
def test_a_tokenizer_that_keeps_spaces_keeps_them(engine, monkeypatch, clean):
    monkeypatch.setattr(engine._tokens._tokenizer, "clean_up_tokenization_spaces", clean)
    answer, _ = write(engine, monkeypatch, "An image of", " a dog .")
    assert answer.text == (" a dog." if clean else " a dog .")


@given(st.text(alphabet=" .?!,'nmtsvread<>/", max_size=40))
def test_spaces_are_joined_as_by_hugging_face(processor, text):
    if not hasattr(processor.tokenizer, "clean_up_tokenization"):
        pytest.skip("this version of transformers does not clean up spaces")
    assert join_punctuation(text) == processor.tokenizer.clean_up_tokenization(text)


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        (" a dog . A cat .", ".", " a dog"),
        (" a dog . A cat .", " .", " a dog"),  # decoding removes the space
        (" a dog and a cat", "g a", " a do"),
        (" a dog and a cat", "cat", " a dog and a "),
        (" a dog Question: What", " Question:", " a dog"),
        (" a dog and a cat", " a", ""),
        (f"{DOG}{BOX} is an object", " is", f"{DOG}{BOX}"),
        (f"{DOG}{BOX} is an object", "object", f"{DOG}{BOX} is an "),
        (f"{DOG}{BOX} is<phrase> it", "</object>", f"{DOG}{BOX}"),
        (f"{DOG}{BOX}", "</phrase>", DOG),
    ],
)
def test_an_answer_ends_at_its_stop(engine, processor, monkeypatch, text, stop, kept):
    prompt = prompts.raw_template("<grounding>It is", 0, stop).fill([])
    answer, steps = write(engine, monkeypatch, prompt.text, text, prompt.stop)
    assert answer.text == kept
    assert (steps[-1].text, answer.truncated) == (kept, False)
    parse(answer.text, answer.location_scores)  # has one score for each location
    # Only the tokens of the text count.
    assert answer.tokens == len(answer.ids)
    before = engine.token_ids(prompt.text)
    head = decoded(processor, before)
    assert decoded(processor, [*before, *answer.ids]).startswith(head + kept)
    if kept:
        assert not decoded(processor, [*before, *answer.ids[:-1]]).startswith(head + kept)


@pytest.fixture(scope="module")
def free(folder):
    """An engine that may write any tokens, as Hugging Face's `generate` does."""
    return Engine.load(str(folder), device="cpu", location_grammar=False)


@pytest.mark.parametrize("prompt", PROMPTS[::3], ids=lambda prompt: prompt.text[:40])
def test_answers_and_stops_equal_those_of_generate(free, processor, prompt):
    """Hugging Face's `stop_strings` keeps the stop text, which ours cuts off."""
    model = free.model
    # transformers 4 assumes a causal module without this attribute; see vision.py.
    model.image_to_text_projection.x_attn.is_causal = False
    inputs = processor(text=prompt.text, images=Image.fromarray(PICTURE), return_tensors="pt")
    inputs["pixel_values"] = free.pixels(PICTURE)
    image = free.encode(PICTURE)

    def generated(**options):
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False, **options)[0].tolist()
        return ids[len(inputs["input_ids"][0]) :]

    ids = generated()
    whole = free.generate(image, prompt.text, 12)
    assert list(whole.ids) == ids
    before = inputs["input_ids"][0].tolist()
    head = decoded(processor, before)
    assert head + whole.text == decoded(processor, [*before, *ids])
    words = [word for word in TAG.sub(" ", whole.text).split() if word.isalpha()]
    if not words:
        return
    stop = max(words, key=len)
    cut = free.generate(image, prompt.text, 12, stop=stop)
    theirs = decoded(
        processor, [*before, *generated(stop_strings=[stop], tokenizer=processor.tokenizer)]
    )
    assert not cut.truncated
    assert theirs.startswith(head + cut.text + stop)
    assert stop not in TAG.sub(" ", cut.text)


def test_stops_are_checked():
    prompts.raw_template("It is", 0, "</object>")
    for stop in ("</object> and", "</s>", "<patch_index_1024>", "<patch_index_44>", "\n"):
        with pytest.raises(PromptError, match="stop"):
            prompts.raw_template("It is", 0, stop)


# Control tokens ------------------------------------------------------------------------------


def _forms():
    """Return each text that Unicode's normalization reads as one character of a tag."""
    forms = {}
    for code in range(sys.maxunicode + 1):
        form = chr(code)
        plain = unicodedata.normalize("NFKC", form)
        if plain != form and any(plain in tag for tag in TAGS):
            forms.setdefault(plain, []).append(form)
    return forms


FORMS = _forms()


def disguised(tag):
    """Yield `tag` with one character, or all of them, in each compatible form."""
    for plain, forms in FORMS.items():
        for form in forms:
            if plain in tag:
                yield tag.replace(plain, form)
                yield tag.replace(plain, form, 1)
    for number in range(4):
        yield "".join(FORMS.get(c, [c])[number % len(FORMS.get(c, [c]))] for c in tag)


ASKED = {
    "question": lambda text: prompts.question(f"What is {text} here?"),
    "phrase": lambda text: prompts.phrase_grounding(f"a{text}cat"),
    "region phrase": lambda text: prompts.question("What is it?", [DOGS], [f"it {text}"]),
    "history": lambda text: prompts.question("Why?", history=["What?", f"It is {text}"]),
    "prompt": lambda text: prompts.raw(f"An image of {text}"),
}


@pytest.mark.parametrize("tag", [*TAGS, "<patch_index_0044>"])
@pytest.mark.fault(47)
def test_no_disguised_tag_becomes_a_token(engine, tag):
    token = engine._tokens._tokenizer.convert_tokens_to_ids(tag)
    tried = 0
    for text in dict.fromkeys(disguised(tag)):
        ids = engine._tokens._tokenizer(f"x {text} y", add_special_tokens=False)["input_ids"]
        tried += 1
        if tag != "<unk>" and token in ids:  # the tokenizer alone would be deceived
            with pytest.raises(PromptError, match="as the reserved tag"):
                engine.token_ids(f"What is {text} here?")
        for name, make in ASKED.items():
            if name == "prompt" and tag not in CONTROL_TAGS:
                continue  # may contain it
            with pytest.raises(PromptError, match=f"{name} .*contains the reserved tag {tag}"):
                make(text)
    assert tried > 20


@pytest.mark.fault(47)
def test_the_engine_names_the_text_that_becomes_a_tag(engine):
    """No module has checked the text before."""
    if "</s>" not in engine._tokens._tokenizer.tokenize("What is ＜/s＞ here?"):
        pytest.skip("this version of transformers does not normalize text (5.0.0)")
    with pytest.raises(
        PromptError, match="reads '＜/s＞' in the prompt as the reserved tag </s>; remove it"
    ):
        engine.check("Question: What is ＜/s＞ here? Answer:")
    engine.check("Question: What is 猫 here? Answer:")  # an unknown character is no tag


letters = st.sampled_from(
    [
        *("<", ">", "/", " ", "_", "s", "</s>", "pad", "unk", "mask"),
        *(*FORMS["<"], *FORMS[">"], *FORMS["/"], *FORMS["s"][:8]),
        *("\u00ad", "\u200b", "\u2060", "\u0338"),
    ]
)


@given(st.lists(letters, max_size=12).map("".join))
@pytest.mark.fault(47)
def test_no_text_from_outside_becomes_a_tag(engine, text):
    vocabulary = engine._tokens._tokenizer.get_vocab()
    tags = {vocabulary[tag] for tag in TAGS} - {vocabulary["<unk>"]}
    for make in ASKED.values():
        try:
            prompt = make(text).text
            ids = engine.token_ids(prompt)[67:]
        except PromptError:
            continue
        found = [token for token in ids if token in tags]
        written = [tag.group() for tag in TAG.finditer(prompt) if tag["index"] is None]
        assert engine._tokens._tokenizer.convert_ids_to_tokens(found) == written


# Images --------------------------------------------------------------------------------------


def test_the_hubs_image_processor_stretches_the_whole_image(engine, processor):
    """Its `shortest_edge` and `do_center_crop` do not crop, because of `use_square_size`."""
    picture = np.zeros((60, 160, 3), np.uint8)
    picture[:, :20], picture[:, -20:] = (255, 0, 0), (0, 0, 255)  # a crop would remove both
    pixels = processor(text="An", images=Image.fromarray(picture), return_tensors="pt")
    expected = pixels["pixel_values"]
    ours = engine.pixels(picture)
    assert ours.shape == expected.shape == (1, 3, 224, 224)
    assert float((ours - expected).abs().mean()) < 0.01
    assert float(ours[0, 0, 112, 2]) > 1.5
    assert float(ours[0, 2, 112, -3]) > 1.5
