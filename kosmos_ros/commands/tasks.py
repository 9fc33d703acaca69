# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The subcommands that describe images: caption, describe, ask, ground and generate.

Each one mirrors a service of the node: its arguments become prompts, and its lines are results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kosmos_ros.commands import options as opts
from kosmos_ros.commands.batches import Limits, described
from kosmos_ros.commands.output import report, save_annotated, write_line
from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Caption, join_captions
from kosmos_ros.kosmos2.importing import import_engine
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, Prompt, PromptsOf
from kosmos_ros.offline.batches import Failure, Picture
from kosmos_ros.offline.values import value_of
from kosmos_ros.serving.node_settings import FIELDS

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

Results = Callable[[Picture, list[Caption]], Iterator[tuple[Prompt, Caption, dict[str, Any]]]]
"""Yields what is written about an image: prompt, caption, and fields in addition to theirs."""


def add(commands: Any) -> None:
    """Add the subcommands to the parser's `commands`."""
    for name, run, text in (
        ("caption", _caption, "caption images"),
        ("describe", _describe, "describe images or regions of them"),
        ("ask", _ask, "answer a question about images"),
        ("ground", _ground, "locate phrases in images"),
        ("generate", _generate, "complete a prompt in KOSMOS-2's own language"),
    ):
        parser = commands.add_parser(name, help=text, description=_DESCRIPTIONS[name])
        opts.add_images(parser)
        _OPTIONS[name](parser)
        opts.add_model(parser)
        parser.set_defaults(run=run)


# Options ---------------------------------------------------------------------------------------


def _caption_options(parser: argparse.ArgumentParser) -> None:
    task = FIELDS["task"].default
    parser.add_argument(
        "--task",
        type=opts.one_of("task", tuple(CAPTION_TASKS)),
        default=task,
        help=f"Task: {' or '.join(CAPTION_TASKS)}. Default: {task}.",
    )
    opts.add_plain(parser)


def _describe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detailed", action="store_true", help="Describe the whole image at length."
    )
    opts.add_regions(parser, "it is described instead of the whole image.")
    opts.add_plain(parser)


def _ask_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", metavar="QUESTION", help="Question in plain words.")
    opts.add_regions(parser, "the question calls it 'it' or 'this'.")
    parser.add_argument(
        "--region-phrase",
        action="append",
        default=[],
        metavar="WORDS",
        help="Words of the question that name the region instead of 'it'. One for each region.",
    )
    parser.add_argument(
        "--history",
        action="append",
        default=[],
        metavar="TEXT",
        help="Earlier question or answer, in turn and the oldest first. May be repeated.",
    )
    opts.add_plain(parser)


def _ground_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--phrase",
        action="append",
        required=True,
        metavar="WORDS",
        help="Noun phrase or referring expression to locate. May be repeated.",
    )
    opts.add_setting(parser, "min_score")


def _generate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="Prompt with KOSMOS-2's tags.")
    opts.add_regions(parser, "it is put in the next <object></object> of the prompt.")
    parser.add_argument(
        "--stop",
        default="",
        metavar="TEXT",
        help="Text that ends the output, for example </object>. A tag is kept, other text is cut "
        "off. Empty: none.",
    )


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "caption": _caption_options,
    "describe": _describe_options,
    "ask": _ask_options,
    "ground": _ground_options,
    "generate": _generate_options,
}
_LINES = "Writes one JSON object per line, with the fields of kosmos_msgs/GroundedCaption and "
_DESCRIPTIONS = {
    "caption": f"Caption images. {_LINES}boxes in pixels.",
    "describe": f"Describe images or regions of them. {_LINES}boxes in pixels. Each region has "
    "its own line, with its box in 'region'.",
    "ask": f"Answer a question about each image. {_LINES}boxes in pixels.",
    "ground": f"Locate phrases in images. {_LINES}the boxes of each phrase in pixels. A phrase "
    "without boxes was not found.",
    "generate": f"Complete a prompt about each image. {_LINES}boxes in pixels.",
}


# Subcommands -----------------------------------------------------------------------------------


def _caption(options: argparse.Namespace) -> int:
    prompt = prompts.caption(options.task, not options.plain)
    return _run(options, lambda width, height: [prompt], _each)


def _describe(options: argparse.Namespace) -> int:
    if not options.region:
        options.task = "detailed_caption" if options.detailed else "brief_caption"
        return _caption(options)
    if options.detailed:
        raise ConfigError("--detailed describes the whole image only; remove it or --region")
    templates = [prompts.region_template(not options.plain)] * len(options.region)
    regions = [[box] for box in options.region]

    def results(
        picture: Picture, captions: list[Caption]
    ) -> Iterator[tuple[Prompt, Caption, dict[str, Any]]]:
        for (prompt, caption, _), box in zip(
            _each(picture, captions), options.region, strict=True
        ):
            yield prompt, caption, {"region": [box.x_min, box.y_min, box.x_max, box.y_max]}

    return _run(options, prompts.in_regions(templates, regions), results)


def _ask(options: argparse.Namespace) -> int:
    template = prompts.question_template(
        options.question,
        len(options.region),
        options.region_phrase,
        not options.plain,
        options.history,
    )
    return _run(options, prompts.in_regions([template], [options.region]), _each)


def _ground(options: argparse.Namespace) -> int:
    phrases = [prompts.plain_text("phrase", phrase) for phrase in options.phrase]
    asked = [prompts.phrase_grounding(phrase) for phrase in phrases]

    def results(
        picture: Picture, captions: list[Caption]
    ) -> Iterator[tuple[Prompt, Caption, dict[str, Any]]]:
        yield prompts.joined(asked), join_captions(phrases, captions, options.min_score), {}

    return _run(options, lambda width, height: asked, results)


def _generate(options: argparse.Namespace) -> int:
    template = prompts.raw_template(options.prompt, len(options.region), options.stop)
    return _run(options, prompts.in_regions([template], [options.region]), _each)


def _each(
    picture: Picture, captions: list[Caption]
) -> Iterator[tuple[Prompt, Caption, dict[str, Any]]]:
    """Yield the caption of each prompt as one result."""
    for prompt, caption in zip(picture.prompts, captions, strict=True):
        yield prompt, caption, {}


def _run(options: argparse.Namespace, asked: PromptsOf, results: Results) -> int:
    """Run prompts about all images, write the results, and return the exit code."""
    from tqdm import tqdm

    if options.images.count("-") > 1:
        raise ConfigError("image - (standard input) can be given only once")
    if "" in options.images:
        raise ConfigError("IMAGE must be the path of a file or - (standard input), got ''")
    opts.make_folder(options.out)
    limits = Limits(options.max_image_pixels, options.max_new_tokens, options.stored_pixels)
    found = described(((name, asked) for name in options.images), limits, Loader(options))
    bar = len(options.images) > 1 and sys.stderr.isatty()
    failures = 0
    for each in tqdm(found, unit="image", total=len(options.images), disable=not bar):
        if isinstance(each, Failure):
            failures += 1
            report(message(each))
            continue
        picture, captions = each
        for prompt, caption, more in results(picture, captions):
            value = value_of(picture.name, picture.image, prompt, caption, options.model) | more
            if options.out and not save_annotated(
                options.out, picture.name, picture.image, caption, value
            ):
                failures += 1
            write_line(value)
    return 1 if failures else 0


def message(failure: Failure) -> str:
    """Return the error of an image, which names it and the options as the user types them."""
    text, name = opts.as_typed(failure.error), failure.name
    if name == "-":
        name = "standard input"
    named = text.startswith((f"{name}:", f"{name} ", repr(name)))
    return text if named else f"{name}: {text}"


class Loader:
    """Loads the engine at the first call. Before it, `engine` is None."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.engine: Engine | None = None

    def __call__(self) -> Engine:
        if self.engine is None:
            # Importing torch takes seconds, so errors of images must not wait for it.
            options = {name: getattr(self._options, name) for name in opts.MODEL}
            self.engine = import_engine().load(**options)
        return self.engine
