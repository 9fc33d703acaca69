# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Prompts about pictures in, text with token probabilities out.

Encodes a picture once and answers any number of prompts about it, which join and leave as they
come. Knows no ROS and no boxes beyond their tokens. One thread at a time may call an Engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kosmos_ros.errors import CancelledError, GenerationError, KosmosError, PromptError
from kosmos_ros.kosmos2 import loading, prompts
from kosmos_ros.kosmos2.decoder import Decoder
from kosmos_ros.kosmos2.grammar import Grammar
from kosmos_ros.kosmos2.grounding import BOX_TAGS, GRID, TAGS
from kosmos_ros.kosmos2.loading import DTYPES, RESAMPLING, ModelInfo, torch
from kosmos_ros.kosmos2.query import Generation, Query, never
from kosmos_ros.kosmos2.rule import Rule
from kosmos_ros.kosmos2.torch_errors import translated
from kosmos_ros.kosmos2.vision import Vision

MAX_CUDA_SCALE = 24  # of a picture's side to the model's; larger pictures are resized on the CPU

PROMPTS = 256  # whose token ids are kept

Answer = Generation | KosmosError


class Engine:
    """A loaded model. `load` makes one."""

    def __init__(
        self, model: Any, processor: Any, info: ModelInfo, location_grammar: bool = True
    ) -> None:
        self.info = info
        self.model = model
        self._tokenizer = processor.tokenizer
        self._device = torch.device(info.device)
        self._dtype = DTYPES[info.dtype]
        self._image_tokens = int(model.config.latent_query_num)
        # What every prompt begins with: start, <image>, the picture's places, </image>.
        self._prefix = self.token_ids("")[: self._image_tokens + 3]
        self._context = int(model.config.text_config.max_position_embeddings)
        ids = self._tokenizer.convert_tokens_to_ids
        locations = ids([f"<patch_index_{index:04d}>" for index in range(GRID * GRID)])
        self._location_ids = frozenset(locations)
        self._end = self._tokenizer.eos_token_id
        self._stops: dict[str, list[int]] = {}
        # Cameras ask the same of every frame.
        self._words = functools.lru_cache(PROMPTS)(self._tokenize)
        rules: tuple[Rule, ...] = ()
        if location_grammar:
            vocabulary = int(model.config.text_config.vocab_size)
            opening, closing, delimiter = ids(BOX_TAGS)
            rules = (Grammar(vocabulary, opening, closing, delimiter, locations, self._device),)
        with torch.inference_mode():
            self._vision = Vision(model)
            self._decoder = Decoder(model.text_model, rules)
        self._prefix_ids = torch.tensor(self._prefix, device=self._device)
        self._rows: list[_Row] = []  # those of the decoder
        self._refused: list[tuple[Query, Answer]] = []
        pixels = processor.image_processor
        self._resample = RESAMPLING[int(pixels.resample)]
        colours = (pixels.image_mean, pixels.image_std)
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (colours if pixels.do_normalize else ([0.0] * 3, [1.0] * 3))
        )
        # (value * rescale - mean) / std in one multiplication and one addition
        self._scale = (float(pixels.rescale_factor) if pixels.do_rescale else 1.0) / std
        self._offset = -mean / std

    @classmethod
    def load(cls, model: str, *, location_grammar: bool = True, **options: Any) -> Engine:
        """Load `model` with the options of loading.load, which says what it raises.

        Without `location_grammar` a box may be anything that the model writes.
        """
        return cls(*loading.load(model, **options), location_grammar)

    @torch.inference_mode()
    def warm_up(self, most: int, tokens: int = Query.max_new_tokens) -> None:
        """Have everything made that is made once, such as graphs on a GPU.

        They are for up to `most` rows of captions of up to `tokens`.
        Raises DeviceLostError when the device has failed for good; less memory than that takes
        is no error.
        """
        size = self.info.image_size
        prompt = prompts.caption("brief_caption").text
        try:
            positions = min(len(self.token_ids(prompt)) + tokens, self._context)
            with translated("the warm-up failed"):
                self._decoder.warm_up(most, positions, len(self._prefix))
            grey = np.full((size, size, 3), 128, np.uint8)
            for count in self._decoder.graphs.sizes(most):
                (image, *_) = self.encode_batch([grey] * count)
            self.generate(image, prompt, 2)
        except GenerationError:
            self.clear()

    def memory(self) -> int:
        """Bytes of the device's memory that torch holds, which is 0 for a CPU; any thread."""
        return torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else 0

    def unload(self) -> None:
        """Free the weights and what torch keeps of the device's memory; the last call."""
        # The last of them is a circle, which would keep all the others.
        del self.model, self._vision, self._decoder, self._words
        self._give_back()

    def tidy(self) -> None:
        """Give back memory that is kept for later: the cache's, torch's and the C library's."""
        if not self._rows:
            self._decoder.shrink()
        self._give_back()

    def _give_back(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # a lost device gives nothing back
                torch.cuda.empty_cache()
        # Each model is loaded by new threads, and by itself glibc gives back only what is free at
        # the end of the heap that a thread happened to have: malloc_trim(3) does so in all heaps.
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)

    def encode(self, image: np.ndarray) -> torch.Tensor:
        """What the model knows of a picture (H, W, 3) uint8 RGB of any shape.

        It is the text model's keys and values of the picture's tokens, which every prompt about
        it begins with: (layers, tokens, 2, heads, depth). The whole picture is stretched to the
        model's square: nothing is cropped, so that a box in [0, 1] of the square is the same box
        in [0, 1] of the picture.
        Raises GenerationError when the device fails, DeviceLostError when it has failed for good.
        """
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """`encode` of several pictures in one pass; their shapes may differ."""
        with translated("the picture could not be encoded"):
            pixels = torch.cat([self.pixels(image) for image in images])
            graphs, prefixes = self._decoder.graphs, []
            for part in graphs.parts(len(pixels)):
                prefixes += graphs(self._see, pixels[part])
            return prefixes

    def _see(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """What `encode` gives of each of the pixels (N, 3, S, S)."""
        return self._decoder.prefixes(self._prefix_ids, self._vision(pixels), start=2)

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """The model's input (1, 3, S, S), normalised, of a picture (H, W, 3) uint8 RGB."""
        size = (self.info.image_size, self.info.image_size)
        # torch's CUDA kernel holds a picture's whole filter in a block's 48 KiB.
        large = max(image.shape) > MAX_CUDA_SCALE * self.info.image_size
        # Of what cannot be written to torch has no view without a warning.
        frame = (torch.from_numpy if image.flags.writeable else torch.tensor)(image)
        if self._device.type == "cuda" and not large:
            frame = frame.to(self._device).float()  # resizing bytes is a CPU kernel
        frame = frame.permute(2, 0, 1)[None]
        antialias = {} if self._resample == "nearest" else {"antialias": True}
        square = torch.nn.functional.interpolate(frame, size, mode=self._resample, **antialias)
        square = square.to(self._device).float().round().clamp(0, 255)
        return (square * self._scale + self._offset).to(self._dtype)

    def generate(
        self,
        image: torch.Tensor,
        prompt: str,
        max_new_tokens: int = 128,
        stopped: Callable[[], bool] = never,
        stop: str = "",
    ) -> Generation:
        """`generate_batch` of one query; what that gives instead of an answer is raised."""
        query = Query(image, prompt, max_new_tokens, stopped, stop=stop)
        (answer,) = self.generate_batch([query])
        if isinstance(answer, KosmosError):
            raise answer
        return answer

    def generate_batch(self, queries: Sequence[Query]) -> list[Answer]:
        """Greedy answers, computed together, in the order of `queries`; see `step`."""
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
        """Take up queries; those under way go on beside them.

        Raises GenerationError when the device fails, DeviceLostError when it has failed for good;
        `clear` is to be called then.
        """
        rows = []
        for query in queries:
            try:
                ids, head = self._words(query.prompt)
                if query.stopped():
                    raise CancelledError("generation was stopped")
            except KosmosError as exc:
                self._refused.append((query, exc))
            else:
                limit = min(query.max_new_tokens, self._context - len(ids))
                rows.append(_Row(query, ids, head, limit))
        if not rows:
            return
        self._rows += rows
        with translated("generation failed"):
            self._decoder.join(
                [row.query.image for row in rows],
                [row.ids[len(self._prefix) :] for row in rows],
                [row.limit for row in rows],
            )

    @torch.inference_mode()
    def step(self) -> list[tuple[Query, Answer]]:
        """Write one more token of each query under way, and give those that end with it.

        On a GPU one that has just been added may get its first token by the next call only.
        In place of an answer stands PromptError for a prompt that fills the model's context,
        CancelledError for a query that was stopped, and GenerationError where the model's output
        is not finite. An answer is shorter than asked where the context has no room for more.
        Raises as `add` does. What a query's `stopped` and `progress` raise is not caught: they
        are not to.
        """
        ended, self._refused = self._refused, []
        if not self._rows:
            return ended
        with translated("generation failed"):
            tokens, probabilities = self._decoder.step()
        # With graphs those that joined last may have none yet.
        rows = self._rows[: len(tokens)] if self._decoder.graphs.fixed else self._rows
        for row, token, probability in zip(rows, tokens, probabilities, strict=True):
            self._follow(row, token, probability)
        done = [number for number, row in enumerate(self._rows) if row.done]
        ended += [(self._rows[number].query, self._answer(self._rows[number])) for number in done]
        for number in reversed(done):
            with translated("generation failed"):
                self._decoder.leave(number)
            self._rows[number] = self._rows[-1]
            self._rows.pop()
        return ended

    def clear(self) -> None:
        """Let go of all queries under way, and of what their keys and values take."""
        self._rows.clear()
        self._refused.clear()
        with contextlib.suppress(RuntimeError):  # a lost device allocates nothing any more
            self._decoder.clear()

    def _follow(self, row: _Row, token: int, probability: float) -> None:
        """Take up one more token."""
        row.new.append(token)
        row.probabilities.append(probability)
        row.failed = not math.isfinite(probability)
        row.ended = token == self._end
        row.stopped = row.query.stopped()
        if row.query.stop and not row.ended:
            ids = self._stop_ids(row.query.stop)
            row.ended = row.new[-len(ids) :] == ids
            if row.ended and row.query.stop not in TAGS:
                del row.new[-len(ids) :], row.probabilities[-len(ids) :]
        if row.query.progress and not row.stopped:
            row.query.progress(self._read(row))

    def _stop_ids(self, text: str) -> list[int]:
        if text not in self._stops:
            self._stops[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._stops[text]

    def _answer(self, row: _Row) -> Answer:
        if row.stopped:
            return CancelledError("generation was stopped")
        if row.failed:
            return GenerationError("the model's output is not finite; another dtype may help")
        return self._read(row)

    def token_ids(self, prompt: str) -> list[int]:
        """Token ids: start, the picture's places, the prompt; as Kosmos2Processor's."""
        text = f"<image></image> {prompt}"
        start, *words = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        # Ids of the picture's places: any but padding, the embeddings are replaced.
        first = self._tokenizer.unk_token_id + 1
        picture = range(first, first + self._image_tokens)
        return [self._tokenizer.bos_token_id, start, *picture, *words]

    def _tokenize(self, prompt: str) -> tuple[list[int], str]:
        """A prompt's token ids, and what they read as. Raises PromptError."""
        ids = self.token_ids(prompt)
        if len(ids) >= self._context:
            raise PromptError(
                f"the prompt has {len(ids)} tokens with the picture's; it fills the model's "
                f"context of {self._context}"
            )
        if len(ids) == len(self._prefix):
            raise PromptError("prompt is empty; words are needed")
        return ids, self._decode(ids)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids[len(self._prefix) - 1 :],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return text

    def _read(self, row: _Row) -> Generation:
        """What a row has written so far."""
        # A tokenizer drops the space before the first word it decodes: cut the prompt off after.
        return Generation(
            text=self._decode(row.ids + row.new)[len(row.head) :],
            location_scores=tuple(
                probability
                for token, probability in zip(row.new, row.probabilities, strict=True)
                if token in self._location_ids
            ),
            score=sum(row.probabilities) / max(len(row.probabilities), 1),
            tokens=len(row.new),
            truncated=not row.ended and len(row.new) >= row.limit,
            ids=tuple(row.new),
        )


@dataclass(eq=False)
class _Row:
    """A query on its way through the model."""

    query: Query
    ids: list[int]  # of the prompt
    head: str  # the prompt as it is read
    limit: int  # tokens to write at most
    new: list[int] = field(default_factory=list)  # written
    probabilities: list[float] = field(default_factory=list)  # of each of `new`
    ended: bool = False  # the model wrote its end token
    stopped: bool = False  # by the one who asked
    failed: bool = False  # the model's output is not finite

    @property
    def done(self) -> bool:
        return self.ended or self.stopped or self.failed or len(self.new) >= self.limit
