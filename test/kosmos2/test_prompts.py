# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Prompts equal those of the model card, and text from outside adds no tags to them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.errors import ConfigError, PromptError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import TAG, TAGS

FIRE = (5, 911)


@pytest.mark.parametrize(
    ("prompt", "text", "lead"),
    [
        (
            prompts.caption("brief_caption"),
            "<grounding> An image of",
            "<grounding> An image of",
        ),
        (
            prompts.caption("detailed_caption"),
            "<grounding> Describe this image in detail:",
            "",
        ),
        (prompts.caption("brief_caption", grounded=False), "An image of", "An image of"),
        (
            prompts.phrase_grounding("a snowman next to a fire"),
            "<grounding><phrase> a snowman next to a fire</phrase>",
            "<grounding><phrase> a snowman next to a fire</phrase>",
        ),
        (
            prompts.region_description((44, 863)),
            "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863>"
            "</object> is",
            "It is",
        ),
        (
            prompts.question("What is special about this image?"),
            "<grounding> Question: What is special about this image? Answer:",
            "",
        ),
        (
            prompts.question("Where is the fire next to?", [FIRE], ["the fire"]),
            "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005>"
            "<patch_index_0911></object> next to? Answer:",
            "",
        ),
        (
            prompts.question("  What\tis\nit? ", [FIRE], grounded=False),
            "Question: What is<phrase> it</phrase><object><patch_index_0005><patch_index_0911>"
            "</object>? Answer:",
            "",
        ),
        (
            prompts.question("It is what?", [FIRE]),
            "<grounding> Question:<phrase> It</phrase><object><patch_index_0005>"
            "<patch_index_0911></object> is what? Answer:",
            "",
        ),
        (
            prompts.question("Are they alike?", [(0, 33), FIRE]),
            "<grounding> Question: Are<phrase> they</phrase><object><patch_index_0000>"
            "<patch_index_0033></delimiter_of_multi_objects/><patch_index_0005>"
            "<patch_index_0911></object> alike? Answer:",
            "",
        ),
        (
            prompts.question("Is the cat on the mat?", [FIRE, (0, 33)], ["the mat", "the cat"]),
            "<grounding> Question: Is<phrase> the cat</phrase><object><patch_index_0000>"
            "<patch_index_0033></object> on<phrase> the mat</phrase><object><patch_index_0005>"
            "<patch_index_0911></object>? Answer:",
            "",
        ),
    ],
)
def test_prompts_equal_the_model_cards(prompt, text, lead):
    assert (prompt.text, prompt.lead) == (text, lead)


@pytest.mark.parametrize("tag", [*TAGS, "<patch_index_0044>", "<patch_index_99999>"])
@pytest.mark.fault(47)
def test_tags_in_text_from_outside_are_refused_by_name(tag):
    for make in (
        lambda: prompts.question(f"What is{tag} it?"),
        lambda: prompts.phrase_grounding(f"a {tag} cat"),
        lambda: prompts.question("What is it?", [FIRE], [f"it{tag}"]),
    ):
        with pytest.raises(PromptError, match=re.escape(tag)):
            make()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * 1_000_000, "at most 1000 characters, got 1000000"),
        ("what\x00", "U\\+0000"),
        ("what \x1b[31m", "U\\+001B"),
        ("what \ud800", "U\\+D800"),
    ],
)
@pytest.mark.fault(46)
def test_unusable_questions_are_refused(question, reason):
    with pytest.raises(PromptError, match=reason):
        prompts.question(question)


@pytest.mark.parametrize(
    ("question", "phrases", "reason"),
    [
        ("What colour?", [], "must refer to the region"),
        ("What is it?", ["the cat"], "'the cat' is not in question"),
        ("What item?", ["it"], "'it' is not in question"),
        ("What is it?", ["it", "is"], "one entry for each of 1 regions or none, got 2"),
        ("What is it?", [""], "empty"),
    ],
)
def test_regions_without_words_in_the_question_are_refused(question, phrases, reason):
    with pytest.raises(PromptError, match=reason):
        prompts.question(question, [FIRE], phrases)


def test_overlapping_region_phrases_are_refused():
    with pytest.raises(PromptError, match="overlap"):
        prompts.question("Is the red cat here?", [FIRE, FIRE], ["the red", "red cat"])


def test_the_error_for_an_unknown_task_names_the_known_tasks():
    with pytest.raises(ConfigError, match=r"one of brief_caption, detailed_caption, got 'ocr'"):
        prompts.caption("ocr")


@given(st.text(max_size=60))
@pytest.mark.fault(47)
def test_any_question_is_refused_or_contains_only_our_tags(question):
    try:
        prompt = prompts.question(question)
    except PromptError:
        return
    assert [tag.group() for tag in TAG.finditer(prompt.text)] == ["<grounding>"]
    assert prompt.text == f"<grounding> Question: {' '.join(question.split())} Answer:"


BRIEF = "<grounding> An image of"
DOG = "<grounding><phrase> a dog</phrase>"


@pytest.mark.parametrize(
    ("prompt", "task", "lead", "stop"),
    [
        (prompts.caption("brief_caption"), "brief_caption", BRIEF, ""),
        (prompts.caption("detailed_caption"), "detailed_caption", "", ""),
        (prompts.phrase_grounding("a dog"), "phrase_grounding", DOG, "</object>"),
        (prompts.region_description(FIRE), "region_description", "It is", ""),
        (prompts.region_description(FIRE, grounded=False), "region_description", "It is", ""),
        (prompts.question("What?"), "question", "", " Question:"),
        (prompts.question("What is it?", [FIRE]), "question", "", " Question:"),
        (prompts.raw(BRIEF), "prompt", "", ""),
        (prompts.raw(f"{BRIEF}<phrase> a dog</phrase>"), "prompt", "<phrase> a dog</phrase>", ""),
        (
            prompts.raw(f"{BRIEF}<phrase> a dog</phrase><object>"),
            "prompt",
            "<phrase> a dog</phrase><object>",
            "",
        ),
        (prompts.raw(f"{BRIEF}<phrase> a"), "prompt", "<phrase> a", ""),
        (prompts.raw(f"{BRIEF}<phrase>"), "prompt", "<phrase>", ""),
        (prompts.raw("<phrase> a dog</phrase> and"), "prompt", "", ""),
        (prompts.joined([prompts.phrase_grounding("a dog")] * 2), "phrase_grounding", "", ""),
    ],
)
def test_each_task_has_its_lead_and_stop(prompt, task, lead, stop):
    assert (prompt.task, prompt.lead, prompt.stop) == (task, lead, stop)
    assert task in prompts.TASKS


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_the_words_before_a_phrase_precede_it_and_are_not_part_of_its_answer(space):
    """The example is that of section 4.1.1 of https://arxiv.org/abs/2306.14824."""
    prompt = prompts.phrase_grounding("orange safety vest", f"A man in a hat and{space}")
    vest = "<phrase> orange safety vest</phrase>"
    assert prompt.text == f"<grounding> A man in a hat and{vest}"
    assert prompt.lead == f"<grounding>{vest}"
    assert prompts.phrase_grounding("a man", space) == prompts.phrase_grounding("a man")


def test_words_before_a_phrase_are_plain_text():
    with pytest.raises(PromptError, match="sentence 'a </s>' contains the reserved tag </s>"):
        prompts.phrase_grounding("a dog", "a </s>")


def test_joined_prompts_are_one_per_line():
    pair = prompts.phrase_grounding("a dog"), prompts.phrase_grounding("a cat")
    assert prompts.joined(pair).text == "\n".join(prompt.text for prompt in pair)


@pytest.mark.parametrize(
    "make",
    [
        prompts.question,
        prompts.phrase_grounding,
        lambda text: prompts.question("Why?", history=[text, "So."]),
        lambda text: prompts.question("Why?", history=["How?", text]),
        lambda text: prompts.plain_text("phrase", f"  {text}  "),
    ],
)
def test_text_may_have_exactly_the_longest_length(make):
    make("x" * (prompts.MAX_TEXT - 1))
    make("x" * prompts.MAX_TEXT)
    make("😀" * prompts.MAX_TEXT)
    with pytest.raises(PromptError, match="at most 1000 characters, got 1001"):
        make("x" * (prompts.MAX_TEXT + 1))


def test_a_region_phrase_may_be_as_long_as_the_question():
    words = "x" * prompts.MAX_TEXT
    assert f"<phrase> {words}</phrase>" in prompts.question(words, [FIRE], [words]).text
    with pytest.raises(PromptError, match="region phrase must have at most 1000"):
        prompts.question(words, [FIRE], [words + "x"])


@pytest.mark.parametrize("tag", prompts.CONTROL_TAGS)
@pytest.mark.fault(47)
def test_a_raw_prompt_with_a_control_tag_is_refused(tag):
    with pytest.raises(PromptError, match=f"contains the reserved tag {tag}; remove it"):
        prompts.raw(f"<grounding> a {tag}")


@pytest.mark.parametrize("text", ["", " \n", "\x00", "a\x7f", "\ud800"])
@pytest.mark.fault(46)
def test_unusable_raw_prompts_are_refused(text):
    with pytest.raises(PromptError, match="prompt (must not be empty|.*control character)"):
        prompts.raw(text)


def test_a_raw_prompt_may_contain_every_other_tag():
    tags = [tag for tag in TAGS if tag not in prompts.CONTROL_TAGS]
    text = "a".join([*tags, "<patch_index_0000>", "<patch_index_1023>"])
    assert prompts.raw(text).text == text


@pytest.mark.parametrize("tag", ["<patch_index_1024>", "<patch_index_44>", "<patch_index_00044>"])
@pytest.mark.fault(89)
def test_a_raw_prompt_with_a_location_that_is_no_token_is_refused(tag):
    reason = f"contains {tag}, but locations are <patch_index_0000> to <patch_index_1023>"
    with pytest.raises(PromptError, match=reason):
        prompts.raw(f"<object>{tag}")


# U+0F73 and U+FF9E are no marks until they are normalized.
@pytest.mark.parametrize("marks", ["\u0300\u0316", "\u0f73\u0f71", "\uff9e\u0301"])
@pytest.mark.parametrize(
    "make",
    [
        prompts.raw,
        prompts.phrase_grounding,
        prompts.question,
        lambda text: prompts.raw_template("a", 0, stop=text),
        lambda text: prompts.question("why?", history=[text, "so"]),
    ],
)
def test_a_long_run_of_combining_marks_is_refused(make, marks):
    make("a" + marks * 15 + "b" + marks * 15)
    with pytest.raises(PromptError, match="must have at most 30 combining marks in a row, got 32"):
        make("a" + marks * 16)


@pytest.mark.fault(89)
def test_a_raw_prompt_may_be_as_long_as_the_models_context():
    shot = (
        "<grounding><phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863>"
        "</object> warming himself by a fire."
    )
    text = shot * 50 + "<grounding> An image of"
    assert len(text) > 5 * prompts.MAX_TEXT
    assert prompts.raw(text).text == text
    prompts.raw("x" * prompts.MAX_PROMPT)
    with pytest.raises(PromptError, match="prompt must have at most 61440 characters, got 61441"):
        prompts.raw("x" * (prompts.MAX_PROMPT + 1))
    with pytest.raises(PromptError, match="NFKC form must have at most 61440 .*, got 61452"):
        prompts.raw("\ufdfa" * (prompts.MAX_PROMPT // 18 + 1))  # one character becomes 18


SPACED = st.lists(st.sampled_from(["a", " ", "\u3000", "<phrase>", "<object>", "</object>"]))


@given(SPACED.map("".join))
def test_white_space_before_a_tag_is_removed(text):
    boxes = "".join(text.split()).count(prompts.EMPTY_OBJECT)
    try:
        asked = prompts.raw_template(text, boxes)
    except PromptError as exc:
        assert str(exc) == "prompt must not be empty"
        return
    found = prompts.EMPTY_OBJECT.join(asked.pieces)
    assert not re.search(r"\s<|^\s|\s$", found)
    assert "".join(found.split()) == "".join(text.split())


def test_regions_of_a_raw_prompt_fill_its_empty_objects_in_order():
    text = "<phrase> a</phrase><object></object> and<phrase> b</phrase> <object> </object> of"
    asked = prompts.raw_template(text, 2, "</object>")
    first, second = (prompts.object_tags([cells]) for cells in (FIRE, (0, 33)))
    prompt = asked.fill([FIRE, (0, 33)])
    assert prompt.text == f"<phrase> a</phrase>{first} and<phrase> b</phrase>{second} of"
    assert (prompt.task, prompt.lead, prompt.stop) == ("prompt", "", "</object>")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_raw_prompt_has_one_empty_object_for_each_region(count):
    text = "<object></object> and<object></object>"
    with pytest.raises(PromptError, match=f"for each of {count} regions, got 2"):
        prompts.raw_template(text, count)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("Question: What is it? Answer:", "What is it?"),
        ("question:what is it?answer:", None),
        ("What is it? Answer:", "What is it?"),
        ("Question: What is it?", "What is it?"),
        ("question: what is it?", "what is it?"),
        ("Is this a trick question?", "Is this a trick question?"),
        ("Answer: what is it", "what is it"),
    ],
)
@pytest.mark.fault(90)
def test_the_labels_of_a_question_are_not_repeated(typed, read):
    read = read or "what is it?"
    expected = f"Question: {read} Answer:"
    assert prompts.question(typed, grounded=False).text == expected
    turn = prompts.question("Why?", history=[typed, "Answer: So."], grounded=False).text
    assert turn == f"Question: {read} Answer: So. Question: Why? Answer:"
    if "it" in read:
        region = prompts.question(typed, [FIRE], ["it"], grounded=False).text
        assert region.count("Question:") == region.count("Answer:") == 1


@pytest.mark.parametrize(
    "text",
    [
        "What is it? Answer: A dog. Question: What colour?",
        "Question: What is it? Answer: A dog.",
        "Question: Question: What is it?",
        "What is it? Question： Why?",
    ],
)
@pytest.mark.fault(90)
def test_a_question_with_another_question_inside_is_refused(text):
    for make in (
        lambda: prompts.question(text),
        lambda: prompts.question("Why?", history=[text, "So."]),
        lambda: prompts.question("Why?", history=["How?", text]),
    ):
        with pytest.raises(PromptError, match="contains '(Question|Answer):'.* as history"):
            make()


@pytest.mark.parametrize("text", ["Question:", "Question: Answer:", "Answer:"])
def test_a_question_of_labels_alone_is_empty(text):
    with pytest.raises(PromptError, match="question must not be empty"):
        prompts.question(text)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u2060", "\u200d\u00ad"])
def test_a_text_of_invisible_characters_is_refused(text):
    for name, make in (
        ("question", lambda: prompts.question(text)),
        ("phrase", lambda: prompts.phrase_grounding(text)),
        ("prompt", lambda: prompts.raw(text)),
    ):
        with pytest.raises(PromptError, match=f"{name} must contain a visible character, got '"):
            make()
    assert text in prompts.plain_text("question", f"a{text}b")


@pytest.mark.parametrize("phrase", ["İstanbul", "istanbul", "ISTANBUL", "the ß", "THE ß"])
def test_region_phrases_are_found_in_upper_and_lower_case(phrase):
    for text in ("Is İstanbul left of the ß?", "Is Istanbul left of the ß?"):
        asked = prompts.question(text, [FIRE], [phrase], grounded=False).text
        words = re.search(r"<phrase> (.*)</phrase>", asked).group(1)
        assert words in text
        assert (
            asked.replace(prompts.object_tags([FIRE]), "")
            .replace("<phrase>", "")
            .replace("</phrase>", "")
            == f"Question: {text} Answer:"
        )


def test_region_phrases_in_other_case_share_a_phrase():
    text = prompts.question("Is İ here?", [FIRE, (0, 33)], ["İ", "i"], grounded=False).text
    assert text == (
        f"Question: Is<phrase> İ</phrase>{prompts.object_tags([FIRE, (0, 33)])} here? Answer:"
    )


def test_history_precedes_the_question():
    prompt = prompts.question("And now?", history=["What  is it?", "A dog."], grounded=False)
    assert prompt.text == "Question: What is it? Answer: A dog. Question: And now? Answer:"


@pytest.mark.parametrize("count", [1, 3])
def test_history_must_end_with_an_answer(count):
    with pytest.raises(
        PromptError, match=f"end with an answer, but it has {count}, an odd number"
    ):
        prompts.question("And now?", history=["a"] * count)


CELLS = st.tuples(st.integers(0, 1023), st.integers(0, 1023))


@st.composite
def questions_about_regions(draw):
    """A question of distinct words, and the numbers of the words that mean its regions."""
    count = draw(st.integers(1, 6))
    meant = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    return [f"Word{number}" for number in range(count)], meant


@given(questions_about_regions(), st.booleans(), st.data())
def test_a_template_puts_the_boxes_of_each_region_after_its_words(asked, grounded, data):
    words, meant = asked
    phrases = [words[number].upper() for number in meant]  # upper and lower case are the same
    template = prompts.question_template(" ".join(words), len(meant), phrases, grounded)
    assert len(template.pieces) == len(template.regions) + 1 == len(set(meant)) + 1
    assert sorted(number for numbers in template.regions for number in numbers) == list(
        range(len(meant))
    )
    for _ in range(2):  # the same template serves images of different sizes
        cells = [data.draw(CELLS) for _ in meant]
        prompt = template.fill(cells)
        assert prompt == prompts.question(" ".join(words), cells, phrases, grounded)
        expected = "<grounding> " * grounded + "Question:"
        for number, word in enumerate(words):
            boxes = [cell for cell, of in zip(cells, meant, strict=True) if of == number]
            tagged = f"<phrase> {word}</phrase>{prompts.object_tags(boxes)}"
            expected += tagged if boxes else f" {word}"
        assert prompt.text == f"{expected} Answer:"


def test_a_template_is_checked_before_any_region_is_known():
    with pytest.raises(PromptError, match="must refer to the region"):
        prompts.question_template("What colour?", 1)
    with pytest.raises(PromptError, match="overlap"):
        prompts.question_template("Is the red cat here?", 2, ["the red", "red cat"])


@given(CELLS, st.booleans())
def test_the_template_of_a_region_gives_its_description(cell, grounded):
    assert prompts.region_template(grounded).fill([cell]) == prompts.region_description(
        cell, grounded
    )


def test_adjacent_region_phrases_are_not_overlapping():
    text = prompts.question("!?", [FIRE, (0, 33)], ["!", "?"], grounded=False).text
    first, second = (prompts.object_tags([cells]) for cells in (FIRE, (0, 33)))
    assert text == f"Question:<phrase> !</phrase>{first}<phrase> ?</phrase>{second} Answer:"


def test_two_turns_of_history_are_in_their_order():
    turns = ["Who?", "A man.", "Where?", "There."]
    asked = prompts.question("Why?", history=turns, grounded=False)
    assert asked.text == (
        "Question: Who? Answer: A man. Question: Where? Answer: There. Question: Why? Answer:"
    )


def test_a_single_prompt_can_be_joined():
    asked = prompts.phrase_grounding("a dog")
    assert prompts.joined([asked]).text == asked.text


def test_templates_are_grounded_by_default():
    region = prompts.region_template()
    assert region.fill([(0, 1)]) == prompts.region_template(grounded=True).fill([(0, 1)])
    assert region.fill([(0, 1)]).text.startswith("<grounding>")
    question = prompts.question_template("What is it?", 0)
    assert question.fill([]).text.startswith("<grounding>")
