# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Draw evaluation results: frames with true and predicted boxes, and a chart of the scores.

The seed alone decides which frames are shown: the first scenes, then the first wrong ones.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kosmos_ros.images import drawing
from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import Scene
from training.results import PredictedBox, Results

FIRST, WRONG = 9, 3  # frames shown
COLUMNS = 3
TILE = (320, 306)  # pixels: a frame of at most 320 x 240 and the caption under it
GAP = 6  # pixels between tiles
PALETTE = 160  # colours of the image file: noise in all colours would make it large

BINS = 10
PLOT = (520, 440)  # pixels
MARGIN = 56  # pixels around the axes

PAPER, INK, FAINT, BAR = (255, 255, 255), (20, 20, 20), (205, 205, 205), (67, 99, 216)
TRUE, FAILED = (255, 255, 255), (214, 40, 40)


MakeCaption = Callable[[np.ndarray], Caption]
"""Returns the brief caption of an image (H, W, 3) uint8 RGB."""


def write(
    folder: Path, caption: MakeCaption, scenes: Sequence[Scene], results: Sequence[Results]
) -> None:
    """Write shapes-frames.png and shapes-scores.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = draw_frames(caption, scenes, results)
    frames = frames.quantize(PALETTE, kmeans=2, dither=Image.Dither.NONE)
    frames.save(folder / "shapes-frames.png", optimize=True)
    boxes = [box for result in results for box in result.boxes]
    draw_scores(boxes).save(folder / "shapes-scores.png", optimize=True)


def draw_frames(
    caption: MakeCaption, scenes: Sequence[Scene], results: Sequence[Results]
) -> Image.Image:
    """Draw true boxes in white, predicted ones in colour, and a red frame around failures."""
    chosen = list(_chosen(results))
    across, down = TILE[0] + GAP, TILE[1] + GAP
    rows = -(-len(chosen) // COLUMNS)
    grid = Image.new("RGB", (COLUMNS * across + GAP, rows * down + GAP), PAPER)
    for place, index in enumerate(chosen):
        tile = _tile(caption, scenes[index])
        left, top = GAP + place % COLUMNS * across, GAP + place // COLUMNS * down
        if not _is_right(results[index]):
            around = (
                left - GAP // 2,
                top - GAP // 2,
                left + tile.width + 2,
                top + tile.height + 2,
            )
            ImageDraw.Draw(grid).rectangle(around, FAILED)
        grid.paste(tile, (left, top))
    return grid


def draw_scores(boxes: Sequence[PredictedBox]) -> Image.Image:
    """Draw the share of right boxes (IoU over 0.5) and their number by tenths of the score."""
    image = Image.new("RGB", PLOT, PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    side = (PLOT[0] - MARGIN - 20, PLOT[1] - 2 * MARGIN)

    def at(score: float, share: float) -> tuple[float, float]:
        return MARGIN + score * side[0], PLOT[1] - MARGIN - share * side[1]

    for tick in np.linspace(0.0, 1.0, 6):
        pen.line((at(0.0, tick), at(1.0, tick)), FAINT)
        pen.text((MARGIN - 8, at(0.0, tick)[1]), f"{tick:.1f}", INK, font, anchor="rm")
        pen.text((at(tick, 0.0)[0], at(0.0, 0.0)[1] + 8), f"{tick:.1f}", INK, font, anchor="mt")
    scores = np.array([box.score for box in boxes])
    right = np.array([box.iou > 0.5 for box in boxes], dtype=bool)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    small = ImageFont.load_default(11)
    for number in range(BINS):
        inside = bins == number
        if not inside.any():
            continue
        share = float(right[inside].mean())
        left, top = at(number / BINS, share)
        edge, bottom = at((number + 1) / BINS, 0.0)
        pen.rectangle((left + 3, top, edge - 3, bottom), BAR)
        middle = (left + edge) / 2
        pen.text((middle, top - 3), f"{share:.2f}", INK, small, anchor="mb")
        pen.text((middle, bottom - 4), f"{inside.sum()}", PAPER, small, anchor="mb")
    pen.line((at(0.0, 0.0), at(1.0, 1.0)), INK)
    title = "share of boxes with IoU > 0.5, by score"
    pen.text((MARGIN, 14), title, INK, font)
    left, bottom = at(0.5, 0.0)
    pen.text((left, bottom + 28), "score of the box", INK, font, anchor="mt")
    return image


def _chosen(results: Sequence[Results]) -> Iterator[int]:
    """Yield the indices of the frames to show: the first, then the first wrong ones after them."""
    yield from range(min(FIRST, len(results)))
    wrong = (i for i, result in enumerate(results) if i >= FIRST and not _is_right(result))
    yield from (index for index, _ in zip(wrong, range(WRONG), strict=False))


def _is_right(result: Results) -> bool:
    """Return whether every phrase and every box of the brief caption is right."""
    counts = {result.predicted, result.expected, result.correct}
    return len(counts) == 1 and min(result.ious, default=0.0) > 0.5


def _tile(caption: MakeCaption, scene: Scene) -> Image.Image:
    pixels = render(scene)
    scale = min(TILE[0] / scene.width, 240 / scene.height)
    frame = Image.fromarray(pixels).resize(
        (round(scene.width * scale), round(scene.height * scale)), Image.Resampling.LANCZOS
    )
    pen = ImageDraw.Draw(frame)
    for shape in scene.shapes:
        corners = np.array(shape.box) * ((frame.width, frame.height) * 2)
        pen.rectangle([float(v) for v in corners], outline=TRUE, width=2)
    tile = Image.new("RGB", TILE, drawing.PAPER)
    annotated = Image.fromarray(drawing.annotate(np.asarray(frame), caption(pixels)))
    tile.paste(annotated, ((TILE[0] - annotated.width) // 2, 0))
    return tile
