# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the cameras that a question names: "did the rear camera see a cup?". Knows no log."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from kosmos_ros.memory.words import BREAKS, CLOSING, EMPTY, FILLERS, HAS_SEEN, OPENING, SEES

_PICTURE = r"(?:images?|pictures?|photos?|frames?|views?|video|footage|recordings?|stream|feed)"
_BEFORE = (
    rf"(?P<before>\b(?:(?:in|on|from) )?(?:the )?{_PICTURE} (?:of|from) |"
    r"\b(?:in front of|before|with|through|via|by|on|from|in) )?(?:\b(?:the|my|your|our) )?"
)
_AFTER = rf"(?:['’]s)?(?: {_PICTURE}\b)?"
_AND = r"(?:,? and |, | & )(?:the )?"
_ACTS = re.compile(rf"{SEES}|{HAS_SEEN}", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"\b(?:(?:do|does|did) (?:the|my|your|our) ([\w-]+(?: [\w-]+)?) cameras?"
    rf"{SEES}|(?:has|have|had) (?:the|my|your|our) ([\w-]+(?: [\w-]+)?) cameras?{HAS_SEEN})",
    re.IGNORECASE,
)
_KIND = re.compile(r"^cam(?:era)? ?(?=\d+$)|^cam(?:era)? | cam(?:era)?$")
"""The part of a name that a question may leave out: "cam_1" is "camera 1"."""
NO_NAMES = {"", "a", "an", "the", "my", "your", "our", "which", "what", "camera", "cam"}
"""Names that a question cannot name: "the camera" is a thing."""
_ON_OR_DID = re.compile(r"\b(?:on|from|by|in|do|does|did) $", re.IGNORECASE)
_GROUPS = ("other", "last", "first", "second", "side", "alone")
LEFT_OR_RIGHT = {"left", "right"}
"""Names that often mean something else after "camera": "is a camera left?"."""
ORDINARY = BREAKS | FILLERS | EMPTY | OPENING | CLOSING
"""Words without a thing. Others after "camera front" show that it is none: "a camera table"."""

KNOWN = BREAKS | {"first", "second", "last", "next", "same", "other", "only", "new", "old"}
"""Words that are no part of an unknown name: "did the first camera see"."""


def split(question: str, cameras: Iterable[str]) -> tuple[str, list[str]]:
    """Return the rest of a question, and the names of those `cameras` that it mentions.

    The camera "rear" is mentioned as "the rear camera" or "camera rear". A name that has letters
    and an underscore or a digit ("cam_1"), or "camera" as its first or last word, may stand alone.
    If several names have the same words, the one with the same spelling is meant, or else all.
    """
    words = set(_spoken(question).split())
    names: dict[str, list[str]] = {}
    for name in sorted(cameras):
        spoken = _spoken(name)
        for each in {spoken, _KIND.sub("", spoken)} - NO_NAMES:
            if words.issuperset(each.split()):
                names.setdefault(each, []).append(name)
    if not names:
        return question, []
    any_name = _one_of(map(_pattern, names))
    before = _one_of(_pattern(spoken) for spoken in names if not spoken.isdigit())
    after = _one_of(_pattern(spoken) for spoken in names if spoken not in LEFT_OR_RIGHT)
    sides = _one_of(LEFT_OR_RIGHT.intersection(names))
    alone = _one_of(filter(None, map(_alone, itertools.chain(*names.values()))))
    mentioned = (
        rf"(?:\b(?P<other>{any_name}){_AND}(?P<last>{any_name})[\s_-]cam(?:era)?s?\b|"
        rf"\b(?P<first>{before})[\s_-]cam(?:era)?\b|\bcamera[\s:_-]+(?P<second>{after})\b|"
        rf"\bcamera[\s:_-]+(?P<side>{sides})(?=\W*$|{SEES})|(?<!\w)(?P<alone>{alone})(?!\w))"
    )
    found: list[str] = []

    def leave_out(match: re.Match[str]) -> str:
        parts = [part for part in map(match.group, _GROUPS) if part]
        rest = match.string[match.end() :]
        follows = re.match(r"\s+([\w’'-]+)", rest)
        if match["second"] and follows and follows[1].lower() not in ORDINARY:
            return match[0]  # "a camera table"
        head = match.string[: match.start()]
        if match["side"] and not _ON_OR_DID.search(head + (match["before"] or "")):
            return match[0]  # "is there a camera left?"
        for part in parts:
            same = names.get(_spoken(part), [])  # none for "İ", which matches "i"
            found.extend([part] if part in same else same)
        if head.endswith(" of "):
            return "the image"  # "on the left of the rear camera"
        # "How many cups did the rear camera see?" is "How many cups did you see?"
        return " you " if not match["before"] and _ACTS.match(rest) else " "

    pattern = rf"(?<!\ba )(?<!\ban ){_BEFORE}{mentioned}{_AFTER}"
    text = re.sub(pattern, leave_out, question, flags=re.IGNORECASE)
    return (" ".join(text.split()) if found else question), list(dict.fromkeys(found))


def unknown(question: str, cameras: Iterable[str]) -> str | None:
    """Return the name of a camera that is not in the log: "did the left camera see a cup?".

    `question` is the text that `split` returned. None if the log's cameras have no names.
    """
    named = _UNKNOWN.search(question) if any(cameras) else None
    name = named and (named[1] or named[2])
    return None if not name or KNOWN.intersection(name.lower().split()) else name


def _spoken(name: str) -> str:
    """Return the words of a name: "Front_Left" -> "front left"."""
    return " ".join(re.findall(r"[^\W_]+", name)).lower()


def _pattern(spoken: str) -> str:
    return r"[\s_./:-]+".join(map(re.escape, spoken.split()))


def _alone(name: str) -> str | None:
    """Return the pattern of a name that needs no word beside it; None: it needs one."""
    spoken = _spoken(name)
    if spoken.endswith((" camera", " cam")) or spoken.startswith(("camera ", "cam ")):
        return _pattern(spoken)
    marked = "_" in name or any(map(str.isdigit, name))
    return re.escape(name) if marked and any(map(str.isalpha, name)) else None


def _one_of(patterns: Iterable[str]) -> str:
    """Return a pattern of any of these, longest first; of none, one that never matches."""
    return f"(?:{'|'.join(sorted(patterns, key=len, reverse=True)) or '(?!)'})"
