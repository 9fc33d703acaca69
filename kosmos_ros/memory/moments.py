# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find the time that a question names: "today", "at 3 pm on Monday", "in the last hour".

Times are local. This module knows neither the log nor the things in a question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, time, timedelta

from kosmos_ros.errors import RequestError
from kosmos_ros.sanitize import quoted

UNITS = {
    "second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "h": 3600,
    "day": 86400, "week": 604_800,
}  # fmt: skip
"""Durations in s."""
COUNTS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50,
}  # fmt: skip
NUMBERS = {
    "half an": 0.5, "half a": 0.5, "a half": 0.5, "half": 0.5, "a couple of": 2, "a few": 5,
    "few": 5, "an": 1, "a": 1, **COUNTS,
}  # fmt: skip
PARTS = {"morning": (0, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 30)}
"""Start and end of each part of a day, in hours after midnight. A night ends on the next day."""
NIGHT_END = 6  # h; before it, "tonight" is the night that has begun
SPOKEN = {"noon": "12 pm", "midnight": "12 am"}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
STARTS, ENDS = ("since", "after"), ("before", "until", "till")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AROUND = timedelta(minutes=30)  # "at 3 pm" means 2:30 to 3:30 pm
AROUND_AGO = 0.5  # of the duration: "ten minutes ago" means 15 to 5 minutes ago

# What to write instead of a vague time
ONE_UNIT = "write one number and one unit, such as '90 minutes'"
WITH_SINCE = "write the start with 'since', such as 'since 3 pm'"
FULL_CLOCK = "write a time of day as '3 pm' or '15:00', or name the thing after the number"
PAST_DAY = "write a past day, such as 'on Monday' or '2026-05-31'"

Interval = tuple[int | None, int | None]
"""First and last ns; None: unbounded."""


def split(question: str, now: int) -> tuple[str, int | None, int | None]:
    """Return a question without its time, and the first and last ns of that time.

    `now` is the time in ns. None: unbounded, or the question names no time. Raises RequestError if
    it names several times or an invalid one.
    """
    rest, named = question, []
    for pattern, meaning in _FORMS:  # the longest forms come first
        for found in pattern.finditer(rest):
            named.append((found, meaning))
            rest = f"{rest[: found.start()]}{' ' * len(found[0])}{rest[found.end() :]}"
    if not named:
        return question, None, None
    named.sort(key=lambda each: each[0].start())
    (found, meaning), *others = [each for each in named if isinstance(each[1], str)] or named
    if others:
        first, second = quoted(found[0]), quoted(others[0][0][0])
        raise RequestError(f"a question must name at most one time, got {first} and {second}")
    try:
        if isinstance(meaning, str):
            raise ValueError(meaning)
        words = {name: text and text.lower() for name, text in found.groupdict().items()}
        since, until = meaning(words, now)
    except ValueError as exc:
        raise RequestError(f"cannot use the time {quoted(found[0])}: {exc}") from exc
    return rest, since, until


# Functions that compute the interval of each form from its named groups and the time now in ns ---

_Words = dict[str, str | None]


def _recent(words: _Words, now: int) -> Interval:
    if words["more"]:
        raise ValueError(ONE_UNIT)
    return now - _duration(words["number"] or "one", words["unit"]), None


def _ago(words: _Words, now: int) -> Interval:
    if words["more"]:
        raise ValueError(ONE_UNIT)
    distance = _duration(words["number"], words["unit"])
    around = 0 if words["bound"] else round(AROUND_AGO * distance)
    return _bounded(words["bound"], now - distance - around, now - distance + around)


def _duration(number: str | None, unit: str | None) -> int:
    """Return a duration in ns."""
    assert number and unit
    count = NUMBERS[number] if number in NUMBERS else float(number)
    return round(count * UNITS[unit] * 10**9)


def _week(words: _Words, now: int) -> Interval:
    today = _local(now)
    back = today.weekday() + 7 * (words["which"] == "last")
    monday = datetime.combine(today, time()) - back * DAY
    return _bounded(words["bound"], _ns(monday), _ns(monday + 7 * DAY))


def _day(words: _Words, now: int) -> Interval:
    day, bound = words["day"] or words["alone"] or "", words["bound"]
    start, end = _of_day(day, _local(now))
    back = 0 * DAY if bound in ENDS else _back(start, day, _local(now))
    return _bounded(bound, _ns(start - back), _ns(end - back))


def _days(words: _Words, now: int) -> Interval:
    first, last = words["first"] or "", words["last"] or ""
    (start, _), (_, end) = (_of_day(each, _local(now)) for each in (first, last))
    if start >= end and set(WEEKDAYS) & set(first.split()):
        start -= 7 * DAY  # "from Friday to Monday"
    return _bounded(None, _ns(start), _ns(end))


def _range(words: _Words, now: int) -> Interval:
    text, day = words["range"] or "", words["day"]
    start, end = _of_day(day or "today", _local(now))
    first, last = re.split(rf" {_TO} ", text)
    firsts = _times(first, start, end, text)
    lasts = _times(last, start, end + DAY, text)
    pairs = ((one, two) for one in firsts for two in lasts if two > one)
    first_at, last_at = min(pairs, key=lambda pair: pair[1] - pair[0])
    back = _back(first_at, day, _local(now))
    return _bounded(None, _ns(first_at - back), _ns(last_at - back))


def _clock(words: _Words, now: int) -> Interval:
    text, day = words["time"] or "", words.get("day")
    bound = words.get("bound") or words.get("within")
    part = words.get("part")
    start, end = _of_day(f"{day or 'this'} {part}" if part else day or "today", _local(now))
    at, *_ = _times(text, start, end, text)
    if bound not in ENDS:
        if not (bound or day) and at - AROUND + DAY <= _local(now):
            at += DAY  # at 23:45, "at midnight" has begun
        back = _back(at if bound else at - AROUND, day, _local(now))
        at, end = at - back, end - back
    if words.get("within"):  # "yesterday after 3 pm"
        first, last = (start, at) if words["within"] in ENDS else (at, end)
        return _bounded(None, _ns(first), _ns(last))
    if not bound:
        around = round(AROUND.total_seconds()) * 10**9
        return _bounded(None, _ns(at) - around, _ns(at) + around)
    return _bounded(bound, _ns(at), _ns(at))


def _bounded(bound: str | None, start: int, end: int) -> Interval:
    """Return the interval [start, end), or what is before or after it."""
    if bound in STARTS:
        return (start if bound == "since" else end), None
    if bound in ENDS:
        return None, (start if bound == "before" else end) - 1
    if start >= end:
        raise ValueError("it ends before it starts; midnight is the start of a day")
    return start, end - 1


def _back(at: datetime, day: str | None, now: datetime) -> timedelta:
    """Return by how much to move a future time back: a day, a week for a weekday, otherwise 0."""
    if at <= now:
        return 0 * DAY
    if not day:
        return DAY
    return 7 * DAY * (not day.startswith("this ") and bool(set(WEEKDAYS) & set(day.split())))


def _local(now: int) -> datetime:
    return datetime.fromtimestamp(now // 10**9)


def _ns(local: datetime) -> int:
    return int(local.timestamp()) * 10**9


def _of_day(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Return start and end of a day or a part of it. Raises ValueError for an invalid date."""
    words = ["today", "night"] if text == "tonight" else text.split()
    part = words.pop() if words[-1] in PARTS else None
    name = words[-1]
    midnight = datetime.combine(now, time())
    if name in WEEKDAYS:
        back = (now.weekday() - WEEKDAYS.index(name)) % 7
        midnight -= DAY * (back or 7 * (words[0] == "last"))
    elif name in ("yesterday", "last"):  # "last night"
        midnight -= DAY * (1 + ("before" in words))
    elif name not in ("today", "this"):  # "this morning"
        midnight = datetime.fromisoformat(name)
    elif part == "night" and now.hour < NIGHT_END:
        midnight -= DAY
    first, last = PARTS[part] if part else (0, 24)
    return midnight + first * HOUR, midnight + last * HOUR


def _times(text: str, start: datetime, end: datetime, whole: str) -> list[datetime]:
    """Return the moments in [start, end) with this time of day.

    Without am or pm, an hour up to 12 may mean either half of the day, if only a part of the day
    is named, or if the `whole` text has am or pm elsewhere. Raises ValueError if there is none.
    """
    hour, minute, half = re.findall("([0-9]+)(?::([0-9]+))? ?([ap]?)", SPOKEN.get(text, text))[0]
    if half and not 1 <= int(hour) <= 12:
        raise ValueError("an hour before am or pm must be in 1..12")
    known = not start.hour and not (end - start) % DAY and not re.search(_HALVES, whole)
    either = not half and not known and 1 <= int(hour) <= 12
    number = int(hour) % 12 + 12 * (half == "p") if half or either else int(hour)
    if number > 23 or int(minute or 0) > 59:
        raise ValueError("an hour must be in 0..23 and a minute in 0..59")
    at = datetime.combine(start, time(number, int(minute or 0)))
    moments = [at + count * (DAY / 2 if either else DAY) for count in range(5)]
    found = [moment for moment in moments if start <= moment < end]
    if not found:
        raise ValueError(f"{text} is not in that part of the day")
    return found


# The forms --------------------------------------------------------------------------------------


def _any(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_UNIT, _NUMBER = _any(*UNITS), _any(r"[0-9]{1,4}(?:\.[0-9]{1,3})?", *NUMBERS)
_TO, _PART = _any("and", "to", "until", "till"), _any(*PARTS)
_EDGE = _any(*STARTS, *ENDS)
_BOUND = rf"(?P<bound>{_EDGE})"
_WEEKDAY = _any(*WEEKDAYS)
_DAY = _any(
    rf"(?:today|(?:the day before )?yesterday|(?:19|20)[0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}}"
    rf"|(?:last |this ){_WEEKDAY})(?: {_PART})?",
    rf"{_WEEKDAY} {_PART}",
    rf"this {_PART}|last night|tonight",
)
_ANY_DAY = _any(_DAY, _WEEKDAY)  # where a weekday cannot belong to a name: "Sunday newspaper"
_HALVES = r"[ap]\.?m|noon|midnight"  # what tells which half of the day is meant
_VAGUE_HOUR = rf"(?:(?:1?[0-9]|2[0-4])(?:\.[0-5][0-9]|h)?|{_any(*COUNTS)})"
_VAGUE_END = rf"(?=\W*$|,? (?:(?:on )?{_ANY_DAY}|(?:in the|this) {_PART}))"
_MONTH = _any(
    "january", "february", "march", "april", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
# What follows a time, and not the rest of a name such as "last year calendar".
_TAIL = r"(?=\W*$|[,;]| (?:in|on|at|near|by|with|from|and)\b)"
_NAMED_DAY = rf"(?:on )?(?P<day>{_ANY_DAY})"
_CLOCK = _any(r"[0-9]{1,2}(?::[0-9]{2})? ?(?:[ap]m|[ap]\.m\.?)", "[0-9]{1,2}:[0-9]{2}", *SPOKEN)
_TIME, _AT = rf"(?P<time>{_CLOCK})", "(?:at |about |around )"
_IN_PART = rf"(?: in the (?P<part>{_PART}))?"
_RANGE = (
    rf"(?:between|from) (?P<range>{_any(_CLOCK, '[0-9]{1,2}')} {_TO} {_CLOCK}"
    rf"|{_CLOCK} {_TO} [0-9]{{1,2}})"
)
# Start of a longer duration. Without it, "twenty-five minutes ago" would be five minutes ago.
_MORE = _any(
    rf"(?:twenty|thirty|forty|fifty)[- ](?={_any(*COUNTS)} )",
    rf"{_any('[0-9]+', *COUNTS)} and (?=a half|half|a quarter)",
    rf"{_NUMBER} ?{_UNIT}s?,? (?:and )?",
    "[0-9]+(?:[,/]|[.](?=[0-9]{4}))",
    "quarters? of ",
)


def _form(pattern: str) -> re.Pattern[str]:
    # With IGNORECASE but without ASCII, "s" would match "ſ".
    flags = re.IGNORECASE | re.ASCII
    return re.compile(rf"(?<![\w:.,/'’-])(?:{pattern})(?![\w:/'’-]|\.\w)", flags)


# Each form with its function, or with what to write instead of it
_FORMS: list[tuple[re.Pattern[str], Callable[[_Words, int], Interval] | str]] = [
    (_form(pattern), meaning)
    for pattern, meaning in (
        (
            rf"(?:in|during|within|over|for) the (?:last|past) (?:(?P<number>{_NUMBER}) ?)?"
            rf"(?P<unit>{_UNIT})s?(?P<more> and a half| (?:and )?{_NUMBER} ?{_UNIT}s?)?",
            _recent,
        ),
        (rf"(?:{_BOUND} )?(?P<more>{_MORE})?(?P<number>{_NUMBER}) ?(?P<unit>{_UNIT})s? ago", _ago),
        (rf"(?:{_BOUND} )?(?P<which>this|last) week", _week),
        (
            rf"(?:between|from) (?:on )?(?P<first>{_ANY_DAY}) {_TO} (?:on )?(?P<last>{_ANY_DAY})",
            _days,
        ),
        (
            rf"{_AT}+(?P<time>[0-9]{{1,2}}) in the (?P<part>{_PART})(?:,? {_NAMED_DAY})?",
            _clock,
        ),
        (rf"{_NUMBER} (?:month|year|moment)s? ago", ONE_UNIT),
        (rf"(?:between|from) (?:[\w:.]+ ){{1,5}}?{_TO} now", WITH_SINCE),
        (rf"(?:next|every|each|any|previous) {_WEEKDAY}|tomorrow", PAST_DAY),
        (rf"(?:next|every|each|any|previous) (?:week|day){_TAIL}", PAST_DAY),
        (rf"(?:in|last|this|next) {_any(_MONTH, 'month', 'year', 'weekend')}{_TAIL}", PAST_DAY),
        (rf"(?:[0-9]{{1,2}}\.? {_MONTH}|{_MONTH} [0-9]{{1,2}}){_TAIL}", PAST_DAY),
        (r"on the [0-9]{1,2}(?:st|nd|rd|th)(?=\W*$)", PAST_DAY),
        (rf"(?:half|quarter) (?:past|to) {_VAGUE_HOUR}(?: [ap]m)?", FULL_CLOCK),
        (rf"(?:{_AT})*{_any(*COUNTS)} ?[ap]m{_VAGUE_END}", FULL_CLOCK),
        (rf"(?:between|from) {_VAGUE_HOUR} {_TO} {_VAGUE_HOUR}{_VAGUE_END}", FULL_CLOCK),
        (
            rf"(?:at|about|around|{_EDGE}) {_VAGUE_HOUR}"
            rf"(?: o.?clock|{_VAGUE_END})",
            FULL_CLOCK,
        ),
        (rf"{_NAMED_DAY},? {_RANGE}", _range),
        (rf"{_RANGE}(?:,? {_NAMED_DAY})?", _range),
        (rf"(?:{_BOUND} )?{_NAMED_DAY},? {_AT}*{_TIME}{_IN_PART}", _clock),
        (rf"{_NAMED_DAY},? (?P<within>{_EDGE}) {_AT}*{_TIME}{_IN_PART}", _clock),
        (rf"(?:{_BOUND} )?{_AT}*{_TIME}{_IN_PART},? {_NAMED_DAY}", _clock),
        (rf"{_BOUND} {_AT}*{_TIME}{_IN_PART}", _clock),
        (rf"{_AT}+{_TIME}{_IN_PART}", _clock),
        (
            rf"(?:{_BOUND} (?:on )?|on )(?P<day>{_ANY_DAY})"
            rf"|(?P<alone>{_DAY}|{_WEEKDAY}(?=\W*$))",
            _day,
        ),
    )
]
