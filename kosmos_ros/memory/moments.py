# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the time that a question names: "today", "at 3 pm on Monday", "in the last hour".

Times are local. Knows no log and no things.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from kosmos_ros.errors import RequestError
from kosmos_ros.sanitize import quoted

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}  # s
NUMBERS = {
    "half an": 0.5, "half a": 0.5, "half": 0.5, "a couple of": 2, "a few": 5, "few": 5, "an": 1,
    "a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
PARTS = {"morning": (0, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 30)}
"""First and last hour of each part of a day. A night ends on the next day."""
SPOKEN = {"noon": 12, "midnight": 0}  # h
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LIMITS = ("since", "after", "before", "until", "till")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
AROUND = timedelta(minutes=30)  # "at 3 pm" is from 2:30 to 3:30 pm
AROUND_AGO = 0.5  # "ten minutes ago" is from 15 to 5 minutes ago

_FLAGS = re.IGNORECASE | re.ASCII  # otherwise "ſ" would be an "s"
_NUMBER = rf"[0-9]{{1,4}}(?:\.[0-9]{{1,3}})?|{'|'.join(NUMBERS)}"
_UNIT = rf"({'|'.join(UNITS)})s?"
_RECENT = rf"(?:in|during|within|over) the (?:last|past) (?:({_NUMBER}) )?{_UNIT}"
_AGO = rf"({_NUMBER}) {_UNIT} ago"
_PART = "|".join(PARTS)
_DAY = (
    rf"(?:on )?(?:today|yesterday|(?:last |this )?(?:{'|'.join(WEEKDAYS)})|(?:19|20)[0-9]{{2}}-"
    rf"[0-9]{{2}}-[0-9]{{2}})(?: (?:{_PART}))?|this (?:{_PART})|last night|tonight"
)
_TIME = r"[0-9]{1,2}(?::[0-9]{2})?(?: ?[ap]\.?m)|[0-9]{1,2}:[0-9]{2}|noon|midnight"
_CLOCK = (
    rf"(?:between|from) (?:{_TIME}|[0-9]{{1,2}}) (?:and|to|until|till) (?:{_TIME})"
    rf"|(?:(?:at|about|around) )*(?:{_TIME})"
)
_TIMES = re.compile(rf"(?:({_TIME}|[0-9]{{1,2}}) (?:and|to|until|till) )?({_TIME})$")
_MOMENT = re.compile(
    rf"(?<![\w:])(?:{_RECENT}|{_AGO}|(?:({'|'.join(LIMITS)}) )?"
    rf"(?:({_DAY})(?:,? ({_CLOCK}))?|({_CLOCK})(?:,? ({_DAY}))?))(?![\w:])",
    _FLAGS,
)


def split(question: str, now: int) -> tuple[str, int | None, int | None]:
    """Return a question without the time that it names, and the first and last ns of it.

    `now` is the time in ns. None: no limit. Raises RequestError if it names several times, or a
    time that does not exist.
    """
    named = [*_MOMENT.finditer(question)]
    if len(named) > 1:
        first, second, *_ = (quoted(found[0]) for found in named)
        raise RequestError(f"a question must name at most one time, got {first} and {second}")
    if not named:
        return question, None, None
    (found,) = named
    recent, unit, ago, unit_ago, limit, *parts = (text and text.lower() for text in found.groups())
    day, clock, clock_before, day_after = parts
    since: int | None
    until: int | None
    if unit:
        since, until = now - _duration(recent or "one", unit), None
    elif unit_ago:
        distance = _duration(ago, unit_ago)
        around = round(AROUND_AGO * distance)
        since, until = now - distance - around, now - distance + around
    else:
        local = datetime.fromtimestamp(now // 10**9)
        try:
            interval = _interval(limit, day or day_after, clock or clock_before, local)
        except ValueError as exc:
            raise RequestError(f"a time must exist, got {quoted(found[0])}: {exc}") from exc
        since, until = (None if each is None else _ns(each) for each in interval)
        until = None if until is None else until - 1
    return f"{question[: found.start()]} {question[found.end() :]}", since, until


def _ns(local: datetime) -> int:
    return int(local.timestamp()) * 10**9


def _duration(number: str, unit: str) -> int:
    """Return a duration in ns."""
    count = NUMBERS[number] if number in NUMBERS else float(number)
    return round(count * UNITS[unit] * 10**9)


_Interval = tuple[datetime | None, datetime | None]
"""The first moment, and the one after the last; None: no limit."""


def _interval(limit: str | None, day: str | None, clock: str | None, now: datetime) -> _Interval:
    """Return the interval of a named day, a named time of day, or both.

    Raises ValueError if it does not exist.
    """
    start, end = _of_day(day or "today", now)
    if clock:
        start, end = _of_clock(clock, start, end)
        if not day and start > now and limit not in ("before", "until", "till"):
            start, end = start - DAY, end - DAY
        if start == end and not limit:
            return start - AROUND, end + AROUND
    if limit in ("since", "after"):
        return (start if limit == "since" else end), None
    if limit:
        return None, (start if limit == "before" else end)
    return start, end


def _of_day(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Return the limits of a day or a part of it."""
    words = ["today", "night"] if text == "tonight" else text.split()
    if words[0] in ("on", "this"):
        del words[0]
    part = words.pop() if words[-1] in PARTS else None
    name = words[-1] if words else "today"
    today = datetime.combine(now, time())
    if name in WEEKDAYS:
        back = (now.weekday() - WEEKDAYS.index(name)) % 7
        midnight = today - timedelta(days=back or 7 * (words[0] == "last"))
    elif name in ("yesterday", "last"):
        midnight = today - DAY
    else:
        midnight = today if name == "today" else datetime.fromisoformat(name)
    first, last = PARTS[part] if part else (0, 24)
    return midnight + first * HOUR, midnight + last * HOUR


def _of_clock(text: str, start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return the limits of a time of day that begins in [start, end); equal ones of a moment."""
    first, last = _TIMES.findall(text)[0]
    midnight = datetime.combine(start, time())
    # "Yesterday afternoon at 3:30" and "between 3 and 4 pm" leave out a pm.
    twelve = end - start < DAY or re.search(r"[ap]\.?m", text) is not None
    firsts = [each for each in _times(first or last, midnight, twelve) if start <= each < end]
    if not firsts:
        raise ValueError(f"{first or last} is in another part of the day")
    if not first:
        return firsts[0], firsts[0]
    pairs = ((one, two) for one in firsts for two in _times(last, midnight, twelve) if two > one)
    return min(pairs, key=lambda pair: pair[1] - pair[0])


def _times(text: str, midnight: datetime, twelve: bool) -> list[datetime]:
    """Return when it is a time of day during two days and a half.

    `twelve`: an hour up to 12 without am or pm can mean both. Raises ValueError if there is no
    such time.
    """
    if text in SPOKEN:
        return [midnight + SPOKEN[text] * HOUR + count * DAY for count in range(3)]
    hour, minute, half = re.findall("([0-9]+)(?::([0-9]+))? ?([ap]?)", text)[0]
    if half and not 1 <= int(hour) <= 12:
        raise ValueError("an hour before am or pm must be in 1..12")
    at = timedelta(hours=int(hour) % 12 + 12 * (half == "p") if half else int(hour))
    time(at // HOUR, int(minute or 0))
    period = DAY / 2 if twelve and not half and at <= DAY / 2 else DAY
    return [midnight + at + int(minute or 0) * MINUTE + count * period for count in range(5)]
