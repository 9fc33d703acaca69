# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tokens of prompts and answers, as the model's own processor makes and reads them.

Knows no tensors and no wording of prompts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kosmos_ros.errors import PromptError
from kosmos_ros.kosmos2.grounding import GRID, TAGS, join_punctuation
from kosmos_ros.sanitize import quoted

CACHED_PROMPTS = 256
"""Number of prompts whose token ids are cached."""


@dataclass(frozen=True)
class PromptTokens:
    """A prompt that the model can read."""

    ids: list[int]  # of the image and the prompt
    tail: list[int]  # shortest end of `ids` that has text
    head: str  # text of `tail`


class Tokens:
    """The token ids of a model. Any thread may call the methods.

    `tokenizer` is Hugging Face's. An image takes `image_tokens` of the `context` tokens that the
    model can read and write.
    """

    def __init__(self, tokenizer: Any, image_tokens: int, context: int) -> None:
        self._tokenizer = tokenizer
        self._image_tokens = image_tokens
        self.context = context
        self.end: int = tokenizer.eos_token_id
        self.id_of = tokenizer.convert_tokens_to_ids  # of a tag, or of each tag in a list
        self.locations: list[int] = self.id_of(
            [f"<patch_index_{index:04d}>" for index in range(GRID * GRID)]
        )
        # <unk> is also the token of unknown characters, which are allowed.
        tags = {*self.locations, *self.id_of(TAGS), *tokenizer.all_special_ids}
        self._tag_ids = frozenset(tags - {tokenizer.unk_token_id})
        # Every prompt begins with: start, <image>, the tokens of the image, </image>.
        self.prefix = self.ids("")[: image_tokens + 3]
        self.image = slice(2, 2 + image_tokens)  # of the prefix
        # Most prompts are the same for every frame.
        self.of_prompt = functools.lru_cache(CACHED_PROMPTS)(self._of_prompt)

    def ids(self, prompt: str) -> list[int]:
        """Return the ids that Kosmos2Processor makes: start, the image's tokens, the prompt.

        Raises PromptError for text that is not a tag but becomes the token of a tag. KOSMOS-2's
        tokenizer normalizes text (NFKC), so it reads </s> in full-width characters as a tag.
        """
        text = f"<image></image> {prompt}"
        encoded = self._tokenizer(
            text, add_special_tokens=False, verbose=False, return_offsets_mapping=True
        )
        start, *words = encoded["input_ids"]
        for token, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if token in self._tag_ids:
                self._check_tag(self._tokenizer.convert_ids_to_tokens(token), text[slice(*span)])
        # Any ids except padding will do, because the image replaces their embeddings.
        first = self._tokenizer.unk_token_id + 1
        image = range(first, first + self._image_tokens)
        return [self._tokenizer.bos_token_id, start, *image, *words]

    def _check_tag(self, tag: str, text: str) -> None:
        """Raise PromptError if `text` became the token of `tag` but is not this tag."""
        if text.strip() != tag:
            raise PromptError(
                f"the model reads {quoted(text)} in the prompt as the reserved tag {tag}; "
                "remove it"
            )

    def _of_prompt(self, prompt: str) -> PromptTokens:
        """Return the tokens of a prompt. Raises PromptError if the model cannot read it."""
        ids = self.ids(prompt)
        if len(ids) >= self.context:
            raise PromptError(
                "the prompt and the image must have fewer tokens than the model's context of "
                f"{self.context}, got {len(ids)}; shorten the prompt"
            )
        if len(ids) == len(self.prefix):
            raise PromptError("prompt must not be empty")
        for start in range(len(ids) - 1, 0, -1):
            tail = ids[start:]
            if head := self.decode(tail):
                break
        return PromptTokens(ids, tail, head)

    def text(self, prompt: PromptTokens, new: Sequence[int]) -> str:
        """Return the text of the tokens `new` after a prompt."""
        # The tokenizer drops the space before the first word, so the end of the prompt is decoded,
        # too. To decode the whole prompt for each token would take longer than the model's step.
        return self.clean(self.decode([*prompt.tail, *new])[len(prompt.head) :])

    def clean(self, text: str) -> str:
        """Join punctuation to the word before it, if the tokenizer's own decoding does so."""
        return join_punctuation(text) if self._tokenizer.clean_up_tokenization_spaces else text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, with tags, as the tokenizer joins them."""
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
