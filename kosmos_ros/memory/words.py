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
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations, pairwise

MAX_WORD = 40  # characters; longer words are cut
REACH = 7
"""Largest distance of two words of a chunk that form a pair. It bounds the index's tokens."""

BREAKS = frozenset({
    "aboard", "about", "above", "across", "after", "against", "along", "alongside", "amid",
    "among", "and", "around", "as", "at", "atop", "away", "because", "before", "behind", "below",
    "beneath", "beside", "besides", "between", "beyond", "but", "by", "down", "during", "for",
    "from", "held", "hold", "holding", "holds", "if", "in", "inside", "into", "leftof", "like",
    "near", "next", "of", "off", "on", "onto", "opposite", "or", "out", "outside", "over", "past",
    "rightof",
    "showing", "so", "than", "that", "then", "through", "to", "toward", "towards", "under",
    "underneath", "up", "upon", "using", "versus", "via", "wearing", "when", "where", "whereas",
    "wear", "wears", "which", "while", "who", "whom", "whose", "with", "within", "wore",
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
EMPTY = frozenset({"all", "anything", "closest", "else", "everything", "nearest", "something"})
"""Words of a question that mean nothing; those of FILLERS also mean nothing in captions."""
OPENING = frozenset({
    "ago", "could", "describe", "did", "do", "does", "directly", "earlier", "ever",
    "find", "give", "had", "has", "have", "i", "in", "is", "last", "lately", "latest", "list",
    "locate", "look", "looking", "me", "most", "my", "please", "recent", "recently", "remember",
    "saw", "search", "see", "seen", "show", "shows", "since", "tell", "there", "time", "to", "was",
    "we", "were", "what", "when", "where", "which", "will", "would", "you", "your", "are",
    "about", "for", "a", "an", "the", "any", "some", "how", "many", "often",
})  # fmt: skip
"""Words of a question before its first noun: "where did you last see the"."""
CLOSING = frozenset({
    "again", "already", "anywhere", "appear", "appeared", "before", "earlier", "ever", "far", "go",
    "gone", "here", "kept", "last", "lately", "located", "now", "please", "present", "recently",
    "seen", "so", "somewhere", "stored", "there", "today", "visible", "yesterday", "yet",
})  # fmt: skip
"""Words of a question after its last noun: "have you seen a red cup recently"."""
QUANTITIES = frozenset({"bunch", "couple", "lot", "lots", "number", "pair", "piece", "set"})
"""Words of a question that mean nothing before "of": "a bunch of keys"."""
ASKING = re.compile(
    r"\b(?:(?:that|which|who) )?(?:(?:did|do|have|had|has|could) )?"
    r"(?:you|we|i|the robot|somebody|someone|anybody|anyone) "
    r"(?:(?:have|had|has|ever|first|last|already|just) )*(?:see|saw|seen|spot|spotted|notice|"
    r"noticed|find|found|leave|left|put|lose|lost|forget|forgot|forgotten|place|placed|drop|"
    r"dropped)\b|\b(?:the )?(?:very )?first time\b|\bfirst(?= (?:appear|appeared|seen|spotted)\b)|"
    r"\b(?:(?:could|to) )?be (?:seen|found)\b|\bhow long ago\b|\bwhat happened\b|"
    r"\bwhich cameras? (?:(?:has|have) )?(?:saw|see|sees|seen|shows?)\b|"
    r"\b(?:what|which) day\b|\bat (?:what|which|any|some) time\b|\bsome time\b|\bright now\b|"
    r"\b(?:in|into) view\b"
)
"""Words such as "did you see" and "did I leave". They mean nothing anywhere in a question."""
IMAGE = "wholeimage"
"""Word of a question that stands for the whole image: "on the left" is "leftof wholeimage"."""
SIDES = {"left": "leftof", "right": "rightof", "top": "above", "bottom": "below"}
POSITION = re.compile(
    rf"\b(?:on|at|to|in) the ({'|'.join(SIDES)})(?:(?: hand)? (?:side|half|part))?"
    r"(?= *(?:$|[?.!,;]|and\b|with\b)| (?:of|in) the (?:image|picture|photo|frame|view)\b)"
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
    r"\b(?:(?<=where )|(?<=what )|(?<=which )|(?<=how )|(?<=that )|(?<=who )|(?<=you )|(?<=we )|"
    r"(?<=i )|(?<=it )|(?<=they ))can\b|\bcan(?= (?:not|be|also|only|you|we|i|it|he|she|they|"
    r"any|anyone|anybody|someone|somebody|the|a|an|this|that|these|those|my|your)\b)"
)
"""The verb "can", but not the noun, as in "a trash can"."""
_COMPOUND = re.compile("|".join(rf"(\b(?:{words})\b)" for words in COMPOUNDS))
_PREPOSITIONS = ("", *COMPOUNDS.values())
_APOSTROPHE_S = re.compile(r"['’]s$")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_BORDER = re.compile(r"[^\w\s'’-]|\s-+\s")


def chunks(text: str) -> list[tuple[str, ...]]:
    """Return the noun chunks of a text, each as its words in lower case, not stemmed.

    Chunks of what is absent ("no cup", "without a hat") are left out. "A bottle of water" has
    the chunks [bottle], [water] and [water bottle].
    """
    linked = list(_linked(PICTURES.sub(" ", text)))
    found = [chunk for _, chunk in linked if chunk]
    for (_, holder), (between, held) in pairwise(linked):
        if between == "of" and held:
            found.append((held[-1], holder[-1]))
    return found


def question_chunks(question: str) -> tuple[list[tuple[str, tuple[str, ...]]], str]:
    """Return the chunks of a question, each with the words between it and the previous one.

    "where is the red cup left of the box" -> ("", (red, cup)), ("leftof", (box,)). Words such as
    "where did you last see" and "recently" are left out. "on the left" -> ("leftof", (IMAGE,)).
    Also returns the words after the last chunk: "what is left of" -> "leftof".
    """
    placed = POSITION.sub(lambda found: f"{SIDES[found[1]]} {IMAGE}", question.lower())
    text = SOMEONE.sub("person", ASKING.sub(" ", _simple(placed)))
    words = text.split()
    while words and bare(words[0]) in OPENING | EMPTY:
        del words[0]
    words = PICTURES.sub(" ", " ".join(words)).split()
    while words and bare(words[-1]) in CLOSING:
        del words[-1]
    *found, (dangling, _) = _linked(" ".join(word for word in words if bare(word) not in EMPTY))
    for at in reversed(range(len(found) - 1)):
        (between, part), (link, whole) = found[at : at + 2]
        if link == "of" and QUANTITIES.issuperset(part):
            found[at : at + 2] = [(between, whole)]
    return found, dangling


def tokens(texts: Iterable[str]) -> set[str]:
    """Return the index's tokens of all that was said about one frame.

    A token is the stem of a word, or the stems of two words of one chunk; see `pair`.
    """
    found: set[str] = set()
    for text in texts:
        for chunk in chunks(text):
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
    """Return a word in lower case, without the punctuation at its ends and a final "'s"."""
    return _APOSTROPHE_S.sub("", word.strip("?!.,;:'\"()").lower())


def _linked(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the chunks of a text, each with the words that separate it from the previous one.

    The last one is empty, and has the words after the last chunk.
    """
    chunk: list[str] = []
    between: list[str] = []
    absent = False
    for word in (*_words(text), ""):
        ends = not word or word in BREAKS or word in DETERMINERS or word in NEGATIONS
        if not ends:
            if word not in FILLERS:
                chunk.append(word)
            continue
        if chunk:
            if not absent:
                yield " ".join(between), tuple(chunk)
                between = []
            chunk, absent = [], False
        absent = word in NEGATIONS or (absent and word in DETERMINERS)
        if word and word not in DETERMINERS:
            between.append(word)
    yield " ".join(between), ()


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
    plain = _MODAL.sub(" ", plain)
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
