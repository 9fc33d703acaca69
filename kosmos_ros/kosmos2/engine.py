# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Answer prompts about images with text and token probabilities.

The engine encodes an image once and answers any number of prompts about it. Prompts join and
leave the batch at any token. Knows no ROS and no prompt wording; knows boxes only as tokens.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kosmos_ros.errors import CancelledError, GenerationError, KosmosError
from kosmos_ros.kosmos2 import loading, prompts
from kosmos_ros.kosmos2.answers import Answer, Row
from kosmos_ros.kosmos2.decoder import Decoder, EncodedImage, NewRow
from kosmos_ros.kosmos2.drafts import Drafts
from kosmos_ros.kosmos2.grammar import Grammar
from kosmos_ros.kosmos2.grounding import BOX_TAGS, NEIGHBOURS, neighbours
from kosmos_ros.kosmos2.loading import DTYPES, ModelInfo, torch
from kosmos_ros.kosmos2.ngrams import MIN_PROBABILITY, Ngrams
from kosmos_ros.kosmos2.passes import FIRST_WINDOW, WINDOW
from kosmos_ros.kosmos2.pixels import Pixels
from kosmos_ros.kosmos2.query import Generation, Query, never
from kosmos_ros.kosmos2.repetition import NoRepeat
from kosmos_ros.kosmos2.rule import Rule
from kosmos_ros.kosmos2.tokens import Tokens
from kosmos_ros.kosmos2.torch_errors import translated
from kosmos_ros.kosmos2.vision import Vision

DRAFT_COST = {
    "cpu": {1: 3.0, 2: 4.0, 4: 5.5, 8: 6.5},
    "cuda": {4: 2.0, 8: 2.2, 16: 2.4},
    "cuda, quantized": {1: 2.4, 8: 1.5},
}
"""Time of a pass that checks drafts, in passes without drafts, by the largest number of rows.

Drafts pay only if they give more tokens than this. A pass without drafts is bound by reading the
weights, so on a GPU 16 tokens of a row take about twice as long as one; a CPU also needs the time
of their multiplications. With quantized weights, a pass has at most 16 tokens of all rows. CPU:
measured with the embedded model and two threads. GPU: estimated from measurements on an H200 with
weights of KOSMOS-2's size (docs/performance.md), namely from differences between captions, and
with quantized weights from times on the GPU and 0.6 ms for the host."""
NARROW_COST = 1.6
"""Time of a pass that checks one drafted token of each row, on a CPU, in passes without drafts.
Measured with two threads and one to eight rows: 1.3 to 1.7 with the embedded model, 1.1 to 1.7
with weights of KOSMOS-2's size."""


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
        ngrams: bool = False,
    ) -> None:
        self.info = info
        self.model = model
        self._device = torch.device(info.device)
        text = model.config.text_config
        self._tokens = tokens = Tokens(
            processor.tokenizer,
            int(model.config.latent_query_num),
            int(text.max_position_embeddings),
        )
        self._drafts = Drafts(tokens.locations)
        # On a GPU a pass begins before the previous one is read, so short drafts would not pay.
        # With fewer bits than 32, drafts can change tokens, which would then depend on earlier
        # answers.
        exact = self._device.type == "cpu" and info.dtype == "float32"
        exact = exact and info.quantization == "none"
        self._ngrams = Ngrams(self._drafts.cells) if ngrams and exact else None
        self._refine = refine_boxes
        # A stage of `encode`: the model's input (1, 3, S, S) for an image (H, W, 3) uint8 RGB.
        self.pixels = Pixels(
            processor.image_processor, info.image_size, self._device, DTYPES[info.dtype]
        )
        vocabulary = int(text.vocab_size)
        rules: list[Rule] = []
        if info.no_repeat_ngram_size:
            rules.append(NoRepeat(info.no_repeat_ngram_size))
        if location_grammar:
            opening, closing, delimiter = tokens.id_of(BOX_TAGS)
            rules.append(
                Grammar(vocabulary, opening, closing, delimiter, tokens.locations, self._device)
            )
        beside = None
        if refine_boxes:
            beside = _beside(vocabulary, tokens.locations).to(self._device)
        with torch.inference_mode():
            self._vision = Vision(model)
            self._decoder = Decoder(
                model.text_model, tokens.prefix, tokens.image, tuple(rules), neighbours=beside
            )
        self._rows: list[Row] = []  # the decoder's rows
        self._refused: list[tuple[Query, Answer]] = []  # for the next step

    @classmethod
    def load(
        cls,
        model: str,
        *,
        location_grammar: bool = True,
        refine_boxes: bool = True,
        ngrams: bool = False,
        **options: Any,
    ) -> Engine:
        """Load `model` with the options of loading.load; see there for the errors.

        `location_grammar` keeps every box well formed. If false, the model may write any tokens.
        `refine_boxes` adds `location_points` to answers: see grounding.refined.
        `ngrams`: on a CPU and in float32, answers have drafts from the tokens that followed the
        same tokens in the engine's earlier answers. Answers are then faster, but the last digits
        of scores and boxes depend on earlier answers.
        """
        return cls(*loading.load(model, **options), location_grammar, refine_boxes, ngrams)

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
            positions = min(len(self.token_ids(prompt)) + tokens, self._tokens.context)
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

    def compact(self, encoded: EncodedImage) -> EncodedImage:
        """Return a copy of an encoding without what `join` can compute again from it."""
        return EncodedImage(encoded.tokens)

    def _encode(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens (Q, H) of each image, of pixels (N, 3, S, S)."""
        # Copies: a view of one image would keep the memory of all images.
        return [tokens.clone() for tokens in self.image_tokens(pixels)]

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the image tokens (N, Q, H) of pixels (N, 3, S, S): a stage of `encode`."""
        return self._vision(pixels)

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
                prompt = self._tokens.of_prompt(query.prompt)
                if query.stopped():
                    raise CancelledError("generation was stopped")
            except KosmosError as exc:
                self._refused.append((query, exc))
            else:
                rows.append(
                    Row(query, prompt, self._tokens, self._drafts, self._ngrams, self._refine)
                )
        if not rows:
            return
        self._rows += rows
        with translated("generation failed"):
            drafts = self._propose_first(rows) or [[]] * len(rows)
            shared = len(self._tokens.prefix)
            self._decoder.join(
                [
                    NewRow(row.query.image, row.prompt.ids[shared:], row.limit, draft)
                    for row, draft in zip(rows, drafts, strict=True)
                ]
            )

    def _propose_first(self, rows: Sequence[Row]) -> list[list[int]] | None:
        """Return a draft of the first tokens of each row; None: no row has one.

        In a first pass without a fixed shape and with weights of KOSMOS-2's size, a further token
        takes 0.1 to 0.2 of the time of a pass of one token, so those of MIN_PROBABILITY pay.
        """
        if self._decoder.graphs.fixed:
            return self._propose(rows)
        window, share = self._decoder.first_window(len(rows)), max(FIRST_WINDOW // len(rows), 1)
        return [
            row.propose(min(window, 1 + _likely_tokens(row.gain)))
            if row.query.earlier
            else [token for token, _ in row.following(share)]
            for row in rows
        ]

    def _propose(self, rows: Sequence[Row]) -> list[list[int]] | None:
        """Return a draft of the next tokens of each row; None if drafts do not pay."""
        window = self._decoder.window(len(rows))
        following = [row.following(window) for row in rows]
        width, rate = self._best_width(following)
        gains = sum(
            min(row.gain, window) if row.query.earlier else 1.0 + sum(right for _, right in each)
            for row, each in zip(rows, following, strict=True)
        )
        tokens = [[token for token, _ in each] for each in following]
        if gains > rate * self._draft_cost(len(rows)) * len(rows):
            return [
                row.propose(window) if row.query.earlier else each
                for row, each in zip(rows, tokens, strict=True)
            ]
        return [each[: width - 1] for each in tokens] if width > 1 else None

    def _best_width(self, following: Sequence[list[tuple[int, float]]]) -> tuple[int, float]:
        """Return the best number of tokens of each row in a pass, and the speed of such passes.

        The speed is in tokens, relative to passes of one token. `following` has the likely next
        tokens of each row with their probabilities; see Ngrams.following.
        """
        rows, best, rate = len(following), 1, 1.0
        # Time of each drafted token after the first one:
        rest = max(self._draft_cost(rows) - NARROW_COST, 0.0) / (WINDOW - 2)
        expected = float(rows)
        for number in range(max(map(len, following), default=0)):
            expected += sum(each[number][1] for each in following if number < len(each))
            now = expected / rows / (NARROW_COST + number * rest)
            if now > rate:
                best, rate = number + 2, now
        return best, rate

    def _draft_cost(self, rows: int) -> float:
        quantized = self._device.type == "cuda" and self.info.quantization != "none"
        costs = DRAFT_COST["cuda, quantized" if quantized else self._device.type]
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
            last = all(row.left <= 1 for row in self._rows)
            written = self._decoder.step(self._propose(self._rows), last)
        for row, tokens in zip(self._rows, written, strict=True):
            row.advance(tokens)
        done = [number for number, row in enumerate(self._rows) if row.done]
        first = self._decoder.first_window(1)
        ended += [(row.query, row.answer(first, WINDOW)) for row in self._rows if row.done]
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

    def token_ids(self, prompt: str) -> list[int]:
        """Return the ids of the image and a prompt; see Tokens.ids for the error."""
        return self._tokens.ids(prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, with tags, as the tokenizer joins them."""
        return self._tokens.decode(ids)

    def check(self, prompt: str) -> None:
        """Raise PromptError for a prompt that the model cannot read. Any thread may call it."""
        self._tokens.of_prompt(prompt)


def _likely_tokens(gain: float) -> int:
    """Return how many tokens of a draft are all right with a probability of MIN_PROBABILITY.

    A pass with drafts gives `gain` tokens on average, so a token is wrong with a probability of
    about 1 / gain. Returns WINDOW - 1 for a gain that is not measured yet.
    """
    if math.isinf(gain):
        return WINDOW - 1
    return int(math.log(MIN_PROBABILITY) / math.log(1.0 - 1.0 / gain)) if gain > 1.0 else 0


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
