"""kosmos: captions and answers for picture files, without ROS.

One JSON object a line on standard output, in the terms of kosmos_msgs: boxes in pixels. Progress
and errors go to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmos_ros import prompts
from kosmos_ros.drawing import annotate
from kosmos_ros.errors import ImageError, KosmosError
from kosmos_ros.grounding import Box, Caption, read, region_cells
from kosmos_ros.images import load

if TYPE_CHECKING:
    import numpy as np

    from kosmos_ros.engine import Engine
    from kosmos_ros.prompts import Prompt


def main(args: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 when a picture or the question failed, 2 for bad usage."""
    options = _parser().parse_args(args)
    try:
        return int(options.run(options))
    except KosmosError as exc:
        print(f"kosmos: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kosmos", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="caption|ask")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model",
        default="microsoft/kosmos-2-patch14-224",
        help='Hugging Face id, directory, or "shapes" for the embedded model (%(default)s)',
    )
    model.add_argument("--revision", default="", help="commit or tag of a Hugging Face id")
    model.add_argument("--local-files-only", action="store_true", help="never download")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:n")
    model.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    model.add_argument("--quantization", default="none", help="none, int8 or nf4")
    model.add_argument(
        "--max-new-tokens", type=int, default=128, help="longest text (%(default)s)"
    )
    model.add_argument(
        "--max-image-pixels", type=int, default=50_000_000, help="larger pictures are refused"
    )

    caption = commands.add_parser("caption", parents=[model], help="say what pictures show")
    caption.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    caption.add_argument(
        "--task", default="brief_caption", choices=prompts.CAPTION_TASKS, help="(%(default)s)"
    )
    caption.add_argument("--out", type=Path, metavar="DIR", help="save annotated pictures here")
    caption.set_defaults(run=_caption)

    ask = commands.add_parser("ask", parents=[model], help="ask about a picture")
    ask.add_argument("image", type=Path, metavar="IMAGE")
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument(
        "--region",
        type=_region,
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="pixels; the question's 'it' or 'this' means it; may be given several times",
    )
    ask.add_argument(
        "--region-phrase",
        action="append",
        default=[],
        metavar="WORDS",
        help="words of the question that mean the region instead; one for each region",
    )
    ask.add_argument("--plain", action="store_true", help="no boxes in the answer")
    ask.set_defaults(run=_ask)
    return parser


def _caption(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    prompt = prompts.caption(options.task)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    engine = _engine(options)
    failed = 0
    for path in tqdm(options.images, unit="image", disable=len(options.images) < 2):
        try:
            image = load(path, options.max_image_pixels)
            caption = _run(engine, image, prompt, options.max_new_tokens)
        except ImageError as exc:
            failed += 1
            tqdm.write(f"kosmos: {exc}", file=sys.stderr)
            continue
        tqdm.write(_line(path, image, prompt, caption), file=sys.stdout)
        if options.out:
            _save(options.out / f"{path.stem}.png", annotate(image, caption))
    return 1 if failed else 0


def _ask(options: argparse.Namespace) -> int:
    image = load(options.image, options.max_image_pixels)
    height, width, _ = image.shape
    regions = [region_cells(box, width, height) for box in options.region]
    prompt = prompts.question(options.question, regions, options.region_phrase, not options.plain)
    caption = _run(_engine(options), image, prompt, options.max_new_tokens)
    print(_line(options.image, image, prompt, caption))
    return 0


def _engine(options: argparse.Namespace) -> Engine:
    # Importing torch takes seconds that --help and bad pictures need not wait for.
    from kosmos_ros.engine import Engine

    return Engine.load(
        options.model,
        revision=options.revision,
        local_files_only=options.local_files_only,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
    )


def _run(engine: Engine, image: np.ndarray, prompt: Prompt, max_new_tokens: int) -> Caption:
    generation = engine.generate(engine.encode(image), prompt.text, max_new_tokens)
    return read(generation, prompt.text, prompt.lead)


def _line(path: Path, image: np.ndarray, prompt: Prompt, caption: Caption) -> str:
    height, width, _ = image.shape
    value: dict[str, Any] = {
        "image": str(path),
        "image_width": width,
        "image_height": height,
        "task": prompt.task,
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
        "score": caption.score,
        "truncated": caption.truncated,
    }
    return json.dumps(value, ensure_ascii=False)


def _region(text: str) -> Box:
    try:
        x_min, y_min, x_max, y_max = map(float, text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no region; four numbers x0,y0,x1,y1 in pixels are needed"
        ) from exc
    return Box(x_min, y_min, x_max, y_max)


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)


if __name__ == "__main__":
    sys.exit(main())
