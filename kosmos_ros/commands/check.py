# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos check: compare an installation with Hugging Face's code and with the model card.

Runs the model card's examples in float32 and in the number format of the device. In float32 the
engine must write the tokens of Hugging Face's `generate`. Another format may round to another
token, which is reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kosmos_ros.commands import card
from kosmos_ros.commands import options as opts
from kosmos_ros.commands.card import Example
from kosmos_ros.commands.output import report, write
from kosmos_ros.errors import ConfigError, KosmosError, ModelError
from kosmos_ros.images import decode
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.sanitize import one_line
from kosmos_ros.serving.node_settings import NodeSettings

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.loading import ModelInfo
    from kosmos_ros.kosmos2.reference import Difference, Reference, Speed

SCORE_TOLERANCE = 1e-4  # between mean probabilities in float32
FULL_SIZE = 1_000_000_000  # parameters; KOSMOS-2 has 1.66 billion


@dataclass(frozen=True)
class Expected:
    """Figures of docs/performance.md."""

    machine: str
    weights: float = 0.0  # GB; 0: not measured
    first_token: float = 0.0  # ms
    next_token: float = 0.0  # ms


_H200, _CPU = "NVIDIA H200", "AMD EPYC, 2 cores"
EXPECTED = {
    ("full", "cuda", "bfloat16"): Expected(_H200, 3.34, 11.0, 2.23),
    ("full", "cuda", "int8"): Expected(_H200, 1.81, next_token=75),
    ("full", "cuda", "nf4"): Expected(_H200, 1.14, next_token=21.7),
    ("full", "cpu", "float32"): Expected(_CPU, 6.67, 3029, 177),
    ("full", "cpu", "int8"): Expected(_CPU, 2.09, next_token=81.7),
    ("full", "cpu", "nf4"): Expected(_CPU, 1.42, next_token=59.6),
    ("shapes", "cpu", "float32"): Expected(_CPU, first_token=6.39, next_token=0.412),
}
"""(size of the model, kind of device, number format or quantization): figures."""


@dataclass(frozen=True)
class Row:
    """One example in one number format. Everything but `to_float32` compares with Hugging Face."""

    title: str
    text: str  # prompt and answer with tags
    prompt_ids: bool  # equal
    boxes: bool  # equal, if both read the engine's tokens
    difference: Difference | None  # of the tokens; None: equal
    score: float | None  # difference of the mean probabilities; None: the tokens differ
    on_card: bool | None  # equal to the model card's output; None: it shows none
    ids: tuple[int, ...]
    to_float32: Difference | None = None  # of the tokens in this format and in float32

    def faults(self, exact: bool) -> list[str]:
        """Return what is wrong. `exact`: the number format is float32."""
        found = {
            "the prompt has other token ids than Hugging Face's processor gives": (
                not self.prompt_ids
            ),
            "phrases and boxes differ from post_process_generation": not self.boxes,
            "token ids differ from generate": exact and self.difference is not None,
            f"the mean probability differs by more than {SCORE_TOLERANCE}": exact
            and self.score is not None
            and not self.score <= SCORE_TOLERANCE,
            f"the output differs from the model card: {self.text}": exact
            and self.on_card is False,
        }
        return [f"{self.title}: {text}" for text, wrong in found.items() if wrong]


@dataclass(frozen=True)
class Pass:
    """The results in one number format."""

    info: ModelInfo
    rows: list[Row]
    pixels: float  # largest difference from the processor's pixels, in grey levels of 255
    speed: Speed
    process: int  # bytes, peak of the process's memory so far

    @property
    def name(self) -> str:
        """The quantization, or the number format of weights that are not quantized."""
        info = self.info
        return info.dtype if info.quantization == "none" else info.quantization

    @property
    def exact(self) -> bool:
        """Whether token ids must be those of generate."""
        return self.name == "float32"

    @property
    def faults(self) -> list[str]:
        """What is wrong in this number format."""
        return [f"{self.name}: {fault}" for row in self.rows for fault in row.faults(self.exact)]

    @property
    def expected(self) -> Expected:
        """Figures to compare the speed with."""
        kind = self.info.device.partition(":")[0]
        size = "full" if self.info.parameters >= FULL_SIZE else self.info.model
        key = (size, kind, self.name)
        return EXPECTED.get(key, Expected(""))


def add(commands: Any) -> None:
    """Add the subcommand to the parser's `commands`."""
    parser = commands.add_parser(
        "check",
        help="compare this installation with Hugging Face's code and the model card",
        description="Run the examples of KOSMOS-2's model card, and compare each output with that "
        "of Hugging Face's generate on the same weights, in float32 and in the number format of "
        "the device. Reports memory and speed. Exit code 0: all comparisons in float32 agree; 1: "
        "one does not.",
    )
    opts.add_model(parser)
    opts.add_setting(parser, "max_image_pixels")
    parser.add_argument(
        "--image",
        metavar="FILE",
        help="Image for the examples. For the model card's snowman.png, outputs of the default "
        "model are also compared with those of the card. Default: a drawn picture.",
    )
    parser.add_argument("--json", action="store_true", help="Write one JSON object, not a table.")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check an installation, write the report, and return 0 if all comparisons agree."""
    image = decode.load(options.image, options.max_image_pixels) if options.image else card.drawn()
    snowman = options.image is not None and card.is_snowman(image)
    default = options.model == NodeSettings.model
    examples = card.examples(of_card=snowman, known=default)
    passes, problem = _passes(options, image, examples)
    faults = [*problem, *(fault for each in passes for fault in each.faults)]
    picture = f"{options.image}" if options.image else "drawn"
    if options.json:
        write(json.dumps(_json(options, picture, snowman, passes, faults), allow_nan=False))
    else:
        missing = [
            what
            for what, given in (("--image snowman.png", snowman), ("the default model", default))
            if not given
        ]
        hint = "not compared with the model card: that needs " + " and ".join(missing)
        write("\n".join(_table(options, picture, hint if missing else "", passes, faults)))
    return 1 if faults else 0


def _passes(
    options: argparse.Namespace, image: np.ndarray, examples: Sequence[Example]
) -> tuple[list[Pass], list[str]]:
    """Return the results in float32 and in the device's format, and why one is missing."""
    named = {name: getattr(options, name) for name in opts.MODEL}
    # The device's own format first: only a loaded model tells which one it is.
    own = _pass(named, image, examples, [None] * len(examples))
    if own.exact:
        return [own], []
    ids = [row.ids for row in own.rows]
    try:
        exact = _pass(named | {"dtype": "float32", "quantization": "none"}, image, examples, ids)
    except ConfigError:
        raise
    except ModelError as exc:
        return [own], [f"float32 cannot be checked: {exc}; try --device cpu"]
    rows = [
        dataclasses.replace(row, to_float32=other.to_float32)
        for row, other in zip(own.rows, exact.rows, strict=True)
    ]
    exact_rows = [dataclasses.replace(row, to_float32=None) for row in exact.rows]
    return [
        dataclasses.replace(exact, rows=exact_rows),
        dataclasses.replace(own, rows=rows),
    ], []


def _pass(
    named: dict[str, Any],
    image: np.ndarray,
    examples: Sequence[Example],
    others: Sequence[tuple[int, ...] | None],
) -> Pass:
    """Run all examples. `others` are ids of another format to compare with."""
    # Importing torch takes seconds.
    from kosmos_ros.kosmos2 import reference

    _progress(f"loading {named['model']}")
    theirs = reference.load(**named)
    engine = theirs.engine
    _progress(f"running in {engine.info.dtype} on {engine.info.device}")
    try:
        rows = _rows_of(theirs, image, examples, others)
        prompt = examples[1].prompt.text  # a long answer
        speed = reference.measure(engine, image, prompt, card.TOKENS)
        pixels = theirs.pixel_difference(image)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Pass(engine.info, rows, pixels, speed, peak)
    finally:
        del theirs  # it keeps the weights
        engine.unload()


def _rows_of(
    theirs: Reference,
    image: np.ndarray,
    examples: Sequence[Example],
    others: Sequence[tuple[int, ...] | None],
) -> list[Row]:
    encoded = theirs.engine.encode(image)
    queries = [Query(encoded, each.prompt.text, card.TOKENS) for each in examples]
    answers = theirs.engine.generate_batch(queries)  # together, as in the node
    return [
        _row(theirs, image, example, answer, other)
        for example, answer, other in zip(examples, answers, others, strict=True)
    ]


def _row(
    theirs: Reference,
    image: np.ndarray,
    example: Example,
    answer: Generation | KosmosError,
    other: tuple[int, ...] | None,
) -> Row:
    if isinstance(answer, KosmosError):
        raise answer
    prompt = example.prompt.text
    expected = theirs.answer(image, prompt, card.TOKENS)
    ids = theirs.engine.token_ids(prompt)
    difference = theirs.difference(answer.ids, expected)
    text = prompt + answer.text
    return Row(
        title=example.title,
        text=text,
        prompt_ids=ids == expected.prompt_ids,
        boxes=theirs.read([*ids, *answer.ids]) == theirs.entities([*ids, *answer.ids]),
        difference=difference,
        score=None if difference else abs(answer.score - expected.score),
        on_card=text.strip() in example.known if example.known else None,
        ids=answer.ids,
        to_float32=None if other is None else theirs.difference(other, expected),
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        report(text)


# Output ----------------------------------------------------------------------------------------


def _table(
    options: argparse.Namespace,
    picture: str,
    hint: str,
    passes: Sequence[Pass],
    faults: Sequence[str],
) -> list[str]:
    info = passes[0].info
    place = f"{info.device} ({info.device_name})" if info.device_name else info.device
    lines = [
        f"{options.model} {info.revision}".rstrip() + f" on {place}, torch {info.torch}, "
        f"transformers {info.transformers}",
        f"picture: {one_line(picture)}" + (f"; {hint}" if hint else ""),
    ]
    for each in passes:
        lines += ["", *_rows(each), *_notes(each), "", *_figures(each)]
    agree = [
        f"all comparisons in float32 agree{_remark(passes)}",
    ]
    return [*lines, "", *([f"DIFFERS: {one_line(fault)}" for fault in faults] or agree)]


def _remark(passes: Sequence[Pass]) -> str:
    """Return what other number formats change, for the last line."""
    found = [
        f"{each.name} changes {count} of {len(each.rows)} answers"
        for each in passes
        if (count := sum(row.to_float32 is not None for row in each.rows))
    ]
    return f"; rounding in {', '.join(found)}" if found else ""


def _rows(each: Pass) -> list[str]:
    lines = [f"{each.name:<22}prompt ids  token ids  boxes   model card"]
    for row in each.rows:
        card_says = "-" if row.on_card is None else _word(row.on_card)
        lines.append(
            f"{row.title:<22}{_word(row.prompt_ids):<12}{_word(not row.difference):<11}"
            f"{_word(row.boxes):<8}{card_says}"
        )
    return lines


def _word(equal: bool) -> str:
    return "equal" if equal else "differ"


def _notes(each: Pass) -> list[str]:
    """Return a line for each first token that differs."""
    lines = []
    for row in each.rows:
        for name, found in (("generate", row.difference), ("float32", row.to_float32)):
            if found:
                lines.append(
                    f"{row.title}: token {found.position + 1} is {found.token!r} "
                    f"(probability {found.probability:.3f}) instead of {found.reference_token!r} "
                    f"({found.reference_probability:.3f}) of {name}"
                )
    return lines


def _figures(each: Pass) -> list[str]:
    speed, expected = each.speed, each.expected
    rows = [
        ("memory of the weights", speed.weights / 1e9, expected.weights, "GB"),
        ("image to first token", speed.first_token * 1e3, expected.first_token, "ms"),
        ("one more token", speed.next_token * 1e3, expected.next_token, "ms"),
        ("GPU memory reserved", speed.device / 1e9, 0.0, "GB"),
        ("peak of the process", each.process / 1e9, 0.0, "GB"),
        ("pixels, at most", each.pixels, 0.0, "of 255 from Hugging Face's"),
    ]
    lines = []
    for name, value, usual, unit in rows:
        if value or usual:
            beside = f"   {expected.machine}: {usual:g} {unit}" if usual else ""
            lines.append(f"{name:<22}{value:.3g} {unit}{beside}")
    return lines


def _json(
    options: argparse.Namespace,
    picture: str,
    snowman: bool,
    passes: Sequence[Pass],
    faults: Sequence[str],
) -> dict[str, Any]:
    info = passes[0].info
    names = ("revision", "device", "device_name", "parameters", "torch", "transformers")
    return {
        "agrees": not faults,
        "faults": list(faults),
        "model": options.model,
        **{name: getattr(info, name) for name in names},
        "image": picture,
        "is_model_card_picture": snowman,
        "formats": [
            {
                "name": each.name,
                "examples": [dataclasses.asdict(row) for row in each.rows],
                "pixel_difference": each.pixels,
                "speed": dataclasses.asdict(each.speed),
                "process_bytes": each.process,
                "expected": dataclasses.asdict(each.expected),
            }
            for each in passes
        ],
    }
