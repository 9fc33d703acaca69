# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the camera that a question names: "did the rear camera see a cup?". Knows no log."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PICTURE = r"(?:images?|pictures?|frames?|views?|video|feed)"
_BEFORE = (
    rf"(?:\b(?:(?:in|on|from) )?(?:the )?{_PICTURE} (?:of|from) |"
    r"\b(?:in front of|before|with|through|via|by|on|from|in|of) )?(?:\b(?:the|my|your|our) )?"
)
_AFTER = rf"(?:['’]s)?(?: {_PICTURE}\b)?"


def split(question: str, cameras: Iterable[str]) -> tuple[str, list[str]]:
    """Return a question without the cameras that it names, and their names.

    "rear" is named by "the rear camera" and "camera rear". A name that is no plain word, such as
    "cam_1", and one that ends with "camera" or "cam" are also named by themselves.
    """
    names = {_spoken(name): name for name in sorted(cameras) if _spoken(name)}
    found: list[str] = []

    def leave_out(match: re.Match[str]) -> str:
        name = names.get(_spoken(match["before"] or match["after"] or match["alone"]))
        if name is None:  # letters such as "İ" are another word in lower case
            return match[0]
        found.append(name)
        return " "

    if not names:
        return question, found
    any_name, whole = (
        "|".join(_pattern(each) for each in sorted(some, key=len, reverse=True)) or "(?!)"
        for some in (names, [each for each in names if _is_whole(each, names[each])])
    )
    named = (
        rf"(?:(?P<before>{any_name}) cam(?:era)?\b|\bcamera (?P<after>{any_name})\b|"
        rf"(?P<alone>{whole})\b)"
    )
    text = re.sub(_BEFORE + r"\b" + named + _AFTER, leave_out, question, flags=re.IGNORECASE)
    return (" ".join(text.split()) if found else question), list(dict.fromkeys(found))


def _spoken(name: str) -> str:
    """Return the words of a name: "Front_Left" -> "front left"."""
    return " ".join(re.findall(r"[^\W_]+", name)).lower()


def _pattern(spoken: str) -> str:
    return r"[\W_]+".join(map(re.escape, spoken.split()))


def _is_whole(spoken: str, name: str) -> bool:
    """Return whether a name says by itself that it is a camera's."""
    return not name.isalpha() or spoken.endswith(("camera", "cam"))
