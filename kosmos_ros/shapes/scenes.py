# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes of coloured shapes and the truth about them. Knows no pixels and no model.

`rendering.render` draws a scene. Boxes are (x1, y1, x2, y2) in [0, 1] of the frame, x right,
y down, and tight around the shape as drawn.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

Box = tuple[float, float, float, float]
Rgb = tuple[int, int, int]

KINDS: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 30),
    "yellow": (250, 215, 50),
    "green": (50, 160, 70),
    "blue": (40, 90, 210),
    "purple": (130, 60, 170),
    "black": (25, 25, 25),
    "white": (245, 245, 245),
}

BACKGROUNDS: tuple[str, ...] = ("plain", "graded", "textured", "striped", "cluttered")

FRAMES: tuple[tuple[int, int], ...] = ((192, 144), (256, 144), (160, 160))
"""Widths and heights in pixels: 4:3, 16:9 and 1:1. They are small to make rendering cheap."""

SIZES: tuple[float, float] = (0.1, 0.5)
"""Smallest and largest diameter of a shape, as a fraction of sqrt(width * height)."""

COUNTS: tuple[int, ...] = (1, 2, 3, 4)
"""Numbers of shapes in a scene."""

MAX_TURN = math.radians(15.0)
MAX_OVERLAP = 0.05  # share of the smaller box's area

APART = 1.0 / 32.0
"""Smallest distance of two left edges, and of two right edges, as a fraction of the frame's width.

It makes the order from left to right clear, also in the mirrored scene.
"""

ALIKE = 0.15
"""Share of scenes with two shapes of one colour and kind, among scenes of several shapes. For the
argument `alike` of `sample_scene`."""


@dataclass(frozen=True)
class Shape:
    """One coloured shape, its outline fitted exactly into its box."""

    kind: str  # one of KINDS
    colour: str  # one of COLOURS
    box: Box  # fractions of the frame
    turn: float = 0.0  # radians, clockwise, before the outline is fitted into the box
    tint: Rgb | None = None  # drawn sRGB colour; None: that of `colour`

    @property
    def phrase(self) -> str:
        """The shape in words, such as "a red circle"."""
        return f"{article(self.colour)} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Background:
    """The picture behind the shapes. Its patterns depend on `seed`."""

    style: str  # one of BACKGROUNDS
    colours: tuple[Rgb, Rgb]
    seed: int


@dataclass(frozen=True)
class Light:
    """Effects of the camera and the light on the drawing."""

    gain: float = 1.0
    contrast: float = 1.0
    warmth: float = 0.0  # red times 1 + warmth, blue times 1 - warmth
    blur: float = 0.0  # Gaussian sigma as a fraction of the frame's shorter side
    noise: float = 0.0  # standard deviation in grey levels of 255
    jpeg: int = 0  # quality of JPEG compression, 1 to 95; 0: none
    seed: int = 0  # seed of the noise


@dataclass(frozen=True)
class Scene:
    """Shapes on a background in a frame, seen in a light."""

    shapes: tuple[Shape, ...]
    width: int  # pixels
    height: int  # pixels
    background: Background = Background("plain", ((128, 128, 128), (128, 128, 128)), 0)
    light: Light = Light()

    @property
    def truth(self) -> list[tuple[str, Box]]:
        """(phrase, box) of every shape from left to right; a phrase is "a red circle"."""
        return [(shape.phrase, shape.box) for shape in self.left_to_right]

    @property
    def left_to_right(self) -> list[Shape]:
        """The shapes in the order of the left edges of their boxes."""
        return sorted(self.shapes, key=lambda shape: shape.box)

    @property
    def groups(self) -> list[list[Shape]]:
        """Lists of shapes of the same colour and kind, in the order of `left_to_right`."""
        groups: dict[str, list[Shape]] = {}
        for shape in self.left_to_right:
            groups.setdefault(shape.phrase, []).append(shape)
        return list(groups.values())


def article(word: str) -> str:
    """Return the indefinite article of a word: "a" or "an"."""
    return "an" if word[0] in "aeiou" else "a"


def plural(kind: str) -> str:
    """Return the plural of one of KINDS."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def outline(kind: str, turn: float) -> np.ndarray:
    """Return the corners (N, 2) of a kind's outer edge, turned and fitted into [0, 1] x [0, 1]."""
    points = _UNIT_OUTLINES[kind] @ _rotation(turn)
    low, high = points.min(axis=0), points.max(axis=0)
    fitted: np.ndarray = (points - low) / (high - low)
    return fitted


def sample_scene(
    rng: np.random.Generator,
    width: int,
    height: int,
    counts: tuple[int, ...] = COUNTS,
    alike: float = 0.0,
) -> Scene:
    """Return a random scene of `width` x `height` pixels.

    The number of shapes is drawn evenly from `counts`. No two shapes have the same colour and
    kind, except in a share `alike` of the scenes with several shapes, where two do.
    """
    count = int(rng.choice(counts))
    shapes: list[Shape] = []
    cast = _cast(rng, count)
    if count > 1 and rng.random() < alike:
        cast[1] = cast[0]
    for kind, colour in cast:
        turn = float(rng.uniform(-MAX_TURN, MAX_TURN))
        largest = SIZES[1]
        while True:
            diameter = SIZES[0] * (largest / SIZES[0]) ** float(rng.random())
            sides = _sides(kind, turn, diameter, width, height)
            x, y = (float(rng.uniform(0.0, 1.0 - side)) for side in sides)
            box = (x, y, x + sides[0], y + sides[1])
            if all(_tell_apart(box, other.box) for other in shapes):
                break
            largest = max(SIZES[0], largest * 0.95)
        shapes.append(Shape(kind, colour, box, turn, _tint(rng, colour)))
    return Scene(tuple(shapes), width, height, _sample_background(rng), _sample_light(rng))


def sample_frame(rng: np.random.Generator) -> tuple[int, int]:
    """Return a random (width, height) in pixels, one of FRAMES."""
    return FRAMES[int(rng.integers(len(FRAMES)))]


def moving_scene(seed: int, time_s: float, width: int, height: int) -> Scene:
    """Return the scene at `time_s` of the endless video `seed`: one to three moving shapes.

    A shape keeps its size and turn, and moves by less than a quarter of the frame per second. Each
    has a vertical lane of its own, so shapes do not overlap. Apart from the motion, only the noise
    differs between frames.
    """
    rng = np.random.default_rng([seed, 1])
    count = int(rng.integers(1, 4))
    shapes: list[Shape] = []
    for lane, (kind, colour) in enumerate(_cast(rng, count)):
        turn = float(rng.uniform(-MAX_TURN, MAX_TURN))
        diameter = float(rng.uniform(0.2, 0.34))
        sides = _sides(kind, turn, diameter, width, height)
        sides = (min(sides[0], 1.0 / count), sides[1])
        free = (1.0 / count - sides[0], 1.0 - sides[1])
        speeds, phases = rng.uniform(0.3, 0.5, 2), rng.uniform(0.0, 2.0 * math.pi, 2)
        sway = 0.5 + 0.5 * np.sin(speeds * time_s + phases)
        x, y = float(lane / count + free[0] * sway[0]), float(free[1] * sway[1])
        box = (x, y, x + sides[0], y + sides[1])
        shapes.append(Shape(kind, colour, box, turn, _tint(rng, colour)))
    background, light = _sample_background(rng), _sample_light(rng)
    noise_seed = int(np.random.default_rng([seed, 2, int(time_s * 1000.0)]).integers(2**31))
    # A camera's images are compressed after the scene is drawn, if at all.
    light = replace(light, jpeg=0, seed=noise_seed)
    return Scene(tuple(shapes), width, height, background, light)


def _cast(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Return `count` different (kind, colour) pairs."""
    colours = tuple(COLOURS)
    picks = rng.choice(len(KINDS) * len(colours), size=count, replace=False)
    return [(KINDS[pick // len(colours)], colours[pick % len(colours)]) for pick in picks]


def _sides(
    kind: str, turn: float, diameter: float, width: int, height: int
) -> tuple[float, float]:
    """Return the sides of the box of an undistorted shape, in fractions of the frame."""
    points = _UNIT_OUTLINES[kind] @ _rotation(turn)
    extent = np.ptp(points, axis=0) / 2.0 * diameter * math.sqrt(width * height)
    return float(extent[0]) / width, float(extent[1]) / height


def _tell_apart(a: Box, b: Box) -> bool:
    apart = min(abs(a[0] - b[0]), abs(a[2] - b[2])) >= APART
    return apart and _overlap(a, b) <= MAX_OVERLAP


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection of two boxes as a fraction of the smaller one's area."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0.0 or down <= 0.0:
        return 0.0
    return across * down / min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))


def _rgb(values: np.ndarray) -> Rgb:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue


def _tint(rng: np.random.Generator, colour: str) -> Rgb:
    return _rgb(np.asarray(COLOURS[colour]) + rng.integers(-14, 15, 3))


def _sample_background(rng: np.random.Generator) -> Background:
    # Muted and of medium brightness, so that black and white shapes stand out, too.
    first, second = (_rgb(rng.integers(75, 180) + rng.integers(-20, 21, 3)) for _ in range(2))
    style = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Background(style, (first, second), int(rng.integers(2**31)))


def _sample_light(rng: np.random.Generator) -> Light:
    return Light(
        gain=float(rng.uniform(0.8, 1.15)),
        contrast=float(rng.uniform(0.8, 1.15)),
        warmth=float(rng.uniform(-0.06, 0.06)),
        blur=float(rng.uniform(0.0, 0.008)) if rng.random() < 0.5 else 0.0,
        noise=float(rng.uniform(0.0, 10.0)),
        jpeg=int(rng.integers(50, 96)) if rng.random() < 0.3 else 0,
        seed=int(rng.integers(2**31)),
    )


def _rotation(turn: float) -> np.ndarray:
    cos, sin = math.cos(turn), math.sin(turn)
    return np.array([[cos, sin], [-sin, cos]], dtype=np.float64)


def _spokes(radii: list[float], first: float) -> np.ndarray:
    """Return corners (N, 2) at even angles from `first` (radians, clockwise from the right)."""
    angles = first + 2.0 * math.pi * np.arange(len(radii)) / len(radii)
    corners: np.ndarray = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array(radii)[:, None]
    return corners


_ROUND = _spokes([1.0] * 64, 0.0)
_ARM = 0.36  # half the width of the cross's arms, which reach to 1
_UNIT_OUTLINES: dict[str, np.ndarray] = {
    "circle": _ROUND,
    "square": np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.9,
    "triangle": _spokes([1.15] * 3, -math.pi / 2),
    "star": _spokes([1.15, 0.5] * 5, -math.pi / 2),
    "cross": np.array(
        [
            [-_ARM, -1], [_ARM, -1], [_ARM, -_ARM], [1, -_ARM], [1, _ARM], [_ARM, _ARM],
            [_ARM, 1], [-_ARM, 1], [-_ARM, _ARM], [-1, _ARM], [-1, -_ARM], [-_ARM, -_ARM],
        ]
    ),
    "ring": _ROUND,
}  # fmt: skip
