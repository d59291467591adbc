"""A small grammar of captions: which words name what.

It reads left to right with word lists (words.toml) and no backtracking, so in linear time, whatever
the caption holds.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_CHARS = 4_000
"""Of a caption that are read: OpenVid's stay below 2,000, and the subject comes early in any."""

_TOKEN = re.compile(r"<[^<>]{0,200}>|([^\W_]+(?:['’-][^\W_]+)*|[.!?;:,()])")
_WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))


@functools.cache
def words(section: str, name: str) -> frozenset[str]:
    """One list of words.toml."""
    return frozenset(_WORDS[section][name].split())


NOUNS: dict[str, str] = {}
"""Singular noun -> its kind; the first list that has it wins."""
for _kind, _list in _WORDS["nouns"].items():
    for _noun in _list.split():
        NOUNS.setdefault(_noun, _kind)

DETERMINERS = words("grammar", "determiners")
NUMBERS = {word: n for n, word in enumerate(_WORDS["grammar"]["numbers"].split())}
MANY = words("grammar", "many")
FRAMES = words("frames", "nouns")
PLURALS: dict[str, str] = _WORDS["plurals"]
ONE = words("groups", "one")
COLOURS = words("grammar", "colours")
ADJECTIVES = words("grammar", "adjectives") | COLOURS
PREPOSITIONS = words("grammar", "prepositions")
_STOPS = (
    PREPOSITIONS
    | words("grammar", "connectives")
    | words("grammar", "pronouns")
    | words("grammar", "auxiliaries")
    | words("grammar", "verbs")
)
_MAX_WORDS = 14  # of one noun phrase; longer ones are lists


@dataclass(frozen=True, slots=True)
class Token:
    """A word in lower case or a punctuation mark, and where it stands in the caption."""

    text: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum()

    @property
    def ends_sentence(self) -> bool:
        return self.text in ".!?"


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """first..last: its tokens after the determiner, inclusive, the head being the last.

    start, after: token numbers of its determiner and of what follows it. noun: the head in the
    singular; kind: of the head, "unknown" when no list has it; count: how many there are;
    whose: the noun that owns it ("a woman's hands"), or "".
    """

    start: int
    first: int
    last: int
    after: int
    noun: str
    kind: str
    count: int
    whose: str = ""


def tokens(caption: str) -> list[Token]:
    """Words and punctuation; HTML tags and all else are passed over."""
    return [
        Token(match[1].lower().replace("’", "'"), match.start(1), match.end(1))
        for match in _TOKEN.finditer(caption)
        if match[1]
    ]


def singular(word: str) -> str:
    """The singular of a plural that the lists know, else the word itself."""
    if word in ONE or word in NOUNS or word in FRAMES:
        return PLURALS.get(word, word)
    if word in PLURALS:
        return PLURALS[word]
    candidates = [word[:-1], word[:-2], word[:-3] + "y"] if word.endswith("s") else []
    return next((c for c in candidates if c in NOUNS or c in FRAMES), word)


def kind_of(word: str) -> str | None:
    """The kind of a noun in either number, None when no list has it. Hyphens: "teddy-bear"."""
    noun = singular(word)
    if noun in NOUNS:
        return NOUNS[noun]
    return NOUNS.get(singular(word.rpartition("-")[2])) if "-" in word else None


def noun_phrase(text: Sequence[Token], start: int, sure: bool = False) -> NounPhrase | None:
    """The noun phrase that begins at this token, None if none does.

    sure: there is one, so an unknown word may be its head without an article before it.
    """
    position, count, marked = _determiners(text, start)
    first, whose = position, ""
    head: int | None = None
    while position < min(len(text), first + _MAX_WORDS):
        word = text[position].text
        owner = word.removesuffix("'s").removesuffix("'")
        if owner != word and head is None:
            whose, first = singular(owner), position + 1
        elif _is_noun(text, position, head, marked and count == 1):
            head = position
        elif head is not None or not _modifies(text, position, position > first):
            break
        position += 1
    if head is None:
        head = _unknown_head(text, first, position) if marked or sure else None
    elif marked and count == 1 and position == head + 1 and kind_of(text[head].text) != "human":
        head = _compound_head(text, head)
    if head is None:
        return None
    word = text[head].text
    noun = singular(word)
    kind = kind_of(word) or ("frame" if noun in FRAMES else "unknown")
    return NounPhrase(
        start, first, head, head + 1, noun, kind, max(count, _number_of(word, noun)), whose
    )


def _determiners(text: Sequence[Token], position: int) -> tuple[int, int, bool]:
    """Past articles and numbers: (next token, count they tell, whether there were any)."""
    start, count = position, 1
    while position < len(text):
        word = text[position].text
        if word in NUMBERS:
            count = max(count, NUMBERS[word])
        elif word.isdecimal() and len(word) < 3:
            count = max(count, int(word))
        elif word in MANY:
            count = max(count, 3)
        elif word not in DETERMINERS:
            break
        position += 1
    return position, count, position > start


def _number_of(word: str, noun: str) -> int:
    """2 for a plural, 3 for a crowd."""
    if noun in words("groups", "collective") or word in words("groups", "collective"):
        return 2 if noun in words("groups", "two") else 3
    return 2 if word != noun and word not in ONE else 1


def _is_noun(text: Sequence[Token], position: int, head: int | None, single: bool) -> bool:
    """Whether a known noun stands here that is, or goes on with, the head of the phrase.

    single: the phrase is of one thing, so that "a man cooks" and "a cat bats" hold a verb.
    """
    word = text[position].text
    kind = kind_of(word) or ("frame" if singular(word) in FRAMES else None)
    if kind is None or word in _STOPS:
        return False
    following = text[position + 1] if position + 1 < len(text) else None
    if word in COLOURS and following is not None and _goes_on(following.text):
        return False
    if head is None:
        return True
    before = text[head].text
    looks_like_verb = word.endswith("ing") or (single and word.endswith("s"))
    is_verb = looks_like_verb and kind_of(before) in ("human", "animal")
    return not is_verb and before == singular(before)


def _goes_on(word: str) -> bool:
    return word in ("and", ",") or (word[0].isalnum() and word not in _STOPS)


def _modifies(text: Sequence[Token], position: int, inside: bool) -> bool:
    """Whether this token may stand before the head: "red and white striped", "small, round"."""
    word = text[position].text
    if word in ("and", ","):
        following = text[position + 1].text if position + 1 < len(text) else "."
        joins = text[position - 1].text in ADJECTIVES or text[position - 1].text.endswith("ed")
        return inside and (joins or word == ",") and _starts_adjective(following)
    if not text[position].is_word or word in _STOPS or word in DETERMINERS:
        return False
    if word.endswith("ing") and inside:
        following = text[position + 1].text if position + 1 < len(text) else "."
        return (
            _goes_on(following) and following not in DETERMINERS and following not in ("and", ",")
        )
    return True


def _starts_adjective(word: str) -> bool:
    return word in ADJECTIVES or (
        word[0].isalnum()
        and word not in _STOPS
        and word not in DETERMINERS
        and kind_of(word) is None
        and not word.endswith(("ing", "ly"))
    )


def _unknown_head(text: Sequence[Token], first: int, after: int) -> int | None:
    """The last word of a phrase without a known noun."""
    for position in range(after - 1, first - 1, -1):
        word = text[position].text
        if word in COLOURS or word not in ADJECTIVES | {"and", ","}:
            return position
    return None


def _compound_head(text: Sequence[Token], head: int) -> int:
    """One unknown word more, where it cannot be a verb: "a bird feeder hanging"."""
    if head + 2 >= len(text) or not text[head + 1].is_word:
        return head
    word, following = text[head + 1].text, text[head + 2].text
    is_open = word in _STOPS or word in DETERMINERS or word in words("grammar", "adverbs")
    if is_open or word in ADJECTIVES or word.endswith(("s", "ed", "ing", "ly")):
        return head
    ends = following in PREPOSITIONS or following.endswith("ing") or not following[0].isalnum()
    return head + 1 if ends or following in words("grammar", "auxiliaries") else head


def noun_runs(text: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """(first, last) of every run of known nouns: "toy frog", "oak table"."""
    first = None
    for position, token in enumerate([*text, Token(".", 0, 0)]):
        known = token.is_word and token.text not in _STOPS and kind_of(token.text) is not None
        if known and first is None:
            first = position
        elif not known and first is not None:
            yield first, position - 1
            first = None
