"""Weights in, text with token probabilities out.

Loads a KOSMOS-2 model, encodes a picture once and answers any number of prompts about it. Knows
no ROS, no prompt wording and no boxes. One thread at a time may call an Engine.
"""

from __future__ import annotations

import gc
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kosmos_ros import shapes
from kosmos_ros.errors import (
    CancelledError,
    ConfigError,
    DeviceLostError,
    GenerationError,
    KosmosError,
    ModelError,
    ModelLoadError,
    PromptError,
)
from kosmos_ros.grounding import GRID, Generation, Query, never

try:
    import torch
    import transformers
    from packaging.version import Version
    from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor
except ImportError as exc:
    raise ModelLoadError(
        f"{exc}: {sys.executable} needs torch and transformers; "
        f"'{sys.executable} -m pip install -r requirements.txt' installs them"
    ) from exc

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_CUDA_SCALE = 24  # of a picture's side to the model's; larger pictures are resized on the CPU
QUANTIZATIONS = ("none", "int8", "nf4")
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling: torch's mode


@dataclass(frozen=True)
class ModelInfo:
    """What runs where."""

    model: str  # directory or Hugging Face id as asked for
    revision: str  # commit of the weights; empty for a directory
    device: str  # cpu or cuda:n
    device_name: str  # such as NVIDIA H200; empty for a CPU
    dtype: str
    quantization: str
    parameters: int
    image_size: int  # pixels, side of the square that the model sees
    transformers: str  # version
    torch: str  # version


class Engine:
    """A loaded model. `load` makes one."""

    def __init__(self, model: Any, processor: Any, info: ModelInfo) -> None:
        self.info = info
        self._model = model
        self._tokenizer = processor.tokenizer
        self._device = torch.device(info.device)
        self._dtype = DTYPES[info.dtype]
        self._image_tokens = int(model.config.latent_query_num)
        self._context = int(model.config.text_config.max_position_embeddings)
        self._location_ids = frozenset(
            self._tokenizer.convert_tokens_to_ids(
                [f"<patch_index_{index:04d}>" for index in range(GRID * GRID)]
            )
        )
        pixels = processor.image_processor
        self._resample = RESAMPLING[int(pixels.resample)]
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (pixels.image_mean, pixels.image_std)
        )
        if not pixels.do_normalize:
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        # (value * rescale - mean) / std in one multiplication and one addition
        self._scale = (float(pixels.rescale_factor) if pixels.do_rescale else 1.0) / std
        self._offset = -mean / std

    @classmethod
    def load(
        cls,
        model: str,
        *,
        revision: str = "",
        local_files_only: bool = False,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "none",
    ) -> Engine:
        """Load `model`: "shapes" (embedded), a directory or a Hugging Face id.

        `device` is auto, cpu, cuda or cuda:n. `dtype` is auto, float32, bfloat16 or float16; auto
        is float32 on a CPU, bfloat16 on a GPU that computes in it (compute capability 8.0 on),
        else float16. `quantization` is none, int8 or nf4 (bitsandbytes).
        Only safetensors are read and no code of the model's own is ever run.
        Raises ConfigError for a value that is not one of these or a device that is not there, and
        ModelLoadError when the files are missing, damaged or not a KOSMOS-2 model.
        """
        place = _device(device)
        if quantization not in QUANTIZATIONS:
            raise ConfigError(
                f"quantization {quantization!r} is unknown; one of {', '.join(QUANTIZATIONS)}"
            )
        kind = _dtype(dtype, place, quantization)
        path = _path(model)
        where: dict[str, Any] = {"local_files_only": local_files_only}
        if revision and Path(path).is_dir():
            raise ConfigError(
                f"revision is {revision!r}, but model {model!r} is a directory; "
                "only a Hugging Face id has revisions"
            )
        if revision:
            where["revision"] = revision
        options: dict[str, Any] = {
            "use_safetensors": True,
            "device_map": {"": place},
            _dtype_argument(): DTYPES[kind],
        }
        if quantization != "none":
            options["quantization_config"] = _quantization(quantization, DTYPES[kind])
        transformers.utils.logging.disable_progress_bar()
        try:
            values, _ = Kosmos2Config.get_config_dict(path, **where)
            if not values:
                raise ModelLoadError(f"model {model!r} has no config.json")
            if values.get("model_type") != Kosmos2Config.model_type:
                raise ModelLoadError(
                    f"model {model!r} is of type {values.get('model_type')!r}; "
                    f"{Kosmos2Config.model_type!r} is needed"
                )
            processor = Kosmos2Processor.from_pretrained(path, **where)
            loaded, report = Kosmos2ForConditionalGeneration.from_pretrained(
                path, **where, **options, output_loading_info=True
            )
        except ModelLoadError:
            raise
        except Exception as exc:  # tokenizers raises Exception itself, safetensors one of its own
            reason = str(exc).strip().split("\n")[0] or type(exc).__name__
            of = f" of revision {revision!r}" if revision else ""
            raise ModelLoadError(f"model {model!r}{of} cannot be loaded: {reason}") from exc
        _check(model, loaded, processor, report)
        loaded.eval()
        info = ModelInfo(
            model=model,
            revision=str(getattr(loaded.config, "_commit_hash", None) or ""),
            device=str(place),
            device_name=torch.cuda.get_device_name(place) if place.type == "cuda" else "",
            dtype=kind,
            quantization=quantization,
            parameters=loaded.num_parameters(),
            image_size=int(loaded.config.vision_config.image_size),
            transformers=transformers.__version__,
            torch=torch.__version__,
        )
        return cls(loaded, processor, info)

    def memory(self) -> int:
        """Bytes of the device's memory that torch holds, which is 0 for a CPU; any thread."""
        return torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else 0

    def unload(self) -> None:
        """Free the weights and what torch keeps of the device's memory; the last call."""
        del self._model
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def encode(self, image: np.ndarray) -> torch.Tensor:
        """Image tokens (1, Q, H) of a picture (H, W, 3) uint8 RGB of any shape.

        The whole picture is stretched to the model's square: nothing is cropped, so that a box in
        [0, 1] of the square is the same box in [0, 1] of the picture.
        Raises GenerationError when the device fails, DeviceLostError when it has failed for good.
        """
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """`encode` of several pictures in one pass; their shapes may differ."""
        try:
            tokens = self._project(torch.cat([self.pixels(image) for image in images]))
        except RuntimeError as exc:
            raise _translated("the picture could not be encoded", exc) from exc
        return list(tokens.split(1))

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """The model's input (1, 3, S, S), normalised, of a picture (H, W, 3) uint8 RGB."""
        size = (self.info.image_size, self.info.image_size)
        # torch's CUDA kernel holds a picture's whole filter in a block's 48 KiB.
        large = max(image.shape) > MAX_CUDA_SCALE * self.info.image_size
        frame = torch.tensor(image, device="cpu" if large else self._device).permute(2, 0, 1)[None]
        if frame.is_cuda:
            frame = frame.float()  # resizing bytes is a CPU kernel
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
    ) -> Generation:
        """`generate_batch` of one query; what that gives instead of an answer is raised."""
        (answer,) = self.generate_batch([Query(image, prompt, max_new_tokens, stopped)])
        if isinstance(answer, KosmosError):
            raise answer
        return answer

    @torch.inference_mode()
    def generate_batch(self, queries: Sequence[Query]) -> list[Generation | KosmosError]:
        """Greedy answers, computed together, in the order of `queries`.

        In place of an answer stands PromptError for a prompt that fills the model's context,
        CancelledError for a query that was stopped, and GenerationError where the model's output
        is not finite; the others have theirs all the same. An answer is shorter than asked where
        the context has no room for more.
        Raises GenerationError when the device fails, DeviceLostError when it has failed for good.
        """
        answers: list[Generation | KosmosError | None] = []
        rows: list[_Row] = []
        for query in queries:
            if query.stopped():
                answers.append(CancelledError("generation was stopped"))
                continue
            ids = self.token_ids(query.prompt)
            room = self._context - len(ids)
            if room < 1:
                text = (
                    f"the prompt has {len(ids)} tokens with the picture's; it fills the model's "
                    f"context of {self._context}"
                )
                answers.append(PromptError(text))
                continue
            rows.append(_Row(query, ids, min(query.max_new_tokens, room)))
            answers.append(None)
        written = iter(self._write(rows) if rows else [])
        return [next(written) if answer is None else answer for answer in answers]

    def _write(self, rows: list[_Row]) -> list[Generation | KosmosError]:
        length = max(len(row.ids) for row in rows)
        shape = (len(rows), length)
        # Rows end together: what is written begins at the same place in all of them.
        ids = torch.full(shape, self._tokenizer.pad_token_id)
        seen, places = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for number, row in enumerate(rows):
            start = length - len(row.ids)
            ids[number, start:] = torch.tensor(row.ids)
            seen[number, start:] = 1
            places[number, start + 2 : start + 2 + self._image_tokens] = 1
        try:
            self._decode(rows, *(part.to(self._device) for part in (ids, seen, places)))
        except RuntimeError as exc:
            raise _translated("generation failed", exc) from exc
        return [self._answer(row) for row in rows]

    def _decode(
        self, rows: list[_Row], ids: torch.Tensor, seen: torch.Tensor, places: torch.Tensor
    ) -> None:
        """Greedy decoding of all rows: prompts (B, L), what of them counts, the pictures' places.

        Not transformers' generate, whose positions are off by the padding of a shorter prompt
        (5.23, Kosmos2ForConditionalGeneration.prepare_inputs_for_generation drops position_ids).
        """
        text_model, padding = self._model.text_model, self._tokenizer.pad_token_id
        positions = seen.cumsum(1) * seen + padding
        output = text_model(
            input_ids=ids,
            attention_mask=seen,
            image_embeds=torch.cat([row.query.image for row in rows]),
            image_embeds_position_mask=places,
            position_ids=positions,
            use_cache=True,
        )
        while True:
            probabilities, tokens = output.logits[:, -1].float().softmax(-1).max(-1)
            for row, token, probability in zip(
                rows, tokens.tolist(), probabilities.tolist(), strict=True
            ):
                if not row.done:
                    self._follow(row, token, probability)
            if all(row.done for row in rows):
                return
            seen = torch.cat([seen, seen[:, -1:]], dim=1)
            positions = positions[:, -1:] + 1
            output = text_model(
                input_ids=tokens[:, None],
                attention_mask=seen,
                position_ids=positions,
                past_key_values=output.past_key_values,
                use_cache=True,
            )

    def _follow(self, row: _Row, token: int, probability: float) -> None:
        """Take up one more token."""
        row.new.append(token)
        row.probabilities.append(probability)
        row.ended = token == self._tokenizer.eos_token_id
        row.stopped = row.query.stopped()
        if row.query.progress and not row.stopped:
            row.query.progress(self._read(row))

    def _answer(self, row: _Row) -> Generation | KosmosError:
        if row.stopped:
            return CancelledError("generation was stopped")
        if not all(map(math.isfinite, row.probabilities)):
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

    def _project(self, pixels: torch.Tensor) -> torch.Tensor:
        vision = self._model.vision_model
        features = vision.model.post_layernorm(vision(pixel_values=pixels)[0])
        features = torch.nn.functional.normalize(features, dim=-1)
        return self._model.image_to_text_projection(features)[0]

    def _read(self, row: _Row) -> Generation:
        """What a row has written so far."""
        # A tokenizer drops the space before the first word it decodes: cut the prompt off after.
        words = row.ids[2 + self._image_tokens :]
        whole, head = (
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for ids in (words + row.new, words)
        )
        return Generation(
            text=whole[len(head) :],
            location_scores=tuple(
                probability
                for token, probability in zip(row.new, row.probabilities, strict=True)
                if token in self._location_ids
            ),
            score=sum(row.probabilities) / max(len(row.probabilities), 1),
            tokens=len(row.new),
            truncated=not row.ended and len(row.new) >= row.limit,
        )


@dataclass(eq=False)
class _Row:
    """A query on its way through the model."""

    query: Query
    ids: list[int]  # of the prompt
    limit: int  # tokens to write at most
    new: list[int] = field(default_factory=list)  # written
    probabilities: list[float] = field(default_factory=list)  # of each of `new`
    ended: bool = False  # the model wrote its end token
    stopped: bool = False  # by the one who asked

    @property
    def done(self) -> bool:
        return self.ended or self.stopped or len(self.new) >= self.limit


def _translated(what: str, exc: RuntimeError) -> ModelError:
    text = str(exc)
    # After any other CUDA error the process is in an inconsistent state (CUDA Runtime API,
    # cudaErrorIllegalAddress and its neighbours).
    lost = "CUDA error" in text and "out of memory" not in text
    reason = text.partition("\n")[0]  # torch appends advice to programmers
    return (DeviceLostError if lost else GenerationError)(f"{what}: {reason}")


def _device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = "cuda:0"
    if not re.fullmatch("cpu|cuda:[0-9]+", device):
        raise ConfigError(f"device {device!r} is unknown; auto, cpu, cuda or cuda:n is needed")
    if device != "cpu" and int(device[5:]) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(device)


def _path(model: str) -> str:
    if model == "shapes":
        return str(shapes.MODEL_DIR)
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_file() or model.startswith(("/", ".", "~")):
        raise ModelLoadError(f"model {model!r}: there is no directory {path.absolute()}")
    return model


def _dtype(dtype: str, device: torch.device, quantization: str) -> str:
    if dtype == "auto":
        if device.type == "cpu":
            return "float32"
        if quantization == "int8":
            return "float16"  # bitsandbytes' int8 product casts anything else to it, every time
        # torch.cuda.is_bf16_supported() is true for emulated bfloat16 as well.
        native = torch.cuda.get_device_capability(device) >= (8, 0)
        return "bfloat16" if native else "float16"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; auto or one of {', '.join(DTYPES)}")
    return dtype


def _dtype_argument() -> str:
    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"


def _quantization(quantization: str, dtype: torch.dtype) -> Any:
    if quantization == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _check(model: str, loaded: Any, processor: Any, report: dict[str, Any]) -> None:
    """Refuse weights that would run and answer nonsense."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"model {model!r} lacks {len(missing)} weights, such as {missing[0]!r}"
        )
    size = int(loaded.config.vision_config.image_size)
    seen = set(dict(processor.image_processor.size).values())
    if seen != {size}:
        raise ModelLoadError(
            f"model {model!r}: its image processor makes pictures of {sorted(seen)} pixels, "
            f"its vision model needs {size}"
        )
    if int(processor.image_processor.resample) not in RESAMPLING:
        raise ModelLoadError(
            f"model {model!r}: resample {processor.image_processor.resample} is not supported; "
            f"one of {sorted(RESAMPLING)} is needed"
        )
    vocabulary = loaded.config.text_config.vocab_size
    if len(processor.tokenizer) > vocabulary:
        raise ModelLoadError(
            f"model {model!r}: its tokenizer has {len(processor.tokenizer)} tokens, "
            f"its weights {vocabulary}"
        )
