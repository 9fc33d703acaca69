# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find what an observation log says about a question: "where did you last see the red cup?".

Each noun chunk of the question must be in what was said about a frame: all its words, or words of
the same meaning, in one chunk. If no frame has every chunk, there is no result. The index
finds frames, newest first; `recall` checks them and sorts the best ones first. Knows no ROS.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

from kosmos_ros.errors import RequestError
from kosmos_ros.memory import camera_names, colours, moments
from kosmos_ros.memory.log import SAME_STAMP, ObservationLog, camera_token
from kosmos_ros.memory.meanings import MAX_COMPOUND, Thesaurus
from kosmos_ros.memory.places import cells_near
from kosmos_ros.memory.record_json import Centre, centres_of
from kosmos_ros.memory.records import Observation, Phrase
from kosmos_ros.memory.wordnet import WordNet
from kosmos_ros.memory.words import (
    FIRST_SEEN,
    GONE,
    IMAGE,
    LAST_SEEN,
    NEGATIONS,
    REACH,
    bare,
    held,
    pair,
    parse,
    question_chunks,
    stem,
    thing_of,
)
from kosmos_ros.sanitize import quoted

DEFAULT_LIMIT = 5  # results
MAX_LIMIT = 1000  # results
MAX_QUESTION = 1000  # characters
MAX_CHUNKS = 8  # of a question
MAX_WORDS = REACH + 1  # of a chunk; the index has the pairs of so many words
MAX_READINGS = 200  # of a chunk: each is a term of the index's query
PAGE = 100  # frames that are read first; the best results are those among them
MAX_PAGE = 1600  # frames that are read at a time after that; small pages take more time in all
MAX_CHECKED = 5000  # frames that are read for one question

REFUSED = NEGATIONS | {"or", "either", "except"}
"""Words of a question that would give it another meaning: the search finds what was seen."""
VAGUE = frozenset({
    "color", "colored", "colour", "coloured", "figure", "form", "item", "kind", "object", "one",
    "shape", "shaped", "sort", "thing", "type",
})  # fmt: skip
"""Words that are ignored if their chunk has other words, too: "a red thing"."""
NAMED_COLOUR = 0.7
"""Closeness of "blue" to "navy". As a word one step above, it counts only if nothing else fits."""
CLEARLY = 1.0 / 32.0
"""Smallest distance of two centres in a relation, as a share of the frame: a cell of the grid."""

WHO = re.compile(r"\W*who\b", re.IGNORECASE)
NOTHING = frozenset({"item", "items", "object", "objects", "one", "ones", "thing", "things"})
"""Words that name no thing: "the thing on the chair"."""
LEFT, RIGHT, UP, DOWN = (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)
RELATIONS = {
    "leftof": (LEFT,),
    "rightof": (RIGHT,),
    "above": (UP,),
    "below": (DOWN,),
    "topleftof": (UP, LEFT),
    "toprightof": (UP, RIGHT),
    "lowleftof": (DOWN, LEFT),
    "lowrightof": (DOWN, RIGHT),
}
"""Preposition: directions in the image from the second thing to the first.

Those with two directions relate a thing to the whole image: "at the top left".
"""


@dataclass(frozen=True)
class Query:
    """A question, and where and when its answer may be."""

    text: str = ""  # empty, or without a noun: any frame
    camera: str | None = None  # name; None: any
    since: int | None = None  # ns; None: no limit
    until: int | None = None  # ns; None: no limit
    near: tuple[float, float, float] | None = None  # m: x, y and radius; None: anywhere
    last: bool = False  # newest first instead of best first
    limit: int = DEFAULT_LIMIT  # results
    now: int | None = None  # ns, for "today" in the text; None: words of time mean nothing
    first: bool = False  # oldest first instead of best first; not together with `last`


@dataclass(frozen=True)
class Recollection:
    """A frame that the question fits."""

    observation: Observation  # without its thumbnail
    score: float  # [0, 1]: closeness of the words times the model's score of the text
    phrases: tuple[Phrase, ...]  # those that matched


class _Said(NamedTuple):
    """A noun chunk of a text of the log."""

    stems: tuple[str, ...]
    nouns: tuple[tuple[int, int], ...]  # where one may end, and its number of words: `_compound`
    of: bool  # "of" is before it


@dataclass(frozen=True)
class _Reading:
    """One way to understand a chunk of a question in words of the log."""

    parts: tuple[tuple[str, ...], ...]  # stems; those of one part stand side by side
    closeness: float
    strict: bool = False  # the last part is a noun that the question does not have

    @property
    def term(self) -> str:
        """The query of the index for frames that have these words in one chunk."""
        stems = sorted({word for part in self.parts for word in part})
        terms = [pair(*two) for two in itertools.combinations(stems, 2)] or stems
        return "(" + " AND ".join(f'"{term}"' for term in terms) + ")"

    def fits(self, said: _Said) -> bool:
        """Return whether a chunk has all parts.

        If strict, the last one must be its noun: a "model car" is no person who is a model, and a
        "computer mouse" is no animal.
        """
        if not all(_has(said.stems, part) for part in self.parts):
            return False
        last = self.parts[-1]
        return not self.strict or any(
            said.stems[end - len(last) : end] == last and len(last) >= words
            for end, words in said.nouns
        )


@dataclass(frozen=True)
class _Chunk:
    """A noun chunk of a question."""

    between: str  # the words before it
    words: tuple[str, ...]
    readings: tuple[_Reading, ...]  # closest first
    said: Callable[[str], tuple[_Said, ...]]  # the chunks of a text of the log
    compared: dict[_Said, float] = field(default_factory=dict)  # results of `closeness`
    texts: dict[str, bool] = field(default_factory=dict)  # results of `is_in`

    @property
    def is_image(self) -> bool:
        """Return whether it is the whole image, which no caption names."""
        return self.words == (IMAGE,)

    def closeness(self, said: _Said) -> float:
        """Return how close a chunk of the log is; 0: it does not fit."""
        if said not in self.compared:
            fitting = (one.closeness for one in self.readings if one.fits(said))
            self.compared[said] = next(fitting, 0.0)
        return self.compared[said]

    def is_in(self, text: str) -> bool:
        """Return whether a chunk of a text of the log fits."""
        if text not in self.texts:
            self.texts[text] = any(map(self.closeness, self.said(text)))
        return self.texts[text]


def recall(log: ObservationLog, query: Query, net: WordNet | None) -> list[Recollection]:
    """Return the frames that fit a question, best, newest or oldest first; empty: never seen.

    The newest comes first if the query or its words ask for it ("where did you last see"), the
    oldest if they ask when something was first seen. Otherwise the best are chosen from the newest
    PAGE frames with all words, and from older ones if these give fewer than `query.limit` results.
    If no frame fits, names of colours mean basic colours, and a question for what happened to a
    thing is one for the thing, newest first. `net` has synonyms, see wordnet.find;
    None: there are none. Raises RequestError for a query that can never be answered, LogError if
    the log cannot be read.
    """
    _check(query)
    query = _ordered(limited(log, query))
    found = _answers(log, query, net)
    if not found and (thing := thing_of(query.text, log.old)):
        query = replace(query, text=thing, last=not query.first)
        found = _answers(log, query, net)
    if not query.last and not query.first:
        found.sort(key=lambda result: -result.score)  # stable: newest first
    return found[: query.limit]


def _answers(log: ObservationLog, query: Query, net: WordNet | None) -> list[Recollection]:
    """Return the frames that fit the text of a query, in the order of `_pages`."""
    named, dangling = question_chunks(query.text, log.old)
    if named[1:] and (
        NOTHING.issuperset(named[0][1])  # "the thing on the chair"
        or (_relation(named[1][0]) and not _telling(named[0][1]))  # "what kind is left of it?"
    ):
        del named[0]
    _check_names(named)
    # "The sky above" is a thing, but nothing can end with "left of".
    if (relation := _relation(dangling)) and (not named or {LEFT, RIGHT}.intersection(relation)):
        raise RequestError(
            f"a question must name a thing after its preposition, got {quoted(query.text)}"
        )
    found: list[Recollection] = []
    who = net is not None and WHO.match(query.text)
    if who:
        found = _search(log, query, [("", ("person",)), *named], net)
    if not found and (named or not who):
        found = _search(log, query, named, net)
    return found


def _search(
    log: ObservationLog,
    query: Query,
    named: Sequence[tuple[str, tuple[str, ...]]],
    net: WordNet | None,
) -> list[Recollection]:
    """Return the frames that have the named things; if there are none, with basic colours."""
    where = _where(log, query)
    thesaurus = Thesaurus(log.words(), net)
    said = partial(_said_in, old=log.old, net=net)
    wanted = [
        _Chunk(between, words, _readings(thesaurus, words) if words != (IMAGE,) else (), said)
        for between, words in named
    ]
    found = _found(log, query, wanted, where)
    if not found and any(colours.basic(words) for _, words in named):
        wanted = [
            replace(each, readings=_with_colours(thesaurus, each), compared={}, texts={})
            for each in wanted
        ]
        found = _found(log, query, wanted, where)
    return found


def _found(
    log: ObservationLog, query: Query, wanted: Sequence[_Chunk], where: list[str]
) -> list[Recollection]:
    """Return the frames that fit, in the order of `_pages`, up to the page that has enough."""
    if not all(chunk.readings or chunk.is_image for chunk in wanted):
        return []
    found: list[Recollection] = []
    for ids in _pages(log, query, wanted, where):
        observations = log.get(_in_relation(log, ids, wanted), thumbnails=False)
        found += filter(None, (_matched(each, wanted, query) for each in observations))
        if len(found) >= query.limit:
            break
    return found


def unknown_words(log: ObservationLog, question: str, net: WordNet | None) -> list[str]:
    """Return the words of a question that the log does not have.

    The question must name no time and no camera; see `limited`. Raises LogError.
    """
    thesaurus = Thesaurus(log.words(), net)
    unknown: list[str] = []
    for _, words in question_chunks(thing_of(question, log.old) or question, log.old)[0]:
        if words == (IMAGE,):
            continue
        missing = [
            _missing(thesaurus, _telling(reading)) for reading in (words, *colours.basic(words))
        ]
        fewest = min(missing, key=len)  # mypy needs the name
        unknown += fewest
    return list(dict.fromkeys(unknown))


def _missing(thesaurus: Thesaurus, words: tuple[str, ...]) -> list[str]:
    """Return the words that no word of the log can stand for, neither alone nor in a compound."""
    found, at = [], 0
    while at < len(words):
        counts = [count for count, _ in thesaurus.beginnings(words[at:])]
        if not counts:
            found.append(words[at])
        at += max(counts, default=1)
    return found


def _ordered(query: Query) -> Query:
    """Return a query with the order of frames that its words ask for. Raises RequestError."""
    first = query.first or bool(FIRST_SEEN.search(query.text.lower()))
    gone = not first and GONE.search(query.text.lower())
    last = query.last or bool(gone or LAST_SEEN.search(query.text.lower()))
    if first and last:
        raise RequestError(
            f"question {quoted(query.text)} asks for the oldest frame, but its words, --last or "
            "newest_first ask for the newest one; remove one of the two"
        )
    return replace(query, first=first, last=last)


def _check(query: Query) -> None:
    if not 1 <= query.limit <= MAX_LIMIT:
        raise RequestError(f"limit must be in [1, {MAX_LIMIT}], got {query.limit}")
    if len(query.text) > MAX_QUESTION:
        raise RequestError(
            f"a question may have at most {MAX_QUESTION} characters, got {len(query.text)}"
        )
    refused = [word for word in map(bare, query.text.split()) if word in REFUSED]
    if refused:
        raise RequestError(
            "a question must not have a negation, 'or', 'either' or 'except', got "
            f"{quoted(refused[0])}; name only what is in view, each alternative in a question of "
            "its own"
        )
    if query.near is not None and not (
        all(math.isfinite(value) for value in query.near) and query.near[2] > 0.0
    ):
        raise RequestError(f"near must be finite x, y and a radius > 0, got {query.near}")


def limited(log: ObservationLog, query: Query) -> Query:
    """Return a query with the times and the camera that its text named, and without their words.

    Raises RequestError if the text names two times, two cameras, another camera than the query, or
    an invalid time, or if the log has no such camera. Raises LogError if it cannot be read.
    """
    query = _timed(query)  # first, because a day may be the name of a folder of images
    cameras = log.cameras()
    text, named = camera_names.split(query.text, cameras)
    given = query.camera
    if given in (None, *cameras):
        given = camera_names.unknown(text, cameras)
    if given is not None:
        names = ", ".join(map(quoted, cameras)) or "none"
        raise RequestError(f"camera must be one of the log's ({names}), got {quoted(given)}")
    if len(named) > 1:
        raise RequestError(
            "a question must name at most one camera, got "
            f"{' and '.join(map(quoted, named))}; ask a question for each"
        )
    camera = named[0] if named else query.camera
    if query.camera not in (None, camera):
        raise RequestError(
            f"camera must be the one that the question names, {quoted(camera)}, or not be set, "
            f"got {quoted(query.camera)}"
        )
    return replace(query, text=text, camera=camera)


def _timed(query: Query) -> Query:
    """Return a query with the times that its text named, and without their words."""
    if query.now is None:
        return query
    text, *limits = moments.split(query.text, query.now)
    since = max((each for each in (query.since, limits[0]) if each is not None), default=None)
    until = min((each for each in (query.until, limits[1]) if each is not None), default=None)
    if text != query.text and since is not None and until is not None and since > until:
        raise RequestError(
            f"question {quoted(query.text)} names a time that is not between since and until; "
            "change one of them"
        )
    return replace(query, text=text, since=since, until=until)


def _check_names(named: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    if len(named) > MAX_CHUNKS:
        raise RequestError(f"a question may name at most {MAX_CHUNKS} things, got {len(named)}")
    for _, words in named:
        if len(words) > MAX_WORDS:
            raise RequestError(
                f"a thing may have at most {MAX_WORDS} words, got {len(words)}: "
                f"{quoted(' '.join(words))}"
            )


def _readings(thesaurus: Thesaurus, words: tuple[str, ...]) -> tuple[_Reading, ...]:
    """Return the ways to understand a chunk, closest first; empty: the log has none."""
    words = _telling(words) or words
    done: dict[int, list[_Reading]] = {len(words): [_Reading((), 1.0)]}
    for start in reversed(range(len(words))):
        found = [
            _Reading(
                (one.stems, *rest.parts),
                one.closeness * rest.closeness,
                one.noun if start + count == len(words) else rest.strict,
            )
            for count, one_of in thesaurus.beginnings(words[start:])
            for one, rest in itertools.product(one_of, done[start + count])
        ]
        done[start] = sorted(found, key=lambda reading: -reading.closeness)[:MAX_READINGS]
    return tuple(done[0])


def _with_colours(thesaurus: Thesaurus, chunk: _Chunk) -> tuple[_Reading, ...]:
    """Return the readings of a chunk, and those in which its colour names mean basic colours."""
    found = [
        replace(reading, closeness=NAMED_COLOUR * reading.closeness)
        for each in colours.basic(chunk.words)
        for reading in _readings(thesaurus, each)
    ]
    found = [*chunk.readings[: MAX_READINGS // 2], *found[: MAX_READINGS // 2]]
    return tuple(sorted(found, key=lambda reading: -reading.closeness))


def _telling(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a chunk without those of VAGUE."""
    return tuple(word for word in words if not {word, word.removesuffix("s")} & VAGUE)


def _where(log: ObservationLog, query: Query) -> list[str]:
    """Return the index's queries for the camera and the place, if they are given."""
    terms = []
    if query.camera is not None:
        terms.append(f'"{camera_token(log.cameras()[query.camera])}"')
    if query.near is not None and (cells := cells_near(*query.near)):
        terms.append(" OR ".join(f'"{cell}"' for cell in cells))
    return terms


def _pages(
    log: ObservationLog, query: Query, wanted: Sequence[_Chunk], where: list[str]
) -> Iterator[list[int]]:
    """Yield the ids of frames that the index finds, newest or, if asked for, oldest first."""
    named = [chunk for chunk in wanted if not chunk.is_image]
    terms = [" OR ".join(reading.term for reading in chunk.readings) for chunk in named] + where
    match = " AND ".join(f"({term})" for term in terms)
    since, until = query.since, None if query.until is None else query.until + SAME_STAMP
    # The index has no squares of the size of a large circle.
    around = query.near if query.near and not cells_near(*query.near) else None
    checked, page = 0, 2 * query.limit if query.last or query.first else PAGE
    while checked < max(MAX_CHECKED, 2 * query.limit):
        ids = log.search(match, since, until, page, around, query.first)
        yield ids
        if len(ids) < page:
            return
        checked, page = checked + page, min(4 * page, MAX_PAGE)
        if query.first:
            since = ids[-1] + 1
        else:
            until = ids[-1] - 1


def _in_relation(
    log: ObservationLog, ids: Sequence[int], wanted: Sequence[_Chunk]
) -> Sequence[int]:
    """Return the ids of the frames whose boxes have all relations of the question."""
    if not any(_relation(chunk.between) for chunk in wanted):
        return ids
    centres = log.centres(ids)
    return [number for number in ids if number in centres and _related(wanted, *centres[number])]


def _matched(
    observation: Observation, wanted: Sequence[_Chunk], query: Query
) -> Recollection | None:
    """Return the recollection of a frame, or None if the question does not fit it."""
    if not _is_when_and_where(observation, query):
        return None
    phrases = list(observation.shown)
    if wanted:  # otherwise "what did you see?"
        named = (_fitting(chunk, observation.shown) for chunk in wanted)
        phrases = [*itertools.chain(*named), *_others(wanted, observation)]
    texts = [(wanted[0].said(text), score) for text, score in observation.said] if wanted else []
    score = 1.0
    for chunk in wanted:
        if chunk.is_image:
            continue
        fitting = [(chunk.closeness(said), trust) for text, trust in texts for said in text]
        if not any(closeness for closeness, _ in fitting):
            return None
        score *= max(closeness * trust for closeness, trust in fitting)
    for one, two in itertools.pairwise(wanted):
        if two.between == "of" and not any(_holds(one, two, text) for text, _ in texts):
            return None
    return Recollection(observation, score, tuple(dict.fromkeys(phrases)))


def _holds(bottle: _Chunk, water: _Chunk, text: Sequence[_Said]) -> bool:
    """Return whether a text has "a bottle of water" or "a water bottle"."""
    return any(bottle.closeness(said) and water.closeness(said) for said in text) or any(
        two.of and bottle.closeness(one) and water.closeness(two)
        for one, two in itertools.pairwise(text)
    )


def _is_when_and_where(observation: Observation, query: Query) -> bool:
    """Return whether the stamp and the pose of a frame are what a query asks for."""
    early = query.since is not None and observation.stamp < query.since
    late = query.until is not None and observation.stamp > query.until
    if early or late or query.near is None:
        return not (early or late)
    pose, (x, y, radius) = observation.pose, query.near
    return pose is not None and math.hypot(pose.x - x, pose.y - y) <= radius


@lru_cache(maxsize=4096)
def _said_in(text: str, old: bool, net: WordNet | None) -> tuple[_Said, ...]:
    """Return the chunks of a text of the log. `old`: see words.parse."""
    parsed = parse(text, old)
    found = [
        _Said(
            tuple(map(stem, chunk.words)),
            tuple(
                (end, _compound(chunk.words[max(0, end - MAX_COMPOUND) : end], net))
                for end in chunk.ends
            ),
            chunk.between == "of",
        )
        for chunk in parsed
    ]
    for pair_of_nouns in [] if old else held(parsed):  # "a bottle of water" is a water bottle
        found.append(_Said(tuple(map(stem, pair_of_nouns)), ((2, 1),), False))
    return tuple(found)


@lru_cache(maxsize=65536)
def _compound(words: tuple[str, ...], net: WordNet | None) -> int:
    """Return how many of the last words WordNet has as one noun; 1: no more than the last one."""
    for count in range(len(words), 1, -1):
        if net is not None and net.has_noun(" ".join(words[-count:])):
            return count
    return 1


def _has(chunk: Sequence[str], part: tuple[str, ...]) -> bool:
    """Return whether a chunk has the word, or the words of a compound side by side."""
    if len(part) == 1:
        return part[0] in chunk
    return any(tuple(chunk[at : at + len(part)]) == part for at in range(len(chunk)))


def _fitting(chunk: _Chunk, phrases: Sequence[Phrase]) -> list[Phrase]:
    """Return the phrases that say what a chunk of the question says."""
    return [phrase for phrase in phrases if chunk.is_in(phrase.text)]


def _related(wanted: Sequence[_Chunk], width: int, height: int, centres: Sequence[Centre]) -> bool:
    """Return whether the boxes of a frame, of this size in pixels, can have all relations.

    Only positions in the image are checked, and only where both things have boxes. If a question
    begins with a relation ("what is left of the cup?"), another thing must have a box there. "On
    the left" means left of the centre of the image.
    """
    things = [
        [(width / 2.0, height / 2.0)]
        if chunk.is_image
        else [(x, y) for text, x, y in centres if chunk.is_in(text)]
        for chunk in wanted
    ]
    if _relation(wanted[0].between):
        things.insert(0, [(x, y) for text, x, y in centres if not wanted[0].is_in(text)])
        if not things[0] or not things[1]:
            return False
    else:
        wanted = wanted[1:]
    for chunk, first, second in zip(wanted, things, things[1:], strict=False):
        if chunk.is_image and not first:
            return False
        if not first or not second:
            continue
        limits = []
        for right, down in _relation(chunk.between):
            across, along = right / max(width, 1), down / max(height, 1)
            nearest = min(x * across + y * along for x, y in second)
            limits.append((across, along, nearest + CLEARLY))
        if not any(all(x * a + y * b >= least for a, b, least in limits) for x, y in first):
            return False
    return True


def _others(wanted: Sequence[_Chunk], seen: Observation) -> list[Phrase]:
    """Return the phrases with a box that "what is left of the cup?" asks for."""
    if not wanted or not _relation(wanted[0].between):
        return []
    cup = [each for each in seen.shown if wanted[0].is_in(each.text)]
    return [
        each
        for each in seen.shown
        if each not in cup
        and _related(wanted[:1], seen.width, seen.height, centres_of((each, *cup)))
    ]


def _relation(between: str) -> tuple[tuple[float, float], ...]:
    """Return the directions of the last of the words between two chunks; empty: it has none."""
    return RELATIONS.get(between.rpartition(" ")[2], ())
