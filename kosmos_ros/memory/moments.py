# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the time that a question names: "today", "in the last hour". Knows no log and no things."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from kosmos_ros.errors import RequestError
from kosmos_ros.sanitize import quoted

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}  # s
NUMBERS = {
    "half an": 0.5, "half a": 0.5, "half": 0.5, "one": 1, "two": 2, "three": 3, "four": 4,
    "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
PARTS = {"": (0, 24), "morning": (0, 12), "afternoon": (12, 18), "evening": (18, 24)}  # h of a day

_FLAGS = re.IGNORECASE | re.ASCII  # otherwise "ſ" would be an "s"
_RECENT = re.compile(
    r"\b(?:in|during|within|over) the (?:last|past) "
    rf"(?:([0-9]{{1,4}}(?:\.[0-9]{{1,3}})?|{'|'.join(NUMBERS)}) )?"
    rf"({'|'.join(UNITS)})s?\b",
    _FLAGS,
)
_DAY = re.compile(
    r"\b(?:(this|yesterday) (morning|afternoon|evening)|(today|yesterday))\b", _FLAGS
)


def split(question: str, now: int) -> tuple[str, int | None, int | None]:
    """Return a question without the local time that it names, and the first and last ns of it.

    `now` is the time in ns. None: no limit. Raises RequestError if it names several times.
    """
    named = [*_RECENT.finditer(question), *_DAY.finditer(question)]
    if len(named) > 1:
        first, second, *_ = (quoted(each[0]) for each in sorted(named, key=lambda it: it.start()))
        raise RequestError(f"a question must name at most one time, got {first} and {second}")
    if not named:
        return question, None, None
    (found,) = named
    if found.re is _RECENT:
        number = (found[1] or "one").lower()
        count = NUMBERS[number] if number in NUMBERS else float(number)
        since, until = now - round(count * UNITS[found[2].lower()] * 10**9), None
    else:
        midnight = datetime.combine(datetime.fromtimestamp(now // 10**9), time())
        if (found[1] or found[3]).lower() == "yesterday":
            midnight -= timedelta(days=1)
        hours = (midnight + timedelta(hours=each) for each in PARTS[(found[2] or "").lower()])
        since, until = (int(each.timestamp()) * 10**9 for each in hours)
        until -= 1
    return f"{question[: found.start()]} {question[found.end() :]}", since, until
