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
from typing import TYPE_CHECKING, Any

import numpy as np

from kosmos_ros.commands import card
from kosmos_ros.commands import options as opts
from kosmos_ros.commands.card import Example
from kosmos_ros.commands.findings import Pass, Row
from kosmos_ros.commands.findings_output import as_json, table
from kosmos_ros.commands.output import report, write
from kosmos_ros.errors import ConfigError, KosmosError, ModelError
from kosmos_ros.images import decode
from kosmos_ros.kosmos2.query import Generation, Query
from kosmos_ros.serving.node_settings import NodeSettings

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.reference import Reference


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
    picture = options.image or "drawn"
    if options.json:
        write(
            json.dumps(as_json(options.model, picture, snowman, passes, faults), allow_nan=False)
        )
    else:
        missing = [
            what
            for what, given in (("--image snowman.png", snowman), ("the default model", default))
            if not given
        ]
        hint = "not compared with the model card: that needs " + " and ".join(missing)
        write("\n".join(table(options.model, picture, hint if missing else "", passes, faults)))
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
