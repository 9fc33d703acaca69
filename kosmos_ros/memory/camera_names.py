# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the cameras that a question names: "did the rear camera see a cup?". Knows no log."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

_PICTURE = r"(?:images?|pictures?|photos?|frames?|views?|video|footage|recordings?|stream|feed)"
_BEFORE = (
    rf"(?P<before>\b(?:(?:in|on|from) )?(?:the )?{_PICTURE} (?:of|from) |"
    r"\b(?:in front of|before|with|through|via|by|on|from|in) )?(?:\b(?:the|my|your|our) )?"
)
_AFTER = rf"(?:['’]s)?(?P<picture> {_PICTURE}\b)?"
_SEES = (
    r"(?=\W*$|[,;.?!]|['’]s\b| (?:(?:last|first|ever|just|also) )?"
    rf"(?:sees?|saw|seen|shows?|showed|spot|spotted|notice|noticed|find|found|{_PICTURE})\b)"
)
"""What follows "camera front"; another word shows that the camera is a thing: "a camera table"."""
_SAW = (
    r" (?:(?:has|have|last|first|ever|just|still) )*(?:see|saw|seen|notice|noticed|spot|spotted)\b"
)
_UNKNOWN = re.compile(rf"\b(?:the|my|your|our) ((?:[\w-]+ ){{1,2}})cameras?{_SAW}", re.IGNORECASE)
_AND = r"(?:,? and |, | & )(?:the )?"
_NUMBERED = re.compile(r"^cam(?:era)? ?(?=\d+$)")  # "cam_1" is "camera 1"
NO_NAMES = {"", "a", "an", "the", "my", "your", "our", "which", "what", "camera", "cam"}
"""Names that a question cannot name: "the camera" is a thing."""
SIDES = {"left", "right"}
"""Names that mean something else after "camera": "is a camera left?"."""


def split(question: str, cameras: Iterable[str]) -> tuple[str, list[str]]:
    """Return the rest of a question, and the names of those `cameras` that it mentions.

    The camera "rear" is mentioned as "the rear camera" or "camera rear". A name that has letters
    and an underscore or a digit ("cam_1"), or that ends with the word "camera", may stand alone.
    If several names have the same words, the one with the same spelling is meant, or else all.
    """
    words = set(_spoken(question).split())
    names: dict[str, list[str]] = {}
    for name in sorted(cameras):
        spoken = _spoken(name)
        for each in {spoken, _NUMBERED.sub("", spoken)} - NO_NAMES:
            if words.issuperset(each.split()):
                names.setdefault(each, []).append(name)
    if not names:
        return question, []
    any_name = _one_of(map(_pattern, names))
    after = _one_of(_pattern(spoken) for spoken in names if spoken not in SIDES)
    alone = _one_of(filter(None, map(_alone, itertools.chain(*names.values()))))
    mentioned = (
        rf"(?:\b(?P<several>{any_name}(?:{_AND}{any_name})*)[\s_-]cam(?:era)?s?\b|"
        rf"\bcamera[\s:_-]+(?P<one>{after})\b{_SEES}|(?<!\w)(?P<alone>{alone})(?!\w))"
    )
    found: list[str] = []

    def leave_out(match: re.Match[str]) -> str:
        words = match["several"] or match["one"] or match["alone"]
        for part in re.findall(any_name, words, re.IGNORECASE):
            same = names.get(_spoken(part), [])  # none for "İ", which matches "i"
            found.extend([part] if part in same else same)
        if match["picture"] and match.string[: match.start()].endswith(" of "):
            return "the image"  # "on the left of the rear camera's image"
        # "How many cups did the rear camera see?" is "How many cups did you see?"
        sees = not match["before"] and re.match(_SAW, match.string[match.end() :], re.IGNORECASE)
        return " you " if sees else " "

    pattern = rf"(?<!\ba )(?<!\ban ){_BEFORE}{mentioned}{_AFTER}"
    text = re.sub(pattern, leave_out, question, flags=re.IGNORECASE)
    return (" ".join(text.split()) if found else question), list(dict.fromkeys(found))


def unknown(question: str) -> str | None:
    """Return the name of a camera that is not in the log: "did the left camera see a cup?".

    `question` is the text that `split` returned.
    """
    named = _UNKNOWN.search(question)
    return named[1].strip() if named else None


def _spoken(name: str) -> str:
    """Return the words of a name: "Front_Left" -> "front left"."""
    return " ".join(re.findall(r"[^\W_]+", name)).lower()


def _pattern(spoken: str) -> str:
    return r"[\W_]+".join(map(re.escape, spoken.split()))


def _alone(name: str) -> str | None:
    """Return the pattern of a name that needs no word beside it; None: it needs one."""
    spoken = _spoken(name)
    if spoken.endswith((" camera", " cam")):
        return _pattern(spoken)
    marked = "_" in name or any(map(str.isdigit, name))
    return re.escape(name) if marked and any(map(str.isalpha, name)) else None


def _one_of(patterns: Iterable[str]) -> str:
    """Return a pattern of any of these, longest first; of none, one that never matches."""
    return f"(?:{'|'.join(sorted(patterns, key=len, reverse=True)) or '(?!)'})"
