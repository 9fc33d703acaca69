# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos: caption images and answer questions about them without ROS, or download a model.

Writes one JSON object per line for each image, with the fields of kosmos_msgs/GroundedCaption and
boxes in pixels. For a downloaded model, writes the lines that select it in a parameter file.
Progress and errors go to standard error.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long
    from kosmos_ros.entry import kosmos

    sys.exit(kosmos())

import argparse
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kosmos_ros.entry import INTERRUPTED, output_failed
from kosmos_ros.errors import ConfigError, GenerationError, ImageError, KosmosError, RegionError
from kosmos_ros.images.decode import load
from kosmos_ros.images.drawing import annotate
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.grounding import Box, Caption, check_region, read, region_cells
from kosmos_ros.kosmos2.prompts import CAPTION_TASKS, Prompt
from kosmos_ros.sanitize import one_line
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import validated

if TYPE_CHECKING:
    import numpy as np

    from kosmos_ros.kosmos2.engine import Engine

MODEL = (
    "model", "revision", "local_files_only", "device", "dtype", "quantization", "threads",
    "no_repeat_ngram_size", "refine_boxes",
)  # fmt: skip
COMMON = (*MODEL, "max_new_tokens", "max_image_pixels")
"""Settings of the node that are also options of this command."""


def main(args: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: success. 1: an image, the question or the model failed. 2: an option is invalid. As in
    shells, 130: Ctrl-C; 141: the program that reads standard output has ended. Other
    exceptions have the codes in entry.py.
    """
    options = _parser().parse_args(args)
    try:
        return int(options.run(options))
    except KosmosError as exc:
        print(f"kosmos: {one_line(exc)}", file=sys.stderr)
        return 2 if isinstance(exc, ConfigError) else 1
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Print errors in one line, without the usage, which would hide the error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="kosmos", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="caption|ask|fetch")
    common = _Parser(add_help=False)
    for name in COMMON:
        _add(common, name)
    common.add_argument(
        "--plain",
        action="store_true",
        help="Generate plain text without boxes, which takes less time.",
    )

    caption = commands.add_parser("caption", parents=[common], help="caption images")
    caption.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    task = FIELDS["task"].default
    caption.add_argument(
        "--task",
        type=_task,
        default=task,
        help=f"Task: {' or '.join(CAPTION_TASKS)}. Default: {task}.",
    )
    caption.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="Folder for annotated images. Each is saved as NAME.png, or as NAME-2.png, "
        "NAME-3.png and so on if the name exists. No file is overwritten.",
    )
    caption.set_defaults(run=_caption)

    ask = commands.add_parser("ask", parents=[common], help="answer a question about an image")
    ask.add_argument("image", type=Path, metavar="IMAGE")
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument(
        "--region",
        type=_region,
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="Region of the image (pixels) that the question calls 'it' or 'this'. May be "
        "repeated. A negative X0 needs --region=X0,Y0,X1,Y1.",
    )
    ask.add_argument(
        "--region-phrase",
        action="append",
        default=[],
        metavar="WORDS",
        help="Words of the question that name the region instead of 'it'. One for each region.",
    )
    ask.set_defaults(run=_ask)

    fetch = commands.add_parser(
        "fetch",
        help="download a model and check it",
        description="Download a model from Hugging Face and check it. An interrupted download "
        "continues, and damaged files are downloaded again. HF_HOME sets the folder, HF_ENDPOINT "
        "the server.",
    )
    for name in ("model", "revision"):
        _add(fetch, name)
    fetch.set_defaults(run=_fetch)
    return parser


def _add(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option that sets field `name` of the settings."""
    field = FIELDS[name]
    option, text = f"--{name.replace('_', '-')}", field.metadata["description"]
    if isinstance(field.default, bool):
        action: Any = argparse.BooleanOptionalAction if field.default else "store_true"
        parser.add_argument(option, action=action, default=field.default, help=text)
        return
    if limits := field.metadata["limits"]:
        text += f" Range: {limits[0]} to {limits[1]}."
    if field.default:
        text += f" Default: {field.default}."

    def convert(given: str) -> Any:
        number = isinstance(field.default, int) and given.lstrip("+-").isdecimal()
        try:
            return validated(field, int(given) if number else given)
        except ConfigError as exc:
            raise argparse.ArgumentTypeError(str(exc).removeprefix("parameter ")) from exc

    parser.add_argument(
        option,
        type=convert,
        default=field.default,
        choices=field.metadata["choices"] or None,
        metavar="N" if limits else None,
        help=text,
    )


def _caption(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    prompt = prompts.caption(options.task, not options.plain)
    if options.out:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(
                f"--out must be a folder, got {options.out}: {exc.strerror}"
            ) from exc
    engine = None
    failures = 0
    bar = len(options.images) > 1 and sys.stderr.isatty()
    for path in tqdm(options.images, unit="image", disable=not bar):
        try:
            image = load(path, options.max_image_pixels)
            engine = engine or _engine(options)
            caption = _run(engine, path, image, prompt, options.max_new_tokens)
        except (ImageError, GenerationError) as exc:
            failures += 1
            tqdm.write(f"kosmos: {one_line(exc)}", file=sys.stderr)
            continue
        value = _value(path, image, prompt, caption, options.model)
        if options.out and not _annotate(options.out, path, image, caption, value):
            failures += 1
        _write(value)
    return 1 if failures else 0


def _annotate(
    folder: Path, path: Path, image: np.ndarray, caption: Caption, value: dict[str, Any]
) -> bool:
    """Save the annotated image and put its path in `value`. Print a failure and return False."""
    from tqdm import tqdm

    try:
        value["annotated"] = str(_save(folder, path.stem, annotate(image, caption)))
    except OSError as exc:
        reason = one_line(f"cannot write {exc.filename}: {exc.strerror or exc}")
        tqdm.write(f"kosmos: {reason}", file=sys.stderr)
        return False
    return True


def _ask(options: argparse.Namespace) -> int:
    path = options.image
    image = load(path, options.max_image_pixels)
    height, width, _ = image.shape
    regions = [region_cells(box, width, height) for box in options.region]
    prompt = prompts.question(options.question, regions, options.region_phrase, not options.plain)
    caption = _run(_engine(options), path, image, prompt, options.max_new_tokens)
    _write(_value(path, image, prompt, caption, options.model))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from kosmos_ros.kosmos2 import download, hub

    files = hub.fetch(options.model, options.revision)
    where = f"they are in {files.folder}"
    print(f"all files match the hashes of {download.address()}; {where}", file=sys.stderr)
    # Quotes keep YAML from reading a commit as a number.
    print(f'model: "{options.model}"\nrevision: "{files.commit}"')
    return 0


def _engine(options: argparse.Namespace) -> Engine:
    # Importing torch takes seconds, so --help and errors of images must not wait for it.
    from kosmos_ros.kosmos2.engine import Engine

    return Engine.load(**{name: getattr(options, name) for name in MODEL})


def _run(
    engine: Engine, path: Path, image: np.ndarray, prompt: Prompt, max_new_tokens: int
) -> Caption:
    try:
        generation = engine.generate(
            engine.encode(image), prompt.text, max_new_tokens, stop=prompt.stop
        )
        return read(generation, prompt.text, prompt.lead)
    except GenerationError as exc:
        raise GenerationError(f"{path}: {exc}") from exc


def _value(
    path: Path, image: np.ndarray, prompt: Prompt, caption: Caption, model: str
) -> dict[str, Any]:
    """Return the fields of kosmos_msgs/GroundedCaption that apply to a file, and its path."""
    height, width, _ = image.shape
    return {
        "image": str(path),
        "image_width": width,
        "image_height": height,
        "task": prompt.task,
        "prompt": prompt.text,
        "caption": caption.text,
        "phrases": [
            {
                "text": phrase.text,
                "start": phrase.start,
                "end": phrase.end,
                "boxes": [vars(box.scaled(width, height)) for box in phrase.boxes],
            }
            for phrase in caption.phrases
        ],
        "raw_text": caption.raw_text,
        "score": caption.score,
        "generated_tokens": caption.generated_tokens,
        "truncated": caption.truncated,
        "model": model,
    }


def _write(value: dict[str, Any]) -> None:
    from tqdm import tqdm

    # ASCII, because a path need not be UTF-8 and the output may have any encoding.
    text = json.dumps(value, allow_nan=False)
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()  # so that the reader of a pipe gets each line at once
    except OSError as exc:
        output_failed("kosmos", exc)


def _task(text: str) -> str:
    if text not in CAPTION_TASKS:
        raise argparse.ArgumentTypeError(
            f"task must be one of {', '.join(CAPTION_TASKS)}, got {text!r}"
        )
    return text


def _region(text: str) -> Box:
    try:
        x_min, y_min, x_max, y_max = map(float, text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(
            f"region must be four numbers x0,y0,x1,y1 in pixels, got {text!r}"
        ) from exc
    box = Box(x_min, y_min, x_max, y_max)
    try:
        check_region(box)
    except RegionError as exc:
        raise argparse.ArgumentTypeError(str(exc).removeprefix("parameter ")) from exc
    return box


def _save(folder: Path, name: str, image: np.ndarray) -> Path:
    """Save a PNG under the first free name: NAME.png, NAME-2.png …

    Raises OSError with its filename.
    """
    from PIL import Image

    for number in itertools.count(1):
        path = folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
        try:
            file = path.open("xb")
            break
        except FileExistsError:
            continue
    try:
        with file:
            Image.fromarray(image).save(file, "PNG")
    except BaseException as exc:  # also Ctrl-C: leave no incomplete file
        path.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            exc.filename = str(path)
        raise
    return path
