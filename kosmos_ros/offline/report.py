# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write a report: the frames of a log and their events as one web page, which opens from disk.

The page consists of the files in `page` and of parts of the web server's page. It contains all
data, and its Content-Security-Policy allows only its own script and style.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

from kosmos_ros.memory.records import Event, Observation

_OWN = Path(__file__).parent / "page"
_SHARED = Path(__file__).parents[1] / "web" / "page"
_STYLES = _SHARED / "base.css", _OWN / "report.css"
_SCRIPTS = (
    *(_SHARED / "parts" / f"{name}.js" for name in ("dom", "colours", "words", "theme")),
    *(_OWN / f"{name}.js" for name in ("frames", "tile", "grid", "strips", "report")),
)
"""The modules, each after those that it imports."""
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "./(\w+).js";', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|function|class) ([\w$]+))", re.MULTILINE)
BLOCK = 256
"""Frames in a block of the data. The page reads the pictures of a block when it needs one."""


Frame = tuple[Observation, Sequence[Event]]
"""A described frame and the events that it confirmed."""


def write_report(frames: Iterable[Frame], title: str, path: Path) -> int:
    """Write the page to `path`. The file there is replaced after the new page is complete.

    Returns the number of frames. They are read once, the oldest first, and at most BLOCK of them
    are in memory. Raises OSError, and the errors of `frames`.
    """
    style = "\n".join(each.read_text(encoding="utf-8") for each in _STYLES)
    script = "".join(map(_as_function, _SCRIPTS))
    values = {
        "title": html.escape(title),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    page = (_OWN / "report.html").read_text(encoding="utf-8")
    begin, end = (Template(part).substitute(values) for part in page.split("$data"))
    written = 0
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(begin)
            for block in _blocks(frames):
                written += len(block)
                file.write(_data("frames", json.dumps([_frame(*each) for each in block])))
                file.write(_data("pictures", "\n".join(_picture(seen) for seen, _ in block)))
            file.write(end)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _as_function(path: Path) -> str:
    """Return a module as a constant, whose value has the exports of the module.

    A page that is opened from disk cannot import modules.
    """
    code = path.read_text(encoding="utf-8")
    exports = ", ".join(_EXPORT.findall(code))
    code = _EXPORT.sub("", _IMPORT.sub(r"const \1 = module_\2;", code))
    return f"const module_{path.stem} = (() => {{\n{code}\nreturn {{ {exports} }};\n}})();\n"


def _hash(text: str) -> str:
    """Return the name of a text in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _blocks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    rest = iter(frames)
    while block := list(itertools.islice(rest, BLOCK)):
        yield block


def _data(name: str, text: str) -> str:
    """Return an element with data. It has no "<" that could end the element, and is never run."""
    escaped = text.replace("<", "\\u003c")
    return f'<script type="text/plain" class="{name}">\n{escaped}\n</script>\n'


def _picture(observation: Observation) -> str:
    return base64.b64encode(observation.thumbnail).decode() if observation.thumbnail else "-"


def _frame(observation: Observation, events: Sequence[Event]) -> dict[str, Any]:
    """Return what the page shows of a frame. See page/frames.js."""
    pose = observation.pose
    return {
        "time": observation.stamp // 1_000_000,  # ms, which JavaScript's numbers hold exactly
        "camera": observation.camera,
        "frame_id": observation.frame_id,
        "width": observation.width,
        "height": observation.height,
        "task": observation.task,
        "caption": observation.caption,
        "score": observation.score,
        "pose": pose and {"frame_id": pose.frame_id, "x": pose.x, "y": pose.y},
        "phrases": [
            {
                "text": phrase.text,
                "start": phrase.start,
                "end": phrase.end,
                "boxes": [
                    [box.x_min, box.y_min, box.x_max, box.y_max, box.score] for box in phrase.boxes
                ],
            }
            for phrase in observation.phrases
        ],
        "answers": [
            {"question": answer.question, "text": answer.text} for answer in observation.answers
        ],
        "events": [
            {name: getattr(event, name) for name in ("kind", "subject", "answer", "previous")}
            for event in events
        ],
    }
