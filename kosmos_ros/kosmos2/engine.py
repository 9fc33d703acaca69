# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Answer prompts about images with text and token probabilities.

The engine encodes an image once and answers any number of prompts about it. Prompts join and
leave the batch at any token. Knows no ROS and no prompt wording; knows boxes only as tokens.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kosmos_ros.errors import CancelledError, GenerationError, KosmosError, PromptError
from kosmos_ros.kosmos2 import loading, prompts
from kosmos_ros.kosmos2.decoder import WINDOW, Decoder, EncodedImage, NewRow
from kosmos_ros.kosmos2.drafts import Draft, Drafts
from kosmos_ros.kosmos2.grammar import Grammar
from kosmos_ros.kosmos2.grounding import (
    BOX_TAGS,
    GRID,
    NEIGHBOURS,
    TAG,
    TAGS,
    join_punctuation,
    neighbours,
    refined,
)
from kosmos_ros.kosmos2.loading import DTYPES, RESAMPLING, ModelInfo, torch
from kosmos_ros.kosmos2.query import Generation, Query, never
from kosmos_ros.kosmos2.repetition import NoRepeat
from kosmos_ros.kosmos2.rule import Rule
from kosmos_ros.kosmos2.torch_errors import translated
from kosmos_ros.kosmos2.vision import Vision
from kosmos_ros.sanitize import quoted

MAX_CUDA_SCALE = 24
"""Longest side of an image that the GPU resizes, as a multiple of the model's input size."""
CACHED_PROMPTS = 256
"""Number of prompts whose token ids are cached."""
DRAFT_COST = {"cpu": {1: 3.0, 2: 4.0, 4: 5.5, 8: 6.5}, "cuda": {1: 1.5, 2: 2.2}}
"""Time of a pass that checks drafts, in passes without drafts, by the number of rows.

Drafts that give fewer tokens do not pay. A pass without drafts is bound by reading the weights, so
on a GPU the other tokens cost little; a CPU also needs the time of their multiplications. Measured
with the embedded model on a CPU with two threads; estimated for a GPU."""

Answer = Generation | KosmosError


class Engine:
    """A loaded model; `load` makes one. Call from one thread at a time.

    `model` is the Kosmos2ForConditionalGeneration on whose weights the engine runs.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        info: ModelInfo,
        location_grammar: bool = True,
        refine_boxes: bool = True,
    ) -> None:
        self.info = info
        self.model = model
        self._tokenizer = processor.tokenizer
        self._device = torch.device(info.device)
        self._dtype = DTYPES[info.dtype]
        self._image_tokens = int(model.config.latent_query_num)
        ids = self._tokenizer.convert_tokens_to_ids
        locations = ids([f"<patch_index_{index:04d}>" for index in range(GRID * GRID)])
        self._drafts = Drafts(locations)
        self._refine = refine_boxes
        # <unk> is also the token of unknown characters, which are allowed.
        tags = {*locations, *ids(TAGS), *self._tokenizer.all_special_ids}
        self._tag_ids = frozenset(tags - {self._tokenizer.unk_token_id})
        # Every prompt begins with: start, <image>, the tokens of the image, </image>.
        self._prefix = self.token_ids("")[: self._image_tokens + 3]
        self._context = int(model.config.text_config.max_position_embeddings)
        self._end = self._tokenizer.eos_token_id
        # Most prompts are the same for every frame.
        self._cached_ids = functools.lru_cache(CACHED_PROMPTS)(self._tokenize)
        vocabulary = int(model.config.text_config.vocab_size)
        rules: list[Rule] = []
        if info.no_repeat_ngram_size:
            rules.append(NoRepeat(info.no_repeat_ngram_size))
        if location_grammar:
            opening, closing, delimiter = ids(BOX_TAGS)
            rules.append(Grammar(vocabulary, opening, closing, delimiter, locations, self._device))
        beside = _beside(vocabulary, locations).to(self._device) if refine_boxes else None
        with torch.inference_mode():
            self._vision = Vision(model)
            places = slice(2, 2 + self._image_tokens)
            self._decoder = Decoder(
                model.text_model, self._prefix, places, tuple(rules), neighbours=beside
            )
        self._rows: list[_Row] = []  # the decoder's rows
        self._refused: list[tuple[Query, Answer]] = []  # for the next step
        steps = processor.image_processor
        self._resample = RESAMPLING[int(steps.resample)]
        colours = (steps.image_mean, steps.image_std)
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (colours if steps.do_normalize else ([0.0] * 3, [1.0] * 3))
        )
        # (value * rescale - mean) / std as one multiplication and one addition
        self._scale = (float(steps.rescale_factor) if steps.do_rescale else 1.0) / std
        self._offset = -mean / std

    @classmethod
    def load(
        cls,
        model: str,
        *,
        location_grammar: bool = True,
        refine_boxes: bool = True,
        **options: Any,
    ) -> Engine:
        """Load `model` with the options of loading.load; see there for the errors.

        `location_grammar` keeps every box well formed. If false, the model may write any tokens.
        `refine_boxes` adds `location_points` to answers: see grounding.refined.
        """
        return cls(*loading.load(model, **options), location_grammar, refine_boxes)

    @torch.inference_mode()
    def warm_up(self, most: int, tokens: int = Query.max_new_tokens) -> None:
        """Allocate memory and record CUDA graphs in advance.

        Covers batches of up to `most` rows that write up to `tokens` tokens each.
        Raises DeviceLostError if the device has failed. Too little memory is no error: the engine
        then runs without the part that did not fit.
        """
        size = self.info.image_size
        prompt = prompts.caption("brief_caption").text
        try:
            positions = min(len(self.token_ids(prompt)) + tokens, self._context)
            with translated("warm-up failed"):
                self._decoder.warm_up(most, positions)
            grey = np.full((size, size, 3), 128, np.uint8)
            for count in self._decoder.graphs.sizes(most):
                (image, *_) = self.encode_batch([grey] * count)
            self.generate(image, prompt, 2)
        except GenerationError:
            self.clear()

    def memory(self) -> int:
        """Return the bytes of GPU memory that torch has reserved; 0 on a CPU.

        Any thread may call it.
        """
        return torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else 0

    def unload(self) -> None:
        """Free the weights and unused memory. No other call may follow."""
        del self.model, self._vision, self._decoder
        self._free_unused()

    def tidy(self) -> None:
        """Free unused memory of the cache, of torch and of the C library."""
        if not self._rows:
            self._decoder.shrink()
        self._free_unused()

    def _free_unused(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # raised by a lost device
                torch.cuda.empty_cache()
        # Loading runs in new threads. By default glibc returns memory only from the end of a
        # thread's heap; malloc_trim(3) returns free memory from everywhere in all heaps.
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)

    def encode(self, image: np.ndarray) -> EncodedImage:
        """Return the encoding of an image (H, W, 3) uint8 RGB of any size, for Query.image.

        The whole image is stretched to the model's square and not cropped, so a box in [0, 1] of
        the square is the same box in [0, 1] of the image.
        Raises GenerationError, or DeviceLostError if the device has failed for good.
        """
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[np.ndarray]) -> list[EncodedImage]:
        """Encode several images in one pass, as `encode` does. Their sizes may differ."""
        with translated("encoding the image failed"):
            pixels = torch.cat([self.pixels(image) for image in images])
            decoder = self._decoder
            slices = decoder.graphs.parts(len(pixels))
            parts = (decoder.run(self._encode, pixels[part]) for part in slices)
            return [EncodedImage(tokens) for part in parts for tokens in part]

    def _encode(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens (Q, H) of each image, of pixels (N, 3, S, S)."""
        # Copies: a view of one image would keep the memory of all images.
        return [tokens.clone() for tokens in self.image_tokens(pixels)]

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the image tokens (N, Q, H) of pixels (N, 3, S, S): a stage of `encode`."""
        return self._vision(pixels)

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """Return the model's input (1, 3, S, S), normalised, for an image (H, W, 3) uint8 RGB."""
        size = (self.info.image_size, self.info.image_size)
        # torch's CUDA kernel keeps the whole filter in the 48 KiB of shared memory of a block.
        large = max(image.shape) > MAX_CUDA_SCALE * self.info.image_size
        # torch warns about a view of a read-only array.
        frame = (torch.from_numpy if image.flags.writeable else torch.tensor)(image)
        if self._device.type == "cuda" and not large:
            frame = frame.to(self._device).float()  # only the CPU resizes bytes
        frame = frame.permute(2, 0, 1)[None]
        antialias = {} if self._resample == "nearest" else {"antialias": True}
        square = torch.nn.functional.interpolate(frame, size, mode=self._resample, **antialias)
        square = square.to(self._device).float().round().clamp(0, 255)
        return (square * self._scale + self._offset).to(self._dtype)

    def generate(
        self,
        image: EncodedImage,
        prompt: str,
        max_new_tokens: int = 128,
        stopped: Callable[[], bool] = never,
        stop: str = "",
    ) -> Generation:
        """Return the answer to one query. Raises the error that `generate_batch` would return."""
        query = Query(image, prompt, max_new_tokens, stopped, stop=stop)
        (answer,) = self.generate_batch([query])
        if isinstance(answer, KosmosError):
            raise answer
        return answer

    def generate_batch(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers, or the errors in their place, in the order of `queries`.

        The queries run together; see `step` for the errors.
        """
        answers: dict[Query, Answer] = {}
        try:
            self.add(queries)
            while any(query not in answers for query in queries):
                answers.update(self.step())
        except Exception:
            self.clear()
            raise
        return [answers[query] for query in queries]

    @torch.inference_mode()
    def add(self, queries: Sequence[Query]) -> None:
        """Add queries to the batch.

        Raises GenerationError, or DeviceLostError if the device has failed for good. The caller
        must call `clear` then.
        """
        rows = []
        for query in queries:
            try:
                ids, tail, head = self._cached_ids(query.prompt)
                if query.stopped():
                    raise CancelledError("generation was stopped")
            except KosmosError as exc:
                self._refused.append((query, exc))
            else:
                limit = min(query.max_new_tokens, self._context - len(ids))
                draft = Draft(query.earlier.ids, self._drafts) if query.earlier else None
                rows.append(_Row(query, ids, tail, head, limit, draft))
        if not rows:
            return
        self._rows += rows
        with translated("generation failed"):
            drafts = self._propose(rows) or [[]] * len(rows)
            self._decoder.join(
                [
                    NewRow(row.query.image, row.ids[len(self._prefix) :], row.limit, draft)
                    for row, draft in zip(rows, drafts, strict=True)
                ]
            )

    def _propose(self, rows: Sequence[_Row]) -> list[list[int]] | None:
        """Return a draft of the next tokens of each row; None if drafts do not pay."""
        window = self._decoder.window(len(rows))
        gains = sum(min(row.gain, window) for row in rows)
        if gains <= self._draft_cost(len(rows)) * len(rows):
            return None
        return [row.propose(window) for row in rows]

    def _draft_cost(self, rows: int) -> float:
        costs = DRAFT_COST[self._device.type]
        return next((cost for most, cost in costs.items() if rows <= most), max(costs.values()))

    @torch.inference_mode()
    def step(self) -> list[tuple[Query, Answer]]:
        """Write the next tokens of the queries, and return the queries that have ended.

        A query gets one token, or several if its draft is right. In the call after `add`, the
        queries that were not added may get none.
        Instead of an answer a query may have an error: PromptError for a prompt that fills the
        model's context, CancelledError for a query whose `stopped` returned true, and
        GenerationError if the model's output is not finite. An answer is shorter than
        `max_new_tokens` if the context has no room for more. Raises as `add` does. A query's
        `stopped` and `progress` must not raise: nothing catches their exceptions.
        """
        ended, self._refused = self._refused, []
        if not self._rows:
            return ended
        with translated("generation failed"):
            written = self._decoder.step(self._propose(self._rows))
        for row, tokens in zip(self._rows, written, strict=True):
            for token, near in tokens:
                if not row.done:
                    self._advance(row, token, near)
        done = [number for number, row in enumerate(self._rows) if row.done]
        ended += [(self._rows[number].query, self._answer(self._rows[number])) for number in done]
        for number in reversed(done):
            with translated("generation failed"):
                self._decoder.leave(number)
            self._rows[number] = self._rows[-1]
            self._rows.pop()
        return ended

    def clear(self) -> None:
        """Remove all queries without an answer, and free the memory of their keys and values."""
        self._rows.clear()
        self._refused.clear()
        with contextlib.suppress(RuntimeError):  # raised by a lost device
            self._decoder.clear()

    def _advance(self, row: _Row, token: int, near: list[float]) -> None:
        """Add one more token to a row, with the probabilities of it and its neighbours."""
        row.new.append(token)
        row.probabilities.append(near)
        row.failed = not math.isfinite(near[0])
        row.ended = token == self._end or self._at_stop(row)
        row.stopped = row.query.stopped()
        if row.query.progress and not row.stopped:
            row.query.progress(self._read(row))

    def _at_stop(self, row: _Row) -> bool:
        """Return whether a row has written its stop. Cut off a stop that is not a tag."""
        stop = row.query.stop
        if not stop:
            return False
        if TAG.fullmatch(stop):
            return row.new[-1] == self._tokenizer.convert_tokens_to_ids(stop)
        stop, text = self._clean(stop), self._text(row, row.new)
        # A word such as "object" must not stop the answer inside a tag.
        words = TAG.sub(lambda tag: "\0" * len(tag.group()), text)
        if stop not in words:
            return False
        row.text = text[: words.index(stop)]
        while row.new and self._text(row, row.new[:-1]).startswith(row.text):
            del row.new[-1], row.probabilities[-1]
        return True

    def _answer(self, row: _Row) -> Answer:
        if row.stopped:
            return CancelledError("generation was stopped")
        if row.failed:
            return GenerationError("the model's output is not finite; try another dtype")
        answer = self._read(row)
        if row.draft is None:
            return answer
        # Measured whether or not the row has used its drafts.
        return dataclasses.replace(answer, gain=row.draft.gain(row.new, WINDOW))

    def token_ids(self, prompt: str) -> list[int]:
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

    def check(self, prompt: str) -> None:
        """Raise PromptError for a prompt that the model cannot read. Any thread may call it."""
        self._cached_ids(prompt)

    def _tokenize(self, prompt: str) -> tuple[list[int], list[int], str]:
        """Return a prompt's token ids, the shortest end of them that has text, and this text.

        Raises PromptError.
        """
        ids = self.token_ids(prompt)
        if len(ids) >= self._context:
            raise PromptError(
                "the prompt and the image must have fewer tokens than the model's context of "
                f"{self._context}, got {len(ids)}; shorten the prompt"
            )
        if len(ids) == len(self._prefix):
            raise PromptError("prompt must not be empty")
        for start in range(len(ids) - 1, 0, -1):
            tail = ids[start:]
            if head := self.decode(tail):
                break
        return ids, tail, head

    def _text(self, row: _Row, new: list[int]) -> str:
        """Return the text of the tokens `new` after the row's prompt."""
        # The tokenizer drops the space before the first word, so the end of the prompt is decoded,
        # too. To decode the whole prompt for each token would take longer than the model's step.
        return self._clean(self.decode(row.tail + new)[len(row.head) :])

    def _clean(self, text: str) -> str:
        """Join punctuation to the word before it, if the tokenizer's own decoding does so."""
        return join_punctuation(text) if self._tokenizer.clean_up_tokenization_spaces else text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, with tags, as the tokenizer joins them."""
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _read(self, row: _Row) -> Generation:
        """Return what a row has written so far."""
        cells = self._drafts.cells
        located = [
            (cells[token], near)
            for token, near in zip(row.new, row.probabilities, strict=True)
            if token in cells
        ]
        return Generation(
            text=self._text(row, row.new) if row.text is None else row.text,
            location_scores=tuple(near[0] for _, near in located),
            location_points=tuple(refined(*corner) for corner in located) if self._refine else (),
            score=sum(near[0] for near in row.probabilities) / max(len(row.new), 1),
            tokens=len(row.new),
            truncated=not row.ended and len(row.new) >= row.limit,
            ids=tuple(row.new),
        )


@dataclass(eq=False)
class _Row:
    """A row of the decoder: a query and its answer so far."""

    query: Query
    ids: list[int]  # of the image and the prompt
    tail: list[int]  # shortest end of the prompt's ids that has text
    head: str  # text of `tail`
    limit: int  # largest number of tokens to write
    draft: Draft | None
    new: list[int] = field(default_factory=list)  # written tokens
    # For each token of `new`: those of it and of its neighbours, as Decoder.step returns them.
    probabilities: list[list[float]] = field(default_factory=list)
    text: str | None = None  # of the answer, if stop text ended it
    ended: bool = False  # by the end token or the query's stop text
    stopped: bool = False  # by the query's `stopped`
    failed: bool = False  # the model's output is not finite

    @property
    def gain(self) -> float:
        """Tokens that a pass with drafts is expected to give."""
        return self.query.earlier.gain if self.query.earlier else 1.0

    def propose(self, window: int) -> list[int]:
        """Return a draft of the next tokens, for a pass of `window` tokens."""
        room = min(window, self.limit - len(self.new)) - 1
        return self.draft.propose(self.new, room) if self.draft else []

    @property
    def done(self) -> bool:
        return self.ended or self.stopped or self.failed or len(self.new) >= self.limit


def _beside(vocabulary: int, locations: Sequence[int]) -> torch.Tensor:
    """Return the tokens (vocabulary, 9) whose probabilities are read when a token is written.

    For a location these are the tokens of its NEIGHBOURS, and itself for each neighbour beyond the
    edge of the grid. For any other token they are itself.
    """
    tokens = torch.arange(vocabulary)[:, None].repeat(1, len(NEIGHBOURS))
    for cell, own in enumerate(locations):
        cells = neighbours(cell)
        tokens[own] = torch.tensor([own if at is None else locations[at] for at in cells])
    return tokens
