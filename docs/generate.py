# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write the parts of the documentation that repeat the code: see scripts/docs.

Writes config/kosmos.yaml, docs/architecture.svg, and every part of README.md and docs/*.md between

    <!-- scripts/docs: NAME -->
    <!-- scripts/docs ends -->

where NAME is a key of PARTS. Run in the environment that scripts/setup makes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kosmos_ros.images.encodings import ENCODINGS
from kosmos_ros.ros import status_keys
from kosmos_ros.ros.camera_node import CameraNodeSettings
from kosmos_ros.serving.node_settings import CameraSettings, NodeSettings
from kosmos_ros.web.web_node import WebSettings

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ROOT / "kosmos_msgs"
PART = re.compile(r"(<!-- scripts/docs: (.+?) -->\n).*?(<!-- scripts/docs ends -->)", re.DOTALL)

YAML_HEAD = """\
# Parameters of kosmos_node with their defaults. scripts/docs writes this file; to change a
# description, edit kosmos_ros/serving/node_settings.py.
# Parameters marked "Fixed." are read at start. The others can be changed at any time:
#   ros2 param set /kosmos max_rate 2.0
# null unsets a parameter, which then has its default.
# A camera's parameter follows the common value instead.
/**:
  ros__parameters:
"""

Field = dataclasses.Field[Any]


def main() -> int:
    """Write every file that differs, or with --check fail if one does."""
    parser = argparse.ArgumentParser(prog="scripts/docs", description="Write generated docs.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a file differs"
    )
    check = parser.parse_args().check
    differing = [(path, text) for path, text in written() if text != path.read_text()]
    for path, text in differing:
        if not check:
            path.write_text(text)
        print(f"{path.relative_to(ROOT)} {'differs' if check else 'written'}")
    if check and differing:
        print("run scripts/docs and commit what it writes", file=sys.stderr)
    return int(check and bool(differing))


def written() -> Iterator[tuple[Path, str]]:
    """Yield each file that has generated parts, and its text with these parts filled in."""
    yield ROOT / "config" / "kosmos.yaml", parameter_file()
    yield ROOT / "docs" / "architecture.svg", architecture()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        yield path, PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[3], path.read_text())


def parameter_file() -> str:
    """Return config/kosmos.yaml: every parameter with its default and its description."""
    parts = [YAML_HEAD]
    for title, kind in (
        ("The node", NodeSettings),
        ("Each camera: with several cameras also as <camera>.task and so on", CameraSettings),
    ):
        parts.append(f"\n    # {title} ".ljust(100, "-") + "\n")
        for field in dataclasses.fields(kind):
            words = [field.metadata["description"], *values(field, "{}")]
            words += ["Fixed."] if field.metadata["read_only"] else []
            comment = textwrap.wrap(" ".join(words), 95, break_on_hyphens=False)
            parts.append("\n" + "".join(f"    # {line}\n" for line in comment))
            parts.append(f"    {field.name}: {default(field)}\n")
    return "".join(parts)


def values(field: Field, form: str = "`{}`") -> list[str]:
    """Return a sentence that says which values a parameter may have, if it has limits."""
    if limits := field.metadata["limits"]:
        return [f"Range: {limits[0]} to {limits[1]}."]
    if choices := [form.format(choice) for choice in field.metadata["choices"]]:
        return [f"One of {', '.join(choices)}."]
    return []


def default(field: Field) -> str:
    """Return the default of a parameter as YAML."""
    if isinstance(field.default, tuple):
        return "[]"
    text = str(yaml.safe_dump(field.default)).partition("\n")[0]
    return '""' if text == "''" else text


def parameter_table(kind: type) -> str:
    """Return a Markdown table of the parameters in a dataclass."""
    rows = [
        (
            f"`{field.name}`",
            f"`{default(field)}`",
            "no" if field.metadata["read_only"] else "yes",
            " ".join([escaped(field.metadata["description"]), *values(field)]),
        )
        for field in dataclasses.fields(kind)
    ]
    return table(("parameter", "default", "can change", "meaning"), rows)


def key_table(keys: Mapping[str, status_keys.Key]) -> str:
    """Return a Markdown table of keys of a diagnostic status."""
    rows = [(f"`{name}`", key.unit, escaped(key.meaning)) for name, key in keys.items()]
    return table(("key", "unit", "meaning"), rows)


def message_tables() -> str:
    """Return each message, service and action of kosmos_msgs with a table of its fields."""
    paths = [
        *(MESSAGES / "msg" / f"{name}.msg" for name in MESSAGE_ORDER),
        *sorted((MESSAGES / "srv").iterdir()),
        *sorted((MESSAGES / "action").iterdir()),
    ]
    return "\n".join(interface(path) for path in paths)


MESSAGE_ORDER = (
    "GroundedCaption", "GroundedPhrase", "BoundingBox", "Answer", "Event", "Recollection",
)  # fmt: skip

SECTIONS = {
    ".msg": ("",),
    ".srv": ("Request", "Response"),
    ".action": ("Goal", "Result", "Feedback"),
}


def interface(path: Path) -> str:
    """Return a heading, the description and the tables of fields of one interface file."""
    lines = path.read_text().splitlines()
    intro = " ".join(line.lstrip("# ") for line in lines[: lines.index("")] if line != "#")
    parts = [f"### `kosmos_msgs/{path.parent.name}/{path.stem}`\n\n{escaped(intro)}\n"]
    sections = "\n".join(lines[lines.index("") :]).split("\n---\n")
    for title, section in zip(SECTIONS[path.suffix], sections, strict=True):
        rows = [
            (f"`{name}`", f"`{kind}`", escaped(meaning))
            for kind, name, meaning in re.findall(r"^(\S+) (\S+) +# (.+)$", section, re.MULTILINE)
        ]
        parts.append(
            (f"{title}:\n\n" if title else "") + table(("field", "type", "meaning"), rows)
        )
    return "\n".join(parts)


def encoding_list() -> str:
    """Return the names of the raw encodings, wrapped."""
    names = ", ".join(f"`{name}`" for name in ENCODINGS)
    return "\n".join(textwrap.wrap(names, 110, break_on_hyphens=False)) + "\n"


def program(name: str) -> str:
    """Return a program in docs/ as a block of Markdown."""
    return f"```python\n{(ROOT / 'docs' / name).read_text()}```\n"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def escaped(text: str) -> str:
    """Return `text` so that Markdown shows its angle brackets and asterisks."""
    return re.sub(r"([<>*])", r"\\\1", text)


PARTS: dict[str, Callable[[], str]] = {
    "client.py": lambda: program("client.py"),
    "stop_robot.py": lambda: program("stop_robot.py"),
    "parameters of the node": lambda: parameter_table(NodeSettings),
    "parameters of each camera": lambda: parameter_table(CameraSettings),
    "parameters of camera_node": lambda: parameter_table(CameraNodeSettings),
    "parameters of web_node": lambda: parameter_table(WebSettings),
    "values of a camera": lambda: key_table(status_keys.CAMERA),
    "values of ~/model_info": lambda: key_table(status_keys.MODEL_INFO | status_keys.LOADING),
    "values of the model": lambda: key_table(status_keys.MODEL),
    "values of the memory": lambda: key_table(status_keys.MEMORY),
    "encodings": encoding_list,
    "messages": message_tables,
}
"""Names of the generated parts, and the functions that write them."""


# The drawing of docs/architecture.md -----------------------------------------------------------

WIDTH, HEIGHT = 1212, 360  # pixels
BOX = 124  # width of a box, in pixels
LANES = {"frame": (120, "#1f6feb"), "request": (230, "#bc4c00")}  # height of the arrows, colour
THREADS = (  # title, left edge, right edge, fill
    ("executor thread", 162, 310, "#ddf4ff"),
    ("decode threads", 474, 622, "#ffe6f2"),
    ("model thread", 626, 774, "#dafbe1"),
    ("delivery thread", 786, 1066, "#fff8c5"),
)
BOXES = (  # left edge, top, bottom, lines of text
    (14, 85, 155, ("camera",)),
    (14, 195, 265, ("client",)),
    (174, 85, 155, ("image", "subscription")),
    (174, 195, 265, ("services,", "action")),
    (330, 85, 265, ("scheduler:", "newest frame", "of each camera,", "queue of", "requests")),
    (486, 85, 265, ("decode", "the image")),
    (638, 85, 265, ("engine:", "encode once,", "then one pass", "after another")),
    (794, 85, 265, ("grounding:", "text to phrases", "and boxes")),
    (934, 85, 265, ("conversions:", "captions to", "messages")),
    (1080, 85, 155, ("publishers",)),
    (1080, 195, 265, ("response,", "feedback")),
)


def architecture() -> str:
    """Return an SVG of the path of a frame and of a request through the threads."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14" text-anchor="middle">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for title, left, right, fill in THREADS:
        parts.append(
            f'<rect x="{left}" y="30" width="{right - left}" height="260" rx="8" fill="{fill}"/>'
            f'<text x="{(left + right) // 2}" y="55" font-weight="bold">{title}</text>'
        )
    for left, top, bottom, lines in BOXES:
        parts.append(
            f'<rect x="{left}" y="{top}" width="{BOX}" height="{bottom - top}" rx="4" '
            'fill="#ffffff" stroke="#57606a"/>'
        )
        first = (top + bottom) / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            parts.append(f'<text x="{left + BOX // 2}" y="{first + 18 * number:g}">{line}</text>')
    for name, (y, colour) in LANES.items():
        lefts = sorted({left for left, top, bottom, _ in BOXES if top <= y <= bottom})
        for start, end in itertools.pairwise(lefts):
            parts.append(
                f'<path d="M{start + BOX} {y} H{end - 6}" stroke="{colour}" stroke-width="2"/>'
                f'<path d="M{end} {y} l-9 -5 v10 z" fill="{colour}"/>'
            )
        x = 20 if name == "frame" else 500
        parts.append(
            f'<path d="M{x} 325 h40" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{x + 50}" y="330" text-anchor="start">{CAPTIONS[name]}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


CAPTIONS = {
    "frame": "a frame, if somebody subscribes to its results",
    "request": "a request: goes before frames; uses the newest frame or its own image",
}

if __name__ == "__main__":
    sys.exit(main())
