# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Turn the tokens that the model writes for a query into its answer.

Knows no tensors, and knows boxes only as tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from kosmos_ros.errors import CancelledError, GenerationError, KosmosError
from kosmos_ros.kosmos2.drafts import Draft, Drafts
from kosmos_ros.kosmos2.grounding import TAG, refined
from kosmos_ros.kosmos2.ngrams import LENGTH, Ngrams
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.kosmos2.tokens import PromptTokens, Tokens
from kosmos_ros.kosmos2.written import Token

Answer = Generation | KosmosError
"""The answer to a query, or the error in its place."""


class Row:
    """A query in the batch, and its answer so far.

    `ngrams` propose tokens and learn from the answer; None: no n-grams.
    `refine`: the answer has `location_points`; see grounding.refined.
    """

    def __init__(
        self,
        query: Query,
        prompt: PromptTokens,
        tokens: Tokens,
        drafts: Drafts,
        ngrams: Ngrams | None,
        refine: bool,
    ) -> None:
        self.query = query
        self.prompt = prompt
        self.limit = min(query.max_new_tokens, tokens.context - len(prompt.ids))
        self._tokens, self._cells, self._refine = tokens, drafts.cells, refine
        self._draft = Draft(query.earlier.ids, drafts) if query.earlier else None
        self._ngrams = ngrams
        self._new: list[int] = []  # written tokens
        # Those of each token of `_new` and of its neighbours, as Decoder.step returns them.
        self._probabilities: list[list[float]] = []
        self._text: str | None = None  # of the answer, if stop text ended it
        self._ended = False  # by the end token or the query's stop text
        self._stopped = False  # by the query's `stopped`
        self._failed = False  # the model's output is not finite

    @property
    def left(self) -> int:
        """The number of tokens that the row may still write."""
        return self.limit - len(self._new)

    @property
    def done(self) -> bool:
        return self._ended or self._stopped or self._failed or self.left <= 0

    @property
    def gain(self) -> float:
        """Tokens that a pass is expected to give with drafts from the earlier answer."""
        return self.query.earlier.gain if self.query.earlier else 1.0

    def propose(self, window: int) -> list[int]:
        """Return a draft from the earlier answer, for a pass of `window` tokens."""
        room = min(window, self.left) - 1
        return self._draft.propose(self._new, room) if self._draft else []

    def following(self, window: int) -> list[tuple[int, float]]:
        """Return the likely next tokens, for a pass of `window` tokens; see Ngrams.following."""
        if self._ngrams is None:
            return []
        last = [*self.prompt.ids[-LENGTH:], *self._new[-LENGTH:]][-LENGTH:]
        return self._ngrams.following(last, min(window, self.left) - 1)

    def advance(self, written: Sequence[Token]) -> None:
        """Add the tokens of a pass, up to the end of the answer, and report the text so far."""
        for token, near in written:
            if not self.done:
                self._new.append(token)
                self._probabilities.append(near)
                self._failed = not math.isfinite(near[0])
                self._ended = token == self._tokens.end or self._at_stop()
        if not written:  # the pass was of other rows
            return
        self._stopped = self.query.stopped()
        if self.query.progress and not self._stopped:
            self.query.progress(self.read())

    def _at_stop(self) -> bool:
        """Return whether the row has written its stop. Cut off a stop that is not a tag."""
        stop = self.query.stop
        if not stop:
            return False
        if TAG.fullmatch(stop):
            return bool(self._new[-1] == self._tokens.id_of(stop))
        stop, text = self._tokens.clean(stop), self._tokens.text(self.prompt, self._new)
        # A word such as "object" must not stop the answer inside a tag.
        words = TAG.sub(lambda tag: "\0" * len(tag.group()), text)
        if stop not in words:
            return False
        self._text = text[: words.index(stop)]
        while self._new and self._tokens.text(self.prompt, self._new[:-1]).startswith(self._text):
            del self._new[-1], self._probabilities[-1]
        return True

    def read(self) -> Generation:
        """Return what the row has written so far."""
        located = [
            (self._cells[token], near)
            for token, near in zip(self._new, self._probabilities, strict=True)
            if token in self._cells
        ]
        text = self._tokens.text(self.prompt, self._new) if self._text is None else self._text
        return Generation(
            text=text,
            location_scores=tuple(near[0] for _, near in located),
            location_points=tuple(refined(*corner) for corner in located) if self._refine else (),
            score=sum(near[0] for near in self._probabilities) / max(len(self._new), 1),
            tokens=len(self._new),
            truncated=not self._ended and self.left <= 0,
            ids=tuple(self._new),
        )

    def answer(self, first: int, window: int) -> Answer:
        """Return the answer of a row that is done, and let the n-grams learn from it.

        Its `gain` is that of a first pass of `first` tokens and later ones of `window` tokens,
        even if the row has used no draft.
        """
        if self._stopped:
            return CancelledError("generation was stopped")
        if self._failed:
            return GenerationError("the model's output is not finite; try another dtype")
        answer = self.read()
        if self._ngrams is not None:
            self._ngrams.learn(self.prompt.ids[-LENGTH:], self._new)
        if self._draft is None:
            return answer
        return dataclasses.replace(answer, gain=self._draft.gain(self._new, first, window))
