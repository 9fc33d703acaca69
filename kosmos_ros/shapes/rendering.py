# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Render scenes to anti-aliased pixels at any resolution. Knows shapes and light, and no words.

All lengths are fractions of the frame, so a scene looks the same at every resolution.
"""

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kosmos_ros.shapes.scenes import COLOURS, Background, Light, Rgb, Scene, Shape, outline

RING_HOLE = 0.5  # inner diameter over outer diameter


def render(scene: Scene) -> np.ndarray:
    """Render a scene to RGB (height, width, 3) uint8. Equal scenes give equal pixels."""
    image = _draw_background(scene.background, scene.width, scene.height)
    for shape in scene.shapes:
        _paste(image, shape)
    return _photograph(image, scene.light)


def ink(shape: Shape, width: int, height: int) -> np.ndarray:
    """Return how much of each pixel the shape covers: (height, width) float32 in [0, 1]."""
    frame = Image.new("L", (width, height), 0)
    mask, (x, y) = _mask(shape, width, height)
    frame.paste(mask, (x, y))
    return np.asarray(frame, dtype=np.float32) / 255.0


def _paste(image: Image.Image, shape: Shape) -> None:
    mask, (x, y) = _mask(shape, image.width, image.height)
    tint = shape.tint or COLOURS[shape.colour]
    image.paste(tint, (x, y, x + mask.width, y + mask.height), mask)


def _mask(shape: Shape, width: int, height: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return the shape's mask on the pixels around its box, and their upper-left pixel."""
    x1, x2 = shape.box[0] * width, shape.box[2] * width
    y1, y2 = shape.box[1] * height, shape.box[3] * height
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(width, math.ceil(x2)), min(height, math.ceil(y2))
    fine = 4 if max(right - left, bottom - top) < 400 else 2
    mask = Image.new("L", ((right - left) * fine, (bottom - top) * fine), 0)
    pen = ImageDraw.Draw(mask)
    corners = outline(shape.kind, shape.turn)
    offset = np.array([x1 - left, y1 - top])
    sides = np.array([x2 - x1, y2 - y1])
    # Pillow fills the pixels whose centre is inside; in Pillow, centres are whole numbers.
    _fill(pen, (offset + corners * sides) * fine - 0.5, 255)
    if shape.kind == "ring":
        hole = 0.5 + (corners - 0.5) * RING_HOLE
        _fill(pen, (offset + hole * sides) * fine - 0.5, 0)
    return mask.reduce(fine), (left, top)


def _fill(pen: ImageDraw.ImageDraw, points: np.ndarray, value: int | Rgb) -> None:
    pen.polygon([(float(x), float(y)) for x, y in points], fill=value)


def _draw_background(background: Background, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(background.seed)
    first, second = (np.array(colour, dtype=np.float32) for colour in background.colours)
    if background.style in ("plain", "cluttered"):
        image = Image.new("RGB", (width, height), background.colours[0])
        if background.style == "cluttered":
            _clutter(image, rng, first)
        return image
    share = _BLENDS[background.style](
        rng
    )  # (h, w) share of the second colour, at a low resolution
    pixels = first + (second - first) * share[:, :, None]
    small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _graded(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0.0, 2.0 * math.pi)
    y, x = np.mgrid[0:16, 0:16] / 15.0 - 0.5
    return np.asarray(0.5 + (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2.0))


def _textured(rng: np.random.Generator) -> np.ndarray:
    cells = int(rng.integers(5, 33))
    return rng.random((cells, cells)) * rng.uniform(0.2, 0.8)


def _striped(rng: np.random.Generator) -> np.ndarray:
    angle, waves = rng.uniform(0.0, math.pi), rng.uniform(3.0, 10.0)
    y, x = np.mgrid[0:64, 0:64] / 64.0
    phase = 2.0 * math.pi * waves * (x * math.cos(angle) + y * math.sin(angle))
    return np.asarray((0.5 + 0.5 * np.sin(phase)) * rng.uniform(0.2, 0.7))


_BLENDS = {"graded": _graded, "textured": _textured, "striped": _striped}


def _clutter(image: Image.Image, rng: np.random.Generator, colour: np.ndarray) -> None:
    """Scatter muted spots and lines, each clearly smaller than the smallest shape."""
    pen = ImageDraw.Draw(image)
    scale = math.sqrt(image.width * image.height)
    for _ in range(int(rng.integers(10, 31))):
        red, green, blue = (int(v) for v in np.clip(colour + rng.integers(-35, 36, 3), 0, 255))
        x, y = rng.random(2) * (image.width, image.height)
        if rng.random() < 0.5:
            across, down = rng.uniform(0.01, 0.06, 2) * scale
            pen.ellipse((x, y, x + across, y + down), fill=(red, green, blue))
        else:
            across, down = rng.uniform(-0.12, 0.12, 2) * scale
            thick = max(1, round(rng.uniform(0.004, 0.012) * scale))
            pen.line((x, y, x + across, y + down), fill=(red, green, blue), width=thick)


def _photograph(image: Image.Image, light: Light) -> np.ndarray:
    sigma = light.blur * min(image.size)
    if sigma > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    tables: list[int] = []
    for warm in (1.0 + light.warmth, 1.0, 1.0 - light.warmth):
        levels = ((np.arange(256) - 128.0) * light.contrast + 128.0) * light.gain * warm
        tables += [int(level) for level in np.clip(levels, 0, 255)]
    pixels = np.array(image.point(tables))
    if light.noise > 0.0:
        rng = np.random.default_rng(light.seed)
        noise = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32) * light.noise
        pixels = np.clip(pixels + noise.astype(np.int16), 0, 255).astype(np.uint8)
    if light.jpeg:
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=light.jpeg)
        pixels = np.array(Image.open(packed))
    return pixels
