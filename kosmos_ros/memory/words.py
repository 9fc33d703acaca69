# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Cut texts into noun chunks, chunks into stemmed words, and these into tokens of the index.

Captions, answers and questions are cut in the same way. "a red chair and a blue cup" has the
chunks [red chair] and [blue cup]. The index has a token for each word and one for each pair of
words of a chunk, so that "red cup" is not found there. Knows no log and no synonyms.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import NamedTuple

MAX_WORD = 40  # characters; longer words are cut
REACH = 7
"""Largest distance of two words of a chunk that form a pair. It bounds the index's tokens."""

BREAKS = frozenset({
    "aboard", "about", "above", "across", "after", "against", "along", "alongside", "amid",
    "among", "and", "around", "as", "at", "atop", "away", "because", "before", "behind", "below",
    "beneath", "beside", "besides", "between", "beyond", "but", "by", "down", "during", "for",
    "from", "held", "hold", "holding", "holds", "if", "in", "inside", "into", "leftof", "like",
    "lowleftof", "lowrightof", "near", "next", "of", "off", "on", "onto", "opposite", "or", "out",
    "outside", "over", "past", "rightof", "showing", "so", "than", "that", "then", "through", "to",
    "topleftof", "toprightof", "toward", "towards", "under", "underneath", "up", "upon", "using",
    "versus", "via", "wear", "wearing", "wears",
    "when", "where", "whereas", "which", "while", "who", "whom", "whose", "with", "within", "wore",
})  # fmt: skip
"""Words that end a chunk: prepositions, conjunctions, and verbs that link two things."""
COMPOUNDS = {
    r"(?:(?:to|on|at) the )?left (?:hand )?(?:side )?(?:of|from)": "leftof",
    r"(?:(?:to|on|at) the )?right (?:hand )?(?:side )?(?:of|from)": "rightof",
    r"(?:in|at the) front of": "before",
    r"(?:on|at the) top of|atop": "above",
    r"at the bottom of|underneath|beneath|under": "below",
    r"(?:next|close) to|near to|by the side of|at the side of": "beside",
    r"over": "above",
}
"""Prepositions of several words: the word of BREAKS that stands for them."""
DETERMINERS = frozenset({
    "a", "an", "another", "any", "both", "each", "either", "every", "her", "his", "its", "my",
    "our", "some", "such", "that", "the", "their", "these", "this", "those", "your",
})  # fmt: skip
"""Words that begin a chunk."""
NEGATIONS = frozenset({
    "no", "without", "not", "neither", "nor", "never", "nobody", "none", "nothing",
})  # fmt: skip
"""Words that begin a chunk which names what is absent."""
FILLERS = frozenset({
    "am", "are", "be", "been", "being", "could", "did", "do", "does", "had", "has",
    "have", "he", "i", "is", "it", "may", "me", "might", "must", "she", "should", "there",
    "they", "us", "was", "we", "were", "will", "would", "yes", "you",
})  # fmt: skip
"""Words that mean nothing here and end no chunk: "the circle is red" is one chunk."""
EMPTY = frozenset({
    "all", "anything", "closest", "else", "everything", "few", "nearest", "several", "something",
})  # fmt: skip
"""Words of a question that mean nothing; those of FILLERS also mean nothing in captions."""
OPENING = frozenset({
    "ago", "could", "describe", "did", "do", "does", "directly", "earlier", "ever",
    "find", "give", "had", "has", "have", "i", "in", "is", "just", "know", "last", "lately",
    "latest", "locate", "look", "looking", "me", "most", "my", "only", "please", "recent",
    "recently", "remember", "saw", "search", "see", "seen", "show", "shows", "since", "tell",
    "there", "time", "times", "to", "was", "we", "were", "what", "when", "where", "which", "will",
    "would", "you", "your", "are", "about", "for", "a", "an", "the", "any", "some", "how", "many",
    "often",
})  # fmt: skip
"""Words of a question before its first noun: "where did you last see the"."""
CLOSING = frozenset({
    "again", "already", "anywhere", "appear", "appeared", "arrive", "arrived", "away", "before",
    "came", "come", "do", "doing", "done", "earlier", "ever", "far", "first", "found", "go",
    "gone", "here", "just", "kept", "last", "lately", "leave", "left", "like", "located", "look",
    "most", "noticed", "now", "please", "recently", "seen", "so", "somewhere", "spotted", "still",
    "stored", "there", "today", "visible", "went", "yesterday", "yet",
})  # fmt: skip
"""Words of a question after its last noun: "have you seen a red cup recently"."""
OLD_BREAKS = BREAKS - {"held", "hold", "holds", "wear", "wears", "wore"}
OLD_FILLERS = FILLERS | {"can"}
"""Those of the rules of older logs."""
AFTER_NOUNS = frozenset({
    "ahead", "alone", "apart", "asleep", "ate", "awake", "away", "broken", "closed", "dead",
    "drank", "drinks", "eats", "empty", "fell", "flies", "full", "hangs", "high", "hung", "lay",
    "left", "lies", "lit", "looks", "low", "made", "open", "outside", "plays", "ran", "rests",
    "rides", "rode", "runs", "sat", "seen", "shown", "shut", "sits", "sleeps", "slept", "spread",
    "stands", "stood", "tall", "together", "upright", "visible", "walks", "wide",
})  # fmt: skip
"""Words after the noun of a chunk, beside those that end in "ing" or "ed"."""
QUANTITIES = frozenset({"bunch", "couple", "lot", "lots", "number", "pair", "piece", "set"})
"""Words of a question that mean nothing before "of": "a bunch of keys"."""
BEGINNING = re.compile(
    r"^\W*(?:can(?= (?:you|we|i|he|she|it|they|the|a|an|any\w*|some\w*|this|that|these|those|my|"
    r"your)\b)|list(?= (?:all|any\w*|the|every\w*|a|my)\b))"
)
"""The first word of a question, if it is no thing: "can" and "list" can be things."""
_ADVERBS = r" (?:(?:ever|first|last|already|just|still) )*"
HAS_SEEN = rf"{_ADVERBS}(?:seen|noticed|spotted)\b"
SEES = rf"(?:{_ADVERBS}(?:see|sees|saw|notice|spot)\b|{_ADVERBS}(?:has|have){HAS_SEEN})"
"""What follows a camera that sees something: HAS_SEEN after "has the camera", SEES otherwise.

"Seen" alone is not enough: "where was the camera last seen?" asks for a camera.
"""
_SEEING = "see|sees|saw|seen|spot|spotted|notice|noticed|find|found"
_FIRST, _LAST = (
    rf"\b{word} (?:{_SEEING}|appear|appeared|things?|time)\b|"
    rf"\b{word}(?: (?:visible|there|here|in (?:view|sight)))?\W*$"
    for word in ("first", "last")
)
FIRST_SEEN = re.compile(_FIRST)
LAST_SEEN = re.compile(rf"{_LAST}|\b(?:latest|most recent|most recently)\b|\bnow\W*$")
"""Words that ask for the oldest and for the newest frame."""
_AWAY = r"(?: away| (?:from|out of) (?:view|sight))?"
GONE = re.compile(rf"\b(?:leave|go|gone|went){_AWAY}\W*$")
"""The last word of a question for a thing that was last seen in the newest frame with it."""
_LOSING = "leave|left|put|lose|lost|forget|forgot|forgotten|place|placed|drop|dropped"
_CAMERA = (
    r"(?:any|the|a|your|my|our|one|both|all|each|every)(?: (?:of )?(?:the|your|my|our))? "
    "cameras?"
)
ASKING = re.compile(
    r"\b(?:for )?(?:the )?(?:very )?(?:first|last) time\b|"
    r"\b(?:the )?(?:very )?(?:first|last) things?"
    rf"(?=(?: (?:that|which))? (?:you|we|i|the robot|{_CAMERA})\b)|"
    rf"\b(?:first|last)(?= (?:{_SEEING}|appear|appeared)\b)|"
    r"\b(?:(?:on|with|by|from) )?(?:which|what) (?:of the )?cameras? (?:(?:did|has|have|can) )?"
    rf"(?:(?:you|first|last|ever) )*(?:(?:{_SEEING}|shows?)\b)?|"
    r"\b(?:(?:that|which|who) )?(?:(?:did|do|have|had|has|could) )?"
    r"(?:you|we|i|the robot) "
    rf"(?:(?:have|had|has|ever|first|last|already|just|still) )*(?:{_SEEING}|{_LOSING})\b|"
    rf"\b(?:(?:that|which) )?(?:(?:do|does|did) )?{_CAMERA}{SEES}|"
    rf"\b(?:has|have|had) {_CAMERA}{HAS_SEEN}|"
    r"\b(?:did|has|have|had) (?:some|any)(?:one|body) (?:(?:ever|first|last) )*"
    rf"(?:{_SEEING}|{_LOSING})\b|\bwho (?:{_LOSING})\b|"
    r"\b(?:is|are|was|were|anything|something) left\b|(?<=one )left\b|(?<=body )left\b|"
    r"\b(?:(?:could|to) )?be (?:seen|found)\b|\bhow long ago\b|\bwhat happened\b|"
    r"\bany signs? of\b|\b(?:what|which) day\b|"
    r"\bat (?:what|which|any|some) time\b|\bsome time\b|\bright now\b|"
    r"\bon camera(?=\W*$)|\b(?:in|into|from|out of) (?:view|sight)\b|"
    r"\b(?:in|on|from) the (?:latest|most recent|newest|last) (?:image|picture|photo|frame|view)\b"
)
"""Words such as "did you see" and "did I leave". They mean nothing anywhere in a question."""
_HAPPENED = re.compile(
    r"\b(?:(?:you|we|i|the robot) )?(?:lose|lost) (?:sight|track) of\b|"
    r"\b(?:(?:did|has|have|had) (?:some|any)(?:one|body)|who(?: has)?) "
    r"(?:move|moved|take|took|taken|steal|stole|stolen)\b|"
    r"\b(?:been )?(?:disappear|disappeared|lost|missing|moved|stolen|taken|vanish|vanished)"
    rf"{_AWAY}(?: (?:yet|now|already))?\W*$",
    re.IGNORECASE,
)
"""Words for what happened to a thing: "is the cup missing?", "who took the cup?"."""
IMAGE = "wholeimage"
"""Word of a question that stands for the whole image: "on the left" is "leftof wholeimage"."""
CORNERS = {
    f"{height} {side}": f"{place}{side}of"
    for height, place in (("top", "top"), ("upper", "top"), ("bottom", "low"), ("lower", "low"))
    for side in ("left", "right")
}
SIDES = CORNERS | {"left": "leftof", "right": "rightof", "top": "above", "bottom": "below"}
POSITION = re.compile(
    rf"\b(?:on|at|to|in) the ({'|'.join(SIDES).replace(' ', '[ -]')})"
    r"(?:(?:[ -]hand)? (?:side|half|part|corner))?"
    r"(?= *(?:$|[?.!,;]|(?:and|with|now|last|first|recently|again)\b)"
    r"| (?:of|in) the (?:image|picture|photo|frame|view)\b)"
    r"(?: (?:of|in) the (?:image|picture|photo|frame|view))?"
)
"""A place in the image. It does not match "on the left of the cup" or "in the left hand"."""
SOMEONE = re.compile(r"\b(?:any|some)(?:one|body)\b")
PICTURES = re.compile(
    r"^\W*(?:(?:an?|the|this|these|all|any|some)\s+)?(?:images?|pictures?|photos?|photographs?|"
    r"frames?|scenes?)\s+(?:of|with|shows?|showing|features?|contains?|has|have)\b",
    re.IGNORECASE,
)
"""Beginning of a caption or a question that means nothing: "An image of"."""
_MODAL = re.compile(
    r"\b(?:(?<=where )|(?<=what )|(?<=which )|(?<=how )|(?<=who )|(?<=you )|(?<=we )|(?<=i )|"
    r"(?<=they ))can\b|\bcan(?= (?:not|be|also|only)\b)|"
    rf"\b(?<=that )can(?= (?!(?:{'|'.join(sorted(BREAKS))}|is|are|was|were)\b)\w)",
    re.IGNORECASE,
)
"""The verb "can", but not the noun, as in "a trash can"."""
_COMPOUND = re.compile("|".join(rf"(\b(?:{words})\b)" for words in COMPOUNDS))
_PREPOSITIONS = ("", *COMPOUNDS.values())
_SHORT_VERB = re.compile(r"['’](?:s|m|re|ve|d)$")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_BORDER = re.compile(r"[^\w\s'’-]|\s-+\s")


class Chunk(NamedTuple):
    """A noun chunk of a text."""

    between: str  # the words that separate it from the previous chunk
    words: tuple[str, ...]  # in lower case, not stemmed
    head: int  # number of words up to its noun: 2 in "delivery truck parked"

    @property
    def ends(self) -> tuple[int, ...]:
        """Where a noun may end: before a word such as "parked", or at the end."""
        found = {at for at in range(1, len(self.words)) if _follows(self.words[at])}
        return tuple(sorted(found | {self.head, len(self.words)}))


def parse(text: str, old: bool = False) -> list[Chunk]:
    """Return the noun chunks of a text, without those of what is absent: "no cup".

    `old`: by the rules of logs of version 1 and 2, whose index must not get other tokens.
    """
    return [chunk for chunk in _linked(PICTURES.sub(" ", text), old) if chunk.words]


def chunks(text: str, old: bool = False) -> list[tuple[str, ...]]:
    """Return the words of the noun chunks of a text. See `parse`.

    "A bottle of water" has the chunks [bottle], [water] and [water bottle].
    """
    found = parse(text, old)
    return [chunk.words for chunk in found] + ([] if old else held(found))


def held(found: Sequence[Chunk]) -> list[tuple[str, str]]:
    """Return the nouns around "of": (water, bottle) of "a bottle of water"."""
    return [
        (two.words[two.head - 1], one.words[one.head - 1])
        for one, two in pairwise(found)
        if two.between == "of"
    ]


def question_chunks(
    question: str, old: bool = False
) -> tuple[list[tuple[str, tuple[str, ...]]], str]:
    """Return the chunks of a question, each with the words between it and the previous one.

    "where is the red cup left of the box" -> ("", (red, cup)), ("leftof", (box,)). Words such as
    "where did you last see" and "recently" are left out. "on the left" -> ("leftof", (IMAGE,)).
    Also returns the words after the last chunk: "what is left of" -> "leftof". `old`: see `parse`.
    """
    placed = POSITION.sub(
        lambda found: f"{SIDES[found[1].replace('-', ' ')]} {IMAGE}",
        BEGINNING.sub("", question.lower()),
    )
    plain = _simple(placed if old else _MODAL.sub(" ", placed))
    text = SOMEONE.sub("person", ASKING.sub(" ", plain))
    words = text.split()
    while words and bare(words[0]) in OPENING | EMPTY:
        del words[0]
    words = PICTURES.sub(" ", " ".join(words)).split()
    while words and bare(words[-1]) in {"", *CLOSING}:
        del words[-1]
    words = [word for word in words if bare(word) not in EMPTY]
    *named, last = _linked(" ".join(words), old)
    found = [(chunk.between, chunk.words) for chunk in named]
    for at in reversed(range(len(found) - 1)):
        (between, part), (link, whole) = found[at : at + 2]
        if link == "of" and QUANTITIES.issuperset(part):
            found[at : at + 2] = [(between, whole)]
    return found, last.between


def thing_of(question: str, old: bool = False) -> str:
    """Return a question without what happened to its thing; empty if no thing is left.

    "is the cup missing?" -> "is the cup". A frame may show a cup, but not that it is missing.
    "What disappeared?" has no thing: it must find nothing rather than any frame.
    """
    rest = _HAPPENED.sub(" ", question)
    return rest if rest != question and question_chunks(rest, old)[0] else ""


def tokens(texts: Iterable[str], old: bool = False) -> set[str]:
    """Return the index's tokens of all that was said about one frame. `old`: see `parse`.

    A token is the stem of a word, or the stems of two words of one chunk; see `pair`.
    """
    found: set[str] = set()
    for text in texts:
        for chunk in chunks(text, old):
            stemmed = [stem(word) for word in chunk]
            found.update(stemmed)
            found.update(
                pair(stemmed[first], stemmed[second])
                for first, second in combinations(range(len(stemmed)), 2)
                if second - first <= REACH
            )
    return found


def pair(one: str, other: str) -> str:
    """Return the token of two stems of one chunk, in either order."""
    return "_".join(sorted((one, other)))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Return a word without its ending, by SQLite's Porter stemmer: "circles" -> "circl"."""
    return _STEMMER.stem(word)


def bare(word: str) -> str:
    """Return a word in lower case, without the punctuation at its ends and "'s" or "'m"."""
    return _SHORT_VERB.sub("", word.strip("?!.,;:'\"()").lower())


def _linked(text: str, old: bool) -> Iterator[Chunk]:
    """Yield the chunks of a text. The last one has no words, only those before it."""
    breaks, fillers = (OLD_BREAKS, OLD_FILLERS) if old else (BREAKS, FILLERS)
    chunk: list[str] = []
    between: list[str] = []
    head, absent = 0, False
    for word in (*_words(text if old else _MODAL.sub(" ", text)), ""):
        ends = not word or word in breaks or word in DETERMINERS or word in NEGATIONS
        if not ends:
            if word not in fillers:
                chunk.append(word)
            elif not head:  # "the circle is red"
                head = len(chunk)
            continue
        if chunk:
            if not absent:
                yield Chunk(" ".join(between), tuple(chunk), _head(chunk[: head or len(chunk)]))
                between = []
            chunk, head, absent = [], 0, False
        absent = word in NEGATIONS or (absent and word in DETERMINERS)
        if word and word not in DETERMINERS:
            between.append(word)
    yield Chunk(" ".join(between), (), 0)


def _head(words: Sequence[str]) -> int:
    """Return the number of words up to the noun: "delivery truck parked" -> 2."""
    count = len(words)
    while count > 1 and _follows(words[count - 1]):
        count -= 1
    return count


def _follows(word: str) -> bool:
    return word in AFTER_NOUNS or word.endswith(("ing", "ed"))


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case without accents, and "" for punctuation."""
    for part in _BORDER.split(_simple(text)):
        for found in _WORD.findall(part):
            yield re.split("['’]", found)[0][:MAX_WORD]
        yield ""


def _simple(text: str) -> str:
    """Return a text in lower case without accents, with one word for each of COMPOUNDS."""
    plain = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text.lower())
        if not unicodedata.combining(letter)
    )
    return _COMPOUND.sub(lambda found: _PREPOSITIONS[found.lastindex or 0], plain)


class _Stemmer:
    """SQLite's Porter stemmer, which the module sqlite3 offers only as a part of its index."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._words.execute(
            "CREATE VIRTUAL TABLE word USING fts5(text, content='', tokenize='porter unicode61')"
        )
        self._words.execute("CREATE VIRTUAL TABLE stem USING fts5vocab(word, row)")

    def stem(self, word: str) -> str:
        with self._lock:
            self._words.execute("INSERT INTO word(rowid, text) VALUES (1, ?)", (word,))
            stems = self._words.execute("SELECT term FROM stem").fetchall()
            self._words.execute("INSERT INTO word(word) VALUES ('delete-all')")
        # SQLite does not know all letters that Python knows. They separate words, as in the index.
        return "".join(term for (term,) in stems) or "0"


_STEMMER = _Stemmer()
